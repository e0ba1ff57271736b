//! Nothing waits for ever: replies, ticks of several devices, refused streams.

use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, ControlRequest, Created, NewAccount};
use tern_core::io::{Input, Output};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Envelope, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

const NOW_S: u64 = 1_800_000_000;

fn id(low: u64) -> u64 {
    NOW_S << 32 | low
}

pub(crate) fn create(world: &mut World, token: u64, name: &str, keys: &[u8]) {
    let device_keys = keys.iter().map(|&key| KeyPair::from_seed([key; 32]).public).collect();
    let request = ControlRequest::CreateAccounts(vec![NewAccount { name: name.into(), device_keys }]);
    world.step(Input::Control { token, request });
    world.turn();
}

fn created(world: &World, wanted: u64) -> Option<Created> {
    world.gone_out.iter().find_map(|output| match output {
        Output::Reply { token, reply: ControlReply::Created(created) } if *token == wanted => {
            created.first().copied()
        }
        _ => None,
    })
}

#[test]
fn a_reply_that_needs_no_commit_does_not_wait_for_one() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1]);
    assert!(matches!(created(&world, 1), Some(Created::New(_))));
    world.pass_ms(10);
    create(&mut world, 2, "ann", &[1]);
    assert!(matches!(created(&world, 2), Some(Created::Existing(_))));
    let name = "nobody".into();
    world.step(Input::Control { token: 3, request: ControlRequest::RemoveAccount { name } });
    world.turn();
    let removed = |o: &Output| matches!(o, Output::Reply { token: 3, reply: ControlReply::Removed(false) });
    assert!(world.gone_out.iter().any(removed));
}

#[test]
fn what_all_devices_acknowledged_one_after_the_other_is_ticked_sent() {
    let mut world = World::new(Limits { write_back_ms: 50, ..Limits::default() });
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut phones = [2, 3].map(|key| Phone::connect(&mut world, u32::from(key), "bob", key));
    ann.send(&mut world, &phones[0], id(1), b"x");
    for phone in &mut phones {
        phone.hear(&mut world);
        phone.ack(&mut world, 1);
    }
    ann.hear(&mut world);
    ann.ack(&mut world, 1);
    world.pass_ms(100);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Delivered { number: 1, id: id(1) }, Heard::Sent(id(1))]);
    assert_eq!(world.shard.counters().mail_count_now, 0);
}

#[test]
fn mail_that_is_written_after_an_acknowledgement_has_its_floor_with_it() {
    let mut world = World::new(Limits { write_back_ms: 50, floor_delay_ms: 60_000, ..Limits::default() });
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    ann.send(&mut world, &slow, id(1), b"x");
    quick.hear(&mut world);
    quick.ack(&mut world, 1);
    world.pass_ms(100);
    let mut world = world.kill();
    let quick = Phone::connect(&mut world, 2, "bob", 2);
    assert_eq!(quick.heard, [Heard::Drained], "the floor went with the mail");
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    assert_eq!(slow.heard, [Heard::Message { number: 1, id: id(1), body: b"x".to_vec() }, Heard::Drained]);
}

/// A name whose home is shard 0 of two, and an account of shard 1.
pub(crate) fn here_and_there() -> (String, AccountId) {
    let here = (0..).map(|n| format!("ann{n}")).find(|name| PartitionId::of_name(name, 64).0 < 32);
    (here.expect("half of all names are here"), AccountId::new(PartitionId(40), 1))
}

/// What the other shard says to a phone of this one about a message.
fn answer(kind: Kind, from: AccountId, to: &Phone, low: u64) -> Parts<'static> {
    Parts {
        kind,
        flags: 0,
        to: to.account.expect("logged in"),
        from,
        from_device: DeviceId(1),
        id: MessageId(id(low)),
        time_ms: NOW_S * 1000,
        seq: 0,
        from_name: "",
        body: &[],
    }
}

#[test]
fn a_stream_refused_at_both_ends_starts_again_from_the_earlier_refusal() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 3900, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let body = [7; 900];
    let send = |ann: &mut Phone, world: &mut World, low: u64| {
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(low)), body: &body });
        ann.exchange(world);
    };
    for low in 1..=5 {
        send(&mut ann, &mut world, low);
    }
    assert_eq!(ann.heard[1..], [Heard::Busy(id(5))], "the lane has room for four");
    // The other home had refused the first already.
    let busy = Parts { seq: 500, ..answer(Kind::Busy, there, &ann, 1) };
    let from = tern_protocol::ids::ShardId(1);
    world.arrives(&busy);
    world.step(Input::LaneRoom { to: from, lane: tern_core::io::Lane::Bulk, room_bytes: 3900 });
    world.turn();
    ann.hear(&mut world);
    ann.heard.clear();
    send(&mut ann, &mut world, 1);
    assert_eq!(ann.heard, [], "it must be let through to the home that waits for it");
}

