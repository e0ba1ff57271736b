//! A session: one connected device at its account's home. It holds a window of unacknowledged envelopes; everything
//! else waits in the mailbox.

use crate::account::AccountIndex;
use crate::ahead::Fetch;
use crate::chunks::Chunks;
use crate::edge::Greeting;
use crate::home::Ends;
use crate::io::{ConnId, Lane, Now, Output, Outputs};
use crate::limits::Limits;
use crate::outbound::{Outbound, Refuser, Turn};
use crate::shard::{Shard, bug};
use crate::share::Share;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::take;
use core::num::NonZeroU32;
use tern_protocol::envelope::{Envelope, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, Seq, ShardId};
use tern_protocol::phone::frame::{ErrorCode, GoodbyeReason, PresenceState, ServerFrame};
use tern_protocol::phone::valid_name;

/// A place in the shard's table of sessions, counted from one: so that "none" takes no memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionId(NonZeroU32);

impl SessionId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("a shard has far fewer sessions than 2^32"))
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What a session keeps while messages are under way, to its device or from it.
#[derive(Debug, Default)]
struct UnderWay {
    /// Places that were sent and not acknowledged, in order; the first has the number `acknowledged + 1`.
    window: VecDeque<Seq>,
    /// What the phone sent and has no final answer for: the order of its streams.
    outbound: Outbound,
    /// What `outbound` was counted as.
    counted: u32,
}

/// One connected device.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    /// The number of the greeting that it began with.
    greeting: u64,
    pub(crate) account: AccountIndex,
    pub(crate) account_id: AccountId,
    pub(crate) device: DeviceId,
    /// The device's place in its account's device list.
    place: u8,
    /// The last place of the mailbox that was sent to the device on this connection.
    pub(crate) cursor: Seq,
    /// None for a phone that only waits.
    under_way: Option<Box<UnderWay>>,
    /// The last delivery number that the device acknowledged.
    pub(crate) acknowledged: u32,
    /// Whether the device was told that its mailbox was empty.
    pub(crate) told_drained: bool,
    /// Whether mail has waited for the device to take what it was sent before, and it has not caught up since.
    pub(crate) is_behind: bool,
    /// How present the phone says that it is.
    pub(crate) presence: PresenceState,
    /// Whether it stands in the list of those that look for their mail among others'.
    is_passing: bool,
    /// A message of it was passed over, for there was no memory for one more: none is taken any more, and the phone
    /// is sent away once those before have their answers.
    is_full: bool,
}

const _: () = assert!(size_of::<Option<Session>>() <= 64, "an idle phone costs at most 600 bytes in all");

impl Session {
    /// Whether a refused stream may wait for a message that gets its final answer another way.
    pub(crate) fn waits_for_answers(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| !under_way.outbound.is_empty())
    }

    /// The device's place in its account's device list.
    pub(crate) fn place(&self) -> usize {
        usize::from(self.place)
    }

    /// Envelopes that the device has not acknowledged.
    pub(crate) fn window_len(&self) -> usize {
        self.under_way.as_ref().map_or(0, |under_way| under_way.window.len())
    }

    /// Up to where no mail waits for the device: it has acknowledged its own, and what else there was is for others.
    fn floor(&self) -> Seq {
        let first = self.under_way.as_ref().and_then(|under_way| under_way.window.front());
        first.map_or(self.cursor, |first| Seq(first.0 - 1))
    }

    /// Asks for the memory of what is under way.
    pub(crate) fn fetch_under_way(&self, fetch: Fetch) {
        fetch.of(self.under_way.as_deref());
    }

    /// Asks for the memory of its lists.
    pub(crate) fn fetch_lists(&self, fetch: Fetch) {
        if let Some(under_way) = &self.under_way {
            fetch.of(under_way.window.front());
            under_way.outbound.fetch(fetch);
        }
    }

    /// Whether it looks for its mail among others', and will be back here by itself.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_passing
    }

    /// An envelope is on its way to the device.
    pub(crate) fn delivers(&mut self, place: Seq) {
        self.under_way().window.push_back(place);
    }

    fn turn(&mut self, to: AccountId, message: MessageId, now_ns: u64, has_room: bool) -> Option<Turn> {
        let has_room = has_room && !self.is_full;
        self.under_way().outbound.turn(to, message, now_ns, has_room)
    }

    fn under_way(&mut self) -> &mut UnderWay {
        self.under_way.get_or_insert_default()
    }
}

