//! What a shard measures: latencies, envelopes by kind, limits hit, and the mailboxes that hold most.

use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, ControlRequest, Hot, LookFrom};
use tern_core::histogram::{BOUNDS_NS, Histogram};
use tern_core::io::{Input, Lane, Output};
use tern_core::limits::Limits;
use tern_protocol::envelope::Kind;

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

/// The bounds of the buckets that counted, each as often as it did.
fn recorded(histogram: &Histogram) -> Vec<u64> {
    let each = histogram.counts().iter().zip(BOUNDS_NS);
    each.flat_map(|(&count, bound_ns)| std::iter::repeat_n(bound_ns, count as usize)).collect()
}

#[test]
fn the_time_to_sent_and_of_a_commit_is_measured() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let before = world.shard.measures();
    ann.send(&mut world, &bob, id(1), b"online: acknowledged before its commit");
    bob.hear(&mut world);
    world.now.mono_ns += 1_500_000;
    bob.ack(&mut world, 1);
    ann.exchange(&mut world);
    assert!(ann.heard.contains(&Heard::Sent(id(1))));
    assert_eq!(recorded(&world.shard.measures().sent), [2_000_000]);
    assert_eq!(world.shard.measures().commit, before.commit, "nothing was written");

    bob.leave(&mut world);
    world.pass_ms(1000);
    let before = world.shard.measures();
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(2), b"offline: safe on the disk");
    world.now.mono_ns += 4_000_000;
    world.run_disk();
    world.turn();
    ann.hear(&mut world);
    assert!(ann.heard.contains(&Heard::Sent(id(2))));
    let after = world.shard.measures();
    assert_eq!(recorded(&after.sent), [2_000_000, 5_000_000]);
    assert_eq!(recorded(&after.commit).len(), recorded(&before.commit).len() + 1);
    assert!(recorded(&after.commit).contains(&5_000_000), "{:?}", after.commit);
}

