//! An edge: one client's socket, cryptography and framing. What it decodes it casts to the session; what the session
//! says waits here as plain frames until the turn ends, then leaves in one record and one send.

use crate::addresses::Address;
use crate::admission::Meter;
use crate::buffers::Buffers;
use crate::control::NewAccount;
use crate::io::{ConnId, HandOverToken, Now, Output, Outputs};
use crate::session::SessionId;
use crate::shard::{Shard, bug};
use crate::wheel::TimerId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::take;
use core::net::SocketAddr;
use tern_protocol::ids::{AccountId, DeviceId, ShardId};
use tern_protocol::phone::frame::{ErrorCode, GoodbyeReason, ServerFrame};
use tern_protocol::phone::noise::{PLAINTEXT_BYTES_MAX, Transport};
use tern_protocol::phone::server::{Handshake, LoginRequest};

/// Whom an edge was greeted as, and when.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    /// Counts the greetings of this shard: of two logins of one device, the later one is the phone's present.
    pub(crate) number: u64,
    /// The number of the ticket that it came with.
    pub(crate) ticket: Option<u32>,
    /// Whether it may know only a key that the server has left behind.
    pub(crate) needs_key: bool,
    /// The account is not there: it is to be made once the phone has shown that this is no replay.
    pub(crate) registers: Option<NewAccount>,
}

/// Where an edge is on its way from the accept to its end.
#[derive(Debug)]
pub(crate) enum State {
    /// It comes from a trusted balancer, whose header is not complete.
    Proxy,
    /// The preface is not complete, or the handshake behind it waits for its turn.
    Preface,
    /// Handshake messages go back and forth.
    Shaking(Box<Handshake>),
    /// Authenticated; the home has not answered (a new account waits for its commit). Nothing is read.
    Greeting,
    /// `Welcome` is on its way; the first transport frame will show that this is no replay.
    Greeted(Box<Greeting>),
    /// It came with a ticket, which is being used up, or its account is being made. Nothing is read.
    Starting(Box<Greeting>),
    /// It has a session and stays on this shard.
    Adopted(SessionId),
    /// Its device is being revoked: it has no session any more, and is told why once that is on stable storage.
    Dismissed,
    /// On its way to another shard. `asked` when the driver was told: not before the last send is over.
    Moving { to: ShardId, login: Option<Box<LoginRequest>>, asked: bool },
    /// Says its last words, then closes; `asked` once the driver was told to.
    Closing { asked: bool },
}

/// What an edge needs until it has a session.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    pub(crate) peer: Option<SocketAddr>,
    /// Bytes to send as they are: handshake records.
    pub(crate) raw_out: Vec<u8>,
    /// Whether its handshake waits: for a later turn, or for its answer in the next one.
    pub(crate) deferred: bool,
    /// Whether it is for a later turn.
    pub(crate) in_line: bool,
    /// Whether it has waited, and may go on now although others wait.
    pub(crate) its_turn: bool,
    /// Whether a part of its handshake was answered.
    pub(crate) answered: bool,
    /// Whether its handshake was counted for its address.
    pub(crate) admitted: bool,
    /// Whether the driver says when its phone goes, although nothing is read.
    pub(crate) watched: bool,
    /// Of the hand-over that it is in.
    pub(crate) token: Option<HandOverToken>,
    /// Whether it came from another shard: then its preface's hint, or its ticket, is not followed again.
    pub(crate) moved: bool,
}

/// One socket's state. Of an idle phone this is all that its shard keeps for it beside session and account, so what is
/// only needed for a time lies in boxes of its own.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) state: State,
    pub(crate) transport: Option<Transport>,
    /// None once it has a session.
    opening: Option<Box<Opening>>,
    /// None while nothing waits in them.
    pub(crate) buffers: Option<Box<Buffers>>,
    /// Whether a send is under way.
    pub(crate) sending: bool,
    /// Whether it stands in the list of edges with something to flush.
    pub(crate) dirty: bool,
    /// Whether it has not logged in yet.
    pub(crate) half_open: bool,
    /// Frames that it has not said yet and that are counted for its account and its address.
    pub(crate) counted_frames: u8,
    /// The login deadline, then the idle deadline.
    timer: TimerId,
    /// When the last whole record came (before a login: when it was accepted, or its handshake's turn came), monotonic
    /// milliseconds.
    pub(crate) heard_ms: u64,
    /// What it may still send for now.
    pub(crate) meter: Meter,
}

impl Edge {
    /// Half a record that came before.
    pub(crate) fn tail(&mut self) -> Option<&mut Vec<u8>> {
        self.buffers.as_mut().map(|buffers| &mut buffers.tail).filter(|tail| !tail.is_empty())
    }

