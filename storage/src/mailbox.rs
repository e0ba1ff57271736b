//! One account's mailbox: what its devices have not acknowledged yet, in order, and which ticks it still owes.
//!
//! An entry leaves when every device of its frozen set has acknowledged it and its `delivered` tick, if it owes one,
//! was confirmed. Entries leave from the front only, so that one floor says what is over.

use crate::cache::CacheRef;
use crate::log::Position;
use alloc::collections::VecDeque;
use tern_protocol::ids::{AccountId, DeviceId, MessageId, Seq};

/// The devices of an account by their place in its device list, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceSet(pub u16);

/// Most devices of one account: the bits of a [`DeviceSet`].
pub const DEVICES_MAX: usize = 16;

impl DeviceSet {
    /// The set of the first `count` places.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        assert!(count <= DEVICES_MAX, "more devices than a set holds");
        Self(((1_u32 << count) - 1) as u16)
    }

    /// The set of one place.
    #[must_use]
    pub const fn one(place: usize) -> Self {
        assert!(place < DEVICES_MAX, "no such device place");
        Self(1 << place)
    }

    /// Whether `place` is in it.
    #[must_use]
    pub const fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Whether nobody is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How far an entry's `delivered` tick is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickState {
    /// No device has acknowledged yet.
    NotDue,
    /// A device has; the sender's home has not confirmed the tick.
    Owed,
    /// Confirmed, or never owed (ticks owe no ticks).
    Settled,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A message from someone.
    Message,
    /// A tick: a device of the recipient has a message.
    Delivered,
    /// A tick: a device of the recipient has read a message.
    Read,
    /// A message that one of the account's own devices sent, for the others. `from` is whom it was sent to.
    Copy,
}

impl EntryKind {
    /// Where its own `delivered` tick begins: only messages owe one.
    #[must_use]
    pub const fn first_tick_state(self) -> TickState {
        match self {
            Self::Message => TickState::NotDue,
            Self::Delivered | Self::Read | Self::Copy => TickState::Settled,
        }
    }
}

/// One place in a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its place in the order.
    pub seq: Seq,
    /// Who sent it.
    pub from: AccountId,
    /// The sender's device, which gets the ticks.
    pub from_device: DeviceId,
    /// The message, or the message that a tick speaks of.
    pub id: MessageId,
    /// Who has not acknowledged it.
    pub waiting: DeviceSet,
    /// What it is.
    pub kind: EntryKind,
    /// The state of the tick that this message owes.
    pub tick: TickState,
    /// Whether the other home was told that it is safe: the sender's by `sent` or by a tick that implies it; for a
    /// tick, the recipient's by `Confirm`. Of a copy, whether the message's `sent` has come and waits for it.
    pub answered: bool,
    /// When it arrived, seconds of Unix time.
    pub time_s: u32,
    /// Its envelope in memory; gone once all have acknowledged.
    pub mail: Option<CacheRef>,
    /// Its durable record; `None` while it was not committed.
    pub position: Option<Position>,
}

impl Entry {
    /// Whether nothing keeps it in the mailbox any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.tick == TickState::Settled
    }
}

/// The entries of one account, in the order of their places.
#[derive(Debug, Default)]
pub struct Mailbox {
    entries: VecDeque<Entry>,
    /// Entries without a durable record.
    uncommitted_count: usize,
    /// The highest place that has a record in the log.
    written_up_to: Option<Seq>,
    /// The highest place that left.
    left_up_to: Option<Seq>,
}

impl Mailbox {
    /// Entries, those that only owe a tick included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends at the end.
    ///
    /// # Panics
    /// If the place is not above all places before: a repeated place would lose mail.
    pub fn push(&mut self, entry: Entry) {
        assert!(self.entries.back().is_none_or(|last| last.seq < entry.seq), "mailbox places must grow");
        assert!(self.left_up_to.is_none_or(|left| left < entry.seq), "a mailbox place came back");
        if entry.position.is_some() {
            self.note_written(entry.seq);
        } else {
            self.uncommitted_count += 1;
        }
        self.entries.push_back(entry);
    }

    /// The index of the first entry above `seq`.
    #[must_use]
    pub fn index_above(&self, seq: Seq) -> usize {
        // Sessions read at the end nearly always: look there before searching.
        match self.entries.back() {
            Some(last) if last.seq <= seq => self.entries.len(),
            _ => self.entries.partition_point(|entry| entry.seq <= seq),
        }
    }

