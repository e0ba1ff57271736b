//! From received bytes to frames: preface, handshake, hand-over, then the frames of an open session.

use crate::addresses::Act;
use crate::edge::{Edge, Greeting, Opening, State};
use crate::handover::HandOver;
use crate::io::{ConnId, Now, Output, Outputs};
use crate::resume::PROLOGUE_BYTES;
use crate::shard::{Shard, bug};
use alloc::boxed::Box;
use core::mem::{replace, take};
use tern_protocol::ids::{PartitionId, ShardId};
use tern_protocol::phone::frame::{ClientFrame, ErrorCode, GoodbyeReason, ServerFrame};
use tern_protocol::phone::preface::{PREFACE_BYTES, Pattern, Preface, PrefaceError};
use tern_protocol::phone::record::{self, RecordKind};
use tern_protocol::phone::server::{
    Handshake, HandshakeError, LoginRequest, Progress, busy_refusal, version_refusal,
};

/// What to do with the bytes behind the ones just used.
pub(crate) enum Next {
    /// Go on: used so many bytes.
    Used(usize),
    /// Not enough bytes; keep them.
    Wait,
    /// The edge moves, closes or waits for its home: keep the bytes and read no more.
    Stop,
}

impl Shard {
    /// Bytes came. Whole records are used in place; the rest is kept.
    pub(crate) fn received(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Outputs) {
        let Some(edge) = self.edges.get_mut(conn) else {
            self.counters.stale_completions += 1;
            return;
        };
        if !edge.meter.may_receive(&self.rates, now, bytes.len()) {
            self.end_flood(conn, |counters| &mut counters.byte_floods);
            return;
        }
        let holder = self.edges.holder(conn);
        if !self.addresses.holder_may(Act::ReceiveByte, holder, now.mono_ns, bytes.len() as u64) {
            self.end_flood(conn, |counters| &mut counters.address_byte_floods);
            return;
        }
        let Some(edge) = self.edges.get_mut(conn) else { return };
        if let Some(tail) = edge.tail() {
            tail.extend_from_slice(bytes);
            self.use_tail(now, conn, out);
        } else {
            let used = self.use_bytes(now, conn, bytes, out);
            self.edges.keep_tail(conn, &bytes[used..]);
            self.count_frames(now, conn);
        }
        self.read_on(conn, out);
    }

    /// Works through bytes that were kept: the state has changed, or a turn has passed.
    pub(crate) fn use_tail(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        if let Some(tail) = self.edges.get_mut(conn).and_then(Edge::tail) {
            let mut tail = take(tail);
            let used = self.use_bytes(now, conn, &mut tail, out);
            tail.drain(..used);
            self.edges.put_tail(conn, tail);
        }
        self.count_frames(now, conn);
    }

    /// Before adoption exactly one receive is armed, and none while the edge moves or waits for its home. Who has to
    /// wait may go meanwhile, and is not to cost its handshake then.
    fn read_on(&mut self, conn: ConnId, out: &mut Outputs) {
        self.check_memory(conn);
        let Some(edge) = self.edges.get_mut(conn) else { return };
        if edge.waits_for_phone() {
            edge.opening().watched = false;
            out.push(Output::ReceiveOnce(conn));
        } else if edge.waits_for_node() && !replace(&mut edge.opening().watched, true) {
            out.push(Output::WatchForEnd(conn));
        }
    }

    /// Takes up handshakes that were left over by the last turn.
    pub(crate) fn use_deferred(&mut self, now: Now, out: &mut Outputs) {
        self.answer_handshakes(now, out);
        while self.handshakes_left > 0 {
            let Some(conn) = self.edges.next_deferred() else { break };
            let Some(edge) = self.edges.get_mut(conn) else { continue };
            (edge.opening().deferred, edge.opening().its_turn) = (false, true);
            self.login_begins(now, conn);
            self.use_tail(now, conn, out);
            if let Some(edge) = self.edges.get_mut(conn)
                && !matches!(edge.state, State::Adopted(_))
            {
                edge.opening().its_turn = false;
            }
            self.read_on(conn, out);
        }
    }

