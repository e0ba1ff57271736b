//! Every frame survives encoding; no cut, stray or changed byte makes another frame or a panic of it.

use super::super::ticket::{TICKET_BYTES, Ticket};
use super::*;
use crate::envelope::NAME_BYTES_MAX;
use crate::ids::{AccountId, DeviceId, MessageId};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A frame's variable parts, from which each kind takes what it needs.
type Seeds = (u8, u64, u64, u32, u32, u16, (std::string::String, Vec<u8>));

fn seeds() -> impl Strategy<Value = Seeds> {
    let text = ("[a-z0-9._-]{0,64}", prop::collection::vec(any::<u8>(), 0..300));
    (any::<u8>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u16>(), text)
}

fn key(seed: u64) -> [u8; 32] {
    let mut key = [9; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key
}

fn client_frame((kind, a, b, c, _, e, (name, body)): &Seeds) -> ClientFrame<'_> {
    match kind % 13 {
        0 => ClientFrame::Start,
        1 => ClientFrame::Send { to: AccountId(*a), id: MessageId(*b), body },
        2 => ClientFrame::Ack { number: *c },
        3 => ClientFrame::Ping { token: *c },
        4 => ClientFrame::Goodbye,
        5 => ClientFrame::Read { author: AccountId(*a), id: MessageId(*b) },
        6 => {
            ClientFrame::Presence { state: [PresenceState::Away, PresenceState::Available][*c as usize % 2] }
        }
        7 => ClientFrame::Typing { to: AccountId(*a), on: *c % 2 == 1 },
        8 => ClientFrame::Watch { account: AccountId(*a) },
        9 => ClientFrame::Devices,
        10 => ClientFrame::AddDevice { key: key(*a) },
        11 => ClientFrame::RevokeDevice { device: DeviceId(*e) },
        _ => ClientFrame::Lookup { name },
    }
}

const CODES: [ErrorCode; 17] = [
    ErrorCode::Malformed,
    ErrorCode::UnexpectedFrame,
    ErrorCode::UnknownAccount,
    ErrorCode::WrongKey,
    ErrorCode::NameTaken,
    ErrorCode::BadName,
    ErrorCode::RegistrationClosed,
    ErrorCode::TooLarge,
    ErrorCode::BadAcknowledgement,
    ErrorCode::BadMessageId,
    ErrorCode::Internal,
    ErrorCode::AccountFull,
    ErrorCode::UnknownDevice,
    ErrorCode::LastDevice,
    ErrorCode::TicketUsed,
    ErrorCode::TooManyAdded,
    ErrorCode::NumbersUsedUp,
];

const REASONS: [GoodbyeReason; 6] = [
    GoodbyeReason::Replaced,
    GoodbyeReason::Draining,
    GoodbyeReason::Idle,
    GoodbyeReason::Removed,
    GoodbyeReason::TooSlow,
    GoodbyeReason::Busy,
];

fn server_frame((kind, a, b, c, d, e, (name, body)): &Seeds) -> ServerFrame<'_> {
    let (account, id) = (AccountId(*a), MessageId(*b));
    match kind % 22 {
        0 => ServerFrame::Welcome {
            account,
            device: DeviceId(*e),
            time_ms: *b,
            keep_alive_s: *c as u16,
            window: *d as u16,
            body_bytes_max: *d,
        },
        1 => ServerFrame::Deliver { number: *c, from: account, id, time_s: *d, from_name: name, body },
        2 => ServerFrame::Sent { id },
        3 => ServerFrame::Delivered { number: *c, by: account, id, time_s: *d },
        4 => ServerFrame::Drained,
        5 => ServerFrame::Pong { token: *c },
        6 => ServerFrame::Busy { id, retry_ms: *c },
        7 => ServerFrame::Expired { id },
        8 => ServerFrame::Unknown { id },
        9 => ServerFrame::Found { account: (*a % 2 == 1).then_some(account), name },
        10 => ServerFrame::Error { code: CODES[usize::from(*e) % CODES.len()], detail: name },
        11 => ServerFrame::Read { number: *c, by: account, id, time_s: *d },
        12 => ServerFrame::ReadTaken { author: account, id },
        13 => ServerFrame::Copy { number: *c, to: account, id, time_s: *d, body },
        14 => {
            let state = PresenceState::from_wire(*c as u8 % 3).unwrap();
            ServerFrame::Presence { account, state, seen_s: *d }
        }
        15 => ServerFrame::Typing { from: account, on: *c % 2 == 1 },
        16 => {
            ServerFrame::Ticket { ticket: Ticket { id: [*c as u8; TICKET_BYTES], psk: key(*a) }, valid_s: *d }
        }
        17 => ServerFrame::ServerKey { key: key(*a) },
        18 => ServerFrame::Devices { list: DeviceList::parse(&body[..body.len() / 35 * 35]).unwrap() },
        19 => ServerFrame::DevicesRefused { code: CODES[usize::from(*e) % CODES.len()] },
        20 => ServerFrame::WatchRefused { account, retry_ms: *c },
        _ => ServerFrame::Goodbye { reason: REASONS[usize::from(*e) % REASONS.len()], retry_ms: *c },
    }
}

