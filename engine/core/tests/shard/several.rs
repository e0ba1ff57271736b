//! Several devices of one account: copies, read ticks, who comes and who goes; presence and typing.

use crate::stuck::{create, here_and_there};
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::{Input, Lane};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Envelope, FLAG_ANSWER_ONLY, Kind, Parts};
use tern_protocol::ids::{DeviceId, MessageId, ShardId};
use tern_protocol::phone::frame::{ClientFrame, PresenceState};
use tern_protocol::phone::noise::KeyPair;

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

fn public(key: u8) -> [u8; 32] {
    KeyPair::from_seed([key; 32]).public
}

#[test]
fn the_senders_other_devices_get_copies_across_a_kill() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 2]);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.send(&mut world, &bob, id(1), b"hello");
    ann.send(&mut world, &bob, id(1), b"hello");
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    world.pass_ms(10);
    ann.hear(&mut world);
    assert_eq!(ann.heard.iter().filter(|heard| matches!(heard, Heard::Copy { .. })).count(), 0);
    let mut world = world.kill();
    let mut tablet = Phone::connect(&mut world, 2, "ann", 2);
    let to = bob.account.unwrap().0;
    let copy = Heard::Copy { number: 1, to, id: id(1), body: b"hello".to_vec() };
    assert_eq!(tablet.heard, [copy, Heard::Drained], "once, though it was sent twice");
    tablet.ack(&mut world, 1);
    world.pass_ms(300);
    let mut world = world.kill();
    assert_eq!(Phone::connect(&mut world, 2, "ann", 2).heard, [Heard::Drained]);
}

#[test]
fn sent_waits_for_the_copy() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 2]);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(1), b"hello");
    // The recipient has it and says so before anything is on disk: rule (c) holds for it, but not for the copy.
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    world.pass_ms(10);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained], "neither sent nor delivered");
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Sent(id(1)), Heard::Delivered { number: 1, id: id(1) }]);
}

#[test]
fn a_read_tick_is_mail_for_all_devices_of_the_author() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 2]);
    let ann = Phone::connect(&mut world, 1, "ann", 1);
    let author = ann.account.unwrap();
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    let read = ClientFrame::Read { author, id: MessageId(id(7)) };
    bob.say(&mut world, &read);
    world.pass_ms(10);
    bob.say(&mut world, &read);
    assert_eq!(bob.heard[1..], [Heard::ReadTaken(id(7)), Heard::ReadTaken(id(7))]);
    assert_eq!(world.shard.counters().ticks_read, 1, "said twice, taken once");
    let mut world = world.kill();
    for key in [1, 2] {
        let phone = Phone::connect(&mut world, u32::from(key), "ann", key);
        assert_eq!(phone.heard, [Heard::Read { number: 1, id: id(7) }, Heard::Drained]);
    }
}

#[test]
fn a_read_tick_is_taken_only_once_it_is_safe() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.leave(&mut world);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    world.disk_runs = false;
    bob.say(&mut world, &ClientFrame::Read { author: ann.account.unwrap(), id: MessageId(id(7)) });
    assert_eq!(bob.heard, [Heard::Drained]);
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    bob.hear(&mut world);
    assert_eq!(bob.heard[1..], [Heard::ReadTaken(id(7))]);
}

#[test]
fn a_device_that_is_added_gets_what_comes_and_one_that_is_revoked_nothing() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    ann.leave(&mut world);
    bob.send(&mut world, &ann, id(1), b"before");
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.say(&mut world, &ClientFrame::AddDevice { key: public(2) });
    assert_eq!(ann.heard.last(), Some(&Heard::Devices(vec![(1, true), (2, false)])));
    bob.send(&mut world, &ann, id(2), b"after");
    world.pass_ms(10);
    let mut world = world.kill();
    let mut tablet = Phone::connect(&mut world, 2, "ann", 2);
    let ticket = tablet.ticket.unwrap();
    let after = Heard::Message { number: 1, id: id(2), body: b"after".to_vec() };
    assert_eq!(tablet.heard, [after, Heard::Drained]);

    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.ack(&mut world, 2);
    ann.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(2) });
    assert_eq!(ann.heard.last(), Some(&Heard::Devices(vec![(1, true)])));
    tablet.hear(&mut world);
    assert_eq!(tablet.heard.last(), Some(&Heard::Goodbye("Removed".into())));
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    let ticks = bob.heard.iter().filter(|heard| matches!(heard, Heard::Delivered { .. })).count();
    bob.ack(&mut world, ticks as u32);
    world.pass_ms(300);
    assert_eq!((ticks, world.shard.counters().mail_count_now), (2, 0), "nothing waits for it any more");
    assert_eq!(Phone::resume(&mut world, 4, ticket).heard, [Heard::TicketRefused]);
    let mut world = world.kill();
    assert_eq!(Phone::resume(&mut world, 4, ticket).heard, [Heard::TicketRefused]);
    assert!(Phone::connect(&mut world, 2, "ann", 2).account.is_none(), "its key opens nothing");
    assert_eq!(world.shard.counters().mail_count_now, 0);

    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(1) });
    ann.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(9) });
    let refused = ["LastDevice", "UnknownDevice"].map(|code| Heard::DevicesRefused(code.into()));
    assert_eq!(ann.heard[1..], refused);
    ann.say(&mut world, &ClientFrame::AddDevice { key: public(4) });
    assert_eq!(
        ann.heard.last(),
        Some(&Heard::Devices(vec![(1, true), (3, false)])),
        "a number never comes again"
    );
}

