//! Stops in the middle of a commit.

use super::*;
use proptest::prelude::*;

/// Stops with only the first `limits` bytes of each write on the disk; what was committed is there, the commit in
/// flight whole or not at all in each head, and the log goes on from there.
fn crash_and_go_on(world: &mut World, limits: [usize; 3], ops: &[DiskOp], arena: &[u8], placed: &[Found]) {
    for (op, limit) in ops.iter().zip(limits) {
        world.disk.apply(op, arena, limit);
    }
    let before = world.kept.clone();
    let report = world.restart(CONFIG);
    assert_eq!(report.rot, [], "a torn tail is not rot: {limits:?}");
    for kept in &before {
        assert!(world.kept.contains(kept), "a committed record is gone: {limits:?}");
    }
    let extra: Vec<_> = world.kept.iter().filter(|f| placed.contains(f)).cloned().collect();
    for head in [Head::Mail, Head::Tables] {
        let of_head = |f: &&Found| f.2.borrow().head() == head;
        let count = extra.iter().filter(of_head).count();
        assert!(count == 0 || count == placed.iter().filter(of_head).count(), "half a commit: {limits:?}");
    }
    // A second stop before anything is written finds the same.
    let (_, again, found) = world.disk.recover(CONFIG);
    assert_eq!((&again, &found), (&report, &world.kept));

    // As each start does: without its epoch there may be no room for more.
    world.commit(&[Owned::Epoch(100), mail(100, 300)]);
    let kept = world.kept.clone();
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![]), "the cut is on the disk: {limits:?}");
    assert_eq!(world.kept, kept);
}

fn fork(world: &World) -> World {
    let mut fork = World { log: Recovery::new(CONFIG).finish().0, disk: world.disk.clone(), kept: vec![] };
    fork.restart(CONFIG);
    fork
}

/// Tears the mail part of a commit at every byte, on a disk that `prepare` made.
fn tear_everywhere(world: &World, records: &[Owned]) {
    let write_bytes = {
        let mut probe = fork(world);
        let (_, ops, _) = probe.assemble(records);
        let DiskOp::Write { data, .. } = &ops[0] else { panic!("a write") };
        data.len()
    };
    for limit in 0..=write_bytes {
        // Padding is not worth every byte.
        if limit % BLOCK > 700 && limit % 61 != 0 {
            continue;
        }
        for tables in [0, usize::MAX] {
            let mut world = fork(world);
            let (arena, ops, placed) = world.assemble(records);
            crash_and_go_on(&mut world, [limit, tables, 0], &ops, &arena, &placed);
        }
    }
}

const GROUP: fn() -> Vec<Owned> =
    || vec![mail(50, 300), Owned::Epoch(9), mail(51, 4200), Owned::Floor(5, 1, 6)];

#[test]
fn torn_at_every_byte_in_a_fresh_segment() {
    let world = World::new();
    tear_everywhere(&world, &GROUP());
}

#[test]
fn torn_at_every_byte_after_other_commits() {
    let mut world = World::new();
    world.commit(&[mail(1, 300), Owned::Epoch(1)]);
    world.commit(&[mail(2, 300)]);
    for n in 3..6 {
        world.commit(&[Owned::Epoch(n)]);
    }
    tear_everywhere(&world, &GROUP());
}

#[test]
fn torn_at_every_byte_over_what_an_earlier_use_left() {
    let mut world = World::new();
    for n in 0..8 {
        world.commit(&[mail(n, 3500), mail(n, 3500)]);
    }
    let dead: Vec<_> = world.kept.drain(..).collect();
    for (position, ..) in dead {
        world.log.dead(position);
    }
    // Once for each freed segment, which is marked, and then into one of them.
    for n in 20..34 {
        world.commit(&[mail(n, 3500)]);
        world.log.dead(world.kept.pop().unwrap().0);
    }
    world.commit(&[mail(40, 300)]);
    let alive = world.kept.clone();
    world.kept.clear();
    let world = fork(&world);
    assert!(world.kept.contains(&alive[0]));
    tear_everywhere(&world, &GROUP());
}

#[test]
fn a_torn_tail_stays_one_whatever_crashes_come_before_it_is_cut_off() {
    let mut world = World::new();
    world.commit(&[mail(1, 300), Owned::Epoch(1)]);
    world.commit(&[Owned::Epoch(2)]);
    let (arena, ops, placed) = world.assemble(&[Owned::Epoch(3)]);
    world.disk.apply(&ops[0], &arena, usize::MAX);
    let place = commit_of(&placed[0]);
    world.file(placed[0].0)[place.1 as usize + 8] ^= 1;
    assert_eq!(world.restart(CONFIG).torn, [place]);
    for n in 4..7 {
        // All that is begun gets to the drive, but for the cut.
        let (arena, ops, _) = world.assemble(&[Owned::Epoch(n)]);
        let is_cut =
            |op: &DiskOp| matches!(op, DiskOp::Write { segment, offset, .. } if (*segment, *offset) == place);
        assert_eq!(ops.iter().filter(|op| is_cut(op)).count(), 1);
        ops.iter().filter(|op| !is_cut(op)).for_each(|op| world.disk.apply(op, &arena, usize::MAX));
        let report = world.restart(CONFIG);
        assert_eq!((report.rot, report.torn), (vec![], vec![place]), "before crash {n}");
    }
    world.commit(&[Owned::Epoch(7)]);
    let kept = world.kept.clone();
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![]));
    assert_eq!(world.kept, kept);
}

