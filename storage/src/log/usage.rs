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
    /// Zeroed header, ready to be used.
    Spare,
    /// Holds commits; `sealed` when its head went on elsewhere.
    Used { head: Head, sealed: bool },
    /// Nothing points at it; its header is still to be zeroed.
    Freed,
    /// Damaged or of a later build: left alone.
    Quarantined,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    generation: u64,
    live_count: u32,
    floor_count: u32,
    /// What its commits hold, whether it still lives or not, padding left out.
    record_count: u32,
    record_bytes: u32,
    /// While its live records are to be written elsewhere: the bytes of those that were found so far.
    leaving_bytes: Option<u32>,
    /// It was looked through and is not worth it before less than half of so many records are live.
    passed_count: u32,
    /// Whether the file is as long as new segments are; another one is made anew before it is used again.
    right_length: bool,
}

const ABSENT: Slot = Slot {
    state: State::Absent,
    generation: 0,
    live_count: 0,
    floor_count: 0,
    record_count: 0,
    record_bytes: 0,
    leaving_bytes: None,
    passed_count: u32::MAX,
    right_length: true,
};

impl Slot {
    const fn held_count(&self) -> u32 {
        self.live_count.saturating_add(self.floor_count)
    }

    /// What lives in it, as if all its records were as long as they are on average.
    const fn live_bytes(&self) -> u64 {
        if self.record_count == 0 {
            return 0;
        }
        self.record_bytes as u64 * self.held_count() as u64 / self.record_count as u64
    }
}

/// The table of a stream's files.
#[derive(Debug)]
pub(super) struct Usage {
    slots: Vec<Slot>,
    spares: VecDeque<SegmentId>,
    creating_count: u32,
    /// Freed, in the order in which their headers are to be zeroed, one after the other.
    freed: VecDeque<SegmentId>,
    /// Freed, and not yet told to the caller.
    untold: Vec<SegmentId>,
    /// Mail segments by generation; freed ones leave when they come to the front.
    mail_order: VecDeque<SegmentId>,
    used_count: u32,
    /// Nothing is freed while recovery has not said what is live.
    holding: bool,
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
            holding: true,
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
        for index in 0..self.slots.len() {
            self.free_if_dead(SegmentId(index as u32));
        }
        self.free_oldest_mail();
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

    /// So many records more are in a segment.
    pub(super) fn put(&mut self, segment: SegmentId, record_count: u32, record_bytes: u32) {
        let slot = self.slot(segment);
        slot.record_count = slot.record_count.saturating_add(record_count);
        slot.record_bytes = slot.record_bytes.saturating_add(record_bytes);
    }

    // Thin segments.

    /// Sealed segments of which no more than half may be live, the thinnest first, with the estimate.
    pub(super) fn thin(&self, segment_bytes: u32) -> Vec<(SegmentId, u64)> {
        let mut thin: Vec<_> = self
            .slots
            .iter()
            .zip(0..)
            .filter(|(slot, _)| matches!(slot.state, State::Used { sealed: true, .. }))
            .filter(|(slot, _)| slot.held_count() <= slot.passed_count / 2)
            .map(|(slot, index)| (SegmentId(index), slot.live_bytes()))
            .filter(|&(_, live_bytes)| live_bytes <= u64::from(segment_bytes / 2))
            .collect();
        thin.sort_unstable_by_key(|&(segment, live_bytes)| (live_bytes, segment));
        thin
    }

    /// Begins to look for what lives in a segment.
    pub(super) fn begin_leaving(&mut self, segment: SegmentId) {
        self.slot(segment).leaving_bytes = Some(0);
    }

    /// Adds to what was found in a segment that is being left.
    pub(super) fn weigh(&mut self, segment: SegmentId, bytes: u32) {
        if let Some(leaving_bytes) = &mut self.slot(segment).leaving_bytes {
            *leaving_bytes = leaving_bytes.saturating_add(bytes);
        }
    }

    /// What was found in a segment that is being left; `None` for any other.
    pub(super) fn leaving_bytes(&self, segment: SegmentId) -> Option<u32> {
        self.slots.get(segment.0 as usize)?.leaving_bytes
    }

    /// A segment is not left any more, whatever still lives in it.
    pub(super) fn end_leaving(&mut self, segment: SegmentId, tried: bool) {
        let slot = self.slot(segment);
        if slot.leaving_bytes.take().is_some() && tried {
            slot.passed_count = slot.held_count();
        }
    }

    /// Whether it is the oldest mail segment, which no floor holds.
    pub(super) fn is_oldest_mail(&self, segment: SegmentId) -> bool {
        self.mail_order.front() == Some(&segment)
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
    /// when no record in it is live.
    fn free_oldest_mail(&mut self) {
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

    /// The freed segment whose header is to be zeroed next. Never two at once: were a later one zeroed and an
    /// earlier one not when the power fails, mail would come back whose floor is gone.
    pub(super) fn next_to_zero(&self) -> Option<SegmentId> {
        self.freed.front().copied()
    }

    /// The header of the segment that [`Usage::next_to_zero`] named is zero on disk.
    pub(super) fn zeroed(&mut self, segment: SegmentId) {
        assert!(self.freed.pop_front() == Some(segment), "segments are zeroed in the order of their freeing");
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
