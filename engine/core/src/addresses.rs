//! Where connections come from: how fast they do what, and how many an address holds open.
//!
//! Rates are in a table of fixed size that forgets the quiet ones first. An entry is found by a keyed hash of its address,
//! which nobody outside can predict, so nobody can choose addresses that push another's entry out. Forgetting an entry
//! only forgives: a new one starts with full buckets. What an address holds is never forgotten, and needs no limit of
//! its own: there are no more such addresses than connections.

use crate::account::SeededHash;
use crate::bucket::{Bucket, Rate};
use crate::limits::Limits;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;
use hashbrown::HashTable;

/// Entries among which an address has its place.
const WAYS: usize = 8;

/// However many shards share what an address may hold, each lets it hold so much: where its connections go by chance
/// and by their accounts, they are not spread evenly.
const HELD_MIN: u32 = 4;

/// What is counted of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Connect,
    Handshake,
    Register,
    ReceiveByte,
    SayFrame,
}

const ACT_COUNT: usize = Act::SayFrame as usize + 1;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The hash of its address; zero for none.
    hash: u64,
    buckets: [Bucket; ACT_COUNT],
}

const _: () = assert!(size_of::<Entry>() == 48, "the documentation of address_count says so");

impl Entry {
    fn full_at_ns(&self) -> u64 {
        self.buckets.iter().fold(0, |latest, bucket| latest.max(bucket.full_at_ns()))
    }
}

/// An address that is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    /// Never zero.
    hash: u64,
}

/// The place of an address that holds connections, in the table of these; zero for one that is not limited.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Holder(u32);

/// What an address holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    hash: u64,
    open_count: u32,
    half_open_count: u32,
}

/// What of an address there is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TooMany {
    Connections,
    HalfOpen,
}

/// The addresses of a shard's connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Sets of [`WAYS`]; empty until the first address that is limited.
    entries: Vec<Entry>,
    set_count: usize,
    hash: SeededHash,
    /// By [`Act`].
    rates: [Rate; ACT_COUNT],
    /// Those that hold connections, by [`Holder`]; free places hold nothing.
    held: Vec<Held>,
    free: Vec<u32>,
    /// Places in `held`, by the hash of their address.
    holders: HashTable<u32>,
    open_count_max: u32,
    half_open_count_max: u32,
    prefix_bits: u8,
    limits_loopback: bool,
    /// Entries that were given up before their buckets were full.
    pub(crate) forgotten_count: u64,
}

impl Addresses {
    /// The share of one of so many shards: the kernel spreads the connections of an address over all of them.
    pub(crate) fn new(limits: &Limits, shard_count: u16, hash: SeededHash) -> Self {
        let rate = |per_second, burst| Rate::shared(per_second, burst, shard_count);
        let registrations = Rate::per_hour(
            limits.address_registrations_per_h,
            limits.address_registrations_burst,
            shard_count,
        );
        let held = |count: u32| match count.div_ceil(u32::from(shard_count)) {
            0 => u32::MAX,
            share if shard_count > 1 => share.max(HELD_MIN),
            share => share,
        };
        Self {
            entries: Vec::new(),
            set_count: (limits.address_count as usize / WAYS).next_power_of_two(),
            hash,
            rates: [
                rate(limits.address_connects_per_s, limits.address_connects_burst),
                rate(limits.address_handshakes_per_s, limits.address_handshakes_burst),
                registrations,
                rate(limits.address_bytes_per_s, limits.address_bytes_burst),
                rate(limits.address_frames_per_s, limits.address_frames_burst),
            ],
            // Nobody's place.
            held: Vec::from([Held::default()]),
            free: Vec::new(),
            holders: HashTable::new(),
            open_count_max: held(limits.address_connections),
            half_open_count_max: held(limits.address_half_open),
            prefix_bits: limits.address_prefix_bits,
            limits_loopback: limits.limit_loopback,
            forgotten_count: 0,
        }
    }

    /// What is counted for an address; `None` for one that is not limited.
    pub(crate) fn limited(&self, address: IpAddr) -> Option<Address> {
        let address = address.to_canonical();
        if address.is_loopback() && !self.limits_loopback {
            return None;
        }
        Some(Address { hash: self.hash.hash_one(network_of(address, self.prefix_bits)) | 1 })
    }

    /// Counts so many acts of an address. False if it was one too many; then none is counted.
    pub(crate) fn may(&mut self, act: Act, address: Address, now_ns: u64, count: u64) -> bool {
        self.may_in_advance(act, address.hash, now_ns, count, 0).is_some()
    }

    /// Likewise, of an address that holds connections.
    pub(crate) fn holder_may(&mut self, act: Act, holder: Holder, now_ns: u64, count: u64) -> bool {
        self.holder_may_in_advance(act, holder, now_ns, count, 0).is_some()
    }

