//! Where values come from, and which one wins.

use super::*;

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
fn a_variable_that_is_no_text_is_named() {
    let mut env = env(&[]);
    env.0.insert("BACALHAU_DIR".into(), std::os::unix::ffi::OsStringExt::from_vec(vec![b'/', 0xff]));
    let refused = load(&cli(&[]), &env).unwrap_err().to_string();
    assert_eq!(refused, "BACALHAU_DIR: DataDir: the variable is not UTF-8");
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
