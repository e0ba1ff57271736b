//! `cargo xtask`: the one command to remember for everything that is done with this tree.

mod affinity;
mod attackers;
mod bench;
mod demo;
mod fuzz;
mod install;
mod lint;
mod median;
mod node;
mod package;
mod quit;
mod sim;
mod soak;
mod test;
mod tree;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Test, check, simulate, fuzz, measure and show Tern.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// A real server in a temporary directory, driven live and killed in the middle, on a live screen where there is a
    /// terminal; the last line is a JSON object.
    Demo(demo::DemoArgs),
    /// Every test: unit, property, whole node, the simulator's self-test, 300 fresh seeds, each fuzz target.
    Test,
    /// Format, clippy, dependencies, promises, and the rules of the house.
    Lint,
    /// The simulated world; the last line is "N passed, M failed".
    Sim(sim::SimArgs),
    /// Real servers on random limits, under random loads, killed and stopped meanwhile; the last line is a JSON object.
    Soak(soak::SoakArgs),
    /// One fuzz target, or all.
    Fuzz(fuzz::FuzzArgs),
    /// The Debian package: built, installed into a throw-away root, served from, removed.
    Package(package::PackageArgs),
    /// A measurement; the last line is one JSON object.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        // What is wrong is said in words; where in this program it came up helps nobody.
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => return demo::demo(&args),
        Command::Test => test::test(),
        Command::Lint => lint::lint(),
        Command::Sim(args) => sim::sim(&args),
        Command::Soak(args) => return soak::soak(&args),
        Command::Fuzz(args) => fuzz::fuzz(&args),
        Command::Package(args) => package::package(&args),
        Command::Bench(args) => bench::bench(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}
