//! A mailbox in which much waits for another device: who looks for its own mail there does so in pieces, and not twice.

use crate::stuck::{create, here_and_there};
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::{Input, Output};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, ShardId};

/// Ticks for device 1, so many that device 2 needs twenty turns to pass over them: a login takes fewer.
const TICK_COUNT: u64 = 200;
const PIECE: u32 = 10;

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

/// From another shard: messages for both devices, or `delivered` ticks for device 1.
fn comes(world: &mut World, kind: Kind, to: AccountId, numbers: core::ops::RangeInclusive<u64>) {
    let (_, from) = here_and_there();
    let mut envelopes = Vec::new();
    for low in numbers {
        let parts = Parts {
            kind,
            flags: 0,
            to,
            from,
            from_device: DeviceId(1),
            id: MessageId(id(low)),
            time_ms: world.now.wall_ms,
            seq: low,
            from_name: "",
            body: b"",
        };
        parts.encode(&mut envelopes);
    }
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
}

/// A world with an account that has devices 1 and 2, both away.
fn two_devices() -> (World, String, AccountId) {
    let mut world = World::one_of(2, Limits { step_budget: PIECE, write_back_ms: 0, ..Limits::default() });
    let (name, _) = here_and_there();
    create(&mut world, 1, &name, &[1, 2]);
    let mut phone = Phone::connect(&mut world, 1, &name, 1);
    phone.leave(&mut world);
    (world, name, phone.account.expect("logged in"))
}

fn message(number: u32, low: u64) -> Heard {
    Heard::Message { number, id: id(low), body: Vec::new() }
}

/// Turns until the phone hears that its mailbox is drained, in each of which the shard wants to go on.
fn turns_until_drained(world: &mut World, phone: &mut Phone) -> usize {
    let mut turn_count = 0;
    while phone.heard.last() != Some(&Heard::Drained) {
        world.step(Input::Flush);
        assert!(world.out.list.iter().any(|output| matches!(output, Output::Continue)), "{:?}", phone.heard);
        world.turn();
        world.next_turn();
        phone.hear(world);
        turn_count += 1;
    }
    turn_count
}

#[test]
fn a_login_passes_over_the_mail_of_another_device_in_pieces_and_only_once() {
    let (mut world, name, account) = two_devices();
    comes(&mut world, Kind::Delivered, account, 1..=TICK_COUNT);
    comes(&mut world, Kind::Message, account, 1_001..=1_001);
    let mut tablet = Phone::connect(&mut world, 2, &name, 2);
    assert_eq!(tablet.heard, [], "its mail is behind what is for the other one");
    // What comes meanwhile comes in its place.
    comes(&mut world, Kind::Message, account, 1_002..=1_002);
    let turn_count = turns_until_drained(&mut world, &mut tablet);
    let pieces = TICK_COUNT as usize / PIECE as usize;
    assert!((pieces - 5..=pieces).contains(&turn_count), "{turn_count}");
    let mail = [message(1, 1_001), message(2, 1_002), Heard::Drained];
    assert_eq!(tablet.heard, mail);
    // It has not acknowledged anything, and gets all of it at once this time.
    tablet.leave(&mut world);
    let mut tablet = Phone::connect(&mut world, 2, &name, 2);
    assert_eq!(tablet.heard, mail);
    tablet.ack(&mut world, 2);
    tablet.leave(&mut world);
    world.pass_ms(200);
    // The other one has missed nothing for that, also after a kill.
    let mut world = world.kill();
    assert_eq!(Phone::connect(&mut world, 2, &name, 2).heard, [Heard::Drained]);
    let mut phone = Phone::connect(&mut world, 1, &name, 1);
    while phone.heard.last() != Some(&Heard::Drained) {
        let count = phone.heard.len() as u32;
        phone.ack(&mut world, count);
    }
    let count = TICK_COUNT as u32;
    let ticks = (1..=count).map(|n| Heard::Delivered { number: n, id: id(u64::from(n)) });
    let all: Vec<_> =
        ticks.chain([message(count + 1, 1_001), message(count + 2, 1_002), Heard::Drained]).collect();
    assert_eq!(phone.heard, all);
}

#[test]
fn what_a_device_has_not_acknowledged_comes_again_though_it_has_passed_over_more() {
    let (mut world, name, account) = two_devices();
    comes(&mut world, Kind::Message, account, 1_001..=1_001);
    comes(&mut world, Kind::Delivered, account, 1..=TICK_COUNT);
    for _ in 0..2 {
        let mut tablet = Phone::connect(&mut world, 2, &name, 2);
        assert_eq!(tablet.heard, [message(1, 1_001)]);
        turns_until_drained(&mut world, &mut tablet);
        assert_eq!(tablet.heard, [message(1, 1_001), Heard::Drained]);
        tablet.leave(&mut world);
    }
    let mut tablet = Phone::connect(&mut world, 2, &name, 2);
    tablet.ack(&mut world, 1);
    turns_until_drained(&mut world, &mut tablet);
    tablet.leave(&mut world);
    assert_eq!(Phone::connect(&mut world, 2, &name, 2).heard, [Heard::Drained]);
}

#[test]
fn a_session_that_ends_in_the_middle_leaves_the_rest_to_the_next_one() {
    let (mut world, name, account) = two_devices();
    comes(&mut world, Kind::Delivered, account, 1..=TICK_COUNT);
    let mut heard = Vec::new();
    for _ in 0..TICK_COUNT / u64::from(PIECE) {
        let mut tablet = Phone::connect(&mut world, 2, &name, 2);
        tablet.leave(&mut world);
        heard.push(tablet.heard);
    }
    assert_eq!(heard.first(), Some(&vec![]));
    assert_eq!(heard.last(), Some(&vec![Heard::Drained]), "each goes further than the one before");
    world.step(Input::Flush);
    assert!(world.out.list.is_empty(), "nothing is left to be done: {:?}", world.out.list);
}
