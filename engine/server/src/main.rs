//! `tern`: one process that runs a whole chat service on one machine.
//!
//! The main thread parses the command line, opens the data directory, starts the node (one thread for each shard, all
//! in `tern-driver`) and then serves the admin endpoint until a signal drains the node or a shard ends it.

mod admin;
mod check;
mod cli;
mod config;
mod control;
mod cores;
mod data;
mod exit;
mod health;
mod log;
mod memory;
mod notify;
mod ports;
mod reload;
mod resolve;
mod serve;
mod signals;

use check::Found;
use clap::Parser;
use cli::{Cli, Command, ConfigCommand};
use config::Settings;
use exit::{Ending, Failure};
use mimalloc::MiMalloc;
use resolve::{Host, InForce};
use std::io::{self, Write};
use std::process::ExitCode;
use tern_driver::huge_pages::{self, LargeOnHugePages};

#[global_allocator]
static ALLOCATOR: LargeOnHugePages<MiMalloc> = LargeOnHugePages::new(MiMalloc);

fn main() -> ExitCode {
    // Before anything of size is touched.
    let huge_pages = huge_pages::only_for_large();
    // clap ends the process with 2 for a wrong command line, and with 0 for --help and --version.
    match run(Cli::parse().command, huge_pages) {
        Ok(ending) => {
            log::write_out();
            ending.into()
        }
        Err(Failure { ending, text }) => {
            log::say_last(&text);
            ending.into()
        }
    }
}

fn run(command: Command, huge_pages: io::Result<()>) -> Result<Ending, Failure> {
    match command {
        Command::Serve(args) => serve::serve(&Settings::load(&args)?, huge_pages),
        Command::RotateKey { data, keep_days, end_previous } => {
            let keep_s = u64::from(keep_days) * 24 * 3600;
            let keys = data::DataDirectory::rotate_key(&data, keep_s, end_previous)?;
            say(&format!(
                "server key {}; the old one works for {keep_days} days\n",
                data::to_hex(&keys.public)
            ))
        }
        Command::Health(args) => {
            health::health(&Settings::load(&args)?)?;
            say("ok\n")
        }
        Command::Cores(args) => say(&cores::cores(&args)?),
        Command::Config { command: ConfigCommand::Check(args) } => {
            let found = Found::of(&Settings::load(&args)?);
            found.warnings.iter().for_each(|text| eprintln!("tern: warning: {text}"));
            let mut wrong = found.wrong.into_iter();
            let Some(first) = wrong.next() else {
                return say("ok\n");
            };
            eprintln!("tern: {}", first.text);
            wrong.for_each(|failure| eprintln!("tern: {}", failure.text));
            Ok(first.ending)
        }
        Command::Config { command: ConfigCommand::Show(args) } => say(&show(&Settings::load(&args)?)?),
    }
}

/// The command's answer. That its reader has left, as `head` does when it has seen enough, is no error.
fn say(text: &str) -> Result<Ending, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::start_up(format!("standard output: {error}")))
        }
        _ => Ok(Ending::Drained),
    }
}

/// The values in force, as a configuration file.
fn show(settings: &Settings) -> Result<String, Failure> {
    let host = Host::here();
    let in_force = InForce::of(settings, &host)?;
    in_force.warnings.iter().for_each(|text| eprintln!("tern: warning: {text}"));
    if data::made_with(&settings.data).is_none()
        && let Err(failure) = data::look(&settings.data)
    {
        eprintln!("tern: warning: {}; what is shown is for a new directory", failure.text);
    }
    let memory = host.memory_bytes.map_or_else(|| "unknown".into(), memory::gib);
    let values = settings.to_toml(in_force.shard_count, in_force.segment_bytes, &in_force.limits);
    let legend: String = memory::Allowance::legend().iter().map(|line| format!("#   {line}\n")).collect();
    Ok(format!(
        "# Memory that the limits allow: {}, of {memory}.\n{legend}{values}",
        in_force.allowance.to_text()
    ))
}
