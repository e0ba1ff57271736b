//! The generator's timers: few, so a heap does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// Connect again.
    Connect,
    /// The login took too long.
    LoginTooLong,
    /// `busy` is over.
    Unblock,
    /// Look for messages without an answer.
    Resend,
    /// Look for silent phones.
    KeepAlive,
}

/// Alarms by time. An alarm of an attempt that is over is recognised by the caller.
#[derive(Default, Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Alarm, u64)>>,
}

impl Timers {
    /// Rings at `due_ns` for the attempt `key`.
    pub(crate) fn set(&mut self, due_ns: u64, alarm: Alarm, key: u64) {
        self.heap.push(Reverse((due_ns, alarm, key)));
    }

    /// When the next one rings.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|next| next.0.0)
    }

    /// The next one that is due.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<(Alarm, u64)> {
        self.next_ns().filter(|&due_ns| due_ns <= now_ns)?;
        self.heap.pop().map(|Reverse((_, alarm, key))| (alarm, key))
    }
}
