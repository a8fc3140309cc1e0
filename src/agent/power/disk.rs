//! A disk that keeps a log of all that is done to it, in order: so that what a power cut would have left can be
//! rebuilt for every moment, and that fails at any step if told to.
//!
//! What is read goes to a real directory, where every step is done as well. Nothing is really synced.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::life::Mark;
use crate::sys::{FileOut, Files, RealFiles};

/// What a disk writes whole.
const SECTOR: usize = 512;

/// A file, whatever its name is.
type Inode = usize;

/// One step. Paths are relative to the disk's root.
#[derive(Clone)]
pub(in crate::agent) enum Step {
    Create(PathBuf, Inode),
    Write(Inode, u64, Vec<u8>),
    SetLen(Inode, u64),
    Sync(Inode),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveTree(PathBuf),
    MakeDir(PathBuf),
    /// A link of that name to that.
    Link(PathBuf, PathBuf),
    SyncDir(PathBuf),
    SyncTree(PathBuf),
    List(PathBuf),
    /// What somebody was told at this moment.
    Told(Mark),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(path, inode) => write!(f, "create {} as file {inode}", path.display()),
            Self::Write(inode, at, data) => write!(f, "write {} bytes to file {inode} at {at}", data.len()),
            Self::SetLen(inode, len) => write!(f, "set the length of file {inode} to {len}"),
            Self::Sync(inode) => write!(f, "sync file {inode}"),
            Self::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::RemoveTree(path) => write!(f, "remove all of {}", path.display()),
            Self::MakeDir(path) => write!(f, "make directory {}", path.display()),
            Self::Link(path, to) => write!(f, "link {} to {}", path.display(), to.display()),
            Self::SyncDir(path) => write!(f, "sync directory {}", path.display()),
            Self::SyncTree(path) => write!(f, "sync all of {}", path.display()),
            Self::List(path) => write!(f, "list {}", path.display()),
            Self::Told(mark) => write!(f, "told {mark:?}"),
        }
    }
}

/// When the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Fault {
    Never,
    /// At that step, and at no other.
    Once(usize),
    /// At that step and all that follow.
    From(usize),
}

