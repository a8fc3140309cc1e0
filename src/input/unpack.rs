//! A gzip'd tar that came with a job becomes a directory. The job is not trusted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{BUFFER, Sink, cannot_write, invalid};
use crate::model::Failure;
use crate::model::units::DISK_BLOCK;

/// Entries of one archive.
const ENTRIES_MAX: usize = 100_000;
/// Bytes of a name.
const NAME_MAX: u64 = 4096;
/// Names in a path, as many as a guest itself may nest.
const DEPTH_MAX: usize = 120;

/// Directories and regular files are taken, anything else is an error.
pub(super) fn unpack(data: &[u8], dest: &Path, sink: &Sink) -> Result<(), Failure> {
    let broken = |e: io::Error| invalid(format!("the inline archive cannot be unpacked: {e}"));
    let mut archive = tar::Archive::new(MultiGzDecoder::new(data));
    // Raw: what the headers announce is read here, where it has a bound.
    let entries = archive.entries().map_err(broken)?.raw(true);
    let mut long_name = None;
    for (i, entry) in entries.enumerate() {
        sink.check()?;
        let mut entry = entry.map_err(broken)?;
        if i >= ENTRIES_MAX {
            return Err(invalid(format!("the inline archive has more than {ENTRIES_MAX} entries")));
        }
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            if entry.size() > NAME_MAX {
                return Err(invalid("the inline archive has a name that is too long"));
            }
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(broken)?;
            long_name = if kind.is_gnu_longname() { Some(text) } else { pax_path(&text) };
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = safe(dest, &name)?;
        if kind.is_dir() {
            create_dirs(dest, &path, sink)?;
        } else if kind.is_file() {
            if let Some(parent) = path.parent() {
                create_dirs(dest, parent, sink)?;
            }
            sink.charge(DISK_BLOCK)?;
            let mut file = File::create_new(&path).map_err(|e| cannot_write(&path, &e))?;
            copy(&mut entry, &mut file, &path, sink)?;
        } else {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(invalid(format!(
                "the inline archive holds '{name}', neither a file nor a directory"
            )));
        }
    }
    Ok(())
}

fn copy(from: &mut tar::Entry<impl Read>, to: &mut File, path: &Path, sink: &Sink) -> Result<(), Failure> {
    let cut = || invalid(format!("the inline archive ends within {}", path.display()));
    let mut left = from.size();
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        sink.check()?;
        let n = from.read(&mut buffer).map_err(|_| cut())?;
        let part = buffer.get(..n).filter(|part| !part.is_empty()).ok_or_else(cut)?;
        sink.charge(n as u64)?;
        to.write_all(part).map_err(|e| cannot_write(path, &e))?;
        left = left.saturating_sub(n as u64);
    }
    Ok(())
}

/// The value of `path` in a pax header, if it has one: records are `<length> <key>=<value>\n`.
fn pax_path(records: &[u8]) -> Option<Vec<u8>> {
    let mut rest = records;
    while !rest.is_empty() {
        let blank = rest.iter().position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(rest.get(..blank)?).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            return Some(value.strip_suffix(b"\n").unwrap_or(value).to_vec());
        }
        rest = rest.get(length..)?;
    }
    None
}

/// Beneath `dest`, or an error.
fn safe(dest: &Path, name: &[u8]) -> Result<PathBuf, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    let plain = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    let refuse = |why: &str| {
        let name = String::from_utf8_lossy(name).chars().take(200).collect::<String>();
        Err(invalid(format!("the inline archive holds '{name}', which {why}")))
    };
    if name.contains(&0) || !path.components().all(plain) {
        return refuse("leads out of its directory");
    }
    if path.as_os_str().len() as u64 > NAME_MAX || path.components().count() > DEPTH_MAX {
        return refuse("lies too deep");
    }
    Ok(dest.join(path))
}

/// Creates what is missing of `path` below `dest`, each directory charged. Nothing here is ever a link.
fn create_dirs(dest: &Path, path: &Path, sink: &Sink) -> Result<(), Failure> {
    let mut at = dest.to_owned();
    for part in path.strip_prefix(dest).unwrap_or(Path::new("")) {
        at.push(part);
        if !at.is_dir() {
            sink.charge(DISK_BLOCK)?;
            std::fs::create_dir(&at).map_err(|e| cannot_write(&at, &e))?;
        }
    }
    Ok(())
}
