//! The fleet's state and its turn: alarms, due messages, flaps, logins, sends; then whatever the ring reports.

use super::counts::Counts;
use super::flaps::Flaps;
use super::phone::{Phone, Stage, of_key};
use super::schedule::Schedule;
use super::timers::{Alarm, Timers};
use crate::books::{Books, Signals};
use crate::clock::{Clock, ns};
use crate::ledger::Place;
use crate::logins::Logins;
use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tern_protocol::phone::noise::KeyPair;
use tern_ring::{Config, Event, Ring, Waker};

/// Descriptors beyond one for each phone: connections that are still closing while their phones come again.
pub(crate) const SPARE_DESCRIPTOR_COUNT: u32 = 512;
/// A schedule's messages wait this long for company: one system call for each would measure the generator.
const SCHEDULE_GRAIN_NS: u64 = 200_000;
/// Logins under way at once, but in a storm.
const LOGIN_WINDOW_COUNT: u64 = 64;
/// How often some of the phones are looked at, whether they are silent.
pub(super) const KEEP_ALIVE_NS: u64 = 1_000_000_000;
/// Receive buffers of a ring whose phones talk, and of one of many that mostly wait: sooner or later each is touched.
const BUFFERS: (u16, u32) = (4096, 4096);
const BUFFERS_OF_MANY: (u16, u32) = (256, 2048);

/// What the phones send.
#[derive(Clone, Debug)]
pub(crate) enum Traffic {
    /// Nothing new; what is unticked goes out again.
    Nothing,
    /// So many messages under way for each phone, up to its quota, until a point in time.
    Window { count: u32, place: Place, until_ns: u64 },
    /// As scheduled.
    Scheduled(Schedule),
}

/// How phones connect.
#[derive(Clone, Debug)]
pub(crate) struct FleetConfig {
    pub(crate) door: SocketAddr,
    /// `IK` if known, else `XX`, which learns it.
    pub(crate) server_key: Option<[u8; 32]>,
    /// Accounts that are not known yet are registered at the door.
    pub(crate) registers: bool,
    /// The number of the whole fleet's first account.
    pub(crate) first_account: u32,
    /// The number in the whole fleet of this ring's first phone; even.
    pub(crate) first_phone: u32,
    /// Phones that connect from one address of the loopback network, where the whole fleet has more than that.
    pub(crate) phones_per_source: u32,
    /// Whether phones keep a ticket for coming again. Else they use their keys, and cost less memory.
    pub(crate) keeps_tickets: bool,
    /// Whether there are further rings.
    pub(crate) one_of_many: bool,
}

/// The phones of one ring. Numbered from 0 here; names, bodies and addresses use the number in the whole fleet.
pub(crate) struct Fleet {
    pub(super) ring: Ring,
    pub(super) config: FleetConfig,
    pub(super) timers: Timers,
    pub(super) login_queue: VecDeque<u32>,
    pub(super) dirty: Vec<u32>,
    pub(super) random: ChaCha8Rng,
    pub(super) out: Vec<u8>,
    pub(super) unix_s: u32,
    pub(crate) clock: Clock,
    pub(crate) phones: Vec<Phone>,
    pub(crate) books: Books,
    pub(crate) traffic: Traffic,
    pub(crate) flaps: Option<Flaps>,
    pub(crate) logins: Logins,
    /// Logins under way at once.
    pub(super) login_window_count: u64,
    /// Phones in each stage, and other things that happened.
    pub(super) counts: Counts,
    /// As the server asked for at the last login.
    pub(super) keep_alive_s: u32,
    /// The next phone to be looked at, whether it is silent.
    pub(super) keep_alive_next: u32,
    /// What the server said to phones that it refused for good; the first one.
    pub(crate) refusal: Option<String>,
}

