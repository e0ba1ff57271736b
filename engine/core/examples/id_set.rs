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

/// How often all is done: of each step the shortest time counts, so that what else the machine does is left out.
const ROUND_COUNT: usize = 5;

/// The shortest times of the same steps, nanoseconds.
#[derive(Default)]
struct Steps(Vec<u32>);

impl Steps {
    fn note(&mut self, index: usize, since: &mut Instant) {
        let now = Instant::now();
        let took_ns = (now - std::mem::replace(since, now)).as_nanos() as u32;
        if self.0.len() <= index {
            self.0.resize(index + 1, u32::MAX);
        }
        self.0[index] = self.0[index].min(took_ns);
    }

    fn longest(&self) -> Duration {
        Duration::from_nanos(self.0.iter().copied().max().unwrap_or(0).into())
    }
}

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(2_000_000);
    for (name, expected) in [("grown from nothing", 0), ("as large as the one before", count)] {
        let (mut inserts, mut frees) = (Steps::default(), Steps::default());
        for _ in 0..ROUND_COUNT {
            let mut set = IdSet::for_count(expected);
            let mut since = Instant::now();
            for n in 0..count {
                set.insert_new(hash(n as u64));
                inserts.note(n, &mut since);
            }
            let mut since = Instant::now();
            for (n, table) in set.into_tables().enumerate() {
                drop(table);
                frees.note(n, &mut since);
            }
        }
        let (insert, free) = (inserts.longest(), frees.longest());
        println!(
            "{name}: {count} ids, the longest insert {insert:?}, the longest freeing of a table {free:?}"
        );
    }
}
