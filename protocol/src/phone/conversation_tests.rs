//! Client and server talk to each other: both patterns, bytes cut anywhere, and every refusal.

use super::client::{Client, ClientConfig, ClientError, Event};
use super::frame::{ClientFrame, ErrorCode, GoodbyeReason, ServerFrame};
use super::noise::{KeyPair, NoiseError, PLAINTEXT_BYTES_MAX, Transport};
use super::preface::{PREFACE_BYTES, Preface};
use super::record::{self, HEADER_BYTES, RecordError, RecordKind};
use super::server::{self, Handshake, HandshakeError, KeyLogin, LoginRequest, Progress};
use crate::ids::{AccountId, DeviceId, MessageId, PartitionId};
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

const WELCOME: ServerFrame<'static> = ServerFrame::Welcome {
    account: AccountId(7),
    device: DeviceId(1),
    time_ms: 1_700_000_000_000,
    keep_alive_s: 240,
    window: 64,
    body_bytes_max: 16_384,
};

fn server_keys() -> KeyPair {
    KeyPair::from_seed([11; 32])
}

fn config(ik: bool) -> ClientConfig {
    ClientConfig {
        name: String::from("ann"),
        keys: KeyPair::from_seed([22; 32]),
        server_key: ik.then(|| server_keys().public),
        ticket: None,
        register: true,
        partition_hint: Some(PartitionId(5)),
        seed: [33; 32],
    }
}

/// The least server: welcomes whoever completes the handshake, and writes down each record's frames.
#[derive(Default)]
struct Host {
    input: Vec<u8>,
    output: Vec<u8>,
    handshake: Option<Handshake>,
    login: Option<LoginRequest>,
    transport: Option<Transport>,
    /// The frames of each record, as `Debug` shows them.
    records: Vec<Vec<String>>,
}

impl Host {
    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.input.extend_from_slice(bytes);
        if self.handshake.is_none() && self.transport.is_none() {
            let Some(preface) = self.input.first_chunk::<PREFACE_BYTES>().copied() else { return Ok(()) };
            let parsed = Preface::parse(&preface).expect("the client's preface");
            self.handshake = Some(Handshake::new(&preface, &parsed, &server_keys(), [44; 32]));
            self.input.drain(..PREFACE_BYTES);
        }
        while let Some((kind, total_bytes)) = record::split(&self.input).expect("the client's records") {
            let mut one: Vec<u8> = self.input.drain(..total_bytes).collect();
            let payload = &mut one[HEADER_BYTES..];
            match (kind, &mut self.handshake) {
                (RecordKind::Handshake, Some(handshake)) => {
                    if let Progress::Done { login, transport } = handshake.read(payload, &mut self.output)? {
                        self.handshake = None;
                        self.login = Some(login);
                        self.transport = Some(transport);
                        self.send(&[WELCOME]);
                    }
                }
                (RecordKind::Transport, None) => self.take_frames(payload),
                other => panic!("unexpected {other:?}"),
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, payload: &mut [u8]) {
        let mut rest: &[u8] = self.transport.as_mut().unwrap().open(payload).unwrap();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (frame, after) = ClientFrame::decode_first(rest).unwrap();
            frames.push(format!("{frame:?}"));
            rest = after;
        }
        self.records.push(frames);
    }

