//! Asks the server how it is, a few times a second, from a thread of its own.

use super::event::Event;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;
use tern_admin::Admin;

/// Between two questions. The server's own counts are at most 50 ms old.
const PERIOD: Duration = Duration::from_millis(200);
/// A server that is being killed does not answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /v1/status`, as far as it is shown.
#[derive(Clone, Default, Deserialize, Debug)]
pub(super) struct Sample {
    pub(super) boot_id: String,
    pub(super) latency_bounds_ns: Vec<u64>,
    pub(super) totals: Counters,
    pub(super) shards: Vec<Shard>,
}

/// Counters by name.
pub(super) type Counters = BTreeMap<String, u64>;

/// One shard of it.
#[derive(Clone, Default, Deserialize, Debug)]
pub(super) struct Shard {
    pub(super) counters: Counters,
    pub(super) latency: Latency,
}

/// Durations by bucket, since the server's start.
#[derive(Clone, Default, Deserialize, Debug)]
pub(super) struct Latency {
    /// From a message's arrival until its `sent` tick leaves.
    pub(super) sent: Vec<u64>,
    pub(super) turn_sum_ns: u64,
}

impl Sample {
    fn of(status: Value) -> Option<Self> {
        serde_json::from_value(status).ok()
    }
}

/// What a counter of all shards gained between two answers of `/v1/status`.
pub(super) fn grown(before: &Value, after: &Value, name: &str) -> u64 {
    let of = |status: &Value| status["totals"][name].as_u64().unwrap_or(0);
    of(after).saturating_sub(of(before))
}

/// Asks until it is dropped.
pub(super) struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask.
    pub(super) fn start(admin: Admin, tell: Sender<Event>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (theirs, admin) = (Arc::clone(&over), admin.within(TIMEOUT));
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                let sample = admin.get("/v1/status").ok().and_then(Sample::of);
                if tell.send(sample.map_or(Event::Silence, Event::Sample)).is_err() {
                    return;
                }
                std::thread::sleep(PERIOD);
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_the_server_tells() {
        let status = json!({
            "boot_id": "a", "uptime_s": 3, "latency_bounds_ns": [1000, 2000],
            "totals": { "messages_in": 5 },
            "shards": [{ "counters": { "sessions_now": 2 }, "latency": { "sent": [1, 2, 3], "turn_sum_ns": 9, "turn": [] } }],
        });
        let sample = Sample::of(status).unwrap();
        assert_eq!((sample.totals["messages_in"], sample.shards[0].latency.sent[2]), (5, 3));
        assert!(Sample::of(json!({ "boot_id": 1 })).is_none());
    }
}
