//! `cargo xtask sim`: the simulated world, in release.

use crate::tree::{binary, build, run};
use anyhow::Result;
use clap::Args;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which worlds to run.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct SimArgs {
    /// One world, with its trace.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// All worlds from A to B, both included.
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// Fresh worlds for so long, for example 1h.
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
}

/// Builds the simulator and hands it the choice.
pub(crate) fn sim(args: &SimArgs) -> Result<()> {
    build(&["tern-sim"])?;
    let mut command = Command::new(binary("tern-sim"));
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(seeds) = &args.seeds {
        command.args(["--seeds", seeds]);
    }
    if let Some(duration) = &args.duration {
        command.args(["--for", duration]);
    }
    run(&mut command)
}

/// So many worlds that nobody has seen: their numbers come from the clock, and each is printed when it fails.
pub(crate) fn fresh(count: u64) -> Result<()> {
    let first = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * 1000;
    sim(&SimArgs { seed: None, seeds: Some(format!("{first}..{}", first + count - 1)), duration: None })
}
