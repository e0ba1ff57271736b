//! Envelopes in memory: slabs by size class, so that a million small ones cost neither headers nor fragmentation.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use tern_protocol::envelope::{HEADER_BYTES, NAME_BYTES_MAX};

/// Room for what an envelope has beside its body, bytes: bodies are often as large as they may be, or a power of two.
const HEADER_ROOM_BYTES: usize = 128;
/// Slot sizes, in bytes.
const CLASS_BYTES: [usize; 9] = [
    256,
    512,
    1024 + HEADER_ROOM_BYTES,
    2048 + HEADER_ROOM_BYTES,
    4096 + HEADER_ROOM_BYTES,
    8192 + HEADER_ROOM_BYTES,
    16_384 + HEADER_ROOM_BYTES,
    32_768 + HEADER_ROOM_BYTES,
    65_536,
];
const _: () = assert!(HEADER_BYTES + NAME_BYTES_MAX <= HEADER_ROOM_BYTES);
const CLASS_COUNT: usize = CLASS_BYTES.len();
/// Most bytes that one entry may have.
pub const ENTRY_BYTES_MAX: usize = CLASS_BYTES[CLASS_COUNT - 1];
/// Bytes of a chunk: what is asked from and given back to the allocator at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Most slots of a chunk.
const SLOTS_MAX: usize = CHUNK_BYTES / CLASS_BYTES[0];
/// What is held beyond a limit at most, bytes: a chunk of each size, so that none waits for room that others hold.
pub const SLACK_BYTES: usize = CLASS_COUNT * CHUNK_BYTES;

/// Where an entry is. Good until [`Cache::remove`]; using it afterwards is a bug, which debug builds catch when the
/// slot is still empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheRef {
    chunk: u32,
    slot: u16,
    class: u16,
}

impl CacheRef {
    /// Bytes of memory that the entry takes: its slot.
    #[must_use]
    pub const fn slot_bytes(self) -> usize {
        CLASS_BYTES[self.class as usize]
    }
}

const _: () = assert!(size_of::<CacheRef>() == 8 && SLOTS_MAX <= u16::MAX as usize + 1);

/// Slots of one class in one piece of memory.
#[derive(Debug)]
struct Chunk {
    bytes: Box<[u8]>,
    /// Bytes of the entry in each slot; zero where it is empty.
    lengths: Box<[u32]>,
    /// Empty slots, last freed first.
    free: Vec<u16>,
}

/// The chunks of one slot size.
#[derive(Debug, Default)]
struct Class {
    /// Given-back chunks leave a hole, which the next new chunk fills: references stay good.
    chunks: Vec<Option<Chunk>>,
    holes: Vec<u32>,
    /// Chunks with an empty slot, in any order; a chunk is listed at most once.
    open: Vec<u32>,
    /// Of those, chunks without an entry.
    empty_count: u32,
}

/// A store of byte strings. It takes what it is given; whoever has a limit asks [`Cache::has_room`] before.
#[derive(Debug, Default)]
pub struct Cache {
    classes: [Class; CLASS_COUNT],
    chunk_count: usize,
    bytes_used: usize,
}

impl Cache {
    /// Whether `length` bytes find room while `bytes_max` bytes of memory may be held, up to [`SLACK_BYTES`] more
    /// included: in a chunk that is there, or in a new one. Empty slots of another size are no room, and a chunk goes
    /// back only when all its entries are gone: few of them may hold much.
    #[must_use]
    pub fn has_room(&self, length: usize, bytes_max: usize) -> bool {
        let Some(class) = class_of(length) else { return false };
        let class = &self.classes[class];
        if !class.open.is_empty() || class.chunk_count() == 0 {
            return true;
        }
        // The first chunk of each size is its own.
        let first_count = self.classes.iter().filter(|class| class.chunk_count() > 0).count();
        (self.chunk_count - first_count + 1) * CHUNK_BYTES <= bytes_max
    }

    /// Copies `bytes` in. `None` when they are longer than [`ENTRY_BYTES_MAX`].
    pub fn insert(&mut self, bytes: &[u8]) -> Option<CacheRef> {
        let class = class_of(bytes.len())?;
        if self.classes[class].open.is_empty() {
            self.classes[class].grow(class);
            self.chunk_count += 1;
        }
        self.bytes_used += CLASS_BYTES[class];
        let (chunk, slot) = self.classes[class].put(class, bytes);
        Some(CacheRef { chunk, slot, class: class as u16 })
    }

