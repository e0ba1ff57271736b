//! How the live screen looks: 80 columns and 24 lines are enough.

use super::state::{Flow, State, Tick};
use super::steps::{Stand, Step};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};
use tern_admin::{count, duration};

/// Columns of the list of steps.
const STEPS_WIDTH: u16 = 42;
/// Columns of a rate's name and value.
const RATE_WIDTH: u16 = 18;
/// Most lines of one rate's history.
const SPARK_LINES: u16 = 7;
/// Names and colours of the rates.
const FLOWS: [(&str, Color); 3] =
    [("sent/s", Color::Cyan), ("ticked/s", Color::Yellow), ("delivered/s", Color::Green)];

/// Draws everything; `now_ms` is the time since the beginning.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now_ms: u64, is_ending: bool) {
    let [head, middle, account, said, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(4),
        Constraint::Length(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_of(state, now_ms)), head);
    let [steps, figures] =
        Layout::horizontal([Constraint::Length(STEPS_WIDTH), Constraint::Min(10)]).areas(middle);
    draw_steps(frame, steps, state, now_ms);
    draw_figures(frame, figures, state);
    let block = Block::bordered().title(" what became of every message ");
    frame.render_widget(Paragraph::new(account_of(state)).block(block), account);
    let last = state.lines.back().map_or("", String::as_str);
    let said_lines = vec![Line::from(state.said.as_str()), Line::from(last.trim()).dim()];
    frame.render_widget(Paragraph::new(said_lines), said);
    let foot_line = match (is_ending, state.done) {
        (true, _) => Line::from("ending: server and generator are stopped, their data removed").red(),
        (false, true) => Line::from("all is done; any key leaves").bold(),
        (false, false) => Line::from("q ends it").dim(),
    };
    frame.render_widget(Paragraph::new(foot_line), foot);
}

fn head_of(state: &State, now_ms: u64) -> Line<'static> {
    let server = if state.server.is_killed {
        Span::from("KILLED by SIGKILL").red().bold()
    } else if state.server.is_up {
        Span::from(format!("serving {}", state.phone)).green()
    } else {
        Span::from("no server").dim()
    };
    Line::from(vec![
        Span::from(" tern demo ").bold().reversed(),
        Span::from("  "),
        server,
        Span::from(format!("  {} shards  {}", state.shards.len(), clock(now_ms))),
    ])
}

fn draw_steps(frame: &mut Frame<'_>, area: Rect, state: &State, now_ms: u64) {
    let mut lines = Vec::new();
    let mut hidden = notes_hidden(area, state);
    for (step, stand, note) in state.steps.each() {
        let (mark, style, took) = match stand {
            Stand::Ahead => ("·", Style::new().dim(), String::new()),
            Stand::UnderWay { since_ms } => {
                ("▶", Style::new().bold().yellow(), seconds(now_ms.saturating_sub(since_ms)))
            }
            Stand::Done { took_ms } => ("✓", Style::new().green(), seconds(took_ms)),
        };
        let style = if step == Step::Kill && stand != Stand::Ahead { style.red() } else { style };
        lines.push(Line::from(vec![
            Span::styled(format!("{mark} {:<32}", step.title()), style),
            Span::from(format!("{took:>6}")).dim(),
        ]));
        if !note.is_empty() {
            if hidden == 0 {
                lines.push(Line::from(format!("    {note}")).dim());
            }
            hidden = hidden.saturating_sub(1);
        }
    }
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" steps ")), area);
}

