//! The router: an envelope goes to its own shard, to another shard's lane, or (later) to another node's link.
//!
//! Envelopes are encoded once, straight into the buffer of their lane, which leaves at the end of the turn. What a
//! shard casts to itself lies in a loop-back buffer that is worked through within the turn. Room is counted as the lane
//! counts it ([`crate::lanes`]): a large envelope takes a marker's place of its lane and its bytes of the room for boxed ones. Of
//! these both sides only ever add up what was cast and what was taken: however seldom the shard hears of it, nothing
//! that was taken stays counted.
//!
//! What waits has one budget for all the lanes of the shard, half for control and half for bulk, counted as the memory
//! that the buffers hold. A receiver that is stuck gets a quarter of control's half at most, so that it does not take
//! the others'. Past the budget bulk is refused (`busy`), and control is dropped and counted: ticks are owed and come
//! again, an answer to a phone comes again when the phone repeats its message.

use crate::io::{KEPT_BYTES, LANE_COUNT, Lane, Output, Outputs};
use crate::lanes;
use crate::limits::Limits;
use crate::measures::EnvelopesOut;
use alloc::vec::Vec;
use tern_protocol::envelope::{Envelope, Parts};
use tern_protocol::ids::ShardId;

#[derive(Debug, Default)]
struct LaneOut {
    /// Bytes that the lane takes now.
    room_bytes: usize,
    /// Whole envelopes that wait for the end of the turn, or for room.
    buffer: Vec<u8>,
    /// What they take of the lane's room.
    cost_bytes: usize,
    /// Ephemeral ones that wait or may still be in the lane, bytes.
    ephemeral_bytes: usize,
    /// Whether the driver was asked to say when there is room again.
    wanting: bool,
    /// Since when messages find no room: from the first that was refused until there is some; monotonic nanoseconds.
    full_since_ns: Option<u64>,
}

/// What a message that finds its lane full waits for at least, milliseconds: a lane empties within a few turns.
const FULL_MS_MIN: u64 = 4;

/// What a shard may cast to itself of ephemeral envelopes in one turn, bytes: some 4,600 of them.
const OWN_EPHEMERAL_BYTES: usize = 256 << 10;
/// Empty buffers that are kept for the next turn.
const SPARE_COUNT: usize = 64;

/// The ways out of a shard.
#[derive(Debug)]
pub(crate) struct Router {
    own: ShardId,
    lanes: Vec<[LaneOut; LANE_COUNT]>,
    /// Shards with something to flush.
    dirty: Vec<ShardId>,
    /// What this shard cast to itself.
    loopback: Vec<u8>,
    /// Ephemeral ones of this turn that it cast to itself, bytes.
    own_ephemeral_bytes: usize,
    lane_bytes: usize,
    waiting: Waiting,
    /// Bytes that wait for room in a lane, or for the turn's end.
    waiting_bytes: usize,
    /// Bytes of large envelopes that may be in the buffers and on their way, and all that were ever cast and taken.
    boxed_bytes_max: usize,
    boxed_cast_bytes: u64,
    boxed_taken_bytes: u64,
    pub(crate) cast_count: u64,
    pub(crate) dropped_count: u64,
    /// Messages that found their lane full.
    pub(crate) full_count: u64,
    pub(crate) counts: EnvelopesOut,
}

impl Router {
    pub(crate) fn new(own: ShardId, shard_count: u16, limits: &Limits) -> Self {
        let lane = || LaneOut { room_bytes: limits.lane_bytes, ..LaneOut::default() };
        Self {
            own,
            lanes: (0..shard_count).map(|_| [lane(), lane()]).collect(),
            dirty: Vec::new(),
            loopback: Vec::new(),
            own_ephemeral_bytes: 0,
            lane_bytes: limits.lane_bytes,
            waiting: Waiting::new(limits.lane_backlog_bytes),
            waiting_bytes: 0,
            boxed_bytes_max: lanes::boxed_bytes_max(shard_count, limits.body_bytes),
            boxed_cast_bytes: 0,
            boxed_taken_bytes: 0,
            cast_count: 0,
            dropped_count: 0,
            full_count: 0,
            counts: EnvelopesOut::default(),
        }
    }

