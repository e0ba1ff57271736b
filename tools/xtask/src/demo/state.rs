//! What the screen shows: a plain struct, fed with events and the time.

use super::event::{Event, Progress};
use super::steps::{Step, Steps};
use super::watch::{Counters, Sample};
use serde_json::Value;
use std::collections::VecDeque;
use tern_admin::{gained, quantile};

/// Columns of history that are kept: more than any terminal has.
const HISTORY_COUNT: usize = 512;
/// Rates and percentiles are those of the last so many milliseconds.
const WINDOW_MS: u64 = 1_000;
/// Lines of children that are kept, for when something goes wrong.
const LINE_COUNT: usize = 200;

/// The server's counters of what is shown as a rate: a message came, its `sent` tick left, it went to a device.
const FLOWS: [&str; 3] = ["messages_in", "ticks_sent", "messages_out"];

/// Everything on the screen.
#[derive(Clone, Default, Debug)]
pub(super) struct State {
    pub(super) steps: Steps,
    /// Where the server listens, once it does.
    pub(super) phone: String,
    pub(super) server: Server,
    /// Sent, ticked, delivered: each second now, and its history, oldest first.
    pub(super) flows: [Flow; FLOWS.len()],
    /// From arrival to the tick `sent`, in the last second; none without traffic.
    pub(super) tick: Option<Tick>,
    pub(super) shards: Vec<Shard>,
    /// Of the parts that are over and the one under way.
    pub(super) totals: Totals,
    /// What was said last.
    pub(super) said: String,
    /// The latest lines of child processes.
    pub(super) lines: VecDeque<String>,
    /// Everything is over, and well.
    pub(super) done: bool,
    /// Totals of the parts that are over.
    past: Totals,
    recent: VecDeque<(u64, Sample)>,
}

/// The server, seen from outside.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Server {
    pub(super) is_up: bool,
    /// Killed, and not there again yet.
    pub(super) is_killed: bool,
    pub(super) sessions: u64,
}

/// A rate.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Flow {
    pub(super) per_s: f64,
    pub(super) history: VecDeque<u64>,
}

/// A latency. The largest is known by its bucket: it was at most this.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Tick {
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    pub(super) max_ns: f64,
}

/// One shard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Shard {
    pub(super) sessions: u64,
    pub(super) in_per_s: f64,
    /// Part of the time that it worked.
    pub(super) busy: f64,
}

/// What became of the messages.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Totals {
    pub(super) sent: u64,
    pub(super) ticked: u64,
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    pub(super) lost: u64,
    pub(super) flaps: u64,
}

impl State {
    /// Takes an event in; `now_ms` is the time since the beginning.
    pub(super) fn feed(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Say(text) => self.said = text,
            Event::Line(line) => self.line(line),
            Event::Begin(step) => self.steps.begin(step, now_ms),
            Event::Result(text) => self.steps.note(text),
            Event::Serves { phone } => {
                self.phone = phone;
                self.server = Server { is_up: true, is_killed: false, sessions: 0 };
            }
            Event::Killed => {
                self.fall_silent();
                self.server.is_killed = true;
            }
            Event::Sample(sample) => self.sample(now_ms, sample),
            Event::Silence => self.fall_silent(),
            Event::Progress(progress) => self.progress(now_ms, &progress),
            Event::Report(report) => {
                self.past = self.past.plus(Totals::of_report(&report));
                self.totals = self.past;
            }
            Event::Done => {
                self.steps.end(now_ms);
                self.done = true;
            }
        }
    }

    fn line(&mut self, line: String) {
        if self.lines.len() == LINE_COUNT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn progress(&mut self, now_ms: u64, progress: &Progress) {
        // The mail was stored when the phones come for it: only the generator knows when.
        if progress.phase == "drain" && self.steps.is_under_way(Step::Store) {
            self.steps.begin(Step::Drain, now_ms);
        }
        self.totals = self.past.plus(Totals {
            sent: progress.sent,
            ticked: progress.ticked,
            delivered: progress.delivered,
            redelivered: progress.redelivered,
            lost: 0,
            flaps: progress.flaps,
        });
    }

    fn fall_silent(&mut self) {
        self.server.is_up = false;
        self.server.sessions = 0;
        self.recent.clear();
        self.tick = None;
        for flow in &mut self.flows {
            flow.per_s = 0.0;
            flow.push(0);
        }
        for shard in &mut self.shards {
            *shard = Shard { sessions: 0, in_per_s: 0.0, busy: 0.0 };
        }
    }

    fn sample(&mut self, now_ms: u64, sample: Sample) {
        if self.recent.back().is_some_and(|(_, last)| last.boot_id != sample.boot_id) {
            self.recent.clear();
        }
        self.server =
            Server { is_up: true, is_killed: false, sessions: value(&sample.totals, "sessions_now") };
        if let Some((last_ms, last)) = self.recent.back() {
            for (flow, name) in self.flows.iter_mut().zip(FLOWS) {
                let gained = gain(&last.totals, &sample.totals, name);
                flow.push(per_s(gained, now_ms - last_ms).round() as u64);
            }
        }
        self.recent.push_back((now_ms, sample));
        while self.recent.get(1).is_some_and(|(at_ms, _)| at_ms + WINDOW_MS <= now_ms) {
            self.recent.pop_front();
        }
        let (Some((old_ms, old)), Some((_, new))) = (self.recent.front(), self.recent.back()) else { return };
        let passed_ms = now_ms - old_ms;
        for (flow, name) in self.flows.iter_mut().zip(FLOWS) {
            flow.per_s = per_s(gain(&old.totals, &new.totals, name), passed_ms);
        }
        self.tick = Tick::between(old, new);
        self.shards = (0..new.shards.len()).map(|index| shard(old, new, index, passed_ms)).collect();
    }
}

