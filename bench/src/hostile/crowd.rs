//! The hostile connections: begun on a schedule, each follows its script, none is missed when it is gone.

use super::attack::{Attack, Random};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::client::{Client, ClientConfig, Event as Heard};
use tern_protocol::phone::noise::KeyPair;
use tern_ring::{Config, Event, Ring, Slot};

/// Connections that are due wait this long for company, as messages of `tern-load --rate` do.
const GRAIN: Duration = Duration::from_micros(200);
/// Between two bytes of one that drips.
const DRIP_EVERY: Duration = Duration::from_secs(1);
/// Who does not stay leaves after so long, ended by the server or not.
const LEAVES_AFTER: Duration = Duration::from_millis(500);
/// Accounts of those who log in.
const ACCOUNT_COUNT: u64 = 50;
/// What to do.
pub(super) struct Plan {
    pub(super) door: SocketAddr,
    pub(super) attack: Attack,
    pub(super) per_s: f64,
    pub(super) open_max: u32,
    pub(super) descriptor_count: u32,
    pub(super) duration: Duration,
    pub(super) seed: u64,
}

/// What became of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) begun: u64,
    pub(super) left_out: u64,
    pub(super) connected: u64,
    pub(super) not_connected: u64,
    pub(super) ended_by_server: u64,
    pub(super) logins: u64,
}

/// One connection.
struct Visitor {
    slot: Option<Slot>,
    /// What is to be said, and how much of it was.
    script: Vec<u8>,
    said_bytes: usize,
    sending: bool,
    client: Option<Client>,
}

struct Crowd<'a> {
    plan: &'a Plan,
    ring: Ring,
    /// By the low half of a connection's key; the high half tells it from earlier ones at this place.
    visitors: Vec<Option<Visitor>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    random: Random,
    server_key: Option<[u8; 32]>,
    /// The beginning of a login, for those who replay it.
    recorded: Vec<u8>,
    seen: Seen,
    /// When each connection drips again, or leaves: in order, since all wait equally long.
    agenda: VecDeque<(Duration, u64)>,
}

/// Attacks until the time is over.
pub(super) fn run(plan: &Plan) -> Result<Seen> {
    let config = Config { descriptor_count: plan.descriptor_count, ..Config::default() };
    let places = plan.open_max as usize;
    let mut crowd = Crowd {
        plan,
        ring: Ring::new(&config).context("no ring")?,
        visitors: (0..places).map(|_| None).collect(),
        generations: vec![0; places],
        free: (0..plan.open_max).rev().collect(),
        random: Random::new(plan.seed),
        server_key: None,
        recorded: Vec::new(),
        seen: Seen::default(),
        agenda: VecDeque::new(),
    };
    let start = Instant::now();
    loop {
        let now = start.elapsed();
        if now >= plan.duration {
            return Ok(crowd.seen);
        }
        let next_due = crowd.connect_due(now);
        crowd.follow_agenda(now);
        let next_item = crowd.agenda.front().map_or(next_due, |item| item.0);
        let wait = next_due.min(next_item).saturating_sub(now).max(GRAIN);
        crowd.ring.enter(Some(wait)).context("the ring failed")?;
        crowd.take_events();
    }
}

