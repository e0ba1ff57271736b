//! `deploy/ADMIN.md`: its examples are run against real nodes, as a reader would type them.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../../../../deploy/ADMIN.md");
const ROUTES: &str = include_str!("../../src/admin/mod.rs");
/// Texts that are others each time.
const OTHERS_EACH_TIME: [&str; 6] = ["admin", "boot_id", "phone", "public", "server_key", "version"];
/// A list that a few messages may not get into: it is of a sample.
const SAMPLED: &str = "busiest";

/// A command of the page, and what it says of the answer.
struct Example {
    command: &'static str,
    status: u16,
    answer: &'static str,
}

fn examples() -> Vec<Example> {
    let example = |text: &'static str| {
        let (command, rest) = text.split_once("\n```\n")?;
        let (_, rest) = rest.split_once("Answer, ")?;
        let status = rest.get(..3)?.parse().ok()?;
        let (_, block) = rest.split_once("\n```")?;
        let (answer, _) = block.split_once('\n')?.1.split_once("\n```\n")?;
        Some(Example { command, status, answer })
    };
    let texts = PAGE.split("\n```sh\n").skip(1);
    texts.map(|text| example(text).unwrap_or_else(|| panic!("no answer to {text}"))).collect()
}

/// The nodes that the page speaks of.
struct Nodes {
    plain: Node,
    /// It has a certificate and a token.
    guarded: Node,
    /// Where the client's copies of these lie.
    place: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let made = rcgen::generate_simple_self_signed(["chat.example.org".into()]).expect("a certificate");
        let file = |name: &str| place.path().join(name).display().to_string();
        std::fs::write(file("admin.pem"), made.cert.pem()).expect("a file");
        std::fs::write(file("admin.key"), made.signing_key.serialize_pem()).expect("a file");
        let config = format!(
            "[admin]\ntoken_file = \"{}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
            file("token"),
            file("admin.pem"),
            file("admin.key")
        );
        let guarded = Node::start(Setup { config, ..Setup::shards(1) });
        Self { plain: Node::start(Setup::shards(2)), guarded, place }
    }

    /// Runs a command as it stands on the page: status and answer.
    fn run(&self, command: &str) -> (u16, String) {
        let script = format!("curl() {{ command curl $FLAGS \"$@\"; }}\n{command}");
        let to = |name: &str, admin: SocketAddr| format!("--connect-to {name}:7323:{admin}");
        let flags = format!(
            "--silent --show-error --noproxy * --write-out \\n%{{http_code}} {} {}",
            to("127.0.0.1", self.plain.admin),
            to("chat.example.org", self.guarded.admin)
        );
        let mut shell = Command::new("sh");
        // Without a look at the files that `*` may mean.
        shell.args(["-fc", &script]).env("FLAGS", flags).current_dir(self.place.path());
        let output = shell.output().expect("a shell");
        assert!(
            output.status.success(),
            "curl is needed: cargo xtask test installs it; {command}: {output:?}"
        );
        let text = String::from_utf8(output.stdout).expect("text");
        let (answer, status) = text.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), answer.to_string())
    }
}

