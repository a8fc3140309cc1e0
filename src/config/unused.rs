//! Keys of Bacalhau's that are known and have no effect here: they are checked for their kind, and warned about.

use super::keys::{How, Key, Old, key, same, unused};
use super::kind::Kind;
use super::table::ANY_SIZE;

/// Why keys of other roles and services do nothing.
const ONE_BOARD: &str = "this node runs its own orchestrator and joins no other";
const OWN_CERTIFICATE: &str = "give a certificate of your own with API.TLS.CertFile and API.TLS.KeyFile";
const CLIENT_TLS: &str = "it is for commands (--tls, --cacert, --insecure, or BACALHAU_API_TLS_* in their \
                          environment); a node speaks TLS if API.TLS.CertFile and API.TLS.KeyFile are set";
const NO_DOCKER: &str = "there is no Docker engine";
const NO_IPFS: &str = "there is no IPFS";
const NO_S3: &str = "there is no S3 publisher";
const NO_WEB: &str = "there is no web page";
const NO_FOREVER: &str =
    "service jobs take the defaults of JobDefaults.Batch, daemon jobs those of JobDefaults.Ops";
const OWN_TOKEN: &str = "the API is protected by API.Auth.Token alone";
const CLIENT: &str =
    "commands find their node by --api-host and --api-port, or BACALHAU_API_HOST and BACALHAU_API_PORT";

const NUMBER: Kind = Kind::Count(0, u32::MAX as u64);