    /// Frames that wait to be said.
    pub(crate) fn plain_out(&self) -> &[u8] {
        self.buffers.as_ref().map_or(&[], |buffers| &buffers.plain_out)
    }

    /// What it needs until it has a session; nobody looks at it later.
    pub(crate) fn opening(&mut self) -> &mut Opening {
        self.opening.get_or_insert_default()
    }

    /// Whether its handshake waits for a turn.
    pub(crate) fn is_deferred(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.deferred)
    }

    /// Whether its handshake is for a later turn.
    pub(crate) fn is_in_line(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.in_line)
    }

    /// It does not wait for its handshake's turn any more. False if it did not.
    pub(crate) fn leave_line(&mut self) -> bool {
        self.opening.as_mut().is_some_and(|opening| take(&mut opening.in_line))
    }

    /// Whether it has not logged in, and nothing but its phone keeps it from that.
    pub(crate) fn waits_for_phone(&self) -> bool {
        match self.state {
            State::Proxy | State::Preface | State::Shaking(_) | State::Greeted(_) => !self.is_deferred(),
            State::Greeting
            | State::Starting(_)
            | State::Adopted(_)
            | State::Dismissed
            | State::Moving { .. }
            | State::Closing { .. } => false,
        }
    }

    /// Whether it has not logged in, and waits for a later turn of its shard or for the log. Its phone may lose patience.
    pub(crate) fn waits_for_node(&self) -> bool {
        match self.state {
            State::Proxy | State::Preface | State::Shaking(_) => self.is_in_line(),
            State::Greeting | State::Starting(_) => true,
            State::Greeted(_)
            | State::Adopted(_)
            | State::Dismissed
            | State::Moving { .. }
            | State::Closing { .. } => false,
        }
    }

    /// Whether a record in the clear would be read: it has no keys and no part of an answer, which is followed by nothing
    /// in the clear, and no other shard has its socket.
    pub(crate) fn can_be_told_in_the_clear(&self) -> bool {
        self.transport.is_none()
            && self.opening.as_ref().is_some_and(|opening| !opening.answered)
            && !matches!(self.state, State::Closing { .. } | State::Moving { asked: true, .. })
    }

    /// How many of the frames that it has just said are to be counted for its account and its address, if any.
    pub(crate) fn not_counted(&mut self, said: u32) -> Option<u64> {
        let before = self.counted_frames;
        self.counted_frames = u32::from(before).saturating_sub(said) as u8;
        said.checked_sub(before.into()).filter(|&left| left > 0).map(u64::from)
    }

    /// Whether its phone talks: it was heard twice in a while.
    pub(crate) fn talks(&self) -> bool {
        self.transport.as_ref().is_some_and(Transport::is_expanded)
    }

    /// It has a session.
    pub(crate) fn adopt(&mut self, session: SessionId) {
        self.state = State::Adopted(session);
        // What is to be sent in the clear was asked for by a phone that has encrypted something since: it is gone.
        self.opening = None;
    }
}

/// How long a closing edge waits for its peer to take what is still under way.
const LAST_WORDS_NS: u64 = 1_000_000_000;

impl Shard {
    /// A socket was accepted.
    pub(crate) fn accepted(&mut self, now: Now, slot: u32, peer: Option<SocketAddr>, out: &mut Outputs) {
        self.counters.accepted += 1;
        self.counters.refused_draining += u64::from(self.draining);
        // An address that is not let in makes nobody go.
        let admitted = if self.draining { None } else { self.admit_connect(now, peer) };
        let Some((state, address)) = admitted.filter(|_| self.make_room()) else {
            out.push(Output::CloseSlot(slot));
            return;
        };
        let conn = self.open_edge(slot, state, peer, now.mono_ns / 1_000_000);
        self.hold(conn, address);
        out.push(Output::ReceiveOnce(conn));
    }

    /// A connection counts for its address from now on.
    pub(crate) fn hold(&mut self, conn: ConnId, address: Option<Address>) {
        if let Some(address) = address {
            let holder = self.addresses.hold(address);
            self.edges.set_holder(conn, holder);
        }
    }

    /// Opens an edge in a slot, with its login deadline running since it was accepted.
    pub(crate) fn open_edge(
        &mut self,
        slot: u32,
        state: State,
        peer: Option<SocketAddr>,
        accepted_ms: u64,
    ) -> ConnId {
        let deadline_ms = accepted_ms + self.config.limits.login_ms;
        let timer = self.wheel.set(deadline_ms * 1_000_000, 0);
        let conn = self.edges.open(
            slot,
            Edge {
                state,
                transport: None,
                opening: Some(Box::new(Opening { peer, ..Opening::default() })),
                buffers: None,
                sending: false,
                dirty: false,
                half_open: true,
                counted_frames: 0,
                timer,
                heard_ms: accepted_ms,
                meter: Meter::default(),
            },
        );
        self.wheel.set_payload(timer, timer_payload(conn));
        conn
    }

