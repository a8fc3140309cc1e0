//! The node's front: public sockets, the gate behind them, and the handlers behind that.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crate::api::{
    self, App, Bases, Handlers, Hosts, Links, Names, NodeError, NodeLoad, ResultUrls, UrlSettings,
};
use crate::compute::bid::Offer;
use crate::config::{Host, Settings};
use crate::gate::{self, Gate, GateSettings, InnerAddress, Limits, Parcels, Site, Token};
use crate::logs::Logs;
use crate::model::{EvaluationId, JobId, JobSpec};
use crate::orchestrator::handle::{CoreError, NodeHandle, Renewal, Submitted, Why};
use crate::wire::NodeFacts;

use super::reload::Reload;
use super::{Addresses, AgentError, Node};

/// A front that is open.
pub(super) struct Front {
    gate: Gate,
    handlers: Handlers,
    addresses: Addresses,
    reload: Reload,
}

impl Front {
    pub(super) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What SIGHUP is to read again.
    pub(super) fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Lets nobody in any more; requests and downloads under way may take that long to finish.
    pub(super) async fn stop(self, patience: Duration) {
        self.gate.close(patience).await;
        // Nobody is left to ask: a handler has at most one answer to finish.
        self.handlers.stop(patience).await;
    }
}

/// Opens the front of `node`.
pub(super) async fn start(
    settings: &Settings,
    node: &Node,
    offer: &Offer,
    handle: NodeHandle,
) -> Result<Front, AgentError> {
    let api = listen(&settings.api.host, settings.api.port, "API.Host and API.Port")?;
    let results = &settings.publisher;
    let shelf = listen(&results.bind, results.port, "Publishers.Types.Local.Bind and .Port")?;
    let bound = |listener: &TcpListener| listener.local_addr().map_err(AgentError::System);
    let tls = node.tls.clone();
    let addresses = Addresses { api: bound(&api)?, results: bound(&shelf)?, tls: tls.is_some() };
    let parcels = Parcels::default();
    let token = settings.api.token.clone().map(Token::new);
    let reload = Reload::new(settings, token.as_ref(), tls.as_ref(), &node.clock);
    let app = App {
        node: Box::new(Core(handle)),
        jobs: node.stores.jobs.clone(),
        executions: node.stores.executions.clone(),
        shelf: Arc::clone(&node.shelf),
        health: Arc::clone(&node.health),
        keeper: Arc::clone(&node.keeper),
        clock: Arc::clone(&node.clock),
        facts: facts(node, offer),
        urls: urls(settings, node, addresses.results),
        hosts: hosts(settings, node),
        names: Names::default(),
        token: token.clone(),
        parcels: parcels.clone(),
        ended: Default::default(),
        started: node.clock.now(),
    };
    let inner = InnerAddress::default();
    let handlers = Handlers::start(Arc::new(app), &settings.data_dir.join("run"), inner.clone())
        .map_err(AgentError::System)?;
    let gate = gate::open(GateSettings {
        limits: Limits {
            download_rate: settings.results.download_rate.0,
            client_rate: settings.results.download_rate_per_client.0,
            ..Limits::default()
        },
        sites: vec![
            Site { name: api::API, listeners: vec![api], rules: api::rules_of_api },
            Site { name: api::RESULTS, listeners: vec![shelf], rules: api::rules_of_results },
        ],
        inner,
        parcels,
        logs: Logs {
            jobs: node.stores.jobs.clone(),
            executions: node.stores.executions.clone(),
            shelf: Arc::clone(&node.shelf),
            scratch: settings.scratch_dir(),
            readers: Arc::clone(&node.readers),
            bell: node.bell.clone(),
        },
        token,
        tls: tls.clone(),
    })
    .map_err(AgentError::System)?;
    Ok(Front { gate, handlers, addresses, reload })
}

fn listen(host: &Host, port: u16, key: &'static str) -> Result<TcpListener, AgentError> {
    let failed = |cause| AgentError::Listen { address: format!("{host}:{port}"), key, cause };
    let address = match host {
        Host::Ip(ip) => SocketAddr::new(*ip, port),
        Host::Name(name) => (name.as_str(), port)
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable)))?,
    };
    gate::bind(address).map_err(failed)
}

