//! `tern-load`: Tern's traffic generator. Each worker drives some thousands of phones over one ring and keeps exact
//! books of them.

mod admin;
mod args;
mod books;
mod clock;
mod crew;
mod enough;
mod fleet;
mod idle;
mod latencies;
mod ledger;
mod logins;
mod offline;
mod report;
mod session;
mod talk;
mod usage;

use args::{Cli, Mode};
use clap::Parser;
use report::Report;
use session::{Manner, Session};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Phones of one source address: of some 28,000 ports for a pair of addresses, those of one parity are found fast.
const PHONES_PER_SOURCE: u32 = 14_000;
/// Likewise where connections come and go: the port of a closed one rests for a while.
const PHONES_PER_SOURCE_OF_FLAPS: u32 = 4_000;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // A million phones in many small places: huge pages would take several times the memory. A refusal does no harm.
    let _ = nix::sys::prctl::set_thp_disable(true);
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
    let mut session = Session::set_up(mode.common(), manner(mode))?;
    let found = match mode {
        Mode::Idle(args) => idle::run(args, &mut session),
        Mode::Pairs(args) => talk::run(&args.talk(), args.latencies.as_deref(), &mut session),
        Mode::Offline(args) => offline::run(args, &mut session),
        Mode::Flap(args) => talk::run(&args.talk(), None, &mut session),
    };
    Ok(session.conclude(found))
}

fn manner(mode: &Mode) -> Manner {
    let (phones_per_source, keeps_tickets) = match mode {
        Mode::Idle(args) if args.storm => (PHONES_PER_SOURCE_OF_FLAPS, true),
        Mode::Idle(args) => (PHONES_PER_SOURCE, args.resume),
        Mode::Pairs(_) | Mode::Offline(_) => (PHONES_PER_SOURCE, false),
        Mode::Flap(_) => (PHONES_PER_SOURCE_OF_FLAPS, true),
    };
    Manner { phones_per_source, keeps_tickets }
}
