//! Which segments are left, and the spare that is kept for it.

use super::*;

/// A record that fills a commit of one block, and so little of it that a segment of such commits is thin.
fn account(n: u64) -> Owned {
    Owned::Account(1 << 48 | n, vec![7; 100])
}

fn kill(world: &mut World, p: Position) {
    world.log.dead(p);
    world.kept.retain(|kept| kept.0 != p);
}

/// Weighs what is kept, as a caller does, and has the thin segments chosen; what was found.
fn weigh(world: &mut World) -> Vec<Found> {
    let found: Vec<Found> = world.kept.iter().filter(|kept| world.log.is_leaving(kept.0)).cloned().collect();
    for (position, _, record) in &found {
        world.log.weigh(*position, record.borrow().encoded_bytes() as u32);
    }
    world.log.choose_thin();
    found
}

/// Weighs what is kept and copies it; how many segments were given back.
fn leave(world: &mut World) -> u32 {
    let found = weigh(world);
    let leaving: Vec<&Found> = found.iter().filter(|found| world.log.is_leaving(found.0)).collect();
    let mut records: Vec<Owned> = leaving.iter().map(|found| found.2.clone()).collect();
    while !records.is_empty() {
        assert!(world.log.can_rewrite());
        let (arena, ops, placed) = world.assemble(&records);
        assert!(!placed.is_empty(), "no room for copies");
        world.perform(ops, &arena);
        placed.iter().for_each(|placed| world.log.live(placed.0));
        records.drain(..placed.len());
        world.kept.extend(placed);
    }
    leaving.iter().for_each(|found| kill(world, found.0));
    world.log.end_leaving(true)
}

#[test]
fn segments_of_single_small_commits_are_thin_and_their_records_outlive_them() {
    let mut world = World::new();
    let mut rounds = 0;
    for n in 1..200 {
        world.commit(&[account(n)]);
        if n > 5 && n % 10 != 0 {
            let p = world.kept.iter().find(|kept| kept.2 == account(n - 5)).map(|kept| kept.0);
            p.into_iter().for_each(|p| kill(&mut world, p));
        }
        if world.log.begin_leaving() {
            rounds += 1;
            assert!(leave(&mut world) >= 4, "a round pays");
        }
    }
    assert!((2..20).contains(&rounds), "{rounds} rounds");
    let kept: Vec<Owned> = world.kept.iter().map(|kept| kept.2.clone()).collect();
    assert!(kept.len() > 19, "{} records live", kept.len());
    world.restart(CONFIG);
    assert!(kept.iter().all(|record| world.kept.iter().any(|found| found.2 == *record)));
}

#[test]
fn what_is_not_thin_after_all_is_left_alone_until_much_more_of_it_died() {
    let mut world = World::new();
    // Each segment holds one large record that lives and small ones that died: thin by their number.
    let mut large = Vec::new();
    for n in 0..8 {
        let start = world.kept.len();
        world.commit(&[mail(n, 7000), mail(n, 7000)]);
        let small: Vec<Owned> = (0..40).map(|_| mail(n, 10)).collect();
        world.commit(&small);
        let placed: Vec<Position> = world.kept[start..].iter().map(|kept| kept.0).collect();
        assert!(placed.iter().all(|p| p.segment == placed[0].segment));
        large.extend(&placed[..2]);
        placed[2..].iter().for_each(|&p| kill(&mut world, p));
    }
    assert!(world.log.begin_leaving(), "they seem thin");
    assert_eq!(leave(&mut world), 0, "and are not");
    assert!(!world.log.begin_leaving(), "so nobody looks at them again");
    large.iter().step_by(2).for_each(|&p| kill(&mut world, p));
    assert!(world.log.begin_leaving(), "before half of what lived has died");
    assert!(leave(&mut world) >= 4);
}

/// Fills segments, each with two large records and forty small ones; where the large ones are.
fn fill(world: &mut World, segment_count: u64) -> Vec<Position> {
    let mut large = Vec::new();
    for n in 0..segment_count {
        let start = world.kept.len();
        world.commit(&[mail(n, 7000), mail(n, 7000)]);
        let small: Vec<Owned> = (0..40).map(|_| mail(n, 10)).collect();
        world.commit(&small);
        let placed: Vec<Position> = world.kept[start..].iter().map(|kept| kept.0).collect();
        assert!(placed.iter().all(|p| p.segment == placed[0].segment));
        large.extend(&placed[..2]);
    }
    large
}

#[test]
fn what_is_thin_only_by_weight_is_left_too() {
    let mut world = World::new();
    let large = fill(&mut world, 8);
    large.iter().for_each(|&p| kill(&mut world, p));
    assert!(world.log.begin_leaving(), "nearly all live by their number, an eighth by their bytes");
    assert_eq!(leave(&mut world), 7);
}

