//! The lanes between shards: single-producer single-consumer byte rings per ordered pair and lane, and what tells a
//! shard that something is in them.
//!
//! A sender publishes once per turn, then marks itself in the receiver's bitmap of dirty senders, so that only pairs
//! that talk are visited, and wakes the receiver only if it said that it sleeps. The two flags that could lose a wake
//! (asleep, wants room) are each written before a look at the other side's data, with a full fence between on both
//! sides (Dekker), so that at least one side sees the other.
//!
//! Lanes are as small as the number of shards demands ([`lane_bytes`]). What is larger than a quarter of its lane travels
//! boxed, through the typed ring that carries hand-overs too, and leaves a marker in its lane: the receiver takes the
//! next box where it finds one, so that a lane's order is kept. A marker takes exactly the room that the core counts for
//! it, and the core bounds what a shard has boxed, so that no ring can be too full.
//!
//! A pair has no lanes before it talks: the sender makes them then, in memory of its own, and its first parcel brings the
//! receiver's ends. Most pairs of a node of many shards whose phones are idle never do.

use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use tern_core::handover::HandOver;
use tern_core::io::{LANE_COUNT, Lane};
use tern_core::lanes::{BOXED_BYTES_MAX, LANE_BYTES_MIN, MARKER_BYTES, is_boxed, waiting_bytes_max};
use tern_protocol::ids::ShardId;

/// Bytes of all lanes and boxes of a node together, with what waits in its shards to go into them.
const MESH_BYTES_MAX: usize = 64 << 20;
/// Largest lane that [`lane_bytes`] proposes.
const LANE_BYTES_MAX: usize = 1 << 20;
/// Hand-overs that may be under way between two shards before more wait at the sender.
const HAND_OVER_COUNT: usize = 8;
/// What a pair of shards holds in each direction beside its lanes: three rings' heads, hand-overs, both ends.
const PAIR_BYTES: usize = 2176;
/// What the allocator rounds up, and the lists of boxes whose markers are not taken yet.
const ROUNDING_BYTES: usize = 2 << 20;
/// Bytes that a turn takes out of one lane at most, so that a full one does not hold up everything else. Larger than
/// any envelope.
const TAKE_BYTES: usize = 128 << 10;
/// Bytes of bulk that a turn takes out of all lanes together, one lane's part more at most: control that comes
/// meanwhile waits for no more than this, however many senders there are.
const BULK_BYTES: usize = 256 << 10;

/// What has no room in a lane. As large as its largest part: there are slots for many.
enum Parcel {
    /// The receiver's ends of the lanes, before anything is in them.
    Lanes(Box<[Consumer<u8>; LANE_COUNT]>),
    HandOver(Box<HandOver>),
    /// An envelope, and its lane.
    Envelope(Lane, Box<[u8]>),
}

/// Slots for the parcels of a pair: all envelopes that two lanes can hold markers for, hand-overs, and the lanes.
const fn parcel_count(lane_bytes: usize) -> usize {
    LANE_COUNT * (lane_bytes / MARKER_BYTES) + HAND_OVER_COUNT + 1
}

/// How large lanes may be in a node of so many shards; none: so many lanes of a useful size do not fit.
pub(crate) fn lane_bytes(shard_count: u16, body_bytes: usize) -> Option<usize> {
    let count = usize::from(shard_count);
    let pairs = count * count.saturating_sub(1);
    // A turn's end copies what waited into the turn's outputs.
    let waiting_bytes = 2 * count * waiting_bytes_max(shard_count, body_bytes);
    let lanes_bytes = (MESH_BYTES_MAX - BOXED_BYTES_MAX - ROUNDING_BYTES).checked_sub(waiting_bytes)?;
    let Some(pair_bytes) = lanes_bytes.checked_div(pairs) else {
        return Some(LANE_BYTES_MAX); // a single shard has none
    };
    // Each byte of a lane has its part of a parcel's slot with it.
    let slot_bytes = LANE_COUNT * size_of::<Parcel>();
    let each = pair_bytes.checked_sub(PAIR_BYTES)? * MARKER_BYTES / (LANE_COUNT * MARKER_BYTES + slot_bytes);
    let each = each.min(LANE_BYTES_MAX) / MARKER_BYTES * MARKER_BYTES;
    (each >= LANE_BYTES_MIN).then_some(each)
}

