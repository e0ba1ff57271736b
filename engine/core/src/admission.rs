//! Who gets in, and how fast: connects and handshakes by address, handshakes by turn, frames, bytes and messages by
//! token bucket. Whoever is too fast is told when to come back; the others do not notice.

use crate::account::{AccountIndex, SeededHash};
use crate::addresses::{Act, Address, TooMany};
use crate::bucket::{Bucket, Rate};
use crate::counters::Counters;
use crate::edge::State;
use crate::io::{ConnId, Now};
use crate::limits::{Limits, OVERLAP_COUNT};
use crate::receive::Next;
use crate::shard::Shard;
use core::net::SocketAddr;
use hashbrown::HashMap;
use rand_chacha::rand_core::RngCore;
use tern_protocol::phone::frame::{ErrorCode, GoodbyeReason};
use tern_protocol::phone::record;
use tern_protocol::phone::server::busy_refusal;
use tern_protocol::proxy::{self, Header};

/// How fast a connection and an account may be. The rates of addresses are with [`crate::addresses`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    frames: Rate,
    bytes: Rate,
    account_frames: Rate,
    messages: Rate,
}

impl Rates {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self {
            frames: Rate::new(limits.connection_frames_per_s, limits.connection_frames_burst),
            bytes: Rate::new(limits.connection_bytes_per_s, limits.connection_bytes_burst),
            account_frames: Rate::new(limits.account_frames_per_s, limits.account_frames_burst),
            messages: Rate::new(limits.account_messages_per_s, limits.account_messages_burst),
        }
    }
}

/// What a connection may still send for now.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Meter {
    frames: Bucket,
    bytes: Bucket,
}

impl Meter {
    /// Counts received bytes. False if they are too many.
    pub(crate) fn may_receive(&mut self, rates: &Rates, now: Now, bytes: usize) -> bool {
        self.bytes.take(rates.bytes, now.mono_ns, bytes as u64)
    }

    /// Counts a frame. False if it is one too many.
    pub(crate) fn may_say_one_more(&mut self, rates: &Rates, now: Now) -> bool {
        self.frames.take(rates.frames, now.mono_ns, 1)
    }
}

/// What accounts may still do for now, of one kind. Few do it at a time, and a bucket that is full again is as good as
/// none: idle accounts cost nothing here.
#[derive(Debug)]
pub(crate) struct Budget {
    buckets: HashMap<AccountIndex, Bucket, SeededHash>,
    rate: Rate,
    /// At so many, full ones are looked for: when they have doubled since the last time.
    look_at_count: usize,
}

/// Who waits for its handshake's turn shall have it within this part of the time that a login may take: a phone that
/// waits for its login is not patient for much longer than that.
const LINE_SHARE: u64 = 4;
/// What whoever comes to a line that has been slow for long is told to wait, milliseconds, and up to as much again.
const SLOW_MS_MAX: u64 = 30_000;
/// Frames of a phone that talks which are counted for its account and its address before it says them.
const IN_ADVANCE: u64 = 15;
/// Buckets below which nobody looks for full ones.
const LOOK_AT_COUNT_MIN: usize = 1024;

impl Budget {
    const fn new(rate: Rate, hash: SeededHash) -> Self {
        Self { buckets: HashMap::with_hasher(hash), rate, look_at_count: LOOK_AT_COUNT_MIN }
    }

    /// What accounts may ask for beside messages.
    pub(crate) const fn of_asks(limits: &Limits, hash: SeededHash) -> Self {
        Self::new(Rate::new(limits.account_asks_per_s, limits.account_asks_burst), hash)
    }

    /// Devices that accounts may add.
    pub(crate) fn of_devices(limits: &Limits, hash: SeededHash) -> Self {
        Self::new(Rate::per_hour(limits.account_devices_per_h, limits.account_devices_burst, 1), hash)
    }

    /// All that accounts may say.
    pub(crate) const fn of_frames(rates: &Rates, hash: SeededHash) -> Self {
        Self::new(rates.account_frames, hash)
    }

