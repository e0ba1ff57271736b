//! Files that the drive does not give at one start and gives again at a later one.

use crate::rewriting::{SEGMENT_BYTES, id, limits, number_of, rush};
use crate::rot::{BLOCK, files_of, tables};
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_storage::io::SegmentId;
use tern_storage::log::{LogConfig, Record, Recovery, era};

fn heard_ids(phone: &Phone) -> Vec<u64> {
    let id = |heard: &Heard| if let Heard::Message { id, .. } = heard { Some(*id) } else { None };
    phone.heard.iter().filter_map(id).collect()
}

/// A phone acknowledges what it hears, up to a number, until nothing more comes.
fn ack_all(world: &mut World, phone: &mut Phone, up_to: u32) {
    let number = |heard: &Heard| match heard {
        Heard::Message { number, .. } | Heard::Delivered { number, .. } => Some(*number),
        _ => None,
    };
    let mut done = 0;
    loop {
        let last = phone.heard.iter().filter_map(number).max().unwrap_or(0).min(up_to);
        if last == done {
            return;
        }
        phone.ack(world, last);
        done = last;
    }
}

/// What is acknowledged while a file is left alone says nothing of the mail in it.
#[test]
fn mail_that_could_not_be_read_is_handed_out_when_it_is_back() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"hidden");
    let hidden = files_of(&world, 1);
    assert_eq!(hidden.len(), 1);
    for round in 0..2 {
        world = world.kill_without(&hidden);
        ann = Phone::connect(&mut world, 0, "ann", 1);
        ann.send(&mut world, &bob, id(2 + round), b"meanwhile");
        bob = Phone::connect(&mut world, 1, "bob", 2);
        assert_eq!(heard_ids(&bob), [id(2 + round)]);
        bob.ack(&mut world, 1);
        world.pass_s(3);
        bob.leave(&mut world);
    }
    for _ in 0..2 {
        world = world.kill();
        bob = Phone::connect(&mut world, 1, "bob", 2);
        assert!(heard_ids(&bob).contains(&id(1)), "{:?}", bob.heard);
        bob.leave(&mut world);
        ann = Phone::connect(&mut world, 0, "ann", 1);
        assert!(
            !ann.heard.iter().any(|heard| matches!(heard, Heard::Delivered { id: of, .. } if *of == id(1)))
        );
        ann.leave(&mut world);
    }
    bob = Phone::connect(&mut world, 1, "bob", 2);
    ack_all(&mut world, &mut bob, u32::MAX);
    world.pass_s(3);
    bob.leave(&mut world);
    for _ in 0..2 {
        world = world.kill();
        bob = Phone::connect(&mut world, 1, "bob", 2);
        assert_eq!(bob.heard, [Heard::Drained], "what was acknowledged since counts");
        bob.leave(&mut world);
    }
}

