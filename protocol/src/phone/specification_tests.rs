//! The test vectors of `PHONE.md` are what the code says, and the code reads them.

use super::cacophony_tests::from_hex;
use super::client::{Client, ClientConfig};
use super::frame::{
    ClientFrame, DeviceInfo, DeviceList, ErrorCode, GoodbyeReason, PresenceState, ServerFrame,
};
use super::noise::{KeyPair, Transport};
use super::preface::{PREFACE_BYTES, Pattern, Preface};
use super::record::{self, HEADER_BYTES};
use super::server::{self, Handshake, LoginRequest, Progress};
use super::ticket::{KeyMark, TICKET_BYTES, Ticket, TicketClaims, TicketKeys};
use crate::ids::{AccountId, DeviceId, MessageId, PartitionId};
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::string::String;
use std::vec::Vec;

const SPECIFICATION: &str = include_str!("../../PHONE.md");
const CLIENT_SEED: [u8; 32] = [3; 32];
const SERVER_SEED: [u8; 32] = [4; 32];

type Vectors = Vec<(&'static str, Vec<u8>)>;

fn server_keys() -> KeyPair {
    KeyPair::from_seed(core::array::from_fn(|n| n as u8))
}

fn client_keys() -> KeyPair {
    KeyPair::from_seed(core::array::from_fn(|n| 0x20 + n as u8))
}

/// The ephemeral private key that a handshake makes of its seed.
fn ephemeral(seed: [u8; 32]) -> Vec<u8> {
    digest(&SHA256, &[&seed[..], &[0; 8]].concat()).as_ref().to_vec()
}

const MESSAGE: MessageId = MessageId::new(1_700_000_000, 1);
const SEND: ClientFrame<'static> = ClientFrame::Send { to: AccountId(9), id: MESSAGE, body: b"hi" };
const WELCOME: ServerFrame<'static> = ServerFrame::Welcome {
    account: AccountId(5 << 48 | 7),
    device: DeviceId(1),
    time_ms: 1_700_000_000_123,
    keep_alive_s: 240,
    window: 64,
    body_bytes_max: 32_768,
};

/// A whole conversation up to the first message, as each side writes it.
fn conversation(ik: bool) -> [Vec<u8>; 4] {
    let mut client = Client::new(ClientConfig {
        name: String::from("ann"),
        keys: client_keys(),
        server_key: ik.then(|| server_keys().public),
        ticket: None,
        register: true,
        partition_hint: Some(PartitionId(5)),
        seed: CLIENT_SEED,
    });
    let mut first = Vec::new();
    client.flush(&mut first);
    let preface = *first.first_chunk::<PREFACE_BYTES>().unwrap();
    let parsed = Preface::parse(&preface).unwrap();
    let mut handshake = Handshake::new(&preface, &parsed, &server_keys(), SERVER_SEED);
    let (mut second, mut third) = (Vec::new(), Vec::new());
    let payload = first[PREFACE_BYTES + HEADER_BYTES..].to_vec();
    let mut progress = handshake.read(&payload, &mut second).unwrap();
    client.receive(&second, &mut |_| ()).unwrap();
    if !ik {
        client.flush(&mut third);
        let payload = third[HEADER_BYTES..].to_vec();
        progress = handshake.read(&payload, &mut Vec::new()).unwrap();
    }
    let Progress::Done { mut transport, .. } = progress else { panic!("the handshake is not over") };
    let mut welcome = Vec::new();
    let mark = Transport::begin(&mut welcome);
    WELCOME.encode(&mut welcome);
    transport.seal(&mut welcome, mark);
    client.receive(&welcome, &mut |_| ()).unwrap();
    client.send(&SEND);
    let mut fourth = Vec::new();
    client.flush(&mut fourth);
    if ik {
        second.extend_from_slice(&welcome);
        [first, second, fourth, Vec::new()]
    } else {
        [first, second, third, [welcome, fourth].concat()]
    }
}

const TICKET_SECRET: [u8; 32] = [5; 32];
const TICKET_RANDOM: [u8; 8] = [6; 8];
/// The first bytes of the vectors' server key.
const KEY_MARK: [u8; 4] = [0x8f, 0x40, 0xc5, 0xad];
const CLAIMS: TicketClaims = TicketClaims {
    account: AccountId(5 << 48 | 7),
    device: DeviceId(1),
    number: 3,
    made_s: 1_700_000_000,
    knows: KeyMark(KEY_MARK),
};
const TICKET_VALID_S: u32 = 604_800;

