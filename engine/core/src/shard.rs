//! One shard: everything that one thread owns, behind one pure step function. This file is the table of contents:
//! [`Shard::step`] shows where each input's journey begins, and `flush` how a turn ends. In between, what one part of the
//! shard wants of another it asks for by a call; only what may be for another shard goes by an envelope, and envelopes
//! for this shard wait in the router until the input is done, or, where phones talk, until some have come together.

use crate::account::{Accounts, SeededHash};
use crate::addresses::Addresses;
use crate::admission::{Budget, Rates};
use crate::ahead::Fetch;
use crate::busiest::Busiest;
use crate::counters::Counters;
use crate::dedup::Dedup;
use crate::devices::Leaving;
use crate::edges::Edges;
use crate::expiry::Sweep;
use crate::handover::HandOvers;
use crate::home::RefusalKey;
use crate::io::{ConnId, FatalError, Input, KEPT_BYTES, Now, Output, Outputs};
use crate::limits::Limits;
use crate::measures::{self, Measures};
use crate::networks::Network;
use crate::partitions::PartitionMap;
use crate::presence::Watches;
use crate::ready_keys::ReadyKeys;
use crate::recovery::KnownDamage;
use crate::refusal::Refusal;
use crate::rest::Stirred;
use crate::rewrite::Rewriting;
use crate::router::Router;
use crate::session::Sessions;
use crate::ticks::Owed;
use crate::wall_clock::WallClock;
use crate::wheel::Wheel;
use crate::writer::{Item, Writer};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::replace;
use hashbrown::HashMap;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tern_protocol::envelope::Envelope;
use tern_protocol::ids::{AccountId, MessageId, Seq, ShardId};
use tern_protocol::phone::frame::GoodbyeReason;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::noise::StaticKey;
use tern_protocol::phone::ticket::TicketKeys;
use tern_storage::cache::Cache;
use tern_storage::log::Log;

pub use crate::recovery::{RecoveryReport, ShardRecovery};
pub use tern_storage::log::RecoveryError;

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which one it is.
    pub shard: ShardId,
    /// Who owns which partition.
    pub partitions: Arc<PartitionMap>,
    /// Its limits, validated.
    pub limits: Limits,
    /// Balancers: a connection from here must begin with a PROXY header, one from elsewhere must not.
    pub proxies: Arc<[Network]>,
    /// The node's static key.
    pub server_keys: KeyPair,
    /// The static key before it, which clients may still know for a time.
    pub previous_server_keys: Option<KeyPair>,
    /// The secret behind resume tickets; the same for all shards and for the life of the data directory.
    pub ticket_secret: [u8; 32],
    /// Whether phones may register themselves.
    pub open_registration: bool,
    /// 32 random bytes that nothing else uses: all randomness of the shard comes from them.
    pub seed: [u8; 32],
    /// The key of remembered message ids; the same for the life of the data directory.
    pub dedup_key: [u8; 16],
    /// How memory is asked for that will be needed soon.
    pub fetch: Fetch,
    /// Length of new log segments.
    pub segment_bytes: u32,
    /// Deliberate bugs.
    #[cfg(feature = "bugs")]
    pub bugs: crate::bugs::Bugs,
}

/// Whether a deliberate bug is on: never, without the feature.
macro_rules! bug {
    ($shard:expr, $name:ident) => {{
        #[cfg(feature = "bugs")]
        {
            $shard.config.bugs.$name
        }
        #[cfg(not(feature = "bugs"))]
        {
            let _ = &$shard.config;
            false
        }
    }};
}
pub(crate) use bug;

