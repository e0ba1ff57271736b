//! Damage in what was durable.

use super::super::commit::COMMIT_HEADER_BYTES;
use super::*;
use std::format;

fn small_world() -> World {
    let mut world = World::new();
    world.commit(&[mail(1, 100), mail(2, 100), Owned::Epoch(1)]);
    world.commit(&[mail(3, 100), mail(4, 100), mail(5, 100)]);
    world.commit(&[mail(6, 100), Owned::Epoch(2)]);
    world
}

#[test]
fn any_flipped_byte_in_an_earlier_commit_is_told_and_the_rest_served() {
    let world = small_world();
    let kept = world.kept.clone();
    let hurt = &kept[3..6];
    let start = commit_of(&hurt[0]);
    let record_bytes = mail(3, 100).borrow().encoded_bytes();
    let end = start.1 as usize + COMMIT_HEADER_BYTES + 3 * record_bytes;
    for at in start.1 as usize..end {
        let mut disk = world.disk.clone();
        disk.files.get_mut(&start.0.0).unwrap()[at] ^= 0x5a;
        let (_, report, found) = disk.recover(CONFIG);
        assert_eq!((&report.rot[..], report.torn.len()), (&[start][..], 0), "byte {at}");
        let missing: Vec<_> = kept.iter().filter(|k| !found.contains(k)).collect();
        let inside = (at - start.1 as usize).checked_sub(COMMIT_HEADER_BYTES);
        match inside.map(|inside| (inside / record_bytes, inside % record_bytes)) {
            None => assert!(missing.is_empty(), "the header alone was hurt, at {at}"),
            // A length that rotted may take the records after it along.
            Some((record, 4..8)) => assert!(missing.iter().all(|m| hurt[record..].contains(m)), "byte {at}"),
            Some((record, _)) => assert_eq!(missing, [&hurt[record]], "byte {at}"),
        }
        assert!(found.iter().all(|f| kept.contains(f)), "nothing that never was");
    }
}

#[test]
fn a_record_of_a_larger_commit_outlives_the_header_of_that() {
    let mut world = World::new();
    world.commit(&[mail(1, 7000), Owned::Epoch(1)]);
    world.commit(&[mail(2, 100)]);
    let kept = world.kept.clone();
    let (place, p) = (commit_of(&kept[0]), kept[0].0);
    world.file(p)[place.1 as usize] ^= 1;
    let report = world.restart(LogConfig { commit_bytes_max: 4000, ..CONFIG });
    assert_eq!((report.rot, report.torn), (vec![place], vec![]));
    assert_eq!(world.kept, kept, "nothing larger than commits are now was read before it");
}

#[test]
fn a_lost_block_is_rot_and_later_commits_are_served() {
    let mut world = small_world();
    let kept = world.kept.clone();
    let (segment, offset) = commit_of(&kept[3]);
    world.disk.files.get_mut(&segment.0).unwrap()[offset as usize..][..BLOCK].fill(0);
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![(segment, offset)], vec![]));
    assert_eq!(world.kept, [&kept[..3], &kept[6..]].concat());
    // The log goes on, and the damage stays known.
    world.commit(&[mail(7, 100), Owned::Epoch(3)]);
    let kept = world.kept.clone();
    assert_eq!(world.restart(CONFIG).rot, [(segment, offset)]);
    assert_eq!(world.kept, kept);
}

/// Of ten records in a commit of two blocks, those that begin in the second are served without the first.
#[test]
fn a_commit_that_has_lost_its_first_block_keeps_the_records_in_its_others() {
    let mut world = World::new();
    // One block, two and two fill a segment.
    world.commit(&[mail(99, 100)]);
    for n in 0..3 {
        let group: Vec<_> = (0..10).map(|k| mail(10 * n + k, 600)).collect();
        world.commit(&group);
    }
    world.commit(&[Owned::Epoch(1)]);
    let kept = world.kept.clone();
    // In the middle of its segment, the last in a sealed one, and the last of its head.
    for first in [1, 11, 21] {
        let (segment, at) = commit_of(&kept[first]);
        for fill in [0, 0x77] {
            let mut disk = world.disk.clone();
            disk.files.get_mut(&segment.0).unwrap()[at as usize..][..BLOCK].fill(fill);
            let (_, report, found) = disk.recover(CONFIG);
            assert_eq!((report.rot, report.torn), (vec![(segment, at)], vec![]), "record {first}");
            let is_lost = |p: Position| p.segment == segment && (at..at + BLOCK_BYTES).contains(&p.offset);
            let expected: Vec<_> = kept.iter().filter(|k| !is_lost(k.0)).cloned().collect();
            assert!(kept.len() - 7 <= expected.len() && expected.len() < kept.len());
            assert_eq!(found, expected, "record {first}");
        }
    }
    assert_eq!(kept[1].0.segment, kept[11].0.segment);
    assert_ne!(kept[11].0.segment, kept[21].0.segment);
}

