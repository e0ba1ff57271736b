//! While an account is being removed: until that is on stable storage a crash may bring it back, and then it has missed
//! nothing; nobody is told before. From then on there is nothing of it.

use crate::revoking::{fill_up, on_a_full_drive, start_disk};
use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, ControlRequest, Created};
use tern_core::io::{Input, Output};
use tern_core::limits::Limits;
use tern_protocol::phone::frame::ClientFrame;
use tern_storage::io::DiskOp;

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

fn message(number: u32, low: u64) -> Heard {
    Heard::Message { number, id: id(low), body: b"x".to_vec() }
}

fn busy() -> Heard {
    Heard::Goodbye("Busy".into())
}

pub(crate) fn remove(world: &mut World, token: u64, name: &str) {
    world.step(Input::Control { token, request: ControlRequest::RemoveAccount { name: name.into() } });
    world.turn();
}

/// The answers of the control plane since somebody looked last.
pub(crate) fn replies(world: &mut World) -> Vec<(u64, ControlReply)> {
    let reply = |output| match output {
        Output::Reply { token, reply } => Some((token, reply)),
        _ => None,
    };
    world.gone_out.drain(..).filter_map(reply).collect()
}

pub(crate) fn look_up(world: &mut World, phone: &mut Phone, name: &str) -> Option<Heard> {
    phone.say(world, &ClientFrame::Lookup { name });
    phone.heard.pop()
}

/// Does one of the disk operations that are under way, and tells nobody.
fn perform(world: &mut World, (op, bytes): &(DiskOp, Vec<u8>)) {
    match op {
        DiskOp::Create { segment, bytes } => drop(world.files.insert(segment.0, vec![0; *bytes as usize])),
        DiskOp::Write { segment, offset, .. } => {
            let file = world.files.get_mut(&segment.0).expect("written after it was made");
            file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
}

#[test]
fn power_that_fails_at_any_point_of_a_removal_leaves_all_of_an_account_or_nothing() {
    const COUNT: u64 = 200;
    let limits = Limits { body_bytes: 1000, commit_bytes: 1000 + 8192, ..Limits::default() };
    // Ann is away, and her mail fills several segments; then she is removed, and the drive has begun nothing of it.
    let removing = || {
        let mut world = World::in_segments(64 << 10, 1, limits);
        let mut ann = Phone::connect(&mut world, 1, "ann", 1);
        ann.leave(&mut world);
        let mut bob = Phone::connect(&mut world, 2, "bob", 2);
        for low in 1..=COUNT {
            bob.send(&mut world, &ann, id(low), &[7; 1000]);
        }
        assert_eq!(bob.heard.len() as u64, 1 + COUNT, "all is ticked");
        world.pass_ms(2_000);
        // Each commit zeroes one segment that is free already.
        for token in 1..=4 {
            create(&mut world, token, &format!("other{token}"), &[7]);
        }
        world.disk_runs = false;
        remove(&mut world, 1, "ann");
        world
    };
    let write_count = removing().disk_queue.len();
    assert!(write_count > 0);
    let mut came_back_count = 0;
    // Writes of one group become stable in any order: all but one of them, or all.
    for missing in 0..=write_count {
        let mut world = removing();
        let queue = world.disk_queue.clone();
        for (_, operation) in queue.iter().enumerate().filter(|&(at, _)| at != missing) {
            perform(&mut world, operation);
        }
        let world = world.kill();
        let counters = world.shard.counters();
        let is_there = counters.accounts_now == 6;
        assert_eq!(counters.mail_count_now, if is_there { COUNT } else { 0 }, "without write {missing}");
        assert!(!(is_there && missing == write_count), "all was written");
        came_back_count += u64::from(is_there);
    }
    assert!(came_back_count > 0);
}

#[test]
fn mail_that_comes_while_an_account_is_being_removed_is_not_lost_if_the_account_comes_back() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 3]);
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    world.disk_runs = false;
    bob.send(&mut world, &ann, id(1), b"x");
    ann.hear(&mut world);
    remove(&mut world, 2, "ann");
    bob.send(&mut world, &ann, id(2), b"x");
    world.pass_ms(100);
    ann.hear(&mut world);
    assert_eq!(ann.heard, [Heard::Drained, message(1, 1)], "neither mail nor a word about its end");
    let found = ann.account.map(|account| account.0);
    assert_eq!(look_up(&mut world, &mut bob, "ann"), Some(Heard::Found(found)), "it is there until then");
    assert_eq!(bob.heard, [Heard::Drained], "nothing is safe, and nobody is unknown");
    assert_eq!(replies(&mut world).len(), 1, "only the first request has its answer");
    let mut world = world.kill();
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    for low in [1, 2] {
        bob.send(&mut world, &ann, id(low), b"x");
    }
    assert_eq!(bob.heard[1..], [Heard::Sent(id(1)), Heard::Sent(id(2))]);
    let ann = Phone::connect(&mut world, 1, "ann", 1);
    assert_eq!(ann.heard, [message(1, 1), message(2, 2), Heard::Drained]);
}

