//! Open files are limited by the system: a node says what it needs before it serves, keeps within it when all come, and
//! serves on when the limit is reached.

use crate::hostile::Bystanders;
use crate::phone::{Heard, Phone, Way};
use crate::process::{Node, Setup};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use tern_protocol::phone::frame::ClientFrame;

/// What a node asks for beside its connections: slots of those that are refused, and files of its own.
const OTHERS: u32 = 64 + 512;

#[test]
fn a_limit_that_is_too_low_is_named_at_the_start_with_what_to_do() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let config = place.path().join("tern.toml");
    std::fs::write(&config, "[limits]\nconnection_count = 1000\n").expect("written");
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 600; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_tern"),
            "serve",
            "--shards",
            "1",
        ])
        .args(["--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--data")
        .arg(place.path().join("data"))
        .output()
        .expect("tern starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "it must not serve: {text}");
    for part in [
        "open files are limited to 600 (hard limit 600)",
        "1576 are needed",
        "ulimit -n 1576",
        "LimitNOFILE=1576",
        "connection_count",
    ] {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn the_soft_limit_is_raised_to_what_the_logs_may_come_to_need() {
    // Each file of a log stays open; the ring, what wakes it and the listener are four more.
    const WANTED: u64 = 3000 + 4 + 512;
    let limits = "[limits]\nconnection_count = 40\nsegment_count = 3000\n".into();
    // Enough for the connections.
    let open_files = Some("-S -n 700".into());
    let node = Node::start(Setup { config: limits, open_files, ..Setup::shards(1) });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.process_id())).expect("readable");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is listed");
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[0], WANTED.min(numbers[1]), "{line}");
}

#[test]
fn with_no_descriptor_to_spare_the_rest_is_refused_and_those_inside_are_served() {
    const CONNECTION_COUNT: u32 = 40;
    let limits = format!("[limits]\nconnection_count = {CONNECTION_COUNT}\nlogin_ms = 60000\n");
    let open_files = Some(format!("-n {}", CONNECTION_COUNT + OTHERS));
    let node = Node::start(Setup { config: limits, open_files, ..Setup::shards(1) });
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    // Many more than the table has slots, those for refusing included.
    let sockets: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(node.phone).expect("the system accepts")).collect();
    node.wait_for("tern_refused_connections_total", 200 - (u64::from(CONNECTION_COUNT) - 2));
    // The last of the refused may be on their way out.
    node.wait_for_level("tern_connections_now", u64::from(CONNECTION_COUNT));
    bystanders.talk();
    drop(sockets);
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.metric("tern_connections_now") > 2 {
        assert!(Instant::now() < deadline, "connections are left over");
    }
    let _carol = Phone::log_in(node.phone, "carol", 3, &Way::default());
    // The process's own descriptors are used up: phones need none of them. New mail may be refused while the log wants
    // another file, which is not an error of a write: nobody is cut off, and the node goes on.
    node.limit_open_files(3);
    let admin = TcpStream::connect(node.admin).expect("the system accepts");
    for token in 0..50 {
        bystanders.ann.say(&ClientFrame::Ping { token });
        assert_eq!(bystanders.ann.next(), Heard::Pong(token));
    }
    node.limit_open_files(CONNECTION_COUNT + OTHERS);
    drop(admin);
    // The admin endpoint serves again, and new accounts are made as soon as the log has its file.
    node.wait_for("tern_logins_total", 3);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Phone::connect(node.phone, "dora", 4, &Way::default()).next() != Heard::Welcome {
        assert!(Instant::now() < deadline, "no new account is made");
    }
    bystanders.talk();
}
