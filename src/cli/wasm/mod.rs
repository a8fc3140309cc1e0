//! `codling wasm run`: a job of one WASM program, from flags instead of a job file, as `bacalhau wasm run` takes them.
//!
//! The job has Bacalhau 1.4's form, the module as a source of its own in the engine's parameters: servers of the 1.9 line
//! read it as well, those of 1.4 read no other. Variables are in both generations' places, since each reads its own only.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::Context;
use super::client::Client;
use super::exit::{CliError, Exit};
use super::job::{JobFile, MAX_FILE, SubmitArgs, check, submit};
use super::out::Format;
use super::target::ConnectArgs;
use crate::model::units::parse_duration;
use crate::wire::selector::Selector;

mod inline;
mod sources;

use sources::{input, pair_list, publisher, remote_module, result_path};

/// Run a WASM program as a job
#[derive(Debug, Args)]
pub struct WasmArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WasmCommand,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What to do with WASM programs.
#[derive(Debug, Subcommand)]
pub enum WasmCommand {
    /// Make a job of a WASM program, submit it, and print its id
    Run(Box<RunArgs>),
}

const EXAMPLES: &str = "\
Examples:
  codling wasm run --follow prog.wasm one two
  codling wasm run prog.wasm -e LEVEL=3 -i ./data.csv:/inputs/data.csv -p local -o out:/out
  codling wasm run https://example.org/prog.wasm -- --a-flag-of-the-program
  codling wasm run --dry-run prog.wasm > job.yaml";

/// Make a job of a WASM program, submit it, and print its id
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The program: a file, which is sent within the job; or where the node finds it: http(s)://, file:// (the node's own),
    /// s3://, ipfs:// or a CID
    #[arg(value_name = "MODULE")]
    pub module: String,
    /// The program's arguments; behind -- if one begins with -
    #[arg(value_name = "ARG")]
    pub args: Vec<String>,
    /// The exported function that is called
    #[arg(long, value_name = "FUNCTION", default_value = "_start")]
    pub entry_point: String,
    /// A module that the program imports from, by URL, which is also the name that it imports; may be given several times
    #[arg(long, short = 'U', value_name = "URL")]
    pub import_module_urls: Vec<String>,
    /// Submit nothing: print the job, which 'codling job run' takes
    #[arg(long, conflicts_with_all = ["wait", "follow", "id_only", "force"])]
    pub dry_run: bool,
    /// What the program gets and leaves.
    #[command(flatten)]
    pub task: TaskArgs,
    /// The job around it.
    #[command(flatten)]
    pub job: JobFlags,
    /// How it is submitted.
    #[command(flatten)]
    pub submit: SubmitArgs,
}

/// What the program gets and leaves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Program")]
pub struct TaskArgs {
    /// A variable of the program's environment; may be given several times
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// What the program reads: URI[:PATH] or src=URI,dst=PATH[,opt=KEY=VALUE]; a URI as for MODULE, or a file here, which is
    /// sent within the job [default path: /inputs]
    #[arg(long, short = 'i', value_name = "INPUT")]
    pub input: Vec<String>,
    /// A directory that the program writes and that is published by this name
    #[arg(short = 'o', value_name = "NAME:PATH")]
    pub result_path: Vec<String>,
    /// Who keeps the result: local, noop, ipfs, or s3://BUCKET/KEY[,opt=region=..,opt=endpoint=..]
    #[arg(long, short = 'p', value_name = "PUBLISHER")]
    pub publisher: Option<String>,
    /// Processor cores, e.g. 500m or 2
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<String>,
    /// Memory, e.g. 64Mi
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// What it may write, e.g. 100Mi
    #[arg(long, value_name = "BYTES")]
    pub disk: Option<String>,
    /// How long it may run: seconds, or e.g. 10m
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub timeout: Option<u64>,
    /// How long it may wait to be run: seconds, or e.g. 1h
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub queue_timeout: Option<u64>,
}

/// The job around the program.
#[derive(Debug, Args)]
#[command(next_help_heading = "Job")]
pub struct JobFlags {
    /// Name of the job [default: its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Namespace of the job
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// A label of the job; may be given several times
    #[arg(long, short = 'l', alias = "labels", value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Only on nodes with these labels, e.g. zone=a,gpu
    #[arg(long, short = 's', alias = "selector", value_name = "SELECTOR")]
    pub constraints: Option<String>,
    /// Kind of job
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "batch")]
    pub kind: Kind,
    /// Where it runs: on any suitable node, or once on all of them (a job of type ops)
    #[arg(long, value_name = "any|all", value_enum, default_value = "any", conflicts_with = "kind")]
    pub target: Targets,
    /// How many executions
    #[arg(long, alias = "concurrency", value_name = "N")]
    pub count: Option<u32>,
    /// Priority in the queue: the larger, the sooner
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// To its end, on as many nodes as --count says
    Batch,
    /// To its end, on every suitable node
    Ops,
    /// For ever, on as many nodes as --count says
    Service,
    /// For ever, on every suitable node
    Daemon,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Targets {
    /// Any suitable node
    Any,
    /// All of them
    All,
}

impl JobFlags {
    fn kind(&self) -> &'static str {
        match (self.target, self.kind) {
            (Targets::All, _) | (_, Kind::Ops) => "ops",
            (_, Kind::Batch) => "batch",
            (_, Kind::Service) => "service",
            (_, Kind::Daemon) => "daemon",
        }
    }
}

