//! The machine: what it has, and what the group of processes that it runs this one in may use of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::device_tree::DeviceTree;
use crate::model::{Bytes, MilliCpu};

/// What the program runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPU that this process may use: of the cores that it may run on, what its control groups leave.
    pub cpu: MilliCpu,
    /// Memory that this process may use: what its control groups leave of the machine's.
    pub memory: Bytes,
    /// GPUs that jobs can be given: none, since no engine here uses one.
    pub gpus: u32,
    /// Its name in the network.
    pub hostname: String,
    /// Architecture as Go spells it: `arm64`, `arm`, `amd64`.
    pub arch: &'static str,
    /// Operating system as Go spells it: `linux`.
    pub os: &'static str,
    /// What its firmware says of the board.
    pub tree: DeviceTree,
}

/// Memory of a machine that does not say: no bound.
const UNKNOWN: Bytes = Bytes(u64::MAX);

/// Largest file of the kernel's that is read here.
const MAX_FILE: u64 = 64 * 1024;

impl Machine {
    /// This one.
    #[must_use]
    pub fn detect() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = affinity().unwrap_or(cores);
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut machine = Self::at(Path::new("/"), u64::try_from(cores).unwrap_or(1));
        if machine.memory == UNKNOWN {
            // Without /proc the kernel still answers.
            let info = rustix::system::sysinfo();
            // The kernel's long has 32 bits on 32-bit boards; this holds either.
            let total = u128::from(info.totalram) * u128::from(info.mem_unit);
            machine.memory = u64::try_from(total).map_or(UNKNOWN, Bytes);
        }
        Self { hostname, ..machine }
    }

    /// The same with another device tree, if there is one.
    #[must_use]
    pub fn with_tree(self, tree: Option<DeviceTree>) -> Self {
        Self { tree: tree.unwrap_or(self.tree), ..self }
    }

    /// The one whose files are below `root`, and on whose `cores` this process may run.
    #[must_use]
    pub fn at(root: &Path, cores: u64) -> Self {
        let total = meminfo(root).unwrap_or(UNKNOWN);
        let limits = Limits::of(root);
        let cores = MilliCpu(cores.saturating_mul(1000));
        Self {
            cpu: limits.cpu.map_or(cores, |limit| limit.min(cores)),
            memory: limits.memory.map_or(total, |limit| limit.min(total)),
            gpus: 0,
            hostname: text(&root.join("proc/sys/kernel/hostname")).unwrap_or_default(),
            arch: go_arch(std::env::consts::ARCH),
            os: go_os(std::env::consts::OS),
            tree: DeviceTree::beneath(root),
        }
    }
}

/// Number of cores on which this process may run.
fn affinity() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    usize::try_from(set.count()).ok().filter(|n| *n > 0)
}

