//! One shard on a perfect network and a perfect disk: what the tests of the core talk to.

pub(crate) mod bystanders;
pub(crate) mod phone;
pub(crate) mod stranger;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tern_core::ahead::Fetch;
use tern_core::io::{ConnId, Input, Now, Output, Outputs};
use tern_core::limits::Limits;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{Shard, ShardConfig, ShardRecovery};
use tern_protocol::envelope::Parts;
use tern_protocol::ids::ShardId;
use tern_protocol::phone::noise::KeyPair;
use tern_storage::io::{DiskDone, DiskError, DiskOp, SegmentId};

/// What is armed on a socket: what a driver tells of it, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Armed {
    /// Its next bytes, or its end.
    Once,
    /// All of its bytes and its end.
    Always,
    /// Its end.
    End,
}

thread_local! {
    /// Bytes that shards of this thread asked for ahead.
    static ASKED_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that shards asked for ahead meanwhile.
pub(crate) fn asked_for(meanwhile: impl FnOnce()) -> usize {
    let before = ASKED_BYTES.get();
    meanwhile();
    ASKED_BYTES.get() - before
}

/// The shard, its time, its disk and the bytes that it sent.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) now: Now,
    pub(crate) out: Outputs,
    spare_out: Outputs,
    pub(crate) files: BTreeMap<u32, Vec<u8>>,
    pub(crate) sent: BTreeMap<u32, Vec<u8>>,
    pub(crate) conns: BTreeMap<u32, ConnId>,
    /// What a driver may tell of each connection.
    armed: HashMap<ConnId, Armed>,
    /// What has come and was not read.
    unread: HashMap<ConnId, Vec<u8>>,
    pub(crate) closed: Vec<u32>,
    /// Disk operations that wait, when the disk is stopped.
    pub(crate) disk_queue: VecDeque<(DiskOp, Vec<u8>)>,
    pub(crate) disk_runs: bool,
    pub(crate) drained: bool,
    /// Slots whose phones do not read: their sends do not end.
    pub(crate) stuck: BTreeSet<u32>,
    pub(crate) drive_is_full: bool,
    /// What went to the control plane, to other shards and to the operator.
    pub(crate) gone_out: Vec<Output>,
    /// Envelopes to other shards, one behind the other.
    pub(crate) cast: Vec<u8>,
    /// The lanes' room that was waited for.
    pub(crate) wanted_room_bytes: Vec<usize>,
    /// Allocations inside steps.
    pub(crate) allocation_count: u64,
    /// What steps have allocated and not freed.
    pub(crate) held_bytes: i64,
    /// The most that recovery held at once.
    pub(crate) recovery_bytes_max: u64,
    /// Segments that recovery wanted to read once more.
    pub(crate) wanted_count: usize,
    config: ShardConfig,
}

/// The wall clock's time where a test names none.
const START_MS: u64 = 1_800_000_000_000;

/// Every start has another seed.
fn reseed(config: &mut ShardConfig) {
    config.seed = config.seed.map(|byte| byte.wrapping_mul(5).wrapping_add(1));
}

pub(crate) fn server_keys() -> KeyPair {
    KeyPair::from_seed([42; 32])
}

impl World {
    /// An envelope comes from shard 1.
    pub(crate) fn arrives(&mut self, envelope: &Parts<'_>) {
        let mut envelopes = Vec::new();
        envelope.encode(&mut envelopes);
        self.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    }

    pub(crate) fn new(limits: Limits) -> Self {
        Self::one_of(1, limits)
    }

    /// Shard 0 of so many, with segments of another length.
    pub(crate) fn in_segments(segment_bytes: u32, shard_count: u16, limits: Limits) -> Self {
        Self::made(START_MS, &[], shard_count, limits, segment_bytes)
    }

    /// Shard 0 of so many; the others are not there.
    pub(crate) fn one_of(shard_count: u16, limits: Limits) -> Self {
        Self::behind(&[], shard_count, limits)
    }

    /// Likewise, behind balancers in these networks.
    pub(crate) fn behind(proxies: &[&str], shard_count: u16, limits: Limits) -> Self {
        Self::at(START_MS, proxies, shard_count, limits)
    }

