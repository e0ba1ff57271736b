//! The sums over all flows, and the latencies.

use hdrhistogram::Histogram;
use std::ops::AddAssign;

/// The longest latency that is told apart from longer ones.
const HOUR_NS: u64 = 3_600_000_000_000;

/// What a correct server never does.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Faults {
    /// An id handed up twice after client dedup, or twice within one connection.
    pub(crate) duplicated: u64,
    /// Handed up after a later one of its pair.
    pub(crate) misordered: u64,
    /// Not for this addressee, from nobody it talks with, never sent, or with another body than was sent.
    pub(crate) misdelivered: u64,
    /// A `sent` tick of what was not sent, a `delivered` tick of what its addressee had not acknowledged.
    pub(crate) early_ticks: u64,
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.duplicated += other.duplicated;
        self.misordered += other.misordered;
        self.misdelivered += other.misdelivered;
        self.early_ticks += other.early_ticks;
    }
}

/// The sums: what can be watched while a run goes on, and added up over all workers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Sums {
    /// Distinct ids submitted.
    pub(crate) sent: u64,
    /// Of these, with a `sent` tick; a `delivered` one says nothing of that.
    pub(crate) ticked: u64,
    /// Of these, with a `delivered` tick.
    pub(crate) confirmed: u64,
    /// Distinct ids that their addressee decrypted.
    pub(crate) delivered: u64,
    /// Ids that an addressee got again after a reconnect, before client dedup.
    pub(crate) redelivered: u64,
    /// Messages that the server refused for good (`expired`, `unknown`).
    pub(crate) refused: u64,
    /// Answers `busy`.
    pub(crate) busy: u64,
    /// Messages of earlier runs of the generator: acknowledged and left out of every figure.
    pub(crate) leftovers: u64,
    /// Likewise, ticks.
    pub(crate) leftover_ticks: u64,
    /// Messages that were sent again on a live connection, because no answer came.
    pub(crate) resent: u64,
    /// What the server did wrong.
    pub(crate) faults: Faults,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.ticked += other.ticked;
        self.confirmed += other.confirmed;
        self.delivered += other.delivered;
        self.redelivered += other.redelivered;
        self.refused += other.refused;
        self.busy += other.busy;
        self.leftovers += other.leftovers;
        self.leftover_ticks += other.leftover_ticks;
        self.resent += other.resent;
        self.faults += other.faults;
    }
}

impl Sums {
    /// Messages that still miss a tick (and were not refused).
    pub(crate) fn outstanding(&self) -> u64 {
        self.sent - self.confirmed - self.refused
    }

    /// A number that grows with every kind of progress that patience waits for.
    pub(crate) fn progress(&self) -> u64 {
        self.ticked
            + self.confirmed
            + self.delivered
            + self.redelivered
            + self.leftovers
            + self.leftover_ticks
    }
}

/// Latencies one by one: when each message was submitted (or scheduled), and how long it took from then on;
/// nanoseconds.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Each {
    /// To the delivery.
    pub(crate) deliveries: Vec<(u64, u64)>,
    /// To the `sent` tick.
    pub(crate) ticks: Vec<(u64, u64)>,
}

/// The sums and the latencies of all flows of one worker, or of all.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) sums: Sums,
    /// From submission (or the scheduled time) to delivery, nanoseconds.
    pub(crate) latency_ns: Histogram<u64>,
    /// Likewise, of those messages only whose both ends stayed connected all that time.
    pub(crate) steady_latency_ns: Histogram<u64>,
    /// From submission (or the scheduled time) to the `sent` tick, nanoseconds.
    pub(crate) tick_latency_ns: Histogram<u64>,
    /// All of them, where that was asked for.
    pub(crate) each: Option<Box<Each>>,
    /// When the last `sent` tick came, monotonic nanoseconds.
    pub(crate) last_tick_ns: u64,
    /// When the last first delivery came, monotonic nanoseconds.
    pub(crate) last_delivery_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, HOUR_NS, 3).expect("the bounds are in order");
        Self {
            sums: Sums::default(),
            latency_ns: empty(),
            steady_latency_ns: empty(),
            tick_latency_ns: empty(),
            each: None,
            last_tick_ns: 0,
            last_delivery_ns: 0,
        }
    }
}

impl Tally {
    /// Notes the latency of a delivery; `steady` if neither end lost its connection since the submission.
    pub(crate) fn delivery(&mut self, submitted_ns: u64, now_ns: u64, steady: bool) {
        self.sums.delivered += 1;
        self.last_delivery_ns = now_ns;
        let latency_ns = now_ns.saturating_sub(submitted_ns);
        self.latency_ns.saturating_record(latency_ns);
        if steady {
            self.steady_latency_ns.saturating_record(latency_ns);
        }
        if let Some(each) = &mut self.each {
            each.deliveries.push((submitted_ns, latency_ns));
        }
    }

    /// Notes the latency of a `sent` tick.
    pub(crate) fn tick(&mut self, submitted_ns: u64, now_ns: u64) {
        self.last_tick_ns = now_ns;
        let latency_ns = now_ns.saturating_sub(submitted_ns);
        self.tick_latency_ns.saturating_record(latency_ns);
        if let Some(each) = &mut self.each {
            each.ticks.push((submitted_ns, latency_ns));
        }
    }

    /// Adds what another worker noted, but for the latencies one by one, which are taken from each.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sums += other.sums;
        for (mine, theirs) in [
            (&mut self.latency_ns, &other.latency_ns),
            (&mut self.steady_latency_ns, &other.steady_latency_ns),
            (&mut self.tick_latency_ns, &other.tick_latency_ns),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.last_tick_ns = self.last_tick_ns.max(other.last_tick_ns);
        self.last_delivery_ns = self.last_delivery_ns.max(other.last_delivery_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_workers_noted_adds_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.sums.sent = 3;
        one.delivery(1_000, 5_000, true);
        other.sums.sent = 4;
        other.sums.faults.misordered = 2;
        other.delivery(1_000, 9_000_000, false);
        other.tick(1_000, 2_000);
        one.add(&other);
        assert_eq!((one.sums.sent, one.sums.delivered, one.sums.faults.misordered), (7, 2, 2));
        assert_eq!((one.latency_ns.len(), one.steady_latency_ns.len(), one.tick_latency_ns.len()), (2, 1, 1));
        assert!(one.latency_ns.max() > 8_900_000 && one.steady_latency_ns.max() < 5_000);
        assert_eq!((one.last_delivery_ns, one.last_tick_ns), (9_000_000, 2_000));
    }
}
