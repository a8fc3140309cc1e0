//! `codling job`: run jobs, look at them, fetch their results.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Context;
use super::client::{Client, segment};
use super::exit::{CliError, Exit};
use super::target::ConnectArgs;
use crate::model::units::parse_duration;

mod describe;
mod fetch;
mod file;
mod get;
mod list;
mod logs;
mod merge;
mod run;
mod trial;
mod versions;
mod watch;

pub(super) use file::{JobFile, MAX_FILE, check};
pub(super) use run::submit;
pub(super) use trial::run_and_get;

/// Run jobs, look at them, fetch their results
#[derive(Debug, Args)]
pub struct JobArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: JobCommand,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Submit a job and print its id
    Run(RunArgs),
    /// Show a job, its executions, its history and the beginning of its output
    Describe(OneJob),
    /// List jobs
    List(ListArgs),
    /// List the executions of a job
    Executions(OfJob),
    /// List what happened to a job
    History(HistoryArgs),
    /// Show what a job's program wrote, or follow it as it writes
    Logs(LogsArgs),
    /// Stop a job
    Stop(StopArgs),
    /// Run a job once more, as its next version
    Rerun(RerunArgs),
    /// List the versions of a job
    Versions(OneJob),
    /// Fetch, verify and unpack the results of a job
    Get(GetArgs),
}

/// Submit a job and print its id
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Job file in YAML or JSON; - is standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Show what would change in the job of this name, and submit nothing
    #[arg(long, conflicts_with_all = ["wait", "follow", "id_only", "force"])]
    pub dry_run: bool,
    /// How it is submitted.
    #[command(flatten)]
    pub submit: SubmitArgs,
}

/// How a job is submitted, and what is waited for.
#[derive(Debug, Clone, Default, Args)]
pub struct SubmitArgs {
    /// Wait until the job ends, showing what happens to it; the exit status is 1 if it fails
    #[arg(long)]
    pub wait: bool,
    /// As --wait, and print what the job's program writes, as it does
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Print the id only
    #[arg(long)]
    pub id_only: bool,
    /// Make a new version of the job of this name even if nothing is different
    #[arg(long)]
    pub force: bool,
    /// Stop waiting after this long (the job goes on); the exit status is then 124
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait_timeout: Option<Duration>,
}

impl SubmitArgs {
    /// Whether the command goes on after the submission.
    const fn waits(&self) -> bool {
        self.wait || self.follow
    }

    /// What clap's table cannot say.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.wait_timeout.is_some() && !self.waits() {
            return Err(CliError::new(Exit::Usage, "--wait-timeout needs --wait or --follow"));
        }
        Ok(())
    }
}

/// One job.
#[derive(Debug, Args)]
pub struct OneJob {
    /// Id of the job, its beginning, or the job's name
    #[arg(value_name = "JOB")]
    pub id: String,
}

/// A part of a list.
#[derive(Debug, Clone, Args)]
pub struct PageArgs {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// All of them, --limit at a time
    #[arg(long)]
    pub all: bool,
    /// Begin where an earlier list ended
    #[arg(long, value_name = "TOKEN")]
    pub next_token: Option<String>,
    /// Last first
    #[arg(long)]
    pub reverse: bool,
    /// Print whole ids
    #[arg(long)]
    pub wide: bool,
}

/// List jobs
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only jobs whose labels match, e.g. team=field, 'zone in (a,b)', '!old'; may be given several times
    #[arg(long, value_name = "SELECTOR")]
    pub labels: Vec<String>,
    /// Sort by this
    #[arg(long, value_name = "FIELD", value_enum)]
    pub order_by: Option<JobOrder>,
    /// Which part.
    #[command(flatten)]
    pub page: PageArgs,
}

/// What jobs and executions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JobOrder {
    /// When they were submitted
    #[value(name = "created_at")]
    Created,
    /// When they last changed
    #[value(name = "modified_at")]
    Modified,
}

impl JobOrder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created_at",
            Self::Modified => "modified_at",
        }
    }
}

/// List the executions of a job
#[derive(Debug, Args)]
pub struct OfJob {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// Sort by this
    #[arg(long, value_name = "FIELD", value_enum)]
    pub order_by: Option<JobOrder>,
    /// Which versions.
    #[command(flatten)]
    pub versions: VersionArgs,
    /// Which part.
    #[command(flatten)]
    pub page: PageArgs,
}

/// List what happened to a job
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// Only events of this level
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "all")]
    pub event_type: EventType,
    /// Only events of this execution
    #[arg(long, value_name = "EXECUTION")]
    pub execution_id: Option<String>,
    /// Which versions.
    #[command(flatten)]
    pub versions: VersionArgs,
    /// Which part.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Levels of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventType {
    /// Both
    All,
    /// The job
    Job,
    /// Its executions
    Execution,
}

impl EventType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Job => "job",
            Self::Execution => "execution",
        }
    }
}

/// Show what a job's program wrote, or follow it as it writes
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// Go on until the execution ends; wait for it if it has not begun
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only what is written from now on
    #[arg(long)]
    pub tail: bool,
    /// Of this execution, or of the one whose id begins so [default: the one that changed last]
    #[arg(long, value_name = "EXECUTION")]
    pub execution_id: Option<String>,
}

/// Stop a job
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// Why; goes into the job's history
    #[arg(long, value_name = "TEXT", default_value = "stopped at user request")]
    pub reason: String,
}

/// Run a job once more, as its next version
#[derive(Debug, Args)]
pub struct RerunArgs {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// The version to be run again [default: the present one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// Why; goes into the job's history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Which versions of a job.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// Of this version [default: the present one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// Of all versions
    #[arg(long, conflicts_with = "version")]
    pub all_versions: bool,
}

impl VersionArgs {
    /// The parameter for a request.
    fn query(&self) -> Option<(&'static str, String)> {
        let all = self.all_versions.then(|| ("all_job_versions", "true".to_owned()));
        all.or_else(|| Some(("job_version", self.version?.to_string())))
    }
}

/// Fetch, verify and unpack the results of a job
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which job.
    #[command(flatten)]
    pub job: OneJob,
    /// Directory for the results; made if it is not there [default: job-<short id>]
    #[arg(long, short = 'o', value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// One directory for each execution, instead of all merged into one
    #[arg(long)]
    pub raw: bool,
}

/// Runs `codling job`.
///
/// # Errors
/// The node does not answer or refuses; the job file is wrong; the job failed; a result cannot be had.
pub fn run(args: &JobArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let client = Client::new(args.connect.target(context.env)?);
    match &args.command {
        JobCommand::Run(args) => run::run(args, &client, context),
        JobCommand::Describe(args) => describe::describe(&args.id, &client, context),
        JobCommand::List(args) => list::jobs(args, &client, context),
        JobCommand::Executions(args) => list::executions(args, &client, context),
        JobCommand::History(args) => list::history(args, &client, context),
        JobCommand::Logs(args) => logs::logs(args, &client, context),
        JobCommand::Stop(args) => describe::stop(args, &client, context),
        JobCommand::Rerun(args) => versions::rerun(args, &client, context),
        JobCommand::Versions(args) => versions::versions(args, &client, context),
        JobCommand::Get(args) => get::get(args, &client, context),
    }
}

/// Path of one job, or of something below it.
fn path(id: &str, below: &str) -> String {
    format!("orchestrator/jobs/{}{below}", segment(id))
}
