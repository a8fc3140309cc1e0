//! Watching a job until it ends: its history as it grows, the output of its executions as they finish.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::list::event_row;
use super::logs::{Log, LogEnd, LogError};
use super::path;
use crate::cli::Context;
use crate::cli::answers::{Event, Execution, Job, JobAnswer, Page, read, short_id};
use crate::cli::client::{Client, ClientError, segment};
use crate::cli::exit::{CliError, Exit};

/// So often a call that found no node is repeated before the watch ends: with doubling pauses from half a second to
/// eight, about 40 seconds, in which a node restarts.
const RETRIES: u32 = 8;
const LONGEST_PAUSE: u32 = 16;

/// Events fetched at a time.
const PAGE: &str = "100";

/// Pages read between two looks at the job: a node that sends more does not get all of the attention.
const PAGES: usize = 100;

/// Where the history was read to.
#[derive(Default)]
struct Cursor {
    token: String,
    /// Events already shown of the page at `token`: a node may answer without a next page while the job runs.
    shown: usize,
}

/// What has been shown of an execution's log.
#[derive(Default)]
struct Printed {
    bytes: [usize; 2],
    whole: bool,
}

/// One job being watched.
pub struct Watch<'a> {
    client: Client,
    context: &'a Context<'a>,
    id: &'a str,
    follow: bool,
    silent: bool,
    deadline: Option<Instant>,
    hint: RefCell<String>,
}

impl<'a> Watch<'a> {
    /// Watches that job, printing output with `follow`, and nothing about its course with `silent`.
    pub fn new(
        client: &Client,
        context: &'a Context<'a>,
        id: &'a str,
        follow: bool,
        silent: bool,
        deadline: Option<Instant>,
    ) -> Self {
        let client = client.until(deadline);
        Self { client, context, id, follow, silent, deadline, hint: RefCell::default() }
    }

    /// What the node advised with the last error of the job.
    pub fn last_hint(&self) -> String {
        self.hint.borrow().clone()
    }

    /// Returns the last answer to `GET jobs/{id}`, executions included.
    ///
    /// # Errors
    /// The time is over, or the node is gone for good.
    pub fn to_the_end(&self) -> Result<Value, CliError> {
        let mut cursor = Cursor::default();
        let mut printed = HashMap::new();
        let mut pause = self.context.pace.poll / 8;
        loop {
            self.show_events(&mut cursor)?;
            let (answer, view) = self.job(self.follow)?;
            if self.follow {
                self.show_logs(&view, &mut printed)?;
            }
            if is_over(&view.job) {
                // What was written between the two calls.
                self.show_events(&mut cursor)?;
                return if self.follow { Ok(answer) } else { Ok(self.job(true)?.0) };
            }
            self.sleep(pause)?;
            pause = (pause * 2).min(self.context.pace.poll);
        }
    }

    fn job(&self, executions: bool) -> Result<(Value, JobAnswer), CliError> {
        let query: &[(&str, &str)] = if executions { &[("include", "executions")] } else { &[] };
        let answer = self.call(|client| client.get(&path(self.id, ""), query))?;
        let view = read(&self.client, &answer).map_err(|e| e.doing(&self.what()))?;
        Ok((answer, view))
    }

