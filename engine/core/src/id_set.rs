//! A set of keyed hashes that grows and goes without a long step, and costs one look at memory for each call.
//!
//! Its hashes are as good as random, there are tens of millions of them, none is ever taken out, and the memory that a
//! look touches is in no cache: what counts is how many lines of it a look and the insertion behind it touch. So a
//! table is an array of lines of eight hashes, each the size of a line of the cache; a hash lies in the line that its
//! lowest bits name, or where that is full in the next one that is not. Two looks and two insertions for each message
//! touch two lines and not four, as with a table that keeps its hashes apart from what it finds them by.
//!
//! It is cut into tables by bits of the hash. A table that is full at its largest size is split into two by the next
//! bit, which moves a quarter of a million hashes at most, however many the set holds: extendible hashing. At that size
//! a table is one huge page.

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

/// Hashes of a line: 64 bytes.
const LINE_COUNT: usize = 8;
/// Tests need not hash millions.
const PLACE_COUNT_MAX: usize = if cfg!(test) { 1 << 9 } else { 1 << 18 };
/// Most hashes of one table of the largest size.
const TABLE_COUNT_MAX: usize = room(PLACE_COUNT_MAX / LINE_COUNT);
/// The tables are chosen by bits from here on: a table looks at the lowest ones itself.
const FIRST_BIT: u32 = 32;
/// Beyond so many bits tables grow instead: no set that is keyed comes here.
const DEPTH_MAX: u32 = 16;

/// How many hashes so many lines take. With an eighth more, looks would walk through many full lines.
const fn room(line_count: usize) -> usize {
    line_count * LINE_COUNT / 16 * 13
}

/// Hashes with some bits in common.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// A power of two of them, or none. Lines are filled from the front; zero is an empty place.
    lines: Vec<[u64; LINE_COUNT]>,
    count: usize,
    /// How many bits its hashes have in common.
    depth: u32,
}

impl Table {
    /// An empty one that will take so many.
    fn for_count(count: usize, depth: u32) -> Self {
        let mut line_count = 2;
        while room(line_count) < count {
            line_count *= 2;
        }
        Self { lines: vec![[0; LINE_COUNT]; line_count], count: 0, depth }
    }

    fn is_full(&self) -> bool {
        self.count >= room(self.lines.len())
    }

    /// The line where a hash begins to look for its place.
    const fn line_of(&self, hash: u64) -> usize {
        hash as usize & (self.lines.len() - 1)
    }

