//! The simulated node: several shards of the real core, driven as the driver would by the contract of
//! `tern_core::io`, with every liberty that the contract leaves to the kernel.
//!
//! Slots are reused at once, lowest first; completions of a socket that is gone come late, after its slot was reused;
//! the two halves of a hand-over come in any order; mesh lanes are bounded; turns take what they like from the queue.

mod even;
mod perform;
mod turn;

use crate::disk::{Crash, Disk, Mood};
use crate::lanes::Lanes;
use crate::logs::LogBooks;
use crate::network::{Direction, LinkId, Owner};
use crate::plan::Plan;
use crate::scene::{Event, Scene};
use crate::schedule::{MS, SECOND, US};
use crate::slots::{Receive, Slots};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use tern_core::ahead::Fetch;
use tern_core::control::{ControlReply, ControlRequest};
use tern_core::counters::Counters;
use tern_core::handover::HandOver;
use tern_core::io::{ConnId, FatalError, HandOverToken, Lane, Now, Outputs};
use tern_core::lanes::boxed_bytes_max;
use tern_core::limits::Limits;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{Shard, ShardConfig, ShardRecovery};
use tern_protocol::ids::ShardId;
use tern_storage::io::DiskDone;
use tern_storage::log::Recovery;

/// A step of the wall clock by more than this is doubted, milliseconds; some more, since shards tell of their last steps.
const FOLLOWED_MS: u64 = 121_000;

/// Something that happens inside a node.
#[derive(Debug)]
pub enum NodeEvent {
    /// A shard's turn.
    Turn(u16),
    /// A completion reaches a shard's queue.
    Post(u16, Completion),
    /// A send may be over.
    SendDone(u16, ConnId),
    /// A second has passed since a close was asked for with a send under way.
    CloseNow(u16, ConnId),
    /// The kernel moves a socket to another shard's table.
    Move(u16, ConnId, ShardId, HandOverToken),
    /// The source's slot of a moved socket closes.
    MovedAway(u16, ConnId),
    /// A disk operation ends.
    Disk(u16, crate::disk::Ticket),
}

/// An [`tern_core::io::Input`] with everything owned: an entry of a shard's completion queue.
#[derive(Debug)]
pub enum Completion {
    /// See `Input`.
    Accepted(u32, Option<SocketAddr>),
    /// See `Input`.
    Received(ConnId, Vec<u8>),
    /// See `Input`.
    Ended(ConnId),
    /// See `Input`.
    Sent(ConnId),
    /// See `Input`.
    Closed(ConnId),
    /// See `Input`.
    SocketMoved(ConnId, bool),
    /// See `Input`.
    HandOverSocket(ShardId, HandOverToken, u32),
    /// See `Input`.
    HandOverState(ShardId, Box<HandOver>),
    /// See `Input`.
    LaneRoom(ShardId, Lane),
    /// See `Input`.
    Disk(DiskDone),
    /// See `Input`.
    Control(u64, ControlRequest),
    /// See `Input`.
    Drain,
}

/// One shard and what its driver keeps for it.
struct Driven {
    shard: Shard,
    inbox: VecDeque<Completion>,
    slots: Slots,
    outputs: Outputs,
    /// When its next turn is.
    turn_ns: Option<u64>,
    /// The next turn begins with a tick.
    tick_due: bool,
    is_serving: bool,
    is_drained: bool,
    /// What it had written again at its last turn, bytes.
    rewritten_bytes: u64,
}

impl Driven {
    fn new(recovery: ShardRecovery, now: Now, newest_s: u32, limits: &Limits) -> Self {
        let mut outputs = Outputs::default();
        let (shard, _report) = recovery.finish(now, newest_s, &mut outputs);
        Self {
            shard,
            inbox: VecDeque::new(),
            slots: Slots::new(limits.connection_count as usize),
            outputs,
            turn_ns: None,
            tick_due: false,
            is_serving: false,
            is_drained: false,
            rewritten_bytes: 0,
        }
    }
}

