//! Two slots, the links to them, and what is written while they change: see the text of the module above.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::bundle::{Bundle, MANIFEST, SIGNATURE_FILE, Sink};
use super::databases::{Databases, remove_if_there};
use super::manifest::{self, MANIFEST_MAX, Manifest, PROGRAM};
use super::state::{Copy, Event, Slot, State, next};
use super::{Board, UpdateError, judge};
use crate::model::{Bytes, Sha256, with_causes};
use crate::store::SCHEMA;
use crate::sys::fs::write_atomic;
use crate::sys::{DiskProbe, FileOut, Files, StatVfs};

/// Where `slots/` and the links lie, below the root.
const HOME: &str = "opt/codling";

/// Room that is left on the file system beside a version's files.
const MARGIN: u64 = 1 << 20;

const CURRENT: &str = "current";
const GOOD: &str = "good";
const TRIAL: &str = "trial.json";
const LAST: &str = "last.json";

/// The slots of a board that updates itself.
#[derive(Debug)]
pub struct Slots {
    files: Arc<dyn Files>,
    home: PathBuf,
    databases: Databases,
}

/// How the last update ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Last {
    /// The version that was to come, or that was left.
    pub version: String,
    /// Whether it stayed.
    pub confirmed: bool,
    /// Whether it had been found good before it went.
    pub proven: bool,
    /// Why it went.
    pub reason: String,
}

/// Held while the slots change; the system releases it however that ends.
struct Lock {
    _file: File,
}

/// What became of a version on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It is the good one now.
    Good,
    /// It goes back, or went back before.
    Back(String),
    /// There is none on trial.
    Nothing,
}

impl Slots {
    /// Those below `root`, for a node with these databases. Nothing needs to exist.
    #[must_use]
    pub fn new(files: Arc<dyn Files>, root: &Path, databases: Databases) -> Self {
        Self { files, home: root.join(HOME), databases }
    }