/// One thread's share of a node.
#[derive(Debug)]
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) server_key: StaticKey,
    /// The key before it, while clients may still know only that one.
    pub(crate) previous_key: Option<StaticKey>,
    pub(crate) ticket_keys: TicketKeys,
    /// Tickets that were made up to this second, of Unix time, are worth nothing: the log was damaged where it said which of
    /// them were used. The record of the epoch keeps it.
    pub(crate) tickets_after_s: Option<u32>,
    /// What that record says of damage beside.
    pub(crate) damage: KnownDamage,
    /// Accounts with mail in files that were not there for a time: the first copy of it takes all their floors along.
    pub(crate) returned: BTreeSet<AccountId>,
    pub(crate) counters: Counters,
    pub(crate) measures: Measures,
    pub(crate) now: Now,
    pub(crate) wall_clock: WallClock,
    pub(crate) wheel: Wheel,
    pub(crate) rng: ChaCha20Rng,

    pub(crate) addresses: Addresses,
    pub(crate) rates: Rates,
    /// What accounts may still ask for, and what they may still say in all.
    pub(crate) asking: Budget,
    pub(crate) saying: Budget,
    /// How many devices accounts may still add.
    pub(crate) adding: Budget,
    /// Frames that were said and are not counted yet, all by one connection.
    pub(crate) heard_frame_count: u32,
    pub(crate) edges: Edges,
    pub(crate) ready_keys: ReadyKeys,
    pub(crate) hand_overs: HandOvers,
    pub(crate) handshakes_left: u32,
    /// Logins that were welcomed.
    pub(crate) greeting_count: u64,
    pub(crate) sessions: Sessions,
    pub(crate) router: Router,

    pub(crate) accounts: Accounts,
    pub(crate) dedup: Dedup,
    pub(crate) refusals: HashMap<RefusalKey, Refusal, SeededHash>,
    /// Ticks that nobody has confirmed.
    pub(crate) owed: Owed,
    pub(crate) sweep: Sweep,
    pub(crate) watches: Watches,
    /// Accounts that hold memory for their traffic.
    pub(crate) stirred: Stirred,
    pub(crate) busiest: Busiest,
    /// Revoked devices that mailboxes have not let go of, and mailboxes of removed accounts.
    pub(crate) leaving: VecDeque<Leaving>,

    pub(crate) cache: Cache,
    pub(crate) writer: Writer,
    /// What is under way of writing live records of thin segments elsewhere.
    pub(crate) rewriting: Option<Rewriting>,
    pub(crate) epoch: u32,
    pub(crate) next_seq: Seq,

    pub(crate) serving: bool,
    pub(crate) draining: bool,
    drained: bool,
    /// When a drain stops waiting for a log that takes no more, monotonic nanoseconds.
    drain_until_ns: u64,
    /// Phones that were connected when a drain began: so many come back.
    drained_count: u32,
    next_chores_ns: u64,
    /// When the last chores were done.
    pub(crate) chores_done_ns: u64,
    /// Whether anything has come since then.
    is_awake: bool,
    loopback: Vec<u8>,
    /// Kept for its memory: messages whose `sent` a delivery implied, and to whom they went.
    pub(crate) said_sent: Vec<(AccountId, MessageId)>,
}

/// How often the chores are done: segments, horizons, expiry.
const CHORES_NS: u64 = 1_000_000_000;
/// How often in a shard to which nothing comes and that has nothing to give back: what wakes it now are only these.
const REST_NS: u64 = 10_000_000_000;
/// Phones of a drained shard that are asked back per second: a core does several times as many logins, and has others
/// to serve.
const RETURNS_PER_S: u32 = 1_000;
/// Bytes of envelopes to the own shard that wait for company, while nothing else comes than bytes of phones.
const GATHERED_BYTES: usize = 4 << 10;
/// How long a drain waits for the log.
const DRAIN_NS: u64 = 10_000_000_000;

