//! Watched sockets: their end is told while nothing reads, their bytes stay where they are, and what comes next goes on.

mod turns;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use tern_ring::{Event, Ring, Slot, SlotError};
use turns::{accept_one, assert_ends_with, listening, small, until};

fn nothing_happens(ring: &mut Ring) {
    for _ in 0..3 {
        ring.enter(Some(Duration::from_millis(2))).unwrap();
        assert_eq!(ring.next_event(), None);
    }
}

fn is_received(ring: &mut Ring, slot: Slot, wanted: &[u8]) {
    until(ring, |event| match event {
        Event::Received { slot: got, bytes, .. } if got == slot => {
            assert_eq!(bytes, wanted);
            true
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn the_end_is_told_once_and_bytes_before_it_stay() {
    let (mut ring, address) = listening(&small());
    for end in 0..3 {
        let mut client = TcpStream::connect(address).unwrap();
        let slot = accept_one(&mut ring);
        ring.watch(slot, 7).unwrap();
        assert_eq!(ring.watch(slot, 7), Ok(()), "already");
        client.write_all(b"words").unwrap();
        nothing_happens(&mut ring);
        if end == 2 {
            // It goes before it is watched.
            ring.receive_once(slot, 7).unwrap();
            is_received(&mut ring, slot, b"words");
            client.write_all(b"words").unwrap();
            drop(client);
            ring.watch(slot, 7).unwrap();
        } else if end == 1 {
            client.shutdown(Shutdown::Write).unwrap();
        } else {
            drop(client);
        }
        until(&mut ring, |event| event == Event::Gone { slot, key: 7 });
        nothing_happens(&mut ring);
        ring.receive_always(slot, 7).unwrap();
        let mut read = vec![];
        until(&mut ring, |event| match event {
            Event::Received { bytes, .. } => {
                read.extend_from_slice(bytes);
                false
            }
            event => matches!(event, Event::Ended { .. }),
        });
        assert_eq!(read, b"words");
        ring.close(slot, 7).unwrap();
        until(&mut ring, |event| event == Event::Closed { slot, key: 7 });
    }
}

#[test]
fn a_receive_or_a_park_ends_the_watch() {
    let (mut ring, address) = listening(&small());
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    // With the watch in the kernel, and with both in one submission.
    for enters in [true, false] {
        ring.watch(slot, 1).unwrap();
        if enters {
            nothing_happens(&mut ring);
        }
        ring.receive_once(slot, 1).unwrap();
        assert_eq!(ring.watch(slot, 1), Err(SlotError::Busy));
        client.write_all(b"first").unwrap();
        is_received(&mut ring, slot, b"first");
        ring.watch(slot, 1).unwrap();
        if enters {
            nothing_happens(&mut ring);
        }
        ring.park(slot, 1).unwrap();
        assert_eq!(ring.watch(slot, 1), Err(SlotError::Busy));
        nothing_happens(&mut ring);
        client.write_all(b"second").unwrap();
        until(&mut ring, |event| event == Event::Readable { slot, key: 1 });
        ring.receive_once(slot, 1).unwrap();
        is_received(&mut ring, slot, b"second");
    }
    // Given up and wanted again, before the kernel has heard of either: it is there in the end.
    for _ in 0..5 {
        ring.watch(slot, 1).unwrap();
        ring.receive_once(slot, 1).unwrap();
        client.write_all(b"x").unwrap();
        is_received(&mut ring, slot, b"x");
    }
    ring.watch(slot, 1).unwrap();
    nothing_happens(&mut ring);
    drop(client);
    until(&mut ring, |event| event == Event::Gone { slot, key: 1 });
}

#[test]
fn a_watched_socket_moves_with_its_bytes() {
    let (mut here, address) = listening(&small());
    let mut there = Ring::new(&small()).unwrap();
    let peer = here.add_peer(there.handle());
    for enters in [true, false] {
        let mut client = TcpStream::connect(address).unwrap();
        let slot = accept_one(&mut here);
        client.write_all(b"hello").unwrap();
        here.watch(slot, 1).unwrap();
        if enters {
            nothing_happens(&mut here);
        }
        here.send_descriptor(slot, 1, peer, 5).unwrap();
        until(&mut here, |event| event == Event::DescriptorSent { slot, key: 1, result: Ok(()) });
        let mut arrived = None;
        until(&mut there, |event| {
            if let Event::DescriptorArrived { slot, message: 5 } = event {
                arrived = Some(slot);
            }
            arrived.is_some()
        });
        // The watch does not keep the slot here.
        until(&mut here, |event| event == Event::Closed { slot, key: 1 });
        let slot = arrived.unwrap();
        there.receive_once(slot, 2).unwrap();
        is_received(&mut there, slot, b"hello");
        there.watch(slot, 2).unwrap();
        drop(client);
        until(&mut there, |event| event == Event::Gone { slot, key: 2 });
        nothing_happens(&mut here);
    }
}

#[test]
fn a_watched_socket_closes_at_every_stage() {
    let (mut ring, address) = listening(&tern_ring::Config { descriptor_count: 2, ..small() });
    for round in 0..40_u64 {
        let mut client = TcpStream::connect(address).unwrap();
        let slot = accept_one(&mut ring);
        ring.watch(slot, round).unwrap();
        match round % 5 {
            // Not even submitted.
            0 => {}
            1 => ring.enter(None).unwrap(),
            2 => {
                ring.enter(None).unwrap();
                client.shutdown(Shutdown::Both).unwrap();
            }
            3 => ring.receive_once(slot, round).unwrap(),
            _ => {
                ring.enter(None).unwrap();
                ring.park(slot, round).unwrap();
                client.write_all(b"late").unwrap();
            }
        }
        if round % 2 == 0 {
            ring.close(slot, round).unwrap();
        } else {
            ring.reset(slot, round).unwrap();
        }
        assert_eq!(ring.watch(slot, round), Err(SlotError::NotOpen));
        let mut events = 0;
        until(&mut ring, |event| {
            events += 1;
            event == Event::Closed { slot, key: round }
        });
        assert_eq!((events, ring.stats().slots_used_now), (1, 0), "round {round}: only the close is told");
    }
}

#[test]
fn a_ring_ends_with_watched_sockets() {
    let (mut ring, address) = listening(&small());
    let client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.watch(slot, 1).unwrap();
    ring.enter(None).unwrap();
    assert_ends_with(ring, &client);
}
