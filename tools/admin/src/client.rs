//! The endpoint's client: blocking HTTP, JSON.

use crate::access::{Access, is_here};
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::{Display, Formatter};
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::StatusCode;

/// Making a batch of accounts waits for its group commits.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An account to make, as the endpoint takes it.
#[derive(Clone, Serialize, Debug)]
pub struct NewAccount {
    /// Its name.
    pub name: String,
    /// The public key of its one device, 64 hex digits.
    pub device_keys: [String; 1],
}

/// What became of it.
#[derive(Deserialize, Debug)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// `created`, `existing`, `taken`, `bad_name`, `bad_keys`, `full` (of accounts) or `log_full`.
    pub result: String,
    /// Its id, where there is one.
    pub id: Option<String>,
}

/// A node's admin endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    agent: ureq::Agent,
    /// `http://` or `https://`, and host and port.
    base: String,
    token: Option<String>,
    timeout: Duration,
}

impl Admin {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// A file of `access` cannot be read or is not what it should be, or the token would be sent to another machine for all
    /// on the way to read.
    pub fn new(address: &str, access: &Access) -> Result<Self> {
        let config = ureq::Agent::config_builder()
            // The answer's text says what is wrong.
            .http_status_as_error(false)
            // A node on this machine is never behind a proxy, whatever the environment says.
            .proxy(None)
            // A kept connection dies with the node, and the next request with it.
            .max_idle_connections(0);
        let scheme = "http";
        #[cfg(feature = "tls")]
        let (scheme, config) = match &access.ca {
            Some(file) => {
                let tls = crate::tls::trusting(file).with_context(|| format!("--ca {}", file.display()))?;
                ("https", config.tls_config(tls))
            }
            None => (scheme, config),
        };
        let token = access.token()?;
        // Before anything is sent: an endpoint that speaks TLS could only say so when the token is out already.
        if token.is_some() && scheme == "http" && !is_here(address) {
            bail!(
                "--admin {address}: a token is not sent to another machine without TLS: name the endpoint's certificate (--ca FILE)"
            );
        }
        Ok(Self {
            agent: config.build().into(),
            base: format!("{scheme}://{address}"),
            token,
            timeout: TIMEOUT,
        })
    }

    /// One that waits no longer than this for an answer.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    /// The endpoint does not answer, refuses (its reason), or answers with something that is no JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.prepared(self.agent.get(self.url(path))).call())
    }

    /// `GET path`, where the answer is plain text.
    ///
    /// # Errors
    /// As for [`Admin::get`], but that it need not be JSON.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let (status, text) = self.text(self.prepared(self.agent.get(self.url(path))).call())?;
        if status.is_success() { Ok(text) } else { bail!("{status}: {text:.200}") }
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As for [`Admin::get`].
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.answer(self.prepared(self.agent.delete(self.url(path))).call())
    }

    /// `POST /v1/accounts`: makes them, or finds them with the same keys. Up to 50,000 in one request; the answers are
    /// in the same order.
    ///
    /// # Errors
    /// As for [`Admin::get`]; what became of each account is no error.
    pub fn create(&self, accounts: &[NewAccount]) -> Result<Vec<Made>> {
        let request = self.prepared(self.agent.post(self.url("/v1/accounts")));
        let request = request.header("content-type", "application/json");
        let mut answer = self.answer(request.send(json!({ "accounts": accounts }).to_string()))?;
        let results: Vec<Made> = serde_json::from_value(answer["results"].take()).context("results")?;
        if results.len() != accounts.len() {
            bail!("{} accounts were sent, {} answered", accounts.len(), results.len());
        }
        Ok(results)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn prepared<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.config().timeout_global(Some(self.timeout)).build();
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn text(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(StatusCode, String)> {
        let mut response = answer.map_err(|error| {
            // What rustls refuses comes as bytes that are not valid: a certificate of another name or signer, no TLS at all.
            let answers = matches!(&error, ureq::Error::Io(io) if io.kind() == ErrorKind::InvalidData);
            let what = if answers {
                "answers, but not as the endpoint that is meant"
            } else {
                "does not answer: is tern running, and is this what its `ready` line calls admin?"
            };
            anyhow!(error).context(format!("{} {what}", self.base))
        })?;
        // A page of 10,000 accounts is below 2 MiB; the library's own limit is 10.
        let text = response.body_mut().read_to_string().context("the endpoint's answer")?;
        Ok((response.status(), text))
    }

    fn answer(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let (status, text) = self.text(answer)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|_| anyhow!("{status}, and the answer is no JSON: {text:.200}"))?;
        if status.is_success() {
            return Ok(value);
        }
        let text = value["error"].as_str().map_or_else(|| status.to_string(), String::from);
        Err(Refused { status, text }.into())
    }
}

/// The endpoint refused the request as a whole.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    text: String,
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// Whether the request that ended with this error certainly did nothing: nobody took it, or the endpoint refused it before
/// it began. False where that is not known.
pub fn did_nothing(error: &anyhow::Error) -> bool {
    if let Some(Refused { status, .. }) = error.downcast_ref() {
        // What took too long was perhaps under way.
        return status.is_client_error() && *status != StatusCode::REQUEST_TIMEOUT;
    }
    match error.downcast_ref() {
        Some(ureq::Error::HostNotFound) => true,
        Some(ureq::Error::Io(io)) => {
            let kinds =
                [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
            kinds.contains(&io.kind())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// What becomes of a request that somebody answers so.
    fn answered(answer: &'static str) -> anyhow::Error {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let endpoint = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The request comes in one piece; who closes with some of it unread would reset the connection.
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = Admin::new(&address, &Access::default()).unwrap().get("/").unwrap_err();
        endpoint.join().unwrap();
        error
    }

    #[test]
    fn what_certainly_did_nothing_is_told_from_what_is_not_known() {
        let refused = answered("HTTP/1.1 401 Unauthorized\r\ncontent-length: 15\r\n\r\n{\"error\":\"why\"}");
        assert_eq!(refused.to_string(), "why");
        assert!(did_nothing(&refused) && did_nothing(&refused.context("of a command")));
        for unknown in [
            "HTTP/1.1 408 Request Timeout\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]",
            "",
        ] {
            let error = answered(unknown);
            assert!(!did_nothing(&error), "{unknown:?}: {error:?}");
        }
        // Nobody listens at port 1.
        let nobody = Admin::new("127.0.0.1:1", &Access::default()).unwrap().get("/").unwrap_err();
        assert!(did_nothing(&nobody), "{nobody:?}");
        assert!(did_nothing(&anyhow::Error::from(ureq::Error::HostNotFound)));
    }
}
