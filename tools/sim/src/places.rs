//! Where connections come from: a few addresses that share limits, some of them behind a balancer.
//!
//! Only in some runs; in the others nobody knows an address, as on a Unix socket.

use crate::network::{LinkId, Owner};
use crate::plan::Plan;
use crate::random::Random;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tern_core::limits::Limits;
use tern_core::networks::Network;
use tern_protocol::proxy::SIGNATURE;

/// Addresses that phones come from.
const PHONE_ADDRESS_COUNT: usize = 2;
/// One of so many connections is passed on by the balancer.
const BALANCED_PART: usize = 3;
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));

/// Where the connections of a run come from.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Places {
    are_known: bool,
}

impl Places {
    /// The other end of a socket, as the node's kernel tells it.
    #[must_use]
    pub fn peer(self, owner: Owner, link: LinkId) -> Option<SocketAddr> {
        let address = if self.is_balanced(owner, link) { BALANCER } else { address(owner) };
        self.are_known.then_some(SocketAddr::new(address, port(link)))
    }

    /// What a connection begins with before its client says anything: the balancer's header, if it comes by there.
    #[must_use]
    pub fn header(self, owner: Owner, link: LinkId) -> Option<Vec<u8>> {
        self.is_balanced(owner, link).then(|| {
            let (IpAddr::V4(from), IpAddr::V4(to)) = (address(owner), BALANCER) else { return Vec::new() };
            let ports = [port(link).to_be_bytes(), 7322_u16.to_be_bytes()].concat();
            // Version 2, PROXY; TCP over IPv4; 12 bytes.
            [&SIGNATURE, [0x21, 0x11, 0, 12].as_slice(), &from.octets(), &to.octets(), &ports].concat()
        })
    }

    /// The balancers that the node trusts.
    #[must_use]
    pub fn proxies(self) -> Arc<[Network]> {
        let balancer = BALANCER.to_string().parse();
        balancer.ok().filter(|_| self.are_known).into_iter().collect()
    }

    const fn is_balanced(self, _: Owner, link: LinkId) -> bool {
        self.are_known && link.0.is_multiple_of(BALANCED_PART)
    }
}

/// Attackers have an address of their own, or share that of honest phones.
fn address(owner: Owner) -> IpAddr {
    let number = match owner {
        Owner::Phone(phone) => phone % PHONE_ADDRESS_COUNT,
        Owner::Attacker(attacker) => attacker % (PHONE_ADDRESS_COUNT + 1),
    };
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1 + number as u8))
}

const fn port(link: LinkId) -> u16 {
    1024 + (link.0 % 60_000) as u16
}

impl Plan {
    /// In every third run the node knows where connections come from, and addresses have limits: as tight as lets all
    /// phones of one in.
    pub(crate) fn know_places(&mut self, random: &mut Random) {
        if random.below(3) != 0 {
            return;
        }
        self.places = Places { are_known: true };
        let spare_count: usize = self.accounts.iter().map(|account| usize::from(account.spare_count)).sum();
        let of_one_address = (self.phone_count() + spare_count).div_ceil(PHONE_ADDRESS_COUNT) as u32;
        let shard_count = u32::from(self.shard_count);
        self.limits = Limits {
            // All of them may have their home on one shard.
            address_connections: shard_count * (of_one_address + random.pick(&[0, 2])),
            address_half_open: shard_count * random.pick(&[1, 2, 8]),
            address_connects_per_s: shard_count * random.pick(&[1, 3, 50]),
            address_connects_burst: shard_count * random.pick(&[1, 3, 50]),
            address_handshakes_per_s: shard_count * random.pick(&[1, 3, 50]),
            address_handshakes_burst: shard_count * random.pick(&[1, 3, 50]),
            ..self.limits
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::proxy::{Header, read};

    #[test]
    fn a_balancer_names_the_address_that_the_phone_has_without_it() {
        let places = Places { are_known: true };
        let phone = Owner::Phone(5);
        assert_eq!(places.peer(phone, LinkId(3)).unwrap().ip(), BALANCER);
        let header = places.header(phone, LinkId(3)).unwrap();
        let direct = places.peer(phone, LinkId(4)).unwrap();
        assert_eq!(places.header(phone, LinkId(4)), None);
        let named = SocketAddr::new(direct.ip(), port(LinkId(3)));
        assert_eq!(read(&header), Ok(Some((Header::From(named), header.len()))));
        assert!(places.proxies()[0].contains(BALANCER) && !places.proxies()[0].contains(direct.ip()));
        let nowhere = Places::default();
        assert_eq!((nowhere.peer(phone, LinkId(3)), nowhere.header(phone, LinkId(3))), (None, None));
        assert!(nowhere.proxies().is_empty());
    }
}
