//! Each attack, in small: the server counts it where it should.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
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
connection_frames_per_s = 1000
connection_frames_burst = 5000
account_asks_per_s = 10
account_asks_burst = 100
connection_count = 300
edge_bytes = 1359872
";

/// A running server; killed when dropped.
struct Node {
    _process: tern_node::Node,
    phone: String,
    admin: String,
    _place: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let config = place.path().join("tern.toml");
        std::fs::write(&config, CONFIG).expect("the configuration is written");
        let hostile = Path::new(env!("CARGO_BIN_EXE_hostile"));
        let mut command =
            Command::new(tern_node::built(hostile, "tern-server", "tern").expect("the server builds"));
        command.args(["serve", "--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"]);
        command.arg("--config").arg(config).arg("--data").arg(place.path().join("data"));
        let process = tern_node::Node::start(command.env("TERN_LOG", "error")).expect("tern serves");
        let (phone, admin) = (process.ready().phone.to_string(), process.ready().admin.to_string());
        Self { _process: process, phone, admin, _place: place }
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

    /// A count that has not changed for a while.
    fn settled(&self, counter: &str) -> u64 {
        let (mut count, mut since) = (self.count(counter), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(50));
            let found = self.count(counter);
            if found != count {
                (count, since) = (found, Instant::now());
            }
        }
        count
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
    node.suffers("halves", &["--rate", "100", "--duration", "1.5"], "timeouts", 30);
    node.suffers("acks", &["--rate", "40", "--duration", "1"], "bad_acknowledgements", 5);
    node.suffers("floods", &["--rate", "4", "--duration", "2"], "floods", 2);
    let accounts = node.count("accounts_now");
    let report = node.suffers("replays", &["--rate", "40", "--duration", "1"], "logins_unproven", 5);
    assert!(node.count("accounts_now") <= accounts + 1, "a login that is replayed makes nothing: {report}");
}

#[test]
fn every_attack_on_the_server_s_memory_and_on_others_accounts_is_counted() {
    let node = Node::start();
    node.suffers("strangers", &["--rate", "200", "--duration", "1"], "accepted", 150);
    let report = node.suffers("dropouts", &["--rate", "100", "--duration", "1.5"], "login_timeouts", 30);
    assert!(report["answered"].as_u64().expect("a count") >= 50, "the server paid for its answers: {report}");
    // The first fifty come as who they are.
    let (accounts, wrong_keys) = (node.count("accounts_now"), node.count("logins_wrong_key"));
    let report = node.suffers("thieves", &["--rate", "30", "--duration", "4"], "logins_name_taken", 20);
    node.wait_for("logins_wrong_key", wrong_keys + 20, &report);
    assert!(node.count("accounts_now") <= accounts + 10, "nobody else gets an account: {report}");
    node.suffers("meddlers", &["--rate", "4", "--duration", "2"], "refused_asks", 4_000);
    // Ten of them fill the half of the memory. Each comes from an account of its own: a login ends the one before it.
    let accounts = node.count("accounts_now");
    let report = node.suffers("trickles", &["--rate", "50", "--duration", "2"], "refused_memory", 20);
    node.wait_for("accounts_now", accounts + 60, &report);
    // Half-open connections of half a second: 500, and room for 300.
    node.suffers("crowds", &["--rate", "1000", "--duration", "1.5"], "refused_connections", 100);
    // The same accounts, one after the other: what they wrote is kept, and only a window of it handed out.
    node.suffers("writers", &["--rate", "4", "--duration", "2"], "mail_count_now", 400);
    let (waiting, told) = (node.settled("mail_count_now"), node.settled("messages_out"));
    let report = node.suffers("sleepers", &["--rate", "4", "--duration", "2"], "messages_out", 200);
    assert_eq!(node.settled("mail_count_now"), waiting, "nobody acknowledged any: {report}");
    let (sleepers, told) = (report["logins"].as_u64().expect("a count"), node.count("messages_out") - told);
    assert!(told <= 64 * sleepers, "{told} messages to {sleepers} who acknowledge none: {report}");
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
