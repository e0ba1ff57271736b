//! What a turn will need is asked for ahead, and what phones say for each other is gathered for that.

use crate::world::phone::{Heard, Phone};
use crate::world::{World, asked_for};
use tern_core::io::{ConnId, Input};
use tern_core::limits::Limits;
use tern_protocol::phone::frame::ClientFrame;

fn id(n: u32) -> u64 {
    1_800_000_000 << 32 | u64::from(n)
}

fn pair(world: &mut World) -> (Phone, Phone) {
    (Phone::connect(world, 0, "ann", 1), Phone::connect(world, 1, "bob", 2))
}

/// Bytes that are asked for when a phone is to be heard after so many others.
fn asked(world: &World, conn: ConnId, after: usize) -> usize {
    asked_for(|| world.shard.expect(false, |count| (count == after).then_some(conn)))
}

#[test]
fn the_memory_of_who_is_heard_soon_is_asked_for_link_by_link() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = pair(&mut world);
    // Keys are expanded, and mail and a window wait for bob, who is going to acknowledge them.
    for n in 0..4 {
        ann.send(&mut world, &bob, id(n), b"hello");
        bob.send(&mut world, &ann, id(10 + n), b"hello");
    }
    let conn = world.conns[&1];
    let of_bob = |after| asked(&world, conn, after);
    let [edge, keys, account, lists, entries, mail] = [10, 8, 5, 3, 2, 1].map(of_bob);
    assert!(edge >= 100, "{edge}");
    assert!(keys >= 400, "an expanded key and the session: {keys}");
    assert!(account >= 150, "{account}");
    assert!(lists >= 50, "{lists}");
    assert!(entries >= 100, "{entries}");
    assert!(mail >= b"hello".len(), "{mail}");
    assert_eq!([0, 4, 6, 7, 9, 11].map(of_bob), [0; 6], "each is asked for once");
    // Of the first ones of a batch nothing was asked for before.
    let of_all = asked_for(|| world.shard.expect(true, |count| (count == 0).then_some(conn)));
    assert_eq!(of_all, edge + keys + account + lists + entries + mail);
    // Whoever had the slot before is nobody's concern but the slot's.
    let gone = ConnId { generation: conn.generation.wrapping_sub(1), ..conn };
    assert_eq!([10, 8, 5, 3, 2, 1].map(|after| asked(&world, gone, after)), [edge, 0, 0, 0, 0, 0]);
    let nobody = ConnId { slot: 1 << 20, generation: 1 };
    assert_eq!([10, 8, 5, 3, 2, 1].map(|after| asked(&world, nobody, after)), [0; 6]);
}

#[test]
fn the_memory_of_all_envelopes_that_come_is_asked_for() {
    let mut world = World::new(Limits::default());
    let (mut ann, bob) = pair(&mut world);
    let mut flush = |count: u32| {
        let send = |n| ann.send_within_turn(&mut world, &bob, id(100 * count + n), b"hello");
        (0..count).for_each(send);
        asked_for(|| world.step(Input::Flush))
    };
    let [ten, twenty] = [10, 20].map(&mut flush);
    // Account, a line of ids, mailbox, entries, session and edge of each.
    assert!(twenty > ten + 10 * 500, "{ten}, {twenty}");
}

#[test]
fn the_memory_of_what_is_sealed_is_asked_for() {
    let mut world = World::new(Limits::default());
    let mut phones: Vec<_> =
        (0..8).map(|n| Phone::connect(&mut world, n, &format!("phone{n}"), n as u8 + 1)).collect();
    let mut answer = |count| {
        let ping = ClientFrame::Ping { token: 1 };
        phones[..count].iter_mut().for_each(|phone| phone.say_within_turn(&mut world, &ping));
        asked_for(|| world.step(Input::Flush))
    };
    let _ = answer(8);
    assert_eq!(answer(2), 0, "they are there at once");
    let [six, eight] = [6, 8].map(answer);
    assert!(six > 400, "expanded keys of two, and what two others are to be told: {six}");
    assert!(eight > six + 2 * 400, "two more, and the edges of two: {six} {eight}");
}

#[test]
fn what_phones_say_for_others_here_waits_for_company_and_not_for_long() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = pair(&mut world);
    ann.send_within_turn(&mut world, &bob, id(1), &[7; 128]);
    let counts = |world: &World| {
        let counters = world.shard.counters();
        (counters.messages_in, counters.messages_appended)
    };
    assert_eq!(counts(&world), (1, 0), "it is known that it comes");
    world.step(Input::Tick);
    assert_eq!(counts(&world), (1, 1), "whatever else happens, it goes on");
    for n in 2..100 {
        ann.send_within_turn(&mut world, &bob, id(n), &[7; 128]);
        let (heard, appended) = counts(&world);
        assert!(heard - appended <= 4096 / 128, "{heard} {appended}: memory for what waits is bounded");
    }
    world.turn();
    assert_eq!(counts(&world), (99, 99));
    bob.hear(&mut world);
    let got = bob.heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
    assert_eq!(got, 64, "a window");
}

#[test]
fn what_was_gathered_comes_before_whatever_else_happens() {
    // What bob's shard hears behind ann's message: that ann is gone, or bob, or that the node stops.
    let others: [fn(&World) -> Input<'static>; 3] = [
        |world| Input::Ended { conn: world.conns[&0] },
        |world| Input::Ended { conn: world.conns[&1] },
        |_| Input::Drain,
    ];
    for other in others {
        let mut world = World::new(Limits::default());
        let (mut ann, mut bob) = pair(&mut world);
        ann.send_within_turn(&mut world, &bob, id(1), b"hello");
        let input = other(&world);
        world.step(input);
        assert_eq!(world.shard.counters().messages_out, 1, "it went to bob, who was there");
        world.step(Input::Flush);
        bob.hear(&mut world);
        world.turn();
        assert_eq!(world.shard.counters().messages_appended, 1);
    }
}
