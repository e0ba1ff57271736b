//! The life of a phone's connection: login, what it says, its end, and coming again.

use super::phone::{Phone, Stage, key_of, of_key};
use super::timers::Alarm;
use super::turn::{Fleet, KEEP_ALIVE_NS, Traffic};
use crate::books::{QUESTION, Signals, Welcome, partner};
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::frame::ClientFrame;
use tern_ring::Slot;

/// A login that takes longer is tried again.
const LOGIN_LIMIT_NS: u64 = 8_000_000_000;
/// Looking at every phone, whether it is silent, takes at most so many seconds; a phone pings as much earlier than it
/// must.
const KEEP_ALIVE_ROUND_S: u32 = 8;
/// Bytes of messages that go into one send.
const SEND_BYTES: usize = 32 << 10;

impl Fleet {
    /// Lets a phone log in when its turn comes; nothing for one that is not away.
    pub(crate) fn want_online(&mut self, phone: u32) {
        if self.phones[phone as usize].stage == Stage::Away {
            self.phones[phone as usize].connect_ns = 0;
            self.set_stage(phone, Stage::Waiting);
            self.login_queue.push_back(phone);
        }
    }

    /// Lets a phone say goodbye and go.
    pub(crate) fn leave(&mut self, phone: u32) {
        let state = &mut self.phones[phone as usize];
        match state.stage {
            Stage::Online => {
                state.leaving = true;
                if let Some(client) = &mut state.client {
                    client.send(&ClientFrame::Goodbye);
                }
                self.mark(phone);
            }
            Stage::LoggingIn | Stage::Waiting => self.end(phone, Stage::Away),
            Stage::Away | Stage::Refused => {}
        }
    }

    pub(super) fn start_logins(&mut self) {
        while self.counts.in_stage(Stage::LoggingIn) < self.login_window_count
            && let Some(phone) = self.login_queue.pop_front()
        {
            if self.phones[phone as usize].stage == Stage::Waiting {
                self.connect(phone);
            }
        }
    }

    fn connect(&mut self, phone: u32) {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let account = self.books.accounts[phone as usize];
        let name = self.name(phone);
        self.set_stage(phone, Stage::LoggingIn);
        let state = &mut self.phones[phone as usize];
        state.client = Some(Client::new(ClientConfig {
            name,
            keys: state.keys,
            server_key: self.config.server_key,
            // It works once, even where the connection that it is for comes to nothing.
            ticket: state.ticket.take().map(|ticket| *ticket),
            register: state.registers && account.is_none(),
            partition_hint: account.map(|account| account.partition()),
            seed,
        }));
        let now_ns = self.clock.now_ns();
        if state.connect_ns == 0 {
            state.connect_ns = now_ns;
        }
        self.logins.attempt(now_ns);
        let key = key_of(phone, state.attempt);
        self.timers.set(now_ns + LOGIN_LIMIT_NS, Alarm::LoginTooLong, key);
        let source = source(self.config.door, self.account_number(phone), self.config.phones_per_source);
        if let Err(error) = self.ring.connect(self.config.door, source, key) {
            eprintln!("tern-load: {}: no socket: {error}", self.name(phone));
            self.lose(phone, None);
        }
    }

    /// The name of a phone's account.
    pub(super) fn name(&self, phone: u32) -> String {
        name(self.account_number(phone))
    }

    /// The number in the name of a phone's account.
    fn account_number(&self, phone: u32) -> u32 {
        self.config.first_account + self.config.first_phone + phone
    }

    pub(super) fn connected(&mut self, slot: Slot, key: u64) {
        self.counts.connect_error = None;
        let (phone, attempt) = of_key(key);
        if !self.is_current(phone, attempt) || self.ring.receive_always(slot, key).is_err() {
            let _ = self.ring.close(slot, key);
            return;
        }
        self.phones[phone as usize].slot = Some(slot);
        self.mark(phone);
    }

    /// Does what a batch of events asked for.
    pub(super) fn heed(&mut self, phone: u32, signals: Signals, now_ns: u64) {
        if let Some(welcome) = signals.welcome {
            self.welcomed(phone, &welcome, now_ns);
        }
        let state = &mut self.phones[phone as usize];
        if signals.drained && state.stage == Stage::Online && !state.drained {
            state.drained = true;
            self.counts.drained += 1;
        }
        if let Some(ticket) = signals.ticket.filter(|_| self.config.keeps_tickets) {
            state.ticket = Some(Box::new(ticket));
        }
        self.counts.pongs += u64::from(signals.pongs);
        if let (Some(number), Some(client)) = (signals.ack, &mut state.client) {
            client.ack(number);
        }
        if let Some(text) = signals.refused {
            return self.refused(phone, text);
        }
        match signals.retry_ms {
            Some(retry_ms) => {
                let was_busy = retry_ms > 0 && self.phones[phone as usize].stage == Stage::LoggingIn;
                self.counts.busy_logins += u64::from(was_busy);
                self.lose(phone, Some(retry_ms));
            }
            None => self.mark(phone),
        }
    }

