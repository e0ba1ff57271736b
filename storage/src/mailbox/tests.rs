//! What a mailbox keeps, what it lets go of, and what looking costs.

use super::*;
use std::vec::Vec;
use tern_protocol::ids::DeviceId;

fn entry(seq: u64, waiting: u16, tick: TickState) -> Entry {
    Entry {
        seq: Seq(seq),
        from: AccountId(9),
        from_device: DeviceId(1),
        id: MessageId(seq * 10),
        waiting: DeviceSet(waiting),
        kind: EntryKind::Message,
        tick,
        answered: false,
        time_s: 0,
        mail: None,
        position: None,
    }
}

fn taken(mailbox: &mut Mailbox) -> Vec<u64> {
    let mut taken = Vec::new();
    mailbox.take_over(|entry| taken.push(entry.seq.0));
    taken
}

/// Looks for a message; where it is and what that cost.
fn look(mailbox: &mut Mailbox, id: u64) -> (Option<Seq>, usize) {
    mailbox.0.as_mut().unwrap().look(key(AccountId(9), MessageId(id), EntryKind::Message))
}

const AT: Position = Position { segment: crate::io::SegmentId(0), offset: 0 };

#[test]
fn looking_for_a_retry_costs_the_same_in_a_long_mailbox() {
    let mut mailbox = Mailbox::default();
    // All have the first one, no record holds it, and its tick is never confirmed.
    mailbox.push(entry(1, 0, TickState::Owed));
    for seq in 2..100_000 {
        mailbox.push(entry(seq, 1, TickState::NotDue));
        mailbox.set_durable(Seq(seq), AT);
    }
    let first = look(&mut mailbox, 770);
    assert_eq!(first, (None, 100_063), "once all are looked at");
    for n in 0..1_000 {
        let (place, looked_count) = look(&mut mailbox, n);
        assert_eq!((place, looked_count), ((n == 10).then_some(Seq(1)), 0));
        mailbox.push(entry(100_000 + n, 1, TickState::NotDue));
        mailbox.set_durable(Seq(100_000 + n), AT);
    }
    mailbox.change(Seq(1), |entry| entry.tick = TickState::Settled);
    assert_eq!(look(&mut mailbox, 10), (None, 0), "nothing is volatile");
    assert_eq!(taken(&mut mailbox), [1]);
    assert!(mailbox.0.as_ref().unwrap().places.is_none());
    // While the log is behind: each is found.
    for n in 0..1_000 {
        mailbox.push(entry(200_000 + n, 1, TickState::NotDue));
    }
    let mut looked_count = 0;
    for n in (0..1_000).rev() {
        let (place, count) = look(&mut mailbox, (200_000 + n) * 10);
        assert_eq!(place, Some(Seq(200_000 + n)));
        looked_count += count;
    }
    let (len, once) = (mailbox.open_count(), LOOK_COUNT * (LOOK_COUNT + 1) / 2);
    assert_eq!(looked_count, once + LOOK_COUNT + len, "but for those at the end, by their order");
}

#[test]
fn what_is_over_behind_the_front_counts_for_nothing_and_does_not_stay() {
    let mut mailbox = Mailbox::default();
    // A device that never comes keeps the first; of the others every second one is over at once.
    mailbox.push(entry(1, 0b10, TickState::NotDue));
    let (mut left, mut held_max) = (Vec::new(), 0);
    for seq in 2..20_002 {
        mailbox.push(entry(seq, 0b01, TickState::Settled));
        mailbox.change(Seq(seq), |entry| entry.waiting = DeviceSet::default());
        left.extend(taken(&mut mailbox));
        held_max = held_max.max(mailbox.0.as_ref().unwrap().entries.len());
    }
    assert_eq!(mailbox.open_count(), 1);
    assert!(held_max <= OVER_COUNT_MIN + 1, "{held_max} are kept");
    assert!(left.len() >= 20_000 - OVER_COUNT_MIN && left.is_sorted());
    assert_eq!(mailbox.settled_up_to(), None, "the first one is not over: no floor covers what is behind it");
    mailbox.push(entry(30_000, 0b10, TickState::NotDue));
    mailbox.change(Seq(1), |entry| (entry.waiting, entry.tick) = (DeviceSet(0), TickState::Settled));
    left.extend(taken(&mut mailbox));
    assert_eq!(left.len(), 20_001);
    assert_eq!(mailbox.settled_up_to(), Some(Seq(20_001)));
}

