//! The command: a screen or plain lines, the demonstration, and what is left in the scrollback.

use super::account::Account;
use super::drive::{Teller, drive};
use super::{plain, screen};
use crate::quit::{Interrupted, Quit};
use anyhow::{Result, bail};
use clap::Args;
use std::collections::VecDeque;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::mpsc::channel;

/// The exit code of programs that a signal ended, SIGINT here.
const EXIT_INTERRUPTED: u8 = 130;
/// Lines of child processes that are shown after a failure.
const LINES_TOLD: usize = 30;

/// How long and how wide.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Phones: an even number, since they talk in pairs.
    #[arg(long, default_value_t = 2_000, value_parser = even)]
    pub(super) phones: u32,
    /// Seconds of talk; the server is killed in the middle.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub(super) seconds: u32,
    /// Lines instead of the live screen, as without a terminal.
    #[arg(long)]
    plain: bool,
}

fn even(text: &str) -> Result<u32, String> {
    let number =
        text.parse().ok().filter(|number: &u32| (2..=10_000).contains(number) && number.is_multiple_of(2));
    number.ok_or_else(|| "allowed: an even number from 2 to 10000".into())
}

/// Runs the demonstration; the last line is the generator's JSON for all parts.
///
/// The demonstration is on this thread, the screen on another: whatever goes wrong here unwinds through the server, the
/// generator and the temporary directory before the process ends.
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let quit = Quit::on_signals()?;
    let terminal = if args.plain { None } else { screen::enter() };
    let is_live = terminal.is_some();
    let (tell, events) = channel();
    let theirs = quit.clone();
    let (result, shown) = std::thread::scope(|scope| {
        let show = scope.spawn(move || match terminal {
            Some(terminal) => screen::run(terminal, &events, &theirs),
            None => {
                plain::run(stdout(), &events, &theirs);
                Ok(VecDeque::new())
            }
        });
        let result = drive(args, Teller::new(tell, quit.clone(), is_live));
        (result, show.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let lines = shown?;
    match result {
        Ok((account, status)) => tell_the_end(&account, &status),
        Err(error) if error.is::<Interrupted>() || quit.is_asked() => {
            eprintln!("demo: {Interrupted}");
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
        Err(error) => {
            let skipped = lines.len().saturating_sub(LINES_TOLD);
            lines.iter().skip(skipped).for_each(|line| eprintln!("{line}"));
            Err(error)
        }
    }
}

/// Prints the summary; fails when a message is lost.
fn tell_the_end(account: &Account, status: &str) -> Result<ExitCode> {
    let mut out = stdout().lock();
    write!(out, "{status}")?;
    for line in account.lines() {
        writeln!(out, "demo: {line}")?;
    }
    writeln!(out, "{}", account.json())?;
    match account.fault() {
        Some((field, value)) => bail!("{field} is {value}"),
        None => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_come_in_pairs() {
        assert_eq!(even("200"), Ok(200));
        for text in ["3", "0", "10002", "-2", "many"] {
            assert!(even(text).is_err(), "{text}");
        }
    }
}