/// The drive has put the second block of one commit where that of the next belongs: its records are not found twice.
#[test]
fn records_of_another_commit_are_not_believed_behind_a_sound_header() {
    let mut world = World::new();
    for n in 0..2 {
        let group: Vec<_> = (0..10).map(|k| mail(10 * n + k, 600)).collect();
        world.commit(&group);
    }
    world.commit(&[mail(30, 100)]);
    let kept = world.kept.clone();
    let ((segment, first), (_, second)) = (commit_of(&kept[0]), commit_of(&kept[10]));
    let file = world.disk.files.get_mut(&segment.0).unwrap();
    file.copy_within(first as usize + BLOCK..first as usize + 2 * BLOCK, second as usize + BLOCK);
    let (_, report, found) = world.disk.recover(CONFIG);
    assert_eq!(report.rot, [(segment, second)]);
    assert!(found.len() < kept.len());
    assert!(found.iter().all(|f| kept.contains(f)), "nothing is somewhere else");
}

/// Hurts the last commit of the mail head, after which the tables head had one more. `tables_first` has the tables'
/// segment read before the mail's, so that its end is known when it comes.
fn rot_before_a_tables_commit(tables_first: bool, lost: bool) {
    let mut world = World::new();
    let mut both = [Owned::Epoch(1), mail(1, 100)];
    if !tables_first {
        both.reverse();
    }
    world.commit(&both);
    world.commit(&[mail(2, 100), mail(3, 100)]);
    world.commit(&[Owned::Epoch(2)]);
    let kept = world.kept.clone();
    let place = commit_of(&kept[2]);
    let file = world.disk.files.get_mut(&place.0.0).unwrap();
    if lost {
        file[place.1 as usize..][..BLOCK].fill(0);
    } else {
        file[kept[3].0.offset as usize + 50] ^= 1;
    }
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![place], vec![]));
    let gone = if lost { 2..4 } else { 3..4 };
    assert_eq!(world.kept, [&kept[..gone.start], &kept[gone.end..]].concat());
    // The damaged block is not written over, and stays known.
    world.commit(&[mail(9, 100)]);
    assert_ne!(commit_of(world.kept.last().unwrap()), place);
    world.commit(&[Owned::Epoch(3)]);
    let kept = world.kept.clone();
    assert_eq!(world.restart(CONFIG).rot, [place]);
    assert_eq!(world.kept, kept);
}

#[test]
fn rot_in_a_heads_last_commit_is_known_by_the_other_head() {
    for tables_first in [true, false] {
        for lost in [true, false] {
            rot_before_a_tables_commit(tables_first, lost);
        }
    }
}

#[test]
fn a_restart_without_an_open_segment_still_tells_rot_from_torn() {
    let mut world = World::new();
    // The mail head rolls once, and then its tail is torn, so that it has no open segment after the restart.
    for n in 1..4 {
        world.commit(&[mail(n, 7000)]);
    }
    let old = world.kept[1].clone();
    let (arena, ops, placed) = world.assemble(&[mail(4, 7000)]);
    world.disk.apply(&ops[0], &arena, BLOCK);
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![commit_of(&placed[0])]));
    // The newer mail segment goes. The commits behind it then have a part in the tables head only, and are the only ones
    // that say how far the mail head had come.
    let newer = world.kept.pop().unwrap();
    world.log.dead(newer.0);
    world.commit(&[Owned::Epoch(1)]);
    world.commit(&[Owned::Epoch(2)]);
    assert_eq!(Recovery::generation(world.file(newer.0)), None);
    assert_ne!(old.0.segment, placed[0].0.segment);
    world.file(old.0)[old.0.offset as usize + 99] ^= 1;
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![commit_of(&old)], vec![]));
}

