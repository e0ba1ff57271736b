//! An honest phone: one device of one account, with the project's own client inside.
//!
//! It logs in with or without the server's key or with a ticket, sends right behind the handshake, acknowledges late or at once,
//! leaves and returns, sends unticked messages again in order and with the same ids, goes back to a refused message,
//! and deduplicates what it receives.

mod company;
mod endings;
mod listen;
mod wishes;

pub use company::Company;
pub use wishes::Wish;

use crate::network::{Direction, LinkId, Owner};
use crate::outbox::Outbox;
use crate::scene::{Event, Scene};
use crate::schedule::{MS, SECOND};
use std::collections::{BTreeMap, BTreeSet};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId};
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::Ticket;

/// Silence after which a phone gives its connection up, nanoseconds.
const PATIENCE_NS: u64 = 3 * SECOND;
/// Time between pings, nanoseconds; well below the plan's idle limit.
const PING_NS: u64 = SECOND;
/// Messages that may be without a tick on one connection.
const UNDER_WAY_MAX: usize = 40;
/// Longest first flight that is recorded for attackers, bytes.
const RECORDED_BYTES_MAX: usize = 1500;

/// How this phone likes to do things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Style {
    /// How often it does not use the server's key, percent.
    forgets_key_percent: u64,
    /// How often it names its partition, percent.
    hint_percent: u64,
    /// Longest time before it acknowledges, nanoseconds.
    ack_ns_max: u64,
    /// How often it flushes after a single frame, percent.
    single_percent: u64,
    /// How often it comes back with a ticket where it has one, percent.
    ticket_percent: u64,
    /// How often it says that it has read a message, percent.
    read_percent: u64,
}

/// What a delivery number stands for.
#[derive(Clone, Copy, Debug)]
enum Acknowledged {
    Message(usize),
    Copy(usize),
    Tick,
}

/// So long after a phone has connected its ticks for what it has read may be on their way, nanoseconds.
const SAYS_AGAIN_NS: u64 = 5_000_000_000;

/// One live connection.
struct Connection {
    link: LinkId,
    client: Client,
    /// The server's key in the life of the node that it began in.
    present_key: [u8; 32],
    /// The key that the server may take the phone to know: that it came by, or that of its ticket's time.
    knew: Option<[u8; 32]>,
    is_welcome: bool,
    /// Whether it may make the account.
    registers: bool,
    /// The account that it was welcomed as, until that is there for sure.
    told: Option<AccountId>,
    /// Whether the home has its session: something came from there.
    has_session: bool,
    /// The life of the node when it was opened.
    life: u32,
    /// When it was opened, virtual nanoseconds.
    began_ns: u64,
    /// The same in wall milliseconds.
    began_ms: u64,
    /// Whether it was told that its mailbox was empty.
    is_drained: bool,
    /// The number of the next delivery.
    next_number: u32,
    /// What came on this connection: (sender, id), and (recipient, id) of ticks.
    got: BTreeSet<(AccountId, MessageId)>,
    got_ticks: BTreeSet<(AccountId, MessageId)>,
    /// Copies and read ticks that came on it, by kind.
    got_beside: BTreeSet<(u8, AccountId, MessageId)>,
    /// Deliveries to acknowledge: number, and the message if it was one.
    unacknowledged: Vec<(u32, Acknowledged)>,
    ack_due_ns: Option<u64>,
    heard_ns: u64,
    pinged_ns: u64,
    /// Accounts that were asked for, when, and whether they existed for sure then.
    asked: BTreeMap<usize, (u64, bool)>,
    /// First bytes, for attackers.
    recorded: Vec<u8>,
}

/// The time as a phone was told it last.
#[derive(Clone, Copy, Default)]
struct ToldClock {
    /// How far it is ahead of the right one, milliseconds.
    offset_ms: i64,
    /// When that was, virtual nanoseconds.
    told_ns: u64,
}

impl ToldClock {
    /// Of a phone that is told now that it is `time_ms`. Where the clock is right but for moments, phones have their own.
    const fn at(scene: &Scene, time_ms: u64) -> Self {
        let ahead_ms = time_ms as i64 - scene.schedule.wall_ms() as i64;
        let offset_ms = if scene.plan.sets_clock { ahead_ms } else { 0 };
        Self { offset_ms, told_ns: scene.now_ns() }
    }
}

