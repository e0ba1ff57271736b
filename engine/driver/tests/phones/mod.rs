//! A phone over a plain socket, and a node in a temporary directory.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tern_core::control::{ControlReply, ControlRequest, Created, NewAccount};
use tern_core::limits::Limits;
use tern_driver::{Node, NodeConfig};
use tern_protocol::ids::{AccountId, MessageId, PartitionId};
use tern_protocol::phone::client::{Client, ClientConfig, Event};
use tern_protocol::phone::frame::{ClientFrame, GoodbyeReason, ServerFrame};
use tern_protocol::phone::noise::KeyPair;

pub(crate) const PARTITIONS: u16 = 64;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Welcome(AccountId),
    Deliver { number: u32, from: AccountId, id: MessageId, body: Vec<u8> },
    Sent(MessageId),
    Delivered { number: u32, id: MessageId },
    Drained,
    Pong(u32),
    Goodbye(GoodbyeReason),
    Other(String),
}

fn told(event: Event<'_>) -> Told {
    match event {
        Event::Welcome { account, .. } => Told::Welcome(account),
        Event::Frame(frame) => match frame {
            ServerFrame::Deliver { number, from, id, body, .. } => {
                Told::Deliver { number, from, id, body: body.to_vec() }
            }
            ServerFrame::Sent { id } => Told::Sent(id),
            ServerFrame::Delivered { number, id, .. } => Told::Delivered { number, id },
            ServerFrame::Drained => Told::Drained,
            ServerFrame::Pong { token } => Told::Pong(token),
            ServerFrame::Goodbye { reason, .. } => Told::Goodbye(reason),
            other => Told::Other(format!("{other:?}")),
        },
        other => Told::Other(format!("{other:?}")),
    }
}

/// How a phone logs in.
#[derive(Clone, Copy, Default)]
pub(crate) struct Login {
    pub(crate) register: bool,
    pub(crate) knows_server: bool,
    pub(crate) hint: bool,
}

pub(crate) struct Phone {
    stream: TcpStream,
    client: Client,
    told: VecDeque<Told>,
    pub(crate) account: AccountId,
    pub(crate) ended: bool,
}

impl Phone {
    pub(crate) fn login(address: SocketAddr, name: &str, login: Login) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let client = Client::new(ClientConfig {
            name: name.into(),
            keys: keys(name),
            server_key: login.knows_server.then(|| server_keys().public),
            ticket: None,
            register: login.register,
            partition_hint: login.hint.then(|| PartitionId::of_name(name, PARTITIONS)),
            seed,
        });
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut phone = Self { stream, client, told: VecDeque::new(), account: AccountId(0), ended: false };
        phone.flush();
        match phone.next() {
            Told::Welcome(account) => phone.account = account,
            other => panic!("{name}: {other:?} instead of a welcome"),
        }
        phone.flush(); // Start
        // An account that it makes is there with the first frame.
        let first = phone.next();
        phone.told.push_front(first);
        phone
    }

    pub(crate) fn flush(&mut self) {
        let mut out = Vec::new();
        self.client.flush(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn send(&mut self, to: AccountId, id: MessageId, body: &[u8]) {
        self.client.send(&ClientFrame::Send { to, id, body });
        self.flush();
    }

    pub(crate) fn ping(&mut self, token: u32) {
        self.client.send(&ClientFrame::Ping { token });
        self.flush();
    }

    pub(crate) fn ack(&mut self, number: u32) {
        self.client.ack(number);
        self.flush();
    }

    /// The next event, waiting up to ten seconds.
    pub(crate) fn next(&mut self) -> Told {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(event) = self.told.pop_front() {
                return event;
            }
            let count = match self.stream.read(&mut bytes) {
                // A ring that this process has just closed interrupts whoever waits in the kernel.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count.expect("an answer in time"),
            };
            if count == 0 {
                self.ended = true;
                return Told::Other("end".into());
            }
            let queue = &mut self.told;
            let tell = &mut |event: Event<'_>| {
                // These phones log in anew.
                if !matches!(event, Event::Frame(ServerFrame::Ticket { .. })) {
                    queue.push_back(told(event));
                }
            };
            self.client.receive(&bytes[..count], tell).unwrap();
            if self.client.has_output() && self.account == AccountId(0) {
                self.flush();
            }
        }
    }

    /// Skips to the first event that `wanted` takes.
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(&Told) -> Option<T>) -> T {
        loop {
            let event = self.next();
            if let Some(found) = wanted(&event) {
                return found;
            }
            assert!(!matches!(event, Told::Other(_)), "{event:?}");
        }
    }
}

pub(crate) fn keys(name: &str) -> KeyPair {
    let mut seed = [3; 32];
    for (place, byte) in name.bytes().enumerate() {
        seed[place % 32] ^= byte.wrapping_mul(place as u8 + 1);
    }
    KeyPair::from_seed(seed)
}

pub(crate) fn server_keys() -> KeyPair {
    KeyPair::from_seed([9; 32])
}

pub(crate) fn config(data: &Path, shard_count: u16) -> NodeConfig {
    let limits = Limits { connection_count: 2000, commit_bytes: 1 << 20, ..Limits::default() };
    NodeConfig {
        shard_count,
        thread_count: std::thread::available_parallelism().map_or(1, usize::from),
        partition_count: PARTITIONS,
        data: data.to_owned(),
        phone: "127.0.0.1:0".parse().unwrap(),
        cpus: None,
        limits,
        proxies: Arc::default(),
        server_keys: server_keys(),
        previous_server_keys: None,
        ticket_secret: [6; 32],
        dedup_key: [5; 16],
        open_registration: true,
        segment_bytes: 4 << 20,
    }
}

/// Makes accounts through the control plane, each at its shard.
pub(crate) fn create(node: &Node, names: &[String]) {
    let control = node.control();
    for name in names {
        let account = NewAccount { name: name.clone(), device_keys: vec![keys(name).public] };
        let request = ControlRequest::CreateAccounts(vec![account]);
        let answer = control.request(control.shard_of_name(name), request);
        let reply = answer.recv_timeout(Duration::from_secs(10)).unwrap();
        let ControlReply::Created(created) = reply else { panic!("{reply:?}") };
        assert!(matches!(created[..], [Created::New(_) | Created::Existing(_)]), "{created:?}");
    }
}

pub(crate) fn id(low: u32) -> MessageId {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    MessageId::new(now.as_secs() as u32, low)
}
