//! Operations that own memory while the kernel works on them, in a table.

use crate::block::Block;
use crate::file::DurableFile;
use std::os::fd::OwnedFd;

/// A socket address as the kernel reads it.
pub(crate) struct RawAddress {
    pub(crate) storage: libc::sockaddr_storage,
    pub(crate) length: libc::socklen_t,
}

/// What one entry of the table does.
pub(crate) enum Operation {
    /// Sending `block` from byte `sent` on.
    Send { slot: u32, block: Block, sent: usize },
    /// Putting a connecting socket into the descriptor table; the kernel writes the slot into `number`.
    Install { _socket: OwnedFd, number: Box<libc::c_int>, address: Box<RawAddress>, key: u64 },
    /// Connecting the socket in `slot`.
    Connect { slot: u32, _address: Box<RawAddress> },
    /// Writing `block` to `offset`, of which `written` bytes are there. Whether by O_DIRECT was decided when it was
    /// submitted: the file may have given that up since.
    Write { file: DurableFile, block: Block, offset: u64, written: usize, direct: bool, key: u64 },
    /// Making a buffered write durable.
    Sync { file: DurableFile, key: u64 },
    /// Reading the wake counter.
    Wake { value: Box<u64> },
}

enum Entry {
    Free { next: u32 },
    Used(Operation),
}

/// The table. An entry's place does not change while it is used.
pub(crate) struct Operations {
    entries: Vec<Entry>,
    free: u32,
}

const NONE: u32 = u32::MAX;

impl Operations {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: NONE }
    }

    pub(crate) fn insert(&mut self, operation: Operation) -> u32 {
        if self.free == NONE {
            self.entries.push(Entry::Used(operation));
            return u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 operations");
        }
        let index = self.free;
        let Entry::Free { next } = self.entries[index as usize] else {
            unreachable!("the free list holds free ones")
        };
        self.free = next;
        self.entries[index as usize] = Entry::Used(operation);
        index
    }

    /// The operation at `index`.
    ///
    /// # Panics
    /// If there is none: an index comes from the user data of an entry that was submitted once.
    pub(crate) fn get(&mut self, index: u32) -> &mut Operation {
        let Entry::Used(operation) = &mut self.entries[index as usize] else {
            panic!("completion of no operation")
        };
        operation
    }

    /// Takes it out; the kernel must have let go of its memory.
    pub(crate) fn remove(&mut self, index: u32) -> Operation {
        let entry = std::mem::replace(&mut self.entries[index as usize], Entry::Free { next: self.free });
        let Entry::Used(operation) = entry else { panic!("completion of no operation") };
        self.free = index;
        operation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut table = Operations::new();
        let wake = || Operation::Wake { value: Box::new(0) };
        assert_eq!((table.insert(wake()), table.insert(wake())), (0, 1));
        table.remove(0);
        assert_eq!((table.insert(wake()), table.insert(wake())), (0, 2));
    }
}
