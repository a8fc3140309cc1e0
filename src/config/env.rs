//! Variables and directories of the process, behind a trait so that tests have their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What surrounds the process.
pub trait Env {
    /// The variable of that name.
    fn var(&self, name: &str) -> Option<OsString>;

    /// Names of all variables that are text.
    fn names(&self) -> Vec<String>;

    /// The user's home directory.
    fn home(&self) -> Option<PathBuf>;

    /// Where the program was started.
    fn current_dir(&self) -> Option<PathBuf>;
}

/// The real one.
#[derive(Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir().filter(|home| home.is_absolute())
    }

    fn current_dir(&self) -> Option<PathBuf> {
        std::env::current_dir().ok()
    }
}

/// What surrounds the installed service: its unit gives it a state directory, and nothing else that sets anything.
#[derive(Debug, Default, Clone, Copy)]
pub struct ServiceEnv;

impl ServiceEnv {
    /// The settings file that the unit names.
    pub const FILE: &'static str = "/etc/codling/config.yaml";

    /// The state directory that the unit asks for.
    pub const STATE: &'static str = "/var/lib/codling";
}

impl Env for ServiceEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        (name == "STATE_DIRECTORY").then(|| Self::STATE.into())
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn home(&self) -> Option<PathBuf> {
        None
    }

    fn current_dir(&self) -> Option<PathBuf> {
        Some("/".into())
    }
}

/// Variables that a test sets; its home is `HOME`.
#[derive(Debug, Default, Clone)]
pub struct FakeEnv(pub BTreeMap<String, OsString>);

impl FakeEnv {
    /// One with these variables.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).into(), value.into())).collect())
    }
}

impl Env for FakeEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn home(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }

    fn current_dir(&self) -> Option<PathBuf> {
        Some("/".into())
    }
}
