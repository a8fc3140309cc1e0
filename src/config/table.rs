//! The keys that do something here. Facts of Bacalhau's are from config.md sections 2 to 5.
//!
//! Defaults fit a board with 512 MB: amounts are parts of the machine wherever there is a whole to take a part of.

use super::keys::{How, Key, Old, key, same};
use super::kind::Kind;
use super::unused;
use crate::model::{Board, Bytes};

/// Every key, group by group.
pub(super) static GROUPS: &[&[Key]] = &[
    NODE,
    API,
    ROLE,
    COMPUTE,
    ADMISSION,
    BATCH,
    OPS,
    PROVIDERS,
    PUBLISHER,
    RESULTS,
    STORE,
    LOGGING,
    unused::NEW,
    unused::ORCHESTRATOR,
    unused::OLD,
];

const NODE: &[Key] = &[
    key(
        "DataDir",
        Kind::Path,
        "~/.codling",
        "where the node keeps its state (as a service: its state directory)",
    )
    .env(&["BACALHAU_DIR"])
    .flags(&["--data-dir", "--repo"]),
    key(
        "Board",
        Kind::Word(Board::NAMES),
        "",
        "the board that these settings are for: the node does not start on another; empty: any",
    ),
    key("Name", Kind::NodeName, "", "name of the node when it first starts; the name that it has then stays")
        .old(&[same("Node.Name")])
        .flags(&["--name"]),
    key(
        "NameProvider",
        Kind::Word(&["puuid", "uuid", "hostname", "aws", "gcp"]),
        "puuid",
        "where the name comes from if none is given: the board's serial number (puuid; without one, random), chance, or the host name",
    )
    .old(&[same("Node.NameProvider")]),
    key("Labels", Kind::Map, "", "labels of the node, which jobs may ask for").old(&[same("Node.Labels")]),
];

const ROLE: &[Key] = &[key(
    "Orchestrator.Enabled",
    Kind::Bool,
    "true",
    "accept and schedule jobs; both roles run in one process",
)
.old(&[Old { path: "Node.Type", how: How::Has("requester") }])
.flags(&["--orchestrator", "--node-type"])];

const API: &[Key] = &[
    key(
        "API.Host",
        Kind::Host,
        "127.0.0.1",
        "address of the API; one that is not loopback needs API.Auth.Token",
    )
    .env(&["BACALHAU_SERVER_HOST"])
    .old(&[same("Node.ServerAPI.Host")])
    .flags(&["--api-host", "--host"]),
    key("API.Port", Kind::Port, "1234", "port of the API; 0 takes any free one")
        .env(&["BACALHAU_SERVER_PORT"])
        .old(&[same("Node.ServerAPI.Port")])
        .flags(&["--api-port", "--port"]),
    key(
        "API.AllowedHosts",
        Kind::List,
        "",
        "names besides localhost and the machine's own by which clients reach an API without a token",
    ),
    key("API.Auth.Token", Kind::Token, "", "token that callers of the API show (Authorization: Bearer ...)")
        .secret(),
    key("API.Auth.TokenFile", Kind::Path, "", "file that holds the token, so that no setting does")
        .env(&["BACALHAU_API_AUTH_TOKEN_FILE"]),
    key(
        "API.TLS.CertFile",
        Kind::Path,
        "",
        "certificate in PEM form, with its chain: API and results speak TLS",
    )
    .env(&["BACALHAU_TLS_CERT"])
    .old(&[same("Node.ServerAPI.TLS.ServerCertificate")])
    .flags(&["--tlscert"]),
    key("API.TLS.KeyFile", Kind::Path, "", "private key of the certificate, in PEM form")
        .env(&["BACALHAU_TLS_KEY"])
        .old(&[same("Node.ServerAPI.TLS.ServerKey")])
        .flags(&["--tlskey"]),
];

