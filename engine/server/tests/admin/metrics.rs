//! What `/metrics` looks like: by the authority's own checker, and to the dashboard.

use crate::node::Node;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn metrics() -> String {
    let node = Node::start("[admin]\nlisten = \"127.0.0.1:0\"\n");
    node.get("/metrics", None).unwrap().1
}

#[test]
fn promtool_finds_nothing_wrong() {
    let text = metrics();
    let check = |text: &str| {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed: Debian package prometheus; cargo xtask test installs it");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let (passes, said) = check(&text);
    assert!(passes && said.trim().is_empty(), "{said}");
    // It does look.
    assert!(!check("# HELP tern_x X.\n# TYPE tern_x counter\ntern_x 1\n").0);
}

/// Names of series, those of histograms in each of their forms.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[test]
fn what_the_plan_names_is_there_for_each_shard() {
    let text = metrics();
    for name in [
        "tern_sessions",
        "tern_accounts",
        "tern_connections",
        "tern_mailbox_entries",
        "tern_mailbox_bytes",
        "tern_log_commits_total",
        "tern_log_written_bytes_total",
        "tern_ring_enters_total",
        "tern_ring_submissions_total",
        "tern_ring_completions_total",
        "tern_ring_buffer_shortages_total",
        "tern_ring_cq_overflows_total",
        "tern_ring_buffers_free",
        "tern_mesh_depth_bytes",
        "tern_mesh_backlog_bytes",
        "tern_mesh_turn_depth_bytes_count",
        "tern_commit_duration_seconds_count",
        "tern_sent_duration_seconds_count",
        "tern_turn_duration_seconds_count",
    ] {
        for shard in 0..2 {
            let start = format!("{name}{{shard=\"{shard}\"}} ");
            assert!(text.lines().any(|line| line.starts_with(&start)), "no {start} in:\n{text}");
        }
    }
    for part in [
        "tern_ticks_total{shard=\"0\",kind=\"sent\"}",
        "tern_ticks_total{shard=\"0\",kind=\"delivered\"}",
        "tern_log_segments{shard=\"0\",state=\"free\"}",
        "tern_envelopes_out_total{shard=\"0\",to=\"mesh\",lane=\"bulk\",kind=\"message\"}",
        "tern_envelopes_in_total{shard=\"1\",kind=\"delivered\"}",
        "tern_limit_hits_total{shard=\"0\",limit=\"mailbox_count\"}",
        "tern_log_suppressed_lines_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
        "tern_cpu_seconds_total{mode=\"system\"}",
        "tern_node_info{version=",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
}

#[test]
fn the_dashboard_names_only_what_there_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/tern.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asks: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .filter_map(|target| target["expr"].as_str().map(|text| &*text.to_string().leak()))
        .collect();
    assert!(asks.len() >= 15, "{} queries", asks.len());
    let text = metrics();
    let there = series(&text);
    let mut named = BTreeSet::new();
    for ask in &asks {
        let words = ask.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        named.extend(words.filter(|word| word.starts_with("tern_") || word.starts_with("process_")));
    }
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "not in /metrics: {missing:?}");
    assert!(named.len() > 15, "{named:?}");
}
