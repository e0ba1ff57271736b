//! The hard cases: short sends, starvation of buffers, closes with operations in flight, slot reuse, overflow.

mod turns;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, SlotError};
use turns::{accept, accept_one, assert_ends_with, listening, small, until};

#[test]
fn a_large_send_arrives_whole_at_a_slow_reader() {
    let (mut ring, address) = listening(&small());
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    let data: Vec<u8> = (0..16 << 20).map(|n: u32| ((n * 31) >> 3) as u8).collect();
    ring.send(slot, 1, &data).unwrap();
    assert_eq!(ring.send(slot, 1, b"x"), Err(SlotError::Busy));
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut all = vec![0; 16 << 20];
        client.read_exact(&mut all).unwrap();
        all
    });
    until(&mut ring, |event| event == Event::Sent { slot, key: 1 });
    assert!(reader.join().unwrap() == data, "bytes lost or reordered");
    assert!(ring.stats().short_send_count > 0, "the case did not happen");
}

#[test]
fn sends_that_go_in_parts_keep_their_order() {
    let (mut ring, address) = listening(&small());
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    // Larger than both socket buffers together, so that each is cut; the reader takes little at a time.
    let parts: Vec<Vec<u8>> = (1..=3_u8).map(|part| vec![part; 12 << 20]).collect();
    let reader = std::thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), vec![0; 60_000]);
        while all.len() < 36 << 20 {
            let bytes = client.read(&mut some).unwrap();
            all.extend_from_slice(&some[..bytes]);
            if all.len() % 7 == 0 {
                std::thread::yield_now();
            }
        }
        all
    });
    for part in &parts {
        ring.send(slot, 1, part).unwrap();
        until(&mut ring, |event| event == Event::Sent { slot, key: 1 });
    }
    assert!(reader.join().unwrap() == parts.concat(), "bytes lost or reordered");
    assert!(ring.stats().short_send_count >= 3, "the case did not happen");
}

#[test]
fn receives_starve_and_recover() {
    const CLIENTS: usize = 40;
    let config = Config { buffer_count: 4, buffer_bytes: 256, ..small() };
    let (mut ring, address) = listening(&config);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let slots = accept(&mut ring, CLIENTS);
    for (n, &slot) in slots.iter().enumerate() {
        if n % 2 == 0 { ring.receive_always(slot, 0) } else { ring.receive_once(slot, 0) }.unwrap();
    }
    for client in &mut clients {
        client.write_all(&[7; 3000]).unwrap();
    }
    let (mut received, mut completions) = (vec![0; 64], 0);
    let end = Instant::now() + Duration::from_secs(10);
    while received.iter().sum::<usize>() < CLIENTS * 3000 && Instant::now() < end {
        ring.enter(Some(Duration::from_millis(20))).unwrap();
        let mut again = vec![];
        while let Some(event) = ring.next_event() {
            completions += 1;
            match event {
                Event::Received { slot, bytes, .. } => {
                    assert!(bytes.iter().all(|&byte| byte == 7));
                    received[slot.0 as usize] += bytes.len();
                    again.push(slot);
                }
                other => panic!("{other:?}"),
            }
        }
        for slot in again {
            // Multishot ones say Busy, also while they wait for buffers.
            let _ = ring.receive_once(slot, 0);
        }
    }
    assert!(slots.iter().all(|slot| received[slot.0 as usize] == 3000), "{received:?}");
    let stats = ring.stats();
    assert!(stats.starved_count > 0, "the case did not happen");
    // Useful completions are CLIENTS * 3000 / 256; failed ones must stay of that order.
    assert!(stats.starved_count < 4000 && completions < 4000, "melting: {stats:?}");
    assert_eq!((stats.buffers_free_least, stats.buffer_count), (0, 4));
    assert!(stats.completed_count >= completions && stats.submitted_count > 0);
    // The least begins anew with each look, from the turn that is under way.
    ring.enter(None).unwrap();
    ring.take_stats();
    assert_eq!(ring.take_stats().buffers_free_least, 4);
}

#[test]
fn a_shortage_is_told_although_it_brings_more_buffers() {
    const CLIENTS: usize = 40;
    let config = Config { buffer_count: 512, buffer_bytes: 64, ..small() };
    let (mut ring, address) = listening(&config);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let slots = accept(&mut ring, CLIENTS);
    for client in &mut clients {
        client.write_all(&[7]).unwrap();
    }
    let before = ring.take_stats();
    assert_eq!((before.buffers_free_least, before.buffer_count), (32, 32));
    for &slot in &slots {
        ring.receive_once(slot, 0).unwrap();
    }
    let mut received = 0;
    until(&mut ring, |event| {
        let Event::Received { .. } = event else { panic!("{event:?}") };
        received += 1;
        received == CLIENTS
    });
    let stats = ring.take_stats();
    assert!(stats.starved_count > 0 && stats.buffer_count > 32, "the case did not happen: {stats:?}");
    assert_eq!(stats.buffers_free_least, 0);
}