/// Mail that waits for somebody who is away.
fn leave_mail(node: &Node) {
    let come = |name: &str, key: u8| Phone::log_in(node.phone, name, key, &Way::default());
    let dora = come("dora", 8).account;
    let mut carol = come("carol", 9);
    assert_eq!(carol.next(), Heard::Drained);
    for number in 0..20 {
        carol.send(dora, id(number), &[7; 100]);
        assert!(matches!(carol.next(), Heard::Sent(_)));
    }
    let is_away = || {
        let accounts = node.json("/v1/accounts");
        let mut accounts = accounts["accounts"].as_array().expect("a list").iter();
        accounts.any(|account| account["name"] == "dora" && account["online"] == 0)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_away() {
        assert!(Instant::now() < deadline, "dora has gone and is online");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What an answer has that the page does not say, or has otherwise.
fn differs(shown: &Value, found: &Value, at: &str) -> Option<String> {
    let is_same = match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            let mut shown_keys = shown.keys().filter(|key| *key != "...");
            if let Some(key) = shown_keys.find(|key| !found.contains_key(*key)) {
                return Some(format!("{at}.{key} is not in the answer"));
            }
            let unsaid = found.keys().find(|key| !shown.contains_key(*key));
            if let Some(key) = unsaid.filter(|_| !shown.contains_key("...")) {
                return Some(format!("{at}.{key} is not on the page"));
            }
            let mut both = shown.iter().filter_map(|(key, shown)| Some((key, shown, found.get(key)?)));
            return both.find_map(|(key, shown, found)| differs(shown, found, key));
        }
        (Value::Array(shown), Value::Array(found)) => {
            let kinds: Vec<&Value> = shown.iter().filter(|one| **one != "...").collect();
            let has_more = kinds.len() < shown.len();
            if at != SAMPLED && (found.len() < kinds.len() || !has_more && found.len() > kinds.len()) {
                return Some(format!("{at} has {} of {}", found.len(), kinds.len()));
            }
            // In this order, and then more of the last kind.
            let last = kinds.len().saturating_sub(1);
            let mut pairs =
                found.iter().enumerate().filter_map(|(n, one)| Some((*kinds.get(n.min(last))?, one)));
            return pairs.find_map(|(shown, found)| differs(shown, found, at));
        }
        (Value::Number(_), Value::Number(_)) => true,
        (Value::String(_), Value::String(_)) if OTHERS_EACH_TIME.contains(&at) => true,
        (shown, found) => shown == found,
    };
    (!is_same).then(|| format!("{at} is {found}, and {shown} on the page"))
}

/// A text without what stands in quotes.
fn outline(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn compare(example: &Example, found: &str) {
    let Example { command, answer, .. } = example;
    if let Ok(shown) = serde_json::from_str::<Value>(answer) {
        let found_json =
            serde_json::from_str(found).unwrap_or_else(|error| panic!("{command}: {error}: {found}"));
        let difference = differs(&shown, &found_json, "");
        assert!(difference.is_none(), "{command}: {}: {found}", difference.unwrap_or_default());
    } else {
        assert!(!answer.starts_with('{'), "no JSON: {answer}");
        let more = answer.strip_suffix("\n...");
        let lines = |text: &str| text.lines().map(outline).collect::<Vec<_>>();
        let (shown, mut found) = (lines(more.unwrap_or(answer)), lines(found));
        if more.is_some() {
            found.truncate(shown.len());
        }
        assert_eq!(found, shown, "{command}");
    }
}

#[test]
fn the_examples_get_the_answers_that_the_page_shows() {
    let (nodes, examples) = (Nodes::start(), examples());
    assert!(examples.len() >= 14, "{} examples", examples.len());
    for example in &examples {
        if example.command.contains("/v1/top") {
            leave_mail(&nodes.plain);
        }
        let (status, found) = nodes.run(example.command);
        assert_eq!(status, example.status, "{}: {found}", example.command);
        compare(example, &found);
    }
}

#[test]
fn each_request_is_on_the_page() {
    let routes = ROUTES.split(".route(\"").skip(1).flat_map(|rest| {
        let (path, rest) = rest.split_once('"').expect("a path");
        let methods = rest.lines().next().unwrap_or_default();
        let has = |method: &&str| methods.contains(&format!("{}(", method.to_lowercase()));
        ["GET", "POST", "PUT", "PATCH", "DELETE"]
            .into_iter()
            .filter(has)
            .map(move |method| format!("{method} {path}"))
    });
    let routes: BTreeSet<String> = routes.collect();
    assert!(routes.len() >= 9 && routes.contains("POST /v1/accounts"), "{routes:?}");
    let sections: Vec<&str> = PAGE.split("\n## ").skip(1).collect();
    let about: BTreeSet<String> = sections
        .iter()
        .filter_map(|section| section.lines().next())
        .filter(|title| title.contains(" /"))
        .map(String::from)
        .collect();
    assert_eq!(about, routes);
    for route in &routes {
        assert!(PAGE.contains(&format!("\n| [`{route}`](#")), "{route} is not in the page's table");
        let section =
            sections.iter().find(|section| section.lines().next() == Some(route)).expect("just seen");
        let path = route.split_once(' ').expect("a path").1.replace("{name}", "");
        let has_example = section.split("\n```sh\n").skip(1).any(|text| {
            text.split("\n```").next().is_some_and(|command| command.contains(&format!(":7323{path}")))
        });
        assert!(has_example, "{route} has no example");
    }
}
