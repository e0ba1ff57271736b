//! Connections go to the listener of the hardware thread that they arrive at.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tern_ring::{BoundAddress, Config, Event, Ring};

/// Keeps the calling thread where it is; over loopback, packets are then worked on there too.
fn stay_here() -> usize {
    // SAFETY: no memory is passed.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is one of a running hardware thread, so it is inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and length describe `set`, which outlives the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert_eq!(result, 0);
    cpu
}

#[test]
fn the_listener_of_the_own_hardware_thread_gets_all() {
    let here = stay_here();
    let elsewhere = if here == 0 { 1 } else { 0 };
    // Each listener takes its turn to be the right one, so that their order is no reason.
    for right in 0..2 {
        let mut ring = Ring::new(&Config { descriptor_count: 64, ..Config::default() }).unwrap();
        let first = BoundAddress::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address: SocketAddr = first.local_addr();
        let second = first.beside().unwrap();
        let mut ids = Vec::new();
        for (index, bound) in [first, second].into_iter().enumerate() {
            bound.prefer_cpu(if index == right { here } else { elsewhere }).unwrap();
            ids.push(ring.accept(bound.listen(64).unwrap()));
        }
        ring.enter(None).unwrap();
        // By chance alone all of them would be here once in a million runs.
        let phones: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let (mut at, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(10));
        while at.len() < phones.len() {
            assert!(Instant::now() < deadline, "only {} were accepted", at.len());
            ring.enter(Some(Duration::from_millis(50))).unwrap();
            while let Some(event) = ring.next_event() {
                if let Event::Accepted { listener, .. } = event {
                    at.push(listener);
                }
            }
        }
        assert!(at.iter().all(|listener| *listener == ids[right]), "{at:?}, not all {:?}", ids[right]);
    }
}
