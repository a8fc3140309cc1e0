//! Tests of loading as a whole.

mod findings;
mod keys;
mod old_tree;
mod parts;
mod sources;
mod together;
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
