//! The typed settings from the values of the keys.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kind::Value;
use super::load::{Entry, Values};
use super::report::{Finding, Findings, Origin};
use super::rules;
use super::settings::{
    Admission, Api, Compute, Disabled, Inputs, JobDefaults, LocalPublisher, NameProvider, Node, Results,
    Settings, Store, StorePlace, TlsFiles, TypeDefaults,
};
use super::values::{Advertise, Host, LocalPath, Scale, Secret};
use crate::model::{Board, Bytes, EvictFirst, MilliCpu, NodeId, ResourceRequest};

/// What the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A node is to start with them.
    Start,
    /// One file is looked at: what other sources may add is not missing yet, and nothing else is opened.
    Check,
}

/// Typed reading. What a key of the other kind would give never leaves here: a test reads every key.
impl Values {
    fn entry(&self, path: &str) -> Option<&Entry> {
        let entry = self.0.get(path);
        debug_assert!(entry.is_some(), "no key {path}");
        entry
    }

    fn value(&self, path: &str) -> &Value {
        self.entry(path).map_or(&Value::Unset, |entry| &entry.value)
    }

    pub(super) fn origin(&self, path: &str) -> Origin {
        self.entry(path).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    pub(super) fn is_default(&self, path: &str) -> bool {
        self.origin(path) == Origin::Default
    }

    pub(super) fn bool(&self, path: &str) -> bool {
        matches!(self.value(path), Value::Bool(true))
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        match self.value(path) {
            Value::Path(path) => path.clone(),
            _ => PathBuf::new(),
        }
    }

    fn set_path(&self, path: &str) -> Option<PathBuf> {
        match self.value(path) {
            Value::Path(path) => Some(path.clone()),
            _ => None,
        }
    }

    fn port(&self, path: &str) -> u16 {
        match self.value(path) {
            Value::Port(port) => *port,
            _ => 0,
        }
    }

    fn count(&self, path: &str) -> u32 {
        match self.value(path) {
            Value::Count(n) => u32::try_from(*n).unwrap_or(u32::MAX),
            _ => 0,
        }
    }

    fn duration(&self, path: &str) -> Duration {
        match self.value(path) {
            Value::Duration(duration) => *duration,
            _ => Duration::ZERO,
        }
    }

    fn size(&self, path: &str) -> Option<Bytes> {
        match self.value(path) {
            Value::Size(size) => Some(*size),
            _ => None,
        }
    }

    fn size_scale(&self, path: &str) -> Scale<Bytes> {
        match self.value(path) {
            Value::SizeScale(scale) => *scale,
            _ => Scale::Amount(Bytes::ZERO),
        }
    }

    fn host(&self, path: &str) -> Host {
        match self.value(path) {
            Value::Host(host) => host.clone(),
            _ => Host::LOOPBACK,
        }
    }

    fn list(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Value::List(items) => items.iter().map(|item| item.trim().to_ascii_lowercase()).collect(),
            _ => Vec::new(),
        }
    }

    fn resources(&self, group: &str) -> ResourceRequest {
        ResourceRequest {
            cpu: match self.value(&format!("{group}.CPU")) {
                Value::Cpu(cpu) => Some(*cpu),
                _ => None,
            },
            memory: self.size(&format!("{group}.Memory")),
            disk: self.size(&format!("{group}.Disk")),
            gpu: match self.value(&format!("{group}.GPU")) {
                Value::Gpu(gpu) => Some(*gpu),
                _ => None,
            },
        }
    }
}

