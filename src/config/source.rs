//! What a file, the environment and the command line give: values by key, old paths already turned into new ones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::keys::{self, Effect, How, Key, Old, Target};
use super::kind::{Kind, Raw, list, parse_bool};
use super::report::{Finding, Findings, Origin};
use super::tree::{self, Lines, Node};
use super::values::{ValueError, clip};
use crate::model::units;

/// A value of a key, and where it stood.
pub(super) struct Given {
    pub(super) key: &'static Key,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
    /// The path that was written.
    written: String,
    /// Place among the paths or variables that mean the same: the smallest wins.
    rank: usize,
    longest: bool,
}

/// What one source gives, one value for a key.
pub(super) type Layer = BTreeMap<&'static str, Given>;

/// What the command line gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CliOverrides {
    /// Files, in order.
    pub files: Vec<PathBuf>,
    /// Values.
    pub settings: Vec<CliSetting>,
}

/// One value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliSetting {
    /// Path of the key, of either tree.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The flag that gave it, as the user wrote it.
    pub flag: String,
}

/// The flag whose argument is a setting or a file.
const ANY_KEY: &str = "-c";

impl CliOverrides {
    /// Adds the value of a flag of its own.
    pub fn set(&mut self, key: &str, value: impl Into<String>, flag: &str) {
        self.settings.push(CliSetting { key: key.into(), value: value.into(), flag: flag.into() });
    }

    /// Adds an argument of `-c` or `--config`: `Key=Value`, the bare key of a truth value (which becomes true),
    /// or else a file.
    pub fn add(&mut self, argument: &str) {
        let is_path = |key: &str| {
            !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        match argument.split_once('=') {
            Some((key, value)) if is_path(key.trim()) => self.set(key.trim(), value, ANY_KEY),
            _ if keys::find(argument).is_some_and(|key| key.kind == Kind::Bool) => {
                self.set(argument, "true", ANY_KEY);
            }
            _ => self.files.push(argument.into()),
        }
    }
}

/// What some editors put before everything else.
const BYTE_ORDER: &[u8] = "\u{feff}".as_bytes();

/// What an unknown key of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Ignored: it may be meant for another version.
    Warned,
    /// An error: the file was written for this node, and nobody reads warnings.
    Refused,
}

/// Reads the values of a file.
pub(super) fn file(path: &Path, bytes: &[u8], unknown: Unknown, findings: &mut Findings) -> Layer {
    let at = |line| Origin::File { path: path.to_owned(), line, via: None };
    let entries = match tree::parse(bytes) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(Finding::error("", &at(error.line()), error.to_string()));
            return Layer::new();
        }
    };
    let mut walk = Walk {
        path,
        unknown,
        lines: Lines::of(bytes.strip_prefix(BYTE_ORDER).unwrap_or(bytes)),
        given: Vec::new(),
        findings,
    };
    walk.map("", &entries);
    let given = walk.given;
    settle(given, findings)
}

struct Walk<'a> {
    path: &'a Path,
    unknown: Unknown,
    lines: Lines,
    given: Vec<Given>,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    fn origin(&self, key: &str, nth: usize, via: Option<&'static str>) -> Origin {
        // Looking for a line takes the longer the longer the file is: not for what is only counted.
        let line = if self.findings.is_full() { None } else { self.lines.find(key, nth) };
        Origin::File { path: self.path.to_owned(), line, via }
    }

    fn map(&mut self, parent: &str, entries: &[(String, Node)]) {
        let mut times = HashMap::<String, usize>::new();
        for (key, node) in entries {
            let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
            let earlier = times.entry(key.to_ascii_lowercase()).or_default();
            if *earlier > 0 {
                let origin = self.origin(&path, *earlier, None);
                let twice = Finding::error(&path, &origin, "the key is there twice");
                self.findings.push(twice.hint("keep one (upper and lower case are the same)"));
            } else {
                self.node(&path, node);
            }
            *earlier += 1;
        }
    }

    fn node(&mut self, path: &str, node: &Node) {
        match (keys::look_up(path), node) {
            // A key without a value is as if it were not there.
            (Target::Keys(_) | Target::Group, Node::Null) => {}
            (Target::Keys(targets), node) => {
                let raw = node.raw().unwrap_or(Raw::Tree);
                for (key, old) in targets {
                    self.give(path, key, old, raw.clone());
                }
            }
            (Target::Group, Node::Map(entries)) => self.map(path, entries),
            (Target::Group, _) => {
                let message = "a value stands where keys go";
                self.findings.push(Finding::error(path, &self.origin(path, 0, None), message));
            }
            (Target::Inside(_), _) => {}
            (Target::Unknown, _) => {
                let origin = self.origin(path, 0, None);
                let unknown = match self.unknown {
                    Unknown::Warned => Finding::warning(path, &origin, "unknown key, ignored"),
                    Unknown::Refused => Finding::error(path, &origin, "unknown key"),
                };
                let unknown = if self.findings.is_full() { unknown } else { did_you_mean(unknown, path) };
                self.findings.push(unknown);
            }
        }
    }

    fn give(&mut self, path: &str, key: &'static Key, old: Option<&'static Old>, raw: Raw) {
        let origin = self.origin(path, 0, old.map(|old| old.path));
        match given(path, key, old, raw, origin.clone()) {
            Ok(given) => self.given.extend(given),
            Err(error) => self.findings.push(Finding::error(path, &origin, error.to_string())),
        }
    }
}

