//! Putting a node together: threads make their rings, become known to each other, recover, and serve.

use crate::boot::{self, Start};
use crate::clock::Clock;
use crate::control::{Command, Port};
use crate::disk::Disk;
use crate::error::StartError;
use crate::lifecycle::{Exit, Lifecycle, live, wait_for};
use crate::maker;
use crate::mesh::{self, MeshEnd};
use crate::node::NodeConfig;
use crate::outputs::wake_all;
use crate::pin::{Place, pin, spin_ns, steer};
use crate::report::{Board, Reporter};
use crate::shard_thread::{Door, ShardThread};
use crate::sockets::Sockets;
use crate::start_progress::StartProgress;
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use tern_core::ahead::Fetch;
use tern_core::io::Outputs;
use tern_core::limits::OVERLAP_COUNT;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{RecoveryReport, ShardConfig, ShardRecovery};
use tern_protocol::ids::ShardId;
use tern_ring::{BoundAddress, Config, Ring, RingHandle, Waker, probe};
use tracing::warn;

/// Slots beyond the limit on connections, so that those above it can be refused by the core.
pub(crate) const SPARE_SLOTS: u32 = 64;
const _: () = assert!(SPARE_SLOTS >= 2 * OVERLAP_COUNT, "some are for those above it, some for hand-overs");

/// How long a start that has failed waits for its threads before it is told.
const ABANDON_WAIT: Duration = Duration::from_secs(5);

/// What a shard's thread tells the starting thread.
enum Progress {
    Ring(ShardId, RingHandle, Waker),
    /// It has read its log; the newest message there was stamped at this second of Unix time.
    Read(u32),
    /// It can serve.
    Serving(ShardId, RecoveryReport),
    Failed(StartError),
}

/// What the starting thread tells a shard's thread: all rings, all ports, and when the newest message of all logs was
/// stamped, so that all shards begin at the same time.
type Introduction = (Vec<RingHandle>, Arc<[Port]>, u32);

/// What a shard's thread is made with.
struct Setup {
    config: ShardConfig,
    cpus: Option<Vec<Place>>,
    spin_ns: u64,
    data: PathBuf,
    mesh: MeshEnd,
    jobs: flume::Sender<maker::Job>,
    commands: flume::Receiver<Command>,
    board: Arc<Board>,
    lifecycle: Arc<Lifecycle>,
    start: Instant,
    progress: flume::Sender<Progress>,
    how_far: Arc<StartProgress>,
    introduction: flume::Receiver<Introduction>,
}

/// A node that is being put together.
pub(crate) struct NodeParts {
    pub(crate) phone: SocketAddr,
    /// The door's sockets, one for each shard. They hold the address, and nobody is let in.
    pub(crate) bound: Vec<BoundAddress>,
    pub(crate) partitions: Arc<PartitionMap>,
    pub(crate) ports: Arc<[Port]>,
    pub(crate) boards: Vec<Arc<Board>>,
    /// When the node's clocks began.
    pub(crate) start: Instant,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) exited: flume::Receiver<Exit>,
    /// The helper that makes segments, then the shards.
    pub(crate) threads: Vec<JoinHandle<()>>,
    commands: Vec<flume::Sender<Command>>,
    introductions: Vec<flume::Sender<Introduction>>,
    progress: flume::Receiver<Progress>,
    tell_progress: Option<flume::Sender<Progress>>,
}

impl NodeParts {
    pub(crate) fn new(config: &NodeConfig) -> Result<Self, StartError> {
        let failed = |error| StartError::Bind(config.phone, error);
        let first = BoundAddress::bind(config.phone).map_err(failed)?;
        let phone = first.local_addr();
        let others =
            (1..config.shard_count).map(|_| first.beside()).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let bound: Vec<_> = std::iter::once(first).chain(others).collect();
        for (shard, bound) in (0..config.shard_count).zip(&bound) {
            steer(shard, config.cpus.as_deref(), bound);
        }
        let (exit, exited) = flume::bounded(1);
        let (tell_progress, progress) = flume::unbounded();
        Ok(Self {
            phone,
            bound,
            partitions: Arc::new(PartitionMap::even(config.partition_count, config.shard_count)),
            ports: Arc::new([]),
            boards: (0..config.shard_count).map(|_| Arc::default()).collect(),
            start: Instant::now(),
            lifecycle: Arc::new(Lifecycle::new(usize::from(config.shard_count), exit)),
            exited,
            threads: Vec::new(),
            commands: Vec::new(),
            introductions: Vec::new(),
            progress,
            tell_progress: Some(tell_progress),
        })
    }

