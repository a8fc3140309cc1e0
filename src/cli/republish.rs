//! `codling results republish`: links to results anew, beside those that they take the place of.
//!
//! A node's results are at its new address as soon as it has one; what this is for is links that somebody has already.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Context;
use super::answers::{read, short_id};
use super::client::{Client, segment};
use super::exit::{CliError, Exit};
use super::out::Format;
use super::text::{Table, escape};
use crate::model::Timestamp;
use crate::sys::EARLIEST_BELIEVABLE;
use crate::wire::answers::{FormerRow, Page, ResultAddresses, ResultRow};

/// How exactly the node knows when it last handed out a link.
const DAY: Duration = Duration::from_secs(86_400);

/// One link and the one in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Link {
    #[serde(rename = "ExecutionID")]
    execution: String,
    #[serde(rename = "JobID")]
    job: String,
    /// Empty if no link of it can have stopped leading to it.
    old: String,
    new: String,
}

/// Runs `codling results republish`: of those results, or of all.
pub(super) fn run(client: &Client, ids: &[String], context: &Context<'_>) -> Result<Exit, CliError> {
    let what = "tell the new links";
    let answer = client.get("codling/addresses", &[]).map_err(|e| super::results::only_codling(e, what))?;
    let addresses: ResultAddresses = read(client, &answer).map_err(|e| e.doing(what))?;
    let mut rows: Vec<ResultRow> = Vec::new();
    if ids.is_empty() {
        let answer = client.get("codling/results", &[]).map_err(|e| e.doing(what))?;
        let page: Page<ResultRow> = read(client, &answer).map_err(|e| e.doing(what))?;
        rows.extend(page.items.into_iter().filter(|row| row.deleted.is_none()));
    }
    for id in ids {
        let what = format!("tell the new link of {id}");
        let answer = client.get(&format!("codling/results/{}", segment(id)), &[]);
        let answer = answer.map_err(|e| e.doing(&what))?;
        let row: ResultRow = read(client, &answer).map_err(|e| e.doing(&what))?;
        if let Some(deleted) = &row.deleted {
            let why = format!("cannot {what}: it was deleted: {}", deleted.message);
            return Err(CliError::new(Exit::NotFound, why));
        }
        rows.push(row);
    }
    let links: Vec<Link> = rows.iter().flat_map(|row| renewed(row, &addresses)).collect();
    if context.out.quiet {
        return super::print_ids(links.iter().map(|link| link.new.as_str()), context);
    }
    if context.out.format == Format::Csv {
        context.out.print(&csv(&links))?;
    } else {
        context.out.show(&links, || table(&links))?;
    }
    if addresses.former.is_empty() {
        context.out.note("links that were handed out still lead to their results: no address has changed");
    }
    Ok(Exit::Ok)
}

/// The links of one result: one for each former address at which it can have been.
fn renewed(row: &ResultRow, addresses: &ResultAddresses) -> Vec<Link> {
    let link = |old: String, new: String| Link {
        execution: row.execution_id.clone(),
        job: row.job_id.clone(),
        old,
        new,
    };
    let links = addresses.former.iter().filter(|former| may_have_had(former, row)).map(|former| {
        let new = match row.url.strip_prefix(&addresses.url) {
            Some(rest) => format!("{}{rest}", former.now),
            None => row.url.clone(),
        };
        link(format!("{}/{}.tar.gz", former.url, row.execution_id), new)
    });
    let mut links: Vec<Link> = links.collect();
    if links.is_empty() {
        links.push(link(String::new(), row.url.clone()));
    }
    links
}

/// Whether a link to that result can have begun so: not if that was over before there was the result. Where a time
/// is not known, it can.
fn may_have_had(former: &FormerRow, row: &ResultRow) -> bool {
    let time = |text: &str| humantime::parse_rfc3339(text).ok();
    let known = |time: &SystemTime| Timestamp::from_system(*time) >= EARLIEST_BELIEVABLE;
    let last = former.last.as_deref().and_then(time).filter(known);
    let created = time(&row.created).filter(known);
    !matches!((last, created), (Some(last), Some(created)) if last + DAY < created)
}

fn table(links: &[Link]) -> String {
    let mut table = Table::new(&["EXECUTION", "OLD", "NEW"]);
    for link in links {
        table.row(&[short_id(&link.execution), &link.old, &link.new]);
    }
    table.render()
}

