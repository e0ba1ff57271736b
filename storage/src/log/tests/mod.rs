//! The log on a model disk.

mod crash;
mod freeing;
mod rewriting;
mod rot;
mod writing;

use super::*;
use crate::io::{BLOCK_BYTES, DiskDone, DiskError, DiskOp, SegmentId};
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, Seq};

pub(super) const BLOCK: usize = BLOCK_BYTES as usize;

pub(super) const CONFIG: LogConfig = LogConfig {
    stream: 7,
    segment_bytes: 6 * BLOCK_BYTES,
    commit_bytes_max: 8000,
    spare_count: 2,
    segment_count_max: 1000,
    salt_seed: 0x5eed,
};

/// A record that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Owned {
    Mail(u64, u64, Vec<u8>),
    Floor(u64, u16, u64),
    Epoch(u32),
    EpochAfterRot(u32, u32),
    Account(u64, Vec<u8>),
    Gone(u64),
    GoneRange(u64, u64),
    Ids(Vec<u8>),
}

impl Owned {
    pub(super) fn borrow(&self) -> Record<'_> {
        match self {
            Self::Mail(mailbox, seq, envelope) => {
                Record::Mail { mailbox: AccountId(*mailbox), seq: Seq(*seq), envelope }
            }
            Self::Floor(mailbox, device, up_to) => {
                Record::Floor { mailbox: AccountId(*mailbox), device: DeviceId(*device), up_to: Seq(*up_to) }
            }
            Self::Epoch(epoch) => Record::Epoch(*epoch),
            Self::EpochAfterRot(epoch, after_s) => {
                Record::EpochAfterRot { epoch: *epoch, tickets_after_s: *after_s }
            }
            Self::Account(account, payload) => Record::Account { account: AccountId(*account), payload },
            Self::Gone(account) => Record::AccountGone(AccountId(*account)),
            Self::GoneRange(first, last) => {
                Record::AccountsGone { first: AccountId(*first), last: AccountId(*last) }
            }
            Self::Ids(groups) => Record::Ids { groups },
        }
    }

    fn of(record: Record<'_>) -> Self {
        match record {
            Record::Mail { mailbox, seq, envelope } => Self::Mail(mailbox.0, seq.0, envelope.to_vec()),
            Record::Floor { mailbox, device, up_to } => Self::Floor(mailbox.0, device.0, up_to.0),
            Record::Epoch(epoch) => Self::Epoch(epoch),
            Record::EpochAfterRot { epoch, tickets_after_s } => Self::EpochAfterRot(epoch, tickets_after_s),
            Record::Account { account, payload } => Self::Account(account.0, payload.to_vec()),
            Record::AccountGone(account) => Self::Gone(account.0),
            Record::AccountsGone { first, last } => Self::GoneRange(first.0, last.0),
            Record::Ids { groups } => Self::Ids(groups.to_vec()),
            Record::IdsOfHour(_) => unreachable!("nobody writes them any more"),
            Record::EpochAfterDamage { .. } => unreachable!("no test of the log writes them"),
        }
    }
}

pub(super) fn mail(n: u64, bytes: usize) -> Owned {
    Owned::Mail(1 << 48 | n, n, vec![n as u8 | 1; bytes])
}

pub(super) type Found = (Position, u64, Owned);

/// The files of one stream.
#[derive(Clone, Default, Debug)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<u32, Vec<u8>>,
}

impl Disk {
    /// Does an operation, or only the first `limit` bytes of a write. The sector with a segment's header gets to the drive
    /// whole or not at all.
    pub(super) fn apply(&mut self, op: &DiskOp, arena: &[u8], limit: usize) {
        match op {
            DiskOp::Create { segment, bytes } => {
                self.files.insert(segment.0, vec![0; *bytes as usize]);
            }
            DiskOp::Write { segment, offset, data } => {
                assert!(data.len().is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK_BYTES));
                let data = &arena[data.clone()];
                let at = *offset as usize;
                let count = data.len().min(if at == 0 && limit < 512 { 0 } else { limit });
                self.files.get_mut(&segment.0).unwrap()[at..at + count].copy_from_slice(&data[..count]);
            }
        }
    }

    pub(super) fn recover(&self, config: LogConfig) -> (Log, RecoveryReport, Vec<Found>) {
        let mut order: Vec<_> = self.files.iter().collect();
        order.sort_by_key(|(_, bytes)| Recovery::generation(&bytes[..BLOCK]));
        let mut recovery = Recovery::new(config);
        let mut found = Vec::new();
        for (&segment, bytes) in order {
            let mut sink = |p: Position, lsn: u64, r: Record<'_>| found.push((p, lsn, Owned::of(r)));
            recovery.segment(SegmentId(segment), bytes, &mut sink).unwrap();
        }
        let (log, report) = recovery.finish();
        found.sort_by_key(|&(_, lsn, _)| lsn);
        (log, report, found)
    }
}

