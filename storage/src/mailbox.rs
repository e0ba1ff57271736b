//! One account's mailbox: what its devices have not acknowledged yet, in order, and which ticks it still owes.
//!
//! An entry leaves when every device of its frozen set has acknowledged it and its `delivered` tick, if it owes one,
//! was confirmed. Entries leave from the front only, so that one floor says what is over.

use crate::cache::CacheRef;
use crate::log::Position;
use alloc::boxed::Box;
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

/// Entries that an empty mailbox keeps memory for.
const KEPT_COUNT: usize = 8;

/// The entries of one account, in the order of their places. Most accounts only wait: before the first mail there is
/// nothing to remember.
#[derive(Debug, Default)]
pub struct Mailbox(Option<Box<Queue>>);

#[derive(Debug)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Entries without a durable record.
    uncommitted_count: u32,
    /// The highest place that has a record in the log; zero, which is no entry's place, while there is none.
    written_up_to: Seq,
    /// The highest place that left; likewise.
    left_up_to: Seq,
}

impl Queue {
    const EMPTY: Self =
        Self { entries: VecDeque::new(), uncommitted_count: 0, written_up_to: Seq(0), left_up_to: Seq(0) };
}

/// What a mailbox without a queue looks like.
static EMPTY: Queue = Queue::EMPTY;

impl Mailbox {
    fn queue(&self) -> &Queue {
        self.0.as_deref().unwrap_or(&EMPTY)
    }

    fn queue_mut(&mut self) -> &mut Queue {
        self.0.get_or_insert_with(|| Box::new(Queue::EMPTY))
    }

