//! The one place that prints. Data goes to standard output, everything else to standard error.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::exit::{CliError, Exit, Failed};
use super::text::{escape, escape_json, escape_output};

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON with the keys of the API.
    Json,
    /// YAML with the keys of the API.
    Yaml,
    /// Comma-separated values: links of 'results republish'.
    Csv,
}

/// Standard output and standard error, and what they are.
pub struct Out {
    stdout: RefCell<Box<dyn Write>>,
    stderr: RefCell<Box<dyn Write>>,
    /// How data is printed.
    pub format: Format,
    /// Only ids and data: no notes, no progress.
    pub quiet: bool,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal on which a line can be redrawn.
    pub stderr_is_terminal: bool,
}

impl Out {
    /// The process's own streams.
    #[must_use]
    pub fn process() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            stdout: RefCell::new(Box::new(io::stdout())),
            stderr: RefCell::new(Box::new(io::stderr())),
            format: Format::Table,
            quiet: false,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal() && !dumb,
        }
    }

    /// Streams of the caller's choice, neither of them a terminal.
    #[must_use]
    pub fn to(stdout: Box<dyn Write>, stderr: Box<dyn Write>) -> Self {
        Self {
            stdout: RefCell::new(stdout),
            stderr: RefCell::new(stderr),
            format: Format::Table,
            quiet: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }

    /// Prints text that is safe for a terminal to standard output, at once.
    ///
    /// # Errors
    /// Standard output is closed or cannot be written.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        self.print_bytes(text.as_bytes())
    }

    /// As [`Out::print`].
    ///
    /// # Errors
    /// Standard output is closed or cannot be written.
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = self.stdout.borrow_mut();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::output)
    }

    /// Prints foreign text as one line.
    ///
    /// # Errors
    /// Standard output is closed or cannot be written.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{}\n", escape(text)))
    }

    /// Prints `value` in the format asked for; `table` makes the text for people.
    ///
    /// # Errors
    /// Standard output is closed or cannot be written.
    pub fn show<T: Serialize + ?Sized>(
        &self,
        value: &T,
        table: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            CliError::caused(Exit::Internal, "cannot encode the answer", error)
        };
        if self.format == Format::Table {
            return self.print(&table());
        }
        if self.format == Format::Yaml {
            let yaml = yaml_serde::to_string(value).map_err(|e| failed(e.into()))?;
            if escape_output(&yaml) == yaml {
                return self.print(&yaml);
            }
            // What a terminal would act on has no escape in plain YAML; JSON is YAML, too, and has one.
        }
        let json = serde_json::to_string_pretty(value).map_err(|e| failed(e.into()))?;
        self.print(&format!("{}\n", escape_json(json)))
    }

    /// Prints what a job's program wrote, to standard output or standard error. Verbatim, unless a terminal would
    /// act on it.
    ///
    /// # Errors
    /// Standard output is closed or cannot be written.
    pub fn program_output(&self, text: &str, to_stderr: bool) -> Result<(), CliError> {
        match (to_stderr, self.stdout_is_terminal, self.stderr_is_terminal) {
            (false, true, _) => self.print(&escape_output(text)),
            (false, false, _) => self.print(text),
            (true, _, true) => {
                self.diagnose(&escape_output(text));
                Ok(())
            }
            (true, _, false) => {
                self.diagnose(text);
                Ok(())
            }
        }
    }

    /// A line on standard error about what goes on; not with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.diagnose(&format!("{}\n", escape(text)));
        }
    }

    /// A warning on standard error; not with `--quiet`.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            self.diagnose(&format!("warning: {}\n", escape(text)));
        }
    }

    /// An error on standard error: what and why, then the next step.
    pub fn error(&self, failed: &Failed) {
        let whole = failed.to_string();
        let mut lines = whole.lines().filter(|l| !l.trim().is_empty());
        let mut text = format!("error: {}\n", escape(lines.next().unwrap_or_default()));
        for line in lines.chain(failed.details.iter().flat_map(|d| d.lines())) {
            text.push_str(&format!("  {}\n", escape(line)));
        }
        if let Some(hint) = &failed.hint {
            text.push_str(&format!("hint: {}\n", escape(hint)));
        }
        self.diagnose(&text);
    }

    /// What is wrong with the command line, or how it goes, in several lines.
    pub fn usage(&self, text: &str) {
        self.diagnose(&escape_output(text));
    }

    /// Draws over the last line of standard error, if that is a terminal; an empty text clears it.
    pub fn redraw(&self, text: &str) {
        if self.stderr_is_terminal && !self.quiet {
            self.diagnose(&format!("\r{}\x1b[K", escape(text)));
        }
    }

    /// Whoever should read standard error may be gone; there is nobody else to tell.
    fn diagnose(&self, text: &str) {
        let mut stderr = self.stderr.borrow_mut();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Captured;

    #[test]
    fn yaml_is_safe_for_a_terminal() {
        let captured = Captured::new();
        let mut out = captured.out();
        out.format = Format::Yaml;
        let hostile =
            serde_json::json!({"k\u{9b}": "x\u{9b}2J\u{1b}]0;\u{7}\u{7f}\u{202e}\u{2028}y", "n": 1});
        out.show(&hostile, String::new).unwrap();
        let text = captured.stdout();
        assert_eq!(escape_output(&text), text);
        assert!(text.contains("\\u202e"), "{text}");
        assert_eq!(yaml_serde::from_str::<serde_json::Value>(&text).unwrap(), hostile);
    }

    #[test]
    fn errors_say_what_why_and_what_next() {
        let captured = Captured::new();
        let error =
            CliError::caused(Exit::Io, "cannot read job.yaml", io::Error::other("bad\x1b[2J\nsecond"))
                .details(vec!["Tasks[0].Name is required".into()])
                .hint("try\x07 again");
        let CliError::Failed(failed) = error else { panic!() };
        captured.out().error(&failed);
        assert_eq!(
            captured.stderr(),
            "error: cannot read job.yaml: bad\\u{1b}[2J\n  second\n  Tasks[0].Name is required\nhint: try\\u{7} again\n"
        );
    }

    #[test]
    fn quiet_keeps_data_and_errors() {
        let captured = Captured::new();
        let mut out = captured.out();
        out.quiet = true;
        out.note("n");
        out.warn("w");
        out.redraw("r");
        out.line("data").unwrap();
        assert_eq!((captured.stdout().as_str(), captured.stderr().as_str()), ("data\n", ""));
    }

    #[test]
    fn program_output_is_verbatim_unless_a_terminal_shows_it() {
        let captured = Captured::new();
        let mut out = captured.out();
        out.program_output("\x1b[1mbold\n", false).unwrap();
        out.stdout_is_terminal = true;
        out.program_output("\x1b[1mbold\n", false).unwrap();
        assert_eq!(captured.stdout(), "\x1b[1mbold\n\\u{1b}[1mbold\n");
    }
}
