//! The command line of both programs: they start themselves again as the server, drive it, and say what it cost.

use crate::drive::{Plan, Seen, drive, record_count_max};
use crate::pace::Pace;
use crate::serve::{Commits, serve};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Sends back what came.
    Echo,
    /// Moves `tern-load pairs`' records between pairs and commits.
    Stub,
}

/// Measures the server's CPU time for each message; the last line on stdout is a JSON object.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// Connections; an even number.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    phones: u32,
    /// Messages that each phone has under way.
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    window: u8,
    /// Instead of a window: messages per second over all phones, on a schedule; latency counts from the scheduled time.
    #[arg(long, value_name = "R", conflicts_with = "window")]
    rate: Option<f64>,
    /// Bytes of a message's body; records are as long as the encrypted ones.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    body: usize,
    /// How long to measure, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration: f64,
    /// The hardware thread of the server.
    #[arg(long, value_name = "CPU")]
    server_core: Option<usize>,
    /// The hardware thread of the driver.
    #[arg(long, value_name = "CPU")]
    client_core: Option<usize>,
    /// Group commits per second (the stub only): take it from a run of Tern.
    #[arg(long, value_name = "C", requires = "commit_bytes", requires = "data")]
    commits_per_s: Option<f64>,
    /// Bytes of each, rounded up to whole blocks.
    #[arg(long, value_name = "BYTES")]
    commit_bytes: Option<usize>,
    /// The directory that they are written in.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only serve: how the program starts its server.
    #[arg(long, hide = true)]
    serve: bool,
}

/// Runs one of the programs.
///
/// # Errors
/// What the machine refused, or what went wrong on the way.
pub fn main(kind: Kind) -> Result<()> {
    let args = Args::parse();
    ensure!(args.phones >= 2 && args.phones.is_multiple_of(2), "--phones must be an even number, 2 or more");
    ensure!(args.duration > 0.0 && args.duration < 1e6, "--duration must be above 0");
    ensure!(args.commits_per_s.is_none_or(|rate| rate > 0.0), "--commits-per-s must be above 0");
    ensure!(args.rate.is_none_or(|rate| rate > 0.0 && rate < 1e7), "--rate must be above 0");
    let together = if args.rate.is_some() { 1 } else { usize::from(args.window) };
    ensure!(together <= record_count_max(args.body), "window times body must fit one record");
    let core = if args.serve { args.server_core } else { args.client_core };
    if let Some(id) = core {
        ensure!(core_affinity::set_for_current(core_affinity::CoreId { id }), "cannot be pinned to {id}");
    }
    if let Err((soft, hard)) = tern_ring::probe::raise_descriptor_limit(u64::from(args.phones) + 512) {
        anyhow::bail!("open files: {} descriptors needed, limits are {soft} and {hard}", args.phones + 512);
    }
    if args.serve {
        let commits = match (args.commits_per_s, args.commit_bytes, args.data) {
            (Some(per_s), Some(bytes), Some(directory)) => Some(Commits { per_s, bytes, directory }),
            _ => None,
        };
        println!("commits={}", serve(kind, args.phones, args.body, commits)?);
        return Ok(());
    }
    measure(kind, &args)
}

fn measure(kind: Kind, args: &Args) -> Result<()> {
    let mut child = start()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    let result = (|| {
        let ready = lines.next().context("the server did not start")??;
        let address = ready.split(' ').find_map(|word| word.strip_prefix("phone="));
        let address: SocketAddr = address.context("the server named no address")?.parse()?;
        drive(Plan {
            kind,
            address,
            server_pid: child.id(),
            phones: args.phones,
            pace: args.rate.map_or(Pace::Window(args.window), Pace::Rate),
            body_bytes: args.body,
            duration: Duration::from_secs_f64(args.duration),
        })
    })();
    // The driver's connections are closed now, upon which the server ends by itself.
    let commits = result.is_ok().then(|| lines.next()).flatten().transpose()?;
    if result.is_err() {
        let _ = child.kill();
    }
    child.wait()?;
    let commits = commits.as_deref().and_then(|line| line.strip_prefix("commits=")?.parse::<u64>().ok());
    println!("{}", report(kind, args, &result?, commits.context("the server failed")?));
    Ok(())
}

/// The same program with the same arguments, as the server.
fn start() -> Result<Child> {
    let own = std::env::current_exe()?;
    let arguments = std::env::args().skip(1);
    Ok(Command::new(own).args(arguments).arg("--serve").stdout(Stdio::piped()).spawn()?)
}

fn report(kind: Kind, args: &Args, seen: &Seen, commits: u64) -> serde_json::Value {
    let thousandths = |value: f64| (value * 1000.0).round() / 1000.0;
    let per_message = |us: u64| thousandths(us as f64 / seen.messages.max(1) as f64);
    let at = |quantile: f64| thousandths(seen.latency_ns.value_at_quantile(quantile) as f64 / 1000.0);
    let latency = (!seen.latency_ns.is_empty())
        .then(|| serde_json::json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) }));
    serde_json::json!({
        "bench": if kind == Kind::Echo { "raw-echo" } else { "stub" },
        "phones": args.phones,
        "window": args.rate.is_none().then_some(args.window),
        "rate": args.rate,
        "body_bytes": args.body,
        "seconds": thousandths(seen.elapsed.as_secs_f64()),
        "messages": seen.messages,
        "msgs_per_s": (seen.messages as f64 / seen.elapsed.as_secs_f64()).round(),
        "latency_us": latency,
        "server": {
            "cpu_user_us_per_msg": per_message(seen.server.user_us),
            "cpu_system_us_per_msg": per_message(seen.server.system_us),
            "commits": commits,
        },
        "client": {
            "cpu_user_us_per_msg": per_message(seen.client.user_us),
            "cpu_system_us_per_msg": per_message(seen.client.system_us),
        },
    })
}
