//! What this machine offers, and what is missing and how to get it.
//!
//! Run at start, before anything is served: each finding names the missing thing and the way to get it.

use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::io;

/// Something that is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// io_uring is forbidden here, by seccomp or by the sysctl.
    Forbidden,
    /// The kernel has no io_uring at all.
    NoRing,
    /// The kernel is too old for the ring's flags.
    SetupFlags,
    /// An operation that the kernel does not know.
    Operation(&'static str),
    /// A feature that the kernel does not have.
    Feature(&'static str),
    /// RLIMIT_NOFILE is lower than the descriptor table needs.
    Descriptors {
        /// The soft limit now.
        soft: u64,
        /// The hard limit now.
        hard: u64,
        /// What is needed.
        needed: u64,
    },
    /// Something else; the operating system's words.
    Other(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => f.write_str(
                "io_uring is forbidden for this process. In a container: allow it (--security-opt \
                 seccomp=deploy/seccomp.json, or another profile with io_uring_setup, io_uring_enter and \
                 io_uring_register). On the host: sysctl kernel.io_uring_disabled must be 0",
            ),
            Self::NoRing => f.write_str("this kernel has no io_uring: Linux 6.1 or later is needed"),
            Self::SetupFlags => f.write_str(
                "this kernel refuses the ring's flags (SINGLE_ISSUER, DEFER_TASKRUN): Linux 6.1 or later is needed",
            ),
            Self::Operation(name) => {
                write!(f, "this kernel has no io_uring operation {name}: Linux 6.1 or later is needed")
            }
            Self::Feature(name) => {
                write!(f, "this kernel's io_uring has no feature {name}: Linux 6.1 or later is needed")
            }
            Self::Descriptors { soft, hard, needed } => write!(
                f,
                "open files are limited to {soft} (hard limit {hard}) and {needed} are needed: raise it with ulimit -n \
                 {needed}, LimitNOFILE={needed} in the systemd unit, or lower connection_count"
            ),
            Self::Other(text) => write!(f, "io_uring does not work here: {text}"),
        }
    }
}

/// Looks at the kernel, its operations and this process's limits. Empty: all is there.
///
/// `descriptor_count` is what one ring's table needs; the limit holds for each table by itself, and also for the
/// ordinary descriptors of the process, for which a few hundred are added. The soft limit is raised to what is needed
/// where the hard limit allows.
#[must_use]
pub fn run(descriptor_count: u32) -> Vec<Missing> {
    let mut missing = Vec::new();
    let needed = u64::from(descriptor_count) + 512;
    if let Err((soft, hard)) = raise_descriptor_limit(needed) {
        missing.push(Missing::Descriptors { soft, hard, needed });
    }
    let ring: IoUring =
        match IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(8) {
            Ok(ring) => ring,
            Err(error) => {
                missing.push(explain(&error));
                return missing;
            }
        };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        missing.push(Missing::Other(error.to_string()));
        return missing;
    }
    for (name, code) in OPERATIONS {
        if !probe.is_supported(code) {
            missing.push(Missing::Operation(name));
        }
    }
    let features = [
        ("NODROP", ring.params().is_feature_nodrop()),
        ("EXT_ARG", ring.params().is_feature_ext_arg()),
        ("FAST_POLL", ring.params().is_feature_fast_poll()),
        ("CQE_SKIP", ring.params().is_feature_skip_cqe_on_success()),
    ];
    missing.extend(features.iter().filter(|feature| !feature.1).map(|feature| Missing::Feature(feature.0)));
    missing
}

/// What an error of [`crate::Ring::new`] means.
#[must_use]
pub fn explain(error: &io::Error) -> Missing {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Missing::Forbidden,
        Some(libc::ENOSYS) => Missing::NoRing,
        Some(libc::EINVAL) => Missing::SetupFlags,
        Some(libc::EMFILE) => {
            let limit = descriptor_limit();
            Missing::Descriptors { soft: limit.rlim_cur, hard: limit.rlim_max, needed: limit.rlim_cur + 1 }
        }
        _ => Missing::Other(error.to_string()),
    }
}

const OPERATIONS: [(&str, u8); 12] = [
    ("ACCEPT", opcode::Accept::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("SHUTDOWN", opcode::Shutdown::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("MSG_RING", opcode::MsgRingData::CODE),
    ("FILES_UPDATE", opcode::FilesUpdate::CODE),
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit
}

/// Makes sure that the soft limit on open files is at least `needed`, raising it if the hard limit allows.
///
/// # Errors
/// The soft and hard limits, where that is not possible.
pub fn raise_descriptor_limit(needed: u64) -> Result<(), (u64, u64)> {
    let limit = descriptor_limit();
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: needed, rlim_max: limit.rlim_max };
    // SAFETY: the pointer is to a live `rlimit`.
    if limit.rlim_max >= needed && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        return Ok(());
    }
    Err((limit.rlim_cur, limit.rlim_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_where_tests_run() {
        assert_eq!(run(1024), []);
    }

    #[test]
    fn a_low_limit_is_named() {
        let missing = run(u32::MAX);
        let hard = descriptor_limit().rlim_max;
        if hard < u64::from(u32::MAX) {
            assert!(matches!(missing[..], [Missing::Descriptors { .. }]), "{missing:?}");
            assert!(missing[0].to_string().contains("LimitNOFILE"));
        }
    }

    #[test]
    fn seccomp_is_named() {
        let text = explain(&io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("seccomp") && text.contains("io_uring_disabled"));
    }
}
