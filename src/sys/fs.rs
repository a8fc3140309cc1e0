//! Files and directories that are still there after a power cut.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::Files;

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
pub fn write_atomic(files: &dyn Files, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = directory.join(name);
    let written = (|| {
        let mut file = files.create(&partial, mode)?;
        file.write_all(bytes)?;
        file.sync()?;
        files.rename(&partial, path)
    })();
    if written.is_err() {
        // The error below is what matters; the next attempt begins a leftover `.partial` anew.
        let _ = files.remove(&partial);
    }
    written?;
    files.sync_dir(directory)
}

/// Removes a file or a directory with all that is in it, without following links; nothing there is success.
/// Directories that a guest left without write permission are opened up first.
///
/// # Errors
/// The file system refuses.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let first = match path.symlink_metadata() {
        Ok(meta) if !meta.is_dir() => std::fs::remove_file(path),
        Ok(_) => std::fs::remove_dir_all(path),
        Err(error) => Err(error),
    };
    match first {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Gives the owner all rights on every directory of a tree.
fn open_up(root: &Path) -> io::Result<()> {
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Lets everybody else at the disk first: packing can wait, a running guest's reads cannot.
/// A kernel that does not know priorities is no reason to complain.
pub fn lower_priority() {
    // ioprio_set has no wrapper in the standard library or rustix; nice reaches the same schedulers (bfq, mq-deadline
    // take the I/O priority from it unless one is set).
    if let Err(error) = rustix::process::nice(5) {
        log::debug!("cannot lower the packer's priority: {error}");
    }
}
