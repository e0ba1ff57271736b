//! Health, and what this process used.

use super::plane::Plane;
use super::reply::Refusal;
use axum::Json;
use axum::extract::State;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeVal;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
    match plane.trouble() {
        None => Ok("ok\n"),
        Some(trouble) => Err(Refusal::unavailable(trouble.to_string())),
    }
}

/// `GET /v1/process`
pub(super) async fn process(State(plane): State<Arc<Plane>>) -> Result<Json<Process>, Refusal> {
    let usage = Usage::now()?;
    let totals = plane.counters();
    Ok(Json(Process {
        boot_id: plane.boot_id().into(),
        cpu_user_us: usage.cpu_user.as_micros() as u64,
        cpu_system_us: usage.cpu_system.as_micros() as u64,
        rss_bytes: usage.rss_bytes,
        logins: totals.logins,
        log_bytes_written: totals.log_bytes_written,
        log_commits: totals.log_commits,
    }))
}

/// What the process has and used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Processor time outside the kernel.
    pub(super) cpu_user: Duration,
    /// Processor time in the kernel.
    pub(super) cpu_system: Duration,
    /// Resident memory.
    pub(super) rss_bytes: u64,
}

impl Usage {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not say.
    pub(super) fn now() -> Result<Self, Refusal> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)
            .map_err(|error| Refusal::unavailable(format!("getrusage: {error}")))?;
        Ok(Self {
            cpu_user: duration(usage.user_time()),
            cpu_system: duration(usage.system_time()),
            rss_bytes: rss_bytes().ok_or_else(|| unread("status"))?,
        })
    }
}

/// The process's table of descriptors. Counting them takes the kernel a millisecond where there are thousands, which is
/// why it is not a part of [`Usage`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    /// Open ones; those of the rings' own tables are not among them.
    pub(super) open: usize,
    /// Most that there may be.
    pub(super) most: u64,
}

impl Descriptors {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not say.
    pub(super) fn now() -> Result<Self, Refusal> {
        let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|error| Refusal::unavailable(format!("getrlimit: {error}")))?;
        // The one that reads the directory is open only meanwhile.
        let listed = std::fs::read_dir("/proc/self/fd").map_err(|_| unread("fd"))?.count();
        Ok(Self { open: listed.saturating_sub(1), most })
    }
}

/// The file system of the data directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive {
    pub(super) size_bytes: u64,
    /// What is not kept for root.
    pub(super) free_bytes: u64,
}

impl Drive {
    /// Asks the kernel, which knows without looking at the drive; none if it does not say.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        let stat = statvfs(directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Some(Self { size_bytes: bytes(stat.blocks()), free_bytes: bytes(stat.blocks_available()) })
    }
}

fn unread(name: &str) -> Refusal {
    Refusal::unavailable(format!("/proc/self/{name} cannot be read"))
}

fn duration(time: TimeVal) -> Duration {
    // Both parts of a CPU time are never negative.
    Duration::from_micros(time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs())
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
    fn this_process_uses_memory_and_descriptors() {
        // Of what other tests of this process have nothing is known: they may give back at any moment what they hold.
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        let (usage, descriptors) = (Usage::now().unwrap(), Descriptors::now().unwrap());
        assert!((48 << 20..1 << 40).contains(&usage.rss_bytes), "{usage:?} with {} held", block.len());
        assert!(descriptors.open >= files.len(), "{descriptors:?}");
        assert!(descriptors.most as usize > descriptors.open, "{descriptors:?}");
    }
}
