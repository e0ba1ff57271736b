//! Everything that shards and the process count, for Prometheus.
//!
//! Shards count in plain integers of their own and publish copies; nothing here is on a message's way. A line in the
//! core's or the driver's list of counters appears here by itself.

use super::exposition::{CONTENT_TYPE, Kind, Labels, Page};
use super::plane::Plane;
use super::process::{Descriptors, Drive, Usage};
use super::reply::Refusal;
use crate::config::LimitsTable;
use crate::log;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::Arc;
use std::time::Duration;
use tern_core::counters::{FAMILIES, Metric};
use tern_core::io::Lane;
use tern_core::measures::{ByKind, lane_of};
use tern_driver::{RecoveryReport, ShardReport};
use tern_protocol::envelope;

/// `GET /metrics`
pub(super) async fn metrics(State(plane): State<Arc<Plane>>) -> Result<impl IntoResponse, Refusal> {
    let mut page = Page::default();
    node(&mut page, &plane)?;
    room(&mut page, &plane);
    recovery(&mut page, &plane);
    shards(&mut page, &plane.reports());
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page.finish()))
}

/// What there is once.
fn node(page: &mut Page, plane: &Plane) -> Result<(), Refusal> {
    let usage = Usage::now()?;
    let info = [("version", env!("CARGO_PKG_VERSION")), ("boot_id", plane.boot_id())];
    page.family("tern_node_info", Kind::Gauge, "Which program this is, and which run of it.")
        .sample(&info, 1);
    let help =
        "Whether the node serves, as /healthz says: not while it recovers, drains, or has a stuck shard.";
    page.family("tern_serving", Kind::Gauge, help).sample(&[], u8::from(plane.trouble().is_none()));
    page.family("tern_draining", Kind::Gauge, "Whether the node drains.")
        .sample(&[], u8::from(plane.draining()));
    let mut cpu = page.family("tern_cpu_seconds", Kind::Counter, "Processor time by mode.");
    cpu.sample(&[("mode", "user")], usage.cpu_user.as_secs_f64());
    cpu.sample(&[("mode", "system")], usage.cpu_system.as_secs_f64());
    let cpu = (usage.cpu_user + usage.cpu_system).as_secs_f64();
    page.family("process_cpu_seconds", Kind::Counter, "Processor time.").sample(&[], cpu);
    page.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory.")
        .sample(&[], usage.rss_bytes);
    let descriptors = Descriptors::now()?;
    page.family("process_open_fds", Kind::Gauge, "Open descriptors of the process's own table.")
        .sample(&[], descriptors.open);
    page.family("process_max_fds", Kind::Gauge, "Most descriptors that the process may open.")
        .sample(&[], descriptors.most);
    let started = plane.started_unix_s();
    page.family("process_start_time_seconds", Kind::Gauge, "When the process started, Unix time.")
        .sample(&[], started);
    let help = "Lines that were left out of the log: warnings that repeated too fast, and what standard error did not take.";
    page.family("tern_log_suppressed_lines", Kind::Counter, help).sample(&[], log::suppressed_count());
    let mut refused = page.family(
        "tern_admin_refusals",
        Kind::Counter,
        "Requests that the admin endpoint refused, by reason.",
    );
    for (reason, count) in plane.gate().refusals() {
        refused.sample(&[("reason", reason)], count);
    }
    Ok(())
}

/// How much there may be at most: alerts set what there is against it, before something is refused.
fn room(page: &mut Page, plane: &Plane) {
    let help = "Limits in force, by their name in the configuration; those of a shard hold for each one.";
    let mut limits = page.family("tern_limit", Kind::Gauge, help);
    LimitsTable::each(plane.limits(), |name, value| limits.sample(&[("limit", name)], value));
    // A drive that has gone is said by the shards; all else is told all the same.
    let Some(drive) = Drive::of(plane.data()) else { return };
    page.family("tern_data_size_bytes", Kind::Gauge, "Size of the data directory's file system.")
        .sample(&[], drive.size_bytes);
    let help = "Bytes of it that the node may still take; free log segments are taken already.";
    page.family("tern_data_free_bytes", Kind::Gauge, help).sample(&[], drive.free_bytes);
}

