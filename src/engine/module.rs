//! Module files: reading them, and what is refused before an engine sees them.

use std::os::unix::fs::FileExt;

use super::limits::MEMORY_MAX;
use super::{ModuleFile, Run};
use crate::model::{Bytes, Failure, FailureCode};

/// A module may be this large. It is compiled in memory, at several times its size.
pub const MODULE_MAX: Bytes = Bytes::mib(64);

/// `\0asm` and what follows: version 1, layer 0.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
/// Layer 1 is the component model.
const COMPONENT_LAYER: [u8; 2] = [1, 0];

const WANTED: &str = "build it for WASI preview 1, e.g. with the target wasm32-wasip1";

/// The module's bytes.
///
/// # Errors
/// It cannot be read, is too large, or is no core module.
pub fn read(module: &ModuleFile) -> Result<Vec<u8>, Failure> {
    let broken = |e: std::io::Error| {
        Failure::new(FailureCode::InputFailed, format!("module '{}' cannot be read: {e}", module.name))
    };
    let size = module.file.metadata().map_err(broken)?.len();
    if size > MODULE_MAX.0 {
        let text = format!("has {}; at most {MODULE_MAX} are taken", Bytes(size));
        return Err(invalid(module, &text));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    module.file.read_exact_at(&mut bytes, 0).map_err(broken)?;
    match bytes.first_chunk::<8>() {
        Some(head) if *head == MODULE => Ok(bytes),
        Some(head) if head.starts_with(b"\0asm") && head[6..] == COMPONENT_LAYER => {
            Err(invalid(module, "is a component (WASI preview 2), not a module").hint(WANTED))
        }
        Some(head) if head.starts_with(b"\0asm") => {
            Err(invalid(module, "is of an unknown WebAssembly version"))
        }
        _ => Err(invalid(module, "is not a WebAssembly module").hint(WANTED)),
    }
}

/// The job is to blame for its module.
pub fn invalid(module: &ModuleFile, what: &str) -> Failure {
    Failure::new(FailureCode::InvalidJob, format!("module '{}' {what}", module.name))
}

/// The engine refused the bytes: its reason is passed on, in one line of bounded length.
pub fn malformed(module: &ModuleFile, reason: &str) -> Failure {
    let line: String =
        reason.lines().map(str::trim).collect::<Vec<_>>().join(": ").chars().take(300).collect();
    invalid(module, &format!("cannot be used: {line}")).hint(WANTED)
}

/// A module imports what nobody has.
pub fn unknown_import(module: &ModuleFile, from: &str, name: &str) -> Failure {
    let short = |text: &str| text.chars().take(100).collect::<String>();
    let (from, name) = (short(from), short(name));
    invalid(module, &format!("imports '{name}' from '{from}', which neither the node nor ImportModules has"))
        .hint(
            "the node offers wasi_snapshot_preview1; other modules are listed in Engine.Params.ImportModules",
        )
}

/// Exported functions that a message names.
const FUNCTIONS_NAMED: usize = 10;

/// The entry function is not there, or is not what can be called; `functions` could be.
pub fn no_entry(run: &Run, fault: &str, mut functions: Vec<&str>) -> Failure {
    let entry = run.spec.entrypoint.chars().take(100).collect::<String>();
    let failure = invalid(&run.module, &format!("{fault} '{entry}'"));
    if functions.is_empty() {
        return failure.hint("no function without parameters is exported: build a command, not a library");
    }
    functions.sort_unstable();
    functions.truncate(FUNCTIONS_NAMED);
    failure.hint(format!("set Engine.Params.Entrypoint to one of: {}", functions.join(", ")))
}

/// Name under which [`without_start`] exports what the start section named.
#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
pub const START: &str = "codling:start";

/// The same module with its start function exported as [`START`] instead of called on instantiation: an interpreter
/// that cannot interrupt instantiation calls it afterwards. `None` if it has none, or if it is malformed, which the
/// engine then says better.
#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
#[must_use]
pub fn without_start(module: &[u8]) -> Option<Vec<u8>> {
    const EXPORTS: u8 = 7;
    const START_SECTION: u8 = 8;
    let sections = sections(module)?;
    let start = sections.iter().find(|(id, _)| *id == START_SECTION)?.1;
    let name = START.as_bytes();
    let mut entry = Vec::new();
    put_number(&mut entry, name.len());
    entry.extend_from_slice(name);
    // Kind 0 is a function; its index is all that a start section holds.
    entry.push(0);
    entry.extend_from_slice(start);

    let mut out = MODULE.to_vec();
    let mut exported = false;
    for (id, body) in sections {
        // Exports, if there are any, come before the start section and nothing but custom sections between them.
        let (count, old) = match id {
            EXPORTS => number(body)?,
            START_SECTION if !exported => (0, &[][..]),
            START_SECTION => continue,
            _ => {
                put_section(&mut out, id, body);
                continue;
            }
        };
        exported = true;
        let mut exports = Vec::new();
        put_number(&mut exports, count + 1);
        exports.extend_from_slice(old);
        exports.extend_from_slice(&entry);
        put_section(&mut out, EXPORTS, &exports);
    }
    Some(out)
}

#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
fn sections(module: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut rest = module.strip_prefix(&MODULE)?;
    let mut sections = Vec::new();
    while let Some((id, tail)) = rest.split_first() {
        let (len, tail) = number(tail)?;
        let (body, tail) = tail.split_at_checked(len)?;
        sections.push((*id, body));
        rest = tail;
    }
    Some(sections)
}

/// A LEB128 number of 32 bits and what follows it.
#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
fn put_number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let [byte, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
fn put_section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    put_number(out, body.len());
    out.extend_from_slice(body);
}

/// The memory that a job may ask for.
///
/// # Errors
/// More than 32-bit pointers reach.
pub fn check_memory(run: &Run) -> Result<(), Failure> {
    if run.memory > MEMORY_MAX {
        let text =
            format!("Resources.Memory of {} is more than the {MEMORY_MAX} that a module can use", run.memory);
        return Err(Failure::new(FailureCode::InvalidJob, text)
            .hint("set Resources.Memory of the task to at most 4Gi"));
    }
    Ok(())
}