#[test]
fn rot_at_the_end_of_a_sealed_segment_is_told() {
    let mut world = World::new();
    for n in 1..8 {
        world.commit(&[mail(n, 7000)]);
    }
    let kept = world.kept.clone();
    let last_of_first = kept.iter().rposition(|k| k.0.segment == kept[0].0.segment).unwrap();
    let place = commit_of(&kept[last_of_first]);
    let p = kept[last_of_first].0;
    world.file(p)[p.offset as usize + 3000] ^= 8;
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![place], vec![]));
    assert_eq!(world.kept.len(), kept.len() - 1);
}

#[test]
fn rot_in_the_very_last_commit_is_cut_like_a_torn_tail() {
    let mut world = World::new();
    world.commit(&[mail(1, 100), Owned::Epoch(1)]);
    world.commit(&[mail(2, 100)]);
    let last = world.kept[2].clone();
    world.file(last.0)[last.0.offset as usize + 30] ^= 1;
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![commit_of(&last)]));
    assert_eq!(world.kept.len(), 2);
}

#[test]
fn a_rotten_segment_header_is_given_back_by_the_first_commit() {
    let mut world = small_world();
    let kept = world.kept.clone();
    let p = kept[0].0;
    for at in [0, 9, 16, 24, 37] {
        let mut disk = world.disk.clone();
        disk.files.get_mut(&p.segment.0).unwrap()[at] ^= 0xff;
        let (_, report, found) = disk.recover(CONFIG);
        assert_eq!(report.rot, [(p.segment, 0)], "byte {at}");
        assert_eq!(found, kept, "byte {at}");
    }
    // Nothing left of it: reported, and left alone.
    world.file(p)[..BLOCK].fill(0xee);
    let report = world.restart(CONFIG);
    assert_eq!(report.rot, [(p.segment, 0)]);
    for n in 10..30 {
        world.commit(&[mail(n, 5000)]);
        assert_ne!(world.kept.last().unwrap().0.segment, p.segment);
    }
}

/// Zeros are what a lost sector reads as, and what a file that was never used holds. Behind these are commits, which are later
/// than the one of the mail, or before it.
#[test]
fn a_header_that_reads_as_zeros_is_rot_and_not_a_free_file() {
    let mut world = small_world();
    let small = world.disk.clone();
    world.commit(&[Owned::Epoch(3)]);
    let kept = world.kept.clone();
    let (mail, tables) = (kept[0].0, kept[2].0);
    for (place, is_tables) in [(mail, false), (tables, true)] {
        for lost in [0..BLOCK, 0..512, 0..48, 0..1, 43..44] {
            let mut disk = world.disk.clone();
            disk.files.get_mut(&place.segment.0).unwrap()[lost.clone()].fill(0);
            let (_, report, found) = disk.recover(CONFIG);
            assert_eq!((report.rot, report.torn), (vec![(place.segment, 0)], vec![]), "{lost:?}");
            assert_eq!((report.has_rot_in_tables, found), (is_tables, kept.clone()), "{lost:?}");
        }
    }
    // Nothing is written there as long as something of it lives.
    world.disk = small;
    world.file(mail)[..BLOCK].fill(0);
    let kept = world.kept[..kept.len() - 1].to_vec();
    assert_eq!(world.restart(CONFIG).rot, [(mail.segment, 0)]);
    assert_eq!(world.kept, kept);
    (10..30).for_each(|n| world.commit(&[super::mail(n, 5000), Owned::Epoch(n as u32)]));
    assert!(world.kept[kept.len()..].iter().all(|new| new.0.segment != mail.segment));
    let kept = world.kept.clone();
    assert_eq!(
        world.restart(CONFIG).rot,
        [(mail.segment, 0)],
        "also when it is read before all that is newer"
    );
    assert_eq!(world.kept, kept);
}

#[test]
fn a_file_that_has_lost_its_header_and_one_commit_is_known_by_what_is_newer() {
    let mut world = World::new();
    world.commit(&[mail(1, 100)]);
    world.commit(&[Owned::Epoch(1)]);
    let kept = world.kept.clone();
    let p = kept[0].0;
    world.file(p)[..BLOCK].fill(0);
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![(p.segment, 0)], vec![]));
    assert_eq!(world.kept, kept);
}

