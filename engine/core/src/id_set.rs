//! A set of keyed hashes that grows and goes without a long step.
//!
//! It is cut into tables by bits of the hash. A table that is full at its largest size is split into two by the next
//! bit, which moves a quarter of a million hashes at most, however many the set holds: extendible hashing. At that size
//! a table is large enough to lie on huge pages.

use alloc::vec::Vec;
use hashbrown::HashTable;

/// Most hashes of one table: what 2^18 places of 9 bytes hold, 2.25 MiB.
const TABLE_COUNT_MAX: usize = PLACE_COUNT_MAX / 8 * 7;
/// Tests need not hash millions.
const PLACE_COUNT_MAX: usize = if cfg!(test) { 1 << 9 } else { 1 << 18 };
/// The tables are chosen by bits from here on: a table looks at the lowest and the highest ones itself.
const FIRST_BIT: u32 = 32;
/// Beyond so many bits tables grow instead: no set that is keyed comes here.
const DEPTH_MAX: u32 = 16;

#[derive(Debug)]
struct Table {
    hashes: HashTable<u64>,
    /// How many bits its hashes have in common.
    depth: u32,
}

/// A set of hashes.
#[derive(Debug)]
pub(crate) struct IdSet {
    tables: Vec<Table>,
    /// Which table has the hashes with these bits; as long as 2^depth.
    directory: Vec<u32>,
    depth: u32,
    count: usize,
    /// What a table takes room for when its first hash comes.
    first_count: usize,
}

impl IdSet {
    /// A set that expects so many: it takes their memory as they come, and grows only past them.
    pub(crate) fn for_count(count: usize) -> Self {
        // Four fifths leave room for tables that get more than their share.
        let mut depth = 0;
        while depth < DEPTH_MAX && count >> depth > TABLE_COUNT_MAX / 5 * 4 {
            depth += 1;
        }
        let table = |_| Table { hashes: HashTable::new(), depth };
        Self {
            tables: (0..1_u32 << depth).map(table).collect(),
            directory: (0..1 << depth).collect(),
            depth,
            count: 0,
            first_count: (count >> depth) + (count >> depth >> 6),
        }
    }

    /// How many it has.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has this one.
    pub(crate) fn has(&self, hash: u64) -> bool {
        self.tables[self.table_of(hash)].hashes.find(hash, |h| *h == hash).is_some()
    }

    /// Takes one that it does not have.
    pub(crate) fn insert_new(&mut self, hash: u64) {
        let mut index = self.table_of(hash);
        while self.is_to_be_split(index) {
            self.split(index);
            index = self.table_of(hash);
        }
        if self.tables[index].hashes.capacity() == 0 {
            self.tables[index].hashes.reserve(self.first_count, |h| *h);
        }
        self.tables[index].hashes.insert_unique(hash, hash, |h| *h);
        self.count += 1;
    }

    /// Its tables, to be freed one by one.
    pub(crate) fn into_tables(self) -> impl Iterator<Item = HashTable<u64>> {
        self.tables.into_iter().map(|table| table.hashes).filter(|hashes| hashes.capacity() > 0)
    }

    fn table_of(&self, hash: u64) -> usize {
        let bits = (hash >> FIRST_BIT) as usize & ((1 << self.depth) - 1);
        self.directory[bits] as usize
    }

    fn is_to_be_split(&self, index: usize) -> bool {
        let Table { hashes, depth } = &self.tables[index];
        hashes.len() >= TABLE_COUNT_MAX && hashes.len() == hashes.capacity() && *depth < DEPTH_MAX
    }

    fn split(&mut self, index: usize) {
        if self.tables[index].depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let Table { hashes, depth } = &mut self.tables[index];
        let bit = 1_u64 << (FIRST_BIT + *depth);
        *depth += 1;
        let depth = *depth;
        // Both are new: what is taken out of a table leaves marks in it that cost a rehash later.
        let old = core::mem::take(hashes);
        let mut halves = [(); 2].map(|()| HashTable::with_capacity(TABLE_COUNT_MAX));
        for hash in old {
            halves[usize::from(hash & bit != 0)].insert_unique(hash, hash, |h| *h);
        }
        let [low, high] = halves;
        self.tables[index].hashes = low;
        let new = self.tables.len() as u32;
        self.tables.push(Table { hashes: high, depth });
        let place = (bit >> FIRST_BIT) as usize;
        for (bits, table) in self.directory.iter_mut().enumerate() {
            if *table == index as u32 && bits & place != 0 {
                *table = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spread as keyed hashes are.
    fn hash(n: u64) -> u64 {
        let mixed = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn many_hashes_are_all_there_in_tables_of_bounded_size() {
        for expected in [0, 100, 1_700] {
            let mut set = IdSet::for_count(expected);
            for n in 0..1_700 {
                assert!(!set.has(hash(n)));
                set.insert_new(hash(n));
            }
            assert_eq!(set.len(), 1_700);
            assert!((0..1_700).all(|n| set.has(hash(n))));
            assert!((1_700..3_000).all(|n| !set.has(hash(n))));
            assert!(set.tables.len() >= 4);
            assert!(set.tables.iter().all(|table| table.hashes.capacity() <= TABLE_COUNT_MAX));
            assert_eq!(set.into_tables().map(|table| table.len()).sum::<usize>(), 1_700);
        }
    }

    #[test]
    fn a_set_that_was_expected_is_not_split() {
        let mut set = IdSet::for_count(1_700);
        let table_count = set.tables.len();
        (0..1_700).for_each(|n| set.insert_new(hash(n)));
        assert_eq!(set.tables.len(), table_count);
    }

    #[test]
    fn hashes_that_are_alike_end_the_splitting() {
        let mut set = IdSet::for_count(0);
        (0..TABLE_COUNT_MAX as u64 + 10).for_each(|n| set.insert_new(n));
        assert_eq!(set.depth, DEPTH_MAX);
        assert!((0..TABLE_COUNT_MAX as u64 + 10).all(|n| set.has(n)));
    }
}