pub(super) fn done(op: &DiskOp) -> DiskDone {
    match *op {
        DiskOp::Create { segment, .. } => DiskDone::Created { segment, result: Ok(()) },
        DiskOp::Write { segment, offset, .. } => DiskDone::Written { segment, offset, result: Ok(()) },
    }
}

/// A log with its disk and what was committed.
#[derive(Debug)]
pub(super) struct World {
    pub(super) log: Log,
    pub(super) disk: Disk,
    pub(super) kept: Vec<Found>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(CONFIG)
    }

    pub(super) fn with(config: LogConfig) -> Self {
        let (mut log, report) = Recovery::new(config).finish();
        assert_eq!(report, RecoveryReport::default());
        log.recovered_done();
        let mut world = Self { log, disk: Disk::default(), kept: Vec::new() };
        world.want_spares();
        world
    }

    pub(super) fn want_spares(&mut self) {
        let mut ops = Vec::new();
        self.log.want_spares(&mut ops);
        self.perform(ops, &[]);
    }

    /// Stops and recovers. Every record that was kept is live again.
    pub(super) fn restart(&mut self, config: LogConfig) -> RecoveryReport {
        let (log, report, found) = self.disk.recover(config);
        self.log = log;
        for (position, _, record) in &found {
            match record {
                Owned::Floor(..) => self.log.floor_live(*position),
                _ => self.log.live(*position),
            }
        }
        self.kept = found;
        self.log.recovered_done();
        self.want_spares();
        report
    }

    pub(super) fn perform(&mut self, ops: Vec<DiskOp>, arena: &[u8]) -> Vec<LogEvent> {
        let (mut todo, mut events) = (ops, Vec::new());
        while !todo.is_empty() {
            let mut more = Vec::new();
            for op in &todo {
                self.disk.apply(op, arena, usize::MAX);
                events.extend(self.log.disk_done(done(op), &mut more));
            }
            todo = more;
        }
        events
    }

    /// Puts as many of `records` into one commit as it takes; does not write it.
    pub(super) fn assemble(&mut self, records: &[Owned]) -> (Vec<u8>, Vec<DiskOp>, Vec<Found>) {
        assert!(self.log.can_commit() || self.log.can_rewrite());
        let (mut arena, mut ops, mut placed) = (vec![0xaa; 3], Vec::new(), Vec::new());
        let first_lsn = self.log.next_lsn;
        let mut commit = self.log.begin(&mut arena);
        for (lsn, record) in (first_lsn..).zip(records) {
            let Ok(position) = commit.push(&record.borrow()) else { break };
            placed.push((position, lsn, record.clone()));
        }
        assert_eq!(commit.finish(&mut ops).is_some(), !placed.is_empty());
        assert!(arena.starts_with(&[0xaa; 3]));
        (arena, ops, placed)
    }

    /// Commits all records, in as many commits as it takes.
    pub(super) fn commit(&mut self, mut records: &[Owned]) {
        while !records.is_empty() {
            let number = self.log.next_commit();
            let (arena, ops, placed) = self.assemble(records);
            let events = self.perform(ops, &arena);
            if placed.is_empty() {
                assert_eq!(events, [LogEvent::SpaceBack]);
                continue;
            }
            assert!(events.contains(&LogEvent::Committed(number)));
            records = &records[placed.len()..];
            for (position, _, record) in &placed {
                match record {
                    Owned::Floor(..) => self.log.floor_live(*position),
                    _ => self.log.live(*position),
                }
            }
            self.kept.extend(placed);
        }
    }

    /// The file that holds a position.
    pub(super) fn file(&mut self, p: Position) -> &mut Vec<u8> {
        self.disk.files.get_mut(&p.segment.0).unwrap()
    }
}

/// Makes a segment's file what a build of format 2 wrote.
pub(super) fn make_older(file: &mut [u8]) {
    file[8] = 2;
    let crc = crc32c::crc32c(&file[..36]);
    file[36..40].copy_from_slice(&crc.to_le_bytes());
    file.chunks_mut(BLOCK).filter(|block| block.starts_with(b"TCOM")).for_each(commit::make_older);
}

/// Where the commit starts that holds a record which is the first of it.
pub(super) fn commit_of(first: &Found) -> (SegmentId, u32) {
    (first.0.segment, first.0.offset & !(BLOCK_BYTES - 1))
}

pub(super) fn fail(op: &DiskOp, error: DiskError) -> DiskDone {
    match done(op) {
        DiskDone::Created { segment, .. } => DiskDone::Created { segment, result: Err(error) },
        DiskDone::Written { segment, offset, .. } => {
            DiskDone::Written { segment, offset, result: Err(error) }
        }
    }
}
