//! Which hardware thread a shard runs on, and where its memory is.

use core_affinity::CoreId;
use std::sync::Once;
use tern_ring::{BoundAddress, numa};
use tracing::warn;

/// Where a shard runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The hardware thread.
    pub cpu: usize,
    /// The NUMA node that its memory shall come from; none: wherever the kernel takes it.
    pub numa_node: Option<usize>,
    /// Whether its listener shall get the connections that arrive at its hardware thread.
    pub steer: bool,
}

/// The place of a shard.
fn place_of(shard: u16, places: Option<&[Place]>) -> Option<Place> {
    let places = places.filter(|places| !places.is_empty())?;
    Some(places[usize::from(shard) % places.len()])
}

/// Pins the calling thread and says where its memory shall come from: to be called before it allocates anything that
/// is to stay. A refusal is no reason not to serve: it is logged.
pub(crate) fn pin(shard: u16, places: Option<&[Place]>) {
    let Some(place) = place_of(shard, places) else { return };
    if !core_affinity::set_for_current(CoreId { id: place.cpu }) {
        warn!(shard, cpu = place.cpu, "the shard's thread could not be pinned");
    }
    let Some(node) = place.numa_node else { return };
    if let Err(error) = numa::prefer_node(node) {
        // The same for each shard (a kernel without NUMA, a container that forbids the call): said once.
        static SAID: Once = Once::new();
        SAID.call_once(|| warn!(shard, node, %error, "memory could not be bound to the shards' NUMA nodes"));
    }
}

/// Asks for the connections that arrive at the shard's hardware thread, if its place says so.
pub(crate) fn steer(shard: u16, places: Option<&[Place]>, bound: &BoundAddress) {
    if let Some(Place { cpu, steer: true, .. }) = place_of(shard, places)
        && let Err(error) = bound.prefer_cpu(cpu)
    {
        warn!(shard, cpu, %error, "the shard's listener could not be steered");
    }
}

/// How long a shard may look for work before it sleeps, nanoseconds: only where hardware threads are to spare, since
/// a spinning shard would take the time of another one or of the clients.
pub(crate) fn spin_ns(shard_count: u16) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads > 2 * usize::from(shard_count) { 20_000 } else { 0 }
}
