//! Power cuts at every step of updates of the program itself: whatever happened, `good` and what is started next are
//! whole versions, what was said to be done stays done, and a version that does not become healthy is left.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Cut, Disk, Fault, Platter};
use crate::archive::testing::Scratch;
use crate::config::Settings;
use crate::sys::Files;
use crate::update::testing::{Tar, bundle, manifest};
use crate::update::{Board, Bundle, Confirmed, Databases, STARTS_MAX, Slots, State, UpdateError};

/// A program that no sector holds whole.
fn program(version: &str) -> Vec<u8> {
    version.bytes().cycle().take(2000).collect()
}

const OLD_DATA: &[u8] = b"as version 3 left them";

/// What versions make of them that write them anew.
const DATA_OF_7: &[u8] = b"as version 7 writes them, and no other reads";
const DATA_OF_8: &[u8] = b"as version 8 writes them, and no other reads";

/// Versions that never proved themselves.
const NEVER_GOOD: [&str; 4] = ["3", "4", "5", "7"];

fn data(root: &Path) -> PathBuf {
    root.join("data")
}

fn slots(files: Arc<dyn Files>, root: &Path) -> Slots {
    Slots::new(files, root, Databases::new(data(root)))
}

fn board(schema: u32) -> Board {
    Board { target: "x86_64-unknown-linux-gnu", name: None, schema }
}

/// What may be found after a power cut: the versions that may be good.
type Mark = (usize, Vec<&'static str>);

/// A life of updates.
struct Life<'a> {
    disk: &'a Disk,
    slots: Slots,
    dir: &'a Path,
    root: PathBuf,
    marks: Vec<Mark>,
}

impl Life<'_> {
    /// From here on, one of these is good.
    fn good(&mut self, versions: &[&'static str]) {
        self.marks.push((self.disk.steps().len(), versions.to_vec()));
    }

    fn bundle(&self, version: &str, schema: u32) -> Bundle {
        let path = self.dir.join(format!("{version}.tar"));
        let mut json: serde_json::Value =
            serde_json::from_slice(&manifest(version, &program(version))).unwrap();
        json["schema"] = schema.into();
        let tar = Tar::new()
            .file("manifest.json", json.to_string().as_bytes())
            .file("manifest.sig", &[7; 64])
            .file("codling", &program(version));
        std::fs::write(&path, tar.end()).unwrap();
        Bundle::open(&path, &|_, _| Ok(())).unwrap()
    }

    fn apply(&self, version: &str, schema: u32) -> Result<(), UpdateError> {
        self.slots.apply(&self.bundle(version, schema), &board(1), true).map(drop)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), UpdateError> {
        let failed = |source| UpdateError::Io { action: "write", path: path.to_owned(), source };
        self.disk.create_dir(path.parent().unwrap()).map_err(failed)?;
        let mut file = self.disk.create(path, 0o600).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync()).map_err(failed)?;
        [path.parent().unwrap(), &data(&self.root), &self.root]
            .iter()
            .try_for_each(|dir| self.disk.sync_dir(dir))
            .map_err(failed)
    }

    /// Puts a version on trial that writes the databases anew; a copy that fails ends the trial, which says why.
    fn migrate(&self, version: &str, bytes: &[u8]) -> Result<(), UpdateError> {
        self.apply(version, 2)?;
        match self.slots.guard()? {
            Some(State::Trial { .. }) => self.write(&Settings::default_jobs_path(&data(&self.root)), bytes),
            _ => Err(UpdateError::Bundle(self.slots.last().map(|last| last.reason).unwrap_or_default())),
        }
    }

    fn live(&mut self) -> Result<(), UpdateError> {
        // The first one, then one that proves itself.
        self.apply("1", 1)?;
        self.good(&["1"]);
        self.apply("2", 1)?;
        self.slots.guard()?;
        self.good(&["1", "2"]);
        assert_eq!(self.slots.confirm(Ok(()))?, Confirmed::Good);
        self.good(&["2"]);
        // One that goes down again and again.
        self.apply("3", 1)?;
        for _ in 0..=STARTS_MAX {
            self.slots.guard()?;
        }
        assert!(!self.slots.last().unwrap().confirmed);
        // Nobody goes to a version that never proved itself.
        match self.slots.roll_back(&board(1), false) {
            Err(UpdateError::Broken { .. }) => {}
            other => panic!("went back to {:?}", other?),
        }
        // One that does not become healthy, and one that somebody does not want.
        self.apply("4", 1)?;
        self.slots.guard()?;
        assert!(matches!(self.slots.confirm(Err("it hangs".into()))?, Confirmed::Back(_)));
        self.apply("5", 1)?;
        self.slots.roll_back(&board(1), false)?;
        // One that stays until somebody wants the one before.
        self.apply("6", 1)?;
        self.slots.guard()?;
        self.good(&["2", "6"]);
        self.slots.confirm(Ok(()))?;
        self.good(&["6"]);
        self.good(&["6", "2"]);
        self.slots.roll_back(&board(1), false)?;
        self.good(&["2"]);
        // One that writes the databases anew, and fails.
        let database = Settings::default_jobs_path(&data(&self.root));
        self.write(&database, OLD_DATA)?;
        self.migrate("7", DATA_OF_7)?;
        self.slots.confirm(Err("no".into()))?;
        assert_eq!(std::fs::read(&database).unwrap(), OLD_DATA);
        // One that writes them anew, and stays.
        self.migrate("8", DATA_OF_8)?;
        self.good(&["2", "8"]);
        self.slots.confirm(Ok(()))?;
        self.good(&["8"]);
        Ok(())
    }
}

