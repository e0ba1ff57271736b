//! The terminal and the clock: asks once a second, draws, listens for keys.

use super::draw::{Screen, draw};
use super::sample::Sample;
use super::view::View;
use anyhow::{Context, Result, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tern_admin::Admin;

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for an answer of the node itself: it needs no shard for one.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// What is shown is said to be old once it is so old.
const OLD_AFTER: Duration = Duration::from_secs(5);
/// How long a key is waited for before the screen is looked after.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Shards that a page key moves by.
const PAGE: usize = 8;

/// Runs until `q`, Escape or Control-C.
///
/// # Errors
/// There is no terminal, or it fails.
pub(crate) fn top(admin: Admin) -> Result<()> {
    if !stdout().is_terminal() {
        bail!("top needs a terminal; for a script there is `tern-ctl status --json`");
    }
    // A node that cannot be asked at all is told on the plain terminal.
    let admin = admin.within(ANSWER_WAIT);
    let first = Sample::take(&admin)?;
    let samples = ask_on(admin);
    // Also leaves the terminal as it was when the program panics.
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let ended = run(&mut terminal, first, &samples);
    ratatui::restore();
    ended
}

/// Asks from a thread of its own, so that a node which does not answer leaves the keys alive. The thread ends with the
/// process, or when nobody listens any more.
fn ask_on(admin: Admin) -> Receiver<Result<Sample>> {
    let (tell, samples) = sync_channel(1);
    thread::spawn(move || {
        loop {
            thread::sleep(PERIOD);
            if tell.send(Sample::take(&admin)).is_err() {
                return;
            }
        }
    });
    samples
}

fn run(
    terminal: &mut ratatui::DefaultTerminal,
    first: Sample,
    samples: &Receiver<Result<Sample>>,
) -> Result<()> {
    let mut screen = Screen { view: Some(View::between(None, &first)), ..Screen::default() };
    let (mut last, mut heard_at) = (first, Instant::now());
    loop {
        screen.silence = Some(heard_at.elapsed()).filter(|silence| *silence >= OLD_AFTER);
        terminal.draw(|frame| draw(frame, &screen)).context("the terminal")?;
        if event::poll(KEY_WAIT).context("the terminal")?
            && let Event::Key(key) = event::read().context("the terminal")?
            && key.kind == KeyEventKind::Press
        {
            let shards = screen.view.as_ref().map_or(0, |view| view.shards.len());
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let first = screen.first_shard;
            screen.first_shard = match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Up => first.saturating_sub(1),
                KeyCode::Down => first + 1,
                KeyCode::PageUp => first.saturating_sub(PAGE),
                KeyCode::PageDown => first + PAGE,
                _ => first,
            }
            .min(shards.saturating_sub(1));
        }
        while let Ok(sample) = samples.try_recv() {
            match sample {
                Ok(sample) => {
                    screen.view = Some(View::between(Some(&last), &sample));
                    screen.trouble = None;
                    heard_at = Instant::now();
                    last = sample;
                }
                Err(error) => screen.trouble = Some(format!("{error:#}")),
            }
        }
    }
}
