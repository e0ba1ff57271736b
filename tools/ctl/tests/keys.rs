//! The key files that `tern-ctl` makes.
#![allow(missing_docs)]

use std::process::Command;

#[test]
fn a_key_that_could_not_be_written_leaves_no_file() {
    let place = tempfile::tempdir().unwrap();
    // As a full drive refuses it: the file can be made, and nothing be written. Nobody is asked then.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tern-ctl")]);
    let output = limited.args(["account", "add", "anna"]).current_dir(place.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("key file anna.key") && said.contains("File too large"), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "half a key would never be replaced");
}