/// Updates on that disk; what may be good when, and what went wrong.
fn live(disk: &Disk, scratch: &Path, root: &Path) -> (Vec<Mark>, Result<(), UpdateError>) {
    let slots = slots(Arc::new(disk.clone()), root);
    let marks = vec![(0, vec![])];
    let mut life = Life { disk, slots, dir: scratch, root: root.to_owned(), marks };
    let done = life.live();
    (life.marks, done)
}

/// What a link leads to: a whole version.
fn behind(slots: &Slots, link: &str) -> Result<String, String> {
    let target = std::fs::read_link(slots.home().join(link)).map_err(|e| format!("{link}: {e}"))?;
    let slot = target.to_str().unwrap().strip_prefix("slots/").unwrap().parse().unwrap();
    let version = slots.verify(slot).map_err(|e| format!("{link}: {e}"))?.version;
    // The verified file is the one that is started.
    let started = std::fs::read(slots.home().join(link).join("codling")).unwrap();
    if started == program(&version) { Ok(version) } else { Err(format!("{link} is another program")) }
}

/// What is wrong with what was left.
fn check(root: &Path, good: &[&str], n: usize) -> Result<(), String> {
    // Nothing is really synced.
    let slots = slots(Arc::new(Disk::new(root, Fault::Never)), root);
    let installed = slots.home().join("good").symlink_metadata().is_ok();
    let starts = slots.home().join("current").symlink_metadata().is_ok();
    if good.is_empty() && !installed {
        // The first version was not installed yet: it is, the next time, into a slot that nothing points to.
        return if starts { Err("what is started has nobody to guard it".into()) } else { Ok(()) };
    }
    if data(root).join("before-update/kept.json").exists() {
        let kept = std::fs::read(data(root).join("before-update/jobs.db")).unwrap_or_default();
        if kept != OLD_DATA {
            return Err(format!("a copy of {} bytes seems whole", kept.len()));
        }
    }
    let before = behind(&slots, "good")?;
    if starts {
        let current = behind(&slots, "current")?;
        let state = slots.state().map_err(|error| error.to_string())?;
        if current != before && matches!(state, Some(State::Settled { .. })) {
            return Err(format!("version {current} is next, {before} is good, and nobody knows of a trial"));
        }
    } else if !good.is_empty() {
        return Err("nothing is started".into());
    }
    // The service starts, and what is started never becomes healthy: in the end it is a good one.
    let mut state = None;
    for _ in 0..STARTS_MAX + 2 {
        let trial = matches!(slots.state(), Ok(Some(State::Trial { .. })));
        state = slots.guard().map_err(|error| format!("the guard: {error}"))?;
        let (good, current) = (behind(&slots, "good")?, behind(&slots, "current")?);
        if !trial && good != current {
            return Err(format!("version {current} is started without a trial, {good} is good"));
        }
    }
    let now = behind(&slots, "current")?;
    if !good.is_empty() && !good.contains(&now.as_str()) {
        return Err(format!("{now} runs in the end, after {before}; one of {good:?} should"));
    }
    if !matches!(state, Some(State::Settled { .. })) {
        return Err(format!("not settled: {state:?}"));
    }
    let database = Settings::default_jobs_path(&data(root));
    let bytes = std::fs::read(&database).unwrap_or_default();
    if bytes.starts_with(b"as version 7") || bytes.starts_with(b"as version 8") && now != "8" {
        return Err(format!("version {now} got databases that it does not read"));
    }
    // Asking for the other version does not lead to one that never proved itself.
    if slots.roll_back(&board(1), false).is_ok() {
        let now = behind(&slots, "current")?;
        if NEVER_GOOD.contains(&now.as_str()) {
            return Err(format!("version {now} was gone back to"));
        }
    }
    // The next update works, whatever was left.
    let path = root.join("next.tar");
    std::fs::write(&path, bundle("9", &program("9"))).unwrap();
    let next = Bundle::open(&path, &|_, _| Ok(())).unwrap();
    slots.apply(&next, &board(1), false).map_err(|error| format!("the next update: {error}"))?;
    slots.guard().map_err(|error| format!("its start: {error}"))?;
    slots.confirm(Ok(())).map_err(|error| format!("its end: {error}"))?;
    match behind(&slots, "current")? {
        version if version == "9" => Ok(()),
        version => Err(format!("{version} runs, not the next one (step {n})")),
    }
}

