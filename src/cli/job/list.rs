//! `codling job list`, `executions` and `history`: pages of the API as tables.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{HistoryArgs, ListArgs, OfJob, PageArgs, path};
use crate::cli::answers::{Event, Execution, Job, Page, read, short_id, short_time, time};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::text::Table;
use crate::cli::{Context, print_ids};

/// Rows that one command holds in memory; who wants more takes them page by page.
const MAX_ROWS: usize = 10_000;

/// A list as people see it (`rows`) and as the node sent it (`items`).
struct List<T> {
    rows: Vec<T>,
    items: Vec<Value>,
    next: String,
}

/// Fetches one page, or all of them.
fn fetch<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    query: &[(&str, &str)],
    page: &PageArgs,
    what: &str,
) -> Result<List<T>, CliError> {
    let limit = page.limit.to_string();
    let mut list =
        List { rows: Vec::new(), items: Vec::new(), next: page.next_token.clone().unwrap_or_default() };
    loop {
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        if page.reverse {
            query.push(("reverse", "true"));
        }
        if !list.next.is_empty() {
            query.push(("next_token", &list.next));
        }
        let mut answer = client.get(path, &query).map_err(|e| e.doing(what))?;
        let got: Page<T> = read(client, &answer).map_err(|e| e.doing(what))?;
        if let Some(Value::Array(items)) = answer.get_mut("Items").map(Value::take) {
            list.items.extend(items);
        }
        // The history of a job that still runs always has a next page, if only an empty one.
        let is_last = got.next_token.is_empty() || got.items.is_empty() || got.next_token == list.next;
        list.next = if got.items.is_empty() { String::new() } else { got.next_token };
        list.rows.extend(got.items);
        if is_last || !page.all {
            return Ok(list);
        }
        if list.rows.len() >= MAX_ROWS {
            return Err(CliError::new(Exit::Unavailable, format!("there are more than {MAX_ROWS} to list"))
                .hint("leave out --all and go page by page with --next-token, or narrow the list"));
        }
    }
}

