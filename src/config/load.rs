//! Flags over environment over files over defaults: one value for each key, and where it came from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::build;
use super::env::{Env, ServiceEnv};
use super::keys::{self, Key};
use super::kind::{Base, Kind, Raw, Value};
use super::report::{ConfigError, Finding, Findings, Origin};
use super::settings::Settings;
use super::source::{self, CliOverrides, Layer};
use super::tree::MAX_FILE;

/// Settings, and how they came about.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What should be said about them at start.
    pub warnings: Vec<Finding>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
    pub(super) values: Values,
}

impl Loaded {
    /// Where the value of a key came from; nothing if there is no such key.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.values.0.get(keys::find(path)?.path).map(|entry| &entry.origin)
    }
}

impl Loaded {
    /// The defaults, whatever anybody has set.
    #[must_use]
    pub fn defaults(env: &dyn Env) -> Self {
        let mut none = Findings::default();
        let values = collect(&[], env, &base(env), &mut none);
        let settings = build::settings(&values, build::Mode::Check, &mut none);
        Self { settings, warnings: Vec::new(), files: Vec::new(), values }
    }

    /// Hosts and ports of the orchestrators that are named, without what else stands in their URLs: a token, perhaps.
    #[must_use]
    pub fn orchestrators(&self) -> Vec<(String, u16)> {
        let Some(Entry { value: Value::List(items), .. }) = self.values.0.get("Compute.Orchestrators") else {
            return Vec::new();
        };
        items.iter().filter_map(|item| orchestrator(item)).collect()
    }
}

/// `[nats://][token@]host[:port]`.
fn orchestrator(url: &str) -> Option<(String, u16)> {
    const NATS: u16 = 4222;
    let rest = url.trim().rsplit_once("://").map_or(url.trim(), |(_, rest)| rest);
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    let address = address.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (address, NATS),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The value of one key.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) raw: Raw,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl std::fmt::Debug for Entry {
    /// Without the value: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.key.path, self.origin)
    }
}

/// A value for every key.
#[derive(Debug, Default)]
pub(super) struct Values(pub(super) BTreeMap<&'static str, Entry>);

/// Name of the file that is read if none is named, in the data directory.
const FILE: &str = "config.yaml";

/// Directory beside a file of that name: its parts `*.yaml` come after the file, in the order of their names.
const PARTS: &str = "config.d";

/// Most parts that are read.
pub const MAX_PARTS: usize = 64;

/// Reads all sources.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(cli: &CliOverrides, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let mut findings = Findings::default();
    let base = base(env);
    let flags = source::command_line(cli, &mut findings);
    let variables = source::environment(env, &mut findings);
    let mut files: Vec<(PathBuf, Layer)> = Vec::new();
    for path in &cli.files {
        files.extend(file(path, &mut findings));
        files.extend(parts(path, &mut findings));
    }
    if cli.files.is_empty() {
        let (directory, _) = data_dir(&[&flags, &variables], env, &base, &mut Findings::default());
        let path = directory.join(FILE);
        if !is_missing(&path) {
            files.extend(file(&path, &mut findings));
        }
        files.extend(parts(&path, &mut findings));
        for (_, layer) in &mut files {
            own_data_dir(layer, &directory, &base, &mut findings);
        }
    }
    let layers: Vec<&Layer> =
        [&flags, &variables].into_iter().chain(files.iter().rev().map(|(_, layer)| layer)).collect();
    for layer in &layers {
        source::ineffective(layer, &mut findings);
    }
    let values = collect(&layers, env, &base, &mut findings);
    let settings = build::settings(&values, build::Mode::Start, &mut findings);
    let (failed, list) = (findings.failed(), findings.finish());
    if failed {
        return Err(ConfigError { findings: list });
    }
    Ok(Loaded { settings, warnings: list, files: files.into_iter().map(|(path, _)| path).collect(), values })
}

/// What a file gives, if it can be read.
fn file(path: &Path, findings: &mut Findings) -> Option<(PathBuf, Layer)> {
    match read(path) {
        Ok(bytes) => Some((path.to_owned(), source::file(path, &bytes, source::Unknown::Warned, findings))),
        Err(error) => {
            findings.push(unreadable(path, &error));
            None
        }
    }
}

/// Whether there is no such file; one that cannot be looked at is there.
fn is_missing(path: &Path) -> bool {
    let missing =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    path.symlink_metadata().is_err_and(|error| missing(&error))
}

