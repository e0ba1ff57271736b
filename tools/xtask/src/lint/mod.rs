//! `cargo xtask lint`: what reviews should not have to look for.

mod house;
mod promises;

use crate::install;
use crate::tree::{cargo, output_of, root, run};
use anyhow::{Result, bail};

/// The packages whose binaries are shipped.
const SHIPPED: [&str; 3] = ["tern-server", "tern-load", "tern-ctl"];

/// A name and what it does.
type Check = (&'static str, fn() -> Result<Looked>);

/// What a check that found nothing wrong has seen.
enum Looked {
    /// All that it is for.
    Well,
    /// Nothing: for this reason it could not look.
    Skipped(&'static str),
}

/// Runs every check and tells all that failed, not only the first.
pub(crate) fn lint() -> Result<()> {
    let checks: [Check; 8] = [
        ("format", || format().map(well)),
        ("clippy", || clippy().map(well)),
        ("dependencies", || dependencies().map(well)),
        ("advisories", advisories),
        ("deliberate bugs", || bugs_stay_out().map(well)),
        ("unsafe", || house::unsafe_only_in_ring(&root()).map(well)),
        ("ignored tests", || house::nothing_ignored(&root()).map(well)),
        ("promises", || promises::check(&root()).map(well)),
    ];
    let results = checks.map(|(name, check)| {
        let result = check();
        println!("lint: {name}: {}", verdict(&result));
        (name, result)
    });
    println!("lint: {}", summary(&results)?);
    Ok(())
}

const fn well((): ()) -> Looked {
    Looked::Well
}

fn verdict(result: &Result<Looked>) -> String {
    match result {
        Ok(Looked::Well) => "ok".into(),
        Ok(Looked::Skipped(why)) => format!("SKIPPED, {why}"),
        Err(error) => format!("FAILED: {error:#}"),
    }
}

/// The last line: what was skipped is no success.
fn summary(results: &[(&'static str, Result<Looked>)]) -> Result<String> {
    let names = |of: fn(&Result<Looked>) -> bool| -> Vec<&str> {
        results.iter().filter(|(_, result)| of(result)).map(|(name, _)| *name).collect()
    };
    let failed = names(Result::is_err);
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    let skipped = names(|result| matches!(result, Ok(Looked::Skipped(_))));
    let well = format!("{} checks ok", results.len() - skipped.len());
    Ok(if skipped.is_empty() { well } else { format!("{well}, SKIPPED: {}", skipped.join(", ")) })
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
    install::cargo_tool("cargo-deny", "0.20.2")?;
    // It reads the manifests of all platforms' crates, also of those that nothing here is built from.
    run(cargo().args(["fetch", "--locked"]))?;
    run(cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

/// The advisory database is somewhere else: where it cannot be reached, that is said and nothing fails.
fn advisories() -> Result<Looked> {
    let mut fetch = cargo();
    fetch.args(["deny", "fetch", "db"]);
    match output_of(&mut fetch) {
        Ok(_) => run(cargo().args(["deny", "check", "advisories"])).map(well),
        Err(_) => Ok(Looked::Skipped("the database cannot be reached")),
    }
}

/// The simulator's deliberate bugs are a feature; no shipped binary may have it, whatever features it is built with.
fn bugs_stay_out() -> Result<()> {
    // First that the eye sees them where they are: else finding none would prove nothing.
    let seen = with_bugs("tern-sim", &["--features", "bugs"])?;
    for package in ["tern-sim", "tern-core", "tern-storage"] {
        if !seen.iter().any(|line| line.starts_with(&format!("{package} "))) {
            bail!("cargo tree does not show the deliberate bugs of {package}");
        }
    }
    for package in SHIPPED {
        for features in [&[][..], &["--all-features"]] {
            if let Some(line) = with_bugs(package, features)?.first() {
                bail!("{package} has the deliberate bugs: {line}");
            }
        }
    }
    Ok(())
}

/// Lines of a package's feature tree that have the deliberate bugs. `-e features` alone shows only features that a
/// dependency asks for, not those that another feature switches on: so each package also tells its own.
fn with_bugs(package: &str, features: &[&str]) -> Result<Vec<String>> {
    let mut tree = cargo();
    tree.args(["tree", "-e", "features,normal,build", "--prefix", "none", "-f", "{p} features={f}"]);
    let tree = output_of(tree.args(["-p", package]).args(features))?;
    if !tree.starts_with(package) {
        bail!("cargo tree says nothing about {package}");
    }
    Ok(tree.lines().filter(|line| has_bugs(line)).map(String::from).collect())
}

fn has_bugs(line: &str) -> bool {
    let own = line.split_once(" features=").map_or("", |(_, list)| list);
    own.split([',', ' ']).any(|feature| feature == "bugs") || line.contains("feature \"bugs\"")
}

#[cfg(test)]
mod tests {
    use super::{Looked, has_bugs, summary, verdict};

    #[test]
    fn what_was_skipped_is_never_called_ok() {
        let skipped = || ("advisories", Ok(Looked::Skipped("nobody is there")));
        assert_eq!(verdict(&skipped().1), "SKIPPED, nobody is there");
        let text = summary(&[("format", Ok(Looked::Well)), skipped()]).unwrap();
        assert_eq!(text, "1 checks ok, SKIPPED: advisories");
        let failed = summary(&[("format", Err(anyhow::anyhow!("x"))), skipped()]).unwrap_err();
        assert_eq!(failed.to_string(), "lint failed: format");
        assert_eq!(summary(&[("format", Ok(Looked::Well))]).unwrap(), "1 checks ok");
    }

    #[test]
    fn a_feature_is_seen_in_each_form() {
        for line in [
            "tern-core v0.1.0 (/bugs/core) features=bugs",
            "tern-core v0.1.0 (/x) features=a,bugs (*)",
            "tern-core feature \"bugs\"",
        ] {
            assert!(has_bugs(line), "{line}");
        }
        for line in [
            "tern-core v0.1.0 (/bugs/core) features=",
            "tern-core feature \"default\" (*)",
            "x features=debugs",
        ] {
            assert!(!has_bugs(line), "{line}");
        }
    }
}
