//! What this machine offers, and what is missing and how to get it.
//!
//! Run at start, before anything is served: each finding names the missing thing, the kernel that brought it, and the
//! way to get it. Things are looked for one by one, never the kernel's version: long-term kernels get some of them later.
//!
//! The versions are those of the manual pages `io_uring_enter(2)` (operations) and `io_uring_setup(2)` (flags, features) in
//! liburing's `man/`, looked up on 2026-11-24; where they come from elsewhere, it is said there.

use crate::wake::Waker;
use io_uring::types::{DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

/// The first kernel with everything that a ring here needs; the README names it, too. The last thing to come was
/// [`HAND_OVER`].
const LINUX_NEEDED: &str = "6.3";
/// What the kernel must tell when a descriptor goes to another ring (which came with 6.0); before, it told nobody which slot
/// it had picked. Mended in March 2023, and marked for the stable kernels from 6.0 on: axboe/liburing, issue 809.
const HAND_OVER: Part = Part { name: "MSG_RING that tells the slot of a sent descriptor", since: "6.3" };
/// The later of the two; SINGLE_ISSUER came with 6.0.
const RING_FLAGS: Part = Part { name: "SINGLE_ISSUER and DEFER_TASKRUN", since: "6.1" };

/// Ordinary descriptors of a process beside those that it can count.
pub const OTHERS: u64 = 512;

/// A part of io_uring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The kernel's name for it.
    pub name: &'static str,
    /// The Linux version that brought it.
    pub since: &'static str,
}

/// Something that is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// io_uring is forbidden here, by seccomp or by the sysctl.
    Forbidden,
    /// The kernel has no io_uring at all.
    NoRing,
    /// A flag, an operation or a feature that the kernel does not have.
    Part(Part),
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
            Self::NoRing => write!(f, "this kernel has no io_uring: Linux {LINUX_NEEDED} or newer is needed"),
            Self::Part(Part { name, since }) => write!(
                f,
                "this kernel's io_uring lacks {name}, which came with Linux {since}: Linux {LINUX_NEEDED} or newer is needed"
            ),
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
/// ordinary descriptors of the process, for which [`OTHERS`] are added. The soft limit is raised to what is needed where
/// the hard limit allows.
#[must_use]
pub fn run(descriptor_count: u32) -> Vec<Missing> {
    let mut missing = Vec::new();
    let needed = u64::from(descriptor_count) + OTHERS;
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
    let operations = OPERATIONS.iter().filter(|operation| !probe.is_supported(operation.2));
    missing.extend(operations.map(|&(name, since, _)| Missing::Part(Part { name, since })));
    let features = [
        ("NODROP", "5.5", ring.params().is_feature_nodrop()),
        ("EXT_ARG", "5.11", ring.params().is_feature_ext_arg()),
        ("FAST_POLL", "5.7", ring.params().is_feature_fast_poll()),
        ("CQE_SKIP", "5.17", ring.params().is_feature_skip_cqe_on_success()),
    ];
    let features = features.iter().filter(|feature| !feature.2);
    missing.extend(features.map(|&(name, since, _)| Missing::Part(Part { name, since })));
    if missing.is_empty() {
        match hands_over() {
            Ok(true) => {}
            Ok(false) => missing.push(Missing::Part(HAND_OVER)),
            Err(error) => missing.push(explain(&error)),
        }
    }
    missing
}

/// Whether a descriptor that is sent to another ring arrives with the number of its slot there. No flag of the kernel
/// says so: it is tried.
fn hands_over() -> io::Result<bool> {
    let ring = || -> io::Result<IoUring> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4)?;
        ring.submitter().register_files_sparse(2)?;
        Ok(ring)
    };
    let (mut source, mut target) = (ring()?, ring()?);
    // Any descriptor does; no filter of system calls that lets a ring work forbids this one.
    let file = Waker::new()?;
    source.submitter().register_files_update(0, &[file.counter.as_raw_fd()])?;
    // The target's first slot is taken: the kernel must pick the second, and say so.
    target.submitter().register_files_update(0, &[file.counter.as_raw_fd()])?;
    let to = Fd(target.as_raw_fd());
    let send = opcode::MsgRingSendFd::new(to, Fixed(0), DestinationSlot::auto_target(), 7).build();
    push(&mut source, &send)?;
    if completion(&mut source)?.is_none_or(|sent| sent < 0) {
        return Ok(false);
    }
    Ok(completion(&mut target)? == Some(1))
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: the entry names descriptors only, and no memory of ours.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)
}

