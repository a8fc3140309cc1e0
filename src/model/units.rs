//! Byte counts, CPU shares and durations, and the exact texts that Bacalhau accepts for them (job-spec.md section 6).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// The unit in which disk space is charged: what a file occupies is rounded up to it.
pub const DISK_BLOCK: u64 = 4096;

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` times 1024.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1024 squared.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 1024 cubed.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// What a file of this size occupies: rounded up to whole blocks of 4 KiB.
    #[must_use]
    pub const fn on_disk(self) -> Self {
        Self(self.0.saturating_add(DISK_BLOCK - 1) / DISK_BLOCK * DISK_BLOCK)
    }

    /// Sum, stopping at the largest number.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference, stopping at zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * percent / 100` without overflow.
    #[must_use]
    pub fn percent(self, percent: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a percentage of a disk needs no more than 53 bits")]
        let part = self.0 as f64 * percent / 100.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
        let whole = part as u64;
        Self(whole)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let exponent = (63 - self.0.leading_zeros()) / 10;
        #[expect(clippy::cast_precision_loss, reason = "printed with one decimal")]
        let value = self.0 as f64 / (1u64 << (10 * exponent)) as f64;
        // 64 bits reach EiB: the index is 0 to 5.
        let unit = UNITS.get(exponent as usize - 1).copied().unwrap_or("EiB");
        f.pad(&format!("{value:.1} {unit}"))
    }
}

/// Thousandths of a CPU core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpu(pub u64);

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}m", self.0))
    }
}

/// A text that is no quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct UnitError {
    /// What was given, cut to 64 characters.
    pub text: String,
    /// What would have been accepted, with examples.
    pub wanted: &'static str,
}

fn refuse(text: &str, wanted: &'static str) -> UnitError {
    UnitError { text: text.chars().take(64).collect(), wanted }
}

/// Lower case, blanks removed anywhere: what is done to every resource text before it is parsed.
fn squeeze(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Parses a memory or disk size: `512Mb` (decimal), `1Gi` (binary), `1.5gb`, `1,000`.
///
/// # Errors
/// The text is empty, negative, not a number, has an unknown suffix, or exceeds 64 bits.
pub fn parse_bytes(text: &str) -> Result<Bytes, UnitError> {
    let wanted = "a size (bytes, or a number with k, M, G, T, P, E or Ki, Mi, Gi, Ti, Pi, Ei, e.g. 512Mi)";
    let error = || refuse(text, wanted);
    let squeezed = squeeze(text).replace(',', "");
    let split = squeezed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(squeezed.len());
    let (number, suffix) = squeezed.split_at(split);
    let factor: u64 = match suffix.strip_suffix('b').unwrap_or(suffix) {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "p" => 1_000_000_000_000_000,
        "e" => 1_000_000_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        "pi" => 1 << 50,
        "ei" => 1 << 60,
        _ => return Err(error()),
    };
    if !number.contains('.') {
        let whole: u64 = number.parse().map_err(|_| error())?;
        return whole.checked_mul(factor).map(Bytes).ok_or_else(error);
    }
    let value: f64 = number.parse().map_err(|_| error())?;
    #[expect(clippy::cast_precision_loss, reason = "a fraction was given: 53 bits are what it asks for")]
    let scaled = value * factor as f64;
    // 2^64 as a float; anything below it fits.
    if !scaled.is_finite() || scaled >= 18_446_744_073_709_551_616.0 {
        return Err(error());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just above; digits only"
    )]
    Ok(Bytes(scaled as u64))
}

