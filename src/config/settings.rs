//! The settings of a node, typed and checked: what the rest of the program sees of `config`.
//!
//! Amounts may still be percentages here; [`super::resolve()`] turns them into bytes and cores of the machine at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::values::{Advertise, Host, LocalPath, Scale, Secret};
use crate::model::{Board, Bytes, EvictFirst, JobType, MilliCpu, NodeId, ResourceRequest};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `DataDir`: where the node keeps its state. Absolute.
    pub data_dir: PathBuf,
    /// `Board`: the board that the settings are for, if for one only.
    pub board: Option<Board>,
    /// Who the node is.
    pub node: Node,
    /// `API.*`.
    pub api: Api,
    /// `Compute.*`: what jobs may use.
    pub compute: Compute,
    /// `JobAdmissionControl.*`: which jobs are taken.
    pub admission: Admission,
    /// `JobDefaults.*`: what a job gets that does not say.
    pub job_defaults: JobDefaults,
    /// Engines, publishers and input sources that are switched off.
    pub disabled: Disabled,
    /// `InputSources.*`.
    pub inputs: Inputs,
    /// `Publishers.Types.Local.*`.
    pub publisher: LocalPublisher,
    /// `Results.*`: what is kept, and for how long.
    pub results: Results,
    /// `Store.*`: where jobs and executions are recorded.
    pub store: Store,
    /// `Logging.Level`.
    pub log_level: log::LevelFilter,
}

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `Name`: used when the node has no identity yet; an identity that is stored wins.
    pub name: Option<NodeId>,
    /// `NameProvider`: where the name comes from if none is given.
    pub name_provider: NameProvider,
    /// `Labels`: added to those that the node gives itself.
    pub labels: BTreeMap<String, String>,
}

/// Where the name of an unnamed node comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameProvider {
    /// `puuid`: `n-` and a UUID made from the board's serial number, so that it is the same after the card was written
    /// anew; random where there is none.
    Board,
    /// `uuid`: `n-` and a random UUID, kept.
    Random,
    /// `hostname`: the machine's, dots replaced by dashes.
    Hostname,
}

/// The API's socket and who may use it. A host that is not loopback always comes with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// `API.Host`.
    pub host: Host,
    /// `API.Port`; 0 takes any free one.
    pub port: u16,
    /// `API.Auth.Token`, or what stands in `API.Auth.TokenFile`: the bearer token that callers show.
    pub token: Option<Secret>,
    /// `API.AllowedHosts`: names besides its own by which an API without a token lets itself be called. Lower case.
    pub allowed_hosts: Vec<String>,
    /// `API.Auth.TokenFile`, if the token came from there.
    pub token_file: Option<PathBuf>,
    /// `API.TLS.CertFile` and `API.TLS.KeyFile`, if API and results are to speak TLS.
    pub tls: Option<TlsFiles>,
}

/// Where a certificate is. Both absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What jobs may use in all, and each of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Compute {
    /// `Compute.AllocatedCapacity.CPU`, of the machine's.
    pub cpu: Scale<MilliCpu>,
    /// `Compute.AllocatedCapacity.Memory`, of the machine's.
    pub memory: Scale<Bytes>,
    /// `Compute.AllocatedCapacity.Disk`, of the results quota.
    pub disk: Scale<Bytes>,
    /// `Compute.AllocatedCapacity.GPU`, of the machine's.
    pub gpu: Scale<u32>,
    /// `Compute.JobCapacity.*`: most that one execution may ask for; absent is no limit but the capacity.
    pub job_max: ResourceRequest,
    /// `Compute.JobDisk`: disk of an execution that does not ask for any.
    pub job_disk: Bytes,
    /// `Compute.MaxExecutions`: how many run at the same time, however small they are.
    pub max_executions: u32,
    /// `Compute.MaxExecutionTimeout`: longest that one execution may take; `None` is no limit.
    pub max_execution_timeout: Option<Duration>,
    /// `Compute.StopTimeout`: how long a stop waits for what is in hand.
    pub stop_timeout: Duration,
    /// `Compute.RestartPause`: first pause before what went down with the node is run again; zero is none.
    pub restart_pause: Duration,
    /// `Compute.MaxLogSize`: bytes of standard output, and of standard error, that an execution may keep.
    pub max_log: Bytes,
    /// `Compute.AllowListedLocalPaths`: paths of this machine that jobs may have as inputs.
    pub local_paths: Vec<LocalPath>,
}

/// Which jobs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// `JobAdmissionControl.Locality` is `local`: every input must be on this machine.
    pub local_inputs_only: bool,
    /// `JobAdmissionControl.RejectStatelessJobs`: jobs without inputs are refused.
    pub reject_stateless: bool,
    /// `JobAdmissionControl.RejectNetworkedJobs`: jobs that ask for the network are refused.
    pub reject_networked: bool,
}

/// What a job gets that does not say, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDefaults {
    /// `JobDefaults.Batch.*`.
    pub batch: TypeDefaults,
    /// `JobDefaults.Ops.*`.
    pub ops: TypeDefaults,
}

