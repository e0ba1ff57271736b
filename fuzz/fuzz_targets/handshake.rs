//! A stranger's bytes at each stage of both sides of a handshake, and a faulty server's words to a logged-in client.
//!
//! The first byte chooses the pattern and the stage; the rest are the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tern_protocol::ids::{AccountId, DeviceId};
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::noise::{KeyPair, StaticKey, Transport};
use tern_protocol::phone::preface::{PREFACE_BYTES, Pattern, Preface};
use tern_protocol::phone::record::HEADER_BYTES;
use tern_protocol::phone::server::{Handshake, LoginRequest, Progress};
use tern_protocol::phone::ticket::{KeyMark, TICKET_BYTES, Ticket, TicketClaims, TicketKeys};

const CLAIMS: TicketClaims = TicketClaims {
    account: AccountId(3 << 48 | 9),
    device: DeviceId(2),
    number: 7,
    made_s: 1_700_000_000,
    knows: KeyMark([6; 4]),
};

static SERVER: LazyLock<StaticKey> = LazyLock::new(|| StaticKey::new(&KeyPair::from_seed([1; 32])));
static PREVIOUS: LazyLock<StaticKey> = LazyLock::new(|| StaticKey::new(&KeyPair::from_seed([6; 32])));
static DEVICE: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed([2; 32]));
static TICKETS: LazyLock<TicketKeys> = LazyLock::new(|| TicketKeys::new(&[5; 32]));
static TICKET: LazyLock<Ticket> = LazyLock::new(|| TICKETS.issue(&CLAIMS, [7; 8]));

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let pattern = [Pattern::IK, Pattern::XX, Pattern::NNpsk0][usize::from(choice % 3)];
    match choice / 3 % 5 {
        0 => stranger_knocks(pattern, bytes),
        1 => changed_first_message(pattern, bytes),
        2 => stranger_answers(pattern, bytes),
        3 => server_misspeaks(pattern, bytes),
        _ => stranger_shows_a_ticket(bytes),
    }
});

/// A client that has begun, and what it wrote.
fn begun(pattern: Pattern) -> (Client, Vec<u8>) {
    let mut client = Client::new(ClientConfig {
        name: "ann".into(),
        keys: *DEVICE,
        server_key: (pattern == Pattern::IK).then(|| SERVER.pair().public),
        ticket: (pattern == Pattern::NNpsk0).then(|| *TICKET),
        register: false,
        partition_hint: None,
        seed: [3; 32],
    });
    let mut written = Vec::new();
    client.flush(&mut written);
    (client, written)
}

fn server_side(written: &[u8]) -> Handshake {
    let preface = written.first_chunk::<PREFACE_BYTES>().expect("a client writes its preface");
    let parsed = Preface::parse(preface).expect("a client's preface is good");
    if parsed.pattern != Pattern::NNpsk0 {
        return Handshake::with_static_key(preface, &parsed, &SERVER, Some(&PREVIOUS), [4; 32]);
    }
    let prologue = &written[..Pattern::NNpsk0.prologue_bytes()];
    let id = prologue.last_chunk().expect("the id of a ticket is in the prologue");
    let (claims, psk) = TICKETS.open(id).expect("the client's ticket is ours");
    Handshake::with_ticket(prologue, claims, &psk, [4; 32])
}

/// Arbitrary first and, in `XX`, third messages: nobody is let in.
fn stranger_knocks(pattern: Pattern, bytes: &[u8]) {
    let (_, written) = begun(pattern);
    let mut handshake = server_side(&written);
    let (first, third) = bytes.split_at(bytes.len().min(32));
    let (mut first, mut third) =
        if pattern == Pattern::XX { (first.to_vec(), third.to_vec()) } else { (bytes.to_vec(), Vec::new()) };
    let mut out = Vec::new();
    // Comparisons elsewhere in this target teach the fuzzer the client's own message: repeating it is no forgery.
    let own = &written[pattern.prologue_bytes() + HEADER_BYTES..];
    if pattern != Pattern::XX && first == own {
        return;
    }
    match handshake.read(&mut first, &mut out) {
        Ok(Progress::Done { .. }) => panic!("a stranger is let in"),
        Ok(Progress::More) => {
            assert!(handshake.read(&mut third, &mut out).is_err(), "a stranger is let in");
        }
        Err(_) => {}
    }
}

