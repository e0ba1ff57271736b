//! How a node ends: drained, by a failure that breaks the promise, or by a panic. The first reason is the one told.

use crate::error::fatal_text;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tern_core::io::FatalError;

/// How often it is looked whether threads have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why a node stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was asked to drain, and every shard is done.
    Drained,
    /// A shard cannot keep the promise any more; the node stopped at once.
    Fatal(FatalError),
    /// A shard panicked or its ring failed; the node stopped at once.
    Panicked(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained => f.write_str("drained"),
            Self::Fatal(error) => f.write_str(&fatal_text(*error)),
            Self::Panicked(text) => write!(f, "a shard panicked: {text}"),
        }
    }
}

/// Shared by a node's threads.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    stop: AtomicBool,
    undrained_count: AtomicUsize,
    exit: flume::Sender<Exit>,
}

impl Lifecycle {
    pub(crate) fn new(shard_count: usize, exit: flume::Sender<Exit>) -> Self {
        Self { stop: AtomicBool::new(false), undrained_count: AtomicUsize::new(shard_count), exit }
    }

    /// Whether threads shall end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends all threads, for `exit` unless a reason was given before. Callers wake the threads.
    pub(crate) fn stop(&self, exit: Exit) {
        if !self.stop.swap(true, Ordering::AcqRel) {
            // One place, filled once.
            let _ = self.exit.try_send(exit);
        }
    }

    /// One shard is drained. True if it was the last: shards go on serving the mesh until all are.
    pub(crate) fn one_drained(&self) -> bool {
        self.undrained_count.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Runs the life of the thread `name`, and calls `failed` if it ends with a reason to stop the node, or by a panic. Only
/// then are its parts dropped: a ring waits for what is still under way, for seconds if need be, and nobody shall be
/// served meanwhile by a node that has lost a shard.
pub(crate) fn live<P>(
    name: &str,
    mut parts: P,
    run: impl FnOnce(&mut P) -> Result<(), Exit>,
    failed: impl FnOnce(&P, Exit),
) {
    let ended = catch_unwind(AssertUnwindSafe(|| run(&mut parts)))
        .unwrap_or_else(|panic| Err(Exit::Panicked(format!("{name}: {}", panic_text(&*panic)))));
    if let Err(exit) = ended {
        failed(&parts, exit);
    }
}

/// Waits until the threads have ended, at most for `patience`. Names those that have not: a thread that waits for a drive
/// which does not answer never ends.
pub(crate) fn wait_for(threads: &[JoinHandle<()>], patience: Duration) -> Vec<String> {
    let end = Instant::now() + patience;
    loop {
        let late = threads.iter().filter(|thread| !thread.is_finished());
        let late: Vec<String> = late.map(|thread| thread.thread().name().unwrap_or("?").into()).collect();
        if late.is_empty() || Instant::now() >= end {
            return late;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The words of a panic.
fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// What a thread owns: its end says whether the node had been told to stop.
    struct Parts<'a> {
        lifecycle: &'a Lifecycle,
        stopping_at_end: &'a Cell<Option<bool>>,
    }

    impl Drop for Parts<'_> {
        fn drop(&mut self) {
            self.stopping_at_end.set(Some(self.lifecycle.is_stopping()));
        }
    }

    #[test]
    fn a_node_stops_before_the_parts_of_its_failed_shard_are_dropped() {
        type Life = fn(&mut Parts<'_>) -> Result<(), Exit>;
        let full = Exit::Fatal(FatalError::LogFullAtBoot);
        let lives: [(Life, Exit); 2] = [
            (|_| Err(Exit::Fatal(FatalError::LogFullAtBoot)), full),
            (|_| panic!("out of ideas"), Exit::Panicked("shard 7: out of ideas".into())),
        ];
        for (life, exit) in lives {
            let (tell, told) = flume::bounded(1);
            let (lifecycle, stopping_at_end) = (Lifecycle::new(2, tell), Cell::new(None));
            let parts = Parts { lifecycle: &lifecycle, stopping_at_end: &stopping_at_end };
            live("shard 7", parts, life, |_, exit| lifecycle.stop(exit));
            assert_eq!(stopping_at_end.get(), Some(true), "others would be served while it takes its time");
            assert_eq!(told.try_recv(), Ok(exit));
        }
    }

    #[test]
    fn a_thread_that_does_not_end_is_named_and_waited_for_no_longer() {
        let (let_go, held) = flume::bounded::<()>(0);
        let start = |name: &str, life: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(life).unwrap()
        };
        let threads = [start("short", Box::new(|| ())), start("held", Box::new(move || _ = held.recv()))];
        // However late the first one is let run.
        while !threads[0].is_finished() {
            thread::yield_now();
        }
        assert_eq!(wait_for(&threads, Duration::from_millis(20)), ["held"]);
        drop(let_go);
        assert_eq!(wait_for(&threads, Duration::from_secs(60)), [""; 0]);
    }

    #[test]
    fn the_first_reason_is_told_once() {
        let (tell, told) = flume::bounded(1);
        let lifecycle = Lifecycle::new(2, tell);
        assert!(!lifecycle.one_drained());
        assert!(lifecycle.one_drained());
        lifecycle.stop(Exit::Fatal(FatalError::LogFullAtBoot));
        lifecycle.stop(Exit::Drained);
        assert!(lifecycle.is_stopping());
        assert_eq!(told.drain().collect::<Vec<_>>(), [Exit::Fatal(FatalError::LogFullAtBoot)]);
    }
}