#[test]
fn the_time_to_sent_ends_when_it_is_said_also_where_it_waits_for_a_copy() {
    let mut world = World::new(Limits { write_back_ms: 5, ..Limits::default() });
    create(&mut world, 1, "ann", &[1, 2]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    // Bob's mail is durable at once; the copy for the other device may wait for company.
    ann.send(&mut world, &bob, id(1), b"for two");
    assert_eq!((ann.heard.last(), recorded(&world.shard.measures().sent)), (Some(&Heard::Drained), vec![]));
    world.pass_ms(5);
    ann.hear(&mut world);
    assert_eq!(ann.heard.last(), Some(&Heard::Sent(id(1))));
    assert_eq!(recorded(&world.shard.measures().sent), [5_000_000]);
}

#[test]
fn the_way_to_a_device_that_keeps_up_is_measured_and_absence_is_not() {
    let mut world = World::new(Limits { window_count: 1, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    ann.send(&mut world, &bob, id(1), b"at once");
    assert_eq!(recorded(&world.shard.measures().delivery), [1_000_000]);
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(2), b"for the absent");
    world.pass_ms(5000);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.hear(&mut world);
    assert_eq!(recorded(&world.shard.measures().delivery), [1_000_000]);
    assert_eq!(world.shard.counters().messages_out, 2, "it was delivered");
}

#[test]
fn what_waits_for_a_slow_device_is_not_measured_until_it_has_caught_up() {
    let mut world = World::new(Limits { window_count: 1, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let count = |world: &World| recorded(&world.shard.measures().delivery).len();
    // The window is full: the others wait until he acknowledges.
    (1..=3).for_each(|low| ann.send(&mut world, &bob, id(low), b"x"));
    for number in 1..=3 {
        assert_eq!(count(&world), 1, "the first one found him ready");
        world.pass_ms(40);
        bob.hear(&mut world);
        bob.ack(&mut world, number);
    }
    ann.send(&mut world, &bob, id(4), b"he has all before it");
    assert_eq!(recorded(&world.shard.measures().delivery), [1_000_000, 1_000_000]);
    bob.hear(&mut world);
    bob.ack(&mut world, 4);
    assert_eq!(world.shard.counters().messages_out, 4);
}

#[test]
fn what_waits_for_a_socket_that_takes_nothing_is_not_measured() {
    let mut world = World::new(Limits { window_count: 256, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    world.stuck.insert(1);
    (0..100).for_each(|low| ann.send(&mut world, &bob, id(low), &[7; 1024]));
    let before = recorded(&world.shard.measures().delivery);
    assert!((1..100).contains(&before.len()), "the rest waits for the socket: {}", before.len());
    world.pass_ms(40);
    world.stuck.clear();
    let conn = world.conns[&1];
    world.step(Input::Sent { conn });
    world.turn();
    bob.hear(&mut world);
    assert_eq!(world.shard.counters().messages_out, 100);
    assert_eq!(recorded(&world.shard.measures().delivery), before);
    ann.send(&mut world, &bob, id(100), b"he has all before it");
    assert_eq!(recorded(&world.shard.measures().delivery).len(), before.len() + 1);
}

#[test]
fn mailboxes_that_hold_something_and_accounts_that_get_most_are_known() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut carol = Phone::connect(&mut world, 2, "carol", 3);
    carol.leave(&mut world);
    ann.send(&mut world, &carol, id(1), b"waits");
    assert_eq!(world.shard.counters().mailboxes_filled_now, 1);
    // Bob's mailbox is empty nearly always, and he gets nearly all.
    for low in 2..2000 {
        ann.send(&mut world, &bob, id(low), b"x");
        bob.hear(&mut world);
        bob.ack(&mut world, low as u32 - 1);
        ann.exchange(&mut world);
        ann.ack(&mut world, low as u32 - 1);
    }
    assert_eq!(world.shard.counters().mailboxes_filled_now, 1, "Carol's");
    world.step(Input::Control { token: 7, request: ControlRequest::ListBusiest { count: 1 } });
    world.turn();
    let Some(Output::Reply { token: 7, reply: ControlReply::Busiest(busiest) }) = world.gone_out.pop() else {
        panic!("no answer");
    };
    let [bob] = &busiest[..] else { panic!("one was asked for: {busiest:?}") };
    assert!(bob.name == "bob" && bob.messages_per_s > 0 && bob.is_online, "{bob:?}");
    let mut world = world.kill();
    assert_eq!(world.shard.counters().mailboxes_filled_now, 1, "found again in the log");
    let name = "carol".into();
    world.step(Input::Control { token: 8, request: ControlRequest::RemoveAccount { name } });
    world.turn();
    assert_eq!(world.shard.counters().mailboxes_filled_now, 0);
}

#[test]
fn envelopes_are_counted_by_kind_and_lane() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    ann.send(&mut world, &bob, id(1), b"hello");
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    let out = world.shard.measures().out;
    assert_eq!(out.own[Lane::Bulk as usize][Kind::Message as usize], 1);
    assert_eq!(out.own[Lane::Control as usize][Kind::Delivered as usize], 1);
    assert_eq!(out.mesh.as_flattened().iter().sum::<u64>(), 0, "one shard alone");
}

#[test]
fn the_limit_that_refuses_is_told() {
    let mut world = World::new(Limits { mailbox_count: 2, window_count: 2, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    for low in 1..=3 {
        ann.send(&mut world, &bob, id(low), b"x");
    }
    let counters = world.shard.counters();
    assert_eq!((counters.mailbox_full, counters.memory_full, counters.refused_busy), (1, 0, 1));
}

/// Asks until the search is over: what was found, and in how many steps.
fn hottest(world: &mut World, count: u16) -> (Vec<Hot>, usize) {
    let (mut found, mut from, mut steps) = (Vec::new(), LookFrom::default(), 0);
    loop {
        steps += 1;
        world.step(Input::Control { token: 7, request: ControlRequest::LookForHottest { from, count } });
        world.turn();
        let Some(Output::Reply { token: 7, reply: ControlReply::Looked(looked) }) = world.gone_out.pop()
        else {
            panic!("no answer");
        };
        found.extend(looked.found);
        match looked.next {
            Some(next) => from = next,
            None => return (found, steps),
        }
    }
}

#[test]
fn the_fullest_mailboxes_are_found_in_bounded_steps() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut others: Vec<Phone> =
        (1..4).map(|n| Phone::connect(&mut world, n, &format!("bob-{n}"), n as u8 + 1)).collect();
    for phone in &mut others {
        phone.leave(&mut world);
    }
    let mut low = 0;
    for (to, count) in [(0, 3), (1, 6000), (2, 5)] {
        for _ in 0..count {
            low += 1;
            ann.send(&mut world, &others[to], id(low), b"x");
        }
    }
    let (found, steps) = hottest(&mut world, 2);
    let short: Vec<_> = found.iter().map(|hot| (&*hot.name, hot.entry_count, hot.is_online)).collect();
    // The longest mailbox is over two steps; a step ends with what it has.
    assert_eq!(short, [("bob-1", 3, false), ("bob-2", 6000, false), ("bob-3", 5, false)]);
    assert_eq!(steps, 2);
    let each = found[0].bytes / 3;
    assert!(each > 40 && found.iter().all(|hot| hot.bytes == each * u64::from(hot.entry_count)), "{found:?}");
}
