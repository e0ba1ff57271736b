//! A server of a few phones in a few lines: honest, or dishonest in one way that the generator must find.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId};
use tern_protocol::phone::frame::{ClientFrame, ServerFrame};
use tern_protocol::phone::noise::{KeyPair, Transport};
use tern_protocol::phone::preface::{PREFACE_BYTES, Preface};
use tern_protocol::phone::record::{self, RecordKind};
use tern_protocol::phone::server::{Handshake, KeyLogin, LoginRequest, Progress};

/// The message at which the server misbehaves.
const CHOSEN: u64 = 20;

/// When an idle connection is dropped, after the start.
const IDLE_DROP: Duration = Duration::from_millis(1_500);

/// What the server does at the chosen message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    Honest,
    /// Ticks it and forgets it.
    Loses,
    /// Hands it up twice.
    Duplicates,
    /// Hands it up after the next one of its pair.
    Swaps,
    /// Hands it to another phone.
    Misdelivers,
    /// Says `delivered` before it hands it up.
    TicksEarly,
    /// Changes a byte of its body.
    Changes,
    /// Closes every connection, twice, and forgets what was on its way: nothing that was ticked.
    Cuts,
    /// Says `busy` to it and to all of its pair until it comes again.
    IsBusy,
    /// Likewise, but its answers are lost.
    IsBusySilently,
    /// Says that it knows no such account.
    Refuses,
    /// Falls silent for good.
    FallsSilent,
    /// Takes no message any more, and goes on with all else.
    Ignores,
    /// Ticks it, and stands still before it hands it up: nothing is lost yet.
    Stalls,
    /// Closes one connection when all have been quiet for a while.
    DropsIdle,
    /// Wants a keep-alive every two seconds.
    AsksForPings,
    /// Tells the first [`TURNED_AWAY_COUNT`] handshakes to come back after [`COME_BACK_MS`].
    TurnsAway,
}

pub(crate) const TURNED_AWAY_COUNT: u32 = 4;
pub(crate) const COME_BACK_MS: u32 = 300;

#[derive(Clone)]
enum Mail {
    Message { from: AccountId, id: MessageId, body: Vec<u8> },
    Tick { by: AccountId, id: MessageId },
}

enum Stage {
    Preface,
    Handshake(Box<Handshake>),
    Transport { account: AccountId, transport: Box<Transport>, started: bool },
    Closed,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    stage: Stage,
    /// Handed out and not acknowledged, from number `first_number` on.
    unacknowledged: VecDeque<u64>,
    next_number: u32,
}

struct Server {
    habit: Habit,
    keys: KeyPair,
    names: Vec<String>,
    connections: Vec<Connection>,
    mailboxes: HashMap<AccountId, VecDeque<(u64, Mail)>>,
    known: HashSet<(AccountId, MessageId)>,
    message_count: u64,
    next_place: u64,
    held_back: Option<(AccountId, Mail)>,
    refused: Option<(AccountId, MessageId)>,
    cuts_left: u32,
    drops_left: u32,
    turned_away_left: u32,
    turns: Instant,
}

/// A running server; it stops when this is dropped.
pub(crate) struct SmallServer {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl SmallServer {
    pub(crate) fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut server = Server::new(habit);
            while !stopped.load(Ordering::Relaxed) {
                while let Ok((stream, _)) = listener.accept() {
                    server.accept(stream);
                }
                server.turn();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Self { address, stop }
    }
}

impl Drop for SmallServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Server {
    fn new(habit: Habit) -> Self {
        Self {
            habit,
            keys: KeyPair::from_seed([7; 32]),
            names: Vec::new(),
            connections: Vec::new(),
            mailboxes: HashMap::new(),
            known: HashSet::new(),
            message_count: 0,
            next_place: 0,
            held_back: None,
            refused: None,
            cuts_left: 2,
            drops_left: 1,
            turned_away_left: if habit == Habit::TurnsAway { TURNED_AWAY_COUNT } else { 0 },
            turns: Instant::now(),
        }
    }

    fn accept(&mut self, stream: TcpStream) {
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("nodelay");
        self.connections.push(Connection {
            stream,
            input: Vec::new(),
            stage: Stage::Preface,
            unacknowledged: VecDeque::new(),
            next_number: 1,
        });
    }

