//! `bench hostile`: what phones notice of hostile clients. The same paced traffic over the same server, quiet and then
//! while one kind of attack goes on; for each kind in turn.
//!
//! The attackers (`bench/src/hostile`) come from other addresses and share the generator's hardware thread, at a lower
//! priority: what they cost the server is what is asked for, not what they cost the generator. The kernel's work for what
//! comes in is put on the server's hardware thread where that is allowed ([`super::steering`]).
//!
//! Two measures are judged, because each sees what the other does not. The phones' p99 to delivery has all that a message
//! waits for, also what the generator's own hardware thread adds. The server's own begins with the turn that takes the
//! message, so that the wait for that turn is in the phones' only, and ends with its `sent` tick: that waits until the
//! recipient has acknowledged, a round trip through the generator, or for the group commit, whichever is first.

use super::floor::{Pace, Traffic, ratio};
use super::measured::{Measured, grown, messages_in};
use super::steering::Steering;
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::attackers::Attackers;
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Phones where nothing else is said.
const PHONE_COUNT: u32 = 1_000;
/// Messages per second over all phones.
const PER_S: u32 = 2_000;
/// Longest wait until the phones talk.
const TALK_WAIT: Duration = Duration::from_secs(60);
/// What a shard counts is told a moment later.
const TELL_WAIT: Duration = Duration::from_millis(200);
/// A run shorter than this is over before half prefaces are given up.
const SECONDS_MIN: u32 = 5;
/// The limits that a public service is advised to have, on loopback too. The phones' own address logs in anew for every
/// measurement, so it may begin more handshakes at once; half prefaces end within a run.
const CONFIG: &str = concat!(
    "open_registration = true\n",
    include_str!("../../../../deploy/public.toml"),
    "limit_loopback = true\naddress_handshakes_burst = 100000\nlogin_ms = 3000\n",
);
/// Connections that the server has room for beside the phones'. What half records may take goes by it.
const ROOM_COUNT: u32 = 3_000;
/// The attacks, the server's counters that must tell of each (or what the attackers heard from it), and how often for
/// each connection at least: a connect passes while its address's burst lasts, what is given up after three seconds is
/// counted for a part of the run only, every other piece of garbage fails in its preface, and memory and tables fill up
/// first.
const ATTACKS: [(&str, &[(&str, f64)]); 17] = [
    ("connects", &[("refused_address_connects", 0.2)]),
    ("garbage", &[("protocol_errors", 0.3), ("handshakes_failed", 0.3)]),
    ("slowloris", &[("timeouts", 0.2)]),
    ("tickets", &[("tickets_refused", 0.5)]),
    ("records", &[("protocol_errors", 0.5)]),
    ("bodies", &[("too_large", 0.5)]),
    ("halves", &[("timeouts", 0.2)]),
    ("acks", &[("bad_acknowledgements", 0.5)]),
    ("floods", &[("floods", 0.5)]),
    ("replays", &[("logins_unproven", 0.5)]),
    ("strangers", &[("accepted", 0.9)]),
    ("crowds", &[("refused_connections", 0.3)]),
    ("dropouts", &[("answered", 0.9), ("login_timeouts", 0.2)]),
    ("thieves", &[("logins_name_taken", 0.3), ("logins_wrong_key", 0.3)]),
    ("meddlers", &[("refused_asks", 200.0)]),
    ("trickles", &[("refused_memory", 0.2)]),
    ("sleepers", &[("logins", 0.9)]),
];
/// Before the sleepers come, their phones write to themselves for so long, so that the server's ticks for that are not
/// among those that are measured; and so many messages wait then at least.
const WRITERS_SECONDS: u32 = 6;
const SLEEPERS_MAIL_MIN: u64 = 4_000;
/// So many times the quiet server's may a p99 be, the median of the runs; and what is judged by it.
const RATIO_MAX: f64 = 2.0;
const JUDGED: [(&str, &str); 2] = [("p99_ratio", "to delivery"), ("in_server_p99_ratio", "in the server")];
/// Fewer runs have no median that says anything.
const RUNS_MIN: u32 = 3;
/// The part of the connections that were wanted which must have been begun, and of these that must have come through.
const ATTACKED_MIN: f64 = 0.9;
/// What tells of an attack that was too weak, as on a machine that is too slow for it, and of one that the server did
/// not count; why.
const TOO_WEAK: &str = "too_weak";
const NOT_COUNTED: &str = "not_counted";

