//! Values of flags in Bacalhau's notations: inputs, publishers, `NAME=VALUE`.

use serde_json::{Map, Value, json};

use super::inline;
use crate::cli::exit::{CliError, Exit};

/// Where an input is mounted if nothing is said.
const INPUTS: &str = "/inputs";

/// Why an input cannot be used.
#[derive(Debug)]
pub enum InputFault {
    /// The flag is wrong.
    Usage(String),
    /// The file that it names.
    File(CliError),
}

impl InputFault {
    /// What the command line prints; `text` is the flag's value.
    pub fn into_error(self, text: &str) -> CliError {
        match self {
            Self::Usage(why) => CliError::new(Exit::Usage, format!("--input '{text}': {why}")),
            Self::File(error) => error,
        }
    }
}

/// `URI[:PATH]` or `src=URI,dst=PATH[,opt=KEY=VALUE]` as an entry of `InputSources`.
///
/// # Errors
/// It is none, or its file cannot be sent.
pub fn input(text: &str) -> Result<Value, InputFault> {
    let fields = Fields::parse(text).map_err(InputFault::Usage)?;
    let (uri, target) = match (fields.target, fields.place) {
        (Some(target), _) => (fields.uri, target),
        (None, place) => (fields.uri, place.unwrap_or_default()),
    };
    if uri.is_empty() {
        return Err(InputFault::Usage("it names no source".into()));
    }
    let (source, default) = match remote(&uri, &fields.options).map_err(InputFault::Usage)? {
        Some(source) => (source, INPUTS.to_owned()),
        None => {
            let source = inline::file(&uri).map_err(InputFault::File)?;
            let name = uri.rsplit('/').next().unwrap_or_default();
            (source, format!("{INPUTS}/{name}"))
        }
    };
    let target = if target.is_empty() { default } else { target };
    Ok(json!({"Source": source, "Alias": uri, "Target": target}))
}

/// A source that the node fetches: what a module's name says if it is no file here.
///
/// # Errors
/// A scheme that nobody knows.
pub fn remote_module(text: &str) -> Result<Option<Value>, String> {
    if is_cid(text) && !std::path::Path::new(text).exists() {
        return Ok(Some(json!({"Type": "ipfs", "Params": {"CID": text}})));
    }
    remote(text, &Map::new())
}

/// The parts of a flag in Bacalhau's notation.
#[derive(Debug, Default, PartialEq)]
struct Fields {
    uri: String,
    /// Behind the last colon.
    place: Option<String>,
    /// From `dst=`.
    target: Option<String>,
    options: Map<String, Value>,
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Self::default();
        for (i, field) in text.split(',').enumerate() {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) if !key.contains([':', '/']) => (key.trim().to_ascii_lowercase(), value),
                // A URI, which may have an = of its own.
                _ if i == 0 => {
                    let (uri, place) = place(field);
                    fields.uri = uri.to_owned();
                    fields.place = place.map(str::to_owned);
                    continue;
                }
                _ => return Err(format!("'{field}' is not KEY=VALUE")),
            };
            match key.as_str() {
                "source" | "src" => fields.uri = unquoted(value),
                "target" | "dst" | "destination" => fields.target = Some(unquoted(value)),
                "opt" | "option" => {
                    let (name, value) = value.split_once('=').ok_or("opt= needs KEY=VALUE")?;
                    fields.options.insert(name.to_owned(), value.into());
                }
                other => return Err(format!("'{other}' is not one of src, dst, opt")),
            }
        }
        Ok(fields)
    }
}

fn unquoted(text: &str) -> String {
    text.trim_matches([' ', '\'', '"']).to_owned()
}

/// `URI:/path`: the last colon before a slash that is not the scheme's.
fn place(field: &str) -> (&str, Option<&str>) {
    let field = field.trim();
    let start = field.find("://").map_or(0, |at| at + 3);
    match field.get(start..).and_then(|rest| rest.rfind(":/")) {
        Some(at) => {
            let (uri, place) = field.split_at(start + at);
            (uri, place.get(1..))
        }
        None => (field, None),
    }
}