/// The floor of before lies in another file than the mail that is hidden, and outlives all that comes after it.
#[test]
fn what_was_acknowledged_before_is_not_handed_out_with_mail_that_is_back() {
    let mut world = World::in_segments(2 << 20, 1, Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    bob.leave(&mut world);
    let mut count = 0;
    while files_of(&world, 1).len() < 2 {
        count += 1;
        ann.send(&mut world, &bob, id(count), &[7; 30_000]);
    }
    let hidden = files_of(&world, 1)[0];
    let floors = files_of(&world, 1)[1];
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    ack_all(&mut world, &mut bob, count as u32 - 2);
    world.pass_s(3);
    ack_all(&mut world, &mut ann, u32::MAX);
    bob.leave(&mut world);
    world.pass_s(3);
    let mut world = world.kill_without(&[hidden]);
    let generation = |world: &World| Recovery::generation(&world.files[&floors]);
    let before = generation(&world);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    for round in 1..=3 {
        (0..100).for_each(|n| ann.send(&mut world, &bob, id(1_000 * round + n), &[8; 30_000]));
        bob = Phone::connect(&mut world, 1, "bob", 2);
        ack_all(&mut world, &mut bob, u32::MAX);
        world.pass_s(3);
        ack_all(&mut world, &mut ann, u32::MAX);
        bob.leave(&mut world);
        world.pass_s(3);
    }
    assert_eq!(generation(&world), before, "it stays for the floor of before");
    let mut world = world.kill();
    bob = Phone::connect(&mut world, 1, "bob", 2);
    let heard = heard_ids(&bob);
    assert!(heard.contains(&id(count - 1)), "{heard:?}");
    assert!(heard.iter().all(|heard| *heard >= id(count - 1)), "{heard:?}");
}

/// All that names the boot epoch cannot be read for a while: its places are not given out again.
#[test]
fn an_epoch_that_cannot_be_read_is_not_begun_again() {
    let mut world = World::new(Limits::default());
    for n in 0..2 {
        let mut ann = Phone::connect(&mut world, 0, "ann", 1);
        let mut bob = Phone::connect(&mut world, 1, "bob", 2);
        bob.leave(&mut world);
        ann.send(&mut world, &bob, id(n), b"somewhere");
        ann.leave(&mut world);
        if n == 0 {
            let hidden = [files_of(&world, 1), tables(&world)].concat();
            world = world.kill_without(&hidden);
        }
    }
    assert_eq!(steps(&world), [SKIP]);
}

/// The epochs of all places in the log.
fn epochs(world: &World) -> Vec<u64> {
    read(world).0
}

/// Stands for the epochs that a start skips behind what it cannot read: a random number of them.
const SKIP: u64 = 1024;

/// By how many each is above the one before.
fn steps(world: &World) -> Vec<u64> {
    let epochs = epochs(world);
    assert_eq!(epochs[0], 1);
    let step = |two: &[u64]| if (1024..2050).contains(&(two[1] - two[0])) { SKIP } else { two[1] - two[0] };
    epochs.windows(2).map(step).collect()
}

/// Likewise, and the era of the last record.
fn read(world: &World) -> (Vec<u64>, u32) {
    let config = LogConfig {
        stream: 0,
        segment_bytes: 4 << 20,
        commit_bytes_max: 1 << 20,
        spare_count: 0,
        segment_count_max: 100,
        salt_seed: 0,
    };
    let (mut recovery, mut places) = (Recovery::new(config), Vec::new());
    let mut files: Vec<_> = world.files.iter().collect();
    files.sort_by_key(|(_, bytes)| Recovery::generation(bytes));
    for (&file, bytes) in files {
        let mut note = |_, _, record: Record<'_>| {
            if let Record::Mail { seq, .. } = record {
                places.push(seq);
            }
        };
        recovery.segment(SegmentId(file), bytes, &mut note).expect("it is readable");
    }
    places.sort_unstable();
    let (_, report) = recovery.finish();
    (places.iter().map(|place| place.0 >> 40).collect(), era(report.last_lsn))
}

fn send_one(world: &mut World, n: u64) {
    let mut ann = Phone::connect(world, 0, "ann", 1);
    let mut bob = Phone::connect(world, 1, "bob", 2);
    bob.leave(world);
    ann.send(world, &bob, id(n), b"somewhere");
    ann.leave(world);
}

/// The second one knows nothing of the first, and both know the same of all else.
#[test]
fn two_starts_that_do_not_see_each_other_begin_other_epochs() {
    let mut world = World::new(Limits::default());
    send_one(&mut world, 0);
    let all = |world: &World| [files_of(world, 1), tables(world)].concat();
    for n in 1..=4 {
        let hidden = all(&world);
        world = world.kill_without(&hidden);
        send_one(&mut world, n);
    }
    let mut begun = epochs(&world);
    begun.dedup();
    assert_eq!(begun.len(), 5, "{begun:?}");
    let mut generations: Vec<_> =
        all(&world).iter().map(|file| Recovery::generation(&world.files[file])).collect();
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), all(&world).len());
    // All of it is back.
    world.kill();
}

/// There are 2^24 epochs, and a node may start every few seconds: what is known to be hidden uses up one a start.
#[test]
fn epochs_are_skipped_once_for_a_file_that_is_left_alone() {
    let mut world = World::new(Limits::default());
    send_one(&mut world, 0);
    let hidden = [files_of(&world, 1), tables(&world)].concat();
    for n in 1..=4 {
        world = world.kill_without(&hidden);
        send_one(&mut world, n);
    }
    assert_eq!(steps(&world), [SKIP, 1, 1, 1]);
}