/// Most shards that a node can have.
pub(crate) fn shards_max(body_bytes: usize) -> u16 {
    // More than ever fit; with one there are no lanes.
    let (mut fits, mut too_many) = (1, 4096);
    while too_many - fits > 1 {
        let middle = u16::midpoint(fits, too_many);
        if lane_bytes(middle, body_bytes).is_some() { fits = middle } else { too_many = middle }
    }
    fits
}

/// One shard's side of the notice board. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Notices {
    asleep: AtomicBool,
    /// Bit per shard that has put something into its lane to here, or has made room in the lane from here.
    dirty: Box<[AtomicU64]>,
    /// Per shard: whether it waits for room in its lanes to here.
    wanted_by: Box<[AtomicBool]>,
    /// Bytes of this shard's boxes that were taken since the start. They only grow: how many are under way may be at two
    /// looks what it was, although boxes came and went in between.
    boxes_taken_bytes: AtomicU64,
}

/// What came over the mesh.
pub(crate) enum Arrival<'a> {
    /// Whole envelopes.
    Envelopes(&'a [u8]),
    /// The state of a moved socket.
    State(Box<HandOver>),
}

struct Outgoing {
    /// None before the first envelope.
    lanes: Option<[Producer<u8>; LANE_COUNT]>,
    lane_bytes: usize,
    /// Bytes that the shard waits for, by lane.
    wants: [Option<usize>; LANE_COUNT],
    parcels: Producer<Parcel>,
    waiting_hand_overs: VecDeque<Box<HandOver>>,
    touched: bool,
}

impl Outgoing {
    /// Puts waiting hand-overs among the parcels. False: their part of the slots is full.
    fn push_hand_overs(&mut self) -> bool {
        let for_envelopes = self.parcels.buffer().capacity() - HAND_OVER_COUNT;
        while !self.waiting_hand_overs.is_empty() {
            if self.parcels.slots() <= for_envelopes {
                return false;
            }
            let state = self.waiting_hand_overs.pop_front().expect("one waits");
            let pushed = self.parcels.push(Parcel::HandOver(state));
            pushed.unwrap_or_else(|_| unreachable!("there is a slot"));
        }
        true
    }

    fn push_bytes(&mut self, lane: Lane, run: &[u8]) {
        let lanes = self.lanes.get_or_insert_with(|| make_lanes(self.lane_bytes, &mut self.parcels));
        let sent = lanes[lane as usize].push_entire_slice(run);
        sent.expect("a shard never sends more than a lane's room");
    }

    /// Bytes that a lane has room for.
    fn room_bytes(&self, lane: Lane) -> usize {
        self.lanes.as_ref().map_or(self.lane_bytes, |lanes| lanes[lane as usize].slots())
    }

    /// The box goes before its marker, so that whoever sees the marker finds the box.
    fn push_boxed(&mut self, lane: Lane, envelope: &[u8]) {
        let pushed = self.parcels.push(Parcel::Envelope(lane, envelope.into()));
        pushed.unwrap_or_else(|_| unreachable!("there are slots for all markers of a lane"));
        self.push_bytes(lane, &[0; MARKER_BYTES]);
    }
}

/// The sender's ends of a pair's lanes. The others go before anything that is put into them, so that whoever is told of
/// that finds them.
fn make_lanes(lane_bytes: usize, parcels: &mut Producer<Parcel>) -> [Producer<u8>; LANE_COUNT] {
    let (control, control_end) = RingBuffer::new(lane_bytes);
    let (bulk, bulk_end) = RingBuffer::new(lane_bytes);
    let pushed = parcels.push(Parcel::Lanes(Box::new([control_end, bulk_end])));
    pushed.unwrap_or_else(|_| unreachable!("there is a slot for the lanes"));
    [control, bulk]
}

struct Incoming {
    /// None before the sender's first envelope.
    lanes: Option<Box<[Consumer<u8>; LANE_COUNT]>>,
    parcels: Consumer<Parcel>,
    /// Envelopes whose markers have not been taken, by lane.
    boxed: [VecDeque<Box<[u8]>>; LANE_COUNT],
    /// Their bytes.
    boxed_bytes: usize,
}

impl Incoming {
    /// Takes all parcels: hand-overs are told, envelopes wait for their markers.
    fn take_parcels(&mut self, mut hand_over: impl FnMut(Box<HandOver>)) {
        while let Ok(parcel) = self.parcels.pop() {
            match parcel {
                Parcel::Lanes(lanes) => self.lanes = Some(lanes),
                Parcel::HandOver(state) => hand_over(state),
                Parcel::Envelope(lane, envelope) => {
                    self.boxed_bytes += envelope.len();
                    self.boxed[lane as usize].push_back(envelope);
                }
            }
        }
    }