/// Of 1.9.
pub(super) const NEW: &[Key] = &[
    unused("StrictVersionMatch", Kind::Bool, "").old(&[same("Node.StrictVersionMatch")]),
    key("DisableAnalytics", Kind::Bool, "", "").moot(),
    key("UpdateConfig.Interval", Kind::Duration, "", "")
        .moot()
        .old(&[Old { path: "Update.SkipChecks", how: How::ZeroIfTrue }, same("Update.CheckFrequency")]),
    unused("FeatureFlags", Kind::Any, ""),
    unused("API.TLS.CAFile", Kind::Path, CLIENT_TLS).old(&[same("Node.ClientAPI.ClientTLS.CACert")]),
    unused("API.TLS.UseTLS", Kind::Bool, CLIENT_TLS).old(&[same("Node.ClientAPI.ClientTLS.UseTLS")]),
    unused("API.TLS.Insecure", Kind::Bool, CLIENT_TLS).old(&[same("Node.ClientAPI.ClientTLS.Insecure")]),
    unused("API.TLS.SelfSigned", Kind::Bool, OWN_CERTIFICATE).old(&[same("Node.ServerAPI.TLS.SelfSigned")]),
    unused("API.TLS.AutoCert", Kind::Text, OWN_CERTIFICATE).old(&[same("Node.ServerAPI.TLS.AutoCert")]),
    unused("API.TLS.AutoCertCachePath", Kind::Path, OWN_CERTIFICATE)
        .old(&[same("Node.ServerAPI.TLS.AutoCertCachePath"), same("Node.ClientAPI.TLS.AutoCertCachePath")]),
    unused("API.Auth.Methods", Kind::Any, OWN_TOKEN).old(&[same("Auth.Methods")]),
    unused("API.Auth.AccessPolicyPath", Kind::Path, OWN_TOKEN).old(&[same("Auth.AccessPolicyPath")]),
    unused("API.Auth.Users", Kind::Any, OWN_TOKEN).secret(),
    unused("API.Auth.Oauth2", Kind::Any, OWN_TOKEN).secret(),
    unused("Compute.Orchestrators", Kind::List, ONE_BOARD)
        .secret()
        .old(&[same("Node.Network.Orchestrators")]),
    unused("Compute.Auth.Token", Kind::Text, ONE_BOARD).secret().old(&[same("Node.Network.AuthSecret")]),
    unused("Compute.TLS.CACert", Kind::Path, ONE_BOARD),
    unused("Compute.TLS.RequireTLS", Kind::Bool, ONE_BOARD),
    unused("Compute.Network.AdvertisedAddress", Kind::Text, "jobs have no ports"),
    unused("Compute.Network.PortRangeStart", Kind::Port, "jobs have no ports"),
    unused("Compute.Network.PortRangeEnd", Kind::Port, "jobs have no ports"),
    unused("Compute.Heartbeat.Interval", Kind::Duration, ONE_BOARD)
        .old(&[same("Node.Compute.ControlPlaneSettings.HeartbeatFrequency")]),
    unused("Compute.Heartbeat.InfoUpdateInterval", Kind::Duration, ONE_BOARD)
        .old(&[same("Node.Compute.ControlPlaneSettings.InfoUpdateFrequency")]),
    unused("Compute.Heartbeat.ResourceUpdateInterval", Kind::Duration, ONE_BOARD)
        .old(&[same("Node.Compute.ControlPlaneSettings.ResourceUpdateFrequency")]),
    unused("Compute.Env.AllowList", Kind::List, "jobs get none of the node's own variables"),
    unused("Engines.Types.Docker.ManifestCache.Size", NUMBER, NO_DOCKER)
        .old(&[same("Node.Compute.ManifestCache.Size")]),
    unused("Engines.Types.Docker.ManifestCache.TTL", Kind::Duration, NO_DOCKER)
        .old(&[same("Node.Compute.ManifestCache.Duration")]),
    unused("Engines.Types.Docker.ManifestCache.Refresh", Kind::Duration, NO_DOCKER)
        .old(&[same("Node.Compute.ManifestCache.Frequency")]),
    unused("InputSources.Types.IPFS.Endpoint", Kind::Text, NO_IPFS).old(&[same("Node.IPFS.Connect")]),
    unused("Publishers.Types.IPFS.Endpoint", Kind::Text, NO_IPFS).old(&[same("Node.IPFS.Connect")]),
    unused("ResultDownloaders.Types.IPFS.Endpoint", Kind::Text, NO_IPFS).old(&[same("Node.IPFS.Connect")]),
    unused("ResultDownloaders.Disabled", Kind::List, ""),
    unused("ResultDownloaders.Timeout", Kind::Duration, ""),
    unused("Publishers.Types.S3.PreSignedURLDisabled", Kind::Bool, NO_S3)
        .old(&[same("Node.Requester.StorageProvider.S3.PreSignedURLDisabled")]),
    unused("Publishers.Types.S3.PreSignedURLExpiration", Kind::Duration, NO_S3)
        .old(&[same("Node.Requester.StorageProvider.S3.PreSignedURLExpiration")]),
    unused("Publishers.Types.S3Managed.Bucket", Kind::Text, NO_S3),
    unused("Publishers.Types.S3Managed.Key", Kind::Text, NO_S3),
    unused("Publishers.Types.S3Managed.Region", Kind::Text, NO_S3),
    unused("Publishers.Types.S3Managed.Endpoint", Kind::Text, NO_S3),
    unused("Publishers.Types.S3Managed.PreSignedURLExpiration", Kind::Duration, NO_S3),
    unused("JobAdmissionControl.ProbeHTTP", Kind::Text, "no job is shown to anybody for approval")
        .old(&[same("Node.Compute.JobSelection.ProbeHTTP")]),
    unused("JobAdmissionControl.ProbeExec", Kind::Text, "no job is shown to anybody for approval")
        .old(&[same("Node.Compute.JobSelection.ProbeExec")]),
    unused("JobDefaults.Batch.Task.Publisher.Params", Kind::Any, "the local publisher has no parameters"),
    unused("JobDefaults.Ops.Task.Publisher.Params", Kind::Any, "the local publisher has no parameters"),
    unused("JobDefaults.Daemon.Priority", Kind::Integer, NO_FOREVER),
    unused("JobDefaults.Daemon.Task.Resources.CPU", Kind::Cpu, NO_FOREVER),
    unused("JobDefaults.Daemon.Task.Resources.Memory", ANY_SIZE, NO_FOREVER),
    unused("JobDefaults.Daemon.Task.Resources.Disk", ANY_SIZE, NO_FOREVER),
    unused("JobDefaults.Daemon.Task.Resources.GPU", Kind::Gpu, NO_FOREVER),
    unused("JobDefaults.Service.Priority", Kind::Integer, NO_FOREVER),
    unused("JobDefaults.Service.Task.Resources.CPU", Kind::Cpu, NO_FOREVER),
    unused("JobDefaults.Service.Task.Resources.Memory", ANY_SIZE, NO_FOREVER),
    unused("JobDefaults.Service.Task.Resources.Disk", ANY_SIZE, NO_FOREVER),
    unused("JobDefaults.Service.Task.Resources.GPU", Kind::Gpu, NO_FOREVER),
    unused(
        "Logging.Mode",
        Kind::Word(&["default", "json", "station", "combined", "event", "cmd"]),
        "there is one mode",
    )
    .old(&[same("Node.LoggingMode")]),
    unused("Logging.LogDebugInfoInterval", Kind::Duration, "")
        .old(&[same("Node.Compute.Logging.LogRunningExecutionsInterval")]),
    unused("WebUI.Enabled", Kind::Bool, NO_WEB).old(&[same("Node.WebUI.Enabled")]),
    unused("WebUI.Listen", Kind::Text, NO_WEB).old(&[Old { path: "Node.WebUI.Port", how: How::AnyAddress }]),
    unused("WebUI.Backend", Kind::Text, NO_WEB),
];

