//! `cargo xtask fuzz`: cargo-fuzz on the stable toolchain, without a sanitizer.
//!
//! Without one the coverage instrumentation needs no nightly flag; what is lost is the address sanitizer, and there
//! is no unsafe code in what is fuzzed.

use crate::install;
use crate::tree::{cargo, output_of, root, run};
use anyhow::{Result, bail};
use clap::Args;

/// What to fuzz, for how long.
#[derive(Args, Debug)]
pub(crate) struct FuzzArgs {
    /// One target; without it all of them, one after the other.
    pub(crate) target: Option<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// Fuzzes; a crash ends it, and its input stays in `fuzz/artifacts`.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<()> {
    install::system_program("c++", "g++")?;
    install::cargo_tool("cargo-fuzz", "0.13.2")?;
    let all: Vec<String> =
        output_of(cargo().args(["fuzz", "list"]))?.lines().map(|line| line.trim().to_string()).collect();
    let targets = match &args.target {
        Some(one) if all.contains(one) => vec![one.clone()],
        Some(one) => bail!("no target {one}; there are {}", all.join(", ")),
        None => all,
    };
    if targets.is_empty() {
        bail!("{} has no targets", root().join("fuzz").display());
    }
    let seconds = format!("-max_total_time={}", args.seconds);
    for target in &targets {
        run(cargo().args(["fuzz", "run", "-s", "none", target, "--", &seconds, "-print_final_stats=1"]))?;
    }
    println!("{} fuzz targets, {} s each: no crash", targets.len(), args.seconds);
    Ok(())
}
