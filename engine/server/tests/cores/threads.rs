//! Where the threads of a running node may run.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tern_node::Node;

/// `tern serve` with this configuration, in this place.
fn command(place: &Path, config: &str) -> Command {
    let file = place.join("tern.toml");
    std::fs::write(&file, config).unwrap();
    let mut tern = Command::new(env!("CARGO_BIN_EXE_tern"));
    tern.args(["serve", "--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    tern.arg(place.join("data")).arg("--config").arg(file);
    tern
}

fn serve(place: &Path, config: &str) -> Node {
    Node::start(&mut command(place, config)).unwrap()
}

/// The hardware threads that each thread of a node with this `[cores]` may use, by the thread's name.
fn threads(cores: &str) -> BTreeMap<String, String> {
    let place = tempfile::tempdir().unwrap();
    let node = serve(place.path(), &format!("shards = 1\n[cores]\n{cores}"));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    let told = tasks.flatten().filter_map(|task| {
        // A short-lived thread may be gone.
        let status = read_to_string(task.path().join("status")).ok()?;
        let name = read_to_string(task.path().join("comm")).ok()?.trim().to_string();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some((name, list.trim().to_string()))
    });
    told.collect()
}

/// What this test may use, and its first and last hardware thread.
fn allowed() -> (String, String, String) {
    let status = read_to_string("/proc/thread-self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = list.split([',', '-']).next().unwrap().to_string();
    let last = list.rsplit([',', '-']).next().unwrap().to_string();
    (list.to_string(), first, last)
}

/// Two hardware threads. With one there is nothing to tell apart: whoever runs the tests sees that it was not tried, since
/// only what goes through `print!` and `eprint!` is kept from them.
fn two(test: &str) -> Option<(String, String)> {
    let (_, first, last) = allowed();
    if first != last {
        return Some((first, last));
    }
    let _ =
        writeln!(std::io::stderr(), "SKIPPED: {test} needs two hardware threads, and may use only {first}");
    None
}

#[test]
fn shards_and_the_control_thread_run_where_the_map_says() {
    let Some((first, last)) = two("shards_and_the_control_thread_run_where_the_map_says") else { return };
    let threads = threads(&format!("shards = \"{last}\"\ncontrol = \"{first}\""));
    assert_eq!(threads["shard-0"], last, "{threads:?}");
    assert_eq!(threads["tern"], first, "{threads:?}");
    assert_eq!(threads["log"], first, "nor is the log written there: {threads:?}");
    assert_eq!(threads["signals"], first, "nor do signals come there: {threads:?}");
    assert_eq!(threads["segments"], first, "the helper stays off the shard's thread: {threads:?}");
}

#[test]
fn shards_without_places_do_not_follow_the_control_thread() {
    let (all, first, _) = allowed();
    let threads = threads(&format!("shards = \"none\"\ncontrol = \"{first}\""));
    assert_eq!(threads["shard-0"], all, "{threads:?}");
    assert_eq!(threads["tern"], first, "{threads:?}");
}

#[test]
fn a_directory_made_with_fewer_shards_is_named() {
    let Some((first, last)) = two("a_directory_made_with_fewer_shards_is_named") else { return };
    let place = tempfile::tempdir().unwrap();
    drop(serve(place.path(), &format!("[cores]\nshards = \"{last}\"")));
    let output = command(place.path(), &format!("[cores]\nshards = \"{first},{last}\"")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cores.shards makes 2 shards") && error.contains("with shards = 1"), "{error}");
    // Which is then right.
    drop(serve(place.path(), &format!("shards = 1\n[cores]\nshards = \"{first},{last}\"")));
}
