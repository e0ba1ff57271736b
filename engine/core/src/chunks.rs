//! A table that grows in pieces: growing copies nothing, and leaves at most a piece unused.
//!
//! A vector that doubles is half empty on average when it has grown, and for a moment there are two of it. With a
//! million phones on a machine each of these halves is memory that phones could have.

use alloc::vec::Vec;

/// Bytes of a piece: what allocators hand out without rounding up.
const PIECE_BYTES: usize = 16 << 10;

/// Things by number, from zero.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    /// All full but the last.
    pieces: Vec<Vec<T>>,
}

impl<T> Chunks<T> {
    /// Things in a piece.
    const PIECE_COUNT: usize = PIECE_BYTES / size_of::<T>();

    pub(crate) const fn new() -> Self {
        assert!(Self::PIECE_COUNT > 0, "larger than a piece");
        Self { pieces: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * Self::PIECE_COUNT;
        full + self.pieces.last().map_or(0, Vec::len)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.pieces.get(index / Self::PIECE_COUNT)?.get(index % Self::PIECE_COUNT)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pieces.get_mut(index / Self::PIECE_COUNT)?.get_mut(index % Self::PIECE_COUNT)
    }

    /// Appends one; its number.
    pub(crate) fn push(&mut self, item: T) -> usize {
        let index = self.len();
        if index == self.pieces.len() * Self::PIECE_COUNT {
            self.pieces.push(Vec::with_capacity(Self::PIECE_COUNT));
        }
        self.pieces[index / Self::PIECE_COUNT].push(item);
        index
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T: Default> Chunks<T> {
    /// The one with this number; those up to it that are not there yet are made.
    pub(crate) fn get_or_grow(&mut self, index: usize) -> &mut T {
        while self.len() <= index {
            self.push(T::default());
        }
        self.get_mut(index).expect("it is there by now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Does not divide a piece.
    type Item = [u64; 31];

    proptest! {
        /// Against a vector.
        #[test]
        fn holds_what_a_vector_holds(
            actions in prop::collection::vec((any::<bool>(), 0_usize..300, any::<u64>()), 1..80)
        ) {
            let mut chunks: Chunks<Item> = Chunks::new();
            let mut model: Vec<u64> = Vec::new();
            for (pushes, index, value) in actions {
                if pushes {
                    prop_assert_eq!(chunks.push([value; 31]), model.len());
                    model.push(value);
                } else {
                    *chunks.get_or_grow(index) = [value; 31];
                    model.resize(model.len().max(index + 1), 0);
                    model[index] = value;
                }
                prop_assert_eq!(chunks.len(), model.len());
                prop_assert_eq!(chunks.get(index).map(|item| item[30]), model.get(index).copied());
                prop_assert!(chunks.get_mut(model.len()).is_none());
            }
            prop_assert!(chunks.iter().map(|item| item[0]).eq(model));
        }
    }
}
