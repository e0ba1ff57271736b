//! Bad and full drives: what they must not do to the rest.

use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::phone::ticket::Ticket;
use tern_storage::io::{DiskDone, DiskOp};
use tern_storage::log::Recovery;

pub(crate) const BLOCK: usize = 4096;

#[test]
fn places_do_not_repeat_when_the_boot_epoch_has_rotted() {
    let mut world = World::new(Limits::default());
    // All that is written so far is the epoch: the first commit of its segment, behind the segment's header.
    let is_written = |bytes: &&[u8]| bytes[BLOCK..2 * BLOCK].iter().any(|&byte| byte != 0);
    let epoch = world.files.iter().find(|(_, bytes)| is_written(&&bytes[..])).map(|(&number, _)| number);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let id = |n: u64| 1_800_000_000_u64 << 32 | n;
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"before");
    let file = world.files.get_mut(&epoch.expect("the epoch was written")).expect("it is there");
    file[BLOCK + 110] ^= 0xff;
    let mut world = world.kill_with_rot(1);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    ann.send(&mut world, &bob, id(2), b"after");
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let message = |number, n, body: &[u8]| Heard::Message { number, id: id(n), body: body.to_vec() };
    assert_eq!(bob.heard, [message(1, 1, b"before"), message(2, 2, b"after"), Heard::Drained]);
}

#[test]
fn a_drive_that_is_full_still_hands_out_its_mail() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let id = 1_800_000_000 << 32 | 1;
    ann.send(&mut world, &bob, id, b"waits");
    let mut world = world.kill_on_a_full_drive();
    assert!(world.gone_out.is_empty(), "it starts: {:?}", world.gone_out);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(bob.heard, [Heard::Message { number: 1, id, body: b"waits".to_vec() }, Heard::Drained]);
}

/// A power failure tears a commit with a part in both heads. There is one file that is ready, and no room for another.
#[test]
fn a_drive_that_is_full_starts_with_room_for_the_epoch_alone() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let id = |n: u64| 1_800_000_000_u64 << 32 | n;
    ann.send(&mut world, &bob, id(1), b"waits");
    // One commit is under way, so that the next one has a part in each head.
    world.disk_runs = false;
    ann.send(&mut world, &bob, id(2), b"is under way");
    ann.send(&mut world, &bob, id(3), b"is torn");
    let carol = Phone::connect(&mut world, 2, "carol", 3);
    assert_eq!(carol.heard, []);
    let (under_way, bytes) = world.disk_queue.pop_front().expect("a commit");
    let DiskOp::Write { segment, offset, .. } = under_way else { panic!("{under_way:?}") };
    world.write(segment, offset, &bytes);
    world.step(Input::Disk(DiskDone::Written { segment, offset, result: Ok(()) }));
    world.turn();
    assert_eq!(world.disk_queue.len(), 2, "{:?}", world.disk_queue);
    while let Some((op, mut bytes)) = world.disk_queue.pop_front() {
        let DiskOp::Write { segment, offset, .. } = op else { panic!("{op:?}") };
        // The header is there, and its first record is not.
        bytes[110] ^= 1;
        world.write(segment, offset, &bytes);
    }
    let mut world = world.kill_on_a_drive_with(1);
    assert!(world.gone_out.is_empty(), "it starts: {:?}", world.gone_out);
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let message = |number, n, body: &[u8]| Heard::Message { number, id: id(n), body: body.to_vec() };
    assert_eq!(bob.heard, [message(1, 1, b"waits"), message(2, 2, b"is under way"), Heard::Drained]);
}

#[test]
fn an_account_whose_record_has_rotted_keeps_its_mail_and_its_id() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let id = |n: u64| 1_800_000_000_u64 << 32 | n;
    ann.send(&mut world, &bob, id(1), b"for bob alone");
    let place = |bytes: &[u8]| bytes.windows(3).position(|three| three == b"bob");
    let (file, at) =
        world.files.iter().find_map(|(&file, bytes)| Some((file, place(bytes)?))).expect("bob's record");
    world.files.get_mut(&file).expect("it is there")[at] ^= 0xff;
    let mut world = world.kill_with_rot(1);
    assert_eq!(world.shard.counters().orphans_now, 1);
    // Segment after segment is filled and done with: the one with bob's mail stays.
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let carol = Phone::connect(&mut world, 2, "carol", 4);
    world.cut(2);
    (2..300).for_each(|n| ann.send(&mut world, &carol, id(n), &[7; 30_000]));
    let mut carol = Phone::connect(&mut world, 2, "carol", 4);
    for number in 1..=298 {
        carol.ack(&mut world, number);
    }
    world.pass_s(3);
    assert!(world.shard.counters().segments_free_now >= 2, "{:?}", world.shard.counters());
    let mut world = world.kill_with_rot(1);
    assert_eq!(world.shard.counters().orphans_now, 1);
    let stranger = Phone::connect(&mut world, 1, "bob", 3);
    assert_eq!(stranger.heard, [Heard::Drained], "a stranger gets nothing of it");
    assert_ne!(stranger.account, bob.account);
}

