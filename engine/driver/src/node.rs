//! A node: its shards' threads, from start to end.

use crate::assembly::{NodeParts, SPARE_SLOTS};
use crate::boot;
use crate::clock::Clock;
use crate::control::{Command, Control};
use crate::error::{FewDescriptors, StartError};
use crate::lifecycle::{Exit, Lifecycle, wait_for};
use crate::mesh;
use crate::outputs::wake_all;
use crate::pin::Place;
use crate::report::{Board, ShardReport};
use crate::start_progress::StartProgress;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tern_core::counters::Counters;
use tern_core::lanes;
use tern_core::limits::Limits;
use tern_core::networks::Network;
use tern_core::shard::RecoveryReport;
use tern_protocol::phone::noise::KeyPair;
use tern_ring::{BoundAddress, probe};

/// What a shard holds open beside its log: its ring, twice, what wakes it, its listener.
const SHARD_DESCRIPTORS: u64 = 4;
/// Connections that may wait for their accept at each shard; the system's somaxconn caps it.
const BACKLOG_COUNT: u32 = 4096;

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Threads; each owns a contiguous range of partitions.
    pub shard_count: u16,
    /// Hardware threads that the process may use, counted before any of its threads was pinned. Where there are more
    /// than two for each shard, a shard looks for work for a short time before it sleeps.
    pub thread_count: usize,
    /// Partitions; at least as many as shards, and the same for the life of the data directory.
    pub partition_count: u16,
    /// The data directory. The caller holds its lock.
    pub data: PathBuf,
    /// Where phones connect; port 0 lets the system pick.
    pub phone: SocketAddr,
    /// Shard i runs at `cpus[i % len]`; none: wherever the system puts it.
    pub cpus: Option<Vec<Place>>,
    /// The limits of each shard.
    pub limits: Limits,
    /// Balancers: a connection from here must begin with a PROXY header, one from elsewhere must not.
    pub proxies: Arc<[Network]>,
    /// The node's static key.
    pub server_keys: KeyPair,
    /// The static key before it, which phones may still know.
    pub previous_server_keys: Option<KeyPair>,
    /// The secret behind resume tickets; the same for the life of the data directory.
    pub ticket_secret: [u8; 32],
    /// The key of remembered message ids; the same for the life of the data directory.
    pub dedup_key: [u8; 16],
    /// Whether phones may register themselves.
    pub open_registration: bool,
    /// Length of log segments; the same for the life of the data directory.
    pub segment_bytes: u32,
}

/// A running node. Dropping it stops it at once, without draining, and waits until none of its threads is left, however
/// long that takes; [`Node::stop_within`] waits no longer than it is told to.
#[derive(Debug)]
pub struct Node {
    phone: SocketAddr,
    control: Control,
    boards: Vec<Arc<Board>>,
    /// The one that shards' turns are timed by.
    clock: Clock,
    recovery: Vec<RecoveryReport>,
    /// The sockets of the door; none once it is open.
    bound: Vec<BoundAddress>,
    lifecycle: Arc<Lifecycle>,
    exited: flume::Receiver<Exit>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts all shards, opens the door and returns: it serves.
    ///
    /// # Errors
    /// What keeps it from serving; then everything that was started is stopped again.
    pub fn start(config: NodeConfig) -> Result<Self, StartError> {
        let progress = Arc::new(StartProgress::new(config.shard_count));
        let mut node = Self::start_watched(config, &progress)?;
        node.open()?;
        Ok(node)
    }

    /// Starts all shards and returns when every one of them can serve. The door is still shut, so that a node that is
    /// dropped before [`Node::open`] has served nobody. Another thread may see meanwhile how far it is: `progress` has a
    /// place for each shard.
    ///
    /// # Errors
    /// Likewise.
    pub fn start_watched(mut config: NodeConfig, progress: &Arc<StartProgress>) -> Result<Self, StartError> {
        if progress.shards().len() != usize::from(config.shard_count) {
            return Err(StartError::Config("a start is watched shard by shard"));
        }
        check(&mut config)?;
        boot::prepare(&config.data, config.shard_count)?;
        let mut node_parts = NodeParts::new(&config)?;
        let started = node_parts.spawn(&config, progress).and_then(|()| node_parts.introduce());
        let recovery = match started {
            Ok(recovery) => recovery,
            Err(error) => {
                node_parts.abandon();
                return Err(error);
            }
        };
        let partitions = Arc::clone(&node_parts.partitions);
        Ok(Self {
            phone: node_parts.phone,
            control: Control { partitions, ports: Arc::clone(&node_parts.ports) },
            boards: node_parts.boards,
            clock: Clock::new(node_parts.start),
            recovery,
            bound: node_parts.bound,
            lifecycle: node_parts.lifecycle,
            exited: node_parts.exited,
            threads: node_parts.threads,
        })
    }

    /// Lets phones in, at all shards at once: none gets more than its part of them because the others are not ready. Once
    /// it is open it stays open.
    ///
    /// # Errors
    /// [`StartError::Bind`]; then nobody was let in.
    pub fn open(&mut self) -> Result<(), StartError> {
        let listen = |bound: BoundAddress| bound.listen(BACKLOG_COUNT);
        let listeners: io::Result<Vec<_>> = self.bound.drain(..).map(listen).collect();
        let listeners = listeners.map_err(|error| StartError::Bind(self.phone, error))?;
        for (port, listener) in self.control.ports.iter().zip(listeners) {
            port.tell(Command::Open(listener));
        }
        Ok(())
    }

