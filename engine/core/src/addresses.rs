//! Where connections come from, and how fast: a table of fixed size that forgets the quiet ones first.
//!
//! An entry is found by a keyed hash of its address, which nobody outside can predict, so nobody can choose addresses
//! that push another's entry out. Forgetting an entry only forgives: a new one starts with full buckets.

use crate::account::SeededHash;
use crate::bucket::{Bucket, Rate};
use crate::limits::Limits;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;

/// Entries among which an address has its place.
const WAYS: usize = 8;

/// What is counted of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Connect,
    Handshake,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The hash of its address; zero for none.
    hash: u64,
    connects: Bucket,
    handshakes: Bucket,
}

impl Entry {
    fn full_at_ns(&self) -> u64 {
        self.connects.full_at_ns().max(self.handshakes.full_at_ns())
    }
}

/// The addresses of a shard's connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Sets of [`WAYS`]; empty until the first address that is limited.
    entries: Vec<Entry>,
    set_count: usize,
    hash: SeededHash,
    connects: Rate,
    handshakes: Rate,
    prefix_bits: u8,
    limits_loopback: bool,
    /// Entries that were given up before their buckets were full.
    pub(crate) forgotten_count: u64,
}

impl Addresses {
    /// The share of one of so many shards: the kernel spreads the connections of an address over all of them.
    pub(crate) fn new(limits: &Limits, shard_count: u16, hash: SeededHash) -> Self {
        let rate = |per_second, burst| Rate::shared(per_second, burst, shard_count);
        Self {
            entries: Vec::new(),
            set_count: (limits.address_count as usize / WAYS).next_power_of_two(),
            hash,
            connects: rate(limits.address_connects_per_s, limits.address_connects_burst),
            handshakes: rate(limits.address_handshakes_per_s, limits.address_handshakes_burst),
            prefix_bits: limits.address_prefix_bits,
            limits_loopback: limits.limit_loopback,
            forgotten_count: 0,
        }
    }

    /// Counts an act of an address. False if it was one too many.
    pub(crate) fn may(&mut self, act: Act, address: IpAddr, now_ns: u64) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() && !self.limits_loopback {
            return true;
        }
        let hash = self.hash.hash_one(network_of(address, self.prefix_bits)) | 1;
        let (connects, handshakes) = (self.connects, self.handshakes);
        let entry = self.entry(hash, now_ns);
        match act {
            Act::Connect => entry.connects.take(connects, now_ns, 1),
            Act::Handshake => entry.handshakes.take(handshakes, now_ns, 1),
        }
    }

    fn entry(&mut self, hash: u64, now_ns: u64) -> &mut Entry {
        if self.entries.is_empty() {
            self.entries.resize(self.set_count * WAYS, Entry::default());
        }
        let set = (hash >> 32) as usize & (self.set_count - 1);
        let ways = &mut self.entries[set * WAYS..][..WAYS];
        let found = ways.iter().position(|entry| entry.hash == hash);
        // Else the place of the one that has been good for longest.
        let quietest = || (0..WAYS).min_by_key(|&way| ways[way].full_at_ns());
        let way = found.or_else(quietest).unwrap_or(0);
        let entry = &mut ways[way];
        if entry.hash != hash {
            self.forgotten_count += u64::from(entry.full_at_ns() > now_ns);
            *entry = Entry { hash, ..Entry::default() };
        }
        entry
    }
}

/// What counts as one address: all of an IPv4 address, the first bits of an IPv6 one (a customer gets a whole /64).
fn network_of(address: IpAddr, prefix_bits: u8) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const S: u64 = 1_000_000_000;

    fn addresses(shard_count: u16) -> Addresses {
        let limits = Limits {
            address_connects_per_s: 10,
            address_connects_burst: 20,
            address_handshakes_per_s: 1,
            address_handshakes_burst: 5,
            address_count: 64,
            ..Limits::default()
        };
        Addresses::new(&limits, shard_count, SeededHash(1, 2))
    }

    fn passed(addresses: &mut Addresses, act: Act, address: &str, now_ns: u64) -> usize {
        let address = address.parse().unwrap();
        (0..100).filter(|_| addresses.may(act, address, now_ns)).count()
    }

    #[test]
    fn each_address_has_its_own_rate_for_each_act() {
        let mut addresses = addresses(1);
        assert_eq!(passed(&mut addresses, Act::Connect, "192.0.2.1", S), 20);
        assert_eq!(passed(&mut addresses, Act::Handshake, "192.0.2.1", S), 5);
        assert_eq!(passed(&mut addresses, Act::Connect, "192.0.2.2", S), 20);
        assert_eq!(passed(&mut addresses, Act::Connect, "192.0.2.1", 2 * S), 10);
        assert_eq!(passed(&mut addresses, Act::Connect, "::ffff:192.0.2.1", 2 * S), 0, "the same, mapped");
    }

    #[test]
    fn ipv6_counts_by_prefix() {
        let mut addresses = addresses(1);
        assert_eq!(passed(&mut addresses, Act::Connect, "2001:db8:1:2::1", S), 20);
        assert_eq!(passed(&mut addresses, Act::Connect, "2001:db8:1:2:ffff::9", S), 0);
        assert_eq!(passed(&mut addresses, Act::Connect, "2001:db8:1:3::1", S), 20);
    }

    #[test]
    fn shards_divide_an_addresss_rate() {
        let mut addresses = addresses(4);
        assert_eq!(passed(&mut addresses, Act::Connect, "192.0.2.1", S), 5);
    }

    #[test]
    fn loopback_is_exempt_unless_it_is_not() {
        let mut addresses = addresses(1);
        assert_eq!(passed(&mut addresses, Act::Connect, "127.0.0.9", S), 100);
        assert_eq!(passed(&mut addresses, Act::Connect, "::1", S), 100);
        addresses.limits_loopback = true;
        assert_eq!(passed(&mut addresses, Act::Connect, "127.0.0.9", S), 20);
    }

    #[test]
    fn prefixes_of_every_length_are_cut() {
        let all = IpAddr::V6(Ipv6Addr::from(u128::MAX));
        assert_eq!(network_of(all, 128), u128::MAX);
        assert_eq!(network_of(all, 64), u128::MAX << 64);
        assert_eq!(network_of(all, 0), 0);
    }

    #[test]
    fn a_loud_address_stays_known_among_many_quiet_ones_and_the_table_does_not_grow() {
        let mut addresses = addresses(1);
        let loud: IpAddr = "198.51.100.7".parse().unwrap();
        let mut passed = 0;
        for n in 0..10_000_u32 {
            // A new quiet one each time, which is good again long before the loud one.
            let now_ns = S + u64::from(n) * S / 1000;
            assert!(addresses.may(Act::Connect, IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), now_ns));
            passed += usize::from(addresses.may(Act::Connect, loud, now_ns));
        }
        assert_eq!(addresses.entries.len(), 64);
        assert!(passed <= 20 + 100, "{passed} connects in ten seconds");
        assert!(addresses.forgotten_count > 0);
    }
}