/// Spoils the first record with this name, or mends it again.
fn flip(world: &mut World, name: &str, (file, at): (u32, usize)) {
    let byte = &mut world.files.get_mut(&file).expect("it is there")[at];
    assert!([name.as_bytes()[0], !name.as_bytes()[0]].contains(byte));
    *byte = !*byte;
}

fn place_of(world: &World, name: &str) -> (u32, usize) {
    let place = |bytes: &[u8]| bytes.windows(name.len()).position(|window| window == name.as_bytes());
    world.files.iter().find_map(|(&file, bytes)| Some((file, place(bytes)?))).expect("a record")
}

#[test]
fn an_account_that_can_be_read_again_does_not_share_its_name() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut old = Phone::connect(&mut world, 1, "bob", 2);
    old.leave(&mut world);
    let id = |n: u64| 1_800_000_000_u64 << 32 | n;
    ann.send(&mut world, &old, id(1), b"for the old one");
    let place = place_of(&world, "bob");
    flip(&mut world, "bob", place);
    let mut world = world.kill_with_rot(1);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut new = Phone::connect(&mut world, 1, "bob", 2);
    assert_ne!(new.account, old.account);
    new.leave(&mut world);
    ann.send(&mut world, &new, id(2), b"for the new one");
    // The drive gives the record again.
    flip(&mut world, "bob", place);
    for _ in 0..2 {
        world = world.kill();
        let counters = world.shard.counters();
        assert_eq!((counters.accounts_now, counters.orphans_now), (2, 1));
        let mut bob = Phone::connect(&mut world, 1, "bob", 2);
        assert_eq!(bob.account, new.account);
        let message = Heard::Message { number: 1, id: id(2), body: b"for the new one".to_vec() };
        assert_eq!(bob.heard, [message, Heard::Drained]);
        bob.leave(&mut world);
    }
}

#[test]
fn an_account_whose_record_has_rotted_and_that_only_wrote_keeps_its_id() {
    let mut world = World::new(Limits::default());
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let mut dora = Phone::connect(&mut world, 0, "dora", 4);
    dora.send(&mut world, &bob, 1_800_000_000 << 32 | 1, b"from dora");
    Phone::connect(&mut world, 2, "carol", 3);
    let place = place_of(&world, "dora");
    flip(&mut world, "dora", place);
    let mut world = world.kill_with_rot(1);
    let stranger = Phone::connect(&mut world, 0, "dora", 5);
    assert_ne!(stranger.account, dora.account, "whoever knows the id writes to nobody else");
}

/// She has no mail and wrote none: nothing in the log names her but what has rotted.
#[test]
fn the_id_of_an_account_that_nothing_names_any_more_is_not_given_out_again() {
    let mut world = World::new(Limits::default());
    let dora = Phone::connect(&mut world, 0, "dora", 4);
    Phone::connect(&mut world, 2, "carol", 3);
    let place = place_of(&world, "dora");
    flip(&mut world, "dora", place);
    // Also at a later start, which knows the damage.
    let mut world = world.kill_with_rot(1).kill_with_rot(1);
    let stranger = Phone::connect(&mut world, 0, "dora", 5);
    let (old, new) = (dora.account.expect("logged in"), stranger.account.expect("logged in"));
    assert_eq!(old.partition(), new.partition());
    assert!(new.counter() > old.counter());
    // The damage is gone, and her record is there again: she has her id, and who has her name keeps it.
    flip(&mut world, "dora", place);
    let mut world = world.kill();
    assert_eq!(Phone::connect(&mut world, 0, "dora", 5).account, Some(new));
}

#[test]
fn a_ticket_does_not_work_twice_though_the_record_of_its_use_has_rotted() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let used = ann.ticket.expect("every session begins with a ticket");
    ann.leave(&mut world);
    let mut ann = Phone::resume(&mut world, 0, used);
    assert_eq!(ann.heard, [Heard::Drained]);
    let next = ann.ticket.expect("and with another ticket");
    ann.leave(&mut world);
    let last = |bytes: &[u8]| bytes.windows(3).rposition(|three| three == b"ann");
    let (file, at) =
        world.files.iter().find_map(|(&file, bytes)| Some((file, last(bytes)?))).expect("ann's records");
    // It is not the last one of its segment: it cannot have been torn.
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    world.files.get_mut(&file).expect("it is there")[at] ^= 0xff;
    world.pass_s(2);
    let mut world = world.kill_with_rot(1);
    world.pass_s(2);
    for ticket in [used, next, bob.ticket.expect("likewise")] {
        assert_eq!(Phone::resume(&mut world, 0, ticket).heard, [Heard::TicketRefused]);
    }
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    assert_eq!(ann.heard, [Heard::Drained]);
    let ticket = ann.ticket.expect("a key brings a ticket");
    ann.leave(&mut world);
    assert_eq!(Phone::resume(&mut world, 0, ticket).heard, [Heard::Drained]);
}

