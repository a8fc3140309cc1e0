//! Runs a WASM module in a sandbox: WASI preview 1, memory and disk limits, a stop that really stops.
//!
//! Two engines, one behaviour: `compiled` is wasmtime with its compiler (64-bit targets), `interpreted` is wasmi
//! (where there is no compiler back end, and in small builds). What a guest sees of the host is in [`wasi`], written
//! once. The behaviour suite runs over both.
//!
//! How a guest ends:
//! * by `proc_exit`, or by returning from its entry function (exit code 0): the run completed, whatever the code;
//! * by a trap: the run completed with exit code 1, and standard error ends with a line `wasm trap: ...`;
//! * by a trap after it was refused memory, by writing too much, or by an [`Interrupt`]: a [`Failure`] that says so.
//!
//! # Limitations
//! A compilation goes on, unattended, when its execution is stopped; how many may do so is bounded. Links do not lead from one mount into another, and mounts below other mounts are not listed. The interpreter has no
//! SIMD.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{Bytes, ExecutionId, Failure, JobId, JobType, ResultPath, WasmSpec};
use crate::sys::{Bell, Interrupt, Meter};

mod cache;
pub mod causes;
#[cfg(any(feature = "wasm", feature = "interpreter"))]
mod ending;
#[cfg(all(any(test, fuzzing), any(feature = "wasm", feature = "interpreter")))]
pub(crate) mod fuzz;
#[cfg(any(feature = "wasm", feature = "interpreter"))]
mod limits;
#[cfg(any(feature = "wasm", feature = "interpreter"))]
mod module;
mod scratch;
#[cfg(any(feature = "wasm", feature = "interpreter"))]
mod wasi;

#[cfg(all(feature = "wasm", target_pointer_width = "64"))]
mod compile;
#[cfg(all(feature = "wasm", target_pointer_width = "64"))]
pub mod compiled;
#[cfg(any(feature = "interpreter", all(feature = "wasm", not(target_pointer_width = "64"))))]
pub mod interpreted;

#[cfg(test)]
mod suite;
#[cfg(test)]
pub mod testing;

pub use cache::ModuleCache;
pub use scratch::Scratch;

/// Stack that the thread which calls [`Engine::run`] must have: the guest's own (see `compiled`), the compiler's and
/// the host functions'. Only what is touched counts.
pub const THREAD_STACK: usize = 4 << 20;

/// Runs guests.
pub trait Engine: Send + Sync {
    /// What it is built on, for people.
    fn name(&self) -> &'static str;

    /// Runs one guest to its end, on the calling thread (see [`THREAD_STACK`]). Returns its exit code. What it wrote
    /// to its streams is in the scratch directory, also when this fails.
    ///
    /// # Errors
    /// The module cannot be run, the guest was stopped, or it went beyond a limit.
    fn run(&self, run: &Run) -> Result<i32, Failure>;
}

/// The engines of this build, the best first; none in a build without WASM. Compiled modules are kept in `cache`.
#[must_use]
#[cfg_attr(
    not(all(feature = "wasm", target_pointer_width = "64")),
    expect(unused_variables, reason = "there is nothing to compile")
)]
pub fn engines(cache: Option<Arc<ModuleCache>>) -> Vec<Arc<dyn Engine>> {
    vec![
        #[cfg(all(feature = "wasm", target_pointer_width = "64"))]
        Arc::new(compiled::Compiled::new(cache)),
        #[cfg(any(feature = "interpreter", all(feature = "wasm", not(target_pointer_width = "64"))))]
        Arc::new(interpreted::Interpreted::new()),
    ]
}

/// One guest to run.
#[derive(Debug)]
pub struct Run {
    /// Its directory, created.
    pub scratch: Scratch,
    /// Entry function and parameters are taken from here.
    pub spec: WasmSpec,
    /// The program.
    pub module: ModuleFile,
    /// Modules that it imports from, instantiated in this order.
    pub imports: Vec<ImportFile>,
    /// Its environment, see [`environment`].
    pub env: BTreeMap<String, String>,
    /// What is mounted into its tree.
    pub inputs: Vec<Mount>,
    /// Output directories: mounted at their path, and at `/<name>` where nothing else is.
    pub outputs: Vec<ResultPath>,
    /// Linear memory that it may have, at most 4 GiB.
    pub memory: Bytes,
    /// Counts what it writes.
    pub meter: Arc<Meter>,
    /// Stops it.
    pub interrupt: Interrupt,
    /// Bytes kept of each of standard output and standard error.
    pub stream_cap: Bytes,
    /// Rings when it has written to either.
    pub bell: Bell,
}

/// A module, open.
#[derive(Debug, Clone)]
pub struct ModuleFile {
    /// How the job names it, for messages.
    pub name: String,
    /// Its bytes.
    pub file: Arc<File>,
}

/// A module that others import from.
#[derive(Debug, Clone)]
pub struct ImportFile {
    /// Names under which its exports are imported: alias and path.
    pub names: Vec<String>,
    /// The module.
    pub module: ModuleFile,
}

/// Something of the host in the guest's tree.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute path in the guest.
    pub guest: String,
    /// Directory or regular file on the host.
    pub host: PathBuf,
    /// Whether the guest may change it.
    pub writable: bool,
    /// The host path, already open as it is needed: what was checked is then what is used.
    pub handle: Option<Arc<File>>,
}

/// A job's environment (job-spec.md section 8): the task's, over it the engine's, over both the node's.
#[must_use]
pub fn environment(
    task: &BTreeMap<String, String>,
    engine: &BTreeMap<String, String>,
    node: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = task.clone();
    env.extend(engine.iter().map(|(k, v)| (k.clone(), v.clone())));
    env.extend(node.iter().map(|(k, v)| (k.clone(), v.clone())));
    env
}

/// The node's own variables of an execution.
#[must_use]
pub fn node_environment(
    id: &ExecutionId,
    job: &JobId,
    job_type: JobType,
    partition: u32,
    count: u32,
) -> BTreeMap<String, String> {
    let values = [
        ("BACALHAU_EXECUTION_ID", id.to_string()),
        ("BACALHAU_JOB_ID", job.to_string()),
        ("BACALHAU_JOB_TYPE", job_type.as_str().to_owned()),
        ("BACALHAU_PARTITION_INDEX", partition.to_string()),
        ("BACALHAU_PARTITION_COUNT", count.to_string()),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_has_the_last_word_in_the_environment() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let (id, job) = (ExecutionId::random(), JobId::random());
        let node = node_environment(&id, &job, JobType::Batch, 2, 5);
        let task = map(&[("A", "task"), ("B", "task"), ("BACALHAU_JOB_ID", "task")]);
        let engine = map(&[("B", "engine"), ("BACALHAU_JOB_TYPE", "engine")]);
        let mut wanted = map(&[
            ("A", "task"),
            ("B", "engine"),
            ("BACALHAU_JOB_TYPE", "batch"),
            ("BACALHAU_PARTITION_INDEX", "2"),
            ("BACALHAU_PARTITION_COUNT", "5"),
        ]);
        wanted.insert("BACALHAU_EXECUTION_ID".into(), id.to_string());
        wanted.insert("BACALHAU_JOB_ID".into(), job.to_string());
        assert_eq!(environment(&task, &engine, &node), wanted);
    }
}
