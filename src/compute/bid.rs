//! Whether this node would run a job: a pure decision, with the reason if not.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::job::NetworkKind;
use crate::model::{Failure, FailureCode, JobSpec, JobType, Resources};

/// What this node offers.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Engines that can run here, in lower case.
    pub engines: Vec<String>,
    /// Publishers, in lower case.
    pub publishers: Vec<String>,
    /// Kinds of input source, in lower case.
    pub sources: Vec<String>,
    /// Labels that constraints are compared with.
    pub labels: BTreeMap<String, String>,
    /// All that executions may use together.
    pub capacity: Resources,
    /// What one execution may use at most.
    pub per_job: Resources,
    /// What an execution gets of a resource that its job does not name.
    pub defaults: Resources,
    /// Longest execution timeout taken; zero is no limit.
    pub timeout_max: Duration,
    /// Refuse jobs that ask for a network.
    pub reject_networked: bool,
    /// Refuse jobs without inputs.
    pub reject_stateless: bool,
}

impl Offer {
    /// The resources to reserve for `job`, if this node would run it.
    ///
    /// # Errors
    /// Why not, and what to change.
    pub fn decide(&self, job: &JobSpec) -> Result<Resources, Failure> {
        let task = &job.task;
        listed("engine", &task.engine.kind, &self.engines)?;
        if let Some(publisher) =
            task.publisher.as_ref().filter(|p| !p.is("noop") && !p.kind.trim().is_empty())
        {
            listed("publisher", &publisher.kind, &self.publishers)?;
        }
        for input in &task.inputs {
            listed("input source", &input.source.0.kind, &self.sources)?;
        }
        if let Some(unmet) = job.constraints.iter().find(|c| !c.matches(&self.labels)) {
            let condition = format!("{} {} {}", unmet.key, unmet.operator, unmet.values.join(","));
            return Err(unsupported(
                format!("this node's labels do not satisfy '{}'", condition.trim_end()),
                "see the labels with `codling node`",
            ));
        }
        self.policy(job)?;
        let needs = task.resources.or(&self.defaults);
        for (room, what) in [(&self.per_job, "one execution may use"), (&self.capacity, "this node has")] {
            if let Some((name, asked, there)) = needs.excess(room) {
                return Err(unsupported(
                    format!("the job asks for {asked} of {name}, {what} {there}"),
                    format!("ask for less {name} in Tasks[0].Resources, or raise the node's limit"),
                ));
            }
        }
        Ok(needs)
    }

    fn policy(&self, job: &JobSpec) -> Result<(), Failure> {
        let task = &job.task;
        let networked = !matches!(task.network.kind, None | Some(NetworkKind::None | NetworkKind::Default));
        if networked && self.reject_networked {
            return Err(unsupported(
                "this node does not run jobs that ask for a network".into(),
                "leave Network out, or set JobAdmissionControl.RejectNetworkedJobs to false",
            ));
        }
        if task.inputs.is_empty() && self.reject_stateless {
            return Err(unsupported(
                "this node does not run jobs without inputs".into(),
                "add InputSources, or set JobAdmissionControl.RejectStatelessJobs to false",
            ));
        }
        let limit = execution_timeout(job);
        if !self.timeout_max.is_zero() && limit > self.timeout_max {
            return Err(unsupported(
                format!("an execution timeout of {} s is longer than this node takes", limit.as_secs()),
                "ask for a shorter ExecutionTimeout",
            ));
        }
        Ok(())
    }
}

/// How long one execution may take: its own limit, else the total one; zero is none (job-spec.md section 9).
#[must_use]
pub fn execution_timeout(job: &JobSpec) -> Duration {
    let timeouts = &job.task.timeouts;
    if matches!(job.job_type, JobType::Service | JobType::Daemon) {
        Duration::ZERO
    } else if timeouts.execution.is_zero() {
        timeouts.total
    } else {
        timeouts.execution
    }
}

fn unsupported(message: String, hint: impl Into<String>) -> Failure {
    Failure::new(FailureCode::Unsupported, message).hint(hint)
}