/// The phone.
pub struct Phone {
    index: usize,
    account: usize,
    /// Zero while the phone was not told.
    device: DeviceId,
    name: String,
    keys: KeyPair,
    /// Whether it makes its account where there is none.
    pub registers: bool,
    style: Style,
    /// The key that it believes to be the server's.
    server_key: Option<[u8; 32]>,
    /// Its last ticket, how often it was shown, and the key that the phone knew when it got it.
    ticket: Option<(Ticket, u32, Option<[u8; 32]>)>,
    /// What it has read and said so, and nobody has taken.
    unread: Vec<(AccountId, MessageId)>,
    /// Changes of devices that it wants.
    wishes: Vec<wishes::Wanted>,
    /// How often it may still knock after it was revoked.
    knocks_left: u32,
    connection: Option<Connection>,
    outbox: Outbox,
    clock: ToldClock,
    /// Ids that were handed up: client dedup.
    seen: BTreeSet<(AccountId, MessageId)>,
    known: BTreeMap<usize, AccountId>,
    next_low: u32,
    wants_online: bool,
    may_connect_ns: u64,
    progress_ns: u64,
    wake_ns: Option<u64>,
}

impl Phone {
    /// The phone with this index, for a device of an account, or for one that may be added to it. It is online from the
    /// start, once it may log in.
    pub fn new(index: usize, account: usize, device: Option<DeviceId>, scene: &mut Scene) -> Self {
        let keys = KeyPair::from_seed(scene.random().seed());
        let ordinal = scene.oracle.devices.of(account).count() as u32;
        scene.oracle.devices.add(account, keys.public, device);
        let style = Style {
            forgets_key_percent: scene.random().pick(&[0, 30, 100]),
            hint_percent: scene.random().pick(&[0, 60, 100]),
            ack_ns_max: scene.random().pick(&[0, 2 * MS, 30 * MS, 400 * MS]),
            single_percent: scene.random().pick(&[0, 20, 100]),
            ticket_percent: scene.random().pick(&[0, 50, 100]),
            read_percent: scene.random().pick(&[0, 0, 30, 100]),
        };
        Self {
            index,
            account,
            device: device.unwrap_or(DeviceId(0)),
            name: scene.oracle.accounts[account].name.clone(),
            keys,
            registers: scene.plan.accounts[account].registers && device.is_some(),
            style,
            server_key: scene.random().chance(70).then_some(scene.server_keys.public),
            ticket: None,
            unread: Vec::new(),
            wishes: Vec::new(),
            knocks_left: wishes::KNOCK_COUNT,
            connection: None,
            outbox: Outbox::default(),
            clock: ToldClock::default(),
            seen: BTreeSet::new(),
            known: BTreeMap::new(),
            // Two devices of an account never choose the same id.
            next_low: 1 + (ordinal << 20),
            wants_online: true,
            may_connect_ns: scene.random().below(200 * MS),
            progress_ns: 0,
            wake_ns: None,
        }
    }

