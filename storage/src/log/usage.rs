//! Which segment files there are, what points at them, and when one may be used again.

use super::segment::{Head, Position};
use crate::io::SegmentId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No such file, or none that can be used as it is.
    Absent,
    /// Being made.
    Creating,
    /// Never used, or marked as free: ready to be used.
    Spare,
    /// Holds commits; `sealed` when its head went on elsewhere.
    Used { head: Head, sealed: bool },
    /// Nothing points at it; that is still to be marked in its file.
    Freed,
    /// Damaged or of a later build: left alone.
    Quarantined,
}

/// What some records of a segment weigh, padding left out.
#[derive(Clone, Copy, Default, Debug)]
struct Weight {
    count: u32,
    bytes: u32,
    largest_bytes: u32,
}

impl Weight {
    fn add(&mut self, count: u32, bytes: u32, largest_bytes: u32) {
        self.count = self.count.saturating_add(count);
        self.bytes = self.bytes.saturating_add(bytes);
        self.largest_bytes = self.largest_bytes.max(largest_bytes);
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    generation: u64,
    live_count: u32,
    floor_count: u32,
    /// What lived in it when that was weighed for the last time; all that its commits hold, if it never was.
    weight: Weight,
    /// While a round weighs it or leaves it: what was found of it. The count is what lived when the round began.
    found: Option<Weight>,
    /// It was left, and something in it that nobody finds still lives: it is not worth it before less than half of so
    /// many records do.
    passed_count: u32,
    /// Whether the file is as long as new segments are; another one is made anew before it is used again.
    right_length: bool,
}

const ABSENT: Slot = Slot {
    state: State::Absent,
    generation: 0,
    live_count: 0,
    floor_count: 0,
    weight: Weight { count: 0, bytes: 0, largest_bytes: 0 },
    found: None,
    passed_count: u32::MAX,
    right_length: true,
};

impl Slot {
    const fn held_count(&self) -> u32 {
        self.live_count.saturating_add(self.floor_count)
    }

    /// What lives in it, as if all its records were as long as they are on average.
    const fn likely_bytes(&self) -> u64 {
        if self.weight.count == 0 {
            return 0;
        }
        self.weight.bytes as u64 * self.held_count() as u64 / self.weight.count as u64
    }

    /// What lives in it, as if all that died since it was weighed had been as long as the largest of it: not less.
    const fn least_bytes(&self) -> u64 {
        let died_count = self.weight.count.saturating_sub(self.held_count());
        (self.weight.bytes as u64).saturating_sub(died_count as u64 * self.weight.largest_bytes as u64)
    }