/// A drive may write the sectors of one write in any order: the first commit of a segment is there, and its header is not.
#[test]
fn a_first_commit_without_its_header_goes_like_a_torn_tail() {
    for tables_too in [true, false] {
        let mut world = World::new();
        world.commit(&[Owned::Epoch(1)]);
        let mut records = vec![mail(1, 300)];
        records.extend(tables_too.then_some(Owned::Epoch(2)));
        let (arena, ops, placed) = world.assemble(&records);
        ops.iter().for_each(|op| world.disk.apply(op, &arena, usize::MAX));
        let file = placed[0].0.segment;
        world.file(placed[0].0)[..BLOCK].fill(0);
        let torn = vec![(file, BLOCK_BYTES)];
        for _ in 0..2 {
            let report = world.restart(CONFIG);
            assert_eq!((report.rot, report.torn), (vec![], torn.clone()));
            assert!(!world.kept.contains(&placed[0]));
        }
        // It stays unused for a while, and is no damage then.
        (3..6).for_each(|n| world.commit(&[Owned::Epoch(n)]));
        let kept = world.kept.clone();
        let report = world.restart(CONFIG);
        assert_eq!((report.rot, report.torn), (vec![], vec![]));
        assert_eq!(world.kept, kept);
        (10..14).for_each(|n| world.commit(&[mail(n, 7000)]));
        assert!(world.kept.iter().any(|k| k.0.segment == file), "it is used");
    }
}

/// The cut alone gets to the drive: the head goes on in place, over the first of the blocks that the torn commit had. What is
/// left of that has sound records, and none of them comes back when what was written there rots.
#[test]
fn a_crash_right_after_the_cut_leaves_nothing_that_comes_back() {
    for last_in_its_head in [true, false] {
        let mut world = World::new();
        world.commit(&[mail(1, 300), Owned::Epoch(1)]);
        let group: Vec<_> = (50..65).map(|n| mail(n, 600)).collect();
        let (arena, ops, placed) = world.assemble(&group);
        world.disk.apply(&ops[0], &arena, usize::MAX);
        let place = commit_of(&placed[0]);
        world.file(placed[0].0)[placed[0].0.offset as usize + 40] ^= 1;
        assert_eq!(world.restart(CONFIG).torn, [place]);
        let (arena, ops, placed) = world.assemble(&[Owned::Epoch(2)]);
        assert_eq!((ops.len(), placed.len()), (1, 0), "the cut goes alone");
        world.disk.apply(&ops[0], &arena, usize::MAX);
        let report = world.restart(CONFIG);
        assert_eq!((report.rot, report.torn), (vec![], vec![]), "a clean end");
        world.commit(&[mail(2, 100)]);
        let short = world.kept.last().unwrap().clone();
        assert_eq!(commit_of(&short), place, "in place");
        if !last_in_its_head {
            world.commit(&[mail(3, 100)]);
        }
        world.commit(&[Owned::Epoch(3)]);
        world.file(short.0)[place.1 as usize..][..BLOCK].fill(0x77);
        let kept: Vec<_> = world.kept.iter().filter(|&k| *k != short).cloned().collect();
        let report = world.restart(CONFIG);
        assert_eq!((report.rot, report.torn), (vec![place], vec![]));
        assert_eq!(world.kept, kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_life_with_crashes(
        steps in proptest::collection::vec((1_usize..6, 0_usize..5000, 0_usize..20_000, 0_usize..20_000, 0..4), 1..25),
    ) {
        let mut world = World::new();
        let mut n = 0;
        for (count, bytes, first, second, what) in steps {
            let records: Vec<_> = (0..count).map(|k| {
                n += 1;
                if k % 3 == 2 { Owned::Account(n, vec![7; bytes]) } else { mail(n, bytes) }
            }).collect();
            match what {
                // Kill the oldest half.
                0 => {
                    let dead: Vec<_> = world.kept.drain(..world.kept.len() / 2).collect();
                    for (position, ..) in dead {
                        world.log.dead(position);
                    }
                    world.commit(&records);
                }
                1 => {
                    let (arena, ops, placed) = world.assemble(&records);
                    // What died may come back, as no floor says otherwise here; what lived must.
                    crash_and_go_on(&mut world, [first, second, 20_000], &ops, &arena, &placed);
                }
                _ => world.commit(&records),
            }
        }
    }
}