    /// The edge's deadline passed: the login took too long, or the phone fell silent.
    pub(crate) fn edge_deadline(&mut self, now: Now, payload: u64, out: &mut Outputs) {
        let conn = ConnId { slot: payload as u32, generation: (payload >> 32) as u32 };
        let idle_ns = self.config.limits.idle_ms * 1_000_000;
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let silent_until_ns = edge.heard_ms * 1_000_000 + idle_ns;
        if let State::Closing { asked } = &mut edge.state {
            // Its last words found no reader: the driver cuts them off.
            let first = !core::mem::replace(asked, true);
            edge.timer = self.wheel.set(now.mono_ns + idle_ns, payload);
            if first {
                out.push(Output::Close(conn));
            }
            return;
        }
        let is_adopted = matches!(edge.state, State::Adopted(_) | State::Dismissed);
        if is_adopted && silent_until_ns > now.mono_ns && !bug!(self, timer_not_reset) {
            edge.timer = self.wheel.set(silent_until_ns, payload);
            return;
        }
        // Fired timers are over: a fresh one keeps "each edge has a timer" true until its slot is free.
        edge.timer = self.wheel.set(now.mono_ns + idle_ns, payload);
        if matches!(edge.state, State::Moving { asked: true, .. }) {
            // Its socket is with the driver: it is somebody else's in a moment, or is told to come back.
            return;
        }
        let waits_for_phone = edge.waits_for_phone();
        self.counters.timeouts += 1;
        self.count_unproven(conn);
        if is_adopted || waits_for_phone {
            self.counters.idle_timeouts += u64::from(is_adopted);
            self.counters.login_timeouts += u64::from(!is_adopted);
            self.goodbye(conn, GoodbyeReason::Idle, 0);
        } else {
            // Its turn or its commit did not come in time, which is not its fault.
            self.counters.logins_unserved += 1;
            self.refuse_handshake(conn);
        }
    }

