//! `codling results`: what a node keeps, what takes room, what goes next. Only codling nodes have these endpoints.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::answers::{read, short_id, short_time};
use super::client::{Client, ClientError, segment};
use super::exit::{CliError, Exit};
use super::target::ConnectArgs;
use super::text::{Table, escape, fields};
use crate::model::units::{format_duration, parse_duration};
use crate::model::{Bytes, Timestamp};
use crate::wire::answers::{
    DeletedCount, DeletionRow, DfAnswer, GcAnswer, GcRequest, Page, PinRequest, ResultRow,
};

/// Look after the results that a node keeps
#[derive(Debug, Args)]
pub struct ResultsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ResultsCommand,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What to do with results.
#[derive(Debug, Subcommand)]
pub enum ResultsCommand {
    /// List results, those that were deleted too
    List {
        /// Print whole ids
        #[arg(long)]
        wide: bool,
    },
    /// Show what is used, reserved and free, what goes next, and why
    Df,
    /// Keep a result whatever happens, until it is unpinned or a time is over
    Pin {
        /// Execution that made the result
        #[arg(value_name = "EXECUTION")]
        id: String,
        /// Until this time, e.g. 2026-12-31T00:00:00Z
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        until: Option<Timestamp>,
        /// For this long from now, e.g. 7d
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, conflicts_with = "until")]
        period: Option<Duration>,
    },
    /// Take the pin off a result
    Unpin {
        /// Execution that made the result
        #[arg(value_name = "EXECUTION")]
        id: String,
    },
    /// Delete results
    Rm {
        /// Executions that made the results
        #[arg(value_name = "EXECUTION", required = true)]
        ids: Vec<String>,
    },
    /// Print new links to results, beside links that were handed out and lead here no longer
    Republish {
        /// Executions that made the results
        #[arg(value_name = "EXECUTION", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All results that are kept
        #[arg(long)]
        all: bool,
    },
    /// Delete what is due now: expired, too many, too large
    Gc {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    humantime::parse_rfc3339(text)
        .map(Timestamp::from_system)
        .map_err(|_| "not a time such as 2026-12-31T00:00:00Z".to_owned())
}

fn from_now(until: Timestamp) -> Result<Duration, CliError> {
    match until.since(Timestamp::from_system(SystemTime::now())) {
        Duration::ZERO => Err(CliError::new(Exit::Usage, format!("--until {until} is over already"))),
        left => Ok(Duration::from_secs(left.as_secs() + 1)),
    }
}

/// Runs `codling results`.
///
/// # Errors
/// The node does not answer, has no such result, or is not a codling node.
pub fn run(args: &ResultsArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let client = Client::new(args.connect.target(context.env)?);
    match &args.command {
        ResultsCommand::List { wide } => list(&client, *wide, context),
        ResultsCommand::Df => df(&client, context),
        ResultsCommand::Republish { ids, .. } => super::republish::run(&client, ids, context),
        ResultsCommand::Gc { dry_run } => gc(&client, *dry_run, context),
        ResultsCommand::Pin { id, until, period } => {
            let period = match until {
                Some(until) => Some(from_now(*until)?),
                None => *period,
            };
            // The node counts from its own now: the clocks of boards are not to be compared.
            let request = PinRequest { seconds: period.map(|p| p.as_secs()) };
            let answer = client.put(&format!("codling/results/{}/pin", segment(id)), &json!(request));
            let said = match period {
                Some(period) => format!("pinned {id} for {}", format_duration(period)),
                None => format!("pinned {id}"),
            };
            changed(answer, &format!("pin {id}"), &said, context)
        }
        ResultsCommand::Unpin { id } => {
            let answer = client.delete(&format!("codling/results/{}/pin", segment(id)), &json!({}));
            changed(answer, &format!("unpin {id}"), &format!("unpinned {id}"), context)
        }
        ResultsCommand::Rm { ids } => {
            for id in ids {
                let answer = client.delete(&format!("codling/results/{}", segment(id)), &json!({}));
                changed(answer, &format!("delete {id}"), &format!("deleted {id}"), context)?;
            }
            Ok(Exit::Ok)
        }
    }
}

fn changed(
    answer: Result<Value, ClientError>,
    what: &str,
    said: &str,
    context: &Context<'_>,
) -> Result<Exit, CliError> {
    let missing = "'codling results list' shows what there is";
    answer.map_err(|e| if e.is_not_found() { e.doing(what).hint(missing) } else { only_codling(e, what) })?;
    context.out.note(said);
    Ok(Exit::Ok)
}

