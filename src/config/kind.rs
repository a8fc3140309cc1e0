//! What keys hold, and how texts from files, variables and flags become it.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::values::{Advertise, Host, LocalPath, Scale, Secret, ValueError, clip, parse_scale};
use crate::model::{Bytes, MilliCpu, NodeId, units};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// A file or directory.
    Path,
    /// A truth value, in Go's spellings.
    Bool,
    /// A TCP port; 0 takes any free one.
    Port,
    /// A whole number in this range.
    Count(u64, u64),
    /// A whole number of 32 bits.
    Integer,
    /// A duration.
    Duration,
    /// A size in this range.
    Size(Bytes, Bytes),
    /// A size or a percentage.
    SizeScale,
    /// An amount of CPU.
    Cpu,
    /// An amount of CPU or a percentage.
    CpuScale,
    /// A number of GPUs.
    Gpu,
    /// A number of GPUs or a percentage.
    GpuScale,
    /// Texts.
    List,
    /// Texts by name.
    Map,
    /// An address to listen on.
    Host,
    /// An address for others.
    Advertise,
    /// Paths of this machine.
    LocalPaths,
    /// A name for a node.
    NodeName,
    /// A secret that travels in a header line.
    Token,
    /// Whatever is there, keys of its own included.
    Any,
}

impl Kind {
    /// What to write, for lists and manuals.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Word(words) => words.join(", "),
            Self::Path => "path".into(),
            Self::Bool => "true or false".into(),
            Self::Port => "port".into(),
            Self::Count(low, high) => format!("number, {low} to {high}"),
            Self::Integer => "number".into(),
            Self::Duration => "duration (90s, 1h30m, 7d)".into(),
            Self::Size(..) => "size (512Mi, 1GB)".into(),
            Self::SizeScale => "size or percentage (512Mi, 50%)".into(),
            Self::Cpu => "CPU (0.5, 500m)".into(),
            Self::CpuScale => "CPU or percentage (500m, 80%)".into(),
            Self::Gpu => "number of GPUs".into(),
            Self::GpuScale => "number of GPUs or percentage".into(),
            Self::List => "list".into(),
            Self::Map => "map".into(),
            Self::Host => "address or host name".into(),
            Self::Advertise => "address, host, host:port or base URL".into(),
            Self::LocalPaths => "list of paths".into(),
            Self::NodeName => "node name".into(),
            Self::Token => "secret text".into(),
            Self::Any => "any".into(),
        }
    }
}

/// What stood in a file, a variable or a flag.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A text, a whole number or a truth value.
    Text(String),
    /// A number with a fraction or an exponent: its spelling is lost.
    Float(String),
    /// A list of texts.
    List(Vec<String>),
    /// Texts by name.
    Map(Vec<(String, String)>),
    /// A tree.
    Tree,
}

impl Raw {
    /// As one line.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Text(text) | Self::Float(text) => text.clone(),
            Self::List(items) => items.join(","),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
            }
            Self::Tree => "(tree)".into(),
        }
    }
}

/// What a key holds, checked. Kinds of [`Kind`] and these go together, as a test over all keys shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Unset,
    /// Of `Text`, `Word` (lower case).
    Text(String),
    /// Of `Path`: absolute.
    Path(PathBuf),
    /// Of `Bool`.
    Bool(bool),
    /// Of `Port`.
    Port(u16),
    /// Of `Count`.
    Count(u64),
    /// Of `Integer`.
    Integer(i32),
    /// Of `Duration`.
    Duration(Duration),
    /// Of `Size`.
    Size(Bytes),
    /// Of `SizeScale`.
    SizeScale(Scale<Bytes>),
    /// Of `Cpu`.
    Cpu(MilliCpu),
    /// Of `CpuScale`.
    CpuScale(Scale<MilliCpu>),
    /// Of `Gpu`.
    Gpu(u32),
    /// Of `GpuScale`.
    GpuScale(Scale<u32>),
    /// Of `List`.
    List(Vec<String>),
    /// Of `Map`.
    Map(Vec<(String, String)>),
    /// Of `Host`.
    Host(Host),
    /// Of `Advertise`.
    Advertise(Advertise),
    /// Of `LocalPaths`.
    LocalPaths(Vec<LocalPath>),
    /// Of `NodeName`.
    NodeName(NodeId),
    /// Of `Token`.
    Token(Secret),
}

