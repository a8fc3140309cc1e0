//! Job files and request bodies as one tree, read from JSON or YAML under limits.
//!
//! Hostile text ends in an error here, not in memory: size, depth, number of values and the bytes of all texts
//! are bounded, aliases of YAML count each time they are used, and a key may not be given twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of a job file or body. Maps keep the order of the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Str(String),
    /// A list.
    List(Vec<Tree>),
    /// A map; no key is there twice.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// What it is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Bounds on what is read. The text itself is bounded by whoever holds it, and checked here again.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the text, and of all texts in the tree together (YAML aliases repeat them).
    pub bytes: usize,
    /// Lists and maps inside each other.
    pub depth: usize,
    /// Values in all. Each costs some 80 bytes of memory, however short it is in the text.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 10 << 20, depth: 64, values: 1 << 16 }
    }
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not JSON or YAML; the parser's own words.
    Syntax(String),
    /// It, or what its aliases stand for, has more bytes than that.
    TooLarge(usize),
    /// Lists and maps lie more than that deep.
    TooDeep(usize),
    /// It has more values than that.
    TooMany(usize),
    /// This key is there twice.
    DuplicateKey(String),
    /// A key is not a plain value.
    BadKey,
    /// YAML tags (`!name`) mean nothing here.
    Tag(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => f.write_str(text),
            Self::TooLarge(limit) => write!(f, "more than the {limit} bytes that are taken"),
            Self::TooDeep(limit) => write!(f, "lists and maps lie more than {limit} deep"),
            Self::TooMany(limit) => write!(f, "more than the {limit} values that are taken"),
            Self::DuplicateKey(key) => write!(f, "the key '{key}' is given twice"),
            Self::BadKey => f.write_str("a key must be a text without NUL, or a number"),
            Self::Tag(tag) => write!(f, "the tag '{tag}' is not supported"),
        }
    }
}

/// A text that could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TreeError {
    /// What is wrong.
    pub fault: Fault,
    /// Where in the tree, e.g. `Tasks[0].Name`; empty at the top.
    pub path: String,
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// Column, from 1; 0 if unknown.
    pub column: usize,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}", self.line, self.column)?;
            if !self.path.is_empty() {
                write!(f, " ({})", self.path)?;
            }
            f.write_str(": ")?;
        } else if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.fault.fmt(f)
    }
}

/// Reads one JSON value.
///
/// # Errors
/// It is not JSON, something follows it, or it exceeds a limit.
pub fn parse_json(text: &[u8], limits: &Limits) -> Result<Tree, TreeError> {
    let mut state = State::new(text, limits)?;
    let mut parser = serde_json::Deserializer::from_slice(text);
    let read = Build { state: &mut state, depth: 0 }
        .deserialize(&mut parser)
        .and_then(|tree| parser.end().map(|()| tree));
    read.map_err(|error| state.error(&error.to_string(), error.line(), error.column()))
}

/// Reads one YAML document. Merge keys (`<<`) are resolved.
///
/// # Errors
/// It is not YAML, there is a second document, or it exceeds a limit.
pub fn parse_yaml(text: &[u8], limits: &Limits) -> Result<Tree, TreeError> {
    let mut state = State::new(text, limits)?;
    state.yaml = true;
    let parser = yaml_serde::Deserializer::from_slice(text);
    let read = Build { state: &mut state, depth: 0 }.deserialize(parser);
    read.map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        state.error(&error.to_string(), line, column)
    })
}

/// Reads a job file: JSON if its first character is a brace, YAML otherwise.
///
/// # Errors
/// As the two parsers.
pub fn parse(text: &[u8], limits: &Limits) -> Result<Tree, TreeError> {
    match text.trim_ascii_start().first() {
        Some(b'{') => {
            // A YAML flow map begins with a brace, too; if it is neither, the JSON error is the one to show.
            let json = parse_json(text, limits);
            match &json {
                Err(TreeError { fault: Fault::Syntax(_), .. }) => parse_yaml(text, limits).or(json),
                _ => json,
            }
        }
        _ => parse_yaml(text, limits),
    }
}

/// What has been read so far. After an error, `path` still says where.
struct State {
    limits: Limits,
    yaml: bool,
    values: usize,
    bytes: usize,
    path: String,
    fault: Option<Fault>,
}

impl State {
    fn new(text: &[u8], limits: &Limits) -> Result<Self, TreeError> {
        if text.len() > limits.bytes {
            let fault = Fault::TooLarge(limits.bytes);
            return Err(TreeError { fault, path: String::new(), line: 0, column: 0 });
        }
        Ok(Self { limits: *limits, yaml: false, values: 0, bytes: 0, path: String::new(), fault: None })
    }

