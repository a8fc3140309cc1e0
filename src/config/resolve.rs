//! Parts of the machine become amounts, and what exceeds it is cut to it: said, but never a reason not to start.

use super::settings::{Settings, TypeDefaults};
use crate::model::{Bytes, JobType, MilliCpu, Resources};
use crate::sys::{Machine, Space};

/// What the settings mean on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What all executions together may use.
    pub capacity: Resources,
    /// Most that one execution may ask for; at most the capacity.
    pub job_max: Resources,
    /// What an execution gets that asks for nothing and comes without defaults of its orchestrator's.
    pub fallback: Resources,
    /// What a batch job's task gets where it asks for nothing.
    pub batch: Resources,
    /// What an ops job's task gets where it asks for nothing.
    pub ops: Resources,
    /// Most that results, scratch and cache may occupy together.
    pub quota: Bytes,
    /// What the file system keeps free.
    pub min_free: Bytes,
    /// Most that kept results occupy; the greatest number if the quota alone counts.
    pub max_size: Bytes,
    /// What was cut, one line each.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// What a task of a job of that type gets where it asks for nothing.
    #[must_use]
    pub const fn defaults(&self, job_type: JobType) -> &Resources {
        match job_type {
            JobType::Batch | JobType::Service => &self.batch,
            JobType::Ops | JobType::Daemon => &self.ops,
        }
    }
}

/// What is kept free if nobody says: so much, but at most [`MIN_FREE_PERCENT`] of a small file system.
const MIN_FREE: Bytes = Bytes::mib(256);
const MIN_FREE_PERCENT: f64 = 5.0;

/// However much is to be kept free, the rest is for the node.
const MOST_FREE_PERCENT: f64 = 90.0;

/// What an execution gets that nobody gave anything.
const FALLBACK_CPU: MilliCpu = MilliCpu(100);
const FALLBACK_MEMORY: Bytes = Bytes::mib(64);

/// Fits the settings to a machine, and to the file system that holds the results.
#[must_use]
pub fn resolve(settings: &Settings, machine: &Machine, space: Space) -> Resolved {
    let mut warnings = Vec::new();
    let min_free = min_free(settings, space.total, &mut warnings);
    let room = space.total.minus(min_free);
    let quota = settings.results.quota.of(space.total);
    let quota =
        cut("Results.Quota", quota, room, "what the file system has besides Results.MinFree", &mut warnings);
    let max_size = settings.results.max_size.map_or(Bytes(u64::MAX), |scale| {
        cut("Results.MaxSize", scale.of(space.total), quota, "Results.Quota", &mut warnings)
    });
    let compute = &settings.compute;
    let machine_has = "what this machine has";
    let capacity = Resources {
        cpu: cut(
            "Compute.AllocatedCapacity.CPU",
            compute.cpu.of(machine.cpu),
            machine.cpu,
            machine_has,
            &mut warnings,
        ),
        memory: cut(
            "Compute.AllocatedCapacity.Memory",
            compute.memory.of(machine.memory),
            machine.memory,
            machine_has,
            &mut warnings,
        ),
        disk: cut(
            "Compute.AllocatedCapacity.Disk",
            compute.disk.of(quota),
            quota,
            "Results.Quota",
            &mut warnings,
        ),
        gpu: cut(
            "Compute.AllocatedCapacity.GPU",
            compute.gpu.of(machine.gpus),
            machine.gpus,
            machine_has,
            &mut warnings,
        ),
    };
    let unlimited =
        Resources { cpu: MilliCpu(u64::MAX), memory: Bytes(u64::MAX), disk: Bytes(u64::MAX), gpu: u32::MAX };
    let asked = &compute.job_max;
    let job_max = Resources {
        cpu: asked.cpu.unwrap_or(unlimited.cpu).min(capacity.cpu),
        memory: asked.memory.unwrap_or(unlimited.memory).min(capacity.memory),
        disk: asked.disk.unwrap_or(unlimited.disk).min(capacity.disk),
        gpu: asked.gpu.unwrap_or(unlimited.gpu).min(capacity.gpu),
    };
    let plain = Resources { cpu: FALLBACK_CPU, memory: FALLBACK_MEMORY, disk: compute.job_disk, gpu: 0 };
    let fallback = Resources {
        disk: cut("Compute.JobDisk", plain.disk, job_max.disk, JOB_MAX, &mut warnings),
        ..fit(&plain, &job_max)
    };
    let mut defaults = |group: &str, defaults: &TypeDefaults| {
        let whole = defaults.resources.or(&Resources { disk: fallback.disk, ..plain });
        cut_all(group, &whole, &job_max, &mut warnings)
    };
    let batch = defaults("JobDefaults.Batch.Task.Resources", &settings.job_defaults.batch);
    let ops = defaults("JobDefaults.Ops.Task.Resources", &settings.job_defaults.ops);
    Resolved { capacity, job_max, fallback, batch, ops, quota, min_free, max_size, warnings }
}

