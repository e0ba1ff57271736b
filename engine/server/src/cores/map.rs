//! From the configuration and the machine to the map in force.

use super::list::format_list;
use super::proposal::{place, propose, usable_cores};
use super::topology::Machine;
use crate::config::{CoresSettings, Threads};
use crate::exit::Failure;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tern_driver::Place;

/// Which hardware thread does what.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub(crate) struct CoreMap {
    /// The hardware thread of each shard, in order; empty: shards run wherever the kernel puts them.
    pub(crate) shards: Vec<usize>,
    /// Hardware threads of the control thread and its helpers; empty: anywhere.
    pub(crate) control: Vec<usize>,
}

/// Shards of a new data directory where nobody says a number: one for each thread that the proposal uses, or that the
/// control thread is not told to have, but not more than `parallelism` (what a container's quota of processor time is
/// worth).
pub(crate) fn default_shard_count(
    cores: &CoresSettings,
    machine: &Machine,
    parallelism: usize,
    shards_max: u16,
) -> u16 {
    let threads = match cores.control.named() {
        [] => propose(machine, usize::from(shards_max)).shards.len(),
        taken => usable_cores(machine, taken).iter().map(|core| core.cpus.len()).sum(),
    };
    let count = threads.min(parallelism).clamp(1, usize::from(shards_max));
    u16::try_from(count).unwrap_or(shards_max)
}

/// Why `auto` pins nobody; none where it does, or is not asked to.
pub(crate) fn why_unpinned(
    cores: &CoresSettings,
    machine: &Machine,
    parallelism: usize,
    shard_count: u16,
) -> Option<String> {
    let given = machine.allowed.len();
    if cores.shards != Threads::Auto {
        None
    } else if parallelism < given {
        Some(format!(
            "no shard is pinned: this process may use {given} hardware threads, but has processor time for \
             {parallelism} (cgroup quota), and every node on this machine would go to the same ones. cores.shards names \
             them where that is wanted; \"none\" says that it is not"
        ))
    } else if place(machine, cores.control.named(), usize::from(shard_count)).is_none() {
        let free = usable_cores(machine, cores.control.named()).iter().map(|core| core.cpus.len()).sum();
        let beside = if cores.control.named().is_empty() { "" } else { " beside those of cores.control" };
        Some(format!(
            "no shard is pinned: {} for {}{beside}. cores.shards = \"none\" says that this is meant",
            counted(free, "hardware thread"),
            counted(usize::from(shard_count), "shard")
        ))
    } else {
        None
    }
}

/// `1 shard`, `2 shards`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

impl CoreMap {
    /// The map for `shard_count` shards. Where `auto` finds fewer threads than shards nobody is pinned: two shards on
    /// one hardware thread are better off where the kernel can move them. Neither is anybody where a quota makes
    /// `parallelism` less than the threads are: all nodes with such a quota would meet on the first of them.
    ///
    /// # Errors
    /// Threads that this machine does not have, that are offline, or that this process may not use; fewer than shards.
    pub(crate) fn resolve(
        cores: &CoresSettings,
        machine: &Machine,
        parallelism: usize,
        shard_count: u16,
    ) -> Result<Self, Failure> {
        check("cores.shards", &cores.shards, machine)?;
        check("cores.control", &cores.control, machine)?;
        let count = usize::from(shard_count);
        let (shards, spare) = match &cores.shards {
            Threads::These(list) if list.len() < count => {
                return Err(Failure::usage(format!(
                    "cores.shards = \"{}\" names {} hardware threads for {count} shards, allowed: at least one for \
                     each, \"auto\" or \"none\"",
                    format_list(list),
                    list.len()
                )));
            }
            Threads::These(list) => (list[..count].to_vec(), None),
            Threads::Nowhere => (Vec::new(), None),
            Threads::Auto if parallelism < machine.allowed.len() => (Vec::new(), None),
            Threads::Auto => match place(machine, cores.control.named(), count) {
                Some(proposal) => (proposal.shards, Some(proposal.control)),
                None => (Vec::new(), None),
            },
        };
        let control = match &cores.control {
            Threads::These(list) => list.clone(),
            Threads::Nowhere => Vec::new(),
            Threads::Auto if shards.is_empty() => Vec::new(),
            Threads::Auto => spare.unwrap_or_else(|| free_core(machine, &shards)),
        };
        Ok(Self { shards, control })
    }

    /// Whether each shard's memory is bound to its NUMA node: where shards are pinned and there are several nodes.
    pub(crate) fn binds_memory(&self, machine: &Machine) -> bool {
        !self.shards.is_empty() && machine.nodes().len() > 1
    }