/// What is newer is in the same file, and the drive does not give it: it was no torn tail.
#[test]
fn a_file_that_has_lost_its_header_is_not_made_anew_while_something_in_it_cannot_be_read() {
    let mut world = World::new();
    world.commit(&[Owned::Epoch(1)]);
    world.commit(&[mail(1, 100)]);
    world.commit(&[mail(2, 100)]);
    let kept = world.kept.clone();
    let (p, unread) = (kept[1].0, commit_of(&kept[2]).1 as usize);
    world.file(p)[..BLOCK].fill(0);
    let (log, report, found) = recover_without(&world.disk, (p.segment.0, &[unread]));
    assert_eq!((report.rot, report.torn), (vec![(p.segment, 0), commit_of(&kept[2])], vec![]));
    assert!(report.is_hiding && log.cuts.is_empty());
    assert_eq!(found, kept[..2]);
}

/// The first commit went with the header: what is left is not served, for nobody says whose it is, but not written over.
#[test]
fn a_file_that_has_lost_its_header_and_its_first_commit_is_left_alone() {
    let mut world = small_world();
    let p = world.kept[0].0;
    world.file(p)[..2 * BLOCK].fill(0);
    assert_eq!(world.restart(CONFIG).rot, [(p.segment, 0)]);
    let before = world.file(p).clone();
    for n in 10..30 {
        world.commit(&[mail(n, 5000)]);
        assert_ne!(world.kept.last().unwrap().0.segment, p.segment);
    }
    assert_eq!(*world.file(p), before);
}

#[test]
fn the_mark_of_a_free_file_outlives_any_byte_of_it() {
    let mut world = World::new();
    (1..6).for_each(|n| world.commit(&[mail(n, 7000)]));
    world.commit(&[Owned::Epoch(1)]);
    let freed = world.kept[0].0.segment;
    world.kept.iter().filter(|k| k.0.segment == freed).for_each(|k| world.log.dead(k.0));
    world.kept.retain(|k| k.0.segment != freed);
    world.commit(&[Owned::Epoch(2)]);
    for at in 0..512 {
        let mut disk = world.disk.clone();
        disk.files.get_mut(&freed.0).unwrap()[at] ^= 0xff;
        let (_, report, found) = disk.recover(CONFIG);
        assert_eq!((report.rot, report.torn), (vec![], vec![]), "byte {at}");
        assert_eq!(found, world.kept, "byte {at}");
    }
}

#[test]
fn a_forged_commit_inside_a_body_is_not_believed() {
    let mut world = World::new();
    world.commit(&[mail(1, 100), Owned::Epoch(1)]);
    // A client sends what it saw in some other log: a whole segment, aligned to the block.
    let stolen = {
        let mut other = World::with(LogConfig { salt_seed: 1, ..CONFIG });
        other.commit(&[mail(66, 100)]);
        let p = other.kept[0].0;
        other.file(p)[BLOCK..2 * BLOCK].to_vec()
    };
    let before_body = COMMIT_HEADER_BYTES + mail(0, 0).borrow().encoded_bytes();
    let mut body = vec![1; BLOCK - before_body];
    body.extend_from_slice(&stolen[..3000]);
    world.commit(&[Owned::Mail(1, 2, body)]);
    world.commit(&[mail(3, 100)]);
    let kept = world.kept.clone();
    let p = kept[2].0;
    world.file(p)[p.offset as usize] ^= 1;
    let report = world.restart(CONFIG);
    assert_eq!(report.rot, [commit_of(&kept[2])]);
    assert_eq!(world.kept, [&kept[..2], &kept[3..]].concat());
}

/// Reads a disk of which the drive does not give some blocks of one file.
fn recover_without(disk: &Disk, (hurt, blocks): (u32, &[usize])) -> (Log, RecoveryReport, Vec<Found>) {
    let mut disk = disk.clone();
    let file = disk.files.get_mut(&hurt).unwrap();
    blocks.iter().for_each(|&block| file[block..][..BLOCK].fill(UNREADABLE));
    let blocks: Vec<u32> = blocks.iter().map(|&block| block as u32).collect();
    let mut order: Vec<_> = disk.files.iter().collect();
    order.sort_by_key(|(_, bytes)| Recovery::generation(&bytes[..BLOCK]));
    let (mut recovery, mut found) = (Recovery::new(CONFIG), Vec::new());
    for (&segment, bytes) in order {
        let unreadable: &[u32] = if segment == hurt { &blocks } else { &[] };
        let mut sink = |p: Position, lsn: u64, r: Record<'_>| found.push((p, lsn, Owned::of(r)));
        recovery.damaged_segment(SegmentId(segment), bytes, unreadable, &mut sink).unwrap();
    }
    let (log, report) = recovery.finish();
    found.sort_by_key(|&(_, lsn, _)| lsn);
    (log, report, found)
}