#[test]
fn once_a_removal_is_stable_everybody_hears_of_it_and_the_name_is_free() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1, 3]);
    let mut ann = [1, 3].map(|key| Phone::connect(&mut world, u32::from(key), "ann", key));
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    ann[1].leave(&mut world);
    world.disk_runs = false;
    remove(&mut world, 2, "ann");
    bob.send(&mut world, &ann[0], id(1), b"x");
    start_disk(&mut world);
    ann[0].hear(&mut world);
    assert_eq!(ann[0].heard, [Heard::Drained, Heard::Goodbye("Removed".into())]);
    assert_eq!(replies(&mut world)[1..], [(2, ControlReply::Removed(true))]);
    assert_eq!(look_up(&mut world, &mut bob, "ann"), Some(Heard::Found(None)));
    // What came behind the removal was not taken.
    bob.send(&mut world, &ann[0], id(1), b"x");
    assert_eq!(bob.heard[1..], [Heard::Unknown(id(1))]);
    let mut world = world.kill();
    assert_eq!((world.shard.counters().accounts_now, world.shard.counters().mail_count_now), (1, 0));
    create(&mut world, 3, "ann", &[1]);
    let [(3, ControlReply::Created(created))] = &replies(&mut world)[..] else { panic!("not made") };
    assert!(matches!(created[..], [Created::New(id)] if Some(id) != ann[0].account), "{created:?}");
    assert_eq!(Phone::connect(&mut world, 1, "ann", 1).heard, [Heard::Drained]);
}

#[test]
fn an_account_that_is_being_removed_lets_nobody_in_and_keeps_its_name() {
    let mut world = World::new(Limits::default());
    create(&mut world, 1, "ann", &[1]);
    let ann = Phone::connect(&mut world, 1, "ann", 1);
    let ticket = ann.ticket.expect("a session begins with one");
    // One that was welcomed and has not said more, and one whose ticket is being used up.
    let mut late = Phone::new(5, "ann", 1);
    world.accept(5, None);
    late.exchange(&mut world);
    world.next_turn();
    world.disk_runs = false;
    let mut starting = Phone::resume(&mut world, 6, ticket);
    remove(&mut world, 2, "ann");
    remove(&mut world, 3, "ann");
    create(&mut world, 4, "ann", &[1]);
    late.log_in(&mut world);
    assert_eq!(late.heard, [busy()]);
    for key in [1, 9] {
        assert_eq!(Phone::connect(&mut world, 7, "ann", key).heard, [busy()]);
    }
    assert_eq!(Phone::resume(&mut world, 8, ticket).heard, [Heard::TicketRefused]);
    assert_eq!(replies(&mut world).len(), 1);
    start_disk(&mut world);
    starting.hear(&mut world);
    assert_eq!(starting.heard, [busy()], "its ticket was used up before the removal was stable");
    let expected = [
        (2, ControlReply::Removed(true)),
        (3, ControlReply::Removed(true)),
        (4, ControlReply::Created(vec![Created::Taken])),
    ];
    assert_eq!(replies(&mut world), expected);
    remove(&mut world, 5, "ann");
    assert_eq!(replies(&mut world), [(5, ControlReply::Removed(false))]);
}

#[test]
fn the_long_mailbox_of_a_removed_account_goes_in_pieces() {
    const COUNT: u64 = 300;
    let mut world = World::new(Limits { step_budget: 10, ..Limits::default() });
    let mut ann = Phone::connect(&mut world, 1, "ann", 1);
    ann.leave(&mut world);
    let mut bob = Phone::connect(&mut world, 2, "bob", 2);
    for low in 1..=COUNT {
        bob.send(&mut world, &ann, id(low), b"x");
    }
    remove(&mut world, 1, "ann");
    assert_eq!(replies(&mut world), [(1, ControlReply::Removed(true))], "told before the mailbox is through");
    let counters = world.shard.counters();
    assert_eq!((counters.mail_count_now, counters.mailboxes_filled_now), (COUNT, 0));
    for piece in 1..=COUNT / 10 {
        world.next_turn();
        assert_eq!(world.shard.counters().mail_count_now, COUNT - 10 * piece);
        bob.heard.clear();
        assert_eq!(look_up(&mut world, &mut bob, "ann"), Some(Heard::Found(None)));
    }
    assert_eq!(world.shard.counters().mail_bytes_now, 0);
}

#[test]
fn a_drive_that_is_nearly_full_takes_a_removal() {
    let (mut world, name, mut ann) = on_a_full_drive();
    remove(&mut world, 7, &name);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [Heard::Goodbye("Removed".into())]);
    assert_eq!(world.kill_on_a_full_drive().shard.counters().accounts_now, 0);
}

#[test]
fn a_drive_that_takes_nothing_more_refuses_a_removal_and_the_account_stays() {
    let (mut world, name, mut ann) = on_a_full_drive();
    let mail_count = fill_up(&mut world, ann.account.expect("logged in"));
    replies(&mut world);
    remove(&mut world, 7, &name);
    assert_eq!(replies(&mut world), [(7, ControlReply::Refused)]);
    // While a file is asked for nobody knows yet that there is no room for it.
    world.drive_is_full = true;
    world.disk_runs = false;
    world.pass_ms(1_000);
    for token in [8, 9] {
        remove(&mut world, token, &name);
    }
    assert_eq!(replies(&mut world), []);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [], "it is not told, and not listened to");
    assert_eq!(Phone::connect(&mut world, 5, &name, 1).heard, [busy()]);
    start_disk(&mut world);
    ann.hear(&mut world);
    assert_eq!(ann.heard[1..], [busy()], "it may come back");
    assert_eq!(replies(&mut world), [(8, ControlReply::Refused), (9, ControlReply::Refused)]);
    assert!(Phone::connect(&mut world, 6, &name, 1).account.is_some());
    // A crash changes nothing about that; then there is room again.
    let mut world = world.kill();
    assert!(world.shard.counters().mail_count_now >= mail_count - 1);
    let mut ann = Phone::connect(&mut world, 1, &name, 1);
    world.pass_ms(1_000);
    remove(&mut world, 10, &name);
    ann.hear(&mut world);
    assert_eq!(ann.heard.last(), Some(&Heard::Goodbye("Removed".into())));
    world.pass_ms(100);
    let counters = world.shard.counters();
    assert_eq!((counters.accounts_now, counters.mail_count_now), (0, 0));
}
