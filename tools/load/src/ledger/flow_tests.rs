//! A tiny server on either side of a flow: an honest one finds no fault, each kind of dishonesty finds its own.

use super::*;
use crate::ledger::Faults;
use proptest::prelude::*;

const RUN: Run = Run { started_s: 1_000, first_low: u32::MAX - 2 };
const BUSY_NS: u64 = 500;

/// The server's view of one flow: a mailbox in order, its dedup memory, what the addressee acknowledged.
#[derive(Default)]
struct Mailbox {
    held: Vec<MessageId>,
    handed_out_count: usize,
    acknowledged_count: usize,
    ticks: Vec<MessageId>,
    refused_from: Option<MessageId>,
}

struct World {
    flow: Flow,
    tally: Tally,
    mailbox: Mailbox,
    now_ns: u64,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Submit,
    Send { arrives: bool, tick_arrives: bool },
    Busy,
    Wait,
    Hand,
    Acknowledge { arrives: bool },
    Confirm,
    CutSender,
    CutAddressee,
}

impl World {
    fn new() -> Self {
        Self { flow: Flow::new(RUN), tally: Tally::default(), mailbox: Mailbox::default(), now_ns: 1 }
    }

    fn send(&mut self, arrives: bool, tick_arrives: bool) {
        let Some(out) = self.flow.next_to_send(self.now_ns) else { return };
        if !arrives {
            // What is lost on the way is lost with its connection.
            return self.flow.sender_connected(self.now_ns);
        }
        let mailbox = &mut self.mailbox;
        match mailbox.refused_from {
            Some(from) if from != out.id => {
                return self.flow.on_busy(out.id, self.now_ns + BUSY_NS, &mut self.tally);
            }
            _ => mailbox.refused_from = None,
        }
        if !mailbox.held.contains(&out.id) {
            mailbox.held.push(out.id);
        }
        if tick_arrives {
            self.flow.on_sent(out.id, self.now_ns, &mut self.tally);
        } else {
            self.flow.sender_connected(self.now_ns);
        }
    }

    fn refuse(&mut self) {
        if let Some(out) = self.flow.next_to_send(self.now_ns)
            && !self.mailbox.held.contains(&out.id)
        {
            let first = *self.mailbox.refused_from.get_or_insert(out.id);
            self.flow.on_busy(out.id, self.now_ns + BUSY_NS, &mut self.tally);
            assert!(first.0 as u32 == out.id.0 as u32 || self.mailbox.refused_from.is_some());
        }
    }

    fn hand(&mut self) {
        if let Some(&id) = self.mailbox.held.get(self.mailbox.handed_out_count) {
            self.mailbox.handed_out_count += 1;
            self.flow.on_deliver(id, self.now_ns, &mut self.tally);
        }
    }

    fn acknowledge(&mut self, arrives: bool) {
        self.flow.acknowledged();
        if arrives {
            let mailbox = &mut self.mailbox;
            mailbox.ticks.extend(&mailbox.held[mailbox.acknowledged_count..mailbox.handed_out_count]);
            mailbox.acknowledged_count = mailbox.handed_out_count;
        } else {
            self.cut_addressee();
        }
    }

    fn cut_addressee(&mut self) {
        self.flow.addressee_connected(self.now_ns);
        self.mailbox.handed_out_count = self.mailbox.acknowledged_count;
    }

    fn confirm(&mut self) {
        for id in self.mailbox.ticks.drain(..) {
            self.flow.on_delivered(id, &mut self.tally);
        }
    }

    fn apply(&mut self, step: Move) {
        self.now_ns += 1;
        match step {
            Move::Submit => self.flow.submit(self.now_ns, 0, &mut self.tally),
            Move::Send { arrives, tick_arrives } => self.send(arrives, tick_arrives),
            Move::Busy => self.refuse(),
            Move::Wait => self.now_ns += BUSY_NS,
            Move::Hand => self.hand(),
            Move::Acknowledge { arrives } => self.acknowledge(arrives),
            Move::Confirm => self.confirm(),
            Move::CutSender => {
                self.mailbox.refused_from = None;
                self.flow.sender_connected(self.now_ns);
            }
            Move::CutAddressee => self.cut_addressee(),
        }
    }

