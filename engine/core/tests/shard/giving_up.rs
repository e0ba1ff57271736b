//! A drive that fills up: who is told.

use crate::removing::replies;
use crate::revoking::{add, busy, devices, start_disk};
use crate::rewriting::{SEGMENT_BYTES, id, limits};
use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, Created};
use tern_core::limits::Limits;
use tern_protocol::phone::frame::ClientFrame;
use tern_storage::io::DiskOp;

/// The drive does what waits for it, but makes no files yet.
fn run_writes(world: &mut World) {
    let all = std::mem::take(&mut world.disk_queue);
    let (files, writes) = all.into_iter().partition(|(op, _)| matches!(op, DiskOp::Create { .. }));
    world.disk_queue = writes;
    world.run_disk();
    world.disk_queue = files;
    world.turn();
}

/// Sends mail to the absent until the log takes no more, or so often; how often it was.
fn fill(world: &mut World, from: &mut Phone, to: &Phone, body_bytes: usize, count_max: u64) -> u64 {
    world.disk_runs = false;
    let mut commits = 0;
    for low in 1..=count_max {
        from.send(world, to, id(low), &vec![7; body_bytes]);
        run_writes(world);
        if std::mem::replace(&mut commits, world.shard.counters().log_commits) == commits {
            return low;
        }
    }
    count_max
}

#[test]
fn who_asks_in_the_moment_in_which_the_drive_fills_up_gets_an_answer() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    fill(&mut world, &mut ann, &bob, 900, u64::MAX);
    ann.hear(&mut world);
    ann.heard.clear();
    replies(&mut world);
    // No file is ready, and nobody knows yet that there is no room for another.
    ann.say(&mut world, &add(4));
    create(&mut world, 7, "dora", &[5]);
    let mut carol = Phone::connect(&mut world, 3, "carol", 3);
    assert!(ann.heard.is_empty() && carol.heard.is_empty() && replies(&mut world).is_empty());
    world.drive_is_full = true;
    start_disk(&mut world);
    ann.hear(&mut world);
    carol.hear(&mut world);
    ann.say(&mut world, &ClientFrame::Devices);
    assert_eq!(ann.heard, [Heard::DevicesRefused("Internal".into()), devices(&[(1, true)])]);
    assert_eq!(replies(&mut world), [(7, ControlReply::Refused)]);
    assert_eq!(carol.heard, [busy()]);
    // It stays full: who comes again hears it again.
    create(&mut world, 8, "dora", &[5]);
    let mut carol = Phone::connect(&mut world, 3, "carol", 3);
    world.pass_s(1);
    carol.hear(&mut world);
    assert_eq!((replies(&mut world), carol.heard), (vec![(8, ControlReply::Refused)], vec![busy()]));
    // There is room again.
    world.drive_is_full = false;
    world.pass_s(2);
    create(&mut world, 9, "dora", &[5]);
    let dora = replies(&mut world);
    assert!(
        matches!(&dora[..], [(9, ControlReply::Created(all))] if matches!(all[..], [Created::Existing(_)]))
    );
    assert_eq!(Phone::connect(&mut world, 3, "carol", 3).heard, [Heard::Drained]);
    ann.say(&mut world, &add(4));
    assert_eq!(ann.heard.last(), Some(&devices(&[(1, true), (3, false)])), "the number is not used again");
    assert_eq!((world.shard.counters().devices_added, world.shard.counters().devices_revoked), (1, 0));
    let mut world = world.kill();
    assert_eq!(world.shard.counters().accounts_now, 4);
    assert!(Phone::connect(&mut world, 4, "ann", 4).account.is_some());
}

