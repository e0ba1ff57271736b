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

/// Weighs what is kept and copies it, as a caller does; how many segments were given back.
fn leave(world: &mut World) -> u32 {
    let found: Vec<Found> = world.kept.iter().filter(|kept| world.log.is_leaving(kept.0)).cloned().collect();
    for (position, _, record) in &found {
        world.log.weigh(*position, record.borrow().encoded_bytes() as u32);
    }
    world.log.drop_dense();
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
