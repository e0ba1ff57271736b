//! Keys are kept expanded for phones that are active, for as many as there may be, and for no longer.

use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_protocol::phone::frame::ClientFrame;

fn ping(phone: &mut Phone, world: &mut World) {
    phone.say(world, &ClientFrame::Ping { token: 7 });
}

fn ready(world: &mut World) -> u64 {
    world.turn();
    world.shard.counters().ready_keys_now
}

#[test]
fn an_active_phone_keeps_its_keys_and_a_silent_one_does_not() {
    let mut world = World::new(Limits::default());
    let mut ada = Phone::connect(&mut world, 1, "ada", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    assert_eq!(ready(&mut world), 0, "a login is no sign of more");
    ping(&mut ada, &mut world);
    ping(&mut ada, &mut world);
    assert_eq!(ready(&mut world), 1);
    world.pass_ms(8_000);
    ping(&mut ada, &mut world);
    world.pass_ms(8_000);
    assert_eq!(ready(&mut world), 1, "it was heard eight seconds ago");
    world.pass_ms(4_000);
    assert_eq!(ready(&mut world), 0);
    // With expanded keys or without, both sides understand each other.
    ping(&mut ada, &mut world);
    assert_eq!(ready(&mut world), 0, "once in a while is not active");
    ping(&mut bob, &mut world);
    let id = 1_800_000_000 << 32 | 5;
    ada.send(&mut world, &bob, id, b"hello");
    bob.hear(&mut world);
    assert_eq!(bob.heard.last(), Some(&Heard::Message { number: 1, id, body: b"hello".to_vec() }));
}

#[test]
fn past_the_limit_keys_are_expanded_as_they_are_needed() {
    let mut world = World::new(Limits { ready_key_count: 2, ..Limits::default() });
    let mut phones: Vec<Phone> =
        (0..4_u8).map(|n| Phone::connect(&mut world, u32::from(n), &format!("phone{n}"), n + 1)).collect();
    for _ in 0..3 {
        phones.iter_mut().for_each(|phone| ping(phone, &mut world));
        assert!(ready(&mut world) <= 2);
    }
    assert_eq!(ready(&mut world), 2);
    let mut first = phones.remove(0);
    first.leave(&mut world);
    assert_eq!(ready(&mut world), 1, "who has left takes no room, looked at or not");
    phones.iter_mut().for_each(|phone| ping(phone, &mut world));
    assert_eq!(ready(&mut world), 2, "who has left makes room");
    phones.iter_mut().for_each(|phone| {
        phone.hear(&mut world);
        assert!(!phone.client.over());
    });
}
