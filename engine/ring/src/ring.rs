//! The ring itself: making it, its queues, and its end.

use crate::block::Pool;
use crate::buffers::Buffers;
use crate::config::Config;
use crate::event::Event;
use crate::listener::ListenerState;
use crate::operation::{Operation, Operations};
use crate::slots::SlotState;
use crate::userdata::SLOT_COUNT_MAX;
use crate::wake::{RingHandle, Waker};
use io_uring::{IoUring, cqueue, squeue};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

/// Counts since the ring was made, and levels.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Receives that found no free buffer and waited for one.
    pub starved_count: u64,
    /// Times that the completion queue was found overflown.
    pub overflow_count: u64,
    /// Sends of which the kernel took only a part at first.
    pub short_send_count: u64,
    /// Completions of a slot's earlier socket.
    pub stale_count: u64,
    /// Receives that the ring armed again by itself: after starving, or after the kernel ended them.
    pub rearm_count: u64,
    /// Times that a listener was paused.
    pub accept_pause_count: u64,
    /// Sockets that are parked now.
    pub parked_now: u32,
    /// Turns: system calls that submit and wait.
    pub enter_count: u64,
    /// Operations that the kernel took.
    pub submitted_count: u64,
    /// Completions that were looked at.
    pub completed_count: u64,
    /// Descriptor slots in use now.
    pub slots_used_now: u32,
    /// Buffers for received bytes that the kernel has or has filled now.
    pub buffer_count: u32,
    /// Fewest of them that a turn left since [`Ring::take_stats`]; none, where a receive found none.
    pub buffers_free_least: u32,
    /// Buffers that were filled in this turn.
    pub(crate) buffers_filled: u32,
}

/// What the kernel may write to or read from while the ring lives.
pub(crate) struct Memory {
    pub(crate) buffers: Buffers,
    pub(crate) operations: Operations,
    pub(crate) listeners: Vec<ListenerState>,
}