/// The node: its drives outlive its processes.
pub struct Node {
    /// Counts its lives.
    pub boot: u32,
    driven: Vec<Driven>,
    disks: Vec<Disk>,
    lanes: Lanes,
    /// Where each open socket is: shard and slot.
    places: BTreeMap<LinkId, (u16, u32)>,
    partitions: Arc<PartitionMap>,
    dedup_key: [u8; 16],
    /// What has ever been seen in each log.
    books: Vec<LogBooks>,
    /// Whether each shard wrote again, in its last life, what lived in thin segments.
    have_rewritten: Vec<bool>,
    /// Turns are slow until then, by shard.
    slow_until_ns: Vec<u64>,
    /// Sockets cannot be moved until then.
    moves_fail_until_ns: u64,
    /// By so much its wall clock is wrong, seconds.
    clock_wrong_s: i64,
    /// The monotonic clock began so long before this life, nanoseconds.
    mono_start_ns: u64,
    /// Answers of the control plane.
    pub replies: Vec<(u64, ControlReply)>,
    /// Segments given back because what lived in them was written elsewhere, in all former lives.
    pub segments_rewritten: u64,
    /// A shard stopped the node.
    pub fatal: Option<FatalError>,
    /// Which deliberate bugs are on.
    #[cfg(feature = "bugs")]
    pub bugs: tern_core::bugs::Bugs,
}

fn empty_lanes(plan: &Plan) -> Lanes {
    let boxed_bytes = boxed_bytes_max(plan.shard_count, plan.limits.body_bytes);
    Lanes::new(plan.limits.lane_bytes, boxed_bytes)
}

impl Node {
    /// A node with empty drives that has not started yet.
    #[must_use]
    pub fn new(scene: &mut Scene) -> Self {
        let plan = &scene.plan;
        let (shard_count, disk_ns_max) = (plan.shard_count, plan.disk_ns_max);
        let partitions = Arc::new(PartitionMap::even(plan.partition_count, shard_count));
        let lanes = empty_lanes(plan);
        let segment_bytes = plan.segment_bytes;
        let mood = Mood { latency_ns_max: disk_ns_max, full: false, write_fails: false };
        let disks = (0..shard_count).map(|_| Disk::new(scene.random().fork(), mood)).collect();
        let mut dedup_key = [0; 16];
        scene.random().fill(&mut dedup_key);
        Self {
            boot: 0,
            driven: Vec::new(),
            disks,
            lanes,
            places: BTreeMap::new(),
            partitions,
            dedup_key,
            books: (0..shard_count).map(|shard| LogBooks::new(shard, segment_bytes)).collect(),
            have_rewritten: vec![false; usize::from(shard_count)],
            slow_until_ns: vec![0; usize::from(shard_count)],
            moves_fail_until_ns: 0,
            clock_wrong_s: 0,
            mono_start_ns: 0,
            replies: Vec::new(),
            segments_rewritten: 0,
            fatal: None,
            #[cfg(feature = "bugs")]
            bugs: tern_core::bugs::Bugs::default(),
        }
    }