    /// Its live link.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        self.connection.as_ref().map(|connection| connection.link)
    }

    /// Whether its connection may make its account still.
    #[must_use]
    pub fn may_register(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.registers)
    }

    /// Whether it is logged in, has no message without a tick, and has acknowledged everything; or has nothing to do here.
    #[must_use]
    pub fn is_quiet(&self, scene: &Scene) -> bool {
        if !scene.oracle.devices.0[self.index].is_there() {
            // Nobody keeps the connection of a device that is gone.
            return !self.connection.as_ref().is_some_and(|connection| connection.is_welcome);
        }
        // What it says again on a new connection makes mail for others. No answer comes to what was too much at once.
        let says_again =
            |c: &Connection| !self.unread.is_empty() && scene.now_ns() < c.began_ns + SAYS_AGAIN_NS;
        let settled = |c: &Connection| c.is_welcome && c.unacknowledged.is_empty() && !says_again(c);
        self.connection.as_ref().is_some_and(settled) && self.outbox.is_empty() && self.wishes.is_empty()
    }

    /// What it is doing, for the report of a run that does not come to rest.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = match &self.connection {
            None => "not connected".to_owned(),
            Some(c) if !c.is_welcome => "not welcome yet".to_owned(),
            Some(c) => format!("welcome, {} to acknowledge", c.unacknowledged.len()),
        };
        format!(
            "phone {} of account {} ({state}, {} under way)",
            self.index,
            self.account,
            self.outbox.under_way_count()
        )
    }

    /// Composes messages and sends them when it can.
    pub fn compose(&mut self, scene: &mut Scene, to: usize, count: u64) {
        for _ in 0..count {
            let padding_bytes_max = scene.plan.padding_bytes_max();
            let length = match scene.random().below(3) {
                0 => padding_bytes_max,
                _ => scene.random().index(padding_bytes_max + 1),
            };
            let now_ms = scene.schedule.wall_ms();
            let told_ms = now_ms.saturating_add_signed(self.clock.offset_ms);
            let id = MessageId::new((told_ms / 1000) as u32, self.next_low);
            self.next_low += 1;
            let serial = scene.oracle.compose(self.index, to, id, now_ms, &vec![b'.'; length]);
            scene.oracle.messages[serial].told_ns = self.clock.told_ns;
            self.outbox.push(to, id, serial);
        }
        self.act(scene);
    }

    /// Wants to be online from now on, or not.
    pub fn set_online(&mut self, scene: &mut Scene, online: bool) {
        self.wants_online = online;
        self.act(scene);
    }

    /// The end of the run: leaves politely, so that the node's books can be checked.
    pub fn retire(&mut self, scene: &mut Scene) {
        self.wants_online = false;
        let Some(connection) = &mut self.connection else { return };
        if connection.is_welcome {
            connection.client.send(&ClientFrame::Goodbye);
        }
        self.flush(scene);
        self.hang_up(scene);
    }

    /// A wake-up that was asked for.
    pub fn wake(&mut self, scene: &mut Scene) {
        if self.wake_ns.is_some_and(|wake_ns| wake_ns <= scene.now_ns()) {
            self.wake_ns = None;
            self.act(scene);
        }
    }

    /// Does what is due now.
    pub fn act(&mut self, scene: &mut Scene) {
        match (&self.connection, self.wants_online) {
            (Some(_), false) => self.leave(scene),
            (None, true) if self.knocks_left == 0 => {}
            (None, true) if scene.now_ns() >= self.may_connect_ns => self.connect(scene),
            (None, true) => self.wake_at(scene, self.may_connect_ns),
            (Some(_), true) => self.go_on(scene),
            (None, false) => {}
        }
    }

    fn connect(&mut self, scene: &mut Scene) {
        let waits = !self.registers && !scene.exists.contains(&self.account);
        if waits || !scene.oracle.devices.0[self.index].add_asked {
            self.may_connect_ns = scene.now_ns() + 20 * MS;
            self.wake_at(scene, self.may_connect_ns);
            return;
        }
        let uses_key = self.server_key.is_some() && !scene.random().chance(self.style.forgets_key_percent);
        // Where the key has ended, its person says that the new one is to be trusted.
        let server_key = self.server_key.filter(|&key| uses_key && scene.knows_key(key));
        let hint = PartitionId::of_name(&self.name, scene.plan.partition_count);
        let ticket = self.pick_ticket(scene);
        let config = ClientConfig {
            name: self.name.clone(),
            keys: self.keys,
            server_key,
            ticket: ticket.map(|ticket| ticket.0),
            register: self.registers,
            partition_hint: scene.random().chance(self.style.hint_percent).then_some(hint),
            seed: scene.random().seed(),
        };
        let link = scene.connect(Owner::Phone(self.index));
        scene.schedule.tell(|| format!("phone {} connects, {link:?}", self.index));
        let now_ns = scene.now_ns();
        self.connection = Some(Connection {
            link,
            client: Client::new(config),
            present_key: scene.server_keys.public,
            knew: ticket.map_or(server_key, |ticket| ticket.1),
            is_welcome: false,
            registers: self.registers && ticket.is_none(),
            told: None,
            has_session: false,
            life: scene.life,
            began_ns: now_ns,
            began_ms: scene.schedule.wall_ms(),
            is_drained: false,
            next_number: 1,
            got: BTreeSet::new(),
            got_ticks: BTreeSet::new(),
            got_beside: BTreeSet::new(),
            unacknowledged: Vec::new(),
            ack_due_ns: None,
            heard_ns: now_ns,
            pinged_ns: now_ns,
            asked: BTreeMap::new(),
            recorded: Vec::new(),
        });
        self.progress_ns = now_ns;
        self.outbox.restart();
        self.flush(scene);
        let flight = self.connection.as_ref().map(|connection| connection.recorded.clone());
        if self.may_register() {
            scene.registrations.extend(flight.clone().map(|flight| (self.account, flight)));
        }
        scene.recorded.extend(flight);
        self.go_on(scene);
    }

    /// The ticket for the next connection. One that was shown may have been used up: it is tried a few times.
    fn pick_ticket(&mut self, scene: &mut Scene) -> Option<(Ticket, Option<[u8; 32]>)> {
        if !scene.random().chance(self.style.ticket_percent) {
            return None;
        }
        let (ticket, shown_count, knew) = self.ticket.as_mut()?;
        *shown_count += 1;
        let ticket = (*ticket, *knew);
        if *shown_count == 3 {
            self.ticket = None;
        }
        Some(ticket)
    }

    /// Everything that a connected phone does when it looks at its clock.
    fn go_on(&mut self, scene: &mut Scene) {
        let now_ns = scene.now_ns();
        let Some(connection) = &mut self.connection else { return };
        if now_ns >= connection.heard_ns + PATIENCE_NS {
            self.give_up(scene);
            return;
        }
        let mut wake_ns = connection.heard_ns + PATIENCE_NS;
        if connection.is_welcome {
            if now_ns >= connection.pinged_ns + PING_NS {
                connection.pinged_ns = now_ns;
                connection.client.send(&ClientFrame::Ping { token: 7 });
            }
            wake_ns = wake_ns.min(connection.pinged_ns + PING_NS);
            if self.outbox.under_way_count() > 0 && now_ns >= self.progress_ns + PATIENCE_NS {
                self.progress_ns = now_ns;
                if scene.random().chance(50) {
                    self.give_up(scene);
                    return;
                }
                self.outbox.restart();
            }
            self.keep_company(scene);
            wake_ns = wake_ns.min(self.say_wishes(scene));
            wake_ns = wake_ns.min(self.ask_and_send(scene));
        }
        self.flush(scene);
        self.wake_at(scene, wake_ns.max(now_ns + MS));
    }

    /// Asks for unknown recipients, sends what may be sent, acknowledges what is due; says when to look again.
    fn ask_and_send(&mut self, scene: &mut Scene) -> u64 {
        let now_ns = scene.now_ns();
        let mut wake_ns = u64::MAX;
        let unknown: Vec<usize> =
            self.outbox.recipients().filter(|account| !self.known.contains_key(account)).collect();
        let Some(connection) = &mut self.connection else { return wake_ns };
        for account in unknown {
            let asked_ns = connection.asked.get(&account).map(|asked| asked.0);
            if asked_ns.is_none_or(|asked_ns| now_ns >= asked_ns + SECOND) {
                // An answer to an earlier question may come late.
                let existed = connection.asked.get(&account).is_none_or(|asked| asked.1);
                connection.asked.insert(account, (now_ns, existed && scene.exists.contains(&account)));
                let name = &scene.oracle.accounts[account].name;
                connection.client.send(&ClientFrame::Lookup { name });
            }
            wake_ns = now_ns + SECOND;
        }
        while self.outbox.under_way_count() < UNDER_WAY_MAX {
            let known = &self.known;
            let Some((to, serial)) = self.outbox.next(now_ns, |account| known.contains_key(&account)) else {
                break;
            };
            let message = &scene.oracle.messages[serial];
            let frame = ClientFrame::Send { to: self.known[&to], id: message.id, body: &message.body };
            if let Some(connection) = &mut self.connection {
                connection.client.send(&frame);
            }
            if scene.random().chance(self.style.single_percent) {
                self.flush(scene);
            }
        }
        wake_ns = wake_ns.min(self.outbox.blocked_until_ns().unwrap_or(u64::MAX));
        match self.connection.as_ref().and_then(|connection| connection.ack_due_ns) {
            Some(due_ns) if due_ns <= now_ns => self.acknowledge(scene),
            Some(due_ns) => wake_ns = wake_ns.min(due_ns),
            None => {}
        }
        wake_ns
    }

    /// Acknowledges everything, or only a part and the rest later.
    fn acknowledge(&mut self, scene: &mut Scene) {
        let now_ns = scene.now_ns();
        let Some(connection) = &mut self.connection else { return };
        connection.ack_due_ns = None;
        let mut count = connection.unacknowledged.len();
        if count > 1 && scene.random().chance(20) {
            count = 1 + scene.random().index(count - 1);
            connection.ack_due_ns = Some(now_ns + 2 * MS);
        }
        let done: Vec<(u32, Acknowledged)> = connection.unacknowledged.drain(..count).collect();
        let Some(&(number, _)) = done.last() else { return };
        connection.client.ack(number);
        for (_, what) in done {
            match what {
                Acknowledged::Message(serial) => {
                    scene.oracle.acknowledged(serial, self.device, scene.life);
                }
                Acknowledged::Copy(serial) => {
                    scene.oracle.messages[serial].copy_acknowledged_by.insert(self.device.0);
                }
                Acknowledged::Tick => {}
            }
        }
        self.flush(scene);
    }

    fn flush(&mut self, scene: &mut Scene) {
        let Some(connection) = &mut self.connection else { return };
        let mut bytes = Vec::new();
        connection.client.flush(&mut bytes);
        if bytes.is_empty() {
            return;
        }
        let room = RECORDED_BYTES_MAX - connection.recorded.len();
        connection.recorded.extend(&bytes[..bytes.len().min(room)]);
        scene.write(connection.link, Direction::Up, &bytes);
    }

    /// Goes offline in one of the ways that phones do.
    fn leave(&mut self, scene: &mut Scene) {
        let Some(connection) = &mut self.connection else { return };
        match scene.random().below(3) {
            0 if connection.is_welcome => {
                connection.client.send(&ClientFrame::Goodbye);
                self.flush(scene);
            }
            1 if !scene.is_calm => scene.network.vanish(connection.link),
            _ => {}
        }
        self.hang_up(scene);
    }

    /// Patience is over: closes, silently or not, and comes back.
    fn give_up(&mut self, scene: &mut Scene) {
        self.hang_up(scene);
        self.come_back(scene, 100);
    }

    fn hang_up(&mut self, scene: &mut Scene) {
        if let Some(connection) = self.connection.take() {
            scene.schedule.tell(|| format!("phone {} hangs up", self.index));
            self.wishes.retain_mut(wishes::Wanted::outlives_connection);
            scene.finish(connection.link, Direction::Up);
            scene.network.deafen(connection.link, Direction::Down);
            if !connection.recorded.is_empty() {
                scene.recorded.push(connection.recorded);
            }
        }
    }

    fn come_back(&mut self, scene: &mut Scene, after_ms: u64) {
        let jitter_ns = scene.random().below(400) * MS;
        self.may_connect_ns = scene.now_ns() + after_ms * MS + jitter_ns;
        self.wake_at(scene, self.may_connect_ns);
    }

    fn wake_at(&mut self, scene: &mut Scene, time_ns: u64) {
        if self.wake_ns.is_none_or(|wake_ns| time_ns < wake_ns) {
            self.wake_ns = Some(time_ns);
            scene.schedule.at(time_ns, Event::Phone(self.index));
        }
    }

    fn ack_delay_ns(&self, scene: &mut Scene) -> u64 {
        // Lazy phones and a window of one would make the calm last for minutes.
        let longest_ns = if scene.is_calm { MS } else { self.style.ack_ns_max };
        scene.random().below(longest_ns + 1)
    }
}