    /// Bytes that wait: in the lanes, and in boxes that have been unpacked.
    fn waiting_bytes(&self) -> usize {
        let lanes = self.lanes.as_deref().into_iter().flatten();
        lanes.map(Consumer::slots).sum::<usize>() + self.boxed_bytes
    }
}

/// Length of the record at the start of a run: an envelope's first field, or a marker's, whose field is zero.
fn record_bytes(run: &[u8]) -> usize {
    let length = *run.first_chunk::<4>().expect("records are whole");
    match u32::from_le_bytes(length) {
        0 => MARKER_BYTES,
        length => length as usize,
    }
}

/// The longest run of whole records at the start of `run`.
fn whole_records(run: &[u8]) -> usize {
    let mut end = 0;
    while run.len() - end >= 4 {
        let bytes = record_bytes(&run[end..]);
        if bytes > run.len() - end {
            break;
        }
        end += bytes;
    }
    end
}

/// Hands a run of whole records on in parts: what lies between markers, and a box for each marker.
fn split(run: &[u8], boxed: &mut VecDeque<Box<[u8]>>, mut part: impl FnMut(&[u8], bool)) {
    let (mut start, mut end) = (0, 0);
    // Without a box there is no marker either: each has its box before it.
    while end < run.len() && !boxed.is_empty() {
        let bytes = record_bytes(&run[end..]);
        if run[end..end + 4] == [0; 4] {
            if start < end {
                part(&run[start..end], false);
            }
            let envelope = boxed.pop_front().expect("not empty");
            part(&envelope, true);
            start = end + bytes;
        }
        end += bytes;
    }
    if start < run.len() {
        part(&run[start..], false);
    }
}

/// One shard's ends of all its lanes.
pub(crate) struct MeshEnd {
    own: usize,
    lane_bytes: usize,
    board: Arc<[Notices]>,
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Option<Incoming>>,
    touched: Vec<usize>,
    want_count: usize,
    /// Who is marked in this turn, in order of their numbers.
    senders: Vec<usize>,
    /// Whose bulk comes first in the next turn.
    bulk_first: usize,
    /// Where a run is put together that wraps around its ring's end.
    scratch: Vec<u8>,
}

/// Makes the ends for all shards of a node.
pub(crate) fn build(shard_count: u16, lane_bytes: usize) -> Vec<MeshEnd> {
    let count = usize::from(shard_count);
    let notices = || Notices {
        asleep: AtomicBool::new(false),
        dirty: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        wanted_by: (0..count).map(|_| AtomicBool::new(false)).collect(),
        boxes_taken_bytes: AtomicU64::new(0),
    };
    let board: Arc<[Notices]> = (0..count).map(|_| notices()).collect();
    let mut ends: Vec<MeshEnd> = (0..count)
        .map(|own| MeshEnd {
            own,
            lane_bytes,
            board: Arc::clone(&board),
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            touched: Vec::new(),
            want_count: 0,
            senders: Vec::new(),
            bulk_first: 0,
            scratch: Vec::new(),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (parcels, parcels_end) = RingBuffer::new(parcel_count(lane_bytes));
            ends[from].outgoing[to] = Some(Outgoing {
                lanes: None,
                lane_bytes,
                wants: [None; LANE_COUNT],
                parcels,
                waiting_hand_overs: VecDeque::new(),
                touched: false,
            });
            ends[to].incoming[from] = Some(Incoming {
                lanes: None,
                parcels: parcels_end,
                boxed: [VecDeque::new(), VecDeque::new()],
                boxed_bytes: 0,
            });
        }
    }
    ends
}

impl MeshEnd {
    fn outgoing(&mut self, to: ShardId) -> &mut Outgoing {
        let to = usize::from(to.0);
        let outgoing = self.outgoing[to].as_mut().expect("no shard has a lane to itself");
        if !outgoing.touched {
            outgoing.touched = true;
            self.touched.push(to);
        }
        outgoing
    }

    /// Puts a run of whole envelopes into a lane; large ones go boxed.
    ///
    /// # Panics
    /// If the lane has no room for it: the core counts the room.
    pub(crate) fn send(&mut self, to: ShardId, lane: Lane, run: &[u8]) {
        let lane_bytes = self.lane_bytes;
        let outgoing = self.outgoing(to);
        if !is_boxed(run.len(), lane_bytes) {
            // Nothing in it is large.
            outgoing.push_bytes(lane, run);
            return;
        }
        let (mut start, mut end) = (0, 0);
        while end < run.len() {
            let bytes = record_bytes(&run[end..]);
            if is_boxed(bytes, lane_bytes) {
                outgoing.push_bytes(lane, &run[start..end]);
                outgoing.push_boxed(lane, &run[end..end + bytes]);
                start = end + bytes;
            }
            end += bytes;
        }
        outgoing.push_bytes(lane, &run[start..]);
    }