fn ticket() -> Ticket {
    TicketKeys::new(&TICKET_SECRET).issue(&CLAIMS, TICKET_RANDOM)
}

/// The server's side of a connection that begins with these bytes: the login, its answer, and the session.
fn admitted(first: &[u8]) -> (LoginRequest, Vec<u8>, Transport) {
    let (prologue, message) = first.split_at(Pattern::NNpsk0.prologue_bytes());
    let id: [u8; TICKET_BYTES] = prologue[PREFACE_BYTES..].try_into().unwrap();
    let (claims, psk) = TicketKeys::new(&TICKET_SECRET).open(&id).unwrap();
    let mut handshake = Handshake::with_ticket(prologue, claims, &psk, SERVER_SEED);
    let mut reply = Vec::new();
    match handshake.read(&message[HEADER_BYTES..], &mut reply) {
        Ok(Progress::Done { login, transport }) => (login, reply, transport),
        other => panic!("not a login: {other:?}"),
    }
}

/// The conversation of a client with a ticket: its first bytes, message 2, `Welcome`, `Start` and `Send`.
fn resumed() -> [Vec<u8>; 4] {
    let mut client = Client::new(ClientConfig {
        name: String::from("ann"),
        keys: client_keys(),
        server_key: Some(server_keys().public),
        ticket: Some(ticket()),
        register: false,
        partition_hint: Some(PartitionId(5)),
        seed: CLIENT_SEED,
    });
    let (mut first, mut welcome, mut start) = (Vec::new(), Vec::new(), Vec::new());
    client.flush(&mut first);
    let (_, second, mut transport) = admitted(&first);
    client.receive(&second, &mut |_| ()).unwrap();
    let mark = Transport::begin(&mut welcome);
    WELCOME.encode(&mut welcome);
    transport.seal(&mut welcome, mark);
    client.receive(&welcome, &mut |_| ()).unwrap();
    client.send(&SEND);
    client.flush(&mut start);
    [first, second, welcome, start]
}

fn ticket_vectors() -> Vectors {
    let [first, second, welcome, start] = resumed();
    let (account, device) = (CLAIMS.account.0.to_le_bytes(), CLAIMS.device.0.to_le_bytes());
    let (number, made_s) = (CLAIMS.number.to_le_bytes(), CLAIMS.made_s.to_le_bytes());
    let mut refused = Vec::new();
    server::ticket_refusal(&mut refused);
    std::vec![
        ("ticket secret of the server", TICKET_SECRET.to_vec()),
        ("ticket nonce", [&KEY_MARK[..], &TICKET_RANDOM].concat()),
        ("ticket claims", [&account[..], &device, &number, &made_s].concat()),
        ("ticket id", ticket().id.to_vec()),
        ("ticket psk", ticket().psk.to_vec()),
        ("NNpsk0: preface, ticket id and message 1", first),
        ("NNpsk0: message 2", second),
        ("NNpsk0: record of Welcome", welcome),
        ("NNpsk0: record of Start and Send", start),
        ("ticket refused record", refused),
    ]
}