#[test]
fn mail_that_only_a_revoked_device_had_not_fetched_is_over_after_a_kill_too() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 2]);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    ann.leave(&mut world);
    bob.send(&mut world, &ann, id(1), b"x");
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(2) });
    // Its acknowledgement is lost in the kill; the other device's part in the message is not.
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    assert_eq!(ann.heard, [Heard::Message { number: 1, id: id(1), body: b"x".to_vec() }, Heard::Drained]);
    ann.ack(&mut world, 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    assert_eq!(bob.heard, [Heard::Delivered { number: 1, id: id(1) }, Heard::Drained]);
    bob.ack(&mut world, 1);
    world.pass_ms(300);
    assert_eq!(world.shard.counters().mail_count_now, 0);
}

#[test]
fn an_account_has_at_most_sixteen_devices() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    for key in 2..=16 {
        ann.say(&mut world, &ClientFrame::AddDevice { key: public(key) });
    }
    assert!(matches!(ann.heard.last(), Some(Heard::Devices(list)) if list.len() == 16));
    ann.say(&mut world, &ClientFrame::AddDevice { key: public(17) });
    assert_eq!(ann.heard.last(), Some(&Heard::DevicesRefused("AccountFull".into())));
    ann.say(&mut world, &ClientFrame::AddDevice { key: public(16) });
    assert!(matches!(ann.heard.last(), Some(Heard::Devices(list)) if list.len() == 16), "it has that one");
}

#[test]
fn presence_is_told_to_who_watches_and_typing_to_who_is_there() {
    let mut world = World::new(Limits { idle_ms: 3_600_000, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    let (ann_id, bob_id) = (ann.account.unwrap(), bob.account.unwrap());
    bob.say(&mut world, &ClientFrame::Watch { account: ann_id });
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    ann.say(&mut world, &ClientFrame::Typing { to: bob_id, on: true });
    ann.leave(&mut world);
    world.pass_ms(1_010);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    world.pass_ms(1_010);
    bob.hear(&mut world);
    let presence = |state| Heard::Presence(state);
    assert_eq!(
        bob.heard[1..],
        [
            presence(PresenceState::Available),
            presence(PresenceState::Away),
            Heard::Typing(true),
            presence(PresenceState::Offline),
            presence(PresenceState::Available),
        ]
    );
    // A watch ends by itself.
    world.pass_ms(1);
    for _ in 0..601 {
        world.now.mono_ns += 1_000_000_000;
        world.pass_ms(1);
    }
    ann.leave(&mut world);
    bob.heard.clear();
    bob.hear(&mut world);
    assert_eq!(bob.heard, []);
}

#[test]
fn mail_for_nobody_who_is_left_is_over_after_a_kill_too() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 2]);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    bob.send(&mut world, &ann, id(1), b"x");
    world.pass_ms(10);
    ann.say(&mut world, &ClientFrame::AddDevice { key: public(4) });
    let mut tablet = Phone::connect(&mut world, 4, "ann", 4);
    for device in [1, 2] {
        tablet.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(device) });
    }
    world.pass_ms(2);
    assert_eq!(world.shard.counters().mail_count_now, 0);
    // The record is still in the log; none of those it was for is.
    let world = world.kill();
    assert_eq!(world.shard.counters().mail_count_now, 0);
}

#[test]
fn a_sent_tick_from_another_shard_waits_for_the_copy() {
    let mut world = World::one_of(2, Limits::default());
    let (name, there) = here_and_there();
    create(&mut world, 1, &name, &[1, 2]);
    let mut ann = Phone::connect(&mut world, 1, &name, 1);
    world.disk_runs = false;
    ann.say(&mut world, &ClientFrame::Send { to: there, id: MessageId(id(1)), body: b"hello" });
    let mut envelopes = Vec::new();
    let sent = Parts {
        kind: Kind::Sent,
        flags: 0,
        to: ann.account.expect("logged in"),
        from: there,
        from_device: DeviceId(1),
        id: MessageId(id(1)),
        time_ms: 0,
        seq: 0,
        from_name: "",
        body: &[],
    };
    sent.encode(&mut envelopes);
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.pass_ms(10);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained], "the message is safe there, the copy not yet here");
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Sent(id(1))]);
}