    /// Likewise, at a time by the wall clock.
    pub(crate) fn at(wall_ms: u64, proxies: &[&str], shard_count: u16, limits: Limits) -> Self {
        Self::made(wall_ms, proxies, shard_count, limits, 4 << 20)
    }

    /// Shard 0 of one at a time by the wall clock, with segments of another length.
    pub(crate) fn at_in_segments(wall_ms: u64, segment_bytes: u32, limits: Limits) -> Self {
        Self::made(wall_ms, &[], 1, limits, segment_bytes)
    }

    fn made(wall_ms: u64, proxies: &[&str], shard_count: u16, limits: Limits, segment_bytes: u32) -> Self {
        limits.validate().expect("the test's limits hold");
        // A test that does not say how long mail may wait for its commit goes on 10 ms later, when it is written.
        let is_default = limits.write_back_ms == Limits::default().write_back_ms;
        let limits = if is_default { Limits { write_back_ms: 5, ..limits } } else { limits };
        let config = ShardConfig {
            shard: ShardId(0),
            partitions: Arc::new(PartitionMap::even(64, shard_count)),
            limits,
            proxies: proxies.iter().map(|network| network.parse().expect("a network")).collect(),
            server_keys: server_keys(),
            previous_server_keys: None,
            ticket_secret: [6; 32],
            open_registration: true,
            seed: [9; 32],
            dedup_key: [3; 16],
            fetch: Fetch(|_, bytes| ASKED_BYTES.set(ASKED_BYTES.get() + bytes)),
            segment_bytes,
            #[cfg(feature = "bugs")]
            bugs: tern_core::bugs::Bugs::default(),
        };
        let now = Now { mono_ns: 1_000_000_000, wall_ms };
        Self::boot(config, BTreeMap::new(), now, 0, false, 0, &[])
    }

    fn boot(
        config: ShardConfig,
        files: BTreeMap<u32, Vec<u8>>,
        now: Now,
        rot_count: usize,
        drive_is_full: bool,
        others_newest_s: u32,
        unreadable: &[(u32, u32)],
    ) -> Self {
        let mut order: Vec<_> = files.iter().collect();
        order.sort_by_key(|(_, bytes)| {
            tern_storage::log::Recovery::generation(&bytes[..4096]).unwrap_or(u64::MAX)
        });
        let mut recovered = None;
        let mut wanted_count = 0;
        let counted = allocation_counter::measure(|| {
            let mut recovery = ShardRecovery::new(config.clone());
            for (number, bytes) in order {
                let mut bytes = std::borrow::Cow::Borrowed(bytes);
                let blocks: Vec<u32> =
                    unreadable.iter().filter(|(file, _)| file == number).map(|place| place.1).collect();
                for at in blocks.iter().map(|&at| at as usize) {
                    bytes.to_mut()[at..at + 4096].fill(tern_storage::log::UNREADABLE);
                }
                let read = recovery.damaged_segment(SegmentId(*number), &bytes, &blocks);
                read.expect("the log is readable");
            }
            let wanted = recovery.wanted();
            wanted_count = wanted.len();
            for segment in wanted {
                recovery.segment_again(segment, &files[&segment.0]).expect("the log is still the same");
            }
            let mut out = Outputs::default();
            let newest_s = recovery.newest_s().max(others_newest_s);
            recovered = Some((recovery.finish(now, newest_s, &mut out), out));
        });
        let ((shard, report), out) = recovered.expect("it was recovered");
        assert_eq!(report.rot.len(), rot_count, "the disk is perfect but for what the test spoilt");
        let mut world = Self {
            shard,
            now,
            out,
            spare_out: Outputs::default(),
            files,
            sent: BTreeMap::new(),
            conns: BTreeMap::new(),
            armed: HashMap::new(),
            unread: HashMap::new(),
            closed: Vec::new(),
            disk_queue: VecDeque::new(),
            disk_runs: true,
            drained: false,
            stuck: BTreeSet::new(),
            drive_is_full,
            gone_out: Vec::new(),
            cast: Vec::new(),
            wanted_room_bytes: Vec::new(),
            allocation_count: 0,
            held_bytes: 0,
            recovery_bytes_max: counted.bytes_max,
            wanted_count,
            config,
        };
        world.turn();
        world
    }

    /// The process is killed and started again on the same files.
    pub(crate) fn kill(self) -> Self {
        self.kill_with_rot(0)
    }

