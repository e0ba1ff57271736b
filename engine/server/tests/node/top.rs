//! The fullest mailboxes of a real node, as the endpoint and `tern-ctl top` tell them.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup, sibling};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn come(node: &Node, name: &str, key: u8) -> Phone {
    Phone::log_in(node.phone, name, key, &Way::default())
}

/// Name, entries, whether it is online; the fullest first.
fn fullest(node: &Node) -> Vec<(String, u64, bool)> {
    let top = node.json("/v1/top");
    let shards = top["shards"].as_array().expect("one for each shard").iter();
    let mailboxes = shards.flat_map(|shard| {
        assert_eq!(shard["complete"], true);
        shard["mailboxes"].as_array().expect("a list").clone()
    });
    let mut list: Vec<_> = mailboxes
        .map(|mailbox| {
            let (entries, bytes) = (mailbox["entries"].as_u64().unwrap(), mailbox["bytes"].as_u64().unwrap());
            let name = mailbox["name"].as_str().unwrap().to_string();
            // Each has a body of 100 bytes, but not while it is over and its tick is not confirmed: then look again.
            let is_whole = name == "ann" || bytes >= entries * 100;
            (name, if is_whole { entries } else { 0 }, mailbox["online"].as_bool().unwrap())
        })
        .collect();
    list.sort_by_key(|mailbox| std::cmp::Reverse(mailbox.1));
    list
}

/// Waits until the fullest mailboxes are these.
fn wait_for(node: &Node, wanted: &[(&str, u64, bool)]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = fullest(node);
        if found.iter().map(|(name, entries, online)| (&**name, *entries, *online)).eq(wanted.iter().copied())
        {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} and not {wanted:?}");
    }
}

#[test]
fn mailboxes_that_fill_up_come_to_the_top_and_leave_it_when_they_are_fetched() {
    let node = Node::start(Setup::shards(2));
    let [bob, carol] = [("bob", 2), ("carol", 3)].map(|(name, key)| come(&node, name, key).account);
    let mut ann = come(&node, "ann", 1);
    assert_eq!(ann.next(), Heard::Drained);
    assert_eq!(fullest(&node), [], "nobody has mail");
    for (to, low) in (0..50).map(|low| (bob, low)).chain((50..55).map(|low| (carol, low))) {
        ann.send(to, id(low), &[7; 100]);
        assert!(matches!(ann.next(), Heard::Sent(_)));
    }
    wait_for(&node, &[("bob", 50, false), ("carol", 5, false)]);
    shown(&node, &["bob", "50", "carol"]);
    // Bob fetches his: what is left is what Ann is told of it.
    let mut phone = come(&node, "bob", 2);
    while phone.next() != Heard::Drained {}
    phone.ack(50);
    wait_for(&node, &[("ann", 50, true), ("carol", 5, false)]);
    (0..50).for_each(|_| assert!(matches!(ann.next(), Heard::Delivered { .. })));
    ann.ack(50);
    wait_for(&node, &[("carol", 5, false)]);
}

/// `tern-ctl top` draws all these words.
fn shown(node: &Node, words: &[&str]) {
    let ctl = sibling("tern-ctl");
    let command = format!("stty rows 40 cols 120; '{}' --admin {} top", ctl.display(), node.admin);
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is part of every Linux system (util-linux)");
    let (tell, told) = channel();
    let mut screen = child.stdout.take().expect("piped");
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            let _ = tell.send(bytes[..count].to_vec());
        }
    });
    let (mut seen, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while !words.iter().all(|word| String::from_utf8_lossy(&seen).contains(word)) {
        assert!(Instant::now() < deadline, "not all of {words:?} in {}", String::from_utf8_lossy(&seen));
        seen.extend(told.recv_timeout(Duration::from_millis(100)).unwrap_or_default());
    }
    child.stdin.as_mut().expect("piped").write_all(b"q").expect("it reads");
    assert!(child.wait().expect("the child is ours").success());
}
