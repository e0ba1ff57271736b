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
    world.now.wall_ms -= 100_000;
    let mut world = world.kill();
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 290, 0..6, is_sent), 5);
    assert_eq!((world.shard.counters().duplicates, world.shard.counters().refused_ahead), (5, 1));
}

#[test]
fn ids_that_take_all_memory_make_senders_wait_and_ticks_go_on() {
    let limits = Limits { dedup_count: 3072, account_messages_per_s: 0, mailbox_count: 20_000, ..patient() };
    let mut world = World::new(limits);
    let mut carol = Phone::connect(&mut world, 8, "carol", 6);
    let mut dora = Phone::connect(&mut world, 7, "dora", 7);
    dora.send(&mut world, &carol, NOW_S << 32 | 1, b"acknowledged later");
    carol.hear(&mut world);
    world.pass_ms(10);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 10..6_153, is_sent), 6_143);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 7_000..7_001, is_busy), 1);
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
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 7_000..7_001, is_busy), 1);
    // A quarter of an hour later they can go.
    world.now.wall_ms += 900_000;
    world.now.mono_ns += 900_000_000_000;
    world.pass_ms(1_010);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 900, 7_002..8_000, is_sent), 998);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 10..20, is_expired), 10);
}

const DAY_MS: u64 = 86_400_000;

/// Phones stay for as long as a test takes.
fn patient() -> Limits {
    Limits { idle_ms: 86_400_000, ..Limits::default() }
}

#[test]
fn a_clock_that_is_a_month_ahead_for_a_moment_expires_nothing() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    world.now.wall_ms += 31 * DAY_MS;
    world.pass_s(590);
    assert_eq!(world.shard.counters().clock_doubted_now, 1);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 590, 5..10, is_sent), 5, "also meanwhile");
    world.now.wall_ms -= 31 * DAY_MS;
    world.pass_s(3_600);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 4_190, 10..15, is_sent), 5, "and afterwards");
    let counters = world.shard.counters();
    assert_eq!((counters.expired, counters.clock_steps, counters.clock_doubted_now), (0, 1, 0));
    assert_eq!(counters.mail_count_now, 15);
}

#[test]
fn mail_of_a_dead_clock_outlives_the_step_to_the_right_time() {
    // A box without a battery, in 2020.
    let mut world = World::at(1_577_880_000_000, &[], 1, patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, 1_577_880_000, 0..5, is_sent), 5);
    world.now.wall_ms = 1_800_000_000_000;
    world.pass_s(4_300);
    assert_eq!((world.shard.counters().clock_doubted_now, world.shard.counters().clock_steps), (0, 1));
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 5..6, is_sent), 1, "the step is believed");
    let mut world = world.kill();
    world.pass_s(3_700);
    assert_eq!((world.shard.counters().expired, world.shard.counters().mail_count_now), (0, 6));
    // Thirty days later it goes, as any mail does.
    for _ in 0..30 {
        world.now.mono_ns += DAY_MS * 1_000_000;
        world.now.wall_ms += DAY_MS;
        world.pass_s(2);
    }
    world.pass_s(10);
    assert_eq!((world.shard.counters().expired, world.shard.counters().mail_count_now), (6, 0));
}

fn world_s(world: &World) -> u64 {
    world.now.wall_ms / 1000
}

#[test]
fn a_retry_is_known_after_a_wrong_clock_was_believed_and_the_node_was_killed() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    // All of it is fetched: only the ids are left.
    let mut fetching = Phone::connect(&mut world, 6, "absent", 8);
    fetching.ack(&mut world, 5);
    world.pass_s(1);
    world.now.wall_ms += 31 * DAY_MS;
    world.pass_s(700);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 5..6, is_sent), 1, "it is believed");
    world.now.wall_ms -= 31 * DAY_MS;
    world.pass_s(1);
    world.cut(6);
    // Started at the right time, the log's newest message is a month ahead.
    let mut world = world.kill();
    assert_eq!(world.shard.counters().clock_doubted_now, 1);
    world.pass_s(700);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    assert_eq!(world.shard.counters().duplicates, 5);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 6..7, is_sent), 1, "its clock is right");
}

#[test]
fn who_was_welcomed_before_the_clock_went_back_goes_on() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    world.now.wall_ms -= DAY_MS;
    world.pass_s(700);
    assert_eq!(world.shard.counters().clock_doubted_now, 0);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 700, 0..5, is_sent), 5);
    let mut ann = Phone::connect(&mut world, 8, "ann", 6);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut ann, &absent, now_s, 5..10, is_sent), 5);
}

#[test]
fn a_clock_behind_the_log_is_held_at_the_start() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    world.now.wall_ms = 1_577_880_000_000;
    let mut world = world.kill();
    world.pass_s(60);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    assert_eq!(world.shard.counters().duplicates, 5, "retries are known");
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 60, 5..6, is_sent), 1);
    world.now.wall_ms = NOW_S * 1000 + 61_000;
    world.pass_s(1);
    let counters = world.shard.counters();
    assert_eq!((counters.clock_steps, counters.clock_doubted_now, counters.expired), (1, 0, 0));
}

