//! `cargo xtask test`: everything that can go red.

use crate::fuzz::{self, FuzzArgs};
use crate::tree::{cargo, run};
use crate::{install, sim};
use anyhow::Result;

/// Seconds for each fuzz target.
const FUZZ_SECONDS: u64 = 20;
/// Fresh seeds of the simulated world.
const SEED_COUNT: u64 = 300;
/// What tests and builds need beside cargo, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 12] = [
    // aws-lc and libFuzzer are built from source.
    ("cc", "gcc"),
    ("c++", "g++"),
    // Which sources there are.
    ("git", "git"),
    // Checks the metrics' form.
    ("promtool", "prometheus"),
    // Examples of documents are run.
    ("bash", "bash"),
    ("curl", "curl"),
    // A terminal for `tern-ctl top`.
    ("script", "bsdutils"),
    // Limits of a process, a user without rights, a pipe that nobody reads, room on a drive, attackers that others go
    // before.
    ("prlimit", "util-linux"),
    ("unshare", "util-linux"),
    ("mkfifo", "coreutils"),
    ("df", "coreutils"),
    ("nice", "coreutils"),
];

/// Runs all tests; the first that fails ends it.
pub(crate) fn test() -> Result<()> {
    PROGRAMS.iter().try_for_each(|(program, package)| install::system_program(program, package))?;
    run(cargo().args(["test", "--workspace"]))?;
    // The deliberate bugs have a build of their own: the feature must not reach any other package's tests.
    run(cargo().args(["test", "--release", "-p", "tern-sim", "--features", "bugs"]))?;
    sim::fresh(SEED_COUNT)?;
    fuzz::fuzz(&FuzzArgs { target: None, seconds: FUZZ_SECONDS })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{root, sources};
    use std::collections::BTreeSet;

    #[test]
    fn each_program_that_a_test_runs_is_named() {
        let mut run = BTreeSet::new();
        for path in sources(".rs").unwrap().iter().filter(|path| path.iter().any(|part| part == "tests")) {
            let Ok(text) = std::fs::read_to_string(root().join(path)) else { continue };
            let programs = text.split("Command::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
            run.extend(programs.map(String::from));
        }
        assert!(run.contains("script"), "the eye sees: {run:?}");
        // A shell and procps are taken for granted.
        run.retain(|program| !["sh", "kill"].contains(&program.as_str()));
        let named = PROGRAMS.map(|(program, _)| program);
        let unnamed: Vec<_> = run.iter().filter(|program| !named.contains(&program.as_str())).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}
