//! Many accounts for tests, with keys from one password.

use crate::account::{check_name, explain};
use crate::keys::{self, Batch};
use crate::print::print;
use anyhow::{Context, Result, bail};
use clap::Args;
use tern_admin::{Admin, NewAccount};
use tern_protocol::hex::to_hex;

/// Accounts of one request; the endpoint takes at most 50,000.
const REQUEST_COUNT: u64 = 10_000;

/// Makes PREFIX<K> .. PREFIX<K+N-1>.
///
/// Keys, for tests only: batch = PBKDF2-HMAC-SHA256(password, "tern-ctl account generate, for tests only", 200000
/// rounds, 32 bytes); the X25519 private key of NAME is SHA-256(batch || NAME).
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// How many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    count: u64,
    /// What their names start with.
    #[arg(long, value_name = "P")]
    prefix: String,
    /// The first number.
    #[arg(long, value_name = "K")]
    first: u64,
    /// What their keys are derived from; without it a random one is made and printed.
    #[arg(long, value_name = "W")]
    password: Option<String>,
}

/// Makes the accounts; those that exist with the same keys count as made.
pub(crate) fn generate(admin: &Admin, args: &GenerateArgs) -> Result<()> {
    let last = args.first.checked_add(args.count - 1).context("--first and --count reach past 2^64")?;
    check_name(&format!("{}{last}", args.prefix))?;
    let password = match &args.password {
        Some(password) => password.clone(),
        None => {
            let password = keys::fresh_password()?;
            print(&format!("password {password}\n"))?;
            password
        }
    };
    let batch = Batch::new(&password);
    let (mut created, mut existing) = (0_u64, 0_u64);
    let mut next = args.first;
    while next <= last {
        let end = last.min(next.saturating_add(REQUEST_COUNT - 1));
        let accounts: Vec<NewAccount> = (next..=end)
            .map(|number| {
                let name = format!("{}{number}", args.prefix);
                NewAccount { device_keys: [to_hex(&batch.keys_of(&name).public)], name }
            })
            .collect();
        for made in admin.create(&accounts)? {
            match made.result.as_str() {
                "created" => created += 1,
                "existing" => existing += 1,
                other => bail!("{}: {} ({created} made before it)", made.name, explain(other)),
            }
        }
        if end == last {
            break;
        }
        next = end + 1;
    }
    print(&format!("created {created} existing {existing}\n")).map(drop)
}
