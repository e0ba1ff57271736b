//! What a shard's mail takes of memory, while it serves and while it starts.

use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::ControlRequest;
use tern_core::io::Input;
use tern_core::limits::{Limits, MAIL_SLACK_BYTES};

const MIB: usize = 1 << 20;

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

fn limits(mail_bytes: usize) -> Limits {
    Limits { mail_bytes, account_messages_per_s: 0, connection_bytes_per_s: 0, ..Limits::default() }
}

/// A phone that has an account and is away.
fn away(world: &mut World, slot: u32, name: &str) -> Phone {
    let mut phone = Phone::connect(world, slot, name, slot as u8);
    phone.leave(world);
    phone
}

/// Takes all that waits for it, and is away again: the ids.
fn fetch(world: &mut World, phone: &Phone, name: &str) -> Vec<u64> {
    let mut phone = Phone::connect(world, phone.slot, name, phone.slot as u8);
    let mut ids = Vec::new();
    loop {
        let heard: Vec<_> = phone.heard.drain(..).filter_map(|heard| number_and_id(&heard)).collect();
        let Some(&(number, _)) = heard.last() else { break };
        ids.extend(heard.into_iter().map(|(_, id)| id));
        phone.ack(world, number);
    }
    phone.leave(world);
    world.pass_ms(150);
    ids
}

fn number_and_id(heard: &Heard) -> Option<(u32, u64)> {
    match heard {
        Heard::Message { number, id, .. } | Heard::Delivered { number, id } => Some((*number, *id)),
        _ => None,
    }
}

/// Acknowledges the ticks that have come.
fn take_ticks(world: &mut World, phone: &mut Phone) {
    loop {
        phone.hear(world);
        let Some((number, _)) = phone.heard.drain(..).filter_map(|heard| number_and_id(&heard)).next_back()
        else {
            return;
        };
        phone.ack(world, number);
    }
}

#[test]
fn mail_of_all_sizes_holds_no_more_memory_than_it_may() {
    let mut world = World::new(limits(4 * MIB));
    let mut eve = Phone::connect(&mut world, 9, "eve", 9);
    let (keeper, taker) = (away(&mut world, 5, "keeper"), away(&mut world, 6, "taker"));
    let before_bytes = world.held_bytes;
    let mut low = 0;
    let mut kept_count = 0;
    // Bodies of four sizes, and how many of them share a piece of memory.
    for (body_bytes, shared_count) in [(30_000, 7), (15_000, 15), (8_000, 31), (4_000, 62)] {
        let mut is_refused = false;
        for n in 0.. {
            let to = if n % shared_count == 0 { &keeper } else { &taker };
            low += 1;
            eve.send(&mut world, to, id(low), &vec![7; body_bytes]);
            is_refused = eve.heard.iter().any(|heard| matches!(heard, Heard::Busy(_)));
            if is_refused {
                break;
            }
            kept_count += usize::from(n % shared_count == 0);
        }
        assert!(is_refused, "the memory never ends");
        // What was refused comes first again; nobody needs it.
        low -= 1;
        fetch(&mut world, &taker, "taker");
        take_ticks(&mut world, &mut eve);
        eve.leave(&mut world);
        eve = Phone::connect(&mut world, 9, "eve", 9);
        take_ticks(&mut world, &mut eve);
    }
    let counters = world.shard.counters();
    let held_bytes = (world.held_bytes - before_bytes) as usize;
    assert!(held_bytes < 8 * MIB, "{held_bytes} bytes for {} of mail", counters.mail_bytes_now);
    assert!(counters.mail_held_bytes_now <= (4 * MIB + MAIL_SLACK_BYTES) as u64, "{counters:?}");
    assert!(counters.mail_bytes_now < MIB as u64, "little of that is mail: {}", counters.mail_bytes_now);
    assert_eq!(fetch(&mut world, &keeper, "keeper").len(), kept_count);
}

