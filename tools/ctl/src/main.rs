//! `tern-ctl`: administers a node through its admin endpoint, and chats through its door.

mod account;
mod chat;
mod generate;
mod keys;
mod print;
mod status;
mod top;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tern_admin::{Access, Admin};

/// Administers a Tern node.
#[derive(Parser, Debug)]
#[command(name = "tern-ctl", version)]
struct Cli {
    /// The node's admin endpoint.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7323", value_parser = tern_admin::parse_address)]
    admin: String,
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make, list and remove accounts.
    Account {
        #[command(subcommand)]
        command: AccountCommand,
    },
    /// Show what the node is and does.
    Status(status::StatusArgs),
    /// Talk to people, in a terminal or through pipes; /help tells how.
    #[command(args = chat::refused_args())]
    Chat(chat::ChatArgs),
    /// Show live what the node does: shards, rates, latencies, the fullest mailboxes. `q` quits.
    Top,
}

#[derive(Subcommand, Debug)]
enum AccountCommand {
    /// Make one account; makes a key for its first device unless --key gives one, or the key file is there. Where there is
    /// an account of that name with that key, nothing is done.
    Add {
        /// Its name.
        name: String,
        /// The public key of its first device (X25519, 64 hex digits).
        #[arg(long, value_name = "HEX", conflicts_with = "key_file")]
        key: Option<String>,
        /// Where the private key goes [default: NAME.key]. A file that is there is used, and never replaced.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// List all accounts, one a line: id, name, devices, online, waiting.
    List,
    /// Remove an account with its mailbox.
    Remove {
        /// Its name.
        name: String,
    },
    /// Make many accounts for tests, with keys derived from one password.
    Generate(generate::GenerateArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tern-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    // A chat has no use for the endpoint, nor for its token and certificate.
    let admin = || Admin::new(&cli.admin, &cli.access);
    match cli.command {
        Command::Account { command } => {
            let admin = admin()?;
            match command {
                AccountCommand::Add { name, key, key_file } => {
                    account::add(&admin, &name, key.as_deref(), key_file)
                }
                AccountCommand::List => account::list(&admin),
                AccountCommand::Remove { name } => account::remove(&admin, &name),
                AccountCommand::Generate(args) => generate::generate(&admin, &args),
            }
        }
        Command::Status(args) => status::status(&admin()?, &args),
        Command::Chat(args) => chat::chat(&args),
        Command::Top => top::top(admin()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    #[test]
    fn a_chat_offers_nothing_that_is_for_the_endpoint() {
        let help = |name: &str| {
            let mut cli = Cli::command();
            cli.build();
            cli.find_subcommand_mut(name).unwrap().render_long_help().to_string()
        };
        for of_endpoint in ["--token-file", "--ca"] {
            assert!(help("status").contains(of_endpoint) && !help("chat").contains(of_endpoint));
            let line = ["tern-ctl", "chat", "ann", of_endpoint, "file"];
            let error = Cli::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains("a chat asks no admin endpoint"), "{error}");
        }
        for line in ["tern-ctl --token-file t --ca c status", "tern-ctl status --ca c --token-file t"] {
            let access = Cli::try_parse_from(line.split(' ')).unwrap().access;
            assert_eq!(access.ca.as_deref(), Some(Path::new("c")), "{line}");
            assert_eq!(access.token_file.as_deref(), Some(Path::new("t")), "{line}");
        }
        // Who has them in an alias may chat.
        assert!(Cli::try_parse_from("tern-ctl --token-file t --ca c chat ann".split(' ')).is_ok());
    }
}
