//! Messages without a final answer: each session has its share of the memory for them, and gives back what it does not need.

use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_protocol::ids::MessageId;
use tern_protocol::phone::frame::ClientFrame;

const NOW_S: u64 = 1_800_000_000;

fn id(low: u64) -> u64 {
    NOW_S << 32 | low
}

#[test]
fn messages_without_an_answer_have_their_share_of_memory() {
    have_their_share(&[5]);
}

/// Also where the last answer waits for a copy: who is sent away has been told of all that was taken.
#[test]
fn messages_without_an_answer_have_their_share_of_memory_where_there_are_copies() {
    have_their_share(&[5, 6]);
}

fn have_their_share(keys: &[u8]) {
    let limits = Limits { connection_count: 20, unanswered_count: 400, busy_ms: 100, ..Limits::default() };
    let mut world = World::new(limits);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let to = bob.account.expect("logged in");
    world.cut(1);
    world.closed.clear();
    create(&mut world, 1, "eve", keys);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    world.disk_runs = false;
    for n in 0..1_000 {
        eve.client.send(&ClientFrame::Send { to, id: MessageId(id(n)), body: b"x" });
    }
    eve.exchange(&mut world);
    let counters = world.shard.counters();
    assert!(counters.unanswered_now <= 256, "half of 400, doubled at most: {}", counters.unanswered_now);
    assert_eq!((counters.unanswered_full, world.closed.len()), (1, 0), "it gets its answers first");
    let taken = counters.messages_appended;
    world.disk_runs = true;
    world.run_disk();
    world.pass_ms(20);
    eve.hear(&mut world);
    let sent = eve.heard.iter().filter(|heard| matches!(heard, Heard::Sent(_))).count();
    assert_eq!(sent as u64, taken);
    assert_eq!(eve.heard.last(), Some(&Heard::Goodbye("Busy".into())));
    assert_eq!(world.closed, [9]);
    assert_eq!(world.shard.counters().unanswered_now, 0);
}

/// Phones that go on talking, so that nothing of theirs comes to rest.
#[test]
fn a_session_that_has_its_answers_leaves_the_memory_to_others() {
    let limits = Limits { connection_count: 20, unanswered_count: 400, ..Limits::default() };
    let mut world = World::new(limits);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let to = bob.account.expect("logged in");
    world.cut(1);
    let mut phones: Vec<Phone> =
        (3..16).map(|key| Phone::connect(&mut world, u32::from(key), &format!("ann{key}"), key)).collect();
    for phone in &mut phones {
        world.disk_runs = false;
        for n in 0..60 {
            phone.client.send(&ClientFrame::Send { to, id: MessageId(id(n)), body: b"x" });
        }
        phone.exchange(&mut world);
        world.disk_runs = true;
        world.run_disk();
        world.pass_ms(20);
        phone.hear(&mut world);
        let sent = phone.heard.iter().filter(|heard| matches!(heard, Heard::Sent(_))).count();
        assert_eq!(sent, 60, "{:?}", phone.heard.last());
    }
    assert_eq!(world.shard.counters().unanswered_full, 0);
}

#[test]
fn a_session_that_passed_over_a_message_takes_none_behind_it() {
    let limits = Limits { connection_count: 20, unanswered_count: 400, ..Limits::default() };
    let mut world = World::new(limits);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let to = bob.account.expect("logged in");
    world.cut(1);
    let [mut carol, mut eve] =
        [(8, "carol", 6), (9, "eve", 5)].map(|(slot, name, key)| Phone::connect(&mut world, slot, name, key));
    world.disk_runs = false;
    let send = |world: &mut World, phone: &mut Phone, numbers: std::ops::Range<u64>| {
        let before = world.shard.counters().messages_appended;
        for n in numbers {
            phone.client.send(&ClientFrame::Send { to, id: MessageId(id(n)), body: b"x" });
        }
        phone.exchange(world);
        world.shard.counters().messages_appended - before
    };
    assert!(send(&mut world, &mut carol, 0..150) > 60, "the memory of a long list counts for more");
    assert_eq!(send(&mut world, &mut eve, 1000..1100), 5, "a quarter of 400, shared by 20");
    // Now there is room again; but what comes behind a message that was passed over must not overtake it.
    carol.leave(&mut world);
    assert_eq!(send(&mut world, &mut eve, 1100..1101), 0);
    let mut dora = Phone::connect(&mut world, 7, "ann", 7);
    world.disk_runs = true;
    world.run_disk();
    world.pass_ms(20);
    dora.exchange(&mut world);
    assert_eq!(send(&mut world, &mut dora, 2000..2050), 50, "another session has the room");
}