    /// Starts the threads; each makes its ring.
    pub(crate) fn spawn(
        &mut self,
        config: &NodeConfig,
        how_far: &Arc<StartProgress>,
    ) -> Result<(), StartError> {
        let (jobs, helper) = maker::start().map_err(StartError::System)?;
        // First, because it ends after the shards that give it work, and threads are joined from the last to the first.
        self.threads.push(helper);
        let tell_progress = self.tell_progress.take().expect("threads are started once");
        let ends = mesh::build(config.shard_count, config.limits.lane_bytes);
        for (number, mesh) in (0..config.shard_count).zip(ends) {
            let (tell_command, commands) = flume::unbounded();
            let (introduce, introduction) = flume::bounded(1);
            let setup = Setup {
                config: shard_config(config, number, &self.partitions)?,
                cpus: config.cpus.clone(),
                spin_ns: spin_ns(config.thread_count, config.shard_count),
                data: config.data.clone(),
                mesh,
                jobs: jobs.clone(),
                commands,
                board: Arc::clone(&self.boards[usize::from(number)]),
                lifecycle: Arc::clone(&self.lifecycle),
                start: self.start,
                progress: tell_progress.clone(),
                how_far: Arc::clone(how_far),
                introduction,
            };
            let thread = Builder::new().name(format!("shard-{number}")).spawn(move || setup.run());
            self.threads.push(thread.map_err(StartError::System)?);
            self.commands.push(tell_command);
            self.introductions.push(introduce);
        }
        Ok(())
    }

    /// Makes the shards known to each other, when all of them have read their logs, and waits until all can serve.
    pub(crate) fn introduce(&mut self) -> Result<Vec<RecoveryReport>, StartError> {
        let count = self.boards.len();
        let mut rings: Vec<Option<(RingHandle, Waker)>> = vec![None; count];
        let mut reports: Vec<Option<RecoveryReport>> = vec![None; count];
        let (mut read_count, mut newest_s) = (0, 0);
        while reports.iter().any(Option::is_none) {
            match self.progress.recv() {
                Ok(Progress::Ring(shard, handle, waker)) => {
                    rings[usize::from(shard.0)] = Some((handle, waker));
                }
                Ok(Progress::Read(shard_newest_s)) => {
                    // Each has told of its ring before.
                    (read_count, newest_s) = (read_count + 1, shard_newest_s.max(newest_s));
                    if read_count == count {
                        self.tell_all(rings.iter().flatten(), newest_s);
                    }
                }
                Ok(Progress::Serving(shard, report)) => reports[usize::from(shard.0)] = Some(report),
                Ok(Progress::Failed(error)) => return Err(error),
                Err(flume::RecvError::Disconnected) => {
                    return Err(StartError::Panicked("a shard ended without a word".into()));
                }
            }
        }
        Ok(reports.into_iter().flatten().collect())
    }

    fn tell_all<'r>(&mut self, rings: impl Iterator<Item = &'r (RingHandle, Waker)>, newest_s: u32) {
        let (handles, wakers): (Vec<_>, Vec<_>) = rings.cloned().unzip();
        let ports = self.commands.drain(..).zip(wakers).map(|(commands, waker)| Port { commands, waker });
        self.ports = ports.collect();
        for introduce in self.introductions.drain(..) {
            // A thread that is gone has told why.
            let _ = introduce.send((handles.clone(), Arc::clone(&self.ports), newest_s));
        }
    }

    /// Stops what was started. A drive that does not answer holds a thread up for ever, and with it the news of why the
    /// start has failed: such a thread is left behind.
    pub(crate) fn abandon(mut self) {
        self.lifecycle.stop(Exit::Drained);
        self.introductions.clear();
        wake_all(&self.ports);
        let late = wait_for(&self.threads, ABANDON_WAIT);
        if !late.is_empty() {
            warn!(
                threads = late.join(", "),
                "the start has failed, and some of its threads wait for a drive"
            );
        }
    }
}

