//! What events make of the screen's state.

use super::super::steps::Stand;
use super::super::watch::{self, Latency};
use super::*;
use serde_json::json;

/// A sample of one shard that has seen so many messages, each ticked within 20 us and delivered.
pub(crate) fn sample(boot: &str, messages: u64) -> Sample {
    let names = ["messages_in", "ticks_sent", "messages_out"];
    let mut totals: Counters = names.map(|name| (name.to_string(), messages)).into();
    totals.insert("sessions_now".into(), 200);
    let latency = Latency { sent: vec![0, messages, 0], turn_sum_ns: messages * 1_000 };
    Sample {
        boot_id: boot.into(),
        latency_bounds_ns: vec![10_000, 20_000],
        totals: totals.clone(),
        shards: vec![watch::Shard { counters: totals, latency }],
    }
}

fn rates(state: &State) -> [u64; 3] {
    [0, 1, 2].map(|index: usize| state.flows[index].per_s.round() as u64)
}

#[test]
fn rates_are_those_of_the_last_second() {
    let mut state = State::default();
    for (at_ms, messages) in [(0, 0), (500, 1_000), (1_000, 4_000), (1_500, 9_000)] {
        state.feed(at_ms, Event::Sample(sample("a", messages)));
    }
    assert_eq!(rates(&state), [8_000; 3]);
    assert_eq!(state.flows[0].history, [2_000, 6_000, 10_000]);
    assert_eq!(state.server, Server { is_up: true, is_killed: false, sessions: 200 });
    let tick = state.tick.unwrap();
    assert_eq!((tick.p50_ns, tick.p99_ns.round(), tick.max_ns), (15_000.0, 19_900.0, 20_000.0));
    let shard = state.shards[0];
    assert_eq!((shard.sessions, shard.in_per_s, shard.busy), (200, 8_000.0, 0.008));
}

#[test]
fn a_killed_server_has_no_rates_and_its_successor_begins_anew() {
    let mut state = State::default();
    state.feed(0, Event::Sample(sample("a", 0)));
    state.feed(200, Event::Sample(sample("a", 1_000)));
    state.feed(300, Event::Killed);
    assert_eq!((rates(&state), state.tick), ([0; 3], None));
    assert_eq!(state.server, Server { is_up: false, is_killed: true, sessions: 0 });
    state.feed(400, Event::Silence);
    assert!(state.server.is_killed);
    state.feed(600, Event::Sample(sample("b", 50)));
    assert_eq!((rates(&state), state.server.is_killed), ([0; 3], false));
    state.feed(800, Event::Sample(sample("b", 250)));
    assert_eq!(rates(&state), [1_000; 3]);
    // The gap is seen: twice nothing, by the kill and by the silence.
    assert_eq!(state.flows[2].history, [5_000, 0, 0, 1_000]);
}

#[test]
fn totals_go_on_from_part_to_part() {
    let mut state = State::default();
    let progress = |sent, flaps| {
        Event::Progress(Progress { sent, ticked: sent, delivered: sent, flaps, ..Progress::default() })
    };
    state.feed(1, progress(10, 0));
    let report =
        json!({ "sent": 12, "ticked": 12, "delivered": 11, "redelivered": 2, "lost": 1, "flaps": null });
    state.feed(2, Event::Report(report));
    assert!(!state.totals.is_even());
    state.feed(3, progress(5, 4));
    assert_eq!(
        state.totals,
        Totals { sent: 17, ticked: 17, delivered: 16, redelivered: 2, lost: 1, flaps: 4 }
    );
}

#[test]
fn the_generator_tells_when_phones_come_for_their_mail() {
    let mut state = State::default();
    let drains = || Event::Progress(Progress { phase: "drain".into(), ..Progress::default() });
    state.feed(0, Event::Begin(Step::Recover));
    // The end of the talk has the same name.
    state.feed(10, drains());
    assert!(state.steps.is_under_way(Step::Recover));
    state.feed(20, Event::Begin(Step::Store));
    state.feed(30, drains());
    assert!(state.steps.is_under_way(Step::Drain));
    state.feed(40, Event::Done);
    assert!(state.done);
    let over = |(_, stand, _): &(Step, Stand, &str)| *stand == Stand::Done { took_ms: 10 };
    assert_eq!(state.steps.each().filter(over).count(), 2);
}

#[test]
fn lines_and_history_are_bounded() {
    let mut state = State::default();
    for number in 0..1_000_u64 {
        state.feed(number, Event::Line(number.to_string()));
        state.feed(number, Event::Silence);
    }
    assert_eq!((state.lines.len(), state.flows[0].history.len()), (LINE_COUNT, HISTORY_COUNT));
    assert_eq!(state.lines.back().map(String::as_str), Some("999"));
}
