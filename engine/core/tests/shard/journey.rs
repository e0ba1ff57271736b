//! The journey of a message through one shard, with the real client on the other end.

use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::{Input, Output};
use tern_core::limits::Limits;
use tern_protocol::phone::frame::ClientFrame;

const NOW_S: u64 = 1_800_000_000;

/// A message id that the sender made at the world's time.
fn id(low: u64) -> u64 {
    NOW_S << 32 | low
}

fn message(number: u32, low: u64, body: &[u8]) -> Heard {
    Heard::Message { number, id: id(low), body: body.to_vec() }
}

fn two_phones(world: &mut World) -> (Phone, Phone) {
    let ann = Phone::connect(world, 0, "ann", 1);
    let bob = Phone::connect(world, 1, "bob", 2);
    assert_eq!((&ann.heard[..], &bob.heard[..]), (&[Heard::Drained][..], &[Heard::Drained][..]));
    (ann, bob)
}

#[test]
fn an_online_message_is_ticked_and_never_written() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = two_phones(&mut world);
    let written = world.shard.counters().log_bytes_written;
    ann.send(&mut world, &bob, id(1), b"hello");
    bob.hear(&mut world);
    assert_eq!(bob.heard[1..], [message(1, 1, b"hello")]);
    assert_eq!(ann.heard[1..], [], "nothing is safe yet");
    bob.ack(&mut world, 1);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Sent(id(1)), Heard::Delivered { number: 1, id: id(1) }]);
    ann.ack(&mut world, 1);
    world.pass_ms(200);
    assert_eq!(world.shard.counters().log_bytes_written, written, "all was acknowledged before its commit");
    assert_eq!(world.shard.counters().writes_avoided, 2, "the message and its tick");
    assert_eq!(world.shard.counters().mail_count_now, 0);
}

#[test]
fn without_a_window_a_message_is_committed_at_once() {
    for (write_back_ms, is_sent) in [(0, true), (1, false), (50, false)] {
        let mut world = World::new(Limits { write_back_ms, ..Limits::default() });
        let (mut ann, bob) = two_phones(&mut world);
        // He is there and has not acknowledged it; no time passes.
        ann.send(&mut world, &bob, id(1), b"hello");
        ann.hear(&mut world);
        assert_eq!(ann.heard.contains(&Heard::Sent(id(1))), is_sent, "{write_back_ms} ms");
        world.pass_ms(write_back_ms + 1);
        ann.hear(&mut world);
        assert_eq!(ann.heard[1..], [Heard::Sent(id(1))], "{write_back_ms} ms");
    }
}

#[test]
fn what_is_settled_ends_no_sleep() {
    let mut world =
        World::new(Limits { write_back_ms: 50, tick_retry_ms: 100, floor_delay_ms: 10, ..Limits::default() });
    let (mut ann, mut bob) = two_phones(&mut world);
    world.pass_ms(200);
    let quiet_ms = |world: &World| {
        let deadline_ns = world.shard.next_deadline().expect("there are always chores");
        deadline_ns.saturating_sub(world.now.mono_ns) / 1_000_000
    };
    ann.send(&mut world, &bob, id(1), b"hello");
    assert!(quiet_ms(&world) <= 50, "the message waits for its commit");
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    ann.hear(&mut world);
    ann.ack(&mut world, 1);
    world.turn();
    assert!(quiet_ms(&world) > 150, "nothing is left to commit or to say again");
}

#[test]
fn sent_waits_for_the_disk() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(1), b"hello");
    world.pass_ms(100);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], []);
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Sent(id(1))]);
}

#[test]
fn mail_waits_for_the_absent_across_a_kill() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    for n in 1..=3 {
        ann.send(&mut world, &bob, id(n), b"waits");
    }
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [1, 2, 3].map(|n| Heard::Sent(id(n))));
    let mut world = world.kill();
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let waited = [1, 2, 3].map(|n| message(n as u32, n, b"waits"));
    assert_eq!(bob.heard, [&waited[..], &[Heard::Drained]].concat());
    bob.ack(&mut world, 3);
    world.pass_ms(300);
    let mut world = world.kill();
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(bob.heard, [Heard::Drained], "the floor was remembered");
    let ann = Phone::connect(&mut world, 0, "ann", 1);
    let ticks: Vec<_> = (1..=3).map(|n| Heard::Delivered { number: n, id: id(u64::from(n)) }).collect();
    assert_eq!(ann.heard[..3], ticks, "ticks survive the sender's absence and the kill");
}