#[test]
fn what_was_sealed_during_a_round_is_not_left_unweighed() {
    let mut world = World::new();
    let weighed = fill(&mut world, 8);
    weighed.iter().for_each(|&p| kill(&mut world, p));
    assert!(world.log.begin_leaving());
    let before = world.kept.len();
    let large = fill(&mut world, 4);
    let placed: Vec<Position> = world.kept[before..].iter().map(|kept| kept.0).collect();
    placed.iter().filter(|p| !large.contains(p)).for_each(|&p| kill(&mut world, p));
    // By their number of records the new ones are the thinnest of all, and by weight they are dense.
    weigh(&mut world);
    assert!(weighed.iter().any(|&p| world.log.is_leaving(p)));
    assert!(!large.iter().any(|&p| world.log.is_leaving(p)));
}

#[test]
fn what_cannot_be_written_elsewhere_keeps_its_segment_whatever_dies_during_the_round() {
    let mut world = World::new();
    let large = fill(&mut world, 8);
    large.iter().for_each(|&p| kill(&mut world, p));
    assert!(world.log.begin_leaving());
    let there = |p: Position| p.segment == large[0].segment;
    let small: Vec<Position> = world.kept.iter().map(|kept| kept.0).filter(|&p| there(p)).collect();
    world.log.weigh(small[0], u32::MAX);
    small[1..].iter().for_each(|&p| kill(&mut world, p));
    weigh(&mut world);
    assert!(!world.log.is_leaving(small[0]), "it seems to be the thinnest of all");
    assert!(large[2..].iter().any(|&p| world.log.is_leaving(p)));
}

#[test]
fn what_was_dense_when_it_was_weighed_is_weighed_again_once_the_log_has_grown() {
    let mut world = World::new();
    let large = fill(&mut world, 8);
    let last_small = |large: &Position, world: &World| {
        let mut there = world.kept.iter().rev().map(|kept| kept.0);
        there.find(|p| p.segment == large.segment).expect("small ones are there")
    };
    for large in large.iter().step_by(2) {
        let small = last_small(large, &world);
        kill(&mut world, small);
    }
    assert!(world.log.begin_leaving(), "for all that is known it was a large one in each that died");
    assert_eq!(leave(&mut world), 0);
    large.iter().for_each(|&p| kill(&mut world, p));
    assert!(!world.log.begin_leaving(), "the log has not grown since then");
    fill(&mut world, 4);
    assert!(world.log.begin_leaving());
    assert_eq!(leave(&mut world), 8);
    assert!(!world.log.begin_leaving(), "the new ones are dense");
}

#[test]
fn a_full_log_that_is_thin_only_by_weight_gets_room_again() {
    let mut world = World::with(LogConfig { segment_count_max: 8, ..CONFIG });
    world.commit(&[Owned::Epoch(1)]);
    let small: Vec<Owned> = (0..40).map(|n| mail(n, 10)).collect();
    let (first, second) = (vec![mail(1, 7000)], vec![mail(2, 7000)]);
    for kind in [&first, &second, &small].into_iter().cycle() {
        if !world.log.can_commit() {
            break;
        }
        world.commit(kind);
    }
    assert!(world.log.is_full());
    assert!(!world.log.begin_leaving(), "all of it lives");
    let is_large = |kept: &&Found| kept.2.borrow().encoded_bytes() > 7000;
    let large: Vec<Position> = world.kept.iter().filter(is_large).map(|kept| kept.0).collect();
    large.iter().for_each(|&p| kill(&mut world, p));
    assert!(world.log.is_low() && world.log.begin_leaving());
    assert_eq!(leave(&mut world), 1);
    world.commit(&[mail(1, 10)]);
    assert!(world.log.has_room() && !world.log.is_full());
}

#[test]
fn what_was_written_in_larger_commits_can_be_written_again() {
    let mut world = World::new();
    world.commit(&[mail(1, 7000)]);
    let report = world.restart(LogConfig { commit_bytes_max: 4000, ..CONFIG });
    assert!(report.rot.is_empty());
    world.commit(&[mail(1, 7000)]);
}

#[test]
fn the_last_spare_is_for_copies_and_gives_back_room_for_all() {
    let mut world = World::with(LogConfig { segment_count_max: 6, ..CONFIG });
    world.commit(&[mail(1, 10)]);
    let mut n = 0;
    while world.log.can_commit() {
        n += 1;
        // Together they need more than what is left of the open segment.
        world.commit(&[Owned::Account(1 << 48 | n, vec![7; 1000])]);
    }
    assert!(world.log.is_full() && world.log.is_low() && world.log.can_rewrite());
    let kept: Vec<Owned> = world.kept.iter().map(|kept| kept.2.clone()).collect();
    assert!(world.log.begin_leaving(), "while space is short one segment is enough");
    assert_eq!(leave(&mut world), 1);
    world.commit(&[mail(1, 10)]);
    assert!(world.log.has_room() && !world.log.is_full());
    let report = world.restart(LogConfig { segment_count_max: 6, ..CONFIG });
    assert!(report.rot.is_empty());
    assert!(kept.iter().all(|record| world.kept.iter().any(|found| found.2 == *record)));
}

#[test]
fn a_record_of_many_removed_accounts_is_read_back() {
    let mut world = World::new();
    world.commit(&[Owned::GoneRange(1 << 48 | 3, 1 << 48 | 900), Owned::Gone(1 << 48 | 902)]);
    let kept = world.kept.clone();
    world.restart(CONFIG);
    assert_eq!(world.kept, kept);
}