/// One run with a fresh server; `only` these attacks, where any is named.
pub(super) fn run(phones: Option<u32>, only: &[String], seconds: u32) -> Result<Value> {
    if let Some(unknown) = only.iter().find(|name| ATTACKS.iter().all(|attack| attack.0 != name.as_str())) {
        bail!("--only {unknown}, allowed: {}", ATTACKS.map(|attack| attack.0).join(", "));
    }
    if seconds < SECONDS_MIN {
        bail!("--seconds {seconds}, allowed: {SECONDS_MIN} or more");
    }
    let phones = phones.unwrap_or(PHONE_COUNT);
    let data = place()?;
    let config = data.path().join("tern.toml");
    std::fs::write(&config, configuration(phones)).context("the configuration")?;
    let steering = Steering::to_server()?;
    let plan =
        NodePlan { config: Some(config), ..NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)) };
    let node = Node::start(plan)?;
    let traffic = Traffic { phones, pace: Pace::Rate(PER_S), seconds };
    let mut result = Map::new();
    for (attack, wanted) in ATTACKS {
        if !only.is_empty() && only.iter().all(|name| name != attack) {
            continue;
        }
        if attack == "sleepers" {
            write_to_sleepers(&node)?;
        }
        let quiet = measure(&node, traffic, None)?;
        let attacked = measure(&node, traffic, Some(attack))?;
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let counted = grown(&attacked.before, &attacked.after, &names);
        let unlike = unlike_an_attack(&attacked.others, &counted, wanted)?;
        let mut found = compare(&quiet, &attacked, counted);
        if let Some((field, why)) = unlike {
            eprintln!("xtask: {attack}: {why}");
            found[field] = json!(why);
        }
        eprintln!("xtask: {}", line(attack, &found));
        result.insert(attack.into(), found);
    }
    node.drain()?;
    result.insert("loopback_on".into(), json!(steering.told()));
    Ok(Value::Object(result))
}

/// Makes the sleepers' accounts, and more mail for each than its window.
fn write_to_sleepers(node: &Node) -> Result<()> {
    let found = Attackers::start(node, "writers", WRITERS_SECONDS, Some(GENERATOR_CPU))?.finish()?;
    std::thread::sleep(TELL_WAIT);
    let waiting = node.get("/v1/status")?["totals"]["mail_count_now"].as_u64();
    if waiting.is_none_or(|count| count < SLEEPERS_MAIL_MIN) {
        bail!("{waiting:?} messages wait for the sleepers, not {SLEEPERS_MAIL_MIN}: {found}");
    }
    Ok(())
}

/// Every phone, and so many others, have room; memory for half records is as short as it may be.
fn configuration(phones: u32) -> String {
    let connections = phones + ROOM_COUNT;
    let edge_bytes = 4096 * u64::from(connections) + (128 << 10);
    format!("{CONFIG}connection_count = {connections}\nedge_bytes = {edge_bytes}\n")
}

