//! First boot: settings that somebody wrote to the boot partition, which every computer can, are taken over once.
//!
//! `codling.yaml` is checked, copied to where only the node can read it, and then removed, so that a token in it does
//! not stay on a partition that everybody reads. A power cut at any point leaves the file where it was, or the whole
//! of it where it goes, or both; doing it again does the same.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::config::{self, Finding, Severity};
use crate::sys::Files;
use crate::sys::fs::write_atomic;
use crate::sys::users::User;

/// What is looked for on the boot partition.
pub const NAME: &str = "codling.yaml";

/// What it becomes among the parts of the settings.
pub const PART: &str = "50-boot.yaml";

/// Its name once it was taken over, until it is gone.
const DONE: &str = "codling.yaml.applied";

/// Why it was not taken over: for whoever puts the card into a computer again.
const ERROR: &str = "codling.yaml.error";

/// The part, while it is written. It does not end as parts do.
const PARTIAL: &str = "50-boot.yaml.partial";

/// What became of the file.
#[derive(Debug)]
pub enum Taken {
    /// There was none, or nothing in it.
    Nothing,
    /// It is in force from the next start of the node on.
    Over {
        /// Where it is now.
        part: PathBuf,
        /// What should be said about it.
        warnings: Vec<Finding>,
    },
    /// It is wrong, and stays where it is.
    Refused {
        /// The file.
        file: PathBuf,
        /// Where it says why, if it could be written there.
        error: Option<PathBuf>,
        /// Why; at least one is an error.
        findings: Vec<Finding>,
    },
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {cause}")]
pub struct FirstBootError {
    /// What was to be done.
    pub what: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub cause: io::Error,
}

type Result<T> = std::result::Result<T, FirstBootError>;

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FirstBootError + 'a {
    move |cause| FirstBootError { what, path: path.to_owned(), cause }
}

/// Takes the settings of `boot` over into `etc`, for `owner` if it is another user.
///
/// # Errors
/// A step failed. The file is then still there, or its copy is in force, or both: it can be done again.
pub fn take_over(files: &dyn Files, boot: &Path, etc: &Path, owner: Option<User>) -> Result<Taken> {
    let (source, done) = (boot.join(NAME), boot.join(DONE));
    if is_file(files, &done)? {
        wipe(files, boot, &done)?;
    }
    if !is_file(files, &source)? {
        return Ok(Taken::Nothing);
    }
    let bytes = config::read(&source).map_err(failed("read", &source))?;
    if bytes.iter().all(|b| b.is_ascii_whitespace() || *b == 0) {
        // A file that a power cut left without its content says nothing, and is not to undo what is in force.
        files.remove(&source).map_err(failed("remove", &source))?;
        files.sync_tree(boot).map_err(failed("sync", boot))?;
        return Ok(Taken::Nothing);
    }
    let parts = etc.join("config.d");
    let part = parts.join(PART);
    let findings = config::check_part(&source, &bytes, &etc.join("config.yaml"), &part);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        let error = complain(files, boot, &findings);
        return Ok(Taken::Refused { file: source, error, findings });
    }
    make_dir(files, etc, &parts, owner)?;
    install(files, &parts, &bytes, owner)?;
    // Only now may the file go: it goes by another name first, so that its bytes are never overwritten while it could
    // still be taken for settings.
    files.rename(&source, &done).map_err(failed("rename", &source))?;
    files.sync_tree(boot).map_err(failed("sync", boot))?;
    wipe(files, boot, &done)?;
    Ok(Taken::Over { part, warnings: findings })
}