    /// Bytes of this shard's large envelopes that were taken since the start.
    pub(crate) fn boxes_taken_bytes(&self) -> u64 {
        self.board[self.own].boxes_taken_bytes.load(Ordering::Relaxed)
    }

    /// Sends the state of a moved socket.
    pub(crate) fn send_state(&mut self, to: ShardId, state: Box<HandOver>) {
        self.outgoing(to).waiting_hand_overs.push_back(state);
    }

    /// Remembers that the shard waits for `bytes` of room; the turn's end asks the receiver to say when.
    pub(crate) fn want_room(&mut self, to: ShardId, lane: Lane, bytes: usize) {
        let want = &mut self.outgoing(to).wants[lane as usize];
        let is_new = want.replace(bytes).is_none();
        self.want_count += usize::from(is_new);
    }

    /// Ends a turn: publishes what was sent and calls `wake` for each receiver that sleeps.
    pub(crate) fn publish(&mut self, mut wake: impl FnMut(ShardId)) {
        while let Some(to) = self.touched.pop() {
            let Some(outgoing) = self.outgoing[to].as_mut() else { continue };
            outgoing.touched = false;
            let all_went = outgoing.push_hand_overs();
            // Before the mark: whoever finds that looks at this afterwards, so that the shard may sleep until it is told.
            if !all_went || outgoing.wants.iter().any(Option::is_some) {
                self.board[to].wanted_by[self.own].store(true, Ordering::Release);
            }
            if !all_went {
                fence(Ordering::SeqCst);
                outgoing.push_hand_overs();
            }
            self.notify(to, &mut wake);
        }
    }

    /// Marks this shard in the other's bitmap and wakes it if it sleeps.
    fn notify(&self, to: usize, wake: &mut impl FnMut(ShardId)) {
        let notices = &self.board[to];
        notices.dirty[self.own / 64].fetch_or(1 << (self.own % 64), Ordering::Release);
        fence(Ordering::SeqCst);
        if notices.asleep.load(Ordering::Relaxed) && notices.asleep.swap(false, Ordering::AcqRel) {
            wake(ShardId(to as u16));
        }
    }

    /// Takes what came from the senders that are marked, each once, and tells those that wait for room: everybody's
    /// control first, then bulk, by turns and within the turn's budget. Returns how many bytes waited for it.
    pub(crate) fn receive(
        &mut self,
        mut wake: impl FnMut(ShardId),
        mut take: impl FnMut(ShardId, Arrival<'_>),
    ) -> usize {
        let mut senders = std::mem::take(&mut self.senders);
        senders.clear();
        self.take_marks(&mut senders);
        let mut found_bytes = 0;
        for &from in &senders {
            found_bytes += self.take_states(from, &mut take);
            self.take_lane(from, Lane::Control, &mut take);
        }
        self.take_bulk(&senders, &mut take);
        for &from in &senders {
            fence(Ordering::SeqCst);
            let wanted = &self.board[self.own].wanted_by[from];
            if wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::AcqRel) {
                self.notify(from, &mut wake);
            }
            self.retry_hand_overs(from);
        }
        self.senders = senders;
        found_bytes
    }

