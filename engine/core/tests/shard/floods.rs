//! Too much of everything: each flood meets its limit and its counter, and two bystanders go on talking.

use crate::stuck::here_and_there;
use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use crate::world::stranger::{address, busy_record_ms, first_flight};
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::envelope::{Envelope, FLAG_AGAIN, Kind, Parts};
use tern_protocol::ids::{DeviceId, MessageId, ShardId};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

const NOW_S: u64 = 1_800_000_000;

fn id(low: u64) -> u64 {
    NOW_S << 32 | low
}

#[test]
fn a_flood_of_frames_is_sent_away_for_a_while() {
    let limits = Limits { connection_frames_per_s: 20, connection_frames_burst: 30, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    // Logging in took one frame.
    for token in 0..29 {
        eve.client.send(&ClientFrame::Ping { token });
    }
    eve.exchange(&mut world);
    assert!(!world.closed.contains(&9), "a burst is allowed");
    (0..100).for_each(|token| eve.client.send(&ClientFrame::Ping { token }));
    eve.exchange(&mut world);
    assert_eq!(eve.heard.last(), Some(&Heard::Goodbye("Busy".into())));
    assert_eq!((world.closed.pop(), world.shard.counters().floods), (Some(9), 1));
    bystanders.talk(&mut world);
    // A phone that keeps to the rate is left alone.
    let mut slow = Phone::connect(&mut world, 9, "eve", 5);
    for token in 0..200 {
        slow.client.send(&ClientFrame::Ping { token });
        slow.exchange(&mut world);
        world.pass_ms(51);
    }
    assert!(world.closed.is_empty());
}

#[test]
fn a_flood_of_bytes_is_sent_away_for_a_while() {
    let limits =
        Limits { connection_bytes_per_s: 1000, connection_bytes_burst: 128 << 10, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let mut count = 0;
    while !world.closed.contains(&9) && count < 10 {
        count += 1;
        eve.send(&mut world, &bystanders.bob, id(1000 + count), &[7; 30_000]);
        bystanders.bob.hear(&mut world);
    }
    assert_eq!(eve.heard.last(), Some(&Heard::Goodbye("Busy".into())));
    assert_eq!(
        (count, world.shard.counters().byte_floods, world.shard.counters().floods),
        (5, 1, 0),
        "four bodies of 30,000 bytes are below 128 KiB"
    );
}

/// Every frame counts, from all devices together, and coming back brings no new burst.
#[test]
fn an_account_that_says_too_much_on_several_devices_is_sent_away() {
    let limits = Limits { account_frames_per_s: 20, account_frames_burst: 60, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let key = KeyPair::from_seed([6; 32]).public;
    eve.say(&mut world, &ClientFrame::AddDevice { key });
    world.pass_ms(5_000);
    let mut pocket = Phone::connect(&mut world, 10, "eve", 6);
    let ping = |world: &mut World, phone: &mut Phone, count| {
        (0..count).for_each(|token| phone.client.send(&ClientFrame::Ping { token }));
        phone.exchange(world);
    };
    ping(&mut world, &mut eve, 30);
    ping(&mut world, &mut pocket, 25);
    assert_eq!((world.shard.counters().account_floods, world.closed.len()), (0, 0), "a burst is allowed");
    ping(&mut world, &mut pocket, 25);
    assert_eq!(pocket.heard.last(), Some(&Heard::Goodbye("Busy".into())));
    let counters = world.shard.counters();
    assert_eq!((counters.account_floods, counters.floods, world.closed.pop()), (1, 0, Some(10)));
    let mut again = Phone::connect(&mut world, 10, "eve", 6);
    ping(&mut world, &mut again, 25);
    assert_eq!(again.heard.last(), Some(&Heard::Goodbye("Busy".into())));
    bystanders.talk(&mut world);
    world.pass_ms(3_000);
    ping(&mut world, &mut eve, 30);
    assert!(eve.heard.iter().all(|heard| !matches!(heard, Heard::Goodbye(_))), "its other device may go on");
}

/// What is counted in advance is counted once: whoever says little at a time says no more in all.
#[test]
fn an_account_that_says_too_much_in_small_pieces_is_sent_away() {
    let limits = Limits { account_frames_per_s: 1, account_frames_burst: 100, ..Limits::default() };
    for piece in [1, 2, 7, 16] {
        let mut world = World::new(limits);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        let mut said = 0;
        while world.closed.is_empty() {
            (0..piece).for_each(|token| eve.client.send(&ClientFrame::Ping { token }));
            eve.exchange(&mut world);
            said += piece;
            assert!(said <= 100 + 2 * piece, "{said} in pieces of {piece}");
        }
        assert!(said > 80, "{said} in pieces of {piece}: most of its budget is its own");
        assert_eq!((world.shard.counters().account_floods, world.shard.counters().floods), (1, 0));
    }
}

/// Phones of one address share what it may send; others have their own.
#[test]
fn an_address_that_says_too_much_on_several_accounts_is_sent_away() {
    let frames = Limits { address_frames_per_s: 20, address_frames_burst: 60, ..Limits::default() };
    let bytes = Limits { address_bytes_per_s: 20, address_bytes_burst: 128 << 10, ..Limits::default() };
    for (limits, ping_count, expected) in [(frames, 20, (1, 0)), (bytes, 6_000, (0, 1))] {
        let mut world = World::new(limits);
        let mut bystanders = Bystanders::arrive(&mut world);
        let mut phones =
            [(9, "eve", "203.0.113.9:1"), (10, "mallory", "203.0.113.9:2"), (11, "carol", "203.0.113.7:1")]
                .map(|(slot, name, from)| {
                    assert!(world.accept(slot, address(from)));
                    Phone::connected(&mut world, slot, name, slot as u8)
                });
        for n in [0, 1, 1, 2, 2] {
            (0..ping_count).for_each(|token| phones[n].client.send(&ClientFrame::Ping { token }));
            phones[n].exchange(&mut world);
        }
        let counters = world.shard.counters();
        assert_eq!((counters.address_floods, counters.address_byte_floods), expected);
        assert_eq!((counters.floods, counters.byte_floods, counters.account_floods), (0, 0, 0));
        assert_eq!(phones[1].heard.last(), Some(&Heard::Goodbye("Busy".into())));
        assert_eq!(world.closed, [10]);
        bystanders.talk(&mut world);
    }
}

#[test]
fn an_address_registers_so_many_accounts_and_may_always_log_in() {
    let limits =
        Limits { address_registrations_per_h: 60, address_registrations_burst: 3, ..Limits::default() };
    let mut world = World::new(limits);
    let come = |world: &mut World, slot: u32, name: &str, from: &str| {
        assert!(world.accept(slot, address(from)));
        Phone::connected(world, slot, name, name.len() as u8).heard
    };
    let names = ["a", "bb", "ccc", "dddd", "eeeee"];
    for (slot, name) in (10..).zip(names) {
        let is_made = name.len() <= 3;
        let expected = if is_made { Heard::Drained } else { Heard::Goodbye("Busy".into()) };
        assert_eq!(come(&mut world, slot, name, "203.0.113.9:1"), [expected], "{name}");
    }
    let counters = world.shard.counters();
    assert_eq!((counters.refused_address_registrations, counters.accounts_created), (2, 3));
    // Whoever has an account comes in, a neighbour registers, and a minute brings one more.
    assert!(come(&mut world, 20, "bb", "203.0.113.9:1").contains(&Heard::Drained));
    assert_eq!(come(&mut world, 21, "dddd", "203.0.113.8:1"), [Heard::Drained]);
    world.now.mono_ns += 60_000_000_000;
    world.next_turn();
    assert_eq!(come(&mut world, 22, "eeeee", "203.0.113.9:1"), [Heard::Drained]);
    assert_eq!(world.shard.counters().refused_address_registrations, 2);
}

#[test]
fn an_account_that_sends_too_fast_is_slowed_down_in_order() {
    let limits = Limits { account_messages_per_s: 10, account_messages_burst: 5, ..Limits::default() };
    let mut world = World::new(limits);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let mut carol = Phone::connect(&mut world, 8, "carol", 6);
    let to = carol.account.expect("logged in");
    let send = |world: &mut World, eve: &mut Phone, numbers: &[u64]| {
        for &n in numbers {
            eve.client.send(&ClientFrame::Send { to, id: MessageId(id(n)), body: b"x" });
        }
        eve.heard.clear();
        eve.exchange(world);
        eve.heard.retain(|heard| matches!(heard, Heard::Busy(_)));
        eve.heard.clone()
    };
    let busy = |n| Heard::Busy(id(n));
    assert_eq!(send(&mut world, &mut eve, &[1, 2, 3, 4, 5, 6, 7, 8]), [busy(6), busy(7), busy(8)]);
    assert_eq!(world.shard.counters().refused_account_rate, 1, "those behind it cost no token");
    world.pass_ms(100);
    assert_eq!(send(&mut world, &mut eve, &[7]), [busy(7)], "7 must not overtake 6");
    world.pass_ms(100);
    assert_eq!(send(&mut world, &mut eve, &[6, 7, 8]), [busy(8)], "two tokens came in 200 ms");
    world.pass_ms(100);
    assert_eq!(send(&mut world, &mut eve, &[8]), []);
    carol.hear(&mut world);
    let got: Vec<u64> = carol
        .heard
        .iter()
        .filter_map(|heard| if let Heard::Message { id, .. } = heard { Some(id & 0xff) } else { None })
        .collect();
    assert_eq!(got, [1, 2, 3, 4, 5, 6, 7, 8]);
    // A second connection of the account is no way around it.
    let mut again = Phone::connect(&mut world, 10, "eve", 5);
    assert_eq!(send(&mut world, &mut again, &[20])[..], [busy(20)]);
    // And it is no other account's matter.
    Bystanders::arrive(&mut world).talk(&mut world);
}

#[test]
fn a_hundred_thousand_connects_in_a_minute_from_one_address_cost_the_others_nothing() {
    let limits = Limits { address_connects_per_s: 20, address_connects_burst: 50, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut let_in = 0;
    for count in 0..100_000_u32 {
        if count % 10 == 0 {
            world.pass_ms(6);
        }
        if world.accept(9, address("203.0.113.9:4711")) {
            let_in += 1;
            world.cut(9);
        }
        if count % 5_000 == 0 {
            bystanders.talk(&mut world);
            assert!(world.accept(10, address("203.0.113.10:4711")), "its neighbour gets in");
            world.cut(10);
        }
    }
    assert!((1_200..=1_251).contains(&let_in), "20 a second, and a burst: {let_in}");
    let counters = world.shard.counters();
    assert_eq!(counters.refused_address_connects, 100_000 - let_in);
    assert_eq!(counters.connections_now, 2);
}

#[test]
fn ipv6_addresses_of_one_network_share_its_rate() {
    let limits = Limits { address_connects_per_s: 1, address_connects_burst: 5, ..Limits::default() };
    let mut world = World::new(limits);
    let let_in = |world: &mut World, network: &str| {
        let accept = |n: &u32| {
            let is_in = world.accept(9, address(&format!("[{network}::{n:x}]:4711")));
            if is_in {
                world.cut(9);
            }
            is_in
        };
        (0..50).filter(accept).count()
    };
    assert_eq!(let_in(&mut world, "2001:db8:0:1"), 5);
    assert_eq!(let_in(&mut world, "2001:db8:0:1:ffff"), 0, "the same /64");
    assert_eq!(let_in(&mut world, "2001:db8:0:2"), 5);
}

#[test]
fn loopback_is_limited_only_where_the_setting_says_so() {
    for (limit_loopback, expected) in [(false, 50), (true, 5)] {
        let limits = Limits {
            address_connects_per_s: 1,
            address_connects_burst: 5,
            limit_loopback,
            ..Limits::default()
        };
        let mut world = World::new(limits);
        let let_in = (10..60).filter(|&slot| world.accept(slot, address("127.0.0.1:5"))).count();
        assert_eq!(let_in, expected);
    }
}

#[test]
fn too_many_handshakes_from_an_address_are_told_to_come_back() {
    let limits = Limits {
        address_handshakes_per_s: 2,
        address_handshakes_burst: 3,
        busy_ms: 400,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let flight = first_flight("eve", 5, 1);
    let mut times = Vec::new();
    for slot in 10..50 {
        assert!(world.accept(slot, address("198.51.100.1:4711")));
        world.throw(slot, &flight);
        times.extend(busy_record_ms(&world.said(slot)));
    }
    assert_eq!((times.len(), world.closed.len()), (37, 37));
    assert!(times.iter().all(|ms| (400..=800).contains(ms)), "{times:?}");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 10, "they are told different times");
    assert_eq!(world.shard.counters().refused_address_handshakes, 37);
    bystanders.talk(&mut world);
    world.pass_ms(500);
    assert!(world.accept(50, address("198.51.100.1:4711")));
    world.throw(50, &flight);
    assert_eq!(busy_record_ms(&world.said(50)), None, "half a second brings one more");
}

#[test]
fn descriptors_that_are_used_up_come_back() {
    let mut world = World::new(Limits { connection_count: 20, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let phones = |world: &mut World, slots: std::ops::Range<u32>| {
        let log_in = |slot: &u32| {
            world.accept(*slot, address("203.0.113.9:1"))
                && !Phone::connected(world, *slot, &format!("eve{slot}"), *slot as u8).heard.is_empty()
        };
        slots.filter(log_in).count()
    };
    let let_in = phones(&mut world, 2..40);
    assert_eq!((let_in, world.shard.counters().refused_connections), (18, 20));
    bystanders.talk(&mut world);
    world.cut(5);
    assert_eq!(phones(&mut world, 5..6), 1, "there is room for one again");
    assert!(!world.accept(40, None));
    bystanders.talk(&mut world);
}

/// The head of the largest record, and a part of it.
fn half_a_record(bytes: usize) -> Vec<u8> {
    let mut record = vec![7; bytes];
    record[..3].copy_from_slice(&[2, 0xff, 0xff]);
    record
}

#[test]
fn half_records_that_fill_the_memory_end_those_who_hold_them() {
    let edge_bytes = 20 * 4096 + (128 << 10);
    let mut world = World::new(Limits { connection_count: 20, edge_bytes, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut thieves: Vec<Phone> =
        (4..16).map(|slot| Phone::connect(&mut world, slot, &format!("eve{slot}"), slot as u8)).collect();
    for slot in 4..16 {
        world.throw(slot, &half_a_record(26_000));
        assert!(world.shard.counters().edge_bytes_now <= edge_bytes as u64);
    }
    let ended = world.closed.len();
    assert!((7..=9).contains(&ended), "{ended} of 12: half of the memory is for whoever comes first");
    assert_eq!(world.shard.counters().refused_memory, ended as u64);
    thieves.iter_mut().for_each(|thief| thief.hear(&mut world));
    let told = thieves.iter().filter(|t| t.heard.last() == Some(&Heard::Goodbye("Busy".into()))).count();
    assert_eq!(told, ended);
    // A small record in two pieces is within a phone's own share, whatever the others hold.
    bystanders.talk(&mut world);
    let mut bytes = Vec::new();
    bystanders.ann.client.send(&ClientFrame::Ping { token: 1 });
    bystanders.ann.client.flush(&mut bytes);
    let (front, back) = bytes.split_at(9);
    world.throw(0, front);
    world.throw(0, back);
    assert!(world.sent.contains_key(&0) && !world.closed.contains(&0));
    bystanders.talk(&mut world);
    // What they held is free again when they are gone.
    let closed = world.closed.clone();
    for slot in (4..16).filter(|slot| !closed.contains(slot)) {
        world.cut(slot);
    }
    let mut fat = Phone::connect(&mut world, 4, "eve4", 4);
    world.throw(4, &half_a_record(9_000));
    fat.hear(&mut world);
    assert_eq!(fat.heard, [Heard::Drained]);
}

#[test]
fn phones_that_do_not_read_cost_their_window_and_nothing_else() {
    let edge_bytes = 20 * 4096 + (128 << 10);
    let mut world =
        World::new(Limits { connection_count: 20, edge_bytes, window_count: 64, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let slow: Vec<Phone> =
        (4..16).map(|slot| Phone::connect(&mut world, slot, &format!("eve{slot}"), slot as u8)).collect();
    world.stuck.extend(4..16);
    for round in 0..40 {
        for phone in &slow {
            bystanders.ann.client.send(&ClientFrame::Send {
                to: phone.account.expect("logged in"),
                id: MessageId(id(100_000 + round * 100 + u64::from(phone.slot))),
                body: &[7; 2_000],
            });
        }
        bystanders.ann.exchange(&mut world);
        assert!(world.shard.counters().edge_bytes_now <= edge_bytes as u64);
    }
    assert_eq!(world.shard.counters().mail_count_now, 12 * 40, "it waits in their mailboxes");
    bystanders.talk(&mut world);
    // One of them reads after all, and gets everything.
    world.stuck.clear();
    world.cut(4);
    world.pass_ms(1_010);
    let reader = Phone::connect(&mut world, 4, "eve4", 4);
    let heard = reader.heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
    assert_eq!(heard, 40);
}

#[test]
fn mail_that_fills_the_memory_makes_senders_wait_and_ticks_pass() {
    let limits = Limits { mail_bytes: 1 << 20, account_messages_per_s: 0, ..Limits::default() };
    let mut world = World::new(limits);
    let mut carol = Phone::connect(&mut world, 8, "carol", 6);
    let mut dora = Phone::connect(&mut world, 7, "dora", 7);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    // Carol has a message that she will acknowledge later.
    dora.send(&mut world, &carol, id(1), b"x");
    carol.hear(&mut world);
    world.pass_ms(100);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut n = 100;
    while !eve.heard.iter().any(|heard| matches!(heard, Heard::Busy(_))) {
        n += 1;
        assert!(n < 200, "the memory never ends");
        eve.send(&mut world, &absent, id(n), &[7; 30_000]);
    }
    assert!(world.shard.counters().mail_bytes_now <= (1 << 20) + 32_000);
    assert!(world.shard.counters().memory_full > 0);
    carol.ack(&mut world, 1);
    dora.hear(&mut world);
    let ticks = [Heard::Sent(id(1)), Heard::Delivered { number: 1, id: id(1) }];
    assert_eq!(dora.heard[1..], ticks, "some of the memory is for ticks");
    let mut absent = Phone::connect(&mut world, 6, "absent", 8);
    let count = absent.heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
    absent.ack(&mut world, count as u32);
    world.pass_ms(100);
    eve.send(&mut world, &absent, id(n), &[7; 30_000]);
    world.pass_ms(100);
    eve.hear(&mut world);
    assert_eq!(eve.heard.last(), Some(&Heard::Sent(id(n))), "there is memory again");
}

#[test]
fn nobody_closes_a_mailbox_for_the_others() {
    let limits = Limits { mailbox_count: 100, account_messages_per_s: 0, ..Limits::default() };
    let mut world = World::new(limits);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let taken = |world: &World| world.shard.counters().messages_appended;
    for (slot, wanted) in [(7, 50), (8, 75), (9, 87)] {
        let mut eve = Phone::connect(&mut world, slot, &format!("eve{slot}"), slot as u8);
        for n in 0..200 {
            eve.send(&mut world, &absent, id(n), b"x");
        }
        let count = taken(&world);
        assert!((wanted..=wanted + 3).contains(&count), "{count} are taken, up to the one in slot {slot}");
    }
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.send(&mut world, &absent, id(1), b"hello");
    world.pass_ms(20);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Sent(id(1))]);
    // What comes behind the first that was refused is stopped at the sender's session.
    let counters = world.shard.counters();
    assert_eq!((counters.refused_share, counters.mailbox_full), (3, 0));
    // Who reads what was sent hears from all of them again.
    let mut absent = Phone::connect(&mut world, 6, "absent", 8);
    while let Some(&Heard::Message { number, .. }) = absent.heard.last() {
        absent.ack(&mut world, number);
    }
    world.pass_ms(20);
    let before = taken(&world);
    let mut eve = Phone::connect(&mut world, 17, "eve7", 7);
    eve.send(&mut world, &absent, id(300), b"x");
    assert_eq!(taken(&world), before + 1);
}

#[test]
fn a_tick_that_nobody_takes_is_said_again_ever_more_rarely() {
    let mut world = World::one_of(2, Limits { tick_retry_ms: 100, write_back_ms: 0, ..Limits::default() });
    let (name, there) = here_and_there();
    let mut bob = Phone::connect(&mut world, 1, &name, 2);
    let parts = Parts {
        kind: Kind::Message,
        flags: 0,
        to: bob.account.unwrap(),
        from: there,
        from_device: DeviceId(1),
        id: MessageId(id(1)),
        time_ms: world.now.wall_ms,
        seq: 1,
        from_name: "eve",
        body: b"x",
    };
    let mut envelopes = Vec::new();
    parts.encode(&mut envelopes);
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    let mut said_at_ms = Vec::new();
    for ms in 0..8_000 {
        let before = world.shard.counters().ticks_retried;
        world.pass_ms(1);
        if world.shard.counters().ticks_retried > before {
            said_at_ms.push(ms + 1);
        }
    }
    assert_eq!(said_at_ms, [100, 300, 700, 1500, 3100, 4700, 6300, 7900]);
    // Each but the first says that it comes again: the sender's home looks further back for it.
    let mut run = &*world.cast;
    let mut says_again = Vec::new();
    while !run.is_empty() {
        let (envelope, rest) = Envelope::parse_first(run).expect("whole envelopes");
        run = rest;
        if envelope.kind() == Kind::Delivered {
            says_again.push(envelope.has(FLAG_AGAIN));
        }
    }
    assert_eq!(says_again, [false, true, true, true, true, true, true, true, true]);
}
