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

/// Shards of a new data directory where nobody says a number: one for each thread that the proposal uses, but not more
/// than `parallelism` (what a container's quota of processor time is worth).
pub(crate) fn default_shard_count(machine: &Machine, parallelism: usize, shards_max: u16) -> u16 {
    let count = propose(machine, usize::from(shards_max)).shards.len().min(parallelism).max(1);
    u16::try_from(count).unwrap_or(shards_max)
}

impl CoreMap {
    /// The map for `shard_count` shards. Where `auto` finds fewer threads than shards nobody is pinned: two shards on
    /// one hardware thread are better off where the kernel can move them.
    ///
    /// # Errors
    /// Threads that this machine does not have, that are offline, or that this process may not use; fewer than shards.
    pub(crate) fn resolve(
        cores: &CoresSettings,
        machine: &Machine,
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

/// Moves the calling thread, and those that it will start, to the control threads. Empty: anywhere.
///
/// # Errors
/// The kernel's; the node works without.
pub(crate) fn pin_control(control: &[usize]) -> Result<(), nix::Error> {
    if control.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    control.iter().try_for_each(|&cpu| set.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

#[cfg(test)]
mod tests {
    use super::super::topology::made::machine;
    use super::*;

    fn resolve(shards: Threads, control: Threads, machine: &Machine, count: u16) -> Result<CoreMap, String> {
        let cores = CoresSettings { shards, control, steer: None };
        CoreMap::resolve(&cores, machine, count).map_err(|failure| failure.text)
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
        let large = machine(2, 10, 2, 2);
        assert_eq!(default_shard_count(&large, 40, 1024), 38);
        assert_eq!(default_shard_count(&large, 4, 1024), 4);
        assert_eq!(default_shard_count(&large, 40, 16), 16);
        assert_eq!(default_shard_count(&Machine::default(), 1, 1024), 1);
    }

    #[test]
    fn the_control_thread_goes_where_it_is_told() {
        let here = super::super::here();
        let one = here.allowed[here.allowed.len() - 1];
        std::thread::spawn(move || {
            pin_control(&[one]).unwrap();
            assert_eq!(super::super::here().allowed, [one]);
            pin_control(&[]).unwrap();
            assert_eq!(super::super::here().allowed, [one]);
        })
        .join()
        .unwrap();
    }
}
