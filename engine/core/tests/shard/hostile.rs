//! What the internet sends: each costs its own connection, is counted, and nobody else notices.

use crate::revoking::add;
use crate::stuck::create;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use crate::world::stranger::first_flight;
use crate::world::{World, server_keys};
use tern_core::limits::Limits;
use tern_protocol::ids::DeviceId;
use tern_protocol::phone::client::{Client, ClientConfig, Event};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

/// Bytes of a stream that anybody can make again.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn garbage_is_closed_and_counted() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    for seed in 0..200 {
        assert!(world.accept(9, None));
        // A preface and then garbage, half of the time.
        let mut bytes = if seed % 2 == 0 { b"TRN\x01\x01\0\0\0\x01\x60\0".to_vec() } else { Vec::new() };
        bytes.extend(noise(seed, 8 + seed as usize));
        world.throw(9, &bytes);
        if world.closed.last() != Some(&9) {
            // It may still be half of something.
            world.throw(9, &[0xff; 600]);
        }
        assert_eq!(world.closed.pop(), Some(9), "seed {seed}");
        bystanders.talk(&mut world);
    }
    assert_eq!(world.shard.counters().protocol_errors, 200);
    assert_eq!(
        (world.shard.counters().connections_now, world.shard.counters().edge_bytes_now > 1 << 20),
        (2, false)
    );
}

