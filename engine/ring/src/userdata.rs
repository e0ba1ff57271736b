//! The 64 bits that come back with each completion: a kind in the top byte, then what the kind needs.

/// What a completion belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A receive, single or multishot; slot and generation follow.
    Receive = 1,
    /// A shutdown; slot and generation follow.
    Shutdown = 2,
    /// A close of a direct descriptor; slot and generation follow.
    Close = 3,
    /// A descriptor on its way to another ring; slot and generation follow.
    Move = 4,
    /// An entry of the operation table; its index follows.
    Operation = 5,
    /// An accept; the listener's index and the place among its accepts follow.
    Accept = 6,
    /// A cancellation, of which nobody waits for the answer.
    Cancel = 7,
    /// A failed message to another ring (a successful one is silent); the peer and the message follow.
    MessageSent = 8,
    /// Posted by another ring: 32 bits of message follow.
    Message = 9,
    /// Posted by another ring with a descriptor: 56 bits of message follow.
    Arrival = 10,
    /// A socket option, of which nobody waits for the answer.
    SocketOption = 11,
    /// A poll of a parked socket; slot and generation follow.
    Poll = 12,
    /// The cancellation of a receive, so that its socket can be parked; slot and generation follow.
    Unarm = 13,
    /// A poll that waits for the other end to go; slot and generation follow.
    Watch = 14,
}

/// Bits of a message from another ring, and of everything below the kind.
pub(crate) const PAYLOAD_BITS: u32 = 56;
/// Slots fit 24 bits.
pub(crate) const SLOT_COUNT_MAX: u32 = 1 << 24;

pub(crate) const fn plain(kind: Kind, payload: u64) -> u64 {
    (kind as u64) << PAYLOAD_BITS | payload & ((1 << PAYLOAD_BITS) - 1)
}

pub(crate) const fn of_slot(kind: Kind, slot: u32, generation: u32) -> u64 {
    plain(kind, (slot as u64) << 32 | generation as u64)
}

/// For a message of this ring to another.
pub(crate) const fn of_message(peer: u32, message: u32) -> u64 {
    plain(Kind::MessageSent, (peer as u64) << 32 | message as u64)
}

/// Peer and message of a payload made by [`of_message`].
pub(crate) const fn peer_and_message(payload: u64) -> (u32, u32) {
    ((payload >> 32) as u32, payload as u32)
}

/// For the accept in `place` of a listener.
pub(crate) const fn of_accept(listener: u32, place: u16) -> u64 {
    plain(Kind::Accept, (listener as u64) << 16 | place as u64)
}

/// Listener and place of a payload made by [`of_accept`].
pub(crate) const fn listener_and_place(payload: u64) -> (u32, u16) {
    ((payload >> 16) as u32, payload as u16)
}

pub(crate) const fn payload(user_data: u64) -> u64 {
    user_data & ((1 << PAYLOAD_BITS) - 1)
}

/// Slot and generation of a payload made by [`of_slot`].
pub(crate) const fn slot_and_generation(payload: u64) -> (u32, u32) {
    ((payload >> 32) as u32, payload as u32)
}

pub(crate) const fn kind(user_data: u64) -> Option<Kind> {
    Some(match (user_data >> PAYLOAD_BITS) as u8 {
        1 => Kind::Receive,
        2 => Kind::Shutdown,
        3 => Kind::Close,
        4 => Kind::Move,
        5 => Kind::Operation,
        6 => Kind::Accept,
        7 => Kind::Cancel,
        8 => Kind::MessageSent,
        9 => Kind::Message,
        10 => Kind::Arrival,
        11 => Kind::SocketOption,
        12 => Kind::Poll,
        13 => Kind::Unarm,
        14 => Kind::Watch,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let data = of_slot(Kind::Move, SLOT_COUNT_MAX - 1, u32::MAX);
        assert_eq!(kind(data), Some(Kind::Move));
        assert_eq!(slot_and_generation(payload(data)), (SLOT_COUNT_MAX - 1, u32::MAX));
        assert_eq!(kind(0), None);
        assert_eq!(payload(plain(Kind::Message, u64::MAX)), (1 << PAYLOAD_BITS) - 1);
    }
}
