//! Tests of loading as a whole.

mod parts;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::keys::{Effect, How, Key, all};
use super::kind::Kind;
use super::*;
use crate::model::{Bytes, MilliCpu};

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("codling-config-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn cli(arguments: &[&str]) -> CliOverrides {
    let mut cli = CliOverrides::default();
    for argument in arguments {
        cli.add(argument);
    }
    cli
}

fn env(variables: &[(&str, &str)]) -> FakeEnv {
    let mut env = FakeEnv::of(&[("HOME", "/nonexistent")]);
    env.0.extend(FakeEnv::of(variables).0);
    env
}

fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(&cli(arguments), &env(variables))
}

/// Loads a file of that text.
fn of(text: &str) -> Result<Loaded, ConfigError> {
    let dir = Dir::new();
    with(&[&dir.file("config.yaml", text)], &[])
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

fn checked(text: &str) -> Vec<Finding> {
    check(Path::new("c.yaml"), text.as_bytes(), &env(&[]))
}

/// A value that is not the default of a key, and what else it needs to be accepted.
fn sample(key: &Key) -> (&'static str, &'static [&'static str]) {
    match (key.path, key.kind) {
        ("API.Host", _) => ("0.0.0.0", &["API.Auth.Token=0123456789abcdef"]),
        ("API.Auth.TokenFile", _) => ("", &[]),
        ("API.TLS.CertFile", _) => ("/t/cert.pem", &["API.TLS.KeyFile=/t/key.pem"]),
        ("API.TLS.KeyFile", _) => ("/t/key.pem", &["API.TLS.CertFile=/t/cert.pem"]),
        ("NameProvider", _) => ("hostname", &[]),
        ("Board", _) => ("pi-4", &[]),
        ("JobAdmissionControl.Locality", _) => ("local", &[]),
        ("Logging.Level", _) => ("debug", &[]),
        ("Logging.Mode", _) => ("json", &[]),
        ("Results.EvictFirst", _) => ("fetched", &[]),
        ("Store.Reserve", _) => ("2Mi", &[]),
        (_, Kind::Word(_)) => ("memory", &[]),
        (_, Kind::Path) => ("/elsewhere/it", &[]),
        (_, Kind::Bool) => ("true", &[]),
        (_, Kind::Port) => ("77", &[]),
        (_, Kind::Count(..)) => ("7", &[]),
        (_, Kind::Integer) => ("-3", &[]),
        (_, Kind::Duration) => ("90s", &[]),
        (_, Kind::Size(..)) => ("1Mi", &[]),
        (_, Kind::SizeScale | Kind::CpuScale | Kind::GpuScale) => ("7%", &[]),
        (_, Kind::Cpu) => ("0.7", &[]),
        (_, Kind::Gpu) => ("3", &[]),
        (_, Kind::Map) => ("zone=a", &[]),
        (_, Kind::LocalPaths) => ("/data:rw", &[]),
        (_, Kind::Host | Kind::Advertise) => ("10.1.2.3", &[]),
        (_, Kind::Token) => ("0123456789", &[]),
        (_, Kind::Text | Kind::List | Kind::NodeName | Kind::Any) => ("edge", &[]),
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let settings = with(&[], &[]).unwrap().settings;
    assert_eq!(settings.data_dir, Path::new("/nonexistent/.codling"));
    assert_eq!((settings.api.host, settings.api.port, settings.api.token), (Host::LOOPBACK, 1234, None));
    assert_eq!(settings.publisher.directory, Path::new("/nonexistent/.codling/results"));
    assert_eq!((settings.publisher.bind, settings.publisher.port), (Host::LOOPBACK, 6001));
    assert_eq!(settings.publisher.advertise, Advertise::Asked);
    assert_eq!(
        settings.store.executions,
        StorePlace::Redb("/nonexistent/.codling/compute/executions.db".into())
    );
    assert_eq!(settings.store.jobs, StorePlace::Redb("/nonexistent/.codling/orchestrator/jobs.db".into()));
    assert_eq!((settings.store.cache, settings.store.flush_after), (Bytes::kib(256), Duration::from_secs(1)));
    assert_eq!(settings.job_defaults.batch.resources.memory, Some(Bytes::mib(64)));
    assert_eq!(settings.job_defaults.ops.resources.cpu, Some(MilliCpu(100)));
    assert_eq!(settings.results.quota, Scale::Percent(50.0));
    assert_eq!((settings.results.min_free, settings.results.retention), (None, Duration::ZERO));
    assert_eq!(settings.log_level, log::LevelFilter::Info);
}

#[test]
fn every_key_that_does_something_changes_the_settings() {
    let plain = format!("{:?}", with(&[], &[]).unwrap().settings);
    for key in all().filter(|key| key.effect == Effect::Full) {
        let (value, besides) = sample(key);
        // One cannot be set by itself, one can only be what it is.
        if matches!(key.path, "API.Auth.TokenFile" | "Compute.Enabled" | "Orchestrator.Enabled")
            || key.path.starts_with("API.TLS.") && !cfg!(feature = "tls")
        {
            continue;
        }
        let mut arguments = vec![format!("{}={value}", key.path)];
        arguments.extend(besides.iter().map(|s| (*s).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let loaded = with(&arguments, &[]).unwrap_or_else(|error| panic!("{}: {error}", key.path));
        assert_ne!(format!("{:?}", loaded.settings), plain, "{}", key.path);
        assert_eq!(loaded.origin(key.path), Some(&Origin::Flag("-c".into())));
    }
}

#[test]
fn every_variable_and_every_old_path_reaches_its_key() {
    for key in all() {
        let (value, _) = sample(key);
        if matches!(key.path, "API.Auth.TokenFile" | "API.Host" | "Compute.Enabled" | "Orchestrator.Enabled")
            || matches!(key.path, "API.TLS.CertFile" | "API.TLS.KeyFile")
        {
            continue;
        }
        for (name, old) in key.variables() {
            if key.kind == Kind::Any || old.is_some_and(|old| !matches!(old.how, How::Same | How::Longest)) {
                continue;
            }
            let loaded = with(&[], &[(&name, value)]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(loaded.origin(key.path), Some(&Origin::Env(name.clone())), "{name}");
            let path = old.map_or(key.path, |old| old.path);
            let loaded = with(&[&format!("{path}={value}")], &[]).unwrap();
            assert_eq!(loaded.origin(key.path), Some(&Origin::Flag("-c".into())), "{path}");
        }
    }
}

#[test]
fn flags_beat_variables_beat_later_files_beat_earlier_ones() {
    let dir = Dir::new();
    let first = dir.file(
        "1.yaml",
        "API: {Port: 1}\nPublishers: {Types: {Local: {Port: 1}}}\nName: a\nResults: {MaxCount: 1}",
    );
    let second = dir.file("2.yaml", "api: {port: 2}\nPublishers: {Types: {Local: {Port: 2}}}\nName: b");
    let variables = [("BACALHAU_API_PORT", "3"), ("BACALHAU_PUBLISHERS_TYPES_LOCAL_PORT", "3")];
    let loaded = with(&[&first, &second, "API.Port=4"], &variables).unwrap();
    let settings = &loaded.settings;
    assert_eq!((settings.api.port, settings.publisher.port), (4, 3));
    assert_eq!(settings.node.name.as_ref().map(|n| n.as_str()), Some("b"));
    assert_eq!(settings.results.max_count, 1);
    assert_eq!(loaded.files, [PathBuf::from(&first), PathBuf::from(&second)]);
    assert_eq!(loaded.origin("Name").map(Origin::to_string), Some(format!("{second}:3")));
    assert_eq!(loaded.origin("nonsense"), None);
    assert_eq!(warnings(&loaded), Vec::<String>::new());
}

#[test]
fn the_data_directory_is_found_and_its_file_read() {
    let dir = Dir::new();
    dir.file("config.yaml", "API:\n  Port: 77\nDataDir: /elsewhere\n");
    let loaded = with(&[], &[("BACALHAU_DIR", dir.path())]).unwrap();
    assert_eq!((loaded.settings.data_dir.as_path(), loaded.settings.api.port), (dir.0.as_path(), 77));
    assert!(warnings(&loaded)[0].starts_with("DataDir: ignored"), "{:?}", loaded.warnings);

    // A file that is named takes the place of the one in the directory, and may name another directory.
    let named = dir.file("named.yaml", "DataDir: ~/elsewhere\n");
    let loaded = with(&[&named], &[]).unwrap();
    assert_eq!(loaded.settings.data_dir, Path::new("/nonexistent/elsewhere"));
    assert_eq!((loaded.settings.api.port, loaded.warnings.len()), (1234, 0));
    let loaded = with(&[&named, "DataDir=rel"], &[("BACALHAU_DIR", dir.path())]).unwrap();
    assert_eq!(loaded.settings.data_dir, Path::new("/rel"));

    let service = with(&[], &[("STATE_DIRECTORY", "/var/lib/codling:/var/lib/other")]).unwrap();
    assert_eq!(service.settings.data_dir, Path::new("/var/lib/codling"));
    assert_eq!(service.origin("DataDir"), Some(&Origin::Service));
    let homeless = load(&cli(&[]), &FakeEnv::default()).unwrap_err().to_string();
    assert!(homeless.contains("there is no home directory"), "{homeless}");
    for bad in ["$HOME/x", "~other/x", "", "a\0b"] {
        assert!(with(&[&format!("DataDir={bad}")], &[]).is_err(), "{bad:?}");
    }
}

#[test]
fn the_old_tree_is_read_through_the_mapping() {
    let loaded = of("
Node:
  Name: edge
  NameProvider: hostname
  Type: [requester, compute]
  Labels: {zone: a, n: 1}
  ServerAPI: {Host: 127.0.0.1, Port: 99}
  AllowListedLocalPaths: ['/data/**:rw', /ro]
  DisabledFeatures: {Engines: [Docker], Publishers: [s3], Storages: [ipfs]}
  DownloadURLRequestTimeout: 10s
  VolumeSizeRequestTimeout: 2m
  DownloadURLRequestRetries: 5
  Compute:
    Capacity:
      TotalResourceLimits: {CPU: 2, Memory: 50%, Disk: 1Gi}
      JobResourceLimits: {Memory: 1Gb}
      DefaultJobResourceLimits: {CPU: 0.5, Memory: 128Mi}
    ExecutionStore: {Type: BoltDB, Path: /srv/e.db}
    JobTimeouts: {MaxJobExecutionTimeout: 2562047h47m16.854775807s, DefaultJobExecutionTimeout: 10m}
    JobSelection: {Locality: Local, RejectStatelessJobs: true, AcceptNetworkedJobs: false}
    LocalPublisher: {Address: 'http://10.0.0.1', Port: 7001, Directory: /srv/results}
  Requester:
    JobDefaults: {TotalTimeout: 30m}
    JobStore: {Type: BOLTDB, Path: /srv/j.db}
    DefaultPublisher: local
")
    .unwrap();
    let s = &loaded.settings;
    assert_eq!(s.node.name.as_ref().map(|n| n.as_str()), Some("edge"));
    assert_eq!(s.node.name_provider, NameProvider::Hostname);
    assert_eq!(s.node.labels.get("n").map(String::as_str), Some("1"));
    assert_eq!(s.api.port, 99);
    let paths: Vec<_> = s.compute.local_paths.iter().map(|p| (p.pattern.as_str(), p.writable)).collect();
    assert_eq!(paths, [("/data/**", true), ("/ro", false)]);
    assert_eq!(s.disabled.engines, ["docker"]);
    assert_eq!((s.disabled.publishers.len(), s.disabled.sources.len()), (1, 1));
    assert_eq!(
        s.inputs,
        Inputs { read_timeout: Duration::from_secs(120), max_retries: 5, allow_local: false }
    );
    assert_eq!((s.compute.cpu, s.compute.memory), (Scale::Amount(MilliCpu(2000)), Scale::Percent(50.0)));
    assert_eq!(s.compute.disk, Scale::Amount(Bytes::gib(1)));
    assert_eq!(s.compute.job_max.memory, Some(Bytes(1_000_000_000)));
    assert_eq!(s.compute.max_execution_timeout, Some(super::kind::MAX_DURATION));
    for defaults in [&s.job_defaults.batch, &s.job_defaults.ops] {
        assert_eq!(defaults.resources.cpu, Some(MilliCpu(500)));
        assert_eq!(defaults.resources.memory, Some(Bytes::mib(128)));
        assert_eq!(defaults.execution_timeout, Duration::from_secs(600));
        assert_eq!(defaults.total_timeout, Duration::from_secs(1800));
        assert_eq!(defaults.publisher.as_deref(), Some("local"));
    }
    assert_eq!(
        s.admission,
        Admission { local_inputs_only: true, reject_stateless: true, reject_networked: true }
    );
    assert_eq!(s.publisher.directory, Path::new("/srv/results"));
    assert_eq!(s.publisher.port, 7001);
    assert_eq!(s.store.executions, StorePlace::Redb("/srv/e.db".into()));
    assert_eq!(s.store.jobs, StorePlace::Redb("/srv/j.db".into()));
    // One warning for both stores, and nothing else to say.
    assert_eq!(
        warnings(&loaded),
        ["Store.Compute.Type: boltdb is the old name of the durable store, which is redb"]
    );
    let origin = loaded.origin("Store.Jobs.Path").unwrap().to_string();
    assert!(origin.ends_with("config.yaml (Node.Requester.JobStore.Path)"), "{origin}");
}

#[test]
fn negated_keys_are_negated() {
    let rejects = |loaded: Loaded| loaded.settings.admission.reject_networked;
    assert!(!rejects(of("Node: {Compute: {JobSelection: {AcceptNetworkedJobs: true}}}").unwrap()));
    assert!(rejects(of("Node: {Compute: {JobSelection: {AcceptNetworkedJobs: F}}}").unwrap()));
    assert!(rejects(of("JobAdmissionControl: {RejectNetworkedJobs: true}").unwrap()));
    assert!(!rejects(of("").unwrap()));
    assert!(rejects(with(&[], &[("BACALHAU_NODE_COMPUTE_JOBSELECTION_ACCEPTNETWORKEDJOBS", "0")]).unwrap()));
    assert!(of("Node: {Compute: {JobSelection: {AcceptNetworkedJobs: maybe}}}").is_err());
}

#[test]
fn of_both_trees_the_new_one_wins_and_the_old_key_is_named() {
    let loaded = of("Node:\n  ServerAPI:\n    Port: 1\n  Name: edge\nAPI:\n  Port: 2\n").unwrap();
    assert_eq!(loaded.settings.api.port, 2);
    assert_eq!(loaded.settings.node.name.as_ref().map(|n| n.as_str()), Some("edge"));
    assert_eq!(warnings(&loaded), ["Node.ServerAPI.Port: ignored: API.Port says otherwise"]);
    assert_eq!(loaded.warnings[0].line(), Some(3));
    let loaded = with(&[], &[("BACALHAU_SERVER_PORT", "1"), ("BACALHAU_API_PORT", "2")]).unwrap();
    assert_eq!((loaded.settings.api.port, loaded.warnings.len()), (2, 1));
}

#[test]
fn what_has_no_effect_says_so_once() {
    let loaded =
        of("WebUI: {Enabled: true}\nDisableAnalytics: true\nNode: {IPFS: {Connect: /ip4/1.2.3.4}}\n")
            .unwrap();
    let said = warnings(&loaded);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|s| s == "WebUI.Enabled: has no effect here: there is no web page"), "{said:?}");
    assert!(said.iter().any(|s| s.starts_with("Node.IPFS.Connect: has no effect here")), "{said:?}");
}

#[test]
fn unknown_keys_are_named_with_their_line_and_what_was_meant() {
    let loaded =
        of("Results:\n  Qouta: 1Gi\nNonsense:\n  A: {B: 1}\nnode:\n  compute:\n    Colour: red\n").unwrap();
    let said: Vec<String> = loaded.warnings.iter().map(Finding::to_string).collect();
    assert!(
        said[0].ends_with(":2: Results.Qouta: unknown key, ignored; did you mean Results.Quota?"),
        "{said:?}"
    );
    assert!(said[1].ends_with(":3: Nonsense: unknown key, ignored"), "{said:?}");
    assert!(said[2].contains(":7: node.compute.Colour: unknown key"), "{said:?}");
    let refused = with(&["results.qouta=1"], &[]).unwrap_err().to_string();
    assert_eq!(refused, "-c: results.qouta: unknown key; did you mean Results.Quota?");
    assert!(with(&["API=1"], &[]).unwrap_err().to_string().contains("a group of keys"));
    let loaded =
        with(&[], &[("BACALHAU_RESULTS_QUOTTA", "1"), ("BACALHAU_ELSE", "1"), ("BACALHAU_API_KEY", "x")])
            .unwrap();
    let said: Vec<String> = loaded.warnings.iter().map(Finding::to_string).collect();
    assert_eq!(
        said,
        ["BACALHAU_RESULTS_QUOTTA: no setting has this variable; did you mean BACALHAU_RESULTS_QUOTA?"]
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = of("
API:
  Port: 99999
  port: 1
Results: {Quota: 150%, MaxCount: 0, Retention: 5, CompressionLevel: 10, PackThreads: 9}
Store:
  Compute: {Type: sqlite, Path: ''}
Publishers: 7
Labels: [a]
Compute:
  AllowListedLocalPaths: [relative]
")
    .unwrap_err();
    let said = error.to_string();
    for wanted in [
        ":3: API.Port: '99999' is not a port",
        ":4: API.port: the key is there twice",
        "Results.Quota: '150%' is not a percentage between 0% and 100%",
        "Results.MaxCount: '0' is not a whole number from 1 to 100000",
        "Results.Retention: '5' is not a duration",
        "Results.CompressionLevel: '10'",
        "Results.PackThreads: '9'",
        "Store.Compute.Type: 'sqlite' is not one of redb, memory, boltdb",
        "Store.Compute.Path: the path is empty",
        ":8: Publishers: a value stands where keys go",
        "Labels: something else stands where a map goes",
        "Compute.AllowListedLocalPaths: 'relative' must begin with /",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    assert_eq!(said.lines().count(), 12, "{said}");
}

#[test]
fn stores_are_chosen_as_published() {
    let variables = [
        ("BACALHAU_COMPUTE_STORE_TYPE", "Memory"),
        ("BACALHAU_JOB_STORE_TYPE", "boltdb"),
        ("BACALHAU_JOB_STORE_PATH", "~/jobs.db"),
    ];
    let loaded = with(&[], &variables).unwrap();
    assert_eq!(loaded.settings.store.executions, StorePlace::Memory);
    assert_eq!(loaded.settings.store.jobs, StorePlace::Redb("/nonexistent/jobs.db".into()));
    let said = warnings(&loaded);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.contains(
            &"Store.Compute.Type: executions are kept in memory and lost when the node stops".into()
        )
    );
    let said = warnings(&with(&["Store.Jobs.Type=memory", "Store.Compute.Type=MEMORY"], &[]).unwrap());
    assert_eq!(
        said,
        ["Store.Compute.Type: jobs and executions are kept in memory and lost when the node stops"]
    );
    let refused = with(&[], &[("BACALHAU_JOB_STORE_TYPE", "postgres")]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "BACALHAU_JOB_STORE_TYPE: Store.Jobs.Type: 'postgres' is not one of redb, memory, boltdb"
    );
    assert!(
        with(&[], &[("BACALHAU_JOB_STORE_PATH", "")]).unwrap_err().to_string().contains("the path is empty")
    );
    assert!(with(&[], &[("BACALHAU_JOB_STORE_TYPE", "")]).is_ok());
}

#[test]
fn an_api_for_others_needs_a_token() {
    let dir = Dir::new();
    for host in ["0.0.0.0", "::", "192.168.1.5", "board.lan", "any"] {
        let refused = with(&[&format!("API.Host={host}")], &[]).unwrap_err().to_string();
        assert!(
            refused.contains("no token is set") && refused.contains("BACALHAU_API_AUTH_TOKEN"),
            "{refused}"
        );
        let token = ("BACALHAU_API_AUTH_TOKEN", "0123456789abcdef");
        let loaded = with(&[&format!("API.Host={host}")], &[token]).unwrap();
        assert!(loaded.settings.api.token.unwrap().matches("0123456789abcdef"));
    }
    assert!(with(&["API.Host=localhost"], &[]).is_ok());

    let file = dir.file("token", "secret-of-a-file\n");
    let loaded = with(&["API.Host=::", &format!("API.Auth.TokenFile={file}")], &[]).unwrap();
    assert!(loaded.settings.api.token.as_ref().unwrap().matches("secret-of-a-file"));
    assert!(warnings(&loaded)[0].contains("others can read"), "{:?}", loaded.warnings);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let loaded = with(&[], &[("BACALHAU_API_AUTH_TOKEN_FILE", &file)]).unwrap();
    assert!(loaded.warnings.is_empty() && loaded.settings.api.token.is_some());

    let weak = with(&[], &[("BACALHAU_API_AUTH_TOKEN", "guess")]).unwrap();
    assert_eq!(warnings(&weak), ["API.Auth.Token: the token is short enough to be guessed"]);
    let shown = with(&["API.Auth.Token=0123456789abcdef"], &[]).unwrap();
    let wanted = "API.Auth.Token: everybody on this machine sees it in the list of processes";
    assert_eq!(warnings(&shown), [wanted]);

    let empty = dir.file("empty", "\n");
    let long = dir.file("long", &"x".repeat(100_000));
    for (path, wanted) in [
        (long.as_str(), "520 characters; 1 to 512 are taken"),
        (empty.as_str(), "the token is empty"),
        ("/nonexistent/t", "cannot be read"),
    ] {
        let refused = with(&[&format!("API.Auth.TokenFile={path}")], &[]).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused}");
    }
    let both =
        with(&["API.Auth.Token=0123456789abcdef", &format!("API.Auth.TokenFile={file}")], &[]).unwrap_err();
    assert!(both.to_string().contains("API.Auth.Token is set too"), "{both}");
}

#[test]
fn a_certificate_needs_its_key() {
    let (cert, key) = ("API.TLS.CertFile=/t/cert.pem", "API.TLS.KeyFile=/t/key.pem");
    for (one, other) in [(cert, "API.TLS.KeyFile"), (key, "API.TLS.CertFile")] {
        let refused = with(&[one], &[]).unwrap_err().to_string();
        assert!(refused.contains(&format!("{other} is not set")), "{refused}");
    }
    let both = with(&[], &[("BACALHAU_TLS_CERT", "/t/cert.pem"), ("BACALHAU_TLS_KEY", "/t/key.pem")]);
    if cfg!(feature = "tls") {
        let tls = both.unwrap().settings.api.tls.unwrap();
        assert_eq!((tls.certificate, tls.key), ("/t/cert.pem".into(), "/t/key.pem".into()));
    } else {
        assert!(both.unwrap_err().to_string().contains("built without TLS"));
    }
    assert_eq!(with(&[], &[]).unwrap().settings.api.tls, None);
}

#[test]
fn secrets_are_shown_nowhere() {
    let secret = "correct-horse-battery";
    let loaded = with(
        &[&format!("API.Auth.Token={secret}"), &format!("Compute.Orchestrators=nats://{secret}@10.0.0.1")],
        &[("BACALHAU_COMPUTE_AUTH_TOKEN", secret)],
    )
    .unwrap();
    let rows = list(&loaded);
    let set: Vec<_> = rows.iter().filter(|row| row.value == "(set)").map(|row| row.key).collect();
    assert_eq!(set, ["API.Auth.Token", "Compute.Orchestrators", "Compute.Auth.Token"]);
    assert!(!format!("{rows:?} {loaded:?}").contains(secret));
    let blank = format!("{secret} {secret}");
    for arguments in [vec![format!("API.Auth.Token={blank}")], vec![format!("Compute.Orchestrators={blank}")]]
    {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = with(&arguments, &[]).unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains(secret), "{refused}");
    }
}

#[test]
fn the_list_has_every_key_with_its_origin() {
    let loaded = with(&["Results.Quota=1Gi", "WebUI.Enabled=false"], &[("LOG_LEVEL", "warn")]).unwrap();
    let rows = list(&loaded);
    let row = |key: &str| rows.iter().find(|row| row.key == key);
    let quota = row("Results.Quota").unwrap();
    assert_eq!((quota.value.as_str(), quota.default, quota.origin.to_string()), ("1Gi", "50%", "-c".into()));
    assert_eq!(row("Logging.Level").unwrap().origin, Origin::Env("LOG_LEVEL".into()));
    assert_eq!(row("Store.Jobs.Path").unwrap().value, "/nonexistent/.codling/orchestrator/jobs.db");
    assert_eq!(row("DataDir").unwrap().value, "/nonexistent/.codling");
    assert!(row("WebUI.Enabled").is_some() && row("WebUI.Listen").is_none());
    for key in all().filter(|key| key.effect == Effect::Full) {
        assert!(row(key.path).is_some(), "{}", key.path);
    }
}

#[test]
fn sockets_and_places_must_not_clash() {
    for (arguments, wanted) in [
        (vec!["API.Port=6001"], "6001 is the port of the API too"),
        (vec!["Publishers.Types.Local.Directory=/nonexistent/.codling"], "holds other files"),
        (vec!["Publishers.Types.Local.Directory=/nonexistent"], "holds other files"),
        (vec!["Publishers.Types.Local.Directory=/nonexistent/.codling/scratch/x"], "holds other files"),
        (vec!["Publishers.Types.Local.Directory=/nonexistent/.codling/compute"], "holds other files"),
        (vec!["Store.Jobs.Path=/nonexistent/.codling/cache/j.db"], "where the node deletes files"),
        (vec!["Store.Jobs.Path=/nonexistent/.codling/results/j.db"], "where the node deletes files"),
        (vec!["Store.Jobs.Path=/x/../a.db", "Store.Compute.Path=/a.db"], "is the file of the other store"),
        (vec!["Results.Quota=0%"], "nothing could be kept"),
        (vec!["Store.FlushInterval=2h"], "longer than an hour"),
        (vec!["InputSources.ReadTimeout=0"], "in no time"),
    ] {
        let refused = with(&arguments, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{arguments:?}: {refused}");
    }
    for fine in [
        vec!["API.Port=0", "Publishers.Types.Local.Port=0"],
        vec!["API.Port=6001", "Publishers.Types.Local.Bind=127.0.0.2"],
        vec!["Store.Jobs.Type=memory", "Store.Jobs.Path=/a.db", "Store.Compute.Path=/a.db"],
    ] {
        assert!(with(&fine, &[]).is_ok(), "{fine:?}");
    }
}

#[test]
fn results_that_nobody_can_fetch_are_pointed_out() {
    let local = "Publishers.Types.Local.";
    let says = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|a| a.replace("L.", local)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let token = ("BACALHAU_API_AUTH_TOKEN", "0123456789abcdef");
        let said = warnings(&with(&arguments, &[token]).unwrap());
        assert!(said.len() < 2, "{said:?}");
        said.iter()
            .any(|s| s.contains("L.Bind: results are served on 127.0.0.1 only".trim_start_matches("L.")))
    };
    assert!(says(&["L.Address=board.lan"]));
    assert!(says(&["L.Address=public"]));
    assert!(says(&["API.Host=0.0.0.0"]));
    assert!(!says(&["L.Address=board.lan", "L.Bind=0.0.0.0"]));
    assert!(!says(&["L.Address=board.lan:80"]));
    assert!(!says(&["L.Address=https://board.lan"]));
    assert!(!says(&["L.Address=127.0.0.1"]));
}

#[test]
fn an_argument_is_a_setting_a_switch_or_a_file() {
    let parsed = cli(&["API.Port=1", "webui.enabled", "/etc/a=b.yaml", "c.yaml", "Labels=a=b", "API.Port"]);
    let keys: Vec<_> = parsed.settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
    assert_eq!(keys, [("API.Port", "1"), ("webui.enabled", "true"), ("Labels", "a=b")]);
    assert_eq!(parsed.files, ["/etc/a=b.yaml", "c.yaml", "API.Port"].map(PathBuf::from));
    let missing = with(&["c.yaml"], &[]).unwrap_err().to_string();
    assert!(missing.starts_with("c.yaml: cannot be read: "), "{missing}");
    let twice = of("API:\n  Port: 1\nAPI.Port: 2\n").unwrap_err().to_string();
    assert!(twice.contains("API.Port: the key is there twice"), "{twice}");
    let loaded = with(&["API.Port=1", "API.Port=2"], &[]).unwrap();
    assert_eq!(loaded.settings.api.port, 2);
    assert_eq!(warnings(&loaded), ["API.Port: given twice; the last one counts"]);
}

#[test]
fn a_check_reports_what_loading_would_and_needs_no_more_than_the_file() {
    let found =
        checked("API: {Host: 0.0.0.0, Auth: {TokenFile: /nonexistent/token}, Prot: 1}\nNode: {Name: a.b}\n");
    let said: Vec<String> =
        found.iter().map(|f| format!("{} {}: {}", f.severity, f.path, f.message)).collect();
    assert_eq!(
        said,
        [
            "error Name: 'a.b' is not a node name (1 to 128 characters, no blanks, none of . * >)",
            "warning API.Prot: unknown key, ignored",
            "warning Publishers.Types.Local.Bind: results are served on 127.0.0.1 only: other machines cannot fetch them",
        ]
    );
    let found = checked("API: {Host: 0.0.0.0}\n");
    assert!(found.iter().any(|f| f.path == "API.Host" && f.severity == Severity::Warning), "{found:?}");
    assert!(found.iter().all(|f| f.severity == Severity::Warning), "{found:?}");
    let found = checked("API: {Host: [}\n");
    assert_eq!((found.len(), found[0].severity, found[0].line()), (1, Severity::Error, Some(1)));
    assert!(checked("").is_empty());
}

#[test]
fn a_file_that_is_wrong_ten_thousand_times_gets_a_bounded_answer() {
    let unknown: String = (0..9_000).map(|i| format!("key{i}: 1\n")).collect();
    let found = checked(&(unknown + "API: {Port: none}\n"));
    assert_eq!(found.len(), MAX_FINDINGS + 1);
    assert_eq!(found.last().unwrap().severity, Severity::Error);
    let twice = "a: 1\n".repeat(9_000);
    assert_eq!(checked(&twice).len(), MAX_FINDINGS + 1);
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    let mut env = env(&[]);
    env.0.insert("BACALHAU_DIR".into(), std::os::unix::ffi::OsStringExt::from_vec(vec![b'/', 0xff]));
    let refused = load(&cli(&[]), &env).unwrap_err().to_string();
    assert_eq!(refused, "BACALHAU_DIR: DataDir: the variable is not UTF-8");
}

#[test]
fn numbers_that_are_texts_are_pointed_out() {
    let loaded = of("JobDefaults: {Batch: {Task: {Publisher: {Type: 1.10}}}}").unwrap();
    let said = warnings(&loaded);
    assert_eq!(said[0], "JobDefaults.Batch.Task.Publisher.Type: read as the number 1.1");
    assert!(said[1].contains("there is no publisher '1.1'"), "{said:?}");
    assert!(of("API: {Auth: {Token: 1234567890.5}}").unwrap_err().to_string().contains("in quotes"));
}
