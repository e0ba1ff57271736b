//! What `/metrics` looks like: by the authority's own checker, and to the dashboard.

use crate::node::Node;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) const PROMTOOL: &str = "promtool";

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
        "tern_serving 1\n",
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
pub(crate) fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a query names.
fn named(ask: &str) -> impl Iterator<Item = &str> {
    let words = ask.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tern_") || word.starts_with("process_"))
}

/// The dashboard's queries, each with what the legend says of its lines.
fn asks_and_legends() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(&deployed("grafana/tern.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let text = |value: &serde_json::Value| value.as_str().map(ToString::to_string);
    targets.filter_map(|target| Some((text(&target["expr"])?, text(&target["legendFormat"])?))).collect()
}

/// The dashboard's queries.
fn asks() -> Vec<String> {
    asks_and_legends().into_iter().map(|(ask, _)| ask).collect()
}

/// What tells the lines of a query apart.
fn told_apart_by(ask: &str) -> Vec<&str> {
    match ask.split_once(" by (").and_then(|(_, rest)| rest.split_once(')')) {
        // A quantile's buckets become one line.
        Some((labels, _)) => labels.split(", ").filter(|label| *label != "le").collect(),
        None if ask.starts_with("sum(") => Vec::new(),
        None => vec!["instance"],
    }
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
    let readme = deployed("../README.md");
    let missing: Vec<_> = named(&readme).filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "not in /metrics: {missing:?} of README.md");
}

/// Limits without a line in `tern_limit_hits_total`, and why.
const NOT_HIT: &[(&str, &str)] = &[
    ("window_count", "what is more waits in the mailbox"),
    ("step_budget", "what is more waits for the next turn"),
    ("commit_bytes", "what is more waits for the next commit"),
    ("write_back_ms", "a delay"),
    ("floor_delay_ms", "a delay"),
    ("tick_retry_ms", "a delay"),
    ("busy_ms", "what others are told"),
    ("ready_key_count", "the keys of others are expanded when they are needed"),
    ("dedup_horizon_ms", "tern_refused_expired_total"),
    ("expiry_ms", "tern_expired_total"),
    ("ticket_ms", "tern_tickets_refused_total"),
    ("address_prefix_bits", "what counts as one address"),
    ("limit_loopback", "who has limits"),
];

#[test]
fn each_limit_has_a_line_for_its_hits_or_a_reason() {
    let text = metrics();
    let labels = |family: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        let values = lines.filter_map(|line| line.split_once("limit=\"")?.1.split('"').next());
        values.map(ToString::to_string).collect()
    };
    let (limits, hits) = (labels("tern_limit"), labels("tern_limit_hits_total"));
    assert!(limits.len() > 50, "{limits:?}");
    for limit in &limits {
        // A rate and its burst are one limit.
        let rate = limit.strip_suffix("_burst").map_or(limit.clone(), |what| format!("{what}_per_s"));
        let has_line = hits.contains(&rate) || hits.contains(&rate.replace("_per_s", "_per_h"));
        let reason = NOT_HIT.iter().find(|(name, _)| name == limit);
        assert!(has_line != reason.is_some(), "{limit}: a line {has_line}, a reason why not {reason:?}");
    }
    for (name, reason) in NOT_HIT {
        assert!(limits.contains(*name), "{name} ({reason}) is no limit any more");
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
    for (ask, legend) in asks_and_legends() {
        let says = |label: &&str| legend.contains(&format!("{{{{{label}}}}}"));
        let unsaid: Vec<_> = told_apart_by(&ask).into_iter().filter(|label| !says(label)).collect();
        assert!(unsaid.is_empty(), "lines of one legend, {legend:?}, differ in {unsaid:?}: {ask}");
    }
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
