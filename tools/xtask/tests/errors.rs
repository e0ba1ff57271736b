//! How `cargo xtask` says what is wrong.
#![allow(missing_docs)]

use std::process::Command;

#[test]
fn an_error_is_told_in_words_whatever_the_environment_wants() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let one = allowed.trim().split(['-', ',']).next().unwrap();
    // A measurement wants two hardware threads: with one of them it builds nothing.
    let mut alone = Command::new("taskset");
    alone.args(["--cpu-list", one, env!("CARGO_BIN_EXE_xtask"), "bench", "pairs"]).env("RUST_BACKTRACE", "1");
    let output = alone.output().expect("taskset is part of every Linux system (util-linux)");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "Error: a measurement needs two hardware threads\n");
}
