//! Who found no room is told when there is some, even if it sleeps: for envelopes, and for the states of moved sockets.

use super::tests::record;
use super::*;
use std::thread;
use std::time::{Duration, Instant};
use tern_core::ahead::Fetch;
use tern_core::io::{Input, Now, Output, Outputs};
use tern_core::limits::Limits;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{Shard, ShardConfig, ShardRecovery};
use tern_protocol::ids::PartitionId;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::preface::{Pattern, Preface, VERSION};

const LANE_BYTES: usize = 512;

#[test]
fn room_is_told_when_it_is_there_even_to_a_sleeper() {
    let mut ends = build(2, LANE_BYTES);
    // As a turn does it: the room is asked for at its end, and sleep follows.
    ends[0].send(ShardId(1), Lane::Bulk, &record(100, 1).repeat(4));
    ends[0].want_room(ShardId(1), Lane::Bulk, 256);
    ends[0].publish(|_| {});
    assert!(ends[0].fall_asleep());
    let mut woken = vec![];
    ends[1].receive(|to| woken.push(to), |_, _| {});
    assert_eq!(woken, [ShardId(0)]);
    // The next turn.
    let mut rooms = vec![];
    ends[0].take_room(|to, lane, bytes| rooms.push((to, lane, bytes)));
    assert_eq!(rooms, [(ShardId(1), Lane::Bulk, LANE_BYTES)]);
    ends[0].receive(|_| {}, |_, _| {});
    ends[0].take_room(|_, _, _| panic!("told once"));
    assert!(ends[0].fall_asleep());
}

#[test]
fn who_is_woken_for_too_little_room_is_woken_again() {
    let mut ends = build(2, LANE_BYTES_MAX);
    // More than the receiver takes in a turn, and the room of all of it is waited for.
    ends[0].send(ShardId(1), Lane::Bulk, &record(1024, 1).repeat(LANE_BYTES_MAX / 1024));
    ends[0].want_room(ShardId(1), Lane::Bulk, LANE_BYTES_MAX);
    ends[0].publish(|_| {});
    let (mut turns, mut is_told) = (0, false);
    while !is_told {
        assert!(ends[0].fall_asleep(), "nothing keeps it awake");
        let mut woken = vec![];
        ends[1].receive(|to| woken.push(to), |_, _| {});
        turns += 1;
        assert_eq!(woken, [ShardId(0)], "turn {turns}");
        ends[0].receive(|_| {}, |_, _| {});
        ends[0].take_room(|_, _, _| is_told = true);
    }
    assert_eq!(turns, LANE_BYTES_MAX / TAKE_BYTES, "not before all of it is there");
}

/// One thread fills a lane, another empties it, and both sleep without a limit whenever they may: a lost wake stops the
/// play.
#[test]
fn no_wake_for_room_is_lost() {
    const RECORD_BYTES: usize = 64;
    const ALL_BYTES: usize = 20_000 * LANE_BYTES;
    let mut ends = build(2, LANE_BYTES);
    let (mut to, mut from) = (ends.pop().expect("two"), ends.pop().expect("two"));
    // The time limit only ends the test. It is one sleep's: on a busy machine the play takes long.
    let sleep = |end: &MeshEnd| {
        if end.fall_asleep() {
            let asleep = Instant::now();
            thread::park_timeout(Duration::from_secs(10));
            end.awake();
            assert!(asleep.elapsed() < Duration::from_secs(9), "a wake was lost");
        }
    };
    thread::scope(|scope| {
        let (tell, told) = flume::bounded::<thread::Thread>(1);
        let receiver = scope.spawn(move || {
            let sender = told.recv().expect("it tells");
            let mut got_bytes = 0;
            loop {
                to.receive(
                    |_| sender.unpark(),
                    |_, arrival| {
                        let Arrival::Envelopes(run) = arrival else { panic!("no states were sent") };
                        got_bytes += run.len();
                    },
                );
                if got_bytes == ALL_BYTES {
                    return;
                }
                sleep(&to);
            }
        });
        let receiver = receiver.thread().clone();
        let sender = scope.spawn(move || {
            let (mut room_bytes, mut left_bytes) = (LANE_BYTES, ALL_BYTES);
            loop {
                from.take_room(|_, _, bytes| room_bytes = bytes);
                // The other one goes on in between.
                thread::yield_now();
                from.receive(|_| {}, |_, _| {});
                from.take_room(|_, _, bytes| room_bytes = bytes);
                if room_bytes >= LANE_BYTES / 2 {
                    let bytes = (room_bytes / RECORD_BYTES * RECORD_BYTES).min(left_bytes);
                    from.send(ShardId(1), Lane::Bulk, &record(RECORD_BYTES, 1).repeat(bytes / RECORD_BYTES));
                    (room_bytes, left_bytes) = (room_bytes - bytes, left_bytes - bytes);
                    from.want_room(ShardId(1), Lane::Bulk, LANE_BYTES / 2);
                }
                from.publish(|_| receiver.unpark());
                if left_bytes == 0 {
                    return;
                }
                sleep(&from);
            }
        });
        tell.send(sender.thread().clone()).expect("it listens");
    });
}

