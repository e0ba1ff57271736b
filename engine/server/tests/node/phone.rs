//! A phone over a blocking socket: the real client state machine, and what it heard.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tern_protocol::ids::{AccountId, MessageId, PartitionId};
use tern_protocol::phone::client::{Client, ClientConfig, Event};
use tern_protocol::phone::frame::{ClientFrame, ServerFrame};
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::Ticket;

/// What a phone heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Welcome,
    Message {
        number: u32,
        id: u64,
        body: Vec<u8>,
    },
    Sent(u64),
    Delivered {
        number: u32,
        id: u64,
    },
    Read {
        number: u32,
        id: u64,
    },
    ReadTaken(u64),
    Copy {
        number: u32,
        id: u64,
        body: Vec<u8>,
    },
    /// The numbers of the account's devices.
    Devices(Vec<u16>),
    DevicesRefused(String),
    TicketRefused,
    Drained,
    Pong(u32),
    Busy(u64),
    Found(Option<u64>),
    Refused(String),
    Goodbye(String),
    /// The connection is over.
    End,
}

/// How a phone connects.
#[derive(Clone, Default)]
pub(crate) struct Way {
    pub(crate) server_key: Option<[u8; 32]>,
    pub(crate) hint: Option<PartitionId>,
    /// What goes before everything: a balancer's header.
    pub(crate) header: Vec<u8>,
}

pub(crate) struct Phone {
    socket: TcpStream,
    client: Client,
    pub(crate) account: AccountId,
    pub(crate) server_key: [u8; 32],
    /// The last one that it was given.
    pub(crate) ticket: Option<Ticket>,
    /// The key that the server says it has now.
    pub(crate) told_key: Option<[u8; 32]>,
    /// How long it shall wait, when the server had no time for its handshake.
    pub(crate) busy_ms: Option<u32>,
    heard: VecDeque<Heard>,
}

impl Phone {
    /// Connects and waits until its account is there, which is not so with the welcome.
    pub(crate) fn log_in(door: SocketAddr, name: &str, key: u8, way: &Way) -> Self {
        let mut phone = Self::connect(door, name, key, way);
        assert_eq!(phone.next(), Heard::Welcome, "{name} is not welcome");
        let first = phone.next();
        phone.heard.push_front(first);
        phone
    }

    pub(crate) fn connect(door: SocketAddr, name: &str, key: u8, way: &Way) -> Self {
        let mut config = config(name, key);
        (config.server_key, config.partition_hint) = (way.server_key, way.hint);
        Self::connect_as(door, &way.header, config)
    }

    /// Comes with a ticket, and says where it thinks that it belongs.
    pub(crate) fn resume_at(door: SocketAddr, ticket: Ticket, hint: Option<PartitionId>) -> Self {
        let config = ClientConfig { ticket: Some(ticket), partition_hint: hint, ..config("any", 255) };
        Self::connect_as(door, &[], config)
    }

    /// Comes with a ticket.
    pub(crate) fn resume(door: SocketAddr, ticket: Ticket) -> Self {
        Self::connect_as(door, &[], ClientConfig { ticket: Some(ticket), ..config("any", 255) })
    }

    /// Connects, and will come with a ticket when it is flushed.
    pub(crate) fn dial(door: SocketAddr, ticket: Ticket) -> Self {
        Self::dial_as(door, &[], ClientConfig { ticket: Some(ticket), ..config("any", 255) })
    }

    fn connect_as(door: SocketAddr, header: &[u8], config: ClientConfig) -> Self {
        let mut phone = Self::dial_as(door, header, config);
        phone.flush();
        phone
    }

    fn dial_as(door: SocketAddr, header: &[u8], config: ClientConfig) -> Self {
        let mut socket = TcpStream::connect(door).expect("the door is open");
        socket.write_all(header).expect("a fresh socket has room");
        socket.set_nodelay(true).expect("a socket option");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket option");
        Self {
            socket,
            client: Client::new(config),
            account: AccountId(0),
            server_key: [0; 32],
            ticket: None,
            told_key: None,
            busy_ms: None,
            heard: VecDeque::new(),
        }
    }

    /// Writes what the client has to say; a connection that is over says nothing.
    pub(crate) fn flush(&mut self) {
        let mut bytes = Vec::new();
        self.client.flush(&mut bytes);
        let _ = self.socket.write_all(&bytes);
    }

