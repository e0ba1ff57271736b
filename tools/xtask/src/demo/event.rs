//! What the demonstration tells of itself while it runs.

use super::steps::Step;
use super::watch::Sample;
use serde_json::Value;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// For people.
    Say(String),
    /// A line of a child process.
    Line(String),
    /// A step begins; the one before is over.
    Begin(Step),
    /// What came out of the present step, in a few words.
    Result(String),
    /// The server serves.
    Serves { phone: String },
    /// The server was killed.
    Killed,
    /// How the server is.
    Sample(Sample),
    /// The server does not answer.
    Silence,
    /// How far the generator is.
    Progress(Progress),
    /// A part of the demonstration is over: the generator's report.
    Report(Value),
    /// Everything is over, and well.
    Done,
}

/// A line of the generator's progress.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    /// What it is at.
    pub(super) phase: String,
    pub(super) online: u64,
    pub(super) flaps: u64,
    pub(super) sent: u64,
    pub(super) ticked: u64,
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
}

impl Progress {
    /// Of a line `SECONDS s PHASE: NAME NUMBER NAME NUMBER ...`; none if it is no such line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (head, numbers) = line.split_once(": ")?;
        let phase = head.trim_start().split_once(" s ")?.1.to_string();
        let mut progress = Self { phase, ..Self::default() };
        let mut words = numbers.split_whitespace();
        while let Some(name) = words.next() {
            let value: u64 = words.next()?.parse().ok()?;
            match name {
                "online" => progress.online = value,
                "flaps" => progress.flaps = value,
                "sent" => progress.sent = value,
                "ticked" => progress.ticked = value,
                "delivered" => progress.delivered = value,
                "redelivered" => progress.redelivered = value,
                _ => {}
            }
        }
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_generator_prints() {
        let line = "   3.2 s traffic: online 200 lost 0 flaps 4 sent 90 ticked 80 delivered 70 redelivered 3 busy 0 resent 1";
        let found = Progress::parse(line).unwrap();
        let wanted = Progress {
            phase: "traffic".into(),
            online: 200,
            flaps: 4,
            sent: 90,
            ticked: 80,
            delivered: 70,
            redelivered: 3,
        };
        assert_eq!(found, wanted);
        for other in ["tern-load: drain: no progress for 3 s", "", "3.2 s traffic: online", "x: y 1"] {
            assert_eq!(Progress::parse(other), None, "{other}");
        }
    }
}
