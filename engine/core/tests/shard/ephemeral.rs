//! Presence and typing: whoever says too much of it costs the others nothing, and the last state is always told.

use crate::stuck::here_and_there;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::{Input, Lane, Output};
use tern_core::limits::Limits;
use tern_core::measures::ByKind;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::{ClientFrame, PresenceState};

const AWAY: Heard = Heard::Presence(PresenceState::Away);
const AVAILABLE: Heard = Heard::Presence(PresenceState::Available);

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

/// Accounts of another shard watch `to`.
pub(crate) fn watched_from_afar(world: &mut World, to: AccountId, count: u64) {
    let (_, there) = here_and_there();
    let mut envelopes = Vec::new();
    for number in 0..count {
        let parts = Parts {
            kind: Kind::Watch,
            flags: 0,
            to,
            from: AccountId(there.0 + number),
            from_device: DeviceId(1),
            id: MessageId(0),
            time_ms: world.now.wall_ms,
            seq: 0,
            from_name: "",
            body: b"",
        };
        parts.encode(&mut envelopes);
    }
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
}

/// Presence envelopes cast so far, to the own shard and to others.
fn told_count(world: &World) -> u64 {
    let out = world.shard.measures().out;
    let count = |lanes: &[ByKind; 2]| lanes[Lane::Bulk as usize][Kind::Presence as usize];
    count(&out.own) + count(&out.mesh)
}

/// Names whose home is here.
fn names_here() -> impl Iterator<Item = String> {
    (0..).map(|n| format!("ann{n}")).filter(|name| PartitionId::of_name(name, 64).0 < 32)
}

/// One record full of changes, `state` the last one.
fn flap(world: &mut World, phone: &mut Phone, state: PresenceState) {
    let other = if state == PresenceState::Away { PresenceState::Available } else { PresenceState::Away };
    for n in 1..=13_000 {
        phone.client.send(&ClientFrame::Presence { state: if n % 2 == 0 { state } else { other } });
    }
    phone.exchange(world);
}

fn presence_heard(phone: &mut Phone, world: &mut World) -> Vec<Heard> {
    phone.hear(world);
    phone.heard.drain(..).filter(|heard| matches!(heard, Heard::Presence(_))).collect()
}

#[test]
fn a_record_full_of_changes_is_told_once_and_the_last_one_a_second_later() {
    let mut world = World::one_of(2, Limits { connection_frames_per_s: 0, ..Limits::default() });
    let (name, _) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let account = ann.account.unwrap();
    // She watches herself, on her own shard.
    ann.client.send(&ClientFrame::Watch { account });
    watched_from_afar(&mut world, account, 1023);
    assert_eq!(presence_heard(&mut ann, &mut world), []);
    ann.exchange(&mut world);
    assert_eq!(presence_heard(&mut ann, &mut world), [AVAILABLE]);
    let before = told_count(&world);
    flap(&mut world, &mut ann, PresenceState::Away);
    assert_eq!(told_count(&world) - before, 1024, "each watcher hears it once");
    assert_eq!(presence_heard(&mut ann, &mut world), [AWAY]);
    // Back and forth again within the second: that is told when the second is over.
    flap(&mut world, &mut ann, PresenceState::Available);
    flap(&mut world, &mut ann, PresenceState::Away);
    flap(&mut world, &mut ann, PresenceState::Available);
    world.pass_ms(900);
    assert_eq!(told_count(&world) - before, 1024);
    world.pass_ms(110);
    assert_eq!(told_count(&world) - before, 2048);
    assert_eq!(presence_heard(&mut ann, &mut world), [AVAILABLE]);
    // And if it is what they know already, nothing is told.
    flap(&mut world, &mut ann, PresenceState::Available);
    world.pass_ms(2_100);
    assert_eq!(told_count(&world) - before, 2048);
}

#[test]
fn changes_of_many_are_told_piece_by_piece() {
    let mut world = World::one_of(2, Limits { step_budget: 64, ..Limits::default() });
    let names: Vec<String> = names_here().take(3).collect();
    let mut phones: Vec<Phone> =
        names.iter().zip(0..).map(|(name, slot)| Phone::connect(&mut world, slot, name, 1)).collect();
    for phone in &phones {
        watched_from_afar(&mut world, phone.account.unwrap(), 60);
    }
    let before = told_count(&world);
    for phone in &mut phones {
        phone.client.send(&ClientFrame::Presence { state: PresenceState::Away });
        let mut bytes = Vec::new();
        phone.client.flush(&mut bytes);
        let conn = world.conns[&phone.slot];
        world.step(Input::Received { conn, bytes: &mut bytes });
    }
    assert_eq!(told_count(&world), before, "nothing before the turn ends");
    for (told, is_more_left) in [(120, true), (180, false)] {
        world.out.clear();
        world.step(Input::Flush);
        assert_eq!(told_count(&world) - before, told);
        assert_eq!(world.out.list.iter().any(|output| matches!(output, Output::Continue)), is_more_left);
    }
}

