//! The one system call of a turn, made by hand: the crate's registered-ring support lives in a borrowed `Submitter`.

use crate::ring::Ring;
use crate::slots::{Phase, Receive};
use io_uring::{EnterFlags, IoUring, types};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timespec: u64,
}

fn register_call(fd: i32, operation: libc::c_uint, update: &mut RingFdUpdate) -> io::Result<i64> {
    // SAFETY: both operations read and write one `io_uring_rsrc_update`, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, operation, &raw mut *update, 1) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Registers the ring's descriptor with its thread, which saves a look-up per system call. None: not supported.
pub(crate) fn register_ring_fd(uring: &IoUring) -> Option<u32> {
    let fd = uring.as_raw_fd();
    let mut update = RingFdUpdate { offset: u32::MAX, reserved: 0, data: fd as u64 };
    match register_call(fd, REGISTER_RING_FDS, &mut update) {
        Ok(1) => Some(update.offset),
        _ => None,
    }
}

/// Undoes it; a thread keeps the ring alive otherwise.
pub(crate) fn unregister_ring_fd(uring: &IoUring, registered: Option<u32>) {
    if let Some(offset) = registered {
        let mut update = RingFdUpdate { offset, reserved: 0, data: 0 };
        let _ = register_call(uring.as_raw_fd(), UNREGISTER_RING_FDS, &mut update);
    }
}

impl Ring {
    /// One turn: hands everything to the kernel and waits until something happens, at most for `wait`. `None` does not
    /// wait. Does not wait either while events are ready, or while receives that found no buffer are not tried again: they
    /// are, some in each turn. Follow it with [`Ring::next_event`]; what is left of the events
    /// comes first after the next `enter`.
    ///
    /// # Errors
    /// Only those that say that the ring is unusable.
    pub fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.give_lent_back();
        self.rearm_accepts();
        self.note_free_buffers();
        self.memory.buffers.turn_ended(self.stats.buffers_filled, !self.starved.is_empty());
        self.stats.buffer_count = u32::from(self.memory.buffers.out_count());
        self.rearm_starved();
        self.drain_backlog();
        self.stats.enter_count += 1;
        self.stats.buffers_filled = 0;
        let is_idle = !self.has_events() && self.backlog.is_empty() && self.starved.is_empty();
        let wait = wait.filter(|_| is_idle);
        let timespec = types::Timespec::from(wait.unwrap_or_default());
        let argument = WaitArgument {
            sigmask: 0,
            sigmask_bytes: 8,
            min_wait_us: 0,
            timespec: if wait.is_some() { &raw const timespec as u64 } else { 0 },
        };
        match self.enter_call(u32::from(wait.is_some()), &argument) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nothing happened in time; a signal; completions must be taken first; no memory at the moment.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether [`Ring::next_event`] has something, or the kernel has work that the next `enter` would run. Cheap: no
    /// system call; for a short spin before a wait.
    #[must_use]
    pub fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        let pending = queue.taskrun() || queue.cq_overflow() || !queue.is_empty();
        drop(queue);
        pending || self.has_events()
    }

    pub(crate) fn has_events(&mut self) -> bool {
        !self.batch.is_empty() || !self.ready.is_empty() || !self.uring.completion().is_empty()
    }

    /// Hands the queue to the kernel without waiting.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        let argument = WaitArgument { sigmask: 0, sigmask_bytes: 8, min_wait_us: 0, timespec: 0 };
        self.enter_call(0, &argument)
    }

    fn enter_call(&mut self, min_complete: u32, argument: &WaitArgument) -> io::Result<()> {
        let mut queue = self.uring.submission();
        queue.sync();
        let to_submit = queue.len() as u32;
        if queue.cq_overflow() {
            self.stats.overflow_count += 1;
        }
        drop(queue);
        // GETEVENTS always: it runs deferred task work, and moves overflown completions to the queue.
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let fd = match self.registered_fd {
            Some(index) => {
                flags |= EnterFlags::REGISTERED_RING;
                index as i32
            }
            None => self.uring.as_raw_fd(),
        };
        // SAFETY: `argument` and the timespec that it points at outlive the call. The entries that it submits are
        // covered by `try_push`. The descriptor or index is this ring's.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                to_submit,
                min_complete,
                flags.bits(),
                &raw const *argument,
                size_of::<WaitArgument>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.stats.submitted_count += result as u64;
        Ok(())
    }

    /// Arms receives again that found no buffer, once buffers are back: no more of them than there are buffers, or
    /// they would only fail again (ten million useless completions were seen).
    fn rearm_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        // Completions that nobody has looked at hold buffers: then only a few are tried, so that none waits for ever.
        let count = self.memory.buffers.out_count();
        let tries = if self.has_events() { count.div_ceil(16) } else { count };
        for _ in 0..tries {
            let Some((slot, generation)) = self.starved.pop_front() else { break };
            let state = &mut self.slots[slot as usize];
            if state.generation != generation || state.phase != Phase::Open {
                continue;
            }
            match state.receive {
                Receive::StarvedOnce => self.rearm_receive(slot, Receive::Once),
                Receive::StarvedAlways => self.rearm_receive(slot, Receive::Always),
                _ => {}
            }
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        let _ = self.submit();
        let timeout = types::Timespec::new().nsec(1);
        // An error says that something could not be cancelled (yet) or that there was nothing: the caller waits.
        let _ = self.uring.submitter().register_sync_cancel(Some(timeout), types::CancelBuilder::any());
    }
}
