//! What was committed is read back, whatever it is and however often the log stops in between.

use super::super::record::{RECORD_HEADER_BYTES, read_record};
use super::super::segment::Seal;
use super::*;
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6000);
    prop_oneof![
        6 => (any::<u64>(), any::<u64>(), bytes()).prop_map(|(m, s, e)| Owned::Mail(m, s, e)),
        2 => (any::<u64>(), any::<u16>(), any::<u64>()).prop_map(|(m, d, s)| Owned::Floor(m, d, s)),
        1 => any::<u32>().prop_map(Owned::Epoch),
        2 => (any::<u64>(), bytes()).prop_map(|(a, p)| Owned::Account(a, p)),
        1 => any::<u64>().prop_map(Owned::Gone),
        1 => (any::<u32>(), 0..100_usize, 1..4_u32).prop_map(|(from_s, count, group_count)| {
            let mut groups = Vec::new();
            for n in 0..group_count {
                let from_s = from_s.wrapping_add(n);
                let hashes = &vec![from_s as u8; count / group_count as usize * 8][..];
                IdGroup { from_s, span_s: 300, hashes }.encode(&mut groups);
            }
            Owned::Ids(groups)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_committed_is_recovered(
        groups in proptest::collection::vec((proptest::collection::vec(record(), 1..8), any::<bool>()), 1..12),
    ) {
        let mut world = World::new();
        let mut all = Vec::new();
        for (records, stop) in groups {
            world.commit(&records);
            all.extend(records);
            if stop {
                let report = world.restart(CONFIG);
                prop_assert!(report.rot.is_empty() && report.torn.is_empty());
            }
        }
        let kept = world.kept.clone();
        let next = world.log.next_commit();
        let report = world.restart(CONFIG);
        prop_assert_eq!(&world.kept, &kept, "positions and numbers are those that were given");
        let found: Vec<_> = world.kept.iter().map(|f| f.2.clone()).collect();
        prop_assert_eq!(found, all);
        prop_assert_eq!(report.record_count, kept.len() as u64);
        prop_assert_eq!(world.log.next_commit(), next);
    }

    #[test]
    fn a_record_cut_anywhere_is_refused(record in record(), cut in any::<usize>(), commit: u64, lsn: u64) {
        let seal = Seal::new(3, 4);
        let mut bytes = Vec::new();
        record.borrow().encode(&seal, commit, lsn, &mut bytes);
        prop_assert_eq!(bytes.len(), record.borrow().encoded_bytes());
        let whole = read_record(&bytes, &seal).unwrap();
        prop_assert!(whole.valid && whole.lsn == lsn && whole.commit_low == commit as u32);
        prop_assert_eq!(Owned::of(whole.meaning().unwrap()), record);
        prop_assert!(!read_record(&bytes, &Seal::new(2, 4)).unwrap().valid);
        prop_assert!(!read_record(&bytes, &Seal::new(3, 5)).unwrap().valid);
        prop_assert!(read_record(&bytes[..cut % bytes.len()], &seal).is_none());
    }
}

#[test]
fn a_commit_may_have_a_part_in_each_head() {
    let mut world = World::new();
    let (arena, ops, placed) = world.assemble(&[mail(1, 10), Owned::Epoch(1), mail(2, 10), Owned::Gone(9)]);
    assert_eq!(ops.len(), 2);
    assert_ne!(placed[0].0.segment, placed[1].0.segment);
    // Durable only with both.
    world.disk.apply(&ops[0], &arena, usize::MAX);
    assert_eq!(world.log.disk_done(done(&ops[0]), &mut Vec::new()), None);
    assert!(!world.log.can_commit());
    world.disk.apply(&ops[1], &arena, usize::MAX);
    assert_eq!(world.log.disk_done(done(&ops[1]), &mut Vec::new()), Some(LogEvent::Committed(1)));
    assert!(world.log.can_commit());
    assert_eq!(world.disk.recover(CONFIG).2, placed);
}

#[test]
fn a_full_commit_leaves_the_rest_for_the_next() {
    let mut world = World::new();
    let records: Vec<_> = (1..30).map(|n| mail(n, 1000)).collect();
    let (_, ops, placed) = world.assemble(&records);
    assert_eq!(placed.len(), 7);
    let DiskOp::Write { data, .. } = &ops[0] else { panic!("a write") };
    // One block of header, as the segment is new, and the commit.
    assert_eq!(data.len(), BLOCK + 2 * BLOCK);
}

#[test]
#[should_panic(expected = "larger than a commit")]
fn a_record_that_never_fits_is_a_bug() {
    World::new().assemble(&[mail(1, 8000)]);
}

#[test]
fn a_dropped_commit_never_was() {
    let mut world = World::new();
    world.commit(&[mail(1, 100)]);
    let mut arena = vec![1, 2, 3];
    let mut commit = world.log.begin(&mut arena);
    commit.push(&mail(2, 5000).borrow()).unwrap();
    commit.push(&Owned::Epoch(3).borrow()).unwrap();
    drop(commit);
    assert_eq!(arena, [1, 2, 3]);
    world.commit(&[mail(3, 5000), Owned::Epoch(4)]);
    let kept = world.kept.clone();
    world.restart(CONFIG);
    assert_eq!(world.kept, kept);
}

#[test]
fn buffers_keep_their_size() {
    let mut world = World::new();
    let group = [mail(1, 3000), Owned::Account(1, vec![5; 2000])];
    world.commit(&group);
    let before = world.log.tables_buffer.capacity();
    for _ in 0..50 {
        world.commit(&group);
    }
    // A new segment's header block goes first in the same buffer.
    assert!(world.log.tables_buffer.capacity() <= before.max(2 * BLOCK));
}

#[test]
fn unknown_kinds_and_versions_are_refused() {
    for (at, value) in [(8, 200_u8), (9, 77)] {
        let mut world = World::new();
        world.commit(&[mail(1, 50), mail(2, 50), mail(3, 50)]);
        let Position { segment, offset } = world.kept[1].0;
        let file = world.disk.files.get_mut(&segment.0).unwrap();
        let start = offset as usize;
        let end = start + RECORD_HEADER_BYTES + 16 + 50;
        file[start + at] = value;
        let seal = world.log.heads[0].unwrap().seal;
        let crc = crc32c::crc32c_append(seal.seed, &file[start + 4..end]);
        file[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        let file = file.clone();
        let mut recovery = Recovery::new(CONFIG);
        let (kind, version) = if at == 8 { (200, 1) } else { (1, 77) };
        let refused = Err(RecoveryError::Record(kind, version));
        assert_eq!(recovery.segment(segment, &file, &mut |_, _, _| ()), refused);
    }
}

#[test]
fn what_is_not_of_this_stream_is_refused() {
    let mut world = World::new();
    world.commit(&[mail(1, 50), Owned::Epoch(1)]);
    let p = world.kept[0].0;
    let file = world.file(p).clone();
    let read = |config, file: &[u8]| Recovery::new(config).segment(SegmentId(0), file, &mut |_, _, _| ());
    assert_eq!(read(LogConfig { stream: 8, ..CONFIG }, &file), Err(RecoveryError::Stream(7)));

    let mut newer = file.clone();
    for (version, result) in
        [(0, Err(RecoveryError::Version(0))), (1, Ok(())), (2, Ok(())), (4, Err(RecoveryError::Version(4)))]
    {
        newer[8] = version;
        let crc = crc32c::crc32c(&newer[..36]);
        newer[36..40].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(CONFIG, &newer), result);
    }

    let mut cold = file.clone();
    cold[14] = 3;
    let crc = crc32c::crc32c(&cold[..36]);
    cold[36..40].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(CONFIG, &cold), Err(RecoveryError::Head(3)));

    let mut recovery = Recovery::new(CONFIG);
    recovery.segment(SegmentId(0), &file, &mut |_, _, _| ()).unwrap();
    assert_eq!(recovery.segment(SegmentId(1), &file, &mut |_, _, _| ()), Err(RecoveryError::Order));
}

#[test]
fn a_segment_of_an_older_format_is_read_and_not_written_on() {
    let mut world = World::new();
    world.commit(&[mail(1, 50), Owned::Epoch(1)]);
    for file in world.disk.files.values_mut().filter(|file| file.starts_with(b"TERNSEG1")) {
        file[8] = 1;
        let crc = crc32c::crc32c(&file[..36]);
        file[36..40].copy_from_slice(&crc.to_le_bytes());
    }
    world.restart(CONFIG);
    world.commit(&[mail(2, 50), Owned::Epoch(2)]);
    let kept = world.kept.clone();
    assert_eq!(kept.iter().map(|found| world.file(found.0)[8]).collect::<Vec<_>>(), [1, 1, 3, 3]);
    world.restart(CONFIG);
    world.commit(&[mail(3, 50)]);
    assert_eq!(world.kept[..4], kept);
    assert_eq!(world.kept[4].0.segment, kept[2].0.segment, "one of the present format is written on");
}

/// Before format 3 zeros said that a file is not in use, whatever was behind them.
#[test]
fn what_a_build_of_an_older_format_has_given_back_is_not_in_use() {
    let mut world = World::new();
    (1..8).for_each(|n| world.commit(&[mail(n, 7000)]));
    world.commit(&[Owned::Epoch(1)]);
    let freed = world.kept[0].0.segment;
    for file in world.disk.files.values_mut().filter(|file| file.starts_with(b"TERNSEG1")) {
        make_older(file);
    }
    // A body in it looks like what a later build writes: a client has sent that.
    let mut other = World::with(LogConfig { salt_seed: 1, ..CONFIG });
    other.commit(&[mail(66, 100)]);
    let forged = other.kept[0].0;
    let forged = other.file(forged)[BLOCK..2 * BLOCK].to_vec();
    world.file(world.kept[0].0)[2 * BLOCK..3 * BLOCK].copy_from_slice(&forged);
    world.file(world.kept[0].0)[..BLOCK].fill(0);
    let kept: Vec<_> = world.kept.iter().filter(|k| k.0.segment != freed).cloned().collect();
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![]));
    assert_eq!(world.kept, kept);
    // It is used again.
    (8..20).for_each(|n| world.commit(&[mail(n, 7000)]));
    let kept = world.kept.clone();
    assert!(kept.iter().any(|k| k.0.segment == freed));
    let report = world.restart(CONFIG);
    assert_eq!((report.rot, report.torn), (vec![], vec![]));
    assert_eq!(world.kept, kept);
}

