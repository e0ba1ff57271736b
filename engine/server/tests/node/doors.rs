//! What the internet sends: garbage, prefixes, oversized and early frames, silence. Nobody else notices.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tern_protocol::phone::frame::ClientFrame;

/// Sends bytes and reads until the server closes; what it said.
fn throw(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(node.phone).expect("the door is open");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket option");
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn garbage_is_closed_and_counted_while_others_talk() {
    let node = Node::start(Setup::shards(2));
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    let throws: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 4096],
        b"TRN\x01\x01\x00\x00\x00\x01\xff\xff",
        b"TRN\x01\x09\x00\x00\x00",
        b"TRN\x01\x01\x00\x00\x00\x02\x14\x00transport comes later",
    ];
    for (count, bytes) in throws.iter().enumerate() {
        assert_eq!(throw(&node, bytes), b"", "garbage gets no answer: {bytes:?}");
        node.wait_for("tern_protocol_errors_total", count as u64 + 1);
    }
    ann.say(&ClientFrame::Ping { token: 1 });
    assert_eq!(ann.next(), Heard::Pong(1));
}

#[test]
fn another_version_is_told_which_ones_are_spoken() {
    let node = Node::start(Setup::shards(2));
    // Record kind 0, two bytes: least and greatest version.
    assert_eq!(throw(&node, b"TRN\x09\x01\x00\x00\x00"), [0, 2, 0, 1, 1]);
}

#[test]
fn a_connection_that_never_logs_in_is_given_up() {
    let setup = Setup { config: "[limits]\nlogin_ms = 300\n".into(), ..Setup::shards(2) };
    let node = Node::start(setup);
    assert_eq!(throw(&node, b"TRN"), b"");
    node.wait_for("tern_timeouts_total", 1);
}

#[test]
fn an_oversized_body_ends_the_connection_with_a_reason() {
    let setup = Setup { config: "[limits]\nbody_bytes = 1000\n".into(), ..Setup::shards(2) };
    let node = Node::start(setup);
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    let own = ann.account;
    ann.send(own, id(1), &[7; 1000]);
    assert!(matches!(ann.next(), Heard::Message { .. }), "the largest body that welcome allows");
    ann.ack(1);
    ann.send(own, id(2), &[7; 1001]);
    let heard = ann.listen(Duration::from_secs(5));
    assert!(heard.contains(&Heard::Refused("TooLarge".into())), "{heard:?}");
    assert_eq!(heard.last(), Some(&Heard::End));
}

#[test]
fn acknowledging_the_future_is_refused() {
    let node = Node::start(Setup::shards(2));
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    ann.ack(99);
    assert_eq!(ann.next(), Heard::Refused("BadAcknowledgement".into()));
    assert_eq!(ann.next(), Heard::End);
}

#[test]
fn a_flood_of_cut_connections_leaves_no_trace() {
    let node = Node::start(Setup::shards(2));
    for n in 0..500_u32 {
        let mut socket = TcpStream::connect(node.phone).expect("the door is open");
        let _ = socket.write_all(&b"TRN\x01\x01\x00\x00\x00\x01\x60\x00junk"[..(n % 15) as usize]);
    }
    node.wait_for("tern_accepted_total", 500);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while node.metric("tern_connections_now") > 0 {
        assert!(std::time::Instant::now() < deadline, "connections are left over");
        std::thread::sleep(Duration::from_millis(20));
    }
}
