//! The lanes between shards: single-producer single-consumer byte rings per ordered pair and lane, and what tells a
//! shard that something is in them.
//!
//! A sender publishes once per turn, then marks itself in the receiver's bitmap of dirty senders, so that only pairs
//! that talk are visited, and wakes the receiver only if it said that it sleeps. The two flags that could lose a wake
//! (asleep, wants room) are each written before a look at the other side's data, with a full fence between on both
//! sides (Dekker), so that at least one side sees the other.

use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use tern_core::handover::HandOver;
use tern_core::io::{LANE_COUNT, Lane};
use tern_protocol::ids::ShardId;

/// Hand-overs that may be under way between two shards before more wait at the sender.
const HAND_OVER_COUNT: usize = 64;

/// One shard's side of the notice board. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Notices {
    asleep: AtomicBool,
    /// Bit per shard that has put something into its lane to here, or has made room in the lane from here.
    dirty: Box<[AtomicU64]>,
    /// Per shard: whether it waits for room in its lanes to here.
    wanted_by: Box<[AtomicBool]>,
}

/// What came over the mesh.
pub(crate) enum Arrival<'a> {
    /// Whole envelopes.
    Envelopes(&'a [u8]),
    /// The state of a moved socket.
    State(Box<HandOver>),
}

struct Outgoing {
    lanes: [Producer<u8>; LANE_COUNT],
    /// Bytes that the shard waits for, by lane.
    wants: [Option<usize>; LANE_COUNT],
    hand_overs: Producer<Box<HandOver>>,
    waiting_hand_overs: VecDeque<Box<HandOver>>,
    touched: bool,
}

impl Outgoing {
    /// Puts waiting hand-overs into their lane. False: it is full.
    fn push_hand_overs(&mut self) -> bool {
        while let Some(state) = self.waiting_hand_overs.pop_front() {
            if let Err(rtrb::PushError::Full(state)) = self.hand_overs.push(state) {
                self.waiting_hand_overs.push_front(state);
                return false;
            }
        }
        true
    }
}

struct Incoming {
    lanes: [Consumer<u8>; LANE_COUNT],
    hand_overs: Consumer<Box<HandOver>>,
}

