//! `tern-ctl top` in a pseudo-terminal, against an endpoint that gives recorded answers and wants a token.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOKEN: &str = "0123456789abcdef";

/// Answers one request after the other on one connection; asked for what it keeps silent about, it waits for the asker
/// to go.
fn answer(stream: TcpStream, answers: &serde_json::Value, silent: &Silent) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let Some(first) = head.first() else { return Ok(()) };
        let path = first.split(['/', '?', ' ']).nth(3).unwrap_or_default();
        if silent.lock().unwrap().contains(&path) {
            return std::io::copy(&mut stream, &mut std::io::sink()).map(drop);
        }
        let known =
            head.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}")));
        let (status, body) = match answers["after"].get(path) {
            _ if !known => ("401 Unauthorized", r#"{"error":"a bearer token is needed"}"#.to_string()),
            Some(body) => ("200 OK", body.to_string()),
            None => ("404 Not Found", format!(r#"{{"error":"no {path}"}}"#)),
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
}

/// What an endpoint gives no answer to.
type Silent = Arc<Mutex<Vec<&'static str>>>;

fn endpoint() -> SocketAddr {
    endpoint_with(serde_json::from_str(include_str!("top.json")).unwrap(), &Silent::default())
}

fn endpoint_with(answers: serde_json::Value, silent: &Silent) -> SocketAddr {
    let silent = Arc::clone(silent);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answers, silent) = (answers.clone(), Arc::clone(&silent));
            // A client that hangs up has had its answers.
            std::thread::spawn(move || answer(stream, &answers, &silent).ok());
        }
    });
    address
}

#[test]
fn draws_on_a_terminal_quits_on_q_and_leaves_it_as_it_was() {
    shown(endpoint(), |until| until("fullest"));
}

#[test]
fn a_stuck_shard_is_seen_and_so_is_a_node_that_says_nothing_more() {
    let mut answers: serde_json::Value = serde_json::from_str(include_str!("top.json")).unwrap();
    answers["after"]["status"]["trouble"] = "shard 1 should have turned 7 s ago".into();
    let silent = Silent::default();
    silent.lock().unwrap().push("top");
    shown(endpoint_with(answers, &silent), |until| {
        until("SHARD 1 SHOULD HAVE TURNED");
        until("(part)");
        silent.lock().unwrap().extend(["status", "process"]);
        until("no answer for");
    });
}

/// Runs `tern-ctl top` and waits for what `watch` waits for; then it quits.
fn shown(endpoint: SocketAddr, watch: impl FnOnce(&mut dyn FnMut(&str))) {
    let ctl = env!("CARGO_BIN_EXE_tern-ctl");
    let command = format!("stty rows 24 cols 80; '{ctl}' --admin {endpoint} top; echo ended with $?");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERN_ADMIN_TOKEN", TOKEN)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is part of every Linux system (util-linux)");
    let (tell, told) = std::sync::mpsc::channel();
    let mut screen = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            let _ = tell.send(bytes[..count].to_vec());
        }
    });
    let (mut seen, end) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    let mut until = |words: &str| {
        while !String::from_utf8_lossy(&seen).contains(words) {
            assert!(Instant::now() < end, "no {words:?} in {}", String::from_utf8_lossy(&seen));
            seen.extend(told.recv_timeout(Duration::from_millis(100)).unwrap_or_default());
        }
    };
    watch(&mut until);
    child.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    // The alternate screen is left, and the program with it.
    until("\x1b[?1049l");
    until("ended with 0");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut answers: serde_json::Value = serde_json::from_str(include_str!("top.json")).unwrap();
    let ann = serde_json::json!({ "id": "7", "name": "ann", "devices": [1], "online": 0, "waiting": 0 });
    // There is always another page: who goes on after its reader has left goes on for ever.
    answers["after"]["accounts"] = serde_json::json!({ "accounts": [ann], "next": "7" });
    let admin = endpoint_with(answers, &Silent::default()).to_string();
    for words in [&["account", "list"][..], &["status"], &["status", "--all"], &["status", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_tern-ctl"));
        ctl.env("TERN_ADMIN_TOKEN", TOKEN).args(["--admin", &admin]).args(words).stdout(writer);
        let output = ctl.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn what_is_wrong_is_told_on_the_plain_terminal() {
    let run = |more: &[&str]| {
        let admin = endpoint().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_tern-ctl"))
            .env_remove("TERN_ADMIN_TOKEN")
            .args(["--admin", &admin])
            .args(more)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (passes, text) = run(&["status"]);
    assert!(!passes && text.contains("a bearer token is needed"), "{text}");
    let (passes, text) = run(&["top"]);
    assert!(!passes && text.contains("needs a terminal"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (passes, text) = run(&["status", "--token-file", file.to_str().unwrap()]);
    assert!(passes, "{text}");
    let (passes, text) = run(&["status", "--ca", file.to_str().unwrap()]);
    assert!(!passes && text.contains("--ca") && text.contains("no certificate in it"), "{text}");
    let (passes, text) = run(&["status", "--token-file", "/no/such/file"]);
    assert!(!passes && text.contains("--token-file /no/such/file"), "{text}");
}