    /// Casts an envelope to a shard. False if there is no room: a message is then refused, a control envelope is
    /// dropped and counted (ticks are owed and come again).
    pub(crate) fn cast(&mut self, to: ShardId, lane: Lane, parts: &Parts<'_>) -> bool {
        let is_cast = self.try_cast(to, lane, parts);
        self.dropped_count += u64::from(!is_cast && lane == Lane::Control);
        self.full_count += u64::from(!is_cast && lane == Lane::Bulk);
        is_cast
    }

    fn try_cast(&mut self, to: ShardId, lane: Lane, parts: &Parts<'_>) -> bool {
        if to == self.own {
            self.counts.count(true, lane, parts.kind);
            parts.encode(&mut self.loopback);
            return true;
        }
        let box_room_bytes = self.boxed_bytes_max - self.boxed_bytes();
        let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
        let room = match lane {
            Lane::Bulk => lane_out.room_bytes,
            Lane::Control => lane_out.room_bytes + self.waiting.share_bytes / 4,
        };
        let bytes = parts.encoded_bytes();
        let boxed_bytes = if lanes::is_boxed(bytes, self.lane_bytes) { bytes } else { 0 };
        let cost_bytes = lanes::cost_bytes(bytes, self.lane_bytes);
        if lane_out.cost_bytes + cost_bytes > room
            || boxed_bytes > box_room_bytes
            || !self.waiting.make_room(lane, &mut lane_out.buffer, bytes)
        {
            if lane == Lane::Bulk && !lane_out.wanting && !self.dirty.contains(&to) {
                self.dirty.push(to);
            }
            return false;
        }
        if lane_out.buffer.is_empty() && !self.dirty.contains(&to) {
            self.dirty.push(to);
        }
        lane_out.cost_bytes += cost_bytes;
        self.boxed_cast_bytes += boxed_bytes as u64;
        self.waiting_bytes += bytes;
        parts.encode(&mut lane_out.buffer);
        self.cast_count += 1;
        self.counts.count(false, lane, parts.kind);
        true
    }

    /// A message found no room in its lane.
    pub(crate) fn found_full(&mut self, to: ShardId, now_ns: u64) {
        self.lanes[usize::from(to.0)][Lane::Bulk as usize].full_since_ns.get_or_insert(now_ns);
    }

    /// How long the sender of a message that found no room shall wait, milliseconds. As long as the lane has been full
    /// already, so that senders to a shard that is stuck come ever more seldom.
    pub(crate) fn full_ms(&self, to: ShardId, now_ns: u64) -> u64 {
        let since_ns = self.lanes[usize::from(to.0)][Lane::Bulk as usize].full_since_ns.unwrap_or(now_ns);
        (now_ns.saturating_sub(since_ns) / 1_000_000).max(FULL_MS_MIN)
    }

    /// Casts what may be dropped, with the messages, of whose lane it takes a quarter at most: typing must not make
    /// messages wait. False if it found no room.
    pub(crate) fn cast_ephemeral(&mut self, to: ShardId, parts: &Parts<'_>) -> bool {
        let bytes = parts.encoded_bytes();
        if to == self.own {
            let has_room = self.own_ephemeral_bytes + bytes <= OWN_EPHEMERAL_BYTES;
            self.own_ephemeral_bytes += if has_room { bytes } else { 0 };
            return has_room && self.try_cast(to, Lane::Bulk, parts);
        }
        let (lane_bytes, lane_out) = (self.lane_bytes, &self.lanes[usize::from(to.0)][Lane::Bulk as usize]);
        let is_above = lane_out.ephemeral_bytes + bytes > lane_bytes / 4;
        if is_above || lane_out.cost_bytes + bytes > lane_out.room_bytes {
            // The lane may be emptier than it was when this shard last heard of it.
            if !lane_out.wanting && !self.dirty.contains(&to) {
                self.dirty.push(to);
            }
            return false;
        }
        let is_cast = self.try_cast(to, Lane::Bulk, parts);
        self.lanes[usize::from(to.0)][Lane::Bulk as usize].ephemeral_bytes += if is_cast { bytes } else { 0 };
        is_cast
    }

    /// Bytes that the shard cast to itself since they were taken.
    pub(crate) const fn loopback_bytes(&self) -> usize {
        self.loopback.len()
    }

