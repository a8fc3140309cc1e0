//! The fields of a map as Go's decoder finds them: names without case, null as absent, every fault noted.

use std::collections::{BTreeMap, HashSet};

use super::tree::Tree;

/// Lines that one answer holds; what is beyond is counted.
const NOTES: usize = 50;

/// A list of remarks that stays short whatever it is given.
#[derive(Debug, Default)]
pub(super) struct Notes {
    lines: Vec<String>,
    more: usize,
}

impl Notes {
    pub fn add(&mut self, line: impl Into<String>) {
        if self.lines.len() < NOTES {
            self.lines.push(line.into());
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more", self.more));
        }
        self.lines
    }
}

/// What was found out while reading.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub problems: Notes,
    /// Paths of keys that nothing asked for.
    pub unknown: Notes,
}

/// The entries of one map.
pub(super) struct Fields<'t> {
    path: String,
    entries: Vec<(&'t str, Option<&'t Tree>)>,
}

impl<'t> Fields<'t> {
    /// The map at `path`; anything else is a problem and has no fields.
    pub fn of(tree: &'t Tree, path: &str, findings: &mut Findings) -> Self {
        let mut entries = Vec::new();
        match tree {
            Tree::Map(map) => {
                let mut seen = HashSet::new();
                for (key, value) in map {
                    if !seen.insert(key.to_ascii_lowercase()) {
                        findings.problems.add(format!(
                            "{}: given twice (keys are compared without case)",
                            join(path, cut(key))
                        ));
                    }
                    entries.push((key.as_str(), Some(value)));
                }
            }
            Tree::Null => {}
            other => findings.problems.add(format!("{}: {} where a map is needed", at(path), other.kind())),
        }
        Self { path: path.to_owned(), entries }
    }

    /// Where the field of that name is.
    pub fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Takes a field out; null is absent.
    pub fn take(&mut self, name: &str) -> Option<&'t Tree> {
        let slot = self.entries.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        slot.1.take().filter(|tree| !matches!(tree, Tree::Null))
    }

    /// A text; a number or truth value stands for its text (YAML needs no quotes).
    pub fn text(&mut self, name: &str, findings: &mut Findings) -> Option<String> {
        let tree = self.take(name)?;
        let text = scalar(tree);
        if text.is_none() {
            findings.problems.add(format!("{}: {} where a text is needed", self.at(name), tree.kind()));
        }
        text
    }

    /// A whole number, also as a text.
    pub fn int(&mut self, name: &str, findings: &mut Findings) -> Option<i128> {
        let tree = self.take(name)?;
        let number = match tree {
            Tree::Int(number) => Some(*number),
            Tree::Str(text) if text.trim().is_empty() => return None,
            Tree::Str(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            let found =
                scalar(tree).map_or_else(|| tree.kind().to_owned(), |text| format!("'{}'", cut(&text)));
            findings.problems.add(format!("{}: {found} is not a whole number", self.at(name)));
        }
        number
    }

    /// A list; a missing one is empty.
    pub fn list(&mut self, name: &str, findings: &mut Findings) -> &'t [Tree] {
        match self.take(name) {
            None => &[],
            Some(Tree::List(items)) => items,
            Some(other) => {
                let at = self.at(name);
                findings.problems.add(format!("{at}: {} where a list is needed", other.kind()));
                &[]
            }
        }
    }

    /// A map of texts. Its keys are the user's own and keep their case.
    pub fn texts(&mut self, name: &str, findings: &mut Findings) -> BTreeMap<String, String> {
        let at = self.at(name);
        let mut texts = BTreeMap::new();
        match self.take(name) {
            None => {}
            Some(Tree::Map(map)) => {
                for (key, value) in map {
                    match scalar(value) {
                        Some(text) => drop(texts.insert(key.clone(), text)),
                        None if matches!(value, Tree::Null) => {
                            texts.insert(key.clone(), String::new());
                        }
                        None => findings.problems.add(format!(
                            "{}: {} where a text is needed",
                            join(&at, cut(key)),
                            value.kind()
                        )),
                    }
                }
            }
            Some(other) => {
                findings.problems.add(format!("{at}: {} where a map is needed", other.kind()));
            }
        }
        texts
    }

    /// A list of texts.
    pub fn text_list(&mut self, name: &str, findings: &mut Findings) -> Vec<String> {
        let at = self.at(name);
        let mut texts = Vec::new();
        for (i, item) in self.list(name, findings).iter().enumerate() {
            match scalar(item) {
                Some(text) => texts.push(text),
                None => {
                    findings.problems.add(format!("{at}[{i}]: {} where a text is needed", item.kind()));
                }
            }
        }
        texts
    }

    /// Notes the keys that were not taken.
    pub fn finish(self, findings: &mut Findings) {
        for (key, value) in self.entries {
            if value.is_some() {
                findings.unknown.add(join(&self.path, cut(key)));
            }
        }
    }
}

/// The text of a plain value.
pub(super) fn scalar(tree: &Tree) -> Option<String> {
    match tree {
        Tree::Str(text) => Some(text.clone()),
        Tree::Int(number) => Some(number.to_string()),
        Tree::Float(number) if number.is_finite() => Some(number.to_string()),
        Tree::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The first 64 characters: what a message shows of a user's text.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn at(path: &str) -> &str {
    if path.is_empty() { "the job" } else { path }
}
