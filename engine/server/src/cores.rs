//! The core map: which hardware thread each shard runs on.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The hardware threads that this process may use (`taskset`, cgroups), ascending; empty where the kernel won't say.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// The map for `shard_count` shards: the configured one, else one allowed thread each, else nobody is pinned: two
/// spinning shards on one hardware thread are better off where the kernel can move them.
pub(crate) fn map(configured: Option<&[usize]>, allowed: &[usize], shard_count: u16) -> Option<Vec<usize>> {
    let count = usize::from(shard_count);
    match configured {
        Some([]) => None,
        Some(list) => Some(list.to_vec()),
        None if allowed.len() >= count => Some(allowed[..count].to_vec()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_for_each_shard_or_no_pinning() {
        assert_eq!(map(None, &[2, 3, 5], 2), Some(vec![2, 3]));
        assert_eq!(map(None, &[2], 2), None);
        assert_eq!(map(Some(&[7, 8]), &[2], 2), Some(vec![7, 8]));
        assert_eq!(map(Some(&[]), &[2, 3], 2), None);
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed().is_empty());
    }
}
