//! `codling job get`: fetches the results of a job, verifies them, and unpacks them where nothing is overwritten.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fetch::{Archive, FetchError, Fetched, Fetcher, host_name};
use super::merge::{APPENDED, MergeError, is_there, merge};
use super::{GetArgs, path};
use crate::archive::{UnpackError, UnpackLimits, Warnings, unpack};
use crate::cli::Context;
use crate::cli::answers::{Job, JobAnswer, Page, Spec, read, short_id};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::out::Format;
use crate::cli::target::is_loopback;
use crate::model::{Bytes, Sha256};

/// Where archives and trees lie until all of them are complete, below the directory of the results.
const STAGING: &str = ".codling-partial";

/// Results of one job that are fetched; a job has at most 1000 executions.
const MAX_RESULTS: usize = 4096;

/// Links in a row that bring nothing before a result is given up.
const FRUITLESS_LINKS: u32 = 3;

/// Longest name of a file or directory made from a URL, without its ending.
const MAX_NAME: usize = 120;

/// One result of a job.
struct Wanted {
    /// Execution that made it, as its URL tells; what it is called on this side.
    execution: String,
    /// Whether it is to be unpacked.
    is_archive: bool,
    archive: Archive,
}

/// What `--output json` prints.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(rename = "JobID")]
    job_id: String,
    directory: PathBuf,
    results: Vec<Got>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    #[serde(rename = "ExecutionID")]
    execution_id: String,
    size: u64,
    #[serde(rename = "SHA256")]
    sha256: Sha256,
    verified: bool,
    directory: PathBuf,
}

/// Runs `codling job get`.
pub fn get(args: &GetArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let id = &args.job.id;
    let what = format!("get the results of job {id}");
    let answer = client.get(&path(id, ""), &[("include", "executions")]).map_err(|e| e.doing(&what))?;
    let view: JobAnswer = read(client, &answer).map_err(|e| e.doing(&what))?;
    let job_id = if view.job.id.is_empty() { id } else { &view.job.id };
    let answer = client.get(&path(job_id, "/results"), &[]).map_err(|e| e.doing(&what))?;
    let page: Page<Spec> = read(client, &answer).map_err(|e| e.doing(&what))?;
    let wanted = wanted(&page.items, &view)
        .map_err(|why| CliError::new(Exit::Unavailable, format!("cannot {what}: {why}")))?;
    if wanted.is_empty() {
        return Err(nothing(&view.job, job_id));
    }
    if !view.job.is_terminal() {
        context.out.note(&format!("job {job_id} has not ended: these are the results so far"));
    }
    let out = args.output_dir.clone().unwrap_or_else(|| PathBuf::from(format!("job-{}", short_id(job_id))));
    let into = Destination { out, raw: args.raw };
    into.check(&wanted)?;
    let staging = into.staging()?;
    // A link may end while its archive is on the way.
    let renew = |old: &Wanted| {
        let answer = client.get(&path(job_id, "/results"), &[]).ok()?;
        let page: Page<Spec> = read(client, &answer).ok()?;
        let links = self::wanted(&page.items, &view).ok()?;
        links.into_iter().find(|new| new.execution == old.execution).map(|new| new.archive)
    };
    let (got, failures) = fetch_all(&wanted, &staging, &renew, client, context);
    // What is gone for good does not hold up the others; for what may still come, everything waits.
    let final_ones = failures.iter().all(|(_, error)| error.exit() == Exit::NotFound);
    if got.is_empty() || !final_ones {
        // What was fetched is found by the next run; an empty directory helps nobody.
        into.clear_if_empty(&staging);
        return Err(failed(failures, wanted.len()));
    }
    let results = into.place(&got, &staging, context)?;
    into.clear(&staging)?;
    tell(job_id, &into.out, results, context)?;
    if failures.is_empty() { Ok(Exit::Ok) } else { Err(failed(failures, wanted.len())) }
}

fn tell(job_id: &str, out: &Path, results: Vec<Got>, context: &Context<'_>) -> Result<(), CliError> {
    for result in &results {
        let size = Bytes(result.size);
        if result.verified {
            context.out.note(&format!("{}: {size}, SHA-256 verified", result.execution_id));
        } else {
            context
                .out
                .warn(&format!("{}: {size}, not verified: nobody names its digest", result.execution_id));
        }
    }
    if context.out.format == Format::Table {
        return context.out.line(&out.display().to_string());
    }
    let report = Report { job_id: job_id.to_owned(), directory: out.to_owned(), results };
    context.out.show(&report, String::new)
}

