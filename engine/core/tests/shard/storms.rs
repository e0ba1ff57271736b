//! Everybody comes at once: handshakes wait for their turn, and those who are in go on talking in every turn.

use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use crate::world::stranger::{busy_record_ms, first_flight};
use tern_core::io::{ConnId, HandOverToken, Input, Lane, Output};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

const STORM_COUNT: u32 = 10_000;
const PER_TURN: u32 = 16;

/// So many connects with their first flights, before any turn ends, in slots that are used for the first time.
fn storm(world: &mut World, count: u32, flights: &[Vec<u8>]) -> std::ops::Range<u32> {
    let slots = 10..10 + count;
    for slot in slots.clone() {
        world.step(Input::Accepted { slot, peer: None });
        let mut bytes = flights[slot as usize % flights.len()].clone();
        world.step(Input::Received { conn: first_use(slot), bytes: &mut bytes });
    }
    slots
}

fn first_use(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

#[test]
fn ten_thousand_connects_at_once_wait_while_others_talk_in_every_turn() {
    let limits = Limits { handshakes_per_turn: PER_TURN, deferred_count: STORM_COUNT, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let flights: Vec<Vec<u8>> =
        (0..100).map(|n| first_flight(&format!("storm{n}"), 10 + n as u8, n)).collect();
    let slots = storm(&mut world, STORM_COUNT, &flights);
    assert_eq!(world.shard.counters().accepted, u64::from(STORM_COUNT) + 2);
    world.turn();
    let mut turns = 1;
    loop {
        let done = (turns * PER_TURN).min(STORM_COUNT);
        let waits = world.shard.counters().deferred_now;
        assert_eq!(waits, u64::from(STORM_COUNT - done), "so many a turn, no more and no fewer");
        if waits == 0 {
            break;
        }
        // What does not need a handshake is done in this very turn.
        bystanders.talk(&mut world);
        world.now.mono_ns += 1_000_000;
        world.step(Input::Tick);
        world.turn();
        turns += 1;
    }
    assert_eq!(turns, STORM_COUNT.div_ceil(PER_TURN));
    // Each answer is the work of the turn behind it.
    world.next_turn();
    let answered = slots.filter(|slot| world.sent.get(slot).is_some_and(|sent| sent[0] == 1)).count();
    assert_eq!(answered, STORM_COUNT as usize, "each got its handshake");
    let counters = world.shard.counters();
    assert_eq!(counters.deferred_handshakes, u64::from(STORM_COUNT - PER_TURN));
    assert_eq!((counters.refused_handshakes, counters.timeouts), (0, 0));
}

#[test]
fn a_queue_of_handshakes_that_is_full_tells_the_rest_to_come_back() {
    let limits =
        Limits { handshakes_per_turn: PER_TURN, deferred_count: 500, busy_ms: 1_000, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let slots = storm(&mut world, STORM_COUNT, &[first_flight("storm", 10, 1)]);
    world.turn();
    let counters = world.shard.counters();
    let refused_count = STORM_COUNT - PER_TURN - 500;
    assert_eq!((counters.deferred_now, counters.refused_handshakes), (500, u64::from(refused_count)));
    let mut times: Vec<u32> = slots.filter_map(|slot| busy_record_ms(world.sent.get(&slot)?)).collect();
    assert_eq!((times.len(), world.closed.len()), (refused_count as usize, refused_count as usize));
    times.sort_unstable();
    assert!(times[0] >= 1_000 && times[times.len() - 1] <= 2_000);
    times.dedup();
    assert!(times.len() > 900, "they come back spread over a second: {} different times", times.len());
    bystanders.talk(&mut world);
}

/// A storm that goes on: in each turn more come than a turn has time for. Who came first has its handshake first.
#[test]
fn newcomers_of_every_turn_wait_behind_those_who_wait() {
    let limits = Limits { handshakes_per_turn: PER_TURN, deferred_count: 1_000, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let flights = [first_flight("storm", 10, 1)];
    let first = storm(&mut world, 160, &flights);
    world.turn();
    let (mut next, mut served) = (first.end, PER_TURN);
    while served < 160 {
        world.now.mono_ns += 1_000_000;
        // As a driver does: what came, then what waits.
        for slot in next..next + 2 * PER_TURN {
            world.step(Input::Accepted { slot, peer: None });
            world.step(Input::Received { conn: first_use(slot), bytes: &mut flights[0].clone() });
        }
        next += 2 * PER_TURN;
        world.step(Input::Tick);
        world.turn();
        // Each answer is the work of the turn behind it.
        let answered: Vec<u32> = world.sent.range(first.start..next).map(|(&slot, _)| slot).collect();
        assert!(answered.iter().copied().eq(first.start..first.start + served), "{served}: {answered:?}");
        served += PER_TURN;
        bystanders.talk(&mut world);
    }
    let counters = world.shard.counters();
    assert_eq!((counters.refused_handshakes, counters.timeouts), (0, 0));
    assert_eq!(counters.deferred_now, u64::from(9 * 2 * PER_TURN), "the newcomers are next");
}

#[test]
fn whose_turn_does_not_come_in_time_is_told_to_come_back() {
    let limits = Limits { handshakes_per_turn: 1, login_ms: 100, ..Limits::default() };
    let mut world = World::new(limits);
    let slots = storm(&mut world, 20, &[first_flight("storm", 10, 1)]);
    world.turn();
    assert_eq!(world.shard.counters().deferred_now, 19);
    // So long a turn that nobody's comes.
    world.now.mono_ns += 120_000_000;
    world.turn();
    let told = slots
        .clone()
        .skip(1)
        .filter(|slot| world.sent.get(slot).is_some_and(|sent| busy_record_ms(sent).is_some()));
    assert_eq!(told.count(), 19);
    let counters = world.shard.counters();
    assert_eq!(counters.timeouts, 20, "the one whose turn it was has no answer either");
    assert_eq!((counters.login_timeouts, counters.logins_unserved), (0, 20), "they have done their part");
    assert_eq!(world.closed.len(), 20);
}

/// A restart must not bring everybody back in one instant.
#[test]
fn a_drain_asks_back_so_many_a_second_and_those_without_keys_too() {
    let limits = Limits { handshakes_per_turn: PER_TURN, busy_ms: 500, ..Limits::default() };
    let mut world = World::new(limits);
    let slots = storm(&mut world, 3_000, &[first_flight("storm", 10, 1)]);
    world.turn();
    world.step(Input::Drain);
    world.turn();
    let mut times: Vec<u32> =
        slots.skip(PER_TURN as usize).filter_map(|slot| busy_record_ms(world.sent.get(&slot)?)).collect();
    assert_eq!(times.len(), 3_000 - PER_TURN as usize, "each is told");
    times.sort_unstable();
    let (earliest, latest) = (times[0], times[times.len() - 1]);
    assert!(earliest >= 500 && latest <= 3_500, "{earliest} to {latest}");
    // A thousand a second on average: none of the three seconds has nearly all.
    for second in [500, 1_500, 2_500] {
        let count = times.iter().filter(|&&ms| (second..second + 1_000).contains(&ms)).count();
        assert!((800..1_200).contains(&count), "{count} from {second} ms on");
    }
}

/// A client that has its answer reads no record in the clear any more: it would take one for a broken server.
#[test]
fn who_is_in_the_middle_of_a_handshake_hears_nothing_in_the_clear_of_a_drain() {
    let mut world = World::new(Limits::default());
    let mut client = Client::new(ClientConfig {
        name: "ann".into(),
        keys: KeyPair::from_seed([1; 32]),
        // Without the server's key it takes three messages.
        server_key: None,
        ticket: None,
        register: true,
        partition_hint: None,
        seed: [2; 32],
    });
    let mut flight = Vec::new();
    client.flush(&mut flight);
    assert!(world.accept(0, None));
    world.throw(0, &flight);
    world.next_turn();
    let answer = world.said(0);
    assert_eq!(answer[0], 1, "a handshake record");
    client.receive(&answer, &mut |_| {}).expect("an answer");
    flight.clear();
    client.flush(&mut flight);
    assert!(!flight.is_empty(), "its third message, which the server never reads");
    world.step(Input::Drain);
    world.turn();
    assert_eq!((world.said(0), &world.closed[..]), (vec![], &[0][..]));
}

/// Nobody waits in the line for longer than phones have patience, so that no storm is spent on those who are gone.
#[test]
fn whoever_comes_to_a_slow_line_is_told_to_come_back_ever_later() {
    let limits = Limits { handshakes_per_turn: 1, login_ms: 10_000, busy_ms: 500, ..Limits::default() };
    let mut world = World::new(limits);
    let flight = first_flight("storm", 10, 1);
    storm(&mut world, 100, std::slice::from_ref(&flight));
    world.turn();
    let mut slot = 1_000;
    let mut told_ms = |world: &mut World| {
        slot += 1;
        world.step(Input::Accepted { slot, peer: None });
        world.step(Input::Received { conn: first_use(slot), bytes: &mut flight.clone() });
        world.turn();
        world.sent.get(&slot).and_then(|sent| busy_record_ms(sent))
    };
    assert_eq!(told_ms(&mut world), None, "it waits with the others");
    let pass = |world: &mut World, ms: u64| world.now.mono_ns += ms * 1_000_000;
    pass(&mut world, 2_500);
    assert_eq!(told_ms(&mut world), None, "a quarter of the time that a login may take");
    pass(&mut world, 10);
    let told = told_ms(&mut world).expect("the first in the line has waited for longer");
    assert!((2_510..=5_020).contains(&told), "{told}");
    // Turns go on, but they are seldom.
    for _ in 0..5 {
        pass(&mut world, 900);
        world.next_turn();
        told_ms(&mut world).expect("as slow as before");
    }
    let told = told_ms(&mut world).expect("as slow as before");
    assert!((7_010..=14_020).contains(&told), "{told}");
    let counters = world.shard.counters();
    assert_eq!((counters.refused_handshake_waits, counters.refused_handshakes), (7, 0));
    assert_eq!((counters.timeouts, counters.deferred_now), (0, 96));
    // The line gets on: once it is quick again all are let in.
    for _ in 0..96 {
        world.next_turn();
    }
    assert_eq!((told_ms(&mut world), world.shard.counters().deferred_now), (None, 0));
}

#[test]
fn those_who_gave_up_waiting_cost_no_turn() {
    let mut world = World::new(Limits { handshakes_per_turn: 1, ..Limits::default() });
    storm(&mut world, 20, &[first_flight("storm", 10, 1)]);
    world.turn();
    assert_eq!(world.shard.counters().deferred_now, 19);
    (11..29).for_each(|slot| world.step(Input::Ended { conn: first_use(slot) }));
    world.turn();
    assert_eq!(world.shard.counters().deferred_now, 1, "who is gone waits for nothing");
    world.next_turn();
    assert_eq!(world.shard.counters().deferred_now, 0);
    world.next_turn();
    assert!(world.sent.contains_key(&29), "the one who stayed has its turn");
}

/// Whoever comes and goes while the queue is full of others does not keep it full, nor make it grow.
#[test]
fn those_who_gave_up_waiting_leave_their_places() {
    let limits = Limits { handshakes_per_turn: 1, deferred_count: 20, ..Limits::default() };
    let mut world = World::new(limits);
    let flight = first_flight("storm", 10, 1);
    storm(&mut world, 11, std::slice::from_ref(&flight));
    for slot in 100..5_100 {
        world.step(Input::Accepted { slot, peer: None });
        world.step(Input::Received { conn: first_use(slot), bytes: &mut flight.clone() });
        world.step(Input::Ended { conn: first_use(slot) });
    }
    world.turn();
    let counters = world.shard.counters();
    assert_eq!((counters.deferred_now, counters.refused_handshakes), (10, 0));
}

/// What the node makes a phone wait is no part of the time that the phone has.
#[test]
fn who_had_to_wait_for_its_turn_has_as_long_for_its_login_as_others() {
    let limits = Limits { handshakes_per_turn: 1, login_ms: 1_000, ..Limits::default() };
    let mut world = World::new(limits);
    let mut late = Phone::new(11, "late", 7);
    assert!(world.accept(10, None) && world.accept(11, None));
    world.step(Input::Received { conn: first_use(10), bytes: &mut first_flight("storm", 10, 1) });
    late.exchange(&mut world);
    assert_eq!(world.shard.counters().deferred_now, 1);
    world.now.mono_ns += 990_000_000;
    world.next_turn();
    world.now.mono_ns += 990_000_000;
    late.log_in(&mut world);
    assert_eq!(late.heard, [Heard::Drained]);
}

#[test]
fn who_goes_while_its_login_waits_for_the_log_is_let_go() {
    let mut world = World::new(Limits::default());
    world.disk_runs = false;
    Phone::connect(&mut world, 0, "ann", 1);
    world.cut(0);
    assert_eq!((&world.closed[..], world.shard.counters().connections_now), (&[0][..], 0));
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    let counters = world.shard.counters();
    assert_eq!((counters.accounts_now, counters.sessions_now, counters.logins), (1, 0, 0));
}

/// An account that the log has not taken in time is no fault of its phone.
#[test]
fn a_login_that_waits_for_the_log_for_too_long_is_told_to_come_back() {
    let mut world = World::new(Limits { login_ms: 1_000, ..Limits::default() });
    world.disk_runs = false;
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    assert_eq!(ann.heard, [], "its session waits");
    world.pass_ms(1_010);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Goodbye("Busy".into())]);
    let counters = world.shard.counters();
    assert_eq!((counters.logins_unserved, counters.login_timeouts), (1, 0));
}

#[test]
fn halves_of_hand_overs_have_a_limit() {
    let mut world = World::one_of(2, Limits { hand_over_count: 5, ..Limits::default() });
    let from = ShardId(1);
    for slot in 10..20 {
        let token = HandOverToken(u64::from(slot));
        world.step(Input::HandOverSocket { from, token, slot });
    }
    world.turn();
    let given_up = |world: &World| -> Vec<u32> {
        let slots = world.gone_out.iter().filter_map(|output| match output {
            Output::CloseSlot(slot) => Some(*slot),
            _ => None,
        });
        slots.collect()
    };
    assert_eq!(given_up(&world), [15, 16, 17, 18, 19]);
    assert_eq!(world.shard.counters().hand_over_failures, 5);
    world.pass_ms(5_010);
    assert_eq!(given_up(&world).len(), 10, "the other halves of the rest did not come in time");
}

/// Another shard has its socket by now, and counts for it.
#[test]
fn an_edge_that_is_on_its_way_to_another_shard_is_not_late_here() {
    let mut world = World::one_of(2, Limits { login_ms: 100, ..Limits::default() });
    assert!(world.accept(9, None));
    // A preface with the hint of a partition of the other shard.
    world.throw(9, b"TRN\x01\x01\x01\x28\0");
    assert!(matches!(world.gone_out[..], [Output::MoveSocket { .. }]), "{:?}", world.gone_out);
    world.pass_ms(110);
    let counters = world.shard.counters();
    assert_eq!((counters.timeouts, counters.logins_unserved), (0, 0));
}

/// A name whose home is shard 0 of two, one whose home is shard 1, and an account there.
fn here_and_there() -> (String, String, AccountId) {
    let mut names = (0..).map(|n| format!("ann{n}"));
    let mut find = |is_here: bool| {
        names.find(|name| (PartitionId::of_name(name, 64).0 < 32) == is_here).expect("half of all names")
    };
    (find(true), find(false), AccountId::new(PartitionId(40), 1))
}

/// What went to the other shard since the last look: lane and bytes, in order.
fn cast(world: &mut World) -> Vec<(Lane, usize)> {
    let gone = std::mem::take(&mut world.gone_out);
    let lanes = gone.into_iter().filter_map(|output| match output {
        Output::Mesh { lane, data, .. } => Some((lane, data.len())),
        _ => None,
    });
    lanes.collect()
}

#[test]
fn ticks_pass_a_shard_whose_lane_of_messages_is_stuck() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 4096, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, _, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let id = |low: u64| MessageId(1_800_000_000 << 32 | low);
    // The other shard does not come round to its messages any more: the lane to it fills up.
    for low in 0..10 {
        ann.client.send(&ClientFrame::Send { to: there, id: id(low), body: &[7; 900] });
    }
    ann.exchange(&mut world);
    let bulk: usize = cast(&mut world).iter().map(|&(_, bytes)| bytes).sum();
    assert!((3_000..=4_096).contains(&bulk), "the lane took {bulk} bytes and is full");
    assert!(world.shard.counters().refused_busy >= 6);
    // Its own messages still come, are delivered and acknowledged, and each tick leaves in the turn of its fact.
    let from = ShardId(1);
    for low in 100..300_u32 {
        let message = Parts {
            kind: Kind::Message,
            flags: 0,
            to: ann.account.expect("logged in"),
            from: there,
            from_device: DeviceId(1),
            id: id(u64::from(low)),
            time_ms: world.now.wall_ms,
            seq: 1,
            from_name: "bob",
            body: b"still here",
        };
        let mut envelopes = Vec::new();
        message.encode(&mut envelopes);
        world.step(Input::Mesh { from, envelopes: &envelopes });
        world.turn();
        ann.hear(&mut world);
        // Her own go on being refused, which takes nothing from the lane of ticks.
        ann.client.send(&ClientFrame::Send { to: there, id: id(4), body: &[7; 900] });
        ann.ack(&mut world, low - 99);
        let cast = cast(&mut world);
        assert!(matches!(cast[..], [(Lane::Control, _)]), "message {low}: {cast:?}");
        world.step(Input::LaneRoom { to: from, lane: Lane::Control, room_bytes: 4096 });
    }
}

#[test]
fn control_goes_before_messages_of_the_same_turn() {
    let mut world = World::one_of(2, Limits::default());
    let (name, other_name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    for low in 0..50 {
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(low), body: &[7; 900] });
    }
    ann.client.send(&ClientFrame::Lookup { name: &other_name });
    ann.exchange(&mut world);
    let lanes: Vec<Lane> = cast(&mut world).into_iter().map(|(lane, _)| lane).collect();
    assert_eq!(lanes, [Lane::Control, Lane::Bulk]);
}