    /// Counts what an account does. False if it was one too many.
    pub(crate) fn may(&mut self, account: AccountIndex, now_ns: u64, count: u64) -> bool {
        self.may_in_advance(account, now_ns, count, 0).is_some()
    }

    /// Likewise, and so many more in advance if there are plenty: how many.
    fn may_in_advance(&mut self, account: AccountIndex, now_ns: u64, count: u64, more: u64) -> Option<u64> {
        if self.rate.is_none() {
            return Some(more);
        }
        if self.buckets.len() >= self.look_at_count {
            self.buckets.retain(|_, bucket| bucket.full_at_ns() > now_ns);
            self.look_at_count = (2 * self.buckets.len()).max(LOOK_AT_COUNT_MIN);
            self.buckets.shrink_to(self.look_at_count);
        }
        self.buckets.entry(account).or_default().take_in_advance(self.rate, now_ns, count, more)
    }
}

impl Shard {
    /// A socket was accepted from `peer`: how its edge begins and for which address it counts, or none if that connects
    /// too often or holds too much.
    ///
    /// A balancer passes on the connections of many: not its address counts, but the one that it names.
    pub(crate) fn admit_connect(
        &mut self,
        now: Now,
        peer: Option<SocketAddr>,
    ) -> Option<(State, Option<Address>)> {
        if peer.is_some_and(|peer| self.config.proxies.iter().any(|network| network.contains(peer.ip()))) {
            return Some((State::Proxy, None));
        }
        let address = self.limited(peer);
        self.may_connect(now, address).then_some((State::Preface, address))
    }

    /// The address that a connection counts for, if it is limited.
    pub(crate) fn limited(&self, peer: Option<SocketAddr>) -> Option<Address> {
        peer.and_then(|peer| self.addresses.limited(peer.ip()))
    }

    fn may_connect(&mut self, now: Now, address: Option<Address>) -> bool {
        let Some(address) = address else { return true };
        let may = self.addresses.may(Act::Connect, address, now.mono_ns, 1);
        self.counters.refused_address_connects += u64::from(!may);
        may && self.may_hold(address)
    }

    /// Whether an address may hold one more connection, which has not logged in.
    pub(crate) fn may_hold(&mut self, address: Address) -> bool {
        let may = self.addresses.may_hold(address);
        match may {
            Ok(()) => {}
            Err(TooMany::Connections) => self.counters.refused_address_connections += 1,
            Err(TooMany::HalfOpen) => self.counters.refused_address_half_open += 1,
        }
        may.is_ok()
    }

    /// Makes room for one more connection, if the shard has as many as it may. False if there is none to give up.
    pub(crate) fn make_room(&mut self) -> bool {
        let limit = self.config.limits.connection_count as usize;
        if self.edges.open_count() < limit {
            return true;
        }
        self.counters.refused_connections += 1;
        // Sockets that were given up before may still be closing.
        if self.edges.open_count() >= limit + OVERLAP_COUNT as usize {
            return false;
        }
        match self.edges.longest_waited_for() {
            Some(conn) => {
                self.count_unproven(conn);
                self.refuse_busy(conn);
                true
            }
            None => false,
        }
    }

    /// A trusted balancer says whose connection it passes on.
    pub(crate) fn use_proxy(&mut self, now: Now, conn: ConnId, bytes: &[u8]) -> Next {
        let (header, header_bytes) = match proxy::read(bytes) {
            Ok(Some(read)) => read,
            Ok(None) => return Next::Wait,
            Err(_) => {
                self.counters.proxy_errors += 1;
                self.refuse(conn, ErrorCode::Malformed, "PROXY header");
                return Next::Stop;
            }
        };
        let Some(edge) = self.edges.get_mut(conn) else { return Next::Stop };
        if let Header::From(source) = header {
            edge.opening().peer = Some(source);
        }
        edge.state = State::Preface;
        let peer = edge.opening().peer;
        let address = self.limited(peer);
        if !self.may_connect(now, address) {
            self.hang_up(conn);
            return Next::Stop;
        }
        self.hold(conn, address);
        Next::Used(header_bytes)
    }

