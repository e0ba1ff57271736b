//! What `/metrics` looks like: by the authority's own checker, and to the dashboard.

use crate::node::Node;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const PROMTOOL: &str = "promtool";

fn metrics() -> String {
    let node = Node::start("[admin]\nlisten = \"127.0.0.1:0\"\n");
    node.get("/metrics", None).unwrap().1
}

#[test]
fn promtool_finds_nothing_wrong() {
    let text = metrics();
    let check = |text: &str| {
        let mut child = Command::new(PROMTOOL)
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
        "tern_delivery_duration_seconds_count",
        "tern_mailboxes_filled",
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
        "tern_envelopes_in_total{shard=\"1\",lane=\"control\",kind=\"delivered\"}",
        "tern_limit_hits_total{shard=\"0\",limit=\"mailbox_count\"}",
        "tern_limit_hits_total{shard=\"0\",limit=\"drive\"}",
        "tern_limit{limit=\"mailbox_count\"} 100000\n",
        "tern_limit{limit=\"limit_loopback\"} 0\n",
        "tern_ring_slots{shard=\"1\"} ",
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
fn the_drives_room_is_that_of_the_data_directory() {
    let node = Node::start("[admin]\nlisten = \"127.0.0.1:0\"\n");
    let text = node.get("/metrics", None).unwrap().1;
    let value = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<u64>().unwrap()
    };
    let df =
        Command::new("df").args(["--block-size=1", "--output=size"]).arg(node.dir.path()).output().unwrap();
    let size = String::from_utf8(df.stdout).unwrap().lines().last().unwrap().trim().parse::<u64>().unwrap();
    assert_eq!(value("tern_data_size_bytes"), size);
    assert!((1..size).contains(&value("tern_data_free_bytes")));
}

/// The text of a file under `deploy`.
fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a query names.
fn named(ask: &str) -> impl Iterator<Item = &str> {
    let words = ask.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tern_") || word.starts_with("process_"))
}

/// The dashboard's queries.
fn asks() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&deployed("grafana/tern.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.filter_map(|target| target["expr"].as_str().map(ToString::to_string)).collect()
}

#[test]
fn dashboard_and_alerts_name_only_what_there_is() {
    let text = metrics();
    let there = series(&text);
    let (asks, rules) = (asks(), deployed("prometheus/tern.rules.yml"));
    let rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(ToString::to_string);
    let rules: Vec<String> = rules.collect();
    assert!(asks.len() >= 15 && rules.len() >= 8, "{} queries, {} rules", asks.len(), rules.len());
    for ask in asks.iter().chain(&rules) {
        let missing: Vec<_> = named(ask).filter(|name| !there.contains(name)).collect();
        assert!(missing.is_empty(), "not in /metrics: {missing:?} of {ask}");
    }
}

/// Families that no panel shows, and why.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("tern_node_info", "the list of nodes is made of it"),
    ("tern_accepted_total", "the logins tell more"),
    ("tern_devices_added_total", "rare, for the log of a support case"),
    ("tern_devices_revoked_total", "rare, for the log of a support case"),
    ("tern_accounts_created_total", "the number of accounts tells it"),
    ("tern_messages_appended_total", "in steady state it is what comes in"),
    ("tern_mesh_out_total", "the envelopes by kind tell more"),
    ("tern_mesh_in_total", "the envelopes by kind tell more"),
    ("tern_stale_completions_total", "for those who work on Tern"),
    ("tern_ring_stale_completions_total", "for those who work on Tern"),
    ("tern_ring_rearms_total", "for those who work on Tern"),
    ("tern_ring_sockets_parked", "for those who work on Tern"),
    ("process_max_fds", "sockets lie in the rings' tables, which have limits of their own"),
    ("tern_ring_buffers", "those that are free tell more"),
    ("tern_control_requests_total", "what the endpoint refused tells more"),
    ("tern_recovery_segments", "of interest while a start lasts, when the log and GET /v1/status tell it"),
    ("tern_recovery_read_segments", "likewise"),
    ("tern_recovery_records", "likewise"),
    ("tern_recovery_damaged_tables", "an alert tells it at once, and GET /v1/status where"),
    ("tern_recovery_nameless_accounts", "rare, for the log of a support case"),
    ("process_cpu_seconds_total", "the processor time by mode is the same"),
    ("process_start_time_seconds", "a restart shows in every counter"),
];

#[test]
fn no_panel_adds_shards_of_different_nodes() {
    let asks = asks();
    assert!(asks.iter().any(|ask| ask.contains("by (instance, shard)")));
    let mixed: Vec<_> = asks.iter().filter(|ask| ask.contains("by (shard")).collect();
    assert!(mixed.is_empty(), "{mixed:?}");
}

