//! What an address and a shard hold open: how much it may be, and who goes when it is too much.

use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use crate::world::stranger::{address, busy_record_ms, first_flight};
use tern_core::io::{ConnId, HandOverToken, Input, Output};
use tern_core::limits::{Limits, OVERLAP_COUNT};
use tern_protocol::ids::{AccountId, DeviceId, PartitionId, ShardId};
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::{KeyMark, TicketClaims, TicketKeys};

const STRANGER: &str = "203.0.113.9:4711";

/// A phone that comes from an address.
fn phone_from(world: &mut World, from: &str, slot: u32, name: &str) -> Phone {
    assert!(world.accept(slot, address(from)), "{from} is let in");
    Phone::connected(world, slot, name, slot as u8)
}

/// The first words of somebody who names a partition of shard 1.
fn flight_to_the_other() -> Vec<u8> {
    let mut flight = first_flight("eve", 5, 1);
    flight[5..8].copy_from_slice(&[1, 40, 0]);
    flight
}

/// A stranger names a partition of another shard. That one is not there: this shard plays its part, some time later.
fn hand_over(world: &mut World, from: &str, slot: u32, flight: &[u8], after_ms: u64) -> u32 {
    assert!(world.accept(slot, address(from)));
    world.throw(slot, flight);
    let conn = world.conns[&slot];
    let is_move = |o: &Output| matches!(o, Output::MoveSocket { conn: moved, .. } if *moved == conn);
    assert!(world.gone_out.iter().any(is_move));
    world.pass_ms(after_ms);
    world.step(Input::SocketMoved { conn, moved: true });
    world.step(Input::Closed { conn });
    world.turn();
    let Some(Output::MoveState { state, .. }) = world.gone_out.pop() else { panic!("no state follows") };
    let (other, token): (ShardId, HandOverToken) = (ShardId(1), state.token);
    world.step(Input::HandOverState { from: other, state });
    world.step(Input::HandOverSocket { from: other, token, slot: slot + 100 });
    world.turn();
    slot + 100
}

