//! Brings what a job needs to where its guest finds it: inline data, downloads, allowed paths of this machine.
//!
//! Everything here blocks, on the thread of the execution. What is written is charged to its meter before it is
//! written, and its interrupt ends a transfer at once.

use std::path::Path;
use std::time::Duration;

use crate::engine::causes::over_limit;
use crate::engine::{Mount, causes};
use crate::model::units::DISK_BLOCK;
use crate::model::{Bytes, Failure, FailureCode, InputSource, SpecConfig};
use crate::sys::{Interrupt, Meter};

mod allow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inline;
mod local;
mod modules;
mod reach;
mod url;

#[cfg(test)]
mod tests;

pub use allow::AllowedPath;
pub use modules::{Modules, modules};

/// Kinds of sources that are known, in lower case.
pub const KINDS: [&str; 4] = ["inline", "urldownload", "localdirectory", "local"];

/// Bytes read and written at once.
const BUFFER: usize = 64 * 1024;

/// What the node allows, and how patient it is.
#[derive(Debug, Clone)]
pub struct InputPolicy {
    /// `Compute.AllowListedLocalPaths`.
    pub local: Vec<AllowedPath>,
    /// `InputSources.MaxRetryCount`: how often a download is tried again after the first time.
    pub retries: u32,
    /// `InputSources.ReadTimeout`: how long a server may be silent.
    pub read_timeout: Duration,
    /// `InputSources.AllowLocalAddresses`: URLs may lead to this machine or its link.
    pub allow_local: bool,
    /// Pause before the first retry; doubled for each further one.
    pub backoff: Duration,
}

impl Default for InputPolicy {
    fn default() -> Self {
        Self {
            local: Vec::new(),
            retries: 3,
            read_timeout: Duration::from_secs(300),
            allow_local: false,
            backoff: Duration::from_secs(1),
        }
    }
}

/// Whether sources of that kind can be fetched here.
#[must_use]
pub fn is_known(source: &SpecConfig) -> bool {
    KINDS.iter().any(|kind| source.is(kind))
}

/// Brings one input: the `index`-th of the task, which messages name. `dir` is created if something is written.
///
/// # Errors
/// The source is not known, not allowed, cannot be had, or does not fit; or the execution was stopped.
pub fn fetch(
    input: &InputSource,
    index: usize,
    dir: &Path,
    policy: &InputPolicy,
    meter: &Meter,
    interrupt: &Interrupt,
) -> Result<Vec<Mount>, Failure> {
    let what = format!("InputSources[{index}]");
    fetch_named(&what, input, &Sink { dir, policy, meter, interrupt })
}

fn fetch_named(what: &str, input: &InputSource, sink: &Sink) -> Result<Vec<Mount>, Failure> {
    sink.check()?;
    let source = &input.source.0;
    let mount = match source.kind.trim().to_ascii_lowercase().as_str() {
        "inline" => inline::fetch(source, &input.target, sink),
        "urldownload" => url::fetch(source, &input.target, sink),
        "localdirectory" | "local" => local::fetch(source, &input.target, sink.policy),
        other => {
            let text =
                format!("this node has no input source '{}'", other.chars().take(64).collect::<String>());
            Err(Failure::new(FailureCode::Unsupported, text)
                .hint("it has inline, urlDownload and localDirectory (local)"))
        }
    };
    match mount {
        Ok(mount) => Ok(vec![mount]),
        Err(failure) => Err(Failure { message: format!("{what}: {}", failure.message), ..failure }),
    }
}

/// Where a source's bytes go, and what they answer to.
struct Sink<'a> {
    dir: &'a Path,
    policy: &'a InputPolicy,
    meter: &'a Meter,
    interrupt: &'a Interrupt,
}

impl Sink<'_> {
    /// Whether to go on.
    fn check(&self) -> Result<(), Failure> {
        self.interrupt.cause().map_or(Ok(()), |cause| Err(causes::stopped(cause)))
    }

    /// Takes `n` bytes before they are written.
    fn charge(&self, n: u64) -> Result<(), Failure> {
        self.meter.charge(Bytes(n)).map_err(over_limit)
    }

    /// Creates the directory of this input.
    fn create_dir(&self) -> Result<(), Failure> {
        self.charge(DISK_BLOCK)?;
        crate::sys::fs::create_private_dir(self.dir).map_err(|e| cannot_write(self.dir, &e))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::of_io(FailureCode::Internal, &format!("cannot write {}", path.display()), error)
}

fn failed(text: impl Into<String>) -> Failure {
    Failure::new(FailureCode::InputFailed, text)
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(FailureCode::InvalidJob, text)
}

/// The text parameter of that name.
fn required<'a>(source: &'a SpecConfig, name: &str) -> Result<&'a str, Failure> {
    match source.text(name).map(str::trim) {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(text),
        _ => Err(invalid(format!("Source.Params.{name} is required for {}", source.kind.trim()))),
    }
}