/// As long as the last epoch's record can be read, what was not there when it was written says nothing of later ones; but
/// what was there meanwhile may.
#[test]
fn epochs_are_skipped_again_for_what_was_there_meanwhile() {
    let mut world = World::new(Limits::default());
    send_one(&mut world, 0);
    let first = [files_of(&world, 1), tables(&world)].concat();
    world = world.kill_without(&first);
    send_one(&mut world, 1);
    let second = tables(&world).into_iter().filter(|file| !first.contains(file));
    let second: Vec<u32> = second.collect();
    let all = [first.clone(), second].concat();
    // The record that names the first ones is not there any more.
    world = world.kill_without(&all);
    send_one(&mut world, 2);
    assert_eq!(steps(&world), [SKIP, SKIP]);
    // What is back goes on as of another time, and is not written on.
    let before = world.files[&first[1]].clone();
    world = world.kill();
    send_one(&mut world, 3);
    assert_eq!(steps(&world), [SKIP, SKIP, 1]);
    assert!(before == world.files[&first[1]]);
    world = world.kill_without(&first);
    send_one(&mut world, 4);
    assert_eq!(steps(&world), [SKIP, SKIP, 1, SKIP]);
}

/// The end of a segment may take an epoch along only as long as it is the newest. A place names it, too.
#[test]
fn epochs_are_skipped_once_for_an_end_that_cannot_be_read() {
    for head in [1, 2] {
        let mut world = World::new(Limits::default());
        send_one(&mut world, 0);
        let file = *files_of(&world, head).last().expect("the open one");
        let end = world.files[&file].chunks(BLOCK).position(|block| block.iter().all(|&byte| byte == 0));
        let end = (end.expect("room") * BLOCK) as u32;
        for n in 1..=3 {
            world = world.kill_without_blocks(&[(file, end)]);
            send_one(&mut world, n);
        }
        // Epochs are among the tables.
        let first = if head == 1 { 1 } else { SKIP };
        assert_eq!(steps(&world), [first, 1, 1]);
        world = world.kill();
        send_one(&mut world, 4);
        assert_eq!(steps(&world)[3..], [1]);
    }
}

/// A file is left alone, is back, and is left alone again, and the record of the first such start can still be read.
#[test]
fn what_is_back_does_not_take_the_next_epoch() {
    let mut world = World::new(Limits::default());
    send_one(&mut world, 0);
    let older = tables(&world);
    world = world.kill_without(&older);
    send_one(&mut world, 1);
    let newer: Vec<u32> = tables(&world).into_iter().filter(|file| !older.contains(file)).collect();
    assert_eq!(newer.len(), 1);
    // The head goes on in the older one, which names the newer one.
    world = world.kill_without(&newer);
    let before = world.files[&newer[0]].clone();
    let (_, era_before) = read(&world);
    world = world.kill();
    assert!(before == world.files[&newer[0]], "the newest of its head is not written on");
    assert!(read(&world).1 > era_before, "what is written from now on tells of it");
    send_one(&mut world, 2);
    world = world.kill_without(&newer);
    send_one(&mut world, 3);
    let epochs = epochs(&world);
    assert!(epochs.windows(2).all(|two| two[0] < two[1]), "{epochs:?}");
}

/// The numbers of the files that hold these bytes.
fn files_with(world: &World, bytes: &[u8]) -> Vec<u32> {
    let has = |file: &Vec<u8>| file.windows(bytes.len()).any(|place| place == bytes);
    world.files.iter().filter(|(_, file)| has(file)).map(|(&number, _)| number).collect()
}

