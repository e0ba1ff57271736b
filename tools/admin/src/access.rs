//! Where an endpoint is, and what it and its clients want of each other.

use anyhow::{Context, Result};
use std::net::IpAddr;
use std::path::PathBuf;

/// Where the token may be, instead of in a file.
const TOKEN_VARIABLE: &str = "TERN_ADMIN_TOKEN";

/// What the endpoint wants of its clients, and they of it.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Access {
    /// The file with the endpoint's token; without it the token is what the environment's TERN_ADMIN_TOKEN says.
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate that the endpoint's is signed by, or its own; the endpoint is asked by TLS then.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
}

impl Access {
    /// The token, if there is one.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub(crate) fn token(&self) -> Result<Option<String>> {
        match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("--token-file {}", file.display()))?;
                Ok(Some(text.trim().to_string()))
            }
            None => Ok(std::env::var(TOKEN_VARIABLE).ok().map(|text| text.trim().to_string())),
        }
    }
}

/// Host and port, as they stand in a URL. Whether there is such a host is found out later.
///
/// # Errors
/// The text is something else: what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && !host.contains([' ', '\t', '\n', '/', '@', '?', '#']);
    let port = text.rsplit_once(':').filter(|(host, _)| is_host(host));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(text.into()),
        // Those of phones and of the endpoint alike are read here.
        None => Err("allowed: HOST:PORT, as 127.0.0.1:PORT, [::1]:PORT or chat.example.org:PORT; where the node names \
                     no other, phones have port 7322 and the admin endpoint 7323"
            .into()),
    }
}

/// Whether what is sent to this host and port stays on this machine.
pub(crate) fn is_here(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Admin;

    #[test]
    fn an_address_is_host_and_port() {
        for right in ["127.0.0.1:7323", "[::1]:1", "chat.example.org:65535"] {
            assert_eq!(parse_address(right).as_deref(), Ok(right));
        }
        for wrong in
            ["", "7323", ":7323", "host", "host:", "host:70000", "http://host:1", "me@host:1", "a host:1"]
        {
            assert!(
                parse_address(wrong).is_err_and(|text| text.contains("7322") && text.contains("7323")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_token_is_the_text_of_its_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        let access = Access { token_file: Some(file.clone()), ..Access::default() };
        let error = format!("{:#}", access.token().unwrap_err());
        assert!(error.starts_with("--token-file ") && error.contains("token: No such file"), "{error}");
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(access.token().unwrap().as_deref(), Some("secret"));
    }

    #[test]
    fn a_token_goes_to_no_other_machine_in_clear() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let access = Access { token_file: Some(file), ..Access::default() };
        for here in
            ["127.0.0.1:7323", "127.9.9.9:1", "[::1]:7323", "localhost:7323", "LocalHost:1", "0.0.0.0:1"]
        {
            assert!(Admin::new(here, &access).is_ok(), "{here}");
        }
        for there in [
            "192.0.2.2:7323",
            "[2001:db8::1]:7323",
            "chat.example.org:7323",
            "localhost.example.org:1",
            "127.0.0.1.example.org:1",
        ] {
            let error = Admin::new(there, &access).unwrap_err().to_string();
            assert!(error.contains(there) && error.contains("--ca FILE"), "{error}");
            assert!(Admin::new(there, &Access::default()).is_ok(), "{there}: nothing to keep secret");
        }
    }
}
