//! Every key: its default, what it changes, and all the ways to it.

use super::*;

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