#[test]
fn a_message_of_which_there_can_be_no_copy_is_only_asked_after() {
    // Ids are known by periods of five minutes: for a time more is known than is promised.
    let limits = Limits { dedup_horizon_ms: 60_000, ..Limits::default() };
    let mut world = World::one_of(2, limits);
    let (name, there) = here_and_there();
    create(&mut world, 1, &name, &[1, 2]);
    let mut ann = Phone::connect(&mut world, 1, &name, 1);
    let mut send = |world: &mut World, low| {
        ann.say(world, &ClientFrame::Send { to: there, id: MessageId(id(low)), body: b"hello" });
    };
    send(&mut world, 1);
    world.pass_s(100);
    send(&mut world, 1);
    send(&mut world, 2);
    let mut run = &*world.cast;
    let mut messages = Vec::new();
    while !run.is_empty() {
        let (envelope, rest) = Envelope::parse_first(run).expect("whole envelopes");
        run = rest;
        if envelope.kind() == Kind::Message {
            messages.push((envelope.id().0, envelope.has(FLAG_ANSWER_ONLY)));
        }
    }
    assert_eq!(messages, [(id(1), false), (id(1), false), (id(2), true)], "the copy of the first is there");
    let copies = Phone::connect(&mut world, 2, &name, 2).heard;
    assert_eq!(copies.iter().filter(|heard| matches!(heard, Heard::Copy { .. })).count(), 1);
}

#[test]
fn a_message_that_is_only_asked_after_is_not_taken() {
    let mut world = World::one_of(2, Limits::default());
    let (name, there) = here_and_there();
    let mut ann = Phone::connect(&mut world, 1, &name, 1);
    let mut comes = |world: &mut World, low, flags| {
        let message = Parts {
            kind: Kind::Message,
            flags,
            to: ann.account.expect("logged in"),
            from: there,
            from_device: DeviceId(1),
            id: MessageId(id(low)),
            time_ms: world.now.wall_ms,
            seq: 1,
            from_name: "far",
            body: b"x",
        };
        world.arrives(&message);
        world.pass_ms(10);
        ann.hear(world);
        let out = world.shard.measures().out.mesh[Lane::Control as usize];
        (ann.heard.len(), [Kind::Sent, Kind::Expired].map(|kind| out[kind as usize]))
    };
    assert_eq!(comes(&mut world, 1, 0), (2, [1, 0]));
    assert_eq!(comes(&mut world, 1, FLAG_ANSWER_ONLY), (2, [2, 0]), "it was taken, and its sender may know");
    assert_eq!(comes(&mut world, 2, FLAG_ANSWER_ONLY), (2, [2, 1]));
}

#[test]
fn what_is_over_behind_mail_for_a_device_that_never_comes_takes_no_room() {
    let mut world = World::new(Limits { mailbox_count: 300, write_back_ms: 0, ..Limits::default() });
    create(&mut world, 1, "ann", &[1, 2]);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 3, "bob", 3);
    bob.send(&mut world, &ann, id(1), b"x");
    ann.hear(&mut world);
    // A copy of each waits for the other device; its tick is over at once, behind what waits.
    for n in 1..=299 {
        ann.send(&mut world, &bob, id(n), b"y");
        bob.hear(&mut world);
        // His message is ticked, too.
        bob.ack(&mut world, n as u32 + u32::from(n > 1));
        ann.hear(&mut world);
        ann.ack(&mut world, n as u32 + 1);
    }
    assert!(!ann.heard.iter().any(|heard| matches!(heard, Heard::Busy(_))));
    let waiting = world.shard.counters().mail_count_now;
    assert!((300..700).contains(&waiting), "{waiting} are in memory: no more than twice what waits");
    ann.send(&mut world, &bob, id(300), b"y");
    assert_eq!(ann.heard.last(), Some(&Heard::Busy(id(300))), "300 wait for the other device");
    let mut world = world.kill();
    let tablet = Phone::connect(&mut world, 2, "ann", 2);
    let is_mail = |heard: &&Heard| matches!(heard, Heard::Copy { .. } | Heard::Message { .. });
    assert_eq!(tablet.heard.iter().filter(is_mail).count(), 64, "a window of them, in their order");
    assert!(matches!(tablet.heard[0], Heard::Message { number: 1, .. }));
}

#[test]
fn what_one_device_has_and_another_has_not_owes_no_second_tick_after_a_restart() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    for n in 1..=5 {
        ann.send(&mut world, &quick, id(n), b"hello");
        world.pass_ms(100);
        quick.hear(&mut world);
        quick.ack(&mut world, n as u32);
        world.pass_ms(10);
        ann.hear(&mut world);
    }
    ann.ack(&mut world, 5);
    world.pass_s(3);
    assert_eq!(world.shard.counters().ticks_delivered, 5);
    let mut world = world.kill();
    world.pass_s(3);
    assert_eq!(world.shard.counters().ticks_delivered, 0, "none is said again");
    let mut slow = Phone::connect(&mut world, 3, "bob", 3);
    let message = |n| Heard::Message { number: n as u32, id: id(n), body: b"hello".to_vec() };
    let expected: Vec<Heard> = (1..=5).map(message).chain([Heard::Drained]).collect();
    assert_eq!(slow.heard, expected, "all waits for the other one still");
    slow.ack(&mut world, 5);
    world.pass_s(3);
    assert_eq!(world.shard.counters().ticks_delivered, 0);
    assert_eq!(Phone::connect(&mut world, 1, "ann", 1).heard, [Heard::Drained]);
    assert_eq!(world.shard.counters().mail_count_now, 0);
}
