//! The generator against a small server: an honest one gives 0, each dishonest one is found and gives 1.

mod small_server;

use serde_json::Value;
use small_server::{COME_BACK_MS, Habit, SmallServer, TURNED_AWAY_COUNT};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn run(habit: Habit, line: &str) -> (i32, Value) {
    run_as(Command::new(env!("CARGO_BIN_EXE_tern-load")), habit, line)
}

/// With the rings so small that one holds only twelve phones.
fn run_with_many_workers(habit: Habit, line: &str) -> (i32, Value) {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=588:588", env!("CARGO_BIN_EXE_tern-load")]);
    run_as(command, habit, line)
}

fn run_as(mut command: Command, habit: Habit, line: &str) -> (i32, Value) {
    let server = SmallServer::start(habit);
    let output = command
        .args(line.split(' '))
        .args(["--json", "--phone", &server.address.to_string()])
        .output()
        .expect("tern-load runs");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let last = text.lines().last().unwrap_or_default();
    let report = serde_json::from_str(last).unwrap_or(Value::Null);
    let code = output.status.code().expect("an exit code");
    println!("{habit:?}: {code} {last}\n{}", String::from_utf8_lossy(&output.stderr));
    (code, report)
}

const PAIRS: &str = "pairs --phones 4 --window 4 --duration 1 --body 40 --patience 2";

#[test]
fn an_honest_server_is_clean_in_both_modes_and_paces() {
    for line in [PAIRS, "pairs --phones 4 --rate 200 --duration 1 --body 0"] {
        let (code, report) = run(Habit::Honest, line);
        assert_eq!(code, 0);
        assert!(report["sent"].as_u64().unwrap() >= 40);
        for same in ["ticked", "delivered"] {
            assert_eq!(report[same], report["sent"]);
        }
        assert_eq!((report["logged_in"].as_u64(), report["lost"].as_u64()), (Some(4), Some(0)));
        assert!(report["server"].is_null() && report["msgs_per_s"].as_f64().unwrap() > 0.0);
    }
    let (code, report) = run(Habit::Honest, "offline --phones 6 --messages 50 --body 20");
    assert_eq!(code, 0);
    assert_eq!((report["ticked"].as_u64(), report["delivered"].as_u64()), (Some(50), Some(50)));
    assert!(
        report["stored_per_s"].as_f64().unwrap() > 0.0 && report["drained_per_s"].as_f64().unwrap() > 0.0
    );
}

#[test]
fn each_fault_is_found_by_its_name() {
    for (habit, field) in [
        (Habit::Loses, "lost"),
        (Habit::Duplicates, "duplicated"),
        (Habit::Swaps, "misordered"),
        (Habit::Misdelivers, "misdelivered"),
        (Habit::TicksEarly, "early_ticks"),
        (Habit::Changes, "misdelivered"),
    ] {
        let (code, report) = run(habit, PAIRS);
        assert_eq!(code, 1, "{habit:?}");
        assert!(report[field].as_u64().unwrap() >= 1, "{habit:?}: {report}");
    }
}

#[test]
fn cut_connections_and_busy_are_no_fault() {
    for habit in [Habit::Cuts, Habit::IsBusy] {
        let (code, report) = run(habit, "pairs --phones 4 --window 4 --duration 4 --body 40");
        assert_eq!(code, 0, "{habit:?}");
        assert_eq!(report["delivered"], report["sent"]);
        assert!(report["sent"].as_u64().unwrap() >= 60, "{habit:?}: it goes on after the interruption");
    }
}

#[test]
fn messages_whose_answers_are_lost_are_sent_again_on_the_live_connection() {
    let (code, report) = run(Habit::IsBusySilently, "pairs --phones 4 --window 4 --duration 2 --body 40");
    assert_eq!(code, 0);
    assert_eq!(report["delivered"], report["sent"]);
    assert_eq!(report["redelivered"], 0, "nobody had to connect again for it");
}

#[test]
fn phones_that_stay_are_held_and_one_that_is_lost_is_told() {
    let (code, report) = run(Habit::Honest, "idle --phones 8 --hold 1");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(8)));
    assert_eq!(report["hold"]["lost_count"], 0);
    assert!(report["login_per_s"].as_f64().unwrap() > 0.0 && report["server"].is_null());
    let (code, report) = run(Habit::DropsIdle, "idle --phones 8 --hold 4");
    assert_eq!((code, report["hold"]["lost_count"].as_u64()), (3, Some(1)));
}

