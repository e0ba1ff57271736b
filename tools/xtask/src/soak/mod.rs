//! `cargo xtask soak`: real servers for as long as one likes, each on a configuration that was drawn, under loads that were
//! drawn, and disturbed meanwhile: for a night before a build is trusted with messages.
//!
//! Each round has a seed, and everything that it does is drawn from that before it begins: the plan is the same whenever
//! the seed is, what comes of it depends on the machine's timing.

mod dice;
mod limits;
mod loads;
mod plan;
mod round;
mod tally;

use crate::quit::{Interrupted, Quit};
use crate::tree::{binary, build};
use anyhow::{Context, Result, bail};
use clap::Args;
use plan::Plan;
use round::Site;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tally::Tally;

/// The exit code of programs that a signal ended, SIGINT here.
const EXIT_INTERRUPTED: u8 = 130;
/// Rounds that went wrong, after which it ends: each keeps its data.
const FAILED_MAX: usize = 5;

/// How long, and which rounds.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// The seed of the first round; the next ones count up. By itself it comes from the clock.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// New rounds begin for so many minutes.
    #[arg(long, value_name = "M", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    minutes: u32,
    /// So many rounds, however long they take.
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Tell what the rounds would do, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where `tern` and `tern-load` are that should be tried; without it this tree's are built and tried.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

impl SoakArgs {
    fn goes_on(&self, rounds: u64, started: Instant) -> bool {
        match self.rounds {
            Some(count) => rounds < u64::from(count),
            None => started.elapsed() < Duration::from_secs(60) * self.minutes,
        }
    }
}

/// Runs the rounds; the last line of standard output is their sum.
pub(crate) fn soak(args: &SoakArgs) -> Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let first = args.seed.unwrap_or(now.as_secs() * 1_000);
    if args.dry_run {
        (0..args.rounds.unwrap_or(1)).for_each(|round| println!("{}", Plan::draw(first + u64::from(round))));
        return Ok(ExitCode::SUCCESS);
    }
    let quit = Quit::on_signals()?;
    if args.binaries.is_none() {
        build(&["tern-server", "tern-load"])?;
    }
    let target = binary("tern").parent().context("target directory")?.to_path_buf();
    let binaries = args.binaries.clone().unwrap_or_else(|| target.clone());
    // On the drive that the tree is on: temporary directories may be memory.
    let place = target.with_file_name("soak");
    let (mut tally, started) = (Tally::new(first), Instant::now());
    while args.goes_on(tally.rounds, started) && tally.failed.len() < FAILED_MAX && !quit.is_asked() {
        let plan = Plan::draw(first + tally.rounds);
        eprintln!("xtask: soak: --seed {} --rounds 1: {}", plan.seed, plan.short());
        let site =
            Site { directory: place.join(format!("seed-{}", plan.seed)), binaries: &binaries, quit: &quit };
        let begun = Instant::now();
        match site.live_through(&plan, &mut tally) {
            Ok(()) => {
                eprintln!("xtask: soak: well after {} s", begun.elapsed().as_secs());
                site.clear()?;
            }
            Err(_) if quit.is_asked() => {
                site.clear()?;
                break;
            }
            Err(error) => {
                eprintln!("xtask: soak: seed {}: {error:#}; {}", plan.seed, site.kept());
                tally.failed.push(plan.seed);
            }
        }
        tally.rounds += 1;
    }
    println!("{}", tally.json());
    if !tally.failed.is_empty() {
        bail!("rounds went wrong, by their seeds: {:?}", tally.failed);
    }
    if quit.is_asked() {
        eprintln!("xtask: soak: {Interrupted}");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}
