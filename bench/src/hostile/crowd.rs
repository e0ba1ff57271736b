//! The hostile connections: begun on a schedule, each follows its script, none is missed when it is gone.

use super::attack::{Attack, Random};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tern_protocol::ids::AccountId;
use tern_protocol::phone::client::{Client, ClientConfig, Event as Heard};
use tern_protocol::phone::noise::KeyPair;
use tern_ring::{Config, Event, Ring, Slot, SlotError};

/// Connections that are due wait this long for company, as messages of `tern-load --rate` do.
const GRAIN: Duration = Duration::from_micros(200);
/// Between two bytes of one that drips.
const DRIP_EVERY: Duration = Duration::from_secs(1);
/// Who does not stay leaves after so long, ended by the server or not.
const LEAVES_AFTER: Duration = Duration::from_millis(500);
/// Accounts of those who log in.
const ACCOUNT_COUNT: u64 = 50;
/// Accounts of trickles: a login ends the session before it, and with it the half record that was held.
const TRICKLER_COUNT: u64 = 1_000;
/// Accounts that thieves are after, and their connections that come as who they are, so that there are such accounts.
const VICTIM_COUNT: u64 = 10;
const HONEST_COUNT: u64 = 50;

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
    /// Connections on which the server said something.
    pub(super) answered: u64,
    pub(super) logins: u64,
}

/// One connection.
struct Visitor {
    slot: Option<Slot>,
    /// What is to be said, and how much of it was.
    script: Vec<u8>,
    said_bytes: usize,
    /// Where the bytes begin that come one by one.
    drips_from: usize,
    sending: bool,
    was_answered: bool,
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
        let (client, script) = match attack.replays() {
            Some(knows_key) => self.replay(number, knows_key),
            None => (attack.logs_in().then(|| self.client(number)), attack.script(number, &mut self.random)),
        };
        let drips_from = if attack.drips() && client.is_none() { 0 } else { usize::MAX };
        self.visitors[place as usize] = Some(Visitor {
            slot: None,
            script,
            said_bytes: 0,
            drips_from,
            sending: false,
            was_answered: false,
            client,
        });
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

    /// A recorded login, once there is one: where it has to know the server's key, what comes before learns that by a
    /// login of its own.
    fn replay(&mut self, number: u64, knows_key: bool) -> (Option<Client>, Vec<u8>) {
        if self.recorded.is_empty() {
            let mut client = self.client(number);
            if knows_key && self.server_key.is_none() {
                return (Some(client), Vec::new());
            }
            client.flush(&mut self.recorded);
        }
        (None, self.recorded.clone())
    }