#[test]
fn a_retry_is_recognised_also_after_a_kill() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"once");
    ann.send(&mut world, &bob, id(1), b"once");
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    ann.send(&mut world, &bob, id(1), b"once");
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained, Heard::Sent(id(1))]);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(bob.heard, [message(1, 1, b"once"), Heard::Drained]);
}

#[test]
fn a_retry_from_before_the_horizon_has_expired() {
    let mut world = World::new(Limits::default());
    let (mut ann, bob) = two_phones(&mut world);
    let old = (NOW_S - 25 * 3600) << 32 | 1;
    ann.send(&mut world, &bob, old, b"late");
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Expired(old)]);
}

#[test]
fn a_refused_stream_goes_on_only_from_the_refused_message() {
    let limits = Limits { window_count: 2, mailbox_count: 2, ..Limits::default() };
    let mut world = World::new(limits);
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    for n in 1..=4 {
        ann.send(&mut world, &bob, id(n), b"x");
    }
    ann.hear(&mut world);
    let (one, two) = (Heard::Sent(id(1)), Heard::Sent(id(2)));
    assert_eq!(ann.heard[1..], [one, two, Heard::Busy(id(3)), Heard::Busy(id(4))]);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.ack(&mut world, 2);
    ann.hear(&mut world);
    ann.ack(&mut world, 2);
    ann.heard.clear();
    ann.send(&mut world, &bob, id(4), b"x");
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Busy(id(4))], "4 must not overtake 3");
    ann.send(&mut world, &bob, id(3), b"x");
    ann.send(&mut world, &bob, id(4), b"x");
    bob.hear(&mut world);
    assert_eq!(bob.heard[bob.heard.len() - 2..], [message(3, 3, b"x"), message(4, 4, b"x")]);
}

#[test]
fn a_slow_phone_costs_its_window_and_no_more() {
    let limits = Limits { window_count: 4, ..Limits::default() };
    let mut world = World::new(limits);
    let (mut ann, mut bob) = two_phones(&mut world);
    for n in 1..=10 {
        ann.send(&mut world, &bob, id(n), b"x");
    }
    bob.hear(&mut world);
    assert_eq!(bob.heard.len(), 1 + 4);
    bob.ack(&mut world, 3);
    assert_eq!(bob.heard.len(), 1 + 7);
}

#[test]
fn a_second_login_of_a_device_replaces_the_first() {
    let mut world = World::new(Limits::default());
    let (_, mut bob) = two_phones(&mut world);
    let again = Phone::connect(&mut world, 2, "bob", 2);
    bob.hear(&mut world);
    assert_eq!(bob.heard.last(), Some(&Heard::Goodbye("Replaced".into())));
    assert_eq!(again.heard, [Heard::Drained]);
    assert!(world.closed.contains(&1));
}

#[test]
fn anothers_name_is_refused() {
    let mut world = World::new(Limits::default());
    let _phones = two_phones(&mut world);
    let thief = Phone::connect(&mut world, 2, "bob", 3);
    assert_eq!(thief.heard, [Heard::Refused("NameTaken".into())]);
}

#[test]
fn acknowledging_the_future_ends_the_connection() {
    let mut world = World::new(Limits::default());
    let (_, mut bob) = two_phones(&mut world);
    bob.ack(&mut world, 7);
    assert_eq!(bob.heard.last(), Some(&Heard::Refused("BadAcknowledgement".into())));
}

#[test]
fn a_silent_connection_is_given_up() {
    let mut world = World::new(Limits { login_ms: 500, idle_ms: 2_000, ..Limits::default() });
    world.step(tern_core::io::Input::Accepted { slot: 7, peer: None });
    world.turn();
    world.pass_ms(502);
    assert_eq!(world.closed, [7]);
    let (_ann, mut bob) = two_phones(&mut world);
    world.pass_ms(2_002);
    bob.hear(&mut world);
    assert_eq!(bob.heard.last(), Some(&Heard::Goodbye("Idle".into())));
    assert_eq!(world.shard.counters().sessions_now, 0);
}

#[test]
fn mail_that_nobody_fetches_expires() {
    let mut world = World::new(Limits { expiry_ms: 60_000, ..Limits::default() });
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"too late");
    world.pass_ms(2_000);
    assert_eq!((world.shard.counters().expired, world.shard.counters().mail_count_now), (0, 1));
    world.now.mono_ns += 60_000_000_000;
    world.now.wall_ms += 60_000;
    world.pass_ms(2_000);
    assert_eq!((world.shard.counters().expired, world.shard.counters().mail_count_now), (1, 0));
    // Also after a kill it does not come back.
    let mut world = world.kill();
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(bob.heard, [Heard::Drained]);
}

