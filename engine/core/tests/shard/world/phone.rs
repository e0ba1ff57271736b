//! A phone in a test: the real client state machine, and what it heard.

use super::{World, server_keys};
use tern_core::io::Input;
use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::client::{Client, ClientConfig, Event};
use tern_protocol::phone::frame::{ClientFrame, PresenceState, ServerFrame};
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::Ticket;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Message { number: u32, id: u64, body: Vec<u8> },
    Sent(u64),
    Delivered { number: u32, id: u64 },
    Drained,
    Busy(u64),
    Expired(u64),
    Unknown(u64),
    Found(Option<u64>),
    Refused(String),
    Goodbye(String),
    Read { number: u32, id: u64 },
    ReadTaken(u64),
    Copy { number: u32, to: u64, id: u64, body: Vec<u8> },
    Devices(Vec<(u16, bool)>),
    DevicesRefused(String),
    Presence(PresenceState),
    WatchRefused,
    Typing(bool),
    TicketRefused,
    ServerKey([u8; 32]),
}

pub(crate) struct Phone {
    pub(crate) slot: u32,
    pub(crate) client: Client,
    pub(crate) account: Option<AccountId>,
    pub(crate) heard: Vec<Heard>,
    /// The last ticket that it was given.
    pub(crate) ticket: Option<Ticket>,
    /// What the last `busy` asked it to wait, milliseconds.
    pub(crate) retry_ms: u32,
}

impl Phone {
    pub(crate) fn connect(world: &mut World, slot: u32, name: &str, key: u8) -> Self {
        Self::new(slot, name, key).come(world)
    }

    /// Comes back with a ticket.
    pub(crate) fn resume(world: &mut World, slot: u32, ticket: Ticket) -> Self {
        Self::with_ticket(slot, ticket).come(world)
    }

    /// A phone with a ticket that has not connected yet.
    pub(crate) fn with_ticket(slot: u32, ticket: Ticket) -> Self {
        Self::with(slot, "", 0, Some(ticket))
    }

    fn come(mut self, world: &mut World) -> Self {
        world.sent.remove(&self.slot);
        world.step(Input::Accepted { slot: self.slot, peer: None });
        world.turn();
        self.log_in(world);
        self
    }

    /// A phone whose connection was accepted.
    pub(crate) fn connected(world: &mut World, slot: u32, name: &str, key: u8) -> Self {
        let mut phone = Self::new(slot, name, key);
        phone.log_in(world);
        phone
    }

    /// A phone that has not connected yet.
    pub(crate) fn new(slot: u32, name: &str, key: u8) -> Self {
        Self::with(slot, name, key, None)
    }

    fn with(slot: u32, name: &str, key: u8, ticket: Option<Ticket>) -> Self {
        let client = Client::new(ClientConfig {
            name: name.into(),
            keys: KeyPair::from_seed([key; 32]),
            server_key: Some(server_keys().public),
            ticket,
            register: true,
            partition_hint: None,
            seed: [slot as u8 ^ 0x55; 32],
        });
        Self { slot, client, account: None, heard: Vec::new(), ticket: None, retry_ms: 0 }
    }

    /// Says and hears what a login takes.
    pub(crate) fn log_in(&mut self, world: &mut World) {
        for _ in 0..4 {
            self.exchange(world);
            // The second half of a handshake is the next turn's.
            world.next_turn();
            self.hear(world);
        }
    }

    /// Sends what it has, hears what there is.
    pub(crate) fn exchange(&mut self, world: &mut World) {
        let mut bytes = Vec::new();
        self.client.flush(&mut bytes);
        if !bytes.is_empty() {
            let conn = world.conns[&self.slot];
            world.arrive(conn, &bytes);
        }
        world.turn();
        self.hear(world);
    }

