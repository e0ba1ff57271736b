//! What the admin endpoint knows of the node.

use super::gate::Gate;
use super::hottest::Found;
use super::reply::Refusal;
use crate::data;
use crate::exit::Failure;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tern_core::control::{ControlReply, ControlRequest};
use tern_driver::{Control, Exit, Node, RecoveryReport, ShardReport};
use tern_protocol::ids::ShardId;

/// Longest wait for a shard's answer: many commits of a slow drive.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The running node as the admin endpoint sees it.
pub(crate) struct Plane {
    node: Node,
    control: Control,
    exited: flume::Receiver<Exit>,
    admin: SocketAddr,
    server_key: [u8; 32],
    boot_id: String,
    started: Instant,
    started_unix_s: u64,
    gate: Gate,
    hottest: tokio::sync::Mutex<Option<Found>>,
    draining: AtomicBool,
}

impl Plane {
    /// Takes the node; draws this process's boot id.
    ///
    /// # Errors
    /// No randomness.
    pub(crate) fn new(
        node: Node,
        admin: SocketAddr,
        server_key: [u8; 32],
        gate: Gate,
    ) -> Result<Self, Failure> {
        Ok(Self {
            control: node.control(),
            exited: node.exited(),
            node,
            admin,
            server_key,
            boot_id: data::to_hex(&data::random::<16>()?),
            started: Instant::now(),
            started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            gate,
            hottest: tokio::sync::Mutex::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// Where phones connect.
    pub(crate) fn phone(&self) -> SocketAddr {
        self.node.phone_addr()
    }

    /// Where this endpoint is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The server's public key, as hex.
    pub(super) fn server_key(&self) -> String {
        data::to_hex(&self.server_key)
    }

    /// A name for this run of the process; a new one at each start.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// How long the node has been serving.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the node began to serve, seconds of Unix time.
    pub(super) fn started_unix_s(&self) -> u64 {
        self.started_unix_s
    }

    /// Who may ask.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The last search for the fullest mailboxes.
    pub(super) fn hottest(&self) -> &tokio::sync::Mutex<Option<Found>> {
        &self.hottest
    }

    /// What each shard tells.
    pub(super) fn reports(&self) -> Vec<ShardReport> {
        self.node.reports()
    }

    /// What all shards tell together.
    pub(super) fn totals(&self) -> ShardReport {
        let mut totals = ShardReport::default();
        self.reports().iter().for_each(|shard| totals.add(shard));
        totals
    }

    /// What recovery found, for each shard.
    pub(super) fn recovery(&self) -> &[RecoveryReport] {
        self.node.recovery()
    }

    /// Number of shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        (0..self.node.recovery().len()).map(|shard| ShardId(shard as u16))
    }

    /// The shard of a valid name's account.
    pub(super) fn shard_of_name(&self, name: &str) -> ShardId {
        self.control.shard_of_name(name)
    }

    /// Starts to drain. False if it does already.
    pub(crate) fn drain(&self) -> bool {
        let starts = !self.draining.swap(true, Ordering::Relaxed);
        if starts {
            tracing::info!("draining");
            self.node.drain();
        }
        starts
    }

    /// Whether the node drains.
    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How the node ends, once.
    pub(crate) fn exited(&self) -> flume::Receiver<Exit> {
        self.exited.clone()
    }

    /// Asks a shard and waits for its answer.
    ///
    /// # Errors
    /// The shard refuses, is gone, or takes more than half a minute (it may still do it).
    pub(super) async fn ask(&self, shard: ShardId, request: ControlRequest) -> Result<ControlReply, Refusal> {
        let answer = self.control.request(shard, request);
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
