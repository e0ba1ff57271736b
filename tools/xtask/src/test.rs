//! `cargo xtask test`: everything that can go red.

use crate::fuzz::{self, FuzzArgs};
use crate::tree::{cargo, run};
use crate::{install, sim};
use anyhow::Result;

/// Seconds for each fuzz target.
const FUZZ_SECONDS: u64 = 20;
/// Fresh seeds of the simulated world.
const SEED_COUNT: u64 = 300;

/// Runs all tests; the first that fails ends it.
pub(crate) fn test() -> Result<()> {
    // aws-lc and libFuzzer are built from source.
    install::system_program("cc", "gcc")?;
    install::system_program("c++", "g++")?;
    // Checks the metrics' form.
    install::system_program("promtool", "prometheus")?;
    run(cargo().args(["test", "--workspace"]))?;
    // The deliberate bugs have a build of their own: the feature must not reach any other package's tests.
    run(cargo().args(["test", "--release", "-p", "tern-sim", "--features", "bugs"]))?;
    sim::fresh(SEED_COUNT)?;
    fuzz::fuzz(&FuzzArgs { target: None, seconds: FUZZ_SECONDS })
}
