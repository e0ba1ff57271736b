//! A phone that has talked and fallen silent takes no more memory than one that has only logged in.

use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;

const NOW_S: u64 = 1_800_000_000;
/// Longer than a phone counts as active, and than chores take to look at all of a few phones.
const SILENT_MS: u64 = 15_000;

fn id(n: u32) -> u64 {
    NOW_S << 32 | u64::from(n)
}

fn send(world: &mut World, from: &mut Phone, to: &Phone, numbers: core::ops::Range<u32>) {
    numbers.for_each(|n| from.send(world, to, id(n), &[7; 128]));
}

fn rest(world: &mut World) {
    for _ in 0..SILENT_MS / 1_000 {
        world.pass_ms(1_000);
        world.turn();
    }
}

fn stirred(world: &World) -> u64 {
    world.shard.counters().stirred_now
}

/// Each takes its mail and acknowledges all of it.
fn take_all(world: &mut World, phone: &mut Phone) {
    phone.hear(world);
    let mut last = phone.heard.iter().filter_map(|heard| match heard {
        Heard::Message { number, .. } | Heard::Delivered { number, .. } => Some(*number),
        _ => None,
    });
    let last = last.next_back().expect("it has mail");
    phone.ack(world, last);
    phone.heard.clear();
}

/// Pairs of phones, logged in. What the first traffic of a shard makes for good is made.
fn pairs(world: &mut World, count: u32) -> Vec<(Phone, Phone)> {
    let name = |n: u32| format!("phone{n}");
    let mut pairs: Vec<_> = (0..count)
        .map(|n| {
            let first = Phone::connect(world, 2 * n, &name(2 * n), 2 * n as u8 + 1);
            (first, Phone::connect(world, 2 * n + 1, &name(2 * n + 1), 2 * n as u8 + 2))
        })
        .collect();
    let (ann, bob) = &mut pairs[0];
    send(world, ann, bob, 1..10);
    take_all(world, bob);
    take_all(world, ann);
    pairs
}

fn talk(world: &mut World, pairs: &mut [(Phone, Phone)], numbers: core::ops::Range<u32>) {
    for (ann, bob) in pairs {
        send(world, ann, bob, numbers.clone());
        take_all(world, bob);
        take_all(world, ann);
    }
}

#[test]
fn who_has_talked_and_is_silent_takes_what_it_took_before() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 20);
    rest(&mut world);
    assert_eq!(stirred(&world), 0);
    let before_bytes = world.held_bytes;
    talk(&mut world, &mut pairs, 100..120);
    assert_eq!(stirred(&world), 40);
    let busy_bytes = world.held_bytes - before_bytes;
    assert!(busy_bytes > 40 * 1_000, "{busy_bytes} bytes: nothing that could be given back");
    rest(&mut world);
    assert_eq!(stirred(&world), 0);
    // The ids of 20 x 40 messages and ticks are remembered: in a table that doubles, 9 bytes a place.
    let rest_bytes = world.held_bytes - before_bytes;
    assert!(rest_bytes <= 9 * 2_048, "{rest_bytes} of {busy_bytes} bytes are held");
    // And all of it works as before.
    talk(&mut world, &mut pairs, 200..210);
    assert_eq!(stirred(&world), 40);
}

#[test]
fn who_talks_keeps_what_it_needs() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 1);
    for n in 10..40 {
        talk(&mut world, &mut pairs, 10 * n..10 * n + 1);
        world.pass_ms(3_000);
        world.turn();
        assert_eq!(stirred(&world), 2, "two accounts that talk, each once");
    }
}

#[test]
fn what_waits_for_an_acknowledgement_stays_and_goes_with_it() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 1);
    let (ann, bob) = &mut pairs[0];
    rest(&mut world);
    let before_bytes = world.held_bytes;
    send(&mut world, ann, bob, 300..304);
    bob.hear(&mut world);
    ann.hear(&mut world);
    rest(&mut world);
    assert!(world.held_bytes > before_bytes + 500, "mail and window");
    bob.heard.retain(|heard| matches!(heard, Heard::Message { .. }));
    assert_eq!(bob.heard.len(), 4);
    take_all(&mut world, bob);
    take_all(&mut world, ann);
    rest(&mut world);
    assert_eq!(stirred(&world), 0);
    let more_bytes = world.held_bytes - before_bytes;
    // Mail that was written leaves the place of a floor for each of the two accounts, and remembered ids; the buffer of
    // what the shard casts to itself has grown by four ticks.
    assert!(more_bytes <= 512 + 4 * 56, "{more_bytes} bytes are held");
}

/// The mailbox that has forgotten is the one whose floors are durable: after a crash nothing comes back.
#[test]
fn what_a_mailbox_forgets_does_not_come_back_after_a_crash() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 1);
    let (ann, bob) = &mut pairs[0];
    send(&mut world, ann, bob, 300..304);
    world.pass_ms(100);
    world.turn();
    take_all(&mut world, bob);
    take_all(&mut world, ann);
    rest(&mut world);
    assert_eq!(stirred(&world), 0);
    let mut world = world.kill();
    let mut bob = Phone::connect(&mut world, 1, "phone1", 2);
    let mut ann = Phone::connect(&mut world, 0, "phone0", 1);
    for phone in [&mut ann, &mut bob] {
        phone.hear(&mut world);
        assert_eq!(phone.heard, [Heard::Drained]);
    }
}

#[test]
fn a_mailbox_whose_mail_is_over_is_forgotten_after_a_restart() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 20);
    for (ann, bob) in &mut pairs {
        send(&mut world, ann, bob, 300..301);
        world.pass_ms(100);
        take_all(&mut world, bob);
        take_all(&mut world, ann);
    }
    rest(&mut world);
    let mut world = world.kill();
    assert!(stirred(&world) >= 20, "those that have records in the log");
    let before_bytes = world.held_bytes;
    rest(&mut world);
    assert_eq!(stirred(&world), 0);
    let given_bytes = before_bytes - world.held_bytes;
    assert!(given_bytes >= 20 * 80, "{given_bytes} bytes");
}

/// How long the shard may sleep now, milliseconds.
fn sleep_ms(world: &World) -> u64 {
    let deadline_ns = world.shard.next_deadline().expect("there are always chores");
    deadline_ns.saturating_sub(world.now.mono_ns) / 1_000_000
}

fn longest_sleep_ms(world: &mut World) -> u64 {
    let slept = (0..11).map(|_| {
        world.pass_ms(1_000);
        world.turn();
        sleep_ms(world)
    });
    slept.max().expect("some turns")
}

#[test]
fn a_shard_at_rest_sleeps_for_long_and_one_to_which_something_came_does_not() {
    let mut world = World::new(Limits::default());
    let mut pairs = pairs(&mut world, 4);
    assert!(sleep_ms(&world) <= 1_000);
    // The busiest accounts fade for longest.
    (0..4).for_each(|_| rest(&mut world));
    assert!((9_000..=10_000).contains(&longest_sleep_ms(&mut world)));
    // A word, and chores come within a second again until all of it is over.
    talk(&mut world, &mut pairs, 20..21);
    for _ in 0..5 {
        assert!(sleep_ms(&world) <= 1_000, "{}", sleep_ms(&world));
        world.pass_ms(1_000);
        world.turn();
    }
    (0..4).for_each(|_| rest(&mut world));
    assert!((9_000..=10_000).contains(&longest_sleep_ms(&mut world)));
}
