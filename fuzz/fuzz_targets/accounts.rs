//! A shard starts from a log whose records are whole and whose accounts are arbitrary bytes: it refuses to, or it serves
//! and hears who comes. Nothing panics.
//!
//! Of each record the first byte is its length, the second its partition, the third its number there, from its second bit
//! on; the rest is what follows the version, or all of it where the first bit of the third is set.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use std::mem::take;
use tern_core::limits::Limits;
use tern_core::shard::ShardRecovery;
use tern_protocol::ids::{AccountId, PartitionId};
use tern_storage::io::{DiskDone, DiskOp, SegmentId};
use tern_storage::log::{LogConfig, Record, Recovery};
use world::{World, config};

/// The version of records of accounts that this build writes.
const VERSION: u8 = 2;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { connection_count: 16, account_count: 16, ..Limits::default() };
    let config = config(1, limits);
    let files = written(bytes, config.segment_bytes, limits.commit_bytes);
    let mut recovery = ShardRecovery::new(config);
    for (file, segment) in files.iter().zip(0..) {
        if recovery.segment(SegmentId(segment), file).is_err() {
            return;
        }
    }
    for segment in recovery.wanted() {
        recovery.segment_again(segment, &files[segment.0 as usize]).expect("it is the same still");
    }
    let mut world = World::recovered(recovery);
    world.pass_ms(20);
    let line = world.come([9, 0, 0, 1]);
    world.hear(line, b"TRN\x01\x01\0\0\0");
    world.pass_ms(20);
});

/// Two segments as a log writes them.
fn written(mut bytes: &[u8], segment_bytes: u32, commit_bytes_max: usize) -> Vec<Vec<u8>> {
    let mut files = vec![vec![0; segment_bytes as usize]; 3];
    let config = LogConfig {
        stream: 0,
        segment_bytes,
        commit_bytes_max,
        spare_count: 2,
        segment_count_max: 8,
        salt_seed: 1,
    };
    let (mut log, _) = Recovery::new(config).finish();
    log.recovered_done();
    let (mut ops, mut arena) = (Vec::new(), Vec::new());
    log.want_spares(&mut ops);
    let mut is_committed = false;
    loop {
        for op in take(&mut ops) {
            let done = match op {
                DiskOp::Create { segment, .. } => DiskDone::Created { segment, result: Ok(()) },
                DiskOp::Write { segment, offset, data } => {
                    files[segment.0 as usize][offset as usize..][..data.len()].copy_from_slice(&arena[data]);
                    DiskDone::Written { segment, offset, result: Ok(()) }
                }
            };
            log.disk_done(done, &mut ops);
        }
        if !ops.is_empty() {
            continue;
        }
        if take(&mut is_committed) || bytes.is_empty() {
            return files;
        }
        arena.clear();
        let mut commit = log.begin(&mut arena);
        let _ = commit.push(&Record::Epoch(1));
        while let Some((&[length, partition, counter], rest)) = bytes.split_first_chunk() {
            let (text, behind) = rest.split_at(rest.len().min(length.into()));
            let account = AccountId::new(PartitionId(u16::from(partition % 64)), 1 + u64::from(counter >> 1));
            let payload = if counter & 1 == 1 { text.to_vec() } else { [&[VERSION], text].concat() };
            let _ = commit.push(&Record::Account { account, payload: &payload });
            bytes = behind;
        }
        bytes = &[];
        commit.finish(&mut ops);
        is_committed = true;
    }
}
