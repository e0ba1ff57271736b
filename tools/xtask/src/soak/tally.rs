//! The sum of all rounds.

use serde_json::{Value, json};

/// What happened, and to how many messages.
#[derive(Default, Debug)]
pub(super) struct Tally {
    /// The first round's.
    seed: u64,
    pub(super) rounds: u64,
    /// The seeds of rounds that went wrong.
    pub(super) failed: Vec<u64>,
    pub(super) kills: u64,
    pub(super) drains: u64,
    pub(super) stops: u64,
    pub(super) hang_ups: u64,
    sent: u64,
    ticked: u64,
    delivered: u64,
    redelivered: u64,
    lost: u64,
}

impl Tally {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds what the generator found.
    pub(super) fn add(&mut self, report: &Value) {
        let sums = [
            ("sent", &mut self.sent),
            ("ticked", &mut self.ticked),
            ("delivered", &mut self.delivered),
            ("redelivered", &mut self.redelivered),
            ("lost", &mut self.lost),
        ];
        sums.into_iter().for_each(|(name, sum)| *sum += report[name].as_u64().unwrap_or(0));
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "rounds": self.rounds,
            "failed": self.failed,
            "kills": self.kills,
            "drains": self.drains,
            "stops": self.stops,
            "hang_ups": self.hang_ups,
            "sent": self.sent,
            "ticked": self.ticked,
            "delivered": self.delivered,
            "redelivered": self.redelivered,
            "lost": self.lost,
        })
    }
}
