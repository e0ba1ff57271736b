//! What is on the screen, by ratatui's own test terminal.

use super::super::event::{Event, Progress};
use super::super::state::tests::sample;
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn lines(state: &State, width: u16, height: u16, is_ending: bool) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, 65_400, is_ending)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(line).collect()
}

fn assert_has(lines: &[String], wanted: &[&str]) {
    for words in wanted {
        let is_in = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(words);
        assert!(lines.iter().any(is_in), "no {words:?} in:\n{}", lines.join("\n"));
    }
}

/// In the middle of the talk.
fn talking() -> State {
    let mut state = State::default();
    for (at_ms, step) in
        [(0, Step::Build), (30_000, Step::Start), (30_300, Step::LogIn), (31_000, Step::Talk)]
    {
        state.feed(at_ms, Event::Begin(step));
        state.feed(at_ms, Event::Result(format!("note of {step:?}")));
    }
    state.feed(31_000, Event::Serves { phone: "127.0.0.1:7322".into() });
    state.feed(31_000, Event::Say("200 phones talk".into()));
    state.feed(31_000, Event::Line("   a word of a child".into()));
    for (at_ms, messages) in [(64_000, 0), (64_500, 9_000), (65_000, 20_000)] {
        state.feed(at_ms, Event::Sample(sample("a", messages)));
    }
    let progress = Progress { sent: 900, ticked: 900, delivered: 900, flaps: 7, ..Progress::default() };
    state.feed(65_000, Event::Progress(progress));
    state
}

#[test]
fn all_is_there_in_80_by_24() {
    let lines = lines(&talking(), 80, 24, false);
    assert_has(
        &lines,
        &[
            "tern demo serving 127.0.0.1:7322 1 shards 1:05",
            "✓ build 30.0s",
            "✓ phones register and log in 0.7s",
            "▶ they talk in pairs 34.4s",
            "note of Talk",
            "· kill -9, start again",
            "· SIGTERM: drain and end",
            "phones connected 200 dropped 7",
            "sent/s 20.0k",
            "ticked/s 20.0k",
            "delivered/s 20.0k",
            "p50 15us p99 20us max < 20us",
            "0 200 20.0k 2%",
            "sent 900 = ticked 900 = delivered 900",
            "redelivered 0 lost 0",
            "200 phones talk",
            "a word of a child",
            "q ends it",
        ],
    );
}

#[test]
fn the_history_ends_at_the_right_edge() {
    let lines = lines(&talking(), 80, 24, false);
    let sent = lines.iter().find(|line| line.contains("sent/s")).unwrap();
    assert!(sent.trim_end_matches(['│', ' ']).ends_with('█') && sent.ends_with("█│"), "{sent}");
    assert!(!sent.contains("███"), "two samples, two bars: {sent}");
}

#[test]
fn a_killed_server_and_an_uneven_account_are_seen() {
    let mut state = talking();
    state.feed(65_100, Event::Begin(Step::Kill));
    state.feed(65_100, Event::Killed);
    state.feed(
        65_100,
        Event::Progress(Progress { sent: 901, ticked: 900, delivered: 899, ..Progress::default() }),
    );
    assert_has(
        &lines(&state, 80, 24, false),
        &[
            "KILLED by SIGKILL",
            "▶ kill -9, start again",
            "phones connected 0",
            "sent 901 ticked 900 delivered 899",
        ],
    );
    assert_has(&lines(&state, 80, 24, true), &["ending: server and generator are stopped"]);
    state.feed(70_000, Event::Done);
    assert_has(&lines(&state, 80, 24, false), &["all is done"]);
}

#[test]
fn every_step_has_its_line_however_many_notes_there_are() {
    let mut state = State::default();
    for (now_ms, step) in (0..).zip(Step::ALL) {
        state.feed(now_ms, Event::Begin(step));
        state.feed(now_ms, Event::Result(format!("note of {step:?}")));
    }
    for height in [22, 24, 40] {
        assert_has(&lines(&state, 80, height, false), &Step::ALL.map(Step::title));
    }
    // The latest notes are those that there is room for.
    let shown = lines(&state, 80, 24, false);
    assert_has(&shown, &["note of Attack", "note of Stop"]);
    assert!(!shown.iter().any(|line| line.contains("note of Build")));
    assert_has(&lines(&state, 80, 40, false), &["note of Build"]);
}

#[test]
fn any_size_does_no_harm() {
    let state = talking();
    for (width, height) in [(1, 1), (20, 5), (43, 9), (79, 23), (300, 100)] {
        lines(&state, width, height, false);
    }
    lines(&State::default(), 80, 24, false);
}

#[test]
fn times_are_short() {
    assert_eq!((seconds(12_345), clock(605_000)), ("12.3s".into(), "10:05".into()));
}
