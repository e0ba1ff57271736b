//! The life of a phone's connection: login, what it says, its end, and coming again.

use super::phone::{Stage, key_of, of_key};
use super::timers::Alarm;
use super::turn::{Fleet, KEEP_ALIVE_NS, Traffic};
use crate::books::{Books, Signals, partner};
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, Ipv4Addr};
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::frame::ClientFrame;
use tern_ring::Slot;

/// Logins under way at once.
const LOGIN_WINDOW_COUNT: u32 = 64;
/// A login that takes longer is tried again.
const LOGIN_LIMIT_NS: u64 = 8_000_000_000;
/// Phones of one source address: a pair of addresses has some 28,000 ports, of which closed ones rest for a minute.
const PHONES_PER_SOURCE: u32 = 14_000;
/// A phone that has sent nothing for so long says `Ping`.
const SILENCE_NS: u64 = 120_000_000_000;
/// Bytes of messages that go into one send.
const SEND_BYTES: usize = 32 << 10;

impl Fleet {
    /// Lets a phone log in when its turn comes; nothing for one that is not away.
    pub(crate) fn want_online(&mut self, phone: u32) {
        let state = &mut self.phones[phone as usize];
        if state.stage == Stage::Away {
            state.stage = Stage::Waiting;
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
            Stage::LoggingIn => self.end(phone, Stage::Away),
            Stage::Waiting => {
                state.disconnect(Stage::Away);
            }
            Stage::Away | Stage::Refused => {}
        }
    }

    pub(super) fn start_logins(&mut self) {
        while self.logging_in_count < LOGIN_WINDOW_COUNT
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
        let state = &mut self.phones[phone as usize];
        state.client = Some(Client::new(ClientConfig {
            name: name(phone),
            keys: state.keys,
            server_key: self.config.server_key,
            ticket: None,
            register: state.registers && account.is_none(),
            partition_hint: account.map(|account| account.partition()),
            seed,
        }));
        state.stage = Stage::LoggingIn;
        self.logging_in_count += 1;
        state.connect_ns = self.clock.now_ns();
        self.logins.attempt(state.connect_ns);
        let key = key_of(phone, state.attempt);
        self.timers.set(state.connect_ns + LOGIN_LIMIT_NS, Alarm::LoginTooLong, key);
        let many = self.phones.len() as u32 > PHONES_PER_SOURCE && self.config.door.ip().is_loopback();
        let source = (many && self.config.door.is_ipv4())
            .then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + (phone / PHONES_PER_SOURCE) as u8)));
        if let Err(error) = self.ring.connect(self.config.door, source, key) {
            eprintln!("tern-load: {}: no socket: {error}", name(phone));
            self.lose(phone, None);
        }
    }

    pub(super) fn connected(&mut self, slot: Slot, key: u64) {
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
        if let Some(server_key) = signals.welcome {
            self.welcomed(phone, server_key, now_ns);
        }
        let state = &mut self.phones[phone as usize];
        state.drained |= signals.drained;
        if let (Some(number), Some(client)) = (signals.ack, &mut state.client) {
            client.ack(number);
        }
        if let Some(text) = signals.refused {
            return self.refused(phone, text);
        }
        match signals.retry_ms {
            Some(retry_ms) => self.lose(phone, Some(retry_ms)),
            None => self.mark(phone),
        }
    }

    fn welcomed(&mut self, phone: u32, server_key: Option<[u8; 32]>, now_ns: u64) {
        self.config.server_key = self.config.server_key.or(server_key);
        let state = &mut self.phones[phone as usize];
        state.stage = Stage::Online;
        self.logging_in_count -= 1;
        self.online_count += 1;
        let first = !std::mem::replace(&mut state.ever_online, true);
        self.logins.welcome(first, state.connect_ns, now_ns);
        self.books.connected(phone);
    }

    fn refused(&mut self, phone: u32, text: String) {
        let state = &mut self.phones[phone as usize];
        if state.registers && !state.ever_online {
            // Its name is taken: perhaps by itself, in an earlier run.
            state.registers = false;
            return self.lose(phone, None);
        }
        self.refusal.get_or_insert(format!("{}: {text}", name(phone)));
        self.end(phone, Stage::Refused);
    }

    /// The connection is gone: come again after a while.
    pub(super) fn lose(&mut self, phone: u32, retry_ms: Option<u32>) {
        let leaving = self.phones[phone as usize].leaving;
        self.end(phone, if leaving { Stage::Away } else { Stage::Waiting });
        if !leaving {
            let due_ns = self.clock.now_ns() + self.jitter_ns(retry_ms);
            let key = key_of(phone, self.phones[phone as usize].attempt);
            self.timers.set(due_ns, Alarm::Connect, key);
        }
    }

    fn end(&mut self, phone: u32, stage: Stage) {
        let state = &mut self.phones[phone as usize];
        match state.stage {
            Stage::LoggingIn => self.logging_in_count -= 1,
            Stage::Online => self.online_count -= 1,
            _ => {}
        }
        let key = key_of(phone, state.attempt);
        if let Some(slot) = state.disconnect(stage) {
            let _ = self.ring.close(slot, key);
        }
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
        state.last_sent_ns = now_ns;
        self.books.acknowledged(phone);
    }

    fn queue_messages(&mut self, phone: u32, now_ns: u64) {
        let Some(to) = self.books.accounts[partner(phone) as usize] else { return };
        let state = &mut self.phones[phone as usize];
        let Some(client) = &mut state.client else { return };
        let Books { flows, tally, .. } = &mut self.books;
        let flow = &mut flows[phone as usize];
        if let Traffic::Window { count, place, until_ns } = self.traffic
            && now_ns < until_ns
        {
            while flow.places_taken(place) < count && flow.submitted_count() < state.quota_count {
                flow.submit(now_ns, self.unix_s, tally);
            }
        }
        let mut queued_bytes = 0;
        while queued_bytes < SEND_BYTES
            && let Some(out) = self.books.flow(phone).next_to_send(now_ns)
        {
            let body = self.books.body(phone, out.seq);
            queued_bytes += body.len() + 20;
            client.send(&ClientFrame::Send { to, id: out.id, body });
        }
        if let Some(due_ns) = self.books.flow(phone).blocked_until(now_ns)
            && state.unblock_ns != due_ns
        {
            state.unblock_ns = due_ns;
            self.timers.set(due_ns, Alarm::Unblock, key_of(phone, state.attempt));
        }
    }

    pub(super) fn keep_alive(&mut self, now_ns: u64) {
        for phone in 0..self.phones.len() as u32 {
            let state = &mut self.phones[phone as usize];
            if state.stage == Stage::Online && now_ns.saturating_sub(state.last_sent_ns) > SILENCE_NS {
                if let Some(client) = &mut state.client {
                    client.send(&ClientFrame::Ping { token: 0 });
                }
                self.mark(phone);
            }
        }
        self.timers.set(now_ns + KEEP_ALIVE_NS, Alarm::KeepAlive, 0);
    }
}

/// The name of a phone's account.
pub(crate) fn name(phone: u32) -> String {
    format!("load-{phone}")
}
