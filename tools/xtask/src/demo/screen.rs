//! Owns the terminal while the demonstration runs: feeds the state, draws it, listens for keys.

use super::draw::draw;
use super::event::Event;
use super::state::State;
use crate::quit::Quit;
use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Terminal, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::VecDeque;
use std::io::{IsTerminal, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How long a key is waited for before the screen is looked after.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How long the last screen stays when nobody presses a key.
const LAST_LOOK: Duration = Duration::from_secs(4);

/// The terminal was given back by a panic, of whichever thread: nothing may be drawn on it any more.
static GIVEN_BACK: AtomicBool = AtomicBool::new(false);

/// The terminal, if there is one that a screen can be drawn on. A panic leaves it as it was, too.
pub(super) fn enter() -> Option<DefaultTerminal> {
    let is_drawable = stdout().is_terminal() && is_capable(std::env::var("TERM").ok().as_deref());
    let terminal = is_drawable.then(ratatui::try_init)?.ok()?;
    let give_back = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        GIVEN_BACK.store(true, Ordering::Relaxed);
        give_back(info);
    }));
    Some(terminal)
}

fn is_capable(term: Option<&str>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Draws until there is nothing more to tell: what child processes said last.
///
/// # Errors
/// The terminal fails.
pub(super) fn run(
    terminal: DefaultTerminal,
    events: &Receiver<Event>,
    quit: &Quit,
) -> Result<VecDeque<String>> {
    let ended = watch(terminal, events, quit);
    if !GIVEN_BACK.load(Ordering::Relaxed) {
        ratatui::restore();
    }
    // Whoever drives must not wait for a screen that is gone.
    ended.inspect_err(|_| quit.ask())
}

fn watch(mut terminal: DefaultTerminal, events: &Receiver<Event>, quit: &Quit) -> Result<VecDeque<String>> {
    let (started, mut state, mut over_since) = (Instant::now(), State::default(), None);
    loop {
        let now_ms = started.elapsed().as_millis() as u64;
        loop {
            match events.try_recv() {
                Ok(event) => state.feed(now_ms, event),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    over_since.get_or_insert(now_ms);
                    break;
                }
            }
        }
        if GIVEN_BACK.load(Ordering::Relaxed) {
            return Ok(state.lines);
        }
        let shown_ms = over_since.unwrap_or(now_ms);
        let is_ending = quit.is_asked();
        terminal.draw(|frame| draw(frame, &state, shown_ms, is_ending)).context("the terminal")?;
        if let Some(since_ms) = over_since
            && (!state.done || is_ending || now_ms - since_ms > LAST_LOOK.as_millis() as u64)
        {
            return Ok(state.lines);
        }
        if event::poll(KEY_WAIT).context("the terminal")?
            && let Terminal::Key(key) = event::read().context("the terminal")?
            && (ends(key) || over_since.is_some())
        {
            quit.ask();
        }
    }
}

fn ends(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            KeyCode::Char('c') => control,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_end_it() {
        let key = |code, modifiers| ends(KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Enter, KeyModifiers::NONE));
    }

    #[test]
    fn dumb_and_nameless_terminals_get_lines() {
        assert!(is_capable(Some("xterm-256color")));
        assert!([None, Some(""), Some("dumb")].into_iter().all(|term| !is_capable(term)));
    }
}
