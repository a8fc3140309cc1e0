//! Where a value came from, and what is wrong with settings: all of it, not the first of it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// The line, if it was found.
        line: Option<usize>,
        /// The key of Bacalhau 1.4 that stood there, if it was one.
        via: Option<&'static str>,
    },
    /// A variable.
    Env(String),
    /// A flag.
    Flag(String),
    /// The service manager's directory.
    Service,
}

impl Origin {
    /// The line of the file, if it is one and it was found.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => *line,
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, via } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                via.map_or(Ok(()), |old| write!(f, " ({old})"))
            }
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
            Self::Service => f.write_str("STATE_DIRECTORY"),
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node starts all the same.
    Warning,
    /// The node does not start.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something about the settings that their author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key, as it was written; empty if it is about a file as a whole.
    pub path: String,
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong: a fragment without a full stop. Never holds a secret.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Finding {
    pub(super) fn error(path: &str, origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: path.into(),
            origin: origin.clone(),
            message: message.into(),
            hint: String::new(),
        }
    }

    pub(super) fn warning(path: &str, origin: &Origin, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, origin, message) }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// The line of the file, if it is known.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.origin.line()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// Most findings that are kept of one run: a file may be wrong a hundred thousand times.
pub const MAX_FINDINGS: usize = 100;

/// Collects findings, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    dropped: usize,
    failed: bool,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.failed |= finding.severity == Severity::Error;
        if self.list.len() < MAX_FINDINGS { self.list.push(finding) } else { self.dropped += 1 }
    }

    /// Whether further findings are only counted: what is costly to word need not be worded.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// All of them, errors first, and a last one that says how many more there were.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        if self.dropped > 0 {
            let severity = if self.failed { Severity::Error } else { Severity::Warning };
            let more = format!("{} more like these are not shown", self.dropped);
            self.list.push(Finding { severity, ..Finding::error("", &Origin::Default, more) });
        }
        self.list
    }
}

/// Why settings are refused: everything that is wrong, and the warnings besides.
#[derive(Debug, thiserror::Error)]
#[error("{}", errors(.findings))]
pub struct ConfigError {
    /// At least one of them is an error; errors come first.
    pub findings: Vec<Finding>,
}

fn errors(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bounded_and_errors_are_not_forgotten() {
        let mut findings = Findings::default();
        for i in 0..MAX_FINDINGS {
            findings.push(Finding::warning(&i.to_string(), &Origin::Default, "odd"));
        }
        assert!(findings.is_full() && !findings.failed());
        findings.push(Finding::error("last", &Origin::Default, "wrong"));
        assert!(findings.failed());
        let list = findings.finish();
        assert_eq!(list.len(), MAX_FINDINGS + 1);
        assert_eq!(list.last().unwrap().to_string(), "1 more like these are not shown");
        assert_eq!(list.last().unwrap().severity, Severity::Error);
    }

    #[test]
    fn a_finding_reads_as_one_line() {
        let origin = Origin::File { path: "/etc/c.yaml".into(), line: Some(7), via: None };
        let finding = Finding::error("API.Port", &origin, "'x' is not a port").hint("give a number");
        assert_eq!(finding.to_string(), "/etc/c.yaml:7: API.Port: 'x' is not a port; give a number");
        let error =
            ConfigError { findings: vec![finding, Finding::warning("A", &Origin::Env("B".into()), "odd")] };
        assert_eq!(error.to_string(), "/etc/c.yaml:7: API.Port: 'x' is not a port; give a number");
    }
}
