//! `tern-sim`: plays seeds in the simulated world and says which of them broke an invariant.

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tern_sim::campaign::{self, Played};
use tern_sim::world::Bugs;

/// Plays seeds in the simulated world.
#[derive(Parser, Debug)]
#[command(name = "tern-sim", version)]
struct Arguments {
    /// One seed, with details.
    #[arg(long, conflicts_with_all = ["seeds", "duration"])]
    seed: Option<u64>,
    /// A range of seeds, both ends included: A..B.
    #[arg(long, value_parser = parse_range, conflicts_with = "duration")]
    seeds: Option<RangeInclusive<u64>>,
    /// Fresh seeds for so long: 90s, 10m, 1h.
    #[arg(long = "for", value_parser = parse_duration, value_name = "TIME")]
    duration: Option<Duration>,
    /// With --seed: print everything that happens.
    #[arg(long)]
    tell: bool,
    /// Threads; default: one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Switches a deliberate bug on.
    #[cfg(feature = "bugs")]
    #[arg(long)]
    bug: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let bugs = bugs(&arguments)?;
    campaign::quiet_panics();
    let (passed, failed) = match (arguments.seed, arguments.seeds.clone(), arguments.duration) {
        (Some(seed), ..) => play_one(seed, bugs, arguments.tell),
        (None, Some(seeds), _) => {
            println!("seeds {}..{}", seeds.start(), seeds.end());
            play_many(seeds, None, jobs(&arguments), bugs)
        }
        (None, None, duration) => {
            let first = fresh_seed()?;
            let duration = duration.unwrap_or(Duration::from_secs(60));
            println!("seeds from {first} for {} s", duration.as_secs());
            play_many(first..=u64::MAX, Some(Instant::now() + duration), jobs(&arguments), bugs)
        }
    };
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play_one(seed: u64, bugs: Bugs, tells: bool) -> (u64, u64) {
    println!("seed {seed}");
    let played = campaign::play(seed, bugs, tells);
    report(&played);
    if let Ok(outcome) = &played.result {
        println!(
            "trace {:016x}: {} messages, {} links, {} starts, {} segments rewritten, {} ms of virtual time",
            outcome.trace,
            outcome.message_count,
            outcome.link_count,
            outcome.boot_count,
            outcome.segments_rewritten,
            outcome.virtual_ms
        );
    }
    let failed = u64::from(played.failure().is_some());
    (1 - failed, failed)
}

fn play_many(seeds: RangeInclusive<u64>, until: Option<Instant>, jobs: usize, bugs: Bugs) -> (u64, u64) {
    let next = AtomicU64::new(*seeds.start());
    let (passed, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > *seeds.end() {
                        break;
                    }
                    let played = campaign::play(seed, bugs, false);
                    report(&played);
                    let count = if played.failure().is_some() { &failed } else { &passed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (passed.into_inner(), failed.into_inner())
}

fn report(played: &Played) {
    if let Some(failure) = played.failure() {
        println!("seed {} FAILED: {failure}", played.seed);
    }
}

fn jobs(arguments: &Arguments) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    arguments.jobs.unwrap_or_else(processors).max(1)
}

/// Where fresh seeds start: the clock, so that every campaign plays other ones.
fn fresh_seed() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(since.as_micros() as u64)
}

fn parse_range(text: &str) -> Result<RangeInclusive<u64>> {
    let (first, last) = text.split_once("..").context("a range is A..B")?;
    let (first, last) = (first.parse()?, last.parse()?);
    if first > last {
        bail!("a range is A..B with A at most B");
    }
    Ok(first..=last)
}

fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let count: u64 = digits.parse().context("a time is a number with s, m or h")?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => bail!("unknown unit {other}"),
    };
    Ok(Duration::from_secs(count * seconds))
}

#[cfg(feature = "bugs")]
fn bugs(arguments: &Arguments) -> Result<Bugs> {
    match &arguments.bug {
        None => Ok(Bugs::default()),
        Some(name) => campaign::bug(name).with_context(|| format!("no bug is called {name}")),
    }
}

#[cfg(not(feature = "bugs"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with bugs")]
fn bugs(_: &Arguments) -> Result<Bugs> {
    Ok(Bugs::default())
}