/// Ann's account before her ticket was used, and the last file, which says that it was. The record there is spoilt.
fn with_a_used_ticket_in_a_segment_of_its_own(start_ms: u64) -> (World, Ticket) {
    let limits = Limits { idle_ms: 86_400_000, ..Limits::default() };
    let mut world = World::at_in_segments(start_ms, 2 << 20, limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let used = ann.ticket.expect("every session begins with a ticket");
    ann.leave(&mut world);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let fill = |world: &mut World, bob: &mut Phone| {
        let files = |world: &World| tables(world).len();
        let before = files(world);
        while files(world) == before {
            bob.leave(world);
            *bob = Phone::resume(world, 1, bob.ticket.expect("a ticket"));
            assert_eq!(bob.heard, [Heard::Drained]);
        }
    };
    fill(&mut world, &mut bob);
    Phone::resume(&mut world, 0, used).leave(&mut world);
    let file = *tables(&world).last().expect("a segment");
    fill(&mut world, &mut bob);
    let bytes = world.files.get_mut(&file).expect("it is there");
    let at = bytes.windows(3).rposition(|three| three == b"ann").expect("ann's record");
    bytes[at] ^= 0xff;
    (world, used)
}

/// The files of the tables, as they follow each other.
pub(crate) fn tables(world: &World) -> Vec<u32> {
    files_of(world, 2)
}

/// Likewise of any head.
pub(crate) fn files_of(world: &World, head: u8) -> Vec<u32> {
    let generation = |bytes: &[u8]| Recovery::generation(bytes);
    let files = world.files.iter().filter(|(_, bytes)| generation(bytes).is_some() && bytes[14] == head);
    let mut files: Vec<u32> = files.map(|(&file, _)| file).collect();
    files.sort_by_key(|file| generation(&world.files[file]));
    files
}

fn refuses(world: &mut World, ticket: Ticket) {
    assert_eq!(Phone::resume(world, 0, ticket).heard, [Heard::TicketRefused]);
}

#[test]
fn a_used_ticket_is_refused_also_when_the_damage_is_gone_from_the_log() {
    let (world, used) = with_a_used_ticket_in_a_segment_of_its_own(1_800_000_000_000);
    let mut world = world.kill_with_rot(1);
    refuses(&mut world, used);
    world.pass_s(2);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let next = ann.ticket.expect("a key brings a ticket");
    ann.leave(&mut world);
    // Nothing lives beside the damage: with the second commit its file is free.
    Phone::connect(&mut world, 2, "carol", 3);
    for _ in 0..2 {
        world.pass_s(2);
        world = world.kill();
        refuses(&mut world, used);
    }
    assert_eq!(Phone::resume(&mut world, 0, next).heard, [Heard::Drained], "later ones count");
}

/// The clock was dead at the start with the damage: no ticket of before counts, neither then nor when it is set.
#[test]
fn a_used_ticket_is_refused_whatever_the_clock_said_at_the_start() {
    const NOW_MS: u64 = 1_800_000_000_000;
    let (mut world, used) = with_a_used_ticket_in_a_segment_of_its_own(NOW_MS);
    world.now.wall_ms = 1_577_880_000_000;
    let mut world = world.kill_with_rot(1);
    refuses(&mut world, used);
    world.now.wall_ms = NOW_MS + 60_000;
    world.pass_s(1_300);
    assert_eq!(world.shard.counters().clock_doubted_now, 0, "it is set");
    refuses(&mut world, used);
    let mut world = world.kill();
    refuses(&mut world, used);
}

/// Of a start by a clock that was a month ahead nothing is left once that is set back.
#[test]
fn tickets_count_again_when_a_clock_was_ahead_at_the_start_with_the_damage() {
    const NOW_MS: u64 = 1_800_000_000_000;
    let (mut world, used) = with_a_used_ticket_in_a_segment_of_its_own(NOW_MS);
    world.now.wall_ms = NOW_MS + 31 * 86_400_000;
    let mut world = world.kill_with_rot(1);
    world.now.wall_ms = NOW_MS + 60_000;
    world.pass_s(1_300);
    assert_eq!(world.shard.counters().clock_doubted_now, 0, "it is set");
    refuses(&mut world, used);
    for _ in 0..2 {
        let mut ann = Phone::connect(&mut world, 0, "ann", 1);
        let next = ann.ticket.expect("a key brings a ticket");
        ann.leave(&mut world);
        assert_eq!(Phone::resume(&mut world, 0, next).heard, [Heard::Drained]);
        world.pass_s(2);
        world = world.kill();
        refuses(&mut world, used);
    }
}

/// The damage of before does not make every later start refuse the tickets that were made since; new damage does.
#[test]
fn tickets_count_again_behind_damage_that_was_told() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let used = ann.ticket.expect("every session begins with a ticket");
    ann.leave(&mut world);
    Phone::resume(&mut world, 0, used).leave(&mut world);
    let last = |world: &World| {
        let place = |bytes: &[u8]| bytes.windows(3).rposition(|three| three == b"ann");
        world.files.iter().find_map(|(&file, bytes)| Some((file, place(bytes)?))).expect("a record")
    };
    let place = last(&world);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    flip(&mut world, "ann", place);
    world.pass_s(2);
    let mut world = world.kill_with_rot(1);
    refuses(&mut world, used);
    world.pass_s(2);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    ann.leave(&mut world);
    for _ in 0..2 {
        world.pass_s(2);
        world = world.kill_with_rot(1);
        refuses(&mut world, used);
        ann = Phone::resume(&mut world, 0, ann.ticket.expect("a ticket"));
        assert_eq!(ann.heard, [Heard::Drained], "the damage was known when it was made");
        ann.leave(&mut world);
    }
    let used = ann.ticket.expect("a ticket");
    Phone::resume(&mut world, 0, used).leave(&mut world);
    let place = last(&world);
    Phone::connect(&mut world, 2, "carol", 3);
    flip(&mut world, "ann", place);
    world.pass_s(2);
    let mut world = world.kill_with_rot(2);
    refuses(&mut world, used);
}

