//! A message in steady state costs no allocation in the core.

use crate::world::World;
use crate::world::phone::Phone;
use tern_core::limits::Limits;

const NOW_S: u64 = 1_800_000_000;

/// Online traffic both ways, acknowledged at once; each message takes a millisecond.
fn talk(world: &mut World, ann: &mut Phone, bob: &mut Phone, numbers: std::ops::Range<u32>) {
    for n in numbers {
        ann.send(world, bob, NOW_S << 32 | u64::from(n), &[7; 128]);
        bob.hear(world);
        bob.ack(world, n);
        ann.hear(world);
        ann.ack(world, n);
        world.pass_ms(1);
        ann.heard.clear();
        bob.heard.clear();
    }
}

#[test]
fn online_messages_allocate_nothing() {
    let mut world = World::new(Limits { tick_retry_ms: 500, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    // Long enough for every queue to reach its size, and past the doubling of the table of ids (14,336 of them).
    talk(&mut world, &mut ann, &mut bob, 1..7_500);
    world.allocation_count = 0;
    talk(&mut world, &mut ann, &mut bob, 7_500..9_500);
    assert_eq!(world.allocation_count, 0);
}

#[test]
fn mail_for_the_absent_allocates_only_for_what_it_keeps() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let mut send = |world: &mut World, numbers: std::ops::Range<u64>| {
        for n in numbers {
            ann.send(world, &bob, NOW_S << 32 | n, &[7; 128]);
            ann.hear(world);
            ann.heard.clear();
        }
    };
    send(&mut world, 0..2_000);
    world.allocation_count = 0;
    send(&mut world, 2_000..4_000);
    // Mailbox, table of ids and cache grow by doubling or by chunks of many messages.
    assert!(world.allocation_count <= 40, "{} allocations for 2,000 kept messages", world.allocation_count);
}
