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
///
/// `thread_count` are those that the process may use. A pinned thread is told that there is one: who counts must not be
/// pinned yet.
pub(crate) const fn spin_ns(thread_count: usize, shard_count: u16) -> u64 {
    if thread_count > 2 * shard_count as usize { 20_000 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::read_to_string;
    use std::io::ErrorKind;

    #[test]
    fn a_shard_and_its_memory_go_to_their_place() {
        let last = core_affinity::get_core_ids().unwrap().pop().unwrap().id;
        // The last node with memory: where there are several, not the one that memory comes from anyway.
        let nodes = read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
        let node = nodes.trim().rsplit([',', '-']).next().and_then(|node| node.parse().ok()).unwrap_or(0);
        let place = Place { cpu: last, numa_node: Some(node), steer: false };
        std::thread::spawn(move || {
            // Shard 3 of a list with one place.
            pin(3, Some(&[place]));
            let status = read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains(&format!("Cpus_allowed_list:\t{last}\n")), "{status}");
            let maps = read_to_string("/proc/thread-self/numa_maps");
            match (maps, numa::prefer_node(node)) {
                (Ok(maps), Ok(())) => {
                    assert_eq!(maps.split_whitespace().nth(1), Some(&*format!("prefer:{node}")));
                }
                // A kernel without NUMA has no such file.
                (Err(_), Ok(())) => {}
                (_, Err(error)) => {
                    let is_forbidden = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
                    assert!(is_forbidden.contains(&error.kind()), "only who forbids it may refuse: {error}");
                }
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_shard_spins_only_where_hardware_threads_are_to_spare() {
        let spins = |thread_count, shard_count| spin_ns(thread_count, shard_count) > 0;
        assert!(spins(3, 1) && spins(40, 19));
        assert!(!spins(1, 1) && !spins(2, 1) && !spins(40, 20) && !spins(40, 40));
    }

    #[test]
    fn no_map_pins_nobody() {
        let before = core_affinity::get_core_ids();
        pin(0, None);
        pin(0, Some(&[]));
        assert_eq!(core_affinity::get_core_ids(), before);
    }
}