impl Flow {
    fn push(&mut self, per_s: u64) {
        if self.history.len() == HISTORY_COUNT {
            self.history.pop_front();
        }
        self.history.push_back(per_s);
    }
}

impl Totals {
    fn of_report(report: &Value) -> Self {
        let field = |name: &str| report[name].as_u64().unwrap_or(0);
        Self {
            sent: field("sent"),
            ticked: field("ticked"),
            delivered: field("delivered"),
            redelivered: field("redelivered"),
            lost: field("lost"),
            flaps: field("flaps"),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            ticked: self.ticked + other.ticked,
            delivered: self.delivered + other.delivered,
            redelivered: self.redelivered + other.redelivered,
            lost: self.lost + other.lost,
            flaps: self.flaps + other.flaps,
        }
    }

    /// Whether every message that was sent is ticked and delivered.
    pub(super) fn is_even(self) -> bool {
        self.sent == self.ticked && self.ticked == self.delivered
    }
}

impl Tick {
    /// Of what all shards' buckets gained.
    fn between(old: &Sample, new: &Sample) -> Option<Self> {
        let bounds_ns = &new.latency_bounds_ns;
        let mut counts = vec![0_u64; bounds_ns.len() + 1];
        for (old, new) in old.shards.iter().zip(&new.shards) {
            let gained = gained(&old.latency.sent, &new.latency.sent);
            counts.iter_mut().zip(gained).for_each(|(sum, count)| *sum += count);
        }
        let last = counts.iter().rposition(|&count| count > 0)?;
        Some(Self {
            p50_ns: quantile(bounds_ns, &counts, 0.5)?,
            p99_ns: quantile(bounds_ns, &counts, 0.99)?,
            max_ns: bounds_ns.get(last).or(bounds_ns.last()).map_or(0.0, |&bound_ns| bound_ns as f64),
        })
    }
}

fn shard(old: &Sample, new: &Sample, index: usize, passed_ms: u64) -> Shard {
    let now = &new.shards[index];
    let before = old.shards.get(index).unwrap_or(now);
    let busy_ns = now.latency.turn_sum_ns.saturating_sub(before.latency.turn_sum_ns);
    Shard {
        sessions: value(&now.counters, "sessions_now"),
        in_per_s: per_s(gain(&before.counters, &now.counters, "messages_in"), passed_ms),
        busy: per_s(busy_ns, passed_ms) / 1e9,
    }
}

fn value(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

fn gain(old: &Counters, new: &Counters, name: &str) -> u64 {
    value(new, name).saturating_sub(value(old, name))
}

fn per_s(count: u64, passed_ms: u64) -> f64 {
    if passed_ms == 0 { 0.0 } else { count as f64 * 1e3 / passed_ms as f64 }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