/// What the start found in the logs, how long it took, and whether the shards still turn.
fn recovery(page: &mut Page, plane: &Plane) {
    let starts: Vec<_> = plane.start_progress().shards().collect();
    let segments = starts.iter().map(|shard| f64::from(shard.segment_count));
    by_shard(page, "tern_recovery_segments", "Log segments that the start found.", segments);
    let read = starts.iter().map(|shard| f64::from(shard.read_count));
    by_shard(page, "tern_recovery_read_segments", "Log segments that the start has read.", read);
    let took = starts.iter().map(|shard| shard.took.map_or(f64::NAN, |took| took.as_secs_f64()));
    let help = "How long the start took, the wait for other shards left out; NaN until all is read.";
    by_shard(page, "tern_recovery_seconds", help, took);
    found(page, plane.recovery());
    let help = "For how long the shard's next turn has been due: 0 while it sleeps as long as it may.";
    let late = plane.turns_late_by();
    by_shard(page, "tern_shard_turn_late_seconds", help, late.iter().map(Duration::as_secs_f64));
}

/// What was in the logs.
fn found(page: &mut Page, reports: &[RecoveryReport]) {
    type Pick = fn(&RecoveryReport) -> u64;
    let found: [(&str, &str, Pick); 5] = [
        ("tern_recovery_records", "Records that the start read from the log.", |report| report.record_count),
        (
            "tern_recovery_damaged_places",
            "Places of the log that are damaged: what could not be read there is lost, the rest is served.",
            |report| report.rot.len() as u64,
        ),
        (
            "tern_recovery_damaged_tables",
            "Whether records of accounts are damaged: devices and accounts that were removed may be back.",
            |report| report.has_rot_in_tables.into(),
        ),
        (
            "tern_recovery_nameless_accounts",
            "Accounts that can be read again, whose names others have taken: they stay in the log with their mail.",
            |report| report.nameless_count,
        ),
        (
            "tern_recovery_torn_tails",
            "Commits that a crash had cut short; none of them had been ticked.",
            |report| report.torn.len() as u64,
        ),
    ];
    for (name, help, pick) in found {
        #[allow(clippy::cast_precision_loss)]
        by_shard(page, name, help, reports.iter().map(|report| pick(report) as f64));
    }
}

/// A gauge of which each shard has one.
fn by_shard(page: &mut Page, name: &str, help: &str, values: impl Iterator<Item = f64>) {
    let mut family = page.family(name, Kind::Gauge, help);
    for (shard, value) in values.enumerate() {
        family.sample(&[("shard", &shard.to_string())], value);
    }
}

fn shards(page: &mut Page, reports: &[ShardReport]) {
    counters(page, reports, |report, visit| report.counters.each(visit));
    counters(page, reports, |report, visit| report.driver.each(visit));
    envelopes(page, reports);
    type Pick = fn(&ShardReport) -> &tern_core::histogram::Histogram;
    let histograms: [(&str, &str, Pick); 4] = [
        ("tern_commit_duration_seconds", "From the start of a group commit until it is durable.", |report| {
            &report.measures.commit
        }),
        (
            "tern_sent_duration_seconds",
            "From a message's arrival until its sent tick, which says that it is safe, leaves for the sender.",
            |report| &report.measures.sent,
        ),
        (
            "tern_delivery_duration_seconds",
            "From a message's arrival until it is on its way to a device that had all before it, in whole milliseconds, rounded up.",
            |report| &report.measures.delivery,
        ),
        ("tern_turn_duration_seconds", "How long a shard's turn took, its wait not counted.", |report| {
            &report.turn
        }),
    ];
    for (name, help, pick) in histograms {
        let mut family = page.family(name, Kind::Histogram, help);
        for (shard, report) in reports.iter().enumerate() {
            family.durations(&[("shard", &shard.to_string())], pick(report));
        }
    }
    let help = "Bytes that a turn found in the lanes from other shards, of the turns that found some.";
    let mut family = page.family("tern_mesh_turn_depth_bytes", Kind::Histogram, help);
    for (shard, report) in reports.iter().enumerate() {
        family.depths(&[("shard", &shard.to_string())], &report.mesh_depth);
    }
}

/// A counter's value on a shard.
type Sample = (Metric, usize, u64);