#[test]
fn a_byte_a_second_does_not_outlast_the_login_deadline() {
    let mut world = World::new(Limits { login_ms: 10_000, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let flight = first_flight("slow", 5, 1);
    world.accept(9, None);
    for second in 0..11 {
        assert!(!world.closed.contains(&9), "closed after {second} s");
        world.throw(9, &flight[second..=second]);
        bystanders.talk(&mut world);
        world.pass_ms(1_000);
    }
    assert!(world.closed.contains(&9));
    assert_eq!(world.shard.counters().timeouts, 1);
}

#[test]
fn a_record_that_trickles_in_does_not_keep_a_login_alive() {
    let mut world = World::new(Limits { idle_ms: 5_000, ..Limits::default() });
    let mut slow = Phone::connect(&mut world, 9, "slow", 5);
    // The head of the largest record, then a byte a second.
    world.throw(9, &[2, 0xff, 0xff]);
    for _ in 0..4 {
        world.pass_ms(1_000);
        world.throw(9, &[7]);
    }
    assert!(!world.closed.contains(&9));
    world.pass_ms(1_010);
    slow.hear(&mut world);
    assert_eq!(slow.heard.last(), Some(&Heard::Goodbye("Idle".into())));
    assert_eq!((world.shard.counters().timeouts, world.shard.counters().sessions_now), (1, 0));
}

#[test]
fn records_of_impossible_lengths_are_refused_at_their_header() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    let preface: &[u8] = b"TRN\x01\x01\0\0\0";
    // Empty and oversized handshake records; records of kinds that only a server sends, or nobody.
    let records: [&[u8]; 6] =
        [&[1, 0, 0], &[1, 1, 2], &[1, 0xff, 0xff], &[0, 2, 0, 1, 1], &[3, 4, 0, 1, 1, 1, 1], &[9]];
    for header in records {
        world.accept(9, None);
        world.throw(9, &[preface, header].concat());
        assert_eq!(world.closed.pop(), Some(9), "{header:?}");
        bystanders.talk(&mut world);
    }
    // The largest record of those who are logged in: nothing is kept for the rest of it, neither before the handshake nor
    // between its messages. A kind alone is enough.
    for header in [&[2, 0xff, 0xff][..], &[2]] {
        world.accept(9, None);
        world.throw(9, &[preface, header].concat());
        assert_eq!(world.closed.pop(), Some(9), "{header:?}");
        flights_of_xx(&mut world, 9);
        world.throw(9, header);
        assert_eq!(world.closed.pop(), Some(9), "{header:?} after the server's answer");
        bystanders.talk(&mut world);
    }
    // Behind a login: empty, shorter than any frame, garbage of the largest length.
    for header in [[2, 0, 0], [2, 19, 0], [2, 0xff, 0xff]] {
        let _phone = Phone::connect(&mut world, 9, "eve", 5);
        world.throw(9, &[&header[..], &noise(3, 65_535)].concat());
        assert_eq!(world.closed.pop(), Some(9), "{header:?}");
        bystanders.talk(&mut world);
    }
    assert_eq!(world.shard.counters().protocol_errors, 13);
}

#[test]
fn frames_that_are_none_end_the_connection_with_a_reason() {
    let mut world = World::new(Limits { body_bytes: 1000, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let plaintexts: [(&str, &[u8]); 5] = [
        ("a frame of no known kind", &[0, 0, 0, 0x7f]),
        ("a send without a recipient", &[0, 0, 0, 2]),
        ("a frame longer than its record", &[0xff, 0xff, 0, 2, 1, 2]),
        ("a longest possible frame", &[0xff, 0xff, 0xff, 2, 1, 2]),
        ("half a header", &[1, 0, 0, 0x7f, 1, 0]),
    ];
    for (what, plaintext) in plaintexts {
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        let mut bytes = Vec::new();
        eve.client.seal_as_it_is(plaintext, &mut bytes);
        world.throw(9, &bytes);
        eve.hear(&mut world);
        assert_eq!(eve.heard.last(), Some(&Heard::Refused("Malformed".into())), "{what}");
        assert_eq!(world.closed.pop(), Some(9), "{what}");
        bystanders.talk(&mut world);
    }
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    eve.send(&mut world, &bystanders.bob, 1_800_000_000 << 32 | 99, &[7; 1001]);
    assert_eq!(eve.heard.last(), Some(&Heard::Refused("TooLarge".into())));
    bystanders.talk(&mut world);
    assert_eq!(world.shard.counters().protocol_errors, 6);
}

#[test]
fn a_connection_whose_other_end_is_gone_without_a_word_is_given_up() {
    let mut world = World::new(Limits { idle_ms: 3_000, ..Limits::default() });
    let _gone = Phone::connect(&mut world, 9, "eve", 5);
    // It does not read either: even its last words find no room.
    world.stuck.insert(9);
    world.pass_ms(2_990);
    assert!(!world.closed.contains(&9));
    world.pass_ms(1_100);
    assert!(world.closed.contains(&9));
    let counters = world.shard.counters();
    assert_eq!((counters.timeouts, counters.connections_now, counters.sessions_now), (1, 0, 0));
}

#[test]
fn a_replayed_handshake_replaces_nobody_and_is_given_up() {
    let mut world = World::new(Limits { login_ms: 2_000, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut victim = Phone::new(8, "carol", 5);
    world.accept(8, None);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    victim.client.flush(&mut first);
    world.throw(8, &first);
    victim.hear(&mut world);
    victim.client.flush(&mut second);
    world.throw(8, &second);
    victim.hear(&mut world);
    assert_eq!(victim.heard, [Heard::Drained]);
    // Somebody on the path says the same, ten times, on connections of their own.
    for slot in 10..20 {
        world.accept(slot, None);
        world.throw(slot, &first);
        assert!(!world.said(slot).is_empty(), "the first message alone is genuine");
        bystanders.talk(&mut world);
    }
    assert_eq!(world.shard.counters().sessions_now, 3);
    // What was said behind the handshake does not decrypt: the other end's key is fresh.
    world.throw(10, &second);
    assert_eq!(world.closed.pop(), Some(10));
    world.pass_ms(2_010);
    assert_eq!(world.closed.len(), 9);
    victim.hear(&mut world);
    assert_eq!(victim.heard, [Heard::Drained], "the genuine one is still there");
    let counters = world.shard.counters();
    assert_eq!((counters.timeouts, counters.sessions_now, counters.sessions_replaced), (9, 3, 0));
    assert_eq!((counters.logins_unproven, counters.logins), (10, 3));
    // One that goes without a word is counted as well; a phone that says goodbye at once is none.
    world.accept(30, None);
    world.throw(30, &first);
    world.cut(30);
    assert_eq!(world.shard.counters().logins_unproven, 11);
    bystanders.talk(&mut world);
}

/// The records that a phone without the server's key says: preface and message 1; then message 3.
fn flights_of_xx(world: &mut World, slot: u32) -> (Vec<u8>, Vec<u8>) {
    let mut client = Client::new(ClientConfig {
        name: "dora".into(),
        keys: KeyPair::from_seed([6; 32]),
        server_key: None,
        ticket: None,
        register: true,
        partition_hint: None,
        seed: [slot as u8; 32],
    });
    let (mut first, mut third) = (Vec::new(), Vec::new());
    client.flush(&mut first);
    world.accept(slot, None);
    world.throw(slot, &first);
    let second = world.said(slot);
    client.receive(&second, &mut |_: Event<'_>| {}).expect("the server speaks the protocol");
    client.flush(&mut third);
    (first, third)
}

#[test]
fn replayed_and_reordered_messages_of_the_long_handshake_fail() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    let (first, third) = flights_of_xx(&mut world, 9);
    let preface = first[..8].to_vec();
    // Message 3 of another conversation; message 3 in the place of the first; the first one twice.
    let orders: [&[&[u8]]; 3] = [&[&first, &third], &[&preface, &third], &[&first, &first[8..]]];
    for (count, order) in orders.into_iter().enumerate() {
        world.accept(10, None);
        order.iter().for_each(|bytes| world.throw(10, bytes));
        assert_eq!(world.closed.pop(), Some(10), "order {count}");
        assert_eq!(world.shard.counters().handshakes_failed, count as u64 + 1);
        bystanders.talk(&mut world);
    }
    // The genuine one goes on undisturbed.
    world.throw(9, &third);
    assert!(!world.said(9).is_empty() && !world.closed.contains(&9));
}

#[test]
fn a_handshake_for_another_servers_key_fails() {
    let mut world = World::new(Limits::default());
    let wrong = KeyPair::from_seed([43; 32]);
    assert_ne!(wrong.public, server_keys().public);
    let mut client = Client::new(ClientConfig {
        name: "eve".into(),
        keys: KeyPair::from_seed([5; 32]),
        server_key: Some(wrong.public),
        ticket: None,
        register: true,
        partition_hint: None,
        seed: [1; 32],
    });
    let mut bytes = Vec::new();
    client.flush(&mut bytes);
    world.accept(9, None);
    world.throw(9, &bytes);
    assert_eq!(world.closed, [9]);
    assert_eq!(world.shard.counters().handshakes_failed, 1);
}

#[test]
fn another_accounts_device_gets_in_nowhere_else() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    for count in 1..=5 {
        // Ann's device, which is genuine, says that it is Bob's.
        let mut thief = Phone::connect(&mut world, 9, "bob", 1);
        assert_eq!(thief.heard.pop(), Some(Heard::Refused("NameTaken".into())));
        assert_eq!(world.closed.pop(), Some(9));
        assert_eq!(world.shard.counters().logins_name_taken, count);
        bystanders.talk(&mut world);
    }
    let counters = world.shard.counters();
    assert_eq!((counters.sessions_replaced, counters.protocol_errors), (0, 0), "it keeps to the protocol");
}

#[test]
fn a_refused_login_is_counted_by_its_reason_and_is_no_protocol_error() {
    let mut world = World::new(Limits::default());
    let _ann = Phone::connect(&mut world, 0, "ann", 1);
    let come = |world: &mut World, name: &str, key: u8, register: bool| {
        let mut phone = Phone::new(9, name, key);
        phone.client = Client::new(ClientConfig {
            name: name.into(),
            keys: KeyPair::from_seed([key; 32]),
            server_key: Some(server_keys().public),
            ticket: None,
            register,
            partition_hint: None,
            seed: [key; 32],
        });
        world.accept(9, None);
        phone.log_in(world);
        phone.heard
    };
    let refused = |code: &str| [Heard::Refused(code.into())];
    assert_eq!(come(&mut world, "nobody", 2, false), refused("UnknownAccount"));
    assert_eq!(come(&mut world, "ann", 2, false), refused("WrongKey"));
    assert_eq!(come(&mut world, "ann", 2, true), refused("NameTaken"));
    assert_eq!(come(&mut world, "Ann", 3, true), refused("BadName"));
    assert_eq!(come(&mut world, "Ann", 3, false), refused("BadName"));
    let counters = *world.shard.counters();
    assert_eq!((counters.logins_unknown, counters.logins_wrong_key, counters.logins_name_taken), (1, 1, 1));
    assert_eq!((counters.logins_bad_name, counters.handshakes_failed), (2, 0));
    let mut world = world.kill_and_close_registration();
    assert_eq!(come(&mut world, "nobody", 2, true), refused("RegistrationClosed"));
    assert_eq!(world.shard.counters().logins_closed, 1);
    assert_eq!((counters.protocol_errors, world.shard.counters().protocol_errors), (0, 0));
}

#[test]
fn an_acknowledgement_of_the_future_is_refused_and_counted() {
    let mut world = World::new(Limits::default());
    let mut bystanders = Bystanders::arrive(&mut world);
    for (count, number) in [(1, 1), (2, 7), (3, u32::MAX)] {
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        eve.ack(&mut world, number);
        assert_eq!(eve.heard.last(), Some(&Heard::Refused("BadAcknowledgement".into())));
        assert_eq!(world.closed.pop(), Some(9));
        assert_eq!(world.shard.counters().bad_acknowledgements, count);
        bystanders.talk(&mut world);
    }
}

#[test]
fn one_device_does_not_use_up_the_numbers_of_those_that_come_later() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "dora", &[1, 2]);
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut thief = Phone::connect(&mut world, 9, "dora", 2);
    let mut added = 0;
    // Numbers are easy to guess: all of them in a few minutes, at what an account may ask.
    for number in 3..400_u16 {
        thief.client.send(&ClientFrame::AddDevice { key: [number as u8 | 1; 32] });
        thief.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(number) });
        added = world.shard.counters().devices_added;
        world.pass_ms(10);
    }
    assert_eq!(added, 32, "all that an account can have, twice");
    assert_eq!(world.shard.counters().refused_devices, 397 - 32);
    thief.hear(&mut world);
    thief.heard.clear();
    // It is not for who holds many devices, and says what it is.
    thief.say(&mut world, &add(77));
    assert_eq!(thief.heard, [Heard::DevicesRefused("TooManyAdded".into())]);
    bystanders.talk(&mut world);
    // Who owns the account revokes the thief, and has another device within the hour.
    let mut dora = Phone::connect(&mut world, 8, "dora", 1);
    dora.say(&mut world, &ClientFrame::RevokeDevice { device: DeviceId(2) });
    world.pass_s(15 * 60);
    dora = Phone::connect(&mut world, 8, "dora", 1);
    dora.say(&mut world, &add(77));
    assert_eq!(dora.heard.last(), Some(&Heard::Devices(vec![(1, true), (35, false)])));
}