/// Whether there is such a file.
fn is_file(files: &dyn Files, path: &Path) -> Result<bool> {
    match files.file_len(path) {
        Ok(Some(_)) => Ok(true),
        Ok(None) => Err(failed("use", path)(io::Error::other("it is not a file"))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// The directory of the parts, which the node reads and only root writes.
fn make_dir(files: &dyn Files, etc: &Path, parts: &Path, owner: Option<User>) -> Result<()> {
    if parts.is_dir() {
        return Ok(());
    }
    let new_etc = !etc.is_dir();
    files.create_dir(parts).map_err(failed("create", parts))?;
    for dir in [etc, parts].into_iter().skip(usize::from(!new_etc)) {
        fs::set_permissions(dir, Permissions::from_mode(0o750)).map_err(failed("set the mode of", dir))?;
        if let Some(owner) = owner {
            chown(dir, None, Some(owner.gid)).map_err(failed("set the group of", dir))?;
        }
    }
    files.sync_dir(etc).map_err(failed("sync", etc))?;
    match etc.parent() {
        Some(above) if new_etc => files.sync_dir(above).map_err(failed("sync", above)),
        _ => Ok(()),
    }
}

/// Writes the part whole, for its owner alone, and does not return before it is durable.
fn install(files: &dyn Files, parts: &Path, bytes: &[u8], owner: Option<User>) -> Result<()> {
    let (partial, part) = (parts.join(PARTIAL), parts.join(PART));
    match files.remove(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &partial)(error)),
        _ => {}
    }
    let write = || {
        let mut file = files.create(&partial, 0o600)?;
        if let Some(owner) = owner {
            chown(&partial, Some(owner.uid), Some(owner.gid))?;
        }
        file.write_all(bytes)?;
        file.sync()?;
        files.rename(&partial, &part)?;
        files.sync_dir(parts)
    };
    write().map_err(failed("write", &part))
}

/// Removes a file that was taken over, and what it held: a file that was only removed can be brought back.
fn wipe(files: &dyn Files, boot: &Path, path: &Path) -> Result<()> {
    let overwrite = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(config::MAX_FILE);
        file.write_all(&vec![b'\n'; length])?;
        file.sync_all()
    };
    if let Err(error) = overwrite() {
        log::warn!("{} is removed, but its bytes stay on the partition: {error}", path.display());
    }
    files.remove(path).map_err(failed("remove", path))?;
    // What was wrong with an earlier one.
    match files.remove(&boot.join(ERROR)) {
        Err(error) if error.kind() != ErrorKind::NotFound => log::warn!("{ERROR} stays: {error}"),
        _ => {}
    }
    files.sync_tree(boot).map_err(failed("sync", boot))
}

