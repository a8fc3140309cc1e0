//! The one place that builds a node from its settings, starts it, and stops it in order.

mod build;
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
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::compute::bid::Offer;
use crate::compute::runner::Runner;
use crate::compute::{self, Compute};
use crate::config::{Loaded, Resolved, Settings, StorePlace};
use crate::gate::{Tls, TlsError};
use crate::logs::Readers;
use crate::model::backoff::STEADY;
use crate::model::message::FromCompute;
use crate::model::{Board, ClockNote, Deletion, ExecutionRecord, Recognised};
use crate::orchestrator::handle::NodeHandle;
use crate::orchestrator::keep::JobKeeper;
use crate::orchestrator::{self, Orchestrator};
use crate::publisher::{LocalPublisher, Packer};
use crate::results::{Shelf, ShelfError, Surroundings};
use crate::store::{StoreError, Stores};
use crate::sys::{
    Bell, Clock, DeviceTree, Files, Health, JudgedClock, Machine, Notifier, RealFiles, Reserve, SystemTimes,
    device_tree,
};

pub use self::build::lasting_name;
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