    /// What the shard cast to itself since the last call, swapped into `run`, which must be empty.
    pub(crate) fn take_loopback(&mut self, run: &mut Vec<u8>) -> bool {
        debug_assert!(run.is_empty());
        core::mem::swap(run, &mut self.loopback);
        !run.is_empty()
    }

    /// The driver says how much room a lane has.
    pub(crate) fn set_room(&mut self, to: ShardId, lane: Lane, room_bytes: usize) {
        let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
        lane_out.room_bytes = room_bytes;
        lane_out.wanting = false;
        lane_out.full_since_ns = None;
        // No more of them are in the lane than the lane holds.
        let held_bytes = self.lane_bytes.saturating_sub(room_bytes) + lane_out.cost_bytes;
        lane_out.ephemeral_bytes = lane_out.ephemeral_bytes.min(held_bytes);
        if !lane_out.buffer.is_empty() && !self.dirty.contains(&to) {
            self.dirty.push(to);
        }
    }

    /// The driver says how many bytes of large envelopes their receivers have taken since the start.
    pub(crate) fn boxes_taken(&mut self, taken_bytes: u64) {
        assert!(
            (self.boxed_taken_bytes..=self.boxed_cast_bytes).contains(&taken_bytes),
            "what was taken was cast, and stays taken"
        );
        self.boxed_taken_bytes = taken_bytes;
    }

    /// Bytes of large envelopes that wait or are on their way, as far as the shard knows.
    pub(crate) const fn boxed_bytes(&self) -> usize {
        (self.boxed_cast_bytes - self.boxed_taken_bytes) as usize
    }

    /// Bytes that wait for room in a lane, or for the turn's end.
    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Gives back memory that only a large turn needs.
    pub(crate) fn shrink(&mut self) {
        self.waiting.drop_spares();
    }

    /// Casts out what the turn gathered: control before bulk, whole envelopes, never more than the lane's room.
    pub(crate) fn flush(&mut self, out: &mut Outputs) {
        self.own_ephemeral_bytes = 0;
        let mut dirty = core::mem::take(&mut self.dirty);
        let waiting_bytes = |to: &ShardId| -> usize {
            self.lanes[usize::from(to.0)].iter().map(|lane_out| lane_out.buffer.len()).sum()
        };
        // Not twice what is copied, as growing step by step would take, nor what is too small beside.
        let bytes = dirty.iter().map(waiting_bytes).sum();
        if out.arena.is_empty() && out.arena.capacity() < bytes {
            out.arena = Vec::new();
        }
        out.arena.reserve_exact(bytes);
        for to in dirty.drain(..) {
            for lane in [Lane::Control, Lane::Bulk] {
                let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
                let whole = whole_envelopes(lane_out, self.lane_bytes);
                if whole.bytes > 0 {
                    let start = out.arena.len();
                    out.arena.extend_from_slice(&lane_out.buffer[..whole.bytes]);
                    lane_out.buffer.drain(..whole.bytes);
                    lane_out.room_bytes -= whole.cost_bytes;
                    lane_out.cost_bytes -= whole.cost_bytes;
                    self.waiting_bytes -= whole.bytes;
                    out.push(Output::Mesh { to, lane, data: start..start + whole.bytes });
                }
                self.waiting.settle(lane, &mut lane_out.buffer);
                // The lane's room is known only from the driver: without asking, it never grows. Half a lane holds any
                // envelope, since large ones are boxed.
                let bytes = self.lane_bytes / 2;
                let is_short = lane_out.room_bytes < bytes
                    || !lane_out.buffer.is_empty()
                    || lane_out.ephemeral_bytes > self.lane_bytes / 8;
                if is_short && !lane_out.wanting {
                    lane_out.wanting = true;
                    out.push(Output::WantRoom { to, lane, bytes });
                }
            }
        }
        self.dirty = dirty;
    }
}

/// The memory of what waits.
#[derive(Debug)]
struct Waiting {
    /// What the buffers of one kind of lane may hold together.
    share_bytes: usize,
    /// What they hold.
    held_bytes: [usize; LANE_COUNT],
    /// Empty buffers: only lanes with something to say hold one.
    spares: Vec<Vec<u8>>,
    spare_bytes: usize,
}

