//! `tern cores` as a text and as JSON.

use super::list::format_list;
use super::map::{CoreMap, counted};
use super::proposal::Proposal;
use super::topology::Machine;
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that `tern cores` tells.
#[derive(Debug, Serialize)]
pub(super) struct Report<'m> {
    pub(super) machine: &'m Machine,
    /// Shards that a node with this configuration has.
    pub(super) shard_count: usize,
    /// The map that it uses.
    pub(super) map: &'m CoreMap,
    /// Whether each shard's memory is bound to its NUMA node.
    pub(super) memory_by_node: bool,
    /// Whether listeners take what arrives at their shard's thread.
    pub(super) steered: bool,
    /// The map that this machine could have.
    pub(super) proposal: CoreMap,
    /// The same as a piece of the configuration file.
    pub(super) proposal_toml: String,
    pub(super) hints: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// A proposal as `[cores]`, with a line for the cores of each NUMA node.
pub(super) fn to_toml(proposal: &Proposal, machine: &Machine) -> String {
    let mut lines: Vec<Vec<usize>> = Vec::new();
    for &cpu in &proposal.shards {
        match lines.last_mut() {
            Some(line) if machine.node_of(line[0]) == machine.node_of(cpu) => line.push(cpu),
            _ => lines.push(vec![cpu]),
        }
    }
    let shards = match lines.as_slice() {
        [line] => format!("\"{}\"", format_list(line)),
        lines => {
            let lines: Vec<String> = lines.iter().map(|line| format!("  {},\n", format_list(line))).collect();
            format!("\"\"\"\n{}\"\"\"", lines.concat())
        }
    };
    let control = match proposal.control.as_slice() {
        [] => "none".into(),
        list => format_list(list),
    };
    format!("[cores]\nshards = {shards}\ncontrol = \"{control}\"\n")
}

impl Report<'_> {
    /// For people: 80 columns where the machine allows it.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes everything");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let machine = self.machine;
        let (sockets, cores) = (machine.package_count(), machine.cores().len());
        let (threads, nodes) = (machine.threads.len(), machine.nodes().len());
        writeln!(
            text,
            "{}, {}, {}, {}",
            counted(sockets, "socket"),
            counted(cores, "core"),
            counted(threads, "hardware thread"),
            counted(nodes, "NUMA node")
        )?;
        if !machine.offline.is_empty() {
            writeln!(text, "offline: {}", format_list(&machine.offline))?;
        }
        if machine.allowed.len() < threads {
            writeln!(text, "open to this process: {}", format_list(&machine.allowed))?;
        }
        self.write_cores(text)?;
        self.write_queues(text)?;
        self.write_map(text)?;
        writeln!(text, "\nproposal for this machine\n\n{}", self.proposal_toml)?;
        if !self.hints.is_empty() {
            writeln!(
                text,
                "to bring packets to the map in force (as root; lost at a restart; stop irqbalance)\n"
            )?;
            self.hints.iter().try_for_each(|hint| writeln!(text, "{hint}"))?;
            writeln!(text)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(text, "warning: {warning}"))
    }

    fn write_cores(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{:>6} {:>5} {:>5}  {:<14} runs", "socket", "node", "core", "threads")?;
        for core in self.machine.cores() {
            let node = core.node.map_or_else(|| "-".into(), |node| node.to_string());
            let threads = format_list(&core.cpus);
            let runs: Vec<String> = core.cpus.iter().map(|&cpu| self.runs(cpu)).collect();
            let (package, core_id) = (core.package, core.core_id);
            let line = format!("{package:>6} {node:>5} {core_id:>5}  {threads:<14} {}", runs.join(", "));
            writeln!(text, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn runs(&self, cpu: usize) -> String {
        match self.map.shard_on(cpu) {
            Some(shard) => format!("shard {shard}"),
            None if self.map.control.contains(&cpu) => "control".into(),
            None => "-".into(),
        }
    }

    fn write_queues(&self, text: &mut String) -> std::fmt::Result {
        if self.machine.nics.is_empty() {
            return writeln!(text, "\nno network interface with a device");
        }
        writeln!(
            text,
            "\n{:<14} {:>5}  {:<9} {:<16} spread over",
            "receive queue", "node", "interrupt", "on threads"
        )?;
        for nic in &self.machine.nics {
            let node = nic.node.map_or_else(|| "-".into(), |node| node.to_string());
            for queue in &nic.queues {
                let name = format!("{} rx-{}", nic.name, queue.number);
                let interrupt = queue.interrupt.map_or_else(|| "unknown".into(), |number| number.to_string());
                let on = format_list(&queue.interrupt_on);
                let spread = format_list(&queue.spread_over);
                let line = format!("{name:<14} {node:>5}  {interrupt:<9} {on:<16} {spread}");
                writeln!(text, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }

    fn write_map(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\nmap in force: {}", counted(self.shard_count, "shard"))?;
        if self.map.shards.is_empty() {
            writeln!(text, "  shards      not pinned")?;
        } else {
            writeln!(text, "  shards      {}", format_list(&self.map.shards))?;
        }
        let control =
            if self.map.control.is_empty() { "not pinned".into() } else { format_list(&self.map.control) };
        writeln!(text, "  control     {control}")?;
        let memory = if self.memory_by_node {
            "of each shard on its NUMA node"
        } else {
            "wherever the kernel takes it"
        };
        writeln!(text, "  memory      {memory}")?;
        let listeners = if self.steered {
            "each takes what arrives at its shard's thread"
        } else {
            "connections are spread over shards by hash"
        };
        writeln!(text, "  listeners   {listeners}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::proposal::propose;
    use super::super::topology::made::machine;
    use super::*;

    #[test]
    fn a_proposal_has_a_line_for_each_node() {
        let two = machine(2, 5, 2, 2);
        assert_eq!(
            to_toml(&propose(&two, 4096), &two),
            "[cores]\nshards = \"\"\"\n  1,11,2,12,3,13,4,14,\n  5,15,6,16,7,17,8,18,9,19,\n\"\"\"\ncontrol = \"0,10\"\n"
        );
        let one = machine(1, 4, 1, 1);
        assert_eq!(to_toml(&propose(&one, 4096), &one), "[cores]\nshards = \"0-3\"\ncontrol = \"none\"\n");
    }
}