const COMPUTE: &[Key] = &[
    key("Compute.Enabled", Kind::Bool, "true", "run jobs; both roles run in one process")
        .old(&[Old { path: "Node.Type", how: How::Has("compute") }])
        .flags(&["--compute", "--node-type"]),
    key(
        "Compute.AllocatedCapacity.CPU",
        Kind::CpuScale,
        "80%",
        "CPU that jobs may use in all, of the machine's",
    )
    .old(&[same("Node.Compute.Capacity.TotalResourceLimits.CPU")]),
    key(
        "Compute.AllocatedCapacity.Memory",
        Kind::SizeScale,
        "80%",
        "memory that jobs may use in all, of the machine's",
    )
    .old(&[same("Node.Compute.Capacity.TotalResourceLimits.Memory")]),
    key(
        "Compute.AllocatedCapacity.Disk",
        Kind::SizeScale,
        "80%",
        "disk that jobs may use while they run, of Results.Quota",
    )
    .old(&[same("Node.Compute.Capacity.TotalResourceLimits.Disk")]),
    key(
        "Compute.AllocatedCapacity.GPU",
        Kind::GpuScale,
        "100%",
        "GPUs that jobs may use in all, of the machine's",
    )
    .old(&[same("Node.Compute.Capacity.TotalResourceLimits.GPU")]),
    key(
        "Compute.JobCapacity.CPU",
        Kind::Cpu,
        "",
        "most CPU that one execution may ask for; empty: all there is",
    )
    .old(&[same("Node.Compute.Capacity.JobResourceLimits.CPU")]),
    key(
        "Compute.JobCapacity.Memory",
        Kind::Size(Bytes::ZERO, MOST),
        "",
        "most memory that one execution may ask for",
    )
    .old(&[same("Node.Compute.Capacity.JobResourceLimits.Memory")]),
    key(
        "Compute.JobCapacity.Disk",
        Kind::Size(Bytes::ZERO, MOST),
        "",
        "most disk that one execution may ask for",
    )
    .old(&[same("Node.Compute.Capacity.JobResourceLimits.Disk")]),
    key("Compute.JobCapacity.GPU", Kind::Gpu, "", "most GPUs that one execution may ask for")
        .old(&[same("Node.Compute.Capacity.JobResourceLimits.GPU")]),
    key(
        "Compute.JobDisk",
        Kind::Size(Bytes::mib(1), MOST),
        "64MiB",
        "disk of an execution that asks for none: inputs, outputs and logs while it runs",
    ),
    key("Compute.MaxExecutions", Kind::Count(1, 64), "8", "most executions at the same time, however small"),
    key(
        "Compute.StopTimeout",
        Kind::Duration,
        "10s",
        "how long a stop waits for executions, results and answers in hand; then they are cut off, to be run again",
    ),
    key(
        "Compute.RestartPause",
        Kind::Duration,
        "10s",
        "pause before what restarts of the node cut off twice is run again; doubles up to 5m; 0: none",
    ),
    key(
        "Compute.MaxExecutionTimeout",
        Kind::Duration,
        "",
        "longest that an execution may take; empty: no limit",
    )
    .old(&[same("Node.Compute.JobTimeouts.MaxJobExecutionTimeout")]),
    key(
        "Compute.MaxLogSize",
        Kind::Size(Bytes::kib(4), Bytes::gib(1)),
        "8MiB",
        "bytes of standard output, and of standard error, that an execution keeps; the rest is dropped",
    ),
    key(
        "Compute.AllowListedLocalPaths",
        Kind::LocalPaths,
        "",
        "paths of this machine that jobs may have as inputs, with * and **; :rw lets them write",
    )
    .old(&[same("Node.AllowListedLocalPaths")]),
];

const ADMISSION: &[Key] = &[
    key(
        "JobAdmissionControl.Locality",
        Kind::Word(&["anywhere", "local"]),
        "anywhere",
        "which jobs are taken: all, or those whose inputs are on this machine",
    )
    .old(&[same("Node.Compute.JobSelection.Locality")]),
    key("JobAdmissionControl.RejectStatelessJobs", Kind::Bool, "false", "refuse jobs without inputs")
        .old(&[same("Node.Compute.JobSelection.RejectStatelessJobs")]),
    key(
        "JobAdmissionControl.RejectNetworkedJobs",
        Kind::Bool,
        "false",
        "refuse jobs that ask for the network",
    )
    .old(&[Old { path: "Node.Compute.JobSelection.AcceptNetworkedJobs", how: How::Negate }]),
];

