//! The one place that builds a node from its settings, starts it, and stops it in order.

mod deletions;
mod desk;
pub mod first_boot;
mod forget;
mod identity;
mod janitor;
mod lock;
mod news;
mod offer;
#[cfg(test)]
mod power;
mod reload;
mod serve;
mod starts;
mod stop;
mod tidy;
mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::archive::{Level, PackOptions, Threads};
use crate::compute::bid::Offer;
use crate::compute::runner::Runner;
use crate::compute::{self, Compute};
use crate::config::{Loaded, Resolved, Settings, StorePlace, resolve};
use crate::gate::{Tls, TlsError};
use crate::logs::Readers;
use crate::model::backoff::STEADY;
use crate::model::message::FromCompute;
use crate::model::{Board, ClockNote, Deletion, ExecutionRecord, NodeId, Recognised};
use crate::orchestrator::handle::NodeHandle;
use crate::orchestrator::keep::{JobKeeper, JobPolicy};
use crate::orchestrator::{self, Orchestrator};
use crate::publisher::{LocalPublisher, Packer};
use crate::results::{Rows, Shelf, ShelfError, ShelfSettings, Surroundings};
use crate::store::{self, Place, StoreError, StoreSettings, Stores};
use crate::sys::{
    Bell, Clock, DeviceTree, DiskProbe, Files, Health, JudgedClock, Machine, Notifier, RealFiles, Reserve,
    StatVfs, SystemTimes, device_tree,
};

use self::deletions::Deletions;
use self::desk::{Desk, obey};
use self::forget::{Databases, Forget};
pub use self::identity::{Identity, IdentityError};
use self::lock::DataDirLock;
use self::news::News;
use self::starts::Start;
use self::stop::{Signals, Stopping};

/// Why the node does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A directory or file cannot be used.
    #[error("cannot use {path}: {cause}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another node works there.
    #[error("{0} is in use by another node; stop that one, or choose another --data-dir")]
    InUse(PathBuf),
    /// The node does not know who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A database cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The results directory cannot be used.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; choose another with {key}")]
    Listen {
        /// Which.
        address: String,
        /// The setting that chooses it.
        key: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The settings are made for another board.
    #[error(
        "Board: the settings are made for {wanted}, and this is {found}; take the settings of this board \
         (board-configs/, in the package /usr/share/codling/boards/), or remove the key Board from them"
    )]
    WrongBoard {
        /// The one of the settings.
        wanted: Board,
        /// What the machine calls itself.
        found: String,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no thread or runtime.
    #[error("cannot start: {0}")]
    System(#[source] io::Error),
}

/// Where a started node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// The results.
    pub results: SocketAddr,
    /// Whether both speak TLS.
    pub tls: bool,
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT). `ready` is called once it answers.
///
/// # Errors
/// It could not start; see [`AgentError`].
pub fn run(loaded: &Loaded, ready: impl FnOnce(Addresses)) -> Result<(), AgentError> {
    let settings = &loaded.settings;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let machine = Machine::detect().with_tree(DeviceTree::named(std::env::var_os(device_tree::VARIABLE)));
    right_board(settings, &machine)?;
    let _lock = DataDirLock::take(&settings.data_dir)?;
    let node = Node::build(settings, &machine, Ground::real())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(AgentError::System)?;
    let notifier = Notifier::new(|name| std::env::var_os(name));
    LocalSet::new().block_on(&runtime, node.serve(settings, notifier, ready))?;
    log::info!("stopped");
    Ok(())
}

/// Refuses settings that are made for another board: what is right for one can be the end of another's memory.
fn right_board(settings: &Settings, machine: &Machine) -> Result<(), AgentError> {
    let Some(wanted) = settings.board else { return Ok(()) };
    match machine.tree.board() {
        Recognised::Known(board) if board == wanted => Ok(()),
        Recognised::Silent => {
            log::warn!("Board: the settings are made for {wanted}; whether this is one cannot be told");
            Ok(())
        }
        Recognised::Known(_) | Recognised::Other => {
            Err(AgentError::WrongBoard { wanted, found: machine.tree.describe() })
        }
    }
}

