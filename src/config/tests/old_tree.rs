//! The old tree of keys, read through the mapping.

use super::*;

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