#[test]
fn phones_that_flap_leave_nothing_behind_and_who_stays_talks_in_every_turn() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut flapping = Phone::connect(&mut world, 10, "flap", 7);
    let now = |world: &World| {
        let counters = world.shard.counters();
        [counters.timers_now, counters.connections_now, counters.sessions_now]
    };
    let before = now(&world);
    for _ in 0..300 {
        flapping.leave(&mut world);
        bystanders.talk(&mut world);
        let ticket = flapping.ticket.expect("each session brings one");
        flapping = Phone::resume(&mut world, 10, ticket);
        // What it does puts its timers off.
        flapping.say(&mut world, &ClientFrame::Ping { token: 1 });
        assert_eq!(flapping.heard, [Heard::Drained]);
        bystanders.talk(&mut world);
        assert_eq!(now(&world), before);
        world.pass_ms(100);
    }
    assert_eq!(world.shard.counters().logins_by_ticket, 300);
}

#[test]
fn half_a_handshake_is_the_most_that_a_turn_does_for_one_login() {
    let mut world = World::new(Limits::default());
    storm(&mut world, 2, &[first_flight("late", 10, 1)]);
    world.turn();
    assert!(world.sent.is_empty(), "the first half says nothing");
    world.next_turn();
    assert!(world.sent.contains_key(&10) && world.sent.contains_key(&11));
    assert_eq!(world.shard.counters().deferred_handshakes, 0, "nobody waited for a limit");
}