    /// Whether it may be looked at to be left.
    fn may_be_left(&self) -> bool {
        matches!(self.state, State::Used { sealed: true, .. }) && self.held_count() <= self.passed_count / 2
    }
}

/// The table of a stream's files.
#[derive(Debug)]
pub(super) struct Usage {
    slots: Vec<Slot>,
    spares: VecDeque<SegmentId>,
    creating_count: u32,
    /// Freed, in the order in which they are to be marked, one after the other.
    freed: VecDeque<SegmentId>,
    /// Freed, and not yet told to the caller.
    untold: Vec<SegmentId>,
    /// Mail segments by generation; freed ones leave when they come to the front.
    mail_order: VecDeque<SegmentId>,
    used_count: u32,
    /// Segments that were opened since all were weighed.
    unweighed_count: u32,
    /// Nothing is freed while recovery has not said what is live.
    holding: bool,
    /// A segment was left alone. Mail that may come back with it has its floors in others.
    has_quarantined: bool,
}

impl Usage {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            spares: VecDeque::new(),
            creating_count: 0,
            freed: VecDeque::new(),
            untold: Vec::new(),
            mail_order: VecDeque::new(),
            used_count: 0,
            unweighed_count: 0,
            holding: true,
            has_quarantined: false,
        }
    }

    fn slot(&mut self, segment: SegmentId) -> &mut Slot {
        let index = segment.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, ABSENT);
        }
        &mut self.slots[index]
    }

    // What recovery found.

    pub(super) fn found_spare(&mut self, segment: SegmentId) {
        self.slot(segment).state = State::Spare;
        self.spares.push_back(segment);
    }

    pub(super) fn found_quarantined(&mut self, segment: SegmentId) {
        self.slot(segment).state = State::Quarantined;
        self.has_quarantined = true;
        self.used_count += 1;
    }

    pub(super) fn found_used(&mut self, segment: SegmentId, head: Head, generation: u64, right_length: bool) {
        *self.slot(segment) =
            Slot { state: State::Used { head, sealed: true }, generation, right_length, ..ABSENT };
        self.used_count += 1;
        if head == Head::Mail {
            let slots = &self.slots;
            let at = self.mail_order.partition_point(|s| slots[s.0 as usize].generation < generation);
            self.mail_order.insert(at, segment);
        }
    }

    /// A recovered segment to which its head goes on appending.
    pub(super) fn reopen(&mut self, segment: SegmentId) {
        let slot = self.slot(segment);
        let State::Used { head, .. } = slot.state else { panic!("only a used segment is reopened") };
        slot.state = State::Used { head, sealed: false };
    }

    /// Everything live has been said: frees what nothing points at.
    pub(super) fn stop_holding(&mut self) {
        self.holding = false;
        self.unweighed_count = self.used_count;
        for index in 0..self.slots.len() {
            self.free_if_dead(SegmentId(index as u32));
        }
        self.free_oldest_mail();
    }

    /// If it is a spare, all others are opened before it.
    pub(super) fn use_last(&mut self, segment: SegmentId) {
        if let Some(at) = self.spares.iter().position(|&spare| spare == segment) {
            self.spares.remove(at);
            self.spares.push_back(segment);
        }
    }

    // Making and using files.

    /// Number of segments that could be opened now.
    pub(super) fn spare_count(&self) -> u32 {
        self.spares.len() as u32
    }

    pub(super) fn used_count(&self) -> u32 {
        self.used_count
    }

    /// Whether files are on their way to become spares.
    pub(super) fn expects_spares(&self) -> bool {
        self.creating_count > 0 || !self.freed.is_empty()
    }

    pub(super) fn file_count(&self) -> u32 {
        self.used_count + self.spare_count() + self.creating_count + self.freed.len() as u32
    }

    /// Spares, and freed segments that the next commit makes spares of.
    pub(super) fn usable_count(&self) -> u32 {
        self.spare_count() + self.freed.len() as u32
    }

    /// Number of spares that there will be when all that is under way is done.
    pub(super) fn coming_count(&self) -> u32 {
        self.spare_count() + self.creating_count + self.freed.len() as u32
    }

    /// Picks a file number to create.
    pub(super) fn start_create(&mut self) -> SegmentId {
        let free = self.slots.iter().position(|s| s.state == State::Absent).unwrap_or(self.slots.len());
        let segment = SegmentId(u32::try_from(free).expect("segment numbers fit 32 bits"));
        *self.slot(segment) = Slot { state: State::Creating, ..ABSENT };
        self.creating_count += 1;
        segment
    }

    pub(super) fn created(&mut self, segment: SegmentId, exists: bool) {
        let slot = self.slot(segment);
        assert!(slot.state == State::Creating, "a segment was created that nobody asked for");
        slot.state = if exists { State::Spare } else { State::Absent };
        self.creating_count -= 1;
        if exists {
            self.spares.push_back(segment);
        }
    }

    /// The `nth` spare from the front, not yet taken.
    pub(super) fn peek_spare(&self, nth: usize) -> Option<SegmentId> {
        self.spares.get(nth).copied()
    }

    /// Takes the spare that [`Usage::peek_spare`] showed.
    pub(super) fn open(&mut self, segment: SegmentId, head: Head, generation: u64) {
        let at = self.spares.iter().position(|&s| s == segment).expect("only a spare is opened");
        self.spares.remove(at);
        *self.slot(segment) = Slot { state: State::Used { head, sealed: false }, generation, ..ABSENT };
        self.used_count += 1;
        self.unweighed_count += 1;
        if head == Head::Mail {
            self.mail_order.push_back(segment);
        }
    }

    /// The head that appended to it went on elsewhere.
    pub(super) fn seal(&mut self, segment: SegmentId) {
        let slot = self.slot(segment);
        let State::Used { head, sealed: false } = slot.state else {
            panic!("only an open segment is sealed")
        };
        slot.state = State::Used { head, sealed: true };
        self.free_if_dead(segment);
        self.free_oldest_mail();
    }

    /// So many records more are in a segment, the largest of them of so many bytes.
    pub(super) fn put(&mut self, segment: SegmentId, count: u32, bytes: u32, largest_bytes: u32) {
        self.slot(segment).weight.add(count, bytes, largest_bytes);
    }

    // Thin segments.

    fn candidates(&self) -> impl Iterator<Item = (SegmentId, &Slot)> {
        let slots = self.slots.iter().zip(0..);
        slots.filter(|(slot, _)| slot.may_be_left()).map(|(slot, index)| (SegmentId(index), slot))
    }

    /// Sealed segments in which likely no more than so much lives, the thinnest first, with the estimate: exact for those
    /// that were just weighed.
    pub(super) fn thin(&self, bytes_max: u64) -> Vec<(SegmentId, u64)> {
        let likely = self.candidates().map(|(segment, slot)| (segment, slot.likely_bytes()));
        let mut thin: Vec<_> = likely.filter(|&(_, bytes)| bytes <= bytes_max).collect();
        thin.sort_unstable_by_key(|&(segment, bytes)| (bytes, segment));
        thin
    }

    /// Of those sealed segments in which no more than so much may live: what does at least.
    pub(super) fn possibly_thin(&self, bytes_max: u64) -> impl Iterator<Item = u64> {
        self.candidates().map(|(_, slot)| slot.least_bytes()).filter(move |&bytes| bytes <= bytes_max)
    }

    /// Segments that were opened since all were weighed; all, if they never were.
    pub(super) fn unweighed_count(&self) -> u32 {
        self.unweighed_count
    }

    /// Begins to weigh what lives in all sealed segments.
    pub(super) fn begin_weighing(&mut self) {
        self.unweighed_count = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.may_be_left()) {
            slot.found = Some(Weight { count: slot.held_count(), ..Weight::default() });
        }
    }

    /// Adds to what was found in a segment that is being weighed.
    pub(super) fn weigh(&mut self, segment: SegmentId, bytes: u32) {
        if let Some(found) = &mut self.slot(segment).found {
            found.add(0, bytes, bytes);
        }
    }

    /// All was found: this is what the segments weigh, at most what fits one. Returns, ascending, which were weighed and hold
    /// nothing that must stay; which of them are left is still to be said.
    pub(super) fn end_weighing(&mut self, segment_bytes: u32) -> Vec<SegmentId> {
        let mut weighed = Vec::new();
        for (slot, index) in self.slots.iter_mut().zip(0..) {
            if let Some(Weight { count, bytes, largest_bytes }) = slot.found.take() {
                if largest_bytes < u32::MAX {
                    weighed.push(SegmentId(index));
                }
                let (bytes, largest_bytes) = (bytes.min(segment_bytes), largest_bytes.min(segment_bytes));
                slot.weight = Weight { count, bytes, largest_bytes };
            }
        }
        weighed
    }

    /// The weighing was given up.
    pub(super) fn stop_weighing(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.found = None);
    }

    /// Begins to leave a segment.
    pub(super) fn begin_leaving(&mut self, segment: SegmentId) {
        let slot = self.slot(segment);
        slot.found = Some(slot.weight);
    }

    /// Whether a segment is being weighed or left.
    pub(super) fn is_leaving(&self, segment: SegmentId) -> bool {
        self.slots.get(segment.0 as usize).is_some_and(|slot| slot.found.is_some())
    }

    /// A segment is not left any more, whatever still lives in it.
    pub(super) fn end_leaving(&mut self, segment: SegmentId, tried: bool) {
        let slot = self.slot(segment);
        if slot.found.take().is_some() && tried {
            slot.passed_count = slot.held_count();
        }
    }

    /// Whether it is the oldest mail segment, which no floor holds.
    pub(super) fn is_oldest_mail(&self, segment: SegmentId) -> bool {
        !self.has_quarantined && self.mail_order.front() == Some(&segment)
    }

    // What points at records.

    fn used(&mut self, p: Position) -> &mut Slot {
        let slot = self.slots.get_mut(p.segment.0 as usize).expect("a position in a file that is there");
        assert!(matches!(slot.state, State::Used { .. }), "a position in a segment that is not in use");
        slot
    }

    pub(super) fn live(&mut self, p: Position) {
        self.used(p).live_count += 1;
    }

    pub(super) fn dead(&mut self, p: Position) {
        let slot = self.used(p);
        slot.live_count = slot.live_count.checked_sub(1).expect("more records died than lived");
        if slot.live_count == 0 {
            self.free_if_dead(p.segment);
            self.free_oldest_mail();
        }
    }

    pub(super) fn floor_live(&mut self, p: Position) {
        self.used(p).floor_count += 1;
    }

    pub(super) fn floor_dead(&mut self, p: Position) {
        let slot = self.slots.get_mut(p.segment.0 as usize).expect("a position in a file that is there");
        // A floor may outlive its segment in the caller's memory until it hears of it from `take_freed`.
        if !matches!(slot.state, State::Used { .. }) {
            return;
        }
        slot.floor_count = slot.floor_count.checked_sub(1).expect("more floors died than lived");
        self.free_if_dead(p.segment);
    }

    fn free_if_dead(&mut self, segment: SegmentId) {
        let slot = self.slots[segment.0 as usize];
        let sealed = matches!(slot.state, State::Used { sealed: true, .. });
        if sealed && !self.holding && slot.live_count == 0 && slot.floor_count == 0 {
            self.free(segment);
        }
    }

    /// The oldest mail segment's floors speak only of mail in it or in segments before it, all of which are gone
    /// when no record in it is live. One that was left alone may be older, and there again at a later start.
    fn free_oldest_mail(&mut self) {
        if self.has_quarantined {
            return;
        }
        while let Some(&oldest) = self.mail_order.front() {
            let slot = self.slots[oldest.0 as usize];
            match slot.state {
                State::Used { head: Head::Mail, sealed: true } if slot.live_count == 0 && !self.holding => {
                    self.free(oldest);
                }
                _ => return,
            }
        }
    }

    fn free(&mut self, segment: SegmentId) {
        let slot = self.slot(segment);
        *slot = Slot { state: State::Freed, right_length: slot.right_length, ..ABSENT };
        self.used_count -= 1;
        self.freed.push_back(segment);
        self.untold.push(segment);
        self.mail_order.retain(|&s| s != segment);
    }

    /// The freed segment that is to be marked next. Never two at once: were a later one marked and an earlier one not when
    /// the power fails, mail would come back whose floor is gone.
    pub(super) fn next_to_mark(&self) -> Option<SegmentId> {
        self.freed.front().copied()
    }

    /// The segment that [`Usage::next_to_mark`] named is marked as free on disk.
    pub(super) fn marked(&mut self, segment: SegmentId) {
        assert!(self.freed.pop_front() == Some(segment), "segments are marked in the order of their freeing");
        let slot = self.slot(segment);
        if slot.right_length {
            slot.state = State::Spare;
            self.spares.push_back(segment);
        } else {
            *slot = ABSENT;
        }
    }

    pub(super) fn take_freed(&mut self, freed: &mut Vec<SegmentId>) {
        freed.append(&mut self.untold);
    }
}