#[derive(Debug)]
struct State {
    steps: Vec<Step>,
    names: HashMap<PathBuf, Inode>,
    inodes: usize,
    tried: usize,
    failed: bool,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Disk {
    root: PathBuf,
    fault: Fault,
    state: Arc<Mutex<State>>,
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

impl Disk {
    pub(in crate::agent) fn new(root: &Path, fault: Fault) -> Self {
        let state = State { steps: Vec::new(), names: HashMap::new(), inodes: 0, tried: 0, failed: false };
        Self { root: root.to_owned(), fault, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether a step has failed.
    pub(in crate::agent) fn failed(&self) -> bool {
        self.lock().failed
    }

    /// How many steps were tried.
    pub(in crate::agent) fn tried(&self) -> usize {
        self.lock().tried
    }

    /// All steps so far.
    pub(in crate::agent) fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    pub(in crate::agent) fn told(&self, mark: Mark) {
        self.lock().steps.push(Step::Told(mark));
    }

    fn relative(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    /// Does a step, or fails. The real thing and the log have the same order.
    fn take<T>(
        &self,
        real: impl FnOnce(&mut State) -> io::Result<T>,
        step: impl FnOnce(&mut State) -> Option<Step>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let n = state.tried;
        state.tried += 1;
        let fails = match self.fault {
            Fault::Never => false,
            Fault::Once(at) => n == at,
            Fault::From(at) => n >= at,
        };
        if fails {
            state.failed = true;
            return Err(broken());
        }
        let done = real(&mut state)?;
        let step = step(&mut state);
        state.steps.extend(step);
        Ok(done)
    }
}

impl State {
    /// The file of that name, which is made if there is none.
    fn inode(&mut self, path: &Path) -> (Inode, bool) {
        match self.names.get(path) {
            Some(inode) => (*inode, false),
            None => {
                self.inodes += 1;
                self.names.insert(path.to_owned(), self.inodes - 1);
                (self.inodes - 1, true)
            }
        }
    }

    /// Notes that the file of that name is empty now.
    fn emptied(&mut self, path: PathBuf) -> (Inode, Step) {
        let (inode, new) = self.inode(&path);
        (inode, if new { Step::Create(path, inode) } else { Step::SetLen(inode, 0) })
    }
}

/// A file that is being written.
struct Out {
    disk: Disk,
    inode: Inode,
    file: File,
    at: u64,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (file, inode, at) = (&self.file, self.inode, self.at);
        self.disk.take(|_| file.write_all_at(bytes, at), |_| Some(Step::Write(inode, at, bytes.to_vec())))?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileOut for Out {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.take(|_| Ok(()), |_| Some(Step::Sync(self.inode)))
    }
}

/// A database file.
#[derive(Debug)]
struct Storage {
    disk: Disk,
    inode: Inode,
    file: FileBackend,
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.take(|_| self.file.set_len(len), |_| Some(Step::SetLen(self.inode, len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.take(|_| Ok(()), |_| Some(Step::Sync(self.inode)))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let step = || Step::Write(self.inode, offset, data.to_vec());
        self.disk.take(|_| self.file.write(offset, data), |_| Some(step()))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

impl Files for Disk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FileOut>> {
        let relative = self.relative(path).unwrap();
        let mut made = None;
        let file = self.take(
            |_| OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path),
            |state| {
                let (inode, step) = state.emptied(relative);
                made = Some(inode);
                Some(step)
            },
        )?;
        Ok(Box::new(Out { disk: self.clone(), inode: made.unwrap(), file, at: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.relative(from).unwrap(), self.relative(to).unwrap());
        self.take(
            |_| fs::rename(from, to),
            |state| {
                if let Some(inode) = state.names.remove(&old) {
                    state.names.insert(new.clone(), inode);
                }
                Some(Step::Rename(old, new))
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let relative = self.relative(path).unwrap();
        self.take(
            |_| fs::remove_file(path),
            |state| {
                state.names.remove(&relative);
                Some(Step::Remove(relative))
            },
        )
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let relative = self.relative(path).unwrap();
        self.take(
            |_| RealFiles.remove_tree(path),
            |state| {
                state.names.retain(|name, _| !name.starts_with(&relative));
                Some(Step::RemoveTree(relative))
            },
        )
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let relative = self.relative(path).unwrap();
        self.take(|_| RealFiles.create_dir(path), |_| Some(Step::MakeDir(relative)))
    }

    fn create_open_dir(&self, path: &Path) -> io::Result<()> {
        let relative = self.relative(path).unwrap();
        self.take(|_| RealFiles.create_open_dir(path), |_| Some(Step::MakeDir(relative)))
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        let relative = self.relative(link).unwrap();
        let step = Step::Link(relative, target.to_owned());
        self.take(|_| RealFiles.symlink(target, link), |_| Some(step))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // What is above the root is there in any case.
        match self.relative(path) {
            Some(relative) => self.take(|_| Ok(()), |_| Some(Step::SyncDir(relative))),
            None => Ok(()),
        }
    }

    fn sync_tree(&self, path: &Path) -> io::Result<()> {
        let relative = self.relative(path).unwrap();
        self.take(|_| Ok(()), |_| Some(Step::SyncTree(relative)))
    }

    fn list(&self, dir: &Path) -> io::Result<ReadDir> {
        let relative = self.relative(dir).unwrap();
        self.take(|_| RealFiles.list(dir), |_| Some(Step::List(relative)))
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealFiles.file_len(path)
    }

    fn storage(&self, file: FileBackend, path: &Path) -> Box<dyn StorageBackend> {
        let relative = self.relative(path).unwrap();
        let mut state = self.lock();
        // New, or what a power cut left and the open has emptied or will read.
        let (inode, new) = state.inode(&relative);
        if new {
            state.steps.push(Step::Create(relative, inode));
        }
        if let Ok(len) = file.len() {
            state.steps.push(Step::SetLen(inode, len));
        }
        drop(state);
        Box::new(Storage { disk: self.clone(), inode, file })
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Cut {
    /// It is there, as when only the process was killed.
    Kept,
    /// It is gone.
    Lost,
    /// Any part of it is there: sectors of writes, any of the lengths and names since the last sync, in any order.
    Torn(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Dir,
    File(Inode),
    Link(PathBuf),
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default, Clone)]
struct Content {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// What the disk holds after the steps so far, and what a power cut would leave of it.
#[derive(Debug, Default)]
pub(in crate::agent) struct Platter {
    files: Vec<Content>,
    /// What has stood under each name since its directory was synced; the first is what is durable.
    names: BTreeMap<PathBuf, Vec<Option<Entry>>>,
}

fn put(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = usize::try_from(at).unwrap();
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, data) => put(bytes, *at, data),
        Change::SetLen(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
    }
}

impl Platter {
    pub(in crate::agent) fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(path, inode) => {
                assert_eq!(*inode, self.files.len(), "files are numbered in their order");
                self.files.push(Content::default());
                self.name(path, Some(Entry::File(*inode)));
            }
            Step::Write(inode, at, data) => {
                self.files[*inode].since.push(Change::Write(*at, data.clone()));
            }
            Step::SetLen(inode, len) => self.files[*inode].since.push(Change::SetLen(*len)),
            Step::Sync(inode) => self.files[*inode].sync(),
            Step::Rename(from, to) => {
                let entry = self.now(from);
                self.name(to, entry);
                self.name(from, None);
            }
            Step::Remove(path) => self.name(path, None),
            Step::RemoveTree(path) => {
                let beneath: Vec<PathBuf> =
                    self.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
                beneath.iter().for_each(|name| self.name(name, None));
            }
            Step::MakeDir(path) => {
                let all: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
                for dir in all.into_iter().rev() {
                    if self.now(dir).is_none() {
                        self.name(dir, Some(Entry::Dir));
                    }
                }
            }
            Step::Link(path, to) => self.name(path, Some(Entry::Link(to.clone()))),
            Step::SyncDir(dir) => {
                for (name, values) in &mut self.names {
                    if name.parent() == Some(dir) {
                        values.drain(..values.len() - 1);
                    }
                }
            }
            Step::SyncTree(dir) => {
                for (name, values) in &mut self.names {
                    if name.starts_with(dir) || dir.starts_with(name) {
                        values.drain(..values.len() - 1);
                        if let Some(Some(Entry::File(inode))) = values.last() {
                            self.files[*inode].sync();
                        }
                    }
                }
            }
            Step::List(_) | Step::Told(_) => {}
        }
    }

    fn now(&self, path: &Path) -> Option<Entry> {
        self.names.get(path).and_then(|values| values.last()?.clone())
    }

    fn name(&mut self, path: &Path, entry: Option<Entry>) {
        let values = self.names.entry(path.to_owned()).or_insert_with(|| vec![None]);
        if *values.last().unwrap() != entry {
            values.push(entry);
        }
    }

    /// Writes what is left to `root`, which is made.
    pub(in crate::agent) fn leave(&self, cut: Cut, root: &Path) {
        let mut dice = Dice(if let Cut::Torn(seed) = cut { seed } else { 0 });
        fs::create_dir(root).unwrap();
        for (name, values) in &self.names {
            let entry = match cut {
                Cut::Kept => values.last().unwrap(),
                Cut::Lost => &values[0],
                Cut::Torn(_) => &values[dice.below(values.len())],
            };
            let at = root.join(name);
            if !at.parent().unwrap().is_dir() {
                continue;
            }
            match entry {
                None => {}
                Some(Entry::Dir) => fs::create_dir(at).unwrap(),
                Some(Entry::File(inode)) => {
                    fs::write(at, self.files[*inode].left(cut, &mut dice)).unwrap();
                }
                Some(Entry::Link(to)) => std::os::unix::fs::symlink(to, at).unwrap(),
            }
        }
    }
}

impl Content {
    fn sync(&mut self) {
        let Self { synced, since } = self;
        since.drain(..).for_each(|change| apply(synced, &change));
    }

    fn left(&self, cut: Cut, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        match cut {
            Cut::Lost => {}
            Cut::Kept => self.since.iter().for_each(|change| apply(&mut bytes, change)),
            Cut::Torn(_) => self.since.iter().for_each(|change| match (dice.below(4), change) {
                (0, _) => {}
                (1, Change::Write(at, data)) => {
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.below(2) == 0 {
                            put(&mut bytes, at + (i * SECTOR) as u64, sector);
                        }
                    }
                }
                _ => apply(&mut bytes, change),
            }),
        }
        bytes
    }
}

/// Chance that can be repeated (splitmix64).
#[derive(Debug)]
pub(in crate::agent) struct Dice(pub(super) u64);

impl Dice {
    pub(in crate::agent) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(in crate::agent) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }
}
