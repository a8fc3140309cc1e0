//! What a key is: its path, what it holds, where it may be set, what it means. The keys themselves are in `table`.
//!
//! Loading, `config list`, `config check`, the manual and `default.yaml` all come from there.

use super::kind::Kind;
use super::table::GROUPS;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its path, as Bacalhau 1.9 spells it; compared without case.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it holds if nobody sets it, as text; empty is nothing. `<DataDir>` stands for the data directory.
    pub default: &'static str,
    /// What it means, in a line.
    pub doc: &'static str,
    /// Paths of Bacalhau 1.4 that mean it; earlier ones win.
    pub old: &'static [Old],
    /// Variables of their own names that set it, besides `BACALHAU_` and the path.
    pub env: &'static [&'static str],
    /// Flags that set it.
    pub flags: &'static [&'static str],
    /// Whether its value is never printed.
    pub secret: bool,
    /// What it does here.
    pub effect: Effect,
}

/// What setting a key does in this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What its line says.
    Full,
    /// Nothing, which is worth a warning; the fragment, if any, says why.
    None(&'static str),
    /// Nothing, and nothing is missing: what it would switch off is not there.
    Moot,
}

/// A path of Bacalhau 1.4.
#[derive(Debug, Clone, Copy)]
pub struct Old {
    /// Its path.
    pub path: &'static str,
    /// How its value becomes the key's.
    pub how: How,
}

/// How a value of Bacalhau 1.4 becomes one of 1.9 (config.md section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As it is.
    Same,
    /// The other truth value.
    Negate,
    /// Whether the list has that word.
    Has(&'static str),
    /// A port becomes an address to listen on.
    AnyAddress,
    /// True becomes a duration of zero, false nothing.
    ZeroIfTrue,
    /// Of this and the other paths marked so, the longest duration.
    Longest,
}

/// A key of that path without anything special about it.
pub(super) const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc, old: &[], env: &[], flags: &[], secret: false, effect: Effect::Full }
}

/// A key of Bacalhau's that has no effect here.
pub(super) const fn unused(path: &'static str, kind: Kind, why: &'static str) -> Key {
    Key { effect: Effect::None(why), ..key(path, kind, "", "") }
}

impl Key {
    pub(super) const fn old(self, old: &'static [Old]) -> Self {
        Self { old, ..self }
    }

    pub(super) const fn env(self, env: &'static [&'static str]) -> Self {
        Self { env, ..self }
    }

    pub(super) const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) const fn moot(self) -> Self {
        Self { effect: Effect::Moot, ..self }
    }

    /// Whether it is one of Bacalhau 1.4 that has no successor.
    #[must_use]
    pub fn is_old(&self) -> bool {
        is_old(self.path)
    }

    /// Variables that set it and the old path that each stands for; earlier ones win.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Option<&'static Old>)> {
        let mut names = vec![(variable(self.path), None)];
        names.extend(self.env.iter().map(|name| ((*name).to_owned(), None)));
        names.extend(self.old.iter().map(|old| (variable(old.path), Some(old))));
        names
    }
}

pub(super) const fn same(path: &'static str) -> Old {
    Old { path, how: How::Same }
}

/// Top-level keys of Bacalhau 1.4; those of 1.9 are others.
const OLD_ROOTS: [&str; 5] = ["node", "user", "metrics", "update", "auth"];

/// Whether a path belongs to the tree of Bacalhau 1.4.
pub(super) fn is_old(path: &str) -> bool {
    let root = path.split('.').next().unwrap_or_default();
    OLD_ROOTS.iter().any(|old| old.eq_ignore_ascii_case(root))
}

/// `BACALHAU_` and the path in upper case, dots as underscores.
pub(super) fn variable(path: &str) -> String {
    format!("BACALHAU_{}", path.to_ascii_uppercase().replace('.', "_"))
}

/// Every key, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Key> {
    GROUPS.iter().copied().flatten()
}