/// Whole seconds, as a number (Bacalhau's way) or as a duration.
fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.trim().parse() {
        return Ok(seconds);
    }
    let duration = parse_duration(text).map_err(|e| e.to_string())?;
    if duration != Duration::from_secs(duration.as_secs()) {
        return Err("timeouts are whole seconds".into());
    }
    Ok(duration.as_secs())
}

/// Runs `codling wasm`.
///
/// # Errors
/// The module cannot be read or is none; a flag is wrong; the node does not answer or refuses; the job failed.
pub fn run(args: &WasmArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let WasmCommand::Run(run) = &args.command;
    run.submit.check()?;
    let client = Client::new(args.connect.target(context.env)?);
    let job = build(run)?;
    if run.dry_run {
        let yaml = || yaml_serde::to_string(&job.job);
        if context.out.format == Format::Table {
            let text = yaml().map_err(|e| CliError::caused(Exit::Internal, "cannot encode the job", e))?;
            context.out.print(&super::text::escape_output(&text))?;
        } else {
            context.out.show(&job.job, String::new)?;
        }
        job.warnings.iter().for_each(|warning| context.out.warn(warning));
        return Ok(Exit::Ok);
    }
    submit(job, &run.module, &run.submit, &client, context)
}

/// The job that the flags describe, checked as a job file is.
fn build(args: &RunArgs) -> Result<JobFile, CliError> {
    let module = match remote_module(&args.module).map_err(|why| usage("MODULE", &args.module, why))? {
        Some(source) => source,
        None => inline::module(&args.module)?,
    };
    let env = pairs(&args.task.env, "--env")?;
    let imports: Vec<Value> =
        each(&args.import_module_urls, "--import-module-urls", |url| match remote_module(url)? {
            Some(source) => Ok(json!({"Source": source, "Alias": url, "Target": url})),
            None => Err("give a URL".into()),
        })?;
    let engine = json!({"Type": "wasm", "Params": {
        "EntryModule": {"Source": module, "Alias": "", "Target": ""},
        "Entrypoint": args.entry_point,
        "Parameters": args.args,
        "EnvironmentVariables": env,
        "ImportModules": imports,
    }});
    let task = task(&args.task, engine, &env)?;
    let flags = &args.job;
    let constraints = Selector::parse(flags.constraints.as_deref().into_iter())
        .map_err(|error| CliError::new(Exit::Usage, format!("--constraints: {}", error.message)))?
        .into_constraints();
    let constraints: Vec<Value> = constraints
        .into_iter()
        .map(|c| json!({"Key": c.key, "Operator": c.operator, "Values": c.values}))
        .collect();
    let job = json!({
        "Name": flags.name.as_deref().unwrap_or_default(),
        "Namespace": flags.namespace,
        "Type": flags.kind(),
        "Priority": flags.priority,
        // Of ops and daemon jobs 1.9 wants none.
        "Count": flags.count.unwrap_or(u32::from(matches!(flags.kind(), "batch" | "service"))),
        "Constraints": constraints,
        "Labels": pairs(&flags.label, "--label")?,
        "Tasks": [task],
    });
    let text = job.to_string();
    if text.len() as u64 > MAX_FILE - inline::WRAPPING {
        return Err(inline::too_large(&args.module, "with the files sent along"));
    }
    check(text.as_bytes(), "the job")
}

fn task(args: &TaskArgs, engine: Value, env: &Map<String, Value>) -> Result<Value, CliError> {
    let mut resources = Map::new();
    for (name, said) in [("CPU", &args.cpu), ("Memory", &args.memory), ("Disk", &args.disk)] {
        if let Some(said) = said {
            resources.insert(name.into(), said.as_str().into());
        }
    }
    let mut timeouts = Map::new();
    for (name, said) in [("ExecutionTimeout", args.timeout), ("QueueTimeout", args.queue_timeout)] {
        if let Some(said) = said {
            timeouts.insert(name.into(), said.into());
        }
    }
    let mut inputs = Vec::new();
    for text in &args.input {
        inputs.push(input(text).map_err(|fault| fault.into_error(text))?);
    }
    let mut outputs = Vec::new();
    for text in args.result_path.iter().flat_map(|text| text.split(',')) {
        outputs.push(result_path(text).map_err(|why| usage("-o", text, why))?);
    }
    let publisher = match &args.publisher {
        Some(text) => publisher(text).map_err(|why| usage("--publisher", text, why))?,
        None => json!({"Type": ""}),
    };
    if !outputs.is_empty() && args.publisher.is_none() {
        return Err(CliError::new(Exit::Usage, "-o needs a publisher").hint("add -p local"));
    }
    Ok(json!({
        "Name": "main",
        "Engine": engine,
        "Publisher": publisher,
        "Env": env,
        "InputSources": inputs,
        "ResultPaths": outputs,
        "Resources": resources,
        "Network": {"Type": "None"},
        "Timeouts": timeouts,
    }))
}

fn pairs(texts: &[String], flag: &str) -> Result<Map<String, Value>, CliError> {
    let lists = each(texts, flag, pair_list)?;
    Ok(lists.into_iter().flatten().map(|(name, value)| (name, Value::String(value))).collect())
}

fn each<T>(
    texts: &[String],
    flag: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, CliError> {
    texts.iter().map(|text| read(text).map_err(|why| usage(flag, text, why))).collect()
}

fn usage(flag: &str, text: &str, why: String) -> CliError {
    CliError::new(Exit::Usage, format!("{flag} '{text}': {why}"))
}

#[cfg(test)]
mod tests;
