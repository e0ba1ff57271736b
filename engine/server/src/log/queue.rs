//! Lines on their way to standard error: a bounded queue and one thread that writes them out, so that nobody who has
//! something to say waits for who reads it.

use std::io::Write;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines that wait; what does not fit is left out and counted.
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    /// Lines came, or were written.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Since the start.
    left_out_count: u64,
    /// Of these, those that no line has told yet.
    untold_count: u64,
}

impl Queue {
    pub(super) const fn new(bytes_max: usize) -> Self {
        let state = State { waiting: Vec::new(), is_writing: false, left_out_count: 0, untold_count: 0 };
        Self { bytes_max, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes a line, if it fits. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > self.bytes_max {
            state.left_out_count += 1;
            state.untold_count += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Lines that were left out since the start.
    pub(super) fn left_out_count(&self) -> u64 {
        self.lock().left_out_count
    }

    /// Lines that were left out and that no line has told yet, once there is room for that line.
    pub(super) fn take_untold(&self) -> u64 {
        let mut state = self.lock();
        if state.waiting.len() > self.bytes_max / 2 {
            return 0;
        }
        mem::take(&mut state.untold_count)
    }

    /// Writes out what comes, for good. What cannot be written is lost.
    pub(super) fn write_to(&self, mut out: impl Write) -> ! {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            self.changed.notify_all();
            let is_empty = |state: &mut State| state.waiting.is_empty();
            state = self.changed.wait_while(state, is_empty).unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut state.waiting, &mut lines);
            state.is_writing = true;
            drop(state);
            let _ = out.write_all(&lines);
            lines.clear();
        }
    }

    /// Waits until all is written that has come, but no longer than this.
    pub(super) fn wait_until_written(&self, longest: Duration) {
        let is_unwritten = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let _ = self.changed.wait_timeout_while(self.lock(), longest, is_unwritten);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    /// Standard error with a reader that takes a piece only when it is told to.
    struct Stalled {
        offered: SyncSender<Vec<u8>>,
        taken: Receiver<()>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.offered.send(bytes.to_vec());
            let _ = self.taken.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody() {
        let queue = Arc::new(Queue::new(10));
        let ((offered, pieces), (take, taken)) = (sync_channel(1), sync_channel(1));
        let theirs = Arc::clone(&queue);
        thread::spawn(move || theirs.write_to(Stalled { offered, taken }));
        queue.push(b"one\n");
        assert_eq!(pieces.recv().unwrap(), b"one\n", "it is offered at once");
        for line in ["two\n", "three\n", "four\n", "five\n"] {
            queue.push(line.as_bytes());
        }
        assert_eq!((queue.left_out_count(), queue.take_untold()), (2, 0), "there is no room to tell it");
        queue.wait_until_written(Duration::from_millis(1));
        take.send(()).unwrap();
        assert_eq!(pieces.recv().unwrap(), b"two\nthree\n", "what fits comes, in order");
        take.send(()).unwrap();
        queue.wait_until_written(LONG);
        assert_eq!(
            (queue.take_untold(), queue.take_untold(), queue.left_out_count()),
            (2, 0, 2),
            "told once"
        );
    }

    #[test]
    fn the_end_waits_for_what_was_said_before_it() {
        let queue = Arc::new(Queue::new(100));
        queue.wait_until_written(LONG);
        queue.push(b"last words\n");
        let ((offered, pieces), (take, taken)) = (sync_channel(1), sync_channel(1));
        let theirs = Arc::clone(&queue);
        thread::spawn(move || theirs.write_to(Stalled { offered, taken }));
        take.send(()).unwrap();
        queue.wait_until_written(LONG);
        assert_eq!(pieces.try_recv().unwrap(), b"last words\n");
    }
}