/// Rust's name of an architecture in Go's words, which are those of job constraints.
#[must_use]
pub fn go_arch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Rust's name of an operating system in Go's words.
#[must_use]
pub fn go_os(os: &'static str) -> &'static str {
    if os == "macos" { "darwin" } else { os }
}

/// A small file without the NUL (of the device tree) or newline at its end; nothing if it is not there or empty.
pub(super) fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches(['\0', '\n', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn meminfo(root: &Path) -> Option<Bytes> {
    let text = text(&root.join("proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

/// What the control groups of this process leave, each of them bounding those below it.
#[derive(Debug, Default)]
struct Limits {
    cpu: Option<MilliCpu>,
    memory: Option<Bytes>,
}

impl Limits {
    fn of(root: &Path) -> Self {
        let mut limits = Self::default();
        let groups = text(&root.join("proc/self/cgroup")).unwrap_or_default();
        let mount = root.join("sys/fs/cgroup");
        // Lines are `id:controllers:path`; the unified hierarchy has id 0 and no controllers.
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if id == "0" && controllers.is_empty() {
                // With both versions mounted, the second one is aside.
                for mount in [mount.clone(), mount.join("unified")] {
                    limits.unified(&mount, path);
                }
            }
            for controller in controllers.split(',') {
                match controller {
                    "memory" => limits.memory_v1(&mount.join("memory"), path),
                    "cpu" => {
                        // `cpu` is a link to where both are mounted, which a container may lack.
                        for name in ["cpu", "cpu,cpuacct"] {
                            limits.cpu_v1(&mount.join(name), path);
                        }
                    }
                    _ => {}
                }
            }
        }
        limits
    }

    fn unified(&mut self, mount: &Path, group: &str) {
        for dir in upwards(mount, group) {
            // `max` is no number, and no limit.
            if let Some(limit) = text(&dir.join("memory.max")).and_then(|text| text.parse().ok()) {
                self.memory(limit);
            }
            let Some(text) = text(&dir.join("cpu.max")) else { continue };
            if let Some((quota, period)) = text.split_once(' ')
                && let (Ok(quota), Ok(period)) = (quota.parse(), period.trim().parse())
            {
                self.cpu(quota, period);
            }
        }
    }

    fn memory_v1(&mut self, mount: &Path, group: &str) {
        for dir in upwards(mount, group) {
            if let Some(limit) = text(&dir.join("memory.limit_in_bytes")).and_then(|text| text.parse().ok()) {
                self.memory(limit);
            }
        }
    }

    fn cpu_v1(&mut self, mount: &Path, group: &str) {
        for dir in upwards(mount, group) {
            // -1 is no number here, and no limit.
            let number = |name: &str| text(&dir.join(name)).and_then(|text| text.parse::<u64>().ok());
            if let (Some(quota), Some(period)) = (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us")) {
                self.cpu(quota, period);
            }
        }
    }

    fn memory(&mut self, limit: u64) {
        let limit = Bytes(limit);
        self.memory = Some(self.memory.map_or(limit, |known| known.min(limit)));
    }

    fn cpu(&mut self, quota: u64, period: u64) {
        if let Some(share) = quota.saturating_mul(1000).checked_div(period) {
            let limit = MilliCpu(share.max(1));
            self.cpu = Some(self.cpu.map_or(limit, |known| known.min(limit)));
        }
    }
}

/// The group's directory and those above it, as far as the mount. In a container the group's path may be that
/// of the host and not be there; then the mount itself is the container's group.
fn upwards(mount: &Path, group: &str) -> Vec<PathBuf> {
    let plain = !group.split('/').any(|part| part == "..");
    let lowest = if plain { mount.join(group) } else { mount.to_owned() };
    lowest.ancestors().take_while(|dir| dir.starts_with(mount)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes away with the test.
    struct Root(PathBuf);

    impl Root {
        fn of(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                Self(std::env::temp_dir().join(format!("codling-machine-{}-{name}", std::process::id())));
            for (path, text) in files {
                let path = root.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            root
        }

        fn machine(&self) -> Machine {
            Machine::at(&self.0, 4)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:         437252 kB\nMemFree:          100000 kB\n");

    #[test]
    fn a_board_says_what_it_is() {
        let root = Root::of(
            "board",
            &[
                MEMINFO,
                ("proc/sys/kernel/hostname", "edge-1\n"),
                ("proc/device-tree/model", "Raspberry Pi Zero 2 W Rev 1.0\0"),
                ("proc/device-tree/serial-number", "00000000deadbeef\0"),
            ],
        );
        let machine = root.machine();
        assert_eq!((machine.cpu, machine.memory), (MilliCpu(4000), Bytes::kib(437_252)));
        assert_eq!(machine.hostname, "edge-1");
        assert_eq!(machine.tree.model.as_deref(), Some("Raspberry Pi Zero 2 W Rev 1.0"));
        assert_eq!(machine.tree.serial.as_deref(), Some("00000000deadbeef"));
    }

    #[test]
    fn the_narrowest_group_counts() {
        let root = Root::of(
            "v2",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/system.slice/codling.service\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "104857600\n"),
                ("sys/fs/cgroup/system.slice/codling.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/system.slice/codling.service/cpu.max", "50000 100000\n"),
            ],
        );
        assert_eq!((root.machine().cpu, root.machine().memory), (MilliCpu(500), Bytes::mib(100)));
    }

    #[test]
    fn old_groups_and_those_of_a_container_count() {
        let root = Root::of(
            "v1",
            &[
                MEMINFO,
                ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!((root.machine().cpu, root.machine().memory), (MilliCpu(1500), Bytes::mib(128)));
    }

    #[test]
    fn no_limit_and_nonsense_change_nothing() {
        let root = Root::of(
            "odd",
            &[
                MEMINFO,
                ("proc/self/cgroup", "nonsense\n5:cpu:/\n4:memory:/\n0::/../../x\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory.max", "a lot\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n"),
                ("sys/fs/cgroup/cpu.max", "100 0\n"),
            ],
        );
        assert_eq!((root.machine().cpu, root.machine().memory), (MilliCpu(4000), Bytes::kib(437_252)));
        let long = Root::of("long", &[("proc/device-tree/model", &"x".repeat(100_000))]).machine();
        assert_eq!(long.tree.model.map(|model| model.len() as u64), Some(MAX_FILE));
        let nothing = Root::of("none", &[]).machine();
        assert_eq!(nothing.memory, UNKNOWN);
        assert_eq!((nothing.tree.model, nothing.hostname.as_str()), (None, ""));
    }

    #[test]
    fn this_machine_is_one() {
        let machine = Machine::detect();
        assert!(
            machine.cpu >= MilliCpu(1) && machine.memory > Bytes::mib(16) && machine.memory < Bytes(u64::MAX)
        );
        assert!(!machine.hostname.is_empty());
        assert_eq!((go_arch("aarch64"), go_arch("x86_64"), go_arch("arm")), ("arm64", "amd64", "arm"));
        assert_eq!((machine.os, go_os("macos")), ("linux", "darwin"));
    }
}
