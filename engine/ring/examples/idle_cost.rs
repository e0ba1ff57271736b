//! What an idle connection costs with a multishot receive and parked, and what a burst costs either way:
//! `cargo run --release -p tern-ring --example idle_cost`, as root for the kernel's slab figures.
//!
//! One thread owns both ends: a ring with 10,000 accepted sockets and a ring with their clients. Prints a JSON object:
//! kernel bytes per socket (from /proc/slabinfo) that each way holds more than no operation at all, and
//! CPU microseconds of the receiving ring for one burst of 16 bytes.

use std::collections::BTreeMap;
use std::time::Duration;
use tern_ring::{Config, Event, Listener, Ring, Slot};

const SOCKETS: usize = 10_000;
const ROUNDS: usize = 5;

struct Ends {
    server: Ring,
    clients: Ring,
    accepted: Vec<Slot>,
    connected: Vec<Slot>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A multishot receive stays.
    Always,
    /// Poll, receive once, poll again.
    Parked,
    /// A multishot receive that is parked and armed again after each burst: the most expensive.
    Switching,
}

fn main() -> std::io::Result<()> {
    let mut ends = connect()?;
    let bare = slabs();
    ends.park()?;
    let parked_bytes = per_socket("parked", &bare, &slabs());
    let parked_us = ends.burst(Way::Parked)?;
    let switching_us = ends.burst(Way::Switching)?;
    let again_bytes = per_socket("parked after receiving always", &bare, &slabs());
    ends.wake()?;
    let always_bytes = per_socket("multishot receive", &bare, &slabs());
    let always_us = ends.burst(Way::Always)?;
    println!(
        "{{\"sockets\":{SOCKETS},\"always_bytes\":{always_bytes},\"parked_bytes\":{parked_bytes},\
         \"parked_again_bytes\":{again_bytes},\"always_us\":{always_us:.2},\"parked_us\":{parked_us:.2},\
         \"switching_us\":{switching_us:.2}}}"
    );
    Ok(())
}

fn connect() -> std::io::Result<Ends> {
    let config = Config { descriptor_count: SOCKETS as u32 + 64, ..Config::default() };
    if let Err(limits) = tern_ring::probe::raise_descriptor_limit(u64::from(config.descriptor_count)) {
        eprintln!("open files are limited: {limits:?}");
    }
    let (mut server, mut clients) = (Ring::new(&config)?, Ring::new(&config)?);
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 4096)?;
    let address = listener.local_addr()?;
    server.accept(listener);
    let (mut accepted, mut connected) = (vec![], vec![]);
    let mut asked = 0;
    while accepted.len() < SOCKETS || connected.len() < SOCKETS {
        while asked < SOCKETS && asked < accepted.len() + 64 {
            clients.connect(address, None, 0)?;
            asked += 1;
        }
        clients.enter(None)?;
        while let Some(event) = clients.next_event() {
            if let Event::Connected { slot, .. } = event {
                connected.push(slot);
            }
        }
        server.enter(None)?;
        while let Some(event) = server.next_event() {
            if let Event::Accepted { slot, .. } = event {
                accepted.push(slot);
            }
        }
    }
    Ok(Ends { server, clients, accepted, connected })
}

impl Ends {
    fn park(&mut self) -> std::io::Result<()> {
        for &slot in &self.accepted {
            self.server.park(slot, 0).expect("nothing is under way");
        }
        self.settle()
    }

    fn settle(&mut self) -> std::io::Result<()> {
        for _ in 0..20 {
            self.server.enter(Some(Duration::from_millis(1)))?;
            while let Some(event) = self.server.next_event() {
                assert!(!matches!(event, Event::Received { .. } | Event::Ended { .. }), "{event:?}");
            }
        }
        Ok(())
    }

    /// From parked to a multishot receive: one burst that is taken so.
    fn wake(&mut self) -> std::io::Result<()> {
        for group in self.connected.clone().chunks(50) {
            self.send(group)?;
            let mut received = 0;
            while received < group.len() {
                self.server.enter(Some(Duration::from_millis(1)))?;
                let mut readable = vec![];
                while let Some(event) = self.server.next_event() {
                    match event {
                        Event::Readable { slot, .. } => readable.push(slot),
                        Event::Received { .. } => received += 1,
                        _ => {}
                    }
                }
                for slot in readable {
                    self.server.receive_always(slot, 0).expect("nothing is under way");
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, group: &[Slot]) -> std::io::Result<()> {
        for &slot in group {
            self.clients.send(slot, 0, &[7; 16]).expect("idle");
        }
        let mut sent = 0;
        while sent < group.len() {
            self.clients.enter(Some(Duration::from_millis(1)))?;
            while let Some(event) = self.clients.next_event() {
                sent += usize::from(matches!(event, Event::Sent { .. }));
            }
        }
        Ok(())
    }

    /// CPU microseconds of the receiving ring per burst, 50 sockets in a turn.
    fn burst(&mut self, way: Way) -> std::io::Result<f64> {
        let mut cpu = Duration::ZERO;
        for _ in 0..ROUNDS {
            for group in self.connected.clone().chunks(50) {
                self.send(group)?;
                let start = thread_cpu();
                self.receive(group.len(), way)?;
                cpu += thread_cpu() - start;
            }
        }
        Ok(cpu.as_secs_f64() * 1e6 / (SOCKETS * ROUNDS) as f64)
    }

    fn receive(&mut self, count: usize, way: Way) -> std::io::Result<()> {
        let mut received = 0;
        let (mut readable, mut heard) = (vec![], vec![]);
        while received < count {
            self.server.enter(Some(Duration::from_millis(1)))?;
            while let Some(event) = self.server.next_event() {
                match event {
                    Event::Readable { slot, .. } => readable.push(slot),
                    Event::Received { slot, .. } => {
                        received += 1;
                        heard.push(slot);
                    }
                    _ => {}
                }
            }
            for slot in readable.drain(..) {
                let result = match way {
                    Way::Switching => self.server.receive_always(slot, 0),
                    _ => self.server.receive_once(slot, 0),
                };
                result.expect("nothing is under way");
            }
            for slot in heard.drain(..) {
                if way != Way::Always {
                    self.server.park(slot, 0).expect("nothing is under way");
                }
            }
        }
        self.server.enter(None)
    }
}

/// Objects and bytes of each, by the name of the kernel's cache.
type Slabs = BTreeMap<String, (i64, i64)>;

/// The caches that operations come from.
fn slabs() -> Slabs {
    std::thread::sleep(Duration::from_millis(200));
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let caches = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.first().filter(|name| name.starts_with("io_") || name.starts_with("kmalloc"))?;
        Some((name.to_string(), (words.get(1)?.parse().ok()?, words.get(3)?.parse().ok()?)))
    });
    caches.collect()
}

/// Bytes per socket that `after` holds more than `before`, in caches with about an object more per socket.
fn per_socket(way: &str, before: &Slabs, after: &Slabs) -> i64 {
    let mut bytes = 0;
    for (name, &(objects, each)) in after {
        let more = objects - before.get(name).map_or(0, |before| before.0);
        if more >= SOCKETS as i64 * 8 / 10 {
            eprintln!("{way}: {name} {more} objects of {each} bytes");
            bytes += more * each / SOCKETS as i64;
        }
    }
    bytes
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
