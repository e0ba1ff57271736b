//! While a device is being revoked: until that is on stable storage a crash may bring the device back, and then it has
//! missed nothing; nobody is told before.

use crate::stuck::{create, here_and_there};
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, ShardId};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;

const fn revoke(device: u16) -> ClientFrame<'static> {
    ClientFrame::RevokeDevice { device: DeviceId(device) }
}

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

pub(crate) fn add(key: u8) -> ClientFrame<'static> {
    ClientFrame::AddDevice { key: KeyPair::from_seed([key; 32]).public }
}

fn message(number: u32, low: u64) -> Heard {
    Heard::Message { number, id: id(low), body: b"x".to_vec() }
}

pub(crate) fn devices(list: &[(u16, bool)]) -> Heard {
    Heard::Devices(list.to_vec())
}

pub(crate) fn busy() -> Heard {
    Heard::Goodbye("Busy".into())
}

/// Account ann with so many devices, whose keys are 1, 2 and so on; each is connected in the slot of that number.
fn ann_with(world: &mut World, device_count: u8) -> Vec<Phone> {
    let keys: Vec<u8> = (1..=device_count).collect();
    create(world, 1, "ann", &keys);
    keys.into_iter().map(|key| Phone::connect(world, u32::from(key), "ann", key)).collect()
}

pub(crate) fn start_disk(world: &mut World) {
    world.disk_runs = true;
    world.run_disk();
    world.turn();
}

#[test]
fn a_crash_before_a_revoking_is_stable_brings_the_device_back_and_it_has_missed_nothing() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 2);
    let mut bob = Phone::connect(&mut world, 9, "bob", 9);
    world.disk_runs = false;
    ann[0].say(&mut world, &revoke(2));
    bob.send(&mut world, &ann[0], id(1), b"x");
    ann[0].hear(&mut world);
    assert_eq!(ann[0].heard, [Heard::Drained, message(1, 1)], "it has the message, and no answer");
    ann[0].ack(&mut world, 1);
    world.pass_ms(100);
    bob.hear(&mut world);
    assert!(
        !bob.heard.contains(&Heard::Sent(id(1))),
        "all who stay have it, but the device is still one of them"
    );
    ann[1].hear(&mut world);
    assert_eq!(ann[1].heard, [Heard::Drained], "neither mail nor a word about its end");
    let mut world = world.kill();
    let mut bob = Phone::connect(&mut world, 9, "bob", 9);
    bob.send(&mut world, &ann[0], id(1), b"x");
    let ann = Phone::connect(&mut world, 2, "ann", 2);
    assert_eq!(ann.heard, [message(1, 1), Heard::Drained]);
}

#[test]
fn once_a_revoking_is_stable_everybody_hears_of_it_and_nothing_waits_for_the_device() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 2);
    let mut bob = Phone::connect(&mut world, 9, "bob", 9);
    world.disk_runs = false;
    ann[0].say(&mut world, &revoke(2));
    bob.send(&mut world, &ann[0], id(1), b"x");
    ann[0].hear(&mut world);
    ann[0].ack(&mut world, 1);
    start_disk(&mut world);
    world.pass_ms(5);
    ann[0].hear(&mut world);
    assert_eq!(ann[0].heard[2..], [devices(&[(1, true)])]);
    ann[1].hear(&mut world);
    assert_eq!(ann[1].heard, [Heard::Drained, Heard::Goodbye("Removed".into())]);
    bob.hear(&mut world);
    let ticks = [Heard::Delivered { number: 1, id: id(1) }, Heard::Sent(id(1))];
    assert!(ticks.iter().all(|tick| bob.heard.contains(tick)), "{:?}", bob.heard);
    bob.ack(&mut world, 1);
    world.pass_ms(300);
    assert_eq!(world.shard.counters().mail_count_now, 0);
    assert_eq!(world.kill().shard.counters().mail_count_now, 0);
}

