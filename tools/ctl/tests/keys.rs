//! The key files that `tern-ctl` makes.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

/// An endpoint that answers one request after the other with these; to an empty one it hangs up. The requests' bodies come
/// back.
fn endpoint(answers: &'static [&'static str]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut length = 0;
            for line in reader.by_ref().lines() {
                let line = line.unwrap().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            tell.send(String::from_utf8(body).unwrap()).unwrap();
            if let Some((status, json)) = answer.split_once(' ') {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", json.len());
                reader.get_mut().write_all((head + json).as_bytes()).unwrap();
            }
        }
    });
    (address, told)
}

/// `account add ann`: whether it passed, and what it said.
fn add_ann(place: &Path, admin: &str) -> (bool, String) {
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_tern-ctl"));
    ctl.args(["--admin", admin, "account", "add", "ann"]).current_dir(place);
    let Output { status, stdout, stderr } = ctl.env_remove("TERN_ADMIN_TOKEN").output().unwrap();
    (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn a_key_that_could_not_be_written_leaves_no_file() {
    let place = tempfile::tempdir().unwrap();
    // As a full drive refuses it: the file can be made, and nothing be written. Nobody is asked then.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tern-ctl")]);
    let output = limited.args(["account", "add", "anna"]).current_dir(place.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("key file anna.key") && said.contains("File too large"), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "half a key would never be replaced");
}

#[test]
fn a_command_that_certainly_did_nothing_leaves_no_key() {
    let place = tempfile::tempdir().unwrap();
    let is_clean = || std::fs::read_dir(place.path()).unwrap().count() == 0;
    // Nobody listens at port 1.
    let (passes, said) = add_ann(place.path(), "127.0.0.1:1");
    assert!(!passes && said.contains("does not answer") && !said.contains("ann.key"), "{said}");
    assert!(is_clean());
    let (admin, _requests) =
        endpoint(&[r#"401 {"error":"a token"}"#, r#"200 {"results":[{"name":"ann","result":"taken"}]}"#]);
    for why in ["a token", "ann: the name is taken"] {
        let (passes, said) = add_ann(place.path(), &admin);
        assert!(!passes && said.contains(why), "{said}");
        assert!(is_clean(), "{why}");
    }
}

#[test]
fn a_key_whose_account_may_exist_stays_and_the_same_command_uses_it() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ann.key");
    let (admin, requests) = endpoint(&[
        "",
        r#"503 {"error":"the drive is full"}"#,
        r#"200 {"results":[{"name":"ann","result":"taken"}]}"#,
        r#"401 {"error":"a token"}"#,
        r#"200 {"results":[{"name":"ann","result":"existing","id":"7"}]}"#,
        r#"200 {"results":[{"name":"ann","result":"created","id":"9"}]}"#,
    ]);
    let (passes, said) = add_ann(place.path(), &admin);
    assert!(!passes && said.contains("unknown") && said.contains("ann.key"), "{said}");
    let (key, first) = (std::fs::read_to_string(&file).unwrap(), requests.recv().unwrap());
    for why in ["the drive is full", "ann.key: ann: the name is taken", "a token"] {
        let (passes, said) = add_ann(place.path(), &admin);
        assert!(!passes && said.contains(why), "{said}");
    }
    for id in ["7", "9"] {
        assert_eq!(add_ann(place.path(), &admin), (true, format!("ann {id} private key in ann.key\n")));
    }
    for _ in 0..5 {
        assert_eq!(requests.recv().unwrap(), first, "the same name and public key each time");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), key);
}