impl Waiting {
    const fn new(bytes_max: usize) -> Self {
        let share_bytes = bytes_max / LANE_COUNT;
        Self { share_bytes, held_bytes: [0; LANE_COUNT], spares: Vec::new(), spare_bytes: 0 }
    }

    /// What all buffers hold.
    const fn bytes(&self) -> usize {
        self.held_bytes[0] + self.held_bytes[1] + self.spare_bytes
    }

    /// Makes room for so many bytes in a lane's buffer. False if the share of its kind of lane does not have them.
    fn make_room(&mut self, lane: Lane, buffer: &mut Vec<u8>, bytes: usize) -> bool {
        let need_bytes = buffer.len() + bytes;
        if need_bytes <= buffer.capacity() {
            return true;
        }
        let held_bytes = &mut self.held_bytes[lane as usize];
        if buffer.capacity() == 0
            && let Some(spare) =
                self.spares.pop_if(|spare| *held_bytes + spare.capacity() <= self.share_bytes)
        {
            self.spare_bytes -= spare.capacity();
            *held_bytes += spare.capacity();
            *buffer = spare;
            if need_bytes <= buffer.capacity() {
                return true;
            }
        }
        let others_bytes = *held_bytes - buffer.capacity();
        let sizes = [need_bytes.max(2 * buffer.capacity()), need_bytes];
        let Some(size) = sizes.into_iter().find(|size| others_bytes + size <= self.share_bytes) else {
            return false;
        };
        buffer.reserve_exact(size - buffer.len());
        *held_bytes = others_bytes + buffer.capacity();
        if self.bytes() > LANE_COUNT * self.share_bytes {
            self.drop_spares();
        }
        true
    }

    /// Takes back an empty buffer, and what a buffer that could not leave does not need.
    fn settle(&mut self, lane: Lane, buffer: &mut Vec<u8>) {
        let before_bytes = buffer.capacity();
        if buffer.is_empty() && before_bytes > 0 {
            self.held_bytes[lane as usize] -= before_bytes;
            let spare = core::mem::take(buffer);
            if self.spares.len() < SPARE_COUNT {
                self.spare_bytes += before_bytes;
                self.spares.push(spare);
            }
        } else if before_bytes > 2 * buffer.len() + KEPT_BYTES / 16 {
            buffer.shrink_to_fit();
            self.held_bytes[lane as usize] -= before_bytes - buffer.capacity();
        }
    }

    fn drop_spares(&mut self) {
        self.spares = Vec::new();
        self.spare_bytes = 0;
    }
}

/// A run of whole envelopes.
#[derive(Clone, Copy, Default)]
struct Run {
    bytes: usize,
    cost_bytes: usize,
}

