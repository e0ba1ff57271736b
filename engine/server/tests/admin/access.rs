//! Tokens, TLS, and clients that are slow.

use crate::node::{Node, identity, run, tool};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PLAIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";
const TOKEN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
const OFF_LOOPBACK: &str = "[admin]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"token\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n";

#[test]
fn health_is_asked_as_the_configuration_says() {
    for config in [TOKEN, OFF_LOOPBACK] {
        let node = Node::start(config);
        let health = |dir: &Path| {
            let listen = if config == TOKEN { "127.0.0.1:0" } else { "0.0.0.0:0" };
            std::fs::write(dir.join("asked.toml"), config.replace(listen, &node.admin.to_string())).unwrap();
            let mut tern = Command::new(env!("CARGO_BIN_EXE_tern"));
            tern.current_dir(dir).args(["health", "--config", "asked.toml"]).output().unwrap()
        };
        let output = health(node.dir.path());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"ok\n"[..]), "{output:?}");
        let other = tempfile::tempdir().unwrap();
        if config == OFF_LOOPBACK {
            std::fs::write(other.path().join("cert.pem"), identity().0).unwrap();
            assert_eq!(health(other.path()).status.code(), Some(3), "somebody else has the node's place");
        }
        let address = node.admin.to_string();
        drop(node);
        let mut tern = Command::new(env!("CARGO_BIN_EXE_tern"));
        let output =
            tern.args(["health", "--admin", &address.replace("0.0.0.0", "127.0.0.1")]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "nobody is there: {output:?}");
    }
}