/// States of phones that this shard, number 0 of two, moves to number 1.
fn states(count: u32) -> Vec<HandOver> {
    let limits = Limits::default();
    let (now, mut out) = (Now { mono_ns: 1_000_000_000, wall_ms: 1_800_000_000_000 }, Outputs::default());
    let partitions = Arc::new(PartitionMap::even(2, 2));
    let config = ShardConfig {
        shard: ShardId(0),
        partitions,
        limits,
        proxies: Arc::new([]),
        server_keys: KeyPair::from_seed([1; 32]),
        previous_server_keys: None,
        ticket_secret: [2; 32],
        open_registration: true,
        seed: [3; 32],
        dedup_key: [4; 16],
        fetch: Fetch::NOTHING,
        segment_bytes: 4 << 20,
    };
    let (mut shard, _) = ShardRecovery::new(config).finish(now, 0, &mut out);
    let hint = Some(PartitionId(1));
    let preface = Preface { version: VERSION, pattern: Pattern::IK, partition_hint: hint }.encode();
    let mut step = |shard: &mut Shard, input: Input<'_>| {
        out.list.clear();
        shard.step(now, input, &mut out);
        std::mem::take(&mut out.list)
    };
    let state_of = |slot| {
        let outputs = step(&mut shard, Input::Accepted { slot, peer: None });
        let [Output::ReceiveOnce(conn)] = outputs[..] else { panic!("{outputs:?}") };
        let outputs = step(&mut shard, Input::Received { conn, bytes: &mut preface.to_vec() });
        assert!(matches!(outputs[..], [Output::MoveSocket { to: ShardId(1), .. }]), "{outputs:?}");
        let outputs = step(&mut shard, Input::SocketMoved { conn, moved: true });
        let moved = outputs.into_iter().find_map(|output| match output {
            Output::MoveState { state, .. } => Some(*state),
            _ => None,
        });
        moved.expect("the state follows the socket")
    };
    (0..count).map(state_of).collect()
}

/// More states than may be under way to a shard: the rest waits at the sender, whose sleep ends when there is room.
#[test]
fn hand_overs_beyond_their_number_wait_at_the_sender() {
    let mut ends = build(2, LANE_BYTES);
    let states = states(3 * HAND_OVER_COUNT as u32 + 1);
    let sent: Vec<u64> = states.iter().map(|state| state.token.0).collect();
    states.into_iter().for_each(|state| ends[0].send_state(ShardId(1), Box::new(state)));
    ends[0].publish(|_| {});
    let mut got = vec![];
    while got.len() < sent.len() {
        assert!(ends[0].fall_asleep(), "nothing keeps it awake");
        let (mut woken, before) = (vec![], got.len());
        ends[1].receive(
            |to| woken.push(to),
            |_, arrival| {
                let Arrival::State(state) = arrival else { panic!("no envelope was sent") };
                got.push(state.token.0);
            },
        );
        assert_eq!(got.len() - before, HAND_OVER_COUNT.min(sent.len() - before), "as many as may at a time");
        let waits = if got.len() < sent.len() { vec![ShardId(0)] } else { vec![] };
        assert_eq!(woken, waits, "after {} of {}", got.len(), sent.len());
        // Its next turn: at the end the rest goes out.
        ends[0].awake();
        ends[0].receive(|_| {}, |_, _| {});
        ends[0].publish(|_| {});
    }
    assert_eq!(got, sent, "each once, in their order");
    assert!(ends[1].fall_asleep(), "nothing is left");
}
