//! One direction of one pair: the sender's unticked messages and the addressee's dedup memory, side by side.

use super::{SeqSet, Tally};
use std::collections::VecDeque;
use tern_protocol::ids::MessageId;

/// What the ids of one run of the generator have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// No id of this run is stamped earlier, every id of an earlier run is: Unix seconds.
    pub(crate) started_s: u32,
    /// The low half of each flow's first id.
    pub(crate) first_low: u32,
}

/// What frees a sender's place in its window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The `sent` and the `delivered` tick.
    BothTicks,
    /// The `sent` tick: the addressee is away.
    SentTick,
}

/// A message that is to go out now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outgoing {
    /// Its place in the flow.
    pub(crate) seq: u32,
    /// Its id, the same on every retry.
    pub(crate) id: MessageId,
}

/// What a delivery turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// Handed up: the first time.
    First,
    /// After a reconnect, dropped by the client's dedup.
    Again,
    /// Twice within one connection: a fault.
    Duplicate,
    /// Of an earlier run of the generator.
    Earlier,
    /// An id that this flow never sent: a fault, and counted as misdelivered.
    Unknown,
}

/// A flow whose sender has heard nothing for so long goes back to its oldest message without an answer.
const SILENCE_NS: u64 = 5_000_000_000;
/// So does one of which a single message has waited for so long, whatever came for the others.
const PATIENCE_NS: u64 = 30_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Pending {
    submitted_ns: u64,
    unix_s: u32,
    /// When it was last put on a connection: milliseconds on the run's clock, which suffice for 49 days.
    sent_ms: u32,
}

enum Known {
    Seq(u32),
    Earlier,
    Unknown,
}

/// One direction of one pair. Invariant: `base <= cursor <= transmitted <= base + pending.len()`, as long as the
/// cursor has not been put back by a reconnect or `busy`.
#[derive(Debug)]
pub(crate) struct Flow {
    run: Run,
    /// Everything below is settled: refused, or delivered with both ticks.
    base: u32,
    pending: VecDeque<Pending>,
    /// The next one to put on this connection.
    cursor: u32,
    /// All below have been put on a connection at least once.
    transmitted: u32,
    blocked_until_ns: u64,
    /// When the sender last got an answer to a message of this flow.
    heard_ns: u64,
    /// Since when both ends are connected; messages of before do not count as undisturbed.
    steady_since_ns: u64,
    ticked: SeqSet,
    confirmed: SeqSet,
    /// With both ticks.
    both: SeqSet,
    refused: SeqSet,
    /// The client's dedup memory, for the whole run.
    delivered: SeqSet,
    /// What came over the addressee's present connection.
    seen_now: SeqSet,
    /// All that the addressee has acknowledged lies below.
    acknowledged_end: u32,
}

impl Flow {
    /// A flow without a message.
    pub(crate) fn new(run: Run) -> Self {
        Self {
            run,
            base: 0,
            pending: VecDeque::new(),
            cursor: 0,
            transmitted: 0,
            blocked_until_ns: 0,
            heard_ns: 0,
            steady_since_ns: 0,
            ticked: SeqSet::default(),
            confirmed: SeqSet::default(),
            both: SeqSet::default(),
            refused: SeqSet::default(),
            delivered: SeqSet::default(),
            seen_now: SeqSet::default(),
            acknowledged_end: 0,
        }
    }

    /// A new message at the end of the flow. `submitted_ns` is what its latencies count from.
    pub(crate) fn submit(&mut self, submitted_ns: u64, unix_s: u32, tally: &mut Tally) {
        self.pending.push_back(Pending { submitted_ns, unix_s: unix_s.max(self.run.started_s), sent_ms: 0 });
        tally.sums.sent += 1;
    }

    /// How many messages were ever submitted.
    pub(crate) fn submitted_count(&self) -> u32 {
        self.base + self.pending.len() as u32
    }

    /// How many places of the window are taken.
    pub(crate) fn places_taken(&self, place: Place) -> u32 {
        let freed = match place {
            Place::BothTicks => self.both.count(),
            Place::SentTick => self.ticked.count(),
        };
        self.submitted_count() - freed - self.refused.count()
    }