/// The key of that path, in its 1.9 spelling and any case.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path.eq_ignore_ascii_case(path))
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Target {
    /// Keys that it sets, each with the old path that it was, if it is one of 1.4.
    Keys(Vec<(&'static Key, Option<&'static Old>)>),
    /// Nothing by itself, but keys are below it.
    Group,
    /// Something below a key that takes whatever there is.
    Inside(&'static Key),
    /// Nothing.
    Unknown,
}

/// Looks a path up in both trees, in any case.
pub(super) fn look_up(path: &str) -> Target {
    let below = |parent: &str| {
        path.len() > parent.len()
            && path.as_bytes().get(parent.len()) == Some(&b'.')
            && path.get(..parent.len()).is_some_and(|start| start.eq_ignore_ascii_case(parent))
    };
    let above = |child: &str| {
        child.len() > path.len()
            && child.as_bytes().get(path.len()) == Some(&b'.')
            && child.get(..path.len()).is_some_and(|start| start.eq_ignore_ascii_case(path))
    };
    let (mut keys, mut group, mut inside) = (Vec::new(), false, None);
    for key in all() {
        if key.path.eq_ignore_ascii_case(path) {
            keys.push((key, None));
        }
        group |= above(key.path);
        if matches!(key.kind, Kind::Any) && below(key.path) {
            inside = Some(key);
        }
        for old in key.old {
            if old.path.eq_ignore_ascii_case(path) {
                keys.push((key, Some(old)));
            }
            group |= above(old.path);
        }
    }
    match inside {
        _ if !keys.is_empty() => Target::Keys(keys),
        Some(key) => Target::Inside(key),
        None if group => Target::Group,
        None => Target::Unknown,
    }
}

/// Longest path that is compared: longer ones are no misspelling.
const SUGGEST_LENGTH: usize = 96;

/// The known path that somebody who wrote `path` probably meant.
pub(super) fn suggest(path: &str) -> Option<&'static str> {
    let given = path.to_ascii_lowercase();
    if given.len() > SUGGEST_LENGTH {
        return None;
    }
    let known = || all().flat_map(|key| key.old.iter().map(|old| old.path).chain([key.path]));
    // The end of a path, given without its beginning.
    let mut ends = known().filter(|p| !is_old(p) && p.to_ascii_lowercase().ends_with(&format!(".{given}")));
    if let (Some(only), None) = (ends.next(), ends.next()) {
        return Some(only);
    }
    let near = 2.max(given.len() / 8);
    known()
        .map(|p| (distance(&given, &p.to_ascii_lowercase()), p))
        .filter(|(d, _)| *d <= near)
        .min_by_key(|(d, _)| *d)
        .map(|(_, p)| p)
}

/// Letters to insert, delete or change to get from one to the other.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let best = (left + 1).min(*cell + 1).min(diagonal + usize::from(x != y));
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn no_path_variable_or_flag_means_two_things() {
        let (mut paths, mut variables) = (HashSet::new(), HashMap::new());
        for key in all() {
            assert!(paths.insert(key.path.to_ascii_lowercase()), "{} is there twice", key.path);
            for (name, old) in key.variables() {
                let own = old.map_or(key.path, |old| old.path);
                let other = variables.insert(name.clone(), own);
                assert!(other.is_none_or(|other| other == own), "{name}: {other:?} and {own}");
            }
        }
        for key in all() {
            assert!(!matches!(look_up(key.path), Target::Group | Target::Unknown));
            for old in key.old {
                assert!(is_old(old.path), "{}", old.path);
                assert!(!paths.contains(&old.path.to_ascii_lowercase()), "{} has a successor", old.path);
            }
        }
    }

    #[test]
    fn every_key_that_does_something_says_what() {
        for key in all() {
            match key.effect {
                Effect::Full => assert!(!key.doc.is_empty(), "{}", key.path),
                Effect::None(_) => assert!(key.default.is_empty(), "{}", key.path),
                Effect::Moot => {}
            }
            assert!(key.path.is_ascii() && key.doc.is_ascii() && !key.doc.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn paths_are_found_in_any_case() {
        assert_eq!(find("api.PORT").unwrap().path, "API.Port");
        assert!(matches!(look_up("api"), Target::Group));
        assert!(matches!(look_up("Node.Compute"), Target::Group));
        assert!(matches!(look_up("API.Auth.Oauth2.Issuer"), Target::Inside(_)));
        assert!(matches!(look_up("API.Por"), Target::Unknown));
        assert!(matches!(look_up("node.type"), Target::Keys(keys) if keys.len() == 2));
        assert!(matches!(look_up(""), Target::Unknown));
    }

    #[test]
    fn misspellings_find_their_key() {
        assert_eq!(suggest("Results.Qouta"), Some("Results.Quota"));
        assert_eq!(suggest("result.quota"), Some("Results.Quota"));
        assert_eq!(suggest("quota"), Some("Results.Quota"));
        assert_eq!(suggest("Node.Compute.LocalPublisher.Prot"), Some("Node.Compute.LocalPublisher.Port"));
        assert_eq!(suggest("Nonsense"), None);
        assert_eq!(suggest(&"x".repeat(5000)), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "")), (3, 2, 2));
    }
}
