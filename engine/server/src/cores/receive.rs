//! Where packets arrive, and how to bring them to the shards.
//!
//! The kernel works on a received packet on the hardware thread that its queue interrupts, or on those that receive
//! packet steering (RPS) names. Two layouts make sense:
//! - a queue for each shard, its interrupt on the shard's thread: a connection's packets, its shard's listener and its
//!   accept are then on one thread;
//! - fewer queues: interrupts on the control threads (where the map has them), and RPS over all threads of shards.
//!
//! Anything between makes some shards carry the network's work for the others. Listeners are steered (a connection goes
//! to the shard on whose thread it arrives) only where packets arrive at every shard's thread: else some shards would
//! accept everything.

use super::list::{format_list, format_mask};
use super::map::CoreMap;
use super::topology::{Machine, Nic, Queue};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Whether listeners shall take the connections that arrive at their shard's thread: what is configured, else where
/// the packets of all interfaces together reach the thread of every shard. Loopback has no queues: it is never steered
/// unless that is configured.
pub(crate) fn steers(configured: Option<bool>, map: &CoreMap, machine: &Machine, phone: SocketAddr) -> bool {
    if map.shards.is_empty() {
        return false;
    }
    configured.unwrap_or_else(|| {
        let queues = || machine.nics.iter().flat_map(|nic| &nic.queues);
        let reached = |cpu: &usize| queues().any(|queue| works_on(queue).contains(cpu));
        !phone.ip().is_loopback() && map.shards.iter().all(reached)
    })
}

/// The threads that work on a queue's packets.
fn works_on(queue: &Queue) -> &[usize] {
    if queue.spread_over.is_empty() { &queue.interrupt_on } else { &queue.spread_over }
}

/// Commands that bring the machine to the layout that suits the map, and those that are in force already left out.
pub(super) fn hints(map: &CoreMap, machine: &Machine) -> Vec<String> {
    if map.shards.is_empty() {
        return Vec::new();
    }
    machine.nics.iter().filter(|nic| !nic.queues.is_empty()).flat_map(|nic| hints_of(nic, map)).collect()
}

fn hints_of(nic: &Nic, map: &CoreMap) -> Vec<String> {
    let one_each = nic.queues.len() >= map.shards.len();
    // Threads that take the interrupts.
    let takers = if one_each || map.control.is_empty() { &map.shards } else { &map.control };
    let mut spread = if one_each { Vec::new() } else { map.shards.clone() };
    spread.sort_unstable();
    let mut commands = Vec::new();
    for (queue, taker) in nic.queues.iter().zip(deal(&nic.queues, takers)) {
        if let Some(interrupt) = queue.interrupt
            && queue.interrupt_on != [taker]
        {
            commands.push(format!("echo {taker} > /proc/irq/{interrupt}/smp_affinity_list"));
        }
        if queue.spread_over != spread {
            let mask = format_mask(&spread);
            commands.push(format!(
                "echo {mask} > /sys/class/net/{}/queues/rx-{}/rps_cpus",
                nic.name, queue.number
            ));
        }
    }
    commands
}

/// A thread for each queue so that every taker has one before any has two; a queue that fits stays where it is.
fn deal(queues: &[Queue], takers: &[usize]) -> Vec<usize> {
    let mut free: VecDeque<usize> = takers.iter().copied().collect();
    let stays = |queue: &Queue| match queue.interrupt_on.as_slice() {
        [cpu] if takers.contains(cpu) => Some(*cpu),
        _ => None,
    };
    let mut dealt: Vec<Option<usize>> = Vec::new();
    for queue in queues {
        let at = stays(queue).and_then(|cpu| free.iter().position(|other| *other == cpu));
        dealt.push(at.and_then(|at| free.remove(at)));
    }
    let mut turn = takers.iter().copied().cycle();
    let rest = queues.iter().zip(dealt);
    rest.filter_map(|(queue, taker)| {
        taker.or_else(|| free.pop_front()).or_else(|| stays(queue)).or_else(|| turn.next())
    })
    .collect()
}

/// What an operator should know about the map on this machine.
pub(super) fn warnings(map: &CoreMap, machine: &Machine) -> Vec<String> {
    let mut warnings = Vec::new();
    let core_of = |cpu: usize| machine.threads.iter().find(|thread| thread.cpu == cpu);
    let shared: Vec<usize> = map
        .control
        .iter()
        .copied()
        .filter(|&cpu| {
            core_of(cpu)
                .is_some_and(|thread| thread.siblings.iter().any(|&other| map.shard_on(other).is_some()))
        })
        .collect();
    if !shared.is_empty() {
        let list = format_list(&shared);
        warnings
            .push(format!("control threads {list} share a core with shards: their work slows those shards"));
    }
    warnings.extend(machine.nics.iter().filter_map(|nic| warning_of(nic, map)));
    warnings
}

