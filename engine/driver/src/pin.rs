//! Which hardware thread a shard runs on.

use core_affinity::CoreId;
use tracing::warn;

/// Pins the calling thread. A refusal is no reason not to serve: it is logged.
pub(crate) fn pin(shard: u16, cpus: Option<&[usize]>) {
    let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) else { return };
    let id = cpus[usize::from(shard) % cpus.len()];
    if !core_affinity::set_for_current(CoreId { id }) {
        warn!(shard, cpu = id, "the shard's thread could not be pinned");
    }
}

/// How long a shard may look for work before it sleeps, nanoseconds: only where hardware threads are to spare, since
/// a spinning shard would take the time of another one or of the clients.
pub(crate) fn spin_ns(shard_count: u16) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads > 2 * usize::from(shard_count) { 20_000 } else { 0 }
}