fn of_client(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn of_server(frame: &ServerFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn handshake_vectors() -> Vectors {
    let [ik_first, ik_reply, ik_start, _] = conversation(true);
    let [xx_first, xx_reply, xx_login, xx_rest] = conversation(false);
    let (_, message_bytes) = record::split(&ik_reply).unwrap().unwrap();
    let (_, welcome_bytes) = record::split(&xx_rest).unwrap().unwrap();
    let (mut version, mut busy) = (Vec::new(), Vec::new());
    server::version_refusal(&mut version);
    server::busy_refusal(1500, &mut busy);
    std::vec![
        ("server private key", server_keys().private.to_vec()),
        ("server public key", server_keys().public.to_vec()),
        ("device private key", client_keys().private.to_vec()),
        ("device public key", client_keys().public.to_vec()),
        ("client ephemeral private key", ephemeral(CLIENT_SEED)),
        ("server ephemeral private key", ephemeral(SERVER_SEED)),
        ("version record", version),
        ("busy record, 1500 ms", busy),
        ("IK: preface and message 1", ik_first),
        ("IK: message 2", ik_reply[..message_bytes].to_vec()),
        ("IK: record of Welcome", ik_reply[message_bytes..].to_vec()),
        ("IK: record of Start and Send", ik_start),
        ("XX: preface and message 1", xx_first),
        ("XX: message 2", xx_reply),
        ("XX: message 3", xx_login),
        ("XX: record of Welcome", xx_rest[..welcome_bytes].to_vec()),
        ("XX: record of Start and Send", xx_rest[welcome_bytes..].to_vec()),
    ]
}

fn frame_vectors() -> Vectors {
    [client_vectors(), server_vectors()].concat()
}

fn client_vectors() -> Vectors {
    let (bob, id) = (AccountId(9), MESSAGE);
    std::vec![
        ("Start", of_client(&ClientFrame::Start)),
        ("Send to 9, \"hi\"", of_client(&SEND)),
        ("Ack 3", of_client(&ClientFrame::Ack { number: 3 })),
        ("Ping 258", of_client(&ClientFrame::Ping { token: 258 })),
        ("Goodbye of the client", of_client(&ClientFrame::Goodbye)),
        ("Lookup bob", of_client(&ClientFrame::Lookup { name: "bob" })),
        ("Read of a message of 9", of_client(&ClientFrame::Read { author: bob, id })),
        ("Presence, away", of_client(&ClientFrame::Presence { state: PresenceState::Away })),
        ("Typing to 9", of_client(&ClientFrame::Typing { to: bob, on: true })),
        ("Watch 9", of_client(&ClientFrame::Watch { account: bob })),
        ("Devices?", of_client(&ClientFrame::Devices)),
        ("AddDevice", of_client(&ClientFrame::AddDevice { key: client_keys().public })),
        ("RevokeDevice 2", of_client(&ClientFrame::RevokeDevice { device: DeviceId(2) })),
    ]
}

fn server_vectors() -> Vectors {
    let (bob, id, time_s) = (AccountId(9), MESSAGE, 1_700_000_001);
    let devices = [
        DeviceInfo { device: DeviceId(1), online: true, is_this: true, key: client_keys().public },
        DeviceInfo { device: DeviceId(2), online: false, is_this: false, key: [0x44; 32] },
    ];
    let mut list = Vec::new();
    DeviceList::write(devices.into_iter(), &mut list);
    let list = DeviceList::parse(&list).unwrap();
    std::vec![
        ("Welcome", of_server(&WELCOME)),
        (
            "Deliver 1 from 9, bob, \"yo\"",
            of_server(&ServerFrame::Deliver {
                number: 1,
                from: bob,
                id,
                time_s,
                from_name: "bob",
                body: b"yo",
            }),
        ),
        ("Sent", of_server(&ServerFrame::Sent { id })),
        ("Delivered 2 by 9", of_server(&ServerFrame::Delivered { number: 2, by: bob, id, time_s })),
        ("Drained", of_server(&ServerFrame::Drained)),
        ("Pong 258", of_server(&ServerFrame::Pong { token: 258 })),
        ("Busy, 500 ms", of_server(&ServerFrame::Busy { id, retry_ms: 500 })),
        ("Expired", of_server(&ServerFrame::Expired { id })),
        ("Unknown", of_server(&ServerFrame::Unknown { id })),
        ("Found bob, 9", of_server(&ServerFrame::Found { account: Some(bob), name: "bob" })),
        ("Found bob, nobody", of_server(&ServerFrame::Found { account: None, name: "bob" })),
        ("Error 4, \"no\"", of_server(&ServerFrame::Error { code: ErrorCode::WrongKey, detail: "no" })),
        (
            "Goodbye 2, 1000 ms",
            of_server(&ServerFrame::Goodbye { reason: GoodbyeReason::Draining, retry_ms: 1000 }),
        ),
        ("Read 3 by 9", of_server(&ServerFrame::Read { number: 3, by: bob, id, time_s })),
        (
            "Presence of 9, available",
            of_server(&ServerFrame::Presence {
                account: bob,
                state: PresenceState::Available,
                seen_s: time_s,
            }),
        ),
        ("Typing by 9, no longer", of_server(&ServerFrame::Typing { from: bob, on: false })),
        ("ReadTaken for 9", of_server(&ServerFrame::ReadTaken { author: bob, id })),
        ("Ticket", of_server(&ServerFrame::Ticket { ticket: ticket(), valid_s: TICKET_VALID_S })),
        ("ServerKey", of_server(&ServerFrame::ServerKey { key: server_keys().public })),
        (
            "Copy 4 of \"hi\" to 9",
            of_server(&ServerFrame::Copy { number: 4, to: bob, id, time_s, body: b"hi" }),
        ),
        ("Devices 1 (this, online) and 2", of_server(&ServerFrame::Devices { list })),
        (
            "WatchRefused for 9, 60 s",
            of_server(&ServerFrame::WatchRefused { account: bob, retry_ms: 60_000 })
        ),
        ("DevicesRefused 14", of_server(&ServerFrame::DevicesRefused { code: ErrorCode::LastDevice })),
        ("DevicesRefused 16", of_server(&ServerFrame::DevicesRefused { code: ErrorCode::TooManyAdded })),
        ("DevicesRefused 17", of_server(&ServerFrame::DevicesRefused { code: ErrorCode::NumbersUsedUp })),
    ]
}

/// The blocks as they must stand in the specification: a name, then lines of at most 48 bytes.
fn written(vectors: &Vectors) -> String {
    let mut text = String::from("```text\n");
    for (name, bytes) in vectors {
        writeln!(text, "{name}").unwrap();
        for line in bytes.chunks(48) {
            text.push_str("    ");
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text.push_str("```\n");
    text
}

#[test]
fn the_specification_shows_these_vectors() {
    for vectors in [handshake_vectors(), ticket_vectors(), frame_vectors()] {
        let block = written(&vectors);
        assert!(SPECIFICATION.contains(&block), "PHONE.md must contain:\n{block}");
    }
}

/// The bytes under `name` in the specification's text.
fn in_specification(name: &str) -> Vec<u8> {
    let start = SPECIFICATION.find(&std::format!("\n{name}\n")).expect(name) + name.len() + 2;
    let lines = SPECIFICATION[start..].lines().take_while(|line| line.starts_with("    "));
    from_hex(&lines.collect::<String>())
}

#[test]
fn the_specifications_frames_are_read() {
    for (name, _) in frame_vectors() {
        let bytes = in_specification(name);
        let rest = if bytes[3] < 0x80 {
            ClientFrame::decode_first(&bytes).unwrap().1
        } else {
            ServerFrame::decode_first(&bytes).unwrap().1
        };
        assert!(rest.is_empty(), "{name}");
    }
}

#[test]
fn the_specifications_first_message_logs_in() {
    let bytes = in_specification("IK: preface and message 1");
    let preface = *bytes.first_chunk::<PREFACE_BYTES>().unwrap();
    let parsed = Preface::parse(&preface).unwrap();
    let mut handshake = Handshake::new(&preface, &parsed, &server_keys(), SERVER_SEED);
    let mut reply = Vec::new();
    let payload = bytes[PREFACE_BYTES + HEADER_BYTES..].to_vec();
    let Ok(Progress::Done { login: LoginRequest::Key(login), mut transport }) =
        handshake.read(&payload, &mut reply)
    else {
        panic!("not a login")
    };
    assert_eq!((login.name.as_str(), login.register), ("ann", true));
    assert_eq!(login.device_key[..], in_specification("device public key")[..]);
    assert_eq!(reply, in_specification("IK: message 2"));
    let mut record = in_specification("IK: record of Start and Send");
    let plain = transport.open(&mut record[HEADER_BYTES..]).unwrap();
    let (start, rest) = ClientFrame::decode_first(plain).unwrap();
    assert_eq!((start, ClientFrame::decode_first(rest).unwrap()), (ClientFrame::Start, (SEND, &[][..])));
}

#[test]
fn the_specifications_ticket_is_opened() {
    let id = in_specification("ticket id");
    let (claims, psk) = TicketKeys::new(&TICKET_SECRET).open(id.as_array().unwrap()).unwrap();
    assert_eq!((claims, psk.to_vec()), (CLAIMS, in_specification("ticket psk")));
    assert_eq!(KeyMark::of(&server_keys().public), CLAIMS.knows);
    let first = in_specification("NNpsk0: preface, ticket id and message 1");
    let (login, reply, mut transport) = admitted(&first);
    assert_eq!((login, reply), (LoginRequest::Ticket(CLAIMS), in_specification("NNpsk0: message 2")));
    let mut record = in_specification("NNpsk0: record of Start and Send");
    let plain = transport.open(&mut record[HEADER_BYTES..]).unwrap();
    let (start, rest) = ClientFrame::decode_first(plain).unwrap();
    assert_eq!((start, ClientFrame::decode_first(rest).unwrap()), (ClientFrame::Start, (SEND, &[][..])));
}