/// Fails when an attack of any run was none, and when the phones noticed more of one than they may, by either measure.
pub(super) fn judge(medians: &Value, runs: u32) -> Result<()> {
    let mut wrong: Vec<String> =
        [TOO_WEAK, NOT_COUNTED].into_iter().flat_map(|field| all_that_are(field, medians)).collect();
    if runs < RUNS_MIN {
        eprintln!("xtask: not judged: {runs} runs, {RUNS_MIN} make a median");
    } else {
        let told = ATTACKS.iter().filter(|(attack, _)| medians[*attack].is_object());
        let beyond: Vec<String> = told.flat_map(|(attack, _)| beyond(attack, &medians[*attack])).collect();
        if !beyond.is_empty() {
            let all = beyond.join(", ");
            wrong.push(format!("p99 against the quiet server, at most {RATIO_MAX} x: {all}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

/// What is beyond of one attack's medians, or is not there.
fn beyond(attack: &str, medians: &Value) -> Vec<String> {
    let wrong = JUDGED.iter().filter_map(|(field, which)| match medians[*field].as_f64() {
        Some(ratio) if ratio <= RATIO_MAX => None,
        Some(ratio) => Some(format!("{attack} {which}: {ratio} x")),
        None => Some(format!("{attack} {which}: none")),
    });
    wrong.collect()
}

/// Attacks that came through and that the server did not count, which no slow machine is an excuse for; those that were
/// too weak are told only.
pub(super) fn uncounted(result: &Value) -> Vec<String> {
    for why in all_that_are(TOO_WEAK, result) {
        eprintln!("xtask: SKIPPED, this machine is too slow for it: {why}");
    }
    all_that_are(NOT_COUNTED, result)
}

fn all_that_are(field: &str, result: &Value) -> Vec<String> {
    let why = |attack: &str| result[attack][field].as_str().map(|why| format!("attack {attack}: {why}"));
    ATTACKS.iter().filter_map(|(attack, _)| why(attack)).collect()
}

/// Why the attack was none, or not one that the server counted: a figure about such a one says nothing.
fn unlike_an_attack(
    attack: &Value,
    counted: &Value,
    wanted: &[(&str, f64)],
) -> Result<Option<(&'static str, String)>> {
    let of = |name: &str| attack[name].as_f64().with_context(|| format!("no {name} in {attack}"));
    let (wanted_per_s, begun_per_s) = (of("wanted_per_s")?, of("begun_per_s")?);
    if begun_per_s < ATTACKED_MIN * wanted_per_s {
        let why = format!("{begun_per_s} connections a second were begun, {wanted_per_s} were wanted");
        return Ok(Some((TOO_WEAK, why)));
    }
    let (begun, connected) = (of("begun")?, of("connected")?);
    if connected < ATTACKED_MIN * begun {
        return Ok(Some((TOO_WEAK, format!("of {begun} connections {connected} came through"))));
    }
    for (name, each) in wanted {
        let count = counted[*name].as_f64().or(attack[*name].as_f64()).unwrap_or(0.0);
        if count < each * begun {
            let why =
                format!("{begun} connections, of which the server counted {count} as {name}: {counted}");
            return Ok(Some((NOT_COUNTED, why)));
        }
    }
    Ok(None)
}

/// The attackers begin when the phones talk.
fn measure(node: &Node, traffic: Traffic, attack: Option<&str>) -> Result<Measured> {
    let silent = messages_in(&node.get("/v1/status")?);
    let mut load = Load::start(node, Some(GENERATOR_CPU), "pairs", &traffic.options())?;
    let started = Instant::now();
    let before = loop {
        let status = node.get("/v1/status")?;
        if messages_in(&status) != silent {
            break status;
        }
        if load.has_ended()? || started.elapsed() > TALK_WAIT {
            bail!("the phones do not talk");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let attackers = attack
        .map(|attack| Attackers::start(node, attack, traffic.seconds, Some(GENERATOR_CPU)))
        .transpose()?;
    let phones = clean(load.finish()?)?;
    let attackers = attackers.map_or(Ok(Value::Null), Attackers::finish)?;
    std::thread::sleep(TELL_WAIT);
    Ok(Measured { phones, others: attackers, before, after: node.get("/v1/status")? })
}

fn compare(quiet: &Measured, attacked: &Measured, counted: Value) -> Value {
    json!({
        "p99_ratio": ratio(attacked.p99_us(), quiet.p99_us()),
        "in_server_p99_ratio": ratio(attacked.in_server_us(0.99), quiet.in_server_us(0.99)),
        "quiet": quiet.to_json(),
        "under_attack": attacked.to_json(),
        "counted": counted,
        "attack": attacked.others,
    })
}

fn line(attack: &str, found: &Value) -> String {
    let figures = |part: &str| {
        let (latency, inside) = (&found[part]["latency_us"], &found[part]["in_server_us"]);
        format!(
            "p50 {} p99 {} max {} us, in the server p99 {} us",
            latency["p50"], latency["p99"], latency["max"], inside["p99"]
        )
    };
    format!(
        "{attack}, {}/s: quiet {}; under attack {}; p99 x {}, in the server x {}; counted {}",
        found["attack"]["begun_per_s"],
        figures("quiet"),
        figures("under_attack"),
        found["p99_ratio"],
        found["in_server_p99_ratio"],
        found["counted"]
    )
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::status;
    use super::*;

    fn measured(p99: f64, slow: u64) -> Measured {
        Measured {
            phones: json!({ "latency_us": { "p50": 1.0, "p99": p99, "max": 9.0 }, "phones": 4 }),
            others: json!({ "begun_per_s": 7.0 }),
            before: status(1, 5, 5),
            after: status(4, 5 + 99, 5 + slow),
        }
    }

    #[test]
    fn compares_the_phones_that_are_not_hostile() {
        let (quiet, attacked) = (measured(200.0, 1), measured(300.0, 101));
        let counted = grown(&attacked.before, &attacked.after, &[]);
        let found = compare(&quiet, &attacked, counted);
        assert_eq!((&found["p99_ratio"], &found["in_server_p99_ratio"]), (&json!(1.5), &json!(1.98)));
        assert_eq!(
            line("slowloris", &found),
            "slowloris, 7.0/s: quiet p50 1.0 p99 200.0 max 9.0 us, in the server p99 100.0 us; under attack p50 1.0 \
             p99 300.0 max 9.0 us, in the server p99 198.0 us; p99 x 1.5, in the server x 1.98; counted \
             {\"timeouts\":3}"
        );
    }

    #[test]
    fn an_attack_that_did_not_come_through_is_no_figure() {
        let attack = |begun: u32, connected: u32| json!({ "wanted_per_s": 100.0, "begun_per_s": begun / 5, "begun": begun, "connected": connected });
        let said = |attack: &Value, counted: u32| {
            let found = unlike_an_attack(attack, &json!({ "floods": counted }), &[("floods", 0.5)]).unwrap();
            found.map_or_else(|| "ok".into(), |(field, why)| format!("{field}: {why}"))
        };
        assert_eq!(said(&attack(500, 500), 250), "ok");
        assert!(said(&attack(440, 440), 440).starts_with("too_weak: 88 connections a second were begun"));
        assert_eq!(said(&attack(500, 440), 440), "too_weak: of 500 connections 440 came through");
        let uncounted = said(&attack(500, 500), 249);
        assert!(
            uncounted.starts_with("not_counted: 500 connections, of which the server counted 249 as floods")
        );
        assert!(unlike_an_attack(&json!({}), &json!({}), &[]).is_err());
        let heard =
            json!({ "wanted_per_s": 1.0, "begun_per_s": 1.0, "begun": 9, "connected": 9, "answered": 9 });
        let found = unlike_an_attack(&heard, &json!({}), &[("answered", 0.9)]).unwrap();
        assert_eq!(found, None, "what the attackers heard counts");
    }

    #[test]
    fn attacks_that_were_none_fail_at_the_end_and_smoke_only_for_what_was_not_counted() {
        let good = json!({ "p99_ratio": 1.0, "in_server_p99_ratio": 1.0 });
        let with = |field: &str| json!({ "p99_ratio": 1.0, "in_server_p99_ratio": 1.0, field: "why" });
        let run = json!({ "garbage": good, "floods": with(TOO_WEAK), "thieves": with(NOT_COUNTED) });
        // One run of three is enough.
        let quiet = json!({ "garbage": good, "floods": good, "thieves": good });
        let medians = crate::median::of(&[quiet.clone(), run.clone(), quiet]);
        for runs in [1, 3] {
            let said = judge(&medians, runs).unwrap_err().to_string();
            assert_eq!(said, "attack floods: why; attack thieves: why");
        }
        assert_eq!(uncounted(&run), ["attack thieves: why"]);
    }

    #[test]
    fn an_attack_that_phones_notice_fails_and_is_named() {
        let of = |phones: Value, server: Value| json!({ "p99_ratio": phones, "in_server_p99_ratio": server });
        let (at_most, more) = (json!(2.0), json!(2.001));
        let medians = json!({
            "floods": of(json!(1.0), more.clone()),
            "acks": of(at_most.clone(), at_most.clone()),
            "halves": of(json!(1.0), Value::Null),
            "garbage": of(more.clone(), json!(1.0)),
            "records": of(more, json!(3.5)),
            "bench": "hostile",
        });
        let said = judge(&medians, 3).unwrap_err().to_string();
        let all = "garbage to delivery: 2.001 x, records to delivery: 2.001 x, records in the server: 3.5 x, \
                   halves in the server: none, floods in the server: 2.001 x";
        assert_eq!(said, format!("p99 against the quiet server, at most 2 x: {all}"));
        assert!(judge(&medians, 2).is_ok(), "two runs are no median");
        assert!(judge(&json!({ "acks": of(at_most.clone(), at_most) }), 3).is_ok());
    }

    #[test]
    fn the_server_takes_the_configuration() {
        let text: toml::Table = toml::from_str(&configuration(1_000)).unwrap();
        assert_eq!(text["limits"]["connection_count"].as_integer(), Some(4_000));
        // As `Limits::edge_bytes_min` asks for, and no more.
        assert_eq!(text["limits"]["edge_bytes"].as_integer(), Some(4_000 * 4_096 + 131_072));
    }
}