    /// The preface is read, and this shard is to do the handshake: nothing is made ready for it before its first
    /// record is whole, its address may begin one more, and the turn has time. `None` lets it begin.
    pub(crate) fn admit_handshake(&mut self, now: Now, conn: ConnId, behind_preface: &[u8]) -> Option<Next> {
        match record::split_handshake(behind_preface) {
            Ok(Some(_)) => {}
            Ok(None) => return Some(Next::Wait),
            Err(_) => {
                self.refuse(conn, ErrorCode::Malformed, "handshake record");
                return Some(Next::Stop);
            }
        }
        let opening = self.edges.get_mut(conn)?.opening();
        let is_new = !core::mem::replace(&mut opening.admitted, true);
        let holder = self.edges.holder(conn);
        if is_new && !self.addresses.holder_may(Act::Handshake, holder, now.mono_ns, 1) {
            self.counters.refused_address_handshakes += 1;
            self.refuse_busy(conn);
            return Some(Next::Stop);
        }
        let its_turn = self.edges.get_mut(conn).is_some_and(|edge| edge.opening().its_turn);
        // Whoever comes now comes behind those who wait: under a storm that goes on they would wait for ever otherwise.
        if self.handshakes_left > 0 && (its_turn || self.edges.deferred_count() == 0) {
            return None;
        }
        let is_full = self.edges.deferred_count() >= self.config.limits.deferred_count as usize;
        if is_full || self.slow_line_ms().is_some() {
            let counters = &mut self.counters;
            let counter = if is_full {
                &mut counters.refused_handshakes
            } else {
                &mut counters.refused_handshake_waits
            };
            *counter += 1;
            self.refuse_handshake(conn);
            return Some(Next::Stop);
        }
        Some(self.defer_handshake(now, conn))
    }

    /// The turn has no time for another handshake: this one waits for a later turn, and is not read meanwhile.
    pub(crate) fn defer_handshake(&mut self, now: Now, conn: ConnId) -> Next {
        self.counters.deferred_handshakes += u64::from(self.edges.defer(conn, now.mono_ns));
        Next::Stop
    }

    /// For how long the line of handshakes has been slow by now, milliseconds; none if it is not.
    fn slow_line_ms(&mut self) -> Option<u64> {
        let login_ns = self.config.limits.login_ms * 1_000_000;
        let slow_ns = self.edges.slow_for_ns(self.now.mono_ns, login_ns / LINE_SHARE, login_ns);
        slow_ns.map(|slow_ns| slow_ns / 1_000_000)
    }

    /// Ends an edge whose handshake has no turn in time; it is told in the clear when to come back. The longer the line
    /// has been slow, the later: all who come in vain cost the time of those who wait.
    pub(crate) fn refuse_handshake(&mut self, conn: ConnId) {
        let slow_ms = self.slow_line_ms().unwrap_or(0).min(SLOW_MS_MAX) as u32;
        let retry_ms = self.busy_ms().max(slow_ms + self.rng.next_u32() % (slow_ms + 1));
        self.send_away(conn, GoodbyeReason::Busy, retry_ms);
    }

    /// Ends an edge without a handshake; it is told in the clear when to come back.
    pub(crate) fn refuse_busy(&mut self, conn: ConnId) {
        let retry_ms = self.busy_ms();
        self.send_away(conn, GoodbyeReason::Busy, retry_ms);
    }

    /// Ends an edge and says when to come back: in the clear if it has no keys yet.
    pub(crate) fn send_away(&mut self, conn: ConnId, reason: GoodbyeReason, retry_ms: u32) {
        if let Some(edge) = self.edges.get_mut(conn)
            && edge.can_be_told_in_the_clear()
        {
            busy_refusal(retry_ms, &mut edge.opening().raw_out);
        }
        self.goodbye(conn, reason, retry_ms);
    }

