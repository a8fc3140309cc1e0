//! Parts of the settings, those that come from the boot partition, and addresses of orchestrators.

use std::path::Path;

use super::{Dir, with};
use crate::config::{MAX_PARTS, Scale, Severity, check_part};
use crate::model::Bytes;

#[test]
fn parts_come_after_their_file_in_the_order_of_their_names() {
    let dir = Dir::new();
    let file = dir.file("config.yaml", "API:\n  Port: 1\nResults:\n  MaxCount: 1\n  Quota: 1GiB\n");
    std::fs::create_dir(dir.0.join("config.d")).unwrap();
    dir.file("config.d/50-boot.yaml", "Results:\n  MaxCount: 50\n  Quota: 2GiB\n");
    let last = dir.file("config.d/60-mine.yaml", "Results:\n  MaxCount: 60\n");
    for other in [".hidden.yaml", "70-x.yaml.partial", "80-x.yml", "README"] {
        dir.file(&format!("config.d/{other}"), "Results:\n  MaxCount: 99\n");
    }
    let loaded = with(&[&file], &[]).unwrap();
    let results = &loaded.settings.results;
    assert_eq!((loaded.settings.api.port, results.max_count), (1, 60));
    assert_eq!(results.quota, Scale::Amount(Bytes::gib(2)));
    assert_eq!(loaded.files.len(), 3);
    assert_eq!(loaded.origin("Results.MaxCount").unwrap().to_string(), format!("{last}:2"));
    // A file of another name has no parts, and the parts of the data directory need no file.
    let other = dir.file("other.yaml", "");
    assert_eq!(with(&[&other], &[]).unwrap().settings.results.max_count, 1000);
    std::fs::remove_file(&file).unwrap();
    let loaded = with(&[], &[("BACALHAU_DIR", dir.path())]).unwrap();
    assert_eq!(loaded.settings.results.max_count, 60);
    assert!(with(&[&file], &[]).is_err(), "a file that was named must be there");
    for n in 0..MAX_PARTS {
        dir.file(&format!("config.d/{n:03}.yaml"), "");
    }
    assert!(with(&[], &[("BACALHAU_DIR", dir.path())]).unwrap_err().to_string().contains("66 parts"));
}

#[test]
fn a_part_is_refused_for_what_is_wrong_with_it_and_with_all_because_of_it() {
    let dir = Dir::new();
    let (file, place) = (dir.0.join("config.yaml"), dir.0.join("config.d/50-boot.yaml"));
    let said = |text: &str| -> Vec<String> {
        let findings = check_part(Path::new("/boot/codling.yaml"), text.as_bytes(), &file, &place);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        errors.map(ToString::to_string).collect()
    };
    assert_eq!(said("Results:\n  Quota: 1GiB\n"), Vec::<String>::new());
    assert!(said("Results:\n  Qouta: 1GiB\n")[0].contains("did you mean Results.Quota?"));
    assert!(said("- a\n- b\n").len() == 1 && said("API:\n  Port: x\n").len() == 1);
    assert!(said("API:\n  Host: 0.0.0.0\n")[0].contains("no token is set"));
    // Together with what is there already.
    dir.file("config.yaml", "API:\n  Auth:\n    Token: 0123456789abcdef\n");
    std::fs::create_dir(dir.0.join("config.d")).unwrap();
    assert_eq!(said("API:\n  Host: 0.0.0.0\n"), Vec::<String>::new());
    assert!(said("API:\n  Port: 6001\n")[0].contains("port of the API too"));
    dir.file("config.d/60.yaml", "API:\n  Port: 1\n");
    assert_eq!(said("API:\n  Port: 6001\n"), Vec::<String>::new(), "a later part says otherwise");
    dir.file("config.d/50-boot.yaml", "Publishers:\n  Types:\n    Local:\n      Port: 1\n");
    assert_eq!(said(""), Vec::<String>::new(), "the one that is replaced does not count");
    // What was wrong before is not the part's fault.
    dir.file("config.d/60.yaml", "API:\n  Port: many\n");
    assert_eq!(said("Results:\n  Quota: 1GiB\n"), Vec::<String>::new());
}

#[test]
fn orchestrators_are_known_without_their_tokens() {
    let list =
        "nats://secret@hub.lan:4333,hub,nats://[fd00::1]:1,[fd00::2],nats://user:pw@10.0.0.1/x,:9,hub:port";
    let loaded = with(&[&format!("Compute.Orchestrators={list}")], &[]).unwrap();
    let expected = [("hub.lan", 4333), ("hub", 4222), ("fd00::1", 1), ("fd00::2", 4222), ("10.0.0.1", 4222)];
    assert_eq!(loaded.orchestrators(), expected.map(|(host, port)| (host.to_owned(), port)));
    assert_eq!(with(&[], &[]).unwrap().orchestrators(), []);
}