    /// Whether every message is delivered and has both ticks (or was refused for good).
    #[cfg(test)]
    pub(crate) fn settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// The next message to put on the sender's connection, unticked ones of before in their order first.
    pub(crate) fn next_to_send(&mut self, now_ns: u64) -> Option<Outgoing> {
        if now_ns < self.blocked_until_ns {
            return None;
        }
        while self.cursor < self.submitted_count() {
            let seq = self.cursor;
            self.cursor += 1;
            if !self.ticked.contains(seq) && !self.refused.contains(seq) {
                self.transmitted = self.transmitted.max(self.cursor);
                self.pending[(seq - self.base) as usize].sent_ms = (now_ns / 1_000_000) as u32;
                return Some(Outgoing { seq, id: self.id_of(seq) });
            }
        }
        None
    }

    /// When `busy` lets the sender go on, if it holds it back now; monotonic nanoseconds.
    pub(crate) fn blocked_until(&self, now_ns: u64) -> Option<u64> {
        (now_ns < self.blocked_until_ns && self.cursor < self.submitted_count())
            .then_some(self.blocked_until_ns)
    }

    /// The oldest message on this connection that has no answer yet, and when it was put there.
    fn oldest_unanswered(&self) -> Option<(u32, u64)> {
        let open = |seq: &u32| !self.ticked.contains(*seq) && !self.refused.contains(*seq);
        let seq = (self.base..self.cursor).find(open)?;
        let pending = self.pending_of(seq).expect("what has no answer is not settled");
        Some((seq, u64::from(pending.sent_ms) * 1_000_000))
    }

    /// When the sender must stop waiting for an answer that may have been dropped, if it waits for one.
    pub(crate) fn resend_due_ns(&self) -> Option<u64> {
        let (_, sent_ns) = self.oldest_unanswered()?;
        Some((sent_ns.max(self.heard_ns) + SILENCE_NS).min(sent_ns + PATIENCE_NS))
    }

    /// Goes back to the oldest message without an answer, if it has waited too long (go-back-N on a live
    /// connection: an overloaded server may drop answers, never messages).
    pub(crate) fn resend_if_due(&mut self, now_ns: u64, tally: &mut Tally) {
        if self.resend_due_ns().is_some_and(|due_ns| due_ns <= now_ns)
            && let Some((seq, _)) = self.oldest_unanswered()
        {
            tally.sums.resent += 1;
            self.cursor = seq;
            self.heard_ns = now_ns;
        }
    }

    /// The sender has a new connection: what is unticked goes out again, first.
    pub(crate) fn sender_connected(&mut self, now_ns: u64) {
        self.cursor = self.base;
        self.blocked_until_ns = 0;
        self.steady_since_ns = now_ns;
    }

    /// The addressee has a new connection: what it had not acknowledged may come again.
    pub(crate) fn addressee_connected(&mut self, now_ns: u64) {
        self.seen_now.clear();
        self.steady_since_ns = now_ns;
    }

    /// The addressee's acknowledgement of all that came over its connection is on its way.
    pub(crate) fn acknowledged(&mut self) {
        self.acknowledged_end = self.acknowledged_end.max(self.seen_now.end());
    }

    /// The addressee decrypted a message of this flow.
    pub(crate) fn on_deliver(&mut self, id: MessageId, now_ns: u64, tally: &mut Tally) -> Delivery {
        let seq = match self.locate(id) {
            Known::Seq(seq) => seq,
            Known::Earlier => return Delivery::Earlier,
            Known::Unknown => {
                tally.sums.faults.misdelivered += 1;
                return Delivery::Unknown;
            }
        };
        if !self.seen_now.insert(seq) {
            tally.sums.faults.duplicated += 1;
            return Delivery::Duplicate;
        }
        if self.delivered.contains(seq) {
            tally.sums.redelivered += 1;
            return Delivery::Again;
        }
        if seq < self.delivered.end() {
            tally.sums.faults.misordered += 1;
        }
        self.delivered.insert(seq);
        if let Some(pending) = self.pending_of(seq) {
            tally.delivery(pending.submitted_ns, now_ns, pending.submitted_ns >= self.steady_since_ns);
        } else {
            // Refused with `expired` earlier (its fate was unknown), and here it is.
            tally.sums.delivered += 1;
        }
        self.settle();
        Delivery::First
    }

