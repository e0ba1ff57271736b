//! Shells that behave as nodes do.

use super::*;

const READY: &str = "ready phone=127.0.0.1:1 admin=127.0.0.1:2 pid=";

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_node_serves_says_things_and_drains() {
    let script =
        format!("trap 'echo bye; echo late >&2; exit 7' TERM; echo {READY}$$; while :; do sleep 0.02; done");
    let node = Node::start(&mut shell(&script)).unwrap();
    let (phone, admin) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    assert_eq!((node.ready().phone, node.ready().admin), (phone, admin));
    assert!(node.ready().line.starts_with(READY));
    let ended = node.drain().unwrap();
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(7), "late\n"));
    assert_eq!(ended.stdout, "bye\n", "the ready line is no part of it");
}

#[test]
fn one_that_ends_or_says_nonsense_is_told_with_its_words() {
    let error = Node::start(&mut shell("echo no such drive >&2; exit 3")).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such drive"), "{error}");
    let error = Node::start(&mut shell("echo hello; sleep 60")).unwrap_err().to_string();
    assert!(error.contains("\"hello\\n\" instead") && error.contains("still running"), "{error}");
}

#[test]
fn no_wait_is_without_an_end() {
    let child =
        shell("echo thinking >&2; exec sleep 60").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (started, longest) = (Instant::now(), Duration::from_millis(300));
    let mut node = Node::of(child.unwrap()).unwrap();
    let error = node.wait_until_ready(longest, || Ok(())).unwrap_err().to_string();
    assert!(error.contains("within 300ms") && error.contains("thinking"), "{error}");
    let child = shell("exec sleep 60").stdout(Stdio::piped()).spawn();
    let mut node = Node::of(child.unwrap()).unwrap();
    let error = node.wait_until_ready(READY_WAIT, || bail!("asked to end")).unwrap_err();
    assert_eq!(error.to_string(), "asked to end");
    assert!(started.elapsed() < Duration::from_secs(30));
}