#[test]
fn the_places_of_what_is_left_are_found_when_the_middle_has_gone() {
    let mut mailbox = Mailbox::default();
    (1..=200).for_each(|seq| mailbox.push(entry(seq, 1 << (seq % 2), TickState::Settled)));
    for index in (1..200).step_by(2) {
        mailbox.change_at(index, |entry| entry.waiting = DeviceSet(0));
    }
    assert_eq!(taken(&mut mailbox).len(), 100);
    assert!((0..100).all(|index| mailbox.at(index).unwrap().seq == Seq(2 * index as u64 + 1)));
    assert_eq!(mailbox.index_above(Seq(50)), 25);
    assert!(mailbox.find(Seq(50)).is_none() && mailbox.find(Seq(51)).is_some());
    assert!(!mailbox.set_durable(Seq(50), AT), "its record comes too late");
    assert_eq!(mailbox.settled_up_to(), Some(Seq(200)), "what waits owes no tick");
}

#[test]
fn nobody_closes_a_mailbox_for_the_others() {
    let mut mailbox = Mailbox::default();
    let mut next_seq = 0;
    let mut send = |mailbox: &mut Mailbox, from: u64| {
        let has_share = mailbox.has_share_for(AccountId(from), 1_000, u64::MAX);
        if has_share {
            next_seq += 1;
            mailbox.push(Entry { from: AccountId(from), ..entry(next_seq, 1, TickState::NotDue) });
        }
        has_share
    };
    let count = |mailbox: &Mailbox, from: u64| {
        mailbox.0.as_ref().unwrap().entries.iter().filter(|entry| entry.from.0 == from).count()
    };
    while send(&mut mailbox, 1) {}
    assert_eq!(count(&mailbox, 1), 501, "half, and the one that makes it more");
    while send(&mut mailbox, 2) {}
    assert_eq!(count(&mailbox, 2), 250);
    (3..20).for_each(|from| while send(&mut mailbox, from) {});
    assert!(send(&mut mailbox, 99), "a newcomer finds room yet: {}", mailbox.open_count());
    // Who is given room gives others none: shares are of what waits now.
    let first = |mailbox: &Mailbox| mailbox.at(0).unwrap().seq;
    for _ in 0..400 {
        let seq = first(&mailbox);
        mailbox.change(seq, |entry| (entry.waiting, entry.tick) = (DeviceSet(0), TickState::Settled));
        taken(&mut mailbox);
    }
    assert!(send(&mut mailbox, 1));
    for _ in 0..400 {
        mailbox.pop_any();
    }
    assert!(mailbox.0.as_ref().unwrap().senders.is_none(), "nobody asks any more");
}

#[test]
fn leaves_from_the_front_only_when_all_is_settled() {
    let mut mailbox = Mailbox::default();
    mailbox.push(entry(1, 0, TickState::Owed));
    mailbox.push(entry(5, 0, TickState::Settled));
    assert_eq!(taken(&mut mailbox), [], "the first one owes a tick");
    mailbox.change(Seq(1), |entry| entry.tick = TickState::Settled);
    assert_eq!(taken(&mut mailbox), [1, 5]);
    assert_eq!(mailbox.settled_up_to(), Some(Seq(5)));
}

#[test]
fn what_waits_is_settled_up_to_the_first_that_is_not() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=5 {
        mailbox.push(entry(seq * 10, 0b10, TickState::NotDue));
    }
    let settle = |mailbox: &mut Mailbox, seq| {
        mailbox.change(Seq(seq), |entry| entry.tick = TickState::Settled);
        let found = mailbox.settled_up_to();
        mailbox.note_settled();
        assert_eq!(mailbox.settled_up_to(), found);
        found
    };
    assert_eq!(mailbox.settled_up_to(), None);
    assert_eq!(settle(&mut mailbox, 20), None);
    assert_eq!(settle(&mut mailbox, 10), Some(Seq(20)));
    assert_eq!(settle(&mut mailbox, 40), Some(Seq(20)));
    assert_eq!(settle(&mut mailbox, 30), Some(Seq(40)));
    // The last one leaves, and one behind it comes.
    mailbox.change(Seq(40), |entry| entry.waiting = DeviceSet(0));
    mailbox.change(Seq(50), |entry| (entry.waiting, entry.tick) = (DeviceSet(0), TickState::Settled));
    assert_eq!(mailbox.settled_up_to(), Some(Seq(50)));
    mailbox.push(entry(60, 0b10, TickState::Owed));
    assert_eq!(mailbox.settled_up_to(), Some(Seq(50)));
    assert_eq!([40, 60, 70].map(|seq| mailbox.is_settled(Seq(seq))), [true, false, true]);
    assert_eq!(settle(&mut mailbox, 60), Some(Seq(60)));
}