/// Messages without an answer for which a session that has none keeps memory, if there is plenty.
const KEPT_COUNT: usize = 8;

/// The sessions of a shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Chunks<Option<Session>>,
    free: Vec<u32>,
    /// Those that have found so much mail of others in their mailbox that they look on in a later turn. One that has
    /// ended may still be here.
    passing: VecDeque<SessionId>,
    /// Messages without a final answer, by the memory that is kept for them.
    pub(crate) unanswered_count: usize,
    share: Share,
}

impl Sessions {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            slots: Chunks::new(),
            free: Vec::new(),
            passing: VecDeque::new(),
            unanswered_count: 0,
            share: Share::new(limits.unanswered_count as usize, 4, limits.connection_count as usize),
        }
    }

    /// Whether there is memory for one more message of a session without a final answer.
    fn has_room(&self, id: SessionId) -> bool {
        let under_way = self.get(id).and_then(|session| session.under_way.as_ref());
        let count = under_way.map_or(0, |under_way| under_way.outbound.len()) + 1;
        self.share.fits(count, self.unanswered_count + 1)
    }

    /// Counts a session's messages without a final answer.
    fn recount(&mut self, id: SessionId) {
        let Some(Some(session)) = self.slots.get_mut(id.index()) else { return };
        let Some(under_way) = &mut session.under_way else { return };
        let mut count = under_way.outbound.capacity();
        // The memory of a burst is not kept for the next one: others may want it before.
        if under_way.outbound.is_empty()
            && (count > KEPT_COUNT || !self.share.has_plenty(self.unanswered_count))
        {
            under_way.outbound = Outbound::default();
            count = 0;
        }
        let before = core::mem::replace(&mut under_way.counted, count as u32) as usize;
        self.unanswered_count = self.unanswered_count + count - before;
    }

    /// A session whose phone is silent gives back what it needs only while messages are under way, if none is.
    pub(crate) fn let_rest(&mut self, id: SessionId) {
        let Some(Some(session)) = self.slots.get_mut(id.index()) else { return };
        let over = session.under_way.take_if(|u| u.window.is_empty() && u.outbound.is_empty());
        self.unanswered_count -= over.map_or(0, |under_way| under_way.counted as usize);
    }

    /// Whether any looks on in the next turn.
    pub(crate) fn are_passing(&self) -> bool {
        !self.passing.is_empty()
    }

    /// A session looks on in a later turn.
    pub(crate) fn passes_later(&mut self, id: SessionId) {
        if let Some(session) = self.get_mut(id) {
            session.is_passing = true;
            self.passing.push_back(id);
        }
    }

    /// The session whose turn it is to look on.
    pub(crate) fn next_passing(&mut self) -> Option<SessionId> {
        while let Some(id) = self.passing.pop_front() {
            if self.get_mut(id).is_some_and(|session| take(&mut session.is_passing)) {
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.slots.get(id.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Asks for the memory of a session.
    pub(crate) fn fetch(&self, id: SessionId, fetch: Fetch) {
        fetch.of(self.slots.get(id.index()));
    }

    fn add(&mut self, session: Session) -> SessionId {
        if let Some(index) = self.free.pop() {
            let id = SessionId::new(index as usize);
            *self.slots.get_or_grow(id.index()) = Some(session);
            return id;
        }
        SessionId::new(self.slots.push(Some(session)))
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.slots.get_mut(id.index())?.take()?;
        self.free.push(id.index() as u32);
        self.unanswered_count -= session.under_way.as_ref().map_or(0, |under_way| under_way.counted as usize);
        Some(session)
    }
}

impl Shard {
    /// The first transport frame came: the device is really there. It replaces an earlier session of its own.
    pub(crate) fn start_session(&mut self, now: Now, conn: ConnId, greeting: Greeting, out: &mut Outputs) {
        let Greeting { account: account_id, device, number, ticket, .. } = greeting;
        let Some((account, place)) = self.accounts.find_device(account_id, device) else {
            self.goodbye(conn, GoodbyeReason::Removed, 0);
            return;
        };
        if self.is_going(account, place) {
            self.come_back_later(conn);
            return;
        }
        if self.has_newer_session(account, place, number) {
            // Bytes of a connection that the phone has left behind were under way for long.
            self.goodbye(conn, GoodbyeReason::Replaced, 0);
            return;
        }
        self.replace_session(account, place);
        let Some(device_state) = self.accounts.device_mut(account, place) else { return };
        let cursor = if bug!(self, acknowledged_stays) { Seq(0) } else { device_state.floor };
        let session = Session {
            conn,
            greeting: number,
            account,
            account_id,
            device,
            place: place as u8,
            cursor,
            under_way: None,
            acknowledged: 0,
            told_drained: false,
            is_behind: false,
            presence: PresenceState::Available,
            is_passing: false,
            is_full: false,
        };
        let id = self.sessions.add(session);
        device_state.session = Some(id);
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.adopt(id);
        }
        self.login_is_over(now, conn);
        self.counters.logins += 1;
        self.counters.logins_by_ticket += u64::from(ticket.is_some());
        out.push(Output::ReceiveAlways(conn));
        // The key comes before the ticket, whose mark says that the phone knows it.
        if greeting.needs_key {
            let key = self.server_key.pair().public;
            self.say(conn, &ServerFrame::ServerKey { key });
        }
        self.give_ticket(now, conn, account_id, device);
        if bug!(self, drained_early) {
            self.tell_drained(id);
        }
        self.presence_changed(account);
        self.deliver(now, id);
    }

    fn has_newer_session(&mut self, account: AccountIndex, place: usize, number: u64) -> bool {
        let session = self.accounts.device_mut(account, place).and_then(|device| device.session);
        session.and_then(|id| self.sessions.get(id)).is_some_and(|session| session.greeting > number)
    }

    /// Ends the session that the device has, if any.
    pub(crate) fn replace_session(&mut self, account: AccountIndex, place: usize) {
        let old = self.accounts.device_mut(account, place).and_then(|device| device.session);
        if let Some(old) = old.and_then(|id| self.sessions.get(id)).map(|session| session.conn) {
            self.counters.sessions_replaced += 1;
            self.goodbye(old, GoodbyeReason::Replaced, 0);
        }
    }

    /// The session is over; its unacknowledged mail stays where it was, in the mailbox.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(id) else { return };
        if bug!(self, answers_kept) {
            self.sessions.unanswered_count += session.under_way.as_ref().map_or(0, |u| u.counted as usize);
        }
        if let Some(device) = self.accounts.device_mut(session.account, session.place())
            && device.session == Some(id)
        {
            device.session = None;
            // The next session need not look at the mail of others again.
            device.floor = device.floor.max(session.floor());
        }
        self.presence_changed(session.account);
    }

    /// The phone sends a message.
    pub(crate) fn session_send(
        &mut self,
        now: Now,
        id: SessionId,
        to: AccountId,
        message: MessageId,
        body: &[u8],
    ) {
        let Some(session) = self.sessions.get(id) else { return };
        let (conn, from, device, account) =
            (session.conn, session.account_id, session.device, session.account);
        self.counters.messages_in += 1;
        if body.len() > self.config.limits.body_bytes {
            self.counters.too_large += 1;
            self.refuse(conn, ErrorCode::TooLarge, "the body is larger than welcome said");
            return;
        }
        let Some(home) = self.config.partitions.home_of(to) else {
            self.counters.refused_unknown += 1;
            self.say(conn, &ServerFrame::Unknown { id: message });
            return;
        };
        // Who does not fetch its ticks makes its recipients' homes owe them: it must fetch before it sends more.
        let owes_too_much = self.accounts.get_mut(account).is_some_and(|of| {
            self.stirred.note(of, account);
            of.mailbox.open_count() >= 2 * self.config.limits.mailbox_count as usize
        });
        let now_ns = now.mono_ns;
        let has_room = self.sessions.has_room(id);
        let Some(session) = self.sessions.get_mut(id) else { return };
        let greeting = session.greeting;
        let Some(turn) = session.turn(to, message, now_ns, has_room) else {
            self.pass_over(id, has_room);
            return;
        };
        self.sessions.recount(id);
        let ends = Ends { to, from, device };
        if let Turn::Later { by, in_doubt } = turn {
            if let Some(before) = in_doubt
                && self.has_copy(account, ends, before)
            {
                self.cast_to(now, Kind::Ask, 0, ends, before, 0);
            }
            // The home that refused the one before knows nothing of this one.
            let by = if by == Refuser::Home { Refuser::Limit } else { by };
            self.refuse_message(id, (to, home), message, by);
            return;
        }
        if owes_too_much || !self.may_send(now, account) {
            self.refuse_message(id, (to, home), message, Refuser::Limit);
            return;
        }
        let mut parts = Parts { seq: greeting, body, ..ends.parts(now, Kind::Message, message) };
        let has_copy = self.append_copy(now, account, &mut parts);
        let Some(account) = self.accounts.get(account) else { return };
        parts.from_name = &account.name;
        if !has_copy {
            self.refuse_message(id, (to, home), message, Refuser::Limit);
        } else if !self.router.cast(home, Lane::Bulk, &parts) {
            self.router.found_full(home, now_ns);
            self.refuse_message(id, (to, home), message, Refuser::Lane);
        }
    }

    /// A message would have to be remembered, and there is no memory (or, if there is, the session has as many as any may
    /// have): it and all behind it are passed over, which keeps
    /// their order. A phone with so much under way starts again, once it has its answers: else it would get nowhere.
    fn pass_over(&mut self, id: SessionId, has_room: bool) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if !core::mem::replace(&mut session.is_full, true) {
            self.counters.unanswered_full += u64::from(!has_room);
            self.counters.session_unanswered_full += u64::from(has_room);
        }
        self.send_away_if_full(id);
    }

    fn send_away_if_full(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id).filter(|s| s.is_full && !s.waits_for_answers()) else {
            return;
        };
        let conn = session.conn;
        let retry_ms = self.busy_ms();
        self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
    }

    /// A message does not go on now: the phone comes back with this id, and with no later one before.
    fn refuse_message(
        &mut self,
        id: SessionId,
        (to, home): (AccountId, ShardId),
        message: MessageId,
        by: Refuser,
    ) {
        let retry_ms = match by {
            Refuser::Lane => self.lane_busy_ms(home),
            Refuser::Limit | Refuser::Home => self.busy_ms(),
        };
        let breaks_order = bug!(self, busy_breaks_order);
        let now_ns = self.now.mono_ns;
        let Some(session) = self.sessions.get_mut(id) else { return };
        if !breaks_order {
            session.under_way().outbound.refuse(to, message, now_ns, by);
        }
        let conn = session.conn;
        self.counters.refused_busy += 1;
        self.say(conn, &ServerFrame::Busy { id: message, retry_ms });
    }

    /// The recipient's home refused a message.
    pub(crate) fn home_refused(&mut self, envelope: Envelope<'_>) {
        let breaks_order = bug!(self, busy_breaks_order);
        let now_ns = self.now.mono_ns;
        let found = self.accounts.find_device(envelope.to(), envelope.sender_device());
        let device = found.and_then(|(account, place)| self.accounts.device_mut(account, place));
        let session = device.and_then(|device| device.session);
        // Without anything under way the session knows nothing of the message.
        if let Some(session) = session.and_then(|id| self.sessions.get_mut(id))
            && let Some(under_way) = &mut session.under_way
            && !breaks_order
        {
            under_way.outbound.refuse(envelope.from(), envelope.id(), now_ns, Refuser::Home);
        }
    }

    /// The phone has its final answer for a message and will not send it again: no stream may wait for it.
    /// How long it took, nanoseconds, if the session knew of it.
    pub(crate) fn session_is_done_with(
        &mut self,
        now: Now,
        id: SessionId,
        to: AccountId,
        message: MessageId,
    ) -> Option<u64> {
        let session = self.sessions.get_mut(id)?;
        let done = session.under_way.as_mut()?.outbound.done(to, message);
        let (from, device) = (session.account_id, session.device);
        self.sessions.recount(id);
        if let Some(to) = done.and_then(|done| done.waiting_home) {
            self.tell_home_done(now, to, from, device, message);
        }
        self.send_away_if_full(id);
        done.map(|done| done.took_ns(now.mono_ns))
    }

    /// The phone has everything up to a delivery number.
    pub(crate) fn session_ack(&mut self, now: Now, id: SessionId, number: u32) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        // Numbers count from 1 on each connection, which ends long before they do.
        let given = session.acknowledged + session.window_len() as u32;
        if number > given {
            let conn = session.conn;
            self.counters.bad_acknowledgements += 1;
            self.refuse(conn, ErrorCode::BadAcknowledgement, "more than was delivered");
            return;
        }
        let (passed, mut floor) = (session.floor(), None);
        while session.acknowledged < number {
            session.acknowledged += 1;
            floor = session.under_way().window.pop_front();
        }
        if let Some(floor) = floor {
            let (account, place, conn) = (session.account, session.place(), session.conn);
            self.acknowledge(now, account, place, passed, floor);
            if number >= self.config.limits.delivery_count {
                // It has all that it was given, and gets the rest under new numbers.
                self.counters.deliveries_full += 1;
                let retry_ms = self.busy_ms();
                self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
                return;
            }
            self.deliver(now, id);
        }
    }

    /// The phone's owner has read a message.
    pub(crate) fn session_read(&mut self, now: Now, id: SessionId, author: AccountId, message: MessageId) {
        let Some(session) = self.sessions.get(id) else { return };
        let ends = Ends { to: author, from: session.account_id, device: session.device };
        let account = session.account;
        // A tick is mail for its author, and costs what a message costs. Its phone says it again if nobody answers.
        if self.config.partitions.home_of(author).is_some() && self.may_send(now, account) {
            self.cast_to(now, Kind::Read, 0, ends, message, 0);
        }
    }

    /// The phone asks which account a name is.
    pub(crate) fn session_lookup(&mut self, now: Now, id: SessionId, name: &str) {
        let Some(session) = self.sessions.get(id) else { return };
        let (conn, from, device) = (session.conn, session.account_id, session.device);
        let account = session.account;
        if !self.may_ask(now, account) {
            return;
        }
        if !valid_name(name) {
            self.say(conn, &ServerFrame::Found { account: None, name });
            return;
        }
        let partition = PartitionId::of_name(name, self.config.partitions.partition_count());
        // Only the partition matters: the name is resolved at its home.
        let ends = Ends { to: AccountId(u64::from(partition.0) << 48), from, device };
        let parts = Parts { body: name.as_bytes(), ..ends.parts(now, Kind::Lookup, MessageId(0)) };
        self.router.cast(self.config.partitions.shard_of(partition), Lane::Control, &parts);
    }
}