    /// Where the driver shall run each shard; none: anywhere. `steer`: each listener takes what arrives at its thread.
    pub(crate) fn places(&self, machine: &Machine, steer: bool) -> Option<Vec<Place>> {
        let binds = self.binds_memory(machine);
        let place = |&cpu: &usize| {
            let numa_node = if binds { machine.node_of(cpu) } else { None };
            Place { cpu, numa_node, steer }
        };
        (!self.shards.is_empty()).then(|| self.shards.iter().map(place).collect())
    }

    /// The shard on a thread.
    pub(super) fn shard_on(&self, cpu: usize) -> Option<usize> {
        self.shards.iter().position(|&own| own == cpu)
    }
}

/// The first core that no shard uses any thread of.
fn free_core(machine: &Machine, shards: &[usize]) -> Vec<usize> {
    let core =
        usable_cores(machine, &[]).into_iter().find(|core| core.cpus.iter().all(|cpu| !shards.contains(cpu)));
    core.map_or_else(Vec::new, |core| core.cpus)
}

fn check(key: &str, threads: &Threads, machine: &Machine) -> Result<(), Failure> {
    let wrong = |cpu: usize, what: &str, allowed: &[usize]| {
        Err(Failure::usage(format!(
            "{key} = \"{}\": hardware thread {cpu} {what}, allowed: {}",
            format_list(threads.named()),
            format_list(allowed)
        )))
    };
    for &cpu in threads.named() {
        if machine.offline.contains(&cpu) {
            return wrong(cpu, "is offline", &machine.allowed);
        }
        if !machine.is_online(cpu) {
            return wrong(cpu, "does not exist on this machine", &machine.allowed);
        }
        if !machine.allowed.contains(&cpu) {
            return wrong(cpu, "is not open to this process (taskset, cgroup)", &machine.allowed);
        }
    }
    Ok(())
}

/// Moves a thread, and those that it will start, to the control threads. Empty: anywhere.
///
/// # Errors
/// The kernel's; the node works without.
pub(crate) fn pin_control(thread: Pid, control: &[usize]) -> Result<(), nix::Error> {
    if control.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    control.iter().try_for_each(|&cpu| set.set(cpu))?;
    sched_setaffinity(thread, &set)
}

#[cfg(test)]
mod tests {
    use super::super::topology::made::machine;
    use super::*;

    fn resolve(shards: Threads, control: Threads, machine: &Machine, count: u16) -> Result<CoreMap, String> {
        let cores = CoresSettings { shards, control, steer: None };
        CoreMap::resolve(&cores, machine, usize::MAX, count).map_err(|failure| failure.text)
    }

    fn these(list: &[usize]) -> Threads {
        Threads::These(list.to_vec())
    }

    fn map(shards: &[usize], control: &[usize]) -> Result<CoreMap, String> {
        Ok(CoreMap { shards: shards.to_vec(), control: control.to_vec() })
    }

    #[test]
    fn auto_pins_where_there_are_threads_enough() {
        let small = machine(1, 2, 1, 1);
        assert_eq!(resolve(Threads::Auto, Threads::Auto, &small, 2), map(&[0, 1], &[]));
        assert_eq!(resolve(Threads::Auto, Threads::Auto, &small, 3), map(&[], &[]));
        let large = machine(1, 8, 1, 1);
        assert_eq!(resolve(Threads::Auto, Threads::Auto, &large, 2), map(&[1, 2], &[0]));
        assert_eq!(resolve(Threads::Auto, these(&[7]), &large, 2), map(&[0, 1], &[7]));
        assert_eq!(resolve(Threads::Auto, Threads::Nowhere, &large, 2), map(&[1, 2], &[]));
    }

    #[test]
    fn named_threads_are_taken_in_their_order() {
        let large = machine(1, 8, 2, 1);
        assert_eq!(resolve(these(&[5, 4, 9]), Threads::Auto, &large, 2), map(&[5, 4], &[0, 8]));
        assert_eq!(resolve(these(&[5, 0]), Threads::Auto, &large, 2), map(&[5, 0], &[1, 9]));
        assert_eq!(resolve(Threads::Nowhere, these(&[3]), &large, 2), map(&[], &[3]));
    }

