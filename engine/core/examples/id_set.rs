//! The longest single step of the set that remembers message ids: `cargo run --release -p tern-core --example id_set`.

// The set is private to the crate; the example measures the very same source.
#[allow(dead_code, unreachable_pub)]
#[path = "../src/id_set.rs"]
mod id_set;

extern crate alloc;

use id_set::IdSet;
use std::time::{Duration, Instant};

/// Spread as keyed hashes are.
fn hash(n: u64) -> u64 {
    let mixed = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Times as many inserts: how long the longest took, and all of them.
fn fill(set: &mut IdSet, count: u64) -> (Duration, Duration) {
    let start = Instant::now();
    let (mut longest, mut before) = (Duration::ZERO, start);
    for n in 0..count {
        set.insert_new(hash(n));
        let now = Instant::now();
        longest = longest.max(now - before);
        before = now;
    }
    (longest, start.elapsed())
}

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(4_000_000);
    for (name, expected) in [("grown from nothing", 0), ("as large as the one before", count as usize)] {
        let mut set = IdSet::for_count(expected);
        let (longest, all) = fill(&mut set, count);
        let each_ns = all.as_nanos() / u128::from(count);
        println!("{name}: {count} ids, {each_ns} ns each, the longest step {longest:?}");
        let mut longest = Duration::ZERO;
        let mut before = Instant::now();
        for table in set.into_tables() {
            drop(table);
            let now = Instant::now();
            longest = longest.max(now - before);
            before = now;
        }
        println!("  freed: the longest step {longest:?}");
    }
}