impl<T> List<T> {
    fn print(
        &self,
        context: &Context<'_>,
        id: impl Fn(&T) -> &str,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<Exit, CliError> {
        if context.out.quiet {
            return print_ids(self.rows.iter().map(id), context);
        }
        context.out.show(&self.items, || table(&self.rows).render())?;
        if !self.next.is_empty() {
            context.out.note(&format!("there may be more: --next-token {}", self.next));
        }
        Ok(Exit::Ok)
    }
}

/// Runs `codling job list`.
pub fn jobs(args: &ListArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let mut query: Vec<(&str, &str)> = args.labels.iter().map(|l| ("labels", l.as_str())).collect();
    query.extend(args.order_by.map(|o| ("order_by", o.as_str())));
    let list: List<Job> = fetch(client, "orchestrator/jobs", &query, &args.page, "list jobs")?;
    let wide = args.page.wide;
    list.print(
        context,
        |job| &job.id,
        |jobs| {
            let mut table = Table::new(&["CREATED", "ID", "NAME", "ENGINE", "TYPE", "STATE"]);
            for job in jobs {
                let engine = job.tasks.first().map_or("", |t| t.engine.kind.as_str());
                // A job without a name has its id for one.
                let name = if job.name == job.id { "" } else { &job.name };
                let id = if wide { &job.id } else { short_id(&job.id) };
                table.row(&[&time(job.create_time), id, name, engine, &job.kind, &job.state.state_type]);
            }
            table
        },
    )
}

/// Headings of [`execution_row`].
pub const EXECUTION_HEADINGS: [&str; 7] = ["ID", "NODE", "STATE", ">EXIT", "CREATED", "MODIFIED", "MESSAGE"];

/// An execution as a row.
pub fn execution_row(execution: &Execution, wide: bool) -> [String; 7] {
    let id = |id| if wide { id } else { short_id(id) };
    let message = match execution.compute_state.message.as_str() {
        "" => execution.run_output.as_ref().map_or("", |o| o.error_msg.as_str()),
        message => message,
    };
    [
        id(execution.id.as_str()).to_owned(),
        id(execution.node_id.as_str()).to_owned(),
        execution.state(),
        execution.exit_code().map(|code| code.to_string()).unwrap_or_default(),
        time(execution.create_time),
        time(execution.modify_time),
        message.to_owned(),
    ]
}

/// Runs `codling job executions`.
pub fn executions(args: &OfJob, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("list the executions of job {}", args.job.id);
    let versions = args.versions.query();
    let mut query: Vec<_> = args.order_by.map(|o| ("order_by", o.as_str())).into_iter().collect();
    query.extend(versions.as_ref().map(|(name, value)| (*name, value.as_str())));
    let list: List<Execution> = fetch(client, &path(&args.job.id, "/executions"), &query, &args.page, &what)?;
    list.print(
        context,
        |execution| &execution.id,
        |executions| {
            let mut table = Table::new(&EXECUTION_HEADINGS);
            executions.iter().for_each(|e| table.row(&execution_row(e, args.page.wide)));
            table
        },
    )
}

/// Headings of [`event_row`].
pub const EVENT_HEADINGS: [&str; 4] = ["TIME", "EXECUTION", "TOPIC", "EVENT"];

/// An event as a row.
pub fn event_row(event: &Event, wide: bool) -> [String; 4] {
    let execution = if wide { &event.execution_id } else { short_id(&event.execution_id) };
    let mut message = event.text();
    if let Some(hint) = event.event.details.get("Hint").filter(|h| !h.is_empty()) {
        message.push_str(&format!(" ({hint})"));
    }
    [short_time(event.when()), execution.to_owned(), event.event.topic.clone(), message]
}

/// Runs `codling job history`.
pub fn history(args: &HistoryArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("list the history of job {}", args.job.id);
    let mut query = vec![("event_type", args.event_type.as_str())];
    query.extend(args.execution_id.as_deref().map(|id| ("execution_id", id)));
    let versions = args.versions.query();
    query.extend(versions.as_ref().map(|(name, value)| (*name, value.as_str())));
    let list: List<Event> = fetch(client, &path(&args.job.id, "/history"), &query, &args.page, &what)?;
    list.print(
        context,
        |event| &event.execution_id,
        |events| {
            let mut table = Table::new(&EVENT_HEADINGS);
            events.iter().for_each(|e| table.row(&event_row(e, args.page.wide)));
            table
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{Reply, Server};

    fn job(n: u32, name: &str) -> String {
        format!(
            r#"{{"ID":"j-{n:08}-2222-3333-4444-555555555555","Name":"{name}","Type":"batch","CreateTime":1719930417160015000,
                "Tasks":[{{"Name":"main","Engine":{{"Type":"wasm","Params":{{"x":1}}}}}}],"State":{{"StateType":"Completed"}}}}"#
        )
    }

    #[test]
    fn jobs_in_a_table_with_a_way_to_the_next_page() {
        let server = Server::start(|_| {
            Reply::json(format!(
                r#"{{"NextToken":"tok","Items":[{},{}]}}"#,
                job(1, "demo"),
                job(2, "\\u001b[2Jx")
            ))
        });
        let list = server.run(&[
            "job",
            "list",
            "--labels",
            "a=b",
            "--labels",
            "zone in (a,b)",
            "--order-by",
            "modified_at",
            "--reverse",
        ]);
        let list = list.expect(0);
        assert_eq!(
            list.stdout(),
            "CREATED               ID          NAME        ENGINE  TYPE   STATE\n\
             2024-07-02T14:26:57Z  j-00000001  demo        wasm    batch  Completed\n\
             2024-07-02T14:26:57Z  j-00000002  \\u{1b}[2Jx  wasm    batch  Completed\n"
        );
        assert_eq!(list.stderr(), "there may be more: --next-token tok\n");
        assert_eq!(
            server.requests()[0].path(),
            "/api/v1/orchestrator/jobs?labels=a%3Db&labels=zone%20in%20(a%2Cb)&order_by=modified_at&limit=10&reverse=true"
        );
        let quiet = server.run(&["job", "list", "-q"]).expect(0);
        assert_eq!(quiet.stdout().lines().next(), Some("j-00000001-2222-3333-4444-555555555555"));
        assert_eq!(quiet.stderr(), "");
    }

    #[test]
    fn json_and_yaml_pass_on_what_the_node_sent() {
        let server =
            Server::start(|_| Reply::json(format!(r#"{{"NextToken":"","Items":[{}]}}"#, job(1, "demo"))));
        let json = server.run(&["--output", "json", "job", "list"]).expect(0).stdout();
        let items: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(items[0]["Tasks"][0]["Engine"]["Params"]["x"], 1);
        let yaml = server.run(&["job", "list", "--output", "yaml"]).expect(0).stdout();
        assert_eq!(yaml_serde::from_str::<serde_json::Value>(&yaml).unwrap(), items);
    }

    #[test]
    fn all_goes_through_the_pages_and_ends() {
        let server = Server::start(|request| match request.path() {
            p if p.contains("next_token=2") => {
                Reply::json(format!(r#"{{"NextToken":"2","Items":[{}]}}"#, job(2, "b")))
            }
            _ => Reply::json(format!(r#"{{"NextToken":"2","Items":[{}]}}"#, job(1, "a"))),
        });
        let list = server.run(&["job", "list", "--all", "--limit", "1", "-q"]).expect(0);
        assert_eq!(list.stdout().lines().count(), 2);
        assert_eq!(server.requests().len(), 2);
    }

    #[test]
    fn a_list_without_end_is_bounded() {
        let server = Server::start(|request| {
            let items = vec![r#"{"ID":"j"}"#; 5000].join(",");
            Reply::json(format!(r#"{{"NextToken":"{}x","Items":[{items}]}}"#, request.path().len()))
        });
        let list = server.run(&["job", "list", "--all", "--limit", "5000"]).expect(69);
        assert!(list.stderr().contains("more than 10000"), "{}", list.stderr());
    }

    #[test]
    fn executions_have_states_by_name_and_exit_codes() {
        let server = Server::start(|_| {
            Reply::json(
                r#"{"NextToken":"","Items":[
                {"ID":"e-1","NodeID":"n-1","ComputeState":{"StateType":9},"RunOutput":{"ExitCode":3},"CreateTime":1719930417160015000},
                {"ID":"e-2","NodeID":"n-1","ComputeState":{"StateType":10,"Message":"out of memory"},"RunOutput":null},
                {"ID":"e-3","NodeID":"n-1","ComputeState":{"StateType":6},"RunOutput":null}]}"#,
            )
        });
        assert_eq!(
            server.run(&["job", "executions", "my job"]).expect(0).stdout(),
            "ID   NODE  STATE      EXIT  CREATED               MODIFIED  MESSAGE\n\
             e-1  n-1   Completed     3  2024-07-02T14:26:57Z\n\
             e-2  n-1   Failed                                           out of memory\n\
             e-3  n-1   Running\n"
        );
        assert_eq!(server.requests()[0].path(), "/api/v1/orchestrator/jobs/my%20job/executions?limit=10");
    }

    #[test]
    fn history_is_a_table() {
        let server = Server::start(|_| {
            Reply::json(
                r#"{"NextToken":"more","Items":[
                {"Type":"JobLevel","Event":{"Message":"Job submitted","Topic":"Submission","Timestamp":"2024-07-02T14:26:57.123Z"}},
                {"Type":"ExecutionLevel","ExecutionID":"e-1","Time":"2024-07-02T14:26:58Z",
                 "Event":{"Message":"no such module","Topic":"Execution","Timestamp":"0001-01-01T00:00:00Z","Details":{"Hint":"look"}}}]}"#,
            )
        });
        let history = server
            .run(&["job", "history", "j-1", "--event-type", "execution", "--execution-id", "e-1"])
            .expect(0);
        assert_eq!(
            history.stdout(),
            "TIME                  EXECUTION  TOPIC       EVENT\n\
             2024-07-02T14:26:57Z             Submission  Job submitted\n\
             2024-07-02T14:26:58Z  e-1        Execution   no such module (look)\n"
        );
        assert_eq!(
            server.requests()[0].path(),
            "/api/v1/orchestrator/jobs/j-1/history?event_type=execution&execution_id=e-1&limit=10"
        );
    }
}
