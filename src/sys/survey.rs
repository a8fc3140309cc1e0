//! What the kernel and the system's files say of a machine, this one's or that of another root: read only, at once.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::text;

/// Facts of a machine that a node's start does not need, but whoever sets one up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// First line of `/etc/nv_tegra_release`, which only Jetsons have: release and revision of L4T.
    pub l4t: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// The kernel's architecture in its own word: `aarch64`, `armv7l`, `x86_64`.
    pub arch: Option<String>,
    /// Whether the system has a dynamic loader for programs of 64 bits, and for those of 32.
    pub loaders: Loaders,
    /// The kernel's command line.
    pub command_line: String,
    /// Whether the kernel counts memory for control groups.
    pub memory_groups: MemoryGroups,
    /// Where the command line for the next start is written.
    pub boot: Option<BootFile>,
    /// Whether there is a clock that goes on without power.
    pub has_rtc: bool,
    /// The firmware's word on voltage and temperature, bit by bit (`vcgencmd get_throttled`).
    pub throttled: Option<u32>,
}

/// For which programs there is a dynamic loader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaders {
    /// 64 bits.
    pub wide: bool,
    /// 32 bits.
    pub narrow: bool,
}

/// Whether control groups can bound memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemoryGroups {
    /// They can.
    On,
    /// The kernel knows how to, and does not.
    Off,
    /// The kernel does not know how to.
    Absent,
    /// The system does not say.
    #[default]
    Unknown,
}

/// A file with the kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Its path, as the machine itself sees it.
    pub path: PathBuf,
    /// Which kind it is.
    pub kind: BootKind,
    /// What it holds.
    pub text: String,
}

/// How a command line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// One line (Raspberry Pi).
    Line,
    /// `APPEND` lines (Jetson).
    Extlinux,
    /// A variable in `/etc/default/grub`.
    Grub,
}

/// In the order in which they are looked for.
const BOOT_FILES: [(&str, BootKind); 4] = [
    ("boot/firmware/cmdline.txt", BootKind::Line),
    ("boot/cmdline.txt", BootKind::Line),
    ("boot/extlinux/extlinux.conf", BootKind::Extlinux),
    ("etc/default/grub", BootKind::Grub),
];

const WIDE: [&str; 4] = [
    "lib/ld-linux-aarch64.so.1",
    "lib/ld-musl-aarch64.so.1",
    "lib64/ld-linux-x86-64.so.2",
    "lib/ld-musl-x86_64.so.1",
];
const NARROW: [&str; 4] =
    ["lib/ld-linux-armhf.so.3", "lib/ld-musl-armhf.so.1", "lib/ld-linux.so.3", "lib/ld-linux.so.2"];

/// The firmware's word, in the kernels of Raspberry Pi.
const THROTTLED: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

/// Sensors that are looked at for the one of the supply voltage.
const SENSORS: usize = 16;

impl Survey {
    /// The machine whose files are below `root`.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let there = |names: &[&str]| names.iter().any(|name| root.join(name).symlink_metadata().is_ok());
        let release = text(&root.join("etc/nv_tegra_release"));
        Self {
            l4t: release.and_then(|text| text.lines().next().map(str::to_owned)),
            kernel: text(&root.join("proc/sys/kernel/osrelease")),
            arch: arch(root),
            loaders: Loaders { wide: there(&WIDE), narrow: there(&NARROW) },
            command_line: text(&root.join("proc/cmdline")).unwrap_or_default(),
            memory_groups: memory_groups(root),
            boot: BOOT_FILES.iter().find_map(|(name, kind)| {
                let text = text(&root.join(name))?;
                Some(BootFile { path: Path::new("/").join(name), kind: *kind, text })
            }),
            has_rtc: there(&["sys/class/rtc/rtc0"]),
            throttled: throttled(root),
        }
    }
}

/// From the kernel's file where there is one (6.1 and later), else from the running kernel if it is this machine's.
fn arch(root: &Path) -> Option<String> {
    let told = || rustix::system::uname().machine().to_string_lossy().into_owned();
    text(&root.join("proc/sys/kernel/arch")).or_else(|| (root == Path::new("/")).then(told))
}

fn memory_groups(root: &Path) -> MemoryGroups {
    let unified = text(&root.join("sys/fs/cgroup/cgroup.controllers"));
    if unified.as_ref().is_some_and(|all| all.split_whitespace().any(|word| word == "memory")) {
        return MemoryGroups::On;
    }
    let Some(table) = text(&root.join("proc/cgroups")) else {
        return if unified.is_some() { MemoryGroups::Off } else { MemoryGroups::Unknown };
    };
    let line = table.lines().find_map(|line| line.strip_prefix("memory")?.split_whitespace().next_back());
    match line {
        // Counted in the first version, if not in the second.
        Some("1") if unified.is_none() => MemoryGroups::On,
        Some(_) => MemoryGroups::Off,
        None => MemoryGroups::Absent,
    }
}

fn throttled(root: &Path) -> Option<u32> {
    if let Some(word) = text(&root.join(THROTTLED)) {
        return u32::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
    }
    // Other kernels know of the voltage alone, as a sensor.
    for n in 0..SENSORS {
        let sensor = root.join(format!("sys/class/hwmon/hwmon{n}"));
        if text(&sensor.join("name")).as_deref() == Some("rpi_volt") {
            let alarm = text(&sensor.join("in0_lcrit_alarm"))?;
            return Some(u32::from(alarm.trim() == "1"));
        }
    }
    None
}