/// One io_uring with its sockets, buffers and files. Belongs to the thread that made it.
pub struct Ring {
    pub(crate) uring: IoUring,
    /// The ring's index among the thread's registered rings, if it could be registered.
    pub(crate) registered_fd: Option<u32>,
    pub(crate) memory: ManuallyDrop<Memory>,
    pub(crate) slots: Vec<SlotState>,
    pub(crate) pool: Pool,
    /// Entries that the submission queue had no room for.
    pub(crate) backlog: VecDeque<squeue::Entry>,
    /// Completions taken from the queue and not yet looked at.
    pub(crate) batch: VecDeque<cqueue::Entry>,
    /// Whose bytes are in it.
    pub(crate) coming: VecDeque<u64>,
    /// Events that came about without a completion of their own.
    pub(crate) ready: VecDeque<Event<'static>>,
    /// The buffer that the last event lent out.
    pub(crate) lent: Option<u16>,
    /// Slots whose receive waits for buffers.
    pub(crate) starved: VecDeque<(u32, u32)>,
    /// Submitted operations whose last completion has not come.
    pub(crate) in_flight: usize,
    pub(crate) handle: RingHandle,
    pub(crate) peers: Vec<RingHandle>,
    pub(crate) waker: Waker,
    /// Accepts that each listener has under way.
    pub(crate) accept_count: u16,
    pub(crate) stats: Stats,
    /// Being dropped: nothing new is started.
    pub(crate) ending: bool,
    /// Not `Send`: SINGLE_ISSUER binds the ring to its thread.
    _thread: PhantomData<*mut ()>,
}

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    /// The operating system's error of the step that failed; [`crate::probe::explain`] says what to do about it.
    pub fn new(config: &Config) -> io::Result<Self> {
        if config.descriptor_count == 0 || config.descriptor_count > SLOT_COUNT_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptor_count must be 1 to 2^24"));
        }
        let uring = build(config)?;
        uring.submitter().register_files_sparse(config.descriptor_count)?;
        let buffers = Buffers::register(&uring, config.buffer_count, config.buffer_bytes)?;
        let buffer_count = u32::from(buffers.out_count());
        let handle = RingHandle::of(&uring)?;
        let registered_fd = crate::enter::register_ring_fd(&uring);
        let mut ring = Self {
            uring,
            registered_fd,
            memory: ManuallyDrop::new(Memory {
                buffers,
                operations: Operations::new(),
                listeners: Vec::new(),
            }),
            slots: vec![SlotState::FREE; config.descriptor_count as usize],
            pool: Pool::new(config.pool_bytes),
            backlog: VecDeque::new(),
            batch: VecDeque::with_capacity(256),
            coming: VecDeque::with_capacity(256),
            ready: VecDeque::new(),
            lent: None,
            starved: VecDeque::new(),
            in_flight: 0,
            handle,
            peers: Vec::new(),
            waker: Waker::new()?,
            accept_count: config.accept_count.max(1),
            stats: Stats { buffer_count, buffers_free_least: buffer_count, ..Stats::default() },
            ending: false,
            _thread: PhantomData,
        };
        ring.arm_waker();
        Ok(ring)
    }

    /// Names this ring to others, for [`Ring::wake`] and [`Ring::send_descriptor`].
    #[must_use]
    pub fn handle(&self) -> RingHandle {
        self.handle.clone()
    }

    /// Wakes this ring's thread from a thread without a ring.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Its counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Its counts; what is counted as the least since the last call begins anew.
    pub fn take_stats(&mut self) -> Stats {
        self.note_free_buffers();
        let stats = self.stats;
        self.stats.buffers_free_least = stats.buffer_count;
        stats
    }

    /// How many buffers the turn has left so far: of those that there were in it, because a shortage brings more.
    pub(crate) fn note_free_buffers(&mut self) {
        let stats = &mut self.stats;
        let left =
            if self.starved.is_empty() { stats.buffer_count.saturating_sub(stats.buffers_filled) } else { 0 };
        stats.buffers_free_least = stats.buffers_free_least.min(left);
    }

    /// Descriptor slots: most sockets that it can hold.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Gives back memory that was not needed lately: to be called about once a second, as long as it says that there is
    /// more to give back.
    pub fn trim(&mut self) -> bool {
        let has_buffers = self.memory.buffers.trim();
        let has_blocks = self.pool.trim();
        has_buffers || has_blocks
    }

    /// Hands an operation to the kernel at the next turn, or earlier if the queue is full.
    pub(crate) fn push(&mut self, entry: squeue::Entry) {
        if self.ending {
            return;
        }
        self.in_flight += 1;
        self.push_uncounted(entry);
    }

    /// For operations that complete silently when they succeed and own no memory.
    pub(crate) fn push_uncounted(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
            // The queue is full: one early submission makes room, and what the kernel refuses now goes later.
            let _ = self.submit();
            self.drain_backlog();
        }
    }

    pub(crate) fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: every entry is built inside this crate, and points only into `memory` (operation table, buffers) or
        // at descriptors that stay open until the operation's last completion.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    pub(crate) fn push_operation(
        &mut self,
        operation: Operation,
        entry: impl FnOnce(&mut Operation) -> squeue::Entry,
    ) {
        let index = self.memory.operations.insert(operation);
        let entry = entry(self.memory.operations.get(index))
            .user_data(crate::userdata::plain(crate::userdata::Kind::Operation, u64::from(index)));
        self.push(entry);
    }
}

/// The flags of the design; on an older kernel without NO_SQARRAY (6.6) the ring is made without it.
fn build(config: &Config) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(config.completion_count.max(config.submission_count));
    let plain = builder.clone();
    builder.setup_no_sqarray();
    match builder.build(config.submission_count) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain.build(config.submission_count),
        result => result,
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.ending = true;
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.in_flight > 0 && Instant::now() < deadline {
            self.cancel_all();
            if self.enter(Some(Duration::from_millis(20))).is_err() {
                break;
            }
            self.reap_at_end();
        }
        crate::enter::unregister_ring_fd(&self.uring, self.registered_fd);
        if self.in_flight == 0 {
            // Others may still hold the ring's descriptor: its sockets must not live on with it.
            let _ = self.uring.submitter().unregister_files();
            self.memory.buffers.unregister(&self.uring);
            // SAFETY: dropped only here. No operation is in flight and the buffers are unregistered, so that the
            // kernel holds no pointer into it. Otherwise it is leaked on purpose.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}
