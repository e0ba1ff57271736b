//! Machines that were described, not captured: from a few lines after their data sheets and their drivers' habits, writes
//! the part of `/sys` and `/proc` that `tern cores` reads.
//!
//! ```text
//! socket S node N cores IDS threads FIRST [SECOND]    IDS, FIRST, SECOND: lists such as 0-4,8-12, one entry a core
//! offline LIST
//! nic NAME [node N] queues COUNT interrupts FIRST name TEXT on LIST    % in TEXT: the queue; LIST is taken in turn
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a machine below `place`; gives its `/sys`.
pub(crate) fn write(description: &str, place: &Path) -> PathBuf {
    let root = Root { sys: place.join("sys"), proc: place.join("proc") };
    let lines = || description.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let offline = lines().find_map(|line| line.strip_prefix("offline ")).map(list).unwrap_or_default();
    let mut nodes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for line in lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "socket" => {
                let cpus = root.write_cores(&words, &offline);
                nodes.entry(field(&words, "node").parse().unwrap()).or_default().extend(cpus);
            }
            "nic" => root.write_nic(&words),
            "offline" => {}
            other => panic!("{other}: not known"),
        }
    }
    let present: Vec<usize> = nodes.values().flatten().copied().collect();
    let online: Vec<usize> = present.iter().copied().filter(|cpu| !offline.contains(cpu)).collect();
    root.sys("devices/system/cpu/present", &join(&present));
    root.sys("devices/system/cpu/online", &join(&online));
    for (node, mut cpus) in nodes {
        cpus.retain(|cpu| !offline.contains(cpu));
        root.sys(&format!("devices/system/node/node{node}/cpulist"), &join(&cpus));
    }
    root.sys
}

struct Root {
    sys: PathBuf,
    proc: PathBuf,
}

impl Root {
    fn sys(&self, path: &str, text: &str) {
        put(&self.sys.join(path), text);
    }

    /// Gives the threads.
    fn write_cores(&self, words: &[&str], offline: &[usize]) -> Vec<usize> {
        let at = words.iter().position(|word| *word == "threads").unwrap();
        let threads: Vec<Vec<usize>> = words[at + 1..].iter().copied().map(list).collect();
        for (index, core) in list(field(words, "cores")).into_iter().enumerate() {
            let siblings: Vec<usize> =
                threads.iter().map(|list| list[index]).filter(|cpu| !offline.contains(cpu)).collect();
            for cpu in &siblings {
                let topology = format!("devices/system/cpu/cpu{cpu}/topology");
                self.sys(&format!("{topology}/physical_package_id"), field(words, "socket"));
                self.sys(&format!("{topology}/core_id"), &core.to_string());
                self.sys(&format!("{topology}/core_cpus_list"), &join(&siblings));
            }
        }
        threads.concat()
    }

    fn write_nic(&self, words: &[&str]) {
        let net = format!("class/net/{}", words[1]);
        let node = words.iter().position(|word| *word == "node").map_or("-1", |at| words[at + 1]);
        self.sys(&format!("{net}/device/numa_node"), node);
        let first: usize = field(words, "interrupts").parse().unwrap();
        let on = list(field(words, "on"));
        for queue in 0..field(words, "queues").parse().unwrap() {
            let interrupt = first + queue;
            self.sys(&format!("{net}/queues/rx-{queue}/rps_cpus"), "00000000,00000000");
            self.sys(&format!("{net}/queues/tx-{queue}/xps_cpus"), "0");
            self.sys(&format!("{net}/device/msi_irqs/{interrupt}"), "msix");
            let directory = self.proc.join(format!("irq/{interrupt}"));
            put(&directory.join("effective_affinity_list"), &on[queue % on.len()].to_string());
            let action = field(words, "name").replace('%', &queue.to_string());
            fs::create_dir_all(directory.join(action)).unwrap();
        }
    }
}

fn field<'w>(words: &[&'w str], name: &str) -> &'w str {
    let at = words.iter().position(|word| *word == name).unwrap_or_else(|| panic!("no {name} in {words:?}"));
    words[at + 1]
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn list(text: &str) -> Vec<usize> {
    let parts = text.split(',').map(|part| part.split_once('-').unwrap_or((part, part)));
    parts.flat_map(|(first, last)| first.parse().unwrap()..=last.parse::<usize>().unwrap()).collect()
}

fn join(list: &[usize]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