    /// Lets everything through until nothing more happens.
    fn finish(&mut self) {
        self.apply(Move::CutSender);
        for _ in 0..self.tally.sums.sent * 2 {
            self.apply(Move::Send { arrives: true, tick_arrives: true });
            self.apply(Move::Hand);
        }
        self.acknowledge(true);
        self.confirm();
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => Just(Move::Submit),
        4 => Just(Move::Send { arrives: true, tick_arrives: true }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(arrives, tick_arrives)| Move::Send { arrives, tick_arrives }),
        1 => Just(Move::Busy),
        1 => Just(Move::Wait),
        4 => Just(Move::Hand),
        2 => any::<bool>().prop_map(|arrives| Move::Acknowledge { arrives }),
        2 => Just(Move::Confirm),
        1 => Just(Move::CutSender),
        1 => Just(Move::CutAddressee),
    ];
    prop::collection::vec(one, 0..120)
}

proptest! {
    #[test]
    fn an_honest_server_finds_no_fault_and_everything_settles(moves in moves()) {
        let mut world = World::new();
        for step in moves {
            world.apply(step);
        }
        world.finish();
        prop_assert_eq!(world.tally.sums.faults, Faults::default());
        prop_assert_eq!(world.tally.sums.delivered, world.tally.sums.sent);
        prop_assert_eq!(world.tally.sums.ticked, world.tally.sums.sent);
        prop_assert_eq!(world.tally.sums.confirmed, world.tally.sums.sent);
        prop_assert!(world.flow.settled(), "{:?}", world.flow);
        prop_assert_eq!(world.flow.missing_count(), 0);
    }

    #[test]
    fn unticked_messages_go_out_in_order(moves in moves()) {
        let mut world = World::new();
        for step in moves {
            world.apply(step);
        }
        world.flow.sender_connected(0);
        let again: Vec<u32> =
            std::iter::from_fn(|| world.flow.next_to_send(u64::MAX)).map(|out| out.seq).collect();
        let unticked: Vec<u32> =
            (0..world.flow.submitted_count()).filter(|&seq| !world.flow.ticked.contains(seq)).collect();
        prop_assert_eq!(again, unticked);
    }
}

/// A flow with `count` messages on the wire, and their ids.
fn on_the_wire(count: u32) -> (Flow, Tally, Vec<MessageId>) {
    let (mut flow, mut tally) = (Flow::new(RUN), Tally::default());
    (0..count).for_each(|_| flow.submit(10, 0, &mut tally));
    let ids = std::iter::from_fn(|| flow.next_to_send(10)).map(|out| out.id).collect();
    (flow, tally, ids)
}

#[test]
fn twice_in_one_connection_is_a_duplicate_and_after_a_reconnect_a_redelivery() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    assert_eq!(flow.on_deliver(ids[0], 20, &mut tally), Delivery::First);
    assert_eq!(flow.on_deliver(ids[0], 21, &mut tally), Delivery::Duplicate);
    assert_eq!((tally.sums.faults.duplicated, tally.sums.redelivered, tally.sums.delivered), (1, 0, 1));
    flow.addressee_connected(0);
    assert_eq!(flow.on_deliver(ids[0], 22, &mut tally), Delivery::Again);
    assert_eq!(flow.on_deliver(ids[0], 23, &mut tally), Delivery::Duplicate);
    assert_eq!((tally.sums.faults.duplicated, tally.sums.redelivered, tally.sums.delivered), (2, 1, 1));
}

#[test]
fn dedup_remembers_settled_messages() {
    let (mut flow, mut tally, ids) = on_the_wire(1);
    flow.on_deliver(ids[0], 20, &mut tally);
    flow.acknowledged();
    flow.on_delivered(ids[0], &mut tally);
    flow.on_sent(ids[0], 21, &mut tally);
    assert!(flow.settled());
    flow.addressee_connected(0);
    assert_eq!(flow.on_deliver(ids[0], 30, &mut tally), Delivery::Again);
    assert_eq!((tally.sums.delivered, tally.sums.redelivered), (1, 1));
}

