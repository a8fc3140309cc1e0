//! Exit codes, and the one error type that the command line prints.

use std::error::Error;
use std::fmt;
use std::io;

/// What the program's exit status says. The numbers from 64 up are those of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A job failed, was stopped, or its program returned something other than 0; or `doctor` found a problem.
    JobFailed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A file or answer does not hold what it should: an invalid job, a wrong digest, a hostile archive.
    Data = 65,
    /// What was named does not exist, or no longer.
    NotFound = 66,
    /// The node cannot be reached, or does not offer what was asked.
    Unavailable = 69,
    /// An error inside codling or the node.
    Internal = 70,
    /// An output file cannot be created, or exists already.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// The link broke or the node is busy; the same command may succeed later.
    TryAgain = 75,
    /// The other end does not speak the API.
    Protocol = 76,
    /// The node refused for lack of permission.
    Denied = 77,
    /// A setting is wrong.
    Config = 78,
    /// It took longer than it was given.
    Timeout = 124,
}

impl Exit {
    /// Every status, in the order of its number.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::JobFailed,
        Self::Usage,
        Self::Data,
        Self::NotFound,
        Self::Unavailable,
        Self::Internal,
        Self::CannotCreate,
        Self::Io,
        Self::TryAgain,
        Self::Protocol,
        Self::Denied,
        Self::Config,
        Self::Timeout,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One line for the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::JobFailed => {
                "the job failed or was stopped, or its program returned something other than 0; or doctor found a problem"
            }
            Self::Usage => "the command line is wrong",
            Self::Data => "a job file, answer or archive is not what it should be",
            Self::NotFound => "what was named does not exist, or no longer",
            Self::Unavailable => "the node cannot be reached, or does not offer what was asked",
            Self::Internal => "an error inside codling or the node",
            Self::CannotCreate => "an output file cannot be created, or exists already",
            Self::Io => "reading or writing failed",
            Self::TryAgain => "the link broke or the node is busy: try again",
            Self::Protocol => "the other end does not speak the API",
            Self::Denied => "the node refused for lack of permission",
            Self::Config => "a setting is wrong",
            Self::Timeout => "it took longer than it was given",
        }
    }
}

/// Why a command ended without doing its work.
#[derive(Debug)]
pub enum CliError {
    /// Whoever read standard output went away: not an error to speak of.
    PipeClosed,
    /// Everything else.
    Failed(Box<Failed>),
}

/// What happened, to what, why, and what to do next.
#[derive(Debug)]
pub struct Failed {
    /// The exit status.
    pub exit: Exit,
    /// What did not work: a lower-case fragment.
    pub what: String,
    /// Lines below it, if there is more than one thing to say.
    pub details: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Why.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// An error that says everything in one fragment.
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self::Failed(Box::new(Failed {
            exit,
            what: what.into(),
            details: Vec::new(),
            hint: None,
            source: None,
        }))
    }

    /// An error with a cause.
    #[must_use]
    pub fn caused(
        exit: Exit,
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let mut error = Self::new(exit, what);
        if let Self::Failed(failed) = &mut error {
            failed.source = Some(source.into());
        }
        error
    }

    /// The same with what to do next; an empty text changes nothing.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if let Self::Failed(failed) = &mut self
            && !hint.is_empty()
        {
            failed.hint = Some(hint);
        }
        self
    }

    /// The same with lines below it.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        if let Self::Failed(failed) = &mut self {
            failed.details = details;
        }
        self
    }

    /// The exit status.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::PipeClosed => Exit::Ok,
            Self::Failed(failed) => failed.exit,
        }
    }

    /// A write to standard output that failed.
    #[must_use]
    pub fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::caused(Exit::Io, "cannot write to standard output", error)
    }
}

impl fmt::Display for Failed {
    /// `what: cause: its cause`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause: Option<&dyn Error> = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_number_and_meaning() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
        assert!(codes.iter().all(|c| matches!(c, 0 | 1 | 64..=78 | 124)), "{codes:?}");
        assert!(Exit::ALL.iter().all(|e| !e.meaning().is_empty()));
    }

    #[test]
    fn causes_follow_the_fragment() {
        let inner = io::Error::other("link down");
        let CliError::Failed(failed) = CliError::caused(Exit::Io, "cannot fetch x", inner) else { panic!() };
        assert_eq!(failed.to_string(), "cannot fetch x: link down");
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CliError::output(gone).exit(), Exit::Ok);
        assert_eq!(CliError::output(io::Error::other("full")).exit(), Exit::Io);
    }
}
