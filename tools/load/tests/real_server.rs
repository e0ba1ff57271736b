//! The generator against `tern serve` with two shards: phones that wait, and phones that come and go.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server; killed when dropped.
struct Node {
    child: Child,
    phone: String,
    admin: String,
    _data: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(server())
            .args(["serve", "--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2", "--data"])
            .arg(data.path().join("data"))
            .env("TERN_LOG", "warn")
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
        Self { child, phone, admin, _data: data }
    }

    /// What the server tells of itself.
    fn status(&self) -> Value {
        let url = format!("http://{}/v1/status", self.admin);
        let text = ureq::get(&url).call().expect("the admin endpoint").body_mut().read_to_string();
        serde_json::from_str(&text.expect("text")).expect("JSON")
    }

    fn load(&self, line: &str) -> (i32, Value) {
        let output = Command::new("prlimit")
            // So small that a ring holds only 40 phones: three workers.
            .args(["--nofile=616:616", env!("CARGO_BIN_EXE_tern-load")])
            .args(line.split(' '))
            .args(["--json", "--phone", &self.phone, "--admin", &self.admin])
            .output()
            .expect("tern-load runs");
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        let report = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or(Value::Null);
        let code = output.status.code().expect("an exit code");
        println!("{line}: {code} {text}\n{}", String::from_utf8_lossy(&output.stderr));
        (code, report)
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
    let load = Path::new(env!("CARGO_BIN_EXE_tern-load"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--package", "tern-server", "--bin", "tern"])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the server is built");
    load.with_file_name("tern")
}

#[test]
fn idle_phones_are_held_and_flapping_ones_lose_nothing() {
    let node = Node::start();
    let (code, report) = node.load("idle --phones 100 --hold 1");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["hold"]["lost_count"], 0);
    assert!(report["hold"]["cpu_user_us"].is_u64() && report["server"]["cpu_us_per_login"].is_f64());
    assert!(report["server"]["rss_bytes"].as_u64() > report["server"]["rss_bytes_per_phone"].as_u64());

    let (code, report) = node.load("idle --phones 100 --hold 1 --resume");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["resumed"]["by_ticket"], 100);
    assert!(report["resumed"]["login_per_s"].as_f64().unwrap() > 0.0);

    // Other accounts than those above, and all of them gone and back at once.
    let (code, report) = node.load("idle --phones 100 --first 200 --hold 0.2 --storm");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["resumed"]["by_ticket"], 100);
    assert!(report["resumed"]["all_back_s"].as_f64().unwrap() >= 0.1, "{report}");
    assert_eq!(node.status()["totals"]["accounts_now"], 200);

    let (code, report) = node.load("flap --phones 100 --rate 1000 --flaps 40 --duration 3 --body 40");
    assert_eq!((code, report["lost"].as_u64()), (0, Some(0)));
    assert_eq!((report["sent"].as_u64(), report["delivered"].as_u64()), (Some(3000), Some(3000)));
    let flaps = report["flaps"].as_u64().unwrap();
    assert!((30..=120).contains(&flaps), "{report}");
    // A few are dropped before they have a new ticket.
    assert!(report["resumed"]["by_ticket"].as_u64().unwrap() > flaps / 2, "{report}");
}