    fn send(&mut self, frames: &[ServerFrame<'_>]) {
        let mark = Transport::begin(&mut self.output);
        for frame in frames {
            frame.encode(&mut self.output);
        }
        self.transport.as_mut().unwrap().seal(&mut self.output, mark);
    }
}

/// Feeds the client; returns its events as `Debug` shows them.
fn feed(client: &mut Client, bytes: &[u8]) -> Result<Vec<String>, ClientError> {
    let mut events = Vec::new();
    client.receive(bytes, &mut |event| events.push(format!("{event:?}")))?;
    Ok(events)
}

/// Carries bytes to and fro, in pieces of `piece_bytes`, until both are silent; returns the client's events.
fn converse(client: &mut Client, host: &mut Host, piece_bytes: usize) -> Vec<String> {
    let mut events = Vec::new();
    while client.has_output() || !host.output.is_empty() {
        let mut bytes = Vec::new();
        client.flush(&mut bytes);
        for piece in bytes.chunks(piece_bytes) {
            host.receive(piece).unwrap();
        }
        for piece in std::mem::take(&mut host.output).chunks(piece_bytes) {
            events.extend(feed(client, piece).unwrap());
        }
    }
    events
}

fn logged_in(ik: bool) -> (Client, Host) {
    let (mut client, mut host) = (Client::new(config(ik)), Host::default());
    converse(&mut client, &mut host, usize::MAX);
    assert!(client.ready() && !client.has_output());
    (client, host)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_patterns_log_in_and_talk_with_bytes_cut_anywhere(ik: bool, piece_bytes in 1_usize..200,
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let (mut client, mut host) = (Client::new(config(ik)), Host::default());
        for (n, body) in bodies.iter().enumerate() {
            client.send(&ClientFrame::Send { to: AccountId(9), id: MessageId(n as u64), body });
        }
        let events = converse(&mut client, &mut host, piece_bytes);
        let welcome = Event::Welcome { account: AccountId(7), device: DeviceId(1), time_ms: 1_700_000_000_000,
            window: 64, server_key: Some(server_keys().public), keep_alive_s: 240 };
        prop_assert_eq!(events, vec![format!("{welcome:?}")]);
        let login = LoginRequest::Key(KeyLogin { name: String::from("ann"), register: true,
            device_key: config(ik).keys.public, by_previous_key: false });
        prop_assert_eq!(host.login.as_ref(), Some(&login));

        let mut expected = vec![format!("{:?}", ClientFrame::Start)];
        for (n, body) in bodies.iter().enumerate() {
            let frame = ClientFrame::Send { to: AccountId(9), id: MessageId(n as u64), body };
            expected.push(format!("{frame:?}"));
        }
        prop_assert_eq!(&host.records, &vec![expected]);

        let body = bodies.concat();
        let deliver = ServerFrame::Deliver { number: 1, from: AccountId(9), id: MessageId(4), time_s: 5,
            from_name: "bob", body: &body };
        host.send(&[deliver, ServerFrame::Sent { id: MessageId(0) }]);
        host.send(&[ServerFrame::Drained]);
        let events = converse(&mut client, &mut host, piece_bytes);
        let deliver = Event::Frame(ServerFrame::Deliver { number: 1, from: AccountId(9), id: MessageId(4), time_s: 5,
            from_name: "bob", body: &body });
        let expected = [deliver, Event::Frame(ServerFrame::Sent { id: MessageId(0) }), Event::Frame(ServerFrame::Drained)];
        prop_assert_eq!(events, expected.map(|event| format!("{event:?}")).to_vec());
    }

    #[test]
    fn a_changed_byte_ends_the_handshake(ik: bool, at: prop::sample::Index, flip in 1_u8..=255) {
        let mut bytes = Vec::new();
        Client::new(config(ik)).flush(&mut bytes);
        let preface = *bytes.first_chunk::<PREFACE_BYTES>().unwrap();
        let mut changed = preface;
        let payload_start = PREFACE_BYTES + HEADER_BYTES;
        // The hint's bytes and the whole first message; XX's first message is only checked with the third.
        let spots: Vec<usize> = (6..8).chain(payload_start..bytes.len()).collect();
        let at = *at.get(&spots);
        if at < PREFACE_BYTES {
            changed[at] ^= flip;
        } else {
            bytes[at] ^= flip;
        }
        let parsed = Preface::parse(&changed).unwrap();
        let mut handshake = Handshake::new(&changed, &parsed, &server_keys(), [44; 32]);
        let mut reply = Vec::new();
        let result = handshake.read(&bytes[payload_start..], &mut reply);
        if ik {
            prop_assert_eq!(result.unwrap_err(), HandshakeError::Noise);
        } else if result.is_ok() {
            let mut client = Client::new(config(ik));
            prop_assert_eq!(feed(&mut client, &reply), Err(ClientError::Handshake));
            prop_assert!(client.over());
        }
    }

    #[test]
    fn no_bytes_panic_a_client(ik: bool, bytes: Vec<u8>) {
        let mut client = Client::new(config(ik));
        if feed(&mut client, &bytes).is_err() {
            prop_assert!(client.over() && !client.has_output());
        }
    }
}

#[test]
fn acknowledgements_coalesce_and_go_before_other_frames() {
    let (mut client, mut host) = logged_in(true);
    client.send(&ClientFrame::Ping { token: 8 });
    client.ack(3);
    client.ack(5);
    client.ack(4);
    converse(&mut client, &mut host, usize::MAX);
    assert_eq!(host.records.last().unwrap(), &["Ack { number: 5 }", "Ping { token: 8 }"]);
}

#[test]
fn many_frames_fill_records_without_straddling() {
    let (mut client, mut host) = logged_in(true);
    let before = host.records.len();
    let body = vec![3; 20_000];
    for n in 0..10 {
        client.send(&ClientFrame::Send { to: AccountId(9), id: MessageId(n), body: &body });
    }
    client.ack(1);
    converse(&mut client, &mut host, 1000);
    let counts: Vec<usize> = host.records[before..].iter().map(Vec::len).collect();
    assert_eq!(counts, [4, 3, 3, 1], "an acknowledgement and ten messages, three to a record");
}

#[test]
fn a_frame_that_fills_a_record_goes_out_behind_an_acknowledgement() {
    let (mut client, mut host) = logged_in(true);
    let before = host.records.len();
    let body = vec![3; PLAINTEXT_BYTES_MAX - 20];
    client.send(&ClientFrame::Send { to: AccountId(9), id: MessageId(1), body: &body });
    client.ack(1);
    converse(&mut client, &mut host, usize::MAX);
    assert_eq!(host.records[before..].iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);

    // To the byte: 20 are header and ids of a Send.
    let body = vec![3; PLAINTEXT_BYTES_MAX - 20];
    client.send(&ClientFrame::Send { to: AccountId(9), id: MessageId(2), body: &body });
    client.send(&ClientFrame::Ping { token: 1 });
    converse(&mut client, &mut host, usize::MAX);
    assert_eq!(host.records[before + 2..].iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_client_of_another_servers_key_is_refused() {
    let config = ClientConfig { server_key: Some(KeyPair::from_seed([12; 32]).public), ..config(true) };
    let mut bytes = Vec::new();
    Client::new(config).flush(&mut bytes);
    assert_eq!(Host::default().receive(&bytes), Err(HandshakeError::Noise));
}

#[test]
fn a_bad_name_is_told_under_encryption() {
    for ik in [true, false] {
        let (mut client, mut host) =
            (Client::new(ClientConfig { name: String::from("Ann"), ..config(ik) }), Host::default());
        let mut events = Vec::new();
        for _ in 0..3 {
            let mut bytes = Vec::new();
            client.flush(&mut bytes);
            if host.receive(&bytes) == Err(HandshakeError::Name) {
                events = feed(&mut client, &host.output).unwrap();
                break;
            }
            feed(&mut client, &std::mem::take(&mut host.output)).unwrap();
        }
        let refused = Event::Frame(ServerFrame::Error { code: ErrorCode::BadName, detail: "not a name" });
        assert_eq!(events, [format!("{refused:?}")]);
        assert!(client.over());
    }
}

#[test]
fn clear_refusals_count_only_before_the_handshake_is_over() {
    let mut refusal = Vec::new();
    server::version_refusal(&mut refusal);
    let mut client = Client::new(config(true));
    let told = Event::VersionRefused { min: 1, max: 1 };
    assert_eq!(feed(&mut client, &refusal), Ok(vec![format!("{told:?}")]));
    assert!(client.over() && !client.has_output());

    let (mut client, _) = logged_in(true);
    assert_eq!(feed(&mut client, &refusal), Err(ClientError::Unexpected));

    let mut busy = Vec::new();
    server::busy_refusal(1500, &mut busy);
    let mut client = Client::new(config(false));
    let told = Event::ConnectBusy { retry_ms: 1500 };
    assert_eq!(feed(&mut client, &busy), Ok(vec![format!("{told:?}")]));
    let (mut client, _) = logged_in(false);
    assert_eq!(feed(&mut client, &busy), Err(ClientError::Unexpected));
}

#[test]
fn after_the_end_nothing_is_told_or_written() {
    let (mut client, mut host) = logged_in(true);
    let goodbye = ServerFrame::Goodbye { reason: GoodbyeReason::Replaced, retry_ms: 10 };
    host.send(&[ServerFrame::Drained, goodbye, ServerFrame::Drained]);
    host.send(&[ServerFrame::Drained]);
    client.ack(1);
    let events = feed(&mut client, &host.output).unwrap();
    let expected = [
        Event::Frame(ServerFrame::Drained),
        Event::Frame(ServerFrame::Goodbye { reason: GoodbyeReason::Replaced, retry_ms: 10 }),
    ];
    assert_eq!(events, expected.map(|event| format!("{event:?}")));
    client.send(&ClientFrame::Ping { token: 1 });
    client.ack(2);
    let mut bytes = Vec::new();
    client.flush(&mut bytes);
    assert!(client.over() && !client.has_output() && bytes.is_empty());
    assert_eq!(feed(&mut client, &[0xff; 40]), Ok(vec![]));
}

#[test]
fn mail_before_the_welcome_and_a_second_welcome_are_refused() {
    let (mut client, mut host) = logged_in(true);
    host.send(&[WELCOME]);
    assert_eq!(feed(&mut client, &host.output), Err(ClientError::Unexpected));

    let mut client = Client::new(config(true));
    let mut bytes = Vec::new();
    client.flush(&mut bytes);
    let preface = *bytes.first_chunk::<PREFACE_BYTES>().unwrap();
    let parsed = Preface::parse(&preface).unwrap();
    let mut handshake = Handshake::new(&preface, &parsed, &server_keys(), [44; 32]);
    let mut out = Vec::new();
    let Ok(Progress::Done { mut transport, .. }) =
        handshake.read(&bytes[PREFACE_BYTES + HEADER_BYTES..], &mut out)
    else {
        panic!("IK is over after its first message");
    };
    let mark = Transport::begin(&mut out);
    ServerFrame::Drained.encode(&mut out);
    transport.seal(&mut out, mark);
    assert_eq!(feed(&mut client, &out), Err(ClientError::Unexpected));
}

#[test]
fn repeated_reordered_and_unknown_records_are_refused() {
    let (mut client, mut host) = logged_in(true);
    host.send(&[ServerFrame::Drained]);
    let first = std::mem::take(&mut host.output);
    assert_eq!(feed(&mut client, &first).unwrap().len(), 1);
    assert_eq!(feed(&mut client, &first), Err(ClientError::Noise(NoiseError::Decrypt)), "repeated");

    let (mut client, mut host) = logged_in(true);
    host.send(&[ServerFrame::Drained]);
    host.output.clear();
    host.send(&[ServerFrame::Drained]);
    assert_eq!(feed(&mut client, &host.output), Err(ClientError::Noise(NoiseError::Decrypt)), "lost");

    let (mut client, _) = logged_in(true);
    assert_eq!(feed(&mut client, &[9]), Err(ClientError::Record(RecordError::Kind(9))));
}

#[test]
fn a_first_message_of_xx_says_nothing() {
    let mut bytes = Vec::new();
    Client::new(config(false)).flush(&mut bytes);
    let preface = *bytes.first_chunk::<PREFACE_BYTES>().unwrap();
    let parsed = Preface::parse(&preface).unwrap();
    let mut payload = bytes[PREFACE_BYTES + HEADER_BYTES..].to_vec();
    payload.push(0);
    let mut handshake = Handshake::new(&preface, &parsed, &server_keys(), [44; 32]);
    assert_eq!(handshake.read(&payload, &mut Vec::new()).unwrap_err(), HandshakeError::Login);
}

#[test]
fn a_zero_ephemeral_key_is_refused() {
    for ik in [true, false] {
        let mut bytes = Vec::new();
        Client::new(config(ik)).flush(&mut bytes);
        let preface = *bytes.first_chunk::<PREFACE_BYTES>().unwrap();
        let parsed = Preface::parse(&preface).unwrap();
        let mut payload = bytes[PREFACE_BYTES + HEADER_BYTES..].to_vec();
        payload[..32].fill(0);
        let mut handshake = Handshake::new(&preface, &parsed, &server_keys(), [44; 32]);
        assert_eq!(handshake.read(&payload, &mut Vec::new()).unwrap_err(), HandshakeError::Noise);
    }
}

#[test]
fn an_empty_record_is_never_made() {
    let (_, mut host) = logged_in(true);
    let before = format!("{:?}", host.transport);
    host.send(&[]);
    assert!(host.output.is_empty());
    assert_eq!(format!("{:?}", host.transport), before);
}

#[test]
fn secrets_are_not_shown_and_a_handshake_may_change_threads() {
    fn is_send<T: Send>() {}
    is_send::<Handshake>();
    is_send::<Client>();
    let (_, host) = logged_in(true);
    let shown = format!("{:?} {:?}", host.transport.unwrap(), KeyPair::from_seed([9; 32]));
    assert!(!shown.contains("private") && !shown.contains("_key:"), "{shown}");
}
