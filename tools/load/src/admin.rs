//! The admin endpoint, as far as the generator needs it: accounts in bulk, the server's key, what its process used.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tern_protocol::ids::AccountId;

/// Making a batch waits for its group commits.
const TIMEOUT: Duration = Duration::from_secs(60);
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

#[derive(Serialize)]
struct CreateBody<'a> {
    accounts: Vec<NewAccount<'a>>,
}

#[derive(Serialize)]
struct NewAccount<'a> {
    name: &'a str,
    device_keys: [String; 1],
}

#[derive(Deserialize)]
struct CreateReply {
    results: Vec<Created>,
}

#[derive(Deserialize)]
struct Created {
    result: String,
    id: Option<String>,
}

#[derive(Deserialize)]
struct ServerKey {
    public: String,
}

/// A client of the endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admin {
    base: String,
    agent: ureq::Agent,
}

impl Admin {
    /// For the endpoint at `address`; connects only when asked something.
    pub(crate) fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .proxy(None)
            // A kept connection dies with the server, and the next request with it.
            .max_idle_connections(0)
            .build();
        Self { base: format!("http://{address}"), agent: config.into() }
    }

    /// Makes the accounts, or finds them with the same keys: their ids in order. One request, which takes up to
    /// 50,000.
    pub(crate) fn create(&self, accounts: &[(String, [u8; 32])]) -> Result<Vec<AccountId>> {
        let body = CreateBody {
            accounts: accounts
                .iter()
                .map(|(name, key)| NewAccount { name, device_keys: [hex(key)] })
                .collect(),
        };
        let mut response = self
            .agent
            .post(format!("{}/v1/accounts", self.base))
            .config()
            // The answer's text says what is wrong.
            .http_status_as_error(false)
            .build()
            .header("content-type", "application/json")
            .send(serde_json::to_string(&body)?)
            .context("the admin endpoint made no accounts")?;
        let text = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            bail!("the admin endpoint made no accounts: {}: {text}", response.status());
        }
        let reply: CreateReply = serde_json::from_str(&text)?;
        if reply.results.len() != accounts.len() {
            bail!("{} accounts asked for, {} answers", accounts.len(), reply.results.len());
        }
        let mut ids = Vec::with_capacity(accounts.len());
        for (created, (name, _)) in reply.results.iter().zip(accounts) {
            let id = created.id.as_ref().and_then(|id| id.parse().ok());
            let Some(id) = id else { bail!("account {name}: {}", created.result) };
            ids.push(AccountId(id));
        }
        Ok(ids)
    }

    /// The key that phones pin.
    pub(crate) fn server_key(&self) -> Result<[u8; 32]> {
        let key: ServerKey = serde_json::from_str(&self.get("/v1/server-key", TIMEOUT)?)?;
        from_hex(&key.public).context("the server's key is not 64 hex digits")
    }

    /// What the server's process used.
    pub(crate) fn figures(&self) -> Result<Figures> {
        Ok(serde_json::from_str(&self.get("/v1/process", FIGURES_TIMEOUT)?)?)
    }

    fn get(&self, path: &str, timeout: Duration) -> Result<String> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let mut response = request.config().timeout_global(Some(timeout)).build().call()?;
        Ok(response.body_mut().read_to_string()?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let bytes: [u8; 32] = std::array::from_fn(|n| (n * 9) as u8);
        assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("00"), None);
        assert_eq!(from_hex(&"zz".repeat(32)), None);
    }
}