/// The longest run of whole envelopes at the buffer's start within the lane's room.
fn whole_envelopes(lane_out: &LaneOut, lane_bytes: usize) -> Run {
    let all = lane_out.buffer.len();
    let has_room = lane_out.cost_bytes <= lane_out.room_bytes;
    // An envelope that is not boxed costs its bytes: then there is nothing to look for.
    if has_room && lane_out.cost_bytes == all {
        return Run { bytes: all, cost_bytes: all };
    }
    let mut run = Run::default();
    while let Ok((envelope, _)) = Envelope::parse_first(&lane_out.buffer[run.bytes..]) {
        let bytes = envelope.bytes().len();
        let cost_bytes = lanes::cost_bytes(bytes, lane_bytes);
        if run.cost_bytes + cost_bytes > lane_out.room_bytes {
            break;
        }
        run.bytes += bytes;
        run.cost_bytes += cost_bytes;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::envelope::Kind;
    use tern_protocol::ids::{AccountId, DeviceId, MessageId};

    fn parts(body: &[u8]) -> Parts<'_> {
        Parts {
            kind: Kind::Message,
            flags: 0,
            to: AccountId(1),
            from: AccountId(2),
            from_device: DeviceId(1),
            id: MessageId(3),
            time_ms: 0,
            seq: 0,
            from_name: "a",
            body,
        }
    }

    /// A router of shard 0 of two.
    fn router(lane_bytes: usize) -> Router {
        let limits = Limits { lane_bytes, lane_backlog_bytes: 200 << 10, ..Limits::default() };
        Router::new(ShardId(0), 2, &limits)
    }

    fn sent(out: &Outputs) -> Vec<(Lane, usize)> {
        let meshed = |output: &Output| match output {
            Output::Mesh { lane, data, .. } => Some((*lane, data.len())),
            _ => None,
        };
        out.list.iter().filter_map(meshed).collect()
    }

    #[test]
    fn bulk_is_refused_and_control_waits_when_there_is_no_room() {
        let mut router = router(800);
        let mut out = Outputs::default();
        for _ in 0..5 {
            assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[0; 100])));
        }
        assert!(
            !router.cast(ShardId(1), Lane::Bulk, &parts(&[0; 100])),
            "157 bytes six times are more than 800"
        );
        for _ in 0..7 {
            assert!(router.cast(ShardId(1), Lane::Control, &parts(&[0; 100])));
        }
        router.flush(&mut out);
        assert_eq!(sent(&out), [(Lane::Control, 785), (Lane::Bulk, 785)]);
        out.clear();
        router.set_room(ShardId(1), Lane::Control, 800);
        router.flush(&mut out);
        assert_eq!(sent(&out), [(Lane::Control, 314)]);
    }

    #[test]
    fn large_envelopes_pass_a_small_lane_and_their_room_is_the_shards() {
        let mut router = router(512);
        router.boxed_bytes_max = 70_000;
        let mut out = Outputs::default();
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[1; 30_000])));
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(b"small")));
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[2; 30_000])));
        assert!(!router.cast(ShardId(1), Lane::Bulk, &parts(&[3; 30_000])), "boxed ones have no more room");
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(b"small")), "the lane has");
        router.flush(&mut out);
        assert_eq!(sent(&out), [(Lane::Bulk, 2 * 30_057 + 2 * 62)]);
        // Two markers and two small ones.
        assert_eq!(router.lanes[1][Lane::Bulk as usize].room_bytes, 512 - 2 * 128 - 2 * 62);
        assert!(!router.cast(ShardId(1), Lane::Bulk, &parts(&[4; 30_000])), "all of it is on its way");
        // Told when all of it has been taken, and in the middle of a turn: what waits in the buffer stays counted.
        router.boxes_taken(2 * 30_057);
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[4; 30_000])));
        router.boxes_taken(2 * 30_057);
        assert_eq!(router.boxed_bytes(), 30_057);
        assert!(!router.cast(ShardId(1), Lane::Bulk, &parts(b"small")), "now the lane is full");
    }

    fn typing() -> Parts<'static> {
        Parts { kind: Kind::Typing, from_name: "", ..parts(b"") }
    }

    #[test]
    fn what_may_be_dropped_takes_a_quarter_of_a_lane_and_asks_for_room_again() {
        let mut router = router(1024);
        let mut out = Outputs::default();
        let cast = |router: &mut Router| router.cast_ephemeral(ShardId(1), &typing());
        assert_eq!((0..10).filter(|_| cast(&mut router)).count(), 4, "256 bytes, each 56");
        assert_eq!((router.full_count, router.dropped_count), (0, 0));
        router.flush(&mut out);
        let wants = |out: &Outputs| out.list.iter().any(|output| matches!(output, Output::WantRoom { .. }));
        assert!(wants(&out), "three quarters are free, and still it asks");
        assert!(!cast(&mut router), "they may all be in the lane still");
        // Two of them are: the shard knows only how much is.
        router.set_room(ShardId(1), Lane::Bulk, 1024 - 2 * 56);
        assert_eq!((0..10).filter(|_| cast(&mut router)).count(), 2);
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[7; 100])), "messages have room");
        out.clear();
        router.flush(&mut out);
        assert!(!cast(&mut router));
        router.set_room(ShardId(1), Lane::Bulk, 1024);
        assert_eq!((0..10).filter(|_| cast(&mut router)).count(), 4);
    }

    /// The memory for all lanes is full of messages to a shard that is stuck, and this lane is empty.
    #[test]
    fn what_is_dropped_for_want_of_memory_is_no_message_and_takes_nothing_of_its_lane() {
        let mut router = Router::new(ShardId(0), 3, &Limits { lane_bytes: 1024, ..Limits::default() });
        let stuck = |router: &mut Router| router.cast(ShardId(2), Lane::Bulk, &parts(&[7; 900]));
        router.waiting.share_bytes = 1000;
        assert!(stuck(&mut router));
        let refused_count = router.full_count;
        assert!((0..10).all(|_| !router.cast_ephemeral(ShardId(1), &typing())));
        assert_eq!((router.full_count, router.dropped_count), (refused_count, 0));
        assert_eq!(router.lanes[1][Lane::Bulk as usize].ephemeral_bytes, 0);
    }

    #[test]
    fn what_a_shard_casts_to_itself_of_it_is_bounded_in_a_turn() {
        let mut router = router(1024);
        let mut count = || (0..10_000).filter(|_| router.cast_ephemeral(ShardId(0), &typing())).count();
        assert_eq!((count(), count()), (OWN_EPHEMERAL_BYTES / 56, 0));
        router.flush(&mut Outputs::default());
        assert!(router.cast_ephemeral(ShardId(0), &typing()));
        assert!(router.cast(ShardId(0), Lane::Bulk, &parts(b"x")));
    }

    /// Nobody takes anything, and there is something for everybody on both lanes: what waits keeps to its budget.
    #[test]
    fn what_waits_for_sixty_shards_has_one_budget() {
        const BUDGET_BYTES: usize = 256 << 10;
        let limits = Limits { lane_bytes: 4096, lane_backlog_bytes: BUDGET_BYTES, ..Limits::default() };
        let mut router = Router::new(ShardId(0), 60, &limits);
        router.boxed_bytes_max = 1 << 20;
        let mut out = Outputs::default();
        let (mut taken, mut turns_with_drops) = ([0, 0], 0);
        let measured = allocation_counter::measure(|| {
            for turn in 0..50_u16 {
                for to in (1..60).map(|to| ShardId(1 + (to + turn * 7) % 59)) {
                    for lane in [Lane::Control, Lane::Bulk] {
                        for body in [&[0; 10][..], &[0; 300], &[0; 900], &[0; 3000]] {
                            taken[lane as usize] += usize::from(router.cast(to, lane, &parts(body)));
                        }
                    }
                }
                assert!(
                    router.waiting.bytes() <= BUDGET_BYTES,
                    "turn {turn}: {:?}",
                    router.waiting.held_bytes
                );
                turns_with_drops += usize::from(router.dropped_count > 0 && router.full_count > 0);
                router.flush(&mut out);
                out.clear();
                router.boxes_taken(router.boxed_cast_bytes);
            }
        });
        assert!(turns_with_drops > 40 && taken[0] > 400 && taken[1] > 100, "{turns_with_drops}, {taken:?}");
        // The budget, the copy of a turn, and the lists of who has something to say.
        let most = 2 * BUDGET_BYTES as u64 + 24_000;
        assert!(measured.bytes_max <= most, "{} bytes at a time", measured.bytes_max);
        // All of it is there again once it is taken.
        for _ in 0..100 {
            for to in (1..60).map(ShardId) {
                router.set_room(to, Lane::Control, 4096);
                router.set_room(to, Lane::Bulk, 4096);
            }
            router.flush(&mut out);
            out.clear();
        }
        router.shrink();
        assert_eq!((router.waiting_bytes(), router.waiting.bytes()), (0, 0));
    }

    #[test]
    fn a_stuck_receiver_does_not_take_the_others_backlog() {
        let mut router = router(800);
        let mut stuck = 0;
        while router.cast(ShardId(1), Lane::Control, &parts(&[0; 100])) {
            stuck += 157;
        }
        assert!(stuck <= 800 + (200 << 10) / 8 && stuck + 157 > 800 + (200 << 10) / 8);
        assert_eq!(router.dropped_count, 1);
        // Room for a message of the largest size is there at any time.
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[0; 32 << 10])));
    }

    #[test]
    fn what_is_for_this_shard_comes_back_at_once() {
        let mut router = router(800);
        router.cast(ShardId(0), Lane::Bulk, &parts(b"x"));
        let mut run = Vec::new();
        assert!(router.take_loopback(&mut run));
        assert_eq!(Envelope::parse(&run).unwrap().body(), b"x");
    }
}
