//! Virtual time: what happens next, in an order that the seed decides.

use crate::random::Random;
use crate::trace::Trace;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Nanoseconds of virtual time in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds of virtual time in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds of virtual time in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Unix time at the start of every run, milliseconds.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// The clock, the queue of events, chance, the trace, and the first broken invariant.
#[derive(Debug)]
pub struct Schedule<E> {
    now_ns: u64,
    queue: BinaryHeap<Reverse<Entry<E>>>,
    serial: u64,
    failure: Option<String>,
    is_told: bool,
    /// Chance.
    pub random: Random,
    /// The trace.
    pub trace: Trace,
}

#[derive(Debug)]
struct Entry<E> {
    time_ns: u64,
    /// Random: events of the same instant happen in any order.
    tie: u32,
    serial: u64,
    event: E,
}

impl<E> Entry<E> {
    const fn key(&self) -> (u64, u32, u64) {
        (self.time_ns, self.tie, self.serial)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<E> Schedule<E> {
    /// An empty queue at the start of time.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            now_ns: 0,
            queue: BinaryHeap::new(),
            serial: 0,
            failure: None,
            is_told: false,
            random,
            trace: Trace::default(),
        }
    }

    /// Virtual nanoseconds since the start.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Wall milliseconds of Unix time.
    #[must_use]
    pub const fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.now_ns / MS
    }

    /// Lets `event` happen `delay_ns` from now.
    pub fn after(&mut self, delay_ns: u64, event: E) {
        self.at(self.now_ns + delay_ns, event);
    }

    /// Lets `event` happen at `time_ns`, or now if that has passed.
    pub fn at(&mut self, time_ns: u64, event: E) {
        self.serial += 1;
        let tie = self.random.word() as u32;
        let time_ns = time_ns.max(self.now_ns);
        self.queue.push(Reverse(Entry { time_ns, tie, serial: self.serial, event }));
    }

    /// Takes the next event and sets the clock to its time.
    pub fn advance(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now_ns = entry.time_ns;
        Some(entry.event)
    }

    /// Prints what happens from now on, to follow one seed.
    pub const fn tell_everything(&mut self) {
        self.is_told = true;
    }

    /// Says what happens, if somebody wants to know.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>12.3} ms  {}", self.now_ns as f64 / MS as f64, what());
        }
    }

    /// Records a broken invariant; the first one counts and ends the run.
    pub fn fail(&mut self, invariant: impl Into<String>) {
        if self.failure.is_none() {
            self.failure = Some(format!("at {} ms: {}", self.now_ns / MS, invariant.into()));
        }
    }

    /// Records a broken invariant unless `holds`.
    pub fn check(&mut self, holds: bool, invariant: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant());
        }
    }

    /// The first broken invariant.
    #[must_use]
    pub const fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_time_order_and_ties_by_seed() {
        let order = |seed| {
            let mut schedule = Schedule::new(Random::new(seed));
            schedule.at(5, 50);
            for n in 0..10 {
                schedule.at(3, n);
            }
            let all: Vec<i32> = std::iter::from_fn(|| schedule.advance()).collect();
            assert_eq!(all[10], 50);
            assert_eq!(schedule.now_ns(), 5);
            all
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn the_first_failure_is_kept() {
        let mut schedule = Schedule::<()>::new(Random::new(1));
        schedule.check(true, || "fine".into());
        assert!(schedule.failure().is_none());
        schedule.fail("one");
        schedule.fail("two");
        assert_eq!(schedule.failure().unwrap(), "at 0 ms: one");
    }
}