    /// The entry at an index.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// The entry at an index, to change it.
    pub fn at_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    /// The entry with this place.
    pub fn find_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries.get_mut(index)
    }

    /// The entry with this place.
    #[must_use]
    pub fn find(&self, seq: Seq) -> Option<&Entry> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries.get(index)
    }

    /// Whether the message is here and neither committed nor acknowledged yet. Looks from the end, where uncommitted
    /// ones are, and no further than the last of them.
    #[must_use]
    pub fn has_uncommitted(&self, from: AccountId, id: MessageId, kind: EntryKind) -> bool {
        self.uncommitted(from, id, kind).is_some()
    }

    /// The place of such an entry.
    #[must_use]
    pub fn uncommitted(&self, from: AccountId, id: MessageId, kind: EntryKind) -> Option<Seq> {
        self.entries
            .iter()
            .rev()
            .filter(|entry| entry.position.is_none())
            .take(self.uncommitted_count)
            .find(|e| !e.waiting.is_empty() && e.from == from && e.id == id && e.kind == kind)
            .map(|entry| entry.seq)
    }

    /// Says where the entry's durable record is; the entry, if it is still here.
    pub fn set_durable(&mut self, seq: Seq, position: Position) -> Option<&mut Entry> {
        self.note_written(seq);
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        let entry = self.entries.get_mut(index)?;
        self.uncommitted_count -= usize::from(entry.position.is_none());
        entry.position = Some(position);
        Some(entry)
    }

    /// Takes the first entry if it is over.
    pub fn pop_over(&mut self) -> Option<Entry> {
        if !self.entries.front()?.is_over() {
            return None;
        }
        self.pop_any()
    }

    /// Takes the first entry whatever its state: the account is removed.
    pub fn pop_any(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.uncommitted_count -= usize::from(entry.position.is_none());
        self.left_up_to = Some(entry.seq);
        Some(entry)
    }

    /// Says that the place has a record in the log.
    pub fn note_written(&mut self, seq: Seq) {
        self.written_up_to = self.written_up_to.max(Some(seq));
    }

    /// Whether a floor at `floor` says more than one at `persisted`: a record of the log lies between them.
    #[must_use]
    pub fn floor_matters(&self, persisted: Seq, floor: Seq) -> bool {
        floor > persisted && self.written_up_to.is_some_and(|written| written > persisted)
    }

    /// Up to where everything is over, ticks confirmed: the floor of [`DeviceId::TICKS`].
    #[must_use]
    pub const fn left_up_to(&self) -> Option<Seq> {
        self.left_up_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, waiting: u16, tick: TickState) -> Entry {
        Entry {
            seq: Seq(seq),
            from: AccountId(9),
            from_device: DeviceId(1),
            id: MessageId(seq * 10),
            waiting: DeviceSet(waiting),
            kind: EntryKind::Message,
            tick,
            answered: false,
            time_s: 0,
            mail: None,
            position: None,
        }
    }

    #[test]
    fn leaves_from_the_front_only_when_all_is_settled() {
        let mut mailbox = Mailbox::default();
        mailbox.push(entry(1, 0, TickState::Owed));
        mailbox.push(entry(5, 0, TickState::Settled));
        assert!(mailbox.pop_over().is_none(), "the first one owes a tick");
        mailbox.find_mut(Seq(1)).unwrap().tick = TickState::Settled;
        assert_eq!(mailbox.pop_over().unwrap().seq, Seq(1));
        assert_eq!(mailbox.pop_over().unwrap().seq, Seq(5));
        assert_eq!(mailbox.left_up_to(), Some(Seq(5)));
    }

    #[test]
    #[should_panic(expected = "came back")]
    fn a_place_never_comes_back() {
        let mut mailbox = Mailbox::default();
        mailbox.push(entry(7, 0, TickState::Settled));
        mailbox.pop_over();
        mailbox.push(entry(7, 1, TickState::NotDue));
    }

    #[test]
    fn a_floor_matters_only_over_written_records() {
        let mut mailbox = Mailbox::default();
        assert!(!mailbox.floor_matters(Seq(0), Seq(9)), "nothing was ever written");
        mailbox.note_written(Seq(4));
        assert!(mailbox.floor_matters(Seq(0), Seq(9)));
        assert!(!mailbox.floor_matters(Seq(4), Seq(9)), "the record at 4 is covered already");
    }

    #[test]
    fn reading_position_is_found() {
        let mut mailbox = Mailbox::default();
        for seq in [2, 4, 6] {
            mailbox.push(entry(seq, 1, TickState::NotDue));
        }
        assert_eq!(mailbox.index_above(Seq(0)), 0);
        assert_eq!(mailbox.index_above(Seq(4)), 2);
        assert_eq!(mailbox.index_above(Seq(6)), 3);
        assert!(mailbox.has_uncommitted(AccountId(9), MessageId(40), EntryKind::Message));
        mailbox.set_durable(Seq(4), Position { segment: crate::io::SegmentId(0), offset: 0 });
        assert!(!mailbox.has_uncommitted(AccountId(9), MessageId(40), EntryKind::Message));
    }
}