    fn use_bytes(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Outputs) -> usize {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let Some(edge) = self.edges.get_mut(conn) else { return used };
            let next = match edge.state {
                State::Proxy => self.use_proxy(now, conn, rest),
                State::Preface => self.use_preface(now, conn, rest, out),
                // What was taken is answered first.
                State::Shaking(_) if edge.is_deferred() => Next::Stop,
                State::Shaking(_) => self.use_handshake(now, conn, rest, out),
                State::Greeted(_) | State::Adopted(_) => self.use_record(now, conn, rest, out),
                State::Greeting | State::Starting(_) | State::Moving { .. } => Next::Stop,
                State::Dismissed | State::Closing { .. } => Next::Used(rest.len()),
            };
            match next {
                Next::Used(count) if used + count < bytes.len() => used += count,
                Next::Used(count) => return used + count,
                Next::Wait | Next::Stop => return used,
            }
        }
    }

    fn use_preface(&mut self, now: Now, conn: ConnId, bytes: &[u8], out: &mut Outputs) -> Next {
        let Some(raw) = bytes.first_chunk::<PREFACE_BYTES>() else { return Next::Wait };
        let preface = match Preface::parse(raw) {
            Ok(preface) => preface,
            Err(error) => {
                if let (PrefaceError::Version(_), Some(edge)) = (error, self.edges.get_mut(conn)) {
                    version_refusal(&mut edge.opening().raw_out);
                }
                self.refuse(conn, ErrorCode::Malformed, "preface");
                return Next::Stop;
            }
        };
        // It says by itself where it belongs, whatever the hint says.
        if preface.pattern == Pattern::NNpsk0 {
            return self.use_ticket(now, conn, bytes, out);
        }
        let home = preface.partition_hint.and_then(|partition| self.config.partitions.owner(partition));
        let came_by_hint = self.edges.get_mut(conn).is_some_and(|edge| edge.opening().moved);
        if let Some(home) = home
            && home != self.config.shard
            && !came_by_hint
        {
            self.start_move(conn, home, None, out);
            return Next::Stop;
        }
        if let Some(next) = self.admit_handshake(now, conn, &bytes[PREFACE_BYTES..]) {
            return next;
        }
        let seed = self.random_seed();
        let (key, previous) = (&self.server_key, self.previous_key.as_ref());
        let handshake = Handshake::with_static_key(raw, &preface, key, previous, seed);
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.state = State::Shaking(Box::new(handshake));
        }
        Next::Used(PREFACE_BYTES)
    }

    fn use_ticket(&mut self, now: Now, conn: ConnId, bytes: &[u8], out: &mut Outputs) -> Next {
        let Some(prologue) = bytes.first_chunk::<PROLOGUE_BYTES>() else { return Next::Wait };
        let has_moved = self.edges.get_mut(conn).is_some_and(|edge| edge.opening().moved);
        let opened = self.open_ticket(prologue);
        // Its home counts its handshake and keeps it waiting, nobody else.
        if let Some(home) = opened.as_ref().and_then(|opened| self.is_elsewhere(opened))
            && !has_moved
        {
            self.start_move(conn, home, None, out);
            return Next::Stop;
        }
        if let Some(next) = self.admit_handshake(now, conn, &bytes[PROLOGUE_BYTES..]) {
            return next;
        }
        match opened.and_then(|opened| self.begin_with_ticket(now, prologue, opened)) {
            Some(handshake) => {
                if let Some(edge) = self.edges.get_mut(conn) {
                    edge.state = State::Shaking(Box::new(handshake));
                }
                Next::Used(PROLOGUE_BYTES)
            }
            None => {
                self.refuse_ticket(conn);
                Next::Stop
            }
        }
    }

    fn use_handshake(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Outputs) -> Next {
        let total = match record::split_handshake(bytes) {
            Ok(Some(total)) => total,
            Ok(None) => return Next::Wait,
            Err(_) => {
                self.refuse(conn, ErrorCode::Malformed, "handshake record");
                return Next::Stop;
            }
        };
        if self.handshakes_left == 0 {
            return self.defer_handshake(now, conn);
        }
        self.handshakes_left -= 1;
        let Some(edge) = self.edges.get_mut(conn) else { return Next::Stop };
        let State::Shaking(handshake) = &mut edge.state else { return Next::Stop };
        if handshake.take(&bytes[record::HEADER_BYTES..total]).is_err() {
            self.fail_handshake(conn);
            return Next::Used(total);
        }
        if handshake.is_costly() {
            // Everybody else goes first, so that nobody waits for more than half a handshake.
            edge.opening().deferred = true;
            self.edges.unanswered.push_back(conn);
        } else {
            self.answer_handshake(now, conn, out);
        }
        Next::Used(total)
    }

    /// The second half of the handshakes whose first half was done in the turn before.
    fn answer_handshakes(&mut self, now: Now, out: &mut Outputs) {
        for _ in 0..self.edges.unanswered.len() {
            let Some(conn) = self.edges.unanswered.pop_front() else { break };
            let Some(edge) = self.edges.get_mut(conn) else { continue };
            edge.opening().deferred = false;
            self.answer_handshake(now, conn, out);
            self.use_tail(now, conn, out);
            self.read_on(conn, out);
        }
    }

    fn answer_handshake(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        if !matches!(edge.state, State::Shaking(_)) {
            // Sent away meanwhile: what it is told of that stays.
            return;
        }
        let mut raw_out = take(&mut edge.opening().raw_out);
        let State::Shaking(handshake) = &mut edge.state else { return };
        let progress = handshake.answer(&mut raw_out);
        edge.opening().raw_out = raw_out;
        self.edges.mark_dirty(conn);
        match progress {
            Ok(Progress::More) => {
                if let Some(edge) = self.edges.get_mut(conn) {
                    edge.opening().answered = true;
                }
            }
            Ok(Progress::Done { login, transport }) => {
                if let Some(edge) = self.edges.get_mut(conn) {
                    edge.transport = Some(transport);
                    edge.state = State::Greeting;
                }
                self.authenticated(now, conn, login, out);
            }
            // It has been told so, and has kept to the protocol.
            Err(HandshakeError::Name) => {
                self.counters.logins_bad_name += 1;
                self.hang_up(conn);
            }
            Err(_) => self.fail_handshake(conn),
        }
    }

    fn fail_handshake(&mut self, conn: ConnId) {
        self.counters.handshakes_failed += 1;
        self.refuse(conn, ErrorCode::Malformed, "handshake");
    }

    /// The edge knows who it is: its home is here, or it moves there.
    pub(crate) fn authenticated(&mut self, now: Now, conn: ConnId, login: LoginRequest, out: &mut Outputs) {
        let home = match &login {
            LoginRequest::Key(login) => {
                let partition = PartitionId::of_name(&login.name, self.config.partitions.partition_count());
                self.config.partitions.shard_of(partition)
            }
            // Looked at by its home before the handshake began.
            LoginRequest::Ticket(_) => self.config.shard,
        };
        if home == self.config.shard {
            match &login {
                LoginRequest::Key(login) => self.log_in(now, conn, login),
                LoginRequest::Ticket(claims) => self.log_in_by_ticket(now, conn, claims),
            }
        } else {
            self.start_move(conn, home, Some(Box::new(login)), out);
        }
    }

    fn start_move(&mut self, conn: ConnId, to: ShardId, login: Option<Box<LoginRequest>>, out: &mut Outputs) {
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.state = State::Moving { to, login, asked: false };
        }
        if !self.is_sending(conn) {
            self.ask_to_move(conn, out);
        }
    }

    /// Tells the driver to move the socket. No receive is armed, and no send is under way.
    pub(crate) fn ask_to_move(&mut self, conn: ConnId, out: &mut Outputs) {
        let token = self.hand_overs.new_token();
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let State::Moving { to, asked, .. } = &mut edge.state else { return };
        *asked = true;
        let to = *to;
        edge.opening().token = Some(token);
        out.push(Output::MoveSocket { conn, to, token });
    }

    /// The socket went, so its state follows; or it could not go, and the phone is told to come back.
    pub(crate) fn socket_moved(&mut self, conn: ConnId, moved: bool, out: &mut Outputs) {
        let drops_leftover = bug!(self, leftover_dropped);
        let retry_ms = self.busy_ms();
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let Opening { token, peer, .. } = *edge.opening();
        // Nothing was heard of it since: no record is read before a login is at home.
        let accepted_ms = edge.heard_ms;
        let (State::Moving { to, login, .. }, Some(token)) = (&mut edge.state, token) else { return };
        if moved {
            let to = *to;
            let login = login.take().map(|login| *login).zip(edge.transport.take());
            let mut leftover = edge.tail().map(take).unwrap_or_default();
            if drops_leftover {
                leftover.clear();
            }
            let unsent = take(&mut edge.opening().raw_out);
            let state = Box::new(HandOver { token, login, unsent, leftover, peer, accepted_ms });
            self.counters.handed_over += 1;
            out.push(Output::MoveState { to, state });
            edge.state = State::Closing { asked: true };
        } else {
            self.counters.hand_over_failures += 1;
            // The socket is ours again, so that it can be closed.
            edge.state = State::Greeting;
            if edge.transport.is_none() {
                busy_refusal(retry_ms, &mut edge.opening().raw_out);
            }
            self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
        }
    }

    /// An edge came from another shard, whole.
    pub(crate) fn adopt(&mut self, now: Now, slot: u32, state: HandOver, out: &mut Outputs) {
        let HandOver { login, unsent, leftover, peer, accepted_ms, .. } = state;
        let address = self.limited(peer);
        let may_stay = address.is_none_or(|address| self.may_hold(address)) && self.make_room();
        let conn = self.open_edge(slot, State::Preface, peer, accepted_ms);
        self.hold(conn, address);
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let opening = edge.opening();
        (opening.raw_out, opening.moved) = (unsent, true);
        self.edges.put_tail(conn, leftover);
        self.edges.mark_dirty(conn);
        if let Some((login, transport)) = login {
            if let Some(edge) = self.edges.get_mut(conn) {
                edge.transport = Some(transport);
                edge.state = State::Greeting;
            }
            if may_stay {
                self.authenticated(now, conn, login, out);
            }
        }
        if !may_stay {
            // Whoever has no room here for long has room for its last words: the driver lets nobody come otherwise.
            self.refuse_busy(conn);
        }
        self.welcomed(now, conn, out);
    }

    /// The edge may go on: use what the phone sent ahead, then read.
    pub(crate) fn welcomed(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        self.use_tail(now, conn, out);
        self.read_on(conn, out);
    }

    fn use_record(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Outputs) -> Next {
        let total = match record::split(bytes) {
            Ok(Some((RecordKind::Transport, total))) => total,
            Ok(None) => return Next::Wait,
            Ok(Some(_)) | Err(_) => {
                self.count_unproven(conn);
                self.refuse(conn, ErrorCode::Malformed, "record");
                return Next::Stop;
            }
        };
        // Whole records count as life, not bytes that trickle.
        self.heard(now, conn);
        let edge = self.edges.get_mut(conn);
        let Some(transport) = edge.and_then(|edge| edge.transport.as_mut()) else { return Next::Stop };
        let Ok(plain) = transport.open(&mut bytes[record::HEADER_BYTES..total]) else {
            self.count_unproven(conn);
            self.refuse(conn, ErrorCode::Malformed, "record does not decrypt");
            return Next::Stop;
        };
        let mut frames: &[u8] = plain;
        while !frames.is_empty() {
            let Ok((frame, rest)) = ClientFrame::decode_first(frames) else {
                self.refuse(conn, ErrorCode::Malformed, "frame");
                break;
            };
            frames = rest;
            if !self.use_frame(now, conn, frame, out) {
                break;
            }
        }
        if !frames.is_empty()
            && self.edges.get_mut(conn).is_some_and(|edge| matches!(edge.state, State::Starting(_)))
            && let Some(buffers) = self.edges.buffers(conn)
        {
            buffers.ahead.extend_from_slice(frames);
        }
        Next::Used(total)
    }

    /// Returns whether the edge still takes frames.
    pub(crate) fn use_frame(
        &mut self,
        now: Now,
        conn: ConnId,
        frame: ClientFrame<'_>,
        out: &mut Outputs,
    ) -> bool {
        self.heard_frame_count += 1;
        let Some(edge) = self.edges.get_mut(conn) else { return false };
        if !edge.meter.may_say_one_more(&self.rates, now) {
            self.end_flood(conn, |counters| &mut counters.floods);
            return false;
        }
        match (&edge.state, frame) {
            (State::Greeted(greeting), ClientFrame::Start) => {
                let mut greeting = Greeting::clone(greeting);
                if let Some(new) = greeting.registers.take() {
                    self.register(now, conn, greeting, &new);
                    return false;
                }
                if let Some(number) = greeting.ticket {
                    self.use_up_ticket(conn, greeting, number);
                    return false;
                }
                self.start_session(now, conn, greeting, out);
            }
            (State::Greeted(_), ClientFrame::Goodbye) => self.hang_up(conn),
            (&State::Adopted(session), frame) => match frame {
                ClientFrame::Send { to, id, body } => self.session_send(now, session, to, id, body),
                ClientFrame::Ack { number } => self.session_ack(now, session, number),
                ClientFrame::Ping { token } => self.say(conn, &ServerFrame::Pong { token }),
                ClientFrame::Lookup { name } => self.session_lookup(now, session, name),
                ClientFrame::Read { author, id } => self.session_read(now, session, author, id),
                ClientFrame::Presence { state } => self.session_presence(session, state),
                ClientFrame::Typing { to, on } => self.session_typing(now, session, to, on),
                ClientFrame::Watch { account } => self.session_watch(now, session, account),
                ClientFrame::Devices => self.session_devices(session),
                ClientFrame::AddDevice { key } => self.session_add_device(session, key),
                ClientFrame::RevokeDevice { device } => self.session_revoke_device(session, device),
                ClientFrame::Goodbye => self.hang_up(conn),
                ClientFrame::Start => self.refuse(conn, ErrorCode::UnexpectedFrame, "start twice"),
            },
            (State::Dismissed | State::Closing { .. }, _) => {}
            _ => self.refuse(conn, ErrorCode::UnexpectedFrame, "the first frame must be start"),
        }
        let edge = self.edges.get_mut(conn);
        edge.is_some_and(|edge| !matches!(edge.state, State::Dismissed | State::Closing { .. }))
    }
}
