//! The PROXY protocol, version 2, as a balancer writes it before anything else: whose connection it passes on.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt`, section 2.2. Read here: `LOCAL`, and `PROXY` for TCP over IPv4 and IPv6.
//! Everything else is refused: version 1, UDP, Unix sockets, unknown families. What follows the addresses (TLVs) is
//! skipped.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header before its addresses.
const FIXED_BYTES: usize = 16;
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;
/// Bytes that may follow the addresses.
pub const EXTRA_BYTES_MAX: usize = 512;
/// Bytes of the longest header that is read.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + IPV6_BYTES + EXTRA_BYTES_MAX;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// The balancer speaks for itself, to see whether we are there: the socket's own address counts.
    Local,
    /// It passes on a connection that came to it from here.
    From(SocketAddr),
}

/// Why bytes are not a header that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyError {
    /// Not the signature of version 2.
    Signature,
    /// Another version, or a command beside `LOCAL` and `PROXY`.
    Command(u8),
    /// Not TCP over IPv4 or IPv6.
    Family(u8),
    /// Too short for its addresses, or too long.
    Length(u16),
}

/// Looks at the head of a stream: `None` while the header is incomplete, else what it says and its bytes.
///
/// # Errors
/// [`ProxyError`] as early as the bytes allow it: a stream that fails never recovers.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let compared = bytes.len().min(SIGNATURE.len());
    if bytes[..compared] != SIGNATURE[..compared] {
        return Err(ProxyError::Signature);
    }
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        other => return Err(ProxyError::Command(other)),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let address_bytes = match family {
        // Whoever speaks for itself may say anything here; we pass over it.
        _ if is_local => 0,
        0x11 => IPV4_BYTES,
        0x21 => IPV6_BYTES,
        other => return Err(ProxyError::Family(other)),
    };
    let Some(&[high, low]) = bytes.get(14..FIXED_BYTES).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    let length = u16::from_be_bytes([high, low]);
    let rest_bytes = usize::from(length);
    let most_bytes = if is_local { IPV6_BYTES } else { address_bytes } + EXTRA_BYTES_MAX;
    if !(address_bytes..=most_bytes).contains(&rest_bytes) {
        return Err(ProxyError::Length(length));
    }
    let total_bytes = FIXED_BYTES + rest_bytes;
    let Some(rest) = bytes.get(FIXED_BYTES..total_bytes) else { return Ok(None) };
    let header = if is_local { Header::Local } else { Header::From(source(family, rest)) };
    Ok(Some((header, total_bytes)))
}

/// The first address of a block whose length was checked: the source, then the destination, then both ports.
fn source(family: u8, rest: &[u8]) -> SocketAddr {
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    if family == 0x11 {
        let address: [u8; 4] = core::array::from_fn(|index| rest[index]);
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port(8))
    } else {
        let address: [u8; 16] = core::array::from_fn(|index| rest[index]);
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), port(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A header by the specification.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn passed_on(source: SocketAddr, extra: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        let family = match source.ip() {
            IpAddr::V4(v4) => {
                rest.extend(v4.octets());
                rest.extend([192, 0, 2, 9]);
                0x11
            }
            IpAddr::V6(v6) => {
                rest.extend(v6.octets());
                rest.extend([9; 16]);
                0x21
            }
        };
        rest.extend(source.port().to_be_bytes());
        rest.extend(7322_u16.to_be_bytes());
        rest.extend(extra);
        header(0x21, family, &rest)
    }

    #[test]
    fn a_header_that_a_balancer_wrote_is_read() {
        // Laid out by hand from the specification: 203.0.113.5:51000 to 10.0.0.9:7322.
        let bytes =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x05\x0a\x00\x00\x09\xc7\x38\x1c\x9aTRN";
        let from = Header::From("203.0.113.5:51000".parse().unwrap());
        assert_eq!(read(bytes), Ok(Some((from, 28))));
    }

    #[test]
    fn what_is_not_read_says_why() {
        for (bytes, error) in [
            (b"PROXY TCP4 1.2.3.4".to_vec(), ProxyError::Signature),
            (b"\r\n\r\nX".to_vec(), ProxyError::Signature),
            (header(0x11, 0x11, &[0; 12]), ProxyError::Command(0x11)),
            (header(0x22, 0x11, &[0; 12]), ProxyError::Command(0x22)),
            (header(0x21, 0x12, &[0; 12]), ProxyError::Family(0x12)),
            (header(0x21, 0x31, &[0; 216]), ProxyError::Family(0x31)),
            (header(0x21, 0x00, &[]), ProxyError::Family(0)),
            (header(0x21, 0x11, &[0; 11]), ProxyError::Length(11)),
            (header(0x21, 0x21, &[0; 35]), ProxyError::Length(35)),
            (header(0x21, 0x11, &[0; 12 + 513]), ProxyError::Length(525)),
            (header(0x20, 0x00, &[0; 36 + 513]), ProxyError::Length(549)),
        ] {
            assert_eq!(read(&bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_balancer_may_speak_for_itself_in_any_family() {
        assert_eq!(read(&header(0x20, 0x00, &[])), Ok(Some((Header::Local, 16))));
        assert_eq!(read(&header(0x20, 0x31, &[7; 216])), Ok(Some((Header::Local, 232))));
    }

    proptest! {
        #[test]
        fn a_header_is_whole_at_its_last_byte_and_not_before(
            source: SocketAddr,
            extra in proptest::collection::vec(any::<u8>(), 0..=EXTRA_BYTES_MAX),
            more: u8,
        ) {
            // The scope and flow of an IPv6 address do not travel.
            let source = SocketAddr::new(source.ip(), source.port());
            let mut bytes = passed_on(source, &extra);
            for cut in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..cut]), Ok(None), "cut at {}", cut);
            }
            let total = bytes.len();
            prop_assert!(total <= HEADER_BYTES_MAX);
            bytes.push(more);
            prop_assert_eq!(read(&bytes), Ok(Some((Header::From(source), total))));
        }

        #[test]
        fn no_bytes_panic_and_none_wait_for_ever(tail in proptest::collection::vec(any::<u8>(), 0..800)) {
            let mut bytes = SIGNATURE.to_vec();
            bytes.extend(tail);
            let read = read(&bytes);
            if bytes.len() >= HEADER_BYTES_MAX {
                prop_assert_ne!(read, Ok(None));
            }
        }
    }
}
