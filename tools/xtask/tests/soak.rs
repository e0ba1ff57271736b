//! `cargo xtask soak`, as somebody runs it: a real server and the real generator, and one that tells of a loss.
#![allow(missing_docs)]

use serde_json::Value;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tern_node::built;

/// A short round with kills and a drain in it.
const SEED: &str = "88";

/// The directory of the programs, as the tests' own package was built.
fn programs() -> PathBuf {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let server = built(xtask, "tern-server", "tern").expect("the server builds");
    built(xtask, "tern-load", "tern-load").expect("the generator builds");
    server.parent().expect("a directory").into()
}

/// One round with these programs: the exit code, the last line, and what was said.
fn round(binaries: &Path, target: &Path) -> (Option<i32>, Value, String) {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.args(["soak", "--seed", SEED, "--rounds", "1", "--binaries"]).arg(binaries);
    let output = xtask.env("CARGO_TARGET_DIR", target).output().expect("xtask runs");
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}{said}");
    let last = text.lines().last().unwrap_or_default();
    (output.status.code(), serde_json::from_str(last).unwrap_or(Value::Null), said.into_owned())
}

#[test]
fn a_round_is_lived_through_and_its_sum_is_told() {
    let target = tempfile::tempdir().expect("a temporary directory");
    let (code, sum, _) = round(&programs(), target.path());
    assert_eq!(code, Some(0));
    assert_eq!((&sum["rounds"], &sum["lost"], &sum["failed"]), (&1.into(), &0.into(), &Value::Array(vec![])));
    assert!(sum["sent"].as_u64().unwrap() > 0 && sum["sent"] == sum["delivered"], "{sum}");
    assert!(sum["kills"].as_u64().unwrap() > 0 && sum["drains"].as_u64().unwrap() > 0, "{sum}");
    let left = std::fs::read_dir(target.path().join("soak")).expect("where rounds live");
    assert_eq!(left.count(), 0, "nothing is kept of a round that went well");
}

#[test]
fn a_loss_is_told_and_everything_of_its_round_is_kept() {
    let programs = programs();
    let place = tempfile::tempdir().expect("a temporary directory");
    let (generator, target) = (place.path().join("tern-load"), place.path().join("target"));
    symlink(programs.join("tern"), place.path().join("tern")).expect("a link to the server");
    std::fs::write(&generator, "#!/bin/sh\necho '{\"sent\":2,\"lost\":1,\"delivered\":0}'\nexit 1\n")
        .expect("a script");
    std::fs::set_permissions(&generator, PermissionsExt::from_mode(0o755)).expect("it may be run");
    let (code, sum, said) = round(place.path(), &target);
    assert_eq!(code, Some(1));
    assert_eq!(sum["failed"][0].to_string(), SEED);
    assert!(said.contains("lost: 1") && said.contains("kept: "), "{said}");
    let kept = target.join("soak").join(format!("seed-{SEED}"));
    for name in ["plan.txt", "tern.toml", "server.log", "load-0.log", "data/MANIFEST"] {
        assert!(kept.join(name).exists(), "{name}");
    }
}

#[test]
fn each_configuration_is_one_that_a_server_takes() {
    let tern = programs().join("tern");
    let place = tempfile::tempdir().expect("a temporary directory");
    let config = place.path().join("tern.toml");
    for seed in 0..40 {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.args(["soak", "--dry-run", "--rounds", "1", "--seed", &seed.to_string()]);
        let plan = String::from_utf8(xtask.output().expect("xtask runs").stdout).expect("a plan is text");
        // Between its head and the loads.
        std::fs::write(&config, plan.split("\n\n").nth(1).expect("a configuration")).expect("a file");
        let shown = Command::new(&tern).args(["config", "show", "--config"]).arg(&config).output();
        let shown = shown.expect("tern runs");
        assert!(shown.status.success(), "{plan}{}", String::from_utf8_lossy(&shown.stderr));
    }
}
