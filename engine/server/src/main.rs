//! `tern`: one process that runs a whole chat service on one machine.
//!
//! The main thread parses the command line, opens the data directory, starts the node (one thread for each shard, all
//! in `tern-driver`) and then serves the admin endpoint until a signal drains the node or a shard ends it.

mod admin;
mod cli;
mod config;
mod control;
mod cores;
mod data;
mod exit;
mod log;
mod notify;
mod serve;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand};
use config::Settings;
use exit::{Ending, Failure};
use mimalloc::MiMalloc;
use std::io;
use std::process::ExitCode;
use tern_driver::huge_pages::{self, LargeOnHugePages};

#[global_allocator]
static ALLOCATOR: LargeOnHugePages<MiMalloc> = LargeOnHugePages::new(MiMalloc);

fn main() -> ExitCode {
    // Before anything of size is touched.
    let huge_pages = huge_pages::only_for_large();
    // clap ends the process with 2 for a wrong command line, and with 0 for --help and --version.
    match run(Cli::parse().command, huge_pages) {
        Ok(ending) => ending.into(),
        Err(Failure { ending, text }) => {
            log::say_last(&text);
            ending.into()
        }
    }
}

fn run(command: Command, huge_pages: io::Result<()>) -> Result<Ending, Failure> {
    match command {
        Command::Serve(args) => serve::serve(&Settings::load(&args)?, huge_pages),
        Command::RotateKey { data, keep_days } => {
            let keys = data::DataDirectory::rotate_key(&data, u64::from(keep_days) * 24 * 3600)?;
            println!("server key {}; the old one works for {keep_days} days", data::to_hex(&keys.public));
            Ok(Ending::Drained)
        }
        Command::Cores(args) => {
            print!("{}", cores::cores(&args)?);
            Ok(Ending::Drained)
        }
        Command::Config { command: ConfigCommand::Check(args) } => {
            cores::check(&Settings::load(&args)?)?;
            println!("ok");
            Ok(Ending::Drained)
        }
        Command::Config { command: ConfigCommand::Show(args) } => {
            print!("{}", Settings::load(&args)?.to_toml());
            Ok(Ending::Drained)
        }
    }
}
