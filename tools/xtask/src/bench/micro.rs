//! `bench mesh` and `bench wheel`: single parts of the engine, in programs of their own.
//!
//! They are examples of the crates that own the parts, and compile the parts' own source files: nothing has to be public
//! for their sake.

use super::floor::json_of;
use crate::tree::{cargo, run};
use anyhow::Result;
use serde_json::Value;

/// Builds both.
pub(super) fn build() -> Result<()> {
    for (package, example) in [("tern-core", "wheel"), ("tern-driver", "mesh")] {
        run(cargo().args(["build", "--release", "-p", package, "--example", example]))?;
    }
    Ok(())
}

/// Envelopes from one thread to another.
pub(super) fn mesh(_seconds: u32) -> Result<Value> {
    example("tern-driver", "mesh")
}

/// The timer wheel.
pub(super) fn wheel(_seconds: u32) -> Result<Value> {
    example("tern-core", "wheel")
}

fn example(package: &str, name: &str) -> Result<Value> {
    json_of(cargo().args(["run", "--quiet", "--release", "-p", package, "--example", name]))
}
