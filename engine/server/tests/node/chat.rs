//! People in terminals: `tern-ctl chat` against a real node.

use crate::process::{Node, Setup, sibling};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

static TERN_CTL: LazyLock<PathBuf> = LazyLock::new(|| sibling("tern-ctl"));

/// A `tern-ctl chat` with pipes for its terminal.
struct Chat {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    shown: Vec<String>,
}

impl Chat {
    fn start(node: &Node, place: &Path, name: &str, args: &[&str]) -> Self {
        Self::start_at(&node.phone.to_string(), place, name, args)
    }

    fn start_at(door: &str, place: &Path, name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(&*TERN_CTL);
        command.arg("chat").args(["--phone", door, name]).args(args);
        command.current_dir(place).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tern-ctl starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).count()
        });
        Self { child, input, lines, shown: Vec::new() }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_ref().expect("not at its end"), "{line}").expect("the chat reads");
    }

    /// Waits until a line is shown that contains `text`.
    fn until(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => {
                    self.shown.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in 20 s after {:#?}", self.shown),
                Err(RecvTimeoutError::Disconnected) => {
                    let errors = self.end().1;
                    panic!("no {text:?} after {:#?}; {errors}", self.shown)
                }
            }
        }
    }

    /// Waits for the end: whether it was a good one, and what was said about it.
    fn end(&mut self) -> (bool, String) {
        drop(self.input.take());
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("piped, and read once");
        stderr.read_to_string(&mut errors).expect("text");
        (self.child.wait().expect("the child is ours").success(), errors)
    }

    fn kill(&mut self) {
        self.child.kill().expect("SIGKILL is always possible");
        self.child.wait().expect("the child is ours");
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two people who talk to each other.
fn ann_and_bob(node: &Node, place: &Path) -> (Chat, Chat) {
    let mut ann = Chat::start(node, place, "ann", &["--register"]);
    let mut bob = Chat::start(node, place, "bob", &["--register"]);
    ann.until("connected as ann, device 1");
    bob.until("connected as bob, device 1");
    ann.say("/to bob");
    ann.until("you talk to bob");
    bob.say("/to ann");
    bob.until("you talk to ann");
    (ann, bob)
}

#[test]
fn two_people_talk_and_come_back_with_their_tickets() {
    let mut node = Node::start(Setup::shards(2));
    let place = tempfile::tempdir().expect("a temporary directory");
    let (mut ann, mut bob) = ann_and_bob(&node, place.path());
    ann.until("bob is here");
    ann.say("hello");
    bob.until(" ann: hello");
    ann.until("#1 ✓✓ read by bob");
    bob.say("hello yourself");
    ann.until(" bob: hello yourself");
    bob.until("#1 ✓✓ read by ann");
    bob.say("/typing");
    ann.until("bob is typing");
    bob.kill();
    ann.until("bob is not connected");
    ann.say("are you there?");
    ann.until("#2 ✓ sent");
    // With another key in its file only the ticket can bring it in.
    let (key, away) = (place.path().join("bob.key"), place.path().join("bob.key.away"));
    let real = fs::read_to_string(&key).expect("the key file");
    fs::rename(&key, away).expect("the key file moves");
    fs::copy(place.path().join("ann.key"), &key).expect("another key takes its place");
    let mut bob = Chat::start(&node, place.path(), "bob", &[]);
    bob.until("connected as bob, device 1");
    bob.until(" ann: are you there?");
    ann.until("#2 ✓✓ read by bob");
    bob.say("/quit");
    assert!(bob.end().0);
    fs::write(&key, real).expect("the key file is as before");
    node.kill();
    ann.say("through the kill");
    ann.until("not connected");
    node.start_again();
    ann.until("#3 ✓ sent");
    let mut bob = Chat::start(&node, place.path(), "bob", &[]);
    bob.until(" ann: through the kill");
    ann.until("#3 ✓✓ read by bob");
    ann.say("good night");
    ann.say("/quit");
    let (good, errors) = ann.end();
    assert!(good, "what was said last is safe: {errors}");
    bob.until(" ann: good night");
}

#[test]
fn a_server_is_known_by_what_it_was_called() {
    let node = Node::start(Setup::shards(1));
    let place = tempfile::tempdir().expect("a temporary directory");
    let (by_name, by_address) = (format!("localhost:{}", node.phone.port()), node.phone.to_string());
    for (door, is_first) in [(&by_name, true), (&by_name, false), (&by_address, true), (&by_address, false)] {
        let mut ann = Chat::start_at(door, place.path(), "ann", &["--register"]);
        ann.until("connected as ann, device 1");
        let first = format!("first contact: the server at {door} has the key ");
        assert_eq!(ann.shown.iter().any(|line| line.contains(&first)), is_first, "{door}: {:?}", ann.shown);
        ann.say("/quit");
        assert!(ann.end().0);
    }
    let state = fs::read_to_string(place.path().join("ann.state")).expect("the state file");
    let known: Vec<&str> = state.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(known, [&*by_address, &*by_name], "{state}");
}

#[test]
fn a_second_device_hears_what_the_first_says_until_it_is_revoked() {
    let node = Node::start(Setup::shards(2));
    let place = tempfile::tempdir().expect("a temporary directory");
    let (mut ann, mut bob) = ann_and_bob(&node, place.path());
    let second = ["--register", "--key", "pocket.key"];
    let (good, errors) = Chat::start(&node, place.path(), "ann", &second).end();
    let add = errors.split(": ").find(|part| part.starts_with("/add ")).expect("what to do is said").trim();
    assert!(!good);
    ann.say(add);
    ann.until("device 2 ");
    let mut pocket = Chat::start(&node, place.path(), "ann", &second);
    pocket.until("connected as ann, device 2");
    ann.say("from the desk");
    pocket.until("from another device: from the desk");
    bob.until(" ann: from the desk");
    pocket.until("✓✓ read by ");
    bob.say("to both");
    ann.until(" bob: to both");
    pocket.until(" bob: to both");
    ann.say("/revoke 2");
    ann.until("device 1 ");
    let (good, errors) = pocket.end();
    assert!(!good && errors.contains("taken off the account"), "{errors}");
    let (good, errors) = Chat::start(&node, place.path(), "ann", &second).end();
    assert!(!good && errors.contains("name is taken"), "{errors}");
}

#[test]
fn lines_from_a_pipe_are_ticked_before_it_ends() {
    let mut node = Node::start(Setup::shards(2));
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut bob = Chat::start(&node, place.path(), "bob", &["--register"]);
    bob.until("connected as bob");
    let mut ann = Chat::start(&node, place.path(), "ann", &["--register"]);
    ann.say("/to bob");
    let texts: Vec<String> = (0..400).map(|n| format!("line {n}")).collect();
    texts.iter().for_each(|text| ann.say(text));
    let (good, errors) = ann.end();
    assert!(good, "{errors}");
    for text in texts {
        let line = bob.until(" ann: ");
        assert!(line.ends_with(&format!(" ann: {text}")), "{line} instead of {text}");
    }
    assert!(node.drain().success());
    let (good, errors) = Chat::start(&node, place.path(), "ann", &[]).end();
    assert!(!good && errors.contains("not all mail was fetched"), "{errors}");
}

#[test]
fn a_changed_server_key_is_taken_from_the_server_and_from_nobody_else() {
    let mut node = Node::start(Setup::shards(2));
    let place = tempfile::tempdir().expect("a temporary directory");
    let state = place.path().join("ann.state");
    let key = |line: &str| line.split(' ').nth(1).expect("a key").to_string();
    let connect_and_quit = |node: &Node, show: &str| {
        let mut ann = Chat::start(node, place.path(), "ann", &["--register"]);
        ann.until(show);
        ann.until("connected as ann");
        // At its end it waits for all that is said at the beginning of a session.
        assert!(ann.end().0);
        fs::read_to_string(&state).expect("the state file")
    };
    /// The state without the ticket, which would do without the server's key.
    fn without_ticket(line: &str) -> String {
        line.split(' ').take(3).collect::<Vec<_>>().join(" ") + " -\n"
    }
    let first = connect_and_quit(&node, "! first contact");
    assert!(node.drain().success());
    node.rotate_key(30);
    node.start_again();
    fs::write(&state, without_ticket(&first)).expect("the state file");
    let mut ann = Chat::start(&node, place.path(), "ann", &[]);
    ann.until("! the server has changed its key");
    assert!(ann.end().0);
    let second = fs::read_to_string(&state).expect("the state file");
    assert_ne!(key(&second), key(&first));
    assert!(node.drain().success());
    node.rotate_key(0);
    node.start_again();
    fs::write(&state, without_ticket(&second)).expect("the state file");
    let (good, errors) = Chat::start(&node, place.path(), "ann", &[]).end();
    assert!(!good && errors.contains("does not have the key that is known for it"), "{errors}");
    assert!(errors.contains(&key(&second)) && errors.contains("ann.state"), "{errors}");
    // Who is told the key beforehand trusts nothing else.
    let present = node.json("/v1/server-key")["public"].as_str().expect("a key").to_string();
    let mut ann = Chat::start(&node, place.path(), "ann", &["--server-key", &present]);
    ann.until("connected as ann");
    assert!(ann.end().0);
    // A key that no server has shown is not remembered, and what is known stays known.
    let known = fs::read_to_string(&state).expect("the state file");
    let wrong = key(&first);
    for is_first_contact in [false, true] {
        if is_first_contact {
            fs::remove_file(&state).expect("the state file");
        }
        let (good, errors) = Chat::start(&node, place.path(), "ann", &["--server-key", &wrong]).end();
        assert!(!good && errors.contains("does not have the key that --server-key names"), "{errors}");
        assert!(errors.contains(&wrong), "{errors}");
        let kept = fs::read_to_string(&state).unwrap_or_default();
        assert_eq!(kept, if is_first_contact { "" } else { &*known });
    }
    let mut ann = Chat::start(&node, place.path(), "ann", &[]);
    ann.until("! first contact");
    assert!(ann.end().0);
}
