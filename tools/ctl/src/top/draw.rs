//! How the live view looks: 80 columns and 24 lines are enough.

use super::view::View;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use std::time::Duration;
use tern_admin::{bytes, count, duration};

/// Lines for mailboxes, their heading included.
const HOTTEST_LINES: u16 = 8;
/// Lines of the summary.
const SUMMARY_LINES: u16 = 7;

/// What is on the screen beside the view.
#[derive(Clone, Default, Debug)]
pub(super) struct Screen {
    pub(super) view: Option<View>,
    /// The first shard that is shown.
    pub(super) first_shard: usize,
    /// Why there is no newer view.
    pub(super) trouble: Option<String>,
    /// For how long nothing has been heard, where that is long.
    pub(super) silence: Option<Duration>,
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [summary, shards, hottest, foot] = Layout::vertical([
        Constraint::Length(SUMMARY_LINES),
        Constraint::Min(3),
        Constraint::Length(HOTTEST_LINES),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    if let Some(view) = &screen.view {
        frame.render_widget(Paragraph::new(summary_of(view)), summary);
        draw_shards(frame, shards, view, screen.first_shard);
        let [fullest, busiest] =
            Layout::horizontal([Constraint::Min(40), Constraint::Length(34)]).spacing(2).areas(hottest);
        draw_fullest(frame, fullest, view);
        draw_busiest(frame, busiest, view);
    }
    let line = match (&screen.trouble, screen.silence) {
        (trouble, Some(silence)) => {
            let trouble = trouble.as_ref().map_or(String::new(), |trouble| format!(": {trouble}"));
            Line::from(format!("no answer for {} s{trouble}", silence.as_secs())).red()
        }
        (Some(trouble), None) => Line::from(trouble.as_str()).red(),
        (None, None) if screen.view.is_none() => Line::from("asking the node"),
        (None, None) => Line::from("q quits, arrows scroll the shards").dim(),
    };
    frame.render_widget(Paragraph::new(line), foot);
}

fn summary_of(view: &View) -> Vec<Line<'static>> {
    let rate = |name: &str| count(view.rates.of(name));
    let level = |name: &str| count(view.level(name) as f64);
    let state = view.trouble.as_ref().map_or(String::new(), |trouble| format!(" {}", trouble.to_uppercase()));
    let (limits, most) = view.limits.sum_and_most();
    vec![
        Line::from(vec![
            Span::from(format!("tern {}", view.version)).bold(),
            Span::from(format!("  {}  up {}", view.phone, age(view.uptime_s))),
            Span::from(state).red().bold(),
            Span::from(format!("  cpu {:.0}%  memory {}", view.cpu * 100.0, bytes(view.rss_bytes as f64))),
        ]),
        fields(&[
            ("sessions", level("sessions_now")),
            ("connections", level("connections_now")),
            ("accounts", level("accounts_now")),
            ("logins/s", rate("logins")),
        ]),
        fields(&[
            ("in/s", rate("messages_in")),
            ("out/s", rate("messages_out")),
            ("sent/s", rate("ticks_sent")),
            ("delivered/s", rate("ticks_delivered")),
        ]),
        fields(&[
            ("waiting", level("mail_count_now")),
            ("mail", bytes(view.level("mail_bytes_now") as f64)),
            ("commits/s", rate("log_commits")),
            ("log/s", bytes(view.rates.of("log_bytes_written"))),
        ]),
        fields(&[
            ("to sent p50", duration(view.sent.p50_ns)),
            ("p99", duration(view.sent.p99_ns)),
            ("commit p50", duration(view.commit.p50_ns)),
            ("p99", duration(view.commit.p99_ns)),
        ]),
        fields(&[
            ("busy/s", rate("refused_busy")),
            ("limits/s", count(limits)),
            ("errors/s", rate("protocol_errors")),
            ("timeouts/s", rate("timeouts")),
        ]),
        most.map_or_else(Line::default, |(name, per_s)| {
            Line::from(vec![
                Span::from(format!("{:<12}", "most hit")).dim(),
                Span::from(format!("{name} {}/s", count(per_s))).red(),
            ])
        }),
    ]
}

/// Names and values in four columns.
fn fields(list: &[(&str, String)]) -> Line<'static> {
    let mut spans = Vec::new();
    for (name, value) in list {
        spans.push(Span::from(format!("{name:<12}")).dim());
        spans.push(Span::from(format!("{value:<8}")));
    }
    Line::from(spans)
}

