//! `tern cores` on a captured machine and on described ones, and the core maps of `deploy/core-maps`.

mod captured;
mod described;
mod threads;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LARGE: &str = include_str!("machines/2x10-core-40-thread.txt");
const EPYC: &str = include_str!("machines/epyc-64-core-nps4.txt");
const CAPTURED: &str = include_str!("machines/virtio-vm-captured.txt");
/// Recordings of machines with many threads. None has a box of 2 x 10 cores.
const TWO_EPYCS: &str = include_str!("machines/2x-epyc-7451-captured.txt");
const FOUR_XEONS: &str = include_str!("machines/4x-xeon-x7550-captured.txt");
const WITH_CARDS: &str = include_str!("machines/2x-xeon-with-cards-captured.txt");
const SMALL: &str = include_str!("machines/small-vm.txt");
const DEPLOYING: &str = include_str!("../../../../deploy/README.md");

fn tern(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tern")).args(args).output().unwrap()
}

fn text_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What `tern cores` says of a described machine.
fn report(machine: &str, more: &[&str]) -> Value {
    let place = tempfile::tempdir().unwrap();
    report_of(&described::write(machine, place.path()), more)
}

fn report_of(sys: &Path, more: &[&str]) -> Value {
    let args = [&["cores", "--json", "--sysfs", sys.to_str().unwrap()], more].concat();
    serde_json::from_str(&text_of(&tern(&args))).unwrap()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/core-maps").join(name)
}

#[test]
fn the_box_of_the_plan_has_38_shards_and_a_core_for_the_rest() {
    let report = report(LARGE, &[]);
    let proposal = &report["proposal"];
    assert_eq!(numbers(&proposal["control"]), [0, 20]);
    let shards = numbers(&proposal["shards"]);
    assert_eq!(shards.len(), 38);
    assert!(shards.chunks(2).all(|pair| pair[1] == pair[0] + 20), "neighbours share a core: {shards:?}");
    let second_node: Vec<bool> = shards.iter().map(|cpu| (10..20).contains(cpu) || *cpu >= 30).collect();
    assert!(second_node.is_sorted(), "nodes follow each other: {shards:?}");
    assert_eq!((&report["map"], &report["memory_by_node"]), (proposal, &Value::Bool(true)));
}

#[test]
fn an_epyc_with_four_nodes_keeps_nodes_together() {
    let report = report(EPYC, &[]);
    let shards = numbers(&report["proposal"]["shards"]);
    assert_eq!(numbers(&report["proposal"]["control"]), [0, 64]);
    assert_eq!(shards.len(), 111, "of 125 threads, as many as the mesh has room for");
    assert!(!shards.contains(&127));
    let nodes: Vec<u64> = shards.iter().map(|cpu| cpu % 64 / 16).collect();
    assert!(nodes.is_sorted() && nodes.last() == Some(&3), "{nodes:?}");
    assert_eq!(report["proposal_toml"].as_str().unwrap().lines().count(), 8, "a line for each node");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("arrive at 16 of 111 shards, on hardware threads 32-47"), "{warnings}");
    let hints = report["hints"].as_array().unwrap();
    assert!(
        hints.contains(&"echo 64 > /proc/irq/201/smp_affinity_list".into()),
        "queue 1 to a control thread: {hints:?}"
    );
}

#[test]
fn what_is_copied_of_a_machine_tells_all_that_the_machine_tells() {
    let place = tempfile::tempdir().unwrap();
    let here = captured::write(CAPTURED, &place.path().join("here"));
    let recipe =
        DEPLOYING.split_once("    mkdir box").and_then(|(_, rest)| rest.split_once("    tern cores"));
    let root = here.parent().unwrap().to_str().unwrap();
    let recipe = format!("mkdir box{}", recipe.expect("a recipe").0);
    let recipe =
        recipe.replace(" /sys/", &format!(" {root}/sys/")).replace(" /proc/", &format!(" {root}/proc/"));
    // It may complain.
    Command::new("bash").args(["-c", &recipe]).current_dir(place.path()).output().unwrap();
    let elsewhere = place.path().join("box").join(&root[1..]).join("sys");
    let (told, copied) = (report_of(&here, &[]), report_of(&elsewhere, &[]));
    assert!(told["machine"]["nics"][0]["queues"][0]["interrupt"].is_u64(), "{told}");
    assert_eq!(copied, told);
}