#[test]
fn a_device_that_is_being_revoked_may_not_come_back() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 2);
    let ticket = ann[1].ticket.expect("a session begins with one");
    // Two that were welcomed and have not said more: by key, and by ticket.
    let mut late = Phone::new(5, "ann", 2);
    world.accept(5, None);
    late.exchange(&mut world);
    world.disk_runs = false;
    ann[0].say(&mut world, &revoke(2));
    late.log_in(&mut world);
    assert_eq!(late.heard, [busy()]);
    assert_eq!(Phone::connect(&mut world, 6, "ann", 2).heard, [busy()]);
    assert_eq!(Phone::resume(&mut world, 7, ticket).heard, [Heard::TicketRefused]);
    ann[1].say(&mut world, &ClientFrame::Ping { token: 1 });
    assert_eq!(ann[1].heard, [Heard::Drained], "what it says is not listened to");
    start_disk(&mut world);
    assert_eq!(Phone::connect(&mut world, 8, "ann", 2).heard, [Heard::Refused("NameTaken".into())]);
}

#[test]
fn two_revokings_one_after_the_other_become_stable_one_after_the_other() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 3);
    world.disk_runs = false;
    for device in [2, 3, 3, 1] {
        ann[0].say(&mut world, &revoke(device));
    }
    assert_eq!(ann[0].heard[1..], [Heard::DevicesRefused("LastDevice".into())], "one must stay");
    // The first record is stable, the second one not under way.
    world.disk_runs = true;
    world.run_disk();
    world.disk_runs = false;
    world.turn();
    ann[0].hear(&mut world);
    assert_eq!(ann[0].heard[2..], [devices(&[(1, true), (3, false)])], "as it is on stable storage");
    let mut world = world.kill();
    let third = Phone::connect(&mut world, 3, "ann", 3);
    assert!(third.account.is_some(), "it came back");
    assert!(Phone::connect(&mut world, 2, "ann", 2).account.is_none());
    let mut first = Phone::connect(&mut world, 1, "ann", 1);
    for _ in 0..2 {
        first.say(&mut world, &revoke(3));
    }
    let gone = [devices(&[(1, true)]), Heard::DevicesRefused("UnknownDevice".into())];
    assert_eq!(first.heard[1..], gone);
}

#[test]
fn a_device_that_revokes_itself_hears_so_when_it_is_stable() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 2);
    world.disk_runs = false;
    ann[1].client.send(&revoke(2));
    // In the same record: it is too late for that.
    ann[1].say(&mut world, &add(4));
    assert_eq!(ann[1].heard, [Heard::Drained]);
    start_disk(&mut world);
    ann[1].hear(&mut world);
    assert_eq!(ann[1].heard, [Heard::Drained, Heard::Goodbye("Removed".into())]);
    ann[0].say(&mut world, &ClientFrame::Devices);
    assert_eq!(ann[0].heard[1..], [devices(&[(1, true)])]);
}

#[test]
fn the_key_of_a_revoked_device_may_come_again_once_that_is_stable_and_gets_another_number() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 2);
    world.disk_runs = false;
    ann[0].say(&mut world, &revoke(2));
    ann[0].say(&mut world, &add(2));
    let refused = Heard::DevicesRefused("Internal".into());
    assert_eq!(ann[0].heard[1..], [refused], "a drive that takes no record would leave two with one key");
    start_disk(&mut world);
    world.disk_runs = false;
    ann[0].say(&mut world, &add(2));
    let mut new = Phone::connect(&mut world, 5, "ann", 2);
    assert!(new.account.is_none(), "its adding is not stable: a crash would give its number to another one");
    start_disk(&mut world);
    ann[0].hear(&mut world);
    assert_eq!(ann[0].heard[2..], [devices(&[(1, true)]), devices(&[(1, true), (3, false)])]);
    new.log_in(&mut world);
    assert_eq!(new.heard, [Heard::Drained]);
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.say(&mut world, &ClientFrame::Devices);
    assert_eq!(ann.heard[1..], [devices(&[(1, true), (3, false)])]);
    assert!(Phone::connect(&mut world, 2, "ann", 2).account.is_some());
}

