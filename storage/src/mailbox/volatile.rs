//! Which entries of a long mailbox a crash would forget, by what they are: so that a retry is not looked for among all.

use super::entry::{Entry, EntryKind};
use alloc::collections::BTreeMap;
use tern_protocol::ids::{AccountId, MessageId, Seq};

/// What an entry is looked for by: whom it is from, which message, and what it is.
pub(super) type Key = (AccountId, MessageId, u8);

/// The key of an entry.
pub(super) const fn key(from: AccountId, id: MessageId, kind: EntryKind) -> Key {
    (from, id, kind as u8)
}

/// The places of all volatile entries of a mailbox. Ids are the senders' choice: ordered, so that nobody can make them
/// collide.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Key, Seq>);

impl Places {
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let volatile = entries.filter(|entry| entry.is_volatile());
        Self(volatile.map(|entry| (key(entry.from, entry.id, entry.kind), entry.seq)).collect())
    }

    pub(super) fn get(&self, key: Key) -> Option<Seq> {
        self.0.get(&key).copied()
    }

    pub(super) fn insert(&mut self, entry: &Entry) {
        self.0.insert(key(entry.from, entry.id, entry.kind), entry.seq);
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let key = key(entry.from, entry.id, entry.kind);
        // A tick may be here twice, and the later one stays.
        if self.0.get(&key) == Some(&entry.seq) {
            self.0.remove(&key);
        }
    }

    /// Bytes of memory, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.len() * size_of::<(Key, Seq)>() * 3 / 2
    }
}
