//! The command line.

use crate::talk::{self, Talk};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use tern_admin::{Access, parse_address};

/// Phones that find their own places in the loopback network and in a connection's key.
const PHONE_COUNT_MAX: u32 = 4_000_000;

/// Tern's traffic generator: many phones on few threads, with exact books about every message.
///
/// Exit codes: 0 clean; 1 lost, duplicated, misordered or misdelivered messages, or an early tick; 2 usage;
/// 3 incomplete (logins missing, patience exceeded, not drained).
#[derive(Parser, Debug)]
#[command(name = "tern-load", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Mode {
    /// Phones log in and stay, silent but for their keep-alives. Phones lost while they are held make the run
    /// incomplete, whether or not they come back.
    Idle(IdleArgs),
    /// Phones 2k and 2k+1 talk with each other, both ways, for a while.
    Pairs(PairsArgs),
    /// Even phones send to their absent odd neighbours, then leave; the odd ones come and drain; then the even ones
    /// come back for the `delivered` ticks that wait for them.
    Offline(OfflineArgs),
    /// As `pairs --rate`, while connections are dropped without a word, by FIN and by RST in turns, and come back.
    Flap(FlapArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    /// The phone door.
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) phone: String,
    /// The admin endpoint: makes the accounts in bulk and gives the server's figures. Without it the phones register
    /// at the door and `server` is null.
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) admin: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Accounts `load-0` to `load-(N-1)`; an even number.
    #[arg(long, value_name = "N")]
    pub(crate) phones: u32,
    /// The first account is `load-K`, K even: so that several generators have phones of their own at one server.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) first: u32,
    /// About so many threads drive the phones: each keeps one core busy at most, and partners stay together. There are
    /// more where one would have more than 19,000 phones, or more than the limit on open files allows.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// What the device keys are derived from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The longest time without any progress, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) patience: f64,
    /// Between two lines of progress, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) progress: f64,
    /// Send nothing new: log every phone in, take what waits, check addressees, order and duplicates.
    /// `delivered` then counts what earlier runs left.
    #[arg(long)]
    pub(crate) verify_only: bool,
    /// Print one line of JSON on stdout, last.
    #[arg(long)]
    pub(crate) json: bool,
    /// Bytes of each message. From 16 on a body names its run, sender, addressee and place, and all of it is checked.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) body: usize,
}

#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// How long to hold them after the last login, seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) hold: f64,
    /// After the logins all phones leave, and come back by the tickets that they were given; `resumed` tells how fast.
    #[arg(long)]
    pub(crate) resume: bool,
    /// After the hold all connections are dropped at once, without a word, and their phones come back by ticket, each
    /// after 0.1 to 1 second and however many others are on their way; `resumed` tells how that went.
    #[arg(long, conflicts_with_all = ["resume", "verify_only"])]
    pub(crate) storm: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FlapArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Messages per second over all phones, on a schedule; latency counts from the scheduled time.
    #[arg(long, value_name = "R")]
    pub(crate) rate: f64,
    /// Connections dropped per second over all phones.
    #[arg(long, value_name = "F")]
    pub(crate) flaps: f64,
    /// How long to send and drop, seconds; SIGINT ends it before, as for `pairs`.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: f64,
}

#[derive(Args, Debug)]
pub(crate) struct PairsArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// How long to send, seconds. SIGINT ends it before, and what was sent is judged all the same; a second one ends the
    /// process at once.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: f64,
    /// Writes the latency of every message to this file, as lines `delivery,SINCE,TOOK` and `sent,SINCE,TOOK`: to its
    /// delivery and to its `sent` tick, since it was submitted (or scheduled), microseconds of Unix time; nanoseconds.
    #[arg(long, value_name = "FILE")]
    pub(crate) latencies: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Pace {
    /// Messages that each phone has under way; a place frees when both ticks came.
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: Option<u32>,
    /// Messages per second over all phones, on a schedule; latency counts from the scheduled time.
    #[arg(long, value_name = "R")]
    pub(crate) rate: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Messages over all senders.
    #[arg(long, value_name = "M")]
    pub(crate) messages: u64,
}

impl PairsArgs {
    /// What is said.
    pub(crate) fn talk(&self) -> Talk {
        let pace = match (self.pace.window, self.pace.rate) {
            (Some(count), _) => talk::Pace::Window(count),
            (None, rate) => talk::Pace::Rate(rate.expect("clap wants one of the two")),
        };
        let verify_only = self.common.verify_only;
        Talk { pace, flaps_per_s: None, duration_s: self.duration, verify_only }
    }
}

