//! Keeps glibc's allocator from keeping what a run needed.
//!
//! By itself it gives each thread a heap of its own, up to eight for each core, and learns to keep blocks of up to
//! 32 MiB for the next time. A node has many short threads (engine, packer) that each use much memory once: what
//! they free would stay with the process. Other C libraries do not do that; there is nothing to do there.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    /// From `malloc.h`, where they are part of the interface.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const M_ARENA_MAX: c_int = -8;

    /// Heaps. One is for the core; that more threads wait for each other than with eight was not to be measured.
    const ARENAS: c_int = 2;
    /// Blocks from this size on are mapped alone and go back as soon as they are freed. Setting it ends the learning.
    const LARGE: c_int = 128 << 10;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        fn malloc_trim(keep: usize) -> c_int;
    }

    pub fn set_up() {
        for (parameter, value) in
            [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, LARGE)]
        {
            // SAFETY: takes two numbers, may be called at any time, and refuses what it does not know.
            unsafe { mallopt(parameter, value) };
        }
    }

    pub fn give_back() {
        // SAFETY: takes the allocator's own locks, and touches free memory only.
        unsafe { malloc_trim(0) };
    }
}

/// To be called before the first thread starts.
pub fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::set_up();
}

/// Gives memory that nothing uses back to the system. Takes some milliseconds: not for the core thread.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn what_was_freed_goes_back() {
        const BLOCK: usize = 4 << 10;
        const BLOCKS: usize = 16 << 10;
        let mut blocks: Vec<Box<[u8; BLOCK]>> = (0..BLOCKS).map(|_| Box::new([1; BLOCK])).collect();
        // The last block keeps the heap's end where it is.
        let last = blocks.pop();
        let full = resident();
        drop(blocks);
        give_back();
        let (now, most) = (resident(), full - BLOCK * BLOCKS / 2);
        assert!(now < most, "{full} bytes before, {now} after");
        drop(last);
    }
}
