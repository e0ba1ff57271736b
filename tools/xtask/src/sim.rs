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
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<String>,
    /// Fresh worlds for so long, for example 1h.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<String>,
}

/// What the simulator would refuse, before it is built.
fn range(text: &str) -> Result<String, String> {
    let ends = text
        .split_once("..")
        .and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    match ends {
        Some((first, last)) if first <= last => Ok(text.into()),
        _ => Err("allowed: A..B, two numbers with A at most B".into()),
    }
}

/// Likewise.
fn time(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['s', 'm', 'h']).unwrap_or(text);
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    if is_number { Ok(text.into()) } else { Err("allowed: a number with s, m or h, as 90s, 10m, 1h".into()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_simulator_would_refuse_is_refused_before_it_is_built() {
        for text in ["1..5", "7..7"] {
            assert_eq!(range(text).as_deref(), Ok(text));
        }
        for text in ["5..1", "1-5", "1..", "..", "a..b", "1..=5"] {
            assert!(range(text).is_err(), "{text}");
        }
        for text in ["90s", "10m", "1h", "30"] {
            assert_eq!(time(text).as_deref(), Ok(text));
        }
        for text in ["", "h", "1d", "-1s", "1.5h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