/// What there is to fetch, in the order of the job's partitions.
fn wanted(items: &[Spec], view: &JobAnswer) -> Result<Vec<Wanted>, String> {
    if items.len() > MAX_RESULTS {
        return Err(format!("there are {} of them; {MAX_RESULTS} is the most", items.len()));
    }
    let partition = |execution: &str| {
        view.executions.items.iter().find(|e| e.id == execution).map_or(u64::MAX, |e| e.partition_index)
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    for item in items {
        let kind = item.kind.trim().to_ascii_lowercase();
        let url = match kind.as_str() {
            "urldownload" | "local" => item.text("URL"),
            "s3presigned" => item.text("PreSignedURL"),
            _ => return Err(format!("one is of type '{}', which cannot be fetched from here", item.kind)),
        };
        let url = url.ok_or_else(|| format!("one of type '{}' has no URL", item.kind))?;
        let name = file_name(url, wanted.len());
        let stem = name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".tgz"));
        let execution = stem.unwrap_or(&name).to_owned();
        if wanted.iter().any(|w| w.execution == execution) {
            return Err(format!("two of them are called {execution}"));
        }
        wanted.push(Wanted {
            is_archive: stem.is_some(),
            execution,
            archive: Archive {
                url: url.to_owned(),
                name,
                sha256: item.text("SHA256").and_then(|t| t.to_ascii_lowercase().parse().ok()),
                size: item
                    .params
                    .iter()
                    .find(|(k, _)| k.eq_ignore_ascii_case("size"))
                    .and_then(|(_, v)| v.as_u64()),
            },
        });
    }
    wanted.sort_by_key(|w| partition(&w.execution));
    Ok(wanted)
}

/// The last part of a URL's path as a harmless file name.
fn file_name(url: &str, n: usize) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let ending = [".tar.gz", ".tgz"].into_iter().find(|e| last.ends_with(e)).unwrap_or_default();
    let stem: String = last[..last.len() - ending.len()].chars().take(MAX_NAME).map(safe).collect();
    match stem.trim_start_matches('.') {
        "" => format!("result-{n}{ending}"),
        stem => format!("{stem}{ending}"),
    }
}

/// Why there is nothing to fetch.
fn nothing(job: &Job, id: &str) -> CliError {
    let short = short_id(id);
    let look = format!("'codling job describe {short}' shows what happened");
    if !job.is_terminal() {
        let state = job.state.state_type.to_lowercase();
        return CliError::new(Exit::TryAgain, format!("job {id} has no results yet: it is {state}")).hint(
            format!("try again when it has ended; 'codling job describe {short}' shows how far it is"),
        );
    }
    if job.is("Completed") && job.tasks.first().is_some_and(|t| t.publisher.kind.is_empty()) {
        return CliError::new(Exit::NotFound, format!("job {id} has no results: its task has no publisher"))
            .hint("add 'Publisher: {Type: local}' to the task and run the job again");
    }
    let why = if job.state.message.is_empty() { String::new() } else { format!(": {}", job.state.message) };
    let state = job.state.state_type.to_lowercase();
    CliError::new(Exit::NotFound, format!("job {id} has no results: it is {state}{why}")).hint(look)
}

type Results<'w> = Vec<(&'w Wanted, Fetched)>;
type Failures<'w> = Vec<(&'w Wanted, CliError)>;

/// Asks the node for a result's link again.
type Renew<'r> = &'r dyn Fn(&Wanted) -> Option<Archive>;

fn fetch_all<'w>(
    wanted: &'w [Wanted],
    staging: &Path,
    renew: Renew<'_>,
    client: &Client,
    context: &Context<'_>,
) -> (Results<'w>, Failures<'w>) {
    let fetcher = Fetcher::new(context, &client.target().trust);
    let (mut got, mut failures) = (Vec::new(), Vec::new());
    for one in wanted {
        match fetch_renewing(&fetcher, one, staging, renew) {
            Ok(fetched) => got.push((one, fetched)),
            Err(error) => failures.push((one, cannot_fetch(one, error, client))),
        }
    }
    (got, failures)
}