#[test]
fn an_overtaken_message_is_misordered() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    flow.on_deliver(ids[1], 20, &mut tally);
    assert_eq!(flow.on_deliver(ids[0], 21, &mut tally), Delivery::First);
    assert_eq!(tally.sums.faults.misordered, 1);
}

#[test]
fn ids_that_were_never_sent_are_faults_and_old_ones_are_not() {
    let (mut flow, mut tally, ids) = on_the_wire(1);
    flow.submit(11, 0, &mut tally);
    let not_yet = MessageId::new(ids[0].unix_s(), (ids[0].0 as u32).wrapping_add(1));
    assert_eq!(flow.on_deliver(not_yet, 20, &mut tally), Delivery::Unknown);
    flow.on_sent(not_yet, 20, &mut tally);
    let other_second = MessageId::new(ids[0].unix_s() + 1, ids[0].0 as u32);
    assert_eq!(flow.on_deliver(other_second, 20, &mut tally), Delivery::Unknown);
    assert_eq!((tally.sums.faults.misdelivered, tally.sums.faults.early_ticks), (2, 1));
    let old = MessageId::new(RUN.started_s - 1, 0);
    assert_eq!(flow.on_deliver(old, 20, &mut tally), Delivery::Earlier);
    flow.on_delivered(old, &mut tally);
    assert_eq!(
        (tally.sums.faults.misdelivered, tally.sums.faults.early_ticks, tally.sums.leftover_ticks),
        (2, 1, 1)
    );
}

#[test]
fn a_delivered_tick_before_the_acknowledgement_is_early() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    flow.on_delivered(ids[0], &mut tally);
    assert_eq!(tally.sums.faults.early_ticks, 1, "not even delivered");
    flow.on_deliver(ids[0], 20, &mut tally);
    flow.on_deliver(ids[1], 20, &mut tally);
    flow.on_delivered(ids[1], &mut tally);
    assert_eq!(tally.sums.faults.early_ticks, 2, "delivered, but the acknowledgement is still here");
}

#[test]
fn a_delivered_tick_ends_no_retries() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    // Refused, and meanwhile a copy from an earlier connection arrives: the stream waits for this message all the same.
    flow.on_busy(ids[0], 30, &mut tally);
    flow.on_deliver(ids[0], 20, &mut tally);
    flow.acknowledged();
    flow.on_delivered(ids[0], &mut tally);
    assert_eq!((tally.sums.ticked, tally.sums.confirmed, flow.places_taken(Place::BothTicks)), (0, 0, 2));
    let again: Vec<u32> = std::iter::from_fn(|| flow.next_to_send(30)).map(|out| out.seq).collect();
    assert_eq!(again, [0, 1]);
    flow.on_sent(ids[0], 40, &mut tally);
    assert_eq!((tally.sums.ticked, tally.sums.confirmed, flow.places_taken(Place::BothTicks)), (1, 1, 1));
}

#[test]
fn a_ticked_message_that_never_came_is_missing() {
    let (mut flow, mut tally, ids) = on_the_wire(3);
    ids.iter().for_each(|&id| flow.on_sent(id, 20, &mut tally));
    flow.on_deliver(ids[0], 20, &mut tally);
    flow.on_deliver(ids[2], 20, &mut tally);
    assert_eq!(flow.missing_count(), 1);
    assert_eq!(tally.sums.faults.misordered, 0);
}

#[test]
fn busy_goes_back_and_waits() {
    let (mut flow, mut tally, ids) = on_the_wire(4);
    flow.on_sent(ids[0], 20, &mut tally);
    flow.on_busy(ids[1], 100, &mut tally);
    flow.on_busy(ids[2], 90, &mut tally);
    assert_eq!(flow.next_to_send(99), None);
    assert_eq!(flow.blocked_until(99), Some(100));
    flow.submit(99, 0, &mut tally);
    let again: Vec<u32> = std::iter::from_fn(|| flow.next_to_send(100)).map(|out| out.seq).collect();
    assert_eq!(again, [1, 2, 3, 4]);
}

