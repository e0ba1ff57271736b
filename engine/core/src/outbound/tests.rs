//! Order, memory, and that a long list is a list.

use super::*;
use alloc::vec;
use proptest::prelude::*;

const TO: AccountId = AccountId(1);
const OTHER: AccountId = AccountId(2);

fn sent(numbers: core::ops::Range<u64>) -> Outbound {
    let mut outbound = Outbound::default();
    for n in numbers {
        assert_eq!(outbound.turn(TO, MessageId(n), 0, true), Some(Turn::Now));
    }
    outbound
}

fn later(by: Refuser, in_doubt: Option<u64>) -> Option<Turn> {
    Some(Turn::Later { by, in_doubt: in_doubt.map(MessageId) })
}

#[test]
fn a_message_that_does_not_come_again_is_asked_after_now_and_then() {
    for count in [3, FEW_COUNT as u64 + 3] {
        let mut outbound = sent(1..count + 1);
        outbound.refuse(TO, MessageId(1), 0, Refuser::Lane);
        let mut asked_ms = vec![];
        for ms in 0..10_000 {
            let turn = outbound.turn(TO, MessageId(2 + ms % 2), ms * 1_000_000, true);
            if turn == later(Refuser::Lane, Some(1)) {
                asked_ms.push(ms);
            } else {
                assert_eq!(turn, later(Refuser::Lane, None));
            }
        }
        assert_eq!(asked_ms, [1_000, 2_000, 4_000, 8_000]);
        // It comes again, and is refused again.
        outbound.turn(TO, MessageId(1), 10_000_000_000, true);
        outbound.refuse(TO, MessageId(1), 10_000_000_000, Refuser::Lane);
        assert_eq!(outbound.turn(TO, MessageId(2), 10_900_000_000, true), later(Refuser::Lane, None));
        assert_eq!(outbound.turn(TO, MessageId(2), 11_000_000_000, true), later(Refuser::Lane, Some(1)));
        outbound.done(TO, MessageId(1));
        assert_eq!(outbound.turn(TO, MessageId(2), 11_000_000_001, true), Some(Turn::Now));
    }
}

#[test]
fn what_was_sent_behind_a_refused_message_waits_for_it() {
    let mut outbound = sent(1..4);
    outbound.refuse(TO, MessageId(2), 0, Refuser::Lane);
    assert_eq!(outbound.turn(TO, MessageId(3), 1, true), later(Refuser::Lane, None));
    assert_eq!(outbound.turn(TO, MessageId(1), 1, true), Some(Turn::Now), "it came before");
    assert_eq!(outbound.turn(OTHER, MessageId(9), 1, true), Some(Turn::Now), "another stream");
    assert_eq!(outbound.turn(TO, MessageId(2), 1, true), Some(Turn::Now));
    assert_eq!(outbound.turn(TO, MessageId(3), 1, true), Some(Turn::Now));
}

#[test]
fn it_does_not_matter_who_refuses_first() {
    let mut outbound = sent(1..6);
    outbound.refuse(TO, MessageId(4), 0, Refuser::Lane);
    outbound.refuse(TO, MessageId(2), 0, Refuser::Home);
    outbound.refuse(TO, MessageId(3), 0, Refuser::Home);
    assert_eq!(outbound.turn(TO, MessageId(4), 1, true), later(Refuser::Home, None));
    for n in 2..6 {
        assert_eq!(outbound.turn(TO, MessageId(n), 1, true), Some(Turn::Now));
    }
}

#[test]
fn nobody_waits_for_a_message_that_has_its_answer() {
    let mut outbound = sent(1..4);
    outbound.refuse(TO, MessageId(1), 0, Refuser::Home);
    outbound.refuse(TO, MessageId(2), 0, Refuser::Lane);
    assert_eq!(outbound.done(TO, MessageId(1)).unwrap().waiting_home, Some(TO), "its home must hear of it");
    assert_eq!(outbound.turn(TO, MessageId(3), 1, true), later(Refuser::Lane, None), "2 is still refused");
    assert_eq!(outbound.done(TO, MessageId(2)).unwrap().waiting_home, None);
    assert_eq!(outbound.done(TO, MessageId(2)), None);
    assert_eq!(outbound.turn(TO, MessageId(3), 1, true), Some(Turn::Now));
    outbound.done(TO, MessageId(3));
    assert!(outbound.is_empty());
}

