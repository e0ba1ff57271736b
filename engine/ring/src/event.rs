//! What a ring reports.

use std::net::SocketAddr;

/// A place in the ring's table of direct descriptors. The kernel picks it and uses it again after `Closed`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

/// A listener of this ring, in the order of the calls of [`crate::Ring::accept`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u32);

/// One thing that happened. `key` is what the caller gave with its last operation on the slot.
///
/// `error` fields are the operating system's error numbers (positive).
#[derive(PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A listener accepted a socket.
    Accepted {
        /// Where it is now.
        slot: Slot,
        /// Who accepted it.
        listener: ListenerId,
        /// The other end. An IPv4 one of a listener for both families is told as IPv4.
        peer: SocketAddr,
    },
    /// A listener does not accept at the moment. It tries again when a slot becomes free, or after
    /// [`crate::Ring::resume_accept`].
    AcceptPaused {
        /// Which one.
        listener: ListenerId,
        /// Why; ENFILE says that the descriptor table is full, or the system's table of open files.
        error: i32,
        /// Whether all slots of this ring's descriptor table are in use: it goes on by itself when one is freed.
        table_is_full: bool,
    },
    /// A connection that was asked for is made.
    Connected {
        /// Where it is.
        slot: Slot,
        /// The caller's.
        key: u64,
    },
    /// A connection was not made; it has no slot.
    ConnectFailed {
        /// The caller's.
        key: u64,
        /// Why; ENFILE says that the descriptor table is full.
        error: i32,
    },
    /// Bytes arrived.
    Received {
        /// On which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
        /// The bytes, at least one; they may be changed in place. The kernel gets the buffer back when this borrow ends.
        bytes: &'a mut [u8],
    },
    /// A parked socket has bytes, or its end: [`crate::Ring::receive_once`] or [`crate::Ring::receive_always`] tells.
    /// Nothing is under way on it for receiving now.
    Readable {
        /// Which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
    },
    /// The other end of a watched socket closed its side, or the connection failed. Bytes that came before may be there.
    Gone {
        /// Which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
    },
    /// No more bytes come on this socket. Not reported after `close`.
    Ended {
        /// Which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
        /// None: the other end closed its side. Otherwise why the receive failed.
        error: Option<i32>,
    },
    /// All bytes of the last `send` are with the kernel.
    Sent {
        /// On which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
    },
    /// The last `send` failed; the socket is useless for sending.
    SendFailed {
        /// On which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
        /// Why.
        error: i32,
    },
    /// The socket is closed, nothing of it is under way any more, the slot is free.
    Closed {
        /// Which slot it had.
        slot: Slot,
        /// The caller's.
        key: u64,
    },
    /// What became of [`crate::Ring::send_descriptor`]. After `Ok` the slot is being closed by itself and `Closed`
    /// follows; after an error the socket is still here and open.
    DescriptorSent {
        /// Which socket.
        slot: Slot,
        /// The caller's.
        key: u64,
        /// The error number; ENFILE says that the other table is full.
        result: Result<(), i32>,
    },
    /// A socket came from another ring.
    DescriptorArrived {
        /// Where it is now.
        slot: Slot,
        /// What the sender said with it: 56 bits.
        message: u64,
    },
    /// Another ring sent this by [`crate::Ring::wake`].
    Message(u32),
    /// A [`crate::Waker`] was used, once or more.
    Woken,
    /// What became of [`crate::Ring::write_durable`]: `Ok` means on stable storage.
    Written {
        /// The caller's.
        key: u64,
        /// The error number.
        result: Result<(), i32>,
    },
}
