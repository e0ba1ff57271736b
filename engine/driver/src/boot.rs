//! From a shard's directory to a shard: finds its files, reads them in the order of their generations.

use crate::error::StartError;
use crate::maker::file_name;
use crate::segment_file::{Contents, SegmentFile, read, settle};
use crate::start_progress::StartProgress;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tern_core::shard::{RecoveryError, ShardRecovery};
use tern_ring::DurableFile;
use tern_storage::io::{BLOCK_BYTES, SegmentId};
use tern_storage::log::Recovery;

/// The directory of a shard.
pub(crate) fn directory(data: &Path, shard: u16) -> PathBuf {
    data.join(format!("shard-{shard:03}"))
}

/// Makes the shards' directories, and checks that there are not more of them than shards: they would be forgotten.
pub(crate) fn prepare(data: &Path, shard_count: u16) -> Result<(), StartError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Data(path, error)
    };
    for shard in 0..shard_count {
        let path = directory(data, shard);
        fs::create_dir_all(&path).map_err(wrap(&path))?;
    }
    for entry in fs::read_dir(data).map_err(wrap(data))? {
        let entry = entry.map_err(wrap(data))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse::<u32>().ok());
        if number.is_some_and(|number| number >= u32::from(shard_count)) {
            return Err(StartError::MoreShards(entry.path()));
        }
    }
    File::open(data).and_then(|directory| directory.sync_all()).map_err(wrap(data))
}

/// The start that the recovery of a shard is a part of.
pub(crate) struct Start<'a> {
    /// Where it is told how far it is.
    pub(crate) progress: &'a StartProgress,
    pub(crate) shard: u16,
    /// Whether nobody waits for it any more. Once true it stays true.
    pub(crate) is_given_up: &'a dyn Fn() -> bool,
}

