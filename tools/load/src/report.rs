//! The last line: every field of the contract, in every mode.

use crate::ledger::{Faults, Sums};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles of a latency, microseconds.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of nanoseconds; none if nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile: f64| tenths(histogram.value_at_quantile(quantile) as f64 / 1000.0);
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: tenths(histogram.max() as f64 / 1000.0),
        })
    }
}

/// What the server used; null where the window saw no delivery or the mode has no such window.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Server {
    pub(crate) cpu_user_us_per_msg: Option<f64>,
    pub(crate) cpu_system_us_per_msg: Option<f64>,
    pub(crate) cpu_us_per_login: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) rss_bytes_per_phone: Option<u64>,
    pub(crate) log_bytes_written: Option<u64>,
    pub(crate) log_commits: Option<u64>,
}

/// What happened while idle phones were held.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Hold {
    pub(crate) seconds: f64,
    /// Connections that were lost, whether or not their phones came back.
    pub(crate) lost_count: u64,
    /// Keep-alives, and their answers.
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// What the server's process used; null without the admin endpoint.
    pub(crate) cpu_user_us: Option<u64>,
    pub(crate) cpu_system_us: Option<u64>,
}

/// Phones that left and came back by ticket.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Resumed {
    /// Logins by ticket, of all that came back.
    pub(crate) by_ticket: u64,
    pub(crate) login_per_s: Option<f64>,
    pub(crate) login_p50_us: Option<f64>,
    pub(crate) login_p99_us: Option<f64>,
    pub(crate) server_cpu_us_per_login: Option<f64>,
    /// Logins that were told to come back later.
    pub(crate) busy: u64,
    /// `idle --storm`: from the drop until the last phone was back, seconds.
    pub(crate) all_back_s: Option<f64>,
    /// These two moments, microseconds of Unix time.
    pub(crate) dropped_unix_us: Option<u64>,
    pub(crate) back_unix_us: Option<u64>,
}

/// The whole line.
#[derive(Serialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct Report {
    pub(crate) phones: u32,
    pub(crate) logged_in: u64,
    pub(crate) login_per_s: Option<f64>,
    pub(crate) login_p50_us: Option<f64>,
    pub(crate) login_p99_us: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) ticked: u64,
    pub(crate) unticked: u64,
    pub(crate) delivered: u64,
    pub(crate) redelivered: u64,
    pub(crate) lost: Option<u64>,
    pub(crate) duplicated: u64,
    pub(crate) misordered: u64,
    pub(crate) misdelivered: u64,
    pub(crate) early_ticks: u64,
    pub(crate) msgs_per_s: Option<f64>,
    pub(crate) latency_us: Option<Latency>,
    pub(crate) tick_latency_us: Option<Latency>,
    pub(crate) stored_per_s: Option<f64>,
    pub(crate) drained_per_s: Option<f64>,
    pub(crate) cache_hit_rate: Option<f64>,
    pub(crate) writes_avoided: Option<u64>,
    pub(crate) server: Option<Server>,
    /// Latency of the messages whose both ends stayed connected from submission to delivery.
    pub(crate) steady_latency_us: Option<Latency>,
    /// `flap`: connections dropped in the traffic window.
    pub(crate) flaps: Option<u64>,
    /// `flap`, and `idle --resume`: coming back.
    pub(crate) resumed: Option<Resumed>,
    /// `idle`: the time after the logins.
    pub(crate) hold: Option<Hold>,
    /// Messages that the server would never take: the run did not do what was asked for.
    #[serde(skip)]
    pub(crate) refused: u64,
}

impl Report {
    /// Takes over the sums of the books, faults included.
    pub(crate) fn set_sums(&mut self, sums: &Sums) {
        self.sent = sums.sent;
        self.ticked = sums.ticked;
        self.unticked = sums.sent - sums.ticked;
        self.delivered = sums.delivered;
        self.redelivered = sums.redelivered;
        self.refused = sums.refused;
        self.set_faults(sums.faults);
    }

    /// Takes over the faults.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.duplicated = faults.duplicated;
        self.misordered = faults.misordered;
        self.misdelivered = faults.misdelivered;
        self.early_ticks = faults.early_ticks;
    }

    /// 1 if the server did what it must not, 3 if the run is incomplete, else 0.
    pub(crate) fn exit_code(&self, complete: bool) -> u8 {
        let faults =
            self.lost.unwrap_or(0) + self.duplicated + self.misordered + self.misdelivered + self.early_ticks;
        match (faults, complete && self.refused == 0) {
            (1.., _) => 1,
            (0, false) => 3,
            (0, true) => 0,
        }
    }
}

/// Rounded to tenths: more digits would claim more than was measured.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How many per second in `elapsed_ns`; none for no time.
pub(crate) fn per_s(count: u64, elapsed_ns: u64) -> Option<f64> {
    (elapsed_ns > 0).then(|| tenths(count as f64 * 1e9 / elapsed_ns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_there() {
        let value =
            serde_json::to_value(Report { server: Some(Server::default()), ..Report::default() }).unwrap();
        let fields: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 27);
        assert!(value["latency_us"].is_null() && value["cache_hit_rate"].is_null());
        assert_eq!(value["server"].as_object().unwrap().len(), 7);
    }

    #[test]
    fn faults_outrank_incompleteness() {
        let clean = Report { lost: Some(0), ..Report::default() };
        assert_eq!((clean.exit_code(true), clean.exit_code(false)), (0, 3));
        for spoil in [
            |report: &mut Report| report.lost = Some(1),
            |report: &mut Report| report.duplicated = 1,
            |report: &mut Report| report.misordered = 1,
            |report: &mut Report| report.misdelivered = 1,
            |report: &mut Report| report.early_ticks = 1,
        ] {
            let mut report = clean.clone();
            spoil(&mut report);
            assert_eq!((report.exit_code(true), report.exit_code(false)), (1, 1));
        }
    }
}