#[test]
fn only_the_right_token_gets_answers() {
    let node = Node::start(TOKEN);
    let mode = std::fs::metadata(node.dir.path().join("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "made at the first start, for its owner only");
    for path in ["/metrics", "/v1/status", "/v1/top", "/v1/accounts", "/v1/nothing"] {
        assert_eq!(node.get(path, None).unwrap().0, 401, "{path}");
    }
    let (status, text) = node.get("/v1/status", Some("no-such-token")).unwrap();
    assert_eq!(status, 401);
    assert!(text.contains("token_file") && text.contains("the bearer token is wrong"), "{text}");
    assert_eq!(node.get("/healthz", None).unwrap(), (200, "ok\n".into()));
    assert_eq!(node.get("/v1/status", Some(&node.token())).unwrap().0, 200);
    assert_eq!(node.get("/v1/nothing", Some(&node.token())).unwrap().0, 404);
}

/// The status of the answer to a request with this first line, and these lines after it.
fn status_of(node: &Node, lines: &[&str]) -> u16 {
    let mut stream = TcpStream::connect(node.admin).unwrap();
    let close = "connection: close";
    stream.write_all(format!("{}\r\n{close}\r\n\r\n", lines.join("\r\n")).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn by_a_name_it_is_asked_only_with_a_token() {
    let node = Node::start(PLAIN);
    let list = "GET /v1/accounts HTTP/1.1";
    for host in ["host: 127.0.0.1:7323", "host: [::1]:7323", "host: localhost:7323"] {
        assert_eq!(status_of(&node, &[list, host]), 200, "{host}");
    }
    assert_eq!(status_of(&node, &["GET /v1/accounts HTTP/1.0"]), 200, "who names nobody is no browser");
    let name = "host: tern.example:7323";
    for request in
        [list, "POST /v1/accounts HTTP/1.1", "DELETE /v1/accounts/ann HTTP/1.1", "GET /metrics HTTP/1.1"]
    {
        assert_eq!(status_of(&node, &[request, name]), 421, "{request}");
    }
    assert_eq!(status_of(&node, &[list, "host: localhost", name]), 421);
    assert_eq!(status_of(&node, &["GET http://tern.example/v1/accounts HTTP/1.1", "host: localhost"]), 421);
    assert_eq!(status_of(&node, &["GET /healthz HTTP/1.1", name]), 200, "as a load balancer asks");
    let (_, metrics) = node.get("/metrics", None).unwrap();
    assert!(metrics.contains("tern_admin_refusals_total{reason=\"host\"} 6\n"), "{metrics}");

    let node = Node::start(TOKEN);
    let token = format!("authorization: Bearer {}", node.token());
    assert_eq!(status_of(&node, &[list, name, &token]), 200);
    assert_eq!(status_of(&node, &[list, name]), 401);
}

#[test]
fn guessing_is_counted_and_slowed_down_and_locks_nobody_out() {
    let node = Node::start(TOKEN);
    let answers: Vec<u16> =
        (0..30).map(|n| node.get("/metrics", Some(&format!("guess-{n}"))).unwrap().0).collect();
    assert_eq!(answers[0], 401);
    let slowed = answers.iter().filter(|&&status| status == 429).count();
    assert!(slowed > 5 && answers.iter().all(|status| [401, 429].contains(status)), "{answers:?}");
    let (status, metrics) = node.get("/metrics", Some(&node.token())).unwrap();
    assert_eq!(status, 200);
    let count = |reason: &str| -> usize {
        let start = format!("tern_admin_refusals_total{{reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start}")).parse().unwrap()
    };
    assert_eq!((count("token"), count("rate")), (30 - slowed, slowed));
}

#[test]
fn off_loopback_it_speaks_tls_and_wants_the_token() {
    let mut node = Node::start(OFF_LOOPBACK);
    assert!(node.admin.ip().is_unspecified());
    node.admin.set_ip([127, 0, 0, 1].into());
    let token = node.token();
    assert_eq!(node.get("/v1/status", Some(&token)).unwrap().0, 200);
    assert_eq!(node.get("/v1/status", None).unwrap().0, 401);
    assert_eq!(node.get("/healthz", None).unwrap().0, 200);
    // A client that trusts somebody else is told nothing.
    let ours = node.ca.replace(identity().0.into_bytes());
    assert!(node.get("/healthz", None).is_err());
    // Plain HTTP is told what to do.
    node.ca = None;
    let (status, text) = node.get("/v1/status", Some(&token)).unwrap();
    assert_eq!(status, 400);
    assert!(text.contains("https://"), "{text}");
    node.ca = ours;
    assert_eq!(node.get("/healthz", None).unwrap().0, 200);
}

#[test]
fn the_control_tool_asks_by_token_and_tls() {
    let mut node = Node::start(OFF_LOOPBACK);
    node.admin.set_ip([127, 0, 0, 1].into());
    let ctl = tool("tern-ctl");
    let ask = |admin: &str, more: &[&str]| {
        let mut command = std::process::Command::new(&ctl);
        command.current_dir(node.dir.path()).args(["--admin", admin]).args(more);
        let output = command.env_remove("TERN_ADMIN_TOKEN").output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let run = |more: &[&str]| ask(&node.admin.to_string(), more);
    let (passes, text) = run(&["status", "--ca", "cert.pem", "--token-file", "token"]);
    assert!(passes && text.contains("server key"), "{text}");
    for words in [" serving, up ", "limits.connection_count)", "limits.mail_bytes)", "iB free of "] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let (passes, text) = run(&["status", "--ca", "cert.pem"]);
    assert!(!passes && text.contains("a bearer token is needed"), "{text}");
    let (passes, text) = run(&["status", "--token-file", "token"]);
    assert!(!passes && text.contains("--ca FILE"), "{text}");
    std::fs::write(node.dir.path().join("other.pem"), identity().0).unwrap();
    let (passes, text) = run(&["status", "--ca", "other.pem", "--token-file", "token"]);
    assert!(!passes && text.contains("answers, but") && !text.contains("does not answer"), "{text}");
    // Nobody listens at port 1.
    let (passes, text) = ask("127.0.0.1:1", &["status", "--ca", "cert.pem"]);
    assert!(!passes && text.contains("does not answer: is tern running"), "{text}");
}

#[test]
fn the_generator_asks_by_token_and_tls() {
    let mut node = Node::start(OFF_LOOPBACK);
    node.admin.set_ip([127, 0, 0, 1].into());
    let (load, phone) = (tool("tern-load"), node.phone().to_string());
    let run = |access: &[&str]| {
        let mut command = std::process::Command::new(&load);
        command.current_dir(node.dir.path()).env_remove("TERN_ADMIN_TOKEN");
        command.args(["idle", "--phones", "4", "--hold", "0.1", "--json", "--phone", &phone]);
        let output = command.args(["--admin", &node.admin.to_string()]).args(access).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report, String::from_utf8(output.stderr).unwrap())
    };
    let (code, report, text) = run(&["--ca", "cert.pem", "--token-file", "token"]);
    assert_eq!((code, &report["logged_in"]), (Some(0), &serde_json::json!(4)), "{text}");
    assert!(report["server"]["rss_bytes"].is_u64(), "the server's figures need the token too: {report}");
    let (code, _, text) = run(&["--ca", "cert.pem"]);
    assert!(code == Some(3) && text.contains("a bearer token is needed"), "{code:?}: {text}");
    let (code, _, text) = run(&["--token-file", "token"]);
    assert!(code == Some(3) && text.contains("--ca FILE"), "{code:?}: {text}");
}

#[test]
fn sighup_brings_a_new_token_and_a_new_certificate_and_nothing_that_is_broken() {
    let mut node = Node::start(OFF_LOOPBACK);
    node.admin.set_ip([127, 0, 0, 1].into());
    let (file, old) = (|name: &str| node.dir.path().join(name), node.token());
    let is_open = |node: &Node, token: &str| node.get("/v1/status", Some(token)).is_ok_and(|it| it.0 == 200);
    // A key that is not the certificate's: what was in force stays, the token too.
    let new = "a-new-token-of-some-length";
    std::fs::write(file("token"), new).unwrap();
    let (cert, key) = identity();
    std::fs::write(file("key.pem"), key).unwrap();
    node.signal("-HUP");
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_open(&node, &old) && !is_open(&node, new));
    std::fs::write(file("cert.pem"), &cert).unwrap();
    node.signal("-HUP");
    let before = node.ca.replace(cert.clone().into_bytes());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_open(&node, new) {
        assert!(Instant::now() < deadline, "nothing is reloaded");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_open(&node, &old), "the old token is worth nothing any more");
    node.ca = before;
    assert!(node.get("/healthz", None).is_err(), "nor is the old certificate shown");
    // What has not changed is not said to be new: a copy of the files may be what was read.
    std::fs::write(file("token"), "another-token-of-some-length").unwrap();
    node.signal("-HUP");
    let deadline = Instant::now() + Duration::from_secs(10);
    node.ca = Some(cert.into_bytes());
    while !is_open(&node, "another-token-of-some-length") {
        assert!(Instant::now() < deadline, "nothing is reloaded");
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = node.end();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("reloaded the admin")).collect();
    assert_eq!(told.len(), 2, "{text}");
    for (line, what) in
        told.iter().zip(["token=\"new\" certificate=\"new\"", "token=\"new\" certificate=\"unchanged\""])
    {
        assert!(line.contains(what), "{line}");
    }
}

#[test]
fn tls_to_a_plain_endpoint_fails_and_does_no_harm() {
    let mut node = Node::start(PLAIN);
    node.ca = Some(identity().0.into_bytes());
    assert!(node.get("/healthz", None).is_err());
    node.ca = None;
    assert_eq!(node.get("/healthz", None).unwrap().0, 200);
}

#[test]
fn what_is_missing_off_loopback_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = |config: &str, more: &[&str], code: i32| {
        let output = run(dir.path(), config, more);
        assert_eq!(output.status.code(), Some(code), "{config}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for config in ["admin = \"0.0.0.0:0\"\n", "[admin]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"token\"\n"] {
        let text = stderr(config, &[], 2);
        for key in ["admin.listen = 0.0.0.0:0", "admin.token_file", "admin.tls_cert", "admin.tls_key"] {
            assert!(text.contains(key), "{text}");
        }
    }
    // The flag is no way around it.
    assert!(stderr("", &["--admin", "0.0.0.0:0"], 2).contains("admin.token_file"));
    assert!(!dir.path().join("token").exists(), "nothing was touched");
    let text = stderr(OFF_LOOPBACK, &[], 2);
    assert!(text.contains("admin.tls_cert = cert.pem"), "{text}");
    let (cert, _) = identity();
    std::fs::write(dir.path().join("cert.pem"), cert).unwrap();
    std::fs::write(dir.path().join("key.pem"), identity().1).unwrap();
    let text = stderr(OFF_LOOPBACK, &[], 2);
    assert!(text.contains("admin.tls_key = key.pem"), "another certificate's key: {text}");
}

#[test]
fn slow_clients_are_few_and_hold_up_nobody() {
    // Nor do those of the asker's own address.
    for config in [PLAIN, TOKEN, OFF_LOOPBACK] {
        let mut node = Node::start(config);
        node.admin.set_ip([127, 0, 0, 1].into());
        // More than one address may have, with half a head or half a handshake each.
        let half: &[u8] = match config {
            OFF_LOOPBACK => &[22, 3, 1],
            _ => b"GET /v1/status HTTP/1.1\r\nhost: x\r\nx-slow: ",
        };
        let mut slow: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(node.admin).unwrap()).collect();
        for stream in &mut slow {
            let _ = stream.write_all(half);
        }
        let token = (config != PLAIN).then(|| node.token());
        let (status, metrics) = node.get("/metrics", token.as_deref()).unwrap();
        assert_eq!(status, 200, "{metrics}");
        let start = "tern_admin_refusals_total{reason=\"connections\"} ";
        let refused = metrics.lines().find_map(|line| line.strip_prefix(start)).expect("a counter");
        assert!(refused.parse::<u32>().unwrap() >= 8, "{refused}");
        // The first of them have gone, without an answer.
        slow[0].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let heard = slow[0].read(&mut [0; 64]).map_err(|error| error.kind());
        assert!(matches!(heard, Ok(0) | Err(ErrorKind::ConnectionReset)), "{heard:?}");
    }
}

#[test]
fn why_it_does_not_start_is_said_in_the_logs_form() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[admin]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let last_line = |config: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = run(dir.path(), config, &[]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().last().expect("it says why").to_string()
    };
    let line = last_line(&format!("{listen}[log]\nformat = \"json\"\nlevel = \"error\"\n"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    assert!(line["fields"]["message"].as_str().unwrap().contains("admin = "), "{line}");
    assert!(last_line(&listen).starts_with("tern: admin = "));
}

#[test]
fn the_log_is_json_where_that_is_asked_and_a_storm_is_short() {
    let config = format!("{TOKEN}[log]\nformat = \"json\"\nrepeats_per_s = 1\n");
    let node = Node::start(&config);
    for _ in 0..4 {
        node.get("/v1/status", None).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..5 {
        node.get("/v1/status", None).unwrap();
    }
    let text = node.end();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let wrong =
        lines.iter().filter(|line| line["fields"]["message"].as_str().unwrap().contains("wrong token"));
    let wrong_count = wrong.count() as u64;
    assert!((2..=6).contains(&wrong_count), "nine came:\n{text}");
    let told = lines.iter().filter_map(|line| line["fields"]["suppressed_count"].as_u64());
    assert_eq!(told.sum::<u64>() + wrong_count, 9, "what is not written is told:\n{text}");
    let last = lines.iter().find(|line| line["fields"]["message"] == "repeated warnings were left out");
    let places = last.and_then(|line| line["fields"]["places"].as_str()).expect("told at the end");
    assert!(places.contains(" x tern::admin::"), "{places}");
    assert!(lines.iter().any(|line| line["fields"]["message"] == "serving"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tern"))
        .args(["serve", "--data", dir.path().to_str().unwrap()])
        .env("TERN_LOG_FORMAT", "xml")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TERN_LOG_FORMAT = xml"));
}