    /// Ends an edge that sends too much of what the counter counts: it may come back later.
    pub(crate) fn end_flood(&mut self, conn: ConnId, counter: fn(&mut Counters) -> &mut u64) {
        if !self.is_closing(conn) {
            *counter(&mut self.counters) += 1;
            let retry_ms = self.busy_ms();
            self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
        }
    }

    /// Counts what a connection has just said for its account and its address, once for all of it: on the way
    /// of each frame there is only the bucket of its connection. Of a phone that talks some are counted in advance, so
    /// that the other two, which lie elsewhere and are in no cache, are looked at once in a while only.
    pub(crate) fn count_frames(&mut self, now: Now, conn: ConnId) {
        let count = core::mem::take(&mut self.heard_frame_count);
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let Some(count) = edge.not_counted(count) else { return };
        let more = if edge.talks() { IN_ADVANCE } else { 0 };
        let mut counted = more;
        if let State::Adopted(session) = edge.state
            && let Some(account) = self.sessions.get(session).map(|session| session.account)
        {
            match self.saying.may_in_advance(account, now.mono_ns, count, more) {
                Some(of_account) => counted = of_account,
                None => return self.end_flood(conn, |counters| &mut counters.account_floods),
            }
        }
        let holder = self.edges.holder(conn);
        match self.addresses.holder_may_in_advance(Act::SayFrame, holder, now.mono_ns, count, more) {
            Some(of_address) => counted = counted.min(of_address),
            None => return self.end_flood(conn, |counters| &mut counters.address_floods),
        }
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.counted_frames = counted as u8;
        }
    }

    /// Counts an account that an address wants to register. False if it registers too many: it is told to come back.
    pub(crate) fn may_register(&mut self, now: Now, conn: ConnId) -> bool {
        let holder = self.edges.holder(conn);
        let may = self.addresses.holder_may(Act::Register, holder, now.mono_ns, 1);
        self.counters.refused_address_registrations += u64::from(!may);
        may
    }

    /// Counts a message or a read tick of an account. False if it sends too many: this one is refused.
    pub(crate) fn may_send(&mut self, now: Now, account: AccountIndex) -> bool {
        let rate = self.rates.messages;
        let Some(account) = self.accounts.get_mut(account) else { return false };
        let may = account.sending.take(rate, now.mono_ns, 1);
        self.counters.refused_account_rate += u64::from(!may);
        may
    }

    /// Counts what an account asks for beside messages. False if it asks too much: this one is refused or dropped.
    pub(crate) fn may_ask(&mut self, now: Now, account: AccountIndex) -> bool {
        let may = self.asking.may(account, now.mono_ns, 1);
        self.counters.refused_asks += u64::from(!may);
        may
    }

    /// Ends an edge that holds more than its share of a memory that is short.
    pub(crate) fn check_memory(&mut self, conn: ConnId) {
        if !self.edges.may_keep_tail(conn) && !self.is_closing(conn) {
            self.counters.refused_memory += 1;
            let retry_ms = self.busy_ms();
            self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
        }
    }

    fn is_closing(&mut self, conn: ConnId) -> bool {
        self.edges.get_mut(conn).is_none_or(|edge| matches!(edge.state, State::Closing { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_that_stopped_asking_are_forgotten() {
        let limits = Limits { account_asks_per_s: 10, account_asks_burst: 2, ..Limits::default() };
        let mut asking = Budget::of_asks(&limits, SeededHash(1, 2));
        for second in 0..20 {
            for n in 0..1_000 {
                let account = AccountIndex(second * 1_000 + n);
                let now_ns = u64::from(second) * 1_000_000_000;
                assert!((0..2).all(|_| asking.may(account, now_ns, 1)));
                assert!(!asking.may(account, now_ns, 1));
            }
            assert!(asking.buckets.len() <= 2_000, "{}", asking.buckets.len());
        }
    }
}