/// Fetches one archive, with a new link whenever the old one has ended: what is here by then is kept. A link that
/// brought nothing is not tried a second time.
fn fetch_renewing(
    fetcher: &Fetcher<'_>,
    wanted: &Wanted,
    staging: &Path,
    renew: Renew<'_>,
) -> Result<Fetched, FetchError> {
    let partial = staging.join(format!("{}.partial", wanted.archive.name));
    let here = || partial.metadata().map_or(0, |meta| meta.len());
    let mut archive = wanted.archive.clone();
    let (mut before, mut fruitless) = (here(), 0);
    loop {
        let fetched = fetcher.fetch(&archive, staging);
        let ended = matches!(fetched, Err(FetchError::Refused { status: 403, .. }));
        if !ended || !archive.url.contains("signature=") {
            return fetched;
        }
        let now = here();
        fruitless = if now > before { 0 } else { fruitless + 1 };
        before = now;
        match renew(wanted).filter(|new| fruitless < FRUITLESS_LINKS && new.url != archive.url) {
            Some(new) => archive = new,
            None => return fetched,
        }
    }
}

fn cannot_fetch(wanted: &Wanted, error: FetchError, client: &Client) -> CliError {
    let (exit, hint) = match &error {
        FetchError::Gone(_) => (
            Exit::NotFound,
            "run the job again, and pin its result with 'codling results pin' if it must stay",
        ),
        FetchError::NotFound(_) => {
            (Exit::NotFound, "the node may serve its results from another address now")
        }
        FetchError::Refused { status: 401 | 403, .. } => (Exit::Denied, ""),
        FetchError::Refused { .. } | FetchError::Incoherent(_) => (Exit::Unavailable, ""),
        FetchError::Unreachable { host, .. } if is_loopback(host_name(host)) && !client.target().is_local => {
            (
                Exit::Unavailable,
                "the node names its own loopback address: set Publishers.Types.Local.Address on it to one that this machine can reach",
            )
        }
        FetchError::Unreachable { .. } => {
            (Exit::Unavailable, "is the node's results port reachable from here? see Publishers.Types.Local")
        }
        FetchError::Link { .. } => {
            (Exit::TryAgain, "run the same command again: it goes on where it broke off")
        }
        FetchError::WrongDigest { .. } | FetchError::WrongSize { .. } => (
            Exit::Data,
            "nothing was kept; run the same command again, and if it fails again run the job again",
        ),
        FetchError::TooLarge | FetchError::BadUrl(_) => (Exit::Data, ""),
        FetchError::NoRoom { .. } => (Exit::CannotCreate, "make room, or name another disk with -o"),
        FetchError::Io { .. } => (Exit::Io, ""),
    };
    CliError::caused(exit, format!("cannot fetch the result of {}", wanted.execution), error).hint(hint)
}

/// One error of all that went wrong: the first decides the exit status.
fn failed(mut failures: Failures<'_>, of: usize) -> CliError {
    if of == 1 && failures.len() == 1 {
        return failures.remove(0).1;
    }
    let lines = failures.iter().filter_map(|(_, error)| match error {
        CliError::Failed(failed) => Some(failed.to_string()),
        CliError::PipeClosed => None,
    });
    let lines: Vec<String> = lines.collect();
    let what = format!("{} of {of} results could not be fetched", failures.len());
    let (exit, hint) = match failures.into_iter().next().map(|(_, error)| error) {
        Some(CliError::Failed(first)) => (first.exit, first.hint),
        _ => (Exit::Internal, None),
    };
    CliError::new(exit, what).details(lines).hint(hint.unwrap_or_default())
}

/// What an honest archive may hold and cannot be had here.
fn left_out(execution: &str, warnings: &Warnings, context: &Context<'_>) {
    for warning in warnings.kept() {
        context.out.warn(&format!("{execution}: {warning}"));
    }
    if warnings.dropped() > 0 {
        context.out.warn(&format!("{execution}: {} more of this kind", warnings.dropped()));
    }
}

/// Where the results go.
struct Destination {
    out: PathBuf,
    raw: bool,
}