impl Crowd<'_> {
    /// Begins what is due; when the next one is.
    fn connect_due(&mut self, now: Duration) -> Duration {
        loop {
            let number = self.seen.begun + self.seen.left_out;
            let due = Duration::from_secs_f64(number as f64 / self.plan.per_s);
            if due > now {
                return due;
            }
            match self.free.pop() {
                Some(place) => self.begin(place, number, now),
                None => self.seen.left_out += 1,
            }
        }
    }

    fn begin(&mut self, place: u32, number: u64, now: Duration) {
        let attack = self.plan.attack;
        self.seen.begun += 1;
        let (client, script) = if attack == Attack::Replays {
            self.replay(number)
        } else {
            (attack.logs_in().then(|| self.client(number)), attack.script(number, &mut self.random))
        };
        self.visitors[place as usize] =
            Some(Visitor { slot: None, script, said_bytes: 0, sending: false, client });
        let key = self.key(place);
        if self.ring.connect(self.plan.door, Some(attack.source(number)), key).is_err() {
            self.seen.not_connected += 1;
            self.forget(place);
            return;
        }
        if attack.drips() {
            self.agenda.push_back((now + DRIP_EVERY, key));
        } else if !attack.stays() {
            self.agenda.push_back((now + LEAVES_AFTER, key));
        }
    }

    /// A recorded login, once there is one: what comes before learns the server's key by a login of its own.
    fn replay(&mut self, number: u64) -> (Option<Client>, Vec<u8>) {
        if self.recorded.is_empty() {
            let mut client = self.client(number);
            if self.server_key.is_none() {
                return (Some(client), Vec::new());
            }
            client.flush(&mut self.recorded);
        }
        (None, self.recorded.clone())
    }

    /// Eve, who has an account: made by the first of her connections that comes to `Start`.
    fn client(&mut self, number: u64) -> Client {
        let eve = number % ACCOUNT_COUNT;
        let mut private = [0x65; 32];
        private[..8].copy_from_slice(&eve.to_le_bytes());
        private[8] = self.plan.attack as u8;
        Client::new(ClientConfig {
            name: format!("eve-{}-{eve}", self.plan.attack.name()),
            keys: KeyPair::from_seed(private),
            server_key: self.server_key,
            ticket: None,
            register: true,
            partition_hint: None,
            seed: self.random.seed(),
        })
    }

    fn key(&self, place: u32) -> u64 {
        (self.generations[place as usize] as u64) << 32 | place as u64
    }

    /// The place of a connection that is still there.
    fn place(&self, key: u64) -> Option<u32> {
        let place = key as u32;
        (self.key(place) == key && self.visitors[place as usize].is_some()).then_some(place)
    }

    fn forget(&mut self, place: u32) {
        self.visitors[place as usize] = None;
        self.generations[place as usize] = self.generations[place as usize].wrapping_add(1);
        self.free.push(place);
    }

    /// Closes a connection; its place is free at once, its descriptor when the ring says so.
    fn leave(&mut self, place: u32) {
        let key = self.key(place);
        if let Some(slot) = self.visitors[place as usize].as_ref().and_then(|visitor| visitor.slot) {
            let _ = self.ring.close(slot, key);
        }
        self.forget(place);
    }

    /// Whoever has waited long enough drips, or leaves. One by one and not many at once: the phones that are not
    /// hostile may share this hardware thread.
    fn follow_agenda(&mut self, now: Duration) {
        while let Some((_, key)) = self.agenda.pop_front_if(|item| item.0 <= now) {
            let Some(place) = self.place(key) else { continue };
            if self.plan.attack.drips() {
                self.speak(place);
                self.agenda.push_back((now + DRIP_EVERY, key));
            } else {
                self.leave(place);
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Connected { slot, key } => {
                    self.seen.connected += 1;
                    match self.place(key).and_then(|place| self.visitors[place as usize].as_mut()) {
                        Some(visitor) if self.ring.receive_always(slot, key).is_ok() => {
                            visitor.slot = Some(slot);
                            self.speak(key as u32);
                        }
                        // It has left meanwhile.
                        _ => {
                            let _ = self.ring.close(slot, key);
                            if let Some(place) = self.place(key) {
                                self.forget(place);
                            }
                        }
                    }
                }
                Event::ConnectFailed { key, .. } => {
                    self.seen.not_connected += 1;
                    if let Some(place) = self.place(key) {
                        self.forget(place);
                    }
                }
                Event::Received { key, bytes, .. } => {
                    let place = key as u32;
                    let is_there = self.generations[place as usize] == (key >> 32) as u32;
                    if let Some(visitor) = self.visitors[place as usize].as_mut().filter(|_| is_there) {
                        visitor.hear(bytes, self.plan.attack, &mut self.server_key, &mut self.seen);
                        self.speak(place);
                    }
                }
                Event::Sent { key, .. } => {
                    if let Some(place) = self.place(key)
                        && let Some(visitor) = &mut self.visitors[place as usize]
                    {
                        visitor.sending = false;
                        if !self.plan.attack.drips() {
                            self.speak(place);
                        }
                    }
                }
                Event::Ended { key, .. } | Event::SendFailed { key, .. } => {
                    if let Some(place) = self.place(key) {
                        self.seen.ended_by_server += 1;
                        self.leave(place);
                    }
                }
                _ => {}
            }
        }
    }

    /// Says what there is to say now.
    fn speak(&mut self, place: u32) {
        let (key, drips) = (self.key(place), self.plan.attack.drips());
        let Some(visitor) = &mut self.visitors[place as usize] else { return };
        let Some(slot) = visitor.slot.filter(|_| !visitor.sending) else { return };
        if let Some(client) = &mut visitor.client {
            client.flush(&mut visitor.script);
        }
        let rest = &visitor.script[visitor.said_bytes..];
        let now = if drips { &rest[..rest.len().min(1)] } else { rest };
        if !now.is_empty() && self.ring.send(slot, key, now).is_ok() {
            visitor.said_bytes += now.len();
            visitor.sending = true;
        }
    }
}

impl Visitor {
    /// Takes what the server says; whoever is welcome says what it came for.
    fn hear(&mut self, bytes: &[u8], attack: Attack, server_key: &mut Option<[u8; 32]>, seen: &mut Seen) {
        let Some(client) = &mut self.client else { return };
        let mut welcome: Option<AccountId> = None;
        // Whatever goes wrong, the server ends the connection.
        let _ = client.receive(bytes, &mut |heard| {
            if let Heard::Welcome { account, server_key: found, .. } = heard {
                welcome = Some(account);
                *server_key = found.or(*server_key);
            }
        });
        if let Some(to) = welcome {
            seen.logins += 1;
            let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let id = MessageId::new(unix.as_secs() as u32, seen.logins as u32);
            attack.say(client, to, id);
        }
    }
}
