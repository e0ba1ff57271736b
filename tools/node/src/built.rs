//! Binaries of other packages, for tests that need them.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A binary of another package, built as the one `beside` it was: cargo builds only what a test's own package needs.
///
/// # Errors
/// It does not build.
pub fn built(beside: &Path, package: &str, binary: &str) -> Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.args(["build", "--quiet", "--package", package, "--bin", binary]);
    if beside.parent().and_then(Path::file_name).is_some_and(|profile| profile == "release") {
        build.arg("--release");
    }
    let status = build.status().context("cargo")?;
    let path = beside.with_file_name(binary);
    if !status.success() || !path.exists() {
        bail!("{} of {package} is not built ({status})", path.display());
    }
    Ok(path)
}
