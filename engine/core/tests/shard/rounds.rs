//! Rounds in which thin segments of the log are left: when they end, what they take along, what a crash in one leaves.

use crate::rewriting::{SEGMENT_BYTES, ack_all, id, limits, number_of, rush};
use crate::stuck::create;
use crate::world::World;
use crate::world::phone::Phone;
use tern_core::limits::Limits;

/// So few segments that one is worth a round.
fn few_segments() -> Limits {
    Limits { segment_count: 31, ..limits() }
}

#[test]
fn old_mail_that_one_device_has_takes_the_floor_of_its_ticks_along() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, few_segments());
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    for n in 1..=3 {
        ann.send(&mut world, &quick, id(10_000 + n), &[n as u8; 10]);
        world.pass_ms(60);
        ack_all(&mut world, &mut quick);
    }
    world.pass_ms(60);
    ack_all(&mut world, &mut ann);
    quick.leave(&mut world);
    assert_eq!(world.shard.counters().ticks_delivered, 3);
    // The segment with all of it is left, and then used for other things.
    (0..12).for_each(|n| rush(&mut world, &mut ann, 9, 100 * n + 1, 40));
    world.pass_ms(3_000);
    let counters = *world.shard.counters();
    assert!(counters.log_segments_rewritten > 0, "{counters:?}");
    let mut world = world.kill();
    world.pass_ms(10);
    assert_eq!(world.shard.counters().ticks_delivered, 0, "what is settled owes its tick no more");
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    assert_eq!(slow.heard.iter().filter(|heard| number_of(heard).is_some()).count(), 3);
}

#[test]
fn a_round_ends_though_a_commit_is_always_under_way() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, few_segments());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(10_001), b"waits in a segment in which nothing else lives");
    (0..3).for_each(|n| rush(&mut world, &mut ann, 9, 100 * n + 1, 40));
    assert_eq!(world.shard.counters().log_segments_rewritten, 0);
    let mut has_ended = false;
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(19_999), b"the first one");
    for n in 0..200 {
        ann.send(&mut world, &bob, id(20_000 + n), b"one more");
        // The commit that was under way is done, and the next one begins before the round goes on.
        world.run_disk();
        world.turn();
        assert!(!world.disk_queue.is_empty());
        world.now.mono_ns += 20_000_000;
        world.now.wall_ms += 20;
        world.next_turn();
        has_ended |= world.shard.counters().log_segments_rewritten > 0;
    }
    assert!(has_ended, "{:?}", world.shard.counters());
}

/// A crash after the copies and before their segment is given back leaves mail twice.
#[test]
fn mail_of_a_damaged_account_that_is_there_twice_is_counted_once() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, few_segments());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    for n in 0..3 {
        ann.send(&mut world, &bob, id(10_000 + n), b"waits in a segment in which nothing else lives");
        rush(&mut world, &mut ann, 9, 100 * n + 1, 40);
    }
    world.disk_runs = false;
    for _ in 0..100 {
        world.now.mono_ns += 20_000_000;
        world.next_turn();
        let has_copied = world.shard.counters().log_rewritten_bytes > 0;
        world.run_disk();
        if has_copied {
            break;
        }
    }
    let place = |bytes: &[u8]| bytes.windows(3).position(|three| three == b"bob");
    let (file, at) =
        world.files.iter().find_map(|(&file, bytes)| Some((file, place(bytes)?))).expect("bob's record");
    world.files.get_mut(&file).expect("it is there")[at] ^= 0xff;
    let waits = |bytes: &[u8]| bytes.windows(8).filter(|eight| eight == b"waits in").count();
    assert_eq!(world.files.values().map(|bytes| waits(bytes)).sum::<usize>(), 6);
    let world = world.kill_with_rot(1);
    assert_eq!(world.shard.counters().orphans_now, 3);
}
