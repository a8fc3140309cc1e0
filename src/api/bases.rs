//! The addresses at which results were to be fetched: what links that were handed out begin with.
//!
//! Nothing is kept with a result. The few addresses that a node has had are kept in one small file, written when a
//! new one is first told to somebody and once a day at most otherwise.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::sys::fs::write_atomic;
use crate::sys::{EARLIEST_BELIEVABLE, Files};

/// Addresses that are kept; the one that was not used for longest leaves.
pub const BASES_MAX: usize = 8;

/// Longest address that is kept.
const LENGTH_MAX: usize = 512;

/// Largest file that is read: what [`BASES_MAX`] addresses take, several times over.
const FILE_MAX: u64 = 16 * 1024;

/// How old the time of last use in the file may become.
const DAY: Duration = Duration::from_secs(86_400);

/// One write is earned in this time; whoever asks by many names does not wear out the flash.
const WRITE_PAUSE: Duration = Duration::from_secs(60);

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Base {
    /// What stands before the name of a result, without the slash.
    #[serde(rename = "URL")]
    pub url: String,
    /// When it was first told; absent while the clock was not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When it was last told, to the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// The addresses, and their file.
pub struct Bases {
    file: Option<PathBuf>,
    files: Arc<dyn Files>,
    state: Mutex<State>,
}

struct State {
    /// The one told last comes first.
    bases: Vec<Base>,
    unsaved: bool,
    writes: usize,
    earned: Instant,
}

impl Bases {
    /// Those of a file; without one they last as long as the node runs. A file that is damaged costs no more than
    /// what `codling results republish` would have said.
    #[must_use]
    pub fn open(file: Option<PathBuf>, files: Arc<dyn Files>) -> Self {
        let bases = file.as_ref().map_or_else(Vec::new, |path| {
            let mut text = String::new();
            let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
            match read {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
                Err(error) => log::warn!("former addresses are forgotten: {}: {error}", path.display()),
                Ok(_) => {}
            }
            let mut bases: Vec<Base> = serde_json::from_str(&text).unwrap_or_else(|error| {
                log::warn!("former addresses are forgotten: {}: {error}", path.display());
                Vec::new()
            });
            bases.truncate(BASES_MAX);
            bases
        });
        let state = State { bases, unsaved: false, writes: BASES_MAX, earned: Instant::now() };
        Self { file, files, state: Mutex::new(state) }
    }

    /// Notes that an address is being told to somebody.
    pub fn note(&self, url: &str, now: Timestamp) {
        if url.len() > LENGTH_MAX {
            return;
        }
        let now = Some(now).filter(|now| *now >= EARLIEST_BELIEVABLE);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.bases.iter().position(|base| base.url == url) {
            Some(at) => {
                let mut base = state.bases.remove(at);
                if let Some(now) = now
                    && base.last.is_none_or(|last| now.since(last) >= DAY)
                {
                    base.first = base.first.or(Some(now));
                    base.last = Some(now);
                    state.unsaved = true;
                }
                state.bases.insert(0, base);
            }
            None => {
                state.bases.insert(0, Base { url: url.to_owned(), first: now, last: now });
                state.bases.truncate(BASES_MAX);
                state.unsaved = true;
            }
        }
        if state.unsaved && state.may_write() {
            state.unsaved = false;
            self.save(&state.bases);
        }
    }

    /// All of them, the one told last first.
    #[must_use]
    pub fn all(&self) -> Vec<Base> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bases.clone()
    }

    fn save(&self, bases: &[Base]) {
        let Some(path) = &self.file else { return };
        let written = serde_json::to_vec(bases)
            .map_err(Into::into)
            .and_then(|text| write_atomic(&*self.files, path, &text, 0o600));
        if let Err(error) = written {
            log::warn!("the node's address is not noted in {}: {error}", path.display());
        }
    }
}

impl State {
    fn may_write(&mut self) -> bool {
        let earned = self.earned.elapsed().as_secs() / WRITE_PAUSE.as_secs();
        if earned > 0 {
            self.writes =
                self.writes.saturating_add(usize::try_from(earned).unwrap_or(BASES_MAX)).min(BASES_MAX);
            self.earned = Instant::now();
        }
        let may = self.writes > 0;
        self.writes = self.writes.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RealFiles;

    const NOW: Timestamp = EARLIEST_BELIEVABLE;

    fn urls(bases: &Bases) -> Vec<String> {
        bases.all().into_iter().map(|base| base.url).collect()
    }

    #[test]
    fn what_was_told_is_known_after_a_restart() {
        let path = std::env::temp_dir().join(format!("codling-{}.json", uuid::Uuid::new_v4()));
        let bases = Bases::open(Some(path.clone()), Arc::new(RealFiles));
        bases.note("http://a:1", Timestamp(5));
        bases.note("http://b:1", NOW);
        let written = std::fs::read(&path).unwrap();
        bases.note("http://b:1", NOW.plus(Duration::from_secs(60)));
        bases.note("http://a:1", Timestamp(6));
        assert_eq!(std::fs::read(&path).unwrap(), written, "what is known is not written again");
        bases.note("http://b:1", NOW.plus(DAY));
        let again = Bases::open(Some(path.clone()), Arc::new(RealFiles));
        let b = Base { url: "http://b:1".into(), first: Some(NOW), last: Some(NOW.plus(DAY)) };
        let a = Base { url: "http://a:1".into(), first: None, last: None };
        assert_eq!(again.all(), [b, a]);
        std::fs::write(&path, "{broken").unwrap();
        assert_eq!(urls(&Bases::open(Some(path.clone()), Arc::new(RealFiles))), Vec::<String>::new());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(urls(&Bases::open(Some(path), Arc::new(RealFiles))), Vec::<String>::new());
    }

    #[test]
    fn many_names_wear_nothing_out() {
        let path = std::env::temp_dir().join(format!("codling-{}.json", uuid::Uuid::new_v4()));
        let bases = Bases::open(Some(path.clone()), Arc::new(RealFiles));
        let mut writes = std::collections::HashSet::new();
        for n in 0..1000 {
            bases.note(&format!("http://n{n}:1"), NOW);
            writes.insert(std::fs::read(&path).unwrap());
        }
        assert!(writes.len() <= BASES_MAX + 2, "{} writes", writes.len());
        assert_eq!(bases.all().len(), BASES_MAX);
        bases.note(&"x".repeat(LENGTH_MAX + 1), NOW);
        assert_eq!(bases.all()[0].url, "http://n999:1");
        std::fs::remove_file(path).unwrap();
    }
}
