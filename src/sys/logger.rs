//! Log lines on standard error: for the journal with its priorities, otherwise with the time.

use std::io::Write;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::model::Timestamp;

use super::clock::{Clock, SystemClock};

/// Longest line; what is longer is cut. A peer's or a guest's text may be part of it.
pub const MAX_LINE: usize = 2048;

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `<6>`: the journal has the time already.
    Journal,
    /// `2026-01-02T03:04:05Z info `.
    Plain,
}

#[derive(Debug)]
struct Logger {
    style: Style,
}

/// Starts logging, or changes the level if that was done already.
///
/// Of other crates only warnings are shown, unless everything is.
pub fn install(level: LevelFilter) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger { style: style() });
    // It fails if it was done before, by this function or by somebody who embeds the library: both are fine.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

/// `JOURNAL_STREAM` holds device and inode of the journal's socket. It is inherited by programs whose output
/// goes elsewhere: only if they are those of standard error does anybody read priorities.
fn style() -> Style {
    let own =
        rustix::fs::fstat(std::io::stderr()).ok().map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    match (std::env::var("JOURNAL_STREAM").ok(), own) {
        (Some(journal), Some(own)) if journal == own => Style::Journal,
        _ => Style::Plain,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().split("::").next() == Some("codling");
        own || metadata.level() <= Level::Warn || log::max_level() == LevelFilter::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.style, record, SystemClock.now());
            // Nobody is left to be told if standard error is gone.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One line, whatever the message holds: control characters could forge others, or speak to a terminal.
fn line(style: Style, record: &Record<'_>, now: Timestamp) -> String {
    let (priority, name) = match record.level() {
        Level::Error => (3, "error"),
        Level::Warn => (4, "warn"),
        Level::Info => (6, "info"),
        Level::Debug => (7, "debug"),
        Level::Trace => (7, "trace"),
    };
    let target = record.target();
    let text = match style {
        Style::Journal => format!("<{priority}>{target}: {}", record.args()),
        Style::Plain => format!("{} {name} {target}: {}", now.rfc3339_seconds(), record.args()),
    };
    let mut line = String::with_capacity(text.len().min(MAX_LINE) + 4);
    for c in text.trim_end().chars() {
        if line.len() + 8 > MAX_LINE {
            line.push_str("...");
            break;
        }
        match c {
            '\n' => line.push_str("\\n"),
            c if c.is_control() => line.push(' '),
            c => line.push(c),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(style: Style, level: Level, message: &str) -> String {
        let now = Timestamp(1_767_323_045_000_000_000);
        line(
            style,
            &Record::builder().level(level).target("codling::api").args(format_args!("{message}")).build(),
            now,
        )
    }

    #[test]
    fn lines_have_a_priority_or_a_time() {
        assert_eq!(
            shown(Style::Plain, Level::Info, "hello"),
            "2026-01-02T03:04:05Z info codling::api: hello\n"
        );
        assert_eq!(shown(Style::Journal, Level::Warn, "hello"), "<4>codling::api: hello\n");
        assert_eq!(shown(Style::Journal, Level::Trace, "hello"), "<7>codling::api: hello\n");
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let forged = shown(Style::Journal, Level::Info, "a\n<0>panic\r\x1b[2J\n");
        assert_eq!(forged, "<6>codling::api: a\\n<0>panic  [2J\n");
        for filler in ["x", "\n", "\u{20ac}"] {
            let long = shown(Style::Plain, Level::Info, &format!("{}y", filler.repeat(10_000)));
            assert!(long.len() <= MAX_LINE && long.ends_with("...\n"), "{}", long.len());
        }
    }

    #[test]
    fn other_crates_are_heard_when_they_warn() {
        let logger = Logger { style: Style::Plain };
        let enabled =
            |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("codling::results", Level::Debug) && enabled("codling", Level::Info));
        assert!(enabled("ureq", Level::Warn));
        assert!(log::max_level() == LevelFilter::Trace || !enabled("ureq", Level::Info));
        assert!(log::max_level() == LevelFilter::Trace || !enabled("codling_other", Level::Info));
    }

    #[test]
    fn starting_twice_changes_the_level_only() {
        install(LevelFilter::Warn);
        install(LevelFilter::Error);
        assert_eq!(log::max_level(), LevelFilter::Error);
    }
}