impl Destination {
    /// Whether what every result has is there already: better told before gigabytes are fetched.
    fn check(&self, wanted: &[Wanted]) -> Result<(), CliError> {
        let names: Vec<&str> = match self.raw {
            true => wanted.iter().map(|w| w.execution.as_str()).collect(),
            false => APPENDED.to_vec(),
        };
        for name in names {
            let path = self.out.join(name);
            if is_there(&path).map_err(|e| self.cannot_place(e))? {
                return Err(self.cannot_place(MergeError::Exists(path)));
            }
        }
        Ok(())
    }

    fn cannot_place(&self, error: MergeError) -> CliError {
        let (exit, hint) = match &error {
            MergeError::Exists(_) => {
                (Exit::CannotCreate, "nothing was overwritten; name another directory with -o")
            }
            MergeError::Twice(_) => (Exit::CannotCreate, "use --raw to get a directory for each execution"),
            _ => (Exit::Io, ""),
        };
        CliError::caused(exit, format!("cannot put the results into {}", self.out.display()), error)
            .hint(hint)
    }

    fn cannot_create(&self, path: &Path, error: std::io::Error) -> CliError {
        CliError::caused(Exit::CannotCreate, format!("cannot write to {}", path.display()), error)
    }

    /// Makes the staging directory, without the unfinished trees of an earlier run.
    fn staging(&self) -> Result<PathBuf, CliError> {
        let staging = self.out.join(STAGING);
        fs::create_dir_all(&self.out).map_err(|e| self.cannot_create(&self.out, e))?;
        crate::sys::fs::create_private_dir(&staging).map_err(|e| self.cannot_create(&staging, e))?;
        // A link would lead the files out of the directory that was named.
        if staging.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
            return Err(CliError::new(
                Exit::CannotCreate,
                format!("cannot write to {}: it is not a directory", staging.display()),
            ));
        }
        Ok(staging)
    }

    /// Unpacks everything, then puts it in place.
    fn place(&self, got: &Results<'_>, staging: &Path, context: &Context<'_>) -> Result<Vec<Got>, CliError> {
        let mut trees = Vec::new();
        for (wanted, fetched) in got {
            let tree = staging.join(format!("{}.tree", wanted.execution));
            if is_there(&tree).map_err(|e| self.cannot_place(e))? {
                fs::remove_dir_all(&tree).map_err(|e| self.cannot_create(&tree, e))?;
            }
            fs::create_dir(&tree).map_err(|e| self.cannot_create(&tree, e))?;
            if wanted.is_archive {
                let what = format!("cannot unpack the result of {}", wanted.execution);
                let file = File::open(&fetched.path).map_err(|e| self.cannot_create(&fetched.path, e))?;
                let unpacked = unpack(file, &tree, &UnpackLimits::default()).map_err(|error| {
                    let exit =
                        if matches!(error, UnpackError::Create { .. }) { Exit::Io } else { Exit::Data };
                    CliError::caused(exit, what, error).hint("nothing was put in place")
                })?;
                left_out(&wanted.execution, &unpacked.warnings, context);
            } else {
                // Nothing to unpack: the file itself is the result.
                let target = tree.join(&wanted.archive.name);
                fs::copy(&fetched.path, &target).map_err(|e| self.cannot_create(&target, e))?;
            }
            trees.push(tree);
        }
        if self.raw {
            for ((wanted, _), tree) in got.iter().zip(&trees) {
                let target = self.out.join(&wanted.execution);
                fs::rename(tree, &target).map_err(|e| self.cannot_create(&target, e))?;
            }
        } else {
            merge(&trees, &self.out).map_err(|e| self.cannot_place(e))?;
        }
        let directory = |w: &Wanted| if self.raw { self.out.join(&w.execution) } else { self.out.clone() };
        Ok(got
            .iter()
            .map(|(wanted, fetched)| Got {
                execution_id: wanted.execution.clone(),
                size: fetched.size,
                sha256: fetched.sha256,
                verified: fetched.verified,
                directory: directory(wanted),
            })
            .collect())
    }

    fn clear(&self, staging: &Path) -> Result<(), CliError> {
        fs::remove_dir_all(staging).map_err(|e| self.cannot_create(staging, e))
    }

    fn clear_if_empty(&self, staging: &Path) {
        // Removing fails if something is in there, which is the point.
        let _ = fs::remove_dir(staging);
        let _ = fs::remove_dir(&self.out);
    }
}

#[cfg(test)]
mod tests;
