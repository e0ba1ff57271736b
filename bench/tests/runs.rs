//! Both programs run, move messages, and say so in one line of JSON.

use serde_json::Value;
use std::process::Command;

fn run(program: &str, more: &[&str]) -> Value {
    let output = Command::new(program)
        .args(["--phones", "4", "--duration", "0.5", "--body", "32"])
        .args(more)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn raw_echo_moves_messages() {
    let report = run(env!("CARGO_BIN_EXE_raw-echo"), &[]);
    assert!(report["messages"].as_u64().expect("a count") > 4, "{report}");
}

#[test]
fn the_stub_moves_messages_and_commits() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("a path");
    let more = ["--window", "3", "--data", data, "--commits-per-s", "50", "--commit-bytes", "5000"];
    let report = run(env!("CARGO_BIN_EXE_stub"), &more);
    assert!(report["messages"].as_u64().expect("a count") > 4, "{report}");
    // Warming up included, 0.55 s at 50 a second; a slow drive makes fewer.
    let commits = report["server"]["commits"].as_u64().expect("a count");
    assert!((1..=40).contains(&commits), "{report}");
}

#[test]
fn a_schedule_is_kept_and_its_latency_told() {
    for program in [env!("CARGO_BIN_EXE_raw-echo"), env!("CARGO_BIN_EXE_stub")] {
        let report = run(program, &["--rate", "200"]);
        // 100 in half a second, whatever the machine is busy with: what is late comes together.
        let messages = report["messages"].as_u64().expect("a count");
        assert!((60..=115).contains(&messages), "{report}");
        let at = |name: &str| report["latency_us"][name].as_f64().expect("a latency");
        assert!(at("p50") > 0.0 && at("p50") <= at("p99") && at("p99") <= at("max"), "{report}");
    }
}