/// An error of an endpoint that every codling node has and no other.
pub(super) fn only_codling(error: ClientError, what: &str) -> CliError {
    let elsewhere = error.is_not_found() || error.is_unknown_path();
    let error = error.doing(what);
    if elsewhere {
        error.hint("only a codling node keeps results; Bacalhau does not offer this")
    } else {
        error
    }
}

fn list(client: &Client, wide: bool, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = "list results";
    let answer = client.get("codling/results", &[]).map_err(|e| only_codling(e, what))?;
    let page: Page<ResultRow> = read(client, &answer).map_err(|e| e.doing(what))?;
    if context.out.quiet {
        return super::print_ids(page.items.iter().map(|r| r.execution_id.as_str()), context);
    }
    let items = answer.get("Items").unwrap_or(&answer);
    context.out.show(items, || {
        let mut table = Table::new(&["EXECUTION", "JOB", ">SIZE", "CREATED", "STATUS", "FETCHED", "NOTE"]);
        for row in &page.items {
            let id = |id| if wide { id } else { short_id(id) };
            table.row(&[
                id(row.execution_id.as_str()),
                id(row.job_id.as_str()),
                &Bytes(row.size).to_string(),
                &short_time(&row.created),
                if row.deleted.is_some() { "deleted" } else { "stored" },
                if row.fetched { "yes" } else { "" },
                &remark(row),
            ]);
        }
        table.render()
    })?;
    Ok(Exit::Ok)
}

/// What else there is to say of a result: its end, its pin, how long it is kept.
fn remark(row: &ResultRow) -> String {
    if let Some(deleted) = &row.deleted {
        return format!("{}, {}", deleted.message, short_time(&deleted.at));
    }
    let pin = match (row.pinned, &row.pinned_until) {
        (true, Some(until)) => format!("pinned until {}", short_time(until)),
        (true, None) => "pinned".to_owned(),
        (false, _) => String::new(),
    };
    let kept = row.retention_seconds.map(|s| format!("kept for {}", format_duration(Duration::from_secs(s))));
    [pin, kept.unwrap_or_default()].into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join(", ")
}

fn df(client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = "show what takes room";
    let answer = client.get("codling/df", &[]).map_err(|e| only_codling(e, what))?;
    let df: DfAnswer = read(client, &answer).map_err(|e| e.doing(what))?;
    context.out.show(&answer, || {
        // What executions hold is partly written, partly only promised to them.
        let written = df.scratch.minus(df.reserved);
        let used = df.results.plus(written).plus(df.cache).plus(df.databases);
        let part = |n: Bytes| match percent(n, df.quota) {
            Some(share) => format!("{n}  ({share}%)"),
            None => n.to_string(),
        };
        let disk = format!("{} free of {}, of which {} stay free", df.disk_free, df.disk_total, df.min_free);
        let mut text = fields(&[
            ("Quota", df.quota.to_string()),
            ("Used", part(used)),
            ("  results", df.results.to_string()),
            ("  scratch", written.to_string()),
            ("  cache", df.cache.to_string()),
            ("  store", df.databases.to_string()),
            ("Reserved", part(df.reserved)),
            ("Free", part(df.free)),
            ("Disk", disk),
        ]);
        if let Some(max_size) = df.max_size {
            text.push_str(&format!("\nResults may occupy {max_size} together.\n"));
        }
        if !df.clock_doubt.is_empty() {
            text.push_str(&format!(
                "\nNothing is deleted by age: the clock is not believed, {}.\n",
                df.clock_doubt
            ));
        }
        if let Some(jobs) = &df.jobs {
            let left = jobs.left_by_age + jobs.left_by_count;
            let (ended, max) = (jobs.ended, jobs.max);
            text.push_str(&format!(
                "\nJobs that have ended: {ended} of at most {max} remembered, {left} have left.\n"
            ));
        }
        if !df.deleted.is_empty() {
            text.push_str("\nDeleted since the node started:\n");
            text.push_str(&counts(&df.deleted));
        }
        if !df.disk_message.is_empty() {
            text.push_str(&format!("\nWarning: {}.\n", escape(&df.disk_message)));
        }
        if df.next.is_empty() {
            text.push_str("\nNothing can be deleted to make room.\n");
        } else {
            text.push_str("\nNext to go:\n");
            text.push_str(&deletions(&df.next));
        }
        text
    })?;
    Ok(Exit::Ok)
}