fn cut_everywhere(cut: impl Fn(usize) -> Cut) {
    let scratch = Scratch::new();
    let root = scratch.path().join("life");
    std::fs::create_dir(&root).unwrap();
    let disk = Disk::new(&root, Fault::Never);
    let (marks, done) = live(&disk, scratch.path(), &root);
    done.unwrap();
    let steps = disk.steps();
    assert!(steps.len() > 200, "{} steps", steps.len());
    let (mut platter, mut failures) = (Platter::default(), Vec::new());
    for (n, step) in steps.iter().enumerate() {
        platter.apply(step);
        let left = scratch.path().join("left");
        platter.leave(cut(n), &left);
        let good = &marks.iter().rev().find(|(from, _)| *from <= n + 1).unwrap().1;
        if let Err(what) = check(&left, good, n) {
            failures.push(format!("after step {n} of {}, {step:?}: {what}", steps.len()));
        }
        std::fs::remove_dir_all(&left).unwrap();
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_power_cut_at_any_step_of_updates_leaves_a_whole_version_when_all_writes_were_kept() {
    cut_everywhere(|_| Cut::Kept);
}

#[test]
fn a_power_cut_at_any_step_of_updates_leaves_a_whole_version_when_no_write_without_a_sync_was_kept() {
    cut_everywhere(|_| Cut::Lost);
}

#[test]
fn a_power_cut_at_any_step_of_updates_leaves_a_whole_version_when_writes_were_torn() {
    for seed in 0..4 {
        cut_everywhere(|n| Cut::Torn((seed * 10_000 + n) as u64));
    }
}

#[test]
fn a_step_of_an_update_that_fails_is_an_error_and_leaves_a_whole_version() {
    let scratch = Scratch::new();
    let steps = {
        let root = scratch.path().join("all");
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::new(&root, Fault::Never);
        live(&disk, scratch.path(), &root).1.unwrap();
        disk.tried()
    };
    let mut failures = Vec::new();
    for n in 0..steps {
        let root = scratch.path().join("left");
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::new(&root, Fault::Once(n));
        let (marks, done) = live(&disk, scratch.path(), &root);
        let kept = data(&root).join("before-update");
        if kept.exists() && !kept.join("kept.json").exists() {
            failures.push(format!("step {n} of {steps} failed, and a part of a copy was left"));
        }
        if disk.failed() && done.is_ok() {
            failures.push(format!("step {n} of {steps} failed, and nobody was told"));
        }
        let good = &marks.last().unwrap().1;
        // What failed may have been done: the last promise holds, or the next one.
        if let Err(what) = check(&root, if good.len() == 1 { &[] } else { good }, n) {
            failures.push(format!("step {n} of {steps} failed: {what}"));
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
    assert_eq!(failures, Vec::<String>::new());
}

/// What was refused is tried again while version 1 works with its databases, and fails after it wrote them anew.
fn try_again(disk: &Disk, scratch: &Path, root: &Path) -> Result<(), String> {
    let (slots, database) = (slots(Arc::new(disk.clone()), root), Settings::default_jobs_path(&data(root)));
    let life = Life { disk, slots, dir: scratch, root: root.to_owned(), marks: Vec::new() };
    let told = |error: UpdateError| error.to_string();
    let node = std::fs::File::create(data(root).join("lock")).unwrap();
    node.lock().unwrap();
    // The schema is that of the version which runs: nobody else reads the databases now.
    let bundle = life.bundle("2", 2);
    let apply = || life.slots.apply(&bundle, &board(life.slots.schema()?), true);
    match apply().or_else(|_| apply()) {
        // Its state was durable, the link was not.
        Ok(_) | Err(UpdateError::TrialUnderWay) => {}
        Err(error) => return Err(told(error)),
    }
    drop(node);
    let state = life.slots.guard().or_else(|_| life.slots.guard()).map_err(told)?;
    if let Some(State::Trial { .. }) = state {
        std::fs::write(&database, DATA_OF_7).unwrap();
        life.slots
            .confirm(Err("no".into()))
            .or_else(|_| life.slots.confirm(Err("no".into())))
            .map_err(told)?;
        life.slots.guard().or_else(|_| life.slots.guard()).map_err(told)?;
    }
    let (now, bytes) = (behind(&life.slots, "current")?, std::fs::read(&database).unwrap());
    if (now.as_str(), &bytes[..]) == ("1", OLD_DATA) {
        return Ok(());
    }
    Err(format!("version {now} has the databases {:?}", String::from_utf8_lossy(&bytes)))
}

#[test]
fn an_update_that_is_tried_again_after_any_step_failed_costs_no_databases() {
    let (scratch, mut failures, mut n) = (Scratch::new(), Vec::new(), 0);
    loop {
        let root = scratch.path().join("left");
        std::fs::create_dir(&root).unwrap();
        let whole = Disk::new(&root, Fault::Never);
        let slots = slots(Arc::new(whole.clone()), &root);
        let life = Life { disk: &whole, slots, dir: scratch.path(), root: root.clone(), marks: Vec::new() };
        life.apply("1", 1).unwrap();
        life.write(&Settings::default_jobs_path(&data(&root)), OLD_DATA).unwrap();
        let disk = Disk::new(&root, Fault::Once(n));
        if let Err(what) = try_again(&disk, scratch.path(), &root) {
            failures.push(format!("step {n} failed: {what}"));
        }
        std::fs::remove_dir_all(&root).unwrap();
        if !disk.failed() {
            break;
        }
        n += 1;
    }
    assert!(n > 50, "{n} steps");
    assert_eq!(failures, Vec::<String>::new());
}
