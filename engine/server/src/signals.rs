//! The signals that a node listens to, on a thread of their own from the first step of its start: until the node takes its
//! wishes itself, one that asks for the end ends the process, also where the start hangs in a file or on a drive. Without
//! that thread it would do so without a word, or get lost where the process is the first of its container.

use crate::exit::Ending;
use crate::log;
use nix::sys::signal::{SigSet, Signal::*};
use nix::unistd::{Pid, gettid};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::info;

/// Wishes that wait for the node; the kernel keeps one signal of each kind beside them.
const WAITING_MAX: usize = 4;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// SIGTERM, SIGINT: drain, or end the start.
    End,
    /// SIGHUP: read the admin endpoint's files again.
    Reload,
}

/// Those that came, in any order.
pub(crate) struct Signals {
    wishes: Receiver<Wish>,
    is_heard: Arc<AtomicBool>,
    /// The thread that waits for them.
    pub(crate) thread: Pid,
}

impl Signals {
    /// Waits for them from now on. They are held from this thread, and from those that it starts.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new() -> io::Result<Self> {
        let all = SigSet::from_iter([SIGTERM, SIGINT, SIGHUP]);
        all.thread_block()?;
        let is_heard = Arc::new(AtomicBool::new(false));
        let (sender, wishes) = channel(WAITING_MAX);
        let (tell, told) = std::sync::mpsc::channel();
        let listener = Arc::clone(&is_heard);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let _ = tell.send(gettid());
            listen(&all, &listener, &sender);
        })?;
        let thread = told.recv().map_err(io::Error::other)?;
        Ok(Self { wishes, is_heard, thread })
    }

    /// From now on the caller takes all wishes, with those that came before and did not ask for the end.
    pub(crate) fn hear(&self) {
        self.is_heard.store(true, Ordering::Release);
    }

    /// The next one's wish.
    pub(crate) async fn next(&mut self) -> Wish {
        self.wishes.recv().await.expect("the thread that waits for signals never ends before this")
    }
}

fn listen(all: &SigSet, is_heard: &AtomicBool, wishes: &Sender<Wish>) {
    loop {
        let wish = match all.wait() {
            Ok(SIGHUP) => Wish::Reload,
            Ok(_) => Wish::End,
            // An interruption, for the set is a good one.
            Err(_) => continue,
        };
        if wish == Wish::End && !is_heard.load(Ordering::Acquire) {
            // Nobody was served, so that there is nothing to make safe.
            info!("stopped before the node served");
            log::write_out();
            std::process::exit(Ending::Drained as i32);
        }
        let taken = match wish {
            // As many as fit are as good as more.
            Wish::Reload => !matches!(wishes.try_send(wish), Err(TrySendError::Closed(_))),
            Wish::End => wishes.blocking_send(wish).is_ok(),
        };
        if !taken {
            return;
        }
    }
}