impl FlapArgs {
    /// What is said, and what is dropped.
    pub(crate) fn talk(&self) -> Talk {
        Talk {
            pace: talk::Pace::Rate(self.rate),
            flaps_per_s: Some(self.flaps),
            duration_s: self.duration,
            verify_only: self.common.verify_only,
        }
    }
}

impl Mode {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Idle(args) => &args.common,
            Self::Pairs(args) => &args.common,
            Self::Offline(args) => &args.common,
            Self::Flap(args) => &args.common,
        }
    }

    /// Seconds and rates, each with the name of its option.
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Idle(args) => vec![("--hold", args.hold)],
            Self::Pairs(args) => {
                let rate = args.pace.rate.map(|rate| ("--rate", rate));
                [("--duration", args.duration)].into_iter().chain(rate).collect()
            }
            Self::Offline(_) => vec![],
            Self::Flap(args) => {
                vec![("--duration", args.duration), ("--rate", args.rate), ("--flaps", args.flaps)]
            }
        }
    }

    /// What clap cannot see; the text says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let common = self.common();
        let body_bytes_max = tern_protocol::phone::frame::BODY_BYTES_MAX;
        let phones = common.phones;
        if phones < 2 || !phones.is_multiple_of(2) || phones > PHONE_COUNT_MAX {
            return Err(format!("--phones {phones}, allowed: an even number from 2 to {PHONE_COUNT_MAX}"));
        }
        if !common.first.is_multiple_of(2) || common.first > PHONE_COUNT_MAX {
            return Err(format!(
                "--first {}, allowed: an even number from 0 to {PHONE_COUNT_MAX}",
                common.first
            ));
        }
        if common.body > body_bytes_max {
            return Err(format!(
                "--body {}, allowed: 0 to {body_bytes_max}, which a frame holds",
                common.body
            ));
        }
        let numbers = self
            .numbers()
            .into_iter()
            .chain([("--patience", common.patience), ("--progress", common.progress)]);
        match numbers.into_iter().find(|(_, value)| !(*value > 0.0 && *value < 1e7)) {
            Some((name, value)) => Err(format!("{name} {value}, allowed: above 0, below 10,000,000")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(), String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.mode.check()
    }

    #[test]
    fn the_contract_s_lines_parse() {
        for line in [
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --window 1 --duration 1 --body 128 --json",
            "tern-load pairs --phone 127.0.0.1:1 --admin 127.0.0.1:2 --phones 2 --rate 10 --duration 1 --body 0 --progress 0.2",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --rate 10 --duration 1 --latencies each.csv",
            "tern-load idle --phone 127.0.0.1:1 --admin 127.0.0.1:2 --phones 1000000 --hold 60 --json --resume",
            "tern-load idle --phone h:1 --admin h:2 --token-file token --ca ca.pem --phones 10 --hold 4",
            "tern-load idle --phone 127.0.0.1:1 --phones 10 --first 20 --hold 4 --storm",
            "tern-load flap --phone 127.0.0.1:1 --phones 10000 --rate 2000 --flaps 50.5 --duration 9 --json",
            "tern-load offline --phone h:1 --phones 2 --messages 5 --body 1 --json --seed 3 --patience 5 --verify-only",
        ] {
            assert_eq!(parse(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "tern-load pairs --phone 127.0.0.1:1 --phones 3 --window 1 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --window 1 --rate 5 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --window 0 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --rate 0 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --phones 2 --window 1 --duration nan",
            "tern-load pairs --phone nonsense --phones 2 --window 1 --duration 1",
            "tern-load pairs --phone 127.0.0.1:1 --admin 127.0.0.1 --phones 2 --window 1 --duration 1",
            "tern-load pairs --phone 127.0.0.1:70000 --phones 2 --window 1 --duration 1",
            "tern-load idle --phone 127.0.0.1:1 --phones 2",
            "tern-load idle --phone 127.0.0.1:1 --phones 2 --hold -1",
            "tern-load idle --phone 127.0.0.1:1 --phones 8000000 --hold 1",
            "tern-load flap --phone 127.0.0.1:1 --phones 2 --rate 5 --flaps 0 --duration 1",
            "tern-load flap --phone 127.0.0.1:1 --phones 2 --flaps 1 --duration 1",
            "tern-load idle --phone 127.0.0.1:1 --phones 2 --hold 1 --progress 0",
            "tern-load idle --phone 127.0.0.1:1 --phones 2 --hold 1 --first 3",
            "tern-load idle --phone 127.0.0.1:1 --phones 2 --hold 1 --resume --storm",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
