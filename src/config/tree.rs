//! YAML as a tree of texts. Everything about it is bounded before it is believed.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::kind::Raw;

/// Largest file that is read.
pub const MAX_FILE: usize = 1 << 20;

/// Most brackets in a file. Time to scan nested `[` and `{` grows with the square of their depth:
/// 80 KB of them took more than a second on a fast machine. No settings file has a thousand.
pub const MAX_BRACKETS: usize = 4096;

/// Most keys and values in a file, aliases counted each time: a few lines of aliases can stand for billions.
pub const MAX_NODES: u32 = 20_000;

/// A file that is no tree of settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// Larger than [`MAX_FILE`].
    #[error("larger than {MAX_FILE} bytes, the most that is read")]
    TooLarge,
    /// More than [`MAX_BRACKETS`].
    #[error("more than {MAX_BRACKETS} brackets")]
    TooNested,
    /// Not text.
    #[error("not UTF-8 at byte {}", .0.valid_up_to())]
    NotText(#[from] std::str::Utf8Error),
    /// Not YAML, or YAML that is refused (several documents, deep nesting, aliases without end).
    #[error("not valid YAML: {0}")]
    Yaml(#[from] yaml_serde::Error),
    /// A list or a single value.
    #[error("not a settings file: the top must be keys with values")]
    NotKeys,
}

impl TreeError {
    /// Line of the file where it went wrong, if that is known.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Yaml(error) => error.location().map(|at| at.line()),
            _ => None,
        }
    }
}

/// A value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing stands there.
    Null,
    /// A text, a whole number, a truth value.
    Text(String),
    /// A number with a fraction or an exponent.
    Float(String),
    /// A list.
    List(Vec<Self>),
    /// Keys in their order; a key may be there twice.
    Map(Vec<(String, Self)>),
}

/// Reads the keys of a settings file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(String, Node)>, TreeError> {
    if bytes.len() > MAX_FILE {
        return Err(TreeError::TooLarge);
    }
    if bytes.iter().filter(|b| matches!(b, b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(TreeError::TooNested);
    }
    let text = std::str::from_utf8(bytes)?;
    let left = Cell::new(MAX_NODES);
    let yaml = yaml_serde::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
    match (NodeSeed { left: &left }).deserialize(yaml)? {
        Node::Map(entries) => Ok(entries),
        Node::Null => Ok(Vec::new()),
        _ => Err(TreeError::NotKeys),
    }
}

impl Node {
    /// As a value; trees within lists or maps have no other form than [`Raw::Tree`].
    pub(super) fn raw(&self) -> Option<Raw> {
        let text = |node: &Self| match node {
            Self::Text(text) | Self::Float(text) => Some(text.clone()),
            Self::Null => Some(String::new()),
            Self::List(_) | Self::Map(_) => None,
        };
        Some(match self {
            Self::Null => return None,
            Self::Text(text) => Raw::Text(text.clone()),
            Self::Float(text) => Raw::Float(text.clone()),
            Self::List(items) => items.iter().map(text).collect::<Option<_>>().map_or(Raw::Tree, Raw::List),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, node)| Some((key.clone(), text(node)?)))
                .collect::<Option<_>>()
                .map_or(Raw::Tree, Raw::Map),
        })
    }
}

/// Reads one node, and counts it.
#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    left: &'a Cell<u32>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Node, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(de::Error::custom(format_args!("more than {MAX_NODES} keys and values"))),
        }
        yaml.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key, a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    /// A file without any content.
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            let key = match key {
                Node::Text(text) | Node::Float(text) => text,
                _ => return Err(de::Error::custom("a key is not a plain text")),
            };
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Node::Map(entries))
    }
}

/// Finds the lines on which the keys of a file stand, by their indentation. Keys in `{...}` are not found,
/// which costs a message its line number and nothing else.
pub(super) struct Lines(Vec<(String, usize)>);

impl Lines {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (mut found, mut open) = (Vec::new(), Vec::<(usize, String)>::new());
        // Indentation of the key whose text goes on below it (`|` or `>`).
        let mut block: Option<usize> = None;
        for (i, line) in text.lines().enumerate() {
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            if content.trim().is_empty() || content.starts_with(['#', '-']) {
                continue;
            }
            if block.is_some_and(|outer| indent > outer) {
                continue;
            }
            block = None;
            let Some((key, rest)) = split_key(content) else { continue };
            open.retain(|(at, _)| *at < indent);
            // Deeper than any file that can be read, and each level is part of the path that is built here.
            if open.len() > 32 || key.len() > 128 {
                continue;
            }
            let path = open.iter().map(|(_, key)| key.as_str()).chain([key]).collect::<Vec<_>>().join(".");
            found.push((path, i + 1));
            open.push((indent, key.to_owned()));
            if rest.trim_start().starts_with(['|', '>']) {
                block = Some(indent);
            }
        }
        Self(found)
    }

    /// The line of the `nth` (from 0) time that a path is there.
    pub(super) fn find(&self, path: &str, nth: usize) -> Option<usize> {
        self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(path)).nth(nth).map(|(_, line)| *line)
    }
}

