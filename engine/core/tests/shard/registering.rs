//! A phone makes its account itself: by what only it can say, which is its first transport record, and not before.

use crate::removing::{look_up, remove};
use crate::revoking::start_disk;
use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_protocol::ids::PartitionId;
use tern_protocol::phone::frame::ClientFrame;

/// A phone that was welcomed and has not said more.
fn welcomed(world: &mut World, slot: u32, name: &str, key: u8) -> Phone {
    let mut phone = Phone::new(slot, name, key);
    assert!(world.accept(slot, None));
    phone.exchange(world);
    world.next_turn();
    phone.hear(world);
    assert!(phone.account.is_some() && phone.heard.is_empty());
    phone
}

fn busy() -> Heard {
    Heard::Goodbye("Busy".into())
}

#[test]
fn a_first_message_that_is_played_again_makes_no_account() {
    let mut world = World::new(Limits { login_ms: 2_000, ..Limits::default() });
    let mut ann = Phone::new(8, "ann", 5);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    assert!(world.accept(8, None));
    ann.client.flush(&mut first);
    world.throw(8, &first);
    ann.hear(&mut world);
    ann.client.flush(&mut second);
    world.throw(8, &second);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained]);
    remove(&mut world, 1, "ann");
    for kills in 0..2 {
        let before = world.shard.counters().log_commits;
        for (slot, flight) in [(10, first.clone()), (11, [first.clone(), second.clone()].concat())] {
            assert!(world.accept(slot, None));
            world.throw(slot, &flight);
            assert!(!world.said(slot).is_empty(), "the first message alone is genuine");
        }
        world.pass_ms(2_010);
        let counters = world.shard.counters();
        assert_eq!((counters.accounts_now, counters.connections_now), (0, 0), "after {kills} kills");
        assert_eq!((counters.logins_unproven, counters.log_commits), (2, before), "after {kills} kills");
        world = world.kill();
    }
    // The name is whoever's comes next.
    create(&mut world, 2, "ann", &[6]);
    assert_eq!(Phone::connect(&mut world, 9, "ann", 6).heard, [Heard::Drained]);
    assert_eq!(Phone::connect(&mut world, 8, "ann", 5).heard, [Heard::Refused("NameTaken".into())]);
}

#[test]
fn a_phone_is_told_its_number_before_its_account_is_made_and_nothing_else() {
    let mut world = World::new(Limits::default());
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    world.disk_runs = false;
    let mut ann = welcomed(&mut world, 2, "ann", 1);
    assert_eq!(world.shard.counters().accounts_created, 1, "only Bob's");
    ann.client.send(&ClientFrame::Lookup { name: "bob" });
    ann.log_in(&mut world);
    assert_eq!((&ann.heard[..], world.shard.counters().accounts_created), (&[][..], 2), "it is held back");
    // Another connection of hers, meanwhile: it is greeted when the account is there.
    let again = Phone::connect(&mut world, 3, "ann", 1);
    assert_eq!(again.account, None);
    assert_eq!(look_up(&mut world, &mut bob, "ann"), Some(Heard::Found(None)), "nobody else is told");
    let mut crashed = world.kill();
    assert_eq!(crashed.shard.counters().accounts_now, 1, "a crash before that leaves nothing");
    let mut bob = Phone::connect(&mut crashed, 1, "bob", 2);
    let mut world = crashed;
    world.disk_runs = false;
    let mut ann = welcomed(&mut world, 2, "ann", 1);
    ann.client.send(&ClientFrame::Lookup { name: "bob" });
    ann.log_in(&mut world);
    start_disk(&mut world);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained, Heard::Found(bob.account.map(|account| account.0))]);
    let found = ann.account.map(|account| account.0);
    assert_eq!(look_up(&mut world, &mut bob, "ann"), Some(Heard::Found(found)));
    let again = Phone::connect(&mut world, 4, "ann", 1);
    assert_eq!(again.account, ann.account);
}

#[test]
fn of_two_who_were_told_one_number_the_first_gets_it_and_the_other_comes_again() {
    let mut world = World::new(Limits::default());
    let partition = |name: &String| PartitionId::of_name(name, 64);
    let other = (0..).map(|n| format!("bob{n}")).find(|name| partition(name) == partition(&"ann".into()));
    let other = other.expect("there are 64");
    let mut ann = welcomed(&mut world, 1, "ann", 1);
    let mut bob = welcomed(&mut world, 2, &other, 2);
    assert_eq!(ann.account, bob.account, "whoever comes first");
    bob.log_in(&mut world);
    assert_eq!(bob.heard, [Heard::Drained]);
    ann.log_in(&mut world);
    assert_eq!(ann.heard, [busy()]);
    assert_eq!(world.shard.counters().registrations_overtaken, 1);
    let ann = Phone::connect(&mut world, 3, "ann", 1);
    assert_eq!(ann.heard, [Heard::Drained]);
    assert!(ann.account.is_some() && ann.account != bob.account);
    assert_eq!(world.shard.counters().accounts_now, 2);
}

#[test]
fn of_two_who_were_greeted_as_one_new_account_one_makes_it() {
    for other_key in [1, 9] {
        let mut world = World::new(Limits::default());
        let mut first = welcomed(&mut world, 1, "ann", 1);
        let mut second = welcomed(&mut world, 2, "ann", other_key);
        first.log_in(&mut world);
        assert_eq!(first.heard, [Heard::Drained]);
        second.log_in(&mut world);
        assert_eq!(second.heard, [busy()]);
        assert_eq!(world.shard.counters().registrations_overtaken, 1);
        let again = Phone::connect(&mut world, 3, "ann", other_key);
        let expected = if other_key == 1 { Heard::Drained } else { Heard::Refused("NameTaken".into()) };
        assert_eq!(again.heard, [expected]);
        assert_eq!(world.shard.counters().accounts_created, 1);
    }
}

#[test]
fn an_account_that_is_removed_before_it_is_stable_comes_and_goes() {
    let mut world = World::new(Limits::default());
    world.disk_runs = false;
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    remove(&mut world, 1, "ann");
    start_disk(&mut world);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [busy()]);
    let counters = world.shard.counters();
    assert_eq!((counters.accounts_now, counters.registrations_overtaken), (0, 0));
    let world = world.kill();
    assert_eq!(world.shard.counters().accounts_now, 0);
}
