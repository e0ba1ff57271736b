//! Phones whose clocks are wrong, and so many messages that their ids take all the memory there is.

use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_protocol::ids::MessageId;
use tern_protocol::phone::frame::ClientFrame;

const NOW_S: u64 = 1_800_000_000;

/// Sends so many messages, made at `made_s`, and returns how many were answered by what `is_it` looks for.
fn send(
    world: &mut World,
    phone: &mut Phone,
    to: &Phone,
    made_s: u64,
    numbers: std::ops::Range<u64>,
    is_it: impl Fn(&Heard) -> bool,
) -> usize {
    let to = to.account.expect("logged in");
    phone.heard.clear();
    for n in numbers {
        phone.client.send(&ClientFrame::Send { to, id: MessageId(made_s << 32 | n), body: b"x" });
        if n % 500 == 499 {
            phone.exchange(world);
        }
    }
    phone.exchange(world);
    world.pass_ms(10);
    phone.hear(world);
    phone.heard.iter().filter(|heard| is_it(heard)).count()
}

fn is_expired(heard: &Heard) -> bool {
    matches!(heard, Heard::Expired(_))
}

fn is_busy(heard: &Heard) -> bool {
    matches!(heard, Heard::Busy(_))
}

fn is_sent(heard: &Heard) -> bool {
    matches!(heard, Heard::Sent(_))
}

#[test]
fn messages_from_the_future_are_refused_and_nobodys_present_expires() {
    let mut world = World::new(Limits { dedup_count: 1024, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    for hours in 1..=23 {
        let made_s = NOW_S + 3_600 * hours;
        assert_eq!(send(&mut world, &mut eve, &absent, made_s, 0..500, is_expired), 500);
    }
    bystanders.talk(&mut world);
    let counters = world.shard.counters();
    assert_eq!((counters.refused_ahead, counters.refused_expired), (23 * 500, 0));
    // A clock that is a little ahead is nobody's fault.
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 290, 0..5, is_sent), 5);
    // A message that was taken is known, whatever a clock says that was set back since.
    let mut world = world.kill();
    world.now.wall_ms -= 3_600_000;
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 290, 0..6, is_sent), 5);
    assert_eq!((world.shard.counters().duplicates, world.shard.counters().refused_ahead), (5, 1));
}

#[test]
fn ids_that_take_all_memory_make_senders_wait_and_ticks_go_on() {
    let limits =
        Limits { dedup_count: 1024, account_messages_per_s: 0, mailbox_count: 20_000, ..Limits::default() };
    let mut world = World::new(limits);
    let mut carol = Phone::connect(&mut world, 8, "carol", 6);
    let mut dora = Phone::connect(&mut world, 7, "dora", 7);
    dora.send(&mut world, &carol, NOW_S << 32 | 1, b"acknowledged later");
    carol.hear(&mut world);
    world.pass_ms(10);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 10..4_105, is_sent), 4_095);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 5_000..5_001, is_busy), 1);
    // A new connection starts its stream again from its oldest message without an answer.
    world.cut(9);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 10..20, is_sent), 10, "retries are known still");
    assert_eq!(world.shard.counters().ids_full, 1);
    carol.ack(&mut world, 1);
    dora.hear(&mut world);
    assert!(matches!(dora.heard.last(), Some(Heard::Delivered { .. })), "{:?}", dora.heard);
    // Also after a kill, which finds all of them in the log.
    let mut world = world.kill();
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 5_000..5_001, is_busy), 1);
    // In the next hour they can go.
    world.now.wall_ms += 4_200_000;
    world.now.mono_ns += 61_000_000_000;
    world.pass_ms(1_010);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 4_200, 5_002..6_000, is_sent), 998);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 10..20, is_expired), 10);
}
