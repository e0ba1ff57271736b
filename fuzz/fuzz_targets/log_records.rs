//! Recovery of a log from arbitrary bytes: no panic, and whatever it hands out lies inside the file.
//!
//! The first byte chooses what is put right, because no fuzzer guesses checksums: a real segment is written and the
//! input is laid over it, or the input is a file as it stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::io::{BLOCK_BYTES, DiskDone, DiskOp, SegmentId};
use tern_storage::log::{IdGroup, LogConfig, Record, Recovery};

const CONFIG: LogConfig = LogConfig {
    stream: 1,
    segment_bytes: 6 * BLOCK_BYTES,
    commit_bytes_max: 8000,
    spare_count: 2,
    segment_count_max: 8,
    salt_seed: 1,
};

fuzz_target!(|data: &[u8]| {
    let Some((&[how, low, high], rest)) = data.split_first_chunk::<3>() else { return };
    let mut files = if how & 1 == 0 { vec![Vec::new(); 2] } else { written_files() };
    for file in &mut files {
        file.resize(CONFIG.segment_bytes as usize, 0);
    }
    let at = usize::from(u16::from_le_bytes([low, high])) % CONFIG.segment_bytes as usize;
    let file = &mut files[usize::from(how >> 1 & 1)];
    let count = rest.len().min(file.len() - at);
    file[at..at + count].copy_from_slice(&rest[..count]);
    read_back(&files);
});

fn read_back(files: &[Vec<u8>]) {
    let mut recovery = Recovery::new(CONFIG);
    let mut record_count = 0;
    let mut positions = Vec::new();
    for (file, segment) in files.iter().zip(0..) {
        let _ = Recovery::generation(&file[..file.len().min(BLOCK_BYTES as usize)]);
        let _ = recovery.segment(SegmentId(segment), file, &mut |position, _, record| {
            record_count += 1;
            let end = position.offset as usize + record.encoded_bytes();
            assert!(end <= files[position.segment.0 as usize].len());
            positions.push(position);
        });
    }
    let (mut log, report) = recovery.finish();
    assert_eq!(report.record_count, record_count);
    for &position in &positions {
        log.live(position);
    }
    log.recovered_done();
    for &position in &positions {
        log.dead(position);
    }
}

/// Two segments with a few commits, as a log writes them.
fn written_files() -> Vec<Vec<u8>> {
    let mut files = vec![vec![0; CONFIG.segment_bytes as usize]; 2];
    let (mut log, _) = Recovery::new(CONFIG).finish();
    log.recovered_done();
    let (mut ops, mut arena) = (Vec::new(), Vec::new());
    log.want_spares(&mut ops);
    for round in 0..4_u8 {
        for op in core::mem::take(&mut ops) {
            let done = match op {
                DiskOp::Create { segment, .. } => DiskDone::Created { segment, result: Ok(()) },
                DiskOp::Write { segment, offset, data } => {
                    let Some(file) = files.get_mut(segment.0 as usize) else { return files };
                    let at = offset as usize;
                    file[at..at + data.len()].copy_from_slice(&arena[data]);
                    DiskDone::Written { segment, offset, result: Ok(()) }
                }
            };
            log.disk_done(done, &mut ops);
        }
        arena.clear();
        let mailbox = AccountId(1 << 48 | 1);
        let mut groups = Vec::new();
        let group = IdGroup { from_s: 300, span_s: 300, hashes: &[3; 16] };
        (0..=round % 2).for_each(|_| group.encode(&mut groups));
        let mut commit = log.begin(&mut arena);
        for record in [
            Record::Mail { mailbox, seq: Seq(u64::from(round)), envelope: &[round; 100] },
            Record::Epoch(u32::from(round)),
            Record::EpochAfterRot { epoch: u32::from(round), tickets_after_s: 1 },
            Record::Floor { mailbox, device: DeviceId(1), up_to: Seq(1) },
            Record::Ids { groups: &groups },
        ] {
            let _ = commit.push(&record);
        }
        commit.finish(&mut ops);
    }
    files
}