/// RFC 4180, but lines end as elsewhere.
fn csv(links: &[Link]) -> String {
    let cell = |text: &str| match text {
        plain if !plain.contains([',', '"']) => escape(plain).into_owned(),
        other => format!("\"{}\"", escape(other).replace('"', "\"\"")),
    };
    let mut text = String::from("execution_id,job_id,old,new\n");
    for link in links {
        let cells = [&link.execution, &link.job, &link.old, &link.new].map(|text| cell(text));
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{Reply, Request, Server};

    const ADDRESSES: &str = r#"{"URL":"http://127.0.0.1:6001","Reason":"","Bind":"","Setting":"","Alternatives":[],
        "Former":[{"URL":"http://pi:7000","Now":"http://pi:6001","Last":"2026-03-01T00:00:00.000000000Z"},
                  {"URL":"http://old,er:1","Now":"http://127.0.0.1:6001"}]}"#;

    fn row(id: &str, created: &str, more: &str) -> String {
        format!(
            r#"{{"ExecutionID":"{id}","JobID":"j-1","Size":1,"SHA256":"ab","Created":"{created}",
               "URL":"http://127.0.0.1:6001/{id}.tar.gz?expires=9&signature=ab"{more}}}"#
        )
    }

    fn answer(request: &Request, addresses: &'static str) -> Reply {
        let before = row("e-1", "2026-02-01T00:00:00.000000000Z", "");
        let after = row("e-2", "2026-03-03T00:00:00.000000000Z", "");
        let gone = r#","Deleted":{"Reason":"quota","Message":"evicted","At":"2026-04-01T00:00:00Z"}"#;
        let gone = row("e-3", "2026-02-01T00:00:00.000000000Z", gone);
        match request.path() {
            "/api/v1/codling/addresses" => Reply::json(addresses),
            "/api/v1/codling/results" => {
                Reply::json(format!(r#"{{"NextToken":"","Items":[{before},{after},{gone}]}}"#))
            }
            "/api/v1/codling/results/e-2" => Reply::json(after),
            "/api/v1/codling/results/e-3" => Reply::json(gone),
            _ => Reply::new(404, r#"{"Message":"there is no result of execution e-9"}"#),
        }
    }

    #[test]
    fn each_link_that_was_is_told_with_the_one_that_is() {
        let server = Server::start(|request| answer(request, ADDRESSES));
        let csv = server.run(&["results", "republish", "--all", "--output", "csv"]).expect(0).stdout();
        assert_eq!(
            csv,
            "execution_id,job_id,old,new\n\
             e-1,j-1,http://pi:7000/e-1.tar.gz,http://pi:6001/e-1.tar.gz?expires=9&signature=ab\n\
             e-1,j-1,\"http://old,er:1/e-1.tar.gz\",http://127.0.0.1:6001/e-1.tar.gz?expires=9&signature=ab\n\
             e-2,j-1,\"http://old,er:1/e-2.tar.gz\",http://127.0.0.1:6001/e-2.tar.gz?expires=9&signature=ab\n"
        );
        let json = server.run(&["results", "republish", "e-2", "--output", "json"]).expect(0).stdout();
        let links: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(links.as_array().unwrap().len(), 1);
        assert_eq!(links[0]["Old"], "http://old,er:1/e-2.tar.gz");
        assert_eq!(links[0]["New"], "http://127.0.0.1:6001/e-2.tar.gz?expires=9&signature=ab");
        let table = server.run(&["results", "republish", "e-2"]).expect(0).stdout();
        assert!(table.starts_with("EXECUTION  OLD ") && table.lines().count() == 2, "{table}");
    }

    #[test]
    fn without_a_change_there_is_nothing_to_replace() {
        let server = Server::start(|request| {
            answer(request, r#"{"URL":"http://127.0.0.1:6001","Alternatives":[],"Former":[]}"#)
        });
        let csv = server.run(&["results", "republish", "--all", "--output", "csv"]).expect(0);
        assert!(csv.stdout().contains("e-1,j-1,,http://127.0.0.1:6001/e-1.tar.gz?"), "{}", csv.stdout());
        assert!(csv.stderr().contains("still lead to their results"), "{}", csv.stderr());
    }

    #[test]
    fn what_cannot_be_told_says_why() {
        let server = Server::start(|request| answer(request, ADDRESSES));
        let gone = server.run(&["results", "republish", "e-3"]).expect(66);
        assert!(gone.stderr().contains("it was deleted: evicted"), "{}", gone.stderr());
        server.run(&["results", "republish", "e-9"]).expect(66);
        for wrong in [&["results", "republish"][..], &["results", "republish", "--all", "e-1"]] {
            server.run(wrong).expect(64);
        }
        // CSV is for manifests; other commands have none.
        let none = server.run(&["results", "list", "--output", "csv"]).expect(64);
        assert!(none.stderr().contains("hint: use --output json"), "{}", none.stderr());
    }
}