#[test]
fn a_start_by_a_wrong_clock_forgets_no_ids() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    // More than the horizon ahead: such a start believes its clock.
    world.now.wall_ms += 30 * 3_600_000;
    let mut world = world.kill();
    assert_eq!(world.shard.counters().clock_doubted_now, 0);
    world.now.wall_ms -= 30 * 3_600_000;
    world.pass_s(700);
    assert_eq!(world.shard.counters().clock_doubted_now, 0, "the step back is believed");
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    assert_eq!(world.shard.counters().mail_count_now, 5, "none is there twice");
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 5..10, is_sent), 5, "and what is new is taken");
}

#[test]
fn new_messages_are_taken_at_once_when_a_clock_that_was_ahead_is_put_right() {
    // A week ahead for longer than ids are remembered, twice.
    let week_ms = 7 * DAY_MS;
    let mut world = World::new(Limits { dedup_horizon_ms: 60_000, ..patient() });
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let ahead_s = |world: &World| world_s(world) + 604_800;
    for round in 0..2 {
        let numbers = 100 * round;
        world.now.wall_ms += week_ms;
        world.pass_s(700);
        let mut ahead = Phone::connect(&mut world, 10 + round as u32, "ahead", 6);
        let told_s = world_s(&world);
        assert_eq!(send(&mut world, &mut ahead, &absent, told_s, numbers..numbers + 5, is_sent), 5);
        // They leave the horizon.
        world.pass_s(800);
        assert_eq!(world.shard.counters().ids_now, 0);
        world.now.wall_ms -= week_ms;
        world.pass_s(700);
        assert_eq!(world.shard.counters().clock_doubted_now, 0, "the step back is believed");
        let now_s = world_s(&world);
        assert_eq!(send(&mut world, &mut eve, &absent, now_s, numbers + 5..numbers + 10, is_sent), 5);
        assert_eq!(send(&mut world, &mut eve, &absent, now_s, numbers + 5..numbers + 10, is_sent), 5);
        assert_eq!(world.shard.counters().duplicates, 5 * (round + 1), "a retry is known");
        // Who was told the other time goes on by it, and what was dropped of that is not new.
        assert_eq!(send(&mut world, &mut ahead, &absent, told_s, numbers..numbers + 5, is_expired), 5);
        let by_it_s = ahead_s(&world);
        assert_eq!(send(&mut world, &mut ahead, &absent, by_it_s, numbers + 10..numbers + 15, is_sent), 5);
        assert_eq!(world.shard.counters().mail_count_now, 15 * (round + 1));
    }
}

#[test]
fn a_box_that_is_believed_to_be_in_the_past_takes_what_its_phones_send() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    // No battery, and no NTP for an hour.
    world.now.wall_ms = 1_577_880_000_000;
    let mut world = world.kill();
    world.pass_s(3_600);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 5..10, is_sent), 5);
    // Then the time is right.
    world.cut(9);
    world.now.wall_ms = (NOW_S + 3_700) * 1000;
    world.pass_s(700);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 10..15, is_sent), 5);
    assert_eq!((world.shard.counters().duplicates, world.shard.counters().mail_count_now), (5, 15));
}

#[test]
fn a_start_by_a_wrong_clock_ends_with_it_also_after_the_next_one() {
    let mut world = World::new(Limits { dedup_horizon_ms: 60_000, ..patient() });
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    world.now.wall_ms += 31 * DAY_MS;
    world.pass_s(1_000);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    for n in 0..10 {
        let now_s = world_s(&world);
        assert_eq!(send(&mut world, &mut eve, &absent, now_s, n..n + 1, is_sent), 1);
        world.pass_s(60);
    }
    // Put right by a start: the log's newest messages are of the other time.
    world.now.wall_ms -= 31 * DAY_MS;
    let mut world = world.kill();
    world.pass_s(700);
    assert_eq!(world.shard.counters().clock_doubted_now, 0);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let now_s = world_s(&world);
    assert_eq!(send(&mut world, &mut eve, &absent, now_s, 10..15, is_sent), 5);
    assert_eq!(world.shard.counters().mail_count_now, 15);
}

#[test]
fn a_quiet_shard_begins_at_the_time_of_the_nodes_newest_message() {
    let mut world = World::new(patient());
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5);
    // Forty minutes later, and the machine's clock is dead. Phones of the other shards are told by their logs.
    world.now.wall_ms = 1_577_880_000_000;
    let mut world = world.kill_beside(NOW_S as u32 + 2_400);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S + 2_400, 5..10, is_sent), 5);
    assert_eq!(send(&mut world, &mut eve, &absent, NOW_S, 0..5, is_sent), 5, "retries are known");
    assert_eq!((world.shard.counters().duplicates, world.shard.counters().mail_count_now), (5, 10));
    assert_eq!(world.shard.time().wall_ms / 1000, NOW_S + 2_400);
}