    /// Where they lie.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    fn dir(&self, slot: Slot) -> PathBuf {
        self.home.join("slots").join(slot.as_str())
    }

    /// Where it stands; none if nothing was installed yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn state(&self) -> Result<Option<State>, UpdateError> {
        let path = self.home.join(TRIAL);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => Ok(Some(state)),
                Err(source) => Err(UpdateError::State { path, source }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(self.link(GOOD).map(|slot| State::Settled { slot }))
            }
            Err(error) => Err(UpdateError::io("read", &path)(error)),
        }
    }

    /// The slot that a link points to.
    fn link(&self, name: &str) -> Option<Slot> {
        let target = std::fs::read_link(self.home.join(name)).ok()?;
        target.strip_prefix("slots").ok()?.to_str()?.parse().ok()
    }

    /// How the last update ended, if there was one.
    #[must_use]
    pub fn last(&self) -> Option<Last> {
        serde_json::from_slice(&std::fs::read(self.home.join(LAST)).ok()?).ok()
    }

    /// The manifest of the version in a slot, if there is one; its files are not looked at.
    #[must_use]
    pub fn manifest(&self, slot: Slot) -> Option<Manifest> {
        let file = File::open(self.dir(slot).join(MANIFEST)).ok()?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_MAX).read_to_end(&mut bytes).ok()?;
        Manifest::read(&bytes).ok()
    }

    /// The same, with every file compared with its digest.
    ///
    /// # Errors
    /// There is no whole version in that slot.
    pub fn verify(&self, slot: Slot) -> Result<Manifest, UpdateError> {
        let broken = |why: String| UpdateError::Broken { slot, why };
        let manifest = self.manifest(slot).ok_or_else(|| broken("there is no manifest".into()))?;
        for file in &manifest.files {
            let digest = digest(&self.dir(slot).join(&file.name));
            match digest {
                Ok(found) if found == file.sha256 => {}
                Ok(_) => return Err(broken(format!("{} is not what its manifest says", file.name))),
                Err(error) => return Err(broken(format!("{}: {error}", file.name))),
            }
        }
        Ok(manifest)
    }

    /// The schema that the databases have, or will have when they are made.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn schema(&self) -> Result<u32, UpdateError> {
        if let Some(schema) = self.databases.schema()? {
            return Ok(schema);
        }
        // A node that works has written its own schema.
        let running = self.link(CURRENT).and_then(|slot| self.manifest(slot));
        Ok(running.map_or(SCHEMA, |manifest| manifest.schema))
    }

    fn lock(&self) -> Result<Lock, UpdateError> {
        let path = self.home.join("lock");
        let failed = |action| UpdateError::io(action, &path);
        self.files.create_open_dir(&self.home).map_err(UpdateError::io("create", &self.home))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(UpdateError::Busy(self.home.clone())),
            Err(TryLockError::Error(error)) => Err(failed("lock")(error)),
        }
    }

    /// Installs a bundle's version beside the one that runs, and puts it on trial from the next start on. The first
    /// version of a board is settled at once: there is nothing to go back to.
    ///
    /// # Errors
    /// The bundle does not fit, or a step failed: what ran goes on.
    pub fn apply(&self, bundle: &Bundle, board: &Board, allow_migration: bool) -> Result<State, UpdateError> {
        let copy = judge(bundle.manifest(), board, allow_migration)?;
        let _lock = self.lock()?;
        let state = match self.state()? {
            Some(state @ (State::Good { .. } | State::Back { .. })) => Some(self.finish(&state)?),
            state => state,
        };
        let slot = match &state {
            None => Slot::A,
            Some(State::Settled { slot }) => slot.other(),
            Some(_) => return Err(UpdateError::TrialUnderWay),
        };
        self.check_room(slot, bundle.manifest(), copy)?;
        // What it says of the version that leaves the slot is no word for the one that comes.
        remove_if_there(&*self.files, &self.home.join(LAST))?;
        self.files.sync_dir(&self.home).map_err(UpdateError::io("sync", &self.home))?;
        self.fill(slot, bundle)?;
        match state {
            None => {
                // In this order: what is started has somebody to guard it.
                self.point(GOOD, slot)?;
                self.point(CURRENT, slot)?;
                Ok(State::Settled { slot })
            }
            Some(state) => {
                // In this order: what `current` names tells the schema of a node that works (`Slots::schema`). If it
                // named this version, and nothing told of the trial, whoever tries again would go without the copy.
                let trial = self.write(next(&state, Event::Applied { copy })?)?;
                self.point(CURRENT, trial.current())?;
                Ok(trial)
            }
        }
    }

    /// Whether there is room for a version's files, and for the copy of the databases that its first start makes.
    fn check_room(&self, slot: Slot, manifest: &Manifest, copy: bool) -> Result<(), UpdateError> {
        let free = StatVfs::new(&self.home).space().map_err(UpdateError::io("look at", &self.home))?.free;
        // What is in the slot goes first.
        let old: u64 = match std::fs::read_dir(self.dir(slot)) {
            Ok(entries) => entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum(),
            Err(_) => 0,
        };
        let (need, free) = (Bytes(manifest.bytes() + MARGIN), Bytes(free.0.saturating_add(old)));
        if need > free {
            return Err(UpdateError::NoRoom { path: self.home.clone(), need, free });
        }
        if copy {
            let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
            let shared = device(&self.home) == device(self.databases.dir());
            let beside = if shared { manifest.bytes().saturating_sub(old) } else { 0 };
            self.databases.check_room(Bytes(beside))?;
        }
        Ok(())
    }

    /// Fills a slot that nothing points to.
    fn fill(&self, slot: Slot, bundle: &Bundle) -> Result<(), UpdateError> {
        let (dir, files) = (self.dir(slot), &*self.files);
        let failed = |action| UpdateError::io(action, &dir);
        files.create_open_dir(&dir).map_err(failed("create"))?;
        // From here on, and until its new manifest is there, the slot holds no version.
        remove_if_there(files, &dir.join(MANIFEST))?;
        files.sync_dir(&dir).map_err(failed("sync"))?;
        let old: Vec<PathBuf> =
            files.list(&dir).map_err(failed("read"))?.flatten().map(|entry| entry.path()).collect();
        for path in old {
            files.remove_tree(&path).map_err(failed("empty"))?;
        }
        bundle.unpack(&mut Filler { files, dir: &dir, file: None })?;
        let head = bundle.head();
        write_atomic(files, &dir.join(SIGNATURE_FILE), &head.signature, 0o644).map_err(failed("write"))?;
        // All files are durable, and have their names, before the manifest has.
        files.sync_dir(&dir).map_err(failed("sync"))?;
        write_atomic(files, &dir.join(MANIFEST), &head.bytes, 0o644).map_err(failed("write"))?;
        // Any of the directories above may be new: slots, codling, opt.
        for above in dir.ancestors().skip(1).take(4) {
            files.sync_dir(above).map_err(UpdateError::io("sync", above))?;
        }
        Ok(())
    }

    /// Has a link point to a slot: before, during and after it, it points to one.
    fn point(&self, name: &str, slot: Slot) -> Result<(), UpdateError> {
        if self.link(name) == Some(slot) {
            return Ok(());
        }
        let (files, link) = (&*self.files, self.home.join(name));
        let new = self.home.join(format!("{name}.new"));
        let failed = || UpdateError::io("switch", &link);
        remove_if_there(files, &new)?;
        files.symlink(&Path::new("slots").join(slot.as_str()), &new).map_err(failed())?;
        files.sync_dir(&self.home).map_err(failed())?;
        files.rename(&new, &link).map_err(failed())?;
        files.sync_dir(&self.home).map_err(failed())
    }

    /// Makes a state durable.
    fn write(&self, state: State) -> Result<State, UpdateError> {
        let path = self.home.join(TRIAL);
        let text = serde_json::to_vec(&state)?;
        write_atomic(&*self.files, &path, &text, 0o644).map_err(UpdateError::io("write", &path))?;
        Ok(state)
    }

    /// Does what [`State::Good`] or [`State::Back`] asks for; what it did before is done again, or was.
    ///
    /// The state goes last: until then, the next guard does all of this again, so that the order of what comes before it
    /// does no harm. Without a state, `good` says what is started, on databases that it has to be able to read.
    fn finish(&self, state: &State) -> Result<State, UpdateError> {
        let slot = state.good();
        self.point(CURRENT, slot)?;
        if let State::Back { restore: true, .. } = state {
            self.databases.restore(&*self.files)?;
        }
        self.point(GOOD, slot)?;
        let named = |slot| self.manifest(slot).map(|manifest| manifest.version).unwrap_or_default();
        let last = match state {
            State::Back { proven, reason, .. } => Last {
                version: named(slot.other()),
                confirmed: false,
                proven: *proven,
                reason: reason.clone(),
            },
            _ => Last { version: named(slot), confirmed: true, proven: true, reason: String::new() },
        };
        let last = serde_json::to_vec(&last)?;
        let path = self.home.join(LAST);
        write_atomic(&*self.files, &path, &last, 0o644).map_err(UpdateError::io("write", &path))?;
        remove_if_there(&*self.files, &self.home.join(TRIAL))?;
        self.files.sync_dir(&self.home).map_err(UpdateError::io("sync", &self.home))?;
        Ok(next(state, Event::Done)?)
    }

    /// To be called before each start of the program: finishes what was cut off, copies databases before a first start
    /// that changes them, and counts the starts of a version on trial.
    ///
    /// # Errors
    /// It could not be written down: the program should not be started.
    pub fn guard(&self) -> Result<Option<State>, UpdateError> {
        if self.state()?.is_none() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        let Some(mut state) = self.state()? else { return Ok(None) };
        if let State::Trial { copy: Copy::Wanted, .. } = state {
            let event = match self.databases.keep(&*self.files) {
                Ok(()) => Event::Copied,
                // Not before a start: somebody calls it by hand.
                Err(error @ UpdateError::NodeRuns(_)) => return Err(error),
                Err(error) => {
                    Event::Failed(format!("the databases could not be kept: {}", with_causes(&error)))
                }
            };
            state = self.write(next(&state, event)?)?;
        }
        if let State::Trial { .. } = state {
            state = self.write(next(&state, Event::Start)?)?;
        }
        match state {
            State::Trial { .. } | State::Settled { .. } => self.point(CURRENT, state.current())?,
            State::Good { .. } | State::Back { .. } => state = self.finish(&state)?,
        }
        Ok(Some(state))
    }

    /// Says whether the version on trial is healthy. It is good from then on, or `current` points to the old one again.
    /// Databases of before come back now, or, while a node works with them, at the next [`Slots::guard`].
    ///
    /// # Errors
    /// It could not be written down; the trial goes on.
    pub fn confirm(&self, healthy: Result<(), String>) -> Result<Confirmed, UpdateError> {
        let _lock = self.lock()?;
        let event = match healthy {
            Ok(()) => Event::Healthy,
            Err(reason) => Event::Failed(reason),
        };
        match self.state()? {
            None | Some(State::Settled { .. }) => Ok(Confirmed::Nothing),
            Some(state @ State::Trial { .. }) => self.end(&next(&state, event)?),
            Some(state) => self.end(&state),
        }
    }

    /// Writes down how a trial ended, and finishes it as far as that can be done now.
    fn end(&self, state: &State) -> Result<Confirmed, UpdateError> {
        self.write(state.clone())?;
        match (self.finish(state), state) {
            (Ok(_), State::Back { reason, .. }) => Ok(Confirmed::Back(reason.clone())),
            (Ok(_), _) => Ok(Confirmed::Good),
            // The rest is the guard's.
            (Err(UpdateError::NodeRuns(_)), State::Back { reason, .. }) => {
                Ok(Confirmed::Back(reason.clone()))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Goes back to the other version. Ends a trial, if there is one; otherwise the version of before has to be whole,
    /// proven, and fit the databases: those that are there, or with `restore` those that were kept.
    ///
    /// # Errors
    /// There is no version to go back to, or a step failed.
    pub fn roll_back(&self, board: &Board, restore: bool) -> Result<State, UpdateError> {
        let _lock = self.lock()?;
        let Some(state) = self.state()? else {
            return Err(UpdateError::NothingInstalled(self.home.clone()));
        };
        let state = match state {
            State::Settled { slot } => {
                let manifest = self.verify(slot.other())?;
                let why = match self.last() {
                    Some(last) if last.proven => None,
                    Some(last) => Some(format!("version {} went back: {}", last.version, last.reason)),
                    None => Some(format!("version {} was never on trial", manifest.version)),
                };
                if let Some(why) = why {
                    return Err(UpdateError::Broken { slot: slot.other(), why });
                }
                if restore && !self.databases.has_copy() {
                    return Err(UpdateError::NoCopy(self.databases.dir().to_owned()));
                }
                // What was kept had a schema that this version wrote or read.
                let schema = if restore { manifest.schema } else { board.schema };
                judge(&manifest, &Board { schema, ..board.clone() }, false)?;
                next(&state, Event::RollBack { restore })?
            }
            State::Trial { .. } => next(&state, Event::RollBack { restore })?,
            state => state,
        };
        self.end(&state)?;
        Ok(state)
    }
}

fn digest(path: &Path) -> std::io::Result<Sha256> {
    let (mut file, mut hasher) = (File::open(path)?, sha2::Sha256::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(Sha256(hasher.finalize().into()));
        }
        hasher.update(&buffer[..n]);
    }
}

/// Writes a bundle's files to a slot.
struct Filler<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    file: Option<Box<dyn FileOut>>,
}

impl Filler<'_> {
    fn partial(&self, file: &manifest::File) -> PathBuf {
        self.dir.join(format!("{}.partial", file.name))
    }
}

impl Sink for Filler<'_> {
    fn begin(&mut self, file: &manifest::File) -> Result<Box<dyn Write + '_>, UpdateError> {
        let (path, mode) = (self.partial(file), if file.name == PROGRAM { 0o755 } else { 0o644 });
        let made = self.files.create(&path, mode).map_err(UpdateError::io("create", &path))?;
        Ok(Box::new(self.file.insert(made)))
    }

    fn end(&mut self, file: &manifest::File) -> Result<(), UpdateError> {
        let path = self.partial(file);
        let failed = || UpdateError::io("write", &path);
        if let Some(mut out) = self.file.take() {
            out.sync().map_err(failed())?;
        }
        self.files.rename(&path, &self.dir.join(&file.name)).map_err(failed())
    }
}
