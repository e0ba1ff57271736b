//! One shard that gets more messages than it can take: control goes on passing, and nobody's messages starve.
//! Counted in turns and places, not in time.

use super::*;
use std::sync::atomic::AtomicU64;
use std::thread;

const SHARDS: u16 = 4;
const BULK_RECORD_BYTES: usize = 1024;
/// Control's fillings are above all senders' numbers.
const IS_CONTROL: u8 = 0x80;

fn record(bytes: usize, fill: u8) -> Vec<u8> {
    let mut record = vec![fill; bytes];
    record[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    record
}

/// A shard that sends bulk as fast as its lane takes it.
struct Sender {
    end: MeshEnd,
    room_bytes: usize,
}

impl Sender {
    fn all(ends: &mut Vec<MeshEnd>, lane_bytes: usize) -> Vec<Self> {
        ends.drain(1..).map(|end| Self { end, room_bytes: lane_bytes }).collect()
    }

    /// A turn of it: one control envelope, and all the bulk that the lane takes.
    fn turn(&mut self, control: &[u8]) {
        let number = self.end.own as u8;
        self.end.receive(|_| {}, |_, _| {});
        let room_bytes = &mut self.room_bytes;
        self.end.take_room(|_, lane, bytes| {
            if lane == Lane::Bulk {
                *room_bytes = bytes;
            }
        });
        self.end.send(ShardId(0), Lane::Control, control);
        let count = self.room_bytes / BULK_RECORD_BYTES;
        self.end.send(ShardId(0), Lane::Bulk, &record(BULK_RECORD_BYTES, number).repeat(count));
        self.room_bytes -= count * BULK_RECORD_BYTES;
        self.end.want_room(ShardId(0), Lane::Bulk, BULK_RECORD_BYTES);
        self.end.publish(|_| {});
    }
}

/// What the overloaded shard takes in a turn: of whom, whether it is control, how many bytes.
fn take(end: &mut MeshEnd) -> Vec<(usize, bool, usize)> {
    let mut taken = vec![];
    end.receive(
        |_| {},
        |from, arrival| {
            let Arrival::Envelopes(run) = arrival else { return };
            taken.push((usize::from(from.0), run[4] >= IS_CONTROL, run.len()));
        },
    );
    taken
}

#[test]
fn everybodys_control_passes_in_every_turn_before_anybodys_bulk() {
    const TURNS: usize = 300;
    let mut ends = build(SHARDS, LANE_BYTES_MAX);
    let mut senders = Sender::all(&mut ends, LANE_BYTES_MAX);
    let mut bulk_bytes = [0; SHARDS as usize];
    for turn in 0..TURNS {
        senders.iter_mut().for_each(|sender| sender.turn(&record(64, IS_CONTROL)));
        let taken = take(&mut ends[0]);
        let control: Vec<usize> = taken.iter().take_while(|part| part.1).map(|part| part.0).collect();
        assert_eq!(control, [1, 2, 3], "turn {turn}: {taken:?}");
        let bulk = &taken[control.len()..];
        assert!(bulk.iter().all(|part| !part.1), "turn {turn}: control behind bulk: {taken:?}");
        let turn_bytes: usize = bulk.iter().map(|part| part.2).sum();
        assert!((BULK_BYTES..BULK_BYTES + TAKE_BYTES).contains(&turn_bytes), "turn {turn}: {turn_bytes}");
        bulk.iter().for_each(|part| bulk_bytes[part.0] += part.2);
    }
    // Two parts of a lane a turn, for three senders: each gets two thirds of a part in every turn.
    let fair = 2 * TURNS * TAKE_BYTES / 3;
    for bytes in &bulk_bytes[1..] {
        assert!(bytes.abs_diff(fair) <= TAKE_BYTES, "each has its part, {fair}: {bulk_bytes:?}");
    }
}

/// With many senders of small lanes, whom the budget does not reach in one turn is first in the next.
#[test]
fn whom_a_turn_does_not_reach_is_first_in_the_next() {
    const MANY: u16 = 8;
    let mut ends = build(MANY, LANE_BYTES_MAX / 4);
    let mut senders = Sender::all(&mut ends, LANE_BYTES_MAX / 4);
    let mut order = vec![];
    for _ in 0..14 {
        senders.iter_mut().for_each(|sender| sender.turn(&record(64, IS_CONTROL)));
        order.extend(take(&mut ends[0]).iter().filter(|part| !part.1).map(|part| part.0));
    }
    assert_eq!(order.len(), 28, "two parts of a lane a turn: {order:?}");
    for (place, &from) in order.iter().enumerate() {
        assert_eq!(from, place % usize::from(MANY - 1) + 1, "one after the other: {order:?}");
    }
}

/// The same with threads: three shards do nothing but fill the fourth's lanes, and a tick that was published during one
/// of its turns has arrived by the end of the next one. Before every second turn it waits until all lanes are full, whoever
/// the system has let run.
#[test]
fn ticks_pass_a_saturated_shard_within_a_turn() {
    const TICKS: usize = 200;
    let mut ends = build(SHARDS, LANE_BYTES_MAX);
    let senders = Sender::all(&mut ends, LANE_BYTES_MAX);
    let mut end = ends.pop().expect("the first");
    // Turns that have begun, and that have ended.
    let (turn, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    // Of each sender: so many turns had ended when it last began to fill its lane, and one more.
    let filled: [AtomicU64; SHARDS as usize - 1] = [const { AtomicU64::new(0) }; SHARDS as usize - 1];
    let all_filled = |since: u64| filled.iter().all(|filled| filled.load(Ordering::SeqCst) > since);
    let mut arrived: Vec<Vec<u64>> = vec![vec![]; usize::from(SHARDS)];
    let (mut full_turns, mut misplaced) = (0, 0);
    let mut short_turns = vec![];
    let published = thread::scope(|scope| {
        let (turn, ended) = (&turn, &ended);
        let sending: Vec<_> = senders
            .into_iter()
            .zip(&filled)
            .map(|(mut sender, filled)| {
                scope.spawn(move || {
                    let tick = |_| {
                        let before = ended.load(Ordering::SeqCst);
                        sender.turn(&record(64, IS_CONTROL));
                        fence(Ordering::SeqCst);
                        let published = turn.load(Ordering::SeqCst);
                        filled.store(before + 1, Ordering::SeqCst);
                        // One a turn: it is about the place among bulk, not about a lane full of ticks.
                        while ended.load(Ordering::SeqCst) == before {
                            thread::yield_now();
                        }
                        published
                    };
                    let published = (0..TICKS).map(tick).collect::<Vec<u64>>();
                    // Nobody waits for it any more.
                    filled.store(u64::MAX, Ordering::SeqCst);
                    published
                })
            })
            .collect();
        while arrived[1..].iter().any(|ticks| ticks.len() < TICKS) {
            let ended_before = ended.load(Ordering::SeqCst);
            let waits = ended_before % 2 == 0;
            while waits && !all_filled(ended_before) {
                thread::yield_now();
            }
            let is_one_done = filled.iter().any(|filled| filled.load(Ordering::SeqCst) == u64::MAX);
            let this = turn.fetch_add(1, Ordering::SeqCst) + 1;
            fence(Ordering::SeqCst);
            let mut turn_bytes = 0;
            for (from, is_control, bytes) in take(&mut end) {
                if is_control {
                    // Told at the end: the others wait for this thread's turns.
                    misplaced += usize::from(turn_bytes > 0);
                    arrived[from].extend((0..bytes / 64).map(|_| this));
                }
                turn_bytes += if is_control { 0 } else { bytes };
            }
            if waits && !is_one_done {
                full_turns += usize::from(turn_bytes >= BULK_BYTES);
                short_turns.extend((turn_bytes < BULK_BYTES).then_some((this, turn_bytes)));
            }
            ended.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
        sending.into_iter().map(|join| join.join().expect("no panic")).collect::<Vec<_>>()
    });
    for (published, arrived) in published.iter().zip(&arrived[1..]) {
        for (tick, (published, arrived)) in published.iter().zip(arrived).enumerate() {
            assert!(*arrived <= published + 1, "tick {tick}: published in {published}, there in {arrived}");
        }
    }
    assert_eq!(misplaced, 0, "control behind bulk");
    // A sender has one tick in each turn at most, so that there were as many turns while none had ended.
    assert!(
        full_turns >= TICKS / 2 && short_turns.is_empty(),
        "{full_turns} were full, not {:?}",
        short_turns.first()
    );
}