fn listed(what: &str, kind: &str, have: &[String]) -> Result<(), Failure> {
    let wanted = kind.trim().to_ascii_lowercase();
    if have.contains(&wanted) {
        return Ok(());
    }
    let there = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
    let shown: String = kind.chars().take(64).collect();
    Err(unsupported(format!("{what} '{shown}' is not available on this node"), format!("available: {there}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Constraint, MilliCpu, ResourceRequest, SpecConfig, Task};

    fn job() -> JobSpec {
        JobSpec {
            name: String::new(),
            namespace: "default".into(),
            job_type: JobType::Batch,
            priority: 0,
            count: 1,
            constraints: Vec::new(),
            meta: BTreeMap::new(),
            labels: BTreeMap::new(),
            task: Task {
                name: "main".into(),
                engine: SpecConfig { kind: "WASM".into(), params: serde_json::Map::new() },
                publisher: None,
                env: BTreeMap::new(),
                meta: BTreeMap::new(),
                inputs: Vec::new(),
                result_paths: Vec::new(),
                resources: ResourceRequest::default(),
                network: crate::model::Network::default(),
                timeouts: crate::model::Timeouts::default(),
            },
        }
    }

    fn offer() -> Offer {
        let all = Resources { cpu: MilliCpu(2000), memory: Bytes::mib(256), disk: Bytes::gib(1), gpu: 0 };
        Offer {
            engines: vec!["wasm".into()],
            publishers: vec!["local".into()],
            sources: vec!["inline".into()],
            capacity: all,
            per_job: all,
            defaults: Resources { cpu: MilliCpu(100), memory: Bytes::mib(64), disk: Bytes::mib(64), gpu: 0 },
            ..Offer::default()
        }
    }

    #[test]
    fn says_yes_with_what_to_reserve() {
        assert_eq!(offer().decide(&job()).unwrap(), offer().defaults);
        // What runs for ever is not measured by the limit of what ends.
        let limited = Offer { timeout_max: Duration::from_secs(1), ..offer() };
        for job_type in [JobType::Service, JobType::Daemon] {
            let mut job = JobSpec { job_type, ..job() };
            job.task.timeouts.total = Duration::from_secs(100);
            assert_eq!(limited.decide(&job).unwrap(), offer().defaults);
        }
    }

    #[test]
    fn each_no_names_its_reason() {
        let mut cases: Vec<(JobSpec, &str)> = Vec::new();
        let mut with = |change: &dyn Fn(&mut JobSpec), reason| {
            let mut job = job();
            change(&mut job);
            cases.push((job, reason));
        };
        with(&|j| j.task.engine.kind = "docker".into(), "engine 'docker'");
        with(
            &|j| j.task.publisher = Some(SpecConfig { kind: "s3".into(), params: serde_json::Map::new() }),
            "publisher 's3'",
        );
        with(&|j| j.task.resources.memory = Some(Bytes::gib(1)), "1.0 GiB of memory");
        with(&|j| j.task.resources.gpu = Some(1), "of GPU");
        with(
            &|j| {
                j.constraints.push(Constraint {
                    key: "zone".into(),
                    operator: "=".into(),
                    values: vec!["a".into()],
                });
            },
            "'zone = a'",
        );
        with(&|j| j.task.network.kind = Some(NetworkKind::Full), "network");
        with(&|j| j.task.timeouts.total = Duration::from_secs(100), "100 s");
        let strict = Offer { reject_networked: true, timeout_max: Duration::from_secs(10), ..offer() };
        for (job, reason) in cases {
            let failure = strict.decide(&job).unwrap_err();
            assert_eq!(failure.code, FailureCode::Unsupported);
            assert!(failure.message.contains(reason), "{failure} should name {reason}");
            assert!(!failure.hint.is_empty());
        }
        let stateless = Offer { reject_stateless: true, ..offer() };
        assert!(stateless.decide(&job()).unwrap_err().message.contains("without inputs"));
    }
}
