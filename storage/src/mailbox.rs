//! One account's mailbox: what its devices have not acknowledged yet, in order, and which ticks it still owes.
//!
//! An entry is over when every device of its frozen set has acknowledged it and its `delivered` tick, if it owes one,
//! was confirmed. What is over leaves from the front, so that one floor says up to where; behind an entry that is not,
//! it stays until it is as much as what waits, and counts for nothing meanwhile.

mod entry;
mod senders;
mod volatile;

pub use self::entry::{DEVICES_MAX, DeviceSet, Entry, EntryKind, TickState};
use self::senders::Senders;
use self::volatile::{Key, Places, key};
use crate::log::Position;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use tern_protocol::ids::{AccountId, MessageId, Seq};

/// Entries that an empty mailbox keeps memory for.
const KEPT_COUNT: usize = 8;
/// A list with places for so many is made shorter when only a quarter of them is used.
const LONG_COUNT: usize = 256;
/// Entries from the end that are looked through for one; where that does not do, their places are kept in an order.
const LOOK_COUNT: usize = 64;
/// Fewer entries than these are not worth an effort for those among them that are over.
const OVER_COUNT_MIN: usize = 64;

/// The entries of one account, in the order of their places. Most accounts only wait: before the first mail there is
/// nothing to remember.
#[derive(Debug, Default)]
pub struct Mailbox(Option<Box<Queue>>);

#[derive(Debug)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Entries that are not over.
    count: u32,
    /// Entries that a crash would forget.
    volatile_count: u32,
    /// Bytes of the memory that the entries' mail takes.
    mail_bytes: u64,
    /// The highest place that has a record in the log; zero, which is no entry's place, while there is none.
    written_up_to: Seq,
    /// The highest place that left; likewise.
    left_up_to: Seq,
    /// Up to here no entry owes a tick, or will; as far as somebody has looked.
    settled_up_to: Seq,
    /// The places of the volatile entries, from when they were looked for in vain at the end until there is none.
    places: Option<Box<Places>>,
    /// Who holds how much, from when somebody asked until half of it is over.
    senders: Option<Box<Senders>>,
}

impl Queue {
    const EMPTY: Self = Self {
        entries: VecDeque::new(),
        count: 0,
        volatile_count: 0,
        mail_bytes: 0,
        written_up_to: Seq(0),
        left_up_to: Seq(0),
        settled_up_to: Seq(0),
        places: None,
        senders: None,
    };

    /// Changes one entry, and what is known of all.
    fn change<T>(&mut self, index: usize, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.entries.get_mut(index)?;
        let (was_over, was_volatile, bytes_before) =
            (entry.is_over(), entry.is_volatile(), entry.mail_bytes());
        let result = change(entry);
        debug_assert!(!was_over || entry.is_over(), "what is over stays over");
        self.mail_bytes = self.mail_bytes + entry.mail_bytes() - bytes_before;
        self.count -= u32::from(entry.is_over() && !was_over);
        let entry = *entry;
        if was_volatile && !entry.is_volatile() {
            self.is_volatile_no_more(&entry);
        }
        if let Some(senders) = &mut self.senders {
            senders.change(&entry, was_over, bytes_before);
        }
        Some(result)
    }

    fn is_volatile_no_more(&mut self, entry: &Entry) {
        self.volatile_count -= 1;
        if let Some(places) = &mut self.places {
            places.remove(entry);
            if self.volatile_count == 0 {
                self.places = None;
            }
        }
    }

    /// `entry` is in the list no longer.
    fn has_left(&mut self, entry: &Entry) {
        self.mail_bytes -= entry.mail_bytes();
        self.count -= u32::from(!entry.is_over());
        if entry.is_volatile() {
            self.is_volatile_no_more(entry);
        }
        self.left_up_to = self.left_up_to.max(entry.seq);
        if let Some(senders) = &mut self.senders {
            senders.remove(entry);
            if self.count as usize <= senders.looked_at_count / 2 {
                self.senders = None;
            }
        }
    }