    /// The bytes of an entry.
    #[must_use]
    pub fn get(&self, entry: CacheRef) -> &[u8] {
        let chunk = self.classes[usize::from(entry.class)].chunk(entry.chunk);
        let stored = chunk.lengths[usize::from(entry.slot)];
        debug_assert!(stored != 0, "a removed cache entry is read");
        let start = usize::from(entry.slot) * CLASS_BYTES[usize::from(entry.class)];
        &chunk.bytes[start..start + stored.saturating_sub(1) as usize]
    }

    /// Forgets an entry. Gives a wholly empty chunk back, unless it is the only one of its class.
    pub fn remove(&mut self, entry: CacheRef) {
        let class = usize::from(entry.class);
        if self.classes[class].take(entry.chunk, entry.slot) {
            self.chunk_count -= 1;
        }
        self.bytes_used -= CLASS_BYTES[class];
    }

    /// Bytes of all slots that hold an entry.
    #[must_use]
    pub const fn bytes_used(&self) -> usize {
        self.bytes_used
    }

    /// Bytes of memory taken from the allocator for slots.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.chunk_count * CHUNK_BYTES
    }
}

/// The smallest slots that take so many bytes.
fn class_of(length: usize) -> Option<usize> {
    CLASS_BYTES.iter().position(|&bytes| length <= bytes)
}

impl Class {
    const fn chunk_count(&self) -> usize {
        self.chunks.len() - self.holes.len()
    }

    fn chunk(&self, index: u32) -> &Chunk {
        self.chunks[index as usize].as_ref().expect("a cache entry whose chunk is there")
    }

    fn grow(&mut self, class: usize) {
        let slot_count = CHUNK_BYTES / CLASS_BYTES[class];
        let chunk = Chunk {
            bytes: vec![0; CHUNK_BYTES].into_boxed_slice(),
            lengths: vec![0; slot_count].into_boxed_slice(),
            free: (0..slot_count).rev().map(|slot| slot as u16).collect(),
        };
        let index = match self.holes.pop() {
            Some(hole) => {
                self.chunks[hole as usize] = Some(chunk);
                hole
            }
            None => {
                self.chunks.push(Some(chunk));
                (self.chunks.len() - 1) as u32
            }
        };
        self.open.push(index);
        self.empty_count += 1;
    }

    fn put(&mut self, class: usize, bytes: &[u8]) -> (u32, u16) {
        let index = *self.open.last().expect("a chunk with an empty slot");
        let chunk = self.chunks[index as usize].as_mut().expect("an open chunk is there");
        if chunk.free.len() == chunk.lengths.len() {
            self.empty_count -= 1;
        }
        let slot = chunk.free.pop().expect("an open chunk has an empty slot");
        if chunk.free.is_empty() {
            self.open.pop();
        }
        let start = usize::from(slot) * CLASS_BYTES[class];
        chunk.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        // One more than the length, so that zero is left to say "empty".
        chunk.lengths[usize::from(slot)] = bytes.len() as u32 + 1;
        (index, slot)
    }

