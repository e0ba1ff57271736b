//! A node whose log nobody reads.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use nix::libc::O_NONBLOCK;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tern_protocol::phone::frame::ClientFrame;

/// A pipe that is full, and from which nobody reads but who has this end of it.
pub(crate) fn full_pipe(path: &Path) -> File {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    let mut reader = OpenOptions::new();
    let mut pipe = reader.read(true).write(true).custom_flags(O_NONBLOCK).open(path).expect("a pipe");
    fill(&mut pipe);
    pipe
}

/// Fills a pipe to its last byte.
fn fill(pipe: &mut File) {
    for piece in [&[b'.'; 4096][..], b"."] {
        while pipe.write(piece).is_ok() {}
    }
}

/// Reads until this was said, with all that was in the pipe before. Whoever talks keeps the shards turning meanwhile.
fn read_until(pipe: &mut File, words: &[&str], mut talk: impl FnMut()) {
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !words.iter().all(|word| text.contains(word)) {
        assert!(Instant::now() < deadline, "not all of {words:?} in {text}");
        match pipe.read(&mut piece) {
            Ok(count) => text.push_str(&String::from_utf8_lossy(&piece[..count])),
            Err(_) => {
                talk();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("log");
    let mut pipe = full_pipe(&path);
    let mut node = Node::start(Setup { stderr: Some(path), ..Setup::shards(1) });
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    assert_eq!((ann.next(), bob.next()), (Heard::Drained, Heard::Drained));
    // Of this the shard's thread complains, later.
    let mut eve = Phone::log_in(node.phone, "eve", 3, &Way::default());
    assert_eq!(eve.next(), Heard::Drained);
    eve.ack(99);
    assert_eq!(eve.next(), Heard::Refused("BadAcknowledgement".into()));
    let message = id(1);
    ann.send(bob.account, message, b"still here");
    assert!(matches!(bob.next(), Heard::Message { id, .. } if id == message));
    assert_eq!(node.get("/healthz"), (200, "ok\n".into()));
    // Nothing of it is lost when somebody reads again.
    read_until(&mut pipe, &["serving", "connections ended for protocol errors"], || {
        bob.say(&ClientFrame::Ping { token: 1 });
        assert_eq!(bob.next(), Heard::Pong(1));
    });
    fill(&mut pipe);
    assert_eq!(node.drain().code(), Some(0), "and the end comes without a reader");
}