/// Reads the values of the environment. A variable that is empty is as if it were not there, except for paths,
/// where it is an oversight worth an error.
pub(super) fn environment(env: &dyn Env, findings: &mut Findings) -> Layer {
    let mut all = Vec::new();
    for key in keys::all() {
        for (rank, (name, old)) in key.variables().into_iter().enumerate() {
            let Some(value) = env.var(&name) else { continue };
            let origin = Origin::Env(name.clone());
            let Some(value) = value.to_str() else {
                findings.push(Finding::error(key.path, &origin, "the variable is not UTF-8"));
                continue;
            };
            if value.is_empty() && key.kind != Kind::Path {
                continue;
            }
            match given(
                old.map_or(key.path, |old| old.path),
                key,
                old,
                Raw::Text(value.into()),
                origin.clone(),
            ) {
                Ok(given) => all.extend(given.map(|given| Given { rank, written: name, ..given })),
                Err(error) => findings.push(Finding::error(key.path, &origin, error.to_string())),
            }
        }
    }
    misspelt_variables(env, findings);
    settle(all, findings)
}

/// Only names that nearly are one: others may be meant for a client, or for a job.
fn misspelt_variables(env: &dyn Env, findings: &mut Findings) {
    let mut names: Vec<String> =
        env.names().into_iter().filter(|name| name.starts_with("BACALHAU_")).collect();
    names.retain(|name| name.len() < 128);
    if names.is_empty() {
        return;
    }
    let known: Vec<String> = keys::all().flat_map(|key| key.variables()).map(|(name, _)| name).collect();
    for name in
        names.iter().filter(|name| !known.contains(name) && !CLIENT_VARIABLES.contains(&name.as_str()))
    {
        let near = known.iter().find(|known| keys::distance(name, known) <= 2);
        if let Some(near) = near.filter(|_| !findings.is_full()) {
            let origin = Origin::Env(name.clone());
            let unknown = Finding::warning("", &origin, "no setting has this variable");
            findings.push(unknown.hint(format!("did you mean {near}?")));
        }
    }
}

/// Variables of Bacalhau's command line (config.md section 5).
const CLIENT_VARIABLES: [&str; 9] = [
    "BACALHAU_API_KEY",
    "BACALHAU_API_TLS",
    "BACALHAU_API_CACERT",
    "BACALHAU_API_INSECURE",
    "BACALHAU_API_USERNAME",
    "BACALHAU_API_PASSWORD",
    "BACALHAU_ENVIRONMENT",
    "BACALHAU_PROFILE",
    "BACALHAU_PREFERRED_ADDRESS",
];

/// Reads the values of the command line. Here unknown keys are errors: somebody is there to see them.
pub(super) fn command_line(cli: &CliOverrides, findings: &mut Findings) -> Layer {
    let mut layer = Layer::new();
    for CliSetting { key: path, value, flag } in &cli.settings {
        let origin = Origin::Flag(flag.clone());
        let targets = match keys::look_up(path) {
            Target::Keys(targets) => targets,
            Target::Group => {
                findings.push(Finding::error(path, &origin, "this is a group of keys, not a key"));
                continue;
            }
            Target::Inside(key) => vec![(key, None)],
            Target::Unknown => {
                findings.push(did_you_mean(Finding::error(&clip(path), &origin, "unknown key"), path));
                continue;
            }
        };
        for (key, old) in targets {
            match given(path, key, old, Raw::Text(value.clone()), origin.clone()) {
                Ok(None) => {}
                Ok(Some(given)) => replace(&mut layer, given, findings),
                Err(error) => findings.push(Finding::error(path, &origin, error.to_string())),
            }
        }
    }
    layer
}

