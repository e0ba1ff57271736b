//! The admin endpoint's client: blocking HTTP, JSON.

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Where the token may be, instead of in a file.
const TOKEN_VARIABLE: &str = "TERN_ADMIN_TOKEN";

/// What the endpoint wants of its clients, and they of it.
#[derive(clap::Args, Debug)]
pub(crate) struct Access {
    /// The file with the endpoint's token; without it the token is what the environment's TERN_ADMIN_TOKEN says.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// PEM file with the certificate that the endpoint's is signed by, or its own; the endpoint is asked by TLS then.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

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
    /// `http://` or `https://`, and host and port.
    base: String,
    token: Option<String>,
}

impl Admin {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// A file of `access` cannot be read or is not what it should be.
    pub(crate) fn new(address: &str, access: &Access) -> Result<Self> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A node on this machine is never behind a proxy, whatever the environment says.
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(120)));
        let mut scheme = "http";
        if let Some(file) = &access.ca {
            scheme = "https";
            config = config.tls_config(tls(file).with_context(|| format!("--ca {}", file.display()))?);
        }
        let token = match &access.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("--token-file {}", file.display()))?;
                Some(text.trim().to_string())
            }
            None => std::env::var(TOKEN_VARIABLE).ok().map(|text| text.trim().to_string()),
        };
        Ok(Self { agent: config.build().into(), base: format!("{scheme}://{address}"), token })
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.authorised(self.agent.get(self.url(path))).call())
    }

    /// `DELETE path`.
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        self.answer(self.authorised(self.agent.delete(self.url(path))).call())
    }

    /// `POST /v1/accounts`.
    pub(crate) fn create(&self, accounts: &[NewAccount]) -> Result<Vec<Made>> {
        let list: Vec<Value> = accounts
            .iter()
            .map(|account| json!({ "name": account.name, "device_keys": [crate::keys::to_hex(&account.public)] }))
            .collect();
        let request = self.authorised(self.agent.post(self.url("/v1/accounts")));
        let request = request.header("content-type", "application/json");
        let mut answer = self.answer(request.send(json!({ "accounts": list }).to_string()))?;
        let results: Vec<Made> = serde_json::from_value(answer["results"].take()).context("results")?;
        if results.len() != accounts.len() {
            bail!("{} accounts were sent, {} answered", accounts.len(), results.len());
        }
        Ok(results)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let mut response = answer.with_context(|| {
            format!(
                "{} does not answer: is tern running, and is this what its `ready` line calls admin?",
                self.base
            )
        })?;
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

/// Trusts what is in the file and nothing else.
fn tls(file: &Path) -> Result<TlsConfig> {
    let pem = std::fs::read(file)?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        bail!("no certificate in it, allowed: a PEM file with certificates");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots: &[Certificate<'static>] = &roots;
    let config = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    Ok(config.root_certs(RootCerts::new_with_certs(roots)).build())
}

/// Host and port, as they stand in a URL.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@', '?', '#']));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(text.into()),
        None => Err("allowed: HOST:PORT, as 127.0.0.1:7323, [::1]:7323 or chat.example.org:7323".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        for right in ["127.0.0.1:7323", "[::1]:1", "chat.example.org:65535"] {
            assert_eq!(parse_address(right).as_deref(), Ok(right));
        }
        for wrong in ["", "7323", ":7323", "host", "host:", "host:70000", "http://host:1", "me@host:1"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }
}
