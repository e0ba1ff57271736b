//! A drive that fills up: who is told.

use crate::removing::replies;
use crate::revoking::{add, busy, devices, start_disk};
use crate::rewriting::{SEGMENT_BYTES, id, limits};
use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, Created};
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

#[test]
fn who_asks_in_the_moment_in_which_the_drive_fills_up_gets_an_answer() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    bob.leave(&mut world);
    world.disk_runs = false;
    let mut commits = 0;
    for low in 1.. {
        ann.send(&mut world, &bob, id(low), &[7; 900]);
        run_writes(&mut world);
        if std::mem::replace(&mut commits, world.shard.counters().log_commits) == commits {
            break;
        }
    }
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