/// Whichever block cannot be read: the rest is served, the log goes on and writes nothing there, and when the block can be
/// read again nothing is missing, old or new.
#[test]
fn a_block_that_cannot_be_read_is_rot_and_is_there_again_when_it_can_be_read() {
    let mut world = small_world();
    // Its last commit has two blocks.
    world.commit(&[mail(7, 7000)]);
    let kept = world.kept.clone();
    let used: Vec<u32> = kept.iter().map(|(p, ..)| p.segment.0).collect();
    let tables = kept.iter().find(|found| matches!(found.2, Owned::Epoch(_))).unwrap().0.segment.0;
    for file in world.disk.files.keys().copied().collect::<Vec<_>>() {
        for block in (0..world.disk.files[&file].len()).step_by(BLOCK) {
            let place = format!("block at {block} of file {file}");
            let (log, report, found) = recover_without(&world.disk, (file, &[block]));
            assert!(report.torn.is_empty(), "{place}: {report:?}");
            let is_free = !used.contains(&file);
            // What is not in use tells nothing, and of a file without a header nobody knows what it told.
            let may_be_tables = !is_free && (block == 0 || file == tables);
            assert_eq!(report.has_rot_in_tables, may_be_tables, "{place}");
            assert_eq!(report.rot.len(), 1, "{place}: {report:?}");
            let is_mail = !is_free && file != tables && block > 0;
            let unread = is_mail.then_some((SegmentId(file), block as u32, (block + BLOCK) as u32));
            assert_eq!(report.unread, unread.as_slice(), "{place}");
            assert!(found.iter().all(|f| kept.contains(f)), "nothing that never was");
            // A commit is lost that has a block there, or the file with its header.
            let lost = |p: &Position| p.segment.0 == file && !is_free;
            let missing = kept.iter().filter(|k| !found.contains(k));
            assert!(missing.clone().all(|(p, ..)| lost(p)), "{place}");
            assert!(block == 0 || missing.count() <= 3, "{place}");
            let mut after = World { log, disk: world.disk.clone(), kept: found };
            for (position, ..) in after.kept.clone() {
                after.log.live(position);
            }
            after.log.recovered_done();
            after.want_spares();
            let before = after.disk.files[&file].clone();
            after.commit(&[mail(8, 100), Owned::Epoch(3)]);
            let new = after.kept[after.kept.len() - 2..].to_vec();
            assert!(is_free || after.disk.files[&file] == before, "{place}: nothing is written there");
            let (_, report, found) = after.disk.recover(CONFIG);
            assert_eq!((report.rot, report.torn), (vec![], vec![]), "{place}");
            assert!(kept.iter().chain(&new).all(|k| found.contains(k)), "{place}");
            assert!(is_free || found.len() == kept.len() + new.len(), "{place}");
            let newest = found.iter().map(|&(_, lsn, _)| lsn).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(newest.len(), found.len(), "{place}: no number is given twice");
        }
    }
}

/// Nothing behind them proves that there were commits: each may have begun one.
#[test]
fn behind_each_block_that_cannot_be_read_at_the_end_what_holds_is_served() {
    let mut world = World::new();
    world.commit(&[mail(1, 4000), mail(2, 100)]);
    world.commit(&[mail(3, 4000), mail(4, 100)]);
    let kept = world.kept.clone();
    let file = kept[0].0.segment.0;
    let (_, report, found) = recover_without(&world.disk, (file, &[BLOCK, 3 * BLOCK]));
    assert_eq!(found, [kept[1].clone(), kept[3].clone()]);
    let blocks = [1, 3].map(|n| (SegmentId(file), (n * BLOCK) as u32, ((n + 1) * BLOCK) as u32));
    assert_eq!((&report.unread[..], report.torn.len()), (&blocks[..], 0));
}