impl Fleet {
    /// A fleet that is not connected, with one key pair for each phone.
    pub(crate) fn new(config: FleetConfig, keys: Vec<KeyPair>, books: Books, clock: Clock) -> Result<Self> {
        let descriptor_count = keys.len() as u32 + SPARE_DESCRIPTOR_COUNT;
        if let Err((soft, hard)) = tern_ring::probe::raise_descriptor_limit(u64::from(descriptor_count) + 64)
        {
            anyhow::bail!("open files: {descriptor_count} descriptors needed, limits are {soft} and {hard}");
        }
        let (buffer_count, buffer_bytes) = if config.one_of_many { BUFFERS_OF_MANY } else { BUFFERS };
        let sizes = Config { descriptor_count, buffer_count, buffer_bytes, ..Config::default() };
        let ring =
            Ring::new(&sizes).map_err(|error| anyhow::anyhow!("{}", tern_ring::probe::explain(&error)))?;
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).ok().context("no random numbers from the system")?;
        let mut timers = Timers::default();
        timers.set(clock.now_ns() + KEEP_ALIVE_NS, Alarm::KeepAlive, 0);
        let counts = Counts::of_away(keys.len() as u64);
        Ok(Self {
            ring,
            phones: keys.into_iter().map(|keys| Phone::new(keys, config.registers)).collect(),
            config,
            timers,
            login_queue: VecDeque::new(),
            dirty: Vec::new(),
            random: ChaCha8Rng::from_seed(seed),
            out: Vec::new(),
            unix_s: Clock::unix_s(),
            clock,
            books,
            traffic: Traffic::Nothing,
            flaps: None,
            logins: Logins::default(),
            login_window_count: LOGIN_WINDOW_COUNT,
            counts,
            keep_alive_s: u32::MAX,
            keep_alive_next: 0,
            refusal: None,
        })
    }

    /// One turn; returns at `until_ns` at the latest.
    pub(crate) fn turn(&mut self, until_ns: u64) -> Result<()> {
        let now_ns = self.clock.now_ns();
        self.unix_s = Clock::unix_s();
        self.ring_alarms(now_ns);
        self.submit_due(now_ns);
        self.flap_due(now_ns);
        self.start_logins();
        self.flush_dirty();
        let now_ns = self.clock.now_ns();
        let due_ns = match &self.traffic {
            Traffic::Scheduled(schedule) => {
                schedule.next_due_ns().map(|due_ns| due_ns.max(now_ns + SCHEDULE_GRAIN_NS))
            }
            _ => None,
        };
        let flap_ns = self.flaps.as_ref().and_then(Flaps::next_due_ns);
        let next_ns = [self.timers.next_ns(), due_ns, flap_ns].into_iter().flatten().fold(until_ns, u64::min);
        let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns));
        self.ring.enter(Some(wait)).context("the ring failed")?;
        self.take_events();
        Ok(())
    }

    /// The number in the whole fleet of the first phone here.
    pub(crate) fn first_phone(&self) -> u32 {
        self.config.first_phone
    }

    /// Ends the wait of a turn from another thread.
    pub(crate) fn waker(&self) -> Waker {
        self.ring.waker()
    }

    /// Where everything stands.
    pub(crate) fn counts(&self) -> Counts {
        Counts { sums: self.books.tally.sums, first_logins: self.logins.first_count, ..self.counts }
    }

    /// Counts logins as if nobody had been here before.
    pub(crate) fn count_logins_anew(&mut self) {
        self.phones.iter_mut().for_each(|phone| phone.ever_online = false);
        self.logins = Logins::default();
    }

    /// Moves a phone to another stage.
    pub(super) fn set_stage(&mut self, phone: u32, stage: Stage) {
        let state = &mut self.phones[phone as usize];
        let from = std::mem::replace(&mut state.stage, stage);
        self.counts.phones[from as usize] -= 1;
        self.counts.phones[stage as usize] += 1;
    }

    /// Makes every phone look for something to say: the traffic was changed.
    pub(crate) fn set_traffic(&mut self, traffic: Traffic) {
        self.traffic = traffic;
        (0..self.phones.len() as u32).for_each(|phone| self.mark(phone));
    }

    /// Nothing new from here on, but for what was due before.
    pub(crate) fn end_traffic(&mut self) {
        self.submit_due(self.clock.now_ns());
        self.traffic = Traffic::Nothing;
        self.flaps = None;
    }

    /// Puts a phone on the list of those that have something to say.
    pub(super) fn mark(&mut self, phone: u32) {
        let state = &mut self.phones[phone as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(phone);
        }
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for phone in dirty.drain(..) {
            self.phones[phone as usize].dirty = false;
            self.pump(phone);
        }
        // Saying something marks nobody: the list is still empty, and its memory is kept.
        assert!(self.dirty.is_empty(), "a phone was marked while phones spoke");
        self.dirty = dirty;
    }

    fn submit_due(&mut self, now_ns: u64) {
        while let Traffic::Scheduled(schedule) = &mut self.traffic
            && let Some((phone, due_ns)) = schedule.pop(now_ns)
        {
            let (flow, tally) = self.books.flow(phone);
            flow.submit(due_ns, self.unix_s, tally);
            self.mark(phone);
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Received { key, bytes, .. } => {
                    let (phone, attempt) = of_key(key);
                    let state = &mut self.phones[phone as usize];
                    let Some(client) = state.client.as_mut().filter(|_| state.attempt == attempt) else {
                        continue;
                    };
                    let (books, mut signals) = (&mut self.books, Signals::default());
                    let now_ns = self.clock.now_ns();
                    let jitter = unit(&mut self.random);
                    let result = client.receive(bytes, &mut |event| {
                        books.take(phone, event, now_ns, jitter, &mut signals);
                    });
                    self.heed(phone, signals, now_ns);
                    if let Err(error) = result
                        && self.is_current(phone, attempt)
                    {
                        eprintln!("tern-load: {}: {error:?}", self.name(phone));
                        self.lose(phone, None);
                    }
                }
                Event::Connected { slot, key } => self.connected(slot, key),
                Event::ConnectFailed { key, error } => {
                    self.counts.connect_error = Some(error);
                    self.gone(key);
                }
                Event::Ended { key, .. } | Event::SendFailed { key, .. } => self.gone(key),
                Event::Sent { key, .. } => {
                    let (phone, attempt) = of_key(key);
                    if self.is_current(phone, attempt) {
                        self.sent(phone);
                    }
                }
                _ => {}
            }
        }
    }

    /// A connection has ended by itself; it may be one that was given up.
    fn gone(&mut self, key: u64) {
        let (phone, attempt) = of_key(key);
        if self.is_current(phone, attempt) {
            self.lose(phone, None);
        }
    }

    pub(super) fn is_current(&self, phone: u32, attempt: u32) -> bool {
        let state = &self.phones[phone as usize];
        state.attempt == attempt && matches!(state.stage, Stage::LoggingIn | Stage::Online)
    }

    fn ring_alarms(&mut self, now_ns: u64) {
        while let Some((alarm, key)) = self.timers.pop(now_ns) {
            let (phone, attempt) = of_key(key);
            let (stage, current) = {
                let state = &self.phones[phone as usize];
                (state.stage, state.attempt == attempt)
            };
            match alarm {
                Alarm::Connect if current && stage == Stage::Waiting => self.login_queue.push_back(phone),
                Alarm::LoginTooLong if current && stage == Stage::LoggingIn => self.lose(phone, None),
                Alarm::Unblock if current => self.mark(phone),
                Alarm::Resend if current => self.look_for_silence(phone, now_ns),
                Alarm::KeepAlive => self.keep_alive(now_ns),
                _ => {}
            }
        }
    }

    /// Milliseconds before the next attempt: what the server asked for and 0.1 to 1 second.
    pub(super) fn jitter_ns(&mut self, retry_ms: Option<u32>) -> u64 {
        let jitter_s = 0.1 + 0.9 * unit(&mut self.random);
        u64::from(retry_ms.unwrap_or(0)) * 1_000_000 + ns(jitter_s)
    }
}

/// A number from 0 to 1.
pub(super) fn unit(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / f64::from(u32::MAX)
}