#[test]
fn a_receive_that_found_no_buffer_is_heard_although_nothing_else_happens() {
    const CLIENTS: usize = 42;
    let config = Config { buffer_count: 2, buffer_bytes: 64, ..small() };
    let (mut ring, address) = listening(&config);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut slots = vec![None; CLIENTS];
    until(&mut ring, |event| {
        if let Event::Accepted { slot, peer, .. } = event {
            let client = clients.iter().position(|client| client.local_addr().unwrap() == peer);
            slots[client.unwrap()] = Some(slot);
        }
        slots.iter().all(Option::is_some)
    });
    // The first two take all buffers, so that those after them find none, although nothing has come for these.
    for client in &mut clients[..2] {
        client.write_all(&[7]).unwrap();
    }
    for slot in slots.into_iter().flatten() {
        ring.receive_once(slot, 0).unwrap();
    }
    let mut received = 0;
    until(&mut ring, |event| {
        let Event::Received { .. } = event else { panic!("{event:?}") };
        received += 1;
        received == 2
    });
    assert!(ring.stats().starved_count >= 30, "the case did not happen: {:?}", ring.stats());
    clients[CLIENTS - 1].write_all(&[8]).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < end, "the ring slept, and one was not heard");
        ring.enter(Some(Duration::from_secs(20))).unwrap();
        if let Some(event) = ring.next_event() {
            assert!(matches!(event, Event::Received { bytes: &mut [8], .. }), "{event:?}");
            return;
        }
    }
}

#[test]
fn starving_sockets_are_tried_no_more_than_there_are_buffers() {
    const CLIENTS: usize = 50;
    const EACH: usize = 1280;
    let config = Config { buffer_count: 2, buffer_bytes: 64, ..small() };
    let (mut ring, address) = listening(&config);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for slot in accept(&mut ring, CLIENTS) {
        ring.receive_always(slot, 0).unwrap();
    }
    for client in &mut clients {
        client.write_all(&[7; EACH]).unwrap();
    }
    let mut bytes_count = 0;
    until(&mut ring, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        bytes_count += bytes.len();
        bytes_count == CLIENTS * EACH
    });
    // Each at first, then about one for each buffer that was filled; all of them in each turn would be 50 times that.
    let (starved_count, filled) = (ring.stats().starved_count, (CLIENTS * EACH / 64) as u64);
    assert!(starved_count >= CLIENTS as u64 / 2, "the case did not happen: {starved_count}");
    assert!(starved_count < 2 * filled + CLIENTS as u64, "melting: {starved_count} for {filled} buffers");
}

#[test]
fn a_multishot_receive_goes_on_after_the_kernel_ends_it() {
    // The kernel ends a multishot receive when the completion queue is full.
    let config =
        Config { submission_count: 8, completion_count: 8, buffer_count: 512, buffer_bytes: 64, ..small() };
    let (mut ring, address) = listening(&config);
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.receive_always(slot, 0).unwrap();
    ring.enter(None).unwrap();
    let data: Vec<u8> = (0..100_000_u32).map(|n| ((n * 7) >> 2) as u8).collect();
    client.write_all(&data).unwrap();
    drop(client);
    let mut all = Vec::new();
    until(&mut ring, |event| match event {
        Event::Received { bytes, .. } => {
            all.extend_from_slice(bytes);
            false
        }
        Event::Ended { error, .. } => {
            assert_eq!(error, None);
            true
        }
        other => panic!("{other:?}"),
    });
    assert!(all == data);
    assert!(ring.stats().rearm_count > 0, "the case did not happen");
}