    /// Bytes that wait in the lanes to this shard.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.incoming.iter().flatten().map(Incoming::waiting_bytes).sum()
    }

    /// Who is marked; the marks are gone.
    fn take_marks(&self, senders: &mut Vec<usize>) {
        for (word, dirty) in self.board[self.own].dirty.iter().enumerate() {
            if dirty.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = dirty.swap(0, Ordering::AcqRel);
            while bits != 0 {
                senders.push(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Bulk of the senders, beginning with the first whose turn it is. Whom the budget does not reach begins next time.
    fn take_bulk(&mut self, senders: &[usize], take: &mut impl FnMut(ShardId, Arrival<'_>)) {
        let first = senders.partition_point(|&from| from < self.bulk_first);
        let (late, early) = senders.split_at(first);
        let mut taken_bytes = 0;
        let mut order = early.iter().chain(late);
        while let Some(&from) = order.next() {
            if taken_bytes >= BULK_BYTES {
                self.bulk_first = from;
                self.mark(from);
                order.for_each(|&from| self.mark(from));
                return;
            }
            taken_bytes += self.take_lane(from, Lane::Bulk, take);
        }
    }

    /// As if the sender had marked itself: it has more.
    fn mark(&self, from: usize) {
        self.board[self.own].dirty[from / 64].fetch_or(1 << (from % 64), Ordering::Relaxed);
    }

    /// Takes all parcels; how many bytes wait.
    fn take_states(&mut self, from: usize, take: &mut impl FnMut(ShardId, Arrival<'_>)) -> usize {
        let Some(incoming) = self.incoming[from].as_mut() else { return 0 };
        incoming.take_parcels(|state| take(ShardId(from as u16), Arrival::State(state)));
        incoming.waiting_bytes()
    }

    /// Takes a lane's part; how many bytes it was, boxed ones included.
    fn take_lane(&mut self, from: usize, lane: Lane, take: &mut impl FnMut(ShardId, Arrival<'_>)) -> usize {
        let Some(incoming) = self.incoming[from].as_mut() else { return 0 };
        let (shard, lane) = (ShardId(from as u16), lane as usize);
        let published = incoming.lanes.as_ref().map_or(0, |lanes| lanes[lane].slots());
        if published == 0 {
            return 0;
        }
        // Boxes of all markers that are published.
        incoming.take_parcels(|state| take(shard, Arrival::State(state)));
        let Incoming { lanes: Some(lanes), boxed, .. } = &mut *incoming else { return 0 };
        let chunk = lanes[lane].read_chunk(published.min(TAKE_BYTES)).expect("so many are published");
        let run = match chunk.as_slices() {
            (run, []) => run,
            (front, back) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(front);
                self.scratch.extend_from_slice(back);
                &self.scratch
            }
        };
        // Senders publish whole records: only a cut of our own can end within one.
        let whole = if published > TAKE_BYTES { whole_records(run) } else { run.len() };
        let mut boxed_bytes = 0;
        split(&run[..whole], &mut boxed[lane], |part, was_boxed| {
            boxed_bytes += if was_boxed { part.len() } else { 0 };
            take(shard, Arrival::Envelopes(part));
        });
        chunk.commit(whole);
        if boxed_bytes > 0 {
            incoming.boxed_bytes -= boxed_bytes;
            self.board[from].boxes_taken_bytes.fetch_add(boxed_bytes as u64, Ordering::Relaxed);
        }
        if whole < published {
            self.mark(from);
        }
        whole + boxed_bytes
    }

    /// Hand-overs that found their lane full go out with this turn's end.
    fn retry_hand_overs(&mut self, to: usize) {
        let waits =
            self.outgoing[to].as_ref().is_some_and(|outgoing| !outgoing.waiting_hand_overs.is_empty());
        if waits {
            self.outgoing(ShardId(to as u16));
        }
    }

    /// Calls `room` for each lane that has the room that its shard waits for; asks the others' receivers to say when. To
    /// be called after [`MeshEnd::receive`], which takes the marks of those that have made some.
    pub(crate) fn take_room(&mut self, mut room: impl FnMut(ShardId, Lane, usize)) {
        if self.want_count == 0 {
            return;
        }
        for to in 0..self.outgoing.len() {
            let Some(outgoing) = self.outgoing[to].as_mut() else { continue };
            if outgoing.wants.iter().all(Option::is_none) {
                continue;
            }
            self.board[to].wanted_by[self.own].store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            for lane in [Lane::Control, Lane::Bulk] {
                let room_bytes = outgoing.room_bytes(lane);
                let want = &mut outgoing.wants[lane as usize];
                if want.is_some_and(|bytes| room_bytes >= bytes) {
                    *want = None;
                    self.want_count -= 1;
                    room(ShardId(to as u16), lane, room_bytes);
                }
            }
        }
    }

    /// Whether a sender has marked itself. Cheap, for a short spin.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.board[self.own].dirty.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Says that this shard is about to sleep. False: something came meanwhile, so it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        let notices = &self.board[self.own];
        notices.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let may_sleep = !self.has_arrivals();
        if !may_sleep {
            notices.asleep.store(false, Ordering::Release);
        }
        may_sleep
    }

    /// Says that it is awake.
    pub(crate) fn awake(&self) {
        self.board[self.own].asleep.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "mesh/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "mesh/overload_tests.rs"]
mod overload_tests;

#[cfg(test)]
#[path = "mesh/room_tests.rs"]
mod room_tests;