/// What relative and `~` paths start from.
#[derive(Debug, Clone)]
pub struct Base {
    /// The user's home.
    pub home: Option<PathBuf>,
    /// Where the program was started.
    pub current: PathBuf,
}

/// Longest duration that is taken; longer ones ("for ever" in 1.4 is 292 years) are cut to it,
/// so that no sum with the time of day overflows.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Most entries of one list or map.
pub const MAX_ENTRIES: usize = 256;

impl Kind {
    /// Reads a value.
    ///
    /// # Errors
    /// It is not of this kind; the fragment says what would be.
    pub fn parse(&self, raw: &Raw, base: &Base) -> Result<Value, ValueError> {
        match self {
            Self::Any => return Ok(Value::Unset),
            Self::List => return Ok(Value::List(list(raw)?)),
            Self::LocalPaths => {
                let paths = list(raw)?.iter().map(|item| LocalPath::parse(item)).collect::<Result<_, _>>()?;
                return Ok(Value::LocalPaths(paths));
            }
            Self::Map => return Ok(Value::Map(map(raw)?)),
            _ => {}
        }
        let text = match raw {
            Raw::Float(_) if matches!(self, Self::Token) => {
                return Err(ValueError("the token was read as a number; write it in quotes".into()));
            }
            Raw::Text(text) | Raw::Float(text) => text,
            Raw::List(_) => return Err(ValueError(format!("a list stands where {} goes", self.describe()))),
            Raw::Map(_) | Raw::Tree => {
                return Err(ValueError(format!("keys stand where {} goes", self.describe())));
            }
        };
        if text.contains('\0') {
            return Err(ValueError("it contains NUL".into()));
        }
        if text.trim().is_empty() {
            return match self {
                Self::Path => Err(ValueError("the path is empty".into())),
                _ => Ok(Value::Unset),
            };
        }
        self.parse_text(text, base)
    }

    fn parse_text(&self, text: &str, base: &Base) -> Result<Value, ValueError> {
        let wanted = || ValueError(format!("'{}' is not {}", clip(text.trim()), self.article()));
        Ok(match *self {
            Self::Text => Value::Text(text.into()),
            Self::Word(words) => {
                let word = text.trim().to_ascii_lowercase();
                if !words.contains(&word.as_str()) {
                    return Err(ValueError(format!(
                        "'{}' is not one of {}",
                        clip(text.trim()),
                        words.join(", ")
                    )));
                }
                Value::Text(word)
            }
            Self::Path => Value::Path(path(text, base)?),
            Self::Bool => Value::Bool(parse_bool(text).ok_or_else(wanted)?),
            Self::Port => Value::Port(text.trim().parse().map_err(|_| wanted())?),
            Self::Count(low, high) => match text.trim().parse::<u64>() {
                Ok(n) if (low..=high).contains(&n) => Value::Count(n),
                _ => return Err(wanted()),
            },
            Self::Integer => Value::Integer(text.trim().parse().map_err(|_| wanted())?),
            Self::Duration => Value::Duration(units::parse_duration(text)?.min(MAX_DURATION)),
            Self::Size(low, high) => match units::parse_bytes(text)? {
                n if (low..=high).contains(&n) => Value::Size(n),
                n => return Err(ValueError(format!("{n} is not between {low} and {high}"))),
            },
            Self::SizeScale => Value::SizeScale(parse_scale(text, units::parse_bytes)?),
            Self::Cpu => Value::Cpu(units::parse_cpu(text)?),
            Self::CpuScale => Value::CpuScale(parse_scale(text, units::parse_cpu)?),
            Self::Gpu => Value::Gpu(units::parse_gpu(text)?),
            Self::GpuScale => Value::GpuScale(parse_scale(text, units::parse_gpu)?),
            Self::Host => Value::Host(Host::parse(text)?),
            Self::Advertise => Value::Advertise(Advertise::parse(text)?),
            Self::NodeName => Value::NodeName(
                text.trim().parse().map_err(|e: crate::model::IdError| ValueError(e.to_string()))?,
            ),
            Self::Token => Value::Token(Secret::parse(text)?),
            // Taken before a text is asked for.
            Self::List | Self::LocalPaths | Self::Map | Self::Any => Value::Unset,
        })
    }