#[test]
fn starved_receives_keep_every_byte_in_order_and_are_armed_again_only_when_buffers_are_back() {
    const BYTES: usize = 60_000;
    let config = Config { buffer_count: 2, buffer_bytes: 64, ..small() };
    let (mut ring, address) = listening(&config);
    let pattern = |seed: usize| (0..BYTES).map(|n| ((n * 31 + seed) >> 3) as u8).collect::<Vec<u8>>();
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let slots = accept(&mut ring, 3);
    for (n, &slot) in slots.iter().enumerate() {
        ring.receive_always(slot, n as u64).unwrap();
        clients[n].write_all(&pattern(n)).unwrap();
    }
    // Nobody takes what came: both buffers are out, and armed again is next to nothing, however often it turns.
    for _ in 0..1000 {
        ring.enter(None).unwrap();
    }
    let held = ring.stats();
    assert!(held.rearm_count <= 3, "armed again without buffers: {held:?}");
    let mut all = vec![Vec::new(); 3];
    until(&mut ring, |event| {
        let Event::Received { key, bytes, .. } = event else { panic!("{event:?}") };
        all[key as usize].extend_from_slice(bytes);
        all.iter().map(Vec::len).sum::<usize>() == 3 * BYTES
    });
    let stats = ring.stats();
    for (n, got) in all.iter().enumerate() {
        assert!(*got == pattern(n), "bytes lost or reordered at {n}");
    }
    assert!(stats.starved_count > 100, "the case did not happen: {stats:?}");
    // Two buffers of 64 bytes: no more than about one futile try for each buffer that was filled.
    let filled = 3 * BYTES as u64 / 64;
    assert!(stats.rearm_count < 2 * filled, "melting: {stats:?}");
}

#[test]
fn an_overflown_completion_queue_loses_nothing() {
    let config = Config { submission_count: 8, completion_count: 8, ..small() };
    let (mut ring, address) = listening(&config);
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let slots = accept(&mut ring, 60);
    // All sixty sends complete inside the submissions, before any completion is taken.
    for &slot in &slots {
        ring.send(slot, 3, b"ping").unwrap();
    }
    let mut sent = 0;
    until(&mut ring, |event| {
        assert!(matches!(event, Event::Sent { .. }), "{event:?}");
        sent += 1;
        sent == 60
    });
    assert!(ring.stats().overflow_count > 0, "the case did not happen");
    for mut client in clients {
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
    }
}

#[test]
fn a_close_waits_for_what_is_in_flight() {
    let (mut ring, address) = listening(&small());
    let _client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.receive_always(slot, 4).unwrap();
    ring.send(slot, 4, &vec![1; 32 << 20]).unwrap(); // nobody reads: it stays under way
    ring.enter(Some(Duration::from_millis(10))).unwrap();
    assert!(ring.next_event().is_none());
    ring.close(slot, 4).unwrap();
    assert_eq!(ring.close(slot, 4), Err(SlotError::NotOpen));
    assert_eq!(ring.receive_once(slot, 4), Err(SlotError::NotOpen));
    let mut events = 0;
    until(&mut ring, |event| {
        events += 1;
        event == Event::Closed { slot, key: 4 }
    });
    assert_eq!(events, 1, "no other event after close");
    assert_eq!(ring.stats().slots_used_now, 0);
}

#[test]
fn slots_are_used_again_without_mixing_sockets() {
    let config = Config { descriptor_count: 3, ..small() };
    let (mut ring, address) = listening(&config);
    let mut closed = 0;
    for round in 0..200_u64 {
        let mut client = TcpStream::connect(address).unwrap();
        let mut accepted = None;
        until(&mut ring, |event| {
            match event {
                Event::Accepted { slot, .. } => accepted = Some(slot),
                Event::Closed { .. } => closed += 1,
                other => panic!("{other:?}"),
            }
            accepted.is_some()
        });
        let slot = accepted.unwrap();
        ring.receive_always(slot, round).unwrap();
        client.write_all(&round.to_le_bytes()).unwrap();
        until(&mut ring, |event| match event {
            Event::Received { key, bytes, .. } => {
                assert_eq!((key, &bytes[..]), (round, &round.to_le_bytes()[..]));
                true
            }
            Event::Closed { .. } => {
                closed += 1;
                false
            }
            other => panic!("{other:?}"),
        });
        if round % 2 == 0 {
            // The client's last bytes and its end are on their way while the slot is being closed.
            client.write_all(b"late").unwrap();
            drop(client);
        }
        ring.close(slot, round).unwrap();
        if round + 1 - closed == 3 {
            until(&mut ring, |event| {
                assert!(matches!(event, Event::Closed { .. }), "{event:?}");
                closed += 1;
                true
            });
        }
    }
}

#[test]
fn dropping_a_busy_ring_ends_its_sockets() {
    let (mut ring, address) = listening(&small());
    let client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.receive_always(slot, 0).unwrap();
    ring.send(slot, 0, &vec![1; 32 << 20]).unwrap();
    ring.enter(None).unwrap();
    let handle = ring.handle(); // keeps the kernel's side alive
    assert_ends_with(ring, &client);
    assert!(TcpStream::connect(address).is_err());
    drop(handle);
}