/// Which messages its shard has asked the other one about.
fn asked_after(world: &World) -> Vec<u64> {
    let (mut run, mut ids) = (&*world.cast, vec![]);
    while !run.is_empty() {
        let (envelope, rest) = Envelope::parse_first(run).expect("whole envelopes");
        run = rest;
        if envelope.kind() == Kind::Ask {
            assert_eq!(envelope.body(), b"");
            ids.push(envelope.id().0);
        }
    }
    ids
}

/// The phone was told to go back before the answer reached it: a copy of what has its answer comes late, and is refused.
#[test]
fn a_stream_does_not_wait_for_a_message_that_had_its_answer() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 3900, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let send = |ann: &mut Phone, world: &mut World, low: u64| {
        ann.heard.clear();
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(low)), body: &[7; 900] });
        ann.exchange(world);
        ann.heard.clone()
    };
    let from = ShardId(1);
    let answer = answer(Kind::Sent, there, &ann, 1);
    let sent = |world: &mut World| {
        world.arrives(&answer);
        world.turn();
    };
    assert_eq!(send(&mut ann, &mut world, 1), []);
    sent(&mut world);
    (2..=4).for_each(|low| {
        assert_eq!(send(&mut ann, &mut world, low), if low == 2 { vec![Heard::Sent(id(1))] } else { vec![] })
    });
    assert_eq!(send(&mut ann, &mut world, 1), [Heard::Busy(id(1))], "a late copy, and the lane is full");
    world.step(Input::LaneRoom { to: from, lane: tern_core::io::Lane::Bulk, room_bytes: 3900 });
    world.turn();
    // It has its tick and does not come again.
    assert_eq!(send(&mut ann, &mut world, 5), [Heard::Busy(id(5))]);
    assert_eq!(asked_after(&world), []);
    world.pass_ms(1_000);
    assert_eq!(send(&mut ann, &mut world, 5), [Heard::Busy(id(5))]);
    assert_eq!(asked_after(&world), [id(1)]);
    // In a debug build this looks whether each kind kept its lane.
    let _ = world.shard.measures();
    sent(&mut world);
    assert_eq!(send(&mut ann, &mut world, 5), [Heard::Sent(id(1))], "the stream goes on");
}

/// A `sent` tick would say that the sender's other devices have it.
#[test]
fn a_message_without_its_copy_is_not_asked_after() {
    for (keys, asked) in [(&[1][..], vec![id(2)]), (&[1, 2], vec![])] {
        let limits = Limits { account_messages_per_s: 1, account_messages_burst: 1, ..Limits::default() };
        let mut world = World::one_of(2, limits);
        let (name, there) = here_and_there();
        create(&mut world, 1, &name, keys);
        let mut ann = Phone::connect(&mut world, 0, &name, 1);
        for (low, pause_ms) in [(1, 0), (2, 0), (3, 1_000)] {
            world.pass_ms(pause_ms);
            ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(low)), body: b"x" });
            ann.exchange(&mut world);
        }
        assert!(ann.heard.ends_with(&[Heard::Busy(id(2)), Heard::Busy(id(3))]), "{:?}", ann.heard);
        assert_eq!(asked_after(&world), asked);
    }
}

#[test]
fn who_asks_after_a_message_is_told_only_of_one_that_is_there() {
    let mut world = World::one_of(2, Limits { write_back_ms: 50, ..Limits::default() });
    let (name, there) = here_and_there();
    let ann = Phone::connect(&mut world, 1, &name, 1);
    let comes = |world: &mut World, low, kind, ms| {
        let from_name = if kind == Kind::Message { "far" } else { "" };
        let message = Parts { from_name, ..answer(kind, there, &ann, low) };
        world.arrives(&message);
        world.pass_ms(ms);
        let out = world.shard.measures().out.mesh[tern_core::io::Lane::Control as usize];
        let answers = [Kind::Sent, Kind::Expired, Kind::Busy].map(|kind| out[kind as usize]);
        (answers, world.shard.counters().messages_appended)
    };
    assert_eq!(comes(&mut world, 1, Kind::Ask, 100), ([0, 0, 0], 0), "it is not there, and not taken");
    assert_eq!(comes(&mut world, 1, Kind::Message, 10), ([0, 0, 0], 1));
    assert_eq!(comes(&mut world, 1, Kind::Ask, 10), ([0, 0, 0], 1), "it is not safe yet");
    assert_eq!(comes(&mut world, 2, Kind::Ask, 100), ([1, 0, 0], 1), "now it is, and has its answer");
    assert_eq!(comes(&mut world, 1, Kind::Ask, 10), ([2, 0, 0], 1));
}

