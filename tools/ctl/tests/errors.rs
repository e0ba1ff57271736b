//! How `tern-ctl` says what is wrong.
#![allow(missing_docs)]

use std::process::Command;

#[test]
fn an_error_is_one_line_and_a_code_whatever_the_environment_wants() {
    let run = |words: &[&str]| {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_tern-ctl"));
        let output = ctl.args(words).env("RUST_BACKTRACE", "1").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // Nobody listens at port 1.
    let (code, said) = run(&["--admin", "127.0.0.1:1", "status"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("tern-ctl: http://127.0.0.1:1 does not answer"), "{said}");
    assert!(said.contains("onnection refused") && said.lines().count() == 1, "{said}");
    assert_eq!(run(&["--admin", "nowhere", "status"]).0, Some(2));
    assert_eq!(run(&["--help"]).0, Some(0));
}