/// The damage is the last of its segment, and the one behind that is freed: it is no other damage.
#[test]
fn tickets_count_again_when_the_segment_behind_the_damage_is_freed() {
    let limits = Limits { idle_ms: 86_400_000, ..Limits::default() };
    let mut world = World::at_in_segments(1_800_000_000_000, 2 << 20, limits);
    // What keeps the first one.
    Phone::connect(&mut world, 2, "carol", 3).leave(&mut world);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let fill = |world: &mut World, bob: &mut Phone| {
        let last = *tables(world).last().expect("a segment");
        while tables(world).last() == Some(&last) {
            bob.leave(world);
            *bob = Phone::resume(world, 1, bob.ticket.expect("a ticket"));
            assert_eq!(bob.heard, [Heard::Drained]);
        }
        last
    };
    let rotten = fill(&mut world, &mut bob);
    let bytes = world.files.get_mut(&rotten).expect("it is there");
    let at = bytes.windows(3).rposition(|three| three == b"bob").expect("bob's record");
    bytes[at] ^= 0xff;
    let mut world = world.kill_with_rot(1);
    refuses(&mut world, bob.ticket.expect("a ticket"));
    world.pass_s(2);
    bob = Phone::connect(&mut world, 1, "bob", 2);
    let behind = fill(&mut world, &mut bob);
    assert_ne!(behind, rotten);
    let generation = |world: &World| Recovery::generation(&world.files[&behind]);
    let before = generation(&world);
    for _ in 0..2 {
        bob.leave(&mut world);
        world.pass_s(2);
        world = world.kill_with_rot(1);
        bob = Phone::resume(&mut world, 1, bob.ticket.expect("a ticket"));
        assert_eq!(bob.heard, [Heard::Drained], "the damage was known when it was made");
        Phone::connect(&mut world, 0, "ann", 1).leave(&mut world);
        Phone::connect(&mut world, 2, "carol", 3).leave(&mut world);
    }
    assert_ne!(generation(&world), before, "it was freed");
    assert!(tables(&world).contains(&rotten));
}

#[test]
fn tickets_count_again_while_the_same_file_is_left_alone() {
    let mut world = World::new(Limits::default());
    Phone::connect(&mut world, 0, "ann", 1).leave(&mut world);
    let hidden = tables(&world);
    let mut world = world.kill_without(&hidden);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let early = ann.ticket.expect("a ticket");
    ann.leave(&mut world);
    refuses(&mut world, early);
    world.pass_s(2);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    for _ in 0..2 {
        ann.leave(&mut world);
        world.pass_s(2);
        world = world.kill_without(&hidden);
        refuses(&mut world, early);
        ann = Phone::resume(&mut world, 0, ann.ticket.expect("a ticket"));
        assert_eq!(ann.heard, [Heard::Drained]);
    }
}