/// Its heads had room, and now no record fits them: there are more files than there may be then, but not more at each start.
#[test]
fn a_log_of_an_older_format_with_all_its_files_goes_on() {
    let mut world = World::new();
    (1..8).for_each(|n| world.commit(&[mail(n, 7000), Owned::Epoch(n as u32)]));
    for file in world.disk.files.values_mut().filter(|file| file.starts_with(b"TERNSEG1")) {
        make_older(file);
    }
    let is_used = |bytes: &Vec<u8>| bytes.starts_with(b"TERNSEG1");
    let used_count = world.disk.files.values().filter(|bytes| is_used(bytes)).count() as u32;
    let all = world.disk.clone();
    for spare_count in 0..2 {
        world.disk = all.clone();
        let mut left = spare_count;
        world.disk.files.retain(|_, bytes| {
            let is_kept = is_used(bytes) || left > 0;
            left -= u32::from(is_kept && !is_used(bytes));
            is_kept
        });
        let config = LogConfig { segment_count_max: used_count + spare_count, ..CONFIG };
        for n in 8..11 {
            world.restart(config);
            assert!(world.log.has_room(), "{spare_count}, {n}");
            world.commit(&[Owned::Epoch(n)]);
            assert!(world.log.has_room(), "{spare_count}, {n}");
            assert!(world.disk.files.len() as u32 <= config.segment_count_max + 3);
        }
        world.commit(&[mail(99, 100)]);
        world.restart(config);
        assert_eq!(world.kept.last().expect("mail").2, mail(99, 100));
        assert!(world.disk.files.len() as u32 <= config.segment_count_max + 3);
    }
}

#[test]
fn segments_may_change_their_length() {
    let mut world = World::new();
    world.commit(&[mail(1, 50), Owned::Epoch(1)]);
    let larger = LogConfig { segment_bytes: 8 * BLOCK_BYTES, ..CONFIG };
    let report = world.restart(larger);
    assert!(report.rot.is_empty() && report.torn.is_empty());
    world.commit(&[mail(2, 7000), mail(3, 7000), mail(4, 7000), Owned::Epoch(2)]);
    let kept = world.kept.clone();
    world.restart(larger);
    assert_eq!(world.kept, kept);
    assert_eq!(world.disk.files[&kept[1].0.segment.0].len(), 6 * BLOCK);
    assert_eq!(world.disk.files[&kept[2].0.segment.0].len(), 8 * BLOCK);
}
