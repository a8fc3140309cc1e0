//! A progress bar: one line, redrawn a few times a second, and nothing at all where nobody watches.

use std::time::{Duration, Instant};

use super::out::Out;
use crate::model::Bytes;
use crate::model::units::format_duration;

/// Time between two drawings.
const REDRAW: Duration = Duration::from_millis(200);

/// Characters of the bar itself, of the label before it, and of the whole line.
const WIDTH: usize = 14;
const LABEL: usize = 10;
const LINE: usize = 79;

/// How far a transfer is. Cleared when dropped.
pub struct Bar<'a> {
    out: &'a Out,
    label: String,
    total: Option<u64>,
    done: u64,
    /// Where this run began: what an earlier run had fetched says nothing about the rate.
    first: u64,
    started: Instant,
    drawn: Option<Instant>,
}

impl<'a> Bar<'a> {
    /// A bar for a transfer that begins at byte `done`.
    #[must_use]
    pub fn new(out: &'a Out, label: &str, done: u64) -> Self {
        let label = label.chars().take(LABEL).collect();
        Self { out, label, total: None, done, first: done, started: Instant::now(), drawn: None }
    }

    /// Says how much there is in all.
    pub fn total(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// Says how much is there; a transfer that begins again goes back.
    pub fn at(&mut self, done: u64) {
        self.first = self.first.min(done);
        self.done = done;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            self.drawn = Some(Instant::now());
            let elapsed = self.started.elapsed();
            self.out.redraw(&line(&self.label, done, self.total, done - self.first, elapsed));
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            self.out.redraw("");
        }
    }
}

/// `label  [#####---------]  36%  3.6 MiB / 10.0 MiB  1.2 MiB/s  6s left`
fn line(label: &str, done: u64, total: Option<u64>, moved: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = moved.saturating_mul(1000) / millis;
    let Some(total) = total.filter(|t| *t > 0) else {
        return format!("{label}  {}  {}/s", Bytes(done), Bytes(rate));
    };
    let done = done.min(total);
    let share =
        |whole: u64| usize::try_from(u128::from(done) * u128::from(whole) / u128::from(total)).unwrap_or(0);
    let filled = share(WIDTH as u64);
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(WIDTH - filled));
    let mut text =
        format!("{label}  [{bar}] {:>3}%  {} / {}  {}/s", share(100), Bytes(done), Bytes(total), Bytes(rate));
    if rate > 0 && done < total {
        text.push_str(&format!(
            "  {} left",
            format_duration(Duration::from_secs((total - done).div_ceil(rate)))
        ));
    }
    // Text of this kind is ASCII but for the label.
    if text.chars().count() > LINE { text.chars().take(LINE).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Captured;

    #[test]
    fn lines_say_share_rate_and_rest() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("e-1a2b3c4d", 5 << 20, Some(10 << 20), 1 << 20, second),
            "e-1a2b3c4d  [#######-------]  50%  5.0 MiB / 10.0 MiB  1.0 MiB/s  5s left"
        );
        assert_eq!(line("x", 1536, None, 512, second), "x  1.5 KiB  512 B/s");
        assert_eq!(line("x", 9, Some(9), 0, Duration::ZERO), "x  [##############] 100%  9 B / 9 B  0 B/s");
        let longest = line(&"l".repeat(LABEL), 1023 << 20, Some((1023 << 20) + 1), 1023 << 20, second);
        assert_eq!(longest.len(), LINE, "{longest}");
        line("x", u64::MAX, Some(u64::MAX), u64::MAX, second);
    }

    #[test]
    fn draws_on_terminals_only() {
        for (terminal, lines) in [(false, 0), (true, 2)] {
            let captured = Captured::new();
            let mut out = captured.out();
            out.stderr_is_terminal = terminal;
            let mut bar = Bar::new(&out, "x", 0);
            bar.at(10);
            drop(bar);
            assert_eq!(captured.stderr().matches('\r').count(), lines);
            assert_eq!(captured.stdout(), "");
        }
    }
}
