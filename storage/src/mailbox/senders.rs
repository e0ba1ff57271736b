//! Who holds how much of a mailbox that is more than half full: so that nobody can close it for the others.

use super::entry::{Entry, EntryKind};
use alloc::collections::BTreeMap;
use tern_protocol::ids::AccountId;

/// What one sender holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) count: u32,
    pub(super) bytes: u64,
}

/// What each sender holds, of what senders cause: messages and read ticks.
#[derive(Debug)]
pub(super) struct Senders {
    held: BTreeMap<AccountId, Held>,
    /// Entries that were looked through for it. It is not kept once half of them are over.
    pub(super) looked_at_count: usize,
}

impl Senders {
    pub(super) fn of<'a>(entries: impl ExactSizeIterator<Item = &'a Entry>) -> Self {
        let mut senders = Self { held: BTreeMap::new(), looked_at_count: entries.len() };
        entries.for_each(|entry| senders.add(entry));
        senders
    }

    pub(super) fn held(&self, sender: AccountId) -> Held {
        self.held.get(&sender).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        if counts(entry) {
            let held = self.held.entry(entry.from).or_default();
            held.count += 1;
            held.bytes += entry.mail_bytes();
        }
    }

    /// `entry` is not what it was: it was added, with so many bytes.
    pub(super) fn change(&mut self, entry: &Entry, was_over: bool, bytes_before: u64) {
        if was_over || !is_from_sender(entry.kind) {
            return;
        }
        let Some(held) = self.held.get_mut(&entry.from) else { return };
        held.bytes = held.bytes + entry.mail_bytes() - bytes_before;
        held.count -= u32::from(entry.is_over());
        if held.count == 0 {
            self.held.remove(&entry.from);
        }
    }

    /// `entry` leaves.
    pub(super) fn remove(&mut self, entry: &Entry) {
        if !counts(entry) {
            return;
        }
        let Some(held) = self.held.get_mut(&entry.from) else { return };
        held.bytes -= entry.mail_bytes();
        held.count -= 1;
        if held.count == 0 {
            self.held.remove(&entry.from);
        }
    }

    /// Bytes of memory, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len() * size_of::<(AccountId, Held)>() * 3 / 2
    }
}

/// A `delivered` tick and a copy are what the account itself has caused.
const fn is_from_sender(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Message | EntryKind::Read)
}

fn counts(entry: &Entry) -> bool {
    is_from_sender(entry.kind) && !entry.is_over()
}