    #[test]
    fn what_the_machine_cannot_do_is_named() {
        let mut small = machine(1, 4, 1, 1);
        small.threads.pop();
        small.offline = vec![3];
        small.allowed = vec![0, 1];
        for (shards, control, parts) in [
            (these(&[0, 9]), Threads::Auto, ["cores.shards = \"0,9\"", "thread 9 does not exist"]),
            (these(&[0, 3]), Threads::Auto, ["cores.shards = \"0,3\"", "thread 3 is offline"]),
            (these(&[0, 2]), Threads::Auto, ["thread 2 is not open", "allowed: 0,1"]),
            (these(&[0]), Threads::Auto, ["names 1 hardware threads for 2 shards", "at least one for each"]),
            (these(&[0, 1]), these(&[8]), ["cores.control = \"8\"", "thread 8 does not exist"]),
        ] {
            let text = resolve(shards, control, &small, 2).unwrap_err();
            for part in parts {
                assert!(text.contains(part), "{text:?} without {part:?}");
            }
        }
    }

    #[test]
    fn memory_is_bound_where_there_are_several_nodes() {
        let map = CoreMap { shards: vec![2, 9], control: vec![] };
        let place = |cpu, numa_node| Place { cpu, numa_node, steer: true };
        assert_eq!(map.places(&machine(2, 5, 1, 2), true), Some(vec![place(2, Some(0)), place(9, Some(1))]));
        assert_eq!(map.places(&machine(1, 10, 1, 1), true), Some(vec![place(2, None), place(9, None)]));
        assert_eq!(CoreMap::default().places(&machine(2, 5, 1, 2), true), None);
    }

    #[test]
    fn the_default_is_the_proposal_within_the_quota() {
        let count = |machine: &Machine, parallelism, shards_max| {
            default_shard_count(&CoresSettings::default(), machine, parallelism, shards_max)
        };
        let large = machine(2, 10, 2, 2);
        assert_eq!(count(&large, 40, 1024), 38);
        assert_eq!(count(&large, 4, 1024), 4);
        assert_eq!(count(&large, 40, 16), 16);
        assert_eq!(count(&Machine::default(), 1, 1024), 1);
    }

    #[test]
    fn a_named_control_thread_has_no_shard_by_default() {
        let cores = |control: &[usize]| CoresSettings { control: these(control), ..CoresSettings::default() };
        for (machine, control, shards) in [
            (machine(1, 2, 1, 1), &[0][..], 1),
            (machine(1, 8, 2, 1), &[0, 8], 14),
            (machine(1, 8, 2, 1), &[3], 15),
        ] {
            let count = default_shard_count(&cores(control), &machine, 64, 111);
            assert_eq!(count, shards);
            let map = CoreMap::resolve(&cores(control), &machine, 64, count).unwrap();
            assert_eq!(map.shards.len(), usize::from(shards), "all are pinned: {map:?}");
            assert_eq!(why_unpinned(&cores(control), &machine, 64, count), None);
        }
        let why = why_unpinned(&cores(&[0]), &machine(1, 2, 1, 1), 2, 2).unwrap();
        assert!(why.contains("1 hardware thread for 2 shards beside those of cores.control"), "{why}");
        let why = why_unpinned(&cores(&[]), &machine(1, 4, 1, 1), 4, 5).unwrap();
        assert!(why.contains("4 hardware threads for 5 shards."), "{why}");
        assert_eq!(default_shard_count(&cores(&[0]), &machine(1, 1, 1, 1), 1, 111), 1, "one there always is");
    }

    #[test]
    fn a_quota_pins_nobody_and_says_so() {
        let large = machine(1, 16, 2, 1);
        let auto = CoresSettings::default();
        assert_eq!(CoreMap::resolve(&auto, &large, 4, 4).unwrap(), CoreMap::default());
        let why = why_unpinned(&auto, &large, 4, 4).unwrap();
        assert!(why.contains("32 hardware threads") && why.contains("time for 4 (cgroup quota)"), "{why}");
        // A cpuset is no quota: its threads are this process's own.
        let own = Machine { allowed: vec![4, 5], ..large.clone() };
        assert_eq!(CoreMap::resolve(&auto, &own, 2, 2).unwrap().shards, [4, 5]);
        assert_eq!(why_unpinned(&auto, &own, 2, 2), None);
        let named = CoresSettings { shards: these(&[7]), ..CoresSettings::default() };
        assert_eq!(
            CoreMap::resolve(&named, &large, 1, 1).unwrap().shards,
            [7],
            "who names threads gets them"
        );
        assert_eq!(why_unpinned(&named, &large, 1, 1), None);
    }

    #[test]
    fn the_control_thread_goes_where_it_is_told() {
        let here = super::super::here();
        let one = here.allowed[here.allowed.len() - 1];
        std::thread::spawn(move || {
            pin_control(Pid::from_raw(0), &[one]).unwrap();
            assert_eq!(super::super::here().allowed, [one]);
            pin_control(Pid::from_raw(0), &[]).unwrap();
            assert_eq!(super::super::here().allowed, [one]);
        })
        .join()
        .unwrap();
    }
}
