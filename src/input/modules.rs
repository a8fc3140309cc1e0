//! The modules of a WASM job: among its inputs, or from sources of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

use super::{InputPolicy, Sink, fetch_named, invalid};
use crate::engine::{ImportFile, ModuleFile, Mount};
use crate::model::{Failure, InputSource, ModuleRef, WasmSpec};
use crate::sys::{Interrupt, Meter};

/// Names that a message lists.
const NAMES_LISTED: usize = 10;
/// Entries of a directory that is searched for its one module.
const ENTRIES_MAX: usize = 1000;

/// What an engine needs.
#[derive(Debug, Clone)]
pub struct Modules {
    /// The program.
    pub main: ModuleFile,
    /// What it imports from.
    pub imports: Vec<ImportFile>,
}

/// Finds the modules of `spec` among `mounts` (what `inputs` brought), and fetches those that have sources of their own
/// into directories below `dir`.
///
/// # Errors
/// One is not there, is ambiguous, or cannot be fetched.
pub fn modules(
    spec: &WasmSpec,
    inputs: &[InputSource],
    mounts: &[Mount],
    dir: &Path,
    policy: &InputPolicy,
    meter: &Meter,
    interrupt: &Interrupt,
) -> Result<Modules, Failure> {
    let find = |reference: &ModuleRef, what: &str, n: usize| match reference {
        ModuleRef::Target(target) => {
            find(target, mounts).map_err(|f| Failure { message: format!("{what}: {}", f.message), ..f })
        }
        ModuleRef::Source(source) => {
            let dir = dir.join(n.to_string());
            let sink = Sink { dir: &dir, policy, meter, interrupt };
            // Where it would be mounted does not matter: no guest sees it.
            let source = InputSource { target: "/module".into(), ..source.clone() };
            let brought = fetch_named(what, &source, &sink)?;
            find("/module", &brought).map_err(|f| Failure { message: format!("{what}: {}", f.message), ..f })
        }
    };
    let main = find(&spec.module, "Engine.Params.EntryModule", 0)?;
    let mut imports = Vec::new();
    for (i, reference) in spec.imports.iter().enumerate() {
        let what = format!("Engine.Params.ImportModules[{i}]");
        let module = find(reference, &what, i + 1)?;
        let mut names = match reference {
            ModuleRef::Target(target) => {
                let alias =
                    inputs.iter().find(|input| input.target == *target).map(|input| input.alias.clone());
                vec![alias.unwrap_or_default(), target.clone()]
            }
            ModuleRef::Source(source) => vec![source.alias.clone(), source.target.clone()],
        };
        names.retain(|name| !name.is_empty());
        names.dedup();
        if names.is_empty() {
            return Err(invalid(format!(
                "{what}: the source needs an Alias: the name that others import from"
            )));
        }
        imports.push(ImportFile { names, module });
    }
    Ok(Modules { main, imports })
}

fn parts(path: &str) -> PathBuf {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect()
}

/// The module at a guest path: a file, or the one module in a directory.
fn find(target: &str, mounts: &[Mount]) -> Result<ModuleFile, Failure> {
    let path = parts(target);
    let held = mounts
        .iter()
        .map(|mount| (mount, parts(&mount.guest)))
        .filter_map(|(mount, at)| {
            Some((mount, path.strip_prefix(&at).ok()?.to_owned(), at.as_os_str().len()))
        })
        .max_by_key(|(_, _, len)| *len);
    if let Some((mount, rest, _)) = held {
        return within(target, mount, &rest);
    }
    // A download lies below the target of its input.
    let below: Vec<&Mount> = mounts.iter().filter(|mount| parts(&mount.guest).starts_with(&path)).collect();
    match only(below.iter().map(|mount| mount.guest.as_str())) {
        Ok(guest) => match below.iter().find(|mount| mount.guest == guest) {
            Some(mount) => within(&mount.guest, mount, Path::new("")),
            None => Err(invalid(format!("nothing is at '{target}'"))),
        },
        Err(why) => Err(invalid(format!("'{target}': {why}"))),
    }
}

fn within(target: &str, mount: &Mount, rest: &Path) -> Result<ModuleFile, Failure> {
    open(mount, rest)
        .map(|(name, file)| {
            let name = if name.is_empty() { target.to_owned() } else { format!("{target}/{name}") };
            ModuleFile { name, file }
        })
        .map_err(|e| invalid(format!("'{target}': {e}")))
}

/// The file, and its name if `rest` was its directory.
fn open(mount: &Mount, rest: &Path) -> std::io::Result<(String, Arc<File>)> {
    let wrong = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidInput, why);
    let dir = match &mount.handle {
        Some(handle) if handle.metadata()?.is_dir() => Dir::from_std_file(handle.try_clone()?),
        Some(handle) if rest.as_os_str().is_empty() => return Ok((String::new(), Arc::clone(handle))),
        None if mount.host.is_dir() => Dir::open_ambient_dir(&mount.host, ambient_authority())?,
        None if rest.as_os_str().is_empty() => {
            return Ok((String::new(), Arc::new(File::open(&mount.host)?)));
        }
        Some(_) | None => return Err(wrong("it lies below a file".into())),
    };
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    if !dir.metadata(rest)?.is_dir() {
        return Ok((String::new(), regular(&dir, rest)?));
    }
    let mut names = Vec::new();
    for entry in dir.read_dir(rest)?.take(ENTRIES_MAX) {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let name = only(names.iter().map(String::as_str)).map_err(wrong)?;
    Ok((name.to_owned(), regular(&dir, &rest.join(name))?))
}

/// Opens a regular file beneath `dir`, and nothing else.
fn regular(dir: &Dir, path: &Path) -> std::io::Result<Arc<File>> {
    let odd = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
    if !dir.metadata(path)?.is_file() {
        return Err(odd());
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = dir.open_with(path, &options)?.into_std();
    if file.metadata()?.is_file() { Ok(Arc::new(file)) } else { Err(odd()) }
}

/// The one name that ends in `.wasm`, or the one name there is.
fn only<'a>(names: impl Iterator<Item = &'a str>) -> Result<&'a str, String> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let modules: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".wasm")).collect();
    match (modules.as_slice(), names.as_slice()) {
        ([one], _) | ([], [one]) => Ok(one),
        (_, []) => Err("no file is there".into()),
        (_, some) => {
            let listed = some.iter().take(NAMES_LISTED).copied().collect::<Vec<_>>().join(", ");
            Err(format!("which of these is the module: {listed}? Name it in full"))
        }
    }
}
