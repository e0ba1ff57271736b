//! One shard's thread: its turn, and how what happens becomes inputs of the shard.

use crate::clock::Clock;
use crate::control::{Command, Port, next_wanted};
use crate::disk::Disk;
use crate::lifecycle::{Exit, Lifecycle};
use crate::mesh::{Arrival, MeshEnd};
use crate::report::{Board, Reporter};
use crate::sockets::{Sockets, connection, read_hand_over_message};
use std::collections::HashMap;
use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;
use tern_core::control::ControlReply;
use tern_core::io::{HandOverToken, Input, Now, Outputs};
use tern_core::shard::Shard;
use tern_protocol::ids::ShardId;
use tern_ring::{Event, ListenerId, Peer, Ring};
use tracing::warn;

/// Commands of the control plane that one turn takes.
const COMMANDS_OF_A_TURN: usize = 4;
/// Events that a turn takes: when ten thousand phones go at once, what the others say is answered in between.
const EVENTS_OF_A_TURN: usize = 1024;
/// How long the door stays shut after the system refused to accept.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;
/// Longest sleep.
const SLEEP_MAX_NS: u64 = 60_000_000_000;
/// How often a shard that is awake looks for memory that its ring does not need.
const TRIM_NS: u64 = 1_000_000_000;
/// So many looks a shard that sleeps leaves out and makes up for in one turn: waking costs more than looking.
const TRIMS_TOGETHER: u64 = 4;

/// The way in: shut until all shards can serve, because the system spreads phones over those that listen.
#[derive(Default)]
pub(crate) struct Door {
    pub(crate) listener: Option<ListenerId>,
    /// Monotonic nanoseconds.
    pub(crate) resume_at_ns: Option<u64>,
}

/// A shard with all that its thread owns.
pub(crate) struct ShardThread {
    pub(crate) own: ShardId,
    pub(crate) ring: Ring,
    pub(crate) shard: Shard,
    pub(crate) out: Outputs,
    pub(crate) clock: Clock,
    pub(crate) sockets: Sockets,
    pub(crate) door: Door,
    pub(crate) mesh: MeshEnd,
    /// The other shards' rings; none for the own one.
    pub(crate) peers: Vec<Option<Peer>>,
    pub(crate) disk: Disk,
    pub(crate) commands: flume::Receiver<Command>,
    pub(crate) replies: HashMap<u64, flume::Sender<ControlReply>>,
    pub(crate) next_reply: u64,
    pub(crate) ports: Arc<[Port]>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) board: Arc<Board>,
    pub(crate) reporter: Reporter,
    /// When the last turn ended, monotonic nanoseconds.
    pub(crate) turn_ended_ns: u64,
    /// Bytes of its large envelopes that were taken since the start, as the shard knows it.
    pub(crate) boxes_taken_bytes: u64,
    /// The shard has more to do than one step may.
    pub(crate) go_on: bool,
    /// The ring may have more events than one turn takes.
    pub(crate) has_more: bool,
    /// Receives that were taken from the ring's queue and not looked at, when the shard was last asked to prepare.
    pub(crate) coming_count: usize,
    /// Another thread has put something into one of the queues and woken this one.
    pub(crate) woken: bool,
    /// Told once, when the shard can serve.
    pub(crate) serving: Option<Box<dyn FnOnce() + Send>>,
    pub(crate) spin_ns: u64,
    /// When the ring last gave back memory that it does not need, monotonic nanoseconds, and whether it has more.
    pub(crate) trimmed_at_ns: u64,
    pub(crate) trims: bool,
}

impl ShardThread {
    /// Turns until the node stops.
    ///
    /// # Errors
    /// Why the node must stop.
    pub(crate) fn run(&mut self) -> Result<(), Exit> {
        // What the recovery asked for.
        self.perform()?;
        self.turn_ended_ns = self.clock.mono_ns();
        while !self.lifecycle.is_stopping() {
            self.wait()?;
            let now = self.clock.now();
            let turn_started_ns = now.mono_ns;
            // A turn that does not end is late from now on, however long the shard meant to sleep.
            self.board.turn_is_due(turn_started_ns);
            self.tell_boxes_taken(now);
            self.tell_lane_room(now);
            self.take_events(now);
            // Who fills these queues wakes the thread afterwards: looking at them in every turn would cost more than
            // all that is ever in them.
            if std::mem::take(&mut self.woken) {
                self.take_made(now);
                self.take_commands(now);
            }
            self.take_mesh(now);
            // Once more: the marks of those that have made room meanwhile are taken.
            self.tell_lane_room(now);
            if std::mem::take(&mut self.go_on) || self.is_due(now) {
                self.shard.step(now, Input::Tick, &mut self.out);
            }
            let now = self.clock.now();
            self.sockets.expire(&mut self.ring, now.mono_ns);
            self.sockets.sweep(&mut self.ring, now.mono_ns);
            self.resume_accept(now.mono_ns);
            self.trim(now.mono_ns);
            self.shard.step(now, Input::Flush, &mut self.out);
            self.perform()?;
            self.turn_ended_ns = self.clock.mono_ns();
            self.reporter.turn.record(self.turn_ended_ns.saturating_sub(turn_started_ns));
            let (shard, mesh) = (&self.shard, &self.mesh);
            self.reporter.turn_ended(self.turn_ended_ns, shard, mesh, &mut self.ring, &self.board);
        }
        self.reporter.ended(&self.shard, &self.mesh, &mut self.ring, &self.board);
        Ok(())
    }

