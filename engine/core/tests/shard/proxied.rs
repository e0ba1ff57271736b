//! Behind a balancer: the PROXY header says whose connection it is, and the limits see that address.

use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use crate::world::stranger::{address, busy_record_ms, first_flight};
use std::net::{IpAddr, SocketAddr};
use tern_core::io::{HandOverToken, Input, Output};
use tern_core::limits::Limits;
use tern_protocol::ids::ShardId;
use tern_protocol::proxy::SIGNATURE;

const BALANCERS: [&str; 2] = ["10.0.0.0/8", "2001:db8::/32"];

/// A header as a balancer writes it.
fn header(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().expect("an address and a port");
    let mut addresses = Vec::new();
    let family = match source.ip() {
        IpAddr::V4(v4) => {
            addresses.extend(v4.octets());
            addresses.extend([10, 0, 0, 1]);
            0x11
        }
        IpAddr::V6(v6) => {
            addresses.extend(v6.octets());
            addresses.extend([7; 16]);
            0x21
        }
    };
    addresses.extend(source.port().to_be_bytes());
    addresses.extend([0x1c, 0x9a]);
    // A TLV, as balancers like to add: the name that the client asked for.
    addresses.extend([2, 0, 4, b't', b'e', b'r', b'n']);
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x21, family]);
    bytes.extend((addresses.len() as u16).to_be_bytes());
    bytes.extend(addresses);
    bytes
}

fn local() -> Vec<u8> {
    [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat()
}

/// Two bystanders who come through the balancer too.
fn arrive_behind(world: &mut World) -> Bystanders {
    Bystanders::arrive_by(world, |world, slot| {
        world.accept(slot, address("10.1.2.3:40000"));
        world.throw(slot, &header("192.0.2.1:1000"));
    })
}

#[test]
fn a_phone_behind_a_balancer_logs_in_however_its_bytes_are_cut() {
    let mut world = World::behind(&BALANCERS, 1, Limits::default());
    for (slot, balancer, source) in [
        (3, "10.1.2.3:40000", "203.0.113.5:51000"),
        (4, "[2001:db8::1]:40000", "[2a00::5]:51000"),
        (5, "[::ffff:10.1.2.3]:40000", "203.0.113.6:51000"),
    ] {
        let mut phone = Phone::new(slot, &format!("ann{slot}"), slot as u8);
        assert!(world.accept(slot, address(balancer)));
        let mut bytes = header(source);
        phone.client.flush(&mut bytes);
        // Byte by byte, or all at once with the handshake.
        if slot == 3 {
            bytes.iter().for_each(|&byte| world.throw(slot, &[byte]));
        } else {
            world.throw(slot, &bytes);
        }
        phone.hear(&mut world);
        phone.log_in(&mut world);
        assert_eq!(phone.heard, [Heard::Drained]);
    }
    assert_eq!(world.shard.counters().proxy_errors, 0);
}

#[test]
fn a_balancers_check_of_its_own_is_let_in_and_may_go() {
    let mut world = World::behind(&BALANCERS, 1, Limits::default());
    assert!(world.accept(3, address("10.1.2.3:40000")));
    world.throw(3, &local());
    world.cut(3);
    // Or it is a phone of the balancer's own network.
    let mut phone = Phone::new(4, "ann", 1);
    world.accept(4, address("10.1.2.3:40001"));
    world.throw(4, &local());
    phone.log_in(&mut world);
    assert_eq!(phone.heard, [Heard::Drained]);
    assert_eq!((world.shard.counters().proxy_errors, world.shard.counters().protocol_errors), (0, 0));
}

#[test]
fn what_a_balancer_must_not_say_is_closed_and_counted() {
    let mut world = World::behind(&BALANCERS, 1, Limits::default());
    let mut bystanders = arrive_behind(&mut world);
    let mut udp = header("203.0.113.5:51000");
    udp[13] = 0x12;
    let mut long = header("203.0.113.5:51000");
    long[14] = 0xff;
    // None at all; version 1; UDP; more than may follow the addresses.
    let says = [first_flight("eve", 5, 1), b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), udp, long];
    for (count, bytes) in says.into_iter().enumerate() {
        world.accept(9, address("10.1.2.3:40000"));
        world.throw(9, &bytes);
        assert_eq!(world.closed.pop(), Some(9));
        assert_eq!(world.said(9), b"", "it gets no answer");
        assert_eq!(world.shard.counters().proxy_errors, count as u64 + 1);
        bystanders.talk(&mut world);
    }
    // A header that never ends meets the login deadline.
    world.accept(9, address("10.1.2.3:40000"));
    world.throw(9, &SIGNATURE);
    world.pass_ms(10_010);
    assert_eq!((world.closed.pop(), world.shard.counters().timeouts), (Some(9), 1));
}

