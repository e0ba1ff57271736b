//! Networks by address and prefix, as a configuration names them.

use core::fmt::{self, Display, Formatter};
use core::net::IpAddr;
use core::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Text that names no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkError {
    /// No address before the slash.
    Address,
    /// No number of bits behind it, or more than the address has.
    Prefix,
    /// The address has bits behind the prefix: a slip of the pen, most likely.
    HostBits,
}

impl Display for NetworkError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "no IPv4 or IPv6 address before the slash",
            Self::Prefix => "the prefix is 0 to 32 bits for IPv4, 0 to 128 for IPv6",
            Self::HostBits => "the address has bits set behind its prefix",
        })
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `10.0.0.0/8` or `2001:db8::/32`; without a slash it is one address.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
        let address = written.to_canonical();
        let width = width(address);
        let mapping_bits = self::width(written) - width;
        let prefix_bits = match prefix {
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .and_then(|bits| bits.checked_sub(mapping_bits))
                .ok_or(NetworkError::Prefix)?,
            None => width,
        };
        if prefix_bits > width {
            return Err(NetworkError::Prefix);
        }
        if bits(address) & !mask(width, prefix_bits) != 0 {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { address, prefix_bits })
    }
}

impl Network {
    /// Whether an address is in it. An IPv4 address that is written as IPv6 (`::ffff:a.b.c.d`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let width = width(address);
        width == self::width(self.address)
            && bits(address) & mask(width, self.prefix_bits) == bits(self.address)
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The first `prefix_bits` of `width`, above which nothing is set in an address anyway.
fn mask(width: u8, prefix_bits: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(width - prefix_bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_begins_alike() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
        ] {
            assert!(network(text).contains(ip(inside)), "{text} {inside}");
            assert!(!network(text).contains(ip(outside)), "{text} {outside}");
        }
        assert_eq!(network("192.0.2.7").to_string(), "192.0.2.7/32");
        assert_eq!(network("2001:db8::/32").to_string(), "2001:db8::/32");
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("ten/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix),
            ("::ffff:10.0.0.0/95", NetworkError::Prefix),
            ("10.0.0.0/", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("10.0.0.1/8", NetworkError::HostBits),
            ("2001:db8::1/64", NetworkError::HostBits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
