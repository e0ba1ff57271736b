//! What the tests of one ring share: a ring that listens, and turns until something has happened.
#![allow(dead_code)] // not every test file uses all of it

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, Listener, Ring, Slot};

pub(crate) fn small() -> Config {
    Config { descriptor_count: 64, buffer_count: 16, buffer_bytes: 1024, ..Config::default() }
}

pub(crate) fn listening(config: &Config) -> (Ring, SocketAddr) {
    let mut ring = Ring::new(config).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 256).unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept(listener);
    ring.enter(None).unwrap();
    (ring, address)
}

/// Turns until `each` says that it is done, at most ten seconds.
pub(crate) fn until(ring: &mut Ring, mut each: impl FnMut(Event<'_>) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut done = false;
        while let Some(event) = ring.next_event() {
            done |= each(event);
        }
        if done {
            return;
        }
        assert!(Instant::now() < end, "nothing for ten seconds: {:?}", ring.stats());
        ring.enter(Some(Duration::from_millis(20))).unwrap();
    }
}

pub(crate) fn accept(ring: &mut Ring, count: usize) -> Vec<Slot> {
    let mut slots = vec![];
    until(ring, |event| {
        if let Event::Accepted { slot, .. } = event {
            slots.push(slot);
        }
        slots.len() == count
    });
    slots
}

pub(crate) fn accept_one(ring: &mut Ring) -> Slot {
    accept(ring, 1)[0]
}

/// Drops the ring, and with it the other end of `client`'s connection. That of a ring which had to leave its operations to
/// the kernel lives on with the ring's descriptor, which is held until then.
pub(crate) fn assert_ends_with(ring: Ring, mut client: &TcpStream) {
    let handle = ring.handle();
    drop(ring);
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sink = vec![0; 1 << 20];
    let end = loop {
        match client.read(&mut sink) {
            Ok(1..) => {}
            end => break end,
        }
    };
    let is_reset = end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(matches!(end, Ok(0)) || is_reset, "the connection is still there: {end:?}");
    drop(handle);
}
