//! What phones notice while something else goes on: their generator's report, and the server's own measure beside it.

use serde_json::{Value, json};
use tern_admin::{gained, quantile};

/// Every counter that an attack or a storm may touch, as `/v1/status` names them; `/metrics` has the same numbers.
const COUNTERS: [&str; 17] = [
    "accepted",
    "logins",
    "refused_connections",
    "refused_address_connects",
    "refused_address_handshakes",
    "deferred_handshakes",
    "refused_handshakes",
    "handshakes_failed",
    "protocol_errors",
    "timeouts",
    "tickets_refused",
    "logins_unproven",
    "too_large",
    "floods",
    "bad_acknowledgements",
    "refused_memory",
    "refused_busy",
];

/// One measurement.
pub(super) struct Measured {
    /// The generator's report.
    pub(super) phones: Value,
    /// The report of who disturbed them, if anyone did.
    pub(super) others: Value,
    /// The server's status when that began, and at the end.
    pub(super) before: Value,
    pub(super) after: Value,
}

/// Messages that the server has taken.
pub(super) fn messages_in(status: &Value) -> Option<u64> {
    status["totals"]["messages_in"].as_u64()
}

/// The counters that grew, and by how much; `more` are looked at beside those that always are.
pub(super) fn grown(before: &Value, after: &Value, more: &[&str]) -> Value {
    let grown = COUNTERS.iter().chain(more).filter_map(|name| {
        let of = |status: &Value| status["totals"][*name].as_u64();
        let gain = of(after)?.saturating_sub(of(before)?);
        (gain > 0).then(|| ((*name).to_string(), json!(gain)))
    });
    Value::Object(grown.collect())
}

impl Measured {
    /// Latency counts from the scheduled time to the delivery.
    pub(super) fn p99_us(&self) -> Option<f64> {
        self.phones["latency_us"]["p99"].as_f64()
    }

    /// From the beginning of the turn that takes a message to its `sent` tick, which waits until the recipient has
    /// acknowledged, or for the group commit; microseconds.
    pub(super) fn in_server_us(&self, part: f64) -> Option<f64> {
        let numbers = |list: &Value| -> Vec<u64> {
            list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        let sent = |status: &Value| numbers(&status["shards"][0]["latency"]["sent"]);
        let bounds_ns = numbers(&self.after["latency_bounds_ns"]);
        let ns = quantile(&bounds_ns, &gained(&sent(&self.before), &sent(&self.after)), part)?;
        Some((ns / 100.0).round() / 10.0)
    }

    /// Likewise, to the `sent` tick.
    pub(super) fn tick_p99_us(&self) -> Option<f64> {
        self.phones["tick_latency_us"]["p99"].as_f64()
    }

    /// What is told of the phones.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "latency_us": self.phones["latency_us"],
            "tick_latency_us": self.phones["tick_latency_us"],
            "in_server_us": { "p50": self.in_server_us(0.5), "p99": self.in_server_us(0.99) },
            "msgs_per_s": self.phones["msgs_per_s"],
            "server": self.phones["server"],
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One shard with bounds at 100 and 200 us: all of its messages took between the two, or the first so many less.
    pub(crate) fn status(timeouts: u64, fast: u64, slow: u64) -> Value {
        json!({
            "totals": { "timeouts": timeouts, "floods": 2, "mesh_in": timeouts },
            "latency_bounds_ns": [100_000, 200_000],
            "shards": [{ "latency": { "sent": [fast, slow, 0] } }],
        })
    }

    #[test]
    fn only_what_grew_is_told() {
        let (before, after) = (status(1, 0, 0), status(4, 0, 0));
        assert_eq!(grown(&before, &after, &["floods"]), json!({ "timeouts": 3 }));
        assert_eq!(grown(&before, &after, &["mesh_in"]), json!({ "timeouts": 3, "mesh_in": 3 }));
    }
}