    fn show_events(&self, cursor: &mut Cursor) -> Result<(), CliError> {
        let history = path(self.id, "/history");
        for _ in 0..PAGES {
            let query = [("event_type", "all"), ("limit", PAGE), ("next_token", cursor.token.as_str())];
            // An empty token may not be sent.
            let query = if cursor.token.is_empty() { &query[..2] } else { &query[..] };
            let answer = self.call(|client| client.get(&history, query))?;
            let page: Page<Event> = read(&self.client, &answer).map_err(|e| e.doing(&self.what()))?;
            let fresh = page.items.iter().skip(cursor.shown).inspect(|e| self.show_event(e)).count();
            if page.next_token.is_empty() || page.next_token == cursor.token {
                cursor.shown += fresh;
                return Ok(());
            }
            *cursor = Cursor { token: page.next_token, shown: 0 };
            if fresh == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn show_event(&self, event: &Event) {
        let details = &event.event.details;
        let fails = |name: &str| details.get(name).is_some_and(|v| v == "true");
        if let Some(hint) = details.get("Hint").filter(|_| fails("IsError") || fails("FailsExecution")) {
            hint.clone_into(&mut self.hint.borrow_mut());
        }
        if !self.silent {
            let row = event_row(event, false);
            let words: Vec<&str> = row.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
            self.context.out.note(&words.join("  "));
        }
    }

    /// Shows the log of each execution that runs or has run, one after the other, to its end.
    fn show_logs(&self, view: &JobAnswer, printed: &mut HashMap<String, Printed>) -> Result<(), CliError> {
        for execution in &view.executions.items {
            let shown = printed.entry(execution.id.clone()).or_default();
            if shown.whole || !(execution.is_terminal() || view.job.is("Running")) {
                continue;
            }
            let query = format!("follow=true&execution_id={}", segment(&execution.id));
            let (client, context, deadline) = (&self.client, self.context, self.deadline);
            let log = Log { client, context, job: self.id, query, deadline };
            match log.show(&mut shown.bytes) {
                Ok(LogEnd::Whole) => shown.whole = true,
                Ok(LogEnd::Late) => return Err(self.timed_out()),
                Err(LogError::Output(error)) => return Err(error),
                // A node without logs, or one that is just restarting: what the record has is shown at the end.
                Ok(LogEnd::Error(_) | LogEnd::Dropped(..)) | Err(LogError::Client(_)) => {
                    if execution.is_terminal() {
                        shown.whole = true;
                        self.show_output(execution, shown.bytes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows the beginning of what an execution wrote, but for what is on the screen already.
    fn show_output(&self, execution: &Execution, shown: [usize; 2]) -> Result<(), CliError> {
        let Some(output) = &execution.run_output else { return Ok(()) };
        let rest = |text: &'_ str, shown: usize| text.get(shown..).unwrap_or_default().to_owned();
        self.context.out.program_output(&rest(&output.stdout, shown[0]), false)?;
        self.context.out.program_output(&rest(&output.stderr, shown[1]), true)?;
        let cut = match (output.stdout_truncated, output.stderr_truncated) {
            (false, false) => return Ok(()),
            (true, false) => "stdout",
            (false, true) => "stderr",
            (true, true) => "stdout and stderr",
        };
        let (execution, job) = (short_id(&execution.id), short_id(self.id));
        self.context.out.note(&format!(
            "note: only the beginning of the {cut} of {execution} is shown; 'codling job get {job}' fetches all of it"
        ));
        Ok(())
    }

    /// Repeats a call while the node may just be restarting.
    fn call<T>(&self, call: impl Fn(&Client) -> Result<T, ClientError>) -> Result<T, CliError> {
        let mut pause = self.context.pace.retry;
        let mut tries = 0;
        loop {
            let error = match call(&self.client) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(self.timed_out());
            }
            if !error.is_transient() || tries == RETRIES {
                return Err(error.doing(&self.what()));
            }
            if tries == 0 {
                self.context.out.note(&format!("{error}; trying again"));
            }
            tries += 1;
            self.sleep(pause)?;
            pause = (pause * 2).min(self.context.pace.retry * LONGEST_PAUSE);
        }
    }

    fn sleep(&self, pause: Duration) -> Result<(), CliError> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
        match left {
            Some(left) if left <= pause => Err(self.timed_out()),
            _ => Ok(()),
        }
    }

    fn timed_out(&self) -> CliError {
        CliError::new(Exit::Timeout, format!("job {} did not end in the time given; it goes on", self.id))
            .hint(format!(
                "'codling job describe {0}' shows how far it is, 'codling job stop {0}' ends it",
                short_id(self.id)
            ))
    }

    fn what(&self) -> String {
        format!("watch job {}", self.id)
    }
}

/// Whether there is nothing more to wait for: the end, or for a job without one, that it runs.
fn is_over(job: &Job) -> bool {
    job.is_terminal() || (job.runs_for_ever() && job.is("Running"))
}
