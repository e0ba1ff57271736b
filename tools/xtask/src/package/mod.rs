//! `cargo xtask package`: builds the Debian package and lives through it: installed, started as the unit says, logged in
//! to, stopped, removed. All in a throw-away root: nothing of this system is touched, and no root rights are needed.

mod calls;
mod root;
mod serving;
mod unit;

use crate::install;
use crate::tree::{binary, build, cargo, output_of, root as tree, words};
use anyhow::{Context, Result, bail};
use root::Root;
use serving::Serving;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use unit::Unit;

/// What must be in the package, and nothing else outside the documentation.
const FILES: [&str; 5] = [
    "/etc/tern/tern.toml",
    "/usr/bin/tern",
    "/usr/bin/tern-ctl",
    "/usr/bin/tern-load",
    "/usr/lib/systemd/system/tern.service",
];
/// Where the package's documentation is.
const DOCUMENTATION: &str = "/usr/share/doc/tern/";
/// What a removed package leaves: its data, and its configuration until it is purged.
const DATA: &str = "/var/lib/tern/";

/// Builds and tries the package; the last line names it.
pub(crate) fn package() -> Result<()> {
    install::cargo_tool("cargo-deb")?;
    install::system_program("unshare", "util-linux")?;
    build(&["tern-server", "tern-load", "tern-ctl"])?;
    let started = Instant::now();
    let package = build_package()?;
    check_contents(&package)?;
    let root = Root::new()?;
    let before = root.files()?;
    root.dpkg(&["--install", path(&package)?])?;
    let unit = Unit::read(&root.inside("/usr/lib/systemd/system/tern.service"))?;
    unit.verify(&root)?;
    serve(&root, &unit)?;
    remove(&root, &before)?;
    println!(
        "package: built, installed, served, removed in {} s: {}",
        started.elapsed().as_secs(),
        package.display()
    );
    Ok(())
}

fn build_package() -> Result<PathBuf> {
    let directory = binary("tern").ancestors().nth(2).context("the target directory")?.join("debian");
    let mut deb = cargo();
    deb.args(["deb", "--no-build", "-p", "tern-server", "--output"]).arg(&directory);
    eprintln!("xtask: {}", words(&deb));
    let said = output_of(&mut deb)?;
    Ok(said.lines().last().context("cargo deb names no package")?.into())
}

fn check_contents(package: &Path) -> Result<()> {
    let list = output_of(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let mut files: Vec<String> = list
        .lines()
        .filter(|line| !line.starts_with('d'))
        .filter_map(|line| Some(format!("/{}", line.split_whitespace().nth(5)?.trim_start_matches("./"))))
        .filter(|name| !name.starts_with(DOCUMENTATION))
        .collect();
    files.sort_unstable();
    if files != FILES {
        bail!("the package has {files:?}, it should have {FILES:?}");
    }
    Ok(())
}

/// Serves as the unit says, with the installed files; only the ports are others, which may be in use here.
fn serve(root: &Root, unit: &Unit) -> Result<()> {
    for first in [true, false] {
        let serving = Serving::start(root, &unit.command)?;
        serving.is_healthy()?;
        if first {
            serving.carries_messages()?;
        } else {
            serving.has_accounts()?;
        }
        let trace = serving.stop()?;
        match trace {
            Some(calls) => calls::are_allowed(&calls, &tree().join("deploy/seccomp.json"), unit)?,
            None => println!("package: system calls: SKIPPED, strace does not work here"),
        }
    }
    Ok(())
}

/// After a removal only data and configuration are left, after a purge only data.
fn remove(root: &Root, before: &[String]) -> Result<()> {
    let manifest = format!("{DATA}MANIFEST");
    for (action, left) in [("--remove", &["/etc/tern/tern.toml"][..]), ("--purge", &[])] {
        root.dpkg(&[action, "tern"])?;
        let after = root.files()?;
        let others: Vec<&String> = after
            .iter()
            .filter(|file| {
                !before.contains(file) && !file.starts_with(DATA) && !left.contains(&file.as_str())
            })
            .collect();
        if !others.is_empty() {
            bail!("after dpkg {action} there is still {others:?}");
        }
        if !after.contains(&manifest) || !left.iter().all(|file| after.iter().any(|other| other == file)) {
            bail!("dpkg {action} took the data or the configuration: {after:?}");
        }
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not Unicode", path.display()))
}
