//! A revoked device with a long mailbox: what waited for it goes in pieces, and no crash brings it half back.

use crate::stuck::here_and_there;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

fn id(low: u64) -> MessageId {
    MessageId(1_800_000_000 << 32 | low)
}

/// Messages from another shard, with ids from `first` on.
fn mail(world: &mut World, to: AccountId, first: u64, count: u64) {
    arrive(world, Kind::Message, (to, DeviceId(1)), first, count);
}

/// Messages from another shard, or ticks of them for an account and one of its devices.
fn arrive(world: &mut World, kind: Kind, (to, device): (AccountId, DeviceId), first: u64, count: u64) {
    let (_, from) = here_and_there();
    let mut envelopes = Vec::new();
    for low in first..first + count {
        let parts = Parts {
            kind,
            flags: 0,
            to,
            from,
            from_device: device,
            id: id(low),
            time_ms: world.now.wall_ms,
            seq: 0,
            from_name: "far",
            body: b"x",
        };
        parts.encode(&mut envelopes);
        if envelopes.len() > 60_000 || low + 1 == first + count {
            world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
            world.turn();
            envelopes.clear();
        }
    }
}

/// A world in which `count` messages wait for device 1 of an account and for nobody else: device 2, which is connected
/// and whose connection is given back, was added behind them.
fn with_mail_for_device_1(limits: Limits, count: u64) -> (World, String, Phone) {
    // One sender gets half of a mailbox.
    let mailbox_count = limits.mailbox_count.max(2 * count as u32);
    let mut world = World::one_of(2, Limits { mailbox_count, ..limits });
    let (name, _) = here_and_there();
    let mut old = Phone::connect(&mut world, 1, &name, 1);
    old.leave(&mut world);
    mail(&mut world, old.account.expect("logged in"), 1, count);
    let mut old = Phone::connect(&mut world, 1, &name, 1);
    old.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([2; 32]).public });
    old.leave(&mut world);
    let new = Phone::connect(&mut world, 2, &name, 2);
    assert_eq!(new.heard, [Heard::Drained]);
    assert_eq!(world.shard.counters().mail_count_now, count);
    (world, name, new)
}

const REVOKE: ClientFrame<'_> = ClientFrame::RevokeDevice { device: DeviceId(1) };

#[test]
fn a_long_mailbox_lets_go_of_a_revoked_device_in_pieces() {
    const COUNT: u64 = 100_000;
    let (mut world, _, mut new) = with_mail_for_device_1(Limits::default(), COUNT);
    let is_here = |name: &String| PartitionId::of_name(name, 64).0 < 32;
    let tom = (0..).map(|n| format!("tom{n}")).find(is_here).expect("half of all names are here");
    let mut other = Phone::connect(&mut world, 3, &tom, 3);
    assert!(other.account.is_some());
    let piece = u64::from(Limits::default().step_budget);
    new.say(&mut world, &REVOKE);
    assert_eq!(new.heard[1..], [Heard::Devices(vec![(2, true)])], "told before the mailbox is through");
    let (mut held, mut turns) = (world.shard.counters().mail_count_now, 0);
    assert_eq!(held, COUNT, "nothing is done in the step of the frame");
    while held > 0 {
        world.step(Input::Tick);
        world.turn();
        let now = world.shard.counters().mail_count_now;
        assert!(now < held && held - now <= piece, "turn {turns}: {held} before, {now} behind it");
        (held, turns) = (now, turns + 1);
        if turns % 50 == 0 {
            other.heard.clear();
            other.say(&mut world, &ClientFrame::Lookup { name: &tom });
            assert_eq!(other.heard, [Heard::Found(other.account.map(|account| account.0))], "turn {turns}");
        }
    }
    assert_eq!(turns, COUNT.div_ceil(piece));
}

#[test]
fn a_device_that_nothing_waits_for_leaves_in_a_turn_however_long_the_mailbox() {
    let limits = Limits { step_budget: 10, ..Limits::default() };
    let (mut world, _, mut new) = with_mail_for_device_1(limits, 1_000);
    for number in 3..10 {
        new.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([number; 32]).public });
        new.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(number.into()) });
        assert_eq!(new.heard.last(), Some(&Heard::Devices(vec![(1, false), (2, true)])));
        world.next_turn();
        assert_eq!(world.shard.held().leaving_count, 0, "all of this mail was before its time");
    }
    assert_eq!(world.shard.counters().mail_count_now, 1_000);
}

