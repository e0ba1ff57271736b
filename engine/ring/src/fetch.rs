//! Asking the processor for memory before it is needed.

/// Bytes of a line of the cache.
const LINE_BYTES: usize = 64;

/// Asks for the lines in which `bytes` from `address` on lie. A hint: nothing is read or written, whatever the address is.
pub fn fetch(address: *const u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    let start = address.addr() / LINE_BYTES * LINE_BYTES;
    for line in (start..address.addr().saturating_add(bytes)).step_by(LINE_BYTES) {
        fetch_line(address.with_addr(line));
    }
}

#[cfg(target_arch = "x86_64")]
fn fetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch neither faults nor changes anything, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
fn fetch_line(line: *const u8) {
    // SAFETY: a prefetch neither faults nor changes anything, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn fetch_line(_line: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn no_address_does_any_harm() {
        let bytes = [7_u8; 300];
        fetch(bytes.as_ptr(), bytes.len());
        fetch(bytes.as_ptr().wrapping_add(1 << 40), 1_000);
        fetch(ptr::null(), 100);
        fetch(ptr::without_provenance(usize::MAX - 100), 1_000);
        fetch(ptr::dangling(), 0);
        assert_eq!(bytes, [7; 300]);
    }
}
