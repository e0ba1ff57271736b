//! What the admin endpoint knows of the node.

use super::gate::Gate;
use super::hottest::Found;
use super::reply::Refusal;
use crate::data;
use crate::exit::Failure;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tern_core::control::{ControlReply, ControlRequest};
use tern_core::counters::Counters;
use tern_core::limits::Limits;
use tern_driver::{Control, Node, RecoveryReport, ShardReport, ShardStart, StartProgress};
use tern_protocol::ids::ShardId;

/// Longest wait for a shard's answer: many commits of a slow drive.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How late a shard may be for a turn; past this its phones hear nothing.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What is known of a node before it serves.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Shards.
    pub(crate) shard_count: u16,
    /// Where phones shall connect; port 0 before the system has picked one.
    pub(crate) phone: SocketAddr,
    /// Where this endpoint is.
    pub(crate) admin: SocketAddr,
    /// The server's public key.
    pub(crate) server_key: [u8; 32],
    /// Where the log is.
    pub(crate) data: PathBuf,
    /// The limits in force.
    pub(crate) limits: Limits,
}

/// The node as the admin endpoint sees it: from before its recovery until its end.
pub(crate) struct Plane {
    about: About,
    start: Arc<StartProgress>,
    /// Filled when the node serves.
    serving: OnceLock<Serving>,
    boot_id: String,
    started: Instant,
    started_unix_s: u64,
    gate: Arc<Gate>,
    hottest: tokio::sync::Mutex<Option<Found>>,
    draining: AtomicBool,
}

struct Serving {
    node: Node,
    control: Control,
}

/// What keeps a node from being healthy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    Recovering(Recovering),
    Draining,
    /// Shards, and how late they are for a turn.
    Stuck(Vec<(ShardId, Duration)>),
}

/// How far the start of all shards is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recovering {
    pub(crate) shard_count: usize,
    pub(crate) done_count: usize,
    pub(crate) segment_count: u64,
    pub(crate) read_count: u64,
    /// Blocks that the drives did not give.
    pub(crate) unreadable_count: u64,
}

