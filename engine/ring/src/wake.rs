//! Waking a ring's thread: from another ring by MSG_RING, from a plain thread by an eventfd.

use crate::operation::Operation;
use crate::ring::Ring;
use crate::userdata::{Kind, of_message, peer_and_message, plain};
use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Names a ring to others. Holds the ring's descriptor open, so that a late message can not reach something else.
#[derive(Clone, Debug)]
pub struct RingHandle {
    fd: Arc<OwnedFd>,
}

impl RingHandle {
    pub(crate) fn of(uring: &IoUring) -> io::Result<Self> {
        // SAFETY: the descriptor is open as long as `uring` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) };
        Ok(Self { fd: Arc::new(fd.try_clone_to_owned()?) })
    }
}

/// Wakes a ring from any thread; the ring reports `Woken`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    pub(crate) counter: Arc<File>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and nobody else owns it.
        Ok(Self { counter: Arc::new(File::from(unsafe { OwnedFd::from_raw_fd(fd) })) })
    }

    /// Wakes the ring, now or when it next waits.
    pub fn wake(&self) {
        // Blocks only if 2^64 - 2 wakes are waiting. The eventfd is a blocking one because the ring's read of a
        // non-blocking file would end at once instead of waiting.
        let _ = (&*self.counter).write(&1_u64.to_ne_bytes());
    }
}

/// Another ring that this ring may send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub(crate) u32);

impl Ring {
    /// Makes another ring known to this one, for as long as this one lives.
    pub fn add_peer(&mut self, ring: RingHandle) -> Peer {
        self.peers.push(ring);
        Peer(u32::try_from(self.peers.len() - 1).expect("few peers"))
    }

    pub(crate) fn peer_fd(&self, peer: Peer) -> types::Fd {
        types::Fd(self.peers[peer.0 as usize].fd.as_raw_fd())
    }

    /// Sends `message` to another ring, whose thread wakes and gets `Message`; the order of several is not kept. Silent
    /// here.
    pub fn wake(&mut self, peer: Peer, message: u32) {
        let to_there = plain(Kind::Message, u64::from(message));
        let entry = opcode::MsgRingData::new(self.peer_fd(peer), 0, to_there, None);
        let entry = entry.build().user_data(of_message(peer.0, message)).flags(squeue::Flags::SKIP_SUCCESS);
        self.push_uncounted(entry);
    }

    /// A message did not go. Where the kernel had no memory for it, it goes with the next turn: the peer may sleep, and
    /// nobody else wakes it. Otherwise the peer's ring is gone, and so is the need to wake it.
    pub(crate) fn message_failed(&mut self, payload: u64, error: i32) {
        if !self.ending && matches!(error, libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW) {
            let (peer, message) = peer_and_message(payload);
            self.wake(Peer(peer), message);
        }
    }

    pub(crate) fn arm_waker(&mut self) {
        let fd = types::Fd(self.waker.counter.as_raw_fd());
        self.push_operation(Operation::Wake { value: Box::new(0) }, |operation| {
            let Operation::Wake { value } = operation else { unreachable!("a wake was inserted") };
            opcode::Read::new(fd, (&raw mut **value).cast(), 8).build()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event::Event;
    use crate::userdata::payload;
    use std::time::{Duration, Instant};

    #[test]
    fn a_message_that_found_no_memory_goes_again_and_one_to_a_ring_that_is_gone_does_not() {
        let ring = || Ring::new(&Config { descriptor_count: 8, ..Config::default() }).unwrap();
        let (mut ring, mut other) = (ring(), ring());
        ring.add_peer(ring.handle());
        let peer = ring.add_peer(other.handle());
        let sent = |message| payload(of_message(peer.0, message));
        ring.message_failed(sent(1), libc::EOWNERDEAD);
        ring.message_failed(sent(2), libc::ENOMEM);
        ring.message_failed(sent(u32::MAX), libc::EOVERFLOW);
        ring.enter(None).unwrap();
        other.enter(Some(Duration::from_secs(10))).unwrap();
        let mut got: Vec<Event<'_>> = vec![];
        while let Some(Event::Message(message)) = other.next_event() {
            got.push(Event::Message(message));
        }
        got.sort_by_key(|event| if let Event::Message(message) = event { *message } else { 0 });
        assert_eq!(got, [Event::Message(2), Event::Message(u32::MAX)]);
    }
    #[test]
    fn a_ring_goes_on_hearing_wakes_after_the_kernel_has_ended_its_read() {
        let mut ring = Ring::new(&Config { descriptor_count: 8, ..Config::default() }).unwrap();
        ring.enter(None).unwrap();
        // The first operation of a ring. As if there were neither memory for its poll nor a thread for it.
        let read = plain(Kind::Operation, 0);
        ring.push(opcode::AsyncCancel::new(read).build().user_data(plain(Kind::Cancel, 0)));
        for wakes in [false, true] {
            if wakes {
                ring.waker().wake();
            }
            let end = Instant::now() + Duration::from_secs(10);
            while ring.next_event() != Some(Event::Woken) {
                assert!(Instant::now() < end, "not woken");
                ring.enter(Some(Duration::from_millis(50))).unwrap();
            }
        }
    }
}