    fn turn(&mut self) {
        let last_count = match self.habit {
            Habit::FallsSilent => CHOSEN - 1,
            Habit::Stalls => CHOSEN,
            _ => u64::MAX,
        };
        if self.message_count > last_count {
            return;
        }
        for index in 0..self.connections.len() {
            let mut buffer = [0; 4096];
            loop {
                match self.connections[index].stream.read(&mut buffer) {
                    Ok(0) => self.connections[index].stage = Stage::Closed,
                    Ok(bytes) => {
                        self.connections[index].input.extend_from_slice(&buffer[..bytes]);
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => self.connections[index].stage = Stage::Closed,
                }
                break;
            }
            self.take_input(index);
        }
        if self.habit == Habit::Cuts
            && self.cuts_left > 0
            && self.message_count >= CHOSEN * (3 - u64::from(self.cuts_left))
        {
            self.cuts_left -= 1;
            self.connections.clear();
        }
        if self.habit == Habit::DropsIdle
            && self.drops_left > 0
            && self.connections.len() == self.names.len()
            && self.turns.elapsed() > IDLE_DROP
        {
            self.drops_left -= 1;
            self.connections.pop();
        }
        self.connections.retain(|connection| !matches!(connection.stage, Stage::Closed));
    }

    fn take_input(&mut self, index: usize) {
        loop {
            let connection = &mut self.connections[index];
            let mut input = std::mem::take(&mut connection.input);
            if let Stage::Preface = connection.stage
                && input.len() >= PREFACE_BYTES
            {
                let rest = input.split_off(PREFACE_BYTES);
                let preface: [u8; PREFACE_BYTES] = input.try_into().expect("eight bytes");
                let parsed = Preface::parse(&preface).expect("the generator's preface");
                let handshake = Handshake::new(&preface, &parsed, &self.keys, [3; 32]);
                connection.stage = Stage::Handshake(Box::new(handshake));
                input = rest;
            }
            let Ok(Some((_, total))) = record::split(&input) else {
                connection.input = input;
                return;
            };
            connection.input = input.split_off(total);
            self.take_record(index, &mut input[record::HEADER_BYTES..]);
        }
    }

    fn take_record(&mut self, index: usize, payload: &mut [u8]) {
        let mut out = Vec::new();
        match std::mem::replace(&mut self.connections[index].stage, Stage::Closed) {
            // The stage is `Closed` by now.
            Stage::Handshake(_) if self.turned_away_left > 0 => {
                self.turned_away_left -= 1;
                let busy = [&[RecordKind::Busy as u8, 4, 0][..], &COME_BACK_MS.to_le_bytes()].concat();
                let _ = self.connections[index].stream.write_all(&busy);
            }
            Stage::Handshake(mut handshake) => {
                let progress = handshake.read(payload, &mut out).expect("the generator's handshake");
                self.connections[index].stage = match progress {
                    Progress::More => Stage::Handshake(handshake),
                    Progress::Done { login, transport } => {
                        let LoginRequest::Key(login) = login else { panic!("no tickets are given out") };
                        let account = self.account(login);
                        Stage::Transport { account, transport: Box::new(transport), started: false }
                    }
                };
                let _ = self.connections[index].stream.write_all(&out);
                if let Stage::Transport { account, .. } = self.connections[index].stage {
                    let welcome = ServerFrame::Welcome {
                        account,
                        device: DeviceId(1),
                        time_ms: 0,
                        keep_alive_s: if self.habit == Habit::AsksForPings { 2 } else { 240 },
                        window: 64,
                        body_bytes_max: 1000,
                    };
                    self.say(index, &welcome);
                }
            }
            Stage::Transport { account, mut transport, started } => {
                let plain = transport.open(payload).expect("the generator's record").to_vec();
                self.connections[index].stage = Stage::Transport { account, transport, started };
                let mut rest = &plain[..];
                while !rest.is_empty() {
                    let (frame, after) = ClientFrame::decode_first(rest).expect("the generator's frame");
                    rest = after;
                    self.take_frame(index, account, frame);
                }
            }
            other => self.connections[index].stage = other,
        }
    }

    fn account(&mut self, login: KeyLogin) -> AccountId {
        let number = self.names.iter().position(|name| *name == login.name).unwrap_or_else(|| {
            assert!(login.register, "{} logs in before it registers", login.name);
            self.names.push(login.name);
            self.names.len() - 1
        });
        AccountId::new(PartitionId(1), number as u64 + 1)
    }

    fn say(&mut self, index: usize, frame: &ServerFrame<'_>) {
        let connection = &mut self.connections[index];
        if let Stage::Transport { transport, .. } = &mut connection.stage {
            let mut out = Vec::new();
            let mark = Transport::begin(&mut out);
            frame.encode(&mut out);
            transport.seal(&mut out, mark);
            let _ = connection.stream.write_all(&out);
        }
    }

    fn take_frame(&mut self, index: usize, account: AccountId, frame: ClientFrame<'_>) {
        match frame {
            ClientFrame::Start => {
                for other in 0..self.connections.len() {
                    let theirs = &mut self.connections[other].stage;
                    if other != index
                        && matches!(theirs, Stage::Transport { account: a, .. } if *a == account)
                    {
                        *theirs = Stage::Closed;
                    }
                }
                if let Stage::Transport { started, .. } = &mut self.connections[index].stage {
                    *started = true;
                }
                let waiting: Vec<(u64, Mail)> =
                    self.mailboxes.entry(account).or_default().iter().cloned().collect();
                waiting.iter().for_each(|(place, mail)| self.hand_out(index, *place, mail));
                self.say(index, &ServerFrame::Drained);
            }
            ClientFrame::Send { to, id, body } => self.take_message(index, account, to, id, body),
            ClientFrame::Ack { number } => self.take_acknowledgement(index, account, number),
            ClientFrame::Goodbye => self.connections[index].stage = Stage::Closed,
            ClientFrame::Ping { token } => self.say(index, &ServerFrame::Pong { token }),
            ClientFrame::Lookup { .. } => {}
            other => panic!("tern-load never says {other:?}"),
        }
    }

    fn take_message(&mut self, index: usize, from: AccountId, to: AccountId, id: MessageId, body: &[u8]) {
        if !self.known.contains(&(from, id)) {
            self.message_count += 1;
        }
        let chosen = self.message_count == CHOSEN && !self.known.contains(&(from, id));
        if matches!(self.habit, Habit::IsBusy | Habit::IsBusySilently) {
            if chosen && self.refused.is_none() {
                self.refused = Some((from, id));
                self.message_count += 1; // chosen only once
                return self.say_busy(index, id);
            }
            match self.refused {
                Some((account, first)) if account == from && first == id => self.refused = None,
                Some((account, _)) if account == from => return self.say_busy(index, id),
                _ => {}
            }
        }
        if self.habit == Habit::Refuses && chosen {
            return self.say(index, &ServerFrame::Unknown { id });
        }
        if self.habit == Habit::Ignores && self.message_count >= CHOSEN {
            return;
        }
        let mail = Mail::Message { from, id, body: body.to_vec() };
        if self.known.insert((from, id)) {
            if chosen {
                self.misbehave(index, to, mail);
            } else {
                self.post(to, mail);
                if let Some((to, mail)) = self.held_back.take_if(|held| held.0 == to) {
                    self.post(to, mail);
                }
            }
        }
        self.say(index, &ServerFrame::Sent { id });
    }

    fn say_busy(&mut self, index: usize, id: MessageId) {
        if self.habit == Habit::IsBusy {
            self.say(index, &ServerFrame::Busy { id, retry_ms: 50 });
        }
    }

    fn misbehave(&mut self, index: usize, to: AccountId, mail: Mail) {
        let Mail::Message { from, id, body } = mail.clone() else { return };
        match self.habit {
            Habit::Loses | Habit::Stalls => {}
            Habit::Duplicates => {
                self.post(to, mail.clone());
                self.post(to, mail);
            }
            Habit::Swaps => self.held_back = Some((to, mail)),
            Habit::Misdelivers => {
                let other = (1..).map(|n| AccountId::new(PartitionId(1), n)).find(|&a| a != to && a != from);
                self.post(other.expect("there are others"), mail);
            }
            Habit::TicksEarly => {
                self.say(index, &ServerFrame::Sent { id });
                self.post(from, Mail::Tick { by: to, id });
                // Time enough for the tick to be read before the message: sockets have no order among each other.
                std::thread::sleep(Duration::from_millis(50));
                self.post(to, mail);
            }
            Habit::Changes => {
                let mut body = body;
                body[0] ^= 1;
                self.post(to, Mail::Message { from, id, body });
            }
            _ => self.post(to, mail),
        }
    }

    fn post(&mut self, to: AccountId, mail: Mail) {
        let place = self.next_place;
        self.next_place += 1;
        self.mailboxes.entry(to).or_default().push_back((place, mail.clone()));
        let online = |connection: &Connection| matches!(connection.stage, Stage::Transport { account, started: true, .. } if account == to);
        if let Some(index) = self.connections.iter().position(online) {
            self.hand_out(index, place, &mail);
        }
    }

    fn hand_out(&mut self, index: usize, place: u64, mail: &Mail) {
        let connection = &mut self.connections[index];
        let number = connection.next_number;
        connection.next_number += 1;
        connection.unacknowledged.push_back(place);
        let frame = match mail {
            Mail::Message { from, id, body } => {
                ServerFrame::Deliver { number, from: *from, id: *id, time_s: 0, from_name: "x", body }
            }
            Mail::Tick { by, id } => ServerFrame::Delivered { number, by: *by, id: *id, time_s: 0 },
        };
        self.say(index, &frame);
    }

    fn take_acknowledgement(&mut self, index: usize, account: AccountId, number: u32) {
        let connection = &mut self.connections[index];
        let first = connection.next_number - connection.unacknowledged.len() as u32;
        let places: Vec<u64> =
            (first..=number).filter_map(|_| connection.unacknowledged.pop_front()).collect();
        for place in places {
            let mailbox = self.mailboxes.entry(account).or_default();
            let Some(at) = mailbox.iter().position(|mail| mail.0 == place) else { continue };
            if let Some((_, Mail::Message { from, id, .. })) = mailbox.remove(at) {
                self.post(from, Mail::Tick { by: account, id });
            }
        }
    }
}
