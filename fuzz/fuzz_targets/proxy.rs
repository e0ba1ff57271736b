//! Bytes from outside as PROXY headers: nothing panics, and a header is complete at its last byte and not before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_protocol::proxy::{HEADER_BYTES_MAX, read};

fuzz_target!(|bytes: &[u8]| match read(bytes) {
    Ok(Some((header, total_bytes))) => {
        assert!(total_bytes <= bytes.len().min(HEADER_BYTES_MAX));
        assert_eq!(read(&bytes[..total_bytes]), Ok(Some((header, total_bytes))));
        assert_eq!(read(&bytes[..total_bytes - 1]), Ok(None));
    }
    Ok(None) => assert!(bytes.len() < HEADER_BYTES_MAX),
    Err(error) => {
        // What fails goes on failing, whatever comes behind it.
        let mut more = bytes.to_vec();
        more.push(0);
        assert_eq!(read(&more), Err(error));
    }
});
