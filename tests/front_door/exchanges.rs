//! What Bacalhau's command lines of both generations and its Python SDK send, replayed byte for byte: issue 5, item 5.
//!
//! A file of `tests/exchanges` is a conversation with a node of its own: requests, and what the client needs of each
//! answer (`tests/exchanges/README.md` says how it is written down).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::jobs;
use crate::node::{Dir, Node, PATIENCE};

#[test]
fn the_command_line_of_1_4_gets_what_it_needs() {
    replay_all("1.4");
}

#[test]
fn the_command_line_of_1_9_gets_what_it_needs() {
    replay_all("1.9");
}

#[test]
fn the_python_sdk_gets_what_it_needs() {
    replay_all("sdk");
}

fn exchanges() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchanges")
}

fn replay_all(client: &str) {
    let headers = std::fs::read_to_string(exchanges().join(client).join("headers")).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(exchanges().join(client))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "http"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        replay(&file, headers.trim_end());
    }
}

/// One request of a conversation, and what is wanted of its answer.
struct Step {
    name: String,
    request: String,
    wants: Vec<String>,
}

fn steps(text: &str) -> (Vec<String>, Vec<Step>) {
    let mut parts = text.split("\n## ");
    let settings = parts.next().unwrap().lines().filter_map(|line| line.strip_prefix("node: "));
    let settings = settings.flat_map(str::split_whitespace).map(str::to_owned).collect();
    let steps = parts.map(|part| {
        let (name, rest) = part.split_once('\n').unwrap();
        let (request, wants) = rest.split_once("\n>>>\n").unwrap_or_else(|| panic!("{name} wants nothing"));
        let wants = wants.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Step { name: name.to_owned(), request: request.to_owned(), wants }
    });
    (settings, steps.collect())
}

/// Values of placeholders.
type Values = BTreeMap<String, String>;