    /// Likewise, and so many more in advance if there are plenty: how many.
    pub(crate) fn holder_may_in_advance(
        &mut self,
        act: Act,
        holder: Holder,
        now_ns: u64,
        count: u64,
        more: u64,
    ) -> Option<u64> {
        if holder == Holder::default() {
            return Some(more);
        }
        self.may_in_advance(act, self.held[holder.0 as usize].hash, now_ns, count, more)
    }

    fn may_in_advance(&mut self, act: Act, hash: u64, now_ns: u64, count: u64, more: u64) -> Option<u64> {
        let rate = self.rates[act as usize];
        if rate.is_none() {
            return Some(more);
        }
        self.entry(hash, now_ns).buckets[act as usize].take_in_advance(rate, now_ns, count, more)
    }

    /// Whether an address may hold one more connection, which is half open at first.
    pub(crate) fn may_hold(&self, address: Address) -> Result<(), TooMany> {
        let held = self.find(address.hash).map_or(Held::default(), |place| self.held[place as usize]);
        if held.open_count >= self.open_count_max {
            Err(TooMany::Connections)
        } else if held.half_open_count >= self.half_open_count_max {
            Err(TooMany::HalfOpen)
        } else {
            Ok(())
        }
    }

    /// An address holds one more connection, which is half open.
    pub(crate) fn hold(&mut self, address: Address) -> Holder {
        let place = self.find(address.hash).unwrap_or_else(|| self.add(address.hash));
        let held = &mut self.held[place as usize];
        held.open_count += 1;
        held.half_open_count += 1;
        Holder(place)
    }

    /// A connection of an address is half open no more.
    pub(crate) fn no_longer_half_open(&mut self, holder: Holder) {
        if holder != Holder::default() {
            self.held[holder.0 as usize].half_open_count -= 1;
        }
    }

    /// A connection of an address is no more.
    pub(crate) fn let_go(&mut self, holder: Holder) {
        if holder == Holder::default() {
            return;
        }
        let held = &mut self.held[holder.0 as usize];
        held.open_count -= 1;
        if held.open_count > 0 {
            return;
        }
        let hash = core::mem::take(held).hash;
        if let Ok(entry) = self.holders.find_entry(hash, |&place| place == holder.0) {
            entry.remove();
        }
        self.free.push(holder.0);
    }

    /// Addresses that hold connections.
    pub(crate) fn holder_count(&self) -> usize {
        self.holders.len()
    }

    fn find(&self, hash: u64) -> Option<u32> {
        self.holders.find(hash, |&place| self.held[place as usize].hash == hash).copied()
    }

    fn add(&mut self, hash: u64) -> u32 {
        let held = Held { hash, ..Held::default() };
        let place = if let Some(place) = self.free.pop() {
            self.held[place as usize] = held;
            place
        } else {
            self.held.push(held);
            self.held.len() as u32 - 1
        };
        self.holders.insert_unique(hash, place, |&place| self.held[place as usize].hash);
        place
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
        let address = addresses.limited(address.parse().unwrap());
        (0..100).filter(|_| address.is_none_or(|address| addresses.may(act, address, now_ns, 1))).count()
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
            let quiet = addresses.limited(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))).unwrap();
            assert!(addresses.may(Act::Connect, quiet, now_ns, 1));
            let loud = addresses.limited(loud).unwrap();
            passed += usize::from(addresses.may(Act::Connect, loud, now_ns, 1));
        }
        assert_eq!(addresses.entries.len(), 64);
        assert!(passed <= 20 + 100, "{passed} connects in ten seconds");
        assert!(addresses.forgotten_count > 0);
    }

    #[test]
    fn what_an_address_holds_is_counted_until_it_is_let_go() {
        let limits = Limits { address_connections: 3, address_half_open: 2, ..Limits::default() };
        let mut addresses = Addresses::new(&limits, 1, SeededHash(1, 2));
        let [one, other] =
            ["192.0.2.1", "2001:db8::1"].map(|address| addresses.limited(address.parse().unwrap()).unwrap());
        for round in 0..3 {
            let first = addresses.hold(one);
            assert_eq!(addresses.may_hold(one), Ok(()), "{round}");
            assert_eq!(addresses.hold(one), first, "one place for all of its connections");
            assert_eq!(addresses.may_hold(one), Err(TooMany::HalfOpen));
            addresses.no_longer_half_open(first);
            assert_eq!(addresses.may_hold(one), Ok(()));
            addresses.hold(one);
            addresses.no_longer_half_open(first);
            assert_eq!(addresses.may_hold(one), Err(TooMany::Connections));
            let second = addresses.hold(other);
            assert_eq!((addresses.may_hold(other), addresses.holder_count()), (Ok(()), 2));
            addresses.no_longer_half_open(first);
            (0..3).for_each(|_| addresses.let_go(first));
            addresses.no_longer_half_open(second);
            addresses.let_go(second);
            assert_eq!((addresses.may_hold(one), addresses.holder_count()), (Ok(()), 0));
        }
        assert_eq!(addresses.held.len(), 3, "places are used again");
    }
}
