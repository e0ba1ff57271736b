//! The Prometheus text format (version 0.0.4): what every scraper reads and `promtool check metrics` checks.

use std::fmt::Write as _;
use tern_core::histogram::{BOUNDS_NS, Histogram};
use tern_driver::{BOUNDS_BYTES, Depths};

/// What `Content-Type` says.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of metric a family is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page of metrics that is being written: families one after the other, each with all its samples.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// The family that is being written.
pub(super) struct Family<'p> {
    text: &'p mut String,
    name: String,
}

/// Names and values of labels.
pub(super) type Labels<'l> = &'l [(&'l str, &'l str)];

impl Page {
    /// Begins a family. A counter's name gets `_total`.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let (name, kind) = match kind {
            Kind::Counter => (format!("{name}_total"), "counter"),
            Kind::Gauge => (name.to_string(), "gauge"),
            Kind::Histogram => (name.to_string(), "histogram"),
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl std::fmt::Display) {
        self.line("", labels, None, &value);
    }

    /// Writes one histogram of durations, in seconds.
    pub(super) fn durations(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let mut count = 0;
        for (index, in_bucket) in histogram.counts().iter().enumerate() {
            count += in_bucket;
            let bound =
                BOUNDS_NS.get(index).map_or_else(|| "+Inf".to_string(), |&ns| seconds(ns).to_string());
            self.line("_bucket", labels, Some(&bound), &count);
        }
        self.line("_sum", labels, None, &seconds(histogram.sum_ns()));
        self.line("_count", labels, None, &count);
    }

    /// Writes one histogram of depths, in bytes.
    pub(super) fn depths(&mut self, labels: Labels<'_>, depths: &Depths) {
        let mut count = 0;
        for (index, in_bucket) in depths.counts().iter().enumerate() {
            count += in_bucket;
            let bound = BOUNDS_BYTES.get(index).map_or_else(|| "+Inf".to_string(), u64::to_string);
            self.line("_bucket", labels, Some(&bound), &count);
        }
        self.line("_sum", labels, None, &depths.sum_bytes());
        self.line("_count", labels, None, &count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: &dyn std::fmt::Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let bound = bound.map(|bound| ("le", bound));
        for (index, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{opening}{name}=\"{value}\"");
        }
        let closing = if labels.is_empty() && bound.is_none() { "" } else { "}" };
        let _ = writeln!(self.text, "{closing} {value}");
    }
}

/// Nanoseconds as the format's base unit.
#[allow(clippy::cast_precision_loss)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_as_the_format_has_it() {
        let mut page = Page::default();
        page.family("a", Kind::Counter, "Help\nover \\ two.").sample(&[("x", "\"q\"\n\\"), ("y", "1")], 7);
        page.family("b", Kind::Gauge, "B.").sample(&[], 0.5);
        let mut histogram = Histogram::default();
        histogram.record(1500);
        histogram.record(2000);
        histogram.record(u64::MAX / 2);
        page.family("c_seconds", Kind::Histogram, "C.").durations(&[("shard", "3")], &histogram);
        let text = page.finish();
        let start = "# HELP a_total Help\\nover \\\\ two.\n# TYPE a_total counter\n\
                     a_total{x=\"\\\"q\\\"\\n\\\\\",y=\"1\"} 7\n# HELP b B.\n# TYPE b gauge\nb 0.5\n";
        assert!(text.starts_with(start), "{text}");
        for line in [
            "# TYPE c_seconds histogram",
            "c_seconds_bucket{shard=\"3\",le=\"0.000001\"} 0",
            "c_seconds_bucket{shard=\"3\",le=\"0.000002\"} 2",
            "c_seconds_bucket{shard=\"3\",le=\"10\"} 2",
            "c_seconds_bucket{shard=\"3\",le=\"+Inf\"} 3",
            "c_seconds_count{shard=\"3\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
        }
    }
}
