//! Connections that are no phones: raw bytes from any address.

use super::{World, server_keys};
use std::net::SocketAddr;
use tern_core::io::Input;
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::noise::KeyPair;

pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address and a port"))
}

/// What a phone of this name says first, with the server's key: preface and first handshake record.
pub(crate) fn first_flight(name: &str, key: u8, seed: u64) -> Vec<u8> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut client = Client::new(ClientConfig {
        name: name.into(),
        keys: KeyPair::from_seed([key; 32]),
        server_key: Some(server_keys().public),
        ticket: None,
        register: true,
        partition_hint: None,
        seed: bytes,
    });
    let mut flight = Vec::new();
    client.flush(&mut flight);
    flight
}

/// The milliseconds of a clear busy record, if that is what was sent.
pub(crate) fn busy_record_ms(sent: &[u8]) -> Option<u32> {
    match *sent {
        [3, 4, 0, a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    }
}

impl World {
    /// A socket from an address comes into a free slot. False if it was closed at once.
    pub(crate) fn accept(&mut self, slot: u32, peer: Option<SocketAddr>) -> bool {
        self.sent.remove(&slot);
        self.conns.remove(&slot);
        self.step(Input::Accepted { slot, peer });
        self.turn();
        self.conns.contains_key(&slot)
    }

    /// Bytes come, and the second half of a handshake has its turn.
    pub(crate) fn throw(&mut self, slot: u32, bytes: &[u8]) {
        let conn = self.conns[&slot];
        self.arrive(conn, bytes);
        self.turn();
        self.next_turn();
    }

    /// The other end goes.
    pub(crate) fn cut(&mut self, slot: u32) {
        let conn = self.conns[&slot];
        self.step(Input::Ended { conn });
        self.turn();
    }

    /// What was sent to a slot.
    pub(crate) fn said(&mut self, slot: u32) -> Vec<u8> {
        self.sent.remove(&slot).unwrap_or_default()
    }
}
