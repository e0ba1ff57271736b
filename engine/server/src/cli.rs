//! The command line of `tern`. Only what exists is offered.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A chat backend: one process runs a whole service on one machine.
#[derive(Parser, Debug)]
#[command(name = "tern", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the node until SIGTERM or SIGINT drains it.
    Serve(Box<ServeArgs>),
    /// Give the server of a stopped node a new key. Phones that know the old one are told the new one. One old key is kept:
    /// while the one of an earlier change works, another change is refused.
    RotateKey {
        /// Data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// For how many days the old key still works.
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = days, allow_hyphen_values = true)]
        keep_days: u32,
        /// End the key of an earlier change, though it still works: phones that know no later one are locked out.
        #[arg(long)]
        end_previous: bool,
    },
    /// Ask the node that runs here with this configuration whether it serves: prints `ok`, or ends with 3.
    Health(Box<ServeArgs>),
    /// Show sockets, cores, NUMA nodes and network queues, the core map in force, and propose one.
    Cores(Box<CoresArgs>),
    /// Look at the configuration without starting anything.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Flags of `cores`: those of `serve` say which map is in force.
#[derive(Args, Debug)]
pub(crate) struct CoresArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Copy of another machine's /sys; its /proc/irq may lie beside it, as DIR/../proc/irq.
    #[arg(long, value_name = "DIR")]
    pub(crate) sysfs: Option<PathBuf>,
    /// One line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `tern config` can do.
#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Check the file and the flags, also against this machine; prints `ok` or what is wrong.
    Check(Box<ServeArgs>),
    /// Print the whole configuration that `serve` would use with these flags, as TOML.
    Show(Box<ServeArgs>),
}

/// Flags of `serve`; each one overrides the file's value.
#[derive(Args, Debug, Default)]
pub(crate) struct ServeArgs {
    /// TOML file; without it the built-in values hold.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory; only `serve` makes it if it is missing [default: ./tern-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Vec<PathBuf>,
    /// Where phones connect; port 0 lets the kernel choose [default: 127.0.0.1:7322].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) phone: Option<SocketAddr>,
    /// Admin endpoint; off loopback the file must name a token and a certificate [default: 127.0.0.1:7323].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) admin: Option<SocketAddr>,
    /// Number of shards [default: that of the data directory, or as many as the core map has].
    #[arg(long, value_name = "N", value_parser = shards, allow_hyphen_values = true)]
    pub(crate) shards: Option<u16>,
    /// Let phones register accounts by themselves.
    #[arg(long)]
    pub(crate) open_registration: bool,
}

/// What is allowed depends on the configuration: numbers are judged with it.
fn shards(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "allowed: a whole number from 1 on".into())
}

fn days(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "allowed: a whole number of days, 0 or more".into())
}

/// Where to listen. A name will not do: it may mean several addresses.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "allowed: IP:PORT, as 127.0.0.1:7322, 0.0.0.0:7322 or [::]:7322".into())
}