    fn is_due(&self, now: Now) -> bool {
        self.shard.next_deadline().is_some_and(|deadline_ns| deadline_ns <= now.mono_ns)
    }

    /// The turn's one system call.
    fn wait(&mut self) -> Result<(), Exit> {
        let mut wait = self.sleep_time();
        // What comes first may be earlier; a shard that is not back by then is stuck.
        self.board.turn_is_due(self.turn_ended_ns + wait.map_or(0, |sleep| sleep.as_nanos() as u64));
        if wait.is_some() && self.spin() {
            wait = None;
        }
        if wait.is_some() && !self.mesh.fall_asleep() {
            wait = None;
        }
        let entered = self.ring.enter(wait);
        self.mesh.awake();
        entered.map_err(|error| Exit::Panicked(format!("the ring of shard {} failed: {error}", self.own.0)))
    }

    /// How long the shard may sleep; none if there is something to do.
    fn sleep_time(&self) -> Option<Duration> {
        if self.go_on || self.has_more || self.woken {
            return None;
        }
        let now_ns = self.turn_ended_ns;
        let deadlines = [
            self.shard.next_deadline(),
            self.sockets.next_deadline(),
            self.door.resume_at_ns,
            self.reporter.next_deadline(),
            self.trims.then_some(self.trimmed_at_ns + TRIMS_TOGETHER * TRIM_NS),
        ];
        let until_ns = deadlines.into_iter().flatten().fold(now_ns + SLEEP_MAX_NS, u64::min);
        until_ns.checked_sub(now_ns).filter(|&left_ns| left_ns > 0).map(Duration::from_nanos)
    }