/// Fifteen devices, one of which comes back by ticket when another one adds the sixteenth: both are records of one account.
/// The log has room for a commit and no more, and `last_bytes` say which records that takes. Whether the phone was told
/// that nothing was changed; whether the device was there once the commit was durable, by all that phones can know; and
/// the world then.
fn adds_at_the_end(last_bytes: usize) -> (bool, bool, World, Phone) {
    let keys: Vec<u8> = (1..=15).collect();
    let begin = || {
        let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
        create(&mut world, 1, "ann", &keys);
        let ann = Phone::connect(&mut world, 1, "ann", 1);
        let mut tablet = Phone::connect(&mut world, 2, "ann", 2);
        let carol = Phone::connect(&mut world, 30, "carol", 30);
        let mut bob = Phone::connect(&mut world, 31, "bob", 31);
        [&mut tablet, &mut bob].into_iter().for_each(|phone| phone.leave(&mut world));
        (world, ann, tablet, carol, bob)
    };
    let (mut world, _, _, mut carol, bob) = begin();
    let count = fill(&mut world, &mut carol, &bob, 900, u64::MAX);
    // Two commits short of that: one is under way while the next one's records gather.
    let (mut world, mut ann, tablet, mut carol, bob) = begin();
    fill(&mut world, &mut carol, &bob, 900, count - 3);
    ann.heard.clear();
    for low in count..count + 8 {
        carol.send(&mut world, &bob, id(low), &[7; 900]);
    }
    carol.send(&mut world, &bob, id(count + 8), &vec![7; last_bytes]);
    let _tablet = Phone::resume(&mut world, 2, tablet.ticket.expect("a session begins with one"));
    ann.say(&mut world, &add(16));
    run_writes(&mut world);
    assert!(ann.heard.is_empty(), "nothing is known yet: {:?}", ann.heard);
    world.drive_is_full = true;
    let all = std::mem::take(&mut world.disk_queue);
    let (files, writes) = all.into_iter().partition(|(op, _)| matches!(op, DiskOp::Create { .. }));
    world.disk_queue = files;
    world.run_disk();
    world.turn();
    world.disk_queue = writes;
    ann.hear(&mut world);
    let is_refused = ann.heard == [Heard::DevicesRefused("Internal".into())];
    assert!(is_refused || ann.heard.is_empty(), "{:?}", ann.heard);
    start_disk(&mut world);
    let is_added = world.shard.counters().devices_added == 1;
    ann.hear(&mut world);
    (is_refused, is_added, world, ann)
}

fn is_there(world: World) -> bool {
    Phone::connect(&mut world.kill(), 60, "ann", 16).account.is_some()
}

#[test]
fn a_device_that_a_record_names_is_not_given_up_on_a_full_drive() {
    let (mut refused_count, mut waiting_count) = (0, 0);
    for last_bytes in (1..1000).step_by(111) {
        let (is_refused, is_added, world, _) = adds_at_the_end(last_bytes);
        refused_count += usize::from(is_refused);
        waiting_count += usize::from(!is_refused && !is_added);
        assert_eq!(
            is_there(world),
            !is_refused,
            "{last_bytes} bytes: refused {is_refused}, added {is_added}"
        );
        if is_refused || is_added {
            continue;
        }
        // Another record of it waits for room: who asked is told then.
        let (_, _, mut world, mut ann) = adds_at_the_end(last_bytes);
        world.drive_is_full = false;
        world.pass_s(2);
        ann.hear(&mut world);
        assert!(matches!(&ann.heard[..], [Heard::Devices(list)] if list.len() == 16), "{:?}", ann.heard);
    }
    assert!(refused_count > 0 && waiting_count > 0, "{refused_count} refused, {waiting_count} waiting");
}

/// Whether a shard at rest, whose drive was full for so long, takes accounts again soon after there is room.
fn finds_room_again(quiet_s: u64) -> bool {
    // Blocks that are full: nothing is worth to be written elsewhere.
    let limits = Limits { body_bytes: 3_900, commit_bytes: 3_900 + 8192, ..limits() };
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    fill(&mut world, &mut ann, &bob, 3_800, u64::MAX);
    ann.leave(&mut world);
    world.drive_is_full = true;
    start_disk(&mut world);
    world.pass_s(600);
    create(&mut world, 7, "dora", &[5]);
    world.pass_s(1);
    assert_eq!(replies(&mut world).last(), Some(&(7, ControlReply::Refused)));
    world.pass_s(quiet_s);
    world.drive_is_full = false;
    world.pass_s(64);
    create(&mut world, 8, "dora", &[5]);
    matches!(replies(&mut world).last(), Some((8, ControlReply::Created(_))))
}

#[test]
fn a_quiet_shard_asks_a_drive_for_room_again_within_about_a_minute() {
    for quiet_s in (100..700).step_by(100) {
        assert!(finds_room_again(quiet_s), "after {quiet_s} s");
    }
}