impl fmt::Display for Recovering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard_count, done_count, segment_count, read_count, unreadable_count } = self;
        write!(
            f,
            "recovering: {done_count} of {shard_count} shards are done, {read_count} of {segment_count} segments read"
        )?;
        match unreadable_count {
            0 => Ok(()),
            count => write!(f, ", {count} times a drive did not give a block"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovering(recovering) => recovering.fmt(f),
            Self::Draining => f.write_str("draining"),
            Self::Stuck(shards) => {
                let each = |(shard, age): &(ShardId, Duration)| {
                    format!("shard {} should have turned {} s ago", shard.0, age.as_secs())
                };
                f.write_str(&shards.iter().map(each).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Plane {
    /// Of a node that is still to be started; draws this process's boot id.
    ///
    /// # Errors
    /// No randomness.
    pub(crate) fn new(about: About, gate: Gate) -> Result<Self, Failure> {
        Ok(Self {
            start: Arc::new(StartProgress::new(about.shard_count)),
            about,
            serving: OnceLock::new(),
            boot_id: data::to_hex(&data::random::<16>()?),
            started: Instant::now(),
            started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            gate: Arc::new(gate),
            hottest: tokio::sync::Mutex::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// The node serves, and belongs to the plane from now on. Once.
    pub(crate) fn serves(&self, node: Node) {
        let serving = Serving { control: node.control(), node };
        assert!(self.serving.set(serving).is_ok(), "a plane is of one node");
    }

    /// How far the node's start is, shard by shard.
    pub(crate) fn start_progress(&self) -> &Arc<StartProgress> {
        &self.start
    }

    /// How far it is in sum.
    pub(crate) fn recovering(&self) -> Recovering {
        let shards: Vec<_> = self.start.shards().collect();
        let sum = |pick: fn(&ShardStart) -> u32| shards.iter().map(|shard| u64::from(pick(shard))).sum();
        Recovering {
            shard_count: shards.len(),
            done_count: shards.iter().filter(|shard| shard.took.is_some()).count(),
            segment_count: sum(|shard| shard.segment_count),
            read_count: sum(|shard| shard.read_count),
            unreadable_count: sum(|shard| shard.unreadable_count),
        }
    }

    /// Why the node is not healthy, if it is not.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if self.serving.get().is_none() {
            return Some(Trouble::Recovering(self.recovering()));
        }
        if self.draining() {
            return Some(Trouble::Draining);
        }
        Some(self.stuck()).filter(|stuck| !stuck.is_empty()).map(Trouble::Stuck)
    }

    /// Shards that should have turned too long ago, and how long.
    pub(crate) fn stuck(&self) -> Vec<(ShardId, Duration)> {
        let late = self.turns_late_by().into_iter().enumerate();
        late.filter(|(_, late)| *late > STUCK_AFTER)
            .map(|(shard, late)| (ShardId(shard as u16), late))
            .collect()
    }

    /// For how long each shard's next turn has been due; empty before they serve.
    pub(super) fn turns_late_by(&self) -> Vec<Duration> {
        self.serving.get().map(|serving| serving.node.turns_late_by()).unwrap_or_default()
    }

    /// Where phones connect.
    pub(crate) fn phone(&self) -> SocketAddr {
        self.serving.get().map_or(self.about.phone, |serving| serving.node.phone_addr())
    }

    /// Where this endpoint is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.about.admin
    }

    /// The server's public key, as hex.
    pub(super) fn server_key(&self) -> String {
        data::to_hex(&self.about.server_key)
    }

    /// A name for this run of the process; a new one at each start.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The limits in force.
    pub(super) fn limits(&self) -> &Limits {
        &self.about.limits
    }

    /// Where the log is.
    pub(super) fn data(&self) -> &Path {
        &self.about.data
    }

    /// How long this process has been running.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When it started, seconds of Unix time.
    pub(super) fn started_unix_s(&self) -> u64 {
        self.started_unix_s
    }

    /// Who may ask.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The last search for the fullest mailboxes.
    pub(super) fn hottest(&self) -> &tokio::sync::Mutex<Option<Found>> {
        &self.hottest
    }

    /// What each shard tells; empty before they serve.
    pub(super) fn reports(&self) -> Vec<ShardReport> {
        self.serving.get().map(|serving| serving.node.reports()).unwrap_or_default()
    }

    /// What all shards counted together; nothing before they serve.
    pub(super) fn counters(&self) -> Counters {
        let shards = self.serving.get().map(|serving| serving.node.counters());
        Counters::total(shards.iter().flatten())
    }

    /// What recovery found, for each shard; empty before they serve.
    pub(super) fn recovery(&self) -> &[RecoveryReport] {
        self.serving.get().map_or(&[], |serving| serving.node.recovery())
    }

    /// Number of shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        (0..self.about.shard_count).map(ShardId)
    }

    /// The shard of a valid name's account.
    ///
    /// # Errors
    /// The node does not serve yet.
    pub(super) fn shard_of_name(&self, name: &str) -> Result<ShardId, Refusal> {
        Ok(self.control()?.shard_of_name(name))
    }

    /// Whether there are shards to ask yet.
    ///
    /// # Errors
    /// The node does not serve yet.
    pub(super) fn can_ask(&self) -> Result<(), Refusal> {
        self.control().map(drop)
    }

    fn control(&self) -> Result<&Control, Refusal> {
        let refused = || Refusal::unavailable(self.recovering().to_string());
        self.serving.get().map(|serving| &serving.control).ok_or_else(refused)
    }

    /// Starts to drain. False if it does already.
    pub(crate) fn drain(&self) -> bool {
        let starts = !self.draining.swap(true, Ordering::Relaxed);
        if starts {
            tracing::info!("draining");
            self.serving.get().into_iter().for_each(|serving| serving.node.drain());
        }
        starts
    }

    /// Stops the node, and names its threads that have not ended after so long.
    pub(crate) fn stop_within(&self, patience: Duration) -> Vec<String> {
        self.serving.get().map(|serving| serving.node.stop_within(patience)).unwrap_or_default()
    }

    /// Whether the node drains.
    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Asks a shard and waits for its answer.
    ///
    /// # Errors
    /// The node does not serve yet; the shard refuses, is gone, or takes more than half a minute (it may still do it).
    pub(super) async fn ask(&self, shard: ShardId, request: ControlRequest) -> Result<ControlReply, Refusal> {
        let answer = self.control()?.request(shard, request);
        match tokio::time::timeout(ANSWER_WAIT, answer.recv_async()).await {
            Ok(Ok(ControlReply::Refused)) => {
                Err(Refusal::unavailable("the node is draining, or its drive is full"))
            }
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Refusal::unavailable("the shard is gone")),
            Err(_) => Err(Refusal::unavailable("the shard did not answer in time; it may still do it")),
        }
    }
}