    /// Looks for work for a short time before a sleep. True if there is some.
    fn spin(&mut self) -> bool {
        if self.spin_ns == 0 {
            return false;
        }
        let end_ns = self.clock.mono_ns() + self.spin_ns;
        while self.clock.mono_ns() < end_ns {
            if self.ring.has_work() || self.mesh.has_arrivals() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn take_events(&mut self, now: Now) {
        self.has_more = false;
        for left in (0..EVENTS_OF_A_TURN).rev() {
            self.prepare();
            let Some(event) = self.ring.next_event() else { return };
            // There may be more: the next turn comes at once.
            self.has_more = left == 0;
            let (shard, out) = (&mut self.shard, &mut self.out);
            match event {
                Event::Received { slot, key, bytes } => {
                    if let Some(conn) = connection(key)
                        && self.sockets.is_heard(slot.0)
                    {
                        shard.step(now, Input::Received { conn, bytes }, out);
                        self.sockets.received(&mut self.ring, conn);
                    }
                }
                Event::Readable { key, .. } => {
                    if let Some(conn) = connection(key) {
                        self.sockets.readable(&mut self.ring, conn);
                    }
                }
                Event::Sent { key, .. } => {
                    if let Some(conn) = connection(key) {
                        self.sockets.sent(&mut self.ring, conn);
                        shard.step(now, Input::Sent { conn }, out);
                    }
                }
                Event::SendFailed { slot, key, .. } => {
                    if let Some(conn) = connection(key) {
                        self.sockets.sent(&mut self.ring, conn);
                        shard.step(now, Input::Sent { conn }, out);
                        if self.sockets.end(slot.0) {
                            shard.step(now, Input::Ended { conn }, out);
                        }
                    }
                }
                Event::Ended { slot, key, .. } | Event::Gone { slot, key } => {
                    if let Some(conn) = connection(key)
                        && self.sockets.end(slot.0)
                    {
                        shard.step(now, Input::Ended { conn }, out);
                    }
                }
                Event::Closed { key, .. } => {
                    if let Some(conn) = connection(key) {
                        shard.step(now, Input::Closed { conn }, out);
                    }
                }
                Event::Accepted { slot, peer, .. } => {
                    self.sockets.opened(slot.0);
                    shard.step(now, Input::Accepted { slot: slot.0, peer: Some(peer) }, out);
                }
                Event::DescriptorArrived { slot, message } => {
                    self.sockets.opened(slot.0);
                    let (from, token) = read_hand_over_message(message);
                    let (from, token) = (ShardId(from), HandOverToken(token));
                    shard.step(now, Input::HandOverSocket { from, token, slot: slot.0 }, out);
                }
                Event::DescriptorSent { key, result, .. } => {
                    if let Some(conn) = connection(key) {
                        shard.step(now, Input::SocketMoved { conn, moved: result.is_ok() }, out);
                    }
                }
                Event::Written { key, result } => {
                    shard.step(now, Input::Disk(Disk::written(key, result)), out);
                }
                Event::AcceptPaused { error, table_is_full, .. } => {
                    self.reporter.accept_pauses += 1;
                    // A full table of the ring's own is the limit on connections at work. It goes on by itself: who came
                    // before a place is free would be thrown away.
                    if !table_is_full {
                        let error = std::io::Error::from_raw_os_error(error);
                        warn!(shard = self.own.0, %error, "accepting paused: {}", advice(&error));
                        self.door.resume_at_ns = Some(now.mono_ns + ACCEPT_PAUSE_NS);
                    }
                }
                Event::Woken => self.woken = true,
                // Of another shard: what it says is in the mesh.
                Event::Message(_) => {}
                Event::Connected { .. } | Event::ConnectFailed { .. } => {
                    unreachable!("a shard connects nowhere")
                }
            }
        }
    }

    /// Has the shard ask for the memory of those whose bytes come, once for each of them or so.
    fn prepare(&mut self) {
        let coming = self.ring.coming();
        let before_count = replace(&mut self.coming_count, coming.len());
        if coming.len() != before_count {
            let are_new = coming.len() > before_count;
            self.shard.expect(are_new, |count| coming.get(count).copied().and_then(connection));
        }
    }

    fn take_made(&mut self, now: Now) {
        while let Some(done) = self.disk.next_made() {
            self.shard.step(now, Input::Disk(done), &mut self.out);
        }
    }

    fn take_commands(&mut self, now: Now) {
        // Not more than a few: however much the control plane asks, phones are heard in between.
        for left in (0..COMMANDS_OF_A_TURN).rev() {
            let Some(command) = next_wanted(&self.commands) else { return };
            // There may be more: as if woken again.
            self.woken = left == 0;
            match command {
                Command::Request(request, answer) => {
                    self.reporter.control_requests += 1;
                    self.next_reply += 1;
                    self.replies.insert(self.next_reply, answer);
                    let input = Input::Control { token: self.next_reply, request };
                    self.shard.step(now, input, &mut self.out);
                }
                Command::Open(listener) => self.door.listener = Some(self.ring.accept(listener)),
                Command::Drain => {
                    if let Some(listener) = self.door.listener.take() {
                        self.ring.stop_accept(listener);
                    }
                    self.shard.step(now, Input::Drain, &mut self.out);
                }
            }
        }
    }

    /// Says what was taken of what was sent boxed, before anything is cast in this turn, if it has changed.
    fn tell_boxes_taken(&mut self, now: Now) {
        let taken_bytes = self.mesh.boxes_taken_bytes();
        if taken_bytes != std::mem::replace(&mut self.boxes_taken_bytes, taken_bytes) {
            self.shard.step(now, Input::BoxesTaken { taken_bytes }, &mut self.out);
        }
    }

    /// Says which lanes have room again: before what phones say, so that nobody is refused for a lane that is empty.
    fn tell_lane_room(&mut self, now: Now) {
        let (shard, out) = (&mut self.shard, &mut self.out);
        self.mesh.take_room(|to, lane, room_bytes| {
            shard.step(now, Input::LaneRoom { to, lane, room_bytes }, out);
        });
    }

    fn take_mesh(&mut self, now: Now) {
        let (ring, peers) = (&mut self.ring, &self.peers);
        let (shard, out) = (&mut self.shard, &mut self.out);
        let found_bytes = self.mesh.receive(
            |to| wake(ring, peers, to),
            |from, arrival| match arrival {
                Arrival::Envelopes(envelopes) => {
                    shard.step(now, Input::Mesh { from, envelopes }, out);
                }
                Arrival::State(state) => shard.step(now, Input::HandOverState { from, state }, out),
            },
        );
        self.reporter.mesh_depth(found_bytes);
    }

    fn trim(&mut self, now_ns: u64) {
        let looks = (now_ns.saturating_sub(self.trimmed_at_ns) / TRIM_NS).min(TRIMS_TOGETHER);
        if looks > 0 {
            self.trimmed_at_ns = now_ns;
            self.trims = (0..looks).all(|_| self.ring.trim());
        }
    }

    fn resume_accept(&mut self, now_ns: u64) {
        if self.door.resume_at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            self.door.resume_at_ns = None;
            if let Some(listener) = self.door.listener {
                self.ring.resume_accept(listener);
            }
        }
    }
}

/// What an operator may do about an accept that the system refused.
fn advice(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENFILE) => "the system's table of open files is full: raise the sysctl fs.file-max",
        Some(libc::EMFILE) => "the process has too many open files: raise LimitNOFILE",
        Some(libc::ENOBUFS | libc::ENOMEM) => "the system is short of memory for sockets",
        _ => "it is tried again",
    }
}

/// Ends another shard's sleep.
pub(crate) fn wake(ring: &mut Ring, peers: &[Option<Peer>], to: ShardId) {
    if let Some(peer) = peers[usize::from(to.0)] {
        ring.wake(peer, 0);
    }
}
