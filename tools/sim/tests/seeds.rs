//! A few seeds without bugs, and that a seed reproduces its run.

use tern_sim::campaign;
use tern_sim::world::{self, Bugs};

#[test]
fn the_first_seeds_pass() {
    for seed in 0..60 {
        let played = campaign::play(seed, Bugs::default(), false);
        assert_eq!(played.failure(), None, "seed {seed}");
    }
}

#[test]
fn a_seed_played_twice_leaves_the_same_trace() {
    let mut traces = Vec::new();
    for seed in 0..20 {
        let first = world::run(seed, Bugs::default(), false);
        assert_eq!(first, world::run(seed, Bugs::default(), false), "seed {seed}");
        traces.push(first.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 20, "different seeds leave different traces");
}
