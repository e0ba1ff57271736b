//! Tools that tests and checks need: installed where this user may, named where not.

use crate::tree::{cargo, run, works};
use anyhow::{Context, Result};
use std::process::Command;

/// A cargo subcommand from its package: this version, with what its authors locked. One that is there already is taken
/// as it is.
pub(crate) fn cargo_tool(package: &str, version: &str) -> Result<()> {
    let subcommand = package.strip_prefix("cargo-").unwrap_or(package);
    if works(cargo().args([subcommand, "--version"])) {
        return Ok(());
    }
    let mut install = cargo();
    install.args(["install", "--locked", package, "--version", version]);
    run(&mut install).with_context(|| format!("{package} {version} is needed"))
}

/// A program of a Debian package.
pub(crate) fn system_program(program: &str, package: &str) -> Result<()> {
    if works(Command::new(program).arg("--version")) {
        return Ok(());
    }
    // Nobody is there to answer a package's questions.
    let apt =
        |args: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    let install = ["install", "-y", "--no-install-recommends", package];
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    installed.with_context(|| format!("{program} is needed: install it (Debian package {package})"))
}
