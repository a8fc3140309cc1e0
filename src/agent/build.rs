//! A node from its settings: all that is there before the first task runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use super::identity::Identity;
use super::{AgentError, Ground, Node};
use crate::archive::{Level, PackOptions, Threads};
use crate::config::{NameProvider, Settings, StorePlace, resolve};
use crate::gate::Tls;
use crate::model::NodeId;
use crate::orchestrator::keep::{JobKeeper, JobPolicy};
use crate::results::{Rows, Shelf, ShelfSettings};
use crate::store::{self, Place, StoreSettings, Stores};
use crate::sys::{Bell, Clock, DiskProbe, Files, Machine, Reserve, StatVfs};

impl Node {
    /// Opens all that a node has.
    ///
    /// # Errors
    /// Something of it cannot be had; see [`AgentError`].
    pub(super) fn build(settings: &Settings, machine: &Machine, ground: Ground) -> Result<Self, AgentError> {
        let Ground { files, clock } = ground;
        let directory = &shelf_dir(settings, &*files)?;
        for dir in [directory, &settings.scratch_dir()] {
            files.create_dir(dir).map_err(|cause| AgentError::Io { path: dir.clone(), cause })?;
        }
        let tls = open_tls(settings, &*clock)?;
        let suggested = || suggested_name(settings, machine);
        let identity = Identity::load_or_create(&*files, &settings.identity_file(), suggested)?;
        if settings.node.name.as_ref().is_some_and(|name| *name != identity.id) {
            log::warn!("the node keeps its name {}; --name counts on its first start only", identity.id);
        }
        let disk: Arc<dyn DiskProbe> = Arc::new(StatVfs::new(directory));
        let space = disk.space().map_err(|cause| AgentError::Io { path: directory.clone(), cause })?;
        let resolved = resolve(settings, machine, space);
        for warning in &resolved.warnings {
            log::warn!("{warning}");
        }
        let reserve = set_aside(settings);
        let (stores, rows) = open_stores(settings, &files, directory)?;
        let (relief, noted) = (Arc::clone(&reserve), Arc::new(OnceLock::<Weak<Shelf>>::new()));
        let note = Arc::clone(&noted);
        stores.on_full(Box::new(move || {
            let released = relief.release();
            if released && let Some(shelf) = note.get().and_then(Weak::upgrade) {
                shelf.note_full();
            }
            released
        }));
        clock.remember(stores.executions.clock_note()?.unwrap_or_default());
        // The table of keys takes 0 to 9 only.
        let level = Level::try_from(settings.results.compression_level).unwrap_or_default();
        let threads = Threads::of(settings.results.pack_threads, machine.cpu.0.div_ceil(1000));
        let shelf_settings = ShelfSettings {
            dir: directory.clone(),
            quota: resolved.quota,
            min_free: resolved.min_free,
            retention: settings.results.retention,
            max_count: settings.results.max_count,
            max_size: resolved.max_size,
            evict_first: settings.results.evict_first,
            pack: PackOptions { level, threads, ..PackOptions::default() },
        };
        let (shelf, swept) =
            Shelf::open_on(files, rows, shelf_settings, stores.executions.clone(), disk, Arc::clone(&clock))?;
        let _ = noted.set(Arc::downgrade(&shelf));
        log::info!(
            "results: {} kept, {} unfinished and {} unlisted archive(s) removed, {} lost, {} evicted",
            swept.kept,
            swept.partials,
            swept.orphans,
            swept.lost.len(),
            swept.evicted.len()
        );
        let mut gone = swept.lost;
        gone.extend(swept.evicted);
        let policy = JobPolicy { retention: settings.store.job_retention, max_jobs: settings.store.max_jobs };
        let (jobs, executions) = (stores.jobs.clone(), stores.executions.clone());
        let keeper = Arc::new(JobKeeper::new(policy, jobs, executions, Arc::clone(&clock)));
        Ok(Self {
            identity,
            machine: machine.clone(),
            resolved,
            stores,
            shelf,
            keeper,
            clock,
            health: Arc::default(),
            readers: Arc::default(),
            bell: Bell::default(),
            tls,
            reserve,
            gone,
        })
    }
}

/// Where archives are kept. A ledger in memory begins empty, and what a ledger does not list is swept: it gets a
/// directory of its own, so that a start with it costs nobody the results of a durable one.
fn shelf_dir(settings: &Settings, files: &dyn Files) -> Result<PathBuf, AgentError> {
    let durable = settings.publisher.directory.clone();
    let volatile = durable.join("memory");
    if settings.store.executions == StorePlace::Memory {
        return Ok(volatile);
    }
    files.remove_tree(&volatile).map_err(|cause| AgentError::Io { path: volatile, cause })?;
    Ok(durable)
}

/// Opens both databases, and reads the ledger of the results in `shelf`.
fn open_stores(
    settings: &Settings,
    files: &Arc<dyn Files>,
    shelf: &Path,
) -> Result<(Stores, Rows), AgentError> {
    let place = |place: &StorePlace, what: &str| match place {
        StorePlace::Redb(path) => Place::Redb(path.clone()),
        StorePlace::Memory => {
            log::warn!("{what} are kept in memory: they are lost when the node stops");
            Place::Memory
        }
    };
    let executions = place(&settings.store.executions, "executions");
    let jobs = place(&settings.store.jobs, "jobs");
    let wanted = StoreSettings {
        cache: settings.store.cache,
        flush_after: settings.store.flush_after,
        ..StoreSettings::new(executions, jobs)
    };
    let (stores, rows) = store::open_on(files, &wanted, |ledger| Rows::read(&**files, ledger, shelf))?;
    Ok((stores, rows?))
}

/// The certificate of both ports, if there is to be one.
fn open_tls(settings: &Settings, clock: &dyn Clock) -> Result<Option<Tls>, AgentError> {
    let Some(files) = settings.api.tls.clone() else { return Ok(None) };
    let now = clock.is_trusted().then(|| clock.now());
    Ok(Some(Tls::open(files.certificate, files.key, now)?))
}

/// Sets disk space aside for the databases. A node without it runs all the same.
fn set_aside(settings: &Settings) -> Arc<Reserve> {
    let path = settings.reserve_file();
    let (reserve, made) = Reserve::new(&path, settings.store.reserve);
    if let Err(error) = made {
        log::warn!("cannot set {} aside in {}: {error}", settings.store.reserve, path.display());
    }
    Arc::new(reserve)
}

/// The name of a node that has none yet.
fn suggested_name(settings: &Settings, machine: &Machine) -> NodeId {
    lasting_name(settings, machine).unwrap_or_else(NodeId::random)
}

/// The name that a node without one gets from its settings and its board; nothing if chance has to give it.
#[must_use]
pub fn lasting_name(settings: &Settings, machine: &Machine) -> Option<NodeId> {
    settings.node.name.clone().or_else(|| match settings.node.name_provider {
        NameProvider::Hostname => machine.hostname.replace('.', "-").parse().ok(),
        NameProvider::Board => machine.tree.serial.as_deref().map(NodeId::of_serial),
        NameProvider::Random => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CliOverrides, FakeEnv, load};

    #[test]
    fn the_default_level_is_the_one_that_was_measured() {
        let env = FakeEnv::of(&[("HOME", "/nowhere")]);
        let loaded = load(&CliOverrides::default(), &env).unwrap();
        assert_eq!(loaded.settings.results.compression_level, Level::default().get());
    }
}