    /// Where phones connect.
    #[must_use]
    pub const fn phone_addr(&self) -> SocketAddr {
        self.phone
    }

    /// The way to ask shards.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The reports of each shard, at most some 50 ms old.
    #[must_use]
    pub fn reports(&self) -> Vec<ShardReport> {
        self.boards.iter().map(|board| board.report()).collect()
    }

    /// For how long each shard's next turn has been due: zero while it sleeps as long as it may. One that is late by
    /// seconds is stuck, and its phones hear nothing.
    #[must_use]
    pub fn turns_late_by(&self) -> Vec<Duration> {
        let now_ns = self.clock.mono_ns();
        let late = |board: &Arc<Board>| Duration::from_nanos(now_ns.saturating_sub(board.due_at_ns()));
        self.boards.iter().map(late).collect()
    }

    /// The counters of each shard, likewise.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.boards.iter().map(|board| board.counters()).collect()
    }

    /// What recovery found, for each shard.
    #[must_use]
    pub fn recovery(&self) -> &[RecoveryReport] {
        &self.recovery
    }

    /// Asks all shards to drain: no new connections, phones are sent away, everything accepted is made safe.
    pub fn drain(&self) {
        self.control.ports.iter().for_each(|port| port.tell(Command::Drain));
    }

    /// Stops it at once, as dropping it does, and waits for its threads at most for `patience`. Names those that have not
    /// ended then: a drive that does not answer keeps them for ever, and ends with the process only. Until then they may
    /// still write to the data directory.
    #[must_use]
    pub fn stop_within(&self, patience: Duration) -> Vec<String> {
        self.stop();
        wait_for(&self.threads, patience)
    }

    fn stop(&self) {
        self.lifecycle.stop(Exit::Drained);
        wake_all(&self.control.ports);
    }

    /// Yields, once, why the node stopped. One receiver gets it, whoever is first.
    #[must_use]
    pub fn exited(&self) -> flume::Receiver<Exit> {
        self.exited.clone()
    }

    /// Waits until the node stops by itself: drained, or because it must.
    #[must_use]
    pub fn wait(self) -> Exit {
        self.exited
            .recv()
            .unwrap_or_else(|_| Exit::Panicked("the reason was taken by another receiver".into()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        while let Some(thread) = self.threads.pop() {
            // Panics are caught and told inside.
            let _ = thread.join();
        }
    }
}

fn check(config: &mut NodeConfig) -> Result<(), StartError> {
    if config.shard_count == 0 || config.partition_count < config.shard_count {
        return Err(StartError::Config("a node needs at least one shard, and a partition for each"));
    }
    if config.segment_bytes < 2 * config.limits.commit_bytes as u32
        || !config.segment_bytes.is_multiple_of(4096)
    {
        return Err(StartError::Config("segment_bytes must be a multiple of 4096 and hold two commits"));
    }
    config.limits = limits_in_force(config.shard_count, config.limits)?;
    // What it may run into is for those to tell who start it.
    check_machine(config.shard_count, &config.limits).map(drop)
}

/// The limits that a node of so many shards really has: its lanes are as small as their number demands.
///
/// # Errors
/// So many shards do not fit, or a limit does not hold.
pub fn limits_in_force(shard_count: u16, limits: Limits) -> Result<Limits, StartError> {
    let body_bytes = limits.body_bytes;
    let Some(lane_bytes) = mesh::lane_bytes(shard_count, body_bytes) else {
        return Err(StartError::Shards { shard_count, shards_max: mesh::shards_max(body_bytes), body_bytes });
    };
    let waiting_bytes = lanes::waiting_bytes_max(shard_count, body_bytes);
    let limits = Limits {
        lane_bytes: limits.lane_bytes.min(lane_bytes),
        lane_backlog_bytes: limits.lane_backlog_bytes.min(waiting_bytes),
        ..limits
    };
    limits.validate().map_err(StartError::Limits)?;
    Ok(limits)
}

/// Most shards that a node can have with messages of so many bytes: the lanes between more do not fit their memory.
#[must_use]
pub fn shards_max(body_bytes: usize) -> u16 {
    mesh::shards_max(body_bytes)
}

/// Whether the kernel has what shards with these limits need, and this process may use it. Raises the soft limit on open
/// files where the hard one allows: a node needs as many as a shard has slots, and each segment of a log is an open file.
/// Those it gets by and by, so that a limit that is too low for them is no reason not to serve, but one to tell.
///
/// # Errors
/// [`StartError::Missing`].
pub fn check_machine(shard_count: u16, limits: &Limits) -> Result<Option<FewDescriptors>, StartError> {
    let missing = probe::run(limits.connection_count.saturating_add(SPARE_SLOTS));
    if !missing.is_empty() {
        return Err(StartError::Missing(missing));
    }
    let segment_count = limits.segment_count;
    let wanted = u64::from(shard_count) * (u64::from(segment_count) + SHARD_DESCRIPTORS) + probe::OTHERS;
    let few = |limit| FewDescriptors { limit, wanted, shard_count, segment_count };
    Ok(probe::raise_descriptor_limit_towards(wanted).err().map(few))
}
