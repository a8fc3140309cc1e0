//! What is wrong in a file is said, with its place, all of it, within bounds.

use super::*;

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
fn numbers_that_are_texts_are_pointed_out() {
    let loaded = of("JobDefaults: {Batch: {Task: {Publisher: {Type: 1.10}}}}").unwrap();
    let said = warnings(&loaded);
    assert_eq!(said[0], "JobDefaults.Batch.Task.Publisher.Type: read as the number 1.1");
    assert!(said[1].contains("there is no publisher '1.1'"), "{said:?}");
    assert!(of("API: {Auth: {Token: 1234567890.5}}").unwrap_err().to_string().contains("in quotes"));
}
