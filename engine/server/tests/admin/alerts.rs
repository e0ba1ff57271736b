//! When the alerts fire, and when they do not: by the authority's own checker.

use crate::metrics::{PROMTOOL, deployed};
use std::path::Path;
use std::process::Command;

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
      - series: 'tern_limit{job="tern",instance="a",limit="dedup_count"}'
        values: "100x20"
      - series: 'tern_message_ids{job="tern",instance="a",shard="0"}'
        values: "190x20"
      - series: 'tern_message_ids{job="tern",instance="a",shard="1"}'
        values: "110x20"
      - series: 'tern_limit{job="tern",instance="a",limit="connection_count"}'
        values: "100x20"
      - series: 'tern_connections{job="tern",instance="a",shard="0"}'
        values: "95x20"
      - series: 'tern_connections{job="tern",instance="a",shard="1"}'
        values: "85x20"
      - series: 'tern_limit{job="tern",instance="a",limit="account_count"}'
        values: "100x20"
      - series: 'tern_accounts{job="tern",instance="a",shard="0"}'
        values: "95x20"
      - series: 'tern_accounts{job="tern",instance="a",shard="1"}'
        values: "85x20"
      - series: 'tern_limit{job="tern",instance="a",limit="edge_bytes"}'
        values: "100x20"
      - series: 'tern_edge_bytes{job="tern",instance="a",shard="0"}'
        values: "95x20"
      - series: 'tern_edge_bytes{job="tern",instance="a",shard="1"}'
        values: "85x20"
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
      - eval_time: 0m
        alertname: TernMessageIdsFilling
      - eval_time: 15m
        alertname: TernMessageIdsFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
      - eval_time: 15m
        alertname: TernConnectionsFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
      - eval_time: 15m
        alertname: TernAccountsFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
      - eval_time: 15m
        alertname: TernEdgeMemoryFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
      - eval_time: 15m
        alertname: TernRingFilling
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
"#;

/// One node goes away; another one is missed now and then; and what is away is not always a node.
const AWAY: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="tern",instance="a"}'
        values: "1x4 0x10"
      - series: 'up{job="tern",instance="b"}'
        values: "1 0 1 0 1 0 1 0 1 0 1 0"
      - series: 'up{job="node",instance="a"}'
        values: "0x20"
    alert_rule_test:
      - eval_time: 5m
        alertname: TernDown
      - eval_time: 7m
        alertname: TernDown
        exp_alerts:
          - exp_labels: { job: tern, instance: a, severity: page }
"#;

/// The first node recovers for long and answers meanwhile; the second one for four minutes. The third is started again
/// every other minute, the fourth was twice; what is no node does not count.
const UP_AND_IN_VAIN: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'tern_serving{job="tern",instance="a"}'
        values: "1 1 0x20"
      - series: 'tern_serving{job="tern",instance="b"}'
        values: "1 1 0 0 0 0 1x20"
      - series: 'process_start_time_seconds{job="tern",instance="c"}'
        values: "100x9 700 700 820 820 940x30"
      - series: 'process_start_time_seconds{job="tern",instance="d"}'
        values: "100x9 700 700 820x30"
      - series: 'process_start_time_seconds{job="node",instance="c"}'
        values: "0+60x40"
    alert_rule_test:
      - eval_time: 6m
        alertname: TernNotServing
      - eval_time: 7m
        alertname: TernNotServing
        exp_alerts:
          - exp_labels: { job: tern, instance: a, severity: page }
      - eval_time: 13m
        alertname: TernRestarts
      - eval_time: 14m
        alertname: TernRestarts
        exp_alerts:
          - exp_labels: { job: tern, instance: c, severity: page }
      - eval_time: 30m
        alertname: TernRestarts
"#;

/// A shard is stuck for half a minute, between two evaluations; then its node is started anew and recovers.
const STUCK: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 15s
    input_series:
      - series: 'tern_shard_turn_late_seconds{job="tern",instance="a",shard="0"}'
        values: "0x4 0 4 0 stale _ _ _ _ 0x20"
      - series: 'tern_shard_turn_late_seconds{job="tern",instance="a",shard="1"}'
        values: "0x4 8 23 34 stale _ _ _ _ 0x20"
    alert_rule_test:
      - eval_time: 1m
        alertname: TernShardStuck
      - eval_time: 2m
        alertname: TernShardStuck
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "1", severity: page }
      - eval_time: 5m
        alertname: TernShardStuck
