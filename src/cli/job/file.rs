//! Reading a job file, and finding what is wrong with it before a node is asked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Number, Value};

use crate::cli::Context;
use crate::cli::exit::{CliError, Exit};
use crate::wire::tree::{Limits, parse};
use crate::wire::{Reading, Tree, read_job};

/// Largest job file; the API takes no larger body either.
pub const MAX_FILE: u64 = 10 << 20;

/// A job that looks right from here.
#[derive(Debug)]
pub struct JobFile {
    /// The job as it was written, in JSON.
    pub job: Value,
    /// What the submitter should know.
    pub warnings: Vec<String>,
}

/// Reads and checks the file of that name; `-` is standard input.
///
/// # Errors
/// It cannot be read, is too large, is neither YAML nor JSON, or is no job: every problem, with its path.
pub fn load(path: &Path, context: &Context<'_>) -> Result<JobFile, CliError> {
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let text = if is_stdin {
        read(&mut **context.stdin.borrow_mut())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let text = text.map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Io };
        CliError::caused(exit, format!("cannot read {name}"), error)
    })?;
    check(&text, &name)
}

fn read(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "it is larger than the {} MiB that a job may have",
            MAX_FILE >> 20
        )));
    }
    Ok(text)
}

/// Checks a job that is called `name` in messages.
///
/// # Errors
/// It is neither YAML nor JSON, or is no job: every problem, with its path.
pub fn check(text: &[u8], name: &str) -> Result<JobFile, CliError> {
    let tree = parse(text, &Limits::default()).map_err(|error| {
        CliError::caused(Exit::Data, format!("{name} is neither YAML nor JSON that can be read"), error)
    })?;
    let read = read_job(&tree, Reading::file()).map_err(|problems| {
        let n = problems.0.len();
        let count = if n == 1 { "1 problem".to_owned() } else { format!("{n} problems") };
        CliError::new(Exit::Data, format!("{name} is not a valid job: {count}")).details(problems.0)
    })?;
    let job = json(inner(&tree))
        .ok_or_else(|| CliError::new(Exit::Data, format!("{name} holds a number that JSON does not have")))?;
    Ok(JobFile { job, warnings: read.warnings })
}

/// The job itself, if the file holds it as requests do: `{"Job": {...}}`.
fn inner(tree: &Tree) -> &Tree {
    match tree {
        Tree::Map(map) => {
            map.iter().find(|(key, _)| key.eq_ignore_ascii_case("job")).map_or(tree, |(_, job)| job)
        }
        other => other,
    }
}

/// The same in JSON; the tree's depth is bounded by the parser.
fn json(tree: &Tree) -> Option<Value> {
    Some(match tree {
        Tree::Null => Value::Null,
        Tree::Bool(value) => Value::Bool(*value),
        Tree::Int(value) => Value::Number(Number::from_i128(*value)?),
        Tree::Float(value) => Value::Number(Number::from_f64(*value)?),
        Tree::Str(text) => Value::String(text.clone()),
        Tree::List(items) => Value::Array(items.iter().map(json).collect::<Option<_>>()?),
        Tree::Map(map) => {
            let entries = map.iter().map(|(key, value)| Some((key.clone(), json(value)?)));
            Value::Object(entries.collect::<Option<Map<_, _>>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "Name: demo\nType: batch\nTasks:\n  - Name: main\n    Engine:\n      Type: wasm\n      Params:\n        EntryModule: /m.wasm\n    InputSources:\n      - Target: /m.wasm\n        Source: {Type: urlDownload, Params: {URL: 'http://x/m.wasm'}}\n    Timeouts: {ExecutionTimeout: 60}\n";

    fn failed(text: &str) -> (Exit, String, Vec<String>) {
        match check(text.as_bytes(), "job.yaml").unwrap_err() {
            CliError::Failed(failed) => (failed.exit, failed.to_string(), failed.details),
            CliError::PipeClosed => panic!(),
        }
    }

    #[test]
    fn yaml_and_json_give_the_same_job() {
        let yaml = check(YAML.as_bytes(), "x").unwrap().job;
        assert_eq!(yaml["Tasks"][0]["Timeouts"]["ExecutionTimeout"], 60);
        assert_eq!(check(yaml.to_string().as_bytes(), "x").unwrap().job, yaml);
        let wrapped = serde_json::json!({"Job": yaml}).to_string();
        assert_eq!(check(wrapped.as_bytes(), "x").unwrap().job, yaml);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_path() {
        let (exit, what, details) = failed("Type: batch\nCount: 5000\nNonsense: 1\nTasks: [{Engine: {}}]\n");
        assert_eq!(exit, Exit::Data);
        assert_eq!(what, "job.yaml is not a valid job: 4 problems");
        for part in ["Nonsense", "Count", "Tasks[0].Name", "Tasks[0].Engine"] {
            assert!(details.iter().any(|d| d.starts_with(part)), "{part}: {details:?}");
        }
    }

    #[test]
    fn text_that_is_no_job_file() {
        assert_eq!(failed("a: [1, 2").0, Exit::Data);
        assert_eq!(failed("").0, Exit::Data);
        assert_eq!(failed("{\"a\":1,\"a\":2}").0, Exit::Data);
        let deep = "[".repeat(100_000);
        assert_eq!(failed(&deep).0, Exit::Data);
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let error = read(&mut io::repeat(b'x')).unwrap_err();
        assert!(error.to_string().contains("10 MiB"));
    }

    fn examples(ending: &str) -> Vec<(String, String)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.retain(|path| path.to_str().unwrap().ends_with(ending));
        files.into_iter().map(|p| (p.display().to_string(), std::fs::read_to_string(p).unwrap())).collect()
    }

    #[test]
    fn the_examples_are_valid_jobs_of_both_forms() {
        let files: Vec<_> = [examples(".yaml"), examples(".json")].concat();
        assert!(files.len() >= 5);
        for (name, text) in files {
            let read = check(text.as_bytes(), &name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            assert_eq!(read.warnings, Vec::<String>::new(), "{name}");
            let module = &read.job["Tasks"][0]["Engine"]["Params"]["EntryModule"];
            assert_eq!(module.is_object(), name.contains("-1.4"), "{name}");
        }
    }

    /// The programs in the examples are what their sources say.
    #[test]
    fn the_examples_hold_their_programs() {
        use base64::Engine;
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wasm");
        for (program, jobs) in
            [("hello", ["hello.yaml", "hello-1.4.json"]), ("count", ["count.json", "count-1.4.yaml"])]
        {
            let wasm = wat::parse_file(dir.join(format!("{program}.wat"))).unwrap();
            let encoded = base64::engine::general_purpose::STANDARD.encode(wasm);
            let url = format!("data:application/wasm;base64,{encoded}");
            for job in jobs {
                let text = std::fs::read_to_string(dir.join("..").join(job)).unwrap();
                assert!(text.contains(&url), "{job} should hold {url}");
            }
        }
    }
}