#[test]
fn a_small_machine_uses_both_processors() {
    let report = report(SMALL, &[]);
    assert_eq!(numbers(&report["proposal"]["shards"]), [0, 1]);
    assert!(numbers(&report["proposal"]["control"]).is_empty());
    assert_eq!(report["memory_by_node"], Value::Bool(false));
    assert_eq!(report["machine"]["nics"][0]["queues"][0]["interrupt"], 38);
    assert!(report["warnings"].to_string().contains("packets of eth0 (receive queues: 1)"));
    assert_eq!(report["hints"], serde_json::json!(["echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"]));
}

/// A virtio card's interrupts are its bus's, and its links lead through the device tree.
#[test]
fn a_captured_virtual_machine_is_read_as_the_kernel_shows_it() {
    let place = tempfile::tempdir().unwrap();
    let report = report_of(&captured::write(CAPTURED, place.path()), &[]);
    let machine = &report["machine"];
    assert_eq!(
        (machine["threads"].as_array().unwrap().len(), &machine["offline"]),
        (2, &serde_json::json!([]))
    );
    assert_eq!(machine["threads"][1]["siblings"], serde_json::json!([1]), "two cores of one thread each");
    let queue = serde_json::json!({ "number": 0, "interrupt": 38, "interrupt_on": [1], "spread_over": [] });
    let card = serde_json::json!({ "name": "eth0", "node": null, "queues": [queue] });
    assert_eq!(machine["nics"], serde_json::json!([card]), "loopback and ifb have no device");
    assert_eq!(numbers(&report["proposal"]["shards"]), [0, 1]);
    assert_eq!(report["hints"], serde_json::json!(["echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"]));
}

/// The node of each proposed shard, in their order, and whether both threads of each core follow each other.
fn walk(report: &Value) -> (Vec<u64>, bool) {
    let threads = report["machine"]["threads"].as_array().unwrap();
    let of = |cpu: u64| threads.iter().find(|thread| thread["cpu"] == cpu).unwrap();
    let shards = numbers(&report["proposal"]["shards"]);
    let nodes = shards.iter().map(|&cpu| of(cpu)["node"].as_u64().unwrap()).collect();
    let are_pairs = shards.chunks(2).all(|pair| numbers(&of(pair[0])["siblings"]) == *pair);
    (nodes, are_pairs)
}

#[test]
fn two_captured_epycs_keep_eight_nodes_together() {
    let place = tempfile::tempdir().unwrap();
    let report = report_of(&captured::write(TWO_EPYCS, place.path()), &[]);
    assert_eq!(numbers(&report["proposal"]["control"]), [0, 48]);
    let (nodes, are_pairs) = walk(&report);
    assert_eq!((nodes.len(), are_pairs), (94, true), "all but the kept core");
    assert!(nodes.is_sorted(), "nodes follow each other: {nodes:?}");
    let of_each: Vec<usize> =
        (0..8).map(|node| nodes.iter().filter(|&&other| other == node).count()).collect();
    assert_eq!(of_each, [10, 12, 12, 12, 12, 12, 12, 12]);
    assert_eq!(report["memory_by_node"], Value::Bool(true));
}

