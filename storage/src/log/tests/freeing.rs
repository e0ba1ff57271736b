//! When segments are used again, and what happens when there are none.

use super::*;

/// Fills at least one mail segment with records of `n`; returns where they are.
fn fill(world: &mut World, n: u64) -> Vec<Position> {
    let start = world.kept.len();
    for _ in 0..2 {
        world.commit(&[mail(n, 7000)]);
    }
    world.kept[start..].iter().map(|k| k.0).collect()
}

fn kill(world: &mut World, positions: &[Position]) {
    for &p in positions {
        world.log.dead(p);
    }
    world.kept.retain(|k| !positions.contains(&k.0));
}

fn freed(world: &mut World) -> Vec<SegmentId> {
    let mut freed = Vec::new();
    world.log.take_freed(&mut freed);
    freed
}

#[test]
fn a_segment_without_live_records_is_used_again_and_its_content_is_gone() {
    let mut world = World::new();
    for n in 1..200 {
        let positions = fill(&mut world, n);
        kill(&mut world, &positions);
    }
    assert!(world.disk.files.len() < 8, "{} files", world.disk.files.len());
    world.commit(&[mail(1000, 10), Owned::Epoch(1)]);
    let kept = world.kept.clone();
    let open = kept[0].0.segment;
    let (_, report, found) = world.disk.recover(CONFIG);
    assert!(report.rot.is_empty() && report.torn.is_empty());
    assert!(found.iter().all(|f| kept.contains(f) || f.0.segment == open), "an earlier use shows through");
    assert!(kept.iter().all(|k| found.contains(k)));
}

#[test]
fn a_live_record_or_floor_holds_its_segment() {
    let mut world = World::new();
    let older = fill(&mut world, 1);
    world.commit(&[Owned::Floor(1, 1, 1)]);
    let floor = world.kept.last().unwrap().0;
    let mine: Vec<_> = older.iter().copied().filter(|p| p.segment != floor.segment).collect();
    assert!(mine.is_empty(), "all in the first segment");
    let newer = fill(&mut world, 2);
    assert_ne!(newer.last().unwrap().segment, floor.segment);
    let (first, rest) = older.split_first().unwrap();
    kill(&mut world, rest);
    let in_first: Vec<_> = newer.iter().copied().filter(|p| p.segment == floor.segment).collect();
    kill(&mut world, &in_first);
    world.log.floor_dead(floor);
    assert_eq!(freed(&mut world), [], "one record is live");
    world.log.dead(*first);
    assert_eq!(freed(&mut world), [floor.segment]);
}

/// A world with three mail segments, each with mail and then a floor; the first commit of the fourth seals the third.
fn three_segments_with_floors() -> (World, Vec<(Vec<Position>, Position)>) {
    let mut world = World::new();
    let mut segments: Vec<(Vec<Position>, Position)> = Vec::new();
    for n in 1..=4 {
        let mail = fill(&mut world, n);
        world.commit(&[Owned::Floor(n, 1, n)]);
        let floor = world.kept.pop().unwrap().0;
        assert!(mail.iter().all(|p| p.segment == floor.segment), "one segment each");
        segments.push((mail, floor));
    }
    (world, segments)
}

#[test]
fn floors_hold_all_but_the_oldest_segment() {
    let (mut world, segments) = three_segments_with_floors();
    kill(&mut world, &segments[1].0);
    assert_eq!(freed(&mut world), [], "its floor may cover mail in the first segment");
    kill(&mut world, &segments[0].0);
    let both = [segments[0].1.segment, segments[1].1.segment];
    assert_eq!(freed(&mut world), both, "the first is the oldest, and after it the second");
    // The caller may not have heard yet.
    world.log.floor_dead(segments[0].1);
    kill(&mut world, &segments[3].0);
    assert_eq!(freed(&mut world), [], "an open segment is never free");
}

#[test]
fn nothing_is_freed_before_recovery_is_done() {
    let (world, segments) = three_segments_with_floors();
    let (mut log, ..) = world.disk.recover(CONFIG);
    let mut freed = Vec::new();
    log.live(segments[1].0[0]);
    log.live(segments[2].0[0]);
    log.dead(segments[2].0[0]);
    log.take_freed(&mut freed);
    assert_eq!(freed, []);
    log.recovered_done();
    log.take_freed(&mut freed);
    freed.sort();
    assert_eq!(freed, [segments[0].1.segment, segments[2].1.segment]);
}

#[test]
fn freed_segments_are_marked_one_after_the_other_in_order() {
    let (mut world, segments) = three_segments_with_floors();
    for n in [1, 0, 2] {
        kill(&mut world, &segments[n].0);
    }
    let order = freed(&mut world);
    assert_eq!(order.len(), 3);
    for &segment in &order {
        let (arena, ops, placed) = world.assemble(&[mail(9, 10)]);
        let marked: Vec<_> = ops
            .iter()
            .filter_map(|op| match op {
                DiskOp::Write { segment, offset: 0, data }
                    if arena[data.clone()].starts_with(b"TERNFREE") =>
                {
                    Some(*segment)
                }
                _ => None,
            })
            .collect();
        assert_eq!(marked, [segment]);
        world.perform(ops, &arena);
        world.log.live(placed[0].0);
    }
    let (_, ops, _) = world.assemble(&[mail(9, 10)]);
    assert_eq!(ops.len(), 1);
}

