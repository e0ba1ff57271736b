//! The sums over all flows, and the latencies.

use hdrhistogram::Histogram;

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

/// The sums.
pub(crate) struct Tally {
    /// Distinct ids submitted.
    pub(crate) sent: u64,
    /// Of these, with a `sent` tick (or a `delivered` one, which implies it).
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
    /// What the server did wrong.
    pub(crate) faults: Faults,
    /// From submission (or the scheduled time) to delivery, nanoseconds.
    pub(crate) latency_ns: Histogram<u64>,
    /// From submission (or the scheduled time) to the `sent` tick, nanoseconds.
    pub(crate) tick_latency_ns: Histogram<u64>,
    /// When the last `sent` tick came, monotonic nanoseconds.
    pub(crate) last_tick_ns: u64,
    /// When the last first delivery came, monotonic nanoseconds.
    pub(crate) last_delivery_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, HOUR_NS, 3).expect("the bounds are in order");
        Self {
            sent: 0,
            ticked: 0,
            confirmed: 0,
            delivered: 0,
            redelivered: 0,
            refused: 0,
            busy: 0,
            leftovers: 0,
            leftover_ticks: 0,
            faults: Faults::default(),
            latency_ns: empty(),
            tick_latency_ns: empty(),
            last_tick_ns: 0,
            last_delivery_ns: 0,
        }
    }
}

impl Tally {
    /// Notes the latency of a delivery.
    pub(crate) fn delivery(&mut self, submitted_ns: u64, now_ns: u64) {
        self.delivered += 1;
        self.last_delivery_ns = now_ns;
        self.latency_ns.saturating_record(now_ns.saturating_sub(submitted_ns));
    }

    /// Notes the latency of a `sent` tick.
    pub(crate) fn tick(&mut self, submitted_ns: u64, now_ns: u64) {
        self.last_tick_ns = now_ns;
        self.tick_latency_ns.saturating_record(now_ns.saturating_sub(submitted_ns));
    }

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
