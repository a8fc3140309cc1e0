//! Sources of all kinds, with real files and real servers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::engine::testing::TempDir;
use crate::model::job::Source;
use crate::sys::Cause;

mod inline;
mod local;
mod modules;
mod server;
mod url;

/// A place for inputs, with a meter.
struct Bench {
    dir: TempDir,
    meter: Meter,
    policy: InputPolicy,
    interrupt: Interrupt,
}

impl Bench {
    fn new() -> Self {
        Self::with_disk(Bytes::mib(8))
    }

    fn with_disk(disk: Bytes) -> Self {
        // Servers of tests are on this machine.
        let policy = InputPolicy {
            retries: 2,
            backoff: Duration::from_millis(1),
            allow_local: true,
            ..InputPolicy::default()
        };
        Self { dir: TempDir::new(), meter: Meter::new(disk), policy, interrupt: Interrupt::new() }
    }

    fn input_dir(&self) -> PathBuf {
        self.dir.path().join("inputs/0")
    }

    fn fetch(&self, kind: &str, target: &str, params: Value) -> Result<Mount, Failure> {
        let Value::Object(params) = params else { panic!("params are an object") };
        let source = Source(SpecConfig { kind: kind.into(), params });
        let input = InputSource { source, alias: String::new(), target: target.into() };
        let mut mounts = fetch(&input, 0, &self.input_dir(), &self.policy, &self.meter, &self.interrupt)?;
        assert_eq!(mounts.len(), 1);
        Ok(mounts.remove(0))
    }

    /// The failure, and its message.
    fn refused(&self, kind: &str, params: Value) -> (FailureCode, String) {
        let failure = self.fetch(kind, "/in", params).unwrap_err();
        assert!(failure.message.starts_with("InputSources[0]: "), "{failure:?}");
        (failure.code, failure.message.trim_start_matches("InputSources[0]: ").to_owned())
    }
}

/// Bytes of all files below, and 4 KiB for every entry.
fn on_disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            4096 + if metadata.is_dir() { on_disk(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

#[test]
fn unknown_sources_are_named() {
    let bench = Bench::new();
    for kind in ["s3", "ipfs", "nonsense"] {
        let (code, message) = bench.refused(kind, json!({}));
        assert_eq!(code, FailureCode::Unsupported);
        assert!(message.contains(&format!("'{kind}'")), "{message}");
    }
    assert!(is_known(&SpecConfig { kind: " urlDownload ".into(), params: Default::default() }));
    assert!(!is_known(&SpecConfig { kind: "s3".into(), params: Default::default() }));
    for kind in ["inline", "urlDownload", "localDirectory", "local"] {
        assert_eq!(bench.refused(kind, json!({})).0, FailureCode::InvalidJob);
        assert_eq!(bench.refused(kind, json!({"URL": 5, "SourcePath": " "})).0, FailureCode::InvalidJob);
    }
}

#[test]
fn nothing_is_fetched_after_the_interrupt() {
    let bench = Bench::new();
    bench.interrupt.raise(Cause::Shutdown);
    let failure = bench.fetch("inline", "/in", json!({"URL": "data:,x"})).unwrap_err();
    assert_eq!(failure.code, FailureCode::NodeRestart);
    assert!(!bench.input_dir().exists());
}
