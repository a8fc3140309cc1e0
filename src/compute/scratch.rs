//! The directories of executions, `<data dir>/scratch/<execution id>/`: which is whose, and how they go.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::engine::Scratch;
use crate::model::ExecutionId;
use crate::sys::Files;

/// The place for `id` below `base`; nothing is created.
#[must_use]
pub fn of(base: &Path, id: &ExecutionId) -> Scratch {
    Scratch::at(base.join(id.as_str()))
}

/// Removes everything of an execution; nothing there is success.
///
/// # Errors
/// The file system refuses.
pub fn remove(files: &dyn Files, scratch: &Scratch) -> io::Result<()> {
    files.remove_tree(scratch.dir())
}

/// Removes the directories below `base` that belong to none of `keep`; returns how many went.
///
/// # Errors
/// `base` cannot be read. Directories that cannot be removed are logged and stay.
pub fn sweep(files: &dyn Files, base: &Path, keep: &HashSet<ExecutionId>) -> io::Result<usize> {
    let mut removed = 0;
    for entry in files.list(base)? {
        let entry = entry?;
        let kept = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .is_some_and(|id| keep.contains(&id));
        if kept {
            continue;
        }
        match files.remove_tree(&entry.path()) {
            Ok(()) => removed += 1,
            Err(error) => log::warn!("cannot remove {}: {error}", entry.path().display()),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_nobody_owns() {
        let base = std::env::temp_dir().join(format!("codling-sweep-{}", uuid::Uuid::new_v4()));
        let (mine, orphan) = (ExecutionId::random(), ExecutionId::random());
        for id in [&mine, &orphan] {
            std::fs::create_dir_all(of(&base, id).result()).unwrap();
        }
        std::fs::write(base.join("stray"), "x").unwrap();
        let read_only = of(&base, &orphan).result();
        std::fs::write(read_only.join("file"), "x").unwrap();
        let mut permissions = std::fs::metadata(&read_only).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&read_only, permissions).unwrap();
        assert_eq!(sweep(&crate::sys::RealFiles, &base, &HashSet::from([mine.clone()])).unwrap(), 2);
        assert!(of(&base, &mine).result().is_dir());
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