/// Writes what is wrong beside the file, unless it says so already: it is looked at again at each boot.
fn complain(files: &dyn Files, boot: &Path, findings: &[Finding]) -> Option<PathBuf> {
    let path = boot.join(ERROR);
    let mut text = format!("{NAME} was not taken over; correct it and start again.\n\n");
    for finding in findings {
        text.push_str(&format!("{}: {finding}\n", finding.severity));
    }
    // Read on any computer.
    let text = text.replace('\n', "\r\n");
    if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Some(path);
    }
    match write_atomic(files, &path, text.as_bytes(), 0o644) {
        Ok(()) => Some(path),
        Err(error) => {
            log::warn!("cannot write {}: {error}", path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::power::disk::{Cut, Disk, Fault, Platter};
    use super::*;
    use crate::archive::testing::Scratch;
    use crate::sys::RealFiles;

    /// Longer than a sector, so that it can be torn.
    fn settings() -> String {
        format!("{}API:\n  Auth:\n    Token: 0123456789abcdef\n", "# A comment.\n".repeat(100))
    }

    /// What the card has before: written through the disk, so that it is in its log.
    fn card(files: &dyn Files, root: &Path, text: &str) -> (PathBuf, PathBuf) {
        let (boot, etc) = (root.join("boot"), root.join("etc/codling"));
        for dir in [&boot, &etc] {
            files.create_dir(dir).unwrap();
        }
        for (path, text) in [(boot.join(NAME), text), (etc.join("config.yaml"), "API:\n  Port: 77\n")] {
            let mut file = files.create(&path, 0o644).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.sync().unwrap();
        }
        for dir in [root.to_owned(), boot.clone(), root.join("etc"), etc.clone()] {
            files.sync_dir(&dir).unwrap();
        }
        (boot, etc)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let mut names: Vec<_> =
            entries.into_iter().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn settings_move_and_leave_nothing_behind() {
        let scratch = Scratch::new();
        let (boot, etc) = card(&RealFiles, scratch.path(), &settings());
        fs::write(boot.join(ERROR), "earlier").unwrap();
        let Taken::Over { part, warnings } = take_over(&RealFiles, &boot, &etc, None).unwrap() else {
            panic!("not taken over");
        };
        assert_eq!(warnings, Vec::new());
        assert_eq!(fs::read_to_string(&part).unwrap(), settings());
        assert_eq!(part.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(names(&boot), Vec::<String>::new());
        assert!(matches!(take_over(&RealFiles, &boot, &etc, None).unwrap(), Taken::Nothing));
        assert_eq!(fs::read_to_string(&part).unwrap(), settings());
    }

    #[test]
    fn bytes_are_overwritten_before_the_name_goes() {
        let scratch = Scratch::new();
        let (boot, etc) = card(&RealFiles, scratch.path(), &settings());
        // A second name keeps the bytes in sight.
        fs::hard_link(boot.join(NAME), scratch.path().join("seen")).unwrap();
        take_over(&RealFiles, &boot, &etc, None).unwrap();
        let left = fs::read_to_string(scratch.path().join("seen")).unwrap();
        assert_eq!((left.len(), left.trim()), (settings().len(), ""));
    }

    #[test]
    fn wrong_settings_stay_with_the_reason_beside_them() {
        let scratch = Scratch::new();
        let (boot, etc) =
            card(&RealFiles, scratch.path(), "API:\n  Prot: 1\n  Auth:\n    Token: tell-nobody\n");
        for _ in 0..2 {
            let taken = take_over(&RealFiles, &boot, &etc, None).unwrap();
            assert!(matches!(taken, Taken::Refused { error: Some(_), .. }));
            assert_eq!(names(&boot), [NAME, ERROR]);
            assert_eq!(names(&etc), ["config.yaml"]);
        }
        let said = fs::read_to_string(boot.join(ERROR)).unwrap();
        assert!(
            said.contains("API.Prot") && said.contains("API.Port") && !said.contains("tell-nobody"),
            "{said}"
        );
    }

    #[test]
    fn a_file_without_content_undoes_nothing() {
        let scratch = Scratch::new();
        let (boot, etc) = card(&RealFiles, scratch.path(), &settings());
        take_over(&RealFiles, &boot, &etc, None).unwrap();
        for nothing in ["", "\r\n \n", "\0\0\0\0"] {
            fs::write(boot.join(NAME), nothing).unwrap();
            assert!(matches!(take_over(&RealFiles, &boot, &etc, None).unwrap(), Taken::Nothing));
            assert_eq!(names(&boot), Vec::<String>::new());
        }
        assert_eq!(fs::read_to_string(etc.join("config.d").join(PART)).unwrap(), settings());
    }

    /// What holds after any power cut, and after the boot that follows.
    fn check(root: &Path, what: &str) {
        let (boot, etc) = (root.join("boot"), root.join("etc/codling"));
        let part = etc.join("config.d").join(PART);
        let whole = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text == settings());
        assert!(whole(&boot.join(NAME)) || whole(&part), "lost {what}");
        assert!(!part.exists() || whole(&part), "half of it in force {what}");
        take_over(&RealFiles, &boot, &etc, None).unwrap_or_else(|error| panic!("{error} {what}"));
        assert!(whole(&part), "not in force after the next boot {what}");
        assert_eq!(names(&boot), Vec::<String>::new(), "{what}");
        assert_eq!(names(part.parent().unwrap()), [PART], "{what}");
    }

    #[test]
    fn a_power_cut_at_any_step_loses_nothing_and_applies_nothing_by_halves() {
        let scratch = Scratch::new();
        let root = scratch.path().join("card");
        fs::create_dir(&root).unwrap();
        let disk = Disk::new(&root, Fault::Never);
        let (boot, etc) = card(&disk, &root, &settings());
        let before = disk.steps().len();
        take_over(&disk, &boot, &etc, None).unwrap();
        let steps = disk.steps();
        assert!(steps.len() > before + 8, "{steps:?}");
        let mut platter = Platter::default();
        for (n, step) in steps.iter().enumerate() {
            platter.apply(step);
            if n + 1 < before {
                continue;
            }
            let cuts =
                [Cut::Kept, Cut::Lost].into_iter().chain((0..32).map(|i| Cut::Torn((n * 32 + i) as u64)));
            for cut in cuts {
                let left = scratch.path().join("left");
                platter.leave(cut, &left);
                check(&left, &format!("after step {n}, {step:?}; {cut:?}"));
                fs::remove_dir_all(&left).unwrap();
            }
        }
    }

    #[test]
    fn a_step_that_fails_can_be_done_again() {
        for n in 0.. {
            let scratch = Scratch::new();
            let (boot, etc) = card(&RealFiles, scratch.path(), &settings());
            let disk = Disk::new(scratch.path(), Fault::From(n));
            let taken = take_over(&disk, &boot, &etc, None);
            if !disk.failed() {
                assert!(matches!(taken, Ok(Taken::Over { .. })) && n > 8);
                return;
            }
            check(scratch.path(), &format!("after step {n} failed: {taken:?}"));
        }
    }
}
