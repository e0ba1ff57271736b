//! Twenty SIGKILLs under load, with exact books: nothing ticked is lost, nothing doubled, order kept.

use crate::process::{Node, Setup, sibling};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A generator that sends until it is told that it is enough; killed when dropped.
struct Load(Option<Child>);

impl Load {
    fn start(node: &Node) -> Self {
        let mut load = Command::new(sibling("tern-load"));
        load.args(["pairs", "--phone", &node.phone.to_string(), "--admin", &node.admin.to_string()]);
        load.args(["--phones", "40", "--window", "4", "--duration", "100000", "--body", "100"]);
        load.args(["--seed", "7", "--patience", "60", "--json"]);
        Self(Some(load.stdout(Stdio::piped()).spawn().expect("tern-load starts")))
    }

    fn is_running(&mut self) -> bool {
        self.0.as_mut().is_some_and(|load| load.try_wait().expect("the child is ours").is_none())
    }

    /// It sends nothing more, and judges its books.
    fn end(mut self) -> Output {
        let load = self.0.take().expect("it ends once");
        let pid = Pid::from_raw(load.id().try_into().expect("a process id"));
        kill(pid, Signal::SIGINT).expect("it is running");
        load.wait_with_output().expect("tern-load ends")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = &mut self.0 {
            let _ = load.kill();
            let _ = load.wait();
        }
    }
}

#[test]
fn twenty_kills_under_load_lose_nothing_that_was_ticked() {
    let mut node = Node::start(Setup::shards(2));
    let mut load = Load::start(&node);
    node.wait_for("tern_logins_total", 40);
    for kill in 0..20_u64 {
        // Two under load, then one while the phones are still coming back. Each waits for what it is to hit, and the load
        // for the last of them: a slow machine has all twenty too.
        if kill % 3 != 2 {
            node.wait_for("tern_messages_in_total", 100);
        }
        // Uneven, so that the kills hit different moments of commits and reconnects.
        std::thread::sleep(Duration::from_millis(kill * 370 % 400));
        assert!(load.is_running(), "the load ended before kill {kill}");
        node.kill();
        node.start_again();
    }
    // What comes again after the last kill is no more than the windows of all phones.
    node.wait_for("tern_messages_in_total", 1_500);
    let output = load.end();
    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().expect("a result");
    let result: Value = serde_json::from_str(last).expect("JSON");
    for field in ["lost", "duplicated", "misordered", "misdelivered", "early_ticks"] {
        assert_eq!(result[field], 0, "{field} in {last}");
    }
    assert!(result["ticked"].as_u64().is_some_and(|ticked| ticked > 1_000), "there was load: {last}");
    assert_eq!(output.status.code(), Some(0), "{last}");
}