/// Defaults of one type of job that runs to completion.
macro_rules! job_defaults {
    ($kind:literal) => {
        &[
            key(
                concat!("JobDefaults.", $kind, ".Priority"),
                Kind::Integer,
                "0",
                "priority of jobs that have none; larger first",
            ),
            key(
                concat!("JobDefaults.", $kind, ".Task.Resources.CPU"),
                Kind::Cpu,
                "100m",
                "CPU of tasks that ask for none",
            )
            .old(&[same("Node.Compute.Capacity.DefaultJobResourceLimits.CPU")]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Resources.Memory"),
                Kind::Size(Bytes::ZERO, MOST),
                "64MiB",
                "memory of tasks that ask for none",
            )
            .old(&[same("Node.Compute.Capacity.DefaultJobResourceLimits.Memory")]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Resources.Disk"),
                Kind::Size(Bytes::ZERO, MOST),
                "",
                "disk of tasks that ask for none; empty: Compute.JobDisk",
            )
            .old(&[same("Node.Compute.Capacity.DefaultJobResourceLimits.Disk")]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Resources.GPU"),
                Kind::Gpu,
                "",
                "GPUs of tasks that ask for none",
            )
            .old(&[same("Node.Compute.Capacity.DefaultJobResourceLimits.GPU")]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Publisher.Type"),
                Kind::Text,
                "",
                "publisher of tasks that have none; empty: their results are not kept",
            )
            .old(&[same("Node.Requester.DefaultPublisher")]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Timeouts.ExecutionTimeout"),
                Kind::Duration,
                "0",
                "how long an execution may take if its job does not say; 0: no limit",
            )
            .old(&[
                same("Node.Requester.JobDefaults.ExecutionTimeout"),
                same("Node.Compute.JobTimeouts.DefaultJobExecutionTimeout"),
            ]),
            key(
                concat!("JobDefaults.", $kind, ".Task.Timeouts.TotalTimeout"),
                Kind::Duration,
                "0",
                "how long a job may take with its waiting if it does not say; 0: no limit",
            )
            .old(&[same("Node.Requester.JobDefaults.TotalTimeout")]),
        ]
    };
}

const BATCH: &[Key] = job_defaults!("Batch");
const OPS: &[Key] = job_defaults!("Ops");

const PROVIDERS: &[Key] = &[
    key("Engines.Disabled", Kind::List, "", "engines that are switched off")
        .old(&[same("Node.DisabledFeatures.Engines")]),
    key("InputSources.Disabled", Kind::List, "", "input sources that are switched off")
        .old(&[same("Node.DisabledFeatures.Storages")]),
    key("InputSources.ReadTimeout", Kind::Duration, "5m", "how long one attempt to fetch an input may take")
        .old(&[
            Old { path: "Node.DownloadURLRequestTimeout", how: How::Longest },
            Old { path: "Node.VolumeSizeRequestTimeout", how: How::Longest },
        ]),
    key(
        "InputSources.AllowLocalAddresses",
        Kind::Bool,
        "false",
        "let urlDownload fetch from this machine (127.0.0.1, ::1) and from link-local addresses",
    ),
    key("InputSources.MaxRetryCount", Kind::Count(0, 100), "3", "how often fetching an input is tried again")
        .old(&[same("Node.DownloadURLRequestRetries")]),
];

const PUBLISHER: &[Key] = &[
    key("Publishers.Disabled", Kind::List, "", "publishers that are switched off")
        .old(&[same("Node.DisabledFeatures.Publishers")]),
    key("Publishers.Types.Local.Bind", Kind::Host, "127.0.0.1", "address on which results are served"),
    key(
        "Publishers.Types.Local.Port",
        Kind::Port,
        "6001",
        "port on which results are served; 0 takes any free one",
    )
    .old(&[same("Node.Compute.LocalPublisher.Port")])
    .flags(&["--local-publisher-port"]),
    key(
        "Publishers.Types.Local.Address",
        Kind::Advertise,
        "",
        "what the URLs of results begin with, or a word (private, public, any, local); \
         empty: the host that the client used",
    )
    .old(&[same("Node.Compute.LocalPublisher.Address")])
    .flags(&["--local-publisher-address"]),
    key(
        "Publishers.Types.Local.LinkLifetime",
        Kind::Duration,
        "0",
        "how long a URL of a result can be used: it is signed; 0: for ever, by everybody who knows it",
    ),
    key("Publishers.Types.Local.Directory", Kind::Path, "<DataDir>/results", "where results are kept")
        .old(&[same("Node.Compute.LocalPublisher.Directory")])
        .flags(&["--local-publisher-directory"]),
];