    /// Where a volatile entry is, and how many entries were looked at for that.
    fn look(&mut self, wanted: Key) -> (Option<Seq>, usize) {
        if let Some(places) = &self.places {
            return (places.get(wanted), 0);
        }
        let mut left_count = self.volatile_count;
        for (looked_count, entry) in self.entries.iter().rev().enumerate() {
            if left_count == 0 {
                return (None, looked_count);
            }
            if looked_count == LOOK_COUNT {
                break;
            }
            if entry.is_volatile() {
                left_count -= 1;
                if key(entry.from, entry.id, entry.kind) == wanted {
                    return (Some(entry.seq), looked_count + 1);
                }
            }
        }
        if left_count == 0 {
            return (None, self.entries.len());
        }
        let places = self.places.insert(Box::new(Places::of(self.entries.iter())));
        (places.get(wanted), LOOK_COUNT + self.entries.len())
    }

    /// Up to where no entry owes a tick, or will.
    fn settled(&self) -> Seq {
        let known = self.settled_up_to;
        // Mostly nothing of the list is: the front says so.
        let is_known = self.entries.front().is_some_and(|front| front.seq <= known);
        let first = if is_known { self.entries.partition_point(|entry| entry.seq <= known) } else { 0 };
        let open = self.entries.range(first..).position(|entry| entry.tick != TickState::Settled);
        let end = open.map_or(self.entries.len(), |open| first + open);
        // Some that left were behind the first that is open.
        let left =
            self.entries.get(end).map_or(self.left_up_to, |open| self.left_up_to.min(Seq(open.seq.0 - 1)));
        let last = end.checked_sub(1).and_then(|last| self.entries.get(last));
        last.map_or(left, |last| left.max(last.seq))
    }

    fn index_of(&self, seq: Seq) -> Option<usize> {
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }
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

    /// Where it keeps what is known of all entries: for who asks for that memory ahead.
    #[must_use]
    pub fn memory(&self) -> Option<&impl Sized> {
        self.0.as_deref()
    }

    /// The first entries, as many as lie together; likewise. None before the first mail.
    #[must_use]
    pub fn first_entries(&self) -> Option<&[Entry]> {
        self.0.as_ref().map(|queue| queue.entries.as_slices().0)
    }