/// What can be known of who listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners(Vec<(std::net::IpAddr, u16)>);

/// Largest table of sockets that is read.
const TABLE_MAX: u64 = 1 << 20;

impl Listeners {
    /// The TCP sockets that listen on the machine whose files are below `root`.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let tables = ["proc/self/net/tcp", "proc/self/net/tcp6"].map(|name| table(&root.join(name)));
        Self(tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listener).collect())
    }

    /// Whether a socket is in the way of one that is to listen there.
    #[must_use]
    pub fn holds(&self, ip: std::net::IpAddr, port: u16) -> bool {
        self.0.iter().any(|(other, taken)| {
            *taken == port && (*other == ip || other.is_unspecified() || ip.is_unspecified())
        })
    }
}

fn table(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // Without IPv6 there is no such table.
    let _ = fs::File::open(path).and_then(|file| file.take(TABLE_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `sl local_address rem_address st ...`; addresses are words of 32 bits in the machine's own order.
fn listener(line: &str) -> Option<(std::net::IpAddr, u16)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != LISTEN || !ip.is_ascii() {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    for (word, own) in ip.as_bytes().chunks(8).zip(bytes.chunks_mut(4)) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        let word = if cfg!(target_endian = "little") { word.swap_bytes() } else { word };
        own.copy_from_slice(&word.to_be_bytes());
    }
    let ip = match ip.len() {
        8 => std::net::IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        32 => std::net::IpAddr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some((ip, port))
}

/// Whether some process holds a lock of the whole file (`flock`); nothing is locked to find out.
#[must_use]
pub fn is_locked(root: &Path, file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(inode) = file.metadata().map(|meta| meta.ino()) else { return false };
    table(&root.join("proc/locks")).lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        // `N: FLOCK ADVISORY WRITE pid major:minor:inode 0 EOF`
        fields.next() == Some("FLOCK")
            && fields
                .nth(3)
                .and_then(|place| place.rsplit(':').next()?.parse::<u64>().ok())
                .is_some_and(|locked| locked == inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::root;

    #[test]
    fn memory_is_counted_in_either_version_or_not_at_all() {
        let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
        let table = |enabled: &str| format!("{head}cpu\t0\t1\t1\nmemory\t0\t1\t{enabled}\n");
        let (on, off) = (table("1"), table("0"));
        let unified = "sys/fs/cgroup/cgroup.controllers";
        for (files, wanted) in [
            (&[(unified, "cpu io memory pids\n")][..], MemoryGroups::On),
            (&[(unified, "cpu io pids\n"), ("proc/cgroups", &off)], MemoryGroups::Off),
            (&[("proc/cgroups", &on)], MemoryGroups::On),
            (&[("proc/cgroups", &off)], MemoryGroups::Off),
            (&[("proc/cgroups", head)], MemoryGroups::Absent),
            (&[], MemoryGroups::Unknown),
        ] {
            assert_eq!(Survey::of(root(files).path()).memory_groups, wanted, "{files:?}");
        }
    }

    #[test]
    fn voltage_is_told_by_the_firmware_or_by_a_sensor() {
        assert_eq!(Survey::of(root(&[(THROTTLED, "50005\n")]).path()).throttled, Some(0x50005));
        let sensor = [
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
        ];
        assert_eq!(Survey::of(root(&sensor).path()).throttled, Some(1));
        assert_eq!(Survey::of(root(&[]).path()), Survey::default());
    }

    #[test]
    fn listening_sockets_are_seen_on_this_machine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let all = std::net::IpAddr::from([0, 0, 0, 0]);
        let seen = Listeners::of(Path::new("/"));
        assert!(seen.holds(address.ip(), address.port()) && seen.holds(all, address.port()));
        assert!(!seen.holds([127, 0, 0, 9].into(), address.port()));
        let six = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
        drop(listener);
        assert!(!Listeners::of(Path::new("/")).holds(six.ip(), six.port()), "it is gone");
    }

    #[test]
    fn tables_of_sockets_may_hold_anything() {
        let lines = "head\n 0: 0100007F:04D2 00000000:0000 0A x\n 1: 0100007F:04D3 00000000:0000 01 x\n\
                     2: zz:1 0 0A\n 3: 0100007F:FFFFF 0 0A\n\n 4: \u{e9}\u{e9}\u{e9}\u{e9}:0001 0 0A\n";
        let table = Listeners::of(root(&[("proc/self/net/tcp", lines)]).path());
        let wide = "head\n 0: 00000000000000000000000001000000:04D2 0:0 0A x\n";
        if cfg!(target_endian = "little") {
            assert_eq!(table.0, [([127, 0, 0, 1].into(), 1234)]);
            let table = Listeners::of(root(&[("proc/self/net/tcp6", wide)]).path());
            assert_eq!(table.0, [("::1".parse().unwrap(), 1234)]);
        }
    }

    #[test]
    fn a_lock_is_seen_and_not_taken() {
        let scratch = root(&[("lock", "")]);
        let path = scratch.path().join("lock");
        let file = fs::File::open(&path).unwrap();
        assert!(!is_locked(Path::new("/"), &path));
        file.lock().unwrap();
        assert!(is_locked(Path::new("/"), &path));
        assert!(!is_locked(Path::new("/"), &scratch.path().join("none")));
    }
}
