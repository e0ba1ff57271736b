//! The generator against `tern serve` with two shards: phones that wait, and phones that come and go.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tern_admin::{Access, Admin};
use tern_node::built;

/// A running server; killed when dropped.
struct Node {
    _process: tern_node::Node,
    phone: String,
    admin: String,
    _data: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let load = Path::new(env!("CARGO_BIN_EXE_tern-load"));
        let mut command = Command::new(built(load, "tern-server", "tern").expect("the server builds"));
        command.args([
            "serve",
            "--phone",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--shards",
            "2",
            "--data",
        ]);
        command.arg(data.path().join("data")).env("TERN_LOG", "warn");
        let process = tern_node::Node::start(&mut command).expect("tern serves");
        let (phone, admin) = (process.ready().phone.to_string(), process.ready().admin.to_string());
        Self { _process: process, phone, admin, _data: data }
    }

    /// What the server tells of itself.
    fn status(&self) -> Value {
        let endpoint = Admin::new(&self.admin, &Access::default()).expect("plain HTTP needs no file");
        endpoint.get("/v1/status").expect("the admin endpoint")
    }

    fn load(&self, line: &str) -> (i32, Value) {
        let output = Command::new("prlimit")
            // So small that a ring holds only 40 phones: three workers.
            .args(["--nofile=616:616", env!("CARGO_BIN_EXE_tern-load")])
            .args(line.split(' '))
            .args(["--json", "--phone", &self.phone, "--admin", &self.admin])
            .output()
            .expect("tern-load runs");
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        let report = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or(Value::Null);
        let code = output.status.code().expect("an exit code");
        println!("{line}: {code} {text}\n{}", String::from_utf8_lossy(&output.stderr));
        (code, report)
    }
}

#[test]
fn idle_phones_are_held_and_flapping_ones_lose_nothing() {
    let node = Node::start();
    let (code, report) = node.load("idle --phones 100 --hold 1");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["hold"]["lost_count"], 0);
    assert!(report["hold"]["cpu_user_us"].is_u64() && report["server"]["cpu_us_per_login"].is_f64());
    assert!(report["server"]["rss_bytes"].as_u64() > report["server"]["rss_bytes_per_phone"].as_u64());

    let (code, report) = node.load("idle --phones 100 --hold 1 --resume");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["resumed"]["by_ticket"], 100);
    assert!(report["resumed"]["login_per_s"].as_f64().unwrap() > 0.0);

    // Other accounts than those above, and all of them gone and back at once.
    let started_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let (code, report) = node.load("idle --phones 100 --first 200 --hold 0.2 --storm");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(100)));
    assert_eq!(report["resumed"]["by_ticket"], 100);
    let all_back_s = report["resumed"]["all_back_s"].as_f64().unwrap();
    assert!(all_back_s >= 0.1, "{report}");
    let unix_us = |name: &str| report["resumed"][name].as_u64().unwrap();
    let took_s = (unix_us("back_unix_us") - unix_us("dropped_unix_us")) as f64 / 1e6;
    assert!((took_s - all_back_s).abs() < 0.01, "{report}");
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    assert!(unix_us("dropped_unix_us") > started_us && unix_us("back_unix_us") < now_us, "{report}");
    assert_eq!(node.status()["totals"]["accounts_now"], 200);

    let (code, report) = node.load("flap --phones 100 --rate 1000 --flaps 40 --duration 3 --body 40");
    assert_eq!((code, report["lost"].as_u64()), (0, Some(0)));
    assert_eq!((report["sent"].as_u64(), report["delivered"].as_u64()), (Some(3000), Some(3000)));
    let flaps = report["flaps"].as_u64().unwrap();
    assert!((30..=120).contains(&flaps), "{report}");
    // A few are dropped before they have a new ticket.
    assert!(report["resumed"]["by_ticket"].as_u64().unwrap() > flaps / 2, "{report}");
}

#[test]
fn what_a_phone_costs_is_measured_while_all_are_held_and_not_after_a_storm() {
    let mut node = Node::start();
    node.admin = endpoint_that_grows(&node.admin).to_string();
    for line in ["idle --phones 20 --hold 0.3", "idle --phones 20 --first 40 --hold 0.3 --storm"] {
        let (code, report) = node.load(line);
        assert_eq!(code, 0);
        assert_eq!(report["server"]["rss_bytes_per_phone"], 1_000, "{line}: {report}");
    }
}

/// A node's admin endpoint, but that the process grows by 1,000 bytes for each login, whichever it is.
fn endpoint_that_grows(admin: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, admin) = (listener.local_addr().expect("bound"), admin.to_string());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that is gone wants no answer.
            let _ = pass_on(client, &admin);
        }
    });
    address
}

fn pass_on(mut client: TcpStream, admin: &str) -> std::io::Result<()> {
    let (head, body) = read_http(&client)?;
    let mut endpoint = TcpStream::connect(admin)?;
    endpoint.write_all(&[head.as_bytes(), &body].concat())?;
    let (mut head, mut body) = read_http(&endpoint)?;
    if let Ok(mut process) = serde_json::from_slice::<Value>(&body)
        && let Some(logins) = process["logins"].as_u64()
    {
        process["rss_bytes"] = (1_000_000 + 1_000 * logins).into();
        let length = |bytes: usize| format!("content-length: {bytes}\r\n");
        let grown = process.to_string().into_bytes();
        head = head.replace(&length(body.len()), &length(grown.len()));
        body = grown;
    }
    client.write_all(&[head.as_bytes(), &body].concat())
}

/// Head and body.
fn read_http(stream: &TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut stream, mut head, mut bytes) = (BufReader::new(stream), String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let length = head[start..].to_ascii_lowercase();
        if let Some(length) = length.strip_prefix("content-length:") {
            bytes = length.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}