#[test]
fn a_lane_with_room_for_some_messages_is_asked_for_more() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 4300, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let body = [7; 1000];
    let mut send = |world: &mut World, low: u64, body: &[u8]| {
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(low)), body });
        ann.exchange(world);
    };
    for low in 1..=4 {
        send(&mut world, low, &body[..950]);
    }
    send(&mut world, 5, &body);
    let wanted = |world: &World| world.wanted_room_bytes.iter().copied().max().unwrap_or(0);
    assert_eq!(wanted(&world), 2150, "room for a few hundred bytes is there already");
}

#[test]
fn a_full_lane_asks_for_as_much_time_as_it_has_been_full() {
    let limits = Limits { body_bytes: 1000, lane_bytes: 4300, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 0, &name, 1);
    let mut asked_ms = |world: &mut World, low: u64| {
        ann.retry_ms = 0;
        ann.client.send(&ClientFrame::Send { to: there, id: MessageId(id(low)), body: &[7; 1000] });
        ann.exchange(world);
        ann.retry_ms
    };
    for low in 1..=4 {
        assert_eq!(asked_ms(&mut world, low), 0, "the lane has room for four");
    }
    assert!((4..=8).contains(&asked_ms(&mut world, 5)), "a lane empties within a few turns");
    assert!((4..=8).contains(&asked_ms(&mut world, 6)), "and who waits behind need not wait longer");
    world.pass_ms(100);
    assert!((100..=200).contains(&asked_ms(&mut world, 5)));
    world.pass_ms(10_000);
    assert!((500..=1000).contains(&asked_ms(&mut world, 5)), "its home is stuck: as for anything else");
    let to = tern_protocol::ids::ShardId(1);
    world.step(Input::LaneRoom { to, lane: tern_core::io::Lane::Bulk, room_bytes: 1100 });
    assert_eq!(asked_ms(&mut world, 5), 0);
    assert!((4..=8).contains(&asked_ms(&mut world, 6)), "it is full anew");
}

#[test]
fn ids_of_a_full_segment_fit_the_smallest_commits() {
    let limits = Limits { body_bytes: 64, commit_bytes: 64 + 8192, ..Limits::default() };
    let mut world = World::new(limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let to = bob.account.expect("logged in");
    for turn in 0..1100 {
        for n in 0..10 {
            ann.client.send(&ClientFrame::Send { to, id: MessageId(id(turn * 10 + n)), body: b"x" });
        }
        ann.exchange(&mut world);
    }
    assert_eq!(ann.heard.len(), 1 + 11_000);
    assert!(world.shard.counters().segments_used_now > 2, "a segment was filled");
}

#[test]
fn a_tick_that_comes_during_a_drain_is_kept() {
    let mut world = World::one_of(2, Limits::default());
    let (name, there) = here_and_there();
    let ann = Phone::connect(&mut world, 0, &name, 1);
    world.step(Input::Drain);
    world.turn();
    let tick = Parts { seq: 7, ..answer(Kind::Delivered, there, &ann, 1) };
    world.arrives(&tick);
    world.pass_ms(20);
    let confirms = |o: &Output| matches!(o, Output::Mesh { lane: tern_core::io::Lane::Control, .. });
    assert!(world.gone_out.iter().any(confirms), "the other home is told once it is durable");
}

#[test]
fn a_drain_ends_also_when_the_log_takes_no_more() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    world.disk_runs = false;
    ann.send(&mut world, &bob, 1_800_000_000 << 32 | 1, b"never ticked");
    world.step(Input::Drain);
    world.turn();
    world.pass_ms(9_000);
    assert!(!world.drained, "the log may still take it");
    // Asked again it has no more patience than before.
    world.step(Input::Drain);
    world.pass_ms(1_500);
    assert!(world.drained);
    ann.hear(&mut world);
    assert!(!ann.heard.contains(&Heard::Sent(1_800_000_000 << 32 | 1)));
}
