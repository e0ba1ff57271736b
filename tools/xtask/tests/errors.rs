//! How `cargo xtask` says what is wrong.
#![allow(missing_docs)]

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::process::Command;

#[test]
fn an_error_is_told_in_words_whatever_the_environment_wants() {
    // A measurement wants two hardware threads: with one of them it builds nothing. A child inherits what this thread may
    // use.
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap()).unwrap();
    sched_setaffinity(this, &one).unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = xtask.args(["bench", "pairs"]).env("RUST_BACKTRACE", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "Error: a measurement needs two hardware threads\n");
}
