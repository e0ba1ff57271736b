//! Parked sockets: readable once, nothing lost or reordered on the way in and out, closes at every stage.

mod turns;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use tern_ring::{Config, Event, Ring, Slot, SlotError};
use turns::{accept_one, assert_ends_with, listening, small, until};

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
        // What was written last may be a moment behind.
        let mut all = vec![];
        while all.len() < 8 {
            ring.receive_once(slot, round).unwrap();
            until(&mut ring, |event| {
                let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
                all.extend_from_slice(bytes);
                true
            });
        }
        assert_eq!(all, b"pingpong");
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

/// Bytes of each buffer in [`nothing_is_lost_between_receiving_and_parking`].
const BUFFER_BYTES: usize = 512;

/// When a turn parks the socket, so that the cancellation meets the receive at every stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The kernel gets the receive and its cancellation together.
    Unsubmitted,
    /// The kernel has the receive, and may have ended it: nobody has looked yet.
    Unseen,
    /// What came was looked at, so that the receive waits.
    Seen,
}

/// One connection: what was written at one end, what came in at the other, and how often that was parked.
struct Flood {
    ring: Ring,
    slot: Slot,
    client: TcpStream,
    /// Written, or to be written as soon as there is room.
    data: Vec<u8>,
    written_count: usize,
    all: Vec<u8>,
    /// Whether there is a receive that can be parked, as far as this end knows.
    is_armed: bool,
    park_count: usize,
    /// Parks of receives that the kernel had ended because it had no buffer.
    starved_park_count: usize,
    ended: bool,
}

impl Flood {
    fn new(config: &Config) -> Self {
        let (mut ring, address) = listening(config);
        let client = TcpStream::connect(address).unwrap();
        client.set_nonblocking(true).unwrap();
        let slot = accept_one(&mut ring);
        ring.receive_always(slot, 0).unwrap();
        Self {
            ring,
            slot,
            client,
            data: vec![],
            written_count: 0,
            all: vec![],
            is_armed: true,
            park_count: 0,
            starved_park_count: 0,
            ended: false,
        }
    }

    fn push(&mut self, count: usize) {
        let start = self.data.len();
        self.data.extend((start..start + count).map(|n| ((n * 31) >> 3) as u8));
    }

    /// Writes as much as the sockets take.
    fn write(&mut self) {
        while self.written_count < self.data.len() {
            match self.client.write(&self.data[self.written_count..]) {
                Ok(count) => self.written_count += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Parks if this is the stage to do so. Refused while it is parked, or waits for buffers, which `may_starve` allows.
    fn park(&mut self, now: Stage, wanted: Stage, may_starve: bool) -> bool {
        if now != wanted || !self.is_armed {
            return false;
        }
        let parked = self.ring.park(self.slot, 0);
        assert!(parked.is_ok() || may_starve, "{parked:?}: no buffer was lacking");
        self.is_armed = parked.is_err();
        self.park_count += usize::from(parked.is_ok());
        parked.is_ok()
    }

    fn turn(&mut self, stage: Stage, may_starve: bool) {
        self.write();
        self.park(Stage::Unsubmitted, stage, may_starve);
        self.ring.enter(Some(Duration::from_millis(20))).unwrap();
        let was_parked = self.park(Stage::Unseen, stage, may_starve);
        let starved_count = self.ring.stats().starved_count;
        let (before, mut readable_count) = (self.all.len(), 0);
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Received { bytes, .. } => self.all.extend_from_slice(bytes),
                Event::Readable { .. } => readable_count += 1,
                Event::Ended { error, .. } => {
                    assert_eq!(error, None);
                    self.ended = true;
                }
                other => panic!("{other:?}"),
            }
        }
        let has_starved = self.ring.stats().starved_count > starved_count;
        self.starved_park_count += usize::from(was_parked && has_starved);
        assert!(readable_count <= 1, "readable is said once");
        if readable_count == 1 {
            assert!(!self.is_armed);
            self.ring.receive_always(self.slot, 0).unwrap();
            self.is_armed = true;
        } else if self.all.len() > before || self.all.len() == self.data.len() {
            self.park(Stage::Seen, stage, may_starve);
        }
    }
}

/// The receiver parks while bytes come in: few, or so many that buffers are lacking or the completion queue is full. Both
/// ends are this thread's, so that it is no matter who runs when.
#[test]
fn nothing_is_lost_between_receiving_and_parking() {
    const REPEATS: usize = 6;
    const STAGES: [Stage; 3] = [Stage::Unsubmitted, Stage::Unseen, Stage::Seen];
    for (buffer_count, completion_count) in [(64, 4096), (2, 4096), (64, 8)] {
        let buffer_bytes = BUFFER_BYTES as u32;
        let config = Config { submission_count: 8, buffer_count, buffer_bytes, completion_count, ..small() };
        let mut flood = Flood::new(&config);
        let end = Instant::now() + Duration::from_secs(60);
        let mut round_count = 0;
        for stage in (0..REPEATS).flat_map(|_| STAGES) {
            let half = flood.ring.stats().buffer_count as usize / 2 * BUFFER_BYTES;
            let flooded = 3 * usize::from(buffer_count) * BUFFER_BYTES;
            for (count, may_starve) in [(1, false), (BUFFER_BYTES - 1, false), (half, false), (flooded, true)]
            {
                round_count += 1;
                flood.push(count);
                // Until all is there, and it is parked.
                while flood.all.len() < flood.data.len() || flood.ring.stats().parked_now == 0 {
                    assert!(Instant::now() < end, "{stage:?}, {count} bytes: {:?}", flood.ring.stats());
                    flood.turn(stage, may_starve);
                }
            }
        }
        let stats = flood.ring.stats();
        assert!(flood.park_count >= round_count, "each round parks: {}", flood.park_count);
        if completion_count == 8 {
            // What ends a receive then comes behind what there was room for: it was parked before that was seen.
            assert!(stats.overflow_count > 0, "the kernel ended no receive for want of room: {stats:?}");
        } else {
            assert!(flood.starved_park_count > 0, "no receive that lacked a buffer was parked: {stats:?}");
        }
        flood.client.shutdown(Shutdown::Both).unwrap();
        while !flood.ended {
            assert!(Instant::now() < end, "the end is not told: {:?}", flood.ring.stats());
            flood.turn(Stage::Unseen, false);
        }
        assert!(flood.all == flood.data, "bytes lost or reordered with {buffer_count} buffers");
        assert_eq!(flood.ring.stats().parked_now, 0);
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
                client.shutdown(Shutdown::Both).unwrap();
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
    let client = TcpStream::connect(address).unwrap();
    let slot = accept_one(&mut ring);
    ring.park(slot, 1).unwrap();
    ring.enter(None).unwrap();
    assert_ends_with(ring, &client);
}