    fn welcomed(&mut self, phone: u32, welcome: &Welcome, now_ns: u64) {
        self.config.server_key = self.config.server_key.or(welcome.server_key);
        self.set_stage(phone, Stage::Online);
        self.keep_alive_s = u32::from(welcome.keep_alive_s);
        let state = &mut self.phones[phone as usize];
        let first = !std::mem::replace(&mut state.ever_online, true);
        self.logins.welcome(first, std::mem::take(&mut state.connect_ns), now_ns);
        self.counts.logins += 1;
        self.counts.resumed += u64::from(welcome.server_key.is_none());
        self.books.connected(phone, now_ns);
    }

    fn refused(&mut self, phone: u32, text: String) {
        let state = &mut self.phones[phone as usize];
        if state.registers && !state.ever_online {
            // Its name is taken: perhaps by itself, in an earlier run. What begins now is its login.
            state.registers = false;
            state.connect_ns = 0;
            return self.lose(phone, None);
        }
        let name = self.name(phone);
        self.refusal.get_or_insert(format!("{name}: {text}"));
        self.end(phone, Stage::Refused);
    }

    /// The connection is gone: come again after a while.
    pub(super) fn lose(&mut self, phone: u32, retry_ms: Option<u32>) {
        let Phone { leaving, stage, .. } = self.phones[phone as usize];
        self.counts.lost += u64::from(stage == Stage::Online && !leaving);
        self.end(phone, if leaving { Stage::Away } else { Stage::Waiting });
        if !leaving {
            self.come_again(phone, retry_ms);
        }
    }

    fn come_again(&mut self, phone: u32, retry_ms: Option<u32>) {
        let due_ns = self.clock.now_ns() + self.jitter_ns(retry_ms);
        let key = key_of(phone, self.phones[phone as usize].attempt);
        self.timers.set(due_ns, Alarm::Connect, key);
    }

    /// Drops a phone's connection without a word, on purpose, and lets it come again.
    pub(super) fn flap(&mut self, phone: u32, reset: bool) {
        let (slot, key) = self.forget(phone, Stage::Waiting);
        if let Some(slot) = slot {
            let _ = if reset { self.ring.reset(slot, key) } else { self.ring.close(slot, key) };
        }
        self.come_again(phone, None);
    }

    fn end(&mut self, phone: u32, stage: Stage) {
        if let (Some(slot), key) = self.forget(phone, stage) {
            let _ = self.ring.close(slot, key);
        }
    }

    /// Forgets a phone's connection; its socket is still open.
    fn forget(&mut self, phone: u32, stage: Stage) -> (Option<Slot>, u64) {
        self.set_stage(phone, stage);
        let state = &mut self.phones[phone as usize];
        self.counts.drained -= u64::from(state.drained);
        let key = key_of(phone, state.attempt);
        (state.disconnect(), key)
    }

    /// A send has ended: close if that was the goodbye, else say what came up meanwhile.
    pub(super) fn sent(&mut self, phone: u32) {
        let state = &mut self.phones[phone as usize];
        state.sending = false;
        let silent = state.client.as_ref().is_none_or(|client| !client.has_output());
        if state.leaving && silent {
            self.end(phone, Stage::Away);
        } else {
            self.mark(phone);
        }
    }

    /// Says everything that a phone has to say, in one send; the acknowledgement goes along.
    pub(super) fn pump(&mut self, phone: u32) {
        let state = &self.phones[phone as usize];
        let Some(slot) = state.slot.filter(|_| !state.sending) else { return };
        let now_ns = self.clock.now_ns();
        if state.stage == Stage::Online && !state.leaving {
            self.queue_messages(phone, now_ns);
        }
        let state = &mut self.phones[phone as usize];
        let Some(client) = state.client.as_mut().filter(|client| client.has_output()) else { return };
        self.out.clear();
        client.flush(&mut self.out);
        if self.ring.send(slot, key_of(phone, state.attempt), &self.out).is_err() {
            return self.lose(phone, None);
        }
        state.sending = true;
        state.last_sent_s = (now_ns / 1_000_000_000) as u32;
        self.books.acknowledged(phone);
    }