/// The first commit behind what could not be read has numbers far from all others. It loses its first block.
#[test]
fn the_first_commit_behind_what_is_hidden_is_served_where_it_holds() {
    let mut world = small_world();
    let kept = world.kept.clone();
    let (segment, at) = commit_of(&kept[6]);
    let (log, ..) = recover_without(&world.disk, (segment.0, &[at as usize]));
    world.log = log;
    kept.iter().for_each(|(position, ..)| world.log.live(*position));
    world.log.recovered_done();
    world.want_spares();
    let group: Vec<_> = (10..20).map(|n| mail(n, 600)).collect();
    world.commit(&group);
    // Nothing that is read before it has such numbers.
    world.commit(&[mail(30, 100)]);
    let all = world.kept.clone();
    let (segment, at) = commit_of(&all[kept.len()]);
    assert!(all[kept.len()].1 > 1 << 32, "it is far behind");
    world.disk.files.get_mut(&segment.0).unwrap()[at as usize..][..BLOCK].fill(0);
    let (_, report, found) = world.disk.recover(CONFIG);
    assert_eq!(report.rot, [(segment, at)]);
    let is_lost = |p: Position| p.segment == segment && (at..at + BLOCK_BYTES).contains(&p.offset);
    let expected: Vec<_> = all.iter().filter(|k| !is_lost(k.0)).cloned().collect();
    assert!(expected.len() > kept.len() + 1);
    assert_eq!(found, expected);
}

/// The oldest mail cannot be read for a while. The floors that cover it are in the next segment, with nothing else.
#[test]
fn floors_stay_for_mail_that_may_come_back() {
    let mut world = World::new();
    while world.kept.last().is_none_or(|last| last.0.segment == world.kept[0].0.segment) {
        let n = world.kept.len() as u64 + 1;
        world.commit(&[mail(n, 7000)]);
    }
    let hidden = world.kept[0].0.segment;
    world.commit(&[Owned::Floor(1 << 48 | 1, 1, 1)]);
    let floor = world.kept.last().unwrap().0;
    while world.kept.last().unwrap().0.segment == floor.segment {
        world.commit(&[mail(99, 7000)]);
    }
    world.commit(&[Owned::Epoch(1)]);
    let (log, report, found) = recover_without(&world.disk, (hidden.0, &[0]));
    assert_eq!(report.rot, [(hidden, 0)]);
    (world.log, world.kept) = (log, found.clone());
    world.log.floor_live(floor);
    found.iter().filter(|k| k.0.segment != floor.segment).for_each(|k| world.log.live(k.0));
    world.log.recovered_done();
    assert!(!world.log.usage.is_oldest_mail(floor.segment), "what is thin is left with its floors");
    world.want_spares();
    (2..5).for_each(|epoch| world.commit(&[Owned::Epoch(epoch)]));
    let (_, report, found) = world.disk.recover(CONFIG);
    assert_eq!(report.rot, []);
    assert!(found.iter().any(|k| k.0 == floor), "the mail is there again, and its floor");
    assert!(found.iter().any(|k| k.0.segment == hidden));
}

/// No mail is written in front of mail that its floors speak of: what is older is freed before it.
#[test]
fn mail_does_not_go_on_in_an_older_segment_than_one_that_is_closed() {
    let mut world = World::new();
    while world.kept.last().is_none_or(|last| last.0.segment == world.kept[0].0.segment) {
        let n = world.kept.len() as u64 + 1;
        world.commit(&[mail(n, 7000)]);
    }
    let (older, newer) = (world.kept[0].0.segment, world.kept.last().unwrap().0.segment);
    // Each of these commits has two blocks, and so the older one has room for one.
    let mut recovery = Recovery::new(CONFIG);
    for file in [older, newer] {
        recovery.segment(file, &world.disk.files[&file.0], &mut |_, _, _| {}).unwrap();
    }
    recovery.close([newer].into_iter());
    (world.log, _) = recovery.finish();
    world.kept.iter().for_each(|(position, ..)| world.log.live(*position));
    world.log.recovered_done();
    world.want_spares();
    world.commit(&[Owned::Floor(1 << 48 | 1, 1, 1)]);
    let floor = world.kept.last().unwrap().0.segment;
    assert!(floor != older && floor != newer);
}
