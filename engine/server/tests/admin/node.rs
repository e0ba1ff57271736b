//! A `tern serve` with an `[admin]` section, and a client of its endpoint.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A running node.
pub(crate) struct Node {
    child: Child,
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
        Self::start_with(config, |command| command.stderr(Stdio::null()))
    }

    pub(crate) fn start_with(config: &str, set: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = None;
        if config.contains("tls_cert") {
            let (cert, key) = identity();
            std::fs::write(dir.path().join("cert.pem"), &cert).unwrap();
            std::fs::write(dir.path().join("key.pem"), key).unwrap();
            ca = Some(cert.into_bytes());
        }
        let mut child =
            set(command(dir.path(), config, "serve", &[]).stdout(Stdio::piped())).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let admin = ready.split_whitespace().find_map(|word| word.strip_prefix("admin="));
        let admin = admin.unwrap_or_else(|| panic!("{ready:?}")).parse().unwrap();
        Self { child, dir, admin, ca }
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

    /// `tern-ctl` of this build, made if it is not there yet.
    pub(crate) fn control_tool() -> PathBuf {
        let path = Path::new(env!("CARGO_BIN_EXE_tern")).with_file_name("tern-ctl");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "tern-ctl", "--bin", "tern-ctl"]);
        if path.parent().and_then(Path::file_name).is_some_and(|profile| profile == "release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "tern-ctl does not build");
        path
    }

    /// Drains it: what it said on standard error.
    pub(crate) fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