/// The result of the next completion, if one comes within a second.
fn completion(ring: &mut IoUring) -> io::Result<Option<i32>> {
    let limit = Timespec::new().sec(1);
    match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit)) {
        Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
        _ => Ok(ring.completion().next().map(|entry| entry.result())),
    }
}

/// What an error of [`crate::Ring::new`] means.
#[must_use]
pub fn explain(error: &io::Error) -> Missing {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Missing::Forbidden,
        Some(libc::ENOSYS) => no_ring(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        Some(libc::EINVAL) => Missing::Part(RING_FLAGS),
        Some(libc::EMFILE) => {
            let limit = descriptor_limit();
            Missing::Descriptors { soft: limit.rlim_cur, hard: limit.rlim_max, needed: limit.rlim_cur + 1 }
        }
        _ => Missing::Other(error.to_string()),
    }
}

/// What "no such system call" means: some container runtimes let their filters answer so what they forbid. `status` is the
/// process's own, as the kernel shows it.
fn no_ring(status: &str) -> Missing {
    let filtered = status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    if filtered { Missing::Forbidden } else { Missing::NoRing }
}

/// Name, the Linux version that brought it, code. FSYNC and POLL_ADD are of the first io_uring; MSG_RING: kernel commit
/// 4f57f06ce218. CLOSE takes a slot of the descriptor table since 5.15.
const OPERATIONS: [(&str, &str, u8); 13] = [
    ("ACCEPT", "5.5", opcode::Accept::CODE),
    ("CONNECT", "5.5", opcode::Connect::CODE),
    ("RECV", "5.6", opcode::Recv::CODE),
    ("SEND", "5.6", opcode::Send::CODE),
    ("SHUTDOWN", "5.11", opcode::Shutdown::CODE),
    ("CLOSE", "5.6", opcode::Close::CODE),
    ("POLL_ADD", "5.1", opcode::PollAdd::CODE),
    ("MSG_RING", "5.18", opcode::MsgRingData::CODE),
    ("FILES_UPDATE", "5.6", opcode::FilesUpdate::CODE),
    ("READ", "5.6", opcode::Read::CODE),
    ("WRITE", "5.6", opcode::Write::CODE),
    ("FSYNC", "5.1", opcode::Fsync::CODE),
    ("ASYNC_CANCEL", "5.5", opcode::AsyncCancel::CODE),
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

/// Raises the soft limit on open files to `wanted`, or as far as the hard limit allows.
///
/// # Errors
/// The limit that is in force then, where that is less than `wanted`.
pub fn raise_descriptor_limit_towards(wanted: u64) -> Result<(), u64> {
    let hard = descriptor_limit().rlim_max;
    let _ = raise_descriptor_limit(wanted.min(hard));
    let soft = descriptor_limit().rlim_cur;
    if soft >= wanted { Ok(()) } else { Err(soft) }
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
    fn what_is_missing_names_itself_its_kernel_and_the_one_that_has_all() {
        let text = explain(&io::Error::from_raw_os_error(libc::EINVAL)).to_string();
        assert!(text.contains("DEFER_TASKRUN, which came with Linux 6.1: Linux 6.3 or newer"), "{text}");
        let number = |version: &str| {
            let (major, minor) = version.split_once('.').unwrap();
            (major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap())
        };
        let parts = OPERATIONS.iter().map(|operation| operation.1).chain([RING_FLAGS.since, HAND_OVER.since]);
        assert_eq!(parts.map(number).max(), Some(number(LINUX_NEEDED)));
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&format!("Linux {LINUX_NEEDED} or newer")), "the README must say the same");
    }

    #[test]
    fn seccomp_is_named() {
        let text = explain(&io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("seccomp") && text.contains("io_uring_disabled"));
        // A filter that says that there is no such call.
        assert_eq!(no_ring("Name:\ttern\nSeccomp:\t2\nSeccomp_filters:\t1\n"), Missing::Forbidden);
        assert_eq!(no_ring("Name:\ttern\nSeccomp:\t0\nSeccomp_filters:\t0\n"), Missing::NoRing);
    }
}