fn split_key(content: &str) -> Option<(&str, &str)> {
    let (key, rest) = match content.chars().next()? {
        quote @ ('"' | '\'') => {
            let (key, rest) = content.get(1..)?.split_once(quote)?;
            (key, rest.trim_start().strip_prefix(':')?)
        }
        _ => {
            let end = content.find(": ").or_else(|| content.trim_end().strip_suffix(':').map(str::len))?;
            (content.get(..end)?.trim_end(), content.get(end + 1..)?)
        }
    };
    (!key.is_empty()).then_some((key, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.into())
    }

    #[test]
    fn values_keep_their_text() {
        let yaml = "API: {Port: 6001, Host: 0.0.0.0}\nOn: true\nCPU: 0.5\nName: 007\nList: [a, 1, ~]\nNone:\n\
                    Big: 18446744073709551615\n1: one\n";
        let wanted = vec![
            ("API".into(), Node::Map(vec![("Port".into(), text("6001")), ("Host".into(), text("0.0.0.0"))])),
            ("On".into(), text("true")),
            ("CPU".into(), Node::Float("0.5".into())),
            ("Name".into(), text("007")),
            ("List".into(), Node::List(vec![text("a"), text("1"), Node::Null])),
            ("None".into(), Node::Null),
            ("Big".into(), text("18446744073709551615")),
            ("1".into(), text("one")),
        ];
        assert_eq!(parse(yaml.as_bytes()).unwrap(), wanted);
        assert_eq!(parse("\u{feff}a: 1".as_bytes()).unwrap(), vec![("a".into(), text("1"))]);
        for empty in ["", "# nothing\n", "---\n", "~"] {
            assert!(parse(empty.as_bytes()).unwrap().is_empty(), "{empty:?}");
        }
        let nested = parse(b"a: [1, [2]]\nb: {c: {d: 1}}\nc: {d: 1}\n").unwrap();
        assert_eq!(nested[0].1.raw(), Some(Raw::Tree));
        assert_eq!(nested[1].1.raw(), Some(Raw::Tree));
        assert_eq!(nested[2].1.raw(), Some(Raw::Map(vec![("d".into(), "1".into())])));
    }

    #[test]
    fn a_key_that_is_there_twice_is_kept_twice() {
        assert_eq!(parse(b"a: 1\na: 2\n").unwrap().len(), 2);
    }

    #[test]
    fn hostile_files_are_refused() {
        let bomb = (1..9u8).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |yaml, i| {
            let nine = format!("*a{},", i - 1).repeat(9);
            yaml + &format!("a{i}: &a{i} [{nine}]\n")
        });
        let table: Vec<(Vec<u8>, &str)> = vec![
            (vec![b'#'; MAX_FILE + 1], "larger than"),
            (b"[".repeat(MAX_BRACKETS + 1), "brackets"),
            (b"{a: ".repeat(MAX_BRACKETS + 1), "brackets"),
            (b"[".repeat(MAX_BRACKETS), "recursion limit"),
            (b"- ".repeat(50_000), "recursion limit"),
            (b"? ".repeat(50_000), "recursion limit"),
            (bomb.into_bytes(), "keys and values"),
            (b"- a\n".repeat(MAX_NODES as usize), "keys and values"),
            (b"a: \xff\n".to_vec(), "UTF-8"),
            (b"a: \0\n".to_vec(), "control characters"),
            (b"a: 1\n---\nb: 2\n".to_vec(), "more than one document"),
            (b"a: *nowhere\n".to_vec(), "anchor"),
            (b"a: !x 1\n".to_vec(), "expected"),
            (b"[a]: 1\n".to_vec(), "plain text"),
            (b"a: 'open\n".to_vec(), "quoted"),
            (b"just text".to_vec(), "must be keys"),
            (b"- a\n- b\n".to_vec(), "must be keys"),
        ];
        for (bytes, wanted) in table {
            let error = parse(&bytes).unwrap_err().to_string();
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
            assert!(error.contains(wanted), "{start:?}: {error}");
        }
        assert_eq!(parse(b"a: 1\nb: 'x\n").unwrap_err().line().map(|l| l >= 2), Some(true));
    }

    #[test]
    fn lines_are_found_by_indentation() {
        let yaml = b"# head\nAPI:\n  Host: x\n  Auth:\n    Token: |\n      Port: no\n  Port: 1\n\
                     'Quoted key':\n    A: 1\nB:\n- C: 1\n- D\nURL: http://x:80\nAPI:\n";
        let lines = Lines::of(yaml);
        let table = [
            ("api", 0, Some(2)),
            ("API.Host", 0, Some(3)),
            ("API.Auth.Token", 0, Some(5)),
            ("API.Port", 0, Some(7)),
            ("Quoted key.A", 0, Some(9)),
            ("B", 0, Some(10)),
            ("B.C", 0, None),
            ("URL", 0, Some(13)),
            ("API", 1, Some(14)),
            ("API", 2, None),
        ];
        for (path, nth, wanted) in table {
            assert_eq!(lines.find(path, nth), wanted, "{path}");
        }
        let steep: String = (0..500).map(|i| format!("{}k{i}:\n", " ".repeat(i))).collect();
        let lines = Lines::of(steep.as_bytes());
        assert_eq!((lines.find("k0.k1", 0), lines.0.len()), (Some(2), 33));
    }
}
