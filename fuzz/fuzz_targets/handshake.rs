//! A stranger's bytes at each stage of both sides of a handshake, and a faulty server's words to a logged-in client.
//!
//! The first byte chooses the stage and the pattern; the rest are the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::noise::{KeyPair, StaticKey, Transport};
use tern_protocol::phone::preface::{PREFACE_BYTES, Preface};
use tern_protocol::phone::record::HEADER_BYTES;
use tern_protocol::phone::server::{Handshake, Progress};

static SERVER: LazyLock<StaticKey> = LazyLock::new(|| StaticKey::new(&KeyPair::from_seed([1; 32])));
static DEVICE: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed([2; 32]));

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let ik = choice & 1 == 0;
    match choice >> 1 & 3 {
        0 => stranger_knocks(ik, bytes),
        1 => changed_first_message(ik, bytes),
        2 => stranger_answers(ik, bytes),
        _ => server_misspeaks(ik, bytes),
    }
});

/// A client that has begun, and what it wrote.
fn begun(ik: bool) -> (Client, Vec<u8>) {
    let mut client = Client::new(ClientConfig {
        name: "ann".into(),
        keys: *DEVICE,
        server_key: ik.then(|| SERVER.pair().public),
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
    Handshake::with_static_key(preface, &parsed, &SERVER, [4; 32])
}

/// Arbitrary first and, in `XX`, third messages: nobody is let in.
fn stranger_knocks(ik: bool, bytes: &[u8]) {
    let (_, written) = begun(ik);
    let mut handshake = server_side(&written);
    let (first, third) = bytes.split_at(bytes.len().min(32));
    let (mut first, mut third) =
        if ik { (bytes.to_vec(), Vec::new()) } else { (first.to_vec(), third.to_vec()) };
    let mut out = Vec::new();
    match handshake.read(&mut first, &mut out) {
        Ok(Progress::Done { .. }) => panic!("a stranger is let in"),
        Ok(Progress::More) => {
            assert!(handshake.read(&mut third, &mut out).is_err(), "a stranger is let in");
        }
        Err(_) => {}
    }
}

/// A client's own first message with some bytes changed.
fn changed_first_message(ik: bool, changes: &[u8]) {
    let (mut client, mut written) = begun(ik);
    let mut handshake = server_side(&written);
    let payload = &mut written[PREFACE_BYTES + HEADER_BYTES..];
    let before = payload.to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % payload.len();
        payload[at] ^= change[1];
    }
    let changed = before != payload;
    let mut out = Vec::new();
    match handshake.read(payload, &mut out) {
        Ok(Progress::Done { .. }) => assert!(!changed, "a changed message is taken"),
        Ok(Progress::More) => {
            assert_eq!(client.receive(&out, &mut |_| ()).is_err(), changed);
        }
        Err(_) => assert!(changed, "a client's own message is refused"),
    }
}

/// Arbitrary bytes instead of the server's answer, whole and byte by byte: the same comes of both.
fn stranger_answers(ik: bool, bytes: &[u8]) {
    let (mut whole, _) = begun(ik);
    let (mut pieces, _) = begun(ik);
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
fn server_misspeaks(ik: bool, bytes: &[u8]) {
    let (mut client, mut written) = begun(ik);
    let mut handshake = server_side(&written);
    let mut out = Vec::new();
    let mut progress = handshake.read(&mut written[PREFACE_BYTES + HEADER_BYTES..], &mut out);
    client.receive(&out, &mut |_| ()).expect("message 2 is good");
    if !ik {
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
