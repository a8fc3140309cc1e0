//! Settings that have to fit each other.

use super::*;

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