    /// The same, and the server has another key since; phones may come by the one before while it `holds`.
    pub(crate) fn kill_with_another_key(mut self, key: KeyPair, holds: bool) -> Self {
        self.config.previous_server_keys = holds.then_some(self.config.server_keys);
        self.config.server_keys = key;
        self.kill_with_rot(0)
    }

    /// Likewise, and from now on only the operator makes accounts.
    pub(crate) fn kill_and_close_registration(mut self) -> Self {
        self.config.open_registration = false;
        self.kill()
    }

    /// Likewise, with other limits.
    pub(crate) fn kill_with_limits(mut self, limits: Limits) -> Self {
        limits.validate().expect("the test's limits hold");
        self.config.limits = limits;
        self.kill()
    }

    /// Likewise, and there is no room on the drive for another file.
    pub(crate) fn kill_on_a_full_drive(self) -> Self {
        self.kill_on_a_drive_with(0)
    }

    /// Likewise, and of the files that are ready so many are left.
    pub(crate) fn kill_on_a_drive_with(self, mut spare_count: usize) -> Self {
        let Self { mut config, mut files, now, .. } = self;
        reseed(&mut config);
        files.retain(|_, bytes| {
            let is_used = bytes.iter().any(|&byte| byte != 0);
            let is_kept = is_used || spare_count > 0;
            spare_count -= usize::from(is_kept && !is_used);
            is_kept
        });
        Self::boot(config, files, now, 0, true, 0, &[])
    }

    /// Likewise, and the drive does not give the first block of these files.
    pub(crate) fn kill_without(self, files: &[u32]) -> Self {
        let places: Vec<_> = files.iter().map(|&file| (file, 0)).collect();
        self.kill_without_blocks(&places)
    }

    /// Likewise, and the drive does not give these blocks: a file and an offset each.
    pub(crate) fn kill_without_blocks(self, places: &[(u32, u32)]) -> Self {
        let Self { mut config, files, now, .. } = self;
        reseed(&mut config);
        Self::boot(config, files, now, places.len(), false, 0, places)
    }

    /// Likewise, and recovery finds so many spoilt places.
    pub(crate) fn kill_with_rot(self, rot_count: usize) -> Self {
        let Self { mut config, files, now, .. } = self;
        reseed(&mut config);
        Self::boot(config, files, now, rot_count, false, 0, &[])
    }

    /// Likewise, and the newest message in the logs of the node's other shards is from this second.
    pub(crate) fn kill_beside(self, others_newest_s: u32) -> Self {
        let Self { mut config, files, now, .. } = self;
        reseed(&mut config);
        Self::boot(config, files, now, 0, false, others_newest_s, &[])
    }

    pub(crate) fn step(&mut self, input: Input<'_>) {
        self.may_be_told(&input);
        let Self { shard, now, out, .. } = self;
        let before = out.list.len();
        let counted = allocation_counter::measure(|| shard.step(*now, input, out));
        self.allocation_count += counted.count_total;
        self.held_bytes += counted.bytes_current;
        for output in &self.out.list[before..] {
            match *output {
                Output::ReceiveOnce(conn) => _ = self.armed.insert(conn, Armed::Once),
                Output::ReceiveAlways(conn) => _ = self.armed.insert(conn, Armed::Always),
                Output::WatchForEnd(conn) => {
                    let before = self.armed.insert(conn, Armed::End);
                    assert_eq!(before, None, "{conn:?} is watched although something is armed");
                }
                Output::MoveSocket { conn, .. } => _ = self.armed.remove(&conn),
                _ => {}
            }
        }
    }

    /// Bytes come, and are read as soon as somebody does.
    pub(crate) fn arrive(&mut self, conn: ConnId, bytes: &[u8]) {
        if matches!(self.armed.get(&conn), Some(Armed::Once | Armed::Always)) {
            self.step(Input::Received { conn, bytes: &mut bytes.to_vec() });
        } else if self.conns.get(&conn.slot) == Some(&conn) {
            self.unread.entry(conn).or_default().extend_from_slice(bytes);
        }
    }