#[test]
fn a_login_that_was_told_to_wait_counts_from_its_first_connect() {
    let (code, report) = run(Habit::TurnsAway, &format!("idle --phones {TURNED_AWAY_COUNT} --hold 0.1"));
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(u64::from(TURNED_AWAY_COUNT))));
    // What the server asked for, and the least that a phone adds to it.
    let waited_us = f64::from(COME_BACK_MS + 100) * 1e3;
    assert!(report["login_p50_us"].as_f64().unwrap() >= 0.99 * waited_us, "{report}");
}

#[test]
fn every_latency_is_told_with_its_time() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("each.csv");
    let unix_us = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let started_us = unix_us();
    let line = "pairs --phones 30 --rate 300 --duration 1 --body 40 --latencies";
    let (code, report) = run_with_many_workers(Habit::Honest, &format!("{line} {}", path.display()));
    assert_eq!(code, 0);
    let text = std::fs::read_to_string(&path).expect("it was written");
    for (what, field) in [("delivery,", "latency_us"), ("sent,", "tick_latency_us")] {
        let mut took_ns = Vec::new();
        for rest in text.lines().filter_map(|line| line.strip_prefix(what)) {
            let (since, took) = rest.split_once(',').expect("two numbers");
            let since_us: u64 = since.parse().expect("a number");
            assert!((started_us..=unix_us()).contains(&since_us), "{rest}");
            took_ns.push(took.parse::<u64>().expect("a number"));
        }
        assert_eq!(took_ns.len(), 300);
        let max_us = *took_ns.iter().max().expect("there are some") as f64 / 1e3;
        // The report's are of a histogram with three digits.
        let told_us = report[field]["max"].as_f64().unwrap();
        assert!((max_us - told_us).abs() < 0.01 * told_us, "{max_us} {told_us}");
    }
    let (code, _) = run(Habit::Honest, &format!("{PAIRS} --latencies {}", place.path().display()));
    assert_eq!(code, 3, "a directory is no file");
}

#[test]
fn silent_phones_ping_in_time_and_are_answered() {
    let (code, report) = run(Habit::AsksForPings, "idle --phones 8 --hold 4");
    assert_eq!(code, 0);
    let pings = report["hold"]["pings"].as_u64().unwrap();
    assert!((8..=32).contains(&pings), "{pings}");
    assert!(report["hold"]["pongs"].as_u64().unwrap() >= 8);
}

#[test]
fn flapping_phones_lose_nothing() {
    let line = "flap --phones 8 --rate 200 --flaps 20 --duration 3 --body 40";
    let (code, report) = run(Habit::Honest, line);
    assert_eq!((code, report["lost"].as_u64()), (0, Some(0)));
    assert_eq!(report["delivered"], report["sent"]);
    assert_eq!(report["sent"], 600);
    let flaps = report["flaps"].as_u64().unwrap();
    // Of sixty; those for which nobody is online are left out.
    assert!((10..=60).contains(&flaps), "{flaps}");
    let p99 = |field: &str| report[field]["p99"].as_f64().unwrap();
    assert!(p99("latency_us") > p99("steady_latency_us"), "who is away gets its mail later");
    for (habit, field) in [(Habit::Loses, "lost"), (Habit::Duplicates, "duplicated")] {
        let (code, report) = run(habit, line);
        assert_eq!(code, 1, "{habit:?}");
        assert!(report[field].as_u64().unwrap() >= 1, "{habit:?}: {report}");
    }
}