    /// A `sent` tick came.
    pub(crate) fn on_sent(&mut self, id: MessageId, now_ns: u64, tally: &mut Tally) {
        match self.locate(id) {
            Known::Seq(seq) => {
                self.heard_ns = now_ns;
                if !self.refused.contains(seq) && self.ticked.insert(seq) {
                    tally.sums.ticked += 1;
                    if let Some(pending) = self.pending_of(seq) {
                        tally.tick(pending.submitted_ns, now_ns);
                    }
                    self.close(seq, tally);
                }
            }
            Known::Earlier => tally.sums.leftover_ticks += 1,
            Known::Unknown => tally.sums.faults.early_ticks += 1,
        }
    }

    /// A `delivered` tick came. Only `sent` ends the retries of a message: a stream that was refused at it waits for it.
    pub(crate) fn on_delivered(&mut self, id: MessageId, tally: &mut Tally) {
        let seq = match self.locate(id) {
            Known::Seq(seq) => seq,
            Known::Earlier => return tally.sums.leftover_ticks += 1,
            Known::Unknown => return tally.sums.faults.early_ticks += 1,
        };
        if !self.delivered.contains(seq) || seq >= self.acknowledged_end {
            tally.sums.faults.early_ticks += 1;
        }
        // After `expired` its fate was unknown, and it was given up: it stays so in the sums.
        if !self.refused.contains(seq) && self.confirmed.insert(seq) {
            self.close(seq, tally);
        }
    }

    /// A message has one more tick; perhaps it is the last one.
    fn close(&mut self, seq: u32, tally: &mut Tally) {
        if self.ticked.contains(seq) && self.confirmed.contains(seq) && self.both.insert(seq) {
            tally.sums.confirmed += 1;
            self.settle();
        }
    }

    /// The server cannot take it now: go back to this id and start again at `until_ns`.
    pub(crate) fn on_busy(&mut self, id: MessageId, until_ns: u64, tally: &mut Tally) {
        if let Known::Seq(seq) = self.locate(id) {
            tally.sums.busy += 1;
            self.heard_ns = self.heard_ns.max(until_ns);
            self.cursor = self.cursor.min(seq);
            self.blocked_until_ns = self.blocked_until_ns.max(until_ns);
        }
    }

    /// The server refused it for good: it is not sent again.
    pub(crate) fn on_refused(&mut self, id: MessageId, tally: &mut Tally) {
        if let Known::Seq(seq) = self.locate(id)
            && !self.ticked.contains(seq)
            && self.refused.insert(seq)
        {
            tally.sums.refused += 1;
            self.settle();
        }
    }

    /// Messages that are ticked and not delivered.
    pub(crate) fn missing_count(&self) -> u32 {
        self.ticked.missing_from(&self.delivered)
    }

    fn id_of(&self, seq: u32) -> MessageId {
        let unix_s = self.pending_of(seq).expect("only unsettled messages are sent").unix_s;
        MessageId::new(unix_s, self.run.first_low.wrapping_add(seq))
    }

    fn pending_of(&self, seq: u32) -> Option<Pending> {
        self.pending.get(seq.checked_sub(self.base)? as usize).copied()
    }

    fn locate(&self, id: MessageId) -> Known {
        if id.unix_s() < self.run.started_s {
            return Known::Earlier;
        }
        let seq = (id.0 as u32).wrapping_sub(self.run.first_low);
        let stamped_so = self.pending_of(seq).is_none_or(|pending| pending.unix_s == id.unix_s());
        if seq < self.transmitted && stamped_so { Known::Seq(seq) } else { Known::Unknown }
    }

    fn settle(&mut self) {
        while self.base < self.transmitted
            && (self.refused.contains(self.base)
                || (self.delivered.contains(self.base) && self.both.contains(self.base)))
        {
            self.base += 1;
            self.pending.pop_front();
        }
        self.cursor = self.cursor.max(self.base);
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