    pub(crate) fn hear(&mut self, world: &mut World) {
        let bytes = world.sent.remove(&self.slot).unwrap_or_default();
        let (heard, account, last_ticket) = (&mut self.heard, &mut self.account, &mut self.ticket);
        let last_retry_ms = &mut self.retry_ms;
        let mut note = |event: Event<'_>| match event {
            Event::Welcome { account: id, .. } => *account = Some(id),
            Event::Frame(frame) => match frame {
                ServerFrame::Deliver { number, id, body, .. } => {
                    heard.push(Heard::Message { number, id: id.0, body: body.to_vec() });
                }
                ServerFrame::Sent { id } => heard.push(Heard::Sent(id.0)),
                ServerFrame::Delivered { number, id, .. } => {
                    heard.push(Heard::Delivered { number, id: id.0 })
                }
                ServerFrame::Drained => heard.push(Heard::Drained),
                ServerFrame::Busy { id, retry_ms } => {
                    *last_retry_ms = retry_ms;
                    heard.push(Heard::Busy(id.0));
                }
                ServerFrame::Expired { id } => heard.push(Heard::Expired(id.0)),
                ServerFrame::Unknown { id } => heard.push(Heard::Unknown(id.0)),
                ServerFrame::Found { account, .. } => heard.push(Heard::Found(account.map(|a| a.0))),
                ServerFrame::Error { code, .. } => heard.push(Heard::Refused(format!("{code:?}"))),
                ServerFrame::Goodbye { reason, .. } => heard.push(Heard::Goodbye(format!("{reason:?}"))),
                ServerFrame::Ticket { ticket, .. } => *last_ticket = Some(ticket),
                ServerFrame::ServerKey { key } => heard.push(Heard::ServerKey(key)),
                ServerFrame::Read { number, id, .. } => heard.push(Heard::Read { number, id: id.0 }),
                ServerFrame::ReadTaken { id, .. } => heard.push(Heard::ReadTaken(id.0)),
                ServerFrame::Copy { number, to, id, body, .. } => {
                    heard.push(Heard::Copy { number, to: to.0, id: id.0, body: body.to_vec() });
                }
                ServerFrame::Devices { list } => {
                    heard.push(Heard::Devices(list.iter().map(|d| (d.device.0, d.online)).collect()));
                }
                ServerFrame::DevicesRefused { code } => {
                    heard.push(Heard::DevicesRefused(format!("{code:?}")))
                }
                ServerFrame::WatchRefused { .. } => heard.push(Heard::WatchRefused),
                ServerFrame::Presence { state, .. } => heard.push(Heard::Presence(state)),
                ServerFrame::Typing { on, .. } => heard.push(Heard::Typing(on)),
                _ => {}
            },
            Event::TicketRefused => heard.push(Heard::TicketRefused),
            _ => {}
        };
        self.client.receive(&bytes, &mut note).expect("the server speaks the protocol");
    }

    pub(crate) fn send(&mut self, world: &mut World, to: &Self, id: u64, body: &[u8]) {
        let to = to.account.expect("logged in");
        self.client.send(&ClientFrame::Send { to, id: MessageId(id), body });
        self.exchange(world);
    }

    /// Sends a message; the turn is not over yet.
    pub(crate) fn send_within_turn(&mut self, world: &mut World, to: &Self, id: u64, body: &[u8]) {
        let to = to.account.expect("logged in");
        self.say_within_turn(world, &ClientFrame::Send { to, id: MessageId(id), body });
    }

    /// Likewise, any frame.
    pub(crate) fn say_within_turn(&mut self, world: &mut World, frame: &ClientFrame<'_>) {
        self.client.send(frame);
        let mut bytes = Vec::new();
        self.client.flush(&mut bytes);
        let conn = world.conns[&self.slot];
        world.arrive(conn, &bytes);
    }

    /// Says one frame.
    pub(crate) fn say(&mut self, world: &mut World, frame: &ClientFrame<'_>) {
        self.client.send(frame);
        self.exchange(world);
    }

    pub(crate) fn ack(&mut self, world: &mut World, number: u32) {
        self.client.ack(number);
        self.exchange(world);
    }

    pub(crate) fn leave(&mut self, world: &mut World) {
        let conn = world.conns[&self.slot];
        world.step(Input::Ended { conn });
        world.turn();
    }
}
