//! Lets go of program pages that only a start, or work that has ended, needed.
//!
//! The kernel maps code in runs of 64 KiB around each page that is touched, so a start maps most of the program. On a
//! board with 512 MB those pages are better used as cache; what is needed again is mapped again from the file.

use std::ffi::c_void;
use std::fs;

/// Unmaps this program's code from the process; each page comes back when it is next executed. Does nothing where the
/// kernel does not tell where the code is.
pub fn release_pages() {
    let (Ok(exe), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps")) else {
        return;
    };
    let Some(exe) = exe.to_str() else { return };
    for (start, length) in maps.lines().filter_map(|line| code_of(line, exe)) {
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the range is a private, file-backed mapping of this program's code without write permission, as the
        // kernel has just said: no page of it was ever changed, so dropping one only means that it is read from
        // the file again. Code is never unmapped while a program runs.
        let dropped = unsafe { rustix::mm::madvise(address, length, rustix::mm::Advice::LinuxDontNeed) };
        if let Err(error) = dropped {
            log::debug!("pages of the start stay mapped: {error}");
        }
    }
}

/// Start and length of a line of `/proc/PID/maps` that is code of the program at `exe`.
fn code_of(line: &str, exe: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let range = fields.next()?;
    let executable = fields.next()? == "r-xp";
    if !executable || !line.ends_with(exe) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_counts() {
        let exe = "/usr/bin/codling";
        let line = |flags: &str, path: &str| format!("55d0a000-55d0c000 {flags} 002a3000 fe:00 99    {path}");
        assert_eq!(code_of(&line("r-xp", exe), exe), Some((0x55d0_a000, 0x2000)));
        for (flags, path) in [("r--p", exe), ("rw-p", exe), ("r-xp", "/lib/libc.so.6"), ("r-xp", "")] {
            assert_eq!(code_of(&line(flags, path), exe), None);
        }
        assert_eq!(code_of("", exe), None);
    }

    #[test]
    fn the_program_goes_on() {
        release_pages();
        assert_eq!("code is still there".len(), 19);
    }
}
