//! The generator against a small server: an honest one gives 0, each dishonest one is found and gives 1.

mod small_server;

use serde_json::Value;
use small_server::{Habit, SmallServer};
use std::process::Command;

fn run(habit: Habit, line: &str) -> (i32, Value) {
    let server = SmallServer::start(habit);
    let output = Command::new(env!("CARGO_BIN_EXE_tern-load"))
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
    let output = Command::new(env!("CARGO_BIN_EXE_tern-load"))
        .args("pairs --phone 127.0.0.1:1 --phones 2 --window 1 --duration 1 --patience 1 --json".split(' '))
        .output()
        .expect("tern-load runs");
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((report["phones"].as_u64(), report["logged_in"].as_u64()), (Some(2), Some(0)));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_tern-load"))
        .args("pairs --phone 127.0.0.1:1 --phones 3 --window 1 --duration 1".split(' '))
        .output()
        .expect("tern-load runs");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