/// Parses a CPU amount: `500m`, or a decimal number of cores cut to thousandths. NaN and infinity are refused.
///
/// # Errors
/// The text is empty, negative, not a number, or has a fraction before `m`.
pub fn parse_cpu(text: &str) -> Result<MilliCpu, UnitError> {
    let wanted = "a CPU amount (cores or thousandths, e.g. 0.5 or 500m)";
    let error = || refuse(text, wanted);
    let squeezed = squeeze(text);
    if let Some(thousandths) = squeezed.strip_suffix('m') {
        return thousandths.parse().map(MilliCpu).map_err(|_| error());
    }
    let cores: f64 = squeezed.parse().map_err(|_| error())?;
    // A million cores: far above any machine, far below any overflow.
    if !(0.0..=1e6).contains(&cores) {
        return Err(error());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked just above")]
    Ok(MilliCpu((cores * 1000.0) as u64))
}

/// Parses a GPU count: a whole number.
///
/// # Errors
/// The text is not an unsigned whole number of 32 bits.
pub fn parse_gpu(text: &str) -> Result<u32, UnitError> {
    squeeze(text).parse().map_err(|_| refuse(text, "a number of GPUs (a whole number)"))
}

/// Parses a duration as Go writes it (`300ms`, `1m30s`, `2h`), with days (`7d`) besides; `0` needs no unit.
///
/// # Errors
/// The text is empty, negative, has no or an unknown unit, or does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wanted = "a duration (e.g. 90s, 1h30m, 7d)";
    let error = || refuse(text, wanted);
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(error()),
        };
        let value: f64 = number.parse().map_err(|_| error())?;
        seconds += value * factor;
        rest = next;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

/// Prints a duration the way [`parse_duration`] reads it, largest units first, no fraction of a second below 1 ms.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    use fmt::Write;
    if duration.is_zero() {
        return "0s".into();
    }
    let mut text = String::new();
    let mut rest = duration.as_secs();
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= size {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    if duration.subsec_millis() > 0 || text.is_empty() {
        let _ = write!(text, "{}ms", duration.subsec_millis());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_the_table_says() {
        let table: &[(&str, Option<u64>)] = &[
            ("1024", Some(1024)),
            ("42b", Some(42)),
            ("1k", Some(1000)),
            ("1KB", Some(1000)),
            ("1ki", Some(1024)),
            ("1KiB", Some(1024)),
            ("512m", Some(512_000_000)),
            ("512MB", Some(512_000_000)),
            ("512Mb", Some(512_000_000)),
            ("42MB", Some(42_000_000)),
            ("42MiB", Some(44_040_192)),
            ("512mi", Some(536_870_912)),
            ("512MiB", Some(536_870_912)),
            ("1 Gi", Some(1_073_741_824)),
            ("1gb", Some(1_000_000_000)),
            ("1G", Some(1_000_000_000)),
            ("1.5gb", Some(1_500_000_000)),
            ("1,000", Some(1000)),
            ("2t", Some(2_000_000_000_000)),
            ("1eib", Some(1 << 60)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16ei", None),
            ("99999999999.5e", None),
            ("512x", None),
            ("abc", None),
            ("-1gb", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("b", None),
            ("1bb", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_bytes(text).ok().map(|b| b.0), *wanted, "{text:?}");
        }
    }

    #[test]
    fn cpu_as_the_table_says() {
        let table: &[(&str, Option<u64>)] = &[
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("2", Some(2000)),
            ("1500m", Some(1500)),
            ("0.0005", Some(0)),
            ("1e3", Some(1_000_000)),
            ("0.5m", None),
            ("-1", None),
            ("nan", None),
            ("inf", None),
            ("", None),
            ("2 cores", None),
            ("50%", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_cpu(text).ok().map(|c| c.0), *wanted, "{text:?}");
        }
        assert_eq!(parse_gpu("2"), Ok(2));
        assert!(parse_gpu("0.5").is_err() && parse_gpu("-1").is_err());
    }

    #[test]
    fn durations_round_trip() {
        for (text, ms) in [
            ("300ms", 300),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1.5s", 1500),
        ] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed.as_millis(), ms, "{text}");
            assert_eq!(parse_duration(&format_duration(parsed)).unwrap(), parsed, "{text}");
        }
        for bad in ["", "5", "-1s", "1w", "s", "1e400s", "1s2"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(Bytes(1).on_disk(), Bytes(4096));
        assert_eq!(Bytes(4096).on_disk(), Bytes(4096));
        assert_eq!(Bytes::gib(10).percent(50.0), Bytes::gib(5));
    }
}
