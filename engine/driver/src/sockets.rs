//! The sockets of one shard: from the core's connections to the ring's slots and back.
//!
//! The core says of an adopted connection that it is to be received from for good; how is decided here. An idle one is
//! parked: the kernel holds 256 bytes for its poll, against 860 for a multishot receive (io_kiocb alone, against that and
//! the message header and poll of the receive). A burst on a parked socket costs three operations instead of one
//! completion, which is 0.3-0.4 us of CPU more, and becoming idle again costs a cancellation, 0.9 us in all:
//! `cargo run --release -p tern-ring --example idle_cost` prints both. So a connection starts parked, a phone that only
//! pings stays so, and one that is heard twice within a sweep's round is received from always until it falls silent for
//! a round. A hand sweeps over the slots for that: no timer, one bit a connection.

use std::collections::VecDeque;
use tern_core::io::ConnId;
use tern_ring::{Peer, Ring, Slot, SlotError};
use tracing::error;

/// The key of a slot that belongs to no connection of the core.
const NO_CONNECTION: u64 = u64::MAX;
/// How long a close waits for a send that is under way.
const LINGER_NS: u64 = 1_000_000_000;
/// How long the hand takes for a round over all slots.
const ROUND_NS: u64 = 10_000_000_000;
/// How often it moves at most.
const SWEEP_NS: u64 = 10_000_000;
/// Bits of a hand-over's token in the ring's message; the source shard is above them.
const TOKEN_BITS: u32 = 40;

#[derive(Clone, Copy, Default, Debug)]
struct Use {
    /// A send is under way.
    sending: bool,
    /// The core wants it closed, after the send.
    closing: bool,
    /// The core was told that no more bytes come.
    ended: bool,
    /// The core listens to it for good.
    adopted: bool,
    /// Bytes came since the hand last passed.
    heard: bool,
}

// With the ring's 16 bytes a slot, this is what ring and driver hold for an idle connection: at most 32.
const _: () = assert!(size_of::<Use>() <= 16);

/// What the driver knows of each slot beside the ring.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    uses: Vec<Use>,
    /// Closes that wait for a send, in order of their deadlines (monotonic nanoseconds).
    lingering: VecDeque<(u64, ConnId)>,
    /// The slot that the hand looks at next.
    hand: usize,
    /// When it last moved, monotonic nanoseconds.
    swept_at_ns: u64,
}

const fn key(conn: ConnId) -> u64 {
    (conn.generation as u64) << 32 | conn.slot as u64
}

/// The connection of a key of ours; none for a slot that the core never owned.
pub(crate) const fn connection(key: u64) -> Option<ConnId> {
    if key == NO_CONNECTION {
        return None;
    }
    Some(ConnId { slot: key as u32, generation: (key >> 32) as u32 })
}

/// What a hand-over says to the other ring.
fn hand_over_message(from: u16, token: u64) -> u64 {
    assert!(token < 1 << TOKEN_BITS, "tokens count from zero: 2^40 hand-overs are a bug");
    u64::from(from) << TOKEN_BITS | token
}

/// Source shard and token.
pub(crate) const fn read_hand_over_message(message: u64) -> (u16, u64) {
    ((message >> TOKEN_BITS) as u16, message & ((1 << TOKEN_BITS) - 1))
}

impl Sockets {
    fn slot_use(&mut self, slot: u32) -> &mut Use {
        let index = slot as usize;
        if self.uses.len() <= index {
            self.uses.resize_with(index + 1, Use::default);
        }
        &mut self.uses[index]
    }

    /// A socket came into `slot`.
    pub(crate) fn opened(&mut self, slot: u32) {
        *self.slot_use(slot) = Use::default();
    }

    /// Whether the core still listens to this socket's bytes and end.
    pub(crate) fn is_heard(&mut self, slot: u32) -> bool {
        !self.slot_use(slot).ended
    }

    /// The core is being told of the end. False: it was told before.
    pub(crate) fn end(&mut self, slot: u32) -> bool {
        !std::mem::replace(&mut self.slot_use(slot).ended, true)
    }

    /// Receives once, for a connection that may still move.
    pub(crate) fn receive_once(&mut self, ring: &mut Ring, conn: ConnId) {
        let result = ring.receive_once(Slot(conn.slot), key(conn));
        self.check(conn, result);
    }

    /// Reads nothing for now, and hears when the other end goes.
    pub(crate) fn watch(&mut self, ring: &mut Ring, conn: ConnId) {
        let result = ring.watch(Slot(conn.slot), key(conn));
        self.check(conn, result);
    }

    /// Receives until the socket ends, parked as long as nothing comes.
    pub(crate) fn adopt(&mut self, ring: &mut Ring, conn: ConnId) {
        self.slot_use(conn.slot).adopted = true;
        let result = ring.park(Slot(conn.slot), key(conn));
        self.check(conn, result);
    }