/// Neighbours in number are strangers there, and a node may be missing.
#[test]
fn four_captured_xeons_keep_together_what_the_numbers_tear_apart() {
    let place = tempfile::tempdir().unwrap();
    let report = report_of(&captured::write(FOUR_XEONS, place.path()), &[]);
    assert_eq!(numbers(&report["proposal"]["control"]), [0, 32]);
    let (nodes, are_pairs) = walk(&report);
    assert_eq!((nodes.len(), are_pairs), (62, true));
    assert!(nodes.is_sorted(), "nodes follow each other: {nodes:?}");
    let of_each: Vec<usize> =
        (0..4).map(|node| nodes.iter().filter(|&&other| other == node).count()).collect();
    assert_eq!(of_each, [30, 0, 16, 16]);
}

#[test]
fn captured_cards_are_told_with_their_nodes_and_queues() {
    let place = tempfile::tempdir().unwrap();
    let report = report_of(&captured::write(WITH_CARDS, place.path()), &[]);
    let cards: Vec<_> = report["machine"]["nics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|card| (card["name"].as_str().unwrap(), &card["node"], card["queues"].as_array().unwrap().len()))
        .collect();
    let node = |number: u64| Value::from(number);
    assert_eq!(cards, [("eth0", &node(0), 8), ("eth1", &node(0), 8), ("ib0", &node(1), 1)], "no bridge");
    assert_eq!(numbers(&report["proposal"]["control"]), [0]);
    assert_eq!(numbers(&report["proposal"]["shards"]), (1..16).collect::<Vec<u64>>());
}

#[test]
fn shipped_core_maps_are_the_proposals() {
    for (file, machine) in [("2x10-core-40-thread.toml", LARGE), ("small-vm.toml", SMALL)] {
        let text = std::fs::read_to_string(shipped(file)).unwrap();
        let path = shipped(file);
        let report = report(machine, &["--config", path.to_str().unwrap()]);
        let proposal = report["proposal_toml"].as_str().unwrap();
        assert!(text.ends_with(&format!("\n{proposal}")), "{file} should end with:\n{proposal}");
        assert_eq!(report["map"], report["proposal"], "{file}");
    }
}

#[test]
fn the_text_names_everything() {
    let place = tempfile::tempdir().unwrap();
    let sys = described::write(LARGE, place.path());
    let text = text_of(&tern(&["cores", "--phone", "[::]:7322", "--sysfs", sys.to_str().unwrap()]));
    for part in [
        "2 sockets, 20 cores, 40 hardware threads, 2 NUMA nodes\n",
        "     0     0     0  0,20           control, control\n",
        "     1     1    12  19,39          shard 36, shard 37\n",
        "eth0 rx-39         0  103       39\n",
        "map in force: 38 shards\n",
        "listeners   each takes what arrives at its shard's thread\n",
        "proposal for this machine\n\n[cores]\n",
        "smp_affinity_list\necho ff,ffeffffe > /sys/class/net/eth1/queues/rx-0/rps_cpus\n",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_map_that_a_machine_cannot_have_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let sys = described::write(SMALL, place.path());
    let file = shipped("2x10-core-40-thread.toml");
    let output = tern(&["cores", "--sysfs", sys.to_str().unwrap(), "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cores.shards") && error.contains("thread 21 does not exist"), "{error}");
    assert!(error.contains("allowed: 0,1"), "{error}");
    // The same is found by `config check` and by `serve`, before anything is made.
    let data = place.path().join("data");
    let config = place.path().join("tern.toml");
    std::fs::write(&config, "[cores]\ncontrol = \"1023\"\n").unwrap();
    let config = config.to_str().unwrap();
    for args in [
        &["config", "check", "--config", config][..],
        &["serve", "--config", config, "--data", data.to_str().unwrap()],
    ] {
        let output = tern(args);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("cores.control = \"1023\": hardware thread 1023 does not exist"), "{error}");
    }
    assert!(!data.exists());
}

#[test]
fn this_machine_has_a_report_too() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("none");
    let text = text_of(&tern(&["cores", "--data", data.to_str().unwrap(), "--shards", "1"]));
    assert!(text.contains("map in force: 1 shard\n"), "{text}");
    let empty = tern(&["cores", "--sysfs", place.path().to_str().unwrap()]);
    assert_eq!(empty.status.code(), Some(2));
}