/// One shard's ends of all its lanes.
pub(crate) struct MeshEnd {
    own: usize,
    board: Arc<[Notices]>,
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Option<Incoming>>,
    touched: Vec<usize>,
    want_count: usize,
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
    };
    let board: Arc<[Notices]> = (0..count).map(|_| notices()).collect();
    let mut ends: Vec<MeshEnd> = (0..count)
        .map(|own| MeshEnd {
            own,
            board: Arc::clone(&board),
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            touched: Vec::new(),
            want_count: 0,
            scratch: Vec::new(),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (control, control_end) = RingBuffer::new(lane_bytes);
            let (bulk, bulk_end) = RingBuffer::new(lane_bytes);
            let (hand_overs, hand_overs_end) = RingBuffer::new(HAND_OVER_COUNT);
            ends[from].outgoing[to] = Some(Outgoing {
                lanes: [control, bulk],
                wants: [None; LANE_COUNT],
                hand_overs,
                waiting_hand_overs: VecDeque::new(),
                touched: false,
            });
            ends[to].incoming[from] =
                Some(Incoming { lanes: [control_end, bulk_end], hand_overs: hand_overs_end });
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

    /// Puts a run of whole envelopes into a lane.
    ///
    /// # Panics
    /// If the lane has no room for it: the core counts the room.
    pub(crate) fn send(&mut self, to: ShardId, lane: Lane, run: &[u8]) {
        let sent = self.outgoing(to).lanes[lane as usize].push_entire_slice(run);
        sent.expect("a shard never sends more than a lane's room");
    }

    /// Sends the state of a moved socket.
    pub(crate) fn send_state(&mut self, to: ShardId, state: Box<HandOver>) {
        self.outgoing(to).waiting_hand_overs.push_back(state);
    }

    /// Remembers that the shard waits for `bytes` of room.
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
            if !outgoing.push_hand_overs() {
                self.board[to].wanted_by[self.own].store(true, Ordering::Release);
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

    /// Takes what came from the senders that are marked, each once, and tells those that wait for room.
    pub(crate) fn receive(
        &mut self,
        mut wake: impl FnMut(ShardId),
        mut take: impl FnMut(ShardId, Arrival<'_>),
    ) {
        for word in 0..self.board[self.own].dirty.len() {
            let dirty = &self.board[self.own].dirty[word];
            if dirty.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = dirty.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let from = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.receive_from(from, &mut take);
                fence(Ordering::SeqCst);
                let wanted = &self.board[self.own].wanted_by[from];
                if wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::AcqRel) {
                    self.notify(from, &mut wake);
                }
                self.retry_hand_overs(from);
            }
        }
    }

    fn receive_from(&mut self, from: usize, take: &mut impl FnMut(ShardId, Arrival<'_>)) {
        let Some(incoming) = self.incoming[from].as_mut() else { return };
        let shard = ShardId(from as u16);
        while let Ok(state) = incoming.hand_overs.pop() {
            take(shard, Arrival::State(state));
        }
        for lane in &mut incoming.lanes {
            let published = lane.slots();
            if published == 0 {
                continue;
            }
            // Senders publish whole runs, so that what is published is whole envelopes.
            let chunk = lane.read_chunk(published).expect("so many are published");
            match chunk.as_slices() {
                (run, []) => take(shard, Arrival::Envelopes(run)),
                (front, back) => {
                    self.scratch.clear();
                    self.scratch.extend_from_slice(front);
                    self.scratch.extend_from_slice(back);
                    take(shard, Arrival::Envelopes(&self.scratch));
                }
            }
            chunk.commit_all();
        }
    }

    /// Hand-overs that found their lane full go out with this turn's end.
    fn retry_hand_overs(&mut self, to: usize) {
        let waits =
            self.outgoing[to].as_ref().is_some_and(|outgoing| !outgoing.waiting_hand_overs.is_empty());
        if waits {
            self.outgoing(ShardId(to as u16));
        }
    }

    /// Calls `room` for each lane that has the room that its shard waits for; asks the others' receivers to say when.
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
                let slots = outgoing.lanes[lane as usize].slots();
                let want = &mut outgoing.wants[lane as usize];
                if want.is_some_and(|bytes| slots >= bytes) {
                    *want = None;
                    self.want_count -= 1;
                    room(ShardId(to as u16), lane, slots);
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
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    const SHARDS: u16 = 3;
    const LANE_BYTES: usize = 64;

    fn runs(end: &mut MeshEnd) -> Vec<(u16, Vec<u8>)> {
        let mut got = vec![];
        end.receive(
            |_| {},
            |from, arrival| {
                if let Arrival::Envelopes(run) = arrival {
                    got.push((from.0, run.to_vec()));
                }
            },
        );
        got
    }

    #[test]
    fn runs_arrive_whole_also_around_the_rings_end() {
        let mut ends = build(SHARDS, LANE_BYTES);
        for round in 0..50_u8 {
            let run = vec![round; 41];
            ends[2].send(ShardId(0), Lane::Bulk, &run);
            assert_eq!(runs(&mut ends[0]), [], "nothing is seen before the turn's end");
            ends[2].publish(|_| panic!("nobody sleeps"));
            assert_eq!(runs(&mut ends[0]), [(2, run)]);
        }
    }

    #[test]
    fn control_goes_before_bulk() {
        let mut ends = build(SHARDS, LANE_BYTES);
        ends[1].send(ShardId(0), Lane::Bulk, b"bulk");
        ends[1].send(ShardId(0), Lane::Control, b"control");
        ends[1].publish(|_| {});
        assert_eq!(runs(&mut ends[0]), [(1, b"control".to_vec()), (1, b"bulk".to_vec())]);
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let mut ends = build(SHARDS, LANE_BYTES);
        assert!(ends[0].fall_asleep());
        let mut woken = vec![];
        for from in [1, 2] {
            ends[from].send(ShardId(0), Lane::Bulk, b"x");
            ends[from].publish(|to| woken.push(to));
        }
        assert_eq!(woken, [ShardId(0)]);
        assert!(!ends[0].fall_asleep(), "must not sleep over what came");
        runs(&mut ends[0]);
        assert!(ends[0].fall_asleep());
    }

    #[test]
    fn room_is_told_when_it_is_there_even_to_a_sleeper() {
        let mut ends = build(SHARDS, LANE_BYTES);
        ends[0].send(ShardId(1), Lane::Bulk, &[1; 60]);
        ends[0].want_room(ShardId(1), Lane::Bulk, 32);
        ends[0].publish(|_| {});
        ends[0].take_room(|_, _, _| panic!("there is no room yet"));
        assert!(ends[0].fall_asleep());
        let mut woken = vec![];
        ends[1].receive(|to| woken.push(to), |_, _| {});
        assert_eq!(woken, [ShardId(0)]);
        let mut rooms = vec![];
        ends[0].receive(|_| {}, |_, _| {});
        ends[0].take_room(|to, lane, bytes| rooms.push((to, lane, bytes)));
        assert_eq!(rooms, [(ShardId(1), Lane::Bulk, 64)]);
        ends[0].take_room(|_, _, _| panic!("told once"));
    }

    #[test]
    #[should_panic(expected = "never sends more than a lane's room")]
    fn more_than_the_room_is_the_cores_bug() {
        let mut ends = build(2, LANE_BYTES);
        ends[0].send(ShardId(1), Lane::Bulk, &[1; 65]);
    }

    /// Three threads throw a counter around and sleep without a limit whenever they may: a lost wake stops the play.
    #[test]
    fn no_wake_is_lost() {
        const ROUNDS: u32 = 30_000;
        let ends = build(SHARDS, LANE_BYTES);
        let finished = AtomicUsize::new(0);
        let started = Instant::now();
        thread::scope(|scope| {
            let (tell, told) = flume::unbounded::<Vec<thread::Thread>>();
            let (mut joins, mut threads) = (vec![], vec![]);
            for mut end in ends {
                let (told, finished) = (told.clone(), &finished);
                let join = scope.spawn(move || {
                    let peers = told.recv().unwrap();
                    let wake = |to: ShardId| peers[usize::from(to.0)].unpark();
                    let (own, mut seen) = (end.own, 0);
                    let next = ShardId((own as u16 + 1) % SHARDS);
                    if own == 0 {
                        end.send(next, Lane::Bulk, &1_u32.to_le_bytes());
                        end.publish(wake);
                    }
                    while seen < ROUNDS {
                        let mut got = None;
                        end.receive(wake, |_, arrival| {
                            if let Arrival::Envelopes(run) = arrival {
                                got = Some(u32::from_le_bytes(run.try_into().unwrap()));
                            }
                        });
                        if got.is_none() {
                            // Others act between the last look and the sleep.
                            thread::yield_now();
                        }
                        if let Some(count) = got {
                            assert!(count > seen);
                            seen = count;
                            end.send(next, Lane::Bulk, &(count + 1).to_le_bytes());
                            end.publish(wake);
                        } else if end.fall_asleep() {
                            // A lost wake would sleep for ever; the time limit only ends the test.
                            thread::park_timeout(Duration::from_secs(10));
                            end.awake();
                            assert!(started.elapsed() < Duration::from_secs(9), "a wake was lost");
                        }
                    }
                    finished.fetch_add(1, Ordering::Relaxed);
                });
                threads.push(join.thread().clone());
                joins.push(join);
            }
            for _ in 0..SHARDS {
                tell.send(threads.clone()).unwrap();
            }
        });
        assert_eq!(finished.load(Ordering::Relaxed), usize::from(SHARDS));
    }
}
