//! A `tern serve` with an `[admin]` section, and a client of its endpoint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A running node.
pub(crate) struct Node {
    process: tern_node::Node,
    pub(crate) dir: TempDir,
    pub(crate) admin: SocketAddr,
    /// What a client trusts, if the endpoint speaks TLS.
    pub(crate) ca: Option<Vec<u8>>,
}

/// A certificate for loopback, as PEM: certificate and key.
pub(crate) fn identity() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string(), "localhost".into()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Runs `tern` until it ends.
pub(crate) fn run(dir: &Path, config: &str, more: &[&str]) -> Output {
    command(dir, config, "serve", more).output().unwrap()
}

fn command(dir: &Path, config: &str, what: &str, more: &[&str]) -> Command {
    std::fs::write(dir.join("tern.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    command.current_dir(dir).args([what, "--config", "tern.toml", "--phone", "127.0.0.1:0", "--shards", "2"]);
    command.args(more);
    command
}

impl Node {
    /// With `[admin]` in `config`, port 0; TLS files as `cert.pem` and `key.pem`.
    pub(crate) fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = None;
        if config.contains("tls_cert") {
            let (cert, key) = identity();
            std::fs::write(dir.path().join("cert.pem"), &cert).unwrap();
            std::fs::write(dir.path().join("key.pem"), key).unwrap();
            ca = Some(cert.into_bytes());
        }
        let process = tern_node::Node::start(&mut command(dir.path(), config, "serve", &[])).unwrap();
        Self { admin: process.ready().admin, process, dir, ca }
    }

    /// Where phones connect.
    pub(crate) fn phone(&self) -> SocketAddr {
        self.process.ready().phone
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("token")).unwrap().trim().into()
    }

    /// Status and text of the answer.
    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> Result<(u16, String), ureq::Error> {
        let mut config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let mut scheme = "http";
        if let Some(ca) = &self.ca {
            scheme = "https";
            let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
            let roots = RootCerts::new_with_certs(&[Certificate::from_pem(ca).unwrap()]);
            let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots);
            config = config.tls_config(tls.build());
        }
        let mut request = ureq::Agent::from(config.build()).get(format!("{scheme}://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.call()?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// Drains it: what it said on standard error.
    pub(crate) fn end(self) -> String {
        let ended = self.process.drain().unwrap();
        assert!(ended.status.success(), "{}", ended.status);
        ended.stderr
    }
}

/// A tool of this build, made if it is not there yet.
pub(crate) fn tool(package: &str) -> PathBuf {
    tern_node::built(Path::new(env!("CARGO_BIN_EXE_tern")), package, package).unwrap()
}