#[test]
fn without_room_only_what_is_known_passes() {
    let mut outbound = sent(1..3);
    outbound.refuse(TO, MessageId(1), 0, Refuser::Lane);
    assert_eq!(outbound.turn(TO, MessageId(3), 1, false), None);
    assert_eq!(outbound.turn(TO, MessageId(1), 1, false), Some(Turn::Now));
    assert_eq!(outbound.len(), 2);
}

#[test]
fn memory_for_many_is_given_back() {
    let mut outbound = sent(0..1000);
    assert!(outbound.capacity() >= 1000);
    (0..1000).for_each(|n| assert_eq!(outbound.done(TO, MessageId(n)).unwrap().waiting_home, None));
    assert!(outbound.capacity() <= FEW_COUNT);
}

#[test]
fn how_long_a_message_took_is_known_also_when_the_clock_wraps() {
    let wrap_ns = (1 << 32) * 1000 - 5_000;
    let mut outbound = Outbound::default();
    outbound.turn(TO, MessageId(1), wrap_ns, true);
    outbound.turn(TO, MessageId(1), wrap_ns + 9_000, true);
    assert_eq!(outbound.done(TO, MessageId(1)).unwrap().took_ns(wrap_ns + 20_000), 20_000);
}

#[test]
fn patience_and_memory_end() {
    let mut outbound = sent(1..COUNT_MAX as u64 + 1);
    outbound.refuse(TO, MessageId(1), 0, Refuser::Lane);
    assert_eq!(outbound.turn(TO, MessageId(2), PATIENCE_NS - 1, true), later(Refuser::Lane, Some(1)));
    assert_eq!(outbound.turn(TO, MessageId(2), PATIENCE_NS, true), Some(Turn::Now));
    assert_eq!(outbound.turn(TO, MessageId(0), PATIENCE_NS, true), None);
}

#[test]
fn an_answer_is_for_the_message_to_whom_it_comes_from() {
    let mut outbound = sent(1..2);
    outbound.turn(OTHER, MessageId(1), 0, true);
    outbound.refuse(TO, MessageId(1), 0, Refuser::Home);
    assert_eq!(outbound.done(OTHER, MessageId(1)).unwrap().waiting_home, None);
    assert_eq!(outbound.done(TO, MessageId(1)).unwrap().waiting_home, Some(TO));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A long list does what looking through all of it does, and none is looked through that is long.
    #[test]
    fn many_are_kept_like_few(
        steps in proptest::collection::vec((0_u8..10, 1_u64..4, 0_u64..200, any::<bool>()), 1..1_000),
    ) {
        let (mut outbound, mut model) = (Outbound::default(), Few::default());
        let mut now_ns = 1;
        for (number, (what, to, id, flag)) in steps.into_iter().enumerate() {
            let (to, id) = (AccountId(to), MessageId(id));
            let by = if flag { Refuser::Home } else { Refuser::Lane };
            match what {
                0..6 => {
                    let has_room = what > 0 || flag;
                    prop_assert_eq!(outbound.turn(to, id, now_ns, has_room), model.turn(to, id, now_ns, has_room));
                }
                6..8 => {
                    outbound.refuse(to, id, now_ns, by);
                    model.refuse(to, id, now_ns, by);
                }
                8 => {
                    let done = model.done(to, id).map(|message| message.home_refused.then_some(message.to));
                    prop_assert_eq!(outbound.done(to, id).map(|done| done.waiting_home), done);
                }
                _ => now_ns += if flag { PATIENCE_NS / 2 } else { 1 },
            }
            prop_assert_eq!(outbound.len(), model.messages.len());
            prop_assert!(!matches!(&outbound, Outbound::Few(few) if few.messages.len() > FEW_COUNT));
            if number % 16 == 0
                && let Outbound::Many(many) = &outbound
            {
                many.check();
            }
        }
    }
}
