//! `cargo xtask bench`: the figures of this machine. Server on the first hardware thread, generator on the second.

mod flap;
mod floor;
mod hostile;
mod idle;
mod latencies;
mod logins;
mod measured;
mod micro;
mod offline;
mod paced;
mod pairs;
mod recovery;
mod shards;
mod slices;
mod smoke;
mod steering;
mod storm;

use crate::tree::{build, root};
use crate::{median, tree};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Which measurement.
    #[arg(value_enum, default_value = "pairs")]
    name: Name,
    /// So many runs, each with a fresh server; the median of each figure is told.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Seconds of traffic, where the measurement has a duration.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Phones of `idle`, `flap`, `hostile` and `storm`; 1000000 makes the documented million of `idle`.
    #[arg(long)]
    phones: Option<u32>,
    /// Of `hostile` only these attacks; may be given several times.
    #[arg(long, value_name = "ATTACK")]
    only: Vec<String>,
}

/// The measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Name {
    /// 1,000 and 10,000 phones in pairs, window 1, 128-byte bodies; and the stub and the echo, which are the floor.
    Pairs,
    /// The same without the echo, Tern and the stub side by side: each is stopped for a fifth of a second while the other
    /// goes on, so that what else the machine does falls on both.
    Slices,
    /// 10,000 phones in pairs, 2,000 messages per second; and the stub paced the same way.
    Paced,
    /// Two shards on two hardware threads against one, the generator on the same two.
    Shards,
    /// 10,000 phones log in with their keys (IK); and come back by ticket (NNpsk0).
    Logins,
    /// Envelopes from one shard's thread to another's.
    Mesh,
    /// Timers: set, put off, moved, fired; and their memory.
    Wheel,
    /// 500,000 messages to 1,000 absent phones, then they come.
    Offline,
    /// 100,000 phones that wait: memory of each, by slope and by total, and the CPU that all of them cost.
    Idle,
    /// 10,000 phones, 2,000 messages per second, with and without 100 dropped connections per second.
    Flap,
    /// 10,000 phones dropped at once, which come back by ticket while 1,000 others talk.
    Storm,
    /// Start after SIGKILL while 500,000 messages are written to the log.
    Recovery,
    /// 1,000 phones, 2,000 messages per second, quiet and under each of seventeen attacks in turn. From three runs on it
    /// fails when the median p99 to delivery, or that in the server, is more than twice the quiet one.
    Hostile,
    /// Each of the others once and as short as it can be, in some four minutes: that they run, and tell what they
    /// should. Where there are no two hardware threads it says so and ends well.
    Smoke,
}

/// The hardware threads of server and generator.
const SERVER_CPU: usize = 0;
const GENERATOR_CPU: usize = 1;

/// Runs one measurement; the last line of standard output is its JSON object.
pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    let thread_count = std::thread::available_parallelism().context("hardware threads")?.get();
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    match lacking(thread_count, &allowed) {
        Some(why) if args.name == Name::Smoke => {
            eprintln!("xtask: smoke: SKIPPED, {why}");
            println!("{}", json!({ "bench": "smoke", "skipped": why }));
            return Ok(());
        }
        Some(why) => bail!("{why}"),
        None => {}
    }
    let mut runs = Vec::new();
    let run_count = if args.name == Name::Smoke { 1 } else { args.runs };
    build_for(args.name)?;
    for number in 1..=run_count {
        eprintln!("xtask: {:?}, run {number} of {run_count}", args.name);
        runs.push(run_once(args.name, args.phones, &args.only, args.seconds)?);
    }
    let mut result = median::of(&runs);
    let fields = result.as_object_mut().context("a measurement gives an object")?;
    fields.insert("bench".into(), json!(format!("{:?}", args.name).to_lowercase()));
    fields.insert("runs".into(), json!(run_count));
    fields.insert("commit".into(), json!(commit()));
    println!("{result}");
    if args.name == Name::Hostile { hostile::judge(&result, run_count) } else { Ok(()) }
}

/// What a measurement needs and this process may not use: a container's share counts, not what the machine has.
fn lacking(thread_count: usize, allowed: &CpuSet) -> Option<String> {
    if thread_count < 2 {
        return Some("a measurement needs two hardware threads".into());
    }
    let is_kept_away = |cpu: &usize| !allowed.is_set(*cpu).unwrap_or(false);
    let cpu = [SERVER_CPU, GENERATOR_CPU].into_iter().find(is_kept_away)?;
    Some(format!("a measurement needs hardware thread {cpu}, which this process may not use"))
}

/// Builds what a measurement runs.
fn build_for(name: Name) -> Result<()> {
    match name {
        Name::Mesh | Name::Wheel => micro::build(),
        Name::Smoke => Ok(()),
        _ => build(&["tern-server", "tern-load", "tern-bench"]),
    }
}

fn run_once(name: Name, phones: Option<u32>, only: &[String], seconds: u32) -> Result<Value> {
    match name {
        Name::Paced => paced::run(seconds),
        Name::Shards => shards::run(seconds),
        Name::Logins => logins::run(seconds),
        Name::Mesh => micro::mesh(seconds),
        Name::Wheel => micro::wheel(seconds),
        Name::Pairs => pairs::run(seconds),
        Name::Slices => slices::run(seconds),
        Name::Offline => offline::run(seconds),
        Name::Recovery => recovery::run(seconds),
        Name::Idle => idle::run(phones, seconds),
        Name::Flap => flap::run(phones, seconds),
        Name::Storm => storm::run(phones, seconds),
        Name::Hostile => hostile::run(phones, only, seconds),
        Name::Smoke => smoke::run(),
    }
}

/// A place for the data on the drive that the tree is on: temporary directories may be memory, where a commit costs
/// nothing.
fn place() -> Result<TempDir> {
    let target = tree::binary("tern");
    let directory = target.parent().context("target directory")?;
    tempfile::Builder::new().prefix("bench-data-").tempdir_in(directory).context("directory for the data")
}

/// What the generator found must be clean, else the figures mean nothing.
fn clean((result, success): (Value, bool)) -> Result<Value> {
    if !success {
        bail!("the generator is not content: {result}");
    }
    Ok(result)
}

/// The measured commit, with a mark when the tree is not as committed.
fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["describe", "--always", "--dirty", "--exclude=*"]);
    tree::output_of(&mut git).map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        let of = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|&cpu| set.set(cpu).unwrap());
            set
        };
        assert_eq!(lacking(2, &of(&[0, 1])), None);
        assert!(
            lacking(1, &of(&[0, 1])).unwrap().contains("two hardware threads"),
            "a share of less than two"
        );
        assert!(
            lacking(2, &of(&[0, 2])).unwrap().contains("hardware thread 1,"),
            "a set without one of them"
        );
        assert!(lacking(2, &of(&[1, 2])).unwrap().contains("hardware thread 0,"));
    }
}