proptest! {
    #[test]
    fn client_frames_are_read_one_after_the_other(list in prop::collection::vec(seeds(), 1..8)) {
        let mut plain = Vec::new();
        for seeds in &list {
            client_frame(seeds).encode(&mut plain);
        }
        let mut rest = &plain[..];
        for seeds in &list {
            let (frame, after) = ClientFrame::decode_first(rest).unwrap();
            prop_assert_eq!(frame, client_frame(seeds));
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn server_frames_are_read_one_after_the_other(list in prop::collection::vec(seeds(), 1..8)) {
        let mut plain = Vec::new();
        for seeds in &list {
            server_frame(seeds).encode(&mut plain);
        }
        let mut rest = &plain[..];
        for seeds in &list {
            let (frame, after) = ServerFrame::decode_first(rest).unwrap();
            prop_assert_eq!(frame, server_frame(seeds));
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_cut_frame_is_refused(seeds in seeds()) {
        let (mut client, mut server) = (Vec::new(), Vec::new());
        client_frame(&seeds).encode(&mut client);
        server_frame(&seeds).encode(&mut server);
        for cut in 0..client.len() {
            prop_assert_eq!(ClientFrame::decode_first(&client[..cut]), Err(FrameError::Length));
        }
        for cut in 0..server.len() {
            prop_assert_eq!(ServerFrame::decode_first(&server[..cut]), Err(FrameError::Length));
        }
    }

    #[test]
    fn what_is_read_has_one_form(kind: u8, fields in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut plain = vec![fields.len() as u8, 0, 0, kind];
        plain.extend_from_slice(&fields);
        let mut again = Vec::new();
        if let Ok((frame, rest)) = ClientFrame::decode_first(&plain) {
            prop_assert!(rest.is_empty());
            frame.encode(&mut again);
            prop_assert_eq!(&again, &plain);
            prop_assert!(ServerFrame::decode_first(&plain).is_err(), "kinds of both sides are apart");
        } else if let Ok((frame, rest)) = ServerFrame::decode_first(&plain) {
            prop_assert!(rest.is_empty());
            frame.encode(&mut again);
            prop_assert_eq!(&again, &plain);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = ClientFrame::decode_first(&bytes);
        let _ = ServerFrame::decode_first(&bytes);
    }

    #[test]
    fn a_message_costs_at_most_20_bytes_over_body_and_addresses(seeds in seeds()) {
        let (_, a, b, c, d, _, (name, body)) = &seeds;
        let mut plain = Vec::new();
        ClientFrame::Send { to: AccountId(*a), id: MessageId(*b), body }.encode(&mut plain);
        prop_assert!(plain.len() <= 20 + size_of::<AccountId>() + body.len());
        plain.clear();
        let from = AccountId(*a);
        ServerFrame::Deliver { number: *c, from, id: MessageId(*b), time_s: *d, from_name: name, body }
            .encode(&mut plain);
        let address_bytes = size_of::<AccountId>() + 1 + name.len();
        prop_assert!(plain.len() <= 20 + address_bytes + body.len());
    }
}

#[test]
fn a_stray_byte_in_a_fixed_frame_is_refused() {
    for kind in (1..=5).filter(|kind| *kind != 2) {
        let plain = [9, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(ClientFrame::decode_first(&plain), Err(FrameError::Length), "kind {kind}");
    }
}

#[test]
fn reserved_kinds_are_refused() {
    for kind in [0_u8, 0x0e, 0x7f, 0x80, 0x90, 0x98, 0xff] {
        let plain = [0, 0, 0, kind];
        assert_eq!(ClientFrame::decode_first(&plain), Err(FrameError::Kind(kind)));
        assert_eq!(ServerFrame::decode_first(&plain), Err(FrameError::Kind(kind)));
    }
}

#[test]
fn names_and_codes_outside_of_their_range_are_refused() {
    let mut plain = vec![65, 0, 0, 6];
    plain.extend_from_slice(&[b'a'; NAME_BYTES_MAX + 1]);
    assert_eq!(ClientFrame::decode_first(&plain), Err(FrameError::Text));
    assert_eq!(ClientFrame::decode_first(&[1, 0, 0, 6, 0xff]), Err(FrameError::Text));
    assert_eq!(ServerFrame::decode_first(&[1, 0, 0, 0x8b, 18]), Err(FrameError::Value));
    // A phone is never offline in its own eyes, and a flag is 0 or 1.
    assert_eq!(ClientFrame::decode_first(&[1, 0, 0, 8, 0]), Err(FrameError::Value));
    assert_eq!(ClientFrame::decode_first(&[9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 2]), Err(FrameError::Value));
    assert_eq!(ServerFrame::decode_first(&[5, 0, 0, 0x8c, 7, 0, 0, 0, 0]), Err(FrameError::Value));
}

#[test]
fn the_longest_body_fits_a_record_in_both_directions() {
    let body = vec![1; BODY_BYTES_MAX];
    let longest_name = "n".repeat(NAME_BYTES_MAX);
    let (account, id) = (AccountId(1), MessageId(2));
    let mut plain = Vec::new();
    ServerFrame::Deliver { number: 1, from: account, id, time_s: 4, from_name: &longest_name, body: &body }
        .encode(&mut plain);
    assert_eq!(plain.len(), super::super::noise::PLAINTEXT_BYTES_MAX);
    plain.clear();
    ClientFrame::Send { to: account, id, body: &body }.encode(&mut plain);
    assert!(plain.len() < super::super::noise::PLAINTEXT_BYTES_MAX);
}