/// A source by its scheme; `None` if there is none: a file of this machine.
fn remote(uri: &str, options: &Map<String, Value>) -> Result<Option<Value>, String> {
    let Some((scheme, rest)) = uri.split_once("://") else { return Ok(None) };
    let only = |known: &[&str]| match options.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("opt={key}: {scheme} has no such option")),
        None => Ok(()),
    };
    let source = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            only(&[])?;
            json!({"Type": "urlDownload", "Params": {"URL": uri}})
        }
        "ipfs" => {
            only(&[])?;
            json!({"Type": "ipfs", "Params": {"CID": rest.trim_end_matches('/')}})
        }
        "file" => {
            only(&["rw", "read-write", "read_write", "readwrite"])?;
            let writable = options.values().any(|value| matches!(value.as_str(), Some("true" | "1")));
            json!({"Type": "localDirectory", "Params": {"SourcePath": rest, "ReadWrite": writable}})
        }
        "s3" => s3(
            rest,
            options,
            &[
                ("endpoint", "Endpoint"),
                ("region", "Region"),
                ("filter", "Filter"),
                ("versionID", "VersionID"),
                ("version-id", "VersionID"),
                ("checksum-256", "ChecksumSHA256"),
            ],
        )?,
        other => return Err(format!("'{other}' is not one of http, https, file, s3, ipfs")),
    };
    Ok(Some(source))
}

fn s3(rest: &str, options: &Map<String, Value>, known: &[(&str, &str)]) -> Result<Value, String> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let mut params = Map::from_iter([("Bucket".to_owned(), bucket.into()), ("Key".to_owned(), key.into())]);
    for (name, value) in options {
        let (_, param) = known
            .iter()
            .find(|(option, _)| option == name)
            .ok_or_else(|| format!("opt={name}: s3 has no such option"))?;
        params.insert((*param).to_owned(), value.clone());
    }
    Ok(json!({"Type": "s3", "Params": params}))
}

/// A publisher: its kind, or a URI with options.
///
/// # Errors
/// Nobody knows it.
pub fn publisher(text: &str) -> Result<Value, String> {
    let fields = Fields::parse(text)?;
    let uri = fields.target.as_deref().unwrap_or(&fields.uri);
    let (kind, rest) = uri.split_once("://").unwrap_or((uri, ""));
    match kind.to_ascii_lowercase().as_str() {
        "s3" => s3(
            rest,
            &fields.options,
            &[("bucket", "Bucket"), ("key", "Key"), ("endpoint", "Endpoint"), ("region", "Region")],
        ),
        kind @ ("local" | "noop" | "ipfs" | "s3managed") => Ok(json!({"Type": kind})),
        _ => Err("it is not one of local, noop, ipfs, s3://BUCKET/KEY".into()),
    }
}

/// `NAME:/path` or `NAME=/path`.
///
/// # Errors
/// It has not both parts.
pub fn result_path(text: &str) -> Result<Value, String> {
    match text.split_once([':', '=']) {
        Some((name, path)) if !name.is_empty() && path.starts_with('/') => {
            Ok(json!({"Name": name, "Path": path}))
        }
        _ => Err("give NAME:PATH with an absolute path, e.g. out:/out".into()),
    }
}

/// `NAME=VALUE`, or several with commas between them, as Bacalhau has them; a comma before anything else belongs to the
/// value.
///
/// # Errors
/// There is no name.
pub fn pair_list(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('=').filter(|(name, _)| is_name(name)), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.trim().to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part);
            }
            (None, None) => return Err("give NAME=VALUE".into()),
        }
    }
    Ok(pairs)
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
}

