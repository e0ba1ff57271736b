//! The command line.

use clap::{Args, Parser, Subcommand};

/// Tern's traffic generator: many phones on one thread, with exact books about every message.
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
    /// Phones 2k and 2k+1 talk with each other, both ways, for a while.
    Pairs(PairsArgs),
    /// Even phones send to their absent odd neighbours, then leave; the odd ones come and drain; then the even ones
    /// come back for the `delivered` ticks that wait for them.
    Offline(OfflineArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    /// The phone door.
    #[arg(long, value_name = "ADDR")]
    pub(crate) phone: String,
    /// The admin endpoint: makes the accounts in bulk and gives the server's figures. Without it the phones register
    /// at the door and `server` is null.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// Accounts `load-0` to `load-(N-1)`; an even number.
    #[arg(long, value_name = "N")]
    pub(crate) phones: u32,
    /// What the device keys are derived from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The longest time without any progress, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) patience: f64,
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
pub(crate) struct PairsArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// How long to send, seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: f64,
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

impl Mode {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Pairs(args) => &args.common,
            Self::Offline(args) => &args.common,
        }
    }

    /// What clap cannot see; the text says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let common = self.common();
        let body_bytes_max = tern_protocol::phone::frame::BODY_BYTES_MAX;
        let seconds = |value: f64| value.is_finite() && value > 0.0 && value < 1e7;
        let rules = [
            (
                common.phones >= 2 && common.phones.is_multiple_of(2),
                "--phones must be an even number, 2 or more",
            ),
            (common.body <= body_bytes_max, "--body is more than a frame holds"),
            (seconds(common.patience), "--patience must be a number of seconds above 0"),
            (!matches!(self, Self::Pairs(args) if !seconds(args.duration)), "--duration must be above 0"),
            (
                !matches!(self, Self::Pairs(args) if args.pace.rate.is_some_and(|rate| !(rate > 0.0 && rate < 1e7))),
                "--rate must be above 0",
            ),
        ];
        rules.iter().find(|rule| !rule.0).map_or(Ok(()), |rule| Err(rule.1.into()))
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
            "tern-load pairs --phone 127.0.0.1:1 --admin 127.0.0.1:2 --phones 2 --rate 10 --duration 1 --body 0 --json",
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
            "tern-load idle --phone 127.0.0.1:1 --phones 2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
