//! What the server's process used in a window, over restarts.

use crate::admin::{Admin, Figures};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the figures are read in a window of traffic: what a SIGKILL may take with it.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Likewise where next to nothing happens: an answer costs the server a millisecond with cold caches, which each second
/// would be more than all its phones at rest cost it.
pub(crate) const SAMPLE_REST_EVERY: Duration = Duration::from_secs(30);
/// How long the last sample of a window waits for a server that is just being started.
const LAST_SAMPLE_PATIENCE: Duration = Duration::from_secs(3);

/// What was used between two points in time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_user_us: u64,
    pub(crate) cpu_system_us: u64,
    pub(crate) log_bytes_written: u64,
    pub(crate) log_commits: u64,
}

impl Usage {
    /// Sums samples in the order of time. A new boot id opens a new sum: that process started inside the window, so
    /// all that it used counts.
    pub(crate) fn of(samples: &[Figures]) -> Self {
        let mut sum = Self::default();
        for two in samples.windows(2) {
            let (before, after) = (&two[0], &two[1]);
            let same = u64::from(before.boot_id == after.boot_id);
            let grown = |after: u64, before: u64| after.saturating_sub(before * same);
            sum.cpu_user_us += grown(after.cpu_user_us, before.cpu_user_us);
            sum.cpu_system_us += grown(after.cpu_system_us, before.cpu_system_us);
            sum.log_bytes_written += grown(after.log_bytes_written, before.log_bytes_written);
            sum.log_commits += grown(after.log_commits, before.log_commits);
        }
        sum
    }
}

/// Reads the figures through a window, on a thread of its own that sleeps nearly always: the traffic never waits
/// for a server that is down.
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Option<Vec<Figures>>>,
}

impl Sampler {
    /// Opens a window; the first sample has been taken when this returns (if the server answers).
    pub(crate) fn start(admin: &Admin, every: Duration) -> Self {
        let (stop, stopped) = channel();
        let first = admin.figures().ok();
        let admin = admin.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = vec![first?];
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                samples.extend(admin.figures());
            }
            let deadline = Instant::now() + LAST_SAMPLE_PATIENCE;
            loop {
                match admin.figures() {
                    Ok(last) => samples.push(last),
                    Err(_) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                    Err(_) => return None,
                }
                return Some(samples);
            }
        });
        Self { stop, thread }
    }

    /// Closes the window without waiting: the last sample is taken now.
    pub(crate) fn stop(&self) {
        let _ = self.stop.send(());
    }

    /// Closes the window if it is still open: what was used, if the server answered at both ends of it. What was used
    /// in a part of it would be shared among all that was done in the whole.
    pub(crate) fn finish(self) -> Option<Usage> {
        self.stop();
        self.thread.join().ok()?.map(|samples| Usage::of(&samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(boot_id: &str, used: u64) -> Figures {
        Figures {
            boot_id: boot_id.into(),
            cpu_user_us: used,
            cpu_system_us: 2 * used,
            rss_bytes: 5,
            log_bytes_written: 3 * used,
            log_commits: 4 * used,
        }
    }

    #[test]
    fn a_new_boot_opens_a_new_sum() {
        let samples = [sample("a", 100), sample("a", 130), sample("b", 7), sample("b", 27), sample("c", 2)];
        let used = Usage::of(&samples);
        let expected = 30 + 27 + 2;
        assert_eq!(used.cpu_user_us, expected);
        assert_eq!((used.cpu_system_us, used.log_bytes_written), (2 * expected, 3 * expected));
        assert_eq!(used.log_commits, 4 * expected);
    }
}
