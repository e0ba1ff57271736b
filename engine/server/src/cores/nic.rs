//! Network interfaces: their receive queues, and which hardware threads take their packets.

use super::list::{parse_list, parse_mask};
use super::sysfs::{list, names, number};
use super::topology::{Nic, Queue};
use std::fs;
use std::path::Path;

/// The interfaces in `class/net` that have a device: the others (loopback, bridges) have no interrupts of their own.
pub(super) fn read(net: &Path, irq: &Path) -> Vec<Nic> {
    let mut all = names(net);
    all.sort_unstable();
    let with_device = all.into_iter().filter(|name| net.join(name).join("device").exists());
    with_device.map(|name| read_nic(net, irq, name)).collect()
}

fn read_nic(net: &Path, irq: &Path, name: String) -> Nic {
    let directory = net.join(&name);
    let interrupts = interrupts_of(&directory, irq);
    let mut queues: Vec<Queue> = names(&directory.join("queues"))
        .iter()
        .filter_map(|queue| {
            let number = queue.strip_prefix("rx-")?.parse().ok()?;
            let mask = fs::read_to_string(directory.join("queues").join(queue).join("rps_cpus"));
            let interrupt = interrupts.iter().find(|interrupt| interrupt.queue == number);
            Some(Queue {
                number,
                interrupt: interrupt.map(|interrupt| interrupt.number),
                interrupt_on: interrupt.map_or_else(Vec::new, |interrupt| interrupt.on.clone()),
                spread_over: mask.ok().and_then(|mask| parse_mask(&mask)).unwrap_or_default(),
            })
        })
        .collect();
    queues.sort_unstable_by_key(|queue| queue.number);
    Nic { node: number_of_node(&directory), name, queues }
}

fn number_of_node(directory: &Path) -> Option<usize> {
    // -1 where the bus belongs to none.
    ["device/numa_node", "device/../numa_node"].iter().find_map(|path| number(&directory.join(path)))
}

/// An interrupt that announces packets of a receive queue.
struct Interrupt {
    number: usize,
    queue: usize,
    on: Vec<usize>,
}

/// The interrupts of an interface's device; a virtio device has them at its parent.
fn interrupts_of(directory: &Path, irq: &Path) -> Vec<Interrupt> {
    let places = ["device/msi_irqs", "device/../msi_irqs"];
    let numbers = places.iter().map(|place| names(&directory.join(place))).find(|list| !list.is_empty());
    let mut found: Vec<Interrupt> = numbers
        .unwrap_or_default()
        .iter()
        .filter_map(|name| {
            let number = name.parse().ok()?;
            let place = irq.join(name);
            // The driver's name for it is the name of a directory.
            let queue = names(&place).iter().find_map(|action| receive_queue(action))?;
            Some(Interrupt { number, queue, on: affinity(&place) })
        })
        .collect();
    found.sort_unstable_by_key(|interrupt| interrupt.number);
    found
}

/// Where an interrupt really goes, else where it may go.
fn affinity(place: &Path) -> Vec<usize> {
    let effective = list(&place.join("effective_affinity_list")).filter(|list| !list.is_empty());
    effective
        .or_else(|| parse_list(&fs::read_to_string(place.join("smp_affinity_list")).ok()?))
        .unwrap_or_default()
}

/// The receive queue in a driver's name of an interrupt: `eth0-TxRx-3` (Intel, Broadcom), `ens5-Tx-Rx-3` (Amazon),
/// `mlx5_comp3@pci:0000:3b:00.0`, `virtio2-input.3`, `eth0-rx-3`. None for transmission, configuration and others.
fn receive_queue(action: &str) -> Option<usize> {
    let name = action.split('@').next()?;
    let start = name.rfind(|letter: char| !letter.is_ascii_digit())? + 1;
    let (words, digits) = name.split_at(start);
    let words = words.trim_end_matches(['-', '.', '_']).to_ascii_lowercase();
    let receives = ["rx", "input", "comp"].iter().any(|end| words.ends_with(end));
    if receives { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_name_their_queues() {
        for (action, queue) in [
            ("eth0-TxRx-3", Some(3)),
            ("i40e-ens1f0-TxRx-12", Some(12)),
            ("ens5-Tx-Rx-7", Some(7)),
            ("mlx5_comp63@pci:0000:3b:00.0", Some(63)),
            ("virtio2-input.0", Some(0)),
            ("eth0-rx-2", Some(2)),
            ("virtio2-output.0", None),
            ("virtio2-config", None),
            ("virtio3-rx", None),
            ("eth0-tx-2", None),
            ("eth0", None),
            ("mlx5_async0@pci:0000:3b:00.0", None),
            ("", None),
        ] {
            assert_eq!(receive_queue(action), queue, "{action}");
        }
    }
}