impl Start<'_> {
    /// The drive did not give a block. An error: there is no need to ask it for another.
    fn unreadable_one(&self) -> io::Result<()> {
        self.progress.unreadable_one(self.shard);
        if (self.is_given_up)() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Reads all segments of a shard into `recovery`, some of them twice where it asks for that, and opens them for writing;
/// tells how far it is. What it has read is durable then: the shard answers by it from the first moment on. None: the start
/// was given up meanwhile, and what became of the rest is for nobody.
pub(crate) fn recover<F: SegmentFile>(
    directory: &Path,
    open: impl Fn(&Path) -> io::Result<F>,
    recovery: &mut ShardRecovery,
    start: &Start<'_>,
) -> Result<Option<HashMap<SegmentId, DurableFile>>, StartError> {
    let files = read_all(directory, open, recovery, start);
    if (start.is_given_up)() { Ok(None) } else { files.map(Some) }
}

/// Likewise, and ends at the next segment if the start is given up.
fn read_all<F: SegmentFile>(
    directory: &Path,
    open: impl Fn(&Path) -> io::Result<F>,
    recovery: &mut ShardRecovery,
    start: &Start<'_>,
) -> Result<HashMap<SegmentId, DurableFile>, StartError> {
    let Start { progress, shard, .. } = *start;
    let is_wanted = || !(start.is_given_up)();
    let tell = || start.unreadable_one();
    let (found, mut is_damaged) = find(directory, &open, &is_wanted, &tell)?;
    progress.found(shard, found.len());
    let segment_count = found.len();
    let mut files = HashMap::new();
    for (_, segment) in found.into_iter().take_while(|_| is_wanted()) {
        let path = directory.join(file_name(segment));
        let data_error = |error| StartError::Data(path.clone(), error);
        let Contents { bytes, unreadable } =
            read(&open(&path).map_err(data_error)?, u64::MAX, &tell).map_err(data_error)?;
        is_damaged |= !unreadable.is_empty();
        let result = recovery.damaged_segment(segment, &bytes, &unreadable);
        result.map_err(|error| refusal(path.clone(), error, is_damaged))?;
        files.insert(segment, DurableFile::open(&path).map_err(data_error)?);
        progress.read_one(shard);
    }
    if !is_wanted() {
        return Ok(files);
    }
    let wanted = recovery.wanted();
    progress.found(shard, segment_count + wanted.len());
    for segment in wanted.into_iter().take_while(|_| is_wanted()) {
        let path = directory.join(file_name(segment));
        let data_error = |error| StartError::Data(path.clone(), error);
        let Contents { bytes, unreadable } =
            read(&open(&path).map_err(data_error)?, u64::MAX, &tell).map_err(data_error)?;
        let result = recovery.segment_again(segment, &bytes);
        result.map_err(|error| refusal(path.clone(), error, !unreadable.is_empty()))?;
        progress.read_one(shard);
    }
    Ok(files)
}

/// Why a segment was refused. A drive that gives a block the one time and not the other makes a log look like another one:
/// that is the drive's failure and no damage, and the next start may find it otherwise.
fn refusal(path: PathBuf, error: RecoveryError, is_damaged: bool) -> StartError {
    match error {
        RecoveryError::Order | RecoveryError::Changed if is_damaged => {
            StartError::Data(path, io::Error::from_raw_os_error(libc::EIO))
        }
        error => StartError::Recovery(path, error),
    }
}

/// Segments with the generations that their first blocks state.
type Generations = Vec<(Option<u64>, SegmentId)>;

/// The segments in ascending generation, unformatted ones first, and whether the drive did not give a first block; all that
/// they hold is durable. Removes what a crash left unfinished.
fn find<F: SegmentFile>(
    directory: &Path,
    open: impl Fn(&Path) -> io::Result<F>,
    is_wanted: &dyn Fn() -> bool,
    tell: &dyn Fn() -> io::Result<()>,
) -> Result<(Generations, bool), StartError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Data(path, error)
    };
    let (mut found, mut is_damaged) = (Vec::new(), false);
    for entry in fs::read_dir(directory).map_err(wrap(directory))?.take_while(|_| is_wanted()) {
        let entry = entry.map_err(wrap(directory))?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(stem) = name.to_str().and_then(|name| name.strip_prefix("seg-")) else { continue };
        if stem.ends_with(".new") {
            fs::remove_file(&path).map_err(wrap(&path))?;
            continue;
        }
        let number = stem.strip_suffix(".log").and_then(|number| u32::from_str_radix(number, 16).ok());
        let Some(number) = number else { continue };
        let file = open(&path).map_err(wrap(&path))?;
        settle(&file).map_err(|error| StartError::Unsynced(path.clone(), error))?;
        let Contents { bytes, unreadable } =
            read(&file, u64::from(BLOCK_BYTES), tell).map_err(wrap(&path))?;
        is_damaged |= !unreadable.is_empty();
        found.push((Recovery::generation(&bytes), SegmentId(number)));
    }
    // A kill may have come between a segment's last name and that being durable.
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| StartError::Unsynced(directory.to_owned(), error))?;
    found.sort_unstable();
    Ok((found, is_damaged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment_file::tests::BadFile;
    use std::cell::{Cell, RefCell};
    use std::os::unix::fs::FileExt;
    use std::rc::Rc;
    use std::sync::Arc;
    use tern_core::ahead::Fetch;
    use tern_core::io::{Now, Outputs};
    use tern_core::limits::Limits;
    use tern_core::partitions::PartitionMap;
    use tern_core::shard::ShardConfig;
    use tern_protocol::envelope::{Kind, Parts};
    use tern_protocol::ids::{AccountId, DeviceId, MessageId, Seq, ShardId};
    use tern_protocol::phone::noise::KeyPair;
    use tern_storage::cache::SLACK_BYTES;
    use tern_storage::io::{DiskDone, DiskOp};
    use tern_storage::log::{LogConfig, Record};

    const SEGMENT_BYTES: u32 = 8 << 20;

    fn recovery() -> ShardRecovery {
        recovery_with(Limits::default())
    }

    fn recovery_with(limits: Limits) -> ShardRecovery {
        ShardRecovery::new(ShardConfig {
            shard: ShardId(0),
            partitions: Arc::new(PartitionMap::even(1, 1)),
            limits,
            proxies: Arc::new([]),
            server_keys: KeyPair::from_seed([1; 32]),
            previous_server_keys: None,
            ticket_secret: [2; 32],
            open_registration: true,
            seed: [3; 32],
            dedup_key: [4; 16],
            fetch: Fetch::NOTHING,
            segment_bytes: SEGMENT_BYTES,
        })
    }

    /// Of shard 0, and never given up.
    fn wanted_start(progress: &StartProgress) -> Start<'_> {
        Start { progress, shard: 0, is_given_up: &|| false }
    }

    /// A directory with so many segments that are not in use.
    fn shard_directory(count: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..count {
            let file = File::create(directory.path().join(file_name(SegmentId(number)))).unwrap();
            file.set_len(u64::from(SEGMENT_BYTES)).unwrap();
        }
        directory
    }

    #[test]
    fn what_is_read_was_made_durable_before_and_comes_from_the_drive() {
        let directory = shard_directory(3);
        let asked: Rc<RefCell<Vec<&str>>> = Rc::default();
        let open = |path: &Path| {
            let mut file = BadFile::new(File::open(path)?, 0..0);
            file.asked = Rc::clone(&asked);
            Ok(file)
        };
        let progress = StartProgress::new(1);
        let files = recover(directory.path(), open, &mut recovery(), &wanted_start(&progress)).unwrap();
        assert_eq!(files.unwrap().len(), 3);
        let settled = ["sync", "forget", "read"].repeat(3);
        assert_eq!(*asked.borrow(), [&settled[..], &["read"; 3]].concat());
    }

    #[test]
    fn a_log_that_cannot_be_made_durable_is_not_served() {
        let directory = shard_directory(2);
        let open = |path: &Path| {
            let mut file = BadFile::new(File::open(path)?, 0..0);
            file.sync_error = path.ends_with("seg-00000001.log").then_some(libc::EIO);
            Ok(file)
        };
        let progress = StartProgress::new(1);
        let error = recover(directory.path(), open, &mut recovery(), &wanted_start(&progress)).unwrap_err();
        let is_told = matches!(&error, StartError::Unsynced(path, _) if path.ends_with("seg-00000001.log"));
        assert!(is_told, "{error}");
    }

    #[test]
    fn blocks_that_the_drive_does_not_give_stop_no_start_and_are_told_as_rot() {
        let directory = shard_directory(3);
        let open = |path: &Path| {
            let bad = match path.to_str() {
                Some(path) if path.ends_with("1.log") => 8192..8193,
                Some(path) if path.ends_with("2.log") => 0..1,
                _ => 0..0,
            };
            Ok(BadFile::new(File::open(path)?, bad))
        };
        let mut recovery = recovery();
        let progress = StartProgress::new(1);
        recover(directory.path(), open, &mut recovery, &wanted_start(&progress)).unwrap();
        // One block of each, and the one's header when the files were looked for.
        assert_eq!(progress.shards().next().unwrap().unreadable_count, 3, "each is a sign that it goes on");
        let now = Now { mono_ns: 1, wall_ms: 1_800_000_000_000 };
        let (_, mut report) = recovery.finish(now, 0, &mut Outputs::default());
        report.rot.sort_unstable();
        assert_eq!(report.rot, [(SegmentId(1), 8192), (SegmentId(2), 0)]);
    }

    /// A directory with the log of one account, whose only device waits for this much mail.
    fn log_with_mail(mail_bytes: usize) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |segment| directory.path().join(file_name(segment));
        let (mut log, _) = Recovery::new(LogConfig {
            stream: 0,
            segment_bytes: SEGMENT_BYTES,
            commit_bytes_max: 1 << 20,
            spare_count: 2,
            segment_count_max: 100,
            salt_seed: 1,
        })
        .finish();
        log.recovered_done();
        let account = AccountId(1);
        // Version, length of the name, one device, the next one's number; name; number, key, since, ticket.
        let head = [&[2, 1, 1, 0, 2, 0][..], b"a", &[1, 0]].concat();
        let payload = [&head[..], &[7; 32], &[0; 12]].concat();
        let body = vec![7; 4096];
        let mail = |n: u64| {
            let mut envelope = Vec::new();
            let parts = Parts {
                kind: Kind::Message,
                flags: 0,
                to: account,
                from: account,
                from_device: DeviceId(1),
                id: MessageId(n),
                time_ms: 1_800_000_000_000,
                seq: n,
                from_name: "a",
                body: &body,
            };
            parts.encode(&mut envelope);
            envelope
        };
        let mails: Vec<_> =
            (1..=(mail_bytes / body.len()) as u64).map(|n| (Seq(1 << 40 | n), mail(n))).collect();
        let mails =
            mails.iter().map(|(seq, envelope)| Record::Mail { mailbox: account, seq: *seq, envelope });
        let mut records =
            [Record::Account { account, payload: &payload }].into_iter().chain(mails).peekable();
        let (mut ops, mut arena) = (Vec::new(), Vec::new());
        log.want_spares(&mut ops);
        loop {
            for op in std::mem::take(&mut ops) {
                let done = match op {
                    DiskOp::Create { segment, bytes } => {
                        File::create(path(segment)).unwrap().set_len(u64::from(bytes)).unwrap();
                        DiskDone::Created { segment, result: Ok(()) }
                    }
                    DiskOp::Write { segment, offset, data } => {
                        let file = File::options().write(true).open(path(segment)).unwrap();
                        file.write_all_at(&arena[data], u64::from(offset)).unwrap();
                        DiskDone::Written { segment, offset, result: Ok(()) }
                    }
                };
                log.disk_done(done, &mut ops);
            }
            if !ops.is_empty() {
                continue;
            }
            if records.peek().is_none() {
                break;
            }
            arena.clear();
            let (mut commit, mut placed) = (log.begin(&mut arena), Vec::new());
            while let Some(Ok(position)) = records.peek().map(|record| commit.push(record)) {
                records.next();
                placed.push(position);
            }
            commit.finish(&mut ops);
            placed.into_iter().for_each(|position| log.live(position));
        }
        directory
    }

    /// Reads such a log from a drive that does not give the block at `bad` of each file whenever `is_bad` says so of how
    /// many files were opened before.
    fn read_from_drive(
        directory: &Path,
        bad: u64,
        is_bad: impl Fn(usize) -> bool,
    ) -> Result<usize, StartError> {
        let opened_count = Cell::new(0);
        let open = |path: &Path| {
            let bad = if is_bad(opened_count.replace(opened_count.get() + 1)) { bad..bad + 1 } else { 0..0 };
            Ok(BadFile::new(File::open(path)?, bad))
        };
        let mut recovery = recovery_with(Limits { mail_bytes: 0, ..Limits::default() });
        recover(directory, open, &mut recovery, &wanted_start(&StartProgress::new(1)))?;
        Ok(opened_count.get())
    }

    #[test]
    fn a_start_that_is_given_up_reads_no_further() {
        let directory = log_with_mail(SLACK_BYTES + (8 << 20));
        let file_count = fs::read_dir(directory.path()).unwrap().count();
        let (opened_count, progress) = (Cell::new(0), StartProgress::new(1));
        let open = |path: &Path| {
            opened_count.set(opened_count.get() + 1);
            File::open(path)
        };
        // While they are looked for, read, and read again.
        for given_up_at in [1, file_count + 1, 2 * file_count + 1] {
            opened_count.set(0);
            let is_given_up = || opened_count.get() >= given_up_at;
            let start = Start { progress: &progress, shard: 0, is_given_up: &is_given_up };
            let mut recovery = recovery_with(Limits { mail_bytes: 0, ..Limits::default() });
            let files = recover(directory.path(), open, &mut recovery, &start).unwrap();
            assert!(files.is_none(), "nobody wants a part of a log");
            assert_eq!(opened_count.get(), given_up_at);
        }
    }

    #[test]
    fn a_start_that_is_given_up_asks_a_bad_drive_for_no_other_block() {
        let directory = shard_directory(1);
        let progress = StartProgress::new(1);
        let unreadable_count = || progress.shards().next().unwrap().unreadable_count;
        let is_given_up = || unreadable_count() >= 10;
        let start = Start { progress: &progress, shard: 0, is_given_up: &is_given_up };
        let open = |path: &Path| Ok(BadFile::new(File::open(path)?, 0..u64::from(SEGMENT_BYTES)));
        assert!(recover(directory.path(), open, &mut recovery(), &start).unwrap().is_none());
        assert_eq!(unreadable_count(), 10);
    }

    #[test]
    fn a_drive_that_gives_a_block_only_sometimes_is_no_damaged_log() {
        let directory = log_with_mail(SLACK_BYTES + (8 << 20));
        let file_count = fs::read_dir(directory.path()).unwrap().count();
        let opened_count = read_from_drive(directory.path(), 8192, |_| false).unwrap();
        assert!(opened_count > 2 * file_count, "some of it is read twice: {opened_count} of {file_count}");
        // A block fails in the second reading only.
        let error = read_from_drive(directory.path(), 8192, |nth| nth >= 2 * file_count).unwrap_err();
        assert!(matches!(error, StartError::Data(..)), "{error}");
        // Headers fail while the files are looked for, but not when they are read.
        let error = read_from_drive(directory.path(), 0, |nth| nth + 1 < file_count).unwrap_err();
        assert!(matches!(error, StartError::Data(..)), "{error}");
        // What fails each time is rot: it stops no start.
        read_from_drive(directory.path(), 8192, |_| true).unwrap();
    }

    #[test]
    fn a_segment_that_has_lost_its_beginning_stops_no_start_and_is_told_as_rot() {
        let directory = log_with_mail(16 << 20);
        let is_formatted = |path: &Path| fs::read(path).unwrap().starts_with(b"TERNSEG");
        let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let lost = files.filter(|path| is_formatted(path)).min().unwrap();
        let open = |path: &Path| {
            let bad = if path == lost { 0..1 << 20 } else { 0..0 };
            Ok(BadFile::new(File::open(path)?, bad))
        };
        let mut recovery = recovery();
        let progress = StartProgress::new(1);
        recover(directory.path(), open, &mut recovery, &wanted_start(&progress)).unwrap().unwrap();
        let now = Now { mono_ns: 1, wall_ms: 1_800_000_000_000 };
        let (_, report) = recovery.finish(now, 0, &mut Outputs::default());
        assert!(report.rot.iter().any(|(segment, at)| lost.ends_with(file_name(*segment)) && *at == 0));
        assert!(report.record_count > 1000, "the rest is served: {} records", report.record_count);
    }

    #[test]
    fn leftovers_go_and_strangers_stay() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["seg-0000000a.log", "seg-00000002.log", "seg-00000003.new", "notes.txt"] {
            fs::write(directory.path().join(name), [0; 4096]).unwrap();
        }
        let (found, _) = find(directory.path(), |path| File::open(path), &|| true, &|| Ok(())).unwrap();
        assert_eq!(found, [(None, SegmentId(2)), (None, SegmentId(10))]);
        assert!(!directory.path().join("seg-00000003.new").exists());
        assert!(directory.path().join("notes.txt").exists());
    }

    #[test]
    fn a_shard_too_many_is_refused() {
        let data = tempfile::tempdir().unwrap();
        prepare(data.path(), 3).unwrap();
        prepare(data.path(), 4).unwrap();
        assert!(matches!(prepare(data.path(), 3), Err(StartError::MoreShards(_))));
    }
}