/// What the parts beside a file give; files of other names have none.
fn parts(beside: &Path, findings: &mut Findings) -> Vec<(PathBuf, Layer)> {
    if beside.file_name().is_none_or(|name| name != FILE) {
        return Vec::new();
    }
    let directory = beside.with_file_name(PARTS);
    if is_missing(&directory) {
        return Vec::new();
    }
    let mut names = Vec::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => names.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_part(path))),
        Err(error) => findings.push(unreadable(&directory, &error)),
    }
    names.sort();
    if let Some(first) = names.get(MAX_PARTS) {
        let origin = Origin::File { path: first.clone(), line: None, via: None };
        let message = format!("there are {} parts; {MAX_PARTS} are read", names.len());
        findings.push(Finding::error("", &origin, message).hint("put several into one"));
        names.truncate(MAX_PARTS);
    }
    names.iter().filter_map(|path| file(path, findings)).collect()
}

fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".yaml") && !name.starts_with('.')
}

/// Everything that is to be said about a file that is to become a part of the installed service's settings: what is
/// wrong with it, unknown keys included, and what would be wrong with all settings only because of it.
///
/// `settings` is the service's file, `place` where the part goes.
#[must_use]
pub fn check_part(path: &Path, bytes: &[u8], settings: &Path, place: &Path) -> Vec<Finding> {
    let env = &ServiceEnv;
    let mut findings = Findings::default();
    let layer = source::file(path, bytes, source::Unknown::Refused, &mut findings);
    source::ineffective(&layer, &mut findings);
    if findings.failed() {
        return findings.finish();
    }
    let mut others = Findings::default();
    let mut files =
        if is_missing(settings) { Vec::new() } else { Vec::from_iter(file(settings, &mut others)) };
    files.extend(parts(settings, &mut others));
    files.retain(|(path, _)| path != place);
    let settled = |files: &[(PathBuf, Layer)], findings: &mut Findings| {
        let layers: Vec<&Layer> = files.iter().rev().map(|(_, layer)| layer).collect();
        let values = collect(&layers, env, &base(env), findings);
        build::settings(&values, build::Mode::Start, findings);
    };
    settled(&files, &mut others);
    let before = others.finish();
    let after_it = files.iter().position(|(other, _)| other.as_path() > place && other != settings);
    files.insert(after_it.unwrap_or(files.len()), (path.to_owned(), layer));
    let mut all = Findings::default();
    settled(&files, &mut all);
    all.finish().into_iter().filter(|finding| !before.contains(finding)).for_each(|new| findings.push(new));
    findings.finish()
}

/// Everything that is to be said about a file, by itself: no other source is read, nor what it points to.
#[must_use]
pub fn check(path: &Path, bytes: &[u8], env: &dyn Env) -> Vec<Finding> {
    let mut findings = Findings::default();
    let layer = source::file(path, bytes, source::Unknown::Warned, &mut findings);
    source::ineffective(&layer, &mut findings);
    let values = collect(&[&layer], env, &base(env), &mut findings);
    build::settings(&values, build::Mode::Check, &mut findings);
    findings.finish()
}

/// Reads a file, but not more of it than is needed to see that it is too large.
///
/// # Errors
/// It cannot be opened or read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Finding {
    let origin = Origin::File { path: path.to_owned(), line: None, via: None };
    Finding::error("", &origin, format!("cannot be read: {error}"))
}

fn base(env: &dyn Env) -> Base {
    Base { home: env.home(), current: env.current_dir().unwrap_or_default() }
}

/// A file that was found through the data directory cannot move it.
fn own_data_dir(layer: &mut Layer, directory: &Path, base: &Base, findings: &mut Findings) {
    let Some(given) = layer.remove("DataDir") else { return };
    if given.key.kind.parse(&given.raw, base) != Ok(Value::Path(directory.to_owned())) {
        let message = format!("ignored: this file was found in the data directory, {}", directory.display());
        let hint = "name the directory by --data-dir or BACALHAU_DIR, or the file by --config";
        findings.push(Finding::warning("DataDir", &given.origin, message).hint(hint));
    }
}