    /// A parked socket has bytes or its end.
    pub(crate) fn readable(&mut self, ring: &mut Ring, conn: ConnId) {
        let slot_use = self.slot_use(conn.slot);
        if slot_use.closing || slot_use.ended {
            return;
        }
        let is_busy = std::mem::replace(&mut slot_use.heard, true);
        let slot = Slot(conn.slot);
        let result =
            if is_busy { ring.receive_always(slot, key(conn)) } else { ring.receive_once(slot, key(conn)) };
        self.check(conn, result);
    }

    /// Bytes came, and the core has them.
    pub(crate) fn received(&mut self, ring: &mut Ring, conn: ConnId) {
        let slot_use = self.slot_use(conn.slot);
        if !slot_use.adopted || slot_use.closing || slot_use.ended {
            return;
        }
        slot_use.heard = true;
        if !ring.is_receiving(Slot(conn.slot)) {
            let result = ring.park(Slot(conn.slot), key(conn));
            self.check(conn, result);
        }
    }

    /// Moves the hand as far as time has: what was not heard since it last passed is parked.
    pub(crate) fn sweep(&mut self, ring: &mut Ring, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.swept_at_ns);
        if elapsed_ns < SWEEP_NS {
            return;
        }
        self.swept_at_ns = now_ns;
        let count = self.uses.len();
        // At most a round; the part of a slot that rounding gives away does no harm to a round of about ten seconds.
        let steps = (count as u64 * elapsed_ns.min(ROUND_NS)).div_ceil(ROUND_NS);
        for _ in 0..steps {
            self.hand = if self.hand + 1 >= count { 0 } else { self.hand + 1 };
            let slot_use = &mut self.uses[self.hand];
            if !slot_use.adopted || slot_use.closing || slot_use.ended {
                continue;
            }
            if !std::mem::replace(&mut slot_use.heard, false) {
                let slot = Slot(self.hand as u32);
                if let Some(key) = ring.key_of(slot) {
                    // Refused where it is parked already, or waits for buffers and so is not idle.
                    let _ = ring.park(slot, key);
                }
            }
        }
    }

    pub(crate) fn send(&mut self, ring: &mut Ring, conn: ConnId, bytes: &[u8]) {
        let result = ring.send(Slot(conn.slot), key(conn), bytes);
        if result.is_ok() {
            self.slot_use(conn.slot).sending = true;
        }
        self.check(conn, result);
    }

    /// An operation on a socket that is closing is late, and harmless; any other refusal is our own bug.
    fn check(&mut self, conn: ConnId, result: Result<(), SlotError>) {
        if let Err(error) = result {
            assert!(self.slot_use(conn.slot).closing, "{conn:?}: {error}");
        }
    }

    /// The send of `slot` ended: a close that waited for it goes on.
    pub(crate) fn sent(&mut self, ring: &mut Ring, conn: ConnId) {
        let slot_use = self.slot_use(conn.slot);
        slot_use.sending = false;
        if slot_use.closing {
            self.close_now(ring, conn);
        }
    }

    /// Closes once the send under way has ended, or after a second.
    pub(crate) fn close(&mut self, ring: &mut Ring, conn: ConnId, now_ns: u64) {
        let slot_use = self.slot_use(conn.slot);
        if std::mem::replace(&mut slot_use.closing, true) {
            return;
        }
        if slot_use.sending {
            self.lingering.push_back((now_ns + LINGER_NS, conn));
        } else {
            self.close_now(ring, conn);
        }
    }

    fn close_now(&mut self, ring: &mut Ring, conn: ConnId) {
        // The ring refuses while it closes the slot already (a lingering close whose send ended in time).
        let _ = ring.close(Slot(conn.slot), key(conn));
    }

    /// Closes a slot that no connection owns.
    pub(crate) fn close_slot(ring: &mut Ring, slot: u32) {
        if let Err(error) = ring.close(Slot(slot), NO_CONNECTION) {
            error!(slot, %error, "a slot that nobody owns could not be closed");
        }
    }

    /// Ends closes whose sends did not end in time.
    pub(crate) fn expire(&mut self, ring: &mut Ring, now_ns: u64) {
        while let Some(&(deadline_ns, conn)) = self.lingering.front()
            && deadline_ns <= now_ns
        {
            self.lingering.pop_front();
            let slot_use = self.slot_use(conn.slot);
            if slot_use.closing && slot_use.sending && ring.key_of(Slot(conn.slot)) == Some(key(conn)) {
                self.close_now(ring, conn);
            }
        }
    }

    /// When `expire` has something to do.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.lingering.front().map(|lingering| lingering.0)
    }

    /// Moves a socket to another shard's ring. False: it was refused at once.
    pub(crate) fn move_to(
        &mut self,
        ring: &mut Ring,
        conn: ConnId,
        peer: Peer,
        own: u16,
        token: u64,
    ) -> bool {
        ring.send_descriptor(Slot(conn.slot), key(conn), peer, hand_over_message(own, token)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_messages_are_read_back() {
        let conn = ConnId { slot: 0xff_ffff, generation: u32::MAX };
        assert_eq!(connection(key(conn)), Some(conn));
        assert_eq!(connection(NO_CONNECTION), None);
        assert_eq!(read_hand_over_message(hand_over_message(u16::MAX, 77)), (u16::MAX, 77));
    }

    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;
    use tern_ring::{Config, Event, Listener};

    /// A shard's sockets with one adopted connection, and its phone.
    struct Place {
        ring: Ring,
        sockets: Sockets,
        conn: ConnId,
        phone: TcpStream,
        got: Vec<u8>,
        ended: bool,
        now_ns: u64,
    }

    impl Place {
        fn new() -> Self {
            let config =
                Config { descriptor_count: 8, buffer_count: 8, buffer_bytes: 64, ..Config::default() };
            let mut ring = Ring::new(&config).unwrap();
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 8).unwrap();
            let phone = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            ring.accept(listener);
            let mut sockets = Sockets::default();
            let conn = loop {
                ring.enter(Some(Duration::from_millis(20))).unwrap();
                if let Some(Event::Accepted { slot, .. }) = ring.next_event() {
                    sockets.opened(slot.0);
                    break ConnId { slot: slot.0, generation: 5 };
                }
            };
            sockets.adopt(&mut ring, conn);
            Self { ring, sockets, conn, phone, got: vec![], ended: false, now_ns: 0 }
        }

        fn turn(&mut self) {
            self.ring.enter(Some(Duration::from_millis(1))).unwrap();
            while let Some(event) = self.ring.next_event() {
                match event {
                    Event::Readable { key, .. } => {
                        self.sockets.readable(&mut self.ring, connection(key).unwrap());
                    }
                    Event::Received { key, bytes, .. } => {
                        self.got.extend_from_slice(bytes);
                        self.sockets.received(&mut self.ring, connection(key).unwrap());
                    }
                    Event::Ended { slot, .. } => self.ended = self.sockets.end(slot.0),
                    Event::Closed { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        /// The phone says something, and the shard hears it.
        fn say(&mut self, bytes: &[u8]) {
            self.phone.write_all(bytes).unwrap();
            let wanted = self.got.len() + bytes.len();
            for _ in 0..2000 {
                self.turn();
                if self.got.len() == wanted {
                    break;
                }
            }
            assert!(self.got.ends_with(bytes), "not heard as it was said");
            self.turn();
        }

        /// So much time passes.
        fn wait(&mut self, ns: u64) {
            for _ in 0..10 {
                self.now_ns += ns / 10;
                self.sockets.sweep(&mut self.ring, self.now_ns);
                self.turn();
            }
        }

        fn is_parked(&self) -> bool {
            self.ring.stats().parked_now == 1
        }
    }

    #[test]
    fn a_phone_that_only_pings_stays_parked() {
        let mut place = Place::new();
        for _ in 0..5 {
            place.say(b"ping");
            assert!(place.is_parked());
            place.wait(2 * ROUND_NS);
        }
        assert_eq!(place.got, b"ping".repeat(5));
    }

    #[test]
    fn a_phone_that_talks_is_received_from_always_until_it_is_silent() {
        let mut place = Place::new();
        for round in 0..3 {
            place.say(b"hello");
            place.say(b"again");
            place.say(b"and again");
            assert!(!place.is_parked(), "round {round}");
            place.wait(ROUND_NS / 2);
            place.say(b"still here");
            place.wait(2 * ROUND_NS + ROUND_NS / 5);
            assert!(place.is_parked(), "round {round}");
        }
        // More than a buffer in one burst, from parked.
        place.say(&[7; 5000]);
        place.phone.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..100 {
            place.turn();
        }
        assert!(place.ended, "the end is heard");
    }

    #[test]
    fn a_parked_phone_is_closed() {
        let mut place = Place::new();
        place.turn();
        assert!(place.is_parked());
        let conn = place.conn;
        place.sockets.close(&mut place.ring, conn, 0);
        place.phone.write_all(b"late").unwrap();
        for _ in 0..2000 {
            if place.ring.stats().slots_used_now == 0 {
                break;
            }
            place.turn();
        }
        assert_eq!(place.ring.stats().slots_used_now, 0);
        assert_eq!(place.got, b"");
        place.wait(2 * ROUND_NS);
    }
}
