//! The directory of one execution while it runs, and what is read from it afterwards.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::causes::over_limit;
use crate::model::execution::STREAM_HEAD;
use crate::model::{Bytes, Failure, FailureCode, RunOutput};
use crate::sys::Meter;
use crate::sys::fs::create_private_dir;

/// `<scratch>/<execution id>/`:
///
/// ```text
/// result/      what is packed: stdout, stderr, exitCode, one directory for each result path
/// inputs/<n>/  what the n-th input brought
/// modules/<n>/ modules that have a source of their own
/// root/        the guest's `/`
/// ```
#[derive(Debug, Clone)]
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// What the fixed directories and files are charged: eight entries.
    pub const COST: Bytes = Bytes::kib(32);

    /// Creates the fixed part of it, charged to `meter`.
    ///
    /// # Errors
    /// The limit is below [`Scratch::COST`], or the disk does not take it.
    pub fn create(dir: PathBuf, meter: &Meter) -> Result<Self, Failure> {
        meter.charge(Self::COST).map_err(over_limit)?;
        let scratch = Self { dir };
        for part in
            [scratch.result(), scratch.root(), scratch.dir.join("inputs"), scratch.dir.join("modules")]
        {
            create_private_dir(&part).map_err(|e| {
                Failure::of_io(FailureCode::Internal, &format!("cannot create {}", part.display()), &e)
            })?;
        }
        Ok(scratch)
    }

    /// One that was created before.
    #[must_use]
    pub const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// All of it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is packed.
    #[must_use]
    pub fn result(&self) -> PathBuf {
        self.dir.join("result")
    }

    /// Standard output.
    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.dir.join("result/stdout")
    }

    /// Standard error.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.dir.join("result/stderr")
    }

    /// The exit code, in decimal digits.
    #[must_use]
    pub fn exit_code(&self) -> PathBuf {
        self.dir.join("result/exitCode")
    }

    /// The directory of the result path of that name.
    #[must_use]
    pub fn output(&self, name: &str) -> PathBuf {
        self.dir.join("result").join(name)
    }

    /// Where the `n`-th input goes.
    #[must_use]
    pub fn input(&self, n: usize) -> PathBuf {
        self.dir.join("inputs").join(n.to_string())
    }

    /// Where modules go that are no inputs.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// The guest's `/`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// What the run has left so far, also after a failure: the beginning of each stream.
    #[must_use]
    pub fn run_output(&self, exit_code: i32) -> RunOutput {
        let (stdout, stdout_truncated) = head(&self.stdout());
        let (stderr, stderr_truncated) = head(&self.stderr());
        RunOutput { stdout, stdout_truncated, stderr, stderr_truncated, exit_code }
    }
}

/// The first bytes of a stream as text, and whether there is more. A file that is not there is empty.
fn head(path: &Path) -> (String, bool) {
    let mut bytes = Vec::with_capacity(STREAM_HEAD + 1);
    let mut read = || -> io::Result<()> {
        File::open(path)?.take(STREAM_HEAD as u64 + 1).read_to_end(&mut bytes).map(drop)
    };
    if read().is_err() {
        bytes.clear();
    }
    let truncated = bytes.len() > STREAM_HEAD;
    bytes.truncate(STREAM_HEAD);
    // A character that the cut went through is left out rather than replaced.
    if truncated
        && let Err(e) = std::str::from_utf8(&bytes)
        && e.error_len().is_none()
    {
        bytes.truncate(e.valid_up_to());
    }
    (String::from_utf8_lossy(&bytes).into_owned(), truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_cut_between_characters() {
        let dir = crate::engine::testing::TempDir::new();
        let path = dir.path().join("s");
        assert_eq!(head(&path), (String::new(), false));
        std::fs::write(&path, "a".repeat(STREAM_HEAD)).unwrap();
        assert_eq!(head(&path), ("a".repeat(STREAM_HEAD), false));
        std::fs::write(&path, format!("{}\u{e9}x", "a".repeat(STREAM_HEAD - 1))).unwrap();
        assert_eq!(head(&path), ("a".repeat(STREAM_HEAD - 1), true));
        std::fs::write(&path, [0xff, b'x']).unwrap();
        assert_eq!(head(&path), ("\u{fffd}x".into(), false));
    }

    #[test]
    fn the_fixed_part_is_charged() {
        let dir = crate::engine::testing::TempDir::new();
        let meter = Meter::new(Bytes::kib(31));
        let failure = Scratch::create(dir.path().join("e"), &meter).unwrap_err();
        assert_eq!(failure.code, FailureCode::DiskQuota);
        assert!(!dir.path().join("e").exists());
    }
}
