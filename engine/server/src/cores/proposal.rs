//! Deals shards over a machine's hardware threads.
//!
//! The rules:
//! 1. One shard for each hardware thread. Both threads of a core are used: most of a shard's time is the kernel's TCP,
//!    which waits for memory, and a second thread fills the gaps.
//! 2. With eight cores or more, one core with all its threads is kept free of shards: for the control thread, the admin
//!    endpoint, what the kernel does in the background, and the interrupts of network cards with few queues. It is the
//!    core of the lowest thread, where most of that is anyway. With fewer cores nothing is kept: an eighth is too much.
//! 3. Shards are numbered so that neighbours share caches: threads of a core follow each other, then the cores of a
//!    NUMA node, then the nodes.
//! 4. Never more shards than the caller allows (partitions). Where fewer are wanted than there are threads, each gets a
//!    core of its own as long as there are cores, on as few nodes as possible; then second threads are used.

use super::topology::{Core, Machine};

/// From this number of cores on one is kept free of shards.
const RESERVE_FROM_CORES: usize = 8;

/// A map as proposed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proposal {
    /// The hardware thread of each shard, in order.
    pub(super) shards: Vec<usize>,
    /// Threads of the control thread; empty: none of its own.
    pub(super) control: Vec<usize>,
}

/// As many shards as the allowed threads carry, at most `shards_max`.
pub(super) fn propose(machine: &Machine, shards_max: usize) -> Proposal {
    let mut cores = usable_cores(machine, &[]);
    let control = take_control_core(&mut cores);
    Proposal { shards: deal(&cores, shards_max), control }
}

/// Exactly `shard_count` shards on allowed threads outside `taken`, keeping the control core free where that leaves
/// enough. None: there are not enough threads.
pub(super) fn place(machine: &Machine, taken: &[usize], shard_count: usize) -> Option<Proposal> {
    let mut cores = usable_cores(machine, taken);
    let all = cores.clone();
    let control = if taken.is_empty() { take_control_core(&mut cores) } else { Vec::new() };
    let shards = deal(&cores, shard_count);
    if shards.len() == shard_count {
        return Some(Proposal { shards, control });
    }
    let shards = deal(&all, shard_count);
    (shards.len() == shard_count).then_some(Proposal { shards, control: Vec::new() })
}

/// The cores with those of their threads that may be used.
pub(super) fn usable_cores(machine: &Machine, taken: &[usize]) -> Vec<Core> {
    let mut cores = machine.cores();
    for core in &mut cores {
        core.cpus.retain(|cpu| machine.allowed.contains(cpu) && !taken.contains(cpu));
    }
    cores.retain(|core| !core.cpus.is_empty());
    cores
}

fn take_control_core(cores: &mut Vec<Core>) -> Vec<usize> {
    if cores.len() < RESERVE_FROM_CORES {
        return Vec::new();
    }
    let lowest = (0..cores.len()).min_by_key(|&index| cores[index].cpus[0]);
    lowest.map_or_else(Vec::new, |index| cores.remove(index).cpus)
}

/// Deals at most `count` shards: first one to each core, then second threads, and numbers them core by core.
fn deal(cores: &[Core], count: usize) -> Vec<usize> {
    let mut used = vec![0; cores.len()];
    let mut left = count;
    let deepest = cores.iter().map(|core| core.cpus.len()).max().unwrap_or(0);
    for depth in 1..=deepest {
        for (core, used) in cores.iter().zip(&mut used) {
            if left > 0 && core.cpus.len() >= depth {
                *used = depth;
                left -= 1;
            }
        }
    }
    cores.iter().zip(used).flat_map(|(core, used)| core.cpus[..used].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::topology::made::machine;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_large_machine_keeps_its_first_core() {
        let proposal = propose(&machine(1, 8, 2, 1), 4096);
        assert_eq!(proposal.control, [0, 8]);
        assert_eq!(proposal.shards, [1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]);
    }

    #[test]
    fn a_small_one_uses_everything() {
        assert_eq!(propose(&machine(1, 2, 1, 1), 4096), Proposal { shards: vec![0, 1], control: vec![] });
        assert_eq!(propose(&machine(1, 7, 1, 1), 4096).shards.len(), 7);
    }

    #[test]
    fn few_shards_get_cores_before_second_threads() {
        let place = |count| place(&machine(1, 4, 2, 1), &[], count).map(|proposal| proposal.shards);
        assert_eq!(place(2), Some(vec![0, 1]));
        assert_eq!(place(5), Some(vec![0, 4, 1, 2, 3]));
        assert_eq!(place(8), Some(vec![0, 4, 1, 5, 2, 6, 3, 7]));
        assert_eq!(place(9), None);
    }

    #[test]
    fn the_control_core_yields_to_shards_that_must_be() {
        let machine = machine(1, 8, 1, 1);
        let seven = place(&machine, &[], 7).unwrap();
        assert_eq!((seven.shards.len(), seven.control.as_slice()), (7, &[0][..]));
        let eight = place(&machine, &[], 8).unwrap();
        assert_eq!((eight.shards.len(), eight.control.len()), (8, 0));
    }

    #[test]
    fn only_allowed_threads_and_partitions_count() {
        let mut machine = machine(2, 4, 2, 2);
        machine.allowed = vec![2, 3, 10];
        assert_eq!(propose(&machine, 4096).shards, [2, 10, 3]);
        assert_eq!(propose(&machine, 2).shards, [2, 3]);
        assert_eq!(place(&machine, &[2], 2).unwrap().shards, [10, 3]);
    }

    proptest! {
        #[test]
        fn every_proposal_keeps_the_rules(
            (sockets, cores, threads, max) in (1..4_usize, 1..20_usize, 1..3_usize, 1..100_usize)
        ) {
            let machine = machine(sockets, cores, threads, sockets);
            let Proposal { shards, control } = propose(&machine, max);
            let mut all = [shards.clone(), control.clone()].concat();
            all.sort_unstable();
            let count = all.len();
            all.dedup();
            prop_assert_eq!(all.len(), count, "no thread is used twice");
            prop_assert_eq!(control.is_empty(), sockets * cores < 8);
            prop_assert_eq!(shards.len(), max.min(machine.threads.len() - control.len()));
            let nodes: Vec<_> = shards.iter().map(|&cpu| machine.node_of(cpu)).collect();
            prop_assert!(nodes.is_sorted(), "nodes are contiguous");
        }
    }
}
