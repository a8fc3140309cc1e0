//! Settings: flags over environment over files over defaults, from one table of keys.
//!
//! [`load()`] reads all sources and gives [`Settings`], or everything that is wrong with them; [`resolve()`] turns
//! parts of the machine into amounts; [`list()`] and [`check()`] are for people.

mod build;
pub mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod keys;
pub mod kind;
mod load;
mod report;
mod resolve;
mod rules;
mod settings;
mod source;
mod table;
mod tree;
mod unused;
mod values;

#[cfg(test)]
mod tests;

pub use build::read_token;
pub use env::{Env, FakeEnv, ProcessEnv, ServiceEnv};
pub use load::{Loaded, MAX_PARTS, Row, check, check_part, list, load, read};
pub use report::{ConfigError, Finding, MAX_FINDINGS, Origin, Severity};
pub use resolve::{Resolved, resolve};
pub use settings::{
    Admission, Api, Compute, Disabled, Inputs, JobDefaults, LocalPublisher, NameProvider, Node, Results,
    Settings, Store, StorePlace, TlsFiles, TypeDefaults,
};
pub use source::{CliOverrides, CliSetting};
pub use tree::{MAX_BRACKETS, MAX_FILE, MAX_NODES};
pub use values::{AddressWord, Advertise, Host, LocalPath, Scale, Secret, ValueError};

/// Every setting with its meaning and its default, as a file that could be used.
pub const DEFAULT_FILE: &str = include_str!("default.yaml");