    /// Writes bytes that the protocol knows nothing of; a connection that is over takes none.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn say(&mut self, frame: &ClientFrame<'_>) {
        self.client.send(frame);
        self.flush();
    }

    pub(crate) fn send(&mut self, to: AccountId, id: u64, body: &[u8]) {
        self.say(&ClientFrame::Send { to, id: MessageId(id), body });
    }

    pub(crate) fn ack(&mut self, number: u32) {
        self.client.ack(number);
        self.flush();
    }

    /// The next thing that the phone hears, within five seconds.
    pub(crate) fn next(&mut self) -> Heard {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            assert!(Instant::now() < deadline, "nothing is heard");
            self.read();
        }
    }

    /// What the phone hears in a while.
    pub(crate) fn listen(&mut self, while_: Duration) -> Vec<Heard> {
        let deadline = Instant::now() + while_;
        while Instant::now() < deadline && self.heard.back() != Some(&Heard::End) {
            self.read();
        }
        self.heard.drain(..).collect()
    }

    /// What the phone has heard by now; does not wait.
    pub(crate) fn poll(&mut self) -> Vec<Heard> {
        self.socket.set_nonblocking(true).expect("a socket option");
        while self.read() && self.heard.back() != Some(&Heard::End) {}
        self.socket.set_nonblocking(false).expect("a socket option");
        self.heard.drain(..).collect()
    }

    /// False if there was nothing.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = match self.socket.read(&mut bytes) {
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                return false;
            }
            Err(_) => 0,
        };
        if count == 0 {
            self.heard.push_back(Heard::End);
            return true;
        }
        let Self { client, heard, account, server_key, ticket, told_key, busy_ms, .. } = self;
        let mut note = |event: Event<'_>| {
            heard.extend(match event {
                Event::Welcome { account: id, server_key: key, .. } => {
                    *account = id;
                    *server_key = key.unwrap_or(*server_key);
                    Some(Heard::Welcome)
                }
                Event::Frame(frame) => match frame {
                    ServerFrame::Deliver { number, id, body, .. } => {
                        Some(Heard::Message { number, id: id.0, body: body.to_vec() })
                    }
                    ServerFrame::Sent { id } => Some(Heard::Sent(id.0)),
                    ServerFrame::Delivered { number, id, .. } => Some(Heard::Delivered { number, id: id.0 }),
                    ServerFrame::Ticket { ticket: next, .. } => {
                        *ticket = Some(next);
                        None
                    }
                    ServerFrame::ServerKey { key } => {
                        *told_key = Some(key);
                        None
                    }
                    ServerFrame::Read { number, id, .. } => Some(Heard::Read { number, id: id.0 }),
                    ServerFrame::ReadTaken { id, .. } => Some(Heard::ReadTaken(id.0)),
                    ServerFrame::Copy { number, id, body, .. } => {
                        Some(Heard::Copy { number, id: id.0, body: body.to_vec() })
                    }
                    ServerFrame::Devices { list } => {
                        Some(Heard::Devices(list.iter().map(|device| device.device.0).collect()))
                    }
                    ServerFrame::DevicesRefused { code } => Some(Heard::DevicesRefused(format!("{code:?}"))),
                    ServerFrame::Drained => Some(Heard::Drained),
                    ServerFrame::Pong { token } => Some(Heard::Pong(token)),
                    ServerFrame::Busy { id, .. } => Some(Heard::Busy(id.0)),
                    ServerFrame::Found { account, .. } => {
                        Some(Heard::Found(account.map(|account| account.0)))
                    }
                    ServerFrame::Error { code, .. } => Some(Heard::Refused(format!("{code:?}"))),
                    ServerFrame::Goodbye { reason, .. } => Some(Heard::Goodbye(format!("{reason:?}"))),
                    _ => None,
                },
                Event::TicketRefused => Some(Heard::TicketRefused),
                Event::ConnectBusy { retry_ms } => {
                    *busy_ms = Some(retry_ms);
                    None
                }
                _ => None,
            });
        };
        client.receive(&bytes[..count], &mut note).expect("the server speaks the protocol");
        self.flush();
        true
    }
}

/// A client that knows nobody's key, registers, and has a seed of its own.
fn config(name: &str, key: u8) -> ClientConfig {
    let seed = SEEDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes().repeat(4);
    ClientConfig {
        name: name.into(),
        keys: KeyPair::from_seed([key; 32]),
        server_key: None,
        ticket: None,
        register: true,
        partition_hint: None,
        seed: seed.try_into().expect("32 bytes"),
    }
}

static SEEDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A message id made now.
pub(crate) fn id(low: u32) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    MessageId::new(now.as_secs() as u32, low).0
}