    /// The turn of an edge's handshake has come: its phone has as long for its login as if it came now.
    pub(crate) fn login_begins(&mut self, now: Now, conn: ConnId) {
        let login_ns = self.config.limits.login_ms * 1_000_000;
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.heard_ms = now.mono_ns / 1_000_000;
            self.wheel.reset(edge.timer, now.mono_ns + login_ns);
        }
    }

    /// Starts the idle clock instead of the login clock: the edge is adopted.
    pub(crate) fn login_is_over(&mut self, now: Now, conn: ConnId) {
        let idle_ns = self.config.limits.idle_ms * 1_000_000;
        let holder = self.edges.holder(conn);
        if let Some(edge) = self.edges.get_mut(conn) {
            self.wheel.reset(edge.timer, now.mono_ns + idle_ns);
            if take(&mut edge.half_open) && !bug!(self, half_open_kept) {
                self.addresses.no_longer_half_open(holder);
            }
        }
    }

    /// Appends a frame to what the edge says; an edge that does not take it is a slow reader and ends.
    pub(crate) fn say(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
        let backlog = if bug!(self, readers_hurried) { 0 } else { self.config.limits.edge_backlog_bytes };
        if !self.edges.say(conn, frame, backlog)
            && self.edges.get_mut(conn).is_some_and(|edge| !matches!(edge.state, State::Closing { .. }))
        {
            self.counters.slow_readers += 1;
            self.hang_up(conn);
        }
    }

    /// Ends an edge whose client broke the protocol, with an error that says how.
    pub(crate) fn refuse(&mut self, conn: ConnId, code: ErrorCode, detail: &str) {
        self.counters.protocol_errors += 1;
        self.end_with(conn, code, detail);
    }

    /// Ends an edge with an error.
    pub(crate) fn end_with(&mut self, conn: ConnId, code: ErrorCode, detail: &str) {
        let can_say = self.edges.get_mut(conn).is_some_and(|edge| edge.transport.is_some());
        if can_say {
            self.edges.say(conn, &ServerFrame::Error { code, detail }, usize::MAX);
        }
        self.hang_up(conn);
    }

    /// Ends an edge politely.
    pub(crate) fn goodbye(&mut self, conn: ConnId, reason: GoodbyeReason, retry_ms: u32) {
        let can_say = self.edges.get_mut(conn).is_some_and(|edge| edge.transport.is_some());
        if can_say {
            self.edges.say(conn, &ServerFrame::Goodbye { reason, retry_ms }, usize::MAX);
        }
        self.hang_up(conn);
    }

    /// Ends an edge and its session; what it still has to say goes first.
    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        // A socket that the driver was told to move is not ours to close any more.
        if matches!(edge.state, State::Closing { .. } | State::Moving { asked: true, .. }) {
            return;
        }
        let state = core::mem::replace(&mut edge.state, State::Closing { asked: false });
        let timer = edge.timer;
        self.edges.leave_line(conn);
        self.wheel.reset(timer, self.now.mono_ns + LAST_WORDS_NS);
        self.edges.mark_dirty(conn);
        if let State::Adopted(session) = state {
            self.end_session(session);
        }
    }

    /// Ends the session of an edge, which is kept to be told why later.
    pub(crate) fn dismiss(&mut self, conn: ConnId) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        if let State::Adopted(session) = edge.state {
            edge.state = State::Dismissed;
            self.end_session(session);
        }
    }

    /// The other end is gone.
    pub(crate) fn ended(&mut self, conn: ConnId) {
        self.count_unproven(conn);
        if let Some(edge) = self.edges.get_mut(conn) {
            if let Some(opening) = &mut edge.opening {
                opening.raw_out.clear();
            }
            if let Some(buffers) = &mut edge.buffers {
                buffers.plain_out.clear();
                buffers.ephemeral_bytes = 0;
            }
        }
        self.hang_up(conn);
    }

    /// The slot is free.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let timer = edge.timer;
        self.hang_up(conn);
        if !bug!(self, timer_kept) {
            self.wheel.cancel(timer);
        }
        let holder = self.edges.holder(conn);
        let Some(edge) = self.edges.free(conn) else { return };
        if edge.half_open {
            self.addresses.no_longer_half_open(holder);
        }
        if !bug!(self, addresses_kept) {
            self.addresses.let_go(holder);
        }
        if edge.transport.is_some_and(|transport| transport.is_expanded()) {
            self.ready_keys.ended();
        }
        if let Some(buffers) = edge.buffers
            && !bug!(self, buffers_kept)
        {
            self.edges.take_back(buffers);
        }
    }

    /// The last send is with the kernel.
    pub(crate) fn sent(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        edge.sending = false;
        match edge.state {
            State::Moving { asked: false, .. } => self.ask_to_move(conn, out),
            State::Adopted(session) => {
                if !edge.plain_out().is_empty() {
                    self.edges.mark_dirty(conn);
                }
                self.deliver(now, session);
            }
            _ => self.edges.mark_dirty(conn),
        }
    }

    /// Whether a send of this edge is under way.
    pub(crate) fn is_sending(&mut self, conn: ConnId) -> bool {
        self.edges.get_mut(conn).is_some_and(|edge| edge.sending)
    }

    /// The turn ends: every dirty edge whose last send is over says what it has in one send.
    pub(crate) fn flush_edges(&mut self, out: &mut Outputs) {
        let mut dirty = take(&mut self.edges.dirty);
        for (index, &conn) in dirty.iter().enumerate() {
            self.expect_flush(&dirty[index..]);
            let Some(edge) = self.edges.get_mut(conn) else { continue };
            edge.dirty = false;
            // Nothing follows a close: the slot may be someone else's.
            if edge.sending || matches!(edge.state, State::Moving { .. } | State::Closing { asked: true }) {
                continue;
            }
            let start = out.arena.len();
            if let Some(opening) = &mut edge.opening {
                out.arena.append(&mut opening.raw_out);
            }
            if let Some(buffers) = &mut edge.buffers {
                if let Some(transport) = &mut edge.transport {
                    seal_frames(transport, &buffers.plain_out, &mut out.arena);
                }
                buffers.said();
            }
            let data = start..out.arena.len();
            if !data.is_empty() {
                edge.sending = true;
                out.list.push(Output::Send { conn, data });
            }
            if let State::Closing { asked } = &mut edge.state
                && !core::mem::replace(asked, true)
            {
                out.list.push(Output::Close(conn));
            }
            self.edges.settle(conn);
        }
        dirty.clear();
        self.edges.dirty = dirty;
    }
}

/// What a timer of an edge hands back: never stale, since an edge cancels its timer before its slot is free.
pub(crate) const fn timer_payload(conn: ConnId) -> u64 {
    (conn.generation as u64) << 32 | conn.slot as u64
}

/// Seals whole frames into as few records as hold them.
fn seal_frames(transport: &mut Transport, mut frames: &[u8], arena: &mut Vec<u8>) {
    while !frames.is_empty() {
        let mut end = 0;
        while let Some(header) = frames[end..].first_chunk::<4>() {
            let frame_bytes = 4 + u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            if end + frame_bytes > PLAINTEXT_BYTES_MAX {
                break;
            }
            end += frame_bytes;
        }
        assert!(end > 0, "a frame is larger than a record");
        let mark = Transport::begin(arena);
        arena.extend_from_slice(&frames[..end]);
        transport.seal(arena, mark);
        frames = &frames[end..];
    }
}