#[test]
fn a_tick_for_a_device_that_was_revoked_goes_to_nobody() {
    for crash in [false, true] {
        let mut world = World::new(Limits::default());
        let mut ann = ann_with(&mut world, 2);
        let mut bob = Phone::connect(&mut world, 9, "bob", 9);
        for low in [1, 2] {
            ann[1].send(&mut world, &bob, id(low), b"x");
        }
        ann[1].leave(&mut world);
        // One tick comes while the device is there, the other one when it is gone.
        bob.hear(&mut world);
        bob.ack(&mut world, 1);
        world.pass_ms(300);
        ann[0].say(&mut world, &revoke(2));
        let mut world = if crash {
            world.kill()
        } else {
            ann[0].leave(&mut world);
            bob.leave(&mut world);
            world
        };
        let mut bob = Phone::connect(&mut world, 9, "bob", 9);
        assert_eq!(bob.heard, [message(1, 2), Heard::Drained]);
        bob.ack(&mut world, 1);
        world.pass_ms(300);
        let mut first = Phone::connect(&mut world, 1, "ann", 1);
        let copy = |number, low| {
            let to = bob.account.expect("logged in").0;
            Heard::Copy { number, to, id: id(low), body: b"x".to_vec() }
        };
        assert_eq!(first.heard, [copy(1, 1), copy(2, 2), Heard::Drained], "after a crash: {crash}");
        first.ack(&mut world, 2);
        world.pass_ms(300);
        assert_eq!(world.shard.counters().mail_count_now, 0, "nobody owes a tick for ever");
    }
}

#[test]
fn who_asks_about_a_change_again_and_again_while_the_log_takes_nothing_is_refused() {
    let mut world = World::new(Limits { account_asks_per_s: 0, ..Limits::default() });
    let mut ann = ann_with(&mut world, 2);
    world.disk_runs = false;
    // Nothing is to be waited for.
    ann[0].say(&mut world, &add(2));
    assert_eq!(ann[0].heard[1..], [devices(&[(1, true), (2, true)])]);
    ann[0].heard.clear();
    ann[0].say(&mut world, &add(3));
    let ask = |world: &mut World, ann: &mut Phone, frame: &ClientFrame<'_>| {
        (0..1_000).for_each(|_| ann.client.send(frame));
        ann.exchange(world);
    };
    (0..10).for_each(|_| ask(&mut world, &mut ann[0], &add(3)));
    assert_eq!(world.shard.held().waiter_count, 4096);
    let refused = Heard::DevicesRefused("Internal".into());
    assert_eq!(ann[0].heard, vec![refused.clone(); 10_001 - 4096]);
    ann[0].heard.clear();
    // A change itself still finds its place, however many ask about it.
    ann[0].say(&mut world, &revoke(2));
    assert_eq!(ann[0].heard, []);
    ask(&mut world, &mut ann[0], &revoke(2));
    assert_eq!(ann[0].heard, vec![refused; 1_000]);
    ann[0].heard.clear();
    // Those who have left ask no more.
    ann[0].leave(&mut world);
    world.pass_s(2);
    assert_eq!(world.shard.held().waiter_count, 2, "the changes");
    start_disk(&mut world);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.say(&mut world, &ClientFrame::Devices);
    assert_eq!(ann.heard[1..], [devices(&[(1, true), (3, false)])]);
    assert_eq!(world.shard.held().waiter_count, 0);
}

#[test]
fn logins_that_gave_up_waiting_for_the_log_are_forgotten() {
    let mut world = World::new(Limits::default());
    let mut ann = ann_with(&mut world, 1);
    world.disk_runs = false;
    ann[0].say(&mut world, &add(2));
    for round in 0..1_100 {
        assert!(Phone::connect(&mut world, 5, "ann", 2).account.is_none(), "login {round}");
        world.cut(5);
    }
    let mut last = Phone::connect(&mut world, 6, "ann", 2);
    world.pass_s(2);
    assert_eq!(world.shard.held().waiter_count, 2, "the change, and the login that is still there");
    start_disk(&mut world);
    last.log_in(&mut world);
    assert!(last.account.is_some());
}