#[test]
fn what_waits_for_a_revoked_device_is_let_go_of_behind_what_is_over_too() {
    let mut world = World::one_of(2, Limits::default());
    let (name, _) = here_and_there();
    let mut old = Phone::connect(&mut world, 1, &name, 1);
    old.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([2; 32]).public });
    old.leave(&mut world);
    let mut new = Phone::connect(&mut world, 2, &name, 2);
    let to = (new.account.expect("logged in"), DeviceId(2));
    // The first waits for device 1. The others are for device 2 alone: over at once, they stay behind it.
    arrive(&mut world, Kind::Read, to, 1, 1);
    arrive(&mut world, Kind::Delivered, to, 100, 5);
    new.hear(&mut world);
    new.ack(&mut world, 6);
    new.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([3; 32]).public });
    arrive(&mut world, Kind::Read, to, 200, 1);
    new.hear(&mut world);
    new.ack(&mut world, 7);
    assert_eq!(world.shard.counters().mail_count_now, 7, "five of them are over");
    new.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(3) });
    world.next_turn();
    let mut old = Phone::connect(&mut world, 1, &name, 1);
    assert_eq!(old.heard.len(), 3, "two ticks, and that there is no more: {:?}", old.heard);
    old.ack(&mut world, 2);
    assert_eq!(world.shard.counters().mail_count_now, 0);
}

#[test]
fn devices_for_whom_little_waits_leave_many_in_a_turn() {
    let limits = Limits { step_budget: 40, ..Limits::default() };
    let (mut world, _, mut new) = with_mail_for_device_1(limits, 1_000);
    let account = new.account.expect("logged in");
    for number in 3..13 {
        new.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([number; 32]).public });
    }
    mail(&mut world, account, 5_000, 4);
    for number in 3..13 {
        new.client.send(&ClientFrame::RevokeDevice { device: DeviceId(number) });
    }
    new.exchange(&mut world);
    assert_eq!(world.shard.held().leaving_count, 10);
    world.next_turn();
    assert_eq!(world.shard.held().leaving_count, 0, "ten times four entries are one turn's");
    new.hear(&mut world);
    new.ack(&mut world, 4);
    assert_eq!(world.shard.counters().mail_count_now, 1_004, "which wait for device 1 as before");
}

#[test]
fn mail_that_comes_while_a_mailbox_lets_go_stays_also_for_a_device_in_the_same_place() {
    let (mut world, name, mut new) =
        with_mail_for_device_1(Limits { step_budget: 10, ..Limits::default() }, 25);
    let account = new.account.expect("logged in");
    new.say(&mut world, &REVOKE);
    world.step(Input::Tick);
    world.turn();
    // In the middle: another device comes, and mail for it.
    new.say(&mut world, &ClientFrame::AddDevice { key: KeyPair::from_seed([4; 32]).public });
    mail(&mut world, account, 100, 1);
    assert_eq!(world.shard.counters().mail_count_now, 16);
    world.pass_ms(5);
    assert_eq!(world.shard.counters().mail_count_now, 1);
    let third = Phone::connect(&mut world, 4, &name, 4);
    let mail = Heard::Message { number: 1, id: id(100).0, body: b"x".to_vec() };
    assert_eq!(third.heard, [mail, Heard::Drained]);
}

#[test]
fn a_crash_in_the_middle_leaves_nothing_for_the_revoked_device() {
    let (mut world, name, mut new) =
        with_mail_for_device_1(Limits { step_budget: 10, ..Limits::default() }, 25);
    new.say(&mut world, &REVOKE);
    world.step(Input::Tick);
    world.turn();
    assert_eq!(world.shard.counters().mail_count_now, 15);
    let mut world = world.kill();
    assert_eq!(world.shard.counters().mail_count_now, 0);
    assert!(Phone::connect(&mut world, 1, &name, 1).account.is_none(), "its key opens nothing");
    assert_eq!(Phone::connect(&mut world, 2, &name, 2).heard, [Heard::Drained]);
}

#[test]
fn a_crash_before_the_revocation_is_durable_brings_the_device_back_with_all_its_mail() {
    let (mut world, name, mut new) =
        with_mail_for_device_1(Limits { step_budget: 10, ..Limits::default() }, 25);
    world.disk_runs = false;
    new.say(&mut world, &REVOKE);
    world.pass_ms(50);
    assert_eq!(world.shard.counters().mail_count_now, 25, "nothing is let go of yet");
    assert_eq!(new.heard, [Heard::Drained], "and nobody was told that it is done");
    let mut world = world.kill();
    let old = Phone::connect(&mut world, 1, &name, 1);
    let count = old.heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
    assert_eq!(count, 25);
}
