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

/// What one shard has with its default of 16,000 connections; and a million.
const TIMER_COUNTS: [usize; 2] = [16_000, 1_000_000];
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

    fn shuffle(&mut self, timers: &mut [TimerId]) {
        for end in (1..timers.len()).rev() {
            timers.swap(end, self.below(end as u64 + 1) as usize);
        }
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
    let fields: Vec<String> = TIMER_COUNTS.map(measure).to_vec();
    println!("{{{}}}", fields.join(","));
}

/// The field of the result for so many armed timers.
fn measure(count: usize) -> String {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut now_ns = 77 * SECOND_NS;
    let mut timers: Vec<TimerId> = Vec::with_capacity(count);
    let mut wheel = Wheel::new(now_ns);
    let mut set_per_s = 0.0;
    let memory = allocation_counter::measure(|| {
        set_per_s = rate(count, |n| timers.push(wheel.set(numbers.deadline_ns(now_ns), n as u64)));
    });

    // In no order, as packets come. Who holds a timer's number has just been looked at, so finding that is not counted.
    numbers.shuffle(&mut timers);
    // Put off: what each packet of a phone does.
    let put_off_per_s = rate(CHANGE_COUNT, |n| {
        now_ns += 1_000;
        wheel.reset(timers[n % count], now_ns + DELAY_NS + SPREAD_NS);
    });
    // To any deadline: half of them earlier than before.
    let moved_per_s = rate(CHANGE_COUNT, |n| wheel.reset(timers[n % count], numbers.deadline_ns(now_ns)));
    // Timers that come and go: a login's. Two calls.
    let set_and_cancel_per_s = 2.0
        * rate(CHANGE_COUNT, |_| {
            let timer = wheel.set(now_ns + 10 * SECOND_NS, 7);
            wheel.cancel(black_box(timer));
        });
    // All of them, a millisecond at a time.
    let started = Instant::now();
    let mut fired_count = 0;
    while fired_count < count {
        now_ns += 1_000_000;
        while let Some(payload) = wheel.pop(now_ns) {
            black_box(payload);
            fired_count += 1;
        }
    }
    let fired_per_s = count as f64 / started.elapsed().as_secs_f64();

    format!(
        "\"timers_{count}\":{{\"bytes_per_timer\":{:.1},\"bytes_per_timer_at_peak\":{:.1},\
         \"set_per_s\":{set_per_s:.0},\"put_off_per_s\":{put_off_per_s:.0},\"moved_per_s\":{moved_per_s:.0},\
         \"set_and_cancel_per_s\":{set_and_cancel_per_s:.0},\"fired_per_s\":{fired_per_s:.0}}}",
        memory.bytes_current as f64 / count as f64,
        memory.bytes_max as f64 / count as f64,
    )
}
