//! `cargo xtask lint`: what reviews should not have to look for.

mod house;
mod promises;

use crate::install;
use crate::tree::{cargo, output_of, root, run};
use anyhow::{Result, bail};

/// The packages whose binaries are shipped.
const SHIPPED: [&str; 3] = ["tern-server", "tern-load", "tern-ctl"];

/// A name and what it does.
type Check = (&'static str, fn() -> Result<()>);

/// Runs every check and tells all that failed, not only the first.
pub(crate) fn lint() -> Result<()> {
    let checks: [Check; 8] = [
        ("format", format),
        ("clippy", clippy),
        ("dependencies", dependencies),
        ("advisories", advisories),
        ("deliberate bugs", bugs_stay_out),
        ("unsafe", || house::unsafe_only_in_ring(&root())),
        ("ignored tests", || house::nothing_ignored(&root())),
        ("promises", || promises::check(&root())),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match check() {
            Ok(()) => println!("lint: {name}: ok"),
            Err(error) => {
                println!("lint: {name}: FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--"]).args([
        "-D",
        "warnings",
        "-D",
        "clippy::undocumented_unsafe_blocks",
    ]))
}

/// deny.toml: directions between crates, licences, sources.
fn dependencies() -> Result<()> {
    install::cargo_tool("cargo-deny")?;
    run(cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

/// The advisory database is somewhere else: where it cannot be reached, that is said and nothing fails.
fn advisories() -> Result<()> {
    let mut fetch = cargo();
    fetch.args(["deny", "fetch", "db"]);
    match output_of(&mut fetch) {
        Ok(_) => run(cargo().args(["deny", "check", "advisories"])),
        Err(_) => {
            println!("lint: advisories: SKIPPED, the database cannot be reached");
            Ok(())
        }
    }
}

/// The simulator's deliberate bugs are a feature; no shipped binary may have it.
fn bugs_stay_out() -> Result<()> {
    for package in SHIPPED {
        let tree = output_of(cargo().args(["tree", "--edges", "features,normal,build", "-p", package]))?;
        if !tree.contains(package) {
            bail!("cargo tree says nothing about {package}");
        }
        if let Some(line) = tree.lines().find(|line| line.contains("feature \"bugs\"")) {
            bail!("{package} has the deliberate bugs: {}", line.trim());
        }
    }
    Ok(())
}