fn replay(file: &Path, headers: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let (settings, steps) = steps(&text);
    let dir = Dir::new();
    let token = dir.join("token");
    std::fs::write(&token, "the-right-token-0123456789\n").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let token = token.display().to_string();
    let settings: Vec<String> = settings.iter().map(|word| word.replace("{token-file}", &token)).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let node = Node::start(&dir.join("data"), &settings);
    let host = node.api.split_once("://").unwrap().1.to_owned();
    let module = |wat: &str| jobs::data_url("application/wasm", &wat::parse_str(wat).unwrap());
    let mut values: Values = [
        ("host", host),
        ("client", headers.to_owned()),
        ("hello", module(&jobs::print_wat("hello from wasm"))),
        ("endless", module(jobs::LOOP)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut peers = BTreeMap::new();
    for step in &steps {
        let what = format!("{}: {}", file.display(), step.name);
        run(&what, step, &mut values, &mut peers);
    }
}

/// Sends the request, again if it is to be repeated, until the answer is as wanted.
fn run(what: &str, step: &Step, values: &mut Values, peers: &mut BTreeMap<String, Peer>) {
    let deadline = Instant::now() + *PATIENCE;
    loop {
        let (host, bytes) = request(&step.request, values);
        let peer = peers.entry(host.clone()).or_insert_with(|| Peer::new(&host));
        let answer = peer.ask(&bytes);
        let waits = step.wants.iter().filter_map(|want| want.strip_prefix("until "));
        let early = waits.map(|want| answer.check(want, values)).find_map(Result::err);
        if early.is_some() && Instant::now() < deadline {
            // What changes between two tries: the token of the next page, say.
            step.wants.iter().filter(|want| want.starts_with("keep ")).for_each(|want| {
                let _ = answer.check(want, values);
            });
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            continue;
        }
        for want in &step.wants {
            let want = want.strip_prefix("until ").unwrap_or(want);
            if let Err(why) = answer.check(want, values) {
                panic!("{what}: wanted '{want}': {why}\n{} {}", answer.status, answer.text());
            }
        }
        return;
    }
}

/// The request's bytes, and where they go: lines of the head end as HTTP has it, and what is in braces has its value.
fn request(template: &str, values: &Values) -> (String, Vec<u8>) {
    let filled = fill(template, values);
    let (head, body) = filled.split_once("\n\n").unwrap_or((filled.trim_end(), ""));
    let body = body.trim_end_matches('\n');
    let head = head.replace("{length}", &body.len().to_string()).replace('\n', "\r\n");
    let host = head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap().to_owned();
    (host, format!("{head}\r\n\r\n{body}").into_bytes())
}

fn fill(template: &str, values: &Values) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// A connection that is kept, as Go keeps it.
struct Peer {
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Peer {
    fn new(host: &str) -> Self {
        Self { host: host.to_owned(), stream: None }
    }

    fn ask(&mut self, bytes: &[u8]) -> Answer {
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(&self.host).unwrap();
            stream.set_read_timeout(Some(*PATIENCE)).unwrap();
            BufReader::new(stream)
        });
        stream.get_mut().write_all(bytes).unwrap();
        let answer = Answer::read(stream);
        let last = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if last || answer.status == 101 {
            self.stream = None;
        }
        answer
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut impl BufRead) -> Self {
        let mut line = || {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        if answer.status == 101 {
            answer.body = messages(stream).to_string().into_bytes();
            return answer;
        }
        let length = answer.header("content-length").unwrap().parse().unwrap();
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body).unwrap();
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(2000).collect()
    }

    /// The body, as all clients want it: JSON, not null, and no null within a list.
    fn json(&self) -> Result<Value, String> {
        let value: Value = serde_json::from_slice(&self.body).map_err(|error| error.to_string())?;
        if value.is_null() || null_in_list(&value) { Err("there is a null".into()) } else { Ok(value) }
    }

    fn check(&self, want: &str, values: &mut Values) -> Result<(), String> {
        let want = fill(want, values);
        let mut words = want.splitn(3, ' ');
        let first = words.next().unwrap_or_default();
        let (second, third) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match first {
            "status" => same(&self.status.to_string(), second),
            "header" => same(self.header(second).unwrap_or("absent"), third),
            "bytes" => {
                same(&self.body.iter().take(2).map(|b| format!("{b:02x}")).collect::<String>(), second)
            }
            "keep" => self.keep(second, third, values),
            "shape" => shapes(second).iter().try_for_each(|line| {
                let blank = if line.starts_with('/') { "" } else { " " };
                self.check(&format!("{third}{blank}{line}"), values).map_err(|why| format!("{line}: {why}"))
            }),
            pointer if pointer.is_empty() || pointer.starts_with('/') => {
                self.check_values(pointer, &want[pointer.len()..])
            }
            other => panic!("'{other}' is no wish"),
        }
    }

    /// Keeps a value for later requests; of a URL also its host and what comes after it, of an id its beginning.
    fn keep(&self, name: &str, pointer: &str, values: &mut Values) -> Result<(), String> {
        let json = self.json()?;
        let found = json.pointer(pointer).ok_or("it is not there")?;
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        if let Some((host, path)) = text.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
            values.insert(format!("{name}.host"), host.to_owned());
            values.insert(format!("{name}.path"), format!("/{path}"));
        }
        values.insert(format!("{name}.short"), text.chars().take(10).collect());
        values.insert(name.to_owned(), text);
        Ok(())
    }

    fn check_values(&self, pointer: &str, wish: &str) -> Result<(), String> {
        let wish = wish.trim();
        let json = self.json()?;
        let found = find(&json, pointer);
        if wish == "absent" {
            return if found.is_empty() { Ok(()) } else { Err("it is there".into()) };
        }
        // `?` for a part of the path: one of them is enough.
        let fits: Vec<_> = found.iter().map(|value| fits(value, wish)).collect();
        if fits.is_empty() && !wish.ends_with('?') {
            return Err("it is not there".into());
        }
        if pointer.contains("/?") && fits.iter().any(Result::is_ok) {
            return Ok(());
        }
        fits.into_iter().collect()
    }
}