/// The data directory that the layers name, the strongest first, or else the service's, or the user's.
fn data_dir(layers: &[&Layer], env: &dyn Env, base: &Base, findings: &mut Findings) -> (PathBuf, Origin) {
    let kind = Kind::Path;
    if let Some(given) = layers.iter().find_map(|layer| layer.get("DataDir")) {
        match kind.parse(&given.raw, base) {
            Ok(Value::Path(path)) => return (path, given.origin.clone()),
            Ok(_) => {}
            Err(error) => findings.push(Finding::error("DataDir", &given.origin, error.to_string())),
        }
    }
    // systemd gives one or several directories, separated by colons.
    let state = env.var("STATE_DIRECTORY").and_then(|value| value.into_string().ok()).unwrap_or_default();
    if let Some(first) = state.split(':').next().filter(|first| first.starts_with('/')) {
        return (first.into(), Origin::Service);
    }
    let default = keys::find("DataDir").map_or("", |key| key.default);
    match kind.parse(&Raw::Text(default.into()), base) {
        Ok(Value::Path(path)) => (path, Origin::Default),
        _ => {
            let lost = Finding::error("DataDir", &Origin::Default, "not set, and there is no home directory");
            findings.push(lost.hint("name it by --data-dir or BACALHAU_DIR"));
            (PathBuf::from("/"), Origin::Default)
        }
    }
}

/// Of all layers, the strongest first, a checked value for every key.
fn collect(layers: &[&Layer], env: &dyn Env, base: &Base, findings: &mut Findings) -> Values {
    let (directory, origin) = data_dir(layers, env, base, findings);
    let mut values = Values::default();
    for key in keys::all() {
        let entry = if key.path == "DataDir" {
            let raw = Raw::Text(directory.to_string_lossy().into_owned());
            Entry { key, raw, value: Value::Path(directory.clone()), origin: origin.clone() }
        } else {
            let given = layers.iter().find_map(|layer| layer.get(key.path));
            given
                .and_then(|given| checked(key, &given.raw, &given.origin, base, findings))
                .unwrap_or_else(|| default(key, &directory, base))
        };
        values.0.insert(key.path, entry);
    }
    values
}

/// The value that was given, unless it says nothing or is wrong.
fn checked(
    key: &'static Key,
    raw: &Raw,
    origin: &Origin,
    base: &Base,
    findings: &mut Findings,
) -> Option<Entry> {
    let blank = matches!(raw, Raw::Text(text) if text.trim().is_empty());
    if blank && key.default.is_empty() {
        return None;
    }
    if matches!((raw, key.kind), (Raw::Float(_), Kind::Text | Kind::NodeName)) {
        let message = format!("read as the number {}", raw.line());
        findings.push(Finding::warning(key.path, origin, message).hint("write it in quotes if it is a text"));
    }
    match key.kind.parse(raw, base) {
        Ok(Value::Unset) if key.kind != Kind::Any => None,
        Ok(value) => Some(Entry { key, raw: raw.clone(), value, origin: origin.clone() }),
        Err(error) => {
            let message = match key.kind {
                Kind::Token => error.to_string(),
                // The message would repeat what must not be seen.
                _ if key.secret => format!("the value is not {}", key.kind.describe()),
                _ => error.to_string(),
            };
            findings.push(Finding::error(key.path, origin, message));
            None
        }
    }
}

/// What the table says. A test shows that every default is of its key's kind.
fn default(key: &'static Key, directory: &Path, base: &Base) -> Entry {
    let text = key.default.replace("<DataDir>", &directory.to_string_lossy());
    let raw = Raw::Text(text);
    let value = if key.default.is_empty() { Ok(Value::Unset) } else { key.kind.parse(&raw, base) };
    Entry { key, raw, value: value.unwrap_or(Value::Unset), origin: Origin::Default }
}

/// One line of `codling config list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Path of the key.
    pub key: &'static str,
    /// Its value as text; `(set)` for a secret.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What it would be if nobody set it.
    pub default: &'static str,
    /// What it takes.
    pub kind: String,
    /// What it means.
    pub doc: &'static str,
}

/// Every key that does something, and what else was set, in the order of the table.
#[must_use]
pub fn list(loaded: &Loaded) -> Vec<Row> {
    let entries = keys::all().filter_map(|key| loaded.values.0.get(key.path));
    entries
        .filter(|entry| entry.key.effect == keys::Effect::Full || entry.origin != Origin::Default)
        .map(|entry| Row {
            key: entry.key.path,
            value: match &entry.value {
                _ if entry.key.secret && entry.origin != Origin::Default => "(set)".into(),
                Value::Path(path) => path.display().to_string(),
                _ => entry.raw.line(),
            },
            origin: entry.origin.clone(),
            default: entry.key.default,
            kind: entry.key.kind.describe(),
            doc: entry.key.doc,
        })
        .collect()
}