/// Counters of one list, family by family.
fn counters(
    page: &mut Page,
    reports: &[ShardReport],
    each: impl Fn(&ShardReport, &mut dyn FnMut(Metric, u64)),
) {
    let mut families: Vec<(Metric, Vec<Sample>)> = Vec::new();
    for (shard, report) in reports.iter().enumerate() {
        each(report, &mut |metric, value| {
            let known = families.iter_mut().find(|(first, _)| first.family == metric.family);
            match known {
                Some((_, samples)) => samples.push((metric, shard, value)),
                None => families.push((metric, vec![(metric, shard, value)])),
            }
        });
    }
    for (first, samples) in families {
        let shared = FAMILIES.iter().find(|(name, _)| *name == first.family);
        let help = shared.map_or(first.help, |(_, help)| help);
        let kind = if first.is_gauge { Kind::Gauge } else { Kind::Counter };
        let mut family = page.family(&format!("tern_{}", first.family), kind, help);
        for (metric, shard, value) in samples {
            let shard = shard.to_string();
            let labels: Vec<(&str, &str)> =
                [("shard", &*shard)].into_iter().chain(metric.labels.iter().copied()).collect();
            family.sample(&labels, value);
        }
    }
}

fn envelopes(page: &mut Page, reports: &[ShardReport]) {
    let help = "Envelopes cast, by kind, lane and whether they stay on the shard.";
    let mut out = page.family("tern_envelopes_out", Kind::Counter, help);
    for (shard, report) in reports.iter().enumerate() {
        let shard = shard.to_string();
        let casts = &report.measures.out;
        for (to, lanes) in [("own", &casts.own), ("mesh", &casts.mesh)] {
            for (lane, kinds) in ["control", "bulk"].into_iter().zip(lanes) {
                by_kind(kinds, |kind, _, count| {
                    let labels: Labels<'_> = &[("shard", &shard), ("to", to), ("lane", lane), ("kind", kind)];
                    out.sample(labels, count);
                });
            }
        }
    }
    let mut mesh_in = page.family(
        "tern_envelopes_in",
        Kind::Counter,
        "Envelopes that came from other shards, by kind and lane.",
    );
    for (shard, report) in reports.iter().enumerate() {
        let shard = shard.to_string();
        by_kind(&report.measures.mesh_in, |kind, lane, count| {
            let labels: Labels<'_> = &[("shard", &shard), ("lane", lane), ("kind", kind)];
            mesh_in.sample(labels, count);
        });
    }
}

/// Each kind that there is, and its lane.
fn by_kind(counts: &ByKind, mut visit: impl FnMut(&str, &str, u64)) {
    for (value, &count) in (0_u8..).zip(counts) {
        if let Some(kind) = envelope::Kind::from_wire(value) {
            let lane = match lane_of(kind) {
                Lane::Control => "control",
                Lane::Bulk => "bulk",
            };
            visit(&format!("{kind:?}").to_lowercase(), lane, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_core::counters::Counters;

    #[test]
    fn what_a_start_found_is_told_of_each_shard() {
        let damaged =
            RecoveryReport { has_rot_in_tables: true, nameless_count: 3, ..RecoveryReport::default() };
        let mut page = Page::default();
        found(&mut page, &[RecoveryReport::default(), damaged]);
        let text = page.finish();
        for line in [
            "# TYPE tern_recovery_damaged_tables gauge",
            "tern_recovery_damaged_tables{shard=\"0\"} 0",
            "tern_recovery_damaged_tables{shard=\"1\"} 1",
            "tern_recovery_nameless_accounts{shard=\"0\"} 0",
            "tern_recovery_nameless_accounts{shard=\"1\"} 3",
            "tern_recovery_damaged_places{shard=\"1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
        }
    }

    #[test]
    fn counters_gauges_labels_and_help() {
        let counters = Counters { logins: 7, sessions_now: 3, mailbox_full: 4, ..Counters::default() };
        let mut first = ShardReport { counters, ..ShardReport::default() };
        first.measures.out.mesh[1][1] = 6;
        first.turn.record(10_000);
        let mut page = Page::default();
        shards(&mut page, &[first, ShardReport::default()]);
        let text = page.finish();
        for line in [
            "# TYPE tern_logins_total counter",
            "tern_logins_total{shard=\"0\"} 7",
            "tern_logins_total{shard=\"1\"} 0",
            "# TYPE tern_sessions gauge",
            "tern_sessions{shard=\"0\"} 3",
            "# HELP tern_accepted_total Sockets accepted.",
            "tern_limit_hits_total{shard=\"0\",limit=\"mailbox_count\"} 4",
            "tern_envelopes_out_total{shard=\"0\",to=\"mesh\",lane=\"bulk\",kind=\"message\"} 6",
            "tern_turn_duration_seconds_bucket{shard=\"0\",le=\"0.00001\"} 1",
            "tern_turn_duration_seconds_count{shard=\"0\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
        }
        let types = |line: &&str| line.starts_with("# TYPE");
        let mut names: Vec<&str> = text.lines().filter(types).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "each family once");
    }
}