#[test]
fn who_found_no_room_is_told_after_the_rest() {
    let mut world = World::one_of(2, Limits { body_bytes: 1000, lane_bytes: 4096, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, &here_and_there().0, 1);
    // Their answers take a quarter of the lane, 18 of them; the others learn the state when there is room.
    watched_from_afar(&mut world, ann.account.unwrap(), 50);
    assert_eq!((told_count(&world), world.shard.counters().ephemeral_dropped > 0), (18, true));
    for told in [36, 50, 50] {
        let room = Input::LaneRoom { to: ShardId(1), lane: Lane::Bulk, room_bytes: 4096 };
        world.step(room);
        world.pass_ms(1_010);
        assert_eq!(told_count(&world), told);
    }
    let room = Input::LaneRoom { to: ShardId(1), lane: Lane::Bulk, room_bytes: 4096 };
    world.step(room);
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    assert_eq!(told_count(&world), 50 + 18);
}

#[test]
fn who_does_not_read_may_miss_the_last_state_and_hears_it_when_it_watches_again() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let account = ann.account.unwrap();
    bob.say(&mut world, &ClientFrame::Watch { account });
    world.turn();
    assert_eq!(presence_heard(&mut bob, &mut world), [AVAILABLE]);
    world.stuck.insert(1);
    ann.send(&mut world, &bob, id(1), b"its send does not end");
    let dropped = |world: &World| world.shard.counters().ephemeral_unread;
    for n in 0.. {
        let state = if n % 2 == 0 { PresenceState::Away } else { PresenceState::Available };
        ann.say(&mut world, &ClientFrame::Presence { state });
        world.now.mono_ns += 1_010_000_000;
        world.next_turn();
        if dropped(&world) > 0 && state == PresenceState::Away {
            break;
        }
        assert!(n < 1_000, "it never has too much");
    }
    world.stuck.clear();
    let conn = world.conns[&1];
    world.step(Input::Sent { conn });
    world.turn();
    assert!(presence_heard(&mut bob, &mut world).len() > 100, "what it was told first");
    bob.say(&mut world, &ClientFrame::Watch { account });
    world.turn();
    assert_eq!(presence_heard(&mut bob, &mut world), [AWAY]);
}

#[test]
fn typing_to_a_phone_that_does_not_read_is_dropped_and_does_not_end_it() {
    let limits = Limits { body_bytes: 64, edge_backlog_bytes: 2 * 64 + 4096, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let to = bob.account.unwrap();
    world.stuck.insert(1);
    eve.send(&mut world, &bob, id(1), b"its send does not end");
    for _ in 0..20 {
        (0..100).for_each(|n| eve.client.send(&ClientFrame::Typing { to, on: n % 2 == 0 }));
        eve.exchange(&mut world);
    }
    assert_eq!((world.shard.counters().slow_readers, world.closed.len()), (0, 0));
    // Answers that it must have find their room behind all the typing.
    for n in 0..100 {
        bob.client.send(&ClientFrame::Ping { token: n });
    }
    bob.client.send(&ClientFrame::Send { to, id: MessageId(id(2)), body: b"to itself" });
    let mut bytes = Vec::new();
    bob.client.flush(&mut bytes);
    world.throw(1, &bytes);
    assert_eq!((world.shard.counters().slow_readers, world.closed.len()), (0, 0));
    world.stuck.clear();
    let conn = world.conns[&1];
    world.step(Input::Sent { conn });
    world.turn();
    bob.hear(&mut world);
    let typings = bob.heard.iter().filter(|heard| matches!(heard, Heard::Typing(_))).count();
    assert!((10..2_000).contains(&typings), "{typings} of 2,000");
    assert!(bob.heard.iter().any(|heard| matches!(heard, Heard::Message { .. })));
    eve.send(&mut world, &bob, id(3), b"and goes on");
    bob.hear(&mut world);
    assert!(matches!(bob.heard.last(), Some(Heard::Message { .. })));
}

#[test]
fn typing_and_watches_leave_most_of_a_lane_to_messages() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 4096, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    for n in 0..200 {
        ann.client.send(&ClientFrame::Typing { to: there, on: n % 2 == 0 });
        ann.client.send(&ClientFrame::Watch { account: there });
    }
    // Three quarters of the lane are 3,072 bytes: three messages of 900 with their heads.
    for n in 1..=3 {
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(n)), body: &[7; 900] });
    }
    ann.exchange(&mut world);
    assert_eq!(ann.heard, [Heard::Drained], "none is busy");
    let out = world.shard.measures().out.mesh[Lane::Bulk as usize];
    let ephemeral = out[Kind::Typing as usize] + out[Kind::Watch as usize];
    assert_eq!((out[Kind::Message as usize], ephemeral), (3, 18), "a quarter is 1,024 bytes, each 56");
    assert_eq!(world.shard.counters().lane_full, 0);
    // Room for them comes back, without a message that asks for it.
    ann.say(&mut world, &ClientFrame::Typing { to: there, on: true });
    assert!(world.wanted_room_bytes.contains(&2048));
    let room = Input::LaneRoom { to: ShardId(1), lane: Lane::Bulk, room_bytes: 4096 };
    world.step(room);
    ann.say(&mut world, &ClientFrame::Typing { to: there, on: true });
    assert_eq!(world.shard.measures().out.mesh[Lane::Bulk as usize][Kind::Typing as usize], 10);
}