fn warning_of(nic: &Nic, map: &CoreMap) -> Option<String> {
    let hit: Vec<usize> = map
        .shards
        .iter()
        .copied()
        .filter(|cpu| nic.queues.iter().any(|queue| works_on(queue).contains(cpu)))
        .collect();
    if hit.is_empty() || hit.len() == map.shards.len() {
        return None;
    }
    Some(format!(
        "packets of {} (receive queues: {}) arrive at {} of {} shards, on hardware threads {}: these shards work for \
         the others",
        nic.name,
        nic.queues.len(),
        hit.len(),
        map.shards.len(),
        format_list(&hit)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::topology::made::{machine, nic};
    use super::*;

    fn map() -> CoreMap {
        CoreMap { shards: vec![1, 2, 3], control: vec![0] }
    }

    fn with(on: &[usize]) -> Machine {
        Machine { nics: vec![nic(on)], ..machine(1, 4, 1, 1) }
    }

    const PHONE: &str = "0.0.0.0:7322";

    fn steered(configured: Option<bool>, on: &[usize], phone: &str) -> bool {
        steers(configured, &map(), &with(on), phone.parse().unwrap())
    }

    #[test]
    fn listeners_are_steered_only_where_packets_reach_every_shard() {
        assert!(steered(None, &[1, 2, 3], PHONE));
        assert!(!steered(None, &[0, 1, 2], PHONE), "shard 2 would accept nothing");
        assert!(!steered(None, &[1, 2, 3], "127.0.0.1:7322"));
        assert!(steered(Some(true), &[0], "127.0.0.1:7322"));
        assert!(!steered(Some(false), &[1, 2, 3], PHONE));
        let nobody = CoreMap::default();
        assert!(
            !steers(Some(true), &nobody, &with(&[1]), PHONE.parse().unwrap()),
            "there is no map to follow"
        );
        let mut spread = with(&[0]);
        spread.nics[0].queues[0].spread_over = vec![1, 2, 3];
        assert!(steers(None, &map(), &spread, PHONE.parse().unwrap()));
    }

    #[test]
    fn a_queue_for_each_shard_goes_to_its_thread() {
        assert_eq!(hints(&map(), &with(&[1, 2, 3])), [] as [&str; 0]);
        assert_eq!(hints(&map(), &with(&[1, 3, 3])), ["echo 2 > /proc/irq/102/smp_affinity_list"]);
        assert_eq!(hints(&map(), &with(&[3, 1, 2])), [] as [&str; 0], "any order will do");
        assert_eq!(hints(&map(), &with(&[1, 2, 3, 3])), [] as [&str; 0]);
        // More queues than shards: they take turns.
        assert_eq!(hints(&map(), &with(&[1, 2, 3, 0])), ["echo 1 > /proc/irq/103/smp_affinity_list"]);
    }

    #[test]
    fn few_queues_go_to_the_control_thread_and_are_spread() {
        assert_eq!(
            hints(&map(), &with(&[2])),
            ["echo 0 > /proc/irq/100/smp_affinity_list", "echo e > /sys/class/net/eth0/queues/rx-0/rps_cpus"]
        );
        let mut done = with(&[0]);
        done.nics[0].queues[0].spread_over = vec![1, 2, 3];
        assert_eq!(hints(&map(), &done), [] as [&str; 0]);
        let without = CoreMap { control: vec![], ..map() };
        assert_eq!(hints(&without, &done), ["echo 1 > /proc/irq/100/smp_affinity_list"]);
    }

    #[test]
    fn uneven_layouts_are_warned_of() {
        let told = |map: &CoreMap, machine: &Machine| warnings(map, machine).join("; ");
        assert_eq!(told(&map(), &with(&[1, 2, 3])), "");
        assert_eq!(told(&map(), &with(&[0])), "");
        assert!(told(&map(), &with(&[1, 0])).contains("arrive at 1 of 3 shards, on hardware threads 1"));
        assert_eq!(told(&CoreMap::default(), &with(&[0])), "");
        let siblings = CoreMap { shards: vec![0], control: vec![4] };
        assert!(told(&siblings, &machine(1, 4, 2, 1)).contains("control threads 4 share a core"));
    }
}
