//! Bytes from another shard or from the log as envelopes, one or a run of them, and bytes from outside as tickets: nothing
//! panics, an envelope is as long as it says and has one encoded form, and only tickets of this server open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tern_protocol::envelope::{Envelope, HEADER_BYTES, Parts};
use tern_protocol::ids::{AccountId, DeviceId};
use tern_protocol::phone::ticket::{KeyMark, TICKET_BYTES, Ticket, TicketClaims, TicketKeys};

const CLAIMS: TicketClaims = TicketClaims {
    account: AccountId(3 << 48 | 9),
    device: DeviceId(2),
    number: 7,
    made_s: 1_700_000_000,
    knows: KeyMark([6; 4]),
};

static TICKETS: LazyLock<TicketKeys> = LazyLock::new(|| TicketKeys::new(&[5; 32]));
static TICKET: LazyLock<Ticket> = LazyLock::new(|| TICKETS.issue(&CLAIMS, [7; 8]));

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok((envelope, after)) = Envelope::parse_first(rest) {
        let length = rest.len() - after.len();
        assert!(length >= HEADER_BYTES);
        assert_eq!(envelope.bytes(), &rest[..length]);
        is_whole(&rest[..length]);
        rest = after;
    }
    if Envelope::parse(bytes).is_ok() {
        is_whole(bytes);
    }
    if let Some(id) = bytes.first_chunk() {
        assert!(TICKETS.open(id).is_none() || *id == TICKET.id, "a stranger makes a ticket");
        // No fuzzer guesses one; but it may change one.
        let changed: [u8; TICKET_BYTES] = std::array::from_fn(|at| TICKET.id[at] ^ id[at]);
        let opened = TICKETS.open(&changed).map(|(claims, _)| claims);
        assert_eq!(opened, (changed == TICKET.id).then_some(CLAIMS));
    }
});

/// One envelope: less of it is none, and what is read of it makes it again, but for what no reader looks at.
fn is_whole(bytes: &[u8]) {
    let envelope = Envelope::parse(bytes).expect("taken as the first of a run");
    assert!(Envelope::parse(&bytes[..bytes.len() - 1]).is_err());
    assert!(Envelope::parse_first(&bytes[..bytes.len() - 1]).is_err());
    let mut again = Vec::new();
    let parts = Parts {
        kind: envelope.kind(),
        flags: (0..8).map(|bit| 1 << bit).filter(|flag| envelope.has(*flag)).sum(),
        to: envelope.to(),
        from: envelope.from(),
        from_device: envelope.sender_device(),
        id: envelope.id(),
        time_ms: envelope.time_ms(),
        seq: envelope.seq().0,
        from_name: envelope.sender_name(),
        body: envelope.body(),
    };
    assert_eq!(parts.encoded_bytes(), bytes.len());
    parts.encode(&mut again);
    let unread = HEADER_BYTES - 6..HEADER_BYTES;
    again[unread.clone()].copy_from_slice(&bytes[unread]);
    assert_eq!(again, bytes);
}