    /// Entries, those that only owe a tick included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue().entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue().entries.is_empty()
    }

    /// Appends at the end.
    ///
    /// # Panics
    /// If the place is not above all places before: a repeated place would lose mail.
    pub fn push(&mut self, entry: Entry) {
        if entry.position.is_some() {
            self.note_written(entry.seq);
        }
        let queue = self.queue_mut();
        assert!(queue.entries.back().is_none_or(|last| last.seq < entry.seq), "mailbox places must grow");
        assert!(queue.left_up_to < entry.seq, "a mailbox place came back");
        queue.uncommitted_count += u32::from(entry.position.is_none());
        queue.entries.push_back(entry);
    }

    /// The index of the first entry above `seq`.
    #[must_use]
    pub fn index_above(&self, seq: Seq) -> usize {
        // Sessions read at the end nearly always: look there before searching.
        let entries = &self.queue().entries;
        match entries.back() {
            Some(last) if last.seq <= seq => entries.len(),
            _ => entries.partition_point(|entry| entry.seq <= seq),
        }
    }

    /// The entry at an index.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Entry> {
        self.queue().entries.get(index)
    }

    /// The entry at an index, to change it.
    pub fn at_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.0.as_mut()?.entries.get_mut(index)
    }

    /// The entry with this place.
    pub fn find_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        let entries = &mut self.0.as_mut()?.entries;
        let index = entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        entries.get_mut(index)
    }

    /// The entry with this place.
    #[must_use]
    pub fn find(&self, seq: Seq) -> Option<&Entry> {
        let entries = &self.queue().entries;
        let index = entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        entries.get(index)
    }

    /// Whether the message is here and a crash could still swallow it or its tick. Looks from the end, where uncommitted
    /// ones are, and no further than the last of them.
    #[must_use]
    pub fn has_uncommitted(&self, from: AccountId, id: MessageId, kind: EntryKind) -> bool {
        self.uncommitted(from, id, kind).is_some()
    }

    /// The place of such an entry.
    #[must_use]
    pub fn uncommitted(&self, from: AccountId, id: MessageId, kind: EntryKind) -> Option<Seq> {
        let Queue { entries, uncommitted_count, .. } = self.queue();
        entries
            .iter()
            .rev()
            .filter(|entry| entry.position.is_none())
            .take(*uncommitted_count as usize)
            .find(|e| !e.is_over() && e.from == from && e.id == id && e.kind == kind)
            .map(|entry| entry.seq)
    }

    /// Says where the entry's durable record is; the entry, if it is still here.
    pub fn set_durable(&mut self, seq: Seq, position: Position) -> Option<&mut Entry> {
        self.note_written(seq);
        let queue = self.queue_mut();
        let index = queue.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        let entry = queue.entries.get_mut(index)?;
        queue.uncommitted_count -= u32::from(entry.position.is_none());
        entry.position = Some(position);
        Some(entry)
    }

    /// Takes the first entry if it is over.
    pub fn pop_over(&mut self) -> Option<Entry> {
        if !self.queue().entries.front()?.is_over() {
            return None;
        }
        self.pop_any()
    }

    /// Takes the first entry whatever its state: the account is removed.
    pub fn pop_any(&mut self) -> Option<Entry> {
        let queue = self.0.as_mut()?;
        let entry = queue.entries.pop_front()?;
        queue.uncommitted_count -= u32::from(entry.position.is_none());
        queue.left_up_to = entry.seq;
        if queue.entries.is_empty() && queue.entries.capacity() > KEPT_COUNT {
            queue.entries = VecDeque::new();
        }
        Some(entry)
    }

    /// Gives back the memory of an empty mailbox. `persisted` is the place up to which the log knows the floors of all
    /// devices and of the ticks: a mailbox with no record behind it forgets that it ever held one, since no floor can
    /// matter for it. True if it did.
    pub fn let_rest(&mut self, persisted: Seq) -> bool {
        let Some(queue) = self.0.as_mut().filter(|queue| queue.entries.is_empty()) else {
            return self.0.is_none();
        };
        queue.entries = VecDeque::new();
        if queue.written_up_to <= persisted {
            self.0 = None;
        }
        self.0.is_none()
    }

    /// Bytes of memory that it takes beside its own.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let entries_bytes = self.queue().entries.capacity() * size_of::<Entry>();
        self.0.as_ref().map_or(0, |_| size_of::<Queue>() + entries_bytes)
    }

    /// Says that the place has a record in the log.
    pub fn note_written(&mut self, seq: Seq) {
        let queue = self.queue_mut();
        queue.written_up_to = queue.written_up_to.max(seq);
    }

    /// Whether a floor at `floor` says more than one at `persisted`: a record of the log lies between them.
    #[must_use]
    pub fn floor_matters(&self, persisted: Seq, floor: Seq) -> bool {
        floor > persisted && self.queue().written_up_to > persisted
    }

    /// Up to where everything is over, ticks confirmed: the floor of [`DeviceId::TICKS`].
    #[must_use]
    pub fn left_up_to(&self) -> Option<Seq> {
        Some(self.queue().left_up_to).filter(|left| left.0 > 0)
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
    fn an_empty_mailbox_forgets_what_no_floor_can_matter_for_and_no_more() {
        let mut mailbox = Mailbox::default();
        mailbox.push(entry(3, 0, TickState::Settled));
        mailbox.push(entry(4, 1, TickState::Settled));
        mailbox.note_written(Seq(4));
        mailbox.pop_over();
        let held_bytes = mailbox.held_bytes();
        assert!(!mailbox.let_rest(Seq(9)) && mailbox.held_bytes() == held_bytes && mailbox.len() == 1);
        mailbox.find_mut(Seq(4)).unwrap().waiting = DeviceSet::default();
        mailbox.pop_over();
        assert!(!mailbox.let_rest(Seq(3)), "a floor at 3 does not cover the record at 4");
        assert!(mailbox.floor_matters(Seq(3), Seq(9)) && mailbox.left_up_to() == Some(Seq(4)));
        assert!((1..100).contains(&mailbox.held_bytes()), "but there are no entries to keep memory for");
        assert!(mailbox.let_rest(Seq(4)));
        assert!(!mailbox.floor_matters(Seq(4), Seq(9)) && mailbox.held_bytes() == 0);
        mailbox.push(entry(5, 1, TickState::NotDue));
        assert_eq!(mailbox.len(), 1);
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