/// A copy says no more that the mail was not there for a time, and what was acknowledged meanwhile is still in the log.
#[test]
fn mail_that_is_back_stays_so_when_it_is_written_elsewhere() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut carol = Phone::connect(&mut world, 2, "carol", 3);
    bob.leave(&mut world);
    carol.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"was not there");
    assert_eq!(ann.heard.pop(), Some(Heard::Sent(id(1))));
    rush(&mut world, &mut ann, 9, 2, 70);
    let hidden = files_with(&world, b"was not there")[0];
    let generation = |world: &World| Recovery::generation(&world.files[&hidden]);
    let before = generation(&world);
    assert!(before.is_some());
    world = world.kill_without(&[hidden]);
    // What bob acknowledges is in a segment full of mail for carol.
    ann = Phone::connect(&mut world, 0, "ann", 1);
    let carols = |world: &mut World, ann: &mut Phone, from: u64| {
        // Many in each commit.
        for first in (from..from + 40).step_by(8) {
            world.disk_runs = false;
            (first..first + 8).for_each(|n| ann.send(world, &carol, id(n), &[8; 1000]));
            world.disk_runs = true;
            world.run_disk();
            world.turn();
            world.pass_ms(10);
        }
    };
    carols(&mut world, &mut ann, 100);
    ann.send(&mut world, &bob, id(99), b"meanwhile");
    bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(bob.heard.iter().filter_map(number_of).count(), 1, "{:?}", bob.heard);
    bob.ack(&mut world, 1);
    world.pass_ms(100);
    bob.leave(&mut world);
    carols(&mut world, &mut ann, 200);
    ann.leave(&mut world);
    // It is back, and what lives in its file is written elsewhere.
    world = world.kill();
    ann = Phone::connect(&mut world, 0, "ann", 1);
    for round in 0..30 {
        if generation(&world) != before {
            break;
        }
        rush(&mut world, &mut ann, 9, 1_000 + 100 * round, 60);
        world.pass_ms(3_000);
    }
    assert!(generation(&world) != before, "the file was freed");
    assert!(files_with(&world, b"was not there").iter().any(|&file| file != hidden));
    ann.leave(&mut world);
    for _ in 0..2 {
        world = world.kill();
        bob = Phone::connect(&mut world, 1, "bob", 2);
        let bodies = bob
            .heard
            .iter()
            .filter(|heard| matches!(heard, Heard::Message { body, .. } if body == b"was not there"));
        assert_eq!(bodies.count(), 1, "{:?}", bob.heard);
        bob.leave(&mut world);
    }
}

/// The block in which a commit with these bytes begins. It has no other.
fn block_with(world: &World, bytes: &[u8]) -> (u32, u32) {
    let file = files_with(world, bytes)[0];
    let at = world.files[&file].windows(bytes.len()).position(|place| place == bytes);
    (file, (at.expect("it is there") / BLOCK * BLOCK) as u32)
}

fn is_told(phone: &Phone, id: u64) -> bool {
    phone.heard.iter().any(|heard| matches!(heard, Heard::Delivered { id: of, .. } if *of == id))
}

/// One at the end of a segment, and one with more behind it: other mail in the file counts as acknowledged.
#[test]
fn mail_in_a_block_that_could_not_be_read_is_handed_out_when_it_is_back() {
    for is_last in [true, false] {
        let mut world = World::new(Limits::default());
        let mut ann = Phone::connect(&mut world, 0, "ann", 1);
        let mut bob = Phone::connect(&mut world, 1, "bob", 2);
        bob.leave(&mut world);
        let mut before = 1;
        ann.send(&mut world, &bob, id(2), b"was there");
        ann.send(&mut world, &bob, id(1), b"in the block");
        if !is_last {
            before += 1;
            ann.send(&mut world, &bob, id(3), b"behind it");
        }
        let place = block_with(&world, b"in the block");
        assert_ne!(place, block_with(&world, b"was there"));
        for round in 0..3 {
            world = world.kill_without_blocks(&[place]);
            ann = Phone::connect(&mut world, 0, "ann", 1);
            ann.send(&mut world, &bob, id(10 + round), b"meanwhile");
            bob = Phone::connect(&mut world, 1, "bob", 2);
            let expected = if round == 0 { before + 1 } else { 1 };
            assert_eq!(heard_ids(&bob).len(), expected, "only what is new: {:?}", bob.heard);
            ack_all(&mut world, &mut bob, u32::MAX);
            world.pass_s(3);
            ack_all(&mut world, &mut ann, u32::MAX);
            bob.leave(&mut world);
        }
        for _ in 0..2 {
            world = world.kill();
            bob = Phone::connect(&mut world, 1, "bob", 2);
            assert!(heard_ids(&bob).contains(&id(1)), "{:?}", bob.heard);
            bob.leave(&mut world);
            ann = Phone::connect(&mut world, 0, "ann", 1);
            assert!(!is_told(&ann, id(1)));
            ann.leave(&mut world);
        }
        bob = Phone::connect(&mut world, 1, "bob", 2);
        ack_all(&mut world, &mut bob, u32::MAX);
        world.pass_s(3);
        bob.leave(&mut world);
        world = world.kill();
        bob = Phone::connect(&mut world, 1, "bob", 2);
        assert_eq!(bob.heard, [Heard::Drained], "what was acknowledged since counts");
    }
}