    /// Whether it runs and all its shards serve.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.driven.is_empty() && self.driven.iter().all(|driven| driven.is_serving)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.driven.is_empty()
    }

    /// Whether every shard has drained.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_up() && self.driven.iter().all(|driven| driven.is_drained)
    }

    /// The shards' counters together.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::total(self.driven.iter().map(|driven| driven.shard.counters()))
    }

    /// Segments in use by the shard that uses most.
    #[must_use]
    pub fn segments_used_max(&self) -> u64 {
        let used = self.driven.iter().map(|driven| driven.shard.counters().segments_used_now);
        used.max().unwrap_or(0)
    }

    /// Everything that the shards hold, to follow a seed.
    #[must_use]
    pub fn describe(&self) -> String {
        self.driven.iter().map(|driven| format!("{:#?}\n", driven.shard)).collect()
    }

    /// Slots in use, all shards together.
    #[must_use]
    pub fn used_slots(&self) -> usize {
        self.driven.iter().map(|driven| driven.slots.used_count()).sum()
    }

    /// Starts the node on its drives.
    pub fn boot(&mut self, scene: &mut Scene) {
        self.boot += 1;
        scene.life = self.boot;
        self.mono_start_ns = scene.random().below(1000 * SECOND);
        // Phones that do not go by what they are told may have messages from before it: it must be the same time.
        if !scene.plan.sets_clock {
            self.set_clock_wrong(0);
        }
        scene.oracle.clocks.node_starts(scene.now_ns());
        let now = self.now(scene);
        self.settle_drives();
        self.read_books(scene);
        let mut recoveries = Vec::new();
        for shard in 0..scene.plan.shard_count {
            match self.read_log(scene, shard) {
                Ok(recovery) => recoveries.push(recovery),
                Err(error) => {
                    scene.schedule.fail(format!("shard {shard} does not recover: {error}"));
                    return;
                }
            }
        }
        let newest_s = recoveries.iter().map(ShardRecovery::newest_s).max().unwrap_or(0);
        let make = |recovery| Driven::new(recovery, now, newest_s, &scene.plan.limits);
        self.driven = recoveries.into_iter().map(make).collect();
        for shard in 0..scene.plan.shard_count {
            self.perform(scene, shard);
            self.turn_soon(scene, shard);
        }
    }

    /// Stops the node at once.
    pub fn crash(&mut self, scene: &mut Scene, crash: Crash) {
        self.check_counters(scene);
        self.boot += 1;
        scene.life = self.boot;
        self.segments_rewritten += self.counters().log_segments_rewritten;
        self.have_rewritten =
            self.driven.iter().map(|driven| driven.shard.counters().log_rewritten_bytes > 0).collect();
        self.driven.clear();
        self.fatal = None;
        self.lanes = empty_lanes(&scene.plan);
        for link in std::mem::take(&mut self.places).into_keys() {
            self.forget(scene, link);
            if crash == Crash::Power && scene.random().chance(50) {
                // The machine is silent until its phones' patience is over.
                scene.network.vanish(link);
            } else {
                scene.reset(link);
            }
        }
        self.disks.iter_mut().for_each(|disk| disk.crash(crash));
    }

    /// The machine dies while the node is down.
    pub fn lose_power(&mut self) {
        self.disks.iter_mut().for_each(|disk| disk.crash(Crash::Power));
    }

    /// What a start does before it reads: what is in the cache is made durable, and what the cache holds and the drive does
    /// not is forgotten.
    fn settle_drives(&mut self) {
        #[cfg(feature = "bugs")]
        let (syncs, forgets) = (!self.bugs.starts_unsynced, !self.bugs.cache_believed);
        #[cfg(not(feature = "bugs"))]
        let (syncs, forgets) = (true, true);
        for disk in &mut self.disks {
            if syncs {
                disk.sync();
            }
            if syncs && forgets {
                disk.forget_cached();
            }
        }
    }

    /// Enters into the books what a power loss would leave now.
    fn read_books(&mut self, scene: &mut Scene) {
        for ((disk, books), &has_rewritten) in
            self.disks.iter().zip(&mut self.books).zip(&self.have_rewritten)
        {
            let verdict = books.read(disk.files(), has_rewritten, &mut scene.oracle);
            if let Err(invariant) = verdict {
                scene.schedule.fail(invariant);
            }
            scene.schedule.tell(|| books.describe());
        }
    }

    /// A link reached the listeners: any shard takes it.
    pub fn knock(&mut self, scene: &mut Scene, link: LinkId) {
        if !self.is_serving() || self.driven.iter().any(|driven| driven.is_drained) {
            scene.reset(link);
            return;
        }
        let shard = scene.random().below(self.driven.len() as u64) as u16;
        let Some(slot) = self.driven[usize::from(shard)].slots.insert(link) else {
            scene.reset(link);
            return;
        };
        self.places.insert(link, (shard, slot));
        if let Owner::Phone(phone) = scene.network.owner(link) {
            scene.open_at_node.insert((phone, link));
        }
        let peer = scene.plan.places.peer(scene.network.owner(link), link);
        self.post(scene, shard, Completion::Accepted(slot, peer));
        self.haunt(scene, shard, slot);
    }

    /// Bytes or the end came from a phone: completes a receive.
    pub fn hear(&mut self, scene: &mut Scene, link: LinkId) {
        if let Some(&(shard, slot)) = self.places.get(&link) {
            self.pump(scene, shard, slot);
        }
    }

    /// The control plane asks a shard.
    pub fn ask(&mut self, scene: &mut Scene, shard: ShardId, token: u64, request: ControlRequest) {
        self.post(scene, shard.0, Completion::Control(token, request));
    }

    /// The shard that holds the directory entry of a name.
    #[must_use]
    pub fn home_of_name(&self, name: &str) -> ShardId {
        self.partitions.home_of_name(name)
    }

    /// Asks every shard to stop politely.
    pub fn drain(&mut self, scene: &mut Scene) {
        for shard in 0..self.driven.len() as u16 {
            self.post(scene, shard, Completion::Drain);
        }
    }

    /// A drive's behaviour.
    pub fn mood(&mut self, shard: u16) -> &mut Mood {
        &mut self.disks[usize::from(shard)].mood
    }

    /// A shard gets little time until then.
    pub fn slow(&mut self, shard: u16, until_ns: u64) {
        self.slow_until_ns[usize::from(shard)] = until_ns;
    }

    /// Sockets cannot be moved until then.
    pub const fn fail_moves(&mut self, until_ns: u64) {
        self.moves_fail_until_ns = until_ns;
    }

    /// The wall clock is wrong by so many seconds from now on.
    pub const fn set_clock_wrong(&mut self, seconds: i64) {
        self.clock_wrong_s = seconds;
    }

    /// Whether the wall clock is so near to what a shard goes by that it is followed at once.
    #[must_use]
    pub fn follows_clock(&self, scene: &Scene) -> bool {
        let now = self.now(scene);
        let mut times = self.driven.iter().map(|driven| driven.shard.time());
        times.any(|time| {
            let passed_ms = now.mono_ns.saturating_sub(time.mono_ns) / MS;
            (time.wall_ms + passed_ms).abs_diff(now.wall_ms) <= FOLLOWED_MS
        })
    }

    fn read_log(&self, scene: &mut Scene, shard: u16) -> Result<ShardRecovery, String> {
        let config = ShardConfig {
            shard: ShardId(shard),
            partitions: Arc::clone(&self.partitions),
            limits: scene.plan.limits,
            proxies: scene.plan.places.proxies(),
            server_keys: scene.server_keys,
            previous_server_keys: scene.previous_server_keys,
            ticket_secret: scene.ticket_secret,
            open_registration: true,
            seed: scene.random().seed(),
            dedup_key: self.dedup_key,
            fetch: Fetch::NOTHING,
            segment_bytes: scene.plan.segment_bytes,
            #[cfg(feature = "bugs")]
            bugs: self.bugs,
        };
        let disk = &self.disks[usize::from(shard)];
        let mut files: Vec<_> = disk
            .cached_files()
            .map(|(segment, bytes)| (Recovery::generation(&bytes[..4096]).unwrap_or(0), segment, bytes))
            .collect();
        files.sort_by_key(|&(generation, segment, _)| (generation, segment));
        let mut recovery = ShardRecovery::new(config);
        for (_, segment, bytes) in files {
            recovery.segment(segment, bytes).map_err(|error| format!("{segment:?}: {error:?}"))?;
        }
        for wanted in recovery.wanted() {
            let file = disk.cached_files().find(|&(segment, _)| segment == wanted);
            let (_, bytes) = file.ok_or_else(|| format!("{wanted:?} is not there"))?;
            recovery.segment_again(wanted, bytes).map_err(|error| format!("{wanted:?}, again: {error:?}"))?;
        }
        Ok(recovery)
    }

    fn now(&self, scene: &Scene) -> Now {
        let wall_ms = scene.schedule.wall_ms().saturating_add_signed(self.clock_wrong_s * 1000);
        Now { mono_ns: self.mono_start_ns + scene.now_ns(), wall_ms }
    }

    /// Puts a completion into a shard's queue now.
    fn post(&mut self, scene: &mut Scene, shard: u16, completion: Completion) {
        self.driven[usize::from(shard)].inbox.push_back(completion);
        self.turn_soon(scene, shard);
    }

    fn turn_soon(&mut self, scene: &mut Scene, shard: u16) {
        let mut delay_ns = scene.plan.turn_ns_max;
        if self.slow_until_ns[usize::from(shard)] > scene.now_ns() {
            delay_ns = 60 * MS;
        }
        let delay_ns = scene.random().below(delay_ns) + US;
        self.turn_at(scene, shard, scene.now_ns() + delay_ns);
    }

    fn turn_at(&mut self, scene: &mut Scene, shard: u16, time_ns: u64) {
        let driven = &mut self.driven[usize::from(shard)];
        if driven.turn_ns.is_none_or(|turn_ns| time_ns < turn_ns) {
            driven.turn_ns = Some(time_ns);
            self.later(scene, time_ns - scene.now_ns(), NodeEvent::Turn(shard));
        }
    }

    fn later(&self, scene: &mut Scene, delay_ns: u64, event: NodeEvent) {
        scene.schedule.after(delay_ns, Event::Node { boot: self.boot, event });
    }

    /// Completes an armed receive with what arrived, or with the end, which is told of a watched socket, too. Nothing else
    /// tells a shard of either.
    fn pump(&mut self, scene: &mut Scene, shard: u16, slot: u32) {
        loop {
            let Some(socket) = self.driven[usize::from(shard)].slots.at(slot) else { return };
            let (Some(conn), link) = (socket.conn, socket.link) else { return };
            if socket.receive == Receive::None {
                if socket.watched && scene.network.end_arrived(link, Direction::Up) {
                    socket.watched = false;
                    self.post(scene, shard, Completion::Ended(conn));
                }
                return;
            }
            let bytes_max = if scene.random().chance(20) { scene.random().range(1, 64) } else { 4096 };
            let bytes = scene.network.read(link, Direction::Up, bytes_max as usize);
            let ended = bytes.is_empty() && scene.network.ended(link, Direction::Up);
            if bytes.is_empty() && !ended {
                return;
            }
            let Some(socket) = self.driven[usize::from(shard)].slots.at(slot) else { return };
            if ended || socket.receive == Receive::Once {
                socket.receive = Receive::None;
            }
            let completion = if ended { Completion::Ended(conn) } else { Completion::Received(conn, bytes) };
            self.post(scene, shard, completion);
        }
    }

    /// Lets completions of the slot's former socket come late, now that the slot has a new one.
    fn haunt(&mut self, scene: &mut Scene, shard: u16, slot: u32) {
        let Some(old) = self.driven[usize::from(shard)].slots.last(slot) else { return };
        if !scene.random().chance(40) {
            return;
        }
        let mut bytes = vec![0; scene.random().range(1, 40) as usize];
        scene.random().fill(&mut bytes);
        let completion = match scene.random().below(4) {
            0 => Completion::Ended(old),
            1 => Completion::Sent(old),
            _ => Completion::Received(old, bytes),
        };
        let delay_ns = scene.random().below(30 * MS);
        self.later(scene, delay_ns, NodeEvent::Post(shard, completion));
    }

    /// The node holds this link no longer.
    fn forget(&self, scene: &mut Scene, link: LinkId) {
        if let Owner::Phone(phone) = scene.network.owner(link) {
            scene.open_at_node.remove(&(phone, link));
        }
    }
}
