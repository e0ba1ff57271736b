//! The command line of `hostile`.

use super::attack::Attack;
use super::crowd::{self, Plan};
use anyhow::{Result, bail, ensure};
use clap::Parser;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// Descriptors beside those of the connections: closing ones, the ring, standard streams.
const SPARE_DESCRIPTOR_COUNT: u32 = 1_024;

/// Attacks a Tern on loopback; the last line on stdout is a JSON object.
#[derive(Parser, Debug)]
#[command(name = "hostile")]
struct Args {
    /// The phone door; a loopback address, since nobody else is to be attacked.
    #[arg(long, value_name = "ADDR")]
    phone: SocketAddr,
    /// What to do.
    #[arg(long, value_enum)]
    attack: Attack,
    /// Connections begun per second; without it as many as `cargo xtask bench hostile` begins.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Connections that are open at once, at most; past it a connection that is due is left out. Without it as many as
    /// `cargo xtask bench hostile` has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15_000))]
    open: Option<u32>,
    /// How long, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// Where random bytes come from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Runs the program `hostile`.
///
/// # Errors
/// What the machine refused. What the server refuses is what the program is for.
pub fn hostile() -> Result<()> {
    let args = Args::parse();
    let rate = args.rate.unwrap_or(args.attack.per_s());
    let open_max = args.open.unwrap_or(args.attack.open_max());
    ensure!(args.phone.ip().is_loopback(), "--phone {}, allowed: a loopback address", args.phone);
    ensure!(rate > 0.0 && rate <= 50_000.0, "--rate {rate}, allowed: above 0, up to 50,000");
    ensure!(
        args.duration > 0.0 && args.duration <= 3_600.0,
        "--duration {}, allowed: above 0, up to 3,600",
        args.duration
    );
    let needed = u64::from(open_max + SPARE_DESCRIPTOR_COUNT);
    if let Err((soft, hard)) = tern_ring::probe::raise_descriptor_limit(needed) {
        bail!("open files: {needed} descriptors needed, limits are {soft} and {hard}");
    }
    let seen = crowd::run(&Plan {
        door: args.phone,
        attack: args.attack,
        per_s: rate,
        open_max,
        descriptor_count: open_max + SPARE_DESCRIPTOR_COUNT / 2,
        duration: Duration::from_secs_f64(args.duration),
        seed: args.seed,
    })?;
    println!(
        "{}",
        json!({
            "attack": args.attack.name(),
            "wanted_per_s": rate,
            "begun": seen.begun,
            "begun_per_s": (seen.begun as f64 / args.duration).round(),
            "left_out": seen.left_out,
            "connected": seen.connected,
            "not_connected": seen.not_connected,
            "ended_by_server": seen.ended_by_server,
            "answered": seen.answered,
            "logins": seen.logins,
        })
    );
    Ok(())
}
