//! Sockets and messages between rings of different threads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, Listener, Ring, RingHandle, SlotError};

fn config(descriptor_count: u32) -> Config {
    Config { descriptor_count, buffer_count: 16, buffer_bytes: 1024, ..Config::default() }
}

/// A ring in its own thread that adopts sockets and echoes in upper case, until it is woken.
fn adopting(descriptor_count: u32) -> (RingHandle, tern_ring::Waker, std::thread::JoinHandle<Vec<u64>>) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut ring = Ring::new(&config(descriptor_count)).unwrap();
        tell.send((ring.handle(), ring.waker())).unwrap();
        let (mut messages, mut stop) = (vec![], false);
        while !stop {
            ring.enter(Some(Duration::from_secs(5))).unwrap();
            while let Some(event) = ring.next_event() {
                match event {
                    Event::DescriptorArrived { slot, message } => {
                        messages.push(message);
                        ring.receive_always(slot, message).unwrap();
                    }
                    Event::Received { slot, key, bytes } => {
                        let answer = bytes.to_ascii_uppercase();
                        ring.send(slot, key, &answer).unwrap();
                    }
                    Event::Ended { slot, key, .. } => ring.close(slot, key).unwrap(),
                    Event::Message(message) => messages.push(u64::from(message)),
                    Event::Woken => stop = true,
                    Event::Sent { .. } | Event::Closed { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        messages
    });
    let (handle, waker) = told.recv().unwrap();
    (handle, waker, thread)
}

#[test]
fn a_socket_moves_with_its_unread_bytes() {
    let (handle, waker, thread) = adopting(8);
    let mut ring = Ring::new(&config(8)).unwrap();
    let peer = ring.add_peer(handle);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept(listener);
    let mut clients = vec![];
    let (mut moved, mut closed) = (0, 0);
    let end = Instant::now() + Duration::from_secs(10);
    while closed < 4 && Instant::now() < end {
        ring.enter(Some(Duration::from_millis(20))).unwrap();
        if clients.len() < 4 {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"hello, home").unwrap();
            clients.push(client);
        }
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accepted { slot, .. } => ring.receive_once(slot, 1).unwrap(),
                Event::Received { slot, bytes, .. } => {
                    assert_eq!(bytes, b"hello, home");
                    ring.send_descriptor(slot, 1, peer, 77).unwrap();
                    assert_eq!(ring.close(slot, 1), Err(SlotError::Busy));
                }
                Event::DescriptorSent { result, .. } => {
                    result.unwrap();
                    moved += 1;
                }
                Event::Closed { .. } => closed += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((moved, closed, ring.stats().slots_used_now), (4, 4, 0));
    for client in &mut clients {
        client.write_all(b"abc").unwrap();
        let mut answer = [0; 3];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ABC");
    }
    drop(clients);
    waker.wake();
    assert_eq!(thread.join().unwrap(), [77; 4]);
}

#[test]
fn an_armed_receive_forbids_a_move() {
    let (handle, waker, thread) = adopting(8);
    let mut ring = Ring::new(&config(8)).unwrap();
    let peer = ring.add_peer(handle);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ring.accept(listener);
    ring.enter(Some(Duration::from_secs(1))).unwrap();
    let Some(Event::Accepted { slot, .. }) = ring.next_event() else { panic!("not accepted") };
    ring.receive_once(slot, 1).unwrap();
    assert_eq!(ring.send_descriptor(slot, 1, peer, 0), Err(SlotError::Busy));
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn a_full_table_refuses_and_the_socket_stays() {
    let (handle, waker, thread) = adopting(1);
    let mut ring = Ring::new(&config(8)).unwrap();
    let peer = ring.add_peer(handle);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept(listener);
    let clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    let mut results = vec![];
    let end = Instant::now() + Duration::from_secs(10);
    while results.len() < 2 && Instant::now() < end {
        ring.enter(Some(Duration::from_millis(20))).unwrap();
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accepted { slot, .. } => ring.send_descriptor(slot, 1, peer, 1).unwrap(),
                Event::DescriptorSent { slot, result, .. } => {
                    results.push(result);
                    if result.is_err() {
                        ring.send(slot, 1, b"busy").unwrap();
                    }
                }
                Event::Closed { .. } | Event::Sent { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    results.sort();
    assert_eq!(results, [Ok(()), Err(libc::ENFILE)]);
    ring.enter(Some(Duration::from_millis(20))).unwrap();
    // Either may be the one that was refused.
    let told = clients.iter().filter(|client| {
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 4];
        (&**client).read_exact(&mut answer).is_ok() && &answer == b"busy"
    });
    assert_eq!(told.count(), 1);
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn messages_wake_another_ring() {
    let (handle, waker, thread) = adopting(8);
    let mut ring = Ring::new(&config(8)).unwrap();
    let peer = ring.add_peer(handle);
    for n in 0..100 {
        ring.wake(peer, n);
    }
    for _ in 0..5 {
        ring.enter(Some(Duration::from_millis(10))).unwrap();
        assert!(ring.next_event().is_none(), "a wake is silent here");
    }
    waker.wake();
    let mut messages = thread.join().unwrap();
    messages.sort_unstable();
    assert_eq!(messages, (0..100).collect::<Vec<_>>());
}