impl Shard {
    pub(crate) fn new(config: ShardConfig, now: Now, log: Log) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let hash = SeededHash(rng.next_u64(), rng.next_u64());
        let limits = config.limits;
        let rates = Rates::new(&limits);
        let partitions = &config.partitions;
        let router = Router::new(config.shard, partitions.shard_count(), &limits);
        Self {
            server_key: StaticKey::new(&config.server_keys),
            previous_key: config.previous_server_keys.as_ref().map(StaticKey::new),
            ticket_keys: TicketKeys::new(&config.ticket_secret),
            tickets_after_s: None,
            damage: KnownDamage::default(),
            returned: BTreeSet::new(),
            counters: Counters::default(),
            measures: Measures::default(),
            now,
            wall_clock: WallClock::new(now),
            wheel: Wheel::new(now.mono_ns),
            rng,
            addresses: Addresses::new(&limits, partitions.shard_count(), hash),
            rates,
            asking: Budget::of_asks(&limits, hash),
            saying: Budget::of_frames(&rates, hash),
            adding: Budget::of_devices(&limits, hash),
            heard_frame_count: 0,
            edges: Edges::new(&limits),
            ready_keys: ReadyKeys::new(&limits),
            hand_overs: HandOvers::default(),
            handshakes_left: limits.handshakes_per_turn,
            greeting_count: 0,
            sessions: Sessions::new(&limits),
            router,
            accounts: Accounts::new(hash),
            dedup: Dedup::new(config.dedup_key, limits.dedup_horizon_ms, limits.dedup_count),
            refusals: HashMap::with_hasher(hash),
            owed: Owed::default(),
            sweep: Sweep::default(),
            watches: Watches::default(),
            stirred: Stirred::default(),
            busiest: Busiest::default(),
            leaving: VecDeque::new(),
            cache: Cache::default(),
            writer: Writer::new(log, limits.commit_bytes, limits.dedup_count),
            rewriting: None,
            epoch: 0,
            next_seq: Seq(1),
            serving: false,
            draining: false,
            drained: false,
            drain_until_ns: u64::MAX,
            drained_count: 0,
            next_chores_ns: now.mono_ns + CHORES_NS,
            chores_done_ns: now.mono_ns,
            is_awake: true,
            loopback: Vec::new(),
            said_sent: Vec::new(),
            config,
        }
    }

    /// Takes one input; appends what is to be done to `out`.
    pub fn step(&mut self, now: Now, input: Input<'_>, out: &mut Outputs) {
        let now = self.clocks(now);
        self.now = now;
        if !matches!(input, Input::Tick | Input::Flush) {
            self.is_awake = true;
            self.next_chores_ns = self.next_chores_ns.min(now.mono_ns + CHORES_NS);
        }
        // What phones say waits for company, so that it is known what will be needed for it, and for nothing else.
        let gathers = matches!(input, Input::Received { .. });
        if !gathers {
            self.work_through_loopback(now);
        }
        match self.checked(input) {
            Input::Accepted { slot, peer } => self.accepted(now, slot, peer, out),
            Input::Received { conn, bytes } => self.received(now, conn, bytes, out),
            Input::Ended { conn } => self.ended(conn),
            Input::Sent { conn } => self.sent(now, conn, out),
            Input::Closed { conn } => self.closed(conn),
            Input::SocketMoved { conn, moved } => self.socket_moved(conn, moved, out),
            half @ (Input::HandOverSocket { .. } | Input::HandOverState { .. }) => {
                self.take_half(now, half, out);
            }
            Input::Mesh { envelopes, .. } => self.handle_run(now, envelopes, true),
            Input::LaneRoom { to, lane, room_bytes } => self.router.set_room(to, lane, room_bytes),
            // The deliberate bug: what was taken stays counted.
            Input::BoxesTaken { .. } if bug!(self, boxes_kept) => {}
            Input::BoxesTaken { taken_bytes } => self.router.boxes_taken(taken_bytes),
            Input::Disk(done) => self.disk_done(now, done, out),
            Input::Control { token, request } => self.control(token, request, out),
            Input::Tick => {
                self.use_deferred(now, out);
                self.let_go(now);
                self.go_on_passing(now);
                self.go_on_sweeping(now);
            }
            Input::Flush => self.flush(now, out),
            Input::Drain => self.drain(),
        }
        if !gathers || self.router.loopback_bytes() >= GATHERED_BYTES {
            self.work_through_loopback(now);
        }
    }

    /// The machine's clocks, as far as they are believed.
    pub(crate) fn clocks(&mut self, now: Now) -> Now {
        if bug!(self, clock_believed) {
            return now;
        }
        let now = self.wall_clock.tell(now);
        if self.wall_clock.was_set() && !bug!(self, dropped_stays) {
            // At once: new messages come by the new time, and room is made by it.
            self.dedup.clock_is_set((now.wall_ms / 1000) as u32);
            self.rotate_ids(now);
            self.tickets_start_anew(now);
        }
        now
    }

    /// Where tickets count only from a second on, that was one of another clock: by it they could be refused for a month,
    /// or all of them count. From now on they are made by the present one.
    fn tickets_start_anew(&mut self, now: Now) {
        if self.tickets_after_s.is_some() {
            self.tickets_after_s = Some((now.wall_ms / 1000) as u32);
            self.writer.push_urgent(Item::Epoch);
        }
    }

    /// When the shard wants a `Tick` although nothing happens, monotonic nanoseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let chores = Some(self.next_chores_ns);
        let owed = self.owed.next_deadline();
        let commit = self.writer.next_deadline();
        let watches = self.watches.next_deadline();
        let rewriting = self.rewriting.as_ref().map(Rewriting::due_ns);
        [
            self.wheel.next_deadline(),
            self.hand_overs.next_deadline(),
            owed,
            commit,
            chores,
            watches,
            rewriting,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the shard has counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Which one it is.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.config.shard
    }

    /// The time that the shard goes by, as of its last step.
    #[must_use]
    pub const fn time(&self) -> Now {
        self.now
    }

    /// What the shard has measured.
    #[must_use]
    pub fn measures(&self) -> Measures {
        debug_assert!(self.router.counts.keep_their_lanes(), "those that come are counted by their lanes");
        Measures { out: self.router.counts, ..self.measures }
    }

    /// The deliberate bug: a completion is taken for the present user of its slot.
    #[cfg(feature = "bugs")]
    fn checked<'a>(&self, mut input: Input<'a>) -> Input<'a> {
        if self.config.bugs.generation_ignored {
            match &mut input {
                Input::Received { conn, .. }
                | Input::Ended { conn }
                | Input::Sent { conn }
                | Input::Closed { conn }
                | Input::SocketMoved { conn, .. } => {
                    if let Some(present) = self.edges.present(conn.slot) {
                        *conn = present;
                    }
                }
                _ => {}
            }
        }
        input
    }

    #[cfg(not(feature = "bugs"))]
    #[allow(clippy::unused_self)]
    const fn checked<'a>(&self, input: Input<'a>) -> Input<'a> {
        input
    }

    /// The turn ends: deadlines, the commit, then everything that is to be said leaves together.
    fn flush(&mut self, now: Now, out: &mut Outputs) {
        while let Some(payload) = self.wheel.pop(now.mono_ns) {
            self.edge_deadline(now, payload, out);
        }
        self.expire_hand_overs(now, out);
        self.retry_ticks(now);
        if self.next_chores_ns <= now.mono_ns {
            self.do_chores(now, out);
            let pause_ns = if self.is_at_rest() { REST_NS } else { CHORES_NS };
            (self.chores_done_ns, self.next_chores_ns) = (now.mono_ns, now.mono_ns + pause_ns);
        }
        self.go_on_rewriting(now);
        self.tell_changes(now);
        self.work_through_loopback(now);
        self.try_commit(now, out);
        self.work_through_loopback(now);
        self.router.flush(out);
        self.flush_edges(out);
        self.handshakes_left = self.config.limits.handshakes_per_turn;
        if self.edges.has_handshakes() || self.has_pieces_left() || self.watches.has_more() {
            out.push(Output::Continue);
        }
        // What a full drive does not take in time was never ticked: its senders still have it.
        let is_safe = self.writer.is_idle() || self.drain_until_ns <= now.mono_ns;
        // A socket whose state is still on its way is open, too; it is joined or given up in time.
        let is_empty = self.edges.open_count() == 0 && self.hand_overs.next_deadline().is_none();
        if self.draining && !self.drained && is_empty && is_safe {
            self.drained = true;
            out.push(Output::Drained);
        }
        self.count_now();
    }

    fn do_chores(&mut self, now: Now, out: &mut Outputs) {
        self.writer.want_spares(out);
        // Without room for the epoch no phone comes that could make any; where all files are used no write fails either.
        if !self.serving && self.writer.carried.is_empty() && self.writer.log.is_full() {
            out.push(Output::Fatal(FatalError::LogFullAtBoot));
        }
        self.give_up_waiting(out);
        self.forget_waiters();
        let oldest_s = self.rotate_ids(now);
        self.writer.drop_ids_before(oldest_s);
        self.begin_rewriting(now);
        self.begin_sweep(now);
        self.shrink_silent_keys(now);
        self.let_accounts_rest(now);
        self.busiest.fade();
        self.forget_refusals(now);
        self.forget_watches(now);
        self.writer.note_freed();
        self.writer.shrink();
        self.loopback.shrink_to(KEPT_BYTES);
        self.router.shrink();
        out.shrink();
    }

    /// Whether long work is under way that is done in pieces, one a turn.
    fn has_pieces_left(&self) -> bool {
        !self.leaving.is_empty() || self.sessions.are_passing() || self.sweep.has_more()
    }

    /// Whether a drive has no room, or what was accepted waits for the log: each chores may ask the drive again, and those
    /// who are refused meanwhile shall not wait for long once there is room.
    fn waits_for_room(&self) -> bool {
        let Writer { log, urgent, .. } = &self.writer;
        log.is_full() || log.is_low() || !urgent.is_empty()
    }

    /// Whether nothing has come since the last chores, and these have left nothing for the next ones.
    fn is_at_rest(&mut self) -> bool {
        let was_awake = replace(&mut self.is_awake, false);
        let has_more = !self.serving
            || self.draining
            || self.rewriting.is_some()
            || self.stirred.count() > 0
            || !self.ready_keys.is_empty()
            || self.has_pieces_left()
            || self.waits_for_room()
            || !self.busiest.is_empty()
            || self.dedup.is_freeing();
        !was_awake && !has_more
    }

    /// Forgets ids that have left the horizon; returns the first second that is kept.
    pub(crate) fn rotate_ids(&mut self, now: Now) -> u32 {
        let oldest_s = self.wall_clock.lived_ago(now, self.config.limits.dedup_horizon_ms / 1000);
        self.dedup.rotate((now.wall_ms / 1000) as u32, oldest_s, self.wall_clock.told_s(now));
        oldest_s
    }

    fn count_now(&mut self) {
        self.counters.connections_now = self.edges.open_count() as u64;
        self.counters.timers_now = self.wheel.armed_count() as u64;
        self.counters.sessions_now = self.sessions.count() as u64;
        self.counters.accounts_now = self.accounts.count() as u64;
        self.counters.mail_bytes_now = self.cache.bytes_used() as u64;
        self.counters.mail_held_bytes_now = self.mail_held_bytes() as u64;
        self.counters.deferred_now = self.edges.deferred_count() as u64;
        self.counters.ready_keys_now = self.ready_keys.count() as u64;
        self.counters.edge_bytes_now = self.edges.buffer_bytes() as u64;
        self.counters.stirred_now = self.stirred.count() as u64;
        self.counters.watches_now = self.watches.count as u64;
        self.counters.unanswered_now = self.sessions.unanswered_count as u64;
        self.counters.addresses_forgotten = self.addresses.forgotten_count;
        self.counters.ids_now = self.dedup.count() as u64;
        self.counters.ids_reach_s_now = u64::from(self.dedup.reach_s());
        self.counters.clock_steps = self.wall_clock.step_count;
        self.counters.clock_doubted_now = u64::from(self.wall_clock.is_in_doubt());
        self.counters.ids_full = self.dedup.hit_count;
        self.counters.mesh_out = self.router.cast_count;
        self.counters.mesh_dropped = self.router.dropped_count;
        self.counters.mesh_backlog_bytes_now = self.router.waiting_bytes() as u64;
        self.counters.lane_full = self.router.full_count;
    }

    fn work_through_loopback(&mut self, now: Now) {
        let mut run = core::mem::take(&mut self.loopback);
        while self.router.take_loopback(&mut run) {
            self.handle_run(now, &run, false);
            run.clear();
        }
        self.loopback = run;
    }

    fn handle_run(&mut self, now: Now, mut run: &[u8], from_mesh: bool) {
        let mut coming = self.look_ahead(run);
        while !run.is_empty() {
            self.look_on(&mut coming);
            // Lanes carry what shards of this node encoded: anything else is our own bug.
            let (envelope, rest) = Envelope::parse_first(run).expect("shards cast whole envelopes");
            if from_mesh {
                self.counters.mesh_in += 1;
                self.measures.mesh_in[measures::place(envelope.kind())] += 1;
            }
            self.handle(now, envelope);
            run = rest;
        }
    }

    /// Stops politely: phones are sent away, everything accepted is committed at once. Asked again, it goes on.
    fn drain(&mut self) {
        if replace(&mut self.draining, true) {
            return;
        }
        self.drain_until_ns = self.now.mono_ns + DRAIN_NS;
        self.writer.hurry();
        let all: Vec<ConnId> = self.edges.all().collect();
        self.drained_count = all.len() as u32;
        for conn in all {
            let retry_ms = self.drain_ms();
            self.send_away(conn, GoodbyeReason::Draining, retry_ms);
        }
    }

    /// How long a phone of a draining shard shall wait: the more there were, the further apart, so that no more than
    /// [`RETURNS_PER_S`] of them come back in a second on average.
    pub(crate) fn drain_ms(&mut self) -> u32 {
        let spread_ms = u64::from(self.drained_count) * 1000 / u64::from(RETURNS_PER_S);
        let spread_ms = (spread_ms as u32).max(self.config.limits.busy_ms);
        self.config.limits.busy_ms + self.rng.next_u32() % (spread_ms + 1)
    }

    /// How long a refused sender shall wait: the limit and up to as much again, so that not all come back at once.
    pub(crate) fn busy_ms(&mut self) -> u32 {
        let base = self.config.limits.busy_ms;
        base + self.rng.next_u32() % (base + 1)
    }

    /// Likewise, where a lane was full: at most as long as for anything else.
    pub(crate) fn lane_busy_ms(&mut self, home: ShardId) -> u32 {
        let full_ms = self.router.full_ms(home, self.now.mono_ns);
        let base = full_ms.min(u64::from(self.config.limits.busy_ms)) as u32;
        base + self.rng.next_u32() % (base + 1)
    }

    /// 32 bytes for one handshake.
    pub(crate) fn random_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}