    fn article(&self) -> String {
        match self {
            Self::Bool => "true or false (or 1, t, 0, f)".into(),
            Self::Port => "a port (0 to 65535)".into(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Integer => "a whole number of 32 bits".into(),
            other => other.describe(),
        }
    }
}

/// Go's truth values.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A list as such, or as one comma-separated text.
pub(super) fn list(raw: &Raw) -> Result<Vec<String>, ValueError> {
    let items: Vec<String> = match raw {
        Raw::List(items) => items.clone(),
        Raw::Text(text) | Raw::Float(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) | Raw::Float(text) => {
            if text.contains(';') || text.trim().contains(char::is_whitespace) {
                return Err(ValueError(format!(
                    "'{}' is not a list: items are separated by commas, without blanks or semicolons",
                    clip(text)
                )));
            }
            text.trim().split(',').map(str::to_owned).collect()
        }
        Raw::Map(_) | Raw::Tree => return Err(ValueError("keys stand where a list goes".into())),
    };
    if items.len() > MAX_ENTRIES {
        return Err(ValueError(format!("{} items; at most {MAX_ENTRIES} are taken", items.len())));
    }
    if items.iter().any(|item| item.trim().is_empty() || item.contains('\0')) {
        return Err(ValueError("an item of the list is empty or contains NUL".into()));
    }
    Ok(items)
}

/// A map as such, or as one text `k=v,k=v`.
fn map(raw: &Raw) -> Result<Vec<(String, String)>, ValueError> {
    let entries: Vec<(String, String)> = match raw {
        Raw::Map(entries) => entries.clone(),
        Raw::Text(text) | Raw::Float(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) | Raw::Float(text) => {
            let pair = |item: &str| match item.split_once('=') {
                Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
                None => Err(ValueError(format!("'{}' is not key=value", clip(item)))),
            };
            text.split(',').map(pair).collect::<Result<_, _>>()?
        }
        Raw::List(_) | Raw::Tree => return Err(ValueError("something else stands where a map goes".into())),
    };
    if entries.len() > MAX_ENTRIES {
        return Err(ValueError(format!("{} entries; at most {MAX_ENTRIES} are taken", entries.len())));
    }
    if entries.iter().any(|(key, value)| key.is_empty() || key.contains('\0') || value.contains('\0')) {
        return Err(ValueError("a key of the map is empty, or something contains NUL".into()));
    }
    Ok(entries)
}

/// Expands `~`, refuses `$`, makes absolute, takes `.` and `..` out.
fn path(text: &str, base: &Base) -> Result<PathBuf, ValueError> {
    let text = text.trim();
    if text.contains('$') {
        return Err(ValueError(format!("'{}': variables are not expanded; write the path out", clip(text))));
    }
    let joined = match text.strip_prefix('~') {
        None => base.current.join(text),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match &base.home {
            Some(home) => home.join(rest.trim_start_matches('/')),
            None => {
                return Err(ValueError(format!(
                    "'{}': there is no home directory; write it out",
                    clip(text)
                )));
            }
        },
        Some(_) => {
            return Err(ValueError(format!(
                "'{}': only the own home directory (~/) can be abbreviated",
                clip(text)
            )));
        }
    };
    if !joined.is_absolute() {
        return Err(ValueError(format!("'{}' cannot be made absolute; write the whole path", clip(text))));
    }
    Ok(normal(&joined))
}

/// Without `.`, and without `..` as far as that can be said without looking at the disk.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        Base { home: Some("/home/pi".into()), current: "/srv".into() }
    }

    fn parse(kind: Kind, text: &str) -> Result<Value, ValueError> {
        kind.parse(&Raw::Text(text.into()), &base())
    }

    #[test]
    fn paths_become_absolute() {
        let table = [
            ("~", Some("/home/pi")),
            ("~/x", Some("/home/pi/x")),
            ("x", Some("/srv/x")),
            ("./x/../y", Some("/srv/y")),
            ("/a//b/./c", Some("/a/b/c")),
            ("../../..", Some("/")),
            ("~root/x", None),
            ("$HOME/x", None),
            ("/a/${B}", None),
            ("", None),
            ("  ", None),
            ("/a\0", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(Kind::Path, text).ok(), wanted.map(|p| Value::Path(p.into())), "{text:?}");
        }
        let lost = Base { home: None, current: PathBuf::new() };
        for text in ["~/x", "x"] {
            assert!(Kind::Path.parse(&Raw::Text(text.into()), &lost).is_err());
        }
    }

    #[test]
    fn each_kind_refuses_what_it_is_not() {
        let table: &[(Kind, &str, Option<Value>)] = &[
            (Kind::Bool, "T", Some(Value::Bool(true))),
            (Kind::Bool, "0", Some(Value::Bool(false))),
            (Kind::Bool, "yes", None),
            (Kind::Port, "65535", Some(Value::Port(65535))),
            (Kind::Port, "65536", None),
            (Kind::Port, "-1", None),
            (Kind::Count(1, 9), "9", Some(Value::Count(9))),
            (Kind::Count(1, 9), "0", None),
            (Kind::Count(1, 9), "10", None),
            (Kind::Integer, "-5", Some(Value::Integer(-5))),
            (Kind::Integer, "1.5", None),
            (Kind::Duration, "7d", Some(Value::Duration(Duration::from_secs(604_800)))),
            (Kind::Duration, "2562047h47m16.854775807s", Some(Value::Duration(MAX_DURATION))),
            (Kind::Duration, "60", None),
            (Kind::Size(Bytes(10), Bytes(20)), "10", Some(Value::Size(Bytes(10)))),
            (Kind::Size(Bytes(10), Bytes(20)), "9", None),
            (Kind::Size(Bytes(10), Bytes(20)), "1k", None),
            (Kind::Word(&["a", "b"]), "B", Some(Value::Text("b".into()))),
            (Kind::Word(&["a", "b"]), "c", None),
            (Kind::Gpu, "0.5", None),
            (Kind::CpuScale, "50%", Some(Value::CpuScale(Scale::Percent(50.0)))),
            (Kind::NodeName, "a.b", None),
            (Kind::List, "a,b", Some(Value::List(vec!["a".into(), "b".into()]))),
            (Kind::List, "", Some(Value::List(vec![]))),
            (Kind::List, "a;b", None),
            (Kind::List, "a, b", None),
            (Kind::List, "a,,b", None),
            (
                Kind::Map,
                "a=1,b=x=y",
                Some(Value::Map(vec![("a".into(), "1".into()), ("b".into(), "x=y".into())])),
            ),
            (Kind::Map, "a", None),
            (Kind::Map, "=1", None),
            (Kind::Text, "a\0", None),
        ];
        for (kind, text, wanted) in table {
            assert_eq!(parse(*kind, text).ok(), *wanted, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn trees_lists_and_long_lists_are_refused_where_a_value_goes() {
        let many = Raw::List(vec!["x".into(); MAX_ENTRIES + 1]);
        assert!(Kind::List.parse(&many, &base()).is_err());
        for kind in [Kind::Text, Kind::Port, Kind::Path] {
            for raw in [Raw::Tree, Raw::List(vec![]), Raw::Map(vec![])] {
                assert!(kind.parse(&raw, &base()).is_err(), "{kind:?} {raw:?}");
            }
        }
        assert!(Kind::Token.parse(&Raw::Float("12345678.5".into()), &base()).is_err());
        assert!(Kind::CpuScale.parse(&Raw::Float("0.5".into()), &base()).is_ok());
    }
}
