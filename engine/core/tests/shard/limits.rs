//! Every limit that has a counter is driven to its hit, and is the one that counts.

use crate::ephemeral::watched_from_afar;
use crate::stuck::here_and_there;
use crate::world::World;
use crate::world::phone::Phone;
use crate::world::stranger::{address, first_flight};
use std::collections::{BTreeMap, BTreeSet};
use tern_core::io::{HandOverToken, Input};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::ClientFrame;

const NOW_S: u64 = 1_800_000_000;

/// A limit, the others that are met on the way to it, and the way.
type Case = (&'static str, &'static [&'static str], fn() -> World);

const CASES: [Case; 41] = [
    ("connection_count", &[], || {
        let mut world = World::new(Limits { connection_count: 1, ..Limits::default() });
        (0..2).for_each(|slot| _ = world.accept(slot, None));
        world
    }),
    ("address_connections", &[], || {
        let mut world = World::new(Limits { address_connections: 1, ..Limits::default() });
        (0..2).for_each(|slot| _ = world.accept(slot, address("203.0.113.9:1")));
        world
    }),
    ("address_half_open", &[], || {
        let mut world = World::new(Limits { address_half_open: 1, ..Limits::default() });
        (0..2).for_each(|slot| _ = world.accept(slot, address("203.0.113.9:1")));
        world
    }),
    ("login_ms", &[], || {
        let mut world = World::new(Limits { login_ms: 100, ..Limits::default() });
        world.accept(9, None);
        world.pass_ms(110);
        world
    }),
    ("idle_ms", &[], || {
        let mut world = World::new(Limits { idle_ms: 2_000, ..Limits::default() });
        Phone::connect(&mut world, 9, "eve", 5);
        world.pass_ms(2_010);
        world
    }),
    ("address_connects_per_s", &[], || {
        let limits = Limits { address_connects_per_s: 1, address_connects_burst: 1, ..Limits::default() };
        let mut world = World::new(limits);
        (0..2).for_each(|slot| _ = world.accept(slot, address("203.0.113.9:1")));
        world
    }),
    ("address_handshakes_per_s", &[], || {
        let limits = Limits { address_handshakes_per_s: 1, address_handshakes_burst: 1, ..Limits::default() };
        let mut world = World::new(limits);
        for slot in 0..2 {
            world.accept(slot, address("203.0.113.9:1"));
            world.throw(slot, &first_flight("eve", 5, 1));
        }
        world
    }),
    ("address_registrations_per_h", &[], || {
        let limits =
            Limits { address_registrations_per_h: 1, address_registrations_burst: 1, ..Limits::default() };
        from_an_address(limits, 2, 0)
    }),
    ("address_bytes_per_s", &[], || {
        let limits = Limits { address_bytes_per_s: 1, address_bytes_burst: 128 << 10, ..Limits::default() };
        from_an_address(limits, 1, 20_000)
    }),
    ("address_frames_per_s", &[], || {
        let limits = Limits { address_frames_per_s: 1, address_frames_burst: 5, ..Limits::default() };
        from_an_address(limits, 1, 10)
    }),
    ("address_count", &[], || {
        let limits = Limits { address_connects_per_s: 1, address_count: 64, ..Limits::default() };
        let mut world = World::new(limits);
        (0..200).for_each(|slot| _ = world.accept(slot, address(&format!("203.0.113.{slot}:1"))));
        world
    }),
    ("handshakes_per_turn", &[], || shaking_at_once(2, 1)),
    ("deferred_count", &["handshakes_per_turn"], || shaking_at_once(3, 1)),
    ("handshake_wait", &["handshakes_per_turn"], || {
        let mut world = shaking_at_once(2, 2);
        world.now.mono_ns += 3_000_000_000;
        world.accept(9, None);
        world.throw(9, &first_flight("eve", 5, 1));
        world
    }),
    ("hand_over_count", &[], || {
        let mut world = World::one_of(2, Limits { hand_over_count: 1, ..Limits::default() });
        (1..3).for_each(|number| half_a_hand_over(&mut world, number));
        world
    }),
    ("hand_over_ms", &[], || {
        let mut world = World::one_of(2, Limits { hand_over_ms: 10, ..Limits::default() });
        half_a_hand_over(&mut world, 1);
        world.pass_ms(11);
        world
    }),
    ("account_count", &[], || {
        let mut world = World::new(Limits { account_count: 1, ..Limits::default() });
        Phone::connect(&mut world, 1, "ann", 1);
        Phone::connect(&mut world, 2, "bob", 2);
        world
    }),
    ("log_waiters", &[], || {
        let mut world = World::new(Limits { account_asks_per_s: 0, ..Limits::default() });
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        world.disk_runs = false;
        (0..5_000).for_each(|_| eve.client.send(&ClientFrame::AddDevice { key: [7; 32] }));
        eve.exchange(&mut world);
        world
    }),
    ("connection_frames_per_s", &[], || {
        let limits = Limits { connection_frames_per_s: 1, connection_frames_burst: 5, ..Limits::default() };
        pinged(limits, 10)
    }),
    ("connection_bytes_per_s", &[], || {
        let limits =
            Limits { connection_bytes_per_s: 1, connection_bytes_burst: 128 << 10, ..Limits::default() };
        pinged(limits, 20_000)
    }),
    ("edge_backlog_bytes", &[], || {
        let limits = Limits { body_bytes: 64, edge_backlog_bytes: 2 * 64 + 4096, ..Limits::default() };
        let mut world = World::new(limits);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        world.stuck.insert(9);
        (0..2).for_each(|_| ping(&mut world, &mut eve, 600));
        ping(&mut world, &mut eve, 1);
        world
    }),
    ("edge_bytes", &[], || {
        let edge_bytes = 20 * 4096 + (128 << 10);
        let mut world = World::new(Limits { connection_count: 20, edge_bytes, ..Limits::default() });
        for slot in 4..16 {
            let _phone = Phone::connect(&mut world, slot, &format!("eve{slot}"), slot as u8);
            let mut half_a_record = vec![7; 26_000];
            half_a_record[..3].copy_from_slice(&[2, 0xff, 0xff]);
            world.throw(slot, &half_a_record);
        }
        world
    }),
    ("account_frames_per_s", &[], || {
        let limits = Limits { account_frames_per_s: 1, account_frames_burst: 5, ..Limits::default() };
        pinged(limits, 10)
    }),
    ("account_messages_per_s", &[], || {
        let limits = Limits { account_messages_per_s: 1, account_messages_burst: 1, ..Limits::default() };
        written_to_the_absent(limits, NOW_S, 2, b"x")
    }),
    ("account_asks_per_s", &[], || {
        let mut world =
            World::new(Limits { account_asks_per_s: 1, account_asks_burst: 1, ..Limits::default() });
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        (0..2).for_each(|_| eve.say(&mut world, &ClientFrame::Devices));
        world
    }),
    ("account_devices_per_h", &[], || {
        let limits = Limits { account_devices_per_h: 1, account_devices_burst: 1, ..Limits::default() };
        let mut world = World::new(limits);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        (7..9).for_each(|key| eve.say(&mut world, &ClientFrame::AddDevice { key: [key; 32] }));
        world
    }),
    ("body_bytes", &[], || {
        written_to_the_absent(Limits { body_bytes: 64, ..Limits::default() }, NOW_S, 1, &[7; 65])
    }),
    ("mailbox_count", &[], || {
        let limits = Limits { mailbox_count: 1, window_count: 1, ..Limits::default() };
        written_to_the_absent(limits, NOW_S, 2, b"x")
    }),
    ("delivery_count", &[], || {
        let limits = Limits { delivery_count: 1, window_count: 1, ..Limits::default() };
        let mut world = World::new(limits);
        let mut bob = Phone::connect(&mut world, 6, "bob", 8);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        write(&mut world, &mut eve, &bob, NOW_S, 1, b"x");
        bob.hear(&mut world);
        bob.ack(&mut world, 1);
        world
    }),
    ("mailbox_bytes", &[], || {
        // Several senders: one alone gets no more than half.
        let limits = Limits { mailbox_bytes: 128 << 10, body_bytes: 60_000, ..Limits::default() };
        let mut world = World::new(limits);
        let absent = Phone::connect(&mut world, 6, "absent", 8);
        world.cut(6);
        for slot in 7..10 {
            let mut eve = Phone::connect(&mut world, slot, &format!("eve{slot}"), slot as u8);
            write(&mut world, &mut eve, &absent, NOW_S, 1, &[7; 50_000]);
        }
        world
    }),
    ("mail_bytes", &[], || {
        written_to_the_absent(Limits { mail_bytes: 1 << 20, ..Limits::default() }, NOW_S, 50, &[7; 30_000])
    }),
    ("segment_count", &[], || {
        let limits = Limits { segment_count: 6, commit_bytes: 64 << 10, ..Limits::default() };
        let mut world = World::in_segments(256 << 10, 1, limits);
        let absent = Phone::connect(&mut world, 6, "absent", 8);
        world.cut(6);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        for earlier_s in 0..20 {
            write(&mut world, &mut eve, &absent, NOW_S - earlier_s, 5, &[7; 30_000]);
        }
        world
    }),
    ("drive", &[], || {
        let mut world = written_to_the_absent(Limits::default(), NOW_S, 1, b"x").kill_on_a_full_drive();
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        let absent = Phone::connect(&mut world, 6, "absent", 8);
        eve.send(&mut world, &absent, NOW_S << 32 | 77, b"x");
        world
    }),
    ("dedup_count", &[], || {
        let limits = Limits { dedup_count: 1024, ..Limits::default() };
        written_to_the_absent(limits, NOW_S - 7_200, 1_025, b"x")
    }),
    ("unanswered_count", &[], || {
        let limits = Limits { connection_count: 20, unanswered_count: 400, ..Limits::default() };
        let mut world = World::new(limits);
        let absent = Phone::connect(&mut world, 6, "absent", 8);
        world.cut(6);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        world.disk_runs = false;
        write(&mut world, &mut eve, &absent, NOW_S, 300, b"x");
        world
    }),
    ("session_unanswered", &[], || {
        let mut world = World::new(Limits::default());
        let absent = Phone::connect(&mut world, 6, "absent", 8);
        world.cut(6);
        let mut eve = Phone::connect(&mut world, 9, "eve", 5);
        world.disk_runs = false;
        write(&mut world, &mut eve, &absent, NOW_S, 4_097, b"x");
        world
    }),
    ("refusal_count", &["mailbox_count"], || {
        let limits = Limits { refusal_count: 1024, mailbox_count: 1, window_count: 1, ..Limits::default() };
        let mut world = World::one_of(2, limits);
        let (name, there) = here_and_there();
        let bob = Phone::connect(&mut world, 1, &name, 2);
        world.cut(1);
        let mut envelopes = Vec::new();
        for number in 0..1_026 {
            let parts = Parts {
                kind: Kind::Message,
                flags: 0,
                to: bob.account.unwrap(),
                from: AccountId(there.0 + number),
                from_device: DeviceId(1),
                id: MessageId(NOW_S << 32 | 1),
                time_ms: world.now.wall_ms,
                seq: 1,
                from_name: "a",
                body: b"x",
            };
            parts.encode(&mut envelopes);
        }
        world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
        world.turn();
        world
    }),
    ("watch_count", &[], || {
        let mut world = World::one_of(2, Limits { watch_count: 4_096, ..Limits::default() });
        let names = (0..).map(|n| format!("ann{n}"));
        let here = names.filter(|name| PartitionId::of_name(name, 64).0 < 32).take(5);
        for (slot, name) in here.enumerate() {
            let ann = Phone::connect(&mut world, slot as u32, &name, 1);
            watched_from_afar(&mut world, ann.account.unwrap(), 1_000);
        }
        world
    }),
    ("account_watches", &[], || {
        let mut world = World::one_of(2, Limits::default());
        let ann = Phone::connect(&mut world, 1, &here_and_there().0, 1);
        watched_from_afar(&mut world, ann.account.unwrap(), 1_025);
        world
    }),
    ("lane_bytes", &[], || {
        let mut world = World::one_of(2, Limits { body_bytes: 1000, lane_bytes: 3_900, ..Limits::default() });
        let (name, there) = here_and_there();
        let mut ann = Phone::connect(&mut world, 1, &name, 1);
        for n in 0..5 {
            let id = MessageId(NOW_S << 32 | n);
            ann.client.send(&ClientFrame::Send { to: there, id, body: &[7; 900] });
        }
        ann.exchange(&mut world);
        world
    }),
    ("lane_backlog_bytes", &[], || {
        let limits =
            Limits { body_bytes: 1000, lane_bytes: 512, lane_backlog_bytes: 4096, ..Limits::default() };
        let mut world = World::one_of(2, limits);
        let mut ann = Phone::connect(&mut world, 1, &here_and_there().0, 1);
        let is_there = |name: &String| PartitionId::of_name(name, 64).0 >= 32;
        let name = (0..).map(|n| format!("bob{n}")).find(is_there).unwrap();
        (0..100).for_each(|_| ann.client.send(&ClientFrame::Lookup { name: &name }));
        ann.exchange(&mut world);
        world
    }),
];

fn shaking_at_once(count: u32, deferred_count: u32) -> World {
    let mut world = World::new(Limits { handshakes_per_turn: 1, deferred_count, ..Limits::default() });
    (0..count).for_each(|slot| _ = world.accept(slot, None));
    for slot in 0..count {
        let conn = world.conns[&slot];
        let mut bytes = first_flight("eve", 5, u64::from(slot));
        world.step(Input::Received { conn, bytes: &mut bytes });
    }
    world
}

fn half_a_hand_over(world: &mut World, number: u32) {
    let token = HandOverToken(u64::from(number));
    world.step(Input::HandOverSocket { from: ShardId(1), token, slot: number });
    world.turn();
}

fn ping(world: &mut World, phone: &mut Phone, count: u32) {
    (0..count).for_each(|token| phone.client.send(&ClientFrame::Ping { token }));
    let mut bytes = Vec::new();
    phone.client.flush(&mut bytes);
    world.throw(phone.slot, &bytes);
}

fn pinged(limits: Limits, count: u32) -> World {
    let mut world = World::new(limits);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    ping(&mut world, &mut eve, count);
    world
}

fn write(world: &mut World, from: &mut Phone, to: &Phone, made_s: u64, count: u64, body: &[u8]) {
    let to = to.account.expect("logged in");
    for n in 0..count {
        from.client.send(&ClientFrame::Send { to, id: MessageId(made_s << 32 | n), body });
    }
    from.exchange(world);
}

fn written_to_the_absent(limits: Limits, made_s: u64, count: u64, body: &[u8]) -> World {
    let mut world = World::new(limits);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    write(&mut world, &mut eve, &absent, made_s, count, body);
    world
}

/// Phones of one address, each of which registers and then pings.
fn from_an_address(limits: Limits, phone_count: u32, ping_count: u32) -> World {
    let mut world = World::new(limits);
    for slot in 0..phone_count {
        world.accept(slot, address("203.0.113.9:1"));
        let mut phone = Phone::connected(&mut world, slot, &format!("eve{slot}"), 5);
        if ping_count > 0 {
            ping(&mut world, &mut phone, ping_count);
        }
    }
    world
}

/// Every counter of a limit, by the limit's name.
fn hits(world: &World) -> BTreeMap<&'static str, u64> {
    let mut hits = BTreeMap::new();
    world.shard.counters().each(|metric, value| {
        if metric.family == "limit_hits" {
            hits.insert(metric.labels[0].1, value);
        }
    });
    hits
}

/// What is in [`Limits`] and is nothing that is run into: times and sizes that the shard itself keeps to, and the parts
/// of a limit whose other part counts.
const NOT_RUN_INTO: [&str; 24] = [
    "account_asks_burst",
    "account_devices_burst",
    "account_frames_burst",
    "account_messages_burst",
    "address_bytes_burst",
    "address_connects_burst",
    "address_frames_burst",
    "address_handshakes_burst",
    "address_prefix_bits",
    "address_registrations_burst",
    "busy_ms",
    "commit_bytes",
    "connection_bytes_burst",
    "connection_frames_burst",
    "dedup_horizon_ms",
    "expiry_ms",
    "floor_delay_ms",
    "limit_loopback",
    "ready_key_count",
    "step_budget",
    "tick_retry_ms",
    "ticket_ms",
    "window_count",
    "write_back_ms",
];

#[test]
fn every_limit_of_the_configuration_is_driven_to_its_hit() {
    let text = format!("{:?}", Limits::default());
    let fields = text.trim_start_matches("Limits { ").trim_end_matches(" }").split(", ");
    let fields: BTreeSet<&str> = fields.filter_map(|field| Some(field.split_once(": ")?.0)).collect();
    let tried: BTreeSet<&str> = CASES.iter().map(|case| case.0).collect();
    let excused: BTreeSet<&str> = NOT_RUN_INTO.into();
    let forgotten: Vec<_> = fields.difference(&tried).filter(|name| !excused.contains(*name)).collect();
    assert!(forgotten.is_empty(), "nobody drives these to their hits, and nothing says why: {forgotten:?}");
    let gone: Vec<_> = excused.union(&tried).filter(|name| !fields.contains(*name)).collect();
    assert_eq!(
        gone,
        [&"account_watches", &"drive", &"handshake_wait", &"log_waiters", &"session_unanswered"],
        "these are fixed, or none of Tern's, and all others are of the struct"
    );
}

#[test]
fn each_limit_counts_its_own_hits_and_no_others() {
    let known: Vec<_> = hits(&World::new(Limits::default())).into_keys().collect();
    let mut tried: Vec<_> = CASES.iter().map(|case| case.0).collect();
    tried.sort_unstable();
    assert_eq!(known, tried, "a limit that nobody drives to its hit");
    for (limit, on_the_way, drive) in CASES {
        let mut world = drive();
        world.step(Input::Flush);
        let hit: Vec<_> = hits(&world).into_iter().filter(|hit| hit.1 > 0).map(|(limit, _)| limit).collect();
        assert!(hit.contains(&limit), "{limit} is not hit, but {hit:?}");
        let others: Vec<_> =
            hit.into_iter().filter(|other| *other != limit && !on_the_way.contains(other)).collect();
        assert!(others.is_empty(), "{limit}: {others:?} count as well");
    }
}
