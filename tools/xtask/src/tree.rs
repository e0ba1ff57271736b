//! Where things are in this tree, and how commands are run in it.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The top of the tree.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tools/xtask is two levels below the top").to_path_buf()
}

/// A release binary of the workspace. It is there after [`build`].
pub(crate) fn binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release").join(name)
}

/// Builds release binaries of these packages.
///
/// One call of cargo for each, so that a feature of one package never reaches the binary of another.
pub(crate) fn build(packages: &[&str]) -> Result<()> {
    packages.iter().try_for_each(|package| run(cargo().args(["build", "--release", "-p", package])))
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Says the command, runs it with its output shown, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("xtask: {}", words(command));
    let status = command.status().with_context(|| words(command))?;
    if !status.success() {
        bail!("{} ended with {status}", words(command));
    }
    Ok(())
}

/// Runs a command quietly and gives its standard output; its standard error is shown.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| words(command))?;
    if !output.status.success() {
        bail!("{} ended with {}", words(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| words(command))
}

/// Whether a command starts and ends well; its output is not shown.
pub(crate) fn works(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Source files under version control, or that will be, relative to the top.
pub(crate) fn sources(suffix: &str) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-co", "--exclude-standard"]);
    let list = output_of(&mut git)?;
    Ok(list.lines().filter(|line| line.ends_with(suffix)).map(PathBuf::from).collect())
}

/// The command as a person would type it.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once(program.to_string_lossy()).chain(args).collect::<Vec<_>>().join(" ")
}