#[test]
fn full_until_something_dies() {
    let mut world = World::with(LogConfig { segment_count_max: 4, ..CONFIG });
    world.commit(&[Owned::Epoch(1)]);
    let mut mails = Vec::new();
    while world.log.can_commit() {
        assert!(!world.log.is_full());
        world.commit(&[mail(1, 7000)]);
        mails.push(world.kept.last().unwrap().0);
    }
    assert!(world.log.is_full());
    assert_eq!(world.disk.files.len(), 4);
    let first = mails[0].segment;
    assert!(mails.iter().any(|p| p.segment != first), "one is sealed");
    let dead: Vec<_> = mails.iter().copied().filter(|p| p.segment == first).collect();
    kill(&mut world, &dead);
    assert!(!world.log.is_full(), "space is on its way");
    assert!(world.log.can_commit(), "to give back the space");
    world.commit(&[mail(2, 7000)]);
    assert_eq!(world.disk.files.len(), 4);
    let kept = world.kept.clone();
    world.restart(LogConfig { segment_count_max: 4, ..CONFIG });
    assert_eq!(world.kept, kept);
}

#[test]
fn a_log_is_low_no_longer_than_its_segments_are_needed() {
    let mut world = World::with(LogConfig { segment_count_max: 6, ..CONFIG });
    world.commit(&[Owned::Epoch(1)]);
    let mut mails = Vec::new();
    while world.log.can_commit() {
        world.commit(&[mail(1, 7000)]);
        mails.push(world.kept.last().unwrap().0);
    }
    assert!(world.log.is_low());
    kill(&mut world, &mails);
    // Before any commit: whoever refuses mail while the log is low would otherwise wait for a commit for ever.
    assert!(!world.log.is_low());
}

#[test]
fn a_full_drive_is_said_and_tried_again() {
    let (mut log, _) = Recovery::new(CONFIG).finish();
    log.recovered_done();
    let mut world = World { log, disk: Disk::default(), kept: Vec::new() };
    let mut ops = Vec::new();
    world.log.want_spares(&mut ops);
    assert_eq!(ops.len(), 2);
    assert!(!world.log.can_commit() && !world.log.is_full());
    // One segment is enough to begin with, and for nothing else.
    assert_eq!(world.perform(vec![ops[0].clone()], &[]), [LogEvent::SpaceBack]);
    let mut more = Vec::new();
    assert_eq!(world.log.disk_done(fail(&ops[1], DiskError::Full), &mut more), Some(LogEvent::Full));
    assert!(!world.log.is_full() && world.log.can_commit() && more.is_empty());
    world.commit(&[Owned::Epoch(1)]);
    assert!(world.log.is_full() && !world.log.can_commit());
    world.log.want_spares(&mut more);
    assert_eq!(more[0], ops[1], "the same file again");
    // One more than are wanted is tried, for it may be the only one.
    assert_eq!(more.len(), 3);
    assert_eq!(world.perform(vec![more[0].clone()], &[]), [LogEvent::SpaceBack]);
    assert!(world.log.can_commit() && !world.log.is_full());
}

#[test]
fn a_failed_write_ends_the_log() {
    let mut world = World::new();
    let (_, ops, _) = world.assemble(&[mail(1, 10), Owned::Epoch(1)]);
    let mut more = Vec::new();
    let failed = world.log.disk_done(fail(&ops[0], DiskError::Io(5)), &mut more);
    assert_eq!(failed, Some(LogEvent::Failed(DiskError::Io(5))));
    assert_eq!(world.log.disk_done(done(&ops[1]), &mut more), None, "never committed");
    assert!(!world.log.can_commit() && more.is_empty());
}

#[test]
fn a_drive_that_stays_full_is_asked_less_and_less_often_and_again_at_once_when_it_had_room() {
    let mut log = Recovery::new(CONFIG).finish().0;
    log.recovered_done();
    let answer = |log: &mut Log, calls: usize, is_full: bool| {
        let mut asked = Vec::new();
        for call in 0..calls {
            let mut ops = Vec::new();
            log.want_spares(&mut ops);
            if !ops.is_empty() {
                asked.push(call);
            }
            for op in ops {
                let done = if is_full { fail(&op, DiskError::Full) } else { done(&op) };
                log.disk_done(done, &mut Vec::new());
            }
        }
        asked
    };
    assert_eq!(answer(&mut log, 240, true), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    assert_eq!(answer(&mut log, 60, false).len(), 1, "there is room, and all is made");
    let mut log = Recovery::new(CONFIG).finish().0;
    assert_eq!(answer(&mut log, 5, true), [0, 1, 3]);
    assert_eq!(answer(&mut log, 3, false), [2], "the pause goes on, and ends");
}

/// What is freed at a start may be the damage that the first commit speaks of: it is there until that is durable.
#[test]
fn nothing_is_marked_before_the_first_commit_of_a_start_is_durable() {
    let mut world = World::new();
    let old = fill(&mut world, 1);
    world.commit(&[mail(2, 7000), Owned::Epoch(1)]);
    let kept = world.kept.pop().unwrap();
    let (log, _, found) = world.disk.recover(CONFIG);
    world.log = log;
    let newest = found.iter().rev().find(|k| k.0.segment != old[0].segment && k.0.segment != kept.0.segment);
    newest.into_iter().chain([&kept]).for_each(|k| world.log.live(k.0));
    world.log.recovered_done();
    world.want_spares();
    assert_eq!(freed(&mut world), [old[0].segment]);
    let is_there = |world: &World| Recovery::generation(&world.disk.files[&old[0].segment.0]).is_some();
    let (arena, ops, _) = world.assemble(&[Owned::Epoch(2)]);
    assert_eq!(ops.len(), 1, "{ops:?}");
    world.perform(ops, &arena);
    assert!(is_there(&world));
    world.commit(&[Owned::Epoch(3)]);
    assert!(!is_there(&world));
}