/// The same key again on the command line: two flags for it are a contradiction, the last `-c` counts.
fn replace(layer: &mut Layer, given: Given, findings: &mut Findings) {
    let (path, origin) = (given.key.path, given.origin.clone());
    let Some(earlier) = layer.insert(path, given) else { return };
    let any_key = Origin::Flag(ANY_KEY.into());
    if earlier.origin == any_key && origin == any_key {
        findings.push(Finding::warning(path, &origin, "given twice; the last one counts"));
    } else if earlier.origin == origin {
        findings.push(Finding::error(path, &origin, "given twice"));
    } else {
        let message = format!("given by {} and by {origin}", earlier.origin);
        findings.push(Finding::error(path, &origin, message).hint("give it once"));
    }
}

fn did_you_mean(finding: Finding, path: &str) -> Finding {
    match keys::suggest(path) {
        Some(near) => finding.hint(format!("did you mean {near}?")),
        None => finding,
    }
}

/// What a value of an old path is in the new tree; nothing if it says nothing.
fn given(
    written: &str,
    key: &'static Key,
    old: Option<&'static Old>,
    raw: Raw,
    origin: Origin,
) -> Result<Option<Given>, ValueError> {
    let rank = old.map_or(0, |old| 1 + key.old.iter().position(|o| o.path == old.path).unwrap_or(0));
    let raw = match (old, &raw) {
        (Some(old), raw) => match convert(old.how, raw)? {
            Some(raw) => raw,
            None => return Ok(None),
        },
        (None, _) => raw,
    };
    let longest = old.is_some_and(|old| old.how == How::Longest);
    Ok(Some(Given { key, raw, origin, written: written.into(), rank, longest }))
}

fn convert(how: How, raw: &Raw) -> Result<Option<Raw>, ValueError> {
    let truth = || match raw {
        Raw::Text(text) => {
            parse_bool(text).ok_or_else(|| ValueError(format!("'{}' is not true or false", clip(text))))
        }
        _ => Err(ValueError("this is not true or false".into())),
    };
    Ok(Some(match how {
        How::Same | How::Longest => raw.clone(),
        How::Negate => Raw::Text((!truth()?).to_string()),
        How::Has(word) => {
            let items = list(raw)?;
            if let Some(odd) = items.iter().find(|item| {
                let item = item.trim();
                !item.eq_ignore_ascii_case("compute") && !item.eq_ignore_ascii_case("requester")
            }) {
                return Err(ValueError(format!("'{}' is not one of compute, requester", clip(odd))));
            }
            Raw::Text(items.iter().any(|item| item.trim().eq_ignore_ascii_case(word)).to_string())
        }
        How::AnyAddress => Raw::Text(format!("0.0.0.0:{}", raw.line())),
        How::ZeroIfTrue if truth()? => Raw::Text("0".into()),
        How::ZeroIfTrue => return Ok(None),
    }))
}

/// Of all that one file or the environment says of a key, what counts; what does not is named.
fn settle(given: Vec<Given>, findings: &mut Findings) -> Layer {
    let mut by_key = BTreeMap::<&'static str, Vec<Given>>::new();
    for given in given {
        by_key.entry(given.key.path).or_default().push(given);
    }
    let mut layer = Layer::new();
    for (path, mut all) in by_key {
        all.sort_by_key(|given| given.rank);
        if all.iter().all(|given| given.longest) {
            let length = |given: &Given| units::parse_duration(&given.raw.line()).unwrap_or_default();
            all.sort_by_key(|given| std::cmp::Reverse(length(given)));
            all.truncate(1);
        }
        let mut all = all.into_iter();
        let Some(winner) = all.next() else { continue };
        for loser in all {
            // Two keys of 1.4 that fed different parts may share one of 1.9; a variable repeated is harmless.
            let same_value = loser.raw == winner.raw && matches!(loser.origin, Origin::Env(_));
            if loser.rank == winner.rank {
                let twice = Finding::error(&loser.written, &loser.origin, "the key is there twice");
                findings.push(twice.hint("keep one of them"));
            } else if !same_value {
                let message = format!("ignored: {} says otherwise", winner.written);
                findings.push(Finding::warning(&loser.written, &loser.origin, message));
            }
        }
        layer.insert(path, winner);
    }
    layer
}

/// What is there to say about values that have no effect.
pub(super) fn ineffective(layer: &Layer, findings: &mut Findings) {
    let mut said = HashSet::new();
    for given in layer.values() {
        if let Effect::None(why) = given.key.effect
            // One old key may stand for several new ones: it is named once.
            && said.insert(given.written.as_str())
        {
            let because = if why.is_empty() { String::new() } else { format!(": {why}") };
            let message = format!("has no effect here{because}");
            findings.push(Finding::warning(&given.written, &given.origin, message));
        }
    }
}
