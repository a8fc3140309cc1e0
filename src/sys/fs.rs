//! Files and directories that are still there after a power cut.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes the entries of a directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates a directory (and its parents) that only its owner may enter; one that exists is left as it is.
///
/// # Errors
/// It cannot be created, or something else has its name.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a small file whole: after a power cut it holds either the old bytes or the new ones.
///
/// # Errors
/// Any step failed; the old file is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = directory.join(name);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    })();
    if written.is_err() {
        // The error below is what matters; a leftover `.partial` is swept at the next start.
        let _ = std::fs::remove_file(&partial);
    }
    written?;
    sync_dir(directory)
}