#[test]
fn several_workers_keep_the_same_books() {
    for (line, sent) in [
        ("pairs --phones 30 --rate 600 --duration 1 --body 40", 600),
        ("offline --phones 30 --messages 77 --body 20", 77),
        ("flap --phones 30 --rate 300 --flaps 15 --duration 2 --body 40", 600),
    ] {
        let (code, report) = run_with_many_workers(Habit::Honest, line);
        assert_eq!((code, report["logged_in"].as_u64()), (0, Some(30)), "{line}");
        assert_eq!(
            (report["sent"].as_u64(), report["delivered"].as_u64()),
            (Some(sent), Some(sent)),
            "{line}"
        );
    }
    for (habit, field) in [(Habit::Loses, "lost"), (Habit::Misdelivers, "misdelivered")] {
        let (code, report) =
            run_with_many_workers(habit, "pairs --phones 30 --window 2 --duration 1 --patience 2");
        assert_eq!(code, 1, "{habit:?}");
        assert!(report[field].as_u64().unwrap() >= 1, "{habit:?}: {report}");
    }
    let (code, report) = run_with_many_workers(Habit::Honest, "idle --phones 30 --hold 1");
    assert_eq!((code, report["logged_in"].as_u64()), (0, Some(30)));
}

#[test]
fn a_message_refused_for_good_makes_the_run_incomplete() {
    let (code, report) = run(Habit::Refuses, PAIRS);
    assert_eq!((code, report["lost"].as_u64()), (3, Some(0)));
    assert!(report["unticked"].as_u64().unwrap() >= 1);
}

#[test]
fn silence_and_absence_are_incomplete() {
    let (code, report) =
        run(Habit::FallsSilent, "pairs --phones 4 --window 4 --duration 60 --body 40 --patience 1");
    assert_eq!((code, report["lost"].as_u64()), (3, Some(0)));
    for habit in [Habit::FallsSilent, Habit::Ignores, Habit::Stalls] {
        // Its patience ends when the traffic is over: what was said is not settled.
        let (code, report) = run(habit, "pairs --phones 4 --rate 200 --duration 1 --body 40 --patience 2");
        assert_eq!((code, report["lost"].as_u64()), (3, Some(0)), "{habit:?}: {report}");
        assert!(report["ticked"].as_u64() < report["sent"].as_u64(), "{habit:?}: {report}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tern-load"))
        .args("pairs --phone 127.0.0.1:1 --phones 2 --window 1 --duration 1 --patience 1 --json".split(' '))
        .output()
        .expect("tern-load runs");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    let why = "login: no progress for 1 s; nobody is online at 127.0.0.1:1: Connection refused";
    assert!(said.contains(why), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((report["phones"].as_u64(), report["logged_in"].as_u64()), (Some(2), Some(0)));
}

/// A generator that says where it is, several times a second; killed when dropped.
struct Running {
    child: Child,
    told: BufReader<ChildStderr>,
    _server: SmallServer,
}

impl Running {
    fn start(habit: Habit, line: &str) -> Self {
        let server = SmallServer::start(habit);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern-load"));
        command.args(line.split(' ')).args(["--json", "--progress", "0.1", "--phone"]);
        command.arg(server.address.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tern-load runs");
        let told = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, told, _server: server }
    }

    /// Sends SIGINT once this is said.
    fn interrupt_at(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut lines = self.told.by_ref().lines().map(|line| line.expect("text"));
        lines.find(|line| wanted(line)).expect("it says how far it is");
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Its exit code, and what it said last.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            match self.child.try_wait().expect("the child is ours") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut text = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        (status.code(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_interrupt_ends_the_sending_and_a_second_one_the_process() {
    let line = "pairs --phones 4 --window 4 --duration 100000 --body 40 --patience 1000";
    let mut load = Running::start(Habit::Honest, line);
    load.interrupt_at(|line| line.contains(" traffic: ") && !line.contains(" ticked 0 "));
    let (code, text) = load.end();
    let report: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(code, Some(0), "{report}");
    assert!(report["sent"].as_u64().is_some_and(|sent| sent > 0), "{report}");
    assert_eq!((&report["delivered"], &report["lost"]), (&report["sent"], &0.into()));

    // With more under way than is ever answered.
    let mut load = Running::start(Habit::FallsSilent, line);
    let sent = |line: &str| line.split_once(" sent ")?.1.split(' ').next()?.parse::<u32>().ok();
    load.interrupt_at(|line| sent(line).is_some_and(|count| count >= 20));
    load.interrupt_at(|line| line.contains(" drain: "));
    assert_eq!(load.end().0, Some(130));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_tern-load"))
        .args("pairs --phone 127.0.0.1:1 --phones 3 --window 1 --duration 1".split(' '))
        .output()
        .expect("tern-load runs");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