    /// Empties a slot; true when its chunk was given back.
    fn take(&mut self, index: u32, slot: u16) -> bool {
        let chunk = self.chunks[index as usize].as_mut().expect("a cache entry whose chunk is there");
        debug_assert!(chunk.lengths[usize::from(slot)] != 0, "a cache entry is removed twice");
        chunk.lengths[usize::from(slot)] = 0;
        if chunk.free.is_empty() {
            self.open.push(index);
        }
        chunk.free.push(slot);
        if chunk.free.len() < chunk.lengths.len() {
            return false;
        }
        if self.empty_count == 0 {
            self.empty_count = 1;
            return false;
        }
        self.chunks[index as usize] = None;
        self.holes.push(index);
        let at = self.open.iter().position(|&open| open == index).expect("an empty chunk is open");
        self.open.swap_remove(at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const BYTES_MAX: usize = 4 << 20;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_holds_what_a_list_holds(
            steps in proptest::collection::vec((any::<bool>(), 0_usize..70_000, any::<u8>(), any::<usize>()), 1..200),
        ) {
            let mut cache = Cache::default();
            let mut model: Vec<(CacheRef, Vec<u8>)> = Vec::new();
            for (insert, length, fill, pick) in steps {
                if insert || model.is_empty() {
                    let bytes = vec![fill; length];
                    let has_room = cache.has_room(length, BYTES_MAX);
                    prop_assert!(has_room || length > ENTRY_BYTES_MAX || cache.bytes_held() >= BYTES_MAX);
                    if has_room {
                        model.push((cache.insert(&bytes).unwrap(), bytes));
                    }
                } else {
                    let (entry, _) = model.swap_remove(pick % model.len());
                    cache.remove(entry);
                }
                for (entry, bytes) in &model {
                    prop_assert_eq!(cache.get(*entry), &bytes[..]);
                }
                prop_assert!(cache.bytes_held() <= BYTES_MAX + SLACK_BYTES);
                prop_assert!(cache.bytes_used() <= cache.bytes_held());
            }
            for (entry, _) in model.drain(..) {
                cache.remove(entry);
            }
            prop_assert_eq!(cache.bytes_used(), 0);
            prop_assert!(cache.bytes_held() <= SLACK_BYTES, "one spare chunk for each class");
        }
    }

    #[test]
    fn small_entries_share_a_chunk_and_references_outlive_growth() {
        let mut cache = Cache::default();
        let entries: Vec<_> = (0..5000_u32).map(|n| cache.insert(&n.to_le_bytes()).unwrap()).collect();
        assert_eq!(cache.bytes_held(), 5000_usize.div_ceil(SLOTS_MAX) * CHUNK_BYTES);
        assert!(entries.iter().zip(0_u32..).all(|(&e, n)| cache.get(e) == n.to_le_bytes()));
    }

    #[test]
    fn the_largest_body_of_the_default_limits_takes_no_slot_of_twice_its_size() {
        let mut cache = Cache::default();
        let entry = cache.insert(&[7; (32 << 10) + HEADER_BYTES + NAME_BYTES_MAX]).unwrap();
        assert!(entry.slot_bytes() < 33 << 10);
        assert_eq!(cache.bytes_used(), entry.slot_bytes());
    }

    #[test]
    fn empty_chunks_go_back_but_for_one() {
        let mut cache = Cache::default();
        let entries: Vec<_> = (0..16).map(|_| cache.insert(&[1; 65_536]).unwrap()).collect();
        assert_eq!(cache.bytes_held(), 4 * CHUNK_BYTES);
        for entry in entries {
            cache.remove(entry);
        }
        assert_eq!((cache.bytes_held(), cache.bytes_used()), (CHUNK_BYTES, 0));
        // The holes are filled again.
        let entries: Vec<_> = (0..16).map(|n| cache.insert(&[n; 65_536]).unwrap()).collect();
        assert!(entries.iter().zip(0_u8..).all(|(&e, n)| cache.get(e)[0] == n));
        assert_eq!(cache.classes[8].chunks.len(), 4);
    }

    #[test]
    fn an_empty_entry_is_one_and_there_is_a_longest() {
        let mut cache = Cache::default();
        assert_eq!(cache.insert(&vec![0; ENTRY_BYTES_MAX + 1]), None);
        assert!(!cache.has_room(ENTRY_BYTES_MAX + 1, usize::MAX));
        let empty = cache.insert(&[]).unwrap();
        assert_eq!(cache.get(empty), b"");
        cache.insert(&[0; 300]).unwrap();
        assert_eq!(cache.bytes_used(), 256 + 512);
    }

    #[test]
    fn a_few_small_entries_that_hold_all_memory_leave_a_chunk_to_each_other_size_and_no_more() {
        const CHUNKS: usize = 8;
        let mut cache = Cache::default();
        let mut kept_counts = Vec::new();
        for length in CLASS_BYTES {
            let mut kept = BTreeSet::new();
            let mut all = Vec::new();
            while cache.has_room(length, CHUNKS * CHUNK_BYTES) {
                all.push(cache.insert(&vec![1; length]).unwrap());
            }
            // Of each chunk all but one are removed again.
            all.retain(|entry| !kept.insert(entry.chunk));
            all.into_iter().for_each(|entry| cache.remove(entry));
            kept_counts.push(kept.len());
        }
        assert_eq!(kept_counts, [CHUNKS + 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(cache.bytes_held(), CHUNKS * CHUNK_BYTES + SLACK_BYTES);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "removed cache entry")]
    fn a_removed_entry_is_not_read() {
        let mut cache = Cache::default();
        let entry = cache.insert(b"x").unwrap();
        cache.remove(entry);
        let _ = cache.get(entry);
    }
}
