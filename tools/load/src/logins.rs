//! First logins: how many, how fast, how long each.

use crate::report::{Report, per_s, tenths};
use hdrhistogram::Histogram;

/// The longest login that is told apart from longer ones.
const MINUTE_NS: u64 = 60_000_000_000;

/// Counts over a run, of one worker or of all.
#[derive(Clone)]
pub(crate) struct Logins {
    /// Phones that were logged in at least once.
    pub(crate) first_count: u64,
    latency_ns: Histogram<u64>,
    /// Of the wave of logins that is under way: its first connect and its last welcome.
    wave: Option<(u64, u64)>,
    /// Logins of the present wave.
    wave_count: u64,
    /// The waves that are over; all workers begin and end theirs together, so that equal places belong together.
    waves: Vec<Option<(u64, u64)>>,
}

impl Default for Logins {
    fn default() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, MINUTE_NS, 3).expect("the bounds are in order");
        Self { first_count: 0, latency_ns, wave: None, wave_count: 0, waves: Vec::new() }
    }
}

impl Logins {
    /// A phone connects.
    pub(crate) fn attempt(&mut self, now_ns: u64) {
        self.wave.get_or_insert((now_ns, now_ns));
    }

    /// A phone was welcomed.
    pub(crate) fn welcome(&mut self, first: bool, connect_ns: u64, now_ns: u64) {
        if first {
            self.first_count += 1;
            self.wave_count += 1;
            self.latency_ns.saturating_record(now_ns.saturating_sub(connect_ns));
            if let Some(wave) = &mut self.wave {
                wave.1 = now_ns;
            }
        }
    }

    /// Ends a wave: time between waves is not login time, and a wave without a first login does not count.
    pub(crate) fn end_wave(&mut self) {
        let wave = self.wave.take();
        let counts = std::mem::take(&mut self.wave_count) > 0;
        self.waves.push(wave.filter(|_| counts));
    }

    /// Adds another worker's: its waves were at the same time as these.
    pub(crate) fn add(&mut self, other: &Self) {
        self.first_count += other.first_count;
        self.latency_ns.add(&other.latency_ns).expect("all histograms have the same bounds");
        self.waves.resize(self.waves.len().max(other.waves.len()), None);
        for (mine, theirs) in self.waves.iter_mut().zip(&other.waves) {
            *mine = match (*mine, *theirs) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (one, other) => one.or(other),
            };
        }
    }

    /// Writes the fields about logins.
    pub(crate) fn report(&self, report: &mut Report) {
        report.logged_in = self.first_count;
        let waves_ns = self.waves.iter().flatten().map(|wave| wave.1 - wave.0).sum();
        report.login_per_s = per_s(self.first_count, waves_ns);
        if !self.latency_ns.is_empty() {
            let at = |quantile| tenths(self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0);
            report.login_p50_us = Some(at(0.5));
            report.login_p99_us = Some(at(0.99));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_logins_and_only_login_time_count() {
        let mut logins = Logins::default();
        logins.attempt(1_000_000_000);
        logins.welcome(true, 1_000_000_000, 1_250_000_000);
        logins.welcome(true, 1_200_000_000, 1_500_000_000);
        logins.end_wave();
        logins.attempt(9_000_000_000);
        logins.welcome(false, 9_000_000_000, 9_100_000_000);
        logins.end_wave();
        logins.attempt(10_000_000_000);
        logins.welcome(true, 10_000_000_000, 10_500_000_000);
        logins.end_wave();
        let mut report = Report::default();
        logins.report(&mut report);
        assert_eq!((report.logged_in, report.login_per_s), (3, Some(3.0)));
    }

    #[test]
    fn waves_of_two_workers_overlap() {
        let (mut one, mut other) = (Logins::default(), Logins::default());
        one.attempt(1_000_000_000);
        one.welcome(true, 1_000_000_000, 2_000_000_000);
        other.attempt(1_500_000_000);
        other.welcome(true, 1_500_000_000, 5_000_000_000);
        one.end_wave();
        other.end_wave();
        one.end_wave();
        other.attempt(9_000_000_000);
        other.welcome(true, 9_000_000_000, 10_000_000_000);
        other.end_wave();
        one.add(&other);
        let mut report = Report::default();
        one.report(&mut report);
        assert_eq!((report.logged_in, report.login_per_s), (3, Some(0.6)));
        assert!(report.login_p99_us.unwrap() > 3_400_000.0);
    }
}