/// The settings. They are to be used only if nothing failed.
pub(super) fn settings(values: &Values, mode: Mode, findings: &mut Findings) -> Settings {
    let settings = Settings {
        data_dir: values.path("DataDir"),
        board: values.text("Board").as_deref().and_then(Board::of_name),
        node: node(values, findings),
        api: Api {
            host: values.host("API.Host"),
            port: values.port("API.Port"),
            token: token(values, mode, findings),
            allowed_hosts: values.list("API.AllowedHosts"),
            tls: tls(values, findings),
            token_file: values.set_path("API.Auth.TokenFile"),
        },
        compute: compute(values),
        admission: Admission {
            local_inputs_only: values.text("JobAdmissionControl.Locality").as_deref() == Some("local"),
            reject_stateless: values.bool("JobAdmissionControl.RejectStatelessJobs"),
            reject_networked: values.bool("JobAdmissionControl.RejectNetworkedJobs"),
        },
        job_defaults: JobDefaults {
            batch: type_defaults(values, "JobDefaults.Batch"),
            ops: type_defaults(values, "JobDefaults.Ops"),
        },
        disabled: Disabled {
            engines: values.list("Engines.Disabled"),
            publishers: values.list("Publishers.Disabled"),
            sources: values.list("InputSources.Disabled"),
        },
        inputs: Inputs {
            read_timeout: values.duration("InputSources.ReadTimeout"),
            max_retries: values.count("InputSources.MaxRetryCount"),
            allow_local: values.bool("InputSources.AllowLocalAddresses"),
        },
        publisher: LocalPublisher {
            bind: values.host("Publishers.Types.Local.Bind"),
            port: values.port("Publishers.Types.Local.Port"),
            advertise: match values.value("Publishers.Types.Local.Address") {
                Value::Advertise(advertise) => advertise.clone(),
                _ => Advertise::Asked,
            },
            link_lifetime: Some(values.duration("Publishers.Types.Local.LinkLifetime"))
                .filter(|d| !d.is_zero()),
            directory: values.path("Publishers.Types.Local.Directory"),
        },
        results: results(values),
        store: Store {
            executions: store_place(values, "Store.Compute"),
            jobs: store_place(values, "Store.Jobs"),
            cache: values.size("Store.CacheSize").unwrap_or(Bytes::ZERO),
            job_retention: values.duration("Store.JobRetention"),
            max_jobs: values.count("Store.MaxJobs"),
            reserve: values.size("Store.Reserve").unwrap_or(Bytes::ZERO),
            flush_after: values.duration("Store.FlushInterval"),
        },
        log_level: log_level(values),
    };
    rules::apply(&settings, values, mode, findings);
    settings
}

fn node(values: &Values, findings: &mut Findings) -> Node {
    let provider = values.text("NameProvider").unwrap_or_default();
    if matches!(provider.as_str(), "aws" | "gcp") {
        let message =
            format!("'{provider}' asks a cloud for the name, which this node does not; puuid is used");
        findings.push(Finding::warning("NameProvider", &values.origin("NameProvider"), message));
    }
    Node {
        name: match values.value("Name") {
            Value::NodeName(name) => Some(NodeId::clone(name)),
            _ => None,
        },
        name_provider: match provider.as_str() {
            "hostname" => NameProvider::Hostname,
            "uuid" => NameProvider::Random,
            _ => NameProvider::Board,
        },
        labels: match values.value("Labels") {
            Value::Map(entries) => entries.iter().cloned().collect(),
            _ => Default::default(),
        },
    }
}

fn compute(values: &Values) -> Compute {
    let longest = values.duration("Compute.MaxExecutionTimeout");
    Compute {
        cpu: match values.value("Compute.AllocatedCapacity.CPU") {
            Value::CpuScale(scale) => *scale,
            _ => Scale::Amount(MilliCpu(0)),
        },
        memory: values.size_scale("Compute.AllocatedCapacity.Memory"),
        disk: values.size_scale("Compute.AllocatedCapacity.Disk"),
        gpu: match values.value("Compute.AllocatedCapacity.GPU") {
            Value::GpuScale(scale) => *scale,
            _ => Scale::Amount(0),
        },
        job_max: values.resources("Compute.JobCapacity"),
        job_disk: values.size("Compute.JobDisk").unwrap_or(Bytes::ZERO),
        max_executions: values.count("Compute.MaxExecutions"),
        max_execution_timeout: (!longest.is_zero()).then_some(longest),
        stop_timeout: values.duration("Compute.StopTimeout"),
        restart_pause: values.duration("Compute.RestartPause"),
        max_log: values.size("Compute.MaxLogSize").unwrap_or(Bytes::ZERO),
        local_paths: match values.value("Compute.AllowListedLocalPaths") {
            Value::LocalPaths(paths) => paths.iter().map(LocalPath::clone).collect(),
            _ => Vec::new(),
        },
    }
}

fn type_defaults(values: &Values, group: &str) -> TypeDefaults {
    TypeDefaults {
        priority: match values.value(&format!("{group}.Priority")) {
            Value::Integer(priority) => *priority,
            _ => 0,
        },
        resources: values.resources(&format!("{group}.Task.Resources")),
        publisher: values.text(&format!("{group}.Task.Publisher.Type")),
        execution_timeout: values.duration(&format!("{group}.Task.Timeouts.ExecutionTimeout")),
        total_timeout: values.duration(&format!("{group}.Task.Timeouts.TotalTimeout")),
    }
}

