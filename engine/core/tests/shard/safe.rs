//! What `sent` promises: nothing that a crash could still swallow.

use crate::stuck::{create, here_and_there};
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::{Input, Lane};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Envelope, FLAG_IMPLIES_SENT, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, ShardId};

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

/// An envelope about message 1 comes from an account of another shard.
fn comes(world: &mut World, kind: Kind, from: AccountId, to: AccountId, seq: u64) {
    let mut envelopes = Vec::new();
    let parts = Parts {
        kind,
        flags: 0,
        to,
        from,
        from_device: DeviceId(1),
        id: MessageId(id(1)),
        time_ms: world.now.wall_ms,
        seq,
        from_name: "ann",
        body: if kind == Kind::Message { b"x" } else { b"" },
    };
    parts.encode(&mut envelopes);
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
}

/// How many of a kind were cast to the other shard.
fn cast_count(world: &World, kind: Kind) -> u64 {
    world.shard.measures().out.mesh[Lane::Control as usize][kind as usize]
}

#[test]
fn a_message_acknowledged_before_its_commit_is_ticked_sent_only_once_its_delivered_tick_is_safe() {
    let mut world = World::one_of(2, Limits { write_back_ms: 50, ..Limits::default() });
    let (name, ann) = here_and_there();
    let mut bob = Phone::connect(&mut world, 1, &name, 2);
    let bob_id = bob.account.unwrap();
    comes(&mut world, Kind::Message, ann, bob_id, 1);
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    assert!(matches!(bob.heard[1..], [Heard::Message { number: 1, .. }]));
    assert_eq!(cast_count(&world, Kind::Delivered), 1);
    // The tick is under way, or lost. The message is in no log and will be in none: a kill now would forget both.
    comes(&mut world, Kind::Message, ann, bob_id, 1);
    assert_eq!(cast_count(&world, Kind::Sent), 0, "nothing on a disk says that she must still hear of it");
    world.pass_ms(100);
    assert_eq!((world.shard.counters().writes_avoided, world.shard.counters().duplicates), (1, 1));
    comes(&mut world, Kind::Message, ann, bob_id, 1);
    assert_eq!(cast_count(&world, Kind::Sent), 0);
    // Her home has written the tick. Its place is the first of the first epoch.
    comes(&mut world, Kind::Confirm, ann, bob_id, 1 << 40 | 1);
    assert_eq!(world.shard.counters().ticks_delivered, 1);
    comes(&mut world, Kind::Message, ann, bob_id, 1);
    assert_eq!(cast_count(&world, Kind::Sent), 1);
}

/// Of each `delivered` tick that was cast to the other shard, whether it implies `sent`.
fn ticks_that_imply_sent(world: &World) -> Vec<bool> {
    let mut run = &*world.cast;
    let mut implied = Vec::new();
    while !run.is_empty() {
        let (envelope, rest) = Envelope::parse_first(run).expect("whole envelopes");
        run = rest;
        if envelope.kind() == Kind::Delivered {
            implied.push(envelope.has(FLAG_IMPLIES_SENT));
        }
    }
    implied
}

#[test]
fn a_tick_that_is_said_again_says_no_more_than_the_first_one_and_sent_comes_when_it_is_confirmed() {
    let mut world = World::one_of(2, Limits { write_back_ms: 50, ..Limits::default() });
    let (name, ann) = here_and_there();
    create(&mut world, 1, &name, &[2, 3]);
    let mut phones = [2, 3].map(|key| Phone::connect(&mut world, u32::from(key), &name, key));
    let bob = phones[0].account.unwrap();
    comes(&mut world, Kind::Message, ann, bob, 1);
    for phone in &mut phones {
        phone.hear(&mut world);
        phone.ack(&mut world, 1);
    }
    // The first device's acknowledgement made the tick. Her home has it; the confirmation is lost.
    assert_eq!(cast_count(&world, Kind::Delivered), 1);
    world.pass_ms(2_001);
    assert_eq!(ticks_that_imply_sent(&world), [false, false]);
    assert_eq!(cast_count(&world, Kind::Sent), 0);
    comes(&mut world, Kind::Confirm, ann, bob, 1 << 40 | 1);
    assert_eq!(world.shard.counters().ticks_delivered, 1);
    assert_eq!(cast_count(&world, Kind::Sent), 1, "no tick has told her");
}

#[test]
fn a_tick_that_implied_sent_does_so_each_time_though_the_message_was_written_meanwhile() {
    let mut world = World::one_of(2, Limits { write_back_ms: 0, ..Limits::default() });
    let (name, ann) = here_and_there();
    let mut bob = Phone::connect(&mut world, 1, &name, 2);
    let bob_id = bob.account.unwrap();
    world.disk_runs = false;
    comes(&mut world, Kind::Message, ann, bob_id, 1);
    bob.hear(&mut world);
    bob.ack(&mut world, 1);
    assert_eq!(cast_count(&world, Kind::Delivered), 1);
    // The tick is lost, and the commit that was under way ends.
    world.disk_runs = true;
    world.run_disk();
    world.pass_ms(2_001);
    assert_eq!(cast_count(&world, Kind::Sent), 0);
    assert_eq!(ticks_that_imply_sent(&world), [true, true]);
}