const JOB_MAX: &str = "what one execution may have here";

fn min_free(settings: &Settings, total: Bytes, warnings: &mut Vec<String>) -> Bytes {
    let most = total.percent(MOST_FREE_PERCENT);
    match settings.results.min_free {
        None => MIN_FREE.min(total.percent(MIN_FREE_PERCENT)),
        Some(scale) => cut(
            "Results.MinFree",
            scale.of(total),
            most,
            "what can be kept free of the file system",
            warnings,
        ),
    }
}

/// The smaller of two amounts; that the setting was not it is worth a line.
fn cut<T: Ord + Copy + std::fmt::Display>(
    key: &str,
    asked: T,
    most: T,
    why: &str,
    warnings: &mut Vec<String>,
) -> T {
    if asked > most {
        warnings.push(format!("{key}: {asked} is more than {why}; {most} it is"));
        return most;
    }
    asked
}

fn fit(asked: &Resources, most: &Resources) -> Resources {
    Resources {
        cpu: asked.cpu.min(most.cpu),
        memory: asked.memory.min(most.memory),
        disk: asked.disk.min(most.disk),
        gpu: asked.gpu.min(most.gpu),
    }
}

fn cut_all(group: &str, asked: &Resources, most: &Resources, warnings: &mut Vec<String>) -> Resources {
    Resources {
        cpu: cut(&format!("{group}.CPU"), asked.cpu, most.cpu, JOB_MAX, warnings),
        memory: cut(&format!("{group}.Memory"), asked.memory, most.memory, JOB_MAX, warnings),
        disk: cut(&format!("{group}.Disk"), asked.disk, most.disk, JOB_MAX, warnings),
        gpu: cut(&format!("{group}.GPU"), asked.gpu, most.gpu, JOB_MAX, warnings),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{CliOverrides, FakeEnv, load};

    fn settings(given: &[&str]) -> Settings {
        let mut cli = CliOverrides::default();
        for setting in given {
            cli.add(setting);
        }
        load(&cli, &FakeEnv::of(&[("HOME", "/nonexistent")])).unwrap().settings
    }

    fn board(memory: Bytes) -> Machine {
        Machine { cpu: MilliCpu(4000), memory, gpus: 0, ..Machine::default() }
    }

    fn disk(total: Bytes) -> Space {
        Space { total, free: total }
    }

    #[test]
    fn defaults_fit_a_board_of_512_mb_without_a_word() {
        let r = resolve(&settings(&[]), &board(Bytes::mib(427)), disk(Bytes::gib(14)));
        assert_eq!(r.warnings, Vec::<String>::new());
        assert_eq!((r.quota, r.min_free), (Bytes::gib(7), Bytes::mib(256)));
        assert_eq!(r.capacity.cpu, MilliCpu(3200));
        assert_eq!(r.capacity.memory, Bytes::mib(427).percent(80.0));
        assert_eq!(r.capacity.disk, Bytes::gib(7).percent(80.0));
        assert_eq!(
            r.batch,
            Resources { cpu: MilliCpu(100), memory: Bytes::mib(64), disk: Bytes::mib(64), gpu: 0 }
        );
        assert_eq!((r.batch, r.ops), (r.fallback, *r.defaults(JobType::Ops)));
        assert_eq!(r.job_max, r.capacity);
    }

    #[test]
    fn a_small_file_system_keeps_a_small_part_free() {
        let r = resolve(&settings(&[]), &board(Bytes::mib(427)), disk(Bytes::mib(100)));
        assert_eq!((r.quota, r.min_free), (Bytes::mib(50), Bytes::mib(5)));
        assert_eq!(r.fallback.disk, Bytes::mib(40));
        assert!(r.warnings.iter().any(|w| w.starts_with("Compute.JobDisk: 64.0 MiB is more than")), "{r:?}");
    }

    #[test]
    fn what_exceeds_the_machine_is_cut_to_it() {
        let given = settings(&[
            "Compute.AllocatedCapacity.Memory=8Gi",
            "Compute.AllocatedCapacity.CPU=64",
            "Compute.AllocatedCapacity.GPU=1",
            "Compute.AllocatedCapacity.Disk=1Ti",
            "Compute.JobCapacity.Memory=2Gi",
            "JobDefaults.Batch.Task.Resources.Memory=1Gb",
            "JobDefaults.Ops.Task.Resources.Memory=10Mi",
            "Results.Quota=100%",
            "Results.MinFree=1Ti",
        ]);
        let r = resolve(&given, &board(Bytes::mib(512)), disk(Bytes::gib(10)));
        assert_eq!(r.min_free, Bytes::gib(10).percent(90.0));
        assert_eq!(r.quota, Bytes::gib(10).minus(r.min_free));
        assert_eq!(
            r.capacity,
            Resources { cpu: MilliCpu(4000), memory: Bytes::mib(512), disk: r.quota, gpu: 0 }
        );
        assert_eq!(r.job_max.memory, Bytes::mib(512));
        assert_eq!((r.batch.memory, r.ops.memory), (Bytes::mib(512), Bytes::mib(10)));
        for key in [
            "Results.MinFree",
            "Results.Quota",
            "Compute.AllocatedCapacity.Memory",
            "Compute.AllocatedCapacity.CPU",
            "Compute.AllocatedCapacity.GPU",
            "Compute.AllocatedCapacity.Disk",
            "JobDefaults.Batch.Task.Resources.Memory",
        ] {
            assert!(r.warnings.iter().any(|w| w.starts_with(&format!("{key}: "))), "{key}: {:?}", r.warnings);
        }
    }

    #[test]
    fn a_limit_for_each_job_binds_its_defaults() {
        let given = settings(&["Compute.JobCapacity.CPU=50m", "Compute.JobCapacity.Disk=10Mi"]);
        let r = resolve(&given, &board(Bytes::mib(512)), disk(Bytes::gib(10)));
        assert_eq!((r.batch.cpu, r.batch.disk), (MilliCpu(50), Bytes::mib(10)));
        assert_eq!(r.job_max.memory, r.capacity.memory);
    }

    proptest! {
        #[test]
        fn nothing_ever_exceeds_what_there_is(
            quota in 0.1f64..=100.0, free in 0.0f64..=100.0, disk_part in 0.0f64..=100.0,
            total in 0u64..1 << 50, memory in 0u64..1 << 45, job in 0u64..1 << 45,
        ) {
            let given = settings(&[
                &format!("Results.Quota={quota}%"),
                &format!("Results.MinFree={free}%"),
                &format!("Compute.AllocatedCapacity.Disk={disk_part}%"),
                &format!("JobDefaults.Batch.Task.Resources.Memory={job}"),
            ]);
            let machine = board(Bytes(memory));
            let r = resolve(&given, &machine, disk(Bytes(total)));
            prop_assert!(r.quota.plus(r.min_free) <= Bytes(total));
            prop_assert!(r.capacity.disk <= r.quota && r.capacity.memory <= machine.memory);
            prop_assert!(r.job_max.fits(&r.capacity));
            prop_assert!(r.batch.fits(&r.job_max) && r.ops.fits(&r.job_max) && r.fallback.fits(&r.job_max));
        }
    }
}