fn draw_shards(frame: &mut Frame<'_>, area: Rect, view: &View, first: usize) {
    let heading =
        ["shard", "sessions", "in/s", "out/s", "busy", "sent p50", "p99", "turn p99", "waiting", "mesh"];
    let rows = view.shards.iter().enumerate().skip(first).map(|(number, shard)| {
        let cells = [
            number.to_string(),
            count(shard.sessions as f64),
            count(shard.rates.of("messages_in")),
            count(shard.rates.of("messages_out")),
            format!("{:.0}%", shard.busy * 100.0),
            duration(shard.sent.p50_ns),
            duration(shard.sent.p99_ns),
            duration(shard.turn.p99_ns),
            count(shard.waiting as f64),
            bytes(shard.mesh_depth_bytes as f64),
        ];
        let style = if shard.busy > 0.9 { Style::new().red() } else { Style::new() };
        Row::new(cells.map(right)).style(style)
    });
    let widths = [5, 8, 7, 7, 5, 8, 7, 8, 7, 7].map(Constraint::Length);
    let heading = Row::new(heading.map(|name| right(name.into()))).bold();
    frame.render_widget(Table::new(rows, widths).header(heading).column_spacing(1), area);
}

fn draw_fullest(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let title = if view.hottest_complete { "fullest mailboxes" } else { "fullest (part)" };
    let heading = [title, "shard", "entries", "bytes", "phone"];
    let rows = view.hottest.iter().map(|mailbox| {
        Row::new([
            Cell::from(mailbox.name.clone()),
            right(mailbox.shard.to_string()),
            right(count(mailbox.entries as f64)),
            right(bytes(mailbox.bytes as f64)),
            right(if mailbox.online { "online" } else { "away" }.into()),
        ])
    });
    let widths = [
        Constraint::Min(14),
        Constraint::Length(5),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
    ];
    frame.render_widget(Table::new(rows, widths).header(headed(heading)).column_spacing(1), area);
}

fn draw_busiest(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.busiest.iter().map(|(name, shard, messages_per_s)| {
        let rate = right(count(*messages_per_s as f64));
        Row::new([Cell::from(name.clone()), right(shard.to_string()), rate])
    });
    let widths = [Constraint::Min(14), Constraint::Length(5), Constraint::Length(7)];
    let heading = headed(["gets most", "shard", "in/s"]);
    frame.render_widget(Table::new(rows, widths).header(heading).column_spacing(1), area);
}

