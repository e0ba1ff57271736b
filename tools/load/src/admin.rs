//! The admin endpoint, as far as the generator needs it: accounts in bulk, the server's key, what its process used.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::time::Duration;
use tern_admin::{Access, Made, NewAccount};
use tern_protocol::hex::from_hex;
use tern_protocol::ids::AccountId;

/// The figures are polled; a server that is being restarted is asked again.
const FIGURES_TIMEOUT: Duration = Duration::from_secs(2);

/// What `GET /v1/process` says, all since that process started.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Figures {
    /// Another one after each start of the server.
    pub(crate) boot_id: String,
    pub(crate) cpu_user_us: u64,
    pub(crate) cpu_system_us: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) log_bytes_written: u64,
    pub(crate) log_commits: u64,
}

/// A client of the endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admin(tern_admin::Admin);

impl Admin {
    /// For the endpoint at `address`; connects only when asked something.
    pub(crate) fn new(address: &str, access: &Access) -> Result<Self> {
        tern_admin::Admin::new(address, access).map(Self)
    }

    /// Makes the accounts, or finds them with the same keys: their ids in order. One request, which takes up to
    /// 50,000.
    pub(crate) fn create(&self, accounts: &[NewAccount]) -> Result<Vec<AccountId>> {
        let made = self.0.create(accounts).context("the admin endpoint made no accounts")?;
        let id = |made: Made| match made.id.as_ref().and_then(|id| id.parse().ok()) {
            Some(id) => Ok(AccountId(id)),
            None => bail!("account {}: {}", made.name, made.result),
        };
        made.into_iter().map(id).collect()
    }

    /// The key that phones pin.
    pub(crate) fn server_key(&self) -> Result<[u8; 32]> {
        let answer = self.0.get("/v1/server-key")?;
        answer["public"].as_str().and_then(from_hex).context("the server's key is not 64 hex digits")
    }

    /// What the server's process used.
    pub(crate) fn figures(&self) -> Result<Figures> {
        Ok(serde_json::from_value(self.0.clone().within(FIGURES_TIMEOUT).get("/v1/process")?)?)
    }
}