/// A ticket's id and a first message of the input's own: only the id that was given out is opened, and nobody comes
/// in by it without its psk.
fn stranger_shows_a_ticket(bytes: &[u8]) {
    let Some((id, message)) = bytes.split_first_chunk::<TICKET_BYTES>() else { return };
    // A fuzzer does not guess what is sealed: a first byte of zero stands for the id that was given out.
    let id = if id[0] == 0 { &TICKET.id } else { id };
    let Some((claims, psk)) = TICKETS.open(id) else {
        assert_ne!(*id, TICKET.id, "a ticket of ours is refused");
        return;
    };
    assert_eq!((*id, claims, psk), (TICKET.id, CLAIMS, TICKET.psk), "a forged ticket is opened");
    let (_, written) = begun(Pattern::NNpsk0);
    let prologue = [&written[..PREFACE_BYTES], id].concat();
    let mut handshake = Handshake::with_ticket(&prologue, claims, &psk, [4; 32]);
    if message == &written[prologue.len() + HEADER_BYTES..] {
        return;
    }
    assert!(handshake.read(&mut message.to_vec(), &mut Vec::new()).is_err(), "a stranger is let in");
}

/// A client's own first message with some bytes changed.
fn changed_first_message(pattern: Pattern, changes: &[u8]) {
    let (mut client, mut written) = begun(pattern);
    let mut handshake = server_side(&written);
    let payload = &mut written[pattern.prologue_bytes() + HEADER_BYTES..];
    let before = payload.to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % payload.len();
        payload[at] ^= change[1];
    }
    let changed = before != payload;
    let mut out = Vec::new();
    match handshake.read(payload, &mut out) {
        Ok(Progress::Done { login, .. }) => {
            assert!(!changed, "a changed message is taken");
            assert_eq!(matches!(login, LoginRequest::Ticket(CLAIMS)), pattern == Pattern::NNpsk0);
        }
        Ok(Progress::More) => {
            assert_eq!(client.receive(&out, &mut |_| ()).is_err(), changed);
        }
        Err(_) => assert!(changed, "a client's own message is refused"),
    }
}

/// Arbitrary bytes instead of the server's answer, whole and byte by byte: the same comes of both.
fn stranger_answers(pattern: Pattern, bytes: &[u8]) {
    let (mut whole, _) = begun(pattern);
    let (mut pieces, _) = begun(pattern);
    let (mut whole_count, mut piece_count) = (0, 0);
    let whole_result = whole.receive(bytes, &mut |_| whole_count += 1);
    let mut piece_result = Ok(());
    for byte in bytes {
        piece_result = piece_result.and(pieces.receive(&[*byte], &mut |_| piece_count += 1));
    }
    assert_eq!((whole_result, whole_count), (piece_result, piece_count));
    assert!(!whole.ready(), "a stranger passes for the server");
}

/// After an honest handshake the server's record holds arbitrary bytes.
fn server_misspeaks(pattern: Pattern, bytes: &[u8]) {
    let (mut client, mut written) = begun(pattern);
    let mut handshake = server_side(&written);
    let mut out = Vec::new();
    let mut progress = handshake.read(&mut written[pattern.prologue_bytes() + HEADER_BYTES..], &mut out);
    client.receive(&out, &mut |_| ()).expect("message 2 is good");
    if pattern == Pattern::XX {
        written.clear();
        client.flush(&mut written);
        progress = handshake.read(&mut written[HEADER_BYTES..], &mut out);
    }
    let Ok(Progress::Done { mut transport, .. }) = progress else { panic!("a client is refused") };
    out.clear();
    for piece in bytes.chunks(1000) {
        let mark = Transport::begin(&mut out);
        out.extend_from_slice(piece);
        transport.seal(&mut out, mark);
    }
    let result = client.receive(&out, &mut |_| ());
    assert!(result.is_ok() || client.over());
}