    fn has(&self, hash: u64) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        let mut at = self.line_of(hash);
        loop {
            let line = &self.lines[at];
            // All of them at once: there is nothing to be saved by an early end.
            if line.iter().fold(false, |found, &other| found | (other == hash)) {
                return true;
            }
            if line[LINE_COUNT - 1] == 0 {
                return false;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// Puts one into its place; there is one.
    fn put(&mut self, hash: u64) {
        let mut at = self.line_of(hash);
        while self.lines[at][LINE_COUNT - 1] != 0 {
            at = (at + 1) & (self.lines.len() - 1);
        }
        let line = &mut self.lines[at];
        let filled = line.iter().filter(|&&other| other != 0).count();
        line[filled] = hash;
        self.count += 1;
    }

    fn hashes(&self) -> impl Iterator<Item = u64> {
        self.lines.as_flattened().iter().copied().filter(|&hash| hash != 0)
    }

    /// Makes room for twice as many.
    fn grow(&mut self) {
        let mut larger = Self::for_count(room(2 * self.lines.len()), self.depth);
        self.hashes().for_each(|hash| larger.put(hash));
        *self = larger;
    }
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

/// Zero is no hash: the one in 2^64 that is becomes another.
const fn some(hash: u64) -> u64 {
    if hash == 0 { u64::MAX } else { hash }
}

impl IdSet {
    /// A set that expects so many: it takes their memory as they come, and grows only past them.
    pub(crate) fn for_count(count: usize) -> Self {
        // Four fifths leave room for tables that get more than their share.
        let mut depth = 0;
        while depth < DEPTH_MAX && !Self::is_small(count >> depth) {
            depth += 1;
        }
        let table = |_| Table { depth, ..Table::default() };
        Self {
            tables: (0..1_u32 << depth).map(table).collect(),
            directory: (0..1 << depth).collect(),
            depth,
            count: 0,
            first_count: (count >> depth) + (count >> depth >> 6),
        }
    }

    /// Whether it would be one table only.
    pub(crate) const fn is_small(count: usize) -> bool {
        count <= TABLE_COUNT_MAX / 5 * 4
    }

    /// Makes some of the tables that it expects to need, before they are needed: to be called again while it says that
    /// there are more.
    pub(crate) fn make_ready(&mut self, table_count: usize) -> bool {
        let first_count = self.first_count;
        let mut missing = self.tables.iter_mut().filter(|table| table.lines.is_empty());
        for table in missing.by_ref().take(table_count) {
            *table = Table::for_count(first_count, table.depth);
            // Zeroed memory is there when it is touched first, which costs more than all the rest: a huge page is cleared.
            black_box(&mut table.lines)[0] = [0; LINE_COUNT];
        }
        missing.next().is_some()
    }

    /// How many it has.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has this one.
    pub(crate) fn has(&self, hash: u64) -> bool {
        let hash = some(hash);
        self.tables[self.table_of(hash)].has(hash)
    }

    /// Where a look for it begins: for who asks for that memory ahead.
    pub(crate) fn line(&self, hash: u64) -> Option<&[u64; LINE_COUNT]> {
        let hash = some(hash);
        let table = &self.tables[self.table_of(hash)];
        (!table.lines.is_empty()).then(|| &table.lines[table.line_of(hash)])
    }

    /// Takes one that it does not have.
    pub(crate) fn insert_new(&mut self, hash: u64) {
        let hash = some(hash);
        let mut index = self.table_of(hash);
        while self.tables[index].is_full() {
            let Table { lines, depth, .. } = &self.tables[index];
            if lines.is_empty() {
                self.tables[index] = Table::for_count(self.first_count, *depth);
            } else if lines.len() * LINE_COUNT < PLACE_COUNT_MAX || *depth == DEPTH_MAX {
                self.tables[index].grow();
            } else {
                self.split(index);
                index = self.table_of(hash);
            }
        }
        self.tables[index].put(hash);
        self.count += 1;
    }

    /// Its tables, to be freed one by one.
    pub(crate) fn into_tables(self) -> impl Iterator<Item = Table> {
        self.tables.into_iter().filter(|table| !table.lines.is_empty())
    }

    fn table_of(&self, hash: u64) -> usize {
        let bits = (hash >> FIRST_BIT) as usize & ((1 << self.depth) - 1);
        self.directory[bits] as usize
    }

    fn split(&mut self, index: usize) {
        if self.tables[index].depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let depth = self.tables[index].depth;
        let bit = 1_u64 << (FIRST_BIT + depth);
        let half = || Table::for_count(TABLE_COUNT_MAX, depth + 1);
        let (mut low, mut high) = (half(), half());
        for hash in self.tables[index].hashes() {
            if hash & bit == 0 { low.put(hash) } else { high.put(hash) }
        }
        self.tables[index] = low;
        let new = self.tables.len() as u32;
        self.tables.push(high);
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
            assert!(set.tables.iter().all(|table| table.lines.len() * LINE_COUNT <= PLACE_COUNT_MAX));
            assert_eq!(set.into_tables().map(|table| table.hashes().count()).sum::<usize>(), 1_700);
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

    #[test]
    fn hashes_that_want_the_same_line_are_found_in_the_next_ones() {
        // The last line's: those that find it full go on at the first.
        let mut set = IdSet::for_count(24);
        let crowd = |n: u64| n << 8 | 0xff;
        (1..=20).for_each(|n| set.insert_new(crowd(n)));
        assert!((1..=20).all(|n| set.has(crowd(n))));
        assert!(!set.has(crowd(0)) && !set.has(crowd(21)));
        set.insert_new(0);
        assert!(set.has(0));
        assert_eq!(set.len(), 21);
    }
}