    fn queue_messages(&mut self, phone: u32, now_ns: u64) {
        let Some(to) = self.books.accounts[partner(phone) as usize] else { return };
        if matches!(self.traffic, Traffic::Nothing) && self.books.flow_if_any(phone).is_none() {
            return;
        }
        let state = &mut self.phones[phone as usize];
        let Some(client) = &mut state.client else { return };
        let (flow, tally) = self.books.flow(phone);
        if let Traffic::Window { count, place, until_ns } = self.traffic
            && now_ns < until_ns
        {
            while flow.places_taken(place) < count && flow.submitted_count() < state.quota_count {
                flow.submit(now_ns, self.unix_s, tally);
            }
        }
        let mut queued_bytes = 0;
        while queued_bytes < SEND_BYTES
            && let Some(out) = self.books.flow(phone).0.next_to_send(now_ns)
        {
            let body = self.books.body(phone, out.seq);
            queued_bytes += body.len() + 20;
            client.expand_keys();
            client.send(&ClientFrame::Send { to, id: out.id, body });
        }
        let flow = self.books.flow(phone).0;
        if let Some(due_ns) = flow.blocked_until(now_ns)
            && state.unblock_ns != due_ns
        {
            state.unblock_ns = due_ns;
            self.timers.set(due_ns, Alarm::Unblock, key_of(phone, state.attempt));
        }
        if queued_bytes > 0
            && !state.resend_watched
            && let Some(due_ns) = flow.resend_due_ns()
        {
            state.resend_watched = true;
            self.timers.set(due_ns, Alarm::Resend, key_of(phone, state.attempt));
        }
    }

    /// Sends again what has no answer for too long, and sets the next look. A look costs nothing between: it is set
    /// for when the oldest message would have waited too long, and nearly always finds a younger one.
    pub(super) fn look_for_silence(&mut self, phone: u32, now_ns: u64) {
        let (flow, tally) = self.books.flow(phone);
        flow.resend_if_due(now_ns, tally);
        let due_ns = flow.resend_due_ns();
        let state = &mut self.phones[phone as usize];
        state.resend_watched = due_ns.is_some();
        if let Some(due_ns) = due_ns {
            self.timers.set(due_ns, Alarm::Resend, key_of(phone, state.attempt));
        }
        self.mark(phone);
    }

    /// Addressees that lack a ticked message are asked whether the server still answers them: one that stands still has
    /// lost nothing yet. Whether there are any.
    pub(crate) fn question_addressees(&mut self) -> bool {
        let mut asks = false;
        for sender in 0..self.phones.len() as u32 {
            let addressee = partner(sender);
            let state = &mut self.phones[addressee as usize];
            if state.stage == Stage::Online && state.drained && self.books.missing_count(sender) > 0 {
                state.drained = false;
                self.counts.drained -= 1;
                if let Some(client) = &mut state.client {
                    client.send(&ClientFrame::Ping { token: QUESTION });
                }
                self.mark(addressee);
                asks = true;
            }
        }
        asks
    }

    /// Looks at a part of the phones: those that were silent for nearly as long as the server allows say `Ping`.
    pub(super) fn keep_alive(&mut self, now_ns: u64) {
        let now_s = (now_ns / 1_000_000_000) as u32;
        let phone_count = self.phones.len() as u32;
        let round_s = (self.keep_alive_s / 4).clamp(1, KEEP_ALIVE_ROUND_S);
        let patience_s = self.keep_alive_s.saturating_sub(round_s);
        for _ in 0..phone_count.div_ceil(round_s) {
            let phone = self.keep_alive_next;
            self.keep_alive_next = (phone + 1) % phone_count;
            let state = &mut self.phones[phone as usize];
            if state.stage == Stage::Online && now_s.saturating_sub(state.last_sent_s) >= patience_s {
                if let Some(client) = &mut state.client {
                    client.send(&ClientFrame::Ping { token: 0 });
                }
                self.counts.pings += 1;
                self.mark(phone);
            }
        }
        self.timers.set(now_ns + KEEP_ALIVE_NS, Alarm::KeepAlive, 0);
    }
}

/// Where a phone connects from: large fleets spread over 127.0.0.0/8, as a pair of addresses has some 28,000 ports,
/// looking for a free one takes long when half of them are in use, and closed ones rest for a while.
fn source(door: SocketAddr, phone: u32, phones_per_source: u32) -> Option<IpAddr> {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    (door.is_ipv4() && door.ip().is_loopback())
        .then(|| IpAddr::V4(Ipv4Addr::from(first + phone / phones_per_source)))
}

/// The name of the account of a phone of the whole fleet.
pub(crate) fn name(phone: u32) -> String {
    format!("load-{phone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_fleets_spread_over_the_loopback_network() {
        let door: SocketAddr = "127.0.0.1:7322".parse().unwrap();
        let from = |phone| source(door, phone, 14_000).unwrap().to_string();
        assert_eq!(
            (from(0), from(13_999), from(14_000)),
            ("127.0.0.1".into(), "127.0.0.1".into(), "127.0.0.2".into())
        );
        assert_eq!(from(3_999_999), "127.0.1.30");
        assert_eq!(source("192.0.2.1:7322".parse().unwrap(), 20_000, 14_000), None);
        assert_eq!(source("[::1]:7322".parse().unwrap(), 20_000, 14_000), None);
    }
}
