//! `tern-load`: Tern's traffic generator. One thread drives all phones over one ring and keeps exact books.

mod admin;
mod args;
mod books;
mod clock;
mod fleet;
mod ledger;
mod logins;
mod offline;
mod pairs;
mod report;
mod session;
mod usage;

use args::{Cli, Mode};
use clap::Parser;
use report::Report;
use session::Session;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli.mode.check() {
        eprintln!("tern-load: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let (report, complete) = run(&cli.mode).unwrap_or_else(|error| {
        eprintln!("tern-load: {error:#}");
        (Report { phones: cli.mode.common().phones, ..Report::default() }, false)
    });
    let text = if cli.mode.common().json {
        serde_json::to_string(&report)
    } else {
        serde_json::to_string_pretty(&report)
    };
    println!("{}", text.expect("a report is plain data"));
    ExitCode::from(report.exit_code(complete))
}

fn run(mode: &Mode) -> anyhow::Result<(Report, bool)> {
    let mut session = Session::set_up(mode.common())?;
    match mode {
        Mode::Pairs(args) => pairs::run(args, &mut session),
        Mode::Offline(args) => offline::run(args, &mut session),
    }
}
