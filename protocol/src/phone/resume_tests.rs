//! Coming back with a ticket, and with the server's previous key.

use super::client::{Client, ClientConfig, ClientError, Event};
use super::frame::ServerFrame;
use super::noise::{KeyPair, StaticKey, Transport};
use super::preface::{PREFACE_BYTES, Pattern, Preface};
use super::record::HEADER_BYTES;
use super::server::{self, Handshake, HandshakeError, LoginRequest, Progress};
use super::ticket::{KeyMark, TICKET_BYTES, Ticket, TicketClaims, TicketKeys};
use crate::ids::{AccountId, DeviceId};
use std::string::String;
use std::vec::Vec;

const CLAIMS: TicketClaims = TicketClaims {
    account: AccountId(3 << 48 | 9),
    device: DeviceId(2),
    number: 7,
    made_s: 1_700_000_000,
    knows: KeyMark([6; 4]),
};

fn keys() -> TicketKeys {
    TicketKeys::new(&[5; 32])
}

fn config(ticket: Option<Ticket>, server_key: Option<[u8; 32]>) -> ClientConfig {
    ClientConfig {
        name: String::from("ann"),
        keys: KeyPair::from_seed([22; 32]),
        server_key,
        ticket,
        register: false,
        partition_hint: None,
        seed: [33; 32],
    }
}

/// What a client writes first: prologue and handshake payload.
fn first_of(client: &mut Client, pattern: Pattern) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    client.flush(&mut bytes);
    let rest = bytes.split_off(pattern.prologue_bytes());
    assert_eq!(Preface::parse(bytes.first_chunk().unwrap()).unwrap().pattern, pattern);
    (bytes, rest[HEADER_BYTES..].to_vec())
}

fn ticket_handshake(prologue: &[u8]) -> Handshake {
    let id: [u8; TICKET_BYTES] = prologue[PREFACE_BYTES..].try_into().unwrap();
    let (claims, psk) = keys().open(&id).expect("a ticket of ours");
    Handshake::with_ticket(prologue, claims, &psk, [44; 32])
}

#[test]
fn a_ticket_brings_a_client_in() {
    let mut client = Client::new(config(Some(keys().issue(&CLAIMS, [1; 8])), Some([9; 32])));
    let (prologue, payload) = first_of(&mut client, Pattern::NNpsk0);
    let mut reply = Vec::new();
    let Ok(Progress::Done { login, mut transport }) = ticket_handshake(&prologue).read(&payload, &mut reply)
    else {
        panic!("not a login")
    };
    assert_eq!(login, LoginRequest::Ticket(CLAIMS));
    let mark = Transport::begin(&mut reply);
    ServerFrame::Welcome {
        account: CLAIMS.account,
        device: CLAIMS.device,
        time_ms: 1,
        keep_alive_s: 1,
        window: 1,
        body_bytes_max: 1,
    }
    .encode(&mut reply);
    transport.seal(&mut reply, mark);
    let mut welcomed = false;
    let mut hear = |event: Event<'_>| welcomed = matches!(event, Event::Welcome { server_key: None, .. });
    client.receive(&reply, &mut hear).unwrap();
    assert!(welcomed && client.ready());
    let mut start = Vec::new();
    client.flush(&mut start);
    transport.open(&mut start[HEADER_BYTES..]).unwrap();
}

#[test]
fn who_does_not_hold_the_psk_does_not_come_in() {
    let stolen = Ticket { psk: [0; 32], ..keys().issue(&CLAIMS, [1; 8]) };
    let mut client = Client::new(config(Some(stolen), None));
    let (prologue, payload) = first_of(&mut client, Pattern::NNpsk0);
    let result = ticket_handshake(&prologue).read(&payload, &mut Vec::new());
    assert_eq!(result.unwrap_err(), HandshakeError::Noise);
}

#[test]
fn a_changed_prologue_ends_a_ticket_handshake() {
    let mut client = Client::new(config(Some(keys().issue(&CLAIMS, [1; 8])), None));
    let (mut prologue, payload) = first_of(&mut client, Pattern::NNpsk0);
    let mut handshake = ticket_handshake(&prologue);
    assert!(handshake.read(&payload, &mut Vec::new()).is_ok());
    prologue[6] ^= 1;
    let result = ticket_handshake(&prologue).read(&payload, &mut Vec::new());
    assert_eq!(result.unwrap_err(), HandshakeError::Noise);
}

#[test]
fn a_refused_ticket_is_told_and_only_to_who_showed_one() {
    let mut refusal = Vec::new();
    server::ticket_refusal(&mut refusal);
    let mut client = Client::new(config(Some(keys().issue(&CLAIMS, [1; 8])), None));
    let mut refused = false;
    client.receive(&refusal, &mut |event| refused = event == Event::TicketRefused).unwrap();
    assert!(refused && client.over());
    let mut client = Client::new(config(None, None));
    assert_eq!(client.receive(&refusal, &mut |_| ()), Err(ClientError::Unexpected));
}

#[test]
fn a_client_of_the_previous_key_comes_in_and_is_known_as_one() {
    let (present, previous) = (KeyPair::from_seed([11; 32]), KeyPair::from_seed([12; 32]));
    let (present_key, previous_key) = (StaticKey::new(&present), StaticKey::new(&previous));
    for (known, by_previous) in [(present, false), (previous, true)] {
        let mut client = Client::new(config(None, Some(known.public)));
        let (prologue, payload) = first_of(&mut client, Pattern::IK);
        let raw = prologue.first_chunk().unwrap();
        let preface = Preface::parse(raw).unwrap();
        let mut handshake =
            Handshake::with_static_key(raw, &preface, &present_key, Some(&previous_key), [44; 32]);
        let mut reply = Vec::new();
        let Ok(Progress::Done { login: LoginRequest::Key(login), .. }) = handshake.read(&payload, &mut reply)
        else {
            panic!("not a login")
        };
        assert_eq!(login.by_previous_key, by_previous);
        client.receive(&reply, &mut |_| ()).expect("the server has the key that the client knows");
        let mut alone = Handshake::with_static_key(raw, &preface, &present_key, None, [44; 32]);
        assert_eq!(alone.read(&payload, &mut Vec::new()).is_ok(), !by_previous);
    }
}
