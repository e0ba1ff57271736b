//! How large a ring is.

/// The sizes of a ring, fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Submission entries; what does not fit is submitted early.
    pub submission_count: u32,
    /// Completion entries; what does not fit waits in the kernel and costs more.
    pub completion_count: u32,
    /// Direct descriptors: sockets that can be open at once. Must not exceed RLIMIT_NOFILE.
    pub descriptor_count: u32,
    /// Provided receive buffers; a power of two, at most 32,768.
    pub buffer_count: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: u32,
    /// Accepts that each listener has under way: connections that one turn can take in. At least 1.
    pub accept_count: u16,
    /// Bytes of unused send and file blocks that are kept for later.
    pub pool_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            submission_count: 1024,
            completion_count: 16_384,
            descriptor_count: 16_384,
            buffer_count: 1024,
            buffer_bytes: 4096,
            accept_count: 16,
            pool_bytes: 16 << 20,
        }
    }
}