/// A content identifier of version 0, or of version 1 in base32.
fn is_cid(text: &str) -> bool {
    let base58 = |c: char| c.is_ascii_alphanumeric() && !matches!(c, '0' | 'O' | 'I' | 'l');
    (text.len() == 46 && text.starts_with("Qm") && text.chars().all(base58))
        || (text.len() >= 59
            && text.starts_with("baf")
            && text.chars().all(|c| matches!(c, 'a'..='z' | '2'..='7')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> (Value, String) {
        let input = input(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        (input["Source"].clone(), input["Target"].as_str().unwrap().to_owned())
    }

    #[test]
    fn inputs_in_both_notations() {
        let url = |url: &str| json!({"Type": "urlDownload", "Params": {"URL": url}});
        for (text, wanted, target) in [
            ("https://a.b/c.csv", url("https://a.b/c.csv"), "/inputs"),
            ("http://a.b:80/c?d=e&f", url("http://a.b:80/c?d=e&f"), "/inputs"),
            ("http://a.b:80/c:/in/x", url("http://a.b:80/c"), "/in/x"),
            ("src=http://a.b/c,dst=/in", url("http://a.b/c"), "/in"),
            ("ipfs://QmX:/in", json!({"Type": "ipfs", "Params": {"CID": "QmX"}}), "/in"),
            (
                "file:///srv/x,dst=/in,opt=rw=true",
                json!({"Type": "localDirectory", "Params": {"SourcePath": "/srv/x", "ReadWrite": true}}),
                "/in",
            ),
            (
                "s3://bucket/a/key*:/in,opt=region=eu",
                json!({"Type": "s3", "Params": {"Bucket": "bucket", "Key": "a/key*", "Region": "eu"}}),
                "/in",
            ),
        ] {
            assert_eq!(source(text), (wanted, target.to_owned()), "{text}");
        }
        for bad in
            ["", "git://x", "src=http://x,to=/y", "http://x,y", "s3://b/k,opt=colour=red", "http://x,opt=a"]
        {
            assert!(matches!(input(bad), Err(InputFault::Usage(_))), "{bad}");
        }
        assert!(matches!(input("/nonexistent/x:/in"), Err(InputFault::File(_))));
    }

    #[test]
    fn publishers() {
        assert_eq!(publisher("local").unwrap(), json!({"Type": "local"}));
        assert_eq!(
            publisher("s3://b/k/{jobID},opt=region=eu").unwrap(),
            json!({"Type": "s3", "Params": {"Bucket": "b", "Key": "k/{jobID}", "Region": "eu"}})
        );
        for bad in ["", "ftp://x", "s3://b/k,opt=a=b"] {
            publisher(bad).unwrap_err();
        }
    }

    #[test]
    fn pairs_split_at_commas_where_a_name_follows() {
        let list = |text: &str| -> Vec<String> {
            pair_list(text).unwrap().into_iter().map(|(name, value)| format!("{name}|{value}")).collect()
        };
        assert_eq!(list("A=1"), ["A|1"]);
        assert_eq!(list("A=1,B=2"), ["A|1", "B|2"]);
        assert_eq!(list("LIST=x,y z,C=a=b"), ["LIST|x,y z", "C|a=b"]);
        assert_eq!(list("A="), ["A|"]);
        for bad in ["", "A", "=1", ",A=1"] {
            pair_list(bad).unwrap_err();
        }
    }

    #[test]
    fn result_paths_and_cids() {
        assert_eq!(result_path("out:/o").unwrap(), json!({"Name": "out", "Path": "/o"}));
        assert_eq!(result_path("out=/o").unwrap(), json!({"Name": "out", "Path": "/o"}));
        for bad in ["out", "out:o", ":/o"] {
            result_path(bad).unwrap_err();
        }
        assert!(is_cid("QmeZRGhe4PmjctYVSVHuEiA9oSXnqmYa4kQubSHgWbjv72"));
        assert!(is_cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"));
        assert!(!is_cid("prog.wasm"));
    }
}