"#;

/// Whatever else is hit, who is refused for want of one thing raises its alert alone.
const REFUSES: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="0",limit="drive"}'
        values: "0x10 20+20x20"
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="1",limit="segment_count"}'
        values: "0x10 20+20x20"
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="2",limit="mail_bytes"}'
        values: "0x10 20+20x20"
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="3",limit="connection_count"}'
        values: "0x10 20+20x20"
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="4",limit="dedup_count"}'
        values: "0x10 20000+20000x20"
      # A day's periods at once, and then one in five minutes: nobody is refused.
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="5",limit="dedup_count"}'
        values: "0x10 288x4 289x4 290x4 291x4"
      - series: 'tern_limit_hits_total{job="tern",instance="a",shard="0",limit="mailbox_count"}'
        values: "0+500x30"
      - series: 'tern_recovery_damaged_places{job="tern",instance="a",shard="0"}'
        values: "0x10 2x20"
      - series: 'tern_recovery_damaged_places{job="tern",instance="a",shard="1"}'
        values: "0x30"
      - series: 'tern_recovery_damaged_tables{job="tern",instance="a",shard="0"}'
        values: "0x10 1x20"
      - series: 'tern_recovery_damaged_tables{job="tern",instance="a",shard="1"}'
        values: "0x30"
    alert_rule_test:
      - eval_time: 10m
        alertname: TernDriveFull
      - eval_time: 15m
        alertname: TernDriveFull
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", limit: drive, severity: page }
      - eval_time: 10m
        alertname: TernLogFull
      - eval_time: 15m
        alertname: TernLogFull
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "1", limit: segment_count, severity: page }
      - eval_time: 10m
        alertname: TernMailMemoryFull
      - eval_time: 15m
        alertname: TernMailMemoryFull
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "2", limit: mail_bytes, severity: page }
      - eval_time: 10m
        alertname: TernConnectionsFull
      - eval_time: 15m
        alertname: TernConnectionsFull
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "3", limit: connection_count, severity: page }
      - eval_time: 10m
        alertname: TernMessageIdsFull
      - eval_time: 15m
        alertname: TernMessageIdsFull
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "4", limit: dedup_count, severity: page }
      - eval_time: 10m
        alertname: TernLogDamaged
      - eval_time: 15m
        alertname: TernLogDamaged
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: page }
      - eval_time: 10m
        alertname: TernTablesDamaged
      - eval_time: 15m
        alertname: TernTablesDamaged
        exp_alerts:
          - exp_labels: { job: tern, instance: a, shard: "0", severity: ticket }
"#;

const ALL: [&str; 6] = [AWAY, UP_AND_IN_VAIN, STUCK, REFUSES, NO_DESCRIPTOR, NEARLY_FULL];

/// Names of the alerts that the rules have and that page somebody.
fn pages(rules: &str) -> Vec<&str> {
    let rules = rules.split("- alert: ").skip(1).filter(|rule| rule.contains("severity: page"));
    rules.map(|rule| rule.lines().next().unwrap_or_default()).collect()
}

#[test]
fn whatever_pages_somebody_is_tested_to_fire_and_to_stay_silent() {
    let rules = deployed("prometheus/tern.rules.yml");
    let pages = pages(&rules);
    assert!(pages.len() >= 11, "{pages:?}");
    let looks: Vec<&str> = ALL.iter().flat_map(|tests| tests.split("- eval_time: ").skip(1)).collect();
    for page in pages {
        let of_it = |look: &&&str| look.contains(&format!("alertname: {page}\n"));
        for fires in [true, false] {
            let mut looks = looks.iter().filter(of_it);
            assert!(looks.any(|look| look.contains("exp_alerts") == fires), "{page}: fires {fires}");
        }
    }
}

#[test]
fn a_node_that_is_away_raises_its_alert() {
    raises(AWAY);
}

#[test]
fn a_node_that_answers_and_does_not_serve_raises_its_alert() {
    raises(UP_AND_IN_VAIN);
}

#[test]
fn a_stuck_shard_raises_its_alert_before_the_watchdog_hides_it() {
    raises(STUCK);
}

#[test]
fn what_is_refused_or_damaged_raises_its_alert() {
    raises(REFUSES);
}

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
