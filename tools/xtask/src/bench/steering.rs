//! On whose hardware thread the kernel receives what comes over loopback.
//!
//! Left alone, a packet over loopback is received on the sender's, within the sender's own system call: connects that are
//! refused and bytes that are thrown away then cost the server next to nothing. The kernel can be told to receive on
//! another one (receive packet steering, `Documentation/networking/scaling.rst` of Linux).

use super::SERVER_CPU;
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

/// A mask of hardware threads, hexadecimal.
const LOOPBACK: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";

/// What is changed now, and what it was: there is one loopback, and a signal must find it.
static CHANGED: Mutex<Option<(PathBuf, String)>> = Mutex::new(None);

/// Put back as it was when dropped, and when SIGINT, SIGTERM or SIGHUP ends the process.
pub(super) struct Steering {
    /// Not where it may not be changed.
    is_changed: bool,
}

impl Steering {
    /// To the server's hardware thread, where this user may; says which it was.
    pub(super) fn to_server() -> Result<Self> {
        put_back_on_signals()?;
        let steering = Self::of(Path::new(LOOPBACK), SERVER_CPU)?;
        eprintln!(
            "xtask: what comes over loopback is received on the hardware thread of {}",
            steering.told()
        );
        Ok(steering)
    }

    fn of(file: &Path, cpu: usize) -> Result<Self> {
        // Held until the change is noted: a signal between the two waits for it.
        let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
        let before = read_to_string(file).ok();
        let before = before.filter(|_| write(file, format!("{:x}", 1_u64 << cpu)).is_ok());
        let steering = Self { is_changed: before.is_some() };
        *changed = before.clone().map(|before| (file.into(), before));
        drop(changed);
        if let Some(before) = before {
            let now = read_to_string(file).context("rps_cpus")?;
            eprintln!("xtask: {} was {}, is {}", file.display(), before.trim(), now.trim());
        }
        Ok(steering)
    }

    /// Whose it is.
    pub(super) const fn told(&self) -> &'static str {
        if self.is_changed { "the server" } else { "the sender" }
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        if self.is_changed {
            put_back();
        }
    }
}

fn put_back() {
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((file, before)) = changed.take()
        && let Err(error) = write(&file, before.trim())
    {
        eprintln!("xtask: {} stays changed, it was {}: {error}", file.display(), before.trim());
    }
}

/// From now on these signals put back what is changed, and then end the process as they would have.
fn put_back_on_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    if ONCE.is_completed() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals")?;
    ONCE.call_once(|| {
        std::thread::spawn(move || {
            for signal in signals.forever() {
                put_back();
                let _ = emulate_default_handler(signal);
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    /// Names the file to the process that a signal ends.
    const FILE: &str = "XTASK_TEST_STEERED";

    /// The process that a signal ends: the next test starts it.
    #[test]
    fn waits_for_a_signal() {
        let Some(file) = std::env::var_os(FILE) else { return };
        put_back_on_signals().unwrap();
        let _steering = Steering::of(Path::new(&file), 5).unwrap();
        println!("\nsteered");
        // Until the test that started it is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn a_signal_puts_it_back_and_ends_the_process() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let place = tempfile::tempdir().unwrap();
            let file = place.path().join("rps_cpus");
            std::fs::write(&file, "00\n").unwrap();
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "bench::steering::tests::waits_for_a_signal", "--nocapture"]);
            command.env(FILE, &file).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Open until the end: the process must end by the signal and not by this.
            let _stdin = child.stdin.take().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            assert!(lines.any(|line| line == "steered"));
            assert_eq!(read_to_string(&file).unwrap(), "20");
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(signal as i32), "{status}");
            assert_eq!(read_to_string(&file).unwrap(), "00", "{signal}");
        }
    }

    #[test]
    fn it_is_put_back() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("rps_cpus");
        std::fs::write(&file, "00\n").unwrap();
        let steering = Steering::of(&file, 5).unwrap();
        assert_eq!((read_to_string(&file).unwrap().as_str(), steering.told()), ("20", "the server"));
        drop(steering);
        assert_eq!(read_to_string(&file).unwrap(), "00");
        let none = Steering::of(&place.path().join("none"), 5).unwrap();
        assert_eq!(none.told(), "the sender");
        drop(none);
        assert!(!place.path().join("none").exists());
    }
}