/// What a websocket brings until it is closed: its messages, and the code of the end (nothing if it just ended).
fn messages(stream: &mut impl BufRead) -> Value {
    let mut messages: Vec<Value> = Vec::new();
    let mut bytes = |n: usize| {
        let mut bytes = vec![0; n];
        stream.read_exact(&mut bytes).map(|()| bytes).ok()
    };
    while let Some(head) = bytes(2) {
        let long = match head[1] {
            length @ 0..=125 => Some(u64::from(length)),
            126 => bytes(2).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]]))),
            127 => bytes(8).map(|b| u64::from_be_bytes(b.try_into().unwrap())),
            _ => panic!("a server does not mask"),
        };
        let Some(payload) = long.and_then(|length| bytes(usize::try_from(length).unwrap())) else { break };
        match head[0] & 0x0f {
            1 | 2 => messages.push(serde_json::from_slice(&payload).unwrap()),
            8 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return json!({ "messages": messages, "close": code });
            }
            _ => {}
        }
    }
    json!({ "messages": messages, "close": null })
}

fn null_in_list(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| item.is_null() || null_in_list(item)),
        Value::Object(fields) => fields.values().any(null_in_list),
        _ => false,
    }
}

/// The wishes that `shapes` has under that name.
fn shapes(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(exchanges().join("shapes")).unwrap();
    let part = text.split("\n## ").find_map(|part| part.strip_prefix(&format!("{name}\n")));
    let lines = part.unwrap_or_else(|| panic!("no shape {name}")).lines();
    lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What a pointer leads to; `*` and `?` are every item of a list, or value of a map.
fn find<'a>(value: &'a Value, pointer: &str) -> Vec<&'a Value> {
    pointer.split('/').skip(1).fold(vec![value], |found, part| {
        let steps = found.into_iter().flat_map(|value| match (part, value) {
            ("*" | "?", Value::Array(items)) => items.iter().collect::<Vec<_>>(),
            ("*" | "?", Value::Object(fields)) => fields.values().collect(),
            _ => value.pointer(&format!("/{part}")).into_iter().collect(),
        });
        steps.collect()
    })
}

fn same(found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("it is '{found}'")) }
}

/// Whether a value is of one of the kinds named, or what is behind `=`.
fn fits(value: &Value, wish: &str) -> Result<(), String> {
    if let Some(wanted) = wish.strip_prefix("= ") {
        let wanted: Value = serde_json::from_str(wanted).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        return if *value == wanted { Ok(()) } else { Err(format!("it is {value}")) };
    }
    if let Some(count) = wish.strip_prefix("has ") {
        let found = value.as_array().map(Vec::len);
        return if found.map(|n| n.to_string()).as_deref() == Some(count) {
            Ok(())
        } else {
            Err(format!("it has {found:?}"))
        };
    }
    if let Some(part) = wish.strip_prefix("contains ") {
        let there = value.as_str().is_some_and(|text| text.contains(part));
        return if there { Ok(()) } else { Err(format!("it is {value}")) };
    }
    let kinds = wish.trim_end_matches('?').split('|');
    if kinds.into_iter().any(|kind| is(value, kind)) { Ok(()) } else { Err(format!("it is {value}")) }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "text" => value.as_str().is_some_and(|text| !text.is_empty()),
        // A literal without point and exponent: others do not parse as one.
        "int" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "bool" => value.is_boolean(),
        "list" => value.is_array(),
        "map" => value.is_object(),
        "texts" => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
        "null" => value.is_null(),
        "time" => value
            .as_str()
            .is_some_and(|text| humantime::parse_rfc3339(text).is_ok() || text == "0001-01-01T00:00:00Z"),
        "event" => is_event(value),
        other => panic!("'{other}' is no kind"),
    }
}

/// An entry of a history has the state of its level, or 1.4 ends with a nil dereference.
fn is_event(value: &Value) -> bool {
    match value["Type"].as_str() {
        Some("JobLevel") => value["JobState"]["New"].is_string(),
        Some("ExecutionLevel") => {
            value["ExecutionState"]["New"].is_u64()
                && value["ExecutionID"].as_str().is_some_and(|id| !id.is_empty())
        }
        _ => false,
    }
}