#[test]
fn a_header_from_anybody_else_is_no_preface() {
    let mut world = World::behind(&BALANCERS, 1, Limits::default());
    for peer in [address("11.0.0.1:40000"), address("127.0.0.1:40000"), None] {
        world.accept(9, peer);
        world.throw(9, &[header("203.0.113.5:51000"), first_flight("eve", 5, 1)].concat());
        assert_eq!(world.closed.pop(), Some(9), "{peer:?}");
    }
    assert_eq!((world.shard.counters().proxy_errors, world.shard.counters().protocol_errors), (0, 3));
}

#[test]
fn limits_see_the_address_behind_the_balancer() {
    let limits = Limits { address_connects_per_s: 1, address_connects_burst: 6, ..Limits::default() };
    let mut world = World::behind(&BALANCERS, 1, limits);
    let let_in = |world: &mut World, source: &str| {
        let accept = |_: &u32| {
            assert!(world.accept(9, address("10.1.2.3:40000")), "the balancer itself is not limited");
            world.throw(9, &header(source));
            let is_in = world.closed.pop().is_none();
            if is_in {
                world.cut(9);
                world.closed.clear();
            }
            is_in
        };
        (0..20).filter(accept).count()
    };
    assert_eq!(let_in(&mut world, "203.0.113.5:51000"), 6);
    assert_eq!(let_in(&mut world, "203.0.113.6:51000"), 6);
    assert_eq!(let_in(&mut world, "[2a00:0:0:1::1]:1"), 6);
    assert_eq!(let_in(&mut world, "[2a00:0:0:1::2]:1"), 0, "the same /64");
    assert_eq!(world.shard.counters().refused_address_connects, 14 + 14 + 14 + 20);
}

#[test]
fn the_learned_address_travels_with_a_hand_over() {
    let limits = Limits { address_handshakes_per_s: 1, address_handshakes_burst: 8, ..Limits::default() };
    let mut world = World::behind(&BALANCERS, 2, limits);
    // The phone names a partition of shard 1. That one is not there: this shard plays its part.
    let mut flight = first_flight("eve", 5, 1);
    flight[5..8].copy_from_slice(&[1, 40, 0]);
    let other = ShardId(1);
    let mut refused_count = 0;
    for slot in 10..20 {
        world.accept(slot, address("10.1.2.3:40000"));
        world.throw(slot, &[header("203.0.113.5:51000"), flight.clone()].concat());
        let conn = world.conns[&slot];
        let is_move = |o: &Output| matches!(o, Output::MoveSocket { conn: moved, .. } if *moved == conn);
        assert!(world.gone_out.iter().any(is_move));
        world.step(Input::SocketMoved { conn, moved: true });
        world.step(Input::Closed { conn });
        world.turn();
        let Some(Output::MoveState { state, .. }) = world.gone_out.pop() else { panic!("no state follows") };
        let token: HandOverToken = state.token;
        world.step(Input::HandOverState { from: other, state });
        world.step(Input::HandOverSocket { from: other, token, slot: slot + 100 });
        world.turn();
        refused_count += usize::from(busy_record_ms(&world.said(slot + 100)).is_some());
    }
    assert_eq!(refused_count, 6, "this shard has half of a burst of eight");
    assert_eq!(world.shard.counters().refused_address_handshakes, 6);
}
