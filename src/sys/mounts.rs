//! What a directory lies on: the file system, how it is mounted, and the kind of disk under it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::machine::text;

/// Where a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Type of the file system: `ext4`, `overlay`.
    pub file_system: String,
    /// Whether it is mounted for reading only.
    pub read_only: bool,
    /// What is under it.
    pub medium: Medium,
}

/// What keeps the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// Memory: nothing is left after a restart.
    Memory,
    /// A layer over another file system, which as a rule is in memory, or goes with its container.
    Overlay,
    /// An SD card.
    SdCard,
    /// Flash on the board.
    Emmc,
    /// An NVMe disk.
    Nvme,
    /// Another disk, by its name.
    Disk(String),
    /// Another machine.
    Network,
    /// It does not show.
    Unknown,
}

/// Largest table of mounts that is read: that of a host of many containers.
const TABLE_MAX: u64 = 1 << 20;

impl Place {
    /// Where `dir` is on the machine whose files are below `root`; `dir` is absolute, and as that machine sees it.
    #[must_use]
    pub fn of(root: &Path, dir: &Path) -> Option<Self> {
        use std::io::Read;
        let mut table = Vec::new();
        let file = std::fs::File::open(root.join("proc/self/mountinfo")).ok()?;
        file.take(TABLE_MAX).read_to_end(&mut table).ok()?;
        let table = String::from_utf8_lossy(&table);
        let mounts = table.lines().filter_map(Mount::parse);
        // The longest; of those on the same place the last, which hides the others.
        let mount = mounts
            .filter(|mount| dir.starts_with(&mount.at))
            .max_by_key(|mount| mount.at.components().count())?;
        Some(Self { medium: mount.medium(root), read_only: mount.read_only, file_system: mount.kind })
    }
}

/// One line of `mountinfo`.
#[derive(Debug)]
struct Mount {
    device: String,
    at: PathBuf,
    read_only: bool,
    kind: String,
    source: String,
}

impl Mount {
    /// `id parent major:minor root at options [tags...] - type source super-options`
    fn parse(line: &str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let (device, at, options) = (front.next()?, front.nth(1)?, front.next()?);
        let mut back = back.split(' ');
        let (kind, source, of_all) = (back.next()?, back.next()?, back.next().unwrap_or(""));
        let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Self {
            device: device.to_owned(),
            at: unescape(at),
            read_only: is_ro(options) || is_ro(of_all),
            kind: kind.to_owned(),
            source: source.to_owned(),
        })
    }

    fn medium(&self, root: &Path) -> Medium {
        match self.kind.as_str() {
            "tmpfs" | "ramfs" | "rootfs" => return Medium::Memory,
            "overlay" | "aufs" => return Medium::Overlay,
            "nfs" | "nfs4" | "cifs" | "9p" | "virtiofs" => return Medium::Network,
            _ => {}
        }
        // `/dev/root` is what a kernel calls its root if nothing gave it a name.
        let by_number = || {
            let event = text(&root.join("sys/dev/block").join(&self.device).join("uevent"))?;
            event.lines().find_map(|line| Some(line.strip_prefix("DEVNAME=")?.to_owned()))
        };
        let by_source = || Some(self.source.strip_prefix("/dev/").filter(|name| *name != "root")?.to_owned());
        let Some(name) = by_source().or_else(by_number) else { return Medium::Unknown };
        if let Some(rest) = name.strip_prefix("mmcblk") {
            let disk = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let kind = text(&root.join(format!("sys/block/mmcblk{disk}/device/type")));
            return if kind.as_deref() == Some("MMC") { Medium::Emmc } else { Medium::SdCard };
        }
        if name.starts_with("nvme") {
            return Medium::Nvme;
        }
        Medium::Disk(name)
    }
}

/// Blanks and backslashes are written as `\040`.
fn unescape(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::root;

    fn of(dir: &str, mounts: &str, more: &[(&str, &str)]) -> (String, bool, Medium) {
        let mut files = vec![("proc/self/mountinfo", mounts)];
        files.extend(more);
        let place = Place::of(root(&files).path(), Path::new(dir)).unwrap();
        (place.file_system, place.read_only, place.medium)
    }

    const CARD: &str = "21 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
                        22 21 0:20 / /var/lib/my\\040data rw - tmpfs tmpfs rw,size=1024k\n\
                        23 21 8:1 / /mnt rw - ext4 /dev/sda1 ro,errors=remount-ro\n\
                        24 21 259:2 / /mnt ro - ext4 /dev/nvme0n1p2 rw\n\
                        25 21 0:40 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/u\n\
                        26 21 8:1 / /usb rw - ext4 /dev/sda1 rw\n";

    #[test]
    fn the_mount_nearest_to_a_directory_counts_and_the_last_of_several() {
        let name = [("sys/dev/block/179:2/uevent", "MAJOR=179\nMINOR=2\nDEVNAME=mmcblk0p2\n")];
        assert_eq!(of("/var/lib/codling", CARD, &name), ("ext4".into(), false, Medium::SdCard));
        let emmc = [name[0], ("sys/block/mmcblk0/device/type", "MMC\n")];
        assert_eq!(of("/var/lib/codling", CARD, &emmc).2, Medium::Emmc);
        assert_eq!(of("/var/lib/codling", CARD, &[]).2, Medium::Unknown);
        assert_eq!(of("/var/lib/my data/x", CARD, &[]), ("tmpfs".into(), false, Medium::Memory));
        assert_eq!(of("/mnt/x", CARD, &[]), ("ext4".into(), true, Medium::Nvme));
        assert_eq!(of("/o", CARD, &[]).2, Medium::Overlay);
        assert_eq!(of("/usb", CARD, &[]).2, Medium::Disk("sda1".into()));
        assert_eq!(of("/usbx", CARD, &name).2, Medium::SdCard, "names count whole");
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let odd = "nonsense\n1 2 3 - x\n - \n21 1 8:2 / / rw - ext4 /dev/sda2\n\u{e9}\\04 - - -\n";
        assert_eq!(of("/", odd, &[]).2, Medium::Disk("sda2".into()));
        assert_eq!(unescape("/a\\040b\\134\\9\\"), Path::new("/a b\\\\9\\"));
        assert_eq!(Place::of(root(&[]).path(), Path::new("/")), None);
        assert!(
            Place::of(Path::new("/"), Path::new("/proc")).is_some_and(|place| place.file_system == "proc")
        );
    }
}
