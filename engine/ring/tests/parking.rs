//! Parked sockets: readable once, nothing lost or reordered on the way in and out, closes at every stage.

mod turns;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tern_ring::{Config, Event, SlotError};
use turns::{accept_one, listening, small, until};

#[test]
fn a_parked_socket_is_readable_once_and_keeps_its_bytes() {
    let (mut ring, address) = listening(&small());
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    for round in 0..3_u64 {
        ring.park(slot, round).unwrap();
        assert_eq!(ring.park(slot, round), Err(SlotError::Busy));
        assert_eq!(ring.receive_once(slot, round), Err(SlotError::Busy));
        assert_eq!(ring.receive_always(slot, round), Err(SlotError::Busy));
        ring.enter(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_event().is_none(), "nothing came");
        assert_eq!(ring.stats().parked_now, 1);
        client.write_all(b"ping").unwrap();
        until(&mut ring, |event| event == Event::Readable { slot, key: round });
        client.write_all(b"pong").unwrap();
        ring.enter(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_event().is_none(), "said once");
        assert_eq!(ring.stats().parked_now, 0);
        ring.receive_once(slot, round).unwrap();
        until(&mut ring, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            bytes == b"pingpong"
        });
    }
    // A send does not disturb it.
    ring.park(slot, 9).unwrap();
    ring.send(slot, 9, b"hello").unwrap();
    until(&mut ring, |event| event == Event::Sent { slot, key: 9 });
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    until(&mut ring, |event| event == Event::Readable { slot, key: 9 });
    ring.receive_always(slot, 9).unwrap();
    until(&mut ring, |event| matches!(event, Event::Ended { .. }));
}

/// The receiver parks after every few bytes while they come in a flood, so that the cancellation meets the receive at
/// every stage: waiting, receiving, starving, ended by a full completion queue.
#[test]
fn nothing_is_lost_between_receiving_and_parking() {
    const BYTES: usize = 3 << 20;
    for (buffer_count, completion_count) in [(64, 4096), (2, 4096), (64, 8)] {
        let config =
            Config { submission_count: 8, buffer_count, buffer_bytes: 512, completion_count, ..small() };
        let (mut ring, address) = listening(&config);
        let client = TcpStream::connect(address).unwrap();
        let slot = accept_one(&mut ring);
        let data: Vec<u8> = (0..BYTES).map(|n| ((n * 31) >> 3) as u8).collect();
        let writer = {
            let (data, mut client) = (data.clone(), client);
            std::thread::spawn(move || {
                for (n, part) in data.chunks(997).enumerate() {
                    client.write_all(part).unwrap();
                    if n % 16 == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        ring.receive_always(slot, 0).unwrap();
        let (mut all, mut parks, mut ended) = (Vec::with_capacity(BYTES), 0, false);
        while !ended {
            ring.enter(Some(Duration::from_millis(20))).unwrap();
            let mut readable = 0;
            let before = all.len();
            while let Some(event) = ring.next_event() {
                match event {
                    Event::Received { bytes, .. } => all.extend_from_slice(bytes),
                    Event::Readable { .. } => readable += 1,
                    Event::Ended { error, .. } => {
                        assert_eq!(error, None);
                        ended = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(readable <= 1, "readable is said once");
            if readable == 1 {
                ring.receive_always(slot, 0).unwrap();
            }
            // Refused while it waits for buffers or is being parked.
            if !ended && all.len() > before && ring.park(slot, 0).is_ok() {
                parks += 1;
            }
        }
        writer.join().unwrap();
        assert!(all == data, "bytes lost or reordered with {buffer_count} buffers");
        assert!(parks > 50, "the case did not happen: {parks}");
        assert_eq!(ring.stats().parked_now, 0);
    }
}

#[test]
fn a_parked_socket_closes_at_every_stage() {
    let config = Config { descriptor_count: 2, ..small() };
    let (mut ring, address) = listening(&config);
    for round in 0..60_u64 {
        let mut client = TcpStream::connect(address).unwrap();
        let slot = accept_one(&mut ring);
        match round % 6 {
            // The poll or the cancellation is not even submitted.
            0 => ring.park(slot, round).unwrap(),
            1 => {
                ring.receive_always(slot, round).unwrap();
                ring.enter(None).unwrap();
                ring.park(slot, round).unwrap();
            }
            // Parked, from nothing and from a receive.
            2 => {
                ring.park(slot, round).unwrap();
                ring.enter(None).unwrap();
            }
            3 => {
                ring.receive_always(slot, round).unwrap();
                ring.park(slot, round).unwrap();
                for _ in 0..3 {
                    ring.enter(Some(Duration::from_millis(1))).unwrap();
                    assert!(ring.next_event().is_none());
                }
                assert_eq!(ring.stats().parked_now, 1);
            }
            // Bytes, or the other end's close, are on their way to the poll.
            4 => {
                ring.park(slot, round).unwrap();
                ring.enter(None).unwrap();
                client.write_all(b"late").unwrap();
            }
            _ => {
                ring.receive_always(slot, round).unwrap();
                ring.enter(None).unwrap();
                ring.park(slot, round).unwrap();
                client.write_all(b"late").unwrap();
                client.shutdown(std::net::Shutdown::Both).unwrap();
            }
        }
        ring.close(slot, round).unwrap();
        assert_eq!(ring.park(slot, round), Err(SlotError::NotOpen));
        let mut events = 0;
        until(&mut ring, |event| {
            events += 1;
            event == Event::Closed { slot, key: round }
        });
        assert_eq!(events, 1, "nothing but the close is told");
        let stats = ring.stats();
        assert_eq!((stats.slots_used_now, stats.parked_now), (0, 0), "round {round}");
    }
}

#[test]
fn a_parked_socket_does_not_move() {
    let (mut ring, address) = listening(&small());
    let _client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    let peer = ring.add_peer(ring.handle());
    ring.park(slot, 1).unwrap();
    assert_eq!(ring.send_descriptor(slot, 1, peer, 0), Err(SlotError::Busy));
}

#[test]
fn a_ring_ends_with_parked_sockets() {
    let (mut ring, address) = listening(&small());
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.park(slot, 1).unwrap();
    ring.enter(None).unwrap();
    drop(ring);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
}
