//! What taking in a connection costs a ring's thread: `cargo run --release -p tern-ring --example accept_cost`.
//!
//! Another thread connects and resets as fast as it can, a hundred at a time. Prints connections per second and the
//! CPU of the accepting thread for each, in microseconds: accept and close, with the kernel's work for both.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, Listener, Ring};

const SECONDS: Duration = Duration::from_secs(3);

fn main() -> std::io::Result<()> {
    let config = Config { descriptor_count: 4096, ..Config::default() };
    let mut ring = Ring::new(&config)?;
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 4096)?;
    let address = listener.local_addr()?;
    ring.accept(listener);
    ring.enter(None)?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || connect_until(address, &stop))
    };
    let (start, cpu_start) = (Instant::now(), thread_cpu());
    let mut accepted = 0_u64;
    while start.elapsed() < SECONDS {
        ring.enter(Some(Duration::from_millis(10)))?;
        let mut slots = Vec::new();
        while let Some(event) = ring.next_event() {
            if let Event::Accepted { slot, .. } = event {
                slots.push(slot);
            }
        }
        for slot in slots {
            accepted += 1;
            ring.close(slot, 0).expect("it is open");
        }
    }
    let (wall, cpu) = (start.elapsed(), thread_cpu() - cpu_start);
    stop.store(true, Ordering::Relaxed);
    let _ = clients.join();
    let per_s = accepted as f64 / wall.as_secs_f64();
    let cpu_us = cpu.as_secs_f64() * 1e6 / accepted as f64;
    println!(
        "{{\"accepts_per_s\":{per_s:.0},\"cpu_us_per_accept\":{cpu_us:.2},\"turns\":{}}}",
        ring.stats().enter_count
    );
    Ok(())
}

fn connect_until(address: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Closed together: a server that is slow meets a burst.
        let _open: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(address).ok()).collect();
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
