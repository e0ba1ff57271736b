//! Each attack, in small: the server counts it where it should.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Limits that a small attack reaches.
const CONFIG: &str = "open_registration = true
[limits]
limit_loopback = true
login_ms = 500
address_connects_per_s = 20
address_connects_burst = 20
address_handshakes_per_s = 1000
address_handshakes_burst = 1000
";

/// A running server; killed when dropped.
struct Node {
    child: Child,
    phone: String,
    admin: String,
    _place: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let config = place.path().join("tern.toml");
        std::fs::write(&config, CONFIG).expect("the configuration is written");
        let mut child = Command::new(server())
            .args(["serve", "--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1", "--config"])
            .arg(config)
            .arg("--data")
            .arg(place.path().join("data"))
            .env("TERN_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("tern starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the ready line");
        let field = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_string()
        };
        let (phone, admin) = (field("phone="), field("admin="));
        Self { child, phone, admin, _place: place }
    }

    fn count(&self, name: &str) -> u64 {
        let mut answer = ureq::get(format!("http://{}/v1/status", self.admin)).call().expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let status: Value = serde_json::from_str(&text).expect("JSON");
        status["totals"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Counts are told a moment later.
    fn wait_for(&self, counter: &str, wanted: u64, report: &Value) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.count(counter) < wanted {
            let found = self.count(counter);
            assert!(Instant::now() < deadline, "{counter} is {found}, not {wanted}: {report}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Attacks; then waits until the counter has grown by so much.
    fn suffers(&self, attack: &str, options: &[&str], counter: &str, at_least: u64) -> Value {
        let before = self.count(counter);
        let output = Command::new(env!("CARGO_BIN_EXE_hostile"))
            .args(["--phone", &self.phone, "--attack", attack])
            .args(options)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        self.wait_for(counter, before + at_least, &report);
        report
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's binary, built as this test was: cargo builds only what a package depends on.
fn server() -> PathBuf {
    let hostile = Path::new(env!("CARGO_BIN_EXE_hostile"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--package", "tern-server", "--bin", "tern"])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the server is built");
    hostile.with_file_name("tern")
}

#[test]
fn every_attack_is_counted() {
    let node = Node::start();
    let half_a_second = ["--rate", "200", "--duration", "0.5"];
    // 100 connects: 20 at once and some 10 more may. What is waited for leaves room for slow machines.
    node.suffers("connects", &half_a_second, "refused_address_connects", 20);
    // Half of them fail as a preface, half as a handshake.
    node.suffers("garbage", &half_a_second, "protocol_errors", 30);
    node.suffers("garbage", &half_a_second, "handshakes_failed", 15);
    node.suffers("tickets", &half_a_second, "tickets_refused", 30);
    node.suffers("records", &half_a_second, "protocol_errors", 30);
    // The last of them are ended after the attack.
    node.suffers("slowloris", &["--rate", "100", "--duration", "1.5"], "timeouts", 30);
    let report = node.suffers("bodies", &["--rate", "40", "--duration", "1"], "too_large", 5);
    // Each Eve came once, and registered.
    let logins = report["logins"].as_u64().expect("a count");
    assert!(logins >= 5, "{report}");
    node.wait_for("accounts_now", logins, &report);
}

#[test]
fn only_loopback_is_attacked() {
    let output = Command::new(env!("CARGO_BIN_EXE_hostile"))
        .args(["--phone", "192.0.2.1:7322", "--attack", "connects"])
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("allowed: a loopback address"));
}