#[test]
fn places_free_as_the_window_says() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    flow.on_sent(ids[0], 20, &mut tally);
    assert_eq!((flow.places_taken(Place::SentTick), flow.places_taken(Place::BothTicks)), (1, 2));
    flow.on_deliver(ids[0], 20, &mut tally);
    flow.acknowledged();
    flow.on_delivered(ids[0], &mut tally);
    flow.on_refused(ids[1], &mut tally);
    assert_eq!((flow.places_taken(Place::SentTick), flow.places_taken(Place::BothTicks)), (0, 0));
    assert!(flow.settled());
}

fn sent_again(flow: &mut Flow, tally: &mut Tally, now_ns: u64) -> Vec<u32> {
    flow.resend_if_due(now_ns, tally);
    std::iter::from_fn(|| flow.next_to_send(now_ns)).map(|out| out.seq).collect()
}

#[test]
fn silence_on_a_live_connection_goes_back_to_the_oldest_without_an_answer() {
    let (mut flow, mut tally, ids) = on_the_wire(4);
    flow.on_sent(ids[0], 2_000_000_000, &mut tally);
    flow.on_sent(ids[2], 2_000_000_000, &mut tally);
    assert_eq!(flow.resend_due_ns(), Some(7_000_000_000));
    assert_eq!(sent_again(&mut flow, &mut tally, 6_999_999_999), [0_u32; 0]);
    assert_eq!(sent_again(&mut flow, &mut tally, 7_000_000_000), [1, 3]);
    assert_eq!(tally.sums.resent, 1);
    assert_eq!(sent_again(&mut flow, &mut tally, 11_999_999_999), [0_u32; 0], "the retry has its own time");
    assert_eq!(sent_again(&mut flow, &mut tally, 12_000_000_000), [1, 3]);
    flow.on_sent(ids[1], 12_000_000_000, &mut tally);
    flow.on_refused(ids[3], &mut tally);
    assert_eq!(flow.resend_due_ns(), None, "everything has its answer");
}

#[test]
fn one_forgotten_message_is_sent_again_though_others_are_answered() {
    let (mut flow, mut tally, _) = on_the_wire(1);
    let mut again = Vec::new();
    for second in 1..=30_u64 {
        let now_ns = second * 1_000_000_000;
        flow.submit(now_ns, 0, &mut tally);
        let out = flow.next_to_send(now_ns).expect("one was submitted");
        flow.on_sent(out.id, now_ns, &mut tally);
        again = sent_again(&mut flow, &mut tally, now_ns);
        assert!(second == 30 || again.is_empty(), "{second}: {again:?}");
    }
    assert_eq!(again, [0]);
}

#[test]
fn busy_is_an_answer_and_its_wait_is_no_silence() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    flow.on_busy(ids[1], 60_000_000_000, &mut tally);
    assert_eq!(flow.resend_due_ns(), Some(30_000_000_000), "the one before it has none");
    flow.on_sent(ids[0], 1_000_000_000, &mut tally);
    assert_eq!(flow.resend_due_ns(), None);
}

#[test]
fn only_messages_between_reconnects_are_undisturbed() {
    let (mut flow, mut tally, ids) = on_the_wire(2);
    flow.on_deliver(ids[0], 20, &mut tally);
    assert_eq!(tally.steady_latency_ns.len(), 1);
    flow.sender_connected(30);
    flow.on_deliver(ids[1], 40, &mut tally);
    assert_eq!((tally.steady_latency_ns.len(), tally.latency_ns.len()), (1, 2));
    flow.submit(50, 0, &mut tally);
    let id = std::iter::from_fn(|| flow.next_to_send(50)).last().expect("one was submitted").id;
    flow.on_deliver(id, 60, &mut tally);
    assert_eq!(tally.steady_latency_ns.len(), 2);
}