    /// Turns a parser's error into ours: our own fault if we stopped it, its words without their position otherwise.
    fn error(self, words: &str, line: usize, column: usize) -> TreeError {
        let fault = self.fault.unwrap_or_else(|| {
            let words = words.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(words);
            Fault::Syntax(words.chars().take(200).collect())
        });
        TreeError { fault, path: self.path.chars().take(200).collect(), line, column }
    }

    fn fail<E: de::Error>(&mut self, fault: Fault) -> E {
        let error = E::custom(&fault);
        self.fault = Some(fault);
        error
    }

    fn value<E: de::Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        let limit = self.limits.values;
        if self.values > limit { Err(self.fail(Fault::TooMany(limit))) } else { Ok(()) }
    }

    fn text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.bytes = self.bytes.saturating_add(text.len());
        let limit = self.limits.bytes;
        if self.bytes > limit { Err(self.fail(Fault::TooLarge(limit))) } else { Ok(()) }
    }
}

/// Builds one value.
struct Build<'s> {
    state: &'s mut State,
    depth: usize,
}

impl Build<'_> {
    fn deeper<E: de::Error>(&mut self) -> Result<usize, E> {
        let limit = self.state.limits.depth;
        if self.depth >= limit { Err(self.state.fail(Fault::TooDeep(limit))) } else { Ok(self.depth + 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        self.state.value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Int(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "no field takes a number of this size")]
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Tree, E> {
        Ok(i128::try_from(value).map_or(Tree::Float(value as f64), Tree::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        self.state.text(value)?;
        Ok(Tree::Str(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Tree, E> {
        self.state.text(&value)?;
        Ok(Tree::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Tree, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        let here = self.state.path.len();
        loop {
            push_index(&mut self.state.path, list.len());
            match items.next_element_seed(Build { state: &mut *self.state, depth })? {
                Some(item) => list.push(item),
                None => break,
            }
            self.state.path.truncate(here);
        }
        self.state.path.truncate(here);
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Tree, A::Error> {
        let depth = self.deeper()?;
        let mut map: Vec<(String, Tree)> = Vec::new();
        let mut seen = HashSet::new();
        let here = self.state.path.len();
        while let Some(key) = entries.next_key_seed(Key(&mut *self.state))? {
            push_key(&mut self.state.path, &key);
            if !seen.insert(key.clone()) {
                return Err(self.state.fail(Fault::DuplicateKey(key.chars().take(64).collect())));
            }
            let value = entries.next_value_seed(Build { state: &mut *self.state, depth })?;
            map.push((key, value));
            self.state.path.truncate(here);
        }
        if self.state.yaml {
            merge(&mut map);
        }
        Ok(Tree::Map(map))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, tagged: A) -> Result<Tree, A::Error> {
        let (tag, _) = tagged.variant::<Cow<'_, str>>()?;
        Err(self.state.fail(Fault::Tag(tag.chars().take(64).collect())))
    }
}

fn push_index(path: &mut String, index: usize) {
    use fmt::Write;
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.extend(key.chars().take(64));
}

/// Puts the entries of the map or maps under `<<` where the map has none of that name, as YAML 1.1 says.
fn merge(map: &mut Vec<(String, Tree)>) {
    let Some(at) = map.iter().position(|(key, value)| {
        let maps = |list: &Vec<Tree>| list.iter().all(|t| matches!(t, Tree::Map(_)));
        key == "<<" && (matches!(value, Tree::Map(_)) || matches!(value, Tree::List(list) if maps(list)))
    }) else {
        return;
    };
    let sources = match map.remove(at).1 {
        Tree::List(list) => list,
        one => vec![one],
    };
    let mut have: HashSet<String> = map.iter().map(|(key, _)| key.clone()).collect();
    for source in sources {
        let Tree::Map(entries) = source else { continue };
        for (key, value) in entries {
            if have.insert(key.clone()) {
                map.push((key, value));
            }
        }
    }
}

/// Builds one key. YAML allows numbers and truth values; they stand for their text, as in Bacalhau.
struct Key<'s>(&'s mut State);

impl Key<'_> {
    fn take<E: de::Error>(self, key: String) -> Result<String, E> {
        self.0.value()?;
        self.0.text(&key)?;
        if key.contains('\0') { Err(self.0.fail(Fault::BadKey)) } else { Ok(key) }
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        if self.0.yaml { deserializer.deserialize_any(self) } else { deserializer.deserialize_str(self) }
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        self.take(key.to_owned())
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<String, E> {
        self.take(key.to_string())
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<String, E> {
        self.take(key.to_string())
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<String, E> {
        self.take(key.to_string())
    }

    fn visit_f64<E: de::Error>(self, key: f64) -> Result<String, E> {
        self.take(key.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Err(self.0.fail(Fault::BadKey))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.0.fail(Fault::BadKey))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.0.fail(Fault::BadKey))
    }
}

#[cfg(test)]
mod tests;
