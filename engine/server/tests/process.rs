//! The real binary: command line, ready line, exit codes, data directory and admin endpoint.

use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tern_node::{Ended, Node};

struct Tern {
    node: Node,
    admin: String,
}

impl Tern {
    fn start(data: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.args(["serve", "--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        let node = Node::start(command.arg(data).args(more)).unwrap();
        Self { admin: format!("http://{}", node.ready().admin), node }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}{path}", self.admin);
        let mut response = match (method, body) {
            ("GET", _) => agent.get(&url).call(),
            ("DELETE", _) => agent.delete(&url).call(),
            (_, body) => {
                let text = body.map(Value::to_string).unwrap_or_default();
                agent.post(&url).header("content-type", "application/json").send(text)
            }
        }
        .unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, text) = self.call(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Ends it by this signal.
    fn end_by(mut self, signal: &str) -> Ended {
        let pid = self.node.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.node.wait_for_the_end().unwrap()
    }

    fn terminate(self) -> Ended {
        self.node.drain().unwrap()
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tern")).args(args).output().unwrap()
}

fn key(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for args in [
        &["serve", "--xmpp", "127.0.0.1:0"][..],
        &["serve", "--admin", "0.0.0.0:0"],
        &["serve", "--data", "a", "--data", "b"],
        &["config", "check", "--config", "/no/such/file"],
        &["check", "DIR"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn start_up_failures_end_with_3_and_damage_with_5() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let node = Tern::start(&data, &["--shards", "1"]);
    let serve = ["serve", "--phone", "127.0.0.1:0", "--admin"];
    let directory = data.to_str().unwrap();
    let second = run(&[&serve[..], &["127.0.0.1:0", "--data", directory]].concat());
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let taken = node.admin.strip_prefix("http://").unwrap();
    let other = place.path().join("other");
    let port = run(&[&serve[..], &[taken, "--shards", "1", "--data", other.to_str().unwrap()]].concat());
    assert_eq!(port.status.code(), Some(3), "{port:?}");
    let phone = &node.node.ready().phone.to_string();
    let serve_there = ["serve", "--admin", "127.0.0.1:0", "--phone", phone, "--shards", "1", "--data"];
    let port = run(&[&serve_there[..], &[other.to_str().unwrap()]].concat());
    assert_eq!(port.status.code(), Some(3), "{port:?}");
    assert!(String::from_utf8_lossy(&port.stderr).contains(phone), "{port:?}");
    assert!(!other.exists(), "nothing is made for a node that cannot serve");
    drop(node);
    let dealt = run(&[&serve[..], &["127.0.0.1:0", "--shards", "3", "--data", directory]].concat());
    assert_eq!(dealt.status.code(), Some(3), "{dealt:?}");
    assert!(String::from_utf8_lossy(&dealt.stderr).contains("made with 1"));
    std::fs::write(data.join("MANIFEST"), "format").unwrap();
    let damaged = run(&[&serve[..], &["127.0.0.1:0", "--data", directory]].concat());
    assert_eq!(damaged.status.code(), Some(5), "{damaged:?}");
}

#[test]
fn two_nodes_do_not_share_the_phones_of_one_port() {
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("copy");
    // A directory that is there already, as one that was copied.
    assert_eq!(Tern::start(&copy, &["--shards", "1"]).terminate().status.code(), Some(0));
    let node = Tern::start(&place.path().join("data"), &["--shards", "2"]);
    let phone = &node.node.ready().phone.to_string();
    let mut second = Command::new(env!("CARGO_BIN_EXE_tern"));
    second.args(["serve", "--admin", "127.0.0.1:0", "--phone", phone, "--data"]).arg(&copy);
    let error = Node::start(&mut second).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains(phone), "{error}");
    drop(node);
    Node::start(&mut second).unwrap();
}

#[test]
fn sigterm_and_sigint_drain_and_the_process_serves_again() {
    let place = tempfile::tempdir().unwrap();
    let node = Tern::start(place.path(), &["--shards", "2"]);
    let line = &node.node.ready().line;
    assert!(line.starts_with("ready phone=127.0.0.1:") && line.contains(" admin=127.0.0.1:"), "{line}");
    assert!(line.ends_with(&format!(" pid={}\n", node.node.pid())), "{line}");
    let first = node.json("GET", "/v1/process", None);
    let server_key = node.json("GET", "/v1/server-key", None);
    assert_eq!(node.terminate().status.code(), Some(0));
    // Without --shards: the directory knows.
    let node = Tern::start(place.path(), &[]);
    assert_eq!(node.json("GET", "/v1/server-key", None), server_key);
    assert_ne!(node.json("GET", "/v1/process", None)["boot_id"], first["boot_id"]);
    // Control-C says the same.
    assert_eq!(node.end_by("-INT").status.code(), Some(0));
}

#[test]
fn what_the_endpoint_tells() {
    let place = tempfile::tempdir().unwrap();
    let node = Tern::start(place.path(), &["--shards", "2"]);
    assert_eq!(node.call("GET", "/healthz", None), (200, "ok\n".into()));
    let process = node.json("GET", "/v1/process", None);
    for field in ["cpu_user_us", "cpu_system_us", "rss_bytes", "logins", "log_bytes_written", "log_commits"] {
        assert!(process[field].is_u64(), "{field}: {process}");
    }
    assert!(process["rss_bytes"].as_u64().unwrap() > 1 << 20);
    let status = node.json("GET", "/v1/status", None);
    assert_eq!(status["shards"].as_array().unwrap().len(), 2);
    let metrics = node.call("GET", "/metrics", None).1;
    assert!(metrics.contains("tern_logins_total{shard=\"1\"} 0"), "{metrics}");
    assert_eq!(status["shards"][1]["latency"]["sent"].as_array().unwrap().len(), 30);
    assert!(status["shards"][0]["thread"]["ring_enters"].as_u64().unwrap() > 0);
    let hottest = node.json("GET", "/v1/top", None);
    assert_eq!(hottest["shards"][1], json!({ "shard": 1, "complete": true, "mailboxes": [], "busiest": [] }));
    assert_eq!(node.call("GET", "/v1/top?count=0", None).0, 400);
    assert_eq!(node.call("GET", "/v1/other", None).0, 404);
}

#[test]
fn accounts_are_made_listed_removed_and_survive_a_kill() {
    let place = tempfile::tempdir().unwrap();
    let mut node = Tern::start(place.path(), &["--shards", "2"]);
    let account = |name: &str, keys: &[String]| json!({ "name": name, "device_keys": keys });
    let body = json!({ "accounts": [
        account("anna", &[key(1)]), account("bert", &[key(2), key(3)]), account("anna", &[key(1)]),
        account("anna", &[key(9)]), account("No Name", &[key(4)]), account("carl", &["xy".into()]),
        account("dora", &[]),
    ]});
    let made = node.json("POST", "/v1/accounts", Some(&body));
    let results: Vec<&str> =
        made["results"].as_array().unwrap().iter().map(|one| one["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["created", "created", "existing", "taken", "bad_name", "bad_keys", "bad_keys"]);
    let id = made["results"][0]["id"].clone();
    assert!(id.as_str().unwrap().parse::<u64>().is_ok());

    let many: Vec<Value> = (0..1000).map(|n| account(&format!("load-{n}"), &[key(7)])).collect();
    node.json("POST", "/v1/accounts", Some(&json!({ "accounts": many })));
    node.node.kill().unwrap();
    let node = Tern::start(place.path(), &[]);
    let mut names = Vec::new();
    let mut after = "0".to_string();
    loop {
        let page = node.json("GET", &format!("/v1/accounts?after={after}&limit=300"), None);
        names.extend(page["accounts"].as_array().unwrap().iter().map(|one| one["name"].to_string()));
        match page["next"].as_str() {
            Some(next) => after = next.into(),
            None => break,
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1002);

    node.json("DELETE", "/v1/accounts/anna", None);
    assert_eq!(node.call("DELETE", "/v1/accounts/anna", None).0, 404);
    let again = node.json("POST", "/v1/accounts", Some(&json!({ "accounts": [account("anna", &[key(1)])] })));
    assert_eq!(again["results"][0]["result"], "created");
    assert_ne!(again["results"][0]["id"], id, "an id is never given out twice");
}

#[test]
fn a_page_is_in_the_order_of_ids_and_asks_no_more_shards_than_it_needs() {
    let place = tempfile::tempdir().unwrap();
    let node = Tern::start(place.path(), &["--shards", "3"]);
    let make = |numbers: Range<u32>| {
        let one = |n| json!({ "name": format!("load-{n}"), "device_keys": [key(7)] });
        let accounts: Vec<Value> = numbers.map(one).collect();
        node.json("POST", "/v1/accounts", Some(&json!({ "accounts": accounts })));
    };
    let page = |after: &str, limit: u32| {
        let page = node.json("GET", &format!("/v1/accounts?after={after}&limit={limit}"), None);
        let id = |account: &Value| account["id"].as_str().unwrap().parse::<u64>().unwrap();
        let ids: Vec<u64> = page["accounts"].as_array().unwrap().iter().map(id).collect();
        (ids, page["next"].as_str().map(ToString::to_string))
    };
    // How often the last shard was asked until there were so many accounts: what a shard reports is of one moment.
    let asked = |account_count: u64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = node.json("GET", "/v1/status", None);
            if status["totals"]["accounts_now"] == account_count {
                return status["shards"][2]["thread"]["control_requests"].as_u64().unwrap();
            }
            assert!(Instant::now() < deadline, "{}", status["totals"]);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    make(0..90);
    let before = asked(90);
    const COUNT: u64 = 50;
    (0..COUNT).for_each(|_| assert_eq!(page("0", 1).0.len(), 1));
    make(90..120);
    assert!(asked(120) < before + COUNT, "the first account is the first shard's");
    let (all, next) = page("0", 1_000);
    assert_eq!((all.len(), next), (120, None));
    assert!(all.is_sorted());
    let (mut paged, mut after) = (Vec::new(), "0".to_string());
    loop {
        let (ids, next) = page(&after, 7);
        assert!(ids.len() == 7 || next.is_none(), "a page that is not the last is full: {ids:?}");
        paged.extend(ids);
        let Some(next) = next else { break };
        after = next;
    }
    assert_eq!(paged, all);
}

#[test]
fn wrong_requests_are_answered() {
    let place = tempfile::tempdir().unwrap();
    let node = Tern::start(place.path(), &["--shards", "1"]);
    for (method, path, body, status) in [
        ("POST", "/v1/accounts", Some(json!({ "accounts": 7 })), 400),
        ("POST", "/v1/accounts", Some(json!({ "acounts": [] })), 400),
        ("POST", "/v1/accounts", Some(json!({ "accounts": [], "pad": "x".repeat(17 << 20) })), 413),
        // The answer comes although most of it is not read when it is refused.
        ("POST", "/v1/accounts", Some(json!({ "accounts": [], "pad": "x".repeat(40 << 20) })), 413),
        ("GET", "/v1/accounts?limit=0", None, 400),
        ("GET", "/v1/accounts?limit=x", None, 400),
        ("DELETE", "/v1/accounts/No%20Name", None, 400),
        ("DELETE", "/v1/accounts/%FF", None, 400),
        ("DELETE", "/v1/accounts/nobody", None, 404),
    ] {
        let (found, text) = node.call(method, path, body.as_ref());
        assert_eq!(found, status, "{method} {path}: {text}");
        assert!(serde_json::from_str::<Value>(&text).unwrap()["error"].is_string(), "{text}");
    }
    for number in ["/v1/accounts?limit=x", "/v1/accounts?after=-1", "/v1/top?count=1.5"] {
        let text = node.call("GET", number, None).1;
        assert!(text.contains("allowed: a whole number"), "{text}");
    }
    assert_eq!(node.call("GET", "/v1/other", None), (404, String::new()));
    assert_eq!(node.call("DELETE", "/v1/accounts", None), (405, String::new()));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let untyped = agent.post(&format!("{}/v1/accounts", node.admin)).send("{}").unwrap();
    assert_eq!(untyped.status().as_u16(), 415);
}

#[test]
fn only_ready_goes_to_stdout() {
    let place = tempfile::tempdir().unwrap();
    let ended = Tern::start(place.path(), &["--shards", "1"]).terminate();
    assert_eq!((ended.stdout.as_str(), ended.status.code()), ("", Some(0)), "{}", ended.stderr);
    assert!(ended.stderr.contains("serving"), "the log is elsewhere: {}", ended.stderr);
}