#[test]
#[should_panic(expected = "came back")]
fn a_place_never_comes_back() {
    let mut mailbox = Mailbox::default();
    mailbox.push(entry(7, 0, TickState::Settled));
    taken(&mut mailbox);
    mailbox.push(entry(7, 1, TickState::NotDue));
}

#[test]
fn a_floor_matters_only_over_written_records() {
    let mut mailbox = Mailbox::default();
    assert!(!mailbox.floor_matters(Seq(0), Seq(9)), "nothing was ever written");
    mailbox.note_written(Seq(4));
    assert!(mailbox.floor_matters(Seq(0), Seq(9)));
    assert!(!mailbox.floor_matters(Seq(4), Seq(9)), "the record at 4 is covered already");
}

#[test]
fn an_empty_mailbox_forgets_what_no_floor_can_matter_for_and_no_more() {
    let mut mailbox = Mailbox::default();
    mailbox.push(entry(3, 0, TickState::Settled));
    mailbox.push(entry(4, 1, TickState::Settled));
    mailbox.note_written(Seq(4));
    taken(&mut mailbox);
    let held_bytes = mailbox.held_bytes();
    assert!(!mailbox.let_rest(Seq(9)) && mailbox.held_bytes() == held_bytes && mailbox.open_count() == 1);
    mailbox.change(Seq(4), |entry| entry.waiting = DeviceSet::default());
    taken(&mut mailbox);
    assert!(!mailbox.let_rest(Seq(3)), "a floor at 3 does not cover the record at 4");
    assert!(mailbox.floor_matters(Seq(3), Seq(9)) && mailbox.settled_up_to() == Some(Seq(4)));
    assert!((1..100).contains(&mailbox.held_bytes()), "but there are no entries to keep memory for");
    assert!(mailbox.let_rest(Seq(4)));
    assert!(!mailbox.floor_matters(Seq(4), Seq(9)) && mailbox.held_bytes() == 0);
    mailbox.push(entry(5, 1, TickState::NotDue));
    assert_eq!(mailbox.open_count(), 1);
}

#[test]
fn the_rest_of_a_long_list_does_not_hold_the_memory_of_all_of_it() {
    let mut mailbox = Mailbox::default();
    (1..=10_000).for_each(|seq| mailbox.push(entry(seq, 1, TickState::Settled)));
    assert!(mailbox.held_bytes() > 10_000 * size_of::<Entry>());
    for seq in 1..=9_990 {
        mailbox.change(Seq(seq), |entry| entry.waiting = DeviceSet::default());
        taken(&mut mailbox);
    }
    assert_eq!(
        (mailbox.open_count(), mailbox.find(Seq(10_000)).map(|entry| entry.seq)),
        (10, Some(Seq(10_000)))
    );
    assert!(mailbox.held_bytes() < 300 * size_of::<Entry>(), "{}", mailbox.held_bytes());
}

#[test]
fn reading_position_is_found() {
    let mut mailbox = Mailbox::default();
    for seq in [2, 4, 6] {
        mailbox.push(entry(seq, 1, TickState::NotDue));
    }
    assert_eq!(mailbox.index_above(Seq(0)), 0);
    assert_eq!(mailbox.index_above(Seq(4)), 2);
    assert_eq!(mailbox.index_above(Seq(6)), 3);
    assert_eq!(mailbox.volatile(AccountId(9), MessageId(40), EntryKind::Message), Some(Seq(4)));
    mailbox.set_durable(Seq(4), Position { segment: crate::io::SegmentId(0), offset: 0 });
    assert_eq!(mailbox.volatile(AccountId(9), MessageId(40), EntryKind::Message), None);
}