#[test]
fn an_address_holds_so_many_connections_and_its_neighbours_as_many() {
    let mut world = World::new(Limits { address_connections: 5, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let let_in: Vec<u32> = (10..20).filter(|&slot| world.accept(slot, address(STRANGER))).collect();
    assert_eq!(let_in, [10, 11, 12, 13, 14]);
    assert_eq!(world.shard.counters().refused_address_connections, 5);
    let _neighbour = phone_from(&mut world, "203.0.113.10:1", 20, "carol");
    // Logging in makes no difference, and whoever goes leaves its place.
    world.cut(12);
    let _phone = phone_from(&mut world, STRANGER, 12, "dora");
    assert!(!world.accept(21, address(STRANGER)));
    bystanders.talk(&mut world);
}

#[test]
fn an_address_has_fewer_that_have_not_logged_in() {
    let mut world = World::new(Limits { address_half_open: 3, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    // Those who log in count no more.
    for slot in 10..20 {
        assert_eq!(phone_from(&mut world, STRANGER, slot, &format!("eve{slot}")).heard, [Heard::Drained]);
    }
    let let_in = (20..30).filter(|&slot| world.accept(slot, address(STRANGER))).count();
    assert_eq!((let_in, world.shard.counters().refused_address_half_open), (3, 7));
    assert!(world.accept(30, address("203.0.113.10:1")));
    world.cut(20);
    assert!(world.accept(20, address(STRANGER)), "there is room for one again");
    // So does the login deadline make room.
    world.pass_ms(10_010);
    let _late = phone_from(&mut world, STRANGER, 31, "late");
    bystanders.talk(&mut world);
}

#[test]
fn who_comes_by_another_shard_counts_for_its_address_and_its_shard() {
    // This shard has half of eight.
    let mut world = World::one_of(2, Limits { address_connections: 8, ..Limits::default() });
    let told = |world: &mut World, slot: u32| busy_record_ms(&world.said(slot)).is_some();
    let flight = &flight_to_the_other()[..9];
    let moved: Vec<u32> = (10..14).map(|slot| hand_over(&mut world, STRANGER, slot, flight, 0)).collect();
    assert!(moved.iter().all(|&slot| !told(&mut world, slot)));
    assert!(!world.accept(20, address(STRANGER)), "here or there, it is the same address");
    let neighbour = hand_over(&mut world, "203.0.113.10:1", 15, flight, 0);
    assert!(!told(&mut world, neighbour));
    // One more gets as far as the other shard's door while one of these goes, and another one comes.
    world.cut(110);
    assert!(world.accept(20, address(STRANGER)));
    world.throw(20, flight);
    let conn = world.conns[&20];
    world.step(Input::SocketMoved { conn, moved: true });
    world.step(Input::Closed { conn });
    world.turn();
    let Some(Output::MoveState { state, .. }) = world.gone_out.pop() else { panic!("no state follows") };
    assert!(world.accept(21, address(STRANGER)));
    let (other, token) = (ShardId(1), state.token);
    world.step(Input::HandOverState { from: other, state });
    world.step(Input::HandOverSocket { from: other, token, slot: 120 });
    world.turn();
    assert!(told(&mut world, 120), "it is told when to come back");
    assert_eq!(world.shard.counters().refused_address_connections, 2);
}

#[test]
fn the_login_deadline_goes_on_at_another_shard() {
    let mut world = World::one_of(2, Limits { login_ms: 1_000, hand_over_ms: 5_000, ..Limits::default() });
    let flight = &flight_to_the_other()[..9];
    let slot = hand_over(&mut world, STRANGER, 10, flight, 600);
    world.closed.clear();
    world.pass_ms(380);
    assert_eq!(world.closed, []);
    world.pass_ms(40);
    assert_eq!(world.closed, [slot]);
    assert_eq!(world.shard.counters().login_timeouts, 1);
}

#[test]
fn silent_strangers_that_fill_a_shard_make_room_for_phones() {
    let mut world = World::one_of(2, Limits { connection_count: 20, ..Limits::default() });
    let mut bystanders = Bystanders::arrive_by(&mut world, |world, slot| assert!(world.accept(slot, None)));
    let flight = &flight_to_the_other()[..9];
    // By the door and by another shard, each from an address of its own.
    for n in 10..60 {
        assert!(world.accept(n, address(&format!("198.51.100.{n}:1"))));
        hand_over(&mut world, &format!("203.0.113.{n}:1"), n + 200, flight, 0);
    }
    assert_eq!(world.shard.counters().connections_now, 20);
    assert_eq!(world.closed.first(), Some(&10), "the oldest goes first");
    assert!(world.shard.counters().refused_connections >= 80);
    bystanders.talk(&mut world);
    let is_here = |name: &String| PartitionId::of_name(name, 64).0 < 32;
    let name = (0..).map(|n| format!("carol{n}")).find(is_here).expect("half of all are");
    let mut carol = phone_from(&mut world, "192.0.2.1:1", 70, &name);
    assert_eq!(carol.heard, [Heard::Drained]);
    // Those who are in stay, however many come.
    for n in 71..130 {
        world.accept(n, address(&format!("198.51.100.{n}:1")));
    }
    bystanders.talk(&mut world);
    carol.exchange(&mut world);
    assert!(!world.closed.contains(&70));
}

#[test]
fn who_waits_for_the_server_is_not_given_up_for_others() {
    let limits = Limits { connection_count: 20, handshakes_per_turn: 1, ..Limits::default() };
    let mut world = World::new(limits);
    for slot in 0..20 {
        // In one turn, so that all but one have to wait.
        world.step(Input::Accepted { slot, peer: None });
        let conn = ConnId { slot, generation: 1 };
        world.step(Input::Received { conn, bytes: &mut first_flight("storm", 10, slot.into()) });
    }
    world.turn();
    assert_eq!(world.shard.counters().deferred_now, 19);
    let let_in = (20..60).filter(|&slot| world.accept(slot, None)).count();
    assert_eq!((let_in, world.shard.counters().refused_connections), (0, 40), "nobody waits for a phone");
    assert_eq!(world.closed, []);
}

#[test]
fn a_shard_goes_over_its_number_by_no_more_than_a_drivers_spare_places() {
    let mut world = World::new(Limits { connection_count: 20, ..Limits::default() });
    // All in one turn, so that nobody who was given up is gone before it ends.
    (0..200).for_each(|slot| world.step(Input::Accepted { slot, peer: None }));
    let refused = world.out.list.iter().filter(|output| matches!(output, Output::CloseSlot(_))).count();
    assert_eq!(refused, 200 - 20 - OVERLAP_COUNT as usize);
    world.out.list.retain(|output| !matches!(output, Output::CloseSlot(_)));
    world.turn();
    assert_eq!(world.shard.counters().connections_now, 20);
}

#[test]
fn a_ticket_shown_at_another_shard_costs_nothing_there() {
    let limits = Limits {
        address_handshakes_per_s: 1,
        address_handshakes_burst: 8,
        handshakes_per_turn: 1,
        ..Limits::default()
    };
    let mut world = World::one_of(2, limits);
    let claims = TicketClaims {
        account: AccountId(40 << 48 | 1),
        device: DeviceId(1),
        number: 0,
        made_s: 1_800_000_000,
        knows: KeyMark::of(&KeyPair::from_seed([42; 32]).public),
    };
    let ticket = TicketKeys::new(&[6; 32]).issue(&claims, [7; 8]);
    for slot in 10..30 {
        // No turn ends between them: a handshake would have to wait.
        let mut phone = Phone::with_ticket(slot, ticket);
        world.step(Input::Accepted { slot, peer: address(STRANGER) });
        let Some(Output::ReceiveOnce(conn)) = world.out.list.pop() else { panic!("it is let in") };
        let mut flight = Vec::new();
        phone.client.flush(&mut flight);
        world.step(Input::Received { conn, bytes: &mut flight });
        let moves =
            |output: &Output| matches!(output, Output::MoveSocket { conn: moved, .. } if *moved == conn);
        assert!(world.out.list.iter().any(moves), "{slot}");
    }
    let counters = world.shard.counters();
    assert_eq!((counters.refused_address_handshakes, counters.deferred_handshakes), (0, 0));
}
