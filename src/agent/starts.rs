//! A node that goes down soon after it has begun to run jobs, again and again.
//!
//! One number in a small file says how often that has happened in a row. It is written at a start that finds work to
//! do, and removed once the node has run for [`HEALTHY`] or is told to stop. From the second time on running waits,
//! longer each time, and then goes on with one execution at a time: should one of them be what brings the node down,
//! the others are not charged for it. The node answers all the while.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::compute::Compute;
use crate::config::Settings;
use crate::model::backoff::pause_after;
use crate::store::{StoreError, Stores};
use crate::sys::{Condition, Health, Notifier};

/// A node that has been running jobs for this long has got over its start.
const HEALTHY: Duration = Duration::from_secs(60);

/// Digits of the number; what has more is none.
const DIGITS_MAX: u64 = 10;

/// A start of the node.
#[derive(Debug)]
pub(super) struct Start {
    /// The number's file, if this start wrote it.
    path: Option<PathBuf>,
    /// Starts before this one, in a row, that ended before their time.
    earlier: u32,
    pause: Duration,
}

impl Start {
    /// Takes down that the node starts, if it finds work to do: durable when this returns, before the work can do harm.
    ///
    /// # Errors
    /// The store cannot be read. That the number cannot be written is no reason not to start.
    pub(super) fn note(settings: &Settings, stores: &Stores) -> Result<Self, StoreError> {
        if !stores.jobs.any_active()? && stores.executions.active()?.is_empty() {
            forget(settings);
            return Ok(Self { path: None, earlier: 0, pause: Duration::ZERO });
        }
        Ok(Self::count(settings.starts_file(), settings.compute.restart_pause))
    }

    fn count(path: PathBuf, first: Duration) -> Self {
        let earlier = read(&path);
        if let Err(error) = write(&path, earlier.saturating_add(1)) {
            log::warn!("cannot take down in {} that the node starts: {error}", path.display());
        }
        Self { path: Some(path), earlier, pause: pause_after(earlier, first) }
    }

    /// Has runs taken down before they begin, if there was work; and nothing run for now, if the node went down too
    /// often.
    pub(super) fn hold(&self, compute: &Compute, health: &Health) {
        if self.path.is_some() {
            compute.beware();
        }
        if self.pause.is_zero() {
            return;
        }
        let why = format!(
            "the node went down {} times soon after its start: nothing is run for {}",
            self.earlier,
            humantime::format_duration(self.pause)
        );
        log::warn!("{why}");
        compute.hold(&why);
        health.raise(Condition::CrashLoop, why);
    }

    /// Waits until running may go on, and until the node has got over its start.
    pub(super) async fn get_over(
        self,
        compute: Compute,
        health: Arc<Health>,
        notifier: Rc<Notifier>,
        status: String,
    ) {
        let Some(path) = self.path else { return };
        if !self.pause.is_zero() {
            let why = health.why(Condition::CrashLoop).unwrap_or_default();
            notifier.tell(&format!("{status}; {why}"));
            tokio::time::sleep(self.pause).await;
            log::info!("running goes on, one execution at a time");
            health.clear(Condition::CrashLoop);
            notifier.tell(&status);
            compute.release();
        }
        tokio::time::sleep(HEALTHY).await;
        remove(&path);
        compute.trust();
    }
}

/// The node is told to stop: that is not what is counted.
pub(super) fn forget(settings: &Settings) {
    remove(&settings.starts_file());
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// What is not a number says nothing.
fn read(path: &Path) -> u32 {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(DIGITS_MAX + 1).read_to_string(&mut text)) {
        Ok(_) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

/// In place: one small write is all that this costs the flash. Torn, it says nothing, or less than it should.
fn write(path: &Path, count: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all(format!("{count:010}").as_bytes())?;
    file.set_len(DIGITS_MAX)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_until_it_is_over() {
        let path = std::env::temp_dir().join(format!("codling-starts-{}", uuid::Uuid::new_v4()));
        let first = Duration::from_secs(10);
        let start = || Start::count(path.clone(), first);
        let counted: Vec<_> = (0..4).map(|_| start()).map(|s| (s.earlier, s.pause.as_secs())).collect();
        assert_eq!(counted, [(0, 0), (1, 0), (2, 10), (3, 20)]);
        remove(&path);
        remove(&path);
        assert_eq!(start().earlier, 0);
        for nonsense in ["", "x", "-1", "99999999999999"] {
            std::fs::write(&path, nonsense).unwrap();
            assert_eq!((start().earlier, start().earlier), (0, 1), "{nonsense}");
        }
        remove(&path);
        // Nowhere to write: said, and no more.
        assert_eq!(Start::count("/nowhere/at/all".into(), first).earlier, 0);
    }
}
