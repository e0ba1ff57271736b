//! On whose hardware thread the kernel receives what comes over loopback.
//!
//! Left alone, a packet over loopback is received on the sender's, within the sender's own system call: connects that are
//! refused and bytes that are thrown away then cost the server next to nothing. The kernel can be told to receive on
//! another one (receive packet steering, `Documentation/networking/scaling.rst` of Linux).

use super::SERVER_CPU;
use anyhow::{Context, Result};
use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};

/// A mask of hardware threads, hexadecimal.
const LOOPBACK: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";

/// Put back as it was when dropped.
pub(super) struct Steering {
    file: PathBuf,
    /// None where it may not be changed.
    before: Option<String>,
}

impl Steering {
    /// To the server's hardware thread, where this user may; says which it was.
    pub(super) fn to_server() -> Result<Self> {
        let steering = Self::of(Path::new(LOOPBACK), SERVER_CPU)?;
        eprintln!(
            "xtask: what comes over loopback is received on the hardware thread of {}",
            steering.told()
        );
        Ok(steering)
    }

    fn of(file: &Path, cpu: usize) -> Result<Self> {
        let before = read_to_string(file).ok();
        let before = before.filter(|_| write(file, format!("{:x}", 1_u64 << cpu)).is_ok());
        if let Some(before) = &before {
            let now = read_to_string(file).context("rps_cpus")?;
            eprintln!("xtask: {} was {}, is {}", file.display(), before.trim(), now.trim());
        }
        Ok(Self { file: file.into(), before })
    }

    /// Whose it is.
    pub(super) const fn told(&self) -> &'static str {
        if self.before.is_some() { "the server" } else { "the sender" }
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = write(&self.file, before.trim())
        {
            eprintln!("xtask: {} stays changed, it was {}: {error}", self.file.display(), before.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