const RESULTS: &[Key] = &[
    key(
        "Results.Quota",
        Kind::SizeScale,
        "50%",
        "most that results, running jobs and cache may occupy together, of the file system's size",
    ),
    key(
        "Results.MinFree",
        Kind::SizeScale,
        "256MiB",
        "what the file system keeps free, of its size; the default is at most 5% of it",
    ),
    // For ever: what the quota does not need goes on being there. Age alone is no reason to delete a user's data,
    // and the quota bounds what is kept in any case.
    key(
        "Results.Retention",
        Kind::Duration,
        "0",
        "how long a result is kept at most; 0: until its room is needed",
    ),
    key("Results.MaxCount", Kind::Count(1, 100_000), "1000", "most results that are kept"),
    key(
        "Results.MaxSize",
        Kind::SizeScale,
        "",
        "most that kept results occupy together, of the file system's size; empty: Results.Quota alone counts",
    ),
    key(
        "Results.EvictFirst",
        Kind::Word(&["oldest", "fetched"]),
        "oldest",
        "which results go first when room is needed: the oldest, or those that were downloaded whole",
    ),
    key(
        "Results.CompressionLevel",
        Kind::Count(0, 9),
        "3",
        "how hard results are compressed: 0 not at all, 1 fastest, 9 smallest",
    ),
    key(
        "Results.PackThreads",
        Kind::Count(0, 8),
        "0",
        "threads that compress a result; 0: as many as the machine has cores, but at most 2",
    ),
    key(
        "Results.DownloadRate",
        ANY_SIZE,
        "0",
        "bytes a second of all downloads together; 0: as fast as they go",
    ),
    key(
        "Results.DownloadRatePerClient",
        ANY_SIZE,
        "0",
        "bytes a second of one address's downloads (all those behind one proxy are one); 0: no limit of its own",
    ),
];

/// Words for the kinds of store, `boltdb` being the old name of the durable one.
const STORES: &[&str] = &["redb", "memory", "boltdb"];

const STORE: &[Key] = &[
    key(
        "Store.Compute.Type",
        Kind::Word(STORES),
        "redb",
        "store of executions: redb, or memory (lost at restart)",
    )
    .env(&["BACALHAU_COMPUTE_STORE_TYPE"])
    .old(&[same("Node.Compute.ExecutionStore.Type")])
    .flags(&["--compute-execution-store-type"]),
    key("Store.Compute.Path", Kind::Path, "<DataDir>/compute/executions.db", "file of executions")
        .env(&["BACALHAU_COMPUTE_STORE_PATH"])
        .old(&[same("Node.Compute.ExecutionStore.Path")])
        .flags(&["--compute-execution-store-path"]),
    key("Store.Jobs.Type", Kind::Word(STORES), "redb", "store of jobs: redb, or memory (lost at restart)")
        .env(&["BACALHAU_JOB_STORE_TYPE"])
        .old(&[same("Node.Requester.JobStore.Type")])
        .flags(&["--requester-job-store-type"]),
    key("Store.Jobs.Path", Kind::Path, "<DataDir>/orchestrator/jobs.db", "file of jobs")
        .env(&["BACALHAU_JOB_STORE_PATH"])
        .old(&[same("Node.Requester.JobStore.Path")])
        .flags(&["--requester-job-store-path"]),
    key(
        "Store.CacheSize",
        Kind::Size(Bytes::kib(16), Bytes::mib(64)),
        "256KiB",
        "memory of each store for its pages",
    ),
    key(
        "Store.JobRetention",
        Kind::Duration,
        "30d",
        "how long a job that has ended is remembered, unless its result is kept longer; 0: for ever",
    ),
    key(
        "Store.MaxJobs",
        Kind::Count(1, 1_000_000),
        "10000",
        "most jobs that have ended that are remembered; the oldest leave first",
    ),
    key(
        "Store.Reserve",
        Kind::Size(Bytes::ZERO, Bytes::mib(64)),
        "1MiB",
        "disk space set aside so that a full disk can still be recorded; 0 sets none aside",
    ),
    key(
        "Store.FlushInterval",
        Kind::Duration,
        "1s",
        "how long what may be lost in a power cut waits until it is written",
    ),
];

const LOGGING: &[Key] = &[key(
    "Logging.Level",
    Kind::Word(&["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"]),
    "info",
    "least important lines that are logged",
)
.env(&["LOG_LEVEL"])
.flags(&["--log-level"])];

pub(super) const ANY_SIZE: Kind = Kind::Size(Bytes::ZERO, MOST);

/// No bound but that of the number.
pub(super) const MOST: Bytes = Bytes(u64::MAX);
