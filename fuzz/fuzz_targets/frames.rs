//! Bytes from outside as prefaces, records and frames: nothing panics, and what is read has one encoded form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_protocol::phone::frame::{ClientFrame, ServerFrame};
use tern_protocol::phone::preface::{PREFACE_BYTES, Preface};
use tern_protocol::phone::record;

fuzz_target!(|bytes: &[u8]| {
    if let Some(first) = bytes.first_chunk::<PREFACE_BYTES>()
        && let Ok(preface) = Preface::parse(first)
    {
        assert_eq!(preface.encode(), *first);
    }
    if let Ok(Some((_, total_bytes))) = record::split(bytes) {
        assert!((record::HEADER_BYTES..=bytes.len()).contains(&total_bytes));
        assert_eq!(record::split(&bytes[..total_bytes - 1]), Ok(None));
    }
    client_frames(bytes);
    server_frames(bytes);
});

fn client_frames(mut rest: &[u8]) {
    while let Ok((frame, after)) = ClientFrame::decode_first(rest) {
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert_eq!(again, rest[..rest.len() - after.len()]);
        rest = after;
    }
}

fn server_frames(mut rest: &[u8]) {
    while let Ok((frame, after)) = ServerFrame::decode_first(rest) {
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert_eq!(again, rest[..rest.len() - after.len()]);
        rest = after;
    }
}
