//! The machine as plain data.

use serde::Serialize;

/// What was found out about the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// Hardware threads that are online, ascending.
    pub(crate) threads: Vec<Thread>,
    /// Hardware threads that exist and are offline.
    pub(crate) offline: Vec<usize>,
    /// Hardware threads that this process may use (`taskset`, cgroups), ascending. For a recorded machine: all online.
    pub(crate) allowed: Vec<usize>,
    /// Network interfaces with hardware behind them.
    pub(crate) nics: Vec<Nic>,
}

/// One hardware thread.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Thread {
    /// The kernel's number.
    pub(crate) cpu: usize,
    /// The socket.
    pub(crate) package: usize,
    /// The core's number inside its socket, as the hardware gives it: may have gaps.
    pub(crate) core_id: usize,
    /// The threads of the same core, this one among them, ascending.
    pub(crate) siblings: Vec<usize>,
    /// The NUMA node; none where the kernel knows no nodes.
    pub(crate) node: Option<usize>,
}

/// A core: the hardware threads that share one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Core {
    pub(crate) package: usize,
    pub(crate) core_id: usize,
    pub(crate) node: Option<usize>,
    /// Ascending.
    pub(crate) cpus: Vec<usize>,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Nic {
    /// As in `/sys/class/net`.
    pub(crate) name: String,
    /// The NUMA node that its bus belongs to, where the kernel says.
    pub(crate) node: Option<usize>,
    /// Receive queues, ascending.
    pub(crate) queues: Vec<Queue>,
}

/// A receive queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Queue {
    /// Its number in the interface.
    pub(crate) number: usize,
    /// Its interrupt, where it could be told from the interrupt's name.
    pub(crate) interrupt: Option<usize>,
    /// The hardware threads that take the interrupt; empty where unknown.
    pub(crate) interrupt_on: Vec<usize>,
    /// The hardware threads that the kernel spreads its packets over (receive packet steering); empty: not at all.
    pub(crate) spread_over: Vec<usize>,
}

impl Machine {
    /// A machine of which nothing is known but the threads that may be used: each counts as a core.
    pub(super) fn unknown(allowed: Vec<usize>) -> Self {
        let thread = |&cpu: &usize| Thread { cpu, package: 0, core_id: cpu, siblings: vec![cpu], node: None };
        Self { threads: allowed.iter().map(thread).collect(), allowed, ..Self::default() }
    }

    /// The cores, in an order in which neighbours are near each other: by NUMA node, socket, lowest thread.
    pub(super) fn cores(&self) -> Vec<Core> {
        let mut cores: Vec<Core> = Vec::new();
        for thread in &self.threads {
            match cores.iter_mut().find(|core| thread.siblings.contains(&core.cpus[0])) {
                Some(core) => core.cpus.push(thread.cpu),
                None => cores.push(Core {
                    package: thread.package,
                    core_id: thread.core_id,
                    node: thread.node,
                    cpus: vec![thread.cpu],
                }),
            }
        }
        cores.sort_by_key(|core| (core.node, core.package, core.cpus[0]));
        cores
    }

    /// The node of a thread.
    pub(crate) fn node_of(&self, cpu: usize) -> Option<usize> {
        self.threads.iter().find(|thread| thread.cpu == cpu)?.node
    }

    /// NUMA nodes that have hardware threads, ascending.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.threads.iter().filter_map(|thread| thread.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Number of sockets.
    pub(super) fn package_count(&self) -> usize {
        let mut packages: Vec<usize> = self.threads.iter().map(|thread| thread.package).collect();
        packages.sort_unstable();
        packages.dedup();
        packages.len()
    }

    /// Whether a thread is online.
    pub(super) fn is_online(&self, cpu: usize) -> bool {
        self.threads.iter().any(|thread| thread.cpu == cpu)
    }

    /// Online threads, ascending.
    pub(super) fn online(&self) -> Vec<usize> {
        self.threads.iter().map(|thread| thread.cpu).collect()
    }
}

/// Machines for tests.
#[cfg(test)]
pub(crate) mod made {
    use super::*;

    /// Cores are numbered through over sockets, then second threads follow: Linux's usual order. Nodes share the cores
    /// evenly.
    pub(crate) fn machine(sockets: usize, cores: usize, threads: usize, nodes: usize) -> Machine {
        let core_count = sockets * cores;
        let all: Vec<Thread> = (0..core_count * threads)
            .map(|cpu| {
                let core = cpu % core_count;
                Thread {
                    cpu,
                    package: core / cores,
                    core_id: core % cores,
                    siblings: (0..threads).map(|thread| core + thread * core_count).collect(),
                    node: Some(core * nodes / core_count),
                }
            })
            .collect();
        Machine { allowed: (0..all.len()).collect(), threads: all, ..Machine::default() }
    }

    /// An interface whose queue i interrupts thread `on[i]`.
    pub(in super::super) fn nic(on: &[usize]) -> Nic {
        let queue = |(number, &cpu): (usize, &usize)| Queue {
            number,
            interrupt: Some(100 + number),
            interrupt_on: vec![cpu],
            spread_over: Vec::new(),
        };
        Nic { name: "eth0".into(), node: None, queues: on.iter().enumerate().map(queue).collect() }
    }

    #[test]
    fn of_an_unknown_machine_each_thread_is_a_core() {
        let machine = Machine::unknown(vec![0, 5]);
        assert_eq!((machine.cores().len(), machine.online()), (2, vec![0, 5]));
        assert!(machine.nodes().is_empty() && machine.nics.is_empty());
    }

    #[test]
    fn cores_are_near_their_neighbours() {
        let cores = machine(2, 2, 2, 2).cores();
        let cpus: Vec<&[usize]> = cores.iter().map(|core| &core.cpus[..]).collect();
        assert_eq!(cpus, [&[0, 4][..], &[1, 5], &[2, 6], &[3, 7]]);
        assert_eq!(cores[2].node, Some(1));
    }
}
