//! `codling job logs`, and what `job run --follow` shows: a program's output as it comes.

use std::time::Instant;

use super::{LogsArgs, path};
use crate::cli::Context;
use crate::cli::client::{Client, ClientError};
use crate::cli::exit::{CliError, Exit};
use crate::cli::out::Format;
use crate::cli::socket::{Came, Socket};
use crate::wire::log_line::{LogMessage, LogStream};
use crate::wire::websocket;

/// How a log ended.
#[derive(Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// All of it has been shown.
    Whole,
    /// The node says that there is nothing (more), and why.
    Error(String),
    /// The node sends no more, for another reason: code and reason.
    Dropped(u16, String),
    /// Time is up.
    Late,
}

/// Why a log could not be shown.
#[derive(Debug)]
pub enum LogError {
    /// It could not be had.
    Client(ClientError),
    /// It could not be printed.
    Output(CliError),
}

impl From<ClientError> for LogError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// One log to be shown.
pub struct Log<'a> {
    /// Which node has it.
    pub client: &'a Client,
    /// Where it is shown.
    pub context: &'a Context<'a>,
    /// Which job's it is: an id or a name.
    pub job: &'a str,
    /// The query, without its question mark.
    pub query: String,
    /// Until when.
    pub deadline: Option<Instant>,
}

impl Log<'_> {
    /// Shows it until it ends. `shown` counts the bytes of each stream, and so many of them are not shown again.
    ///
    /// # Errors
    /// It cannot be had, or not be printed.
    pub fn show(&self, shown: &mut [usize; 2]) -> Result<LogEnd, LogError> {
        let target = self.client.target();
        let path = format!("{}?{}", path(self.job, "/logs"), self.query);
        let mut socket = Socket::open(target, &path, self.deadline)?;
        let mut come = [0; 2];
        loop {
            let bytes = match socket.next()? {
                Came::Message(bytes) => bytes,
                Came::Closed(websocket::NORMAL, _) => return Ok(LogEnd::Whole),
                Came::Closed(code, reason) => return Ok(LogEnd::Dropped(code, reason)),
                Came::Nothing => {
                    socket.close();
                    return Ok(LogEnd::Late);
                }
            };
            let message: LogMessage = serde_json::from_slice(&bytes)
                .map_err(|source| ClientError::Malformed { address: target.address.clone(), source })?;
            if !message.error.is_empty() {
                socket.close();
                return Ok(LogEnd::Error(message.error));
            }
            let to_stderr = message.value.kind == LogStream::Stderr.code();
            let (come, shown) = (&mut come[usize::from(to_stderr)], &mut shown[usize::from(to_stderr)]);
            let known = shown.saturating_sub(*come).min(message.value.line.len());
            *come += message.value.line.len();
            *shown = (*shown).max(*come);
            let line = message.value.line.get(known..).unwrap_or_default();
            self.print(&message, line, to_stderr).map_err(LogError::Output)?;
        }
    }

    fn print(&self, message: &LogMessage, line: &str, to_stderr: bool) -> Result<(), CliError> {
        let out = &self.context.out;
        match out.format {
            Format::Json => out.line(&String::from_utf8_lossy(&message.encode())),
            _ if line.is_empty() => Ok(()),
            _ => out.program_output(line, to_stderr),
        }
    }
}

/// Runs `codling job logs`.
pub fn logs(args: &LogsArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let id = args.job.id.as_str();
    let mut query = format!("follow={}&tail={}", args.follow, args.tail);
    if let Some(execution) = &args.execution_id {
        query.push_str("&execution_id=");
        query.push_str(&crate::cli::client::segment(execution));
    }
    let what = format!("show the log of job {id}");
    let log = Log { client, context, job: id, query, deadline: None };
    match log.show(&mut [0, 0]) {
        Ok(LogEnd::Whole | LogEnd::Late) => Ok(Exit::Ok),
        Ok(LogEnd::Error(why)) => Err(CliError::new(Exit::NotFound, format!("cannot {what}: {why}"))
            .hint(format!("'codling job describe {id}' shows how it stands"))),
        Ok(LogEnd::Dropped(code, reason)) => {
            let why = if reason.is_empty() { format!("code {code}") } else { reason };
            let again = if args.follow { "try again with --tail, or " } else { "" };
            Err(CliError::new(Exit::TryAgain, format!("the node ended the log of job {id}: {why}"))
                .hint(format!("{again}fetch all of it with 'codling job get {id}' once the job has ended")))
        }
        Err(LogError::Client(error)) => Err(error.doing(&what)),
        Err(LogError::Output(error)) => Err(error),
    }
}
