//! How fast the timer wheel is, and how large: `cargo xtask bench wheel` runs this.
//!
//! It compiles the wheel's own source file, so that what is measured is what the shard uses, and the wheel stays
//! private to the core. The last line is a JSON object.

extern crate alloc;

#[allow(dead_code)]
#[path = "../src/wheel.rs"]
mod wheel;

use std::hint::black_box;
use std::time::Instant;
use wheel::{TimerId, Wheel};

const TIMER_COUNT: usize = 1_000_000;
const CHANGE_COUNT: usize = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Deadlines: as those of silent phones, 240 to 360 seconds away.
const DELAY_NS: u64 = 240 * SECOND_NS;
const SPREAD_NS: u64 = 120 * SECOND_NS;

/// Numbers in no order (xorshift64*): quick enough to be no part of the result.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    fn deadline_ns(&mut self, now_ns: u64) -> u64 {
        now_ns + DELAY_NS + self.below(SPREAD_NS)
    }
}

/// Calls per second.
fn rate(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    (0..count).for_each(&mut call);
    count as f64 / started.elapsed().as_secs_f64()
}

fn main() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut now_ns = 77 * SECOND_NS;
    let mut timers: Vec<TimerId> = Vec::with_capacity(TIMER_COUNT);
    let mut wheel = None;
    let mut set_per_s = 0.0;
    let memory = allocation_counter::measure(|| {
        let mut new = Wheel::new(now_ns);
        set_per_s = rate(TIMER_COUNT, |n| timers.push(new.set(numbers.deadline_ns(now_ns), n as u64)));
        wheel = Some(new);
    });
    let mut wheel = wheel.expect("it was made");

    // Any timer, put off: what each packet of a phone does.
    let put_off_per_s = rate(CHANGE_COUNT, |_| {
        now_ns += 20_000;
        let timer = timers[numbers.below(TIMER_COUNT as u64) as usize];
        wheel.reset(timer, now_ns + DELAY_NS + SPREAD_NS);
    });
    // Any timer, to any deadline: half of them earlier than before.
    let moved_per_s = rate(CHANGE_COUNT, |_| {
        let timer = timers[numbers.below(TIMER_COUNT as u64) as usize];
        wheel.reset(timer, numbers.deadline_ns(now_ns));
    });
    // Timers that come and go: a login's.
    let set_and_cancel_per_s = rate(CHANGE_COUNT, |_| {
        let timer = wheel.set(now_ns + 10 * SECOND_NS, 7);
        wheel.cancel(black_box(timer));
    });
    // All of them, a millisecond at a time.
    let started = Instant::now();
    let mut fired_count = 0;
    while fired_count < TIMER_COUNT {
        now_ns += 1_000_000;
        while let Some(payload) = wheel.pop(now_ns) {
            black_box(payload);
            fired_count += 1;
        }
    }
    let fired_per_s = TIMER_COUNT as f64 / started.elapsed().as_secs_f64();

    println!(
        "{{\"timers\":{TIMER_COUNT},\"bytes_per_timer\":{:.1},\"bytes_per_timer_while_growing\":{:.1},\
         \"set_per_s\":{set_per_s:.0},\"put_off_per_s\":{put_off_per_s:.0},\"moved_per_s\":{moved_per_s:.0},\
         \"set_and_cancel_per_s\":{set_and_cancel_per_s:.0},\"fired_per_s\":{fired_per_s:.0}}}",
        memory.bytes_current as f64 / TIMER_COUNT as f64,
        memory.bytes_max as f64 / TIMER_COUNT as f64,
    );
}
