//! What a child says on one of its pipes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that are kept; a node that says more has said what matters last.
const LINE_COUNT: usize = 2_000;
/// Longest wait for the rest of what a child said that has ended.
const REST_WAIT: Duration = Duration::from_secs(1);

/// Reads a pipe to its end on a thread of its own, so that the child never waits for its reader.
#[derive(Debug)]
pub(crate) struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    thread: JoinHandle<()>,
}

impl Output {
    /// Keeps what `look` gives back of each line.
    pub(crate) fn read(
        pipe: impl Read + Send + 'static,
        mut look: impl FnMut(String) -> Option<String> + Send + 'static,
    ) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let theirs = Arc::clone(&lines);
        let thread = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                let Some(text) = look(text) else { continue };
                let mut lines = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINE_COUNT {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
        });
        Self { lines, thread }
    }

    /// Whether the child has closed it, as at its end.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// What was said until now.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::as_str).collect()
    }

    /// What was said until the child's end, which must have come. Its own children may have the pipe for longer: they
    /// are not waited for.
    pub(crate) fn whole(&self) -> String {
        let deadline = Instant::now() + REST_WAIT;
        while !self.is_over() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}
