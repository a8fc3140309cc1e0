//! Runs WASM executions on this machine: what happens on an execution's own thread, in order.

use std::sync::Arc;

use crate::engine::{self, Engine, ModuleCache, Run, Scratch, environment, node_environment};
use crate::input::{self, InputPolicy};
use crate::model::{Bytes, Failure, FailureCode, WasmSpec};
use crate::results::Shelf;
use crate::sys::{Bell, Meter, Ring};

use super::runner::{Ended, Runner, Work};
use super::{no_output, scratch};

/// Runs WASM executions.
pub struct LocalRunner {
    shelf: Arc<Shelf>,
    engine: Option<Arc<dyn Engine>>,
    inputs: InputPolicy,
    /// Bytes kept of each of standard output and standard error.
    stream_cap: Bytes,
    /// Rings when an execution writes to them.
    bell: Bell,
}

impl LocalRunner {
    /// One on the best engine of this build.
    #[must_use]
    pub fn new(
        shelf: Arc<Shelf>,
        cache: Option<Arc<ModuleCache>>,
        inputs: InputPolicy,
        stream_cap: Bytes,
        bell: Bell,
    ) -> Self {
        Self { shelf, engine: engine::engines(cache).into_iter().next(), inputs, stream_cap, bell }
    }

    /// Tells those who wait for it, and runs it.
    fn begin(&self, work: &Work, scratch: &Scratch, meter: &Arc<Meter>) -> Result<i32, Failure> {
        self.bell.ring(Ring::State);
        self.execute(work, scratch, meter)
    }

    /// From an empty directory to an exit code.
    fn execute(&self, work: &Work, scratch: &Scratch, meter: &Arc<Meter>) -> Result<i32, Failure> {
        let Some(engine) = &self.engine else {
            return Err(Failure::new(FailureCode::Unsupported, "this build of codling has no WASM engine"));
        };
        let task = &work.order.spec.task;
        let spec = WasmSpec::parse(task)
            .map_err(|problems| Failure::new(FailureCode::InvalidJob, problems.join("\n")))?;
        let mut mounts = Vec::new();
        for (n, source) in task.inputs.iter().enumerate() {
            let dir = scratch.input(n);
            mounts.extend(input::fetch(source, n, &dir, &self.inputs, meter, &work.interrupt)?);
        }
        let dir = scratch.modules();
        let modules =
            input::modules(&spec, &task.inputs, &mounts, &dir, &self.inputs, meter, &work.interrupt)?;
        let order = &work.order;
        let node = node_environment(
            &order.id,
            &order.job_id,
            order.spec.job_type,
            order.partition,
            order.spec.count,
        );
        engine.run(&Run {
            scratch: scratch.clone(),
            module: modules.main,
            imports: modules.imports,
            env: environment(&task.env, &spec.env, &node),
            spec,
            inputs: mounts,
            outputs: task.result_paths.clone(),
            memory: work.needs.memory,
            meter: Arc::clone(meter),
            interrupt: work.interrupt.clone(),
            stream_cap: self.stream_cap,
            bell: self.bell.clone(),
        })
    }
}

impl Runner for LocalRunner {
    fn run(&self, work: &Work) -> Ended {
        let lease = match self.shelf.reserve_scratch(&work.order.id, work.needs.disk) {
            Ok(lease) => lease,
            Err(error) => {
                return Ended { output: no_output(), failure: Some(error.into()), lease: None };
            }
        };
        let meter = lease.meter();
        let made = scratch::remove(&*self.shelf.files(), &work.scratch)
            .map_err(|error| {
                let dir = work.scratch.dir().display();
                Failure::of_io(
                    FailureCode::Internal,
                    &format!("cannot remove what an earlier run left in {dir}"),
                    &error,
                )
            })
            .and_then(|()| Scratch::create(work.scratch.dir().to_owned(), &meter));
        let (output, failure) = match made {
            Err(failure) => (no_output(), Some(failure)),
            Ok(scratch) => match self.begin(work, &scratch, &meter) {
                Ok(code) => (scratch.run_output(code), None),
                Err(failure) => (scratch.run_output(-1), Some(failure)),
            },
        };
        // Nothing more is written: what it did not use is wanted for the result.
        lease.settle();
        Ended { output, failure, lease: Some(lease) }
    }
}
