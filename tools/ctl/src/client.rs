//! The admin endpoint's client: blocking HTTP, JSON.

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// An account to make, as the endpoint takes it.
#[derive(Clone, Debug)]
pub(crate) struct NewAccount {
    /// Its name.
    pub(crate) name: String,
    /// The public key of its device.
    pub(crate) public: [u8; 32],
}

/// What became of it.
#[derive(Deserialize, Debug)]
pub(crate) struct Made {
    /// Its name.
    pub(crate) name: String,
    /// `created`, `existing`, `taken`, `bad_name`, `bad_keys` or `full`.
    pub(crate) result: String,
    /// Its id, where there is one.
    pub(crate) id: Option<String>,
}

/// A node's admin endpoint.
pub(crate) struct Admin {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Admin {
    /// Nothing is sent yet.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A node on this machine is never behind a proxy, whatever the environment says.
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Self { agent: config.into(), address }
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.agent.get(self.url(path)).call())
    }

    /// `DELETE path`.
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        self.answer(self.agent.delete(self.url(path)).call())
    }

    /// `POST /v1/accounts`.
    pub(crate) fn create(&self, accounts: &[NewAccount]) -> Result<Vec<Made>> {
        let list: Vec<Value> = accounts
            .iter()
            .map(|account| json!({ "name": account.name, "device_keys": [crate::keys::to_hex(&account.public)] }))
            .collect();
        let request = self.agent.post(self.url("/v1/accounts")).header("content-type", "application/json");
        let mut answer = self.answer(request.send(json!({ "accounts": list }).to_string()))?;
        let results: Vec<Made> = serde_json::from_value(answer["results"].take()).context("results")?;
        if results.len() != accounts.len() {
            bail!("{} accounts were sent, {} answered", accounts.len(), results.len());
        }
        Ok(results)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answer(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let mut response = answer.with_context(|| format!("admin endpoint {}", self.address))?;
        let status = response.status();
        // A page of 10,000 accounts is below 2 MiB; the library's own limit is 10.
        let text = response.body_mut().read_to_string().context("the endpoint's answer")?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|_| anyhow!("{status}, and the answer is no JSON: {text:.200}"))?;
        match (status.is_success(), value["error"].as_str()) {
            (true, _) => Ok(value),
            (false, Some(error)) => bail!("{error}"),
            (false, None) => bail!("{status}"),
        }
    }
}
