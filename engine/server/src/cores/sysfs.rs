//! Reads a machine from `/sys` and `/proc`, or from a recorded copy of them.

use super::list::parse_list;
use super::nic;
use super::topology::{Machine, Thread};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// This machine. Where `/sys` tells nothing (some containers hide it), the threads that this process may use are all
/// that is known.
pub(crate) fn here() -> Machine {
    let allowed = allowed();
    match read(Path::new("/sys")) {
        Some(mut machine) => {
            machine.allowed = machine.online().into_iter().filter(|cpu| allowed.contains(cpu)).collect();
            machine
        }
        None => Machine::unknown(allowed),
    }
}

/// Another machine, from a copy of its `/sys`; its `/proc/irq` may lie beside it, as `../proc/irq`. None: there is no
/// list of processors in it.
pub(crate) fn recorded(sys: &Path) -> Option<Machine> {
    let mut machine = read(sys)?;
    machine.allowed = machine.online();
    Some(machine)
}

/// The hardware threads that this process may use, ascending; empty where the kernel won't say.
fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

fn read(sys: &Path) -> Option<Machine> {
    let cpus = sys.join("devices/system/cpu");
    let online = list(&cpus.join("online")).filter(|online| !online.is_empty())?;
    let present = list(&cpus.join("present")).unwrap_or_default();
    let nodes = read_nodes(&sys.join("devices/system/node"));
    let node_of = |cpu: usize| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map(|(node, _)| *node);
    let threads = online.iter().map(|&cpu| read_thread(&cpus, cpu, &online, node_of(cpu))).collect();
    Some(Machine {
        threads,
        offline: present.into_iter().filter(|cpu| !online.contains(cpu)).collect(),
        allowed: Vec::new(),
        nics: nic::read(&sys.join("class/net"), &sys.join("../proc/irq")),
    })
}

/// What is not said counts as: one socket, a core for each thread.
fn read_thread(cpus: &Path, cpu: usize, online: &[usize], node: Option<usize>) -> Thread {
    let topology = cpus.join(format!("cpu{cpu}/topology"));
    // Kernels before 5.3 know the older name only.
    let siblings =
        list(&topology.join("core_cpus_list")).or_else(|| list(&topology.join("thread_siblings_list")));
    let mut siblings = siblings.unwrap_or_default();
    siblings.retain(|sibling| online.contains(sibling));
    if !siblings.contains(&cpu) {
        siblings.push(cpu);
    }
    siblings.sort_unstable();
    Thread {
        cpu,
        // Some virtual machines say -1.
        package: number(&topology.join("physical_package_id")).unwrap_or(0),
        core_id: number(&topology.join("core_id")).unwrap_or(cpu),
        siblings,
        node,
    }
}

fn read_nodes(directory: &Path) -> Vec<(usize, Vec<usize>)> {
    let mut nodes: Vec<(usize, Vec<usize>)> = names(directory)
        .iter()
        .filter_map(|name| {
            let node = name.strip_prefix("node")?.parse().ok()?;
            Some((node, list(&directory.join(name).join("cpulist"))?))
        })
        .collect();
    nodes.sort_unstable();
    nodes
}

/// The names in a directory; none where it is not there.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A file with a list of numbers.
pub(super) fn list(path: &Path) -> Option<Vec<usize>> {
    parse_list(&fs::read_to_string(path).ok()?)
}

/// A file with one number.
pub(super) fn number(path: &Path) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_threads_that_may_be_used() {
        let machine = here();
        assert!(!machine.allowed.is_empty());
        assert!(machine.allowed.iter().all(|&cpu| machine.is_online(cpu)));
    }

    #[test]
    fn a_bare_list_of_processors_is_enough() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(recorded(place.path()), None);
        let cpus = place.path().join("devices/system/cpu");
        fs::create_dir_all(&cpus).unwrap();
        fs::write(cpus.join("online"), "0,2\n").unwrap();
        fs::write(cpus.join("present"), "0-3\n").unwrap();
        let machine = recorded(place.path()).unwrap();
        assert_eq!((machine.allowed.clone(), machine.offline.clone()), (vec![0, 2], vec![1, 3]));
        assert_eq!(machine.cores().len(), 2);
        assert!(machine.nodes().is_empty() && machine.nics.is_empty());
    }
}
