//! Where a thread's memory comes from on machines with several memory nodes.

use std::io;

/// Nodes that a mask of this module holds: as many as any kernel has.
const NODES_MAX: usize = 1024;

/// From now on pages that the calling thread touches first come from `node`, as long as it has some. Threads that it
/// starts inherit that; pages that it has already stay where they are.
///
/// # Errors
/// `Unsupported` (ENOSYS): a kernel without NUMA. `PermissionDenied` (EPERM): a container's filter of system calls.
/// `InvalidInput` (EINVAL): there is no such node, or none with memory.
pub fn prefer_node(node: usize) -> io::Result<()> {
    const WORD_BITS: usize = libc::c_ulong::BITS as usize;
    if node >= NODES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut mask: [libc::c_ulong; NODES_MAX / WORD_BITS] = [0; NODES_MAX / WORD_BITS];
    mask[node / WORD_BITS] = 1 << (node % WORD_BITS);
    // The kernel reads one bit less than it is told.
    let bit_count: libc::c_ulong = NODES_MAX as libc::c_ulong + 1;
    // SAFETY: the kernel reads at most `bit_count` - 1 bits from `mask`, which has as many and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::c_long::from(libc::MPOL_PREFERRED),
            mask.as_ptr(),
            bit_count,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy that the kernel reports for a thread's memory, from the first line of its map.
    fn policy() -> Option<String> {
        let map = std::fs::read_to_string("/proc/thread-self/numa_maps").ok()?;
        Some(map.split_whitespace().nth(1)?.to_string())
    }

    #[test]
    fn the_kernel_takes_the_first_node_and_no_other_than_there_are() {
        std::thread::spawn(|| {
            match prefer_node(0) {
                Ok(()) => {
                    if let Some(policy) = policy() {
                        assert_eq!(policy, "prefer:0");
                    }
                }
                // Where the kernel has no NUMA, or a container forbids it, that is what must come.
                Err(error) => {
                    assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}")
                }
            }
            assert!(prefer_node(NODES_MAX - 1).is_err());
            assert_eq!(prefer_node(NODES_MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        })
        .join()
        .unwrap();
    }
}