/// `n` in hundredths of `whole`, rounded down.
fn percent(n: Bytes, whole: Bytes) -> Option<u128> {
    (u128::from(n.0) * 100).checked_div(u128::from(whole.0))
}

fn deletions(rows: &[DeletionRow]) -> String {
    let mut table = Table::new(&["EXECUTION", "JOB", ">SIZE", "REASON"]);
    for row in rows {
        let size = Bytes(row.size).to_string();
        table.row(&[short_id(&row.execution_id), short_id(&row.job_id), &size, &row.message]);
    }
    table.render()
}

fn counts(rows: &[DeletedCount]) -> String {
    let mut table = Table::new(&[">RESULTS", ">SIZE", "REASON"]);
    for row in rows {
        table.row(&[&row.count.to_string(), &row.bytes.to_string(), &row.message]);
    }
    table.render()
}

fn gc(client: &Client, dry_run: bool, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = "delete what is due";
    let answer =
        client.post("codling/gc", &json!(GcRequest { dry_run })).map_err(|e| only_codling(e, what))?;
    let GcAnswer { deleted: rows, jobs } = read(client, &answer).map_err(|e| e.doing(what))?;
    if context.out.quiet {
        return super::print_ids(rows.iter().map(|r| r.execution_id.as_str()), context);
    }
    context.out.show(&answer, || if rows.is_empty() { String::new() } else { deletions(&rows) })?;
    let freed = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.size));
    let would = if dry_run { "would be " } else { "" };
    let mut said = Vec::new();
    if !rows.is_empty() {
        said.push(format!("{} {would}deleted, {} freed", rows.len(), Bytes(freed)));
    }
    if !jobs.is_empty() {
        said.push(format!("{} job(s) {would}forgotten", jobs.len()));
    }
    context.out.note(&if said.is_empty() { "nothing is due".to_owned() } else { said.join("; ") });
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{Reply, Server};

    const LIST: &str = r#"{"NextToken":"","Items":[
        {"ExecutionID":"e-11111111-2222-3333-4444-555555555555","JobID":"j-11111111-2222-3333-4444-555555555555",
         "Size":2048,"SHA256":"ab","Created":"2024-07-02T14:26:57.160015000Z","Pinned":true,"Fetched":true,"RetentionSeconds":86400},
        {"ExecutionID":"e-2","JobID":"j-2","Size":10,"SHA256":"cd","Created":"2024-07-02T14:26:57Z","Pinned":false,
         "Deleted":{"Reason":"quota","Message":"evicted to keep the \u001b[31mquota","At":"2025-01-01T00:00:00.1Z"}}]}"#;

    const DF: &str = r#"{"Quota":1048576,"Results":524288,"Scratch":108954,"Cache":0,"Reserved":104858,"Free":415334,
        "MinFree":4096,"DiskTotal":10485760,"DiskFree":5242880,
        "ClockDoubt":"it jumped ahead","Jobs":{"Ended":7,"Max":10,"LeftByAge":3,"LeftByCount":2},
        "Deleted":[{"Reason":"quota","Message":"evicted to keep the quota","Count":3,"Bytes":8192}],
        "Next":[{"ExecutionID":"e-9","JobID":"j-9","Size":4096,"Reason":"expired","Message":"older than its retention"}]}"#;

    #[test]
    fn lists_what_is_kept_and_what_is_gone() {
        let server = Server::start(|_| Reply::json(LIST));
        assert_eq!(
            server.run(&["results", "list"]).expect(0).stdout(),
            "EXECUTION   JOB            SIZE  CREATED               STATUS   FETCHED  NOTE\n\
             e-11111111  j-11111111  2.0 KiB  2024-07-02T14:26:57Z  stored   yes      pinned, kept for 1d\n\
             e-2         j-2            10 B  2024-07-02T14:26:57Z  deleted           evicted to keep the \\u{1b}[31mquota, 2025-01-01T00:00:00Z\n"
        );
        let json = server.run(&["results", "list", "--output", "json"]).expect(0).stdout();
        let items: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(items[0]["SHA256"], "ab");
        let ids = server.run(&["results", "list", "-q"]).expect(0).stdout();
        assert_eq!(ids, "e-11111111-2222-3333-4444-555555555555\ne-2\n");
    }

    #[test]
    fn df_says_what_goes_next_and_why() {
        let server = Server::start(|_| Reply::json(DF));
        assert_eq!(
            server.run(&["results", "df"]).expect(0).stdout(),
            "Quota      1.0 MiB\n\
             Used       516.0 KiB  (50%)\n\
             \x20 results  512.0 KiB\n\
             \x20 scratch  4.0 KiB\n\
             \x20 cache    0 B\n\
             \x20 store    0 B\n\
             Reserved   102.4 KiB  (10%)\n\
             Free       405.6 KiB  (39%)\n\
             Disk       5.0 MiB free of 10.0 MiB, of which 4.0 KiB stay free\n\
             \n\
             Nothing is deleted by age: the clock is not believed, it jumped ahead.\n\
             \n\
             Jobs that have ended: 7 of at most 10 remembered, 5 have left.\n\
             \n\
             Deleted since the node started:\n\
             RESULTS     SIZE  REASON\n\
             \x20     3  8.0 KiB  evicted to keep the quota\n\
             \n\
             Next to go:\n\
             EXECUTION  JOB     SIZE  REASON\n\
             e-9        j-9  4.0 KiB  older than its retention\n"
        );
    }

    #[test]
    fn pins_and_deletes() {
        let server = Server::start(|_| Reply::json("{}"));
        server.run(&["results", "pin", "e-1"]).expect(0);
        let pinned = server.run(&["results", "pin", "e-1", "--for", "7d"]).expect(0);
        assert_eq!(pinned.stderr(), "pinned e-1 for 7d\n");
        server.run(&["results", "pin", "e-1", "--until", "2250-01-01T00:00:00Z"]).expect(0);
        server.run(&["results", "unpin", "e-1"]).expect(0);
        let removed = server.run(&["results", "rm", "e-1", "e-2"]).expect(0);
        assert_eq!(
            (removed.stdout().as_str(), removed.stderr().as_str()),
            ("", "deleted e-1\ndeleted e-2\n")
        );
        let requests = server.requests();
        let lines: Vec<&str> = requests.iter().map(|r| r.line.trim_end_matches(" HTTP/1.1")).collect();
        assert_eq!(
            lines,
            [
                "PUT /api/v1/codling/results/e-1/pin",
                "PUT /api/v1/codling/results/e-1/pin",
                "PUT /api/v1/codling/results/e-1/pin",
                "DELETE /api/v1/codling/results/e-1/pin",
                "DELETE /api/v1/codling/results/e-1",
                "DELETE /api/v1/codling/results/e-2",
            ]
        );
        let seconds = |n: usize| serde_json::from_slice::<PinRequest>(&requests[n].body).unwrap().seconds;
        assert_eq!((seconds(0), seconds(1)), (None, Some(7 * 86400)));
        assert!(seconds(2).is_some_and(|s| s > 86400));
        server.run(&["results", "pin", "e-1", "--until", "tomorrow"]).expect(64);
        server.run(&["results", "pin", "e-1", "--until", "2001-01-01T00:00:00Z"]).expect(64);
        server.run(&["results", "rm"]).expect(64);
    }

    #[test]
    fn gc_says_what_it_did_or_would_do() {
        let server = Server::start(|request| {
            if request.json()["DryRun"] == true {
                let row = r#"{"ExecutionID":"e-9","JobID":"j-9","Size":4096,"Reason":"count","Message":"too many"}"#;
                Reply::json(format!(r#"{{"Deleted":[{row}],"Jobs":["j-1","j-2"]}}"#))
            } else {
                Reply::json(r#"{"Deleted":[]}"#)
            }
        });
        let dry = server.run(&["results", "gc", "--dry-run"]).expect(0);
        assert_eq!(dry.stdout(), "EXECUTION  JOB     SIZE  REASON\ne-9        j-9  4.0 KiB  too many\n");
        assert_eq!(dry.stderr(), "1 would be deleted, 4.0 KiB freed; 2 job(s) would be forgotten\n");
        let json = server.run(&["results", "gc", "--dry-run", "--output", "json"]).expect(0).stdout();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["Jobs"][1], &json["Deleted"][0]["ExecutionID"]), (&json!("j-2"), &json!("e-9")));
        assert_eq!(server.run(&["results", "gc"]).expect(0).stderr(), "nothing is due\n");
    }

    #[test]
    fn a_bacalhau_node_is_told_apart_from_a_missing_result() {
        let server = Server::start(|_| Reply::new(404, r#"{"Message":"not found"}"#));
        let list = server.run(&["results", "df"]).expect(66);
        assert!(list.stderr().contains("hint: only a codling node keeps results"), "{}", list.stderr());
        let pin = server.run(&["results", "pin", "e-1"]).expect(66);
        assert!(pin.stderr().contains("hint: 'codling results list' shows"), "{}", pin.stderr());
    }
}