#[test]
fn places_in_mailboxes_count() {
    let mut world = World::new(limits(MIB));
    let mut eve = Phone::connect(&mut world, 9, "eve", 9);
    let absent = away(&mut world, 5, "absent");
    let mut count = 0;
    while !eve.heard.iter().any(|heard| matches!(heard, Heard::Busy(_))) {
        count += 1;
        eve.heard.clear();
        eve.send(&mut world, &absent, id(count), b"x");
    }
    let held_bytes = world.shard.counters().mail_held_bytes_now;
    assert!(world.shard.counters().memory_full > 0);
    assert!(count < MIB as u64 / (256 + 128), "{count} messages of 256 bytes, and their places");
    assert!((MIB..=MIB + MAIL_SLACK_BYTES).contains(&(held_bytes as usize)), "{held_bytes}");
}

#[test]
fn a_start_holds_no_mail_that_nobody_waits_for() {
    let mut world = World::in_segments(16 << 20, 1, limits(2 * MIB));
    let mut ann = Phone::connect(&mut world, 9, "ann", 9);
    let (bob, carol, gone) =
        (away(&mut world, 5, "bob"), away(&mut world, 6, "carol"), away(&mut world, 7, "gone"));
    create(&mut world, 1, "dora", &[2, 3]);
    let mut quick = Phone::connect(&mut world, 2, "dora", 2);
    let mut low = 0;
    let mut send = |world: &mut World, ann: &mut Phone, to: &Phone| {
        low += 1;
        ann.send(world, to, id(low), &[low as u8; 30_000]);
        world.pass_ms(10);
        ann.hear(world);
        assert!(ann.heard.contains(&Heard::Sent(id(low))), "{:?}", ann.heard);
        id(low)
    };
    let (mut carols, mut doras) = (Vec::new(), Vec::new());
    for _ in 0..14 {
        // Dora's other device, and Carol, stay away.
        doras.push(send(&mut world, &mut ann, &quick));
        carols.push(send(&mut world, &mut ann, &carol));
        let bobs: Vec<_> = (0..20).map(|_| send(&mut world, &mut ann, &bob)).collect();
        assert_eq!(fetch(&mut world, &bob, "bob"), bobs);
        quick.hear(&mut world);
        let (number, _) =
            quick.heard.drain(..).filter_map(|heard| number_and_id(&heard)).next_back().unwrap();
        quick.ack(&mut world, number);
        send(&mut world, &mut ann, &gone);
        world.pass_ms(150);
        take_ticks(&mut world, &mut ann);
        fetch(&mut world, &gone, "gone");
        take_ticks(&mut world, &mut ann);
    }
    // The last one waits when its account goes.
    send(&mut world, &mut ann, &gone);
    world.step(Input::Control { token: 8, request: ControlRequest::RemoveAccount { name: "gone".into() } });
    world.pass_ms(150);
    let written_bytes = world.shard.counters().log_bytes_written as usize;
    assert!(written_bytes > 9 * MIB, "{written_bytes} bytes, of which less than one MiB is waited for");
    let mut world = world.kill();
    let most_bytes = world.recovery_bytes_max as usize;
    assert!(most_bytes < 2 * MIB + MAIL_SLACK_BYTES + MIB, "{most_bytes} bytes of {written_bytes} at once");
    assert_eq!(world.wanted_count, 1, "what is waited for was read again");
    assert_eq!(world.shard.counters().mail_count_now, 28);
    assert_eq!(fetch(&mut world, &carol, "carol"), carols);
    let slow = Phone::connect(&mut world, 3, "dora", 3);
    assert_eq!(slow.heard.iter().filter_map(number_and_id).map(|(_, id)| id).collect::<Vec<_>>(), doras);
    let bodies = slow.heard.iter().filter_map(|heard| match heard {
        Heard::Message { id, body, .. } => Some((*id as u8, body)),
        _ => None,
    });
    assert!(bodies.into_iter().all(|(low, body)| *body == vec![low; 30_000]));
}
