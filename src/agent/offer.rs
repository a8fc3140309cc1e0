//! From settings to what the compute role offers and how jobs' gaps are filled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::compute::bid::Offer;
use crate::compute::local::LocalRunner;
use crate::compute::runner::Runner;
use crate::config::{Resolved, Settings};
use crate::engine::{self, ModuleCache};
use crate::input::{self, AllowedPath, InputPolicy};
use crate::model::{Bytes, JobSpec, NodeId, ResourceRequest, Resources, SpecConfig};
use crate::results::Shelf;
use crate::sys::{Bell, Machine};

/// Most that compiled modules may take.
const CACHE_MAX: Bytes = Bytes::mib(32);

/// And most of the quota, as a divisor.
const CACHE_SHARE: u64 = 32;

/// What this node offers.
pub(super) fn offer(settings: &Settings, resolved: &Resolved, machine: &Machine, id: &NodeId) -> Offer {
    let enabled = |all: &[&str], disabled: &[String]| -> Vec<String> {
        all.iter()
            .filter(|name| !disabled.iter().any(|d| d == *name))
            .map(|name| (*name).to_owned())
            .collect()
    };
    let engines: &[&str] = if engine::engines(None).is_empty() { &[] } else { &["wasm"] };
    let mut sources = enabled(&input::KINDS, &settings.disabled.sources);
    if settings.admission.local_inputs_only {
        sources.retain(|name| name != "urldownload");
    }
    Offer {
        engines: enabled(engines, &settings.disabled.engines),
        publishers: enabled(&["local"], &settings.disabled.publishers),
        sources,
        labels: labels(settings, machine, id),
        capacity: resolved.capacity,
        per_job: resolved.job_max,
        defaults: resolved.fallback,
        timeout_max: settings.compute.max_execution_timeout.unwrap_or(Duration::ZERO),
        reject_networked: settings.admission.reject_networked,
        reject_stateless: settings.admission.reject_stateless,
    }
}

/// The labels that a node gives itself, and the user's over them.
fn labels(settings: &Settings, machine: &Machine, id: &NodeId) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> =
        [("Architecture", machine.arch), ("Operating-System", machine.os), ("name", id.as_str())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
    if let Some(model) = &machine.tree.model {
        labels.insert("board".into(), model.clone());
    }
    labels.extend(settings.node.labels.clone());
    labels
}

/// What runs executions on this machine.
pub(super) fn runner(settings: &Settings, quota: Bytes, shelf: &Arc<Shelf>, bell: Bell) -> Arc<dyn Runner> {
    let local = settings.compute.local_paths.iter();
    let inputs = InputPolicy {
        local: local.map(|path| AllowedPath::new(&path.pattern, path.writable)).collect(),
        retries: settings.inputs.max_retries,
        read_timeout: settings.inputs.read_timeout,
        allow_local: settings.inputs.allow_local,
        ..InputPolicy::default()
    };
    let cache = module_cache(settings, quota, shelf);
    Arc::new(LocalRunner::new(Arc::clone(shelf), cache, inputs, settings.compute.max_log, bell))
}

/// Compiled modules: a small part of the quota, set aside whole. A node without it compiles each time.
fn module_cache(settings: &Settings, quota: Bytes, shelf: &Shelf) -> Option<Arc<ModuleCache>> {
    let limit = Bytes(quota.0 / CACHE_SHARE).min(CACHE_MAX);
    let dir = settings.cache_dir();
    let opened = ModuleCache::open(&dir, limit).map_err(|error| error.to_string());
    match opened.and_then(|cache| shelf.set_cache_bytes(limit).map(|()| cache).map_err(|e| e.to_string())) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            log::warn!("compiled modules are not kept in {}: {error}", dir.display());
            None
        }
    }
}

/// Fills in what a job does not say: `JobDefaults.*`, fitted to the machine.
pub(super) fn job_defaults(settings: &Settings, resolved: &Resolved) -> Box<dyn Fn(&mut JobSpec)> {
    let (defaults, resolved) = (settings.job_defaults.clone(), resolved.clone());
    Box::new(move |job| {
        let own = defaults.of(job.job_type);
        if job.priority == 0 {
            job.priority = own.priority;
        }
        let ends = job.job_type.runs_to_completion();
        let task = &mut job.task;
        // What runs for ever has neither a result nor a limit unless it says so.
        if !ends {
            task.resources = filled(&task.resources, resolved.defaults(job.job_type));
            return;
        }
        if task.publisher.as_ref().is_none_or(|p| p.kind.trim().is_empty()) {
            task.publisher =
                own.publisher.clone().map(|kind| SpecConfig { kind, params: serde_json::Map::new() });
        }
        if task.timeouts.execution.is_zero() && task.timeouts.total.is_zero() {
            task.timeouts.execution = own.execution_timeout;
            task.timeouts.total = own.total_timeout;
        }
        task.resources = filled(&task.resources, resolved.defaults(job.job_type));
    })
}

/// A request with every amount given.
fn filled(asked: &ResourceRequest, defaults: &Resources) -> ResourceRequest {
    let all = asked.or(defaults);
    ResourceRequest { cpu: Some(all.cpu), memory: Some(all.memory), disk: Some(all.disk), gpu: Some(all.gpu) }
}