/// How many notes have no room beside the steps themselves: the oldest.
fn notes_hidden(area: Rect, state: &State) -> usize {
    let lines = usize::from(area.height.saturating_sub(2));
    let notes = state.steps.each().filter(|(_, _, note)| !note.is_empty()).count();
    notes.saturating_sub(lines.saturating_sub(Step::ALL.len()))
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = Block::bordered().title(" the server now ");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let shard_lines = (state.shards.len().max(2) as u16 + 1).min(inside.height / 3);
    let free = inside.height.saturating_sub(3 + shard_lines);
    let spark_lines = (free / FLOWS.len() as u16).clamp(1, SPARK_LINES);
    let [phones, sent, ticked, delivered, tick, shards] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(spark_lines),
        Constraint::Length(spark_lines),
        Constraint::Length(spark_lines),
        Constraint::Length(2),
        Constraint::Min(0),
    ])
    .areas(inside);
    let connected = vec![
        Span::from("phones connected ").dim(),
        Span::from(state.server.sessions.to_string()).bold(),
        Span::from(if state.totals.flaps > 0 {
            format!("  dropped {}", state.totals.flaps)
        } else {
            String::new()
        }),
    ];
    frame.render_widget(Paragraph::new(Line::from(connected)), phones);
    for ((place, flow), (name, color)) in [sent, ticked, delivered].into_iter().zip(&state.flows).zip(FLOWS) {
        draw_flow(frame, place, flow, name, color);
    }
    frame.render_widget(Paragraph::new(tick_of(state.tick)), tick);
    frame.render_widget(Paragraph::new(shards_of(state)), shards);
}

fn draw_flow(frame: &mut Frame<'_>, area: Rect, flow: &Flow, name: &str, color: Color) {
    let [text, spark] = Layout::horizontal([Constraint::Length(RATE_WIDTH), Constraint::Min(1)]).areas(area);
    let line = vec![
        Span::from(format!("{name:<12}")).dim(),
        Span::styled(count(flow.per_s), Style::new().fg(color).bold()),
    ];
    frame.render_widget(Paragraph::new(Line::from(line)), text);
    // The newest at the right edge.
    let shown = usize::from(spark.width);
    let skipped = flow.history.len().saturating_sub(shown);
    let empty = shown.saturating_sub(flow.history.len());
    let bars = std::iter::repeat_n(0, empty).chain(flow.history.iter().skip(skipped).copied());
    frame.render_widget(Sparkline::default().data(bars).style(Style::new().fg(color)), spark);
}

fn tick_of(tick: Option<Tick>) -> Vec<Line<'static>> {
    let figures = match tick {
        None => "-".into(),
        Some(tick) => format!(
            "p50 {}  p99 {}  max < {}",
            duration(Some(tick.p50_ns)),
            duration(Some(tick.p99_ns)),
            duration(Some(tick.max_ns))
        ),
    };
    vec![Line::from("from arrival to the tick sent (safe)").dim(), Line::from(figures).bold()]
}

fn shards_of(state: &State) -> Vec<Line<'static>> {
    let heading = Line::from(format!("{:>5} {:>8} {:>8} {:>6}", "shard", "phones", "in/s", "busy")).dim();
    let rows = state.shards.iter().enumerate().map(|(number, shard)| {
        Line::from(format!(
            "{number:>5} {:>8} {:>8} {:>5.0}%",
            shard.sessions,
            count(shard.in_per_s),
            shard.busy * 100.0
        ))
    });
    std::iter::once(heading).chain(rows).collect()
}

fn account_of(state: &State) -> Vec<Line<'static>> {
    let totals = state.totals;
    let between = if totals.is_even() { " = " } else { "   " };
    let lost = format!("lost {}", totals.lost);
    vec![
        Line::from(vec![
            Span::from(format!("sent {}", totals.sent)).cyan(),
            Span::from(between),
            Span::from(format!("ticked {}", totals.ticked)).yellow(),
            Span::from(between),
            Span::from(format!("delivered {}", totals.delivered)).green(),
        ]),
        Line::from(vec![
            Span::from(format!("redelivered {}   ", totals.redelivered)),
            if totals.lost == 0 { Span::from(lost).green().bold() } else { Span::from(lost).red().bold() },
        ]),
    ]
}

fn seconds(ms: u64) -> String {
    format!("{}.{}s", ms / 1_000, ms / 100 % 10)
}

fn clock(ms: u64) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1_000 % 60)
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
