//! Inputs that are on this machine already.
//!
//! What is allowed is decided for the path that is left when all links are followed, and what was decided on is then
//! opened: a link that is exchanged in between leads to an error, not elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::OFlags;
use serde_json::Value;

use super::{InputPolicy, failed, invalid, required};
use crate::engine::Mount;
use crate::model::{Failure, SpecConfig};

/// What to make of a path that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Create {
    Dir,
    File,
    Nothing,
}

/// The directory or file at `target`.
pub(super) fn fetch(source: &SpecConfig, target: &str, policy: &InputPolicy) -> Result<Mount, Failure> {
    let given = required(source, "SourcePath")?;
    if !given.starts_with('/') {
        return Err(invalid(format!("Source.Params.SourcePath must be absolute, and is '{given}'")));
    }
    let write = flag(source, "ReadWrite")?;
    let create = create(source, write)?;
    let (base, missing) = resolve(Path::new(given)).map_err(|e| failed(format!("{given}: {e}")))?;
    let path = missing.iter().fold(base.clone(), |path, name| path.join(name));
    if !policy.local.iter().any(|allowed| allowed.allows(&path, write)) {
        let (verb, suffix) = if write { ("written to", ":rw") } else { ("read", "") };
        return Err(failed(format!("{given} may not be {verb} by jobs of this node"))
            .hint(format!("add '{given}{suffix}' to Compute.AllowListedLocalPaths of the node")));
    }
    if !missing.is_empty() {
        if create == Create::Nothing {
            return Err(failed(format!("{given} is not there")));
        }
        make(&base, &missing, create).map_err(|e| failed(format!("{given} cannot be created: {e}")))?;
    }
    let handle = open(&path, write).map_err(|e| failed(format!("{given}: {e}")))?;
    Ok(Mount { guest: target.to_owned(), host: path, writable: write, handle: Some(Arc::new(handle)) })
}

fn flag(source: &SpecConfig, name: &str) -> Result<bool, Failure> {
    match source.param(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ => Err(invalid(format!("Source.Params.{name} must be true or false"))),
        },
        Some(_) => Err(invalid(format!("Source.Params.{name} must be true or false"))),
    }
}

/// A path to read is not created unless the job says so; one to write to is, like everywhere in Bacalhau.
fn create(source: &SpecConfig, write: bool) -> Result<Create, Failure> {
    match source.text("CreateAs").map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None | Some("") if write => Ok(Create::Dir),
        None | Some("" | "nocreate") => Ok(Create::Nothing),
        Some("dir") => Ok(Create::Dir),
        Some("file") => Ok(Create::File),
        Some(_) => Err(invalid("Source.Params.CreateAs must be dir, file or noCreate")),
    }
}

/// The longest part of `path` that is there, without links, and the names that are missing below it.
fn resolve(path: &Path) -> std::io::Result<(PathBuf, Vec<OsString>)> {
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(base) => {
                missing.reverse();
                return Ok((base, missing));
            }
            // A link that leads nowhere is there itself: nothing is created through it.
            Err(e) if e.kind() == ErrorKind::NotFound && at.symlink_metadata().is_err() => {}
            Err(e) => return Err(e),
        }
        let (Some(Component::Normal(name)), Some(parent)) = (at.components().next_back(), at.parent()) else {
            return Err(ErrorKind::NotFound.into());
        };
        missing.push(name.to_owned());
        at = parent;
    }
}

/// Creates directories, and at the end a directory or an empty file, beneath `base`.
fn make(base: &Path, missing: &[OsString], create: Create) -> std::io::Result<()> {
    let dir = Dir::open_ambient_dir(base, ambient_authority())?;
    let path: PathBuf = missing.iter().collect();
    match create {
        Create::File => {
            if let Some(parent) = path.parent() {
                dir.create_dir_all(parent)?;
            }
            dir.open_with(&path, cap_std::fs::OpenOptions::new().write(true).create_new(true)).map(drop)
        }
        Create::Dir | Create::Nothing => dir.create_dir_all(&path),
    }
}

/// Opens `path`, which has no links in it, and makes sure that it is what was opened.
fn open(path: &Path, write: bool) -> std::io::Result<File> {
    let wrong = |why: &str| std::io::Error::new(ErrorKind::InvalidInput, why.to_owned());
    let kind = path.symlink_metadata()?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(wrong("neither a directory nor a regular file"));
    }
    // Without waiting, should it have become a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .write(write && kind.is_file())
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if opened != path || file.metadata()?.file_type() != kind {
        return Err(wrong("it was exchanged while it was opened"));
    }
    Ok(file)
}
