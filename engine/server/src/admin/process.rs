//! Health, and what this process used.

use super::plane::Plane;
use super::reply::Refusal;
use axum::Json;
use axum::extract::State;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;
use std::sync::Arc;

/// The fields that the traffic generator computes its figures from; all since this process started.
#[derive(Serialize, Debug)]
pub(super) struct Process {
    boot_id: String,
    cpu_user_us: u64,
    cpu_system_us: u64,
    rss_bytes: u64,
    logins: u64,
    log_bytes_written: u64,
    log_commits: u64,
}

/// `GET /healthz`
pub(super) async fn health(State(plane): State<Arc<Plane>>) -> Result<&'static str, Refusal> {
    if plane.draining() { Err(Refusal::unavailable("draining")) } else { Ok("ok\n") }
}

/// `GET /v1/process`
pub(super) async fn process(State(plane): State<Arc<Plane>>) -> Result<Json<Process>, Refusal> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|error| Refusal::unavailable(format!("getrusage: {error}")))?;
    let totals = plane.totals();
    Ok(Json(Process {
        boot_id: plane.boot_id().into(),
        cpu_user_us: micros(usage.user_time()),
        cpu_system_us: micros(usage.system_time()),
        rss_bytes: rss_bytes().ok_or_else(|| Refusal::unavailable("/proc/self/status cannot be read"))?,
        logins: totals.logins,
        log_bytes_written: totals.log_bytes_written,
        log_commits: totals.log_commits,
    }))
}

fn micros(time: TimeVal) -> u64 {
    // Both parts of a CPU time are never negative.
    time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs()
}

/// Resident memory of this process. From `status`, which says its unit; `statm` counts in pages of unsaid size.
fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let before = rss_bytes().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = rss_bytes().unwrap();
        assert!(after - before > 48 << 20, "{before} then {after} with {} more", block.len());
    }
}