/// A node whose drive has no room for another file, and its account with devices 1 and 2.
pub(crate) fn on_a_full_drive() -> (World, String, Phone) {
    let mut world =
        World::one_of(2, Limits { mailbox_count: 100_000, write_back_ms: 0, ..Limits::default() });
    let (name, _) = here_and_there();
    create(&mut world, 1, &name, &[1, 2]);
    let account = Phone::connect(&mut world, 1, &name, 1).account.expect("logged in");
    // So that there is a segment for mail.
    tick(&mut world, account, 0);
    let mut world = world.kill_on_a_full_drive();
    assert!(world.gone_out.is_empty(), "it starts: {:?}", world.gone_out);
    let ann = Phone::connect(&mut world, 1, &name, 1);
    assert_eq!(ann.heard, [Heard::Drained]);
    (world, name, ann)
}

fn tick(world: &mut World, to: AccountId, low: u64) {
    let (_, from) = here_and_there();
    let parts = Parts {
        kind: Kind::Delivered,
        flags: 0,
        to,
        from,
        from_device: DeviceId(2),
        id: MessageId(id(low)),
        time_ms: world.now.wall_ms,
        seq: low,
        from_name: "",
        body: &[],
    };
    let mut envelopes = Vec::new();
    parts.encode(&mut envelopes);
    world.step(Input::Mesh { from: ShardId(1), envelopes: &envelopes });
    world.turn();
}

/// Ticks, which may use the last of a drive, for device 2, until the log takes nothing more.
pub(crate) fn fill_up(world: &mut World, to: AccountId) -> u64 {
    for low in 1..5_000 {
        let before = world.shard.counters().log_commits;
        tick(world, to, low);
        if world.shard.counters().log_commits == before {
            return low;
        }
    }
    panic!("the drive never filled up");
}

#[test]
fn a_drive_that_is_nearly_full_takes_a_revoking_and_nothing_new() {
    let (mut world, name, mut ann) = on_a_full_drive();
    ann.say(&mut world, &add(4));
    ann.say(&mut world, &revoke(2));
    assert_eq!(ann.heard[1..], [Heard::DevicesRefused("Internal".into()), devices(&[(1, true)])]);
    let mut world = world.kill_on_a_full_drive();
    assert!(Phone::connect(&mut world, 2, &name, 2).account.is_none());
}

#[test]
fn a_drive_that_takes_nothing_more_refuses_a_revoking_and_the_device_stays() {
    let (mut world, name, mut ann) = on_a_full_drive();
    let tick_count = fill_up(&mut world, ann.account.expect("logged in"));
    let refused = Heard::DevicesRefused("Internal".into());
    ann.say(&mut world, &revoke(2));
    assert_eq!(ann.heard[1..], *std::slice::from_ref(&refused));
    let mut other = Phone::connect(&mut world, 2, &name, 2);
    assert_eq!(other.heard.first(), Some(&Heard::Delivered { number: 1, id: id(0) }), "it goes on");
    // While a file is asked for nobody knows yet that there is no room for it.
    world.drive_is_full = true;
    world.disk_runs = false;
    world.pass_ms(1_000);
    ann.say(&mut world, &revoke(2));
    assert_eq!(ann.heard[2..], []);
    other.hear(&mut world);
    assert_eq!(Phone::connect(&mut world, 5, &name, 2).heard, [busy()]);
    start_disk(&mut world);
    ann.hear(&mut world);
    assert_eq!(ann.heard[2..], [refused]);
    other.hear(&mut world);
    assert_eq!(other.heard.last(), Some(&busy()), "it may come back");
    assert!(Phone::connect(&mut world, 2, &name, 2).account.is_some());
    // A crash changes nothing about that; then there is room again.
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 1, &name, 1);
    assert!(Phone::connect(&mut world, 2, &name, 2).account.is_some());
    assert!(world.shard.counters().mail_count_now >= tick_count - 1);
    world.pass_ms(1_000);
    ann.say(&mut world, &revoke(2));
    assert_eq!(ann.heard.last(), Some(&devices(&[(1, true)])));
    world.pass_ms(100);
    assert_eq!(world.shard.counters().mail_count_now, 0, "its mail is gone");
}