fn shard_config(
    config: &NodeConfig,
    number: u16,
    partitions: &Arc<PartitionMap>,
) -> Result<ShardConfig, StartError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed)
        .map_err(|_| StartError::System(std::io::Error::other("the system gives no randomness")))?;
    Ok(ShardConfig {
        shard: ShardId(number),
        partitions: Arc::clone(partitions),
        limits: config.limits,
        proxies: Arc::clone(&config.proxies),
        server_keys: config.server_keys,
        previous_server_keys: config.previous_server_keys,
        ticket_secret: config.ticket_secret,
        open_registration: config.open_registration,
        seed,
        dedup_key: config.dedup_key,
        fetch: Fetch(tern_ring::fetch),
        segment_bytes: config.segment_bytes,
    })
}

impl Setup {
    /// The thread's life.
    fn run(self) {
        let name = format!("shard {}", self.config.shard.0);
        let (lifecycle, progress) = (Arc::clone(&self.lifecycle), self.progress.clone());
        let run = |thread: &mut Option<ShardThread>| {
            match self.boot() {
                Ok(booted) => *thread = booted,
                Err(error) => {
                    let _ = progress.send(Progress::Failed(error));
                }
            }
            thread.as_mut().map_or(Ok(()), ShardThread::run)
        };
        live(&name, None, run, |thread, exit| {
            let failed = match &exit {
                Exit::Fatal(error) => StartError::Fatal(*error),
                Exit::Panicked(text) => StartError::Panicked(text.clone()),
                Exit::Drained => StartError::Panicked(exit.to_string()),
            };
            // Heard only while the node starts.
            let _ = progress.send(Progress::Failed(failed));
            lifecycle.stop(exit);
            wake_all(thread.as_ref().map_or(&[], |thread| &thread.ports));
        });
    }

    /// From nothing to a shard that writes its epoch. None: the start was given up.
    fn boot(self) -> Result<Option<ShardThread>, StartError> {
        let own = self.config.shard;
        pin(own.0, self.cpus.as_deref());
        let limits = self.config.limits;
        let descriptor_count = limits.connection_count.saturating_add(SPARE_SLOTS);
        // A turn receives at most what there are buffers for, a thousand times, and answers two phones each time. Of a
        // larger queue all is resident from the start.
        let mut ring = Ring::new(&Config { descriptor_count, completion_count: 4096, ..Config::default() })
            .map_err(|error| StartError::Missing(vec![probe::explain(&error)]))?;
        let _ = self.progress.send(Progress::Ring(own, ring.handle(), ring.waker()));

        let directory = boot::directory(&self.data, own.0);
        let mut recovery = ShardRecovery::new(self.config);
        let started = Instant::now();
        let how_far = self.how_far;
        let lifecycle = self.lifecycle;
        let start = Start { progress: &how_far, shard: own.0, is_given_up: &|| lifecycle.is_stopping() };
        let files = boot::recover(&directory, |path| File::open(path), &mut recovery, &start)?;
        let Some(files) = files else { return Ok(None) };
        let read_in = started.elapsed();
        how_far.done(own.0, read_in);
        let _ = self.progress.send(Progress::Read(recovery.newest_s()));
        let Ok((handles, ports, newest_s)) = self.introduction.recv() else { return Ok(None) };
        let introduced = Instant::now();
        let peers = handles.into_iter().enumerate().map(|(shard, handle)| {
            if shard == usize::from(own.0) { None } else { Some(ring.add_peer(handle)) }
        });
        let peers = peers.collect();

        let clock = Clock::new(self.start);
        let mut out = Outputs::default();
        let (shard, report) = recovery.finish(clock.now(), newest_s, &mut out);
        let progress = self.progress;
        Ok(Some(ShardThread {
            own,
            ring,
            shard,
            out,
            clock,
            sockets: Sockets::default(),
            door: Door::default(),
            mesh: self.mesh,
            peers,
            disk: Disk::new(directory, files, self.jobs),
            commands: self.commands,
            replies: HashMap::new(),
            next_reply: 0,
            ports,
            lifecycle,
            board: self.board,
            reporter: Reporter::default(),
            turn_ended_ns: 0,
            boxes_taken_bytes: 0,
            go_on: false,
            has_more: false,
            coming_count: 0,
            woken: true,
            serving: Some(Box::new(move || {
                how_far.done(own.0, read_in + introduced.elapsed());
                let _ = progress.send(Progress::Serving(own, report));
            })),
            spin_ns: self.spin_ns,
            trimmed_at_ns: 0,
            trims: true,
        }))
    }
}