/// Nothing else lives in its file, of which other ones follow. What is hidden may be as young as when it was missed first.
#[test]
fn a_file_with_mail_that_cannot_be_read_stays_until_that_would_have_expired() {
    for (days, stays) in [(29, true), (31, false)] {
        let mut world = World::in_segments(2 << 20, 1, Limits::default());
        let mut ann = Phone::connect(&mut world, 0, "ann", 1);
        let mut bob = Phone::connect(&mut world, 1, "bob", 2);
        bob.leave(&mut world);
        ann.send(&mut world, &bob, id(1), b"in the block");
        let place = block_with(&world, b"in the block");
        ann.send(&mut world, &bob, id(2), b"behind it");
        let header = |world: &World| world.files[&place.0][..8].to_vec();
        let generation = |world: &World| Recovery::generation(&world.files[&place.0]);
        let before = (header(&world), generation(&world));
        for later_days in [40, days] {
            world.now.wall_ms += later_days * 86_400_000;
            world = world.kill_without_blocks(&[place]);
            bob = Phone::connect(&mut world, 1, "bob", 2);
            ack_all(&mut world, &mut bob, u32::MAX);
            bob.leave(&mut world);
            for n in 0..4 {
                world.pass_s(3);
                // An account more: what is given back is marked with a commit.
                Phone::connect(&mut world, 2, &format!("carol{later_days}{n}"), 3 + n).leave(&mut world);
            }
            let is_as_before = (header(&world), generation(&world)) == before;
            assert_eq!(is_as_before, later_days == 40 || stays, "{later_days} days");
        }
    }
}

/// First the whole file, then a block of it.
#[test]
fn mail_in_a_file_of_which_a_part_is_back_is_handed_out_as_it_comes() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut carol = Phone::connect(&mut world, 2, "carol", 3);
    bob.leave(&mut world);
    carol.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"for bob");
    ann.send(&mut world, &carol, id(2), b"for carol");
    ann.send(&mut world, &bob, id(3), b"behind it");
    let place = block_with(&world, b"for carol");
    let read = |world: &mut World, to: &Phone, n: u64| {
        let mut ann = Phone::connect(world, 0, "ann", 1);
        ann.send(world, to, id(n), b"meanwhile");
        ann.leave(world);
        let (shard, name, key) = if to.account == bob.account { (1, "bob", 2) } else { (2, "carol", 3) };
        let mut to = Phone::connect(world, shard, name, key);
        ack_all(world, &mut to, u32::MAX);
        world.pass_s(3);
        to.leave(world);
        heard_ids(&to)
    };
    world = world.kill_without(&[place.0]);
    assert_eq!((read(&mut world, &bob, 10), read(&mut world, &carol, 11)), (vec![id(10)], vec![id(11)]));
    world = world.kill_without_blocks(&[place]);
    assert_eq!(read(&mut world, &carol, 12), [id(12)]);
    let heard = read(&mut world, &bob, 13);
    assert!(heard.contains(&id(1)) && heard.contains(&id(3)), "{heard:?}");
    world = world.kill();
    let heard = read(&mut world, &carol, 14);
    assert!(heard.contains(&id(2)), "{heard:?}");
}

/// The head goes on in a file that is back, and that is left alone once more.
#[test]
fn mail_that_came_between_two_times_without_its_file_is_handed_out() {
    let mut world = World::new(Limits::default());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut carol = Phone::connect(&mut world, 2, "carol", 3);
    bob.leave(&mut world);
    carol.leave(&mut world);
    ann.send(&mut world, &bob, id(1), b"the first");
    let hidden = files_with(&world, b"the first");
    world = world.kill_without(&hidden).kill().kill();
    ann = Phone::connect(&mut world, 0, "ann", 1);
    ann.send(&mut world, &carol, id(2), b"between");
    assert_eq!(files_with(&world, b"between"), hidden);
    world = world.kill_without(&hidden);
    ann = Phone::connect(&mut world, 0, "ann", 1);
    ann.send(&mut world, &carol, id(3), b"meanwhile");
    carol = Phone::connect(&mut world, 2, "carol", 3);
    assert_eq!(heard_ids(&carol), [id(3)]);
    ack_all(&mut world, &mut carol, u32::MAX);
    world.pass_s(3);
    carol.leave(&mut world);
    world = world.kill();
    carol = Phone::connect(&mut world, 2, "carol", 3);
    assert!(heard_ids(&carol).contains(&id(2)), "{:?}", carol.heard);
    bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(heard_ids(&bob), [id(1)]);
}