fn urls(settings: &Settings, node: &Node, bind: SocketAddr) -> ResultUrls {
    let results = &settings.publisher;
    let files = node.shelf.files();
    let links = |lifetime| {
        Links::new(lifetime, settings.link_key_file(), Arc::clone(&files), Arc::clone(&node.clock))
    };
    let urls = ResultUrls::new(UrlSettings {
        advertise: results.advertise.clone(),
        bind,
        scheme: if node.tls.is_some() { "https" } else { "http" },
        links: results.link_lifetime.map(links),
        bases: Bases::open(Some(settings.addresses_file()), Arc::clone(&files)),
        clock: Arc::clone(&node.clock),
    });
    // Of a loopback socket the settings have warned.
    if let Some(warning) = urls.warning_at_start().filter(|_| !results.bind.is_loopback()) {
        log::warn!("{warning}");
    }
    urls
}

/// The names that the API answers to: the machine's, that of its own setting, and those that are allowed.
fn hosts(settings: &Settings, node: &Node) -> Hosts {
    let mut names = settings.api.allowed_hosts.clone();
    if let Host::Name(name) = &settings.api.host {
        names.push(name.clone());
    }
    Hosts::new(&node.machine.hostname, &names)
}

fn facts(node: &Node, offer: &Offer) -> NodeFacts {
    NodeFacts {
        id: node.identity.id.to_string(),
        labels: offer.labels.clone(),
        engines: offer.engines.clone(),
        publishers: offer.publishers.clone(),
        sources: offer.sources.clone(),
        capacity: offer.capacity,
        max_job: offer.per_job,
        available: offer.capacity,
        running: 0,
        queued: 0,
        results: None,
        disk: String::new(),
    }
}

/// The core, as the handlers know it.
struct Core(NodeHandle);

impl api::Node for Core {
    fn submit(&self, spec: JobSpec) -> Result<api::Submitted, NodeError> {
        let taken = self.0.submit(spec)?;
        Ok(submitted(taken))
    }

    fn update(&self, id: &JobId, spec: JobSpec, force: bool) -> Result<api::Submitted, NodeError> {
        let why = Why::Update { force };
        Ok(submitted(self.0.renew(Renewal { id: id.clone(), spec, why })?))
    }

    fn rerun(&self, id: &JobId, spec: JobSpec, reason: &str) -> Result<api::Submitted, NodeError> {
        let why = Why::Rerun { reason: reason.to_owned() };
        Ok(submitted(self.0.renew(Renewal { id: id.clone(), spec, why })?))
    }

    fn complete(&self, spec: JobSpec) -> Result<JobSpec, NodeError> {
        Ok(self.0.complete(spec)?)
    }

    fn stop(&self, id: &JobId, reason: &str) -> Result<EvaluationId, NodeError> {
        Ok(self.0.stop(id, reason)?)
    }

    fn load(&self) -> Result<NodeLoad, NodeError> {
        let load = self.0.load()?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(NodeLoad { running: count(load.running), queued: count(load.queued), available: load.available })
    }

    fn check(&self) -> Result<(), NodeError> {
        Ok(self.0.check()?)
    }
}

fn submitted(taken: Submitted) -> api::Submitted {
    let Submitted { job_id, version, evaluation_id } = taken;
    api::Submitted { job_id, version, evaluation_id }
}

impl From<CoreError> for NodeError {
    fn from(error: CoreError) -> Self {
        match error {
            CoreError::Invalid(problems) => Self::Invalid(problems),
            CoreError::NotFound(what) => Self::NotFound(what),
            CoreError::Conflict(illegal) => Self::Conflict(illegal.to_string()),
            CoreError::Unchanged { .. } => Self::Unchanged(error.to_string()),
            CoreError::TooManyJobs { .. } => Self::TooMany(error.to_string()),
            CoreError::Disk(report) => Self::Disk(report),
            CoreError::Store(error) => Self::Store(error),
            CoreError::Stopping => Self::Unavailable(error.to_string()),
            CoreError::Internal(what) => Self::Internal(what),
        }
    }
}
