//! One ring echoes, another one or plain sockets talk to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, Listener, Ring, Slot};

fn small() -> Config {
    Config { descriptor_count: 64, buffer_count: 16, buffer_bytes: 1024, ..Config::default() }
}

fn local() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap(), 128).unwrap()
}

fn turn(ring: &mut Ring, mut each: impl FnMut(&mut Ring, &str, u32, Vec<u8>)) {
    ring.enter(Some(Duration::from_millis(50))).unwrap();
    loop {
        let (name, slot, bytes) = match ring.next_event() {
            None => break,
            Some(Event::Accepted { slot, .. }) => ("accepted", slot.0, vec![]),
            Some(Event::Received { slot, bytes, .. }) => ("received", slot.0, bytes.to_vec()),
            Some(Event::Ended { slot, .. }) => ("ended", slot.0, vec![]),
            Some(Event::Sent { slot, .. }) => ("sent", slot.0, vec![]),
            Some(Event::Closed { slot, .. }) => ("closed", slot.0, vec![]),
            Some(Event::Connected { slot, .. }) => ("connected", slot.0, vec![]),
            Some(Event::Woken) => ("woken", 0, vec![]),
            Some(other) => panic!("unexpected {other:?}"),
        };
        each(ring, name, slot, bytes);
    }
}

#[test]
fn echoes_and_closes() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = local();
    let address: SocketAddr = listener.local_addr().unwrap();
    ring.accept(listener);
    ring.enter(None).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    });
    let mut closed = false;
    let end = Instant::now() + Duration::from_secs(5);
    while !closed && Instant::now() < end {
        turn(&mut ring, |ring, name, slot, bytes| match name {
            "accepted" => ring.receive_always(Slot(slot), 9).unwrap(),
            "received" => ring.send(Slot(slot), 9, &bytes).unwrap(),
            "ended" => ring.close(Slot(slot), 9).unwrap(),
            "closed" => closed = true,
            _ => {}
        });
    }
    client.join().unwrap();
    assert!(closed);
    assert_eq!(ring.stats().slots_used_now, 0);
}

#[test]
fn a_plain_thread_wakes_it() {
    let mut ring = Ring::new(&small()).unwrap();
    let waker = ring.waker();
    let started = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    let mut woken = 0;
    while woken == 0 && started.elapsed() < Duration::from_secs(5) {
        ring.enter(Some(Duration::from_secs(5))).unwrap();
        while let Some(event) = ring.next_event() {
            woken += usize::from(event == Event::Woken);
        }
    }
    thread.join().unwrap();
    assert_eq!(woken, 1);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn connects_from_a_chosen_address() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = local();
    let address = listener.local_addr().unwrap();
    ring.accept(listener);
    ring.enter(None).unwrap();
    for last in 1..=8 {
        ring.connect(address, Some(format!("127.0.0.{last}").parse().unwrap()), last).unwrap();
    }
    let (mut accepted, mut connected) = (0, 0);
    let end = Instant::now() + Duration::from_secs(5);
    while (accepted, connected) != (8, 8) && Instant::now() < end {
        turn(&mut ring, |_, name, _, _| match name {
            "accepted" => accepted += 1,
            "connected" => connected += 1,
            other => panic!("{other}"),
        });
    }
    assert_eq!((accepted, connected, ring.stats().slots_used_now), (8, 8, 16));
}

#[test]
fn a_refused_connection_leaves_no_slot() {
    let mut ring = Ring::new(&small()).unwrap();
    let address = local().local_addr().unwrap(); // closed again at once
    ring.connect(address, None, 5).unwrap();
    let mut failed = false;
    for _ in 0..20 {
        ring.enter(Some(Duration::from_millis(50))).unwrap();
        while let Some(event) = ring.next_event() {
            assert_eq!(event, Event::ConnectFailed { key: 5, error: 111 });
            failed = true;
        }
        if failed && ring.stats().slots_used_now == 0 {
            return;
        }
    }
    panic!("failed: {failed}, slots: {}", ring.stats().slots_used_now);
}

/// A client that connects, is received from always, and is dropped by `end`: what the other end's read says.
fn seen_by_the_other_end(end: impl Fn(&mut Ring, Slot)) -> std::io::Result<usize> {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    ring.connect(listener.local_addr().unwrap(), None, 9).unwrap();
    let (mut stream, mut closed) = (None, false);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !closed && Instant::now() < deadline {
        turn(&mut ring, |ring, name, slot, _| match name {
            "connected" => {
                ring.receive_always(Slot(slot), 9).unwrap();
                ring.send(Slot(slot), 9, b"x").unwrap();
            }
            "sent" => {
                let mut accepted = listener.accept().unwrap().0;
                accepted.read_exact(&mut [0]).unwrap();
                stream = Some(accepted);
                end(ring, Slot(slot));
            }
            "closed" => closed = true,
            _ => {}
        });
    }
    assert!(closed, "the slot is free again");
    let mut stream = stream.expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.read(&mut [0])
}

#[test]
fn a_reset_is_not_an_end_of_the_stream() {
    assert_eq!(seen_by_the_other_end(|ring, slot| ring.close(slot, 9).unwrap()).unwrap(), 0);
    let error = seen_by_the_other_end(|ring, slot| ring.reset(slot, 9).unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