#[test]
fn what_has_expired_is_nobodys_part_of_a_mailbox() {
    let mut world = World::new(Limits { expiry_ms: 60_000, mailbox_bytes: 128 << 10, ..Limits::default() });
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), &[7; 30_000]);
    world.pass_s(50);
    ann.send(&mut world, &bob, id(2), b"x");
    let others = ["carol", "dora", "erin", "frank"].into_iter().zip(10..);
    let mut others: Vec<_> =
        others.map(|(name, slot)| Phone::connect(&mut world, slot, name, slot as u8)).collect();
    for (other, bytes) in others.iter_mut().zip([30_000, 30_000, 9_000]) {
        other.send(&mut world, &bob, id(3), &vec![7; bytes]);
    }
    world.pass_s(20);
    assert_eq!(world.shard.counters().expired, 1);
    others[3].send(&mut world, &bob, id(3), &[7; 30_000]);
    // As much is free as she holds many times over.
    ann.send(&mut world, &bob, id(4), b"x");
    assert_eq!(ann.heard.last(), Some(&Heard::Sent(id(4))));
    let counters = world.shard.counters();
    assert_eq!((counters.refused_share, counters.mailbox_bytes_full), (0, 0));
}

#[test]
fn a_long_mailbox_expires_in_pieces() {
    let mut world = World::new(Limits { expiry_ms: 60_000, step_budget: 10, ..Limits::default() });
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    (1..=55).for_each(|n| ann.send(&mut world, &bob, id(n), b"too late"));
    world.pass_ms(10);
    world.now.mono_ns += 120_000_000_000;
    world.now.wall_ms += 120_000;
    let mut expired = 0;
    while expired < 55 {
        world.next_turn();
        let now = world.shard.counters().expired;
        assert!((1..=10).contains(&(now - expired)), "{expired} before, {now} behind it");
        assert_eq!(world.shard.counters().mail_count_now, 55 - now, "what has expired is gone at once");
        expired = now;
        world.step(Input::Flush);
        let goes_on = world.out.list.iter().any(|output| matches!(output, Output::Continue));
        assert_eq!(goes_on, expired < 55);
        world.turn();
    }
    world.pass_ms(200);
    let mut world = world.kill();
    assert_eq!(Phone::connect(&mut world, 1, "bob", 2).heard, [Heard::Drained]);
}

#[test]
fn an_account_is_found_only_once_it_is_durable() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    world.disk_runs = false;
    let _registers = Phone::connect(&mut world, 1, "bob", 2);
    let look_up = |world: &mut World, ann: &mut Phone| {
        ann.client.send(&ClientFrame::Lookup { name: "bob" });
        ann.exchange(world);
        ann.heard.pop()
    };
    assert_eq!(look_up(&mut world, &mut ann), Some(Heard::Found(None)));
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    assert!(matches!(look_up(&mut world, &mut ann), Some(Heard::Found(Some(_)))));
}

#[test]
fn a_connection_whose_numbers_run_out_starts_anew_and_misses_nothing() {
    let mut world = World::new(Limits { window_count: 4, delivery_count: 10, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    for n in 1..=25 {
        ann.send(&mut world, &bob, id(n), b"x");
    }
    let mut taken = Vec::new();
    for (slot, wanted) in [(3, 10), (4, 20), (5, 25)] {
        let mut bob = Phone::connect(&mut world, slot, "bob", 2);
        while let Some(&Heard::Message { number, .. }) =
            bob.heard.iter().rfind(|heard| matches!(heard, Heard::Message { .. }))
        {
            taken.extend(bob.heard.drain(..).filter_map(|heard| match heard {
                Heard::Message { id, .. } => Some(id),
                _ => None,
            }));
            bob.ack(&mut world, number);
        }
        assert_eq!(taken.len(), wanted);
        let is_over = bob.heard.last() == Some(&Heard::Goodbye("Busy".into()));
        assert_eq!(is_over, wanted < 25, "{:?}", bob.heard);
    }
    assert_eq!(taken, (1..=25).map(id).collect::<Vec<_>>());
    assert_eq!(world.shard.counters().deliveries_full, 2);
}

#[test]
fn a_sent_tick_is_counted_when_its_sender_is_told() {
    let mut world = World::new(Limits::default());
    let (mut ann, mut bob) = two_phones(&mut world);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"hello");
    assert_eq!(ann.heard.last(), Some(&Heard::Sent(id(1))));
    assert_eq!(world.shard.counters().ticks_sent, 1);
    // She goes before the disk has it.
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(2), b"bye");
    ann.leave(&mut world);
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    assert_eq!((world.shard.counters().messages_in, world.shard.counters().ticks_sent), (2, 1));
}