    /// No driver tells of bytes or of an end that nobody asked for: what it could not know must not help a test.
    fn may_be_told(&mut self, input: &Input<'_>) {
        match *input {
            Input::Received { conn, .. } => {
                let armed = self.armed.get(&conn).copied();
                assert!(matches!(armed, Some(Armed::Once | Armed::Always)), "{conn:?} has bytes: {armed:?}");
                if armed == Some(Armed::Once) {
                    self.armed.remove(&conn);
                }
            }
            Input::Ended { conn } => {
                let armed = self.armed.remove(&conn);
                assert!(armed.is_some(), "{conn:?} ends, and nothing is armed");
            }
            Input::Closed { conn } => {
                self.armed.remove(&conn);
                self.unread.remove(&conn);
            }
            _ => {}
        }
    }

    /// Flushes and performs outputs until nothing more comes. What the shard wants to continue with waits for a `Tick`.
    pub(crate) fn turn(&mut self) {
        loop {
            self.step(Input::Flush);
            self.out.list.retain(|output| !matches!(output, Output::Continue));
            if self.out.list.is_empty() {
                return;
            }
            // Two lists in turn, so that their memory is kept as a driver keeps it.
            let mut out = std::mem::replace(&mut self.out, std::mem::take(&mut self.spare_out));
            for output in out.list.drain(..) {
                self.perform(output, &out.arena);
            }
            out.clear();
            self.spare_out = out;
        }
    }

    /// Another turn, in which the shard continues with what it has left over.
    pub(crate) fn next_turn(&mut self) {
        self.step(Input::Tick);
        self.turn();
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.mono_ns += 1_000_000;
            self.now.wall_ms += 1;
            self.next_turn();
        }
    }

    /// The same in steps of a second, with what the shard does of itself only.
    pub(crate) fn pass_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.mono_ns += 1_000_000_000;
            self.now.wall_ms += 1_000;
            self.next_turn();
        }
    }

    fn perform(&mut self, output: Output, arena: &[u8]) {
        match output {
            Output::ReceiveOnce(conn) | Output::ReceiveAlways(conn) => {
                self.conns.insert(conn.slot, conn);
                if let Some(bytes) = self.unread.remove(&conn) {
                    self.arrive(conn, &bytes);
                }
            }
            Output::Send { conn, data } => {
                self.sent.entry(conn.slot).or_default().extend_from_slice(&arena[data]);
                if !self.stuck.contains(&conn.slot) {
                    self.step(Input::Sent { conn });
                }
            }
            Output::Close(conn) => {
                self.closed.push(conn.slot);
                self.step(Input::Closed { conn });
            }
            Output::Disk(op) => {
                let bytes = match &op {
                    DiskOp::Write { data, .. } => arena[data.clone()].to_vec(),
                    DiskOp::Create { .. } => Vec::new(),
                };
                self.disk_queue.push_back((op, bytes));
                if self.disk_runs {
                    self.run_disk();
                }
            }
            Output::WatchForEnd(_) => {}
            Output::Drained => self.drained = true,
            Output::Serving | Output::Continue => {}
            Output::WantRoom { bytes, .. } => self.wanted_room_bytes.push(bytes),
            other => {
                let alone = self.config.partitions.shard_count() == 1;
                let leaves = matches!(other, Output::Mesh { .. } | Output::MoveSocket { .. });
                assert!(!(alone && leaves), "one shard alone does not {other:?}");
                if let Output::Mesh { data, .. } = &other {
                    self.cast.extend_from_slice(&arena[data.clone()]);
                }
                self.gone_out.push(other);
            }
        }
    }

    pub(crate) fn run_disk(&mut self) {
        while let Some((op, bytes)) = self.disk_queue.pop_front() {
            let done = match op {
                DiskOp::Create { segment, .. } if self.drive_is_full => {
                    DiskDone::Created { segment, result: Err(DiskError::Full) }
                }
                DiskOp::Create { segment, bytes } => {
                    self.files.insert(segment.0, vec![0; bytes as usize]);
                    DiskDone::Created { segment, result: Ok(()) }
                }
                DiskOp::Write { segment, offset, .. } => {
                    self.write(segment, offset, &bytes);
                    DiskDone::Written { segment, offset, result: Ok(()) }
                }
            };
            self.step(Input::Disk(done));
        }
    }

    pub(crate) fn write(&mut self, segment: SegmentId, offset: u32, bytes: &[u8]) {
        let file = self.files.get_mut(&segment.0).expect("written after it was made");
        file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}