fn results(values: &Values) -> Results {
    let min_free = "Results.MinFree";
    Results {
        quota: values.size_scale("Results.Quota"),
        min_free: (!values.is_default(min_free)).then(|| values.size_scale(min_free)),
        retention: values.duration("Results.Retention"),
        max_count: values.count("Results.MaxCount"),
        max_size: match values.value("Results.MaxSize") {
            Value::SizeScale(scale) => Some(*scale),
            _ => None,
        },
        evict_first: match values.text("Results.EvictFirst").as_deref() {
            Some("fetched") => EvictFirst::Fetched,
            _ => EvictFirst::Oldest,
        },
        download_rate: values.size("Results.DownloadRate").unwrap_or(Bytes::ZERO),
        download_rate_per_client: values.size("Results.DownloadRatePerClient").unwrap_or(Bytes::ZERO),
        compression_level: u8::try_from(values.count("Results.CompressionLevel")).unwrap_or(9),
        pack_threads: u8::try_from(values.count("Results.PackThreads")).unwrap_or(0),
    }
}

fn store_place(values: &Values, group: &str) -> StorePlace {
    match values.text(&format!("{group}.Type")).as_deref() {
        Some("memory") => StorePlace::Memory,
        _ => StorePlace::Redb(values.path(&format!("{group}.Path"))),
    }
}

fn log_level(values: &Values) -> log::LevelFilter {
    match values.text("Logging.Level").as_deref() {
        Some("trace") => log::LevelFilter::Trace,
        Some("debug") => log::LevelFilter::Debug,
        Some("warn" | "warning") => log::LevelFilter::Warn,
        // Nothing here is logged above an error.
        Some("error" | "fatal" | "panic") => log::LevelFilter::Error,
        _ => log::LevelFilter::Info,
    }
}

/// The certificate's files: both or neither.
fn tls(values: &Values, findings: &mut Findings) -> Option<TlsFiles> {
    let (cert, key) = ("API.TLS.CertFile", "API.TLS.KeyFile");
    let (set, other) = match (values.set_path(cert), values.set_path(key)) {
        (Some(certificate), Some(key)) if cfg!(feature = "tls") => {
            return Some(TlsFiles { certificate, key });
        }
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = "this codling was built without TLS";
            let hint = "put a reverse proxy before it, or use a full build";
            findings.push(Finding::error(cert, &values.origin(cert), message).hint(hint));
            return None;
        }
        (Some(_), None) => (cert, key),
        (None, Some(_)) => (key, cert),
    };
    let message = format!("{other} is not set, and one is of no use without the other");
    findings.push(Finding::error(set, &values.origin(set), message));
    None
}

/// The token itself, or what stands in its file.
fn token(values: &Values, mode: Mode, findings: &mut Findings) -> Option<Secret> {
    let (key, file) = ("API.Auth.Token", "API.Auth.TokenFile");
    let from_file = values.set_path(file);
    let token = match values.value(key) {
        Value::Token(token) => Some(token.clone()),
        _ => None,
    };
    let origin = values.origin(file);
    match (token, from_file) {
        (Some(token), Some(_)) => {
            let message = format!("{key} is set too ({})", values.origin(key));
            findings.push(Finding::error(file, &origin, message).hint("keep one of them"));
            Some(token)
        }
        (None, Some(path)) if mode == Mode::Start => match read_token(&path) {
            Ok((token, private)) => {
                if !private {
                    let message = format!("others can read {}", path.display());
                    findings.push(Finding::warning(file, &origin, message).hint("chmod 600 it"));
                }
                Some(token)
            }
            Err(message) => {
                findings.push(Finding::error(file, &origin, format!("{}: {message}", path.display())));
                None
            }
        },
        (token, _) => token,
    }
}

/// The token of a file, and whether its owner alone can read it.
///
/// # Errors
/// The file cannot be read, or holds no token. The message does not repeat what it holds.
pub fn read_token(path: &Path) -> Result<(Secret, bool), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    let mut text = String::new();
    // One byte more than any token, and room for the newline: enough to see that it is too long.
    let most = *Secret::LENGTHS.end() as u64 + 8;
    file.take(most).read_to_string(&mut text).map_err(unreadable)?;
    let token = Secret::parse(&text).map_err(|error| error.to_string())?;
    Ok((token, mode & 0o077 == 0))
}
