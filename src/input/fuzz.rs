//! Archives that come with a job.

use super::{InputPolicy, Sink, inline};
use crate::fuzz::{Scratch, archive};
use crate::model::Bytes;
use crate::sys::{Interrupt, Meter};

/// An inline archive: nothing is written beside its directory, nor more than its meter was charged for.
pub(crate) fn inline(data: &[u8]) {
    const ROOM: Bytes = Bytes::mib(4);
    let scratch = Scratch::new();
    let dest = scratch.path().join("dest");
    assert!(std::fs::create_dir(&dest).is_ok());
    let (policy, meter, interrupt) = (InputPolicy::default(), Meter::new(ROOM), Interrupt::new());
    let sink = Sink { dir: &dest, policy: &policy, meter: &meter, interrupt: &interrupt };
    if let Err(failure) = inline::unpack_plain(&archive(data), &dest, &sink) {
        assert!(failure.message.chars().count() < 12_000, "{failure:?}");
    }
    let beside = std::fs::read_dir(scratch.path()).map(Iterator::count);
    assert_eq!(beside.ok(), Some(1), "something was written beside the directory");
    let written = written(&dest);
    assert!(written <= meter.used(), "{written} written, {} charged", meter.used());
}

/// Bytes in files below; there is nothing but files and directories.
fn written(dir: &std::path::Path) -> Bytes {
    let mut sum = Bytes(0);
    let Ok(entries) = std::fs::read_dir(dir) else { return sum };
    for entry in entries.flatten() {
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
        assert!(metadata.is_file() || metadata.is_dir(), "{}", entry.path().display());
        let more = if metadata.is_dir() { written(&entry.path()) } else { Bytes(metadata.len()) };
        sum = sum.plus(more);
    }
    sum
}