fn headed<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    let cells = names.into_iter().enumerate();
    Row::new(cells.map(|(index, name)| if index == 0 { Cell::from(name) } else { right(name.into()) })).bold()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Process, Sample, Status, Top};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::{Duration, Instant};
    use tern_admin::Percentiles;

    /// Answers of a node with two shards under load, two seconds apart, as the endpoint gave them.
    fn recorded(name: &str, at: Instant) -> Sample {
        let answers: serde_json::Value = serde_json::from_str(include_str!("../../tests/top.json"))
            .expect("the recorded answers are JSON");
        let of = |path: &str| answers[name][path].clone();
        let top: Top = serde_json::from_value(of("top")).expect("top");
        let status: Status = serde_json::from_value(of("status")).expect("status");
        let process: Process = serde_json::from_value(of("process")).expect("process");
        Sample { at, status, process, hottest: Some(top.shards) }
    }

    fn screen() -> Screen {
        let start = Instant::now();
        let (before, after) = (recorded("before", start), recorded("after", start + Duration::from_secs(2)));
        Screen { view: Some(View::between(Some(&before), &after)), ..Screen::default() }
    }

    fn lines(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
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

    #[test]
    fn all_is_there_in_80_by_24() {
        let lines = lines(&screen(), 80, 24);
        assert_has(
            &lines,
            &[
                "tern 0.1.0 127.0.0.1:7322",
                "cpu 150% memory 96.0MiB",
                "sessions 1000 connections 1003 accounts 2000",
                "in/s 25.0k out/s 24.0k sent/s 25.0k delivered/s 25.0k",
                "log/s 2.00MiB",
                "limits/s 60",
                "most hit mail_bytes 50/s",
                "to sent p50 1.5ms p99 2.0ms",
                "shard sessions in/s out/s busy sent p50 p99 turn p99 waiting mesh",
                "0 600 15.0k 14.0k 50% 1.5ms 2.0ms",
                "1 400 10.0k 10.0k 95%",
                "ann 0 7000 1.21MiB away",
                "gets most shard in/s",
                "carol 1 9500",
                "bob 1 12 2.11KiB online",
                "q quits",
            ],
        );
    }

    #[test]
    fn many_shards_scroll_and_a_small_screen_does_no_harm() {
        let mut screen = screen();
        let view = screen.view.as_mut().unwrap();
        view.shards = (0..40).flat_map(|_| view.shards[..1].to_vec()).collect();
        let first_cell = |line: &String| line[..5].trim().parse::<usize>().ok();
        let shown = |screen: &Screen| lines(screen, 80, 24)[7..].iter().find_map(first_cell);
        assert_eq!(shown(&screen), Some(0));
        screen.first_shard = 30;
        assert_eq!(shown(&screen), Some(30));
        for (width, height) in [(1, 1), (20, 5), (79, 23), (300, 100)] {
            lines(&screen, width, height);
        }
    }

    #[test]
    fn trouble_is_told_and_the_last_view_stays() {
        let screen = Screen { trouble: Some("admin endpoint 127.0.0.1:7323: refused".into()), ..screen() };
        assert_has(&lines(&screen, 80, 24), &["sessions 1000", "admin endpoint 127.0.0.1:7323: refused"]);
        assert_has(&lines(&Screen::default(), 80, 24), &["asking the node"]);
        let silent = Screen { silence: Some(Duration::from_millis(7_900)), ..screen };
        assert_has(&lines(&silent, 80, 24), &["sessions 1000", "no answer for 7 s: admin endpoint"]);
        assert_has(&lines(&Screen { trouble: None, ..silent }, 80, 24), &["no answer for 7 s"]);
    }

    #[test]
    fn mailboxes_that_nobody_told_of_hide_nothing_else() {
        let mut sample = recorded("after", Instant::now());
        sample.hottest = None;
        let screen = Screen { view: Some(View::between(None, &sample)), ..Screen::default() };
        assert_has(&lines(&screen, 80, 24), &["sessions 1000", "fullest (part)"]);
    }

    #[test]
    fn another_run_of_the_node_has_no_rates_yet() {
        let start = Instant::now();
        let mut before = recorded("before", start);
        before.status.boot_id = "another".into();
        let view = View::between(Some(&before), &recorded("after", start + Duration::from_secs(2)));
        assert_eq!((view.rates.of("messages_in"), view.cpu, view.level("sessions_now")), (0.0, 0.0, 1000));
        assert_eq!(view.sent, Percentiles::default());
    }

    #[test]
    fn a_limit_that_is_hit_every_day_hides_no_other() {
        let start = Instant::now();
        let (before, mut after) =
            (recorded("before", start), recorded("after", start + Duration::from_secs(2)));
        after.status.limit_hits.insert("handshakes_per_turn".into(), 9_000);
        let most = |after: &Sample| {
            let view = View::between(Some(&before), after);
            view.limits.sum_and_most().1.map(|(name, _)| name.to_owned())
        };
        assert_eq!(most(&after).as_deref(), Some("handshakes_per_turn"));
        after.status.everyday_limits = vec!["handshakes_per_turn".into()];
        assert_eq!(most(&after).as_deref(), Some("mail_bytes"));
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([5, 65, 3_700, 90_000].map(age), ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}
