//! The sockets of one shard: from the core's connections to the ring's slots and back.

use std::collections::VecDeque;
use tern_core::io::ConnId;
use tern_ring::{Peer, Ring, Slot, SlotError};
use tracing::error;

/// The key of a slot that belongs to no connection of the core.
const NO_CONNECTION: u64 = u64::MAX;
/// How long a close waits for a send that is under way.
const LINGER_NS: u64 = 1_000_000_000;
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
}

/// What the driver knows of each slot beside the ring.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    uses: Vec<Use>,
    /// Closes that wait for a send, in order of their deadlines (monotonic nanoseconds).
    lingering: VecDeque<(u64, ConnId)>,
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

    pub(crate) fn receive(&mut self, ring: &mut Ring, conn: ConnId, always: bool) {
        let slot = Slot(conn.slot);
        let result =
            if always { ring.receive_always(slot, key(conn)) } else { ring.receive_once(slot, key(conn)) };
        self.check(conn, result);
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
}
