//! Who watches whom: bounded for each account and for the shard, and given back.

use crate::stuck::here_and_there;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::ControlRequest;
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::{ClientFrame, PresenceState};

/// Phones outlast their watches.
const IDLE_MS: u64 = 3_600_000;

/// Accounts of another shard watch `to`, those with numbers from `first` on.
fn watch(world: &mut World, to: AccountId, first: u64, count: u64) {
    let (_, there) = here_and_there();
    let mut envelopes = Vec::new();
    for number in first..first + count {
        let parts = Parts {
            kind: Kind::Watch,
            flags: 0,
            to,
            from: AccountId(there.0 + number),
            from_device: DeviceId(1),
            id: MessageId(0),
            time_ms: world.now.wall_ms,
            seq: 0,
            from_name: "",
            body: b"",
        };
        parts.encode(&mut envelopes);
    }
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
}

/// Names whose home is here.
fn names_here() -> impl Iterator<Item = String> {
    (0..).map(|n| format!("ann{n}")).filter(|name| PartitionId::of_name(name, 64).0 < 32)
}

/// Phones of different accounts, whose home is here.
fn phones(world: &mut World, count: u32) -> Vec<Phone> {
    let slots = 10..10 + count;
    names_here().zip(slots).map(|(name, slot)| Phone::connect(world, slot, &name, slot as u8)).collect()
}

/// A world with room for as few watches as may be, all of them taken, and phones of accounts that nobody watches.
fn full() -> (World, (AccountId, String), Phone, Phone) {
    let mut world = World::one_of(2, Limits { watch_count: 4096, idle_ms: IDLE_MS, ..Limits::default() });
    let mut all = phones(&mut world, 6);
    for phone in &all[..4] {
        watch(&mut world, phone.account.unwrap(), 0, 1024);
    }
    assert_eq!(world.shard.counters().watches_now, 4096);
    let (bob, ann) = (all.pop().unwrap(), all.pop().unwrap());
    let crowded = (all[0].account.unwrap(), names_here().next().unwrap());
    (world, crowded, ann, bob)
}

fn told(phone: &mut Phone, world: &mut World) -> Vec<Heard> {
    phone.heard.clear();
    phone.hear(world);
    std::mem::take(&mut phone.heard)
}

const AVAILABLE: Heard = Heard::Presence(PresenceState::Available);

#[test]
fn past_the_shards_limit_a_watch_is_answered_once_and_refused() {
    let (mut world, crowded, mut ann, mut bob) = full();
    let account = ann.account.unwrap();
    bob.heard.clear();
    bob.say(&mut world, &ClientFrame::Watch { account });
    assert_eq!(bob.heard, [AVAILABLE, Heard::WatchRefused]);
    let counters = world.shard.counters();
    assert_eq!((counters.refused_watches, counters.watches_now), (1, 4096));
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    assert_eq!(told(&mut bob, &mut world), [], "no change is told");
    // Who watches already may go on.
    watch(&mut world, crowded.0, 0, 1024);
    assert_eq!(world.shard.counters().refused_watches, 1);
    // They end all by themselves, in accounts that nobody touches, and make room.
    world.now.mono_ns += 601_000_000_000;
    world.pass_ms(3_000);
    assert_eq!(world.shard.counters().watches_now, 0);
    bob.say(&mut world, &ClientFrame::Watch { account });
    assert_eq!(bob.heard, [Heard::Presence(PresenceState::Away)]);
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Available });
    assert_eq!(told(&mut bob, &mut world), [AVAILABLE]);
    assert_eq!(world.shard.counters().watches_now, 1);
}

#[test]
fn an_account_that_is_removed_gives_its_watches_back() {
    let (mut world, crowded, ann, mut bob) = full();
    let name = crowded.1;
    world.step(Input::Control { token: 3, request: ControlRequest::RemoveAccount { name } });
    world.turn();
    assert_eq!(world.shard.counters().watches_now, 3072);
    bob.heard.clear();
    bob.say(&mut world, &ClientFrame::Watch { account: ann.account.unwrap() });
    assert_eq!(bob.heard, [AVAILABLE]);
    // What is still to be looked at of the account that is gone does no harm.
    world.now.mono_ns += 601_000_000_000;
    world.pass_ms(3_000);
    assert_eq!(world.shard.counters().watches_now, 0);
}

#[test]
fn past_an_accounts_limit_a_watch_is_refused_as_well() {
    let mut world = World::one_of(2, Limits::default());
    let mut all = phones(&mut world, 2);
    let (mut bob, account) = (all.pop().unwrap(), all[0].account.unwrap());
    watch(&mut world, account, 0, 1023);
    bob.heard.clear();
    bob.say(&mut world, &ClientFrame::Watch { account });
    assert_eq!(bob.heard, [AVAILABLE]);
    watch(&mut world, account, 5_000, 1);
    let counters = world.shard.counters();
    assert_eq!((counters.account_watches_full, counters.refused_watches), (1, 0));
    bob.say(&mut world, &ClientFrame::Watch { account });
    assert_eq!(bob.heard, [AVAILABLE, AVAILABLE], "it watches already");
}

#[test]
fn a_clock_that_is_set_ends_no_watch() {
    let mut world = World::one_of(2, Limits { idle_ms: IDLE_MS, ..Limits::default() });
    let mut all = phones(&mut world, 2);
    let (mut bob, mut ann) = (all.pop().unwrap(), all.pop().unwrap());
    bob.say(&mut world, &ClientFrame::Watch { account: ann.account.unwrap() });
    world.now.wall_ms += 3_000_000;
    world.pass_ms(1_500);
    bob.heard.clear();
    ann.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    assert_eq!(told(&mut bob, &mut world), [Heard::Presence(PresenceState::Away)]);
    world.now.mono_ns += 601_000_000_000;
    world.pass_ms(1_500);
    assert_eq!(world.shard.counters().watches_now, 0);
}