    /// Entries that are not over, those that only owe a tick included. Indices go further: what is over and cannot leave
    /// yet has some as well.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.queue().count as usize
    }

    /// Whether there is no entry, over or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue().entries.is_empty()
    }

    /// Bytes of memory that its mail takes, by the sizes of the cache's slots.
    #[must_use]
    pub fn mail_bytes(&self) -> u64 {
        self.queue().mail_bytes
    }

    /// Whether `sender` may have more of a mailbox that holds at most so much: not more than what is free. One sender
    /// alone gets half, two get a third each, and the more there are, the less each keeps from the next one.
    pub fn has_share_for(&mut self, sender: AccountId, count_max: usize, bytes_max: u64) -> bool {
        let Some(queue) = self.0.as_mut() else { return true };
        let (count, bytes) = (queue.count as usize, queue.mail_bytes);
        if count * 2 < count_max && bytes * 2 < bytes_max {
            return true;
        }
        let senders = queue.senders.get_or_insert_with(|| Box::new(Senders::of(queue.entries.iter())));
        let held = senders.held(sender);
        held.count as usize <= count_max.saturating_sub(count)
            && held.bytes <= bytes_max.saturating_sub(bytes)
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
        queue.count += u32::from(!entry.is_over());
        queue.mail_bytes += entry.mail_bytes();
        if entry.is_volatile() {
            queue.volatile_count += 1;
            queue.places.iter_mut().for_each(|places| places.insert(&entry));
        }
        queue.senders.iter_mut().for_each(|senders| senders.add(&entry));
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

    /// The entry at an index, of all that are in memory.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Entry> {
        self.queue().entries.get(index)
    }

    /// Changes the entry at an index. What is over cannot become anything else again.
    pub fn change_at<T>(&mut self, index: usize, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.0.as_mut()?.change(index, change)
    }

    /// The entry with this place.
    #[must_use]
    pub fn find(&self, seq: Seq) -> Option<&Entry> {
        let queue = self.queue();
        queue.entries.get(queue.index_of(seq)?)
    }

    /// Changes the entry with this place.
    pub fn change<T>(&mut self, seq: Seq, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let queue = self.0.as_mut()?;
        queue.change(queue.index_of(seq)?, change)
    }

    /// The place of a message, or of what `kind` says of one, if it is here and a crash would forget it. Looks from the
    /// end, where such entries are, and at few.
    pub fn volatile(&mut self, from: AccountId, id: MessageId, kind: EntryKind) -> Option<Seq> {
        self.0.as_mut()?.look(key(from, id, kind)).0
    }

    /// Says where the entry's durable record is; whether the entry is still here.
    pub fn set_durable(&mut self, seq: Seq, position: Position) -> bool {
        self.note_written(seq);
        self.change(seq, |entry| entry.position = Some(position)).is_some()
    }

    /// Gives away what is over and may leave: from the front, and all of it once it is as much as what is not.
    pub fn take_over(&mut self, mut take: impl FnMut(Entry)) {
        while self.queue().entries.front().is_some_and(Entry::is_over) {
            self.pop_any().into_iter().for_each(&mut take);
        }
        let Some(queue) = self.0.as_mut() else { return };
        // The rest of a long list must not hold the memory of all of it.
        if queue.entries.capacity() >= LONG_COUNT && queue.entries.len() <= queue.entries.capacity() / 4 {
            queue.entries.shrink_to(queue.entries.len() * 2);
        }
        let over_count = queue.entries.len() - queue.count as usize;
        if over_count < OVER_COUNT_MIN || over_count < queue.count as usize {
            return;
        }
        let mut entries = core::mem::take(&mut queue.entries);
        entries.retain(|entry| {
            if entry.is_over() {
                queue.has_left(entry);
                take(*entry);
            }
            !entry.is_over()
        });
        entries.shrink_to(entries.len() * 2);
        queue.entries = entries;
    }

    /// Takes the first entry whatever its state: the account is removed.
    pub fn pop_any(&mut self) -> Option<Entry> {
        let queue = self.0.as_mut()?;
        let entry = queue.entries.pop_front()?;
        queue.has_left(&entry);
        if queue.entries.is_empty() {
            // The next one lies where the first one did, in memory that is near.
            queue.entries.clear();
            if queue.entries.capacity() > KEPT_COUNT {
                queue.entries = VecDeque::new();
            }
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
        let Some(queue) = &self.0 else { return 0 };
        let entries_bytes = queue.entries.capacity() * size_of::<Entry>();
        let places_bytes = queue.places.as_ref().map_or(0, |places| places.held_bytes());
        let senders_bytes = queue.senders.as_ref().map_or(0, |senders| senders.held_bytes());
        size_of::<Queue>() + entries_bytes + places_bytes + senders_bytes
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

    /// Up to where all ticks are settled, whatever still waits there: the floor of
    /// [`DeviceId::TICKS`](tern_protocol::ids::DeviceId::TICKS). None if nothing is.
    #[must_use]
    pub fn settled_up_to(&self) -> Option<Seq> {
        Some(self.queue().settled()).filter(|settled| settled.0 > 0)
    }

    /// The same, and the next one who asks need not look at all of that again.
    pub fn note_settled(&mut self) {
        if let Some(queue) = self.0.as_mut() {
            queue.settled_up_to = queue.settled_up_to.max(queue.settled());
        }
    }

    /// Whether the ticks' floor speaks of the entry with this place: a message that owes its tick no longer, or one that
    /// has left.
    #[must_use]
    pub fn is_settled(&self, seq: Seq) -> bool {
        let owes_none = |entry: &Entry| entry.kind == EntryKind::Message && entry.tick == TickState::Settled;
        self.find(seq).is_none_or(owes_none)
    }
}

#[cfg(test)]
mod tests;