    /// Eve, who has an account: made by the first of her connections that comes to `Start`. Thieves that come later have
    /// the key of another of them.
    fn client(&mut self, number: u64) -> Client {
        let steals = self.plan.attack == Attack::Thieves;
        let count = match self.plan.attack {
            Attack::Thieves => VICTIM_COUNT,
            Attack::Trickles => TRICKLER_COUNT,
            _ => ACCOUNT_COUNT,
        };
        let eve = number % count;
        let is_thief = steals && number >= HONEST_COUNT;
        let owner = if is_thief { (eve + 1) % count } else { eve };
        Client::new(ClientConfig {
            name: format!("eve-{}-{eve}", self.plan.attack.accounts().name()),
            keys: KeyPair::from_seed(private_key(self.plan.attack.accounts(), owner)),
            server_key: self.server_key,
            ticket: None,
            // As a new account's first device, or as one that the account has.
            register: !is_thief || number / count % 2 == 1,
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
                self.speak(place, 1);
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
                    let sleeps = self.plan.attack.sleeps();
                    match self.place(key).and_then(|place| self.visitors[place as usize].as_mut()) {
                        Some(visitor) if listen(&mut self.ring, slot, key, sleeps).is_ok() => {
                            visitor.slot = Some(slot);
                            self.speak(key as u32, 1);
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
                Event::Received { slot, key, bytes } => {
                    let place = key as u32;
                    let is_there = self.generations[place as usize] == (key >> 32) as u32;
                    if let Some(visitor) = self.visitors[place as usize].as_mut().filter(|_| is_there) {
                        visitor.hear(bytes, self.plan.attack, &mut self.server_key, &mut self.seen);
                        let sleeps = self.plan.attack.sleeps();
                        if sleeps && visitor.client.as_ref().is_some_and(|client| !client.ready()) {
                            let _ = listen(&mut self.ring, slot, key, sleeps);
                        }
                        self.speak(place, 0);
                    }
                }
                Event::Sent { key, .. } => {
                    if let Some(place) = self.place(key)
                        && let Some(visitor) = &mut self.visitors[place as usize]
                    {
                        visitor.sending = false;
                        self.speak(place, 0);
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

    /// Says what there is to say now, and so many of the bytes that come one by one.
    fn speak(&mut self, place: u32, drip_count: usize) {
        let key = self.key(place);
        let Some(visitor) = &mut self.visitors[place as usize] else { return };
        let Some(slot) = visitor.slot.filter(|_| !visitor.sending) else { return };
        visitor.write();
        let end = visitor.drips_from.max(visitor.said_bytes.saturating_add(drip_count));
        let now = &visitor.script[visitor.said_bytes..end.min(visitor.script.len())];
        if !now.is_empty() && self.ring.send(slot, key, now).is_ok() {
            visitor.said_bytes += now.len();
            visitor.sending = true;
        }
    }
}

/// The key of one of an attack's accounts. X25519 reads neither the lowest three bits of a key nor its highest one (RFC
/// 7748, section 5): what tells the accounts apart lies between them.
fn private_key(attack: Attack, owner: u64) -> [u8; 32] {
    let mut private = [0x65; 32];
    private[1..9].copy_from_slice(&owner.to_le_bytes());
    private[9] = attack as u8;
    private
}

/// Hears all that comes; who is going to sleep hears one piece at a time.
fn listen(ring: &mut Ring, slot: Slot, key: u64, sleeps: bool) -> Result<(), SlotError> {
    if sleeps { ring.receive_once(slot, key) } else { ring.receive_always(slot, key) }
}

impl Visitor {
    /// Takes what the server says; whoever is welcome says what it came for.
    fn hear(&mut self, bytes: &[u8], attack: Attack, server_key: &mut Option<[u8; 32]>, seen: &mut Seen) {
        seen.answered += u64::from(!std::mem::replace(&mut self.was_answered, true));
        let Some(client) = &mut self.client else { return };
        let mut welcome: Option<AccountId> = None;
        // Whatever goes wrong, the server ends the connection.
        let _ = client.receive(bytes, &mut |heard| {
            if let Heard::Welcome { account, server_key: found, .. } = heard {
                welcome = Some(account);
                *server_key = found.or(*server_key);
            }
        });
        if let Some(own) = welcome {
            seen.logins += 1;
            attack.say(client, own, seen.logins as u32);
            if let Some((bytes, at_once)) = attack.half_record() {
                self.write();
                self.drips_from = self.script.len() + at_once;
                self.script.extend(bytes);
            }
        }
    }

    /// What its client has to say goes to the end of the script.
    fn write(&mut self) {
        if let Some(client) = &mut self.client {
            client.flush(&mut self.script);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_account_has_a_key_of_its_own() {
        let owners = (0..TRICKLER_COUNT).map(|owner| (Attack::Trickles, owner));
        let all = owners.chain((0..VICTIM_COUNT).map(|owner| (Attack::Thieves, owner)));
        let keys: HashSet<[u8; 32]> =
            all.map(|(attack, owner)| KeyPair::from_seed(private_key(attack, owner)).public).collect();
        assert_eq!(keys.len() as u64, TRICKLER_COUNT + VICTIM_COUNT);
    }
}
