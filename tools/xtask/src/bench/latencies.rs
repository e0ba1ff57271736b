//! The file of `tern-load pairs --latencies`: what the messages of a part of a run took.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::path::Path;

/// Since when (microseconds of Unix time), and how long (nanoseconds).
type Took = (u64, u64);

/// Every message's.
#[derive(Default)]
pub(super) struct Latencies {
    deliveries: Vec<Took>,
    ticks: Vec<Took>,
}

impl Latencies {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for line in text.lines() {
            let parsed = parse_line(line).with_context(|| format!("{line:?} is no latency"))?;
            match parsed {
                ("delivery", took) => all.deliveries.push(took),
                ("sent", took) => all.ticks.push(took),
                // A later generator may tell more.
                _ => {}
            }
        }
        Ok(all)
    }

    /// To the delivery, of what was submitted in this time.
    pub(super) fn of_deliveries(&self, within_us: &RangeInclusive<u64>) -> Value {
        percentiles(&self.deliveries, within_us)
    }

    /// To the `sent` tick.
    pub(super) fn of_ticks(&self, within_us: &RangeInclusive<u64>) -> Value {
        percentiles(&self.ticks, within_us)
    }
}

fn parse_line(line: &str) -> Option<(&str, Took)> {
    let mut fields = line.split(',');
    let (what, since, took) = (fields.next()?, fields.next()?, fields.next()?);
    Some((what, (since.parse().ok()?, took.parse().ok()?)))
}

/// By the nearest rank, microseconds; null where there is nothing.
fn percentiles(all: &[Took], within_us: &RangeInclusive<u64>) -> Value {
    let within = all.iter().filter(|(since_us, _)| within_us.contains(since_us));
    let mut took_ns: Vec<u64> = within.map(|(_, took_ns)| *took_ns).collect();
    took_ns.sort_unstable();
    let us = |ns: &u64| (*ns as f64 / 100.0).round() / 10.0;
    let at = |percent: usize| took_ns.get((took_ns.len() * percent).div_ceil(100).saturating_sub(1)).map(us);
    json!({ "count": took_ns.len(), "p50": at(50), "p99": at(99), "max": took_ns.last().map(us) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        // In no order: 1 to 200 us.
        let all: Vec<Took> = (0..200).map(|n| (n, (n * 77 % 200 + 1) * 1_000)).collect();
        let found = percentiles(&all, &(0..=199));
        assert_eq!(found, json!({ "count": 200, "p50": 100.0, "p99": 198.0, "max": 200.0 }));
        let nothing = percentiles(&all, &(200..=300));
        assert_eq!(nothing, json!({ "count": 0, "p50": null, "p99": null, "max": null }));
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        assert!(Latencies::parse("delivery,5,9\nread,5,9\nsent,6,1\n").is_ok());
        assert!(Latencies::parse("delivery,5\n").is_err());
        assert!(Latencies::parse("sent,5,x\n").is_err());
    }
}