#[test]
fn every_family_is_on_the_dashboard_or_has_a_reason() {
    let (text, asks) = (metrics(), asks());
    let shown: BTreeSet<&str> = asks.iter().flat_map(|ask| named(ask)).collect();
    let families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for family in &families {
        let is_shown = shown.iter().any(|name| {
            name.strip_prefix(family).is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        });
        let has_reason = NOT_SHOWN.iter().any(|(name, _)| name == family);
        assert!(
            is_shown != has_reason,
            "{family}: on the dashboard {is_shown}, a reason why not {has_reason}"
        );
    }
    for (name, reason) in NOT_SHOWN {
        assert!(families.contains(name), "{name} ({reason}) is in /metrics no more");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/tern.rules.yml");
    let output = Command::new(PROMTOOL).args(["check", "rules"]).arg(&file).output();
    let output = output.expect("promtool is needed: Debian package prometheus; cargo xtask test installs it");
    assert!(output.status.success(), "{output:?}");
}

/// A node that cannot accept, as it looks from outside: sockets of phones are in the tables of the rings, so that the
/// process has few descriptors of its own.
const NO_DESCRIPTOR: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'tern_accept_pauses_total{job="tern",instance="a",shard="1"}'
        values: "0x10 20+20x10"
      - series: 'process_open_fds{job="tern",instance="a"}'
        values: "40x20"
      - series: 'process_max_fds{job="tern",instance="a"}'
        values: "1048576x20"
    alert_rule_test:
      - eval_time: 10m
        alertname: TernDescriptorsShort
      - eval_time: 15m
        alertname: TernDescriptorsShort
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "1", severity: page }
"#;

/// Nothing is refused yet, on the one shard that is nearly full; the other one and the other node are not.
const NEARLY_FULL: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'tern_limit{job="tern",instance="a",limit="mail_bytes"}'
        values: "1000x20"
      - series: 'tern_limit{job="tern",instance="b",limit="mail_bytes"}'
        values: "2000x20"
      - series: 'tern_limit{job="tern",instance="a",limit="segment_count"}'
        values: "100x20"
      - series: 'tern_mail_held_bytes{job="tern",instance="a",shard="0"}'
        values: "950x20"
      - series: 'tern_mail_held_bytes{job="tern",instance="a",shard="1"}'
        values: "100x20"
      - series: 'tern_mail_held_bytes{job="tern",instance="b",shard="0"}'
        values: "950x20"
      - series: 'tern_log_segments{job="tern",instance="a",shard="0",state="used"}'
        values: "95x20"
      - series: 'tern_log_segments{job="tern",instance="a",shard="0",state="free"}'
        values: "99x20"
      - series: 'tern_data_free_bytes{job="tern",instance="a"}'
        values: "9x20"
      - series: 'tern_data_size_bytes{job="tern",instance="a"}'
        values: "100x20"
      - series: 'tern_ring_slots_used{job="tern",instance="a",shard="0"}'
        values: "95x20"
      - series: 'tern_ring_slots{job="tern",instance="a",shard="0"}'
        values: "100x20"
    alert_rule_test:
      - eval_time: 5m
        alertname: TernMailMemoryFilling
      - eval_time: 15m
        alertname: TernMailMemoryFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
      - eval_time: 15m
        alertname: TernLogFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", state: used, severity: ticket }
      - eval_time: 15m
        alertname: TernDriveFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, severity: ticket }
      - eval_time: 15m
        alertname: TernRingFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
"#;

#[test]
fn want_of_descriptors_raises_its_alert() {
    raises(NO_DESCRIPTOR);
}

#[test]
fn what_is_nearly_full_raises_its_alert_before_anything_is_refused() {
    raises(NEARLY_FULL);
}

/// The rules raise what the test says.
fn raises(tests: &str) {
    let place = tempfile::tempdir().unwrap();
    let rules = deployed("prometheus/tern.rules.yml");
    // What it says is for people.
    let lines = rules
        .lines()
        .filter(|line| !["annotations:", "summary:"].iter().any(|word| line.trim().starts_with(word)));
    std::fs::write(place.path().join("rules.yml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let test = place.path().join("test.yml");
    std::fs::write(&test, format!("rule_files: [rules.yml]\n{tests}")).unwrap();
    let output = Command::new(PROMTOOL).args(["test", "rules"]).arg(&test).output();
    let output = output.expect("promtool is needed: Debian package prometheus; cargo xtask test installs it");
    assert!(output.status.success(), "{output:?}");
}
