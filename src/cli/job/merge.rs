//! Puts unpacked results where the user wants them. Nothing that is there is overwritten: all is looked at before
//! anything is moved.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Files of every result, which are put together where there are several (as Bacalhau's client does).
pub const APPENDED: [&str; 3] = ["stdout", "stderr", "exitCode"];

/// Deepest directory that is looked into: the unpacker's own limits lie below it.
const MAX_DEPTH: usize = 256;

/// Why results could not be put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Something of that name is there.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Two results have it.
    #[error("{} is in the results of more than one execution", .0.display())]
    Twice(PathBuf),
    /// Too many directories in each other.
    #[error("{} lies too deep", .0.display())]
    TooDeep(PathBuf),
    /// Any step.
    #[error("{}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> MergeError {
    |source| MergeError::Io { path: path.to_owned(), source }
}

/// Whether something has that name, be it a link that leads nowhere.
pub fn is_there(path: &Path) -> Result<bool, MergeError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_at(path)(error)),
    }
}

/// Moves the content of `trees`, in this order, into `out`, which is on the same file system.
///
/// # Errors
/// A file is there already or comes twice (then nothing was moved), or a step failed.
pub fn merge(trees: &[PathBuf], out: &Path) -> Result<(), MergeError> {
    let appends = trees.len() > 1;
    let mut seen = HashMap::new();
    for tree in trees {
        look(tree, Path::new(""), out, appends, &mut seen, 0)?;
    }
    trees.iter().try_for_each(|tree| place(tree, out, appends, true))
}

fn is_appended(name: &OsStr) -> bool {
    APPENDED.iter().any(|n| name == *n)
}

/// Entries of a directory in the order of their names.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, MergeError> {
    let mut entries: Vec<_> = fs::read_dir(dir).and_then(Iterator::collect).map_err(io_at(dir))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// Looks for names that are taken, in `out` and among the trees. Directories may meet, nothing else may.
fn look(
    tree: &Path,
    below: &Path,
    out: &Path,
    appends: bool,
    seen: &mut HashMap<PathBuf, fs::FileType>,
    depth: usize,
) -> Result<(), MergeError> {
    if depth > MAX_DEPTH {
        return Err(MergeError::TooDeep(below.to_owned()));
    }
    for entry in entries(&tree.join(below))? {
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(io_at(&entry.path()))?;
        let target = out.join(&path);
        let existing = target.symlink_metadata();
        if existing.is_ok_and(|there| !(there.is_dir() && kind.is_dir())) {
            return Err(MergeError::Exists(target));
        }
        let may_meet =
            kind.is_dir() || (appends && kind.is_file() && depth == 0 && is_appended(&entry.file_name()));
        match seen.insert(path.clone(), kind) {
            Some(earlier) if !(may_meet && earlier == kind) => return Err(MergeError::Twice(path)),
            _ => {}
        }
        if kind.is_dir() {
            look(tree, &path, out, appends, seen, depth + 1)?;
        }
    }
    Ok(())
}

/// Moves what [`look`] found to be free.
fn place(from: &Path, to: &Path, appends: bool, is_top: bool) -> Result<(), MergeError> {
    for entry in entries(from)? {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io_at(&source))?;
        if !is_there(&target)? {
            fs::rename(&source, &target).map_err(io_at(&target))?;
        } else if kind.is_dir() {
            place(&source, &target, appends, false)?;
        } else if is_top && appends && is_appended(&entry.file_name()) {
            append(&source, &target)?;
        } else {
            return Err(MergeError::Exists(target));
        }
    }
    Ok(())
}

fn append(source: &Path, target: &Path) -> Result<(), MergeError> {
    let mut from = File::open(source).map_err(io_at(source))?;
    let mut to = OpenOptions::new().append(true).open(target).map_err(io_at(target))?;
    io::copy(&mut from, &mut to).map_err(io_at(target))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;

    fn tree(scratch: &Scratch, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = scratch.0.join(name);
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn text(scratch: &Scratch, path: &str) -> String {
        fs::read_to_string(scratch.0.join(path)).unwrap()
    }

    #[test]
    fn one_result_moves_as_it_is() {
        let scratch = Scratch::new();
        let one = tree(&scratch, "a", &[("stdout", "hi"), ("out/x", "1")]);
        let out = tree(&scratch, "out", &[("out/mine", "kept")]);
        merge(&[one], &out).unwrap();
        assert_eq!((text(&scratch, "out/stdout"), text(&scratch, "out/out/x")), ("hi".into(), "1".into()));
        assert_eq!(text(&scratch, "out/out/mine"), "kept");
    }

    #[test]
    fn streams_of_several_follow_each_other() {
        let scratch = Scratch::new();
        let one = tree(&scratch, "a", &[("stdout", "1"), ("exitCode", "0"), ("out/x", "1")]);
        let two = tree(&scratch, "b", &[("stdout", "2"), ("exitCode", "0"), ("out/y", "2")]);
        let out = tree(&scratch, "out", &[("other", "")]);
        merge(&[two, one], &out).unwrap();
        assert_eq!(
            (text(&scratch, "out/stdout"), text(&scratch, "out/exitCode")),
            ("21".into(), "00".into())
        );
        assert_eq!((text(&scratch, "out/out/x"), text(&scratch, "out/out/y")), ("1".into(), "2".into()));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_done() {
        let scratch = Scratch::new();
        let files = [("a-first", "1"), ("out/x", "new")];
        for there in [&[("out/x", "old")][..], &[("out", "a file")], &[("a-first/x", "a directory")]] {
            let one = tree(&scratch, "a", &files);
            let out = tree(&scratch, "out", there);
            assert!(
                matches!(merge(std::slice::from_ref(&one), &out), Err(MergeError::Exists(_))),
                "{there:?}"
            );
            assert_eq!(text(&scratch, "a/out/x"), "new");
            assert_eq!(text(&scratch, &format!("out/{}", there[0].0)), there[0].1);
            fs::remove_dir_all(&out).unwrap();
        }
        let out = tree(&scratch, "out", &[("kept", "")]);
        std::os::unix::fs::symlink("/nonexistent", out.join("out")).unwrap();
        assert!(matches!(merge(&[scratch.0.join("a")], &out), Err(MergeError::Exists(_))));
    }

    #[test]
    fn the_same_file_twice_is_refused_before_anything_moves() {
        let scratch = Scratch::new();
        let one = tree(&scratch, "a", &[("out/x", "1"), ("stdout", "1")]);
        let two = tree(&scratch, "b", &[("out/x", "2"), ("stdout", "2")]);
        let out = tree(&scratch, "out", &[("kept", "")]);
        assert!(matches!(merge(&[one, two], &out), Err(MergeError::Twice(p)) if p == Path::new("out/x")));
        assert_eq!((text(&scratch, "a/stdout"), text(&scratch, "b/out/x")), ("1".into(), "2".into()));
    }
}
