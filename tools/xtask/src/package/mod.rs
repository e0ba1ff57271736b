//! `cargo xtask package`: builds the Debian package and lives through it: installed, started as the unit says, logged in
//! to, stopped, removed. All in a throw-away root: nothing of this system is touched, and no root rights are needed.
//! Where there is root, a systemd of its own lives through that once more. Then a container image is made of it, and
//! served from.

mod calls;
mod container;
mod documents;
mod image;
mod live;
mod root;
mod serving;
mod skips;
mod unit;

use crate::install;
use crate::tree::{binary, build, cargo, output_of, root as tree, words};
use anyhow::{Context, Result, bail};
use clap::Args;
use root::Root;
use serving::Serving;
use skips::Skips;
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
/// Where the package's documentation is, laid out as in the sources.
const DOCUMENTATION: &str = "/usr/share/doc/tern/";
/// What a removed package leaves: its data, and its configuration until it is purged.
const DATA: &str = "/var/lib/tern/";

/// What to do about the binaries.
#[derive(Args, Debug)]
pub(crate) struct PackageArgs {
    /// Take the release binaries that are there.
    #[arg(long)]
    no_build: bool,
    /// Fail when a part is left out for want of a program; what this system forbids is only said.
    #[arg(long)]
    strict: bool,
}

/// Builds and tries the package; the last line names it.
pub(crate) fn package(args: &PackageArgs) -> Result<()> {
    install::cargo_tool("cargo-deb", "3.8.0")?;
    install::system_program("unshare", "util-linux")?;
    if !args.no_build {
        build(&["tern-server", "tern-load", "tern-ctl"])?;
    }
    let started = Instant::now();
    let skips = Skips::default();
    let package = build_package()?;
    check_contents(&package)?;
    let root = Root::new()?;
    let before = root.files()?;
    install_package(&root, &package)?;
    let unit = Unit::read(&root.inside("/usr/lib/systemd/system/tern.service"))?;
    unit.verify(&root, &skips)?;
    unit.is_tight(&skips)?;
    serve(&root, &unit, true, &skips)?;
    // What an upgrade does, but for the files.
    install_package(&root, &package)?;
    serve(&root, &unit, false, &skips)?;
    remove(&root, &before)?;
    live::live(&package, &skips)?;
    image::image(&package, &skips)?;
    println!(
        "package: built, installed, served, removed in {} s{}: {}",
        started.elapsed().as_secs(),
        skips.summary(args.strict)?,
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
    documents::check(package)
}

fn install_package(root: &Root, package: &Path) -> Result<()> {
    let asked = root.dpkg(&["--install", package.to_str().context("a path of letters")?])?;
    expect_asked("--install", &asked, &["daemon-reload", "try-restart tern.service"])
}

fn expect_asked(action: &str, asked: &[String], expected: &[&str]) -> Result<()> {
    if asked == expected {
        Ok(())
    } else {
        bail!("dpkg {action} asked systemd for {asked:?}, not {expected:?}")
    }
}

/// Serves as the unit says, with the installed files; only the ports are others: the real ones may be in use here.
fn serve(root: &Root, unit: &Unit, first: bool, skips: &Skips) -> Result<()> {
    let serving = Serving::start(root, &unit.command)?;
    serving.is_healthy()?;
    if first {
        serving.carries_messages()?;
    } else {
        serving.has_accounts()?;
    }
    match serving.stop()? {
        Some(calls) => calls::are_allowed(&calls, &tree().join("deploy/seccomp.json"), unit),
        None => {
            // The second time is no news.
            if first {
                skips.for_want("system calls", "strace does not work here (Debian package strace)");
            }
            Ok(())
        }
    }
}

/// After a removal only data and configuration are left, after a purge only data.
fn remove(root: &Root, before: &[String]) -> Result<()> {
    let manifest = format!("{DATA}MANIFEST");
    let steps = [
        ("--remove", &["/etc/tern/tern.toml"][..], &["disable --now tern.service", "daemon-reload"][..]),
        ("--purge", &[], &[]),
    ];
    for (action, left, expected) in steps {
        expect_asked(action, &root.dpkg(&[action, "tern"])?, expected)?;
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