/// Of 1.9, for orchestrators that other nodes join.
pub(super) const ORCHESTRATOR: &[Key] = &[
    unused("Orchestrator.Host", Kind::Text, ONE_BOARD),
    unused("Orchestrator.Port", Kind::Port, ONE_BOARD).old(&[same("Node.Network.Port")]),
    unused("Orchestrator.Advertise", Kind::Text, ONE_BOARD).old(&[same("Node.Network.AdvertisedAddress")]),
    unused("Orchestrator.Auth.Token", Kind::Text, ONE_BOARD).secret().old(&[same("Node.Network.AuthSecret")]),
    unused("Orchestrator.TLS", Kind::Any, ONE_BOARD),
    unused("Orchestrator.Cluster", Kind::Any, ONE_BOARD),
    unused("Orchestrator.NodeManager.DisconnectTimeout", Kind::Duration, ONE_BOARD)
        .old(&[same("Node.Requester.ControlPlaneSettings.NodeDisconnectedAfter")]),
    unused("Orchestrator.NodeManager.ManualApproval", Kind::Bool, ONE_BOARD)
        .old(&[same("Node.Requester.ManualNodeApproval")]),
    unused("Orchestrator.Scheduler.WorkerCount", NUMBER, "")
        .old(&[same("Node.Requester.Worker.WorkerCount")]),
    unused("Orchestrator.Scheduler.QueueBackoff", Kind::Duration, "")
        .old(&[same("Node.Requester.Scheduler.QueueBackoff")]),
    unused("Orchestrator.Scheduler.HousekeepingInterval", Kind::Duration, "")
        .old(&[same("Node.Requester.HousekeepingBackgroundTaskInterval")]),
    unused("Orchestrator.Scheduler.HousekeepingTimeout", Kind::Duration, ""),
    unused("Orchestrator.EvaluationBroker.VisibilityTimeout", Kind::Duration, "")
        .old(&[same("Node.Requester.EvaluationBroker.EvalBrokerVisibilityTimeout")]),
    unused("Orchestrator.EvaluationBroker.MaxRetryCount", NUMBER, "")
        .old(&[same("Node.Requester.EvaluationBroker.EvalBrokerMaxRetryCount")]),
    unused("Orchestrator.SupportReverseProxy", Kind::Bool, ONE_BOARD),
];