impl JobDefaults {
    /// Those of a job of that type. Types that run for ever have none of their own.
    #[must_use]
    pub const fn of(&self, job_type: JobType) -> &TypeDefaults {
        match job_type {
            JobType::Batch | JobType::Service => &self.batch,
            JobType::Ops | JobType::Daemon => &self.ops,
        }
    }
}

/// Defaults of one type of job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDefaults {
    /// `Priority`.
    pub priority: i32,
    /// `Task.Resources.*`, before they are fitted to the machine: see [`super::Resolved`].
    pub resources: ResourceRequest,
    /// `Task.Publisher.Type`, if a job without publisher is to get one.
    pub publisher: Option<String>,
    /// `Task.Timeouts.ExecutionTimeout`; zero is none.
    pub execution_timeout: Duration,
    /// `Task.Timeouts.TotalTimeout`; zero is none.
    pub total_timeout: Duration,
}

/// What is switched off. Names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disabled {
    /// `Engines.Disabled`.
    pub engines: Vec<String>,
    /// `Publishers.Disabled`.
    pub publishers: Vec<String>,
    /// `InputSources.Disabled`.
    pub sources: Vec<String>,
}

/// How inputs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// `InputSources.ReadTimeout`.
    pub read_timeout: Duration,
    /// `InputSources.MaxRetryCount`.
    pub max_retries: u32,
    /// `InputSources.AllowLocalAddresses`: URLs may lead to this machine.
    pub allow_local: bool,
}

/// Where results are kept and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPublisher {
    /// `Publishers.Types.Local.Bind`: address of the results server's socket.
    pub bind: Host,
    /// `Publishers.Types.Local.Port`; 0 takes any free one.
    pub port: u16,
    /// `Publishers.Types.Local.Address`: what stands in the URLs of results.
    pub advertise: Advertise,
    /// `Publishers.Types.Local.LinkLifetime`: how long a URL can be used; `None` is for ever, and unsigned.
    pub link_lifetime: Option<Duration>,
    /// `Publishers.Types.Local.Directory`. Absolute.
    pub directory: PathBuf,
}

/// What is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Results {
    /// `Results.Quota`, of the file system's size: results, scratch and cache together never exceed it.
    pub quota: Scale<Bytes>,
    /// `Results.MinFree`, of the file system's size; `None` is the default (256 MiB, but at most 5 %).
    pub min_free: Option<Scale<Bytes>>,
    /// `Results.Retention`; zero is for ever.
    pub retention: Duration,
    /// `Results.MaxCount`.
    pub max_count: u32,
    /// `Results.MaxSize`, of the file system's size, if there is such a limit.
    pub max_size: Option<Scale<Bytes>>,
    /// `Results.EvictFirst`.
    pub evict_first: EvictFirst,
    /// `Results.CompressionLevel`, 0 (none) to 9.
    pub compression_level: u8,
    /// `Results.PackThreads`: threads that compress a result, 1 to 8; 0 leaves it to the machine.
    pub pack_threads: u8,
    /// `Results.DownloadRate`: bytes a second, zero being no limit.
    pub download_rate: Bytes,
    /// `Results.DownloadRatePerClient`: the same for each address.
    pub download_rate_per_client: Bytes,
}

/// Where jobs and executions are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `Store.Compute.Type` and `.Path`.
    pub executions: StorePlace,
    /// `Store.Jobs.Type` and `.Path`.
    pub jobs: StorePlace,
    /// `Store.CacheSize`, of each database.
    pub cache: Bytes,
    /// `Store.JobRetention`; zero is for ever.
    pub job_retention: Duration,
    /// `Store.MaxJobs`.
    pub max_jobs: u32,
    /// `Store.Reserve`: disk space set aside for the databases; zero is none.
    pub reserve: Bytes,
    /// `Store.FlushInterval`: when what need not be durable at once becomes so.
    pub flush_after: Duration,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// A file; absolute.
    Redb(PathBuf),
    /// Memory: lost at restart.
    Memory,
}

impl Settings {
    /// Where executions work.
    #[must_use]
    pub fn scratch_dir(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    /// What is set aside for the databases.
    #[must_use]
    pub fn reserve_file(&self) -> PathBuf {
        self.data_dir.join("reserve")
    }

    /// What may be deleted at any time.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.data_dir.join("cache")
    }

    /// How often the node went down soon after its start.
    #[must_use]
    pub fn starts_file(&self) -> PathBuf {
        self.data_dir.join("starts")
    }

    /// The key that signs links to results.
    #[must_use]
    pub fn link_key_file(&self) -> PathBuf {
        self.data_dir.join("link.key")
    }

    /// Addresses at which results were to be fetched.
    #[must_use]
    pub fn addresses_file(&self) -> PathBuf {
        self.data_dir.join("addresses.json")
    }

    /// The node's identity.
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.data_dir.join("node.json")
    }

    /// Where the executions' database is if nobody says.
    #[must_use]
    pub fn default_executions_path(data_dir: &Path) -> PathBuf {
        data_dir.join("compute/executions.db")
    }

    /// Where the jobs' database is if nobody says.
    #[must_use]
    pub fn default_jobs_path(data_dir: &Path) -> PathBuf {
        data_dir.join("orchestrator/jobs.db")
    }
}
