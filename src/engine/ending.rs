//! From the way a guest ended to what is reported.

use std::io;

use super::causes::{over_limit, stopped};
use super::limits::{Limits, TABLE_ELEMENTS_MAX};
use super::wasi::{Stop, Wasi};
use super::{Mount, Run};
use crate::model::{Failure, FailureCode};
use crate::sys::{Cause, OverLimit};

/// How a guest ended.
#[derive(Debug)]
pub enum Ending {
    /// Its entry function returned.
    Returned,
    /// A host function ended it.
    Stopped(Stop),
    /// It trapped, with that message.
    Trapped(String),
    /// It never began: its memory or a table was too large from the start, or something else that the message says.
    NotInstantiated(String),
}

/// Exit code of a guest that trapped, as Bacalhau's.
const TRAPPED: i32 = 1;

/// What the caller of the engine is told; the exit code is also written to the result.
///
/// # Errors
/// The guest did not end by itself.
pub fn conclude(ending: Ending, run: &Run, wasi: &mut Wasi, limits: &Limits) -> Result<i32, Failure> {
    wasi.note_discarded();
    let code = match ending {
        Ending::Returned => 0,
        Ending::Stopped(Stop::Exit(code)) => code,
        Ending::Stopped(Stop::Interrupted) => return Err(interrupted(run, Some(wasi))),
        Ending::Trapped(message) => {
            wasi.note(&format!("wasm trap: {message}"));
            if let Some(failure) = out_of_memory(limits, &format!("the program trapped ({message})")) {
                return Err(failure);
            }
            TRAPPED
        }
        Ending::NotInstantiated(message) => return Err(not_instantiated(&message, run, limits)),
    };
    std::fs::write(run.scratch.exit_code(), code.to_string())
        .map_err(|e| Failure::of_io(FailureCode::Internal, "cannot write exitCode", &e))?;
    Ok(code)
}

/// Why a run was stopped from outside.
#[must_use]
pub fn interrupted(run: &Run, wasi: Option<&Wasi>) -> Failure {
    match (run.interrupt.cause(), wasi.and_then(Wasi::over)) {
        (Some(Cause::Disk), Some(over)) => over_limit(over),
        (cause, _) => stopped(cause.unwrap_or(Cause::Cancelled)),
    }
}

fn out_of_memory(limits: &Limits, what: &str) -> Option<Failure> {
    let wanted = limits.refused_memory()?;
    let text =
        format!("{what} after it was refused memory: it may have {} and wanted {wanted}", limits.memory());
    Some(Failure::new(FailureCode::OutOfMemory, text).hint("set Resources.Memory of the task higher"))
}

fn not_instantiated(message: &str, run: &Run, limits: &Limits) -> Failure {
    if let Some(wanted) = limits.refused_memory() {
        let text = format!(
            "module '{}' needs {wanted} of memory to begin with, and may have {}",
            run.module.name,
            limits.memory()
        );
        return Failure::new(FailureCode::OutOfMemory, text).hint("set Resources.Memory of the task higher");
    }
    if let Some(wanted) = limits.refused_elements() {
        let text = format!(
            "module '{}' needs tables of {wanted} elements; {TABLE_ELEMENTS_MAX} are allowed",
            run.module.name
        );
        return Failure::new(FailureCode::InvalidJob, text);
    }
    Failure::new(
        FailureCode::InvalidJob,
        format!("module '{}' cannot be started: {message}", run.module.name),
    )
}

/// Creates the output directories and opens everything that the guest reaches.
///
/// # Errors
/// Two things are mounted at one path, or the host's files cannot be opened.
pub fn open_host(run: &Run) -> Result<Wasi, Failure> {
    let mut mounts = run.inputs.clone();
    let output = |guest: String, name: &str| Mount {
        guest,
        host: run.scratch.output(name),
        writable: true,
        handle: None,
    };
    for path in &run.outputs {
        run.meter.charge(crate::model::Bytes(crate::model::units::DISK_BLOCK)).map_err(over_limit)?;
        let dir = run.scratch.output(&path.name);
        std::fs::create_dir_all(&dir)
            .map_err(|e| io_failure(&e, &format!("cannot create {}", dir.display())))?;
        mounts.push(output(path.path.clone(), &path.name));
    }
    // Old jobs write to an output's name (job-spec.md section 3).
    for path in &run.outputs {
        let guest = format!("/{}", path.name);
        let same = |mount: &Mount| mount.guest.trim_matches('/') == path.name;
        if !mounts.iter().any(same) {
            mounts.push(output(guest, &path.name));
        }
    }
    Wasi::new(run, &mounts).map_err(|e| io_failure(&e, "cannot mount"))
}

fn io_failure(e: &io::Error, what: &str) -> Failure {
    if let Some(over) = e.get_ref().and_then(|cause| cause.downcast_ref::<OverLimit>()) {
        return over_limit(*over);
    }
    let code =
        if e.kind() == io::ErrorKind::InvalidInput { FailureCode::InvalidJob } else { FailureCode::Internal };
    Failure::of_io(code, what, e)
}
