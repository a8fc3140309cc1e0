//! What only the kernel knows of the time.

/// Whether the kernel says that the wall clock is synchronised: a daemon keeps it so. False if it does not say.
#[must_use]
pub fn is_synchronised() -> bool {
    // SAFETY: all zeros is a valid `timex`; with no modes set the call changes nothing but this struct, which is ours
    // and has the size that the C library of this target expects.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    // TIME_ERROR: not synchronised; below 0: no answer.
    (0..libc::TIME_ERROR).contains(&state)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers() {
        // Which answer is this machine's business; that it does not crash is ours.
        let first = super::is_synchronised();
        let _ = first;
    }
}
