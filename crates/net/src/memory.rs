//! Memory that is free in the process, and could be free in the system.
#![allow(unsafe_code, reason = "the C library's allocator is asked directly")]

/// Gives pages that hold nothing back to the system (malloc_trim(3)).
///
/// glibc's allocator does so by itself only at the end of its heaps: one small object that outlives what was made before
/// it keeps megabytes. To be called after work that takes much memory for a moment; it costs a walk over what is free,
/// and other threads' allocations wait for it meanwhile. With another C library nothing happens.
pub fn release_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number, and touches free memory only, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes allocations of more than a kilobyte cheaper (mallopt(3), `M_MXFAST`).
///
/// glibc keeps freed pieces of a few bytes in lists of their own, and joins all of them whenever it looks for more than a
/// kilobyte: an HTTP/2 stream needs both. Every thread's own cache of small pieces, which is asked first, stays. Measured
/// on such streams: 4 to 7 % less of the processor. To be called before there are threads. With another C library nothing
/// happens.
pub fn join_small_pieces_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers and sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::release_free;

    const PIECE: usize = 4096;
    const PIECES: usize = 8192;

    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn free_memory_below_what_is_in_use_goes_back() {
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; PIECE]).collect();
        let last = pieces.pop();
        let full = resident_pages();
        drop(pieces);
        release_free();
        let left = resident_pages();
        assert!(last.is_some_and(|piece| piece[PIECE - 1] == 1));
        assert!(
            left + PIECES / 2 < full,
            "{full} pages were resident before, and {left} are after"
        );
    }
}
