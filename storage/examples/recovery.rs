//! How fast a log is read back: builds the segments of a million small messages in memory, scans them on one core
//! and prints one line of JSON.

#![allow(missing_docs, reason = "an example")]

use std::time::Instant;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, Seq};
use tern_storage::io::{BLOCK_BYTES, DiskDone, DiskOp, SegmentId};
use tern_storage::log::{LogConfig, Record, Recovery};

const RECORD_COUNT: u64 = 1_000_000;
/// Bytes of a message's body.
const BODY_BYTES: usize = 64;
const CONFIG: LogConfig = LogConfig {
    stream: 0,
    segment_bytes: 64 << 20,
    commit_bytes_max: 256 << 10,
    spare_count: 2,
    segment_count_max: 1000,
    salt_seed: 1,
};

fn main() {
    let files = build();
    let bytes: usize = files.iter().map(Vec::len).sum();
    let mut best_s = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        let (record_count, sum) = scan(&files);
        best_s = best_s.min(start.elapsed().as_secs_f64());
        assert_eq!((record_count, sum), (RECORD_COUNT, RECORD_COUNT * (RECORD_COUNT + 1) / 2));
    }
    println!(
        "{{\"records_per_s\":{:.0},\"bytes_per_s\":{:.0},\"records\":{RECORD_COUNT},\"body_bytes\":{BODY_BYTES}}}",
        RECORD_COUNT as f64 / best_s,
        bytes as f64 / best_s,
    );
}

/// Reads all segments; the number of mail records and the sum of their places.
fn scan(files: &[Vec<u8>]) -> (u64, u64) {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|&n| Recovery::generation(&files[n][..BLOCK_BYTES as usize]));
    let mut recovery = Recovery::new(CONFIG);
    let (mut record_count, mut sum) = (0, 0);
    for n in order {
        let mut sink = |_, _, record: Record<'_>| {
            if let Record::Mail { seq, .. } = record {
                record_count += 1;
                sum += seq.0;
            }
        };
        recovery.segment(SegmentId(n as u32), &files[n], &mut sink).expect("a segment of this stream");
    }
    let (_, report) = recovery.finish();
    assert!(report.rot.is_empty() && report.torn.is_empty() && report.record_count == record_count);
    (record_count, sum)
}

/// Writes the records through a log whose drive is memory.
fn build() -> Vec<Vec<u8>> {
    let (mut log, _) = Recovery::new(CONFIG).finish();
    log.recovered_done();
    let (mut files, mut ops, mut arena) = (Vec::new(), Vec::new(), Vec::new());
    log.want_spares(&mut ops);
    let mut next = 1;
    let (mut envelope, mut positions) = (Vec::new(), Vec::new());
    loop {
        while !ops.is_empty() {
            for op in std::mem::take(&mut ops) {
                let done = perform(op, &arena, &mut files);
                log.disk_done(done, &mut ops);
            }
        }
        // Live ones hold their segments; otherwise the log would use the files again.
        positions.drain(..).for_each(|position| log.live(position));
        if next > RECORD_COUNT {
            return files;
        }
        arena.clear();
        let mut commit = log.begin(&mut arena);
        while next <= RECORD_COUNT {
            let mailbox = AccountId::new(PartitionId((next % 4096) as u16), next % 100_000 + 1);
            envelope.clear();
            message(mailbox, next).encode(&mut envelope);
            let record = Record::Mail { mailbox, seq: Seq(next), envelope: &envelope };
            let Ok(position) = commit.push(&record) else { break };
            positions.push(position);
            next += 1;
        }
        commit.finish(&mut ops);
    }
}

fn message(to: AccountId, n: u64) -> Parts<'static> {
    Parts {
        kind: Kind::Message,
        flags: 0,
        to,
        from: AccountId(1 << 48 | 5),
        from_device: DeviceId(1),
        id: MessageId(n),
        time_ms: 1_700_000_000_000,
        seq: 0,
        from_name: "load-12345",
        body: &[b'x'; BODY_BYTES],
    }
}

fn perform(op: DiskOp, arena: &[u8], files: &mut Vec<Vec<u8>>) -> DiskDone {
    match op {
        DiskOp::Create { segment, bytes } => {
            assert_eq!(segment.0 as usize, files.len(), "segments are numbered one after the other");
            files.push(vec![0; bytes as usize]);
            DiskDone::Created { segment, result: Ok(()) }
        }
        DiskOp::Write { segment, offset, data } => {
            let at = offset as usize;
            files[segment.0 as usize][at..at + data.len()].copy_from_slice(&arena[data]);
            DiskDone::Written { segment, offset, result: Ok(()) }
        }
    }
}