/// What a node stands on.
struct Ground {
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
}

impl Ground {
    fn real() -> Self {
        Self {
            files: Arc::new(RealFiles),
            clock: Arc::new(JudgedClock::new(SystemTimes, ClockNote::default())),
        }
    }
}

/// Everything that is there before the first task runs.
struct Node {
    identity: Identity,
    machine: Machine,
    resolved: Resolved,
    stores: Stores,
    shelf: Arc<Shelf>,
    keeper: Arc<JobKeeper>,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    /// Who follows the logs of executions, and what tells them of news.
    readers: Arc<Readers>,
    bell: Bell,
    tls: Option<Tls>,
    /// Disk space set aside for the databases.
    reserve: Arc<Reserve>,
    /// Results that the start found missing or had to delete.
    gone: Vec<Deletion>,
}

impl Node {
    fn build(settings: &Settings, machine: &Machine, ground: Ground) -> Result<Self, AgentError> {
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

    /// What the shelf has to know beside itself.
    fn surroundings(&self, settings: &Settings, compute: &Compute) -> Surroundings {
        let (executions, jobs) = (self.stores.executions.clone(), self.stores.jobs.clone());
        let bell = compute.disk_bell();
        let mut files = vec![settings.reserve_file()];
        files.extend([&settings.store.executions, &settings.store.jobs].into_iter().filter_map(|place| {
            match place {
                StorePlace::Redb(path) => Some(path.clone()),
                StorePlace::Memory => None,
            }
        }));
        Surroundings {
            trouble: Box::new(move || executions.trouble().or_else(|| jobs.trouble())),
            reserve: Arc::clone(&self.reserve),
            files,
            wake: Box::new(move || bell.notify_one()),
        }
    }

    /// The life of the node on its core thread.
    async fn serve(
        self,
        settings: &Settings,
        notifier: Notifier,
        ready: impl FnOnce(Addresses),
    ) -> Result<(), AgentError> {
        let mut signals = Signals::listen().map_err(AgentError::System)?;
        let notifier = Rc::new(notifier);
        let packer = Packer::start().map_err(AgentError::System)?;
        let (reports, mut reported) = mpsc::unbounded_channel();
        let offer = offer::offer(settings, &self.resolved, &self.machine, &self.identity.id);
        log::info!(
            "jobs that ask for a network are {}",
            if offer.reject_networked { "refused" } else { "taken" }
        );
        let runner = offer::runner(settings, self.resolved.quota, &self.shelf, self.bell.clone());
        let (compute, orchestrator) = self.roles(settings, &offer, runner, packer.clone(), reports);
        self.shelf.surround(self.surroundings(settings, &compute));
        let start = Start::note(settings, &self.stores)?;
        start.hold(&compute, &self.health);
        let mut deletions = deletions::hook(&self.shelf, deletions::DELETIONS_MAX)?;
        self.recover(settings, &compute, &orchestrator, &mut deletions).await?;
        // What compute can say of the last run is heard before anybody asks.
        while let Ok(report) = reported.try_recv() {
            orchestrator.on_report(report);
        }
        // Nor does anybody see the stores before all of that is in them. If they fail, commits say so.
        let _ = self.stores.executions.ping().await;
        let (handle, commands) = NodeHandle::new();
        let front = serve::start(settings, &self, &offer, handle).await?;
        tokio::task::spawn_local(deletions.note(orchestrator.clone(), Arc::clone(&self.shelf)));
        self.keep_house(&compute, &orchestrator, &packer);
        let news = News::new(&self.bell, &self.stores.executions);
        let desk = Desk {
            orchestrator: orchestrator.clone(),
            compute: compute.clone(),
            shelf: Arc::clone(&self.shelf),
            packer: packer.clone(),
            news: news.clone(),
        };
        tokio::task::spawn_local(obey(desk, commands));
        let listener = orchestrator.clone();
        let pump = tokio::task::spawn_local(async move {
            while let Some(report) = reported.recv().await {
                listener.on_report(report);
                news.tell();
            }
        });
        front.reload().start().map_err(AgentError::System)?;
        let addresses = front.addresses();
        ready(addresses);
        let status = format!("STATUS=API on {}, results on {}", addresses.api, addresses.results);
        notifier.tell(&format!("READY=1\n{status}"));
        tokio::task::spawn_local(watchdog::run(Rc::clone(&notifier), self.stores.executions.clone()));
        let health = Arc::clone(&self.health);
        tokio::task::spawn_local(start.get_over(compute.clone(), health, Rc::clone(&notifier), status));
        crate::sys::text::release_pages();
        signals.next().await;
        tokio::task::spawn_local(signals.end_at_once());
        starts::forget(settings);
        let patience = settings.compute.stop_timeout;
        let (health, stores, shelf) = (self.health, self.stores, self.shelf);
        Stopping { health, notifier, orchestrator, compute, front, pump, stores, shelf, patience }
            .stop()
            .await
    }

    /// Starts what looks after results, jobs, disk and memory for as long as the node runs.
    fn keep_house(&self, compute: &Compute, orchestrator: &Orchestrator, packer: &Packer) {
        let databases = Databases {
            keeper: Arc::clone(&self.keeper),
            shelf: Arc::clone(&self.shelf),
            jobs: self.stores.jobs.clone(),
            executions: self.stores.executions.clone(),
        };
        let (compute, orchestrator) = (compute.clone(), orchestrator.clone());
        let forget = Forget {
            databases,
            packer: packer.clone(),
            compute: compute.clone(),
            orchestrator: orchestrator.clone(),
        };
        tokio::task::spawn_local(forget.run());
        let (shelf, clock) = (Arc::clone(&self.shelf), Arc::clone(&self.clock));
        tokio::task::spawn_local(janitor::run(shelf, packer.clone(), clock));
        tokio::task::spawn_local(tidy::run(compute.clone(), orchestrator, packer.clone()));
        tokio::task::spawn_local(compute.watch_disk());
    }

    /// Both roles, each as the other's counterpart.
    fn roles(
        &self,
        settings: &Settings,
        offer: &Offer,
        runner: Arc<dyn Runner>,
        packer: Packer,
        reports: mpsc::UnboundedSender<FromCompute>,
    ) -> (Compute, Orchestrator) {
        let jobs = self.stores.jobs.clone();
        let compute = Compute::new(compute::Parts {
            offer: offer.clone(),
            running_max: usize::try_from(settings.compute.max_executions).unwrap_or(usize::MAX),
            scratch: settings.scratch_dir(),
            store: self.stores.executions.clone(),
            bodies: Box::new(move |record: &ExecutionRecord| jobs.body(&record.digest).ok().flatten()),
            shelf: Arc::clone(&self.shelf),
            publisher: LocalPublisher::new(Arc::clone(&self.shelf), packer.clone()),
            packer,
            readers: Arc::clone(&self.readers),
            runner,
            clock: Arc::clone(&self.clock),
            reports,
            restart_pause: settings.compute.restart_pause,
            outbox: false,
        });
        let link = compute.clone();
        let orchestrator = Orchestrator::new(orchestrator::Parts {
            node: self.identity.id.clone(),
            store: self.stores.jobs.clone(),
            clock: Arc::clone(&self.clock),
            defaults: offer::job_defaults(settings, &self.resolved),
            link: Box::new(move |message| link.handle(message)),
            steady: STEADY,
        });
        (compute, orchestrator)
    }

    /// Settles what the last run of the node left, and says what was done.
    async fn recover(
        &self,
        settings: &Settings,
        compute: &Compute,
        orchestrator: &Orchestrator,
        deletions: &mut Deletions,
    ) -> Result<(), AgentError> {
        let recovered = compute.recover().await?;
        let active = orchestrator.recover()?;
        deletions.catch_up(orchestrator, &self.shelf, &self.gone, settings.store.flush_after).await;
        if active > 0 || recovered != compute::Recovered::default() {
            log::info!(
                "after the restart: {active} job(s) go on, {} execution(s) were cut off, {} result(s) are being \
                 published, {} leftover(s) removed",
                recovered.interrupted,
                recovered.resumed,
                recovered.swept
            );
        }
        Ok(())
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
    use crate::config::NameProvider;
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
