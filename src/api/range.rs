//! Which bytes of an archive are wanted, and whether any are.

use crate::model::Timestamp;

use super::ask::Ask;

/// What to send of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes: the first and how many, which is never none.
    Part(u64, u64),
    /// Nothing: the client has it.
    NotModified,
    /// Nothing: it is not the file that the client means.
    Failed,
    /// Nothing: the file has no such bytes.
    Unsatisfiable,
}

/// Reads the conditions and the range of a request for a file of `size` bytes, in the order of RFC 9110.
#[must_use]
pub fn wanted(ask: &Ask, size: u64, etag: &str, last_modified: &str) -> Wanted {
    let lists =
        |field: &str| field.split(',').any(|tag| matches!(tag.trim(), "*") || strip_weak(tag) == etag);
    let if_match = ask.field("If-Match");
    // Strong comparison: a weak tag never matches here.
    if !if_match.is_empty() && !if_match.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag)
    {
        return Wanted::Failed;
    }
    let none_match = ask.field("If-None-Match");
    if !none_match.is_empty() {
        if lists(none_match) {
            return Wanted::NotModified;
        }
    } else if ask.field("If-Modified-Since") == last_modified {
        // The only date that a client can have from here; any other is no reason not to send it.
        return Wanted::NotModified;
    }
    let condition = ask.field("If-Range");
    if ask.head_only || !(condition.is_empty() || condition == etag || condition == last_modified) {
        return Wanted::Whole;
    }
    range(ask.field("Range"), size)
}

fn strip_weak(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// One range of bytes. What is malformed or asks for several is ignored, as it may be: the whole file answers it.
fn range(field: &str, size: u64) -> Wanted {
    let Some(spec) = field.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    let number = |text: &str| -> Option<u64> {
        // More than 64 bits is beyond any end.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (true, _, _, Some(n)) => {
            if n == 0 || size == 0 {
                return Wanted::Unsatisfiable;
            }
            (size.saturating_sub(n), size - 1)
        }
        (false, Some(first), true, _) => (first, u64::MAX),
        (false, Some(first), false, Some(last)) if first <= last => (first, last),
        _ => return Wanted::Whole,
    };
    if first >= size {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part(first, last.min(size - 1) - first + 1)
}

/// `Wed, 04 May 1983 11:17:00 GMT`.
#[must_use]
pub fn http_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `2026-01-02T03:04:05Z`: the calendar is computed in one place.
    let text = time.rfc3339_seconds();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let days = u64::try_from(time.0 / 86_400_000_000_000).unwrap_or(0);
    let day = usize::try_from(days % 7).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or_default();
    let month = part(5, 7).parse::<usize>().ok().and_then(|m| MONTHS.get(m.checked_sub(1)?));
    let month = month.copied().unwrap_or_default();
    format!("{day}, {} {month} {} {} GMT", part(8, 10), part(0, 4), part(11, 19))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"abc\"";
    const DATE: &str = "Wed, 04 May 1983 11:17:00 GMT";

    fn ask(fields: &[(&str, &str)]) -> Ask {
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Ask { method: "GET".into(), fields, ..Ask::default() }
    }

    fn of(fields: &[(&str, &str)]) -> Wanted {
        wanted(&ask(fields), 100, ETAG, DATE)
    }

    #[test]
    fn ranges() {
        for (range, wanted) in [
            ("", Wanted::Whole),
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=0-", Wanted::Part(0, 100)),
            ("bytes=0-99", Wanted::Part(0, 100)),
            ("bytes=0-1000", Wanted::Part(0, 100)),
            ("bytes=99-", Wanted::Part(99, 1)),
            ("bytes=10-19", Wanted::Part(10, 10)),
            ("bytes=-1", Wanted::Part(99, 1)),
            ("bytes=-100", Wanted::Part(0, 100)),
            ("bytes=-1000", Wanted::Part(0, 100)),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=100-200", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=5-99999999999999999999999", Wanted::Part(5, 95)),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-5", Wanted::Whole),
            ("bytes 0-1", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
        ] {
            assert_eq!(of(&[("Range", range)]), wanted, "{range}");
        }
        assert_eq!(super::range("bytes=-5", 0), Wanted::Unsatisfiable);
        let head = Ask { head_only: true, ..ask(&[("Range", "bytes=0-0")]) };
        assert_eq!(super::wanted(&head, 100, ETAG, DATE), Wanted::Whole);
    }

    #[test]
    fn conditions() {
        let range = ("Range", "bytes=0-0");
        for (fields, wanted) in [
            (vec![("If-None-Match", "\"abc\"")], Wanted::NotModified),
            (vec![("If-None-Match", "\"x\", W/\"abc\"")], Wanted::NotModified),
            (vec![("If-None-Match", "*")], Wanted::NotModified),
            (vec![("If-None-Match", "\"x\""), ("If-Modified-Since", DATE)], Wanted::Whole),
            (vec![("If-Modified-Since", DATE)], Wanted::NotModified),
            (vec![("If-Modified-Since", "Thu, 05 May 1983 11:17:00 GMT")], Wanted::Whole),
            (vec![("If-Match", "\"abc\"")], Wanted::Whole),
            (vec![("If-Match", "W/\"abc\"")], Wanted::Failed),
            (vec![("If-Match", "\"x\""), range], Wanted::Failed),
            (vec![("If-Range", "\"abc\""), range], Wanted::Part(0, 1)),
            (vec![("If-Range", DATE), range], Wanted::Part(0, 1)),
            (vec![("If-Range", "\"x\""), range], Wanted::Whole),
            (vec![("If-Range", "W/\"abc\""), range], Wanted::Whole),
            (vec![("If-None-Match", "\"abc\""), range], Wanted::NotModified),
        ] {
            assert_eq!(of(&fields), wanted, "{fields:?}");
        }
    }

    #[test]
    fn dates_read_as_http_wants_them() {
        assert_eq!(http_date(Timestamp(420_895_020_000_000_000)), DATE);
        assert_eq!(http_date(Timestamp(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(Timestamp(1_709_208_000_000_000_000)), "Thu, 29 Feb 2024 12:00:00 GMT");
    }

    proptest! {
        #[test]
        fn parts_lie_inside(spec in "(bytes=)?[0-9]{0,3}-?[0-9]{0,3}[,a]?", size in 0_u64..200) {
            if let Wanted::Part(first, length) = range(&spec, size) {
                prop_assert!(length > 0 && first + length <= size);
            }
        }
    }
}