/// Of 1.4, without successor.
pub(super) const OLD: &[Key] = &[
    unused("Node.ClientAPI.Host", Kind::Text, CLIENT),
    unused("Node.ClientAPI.Port", Kind::Port, CLIENT),
    unused("Node.ClientAPI.TLS", Kind::Any, CLIENT),
    unused("Node.ServerAPI.ClientTLS", Kind::Any, OWN_CERTIFICATE),
    unused("Node.ComputeStoragePath", Kind::Path, "inputs and outputs are in <DataDir>/scratch"),
    unused("Node.ExecutorPluginPath", Kind::Path, ""),
    unused("Node.IPFS.PrivateInternal", Kind::Bool, NO_IPFS),
    unused("Node.IPFS.Profile", Kind::Text, NO_IPFS),
    unused("Node.IPFS.ServePath", Kind::Path, NO_IPFS),
    unused("Node.IPFS.SwarmKeyPath", Kind::Path, NO_IPFS),
    unused("Node.IPFS.SwarmAddresses", Kind::List, NO_IPFS),
    unused("Node.IPFS.SwarmListenAddresses", Kind::List, NO_IPFS),
    unused("Node.IPFS.GatewayListenAddresses", Kind::List, NO_IPFS),
    unused("Node.IPFS.APIListenAddresses", Kind::List, NO_IPFS),
    unused("Node.Network.StoreDir", Kind::Path, ONE_BOARD),
    unused("Node.Network.Type", Kind::Text, ONE_BOARD),
    unused("Node.Network.Cluster", Kind::Any, ONE_BOARD),
    unused("Node.BootstrapAddresses", Kind::Any, ONE_BOARD),
    unused("Node.Libp2p", Kind::Any, ONE_BOARD),
    unused("Node.NodeInfoStoreTTL", Kind::Duration, ""),
    unused(
        "Node.Compute.Capacity.IgnorePhysicalResourceLimits",
        Kind::Bool,
        "what exceeds the machine is cut to it",
    ),
    unused("Node.Compute.Capacity.QueueResourceLimits", Kind::Any, ""),
    unused("Node.Compute.JobTimeouts.JobNegotiationTimeout", Kind::Duration, ""),
    unused("Node.Compute.JobTimeouts.MinJobExecutionTimeout", Kind::Duration, ""),
    unused("Node.Compute.JobTimeouts.JobExecutionTimeoutClientIDBypassList", Kind::List, ""),
    unused("Node.Compute.LogStreamConfig", Kind::Any, ""),
    unused("Node.Compute.Queue", Kind::Any, ""),
    unused("Node.Compute.ControlPlaneSettings.HeartbeatTopic", Kind::Text, ONE_BOARD),
    unused("Node.Requester.ControlPlaneSettings.HeartbeatCheckFrequency", Kind::Duration, ONE_BOARD),
    unused("Node.Requester.ControlPlaneSettings.HeartbeatTopic", Kind::Text, ONE_BOARD),
    unused("Node.Requester.ExternalVerifierHook", Kind::Text, ""),
    unused("Node.Requester.JobSelectionPolicy", Kind::Any, "the keys of Node.Compute.JobSelection decide"),
    unused("Node.Requester.NodeRankRandomnessRange", NUMBER, ONE_BOARD),
    unused("Node.Requester.OverAskForBidsFactor", NUMBER, ONE_BOARD),
    unused("Node.Requester.FailureInjectionConfig", Kind::Any, ""),
    unused("Node.Requester.TranslationEnabled", Kind::Bool, ""),
    unused("Node.Requester.Scheduler.NodeOverSubscriptionFactor", Kind::Text, ONE_BOARD),
    unused("Node.Requester.EvaluationBroker.EvalBrokerInitialRetryDelay", Kind::Duration, ""),
    unused("Node.Requester.EvaluationBroker.EvalBrokerSubsequentRetryDelay", Kind::Duration, ""),
    unused("Node.Requester.Worker.WorkerEvalDequeueTimeout", Kind::Duration, ""),
    unused("Node.Requester.Worker.WorkerEvalDequeueBaseBackoff", Kind::Duration, ""),
    unused("Node.Requester.Worker.WorkerEvalDequeueMaxBackoff", Kind::Duration, ""),
    unused("User.KeyPath", Kind::Path, ""),
    unused("User.Libp2pKeyPath", Kind::Path, ""),
    unused("User.InstallationID", Kind::Text, ""),
    unused("Metrics", Kind::Any, ""),
    unused("Update.CheckStatePath", Kind::Path, ""),
    unused("Auth.TokensPath", Kind::Path, ""),
];
