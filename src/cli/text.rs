//! Text for people: aligned tables, and foreign text made harmless for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal would act on this character instead of showing it: control characters (C1 too) and those
/// that reorder or break lines.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Foreign text in one line, with what a terminal would act on written as escapes.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            c if acts(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// As [`escape`], but line ends and tabs stay: for the output of a program that is shown on a terminal.
#[must_use]
pub fn escape_output(text: &str) -> Cow<'_, str> {
    let keep = |c: char| matches!(c, '\n' | '\t');
    if !text.contains(|c| acts(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) && !keep(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// JSON text in which what a terminal would act on is written as `\u` escapes. Such characters stand only inside
/// strings; JSON itself escapes those below U+0020 and leaves the others as they are.
#[must_use]
pub fn escape_json(json: String) -> String {
    let risky = |c: char| acts(c) && c != '\n';
    if !json.contains(risky) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if risky(c) {
            // All of these lie in the first plane, and writing to a String cannot fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Columns of text, as wide as their widest cell. Cells are escaped when they are added.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

/// Blanks between two columns.
const GAP: usize = 2;

impl Table {
    /// A table with these headings; one that begins with `>` heads a column of numbers, set to the right.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let first = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], right }
    }

    /// A row; missing cells are empty, surplus ones dropped.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        let mut row: Vec<String> = cells.iter().map(|c| escape(c.as_ref()).into_owned()).collect();
        row.resize(self.right.len(), String::new());
        self.rows.push(row);
    }

    /// All of it, each line ended.
    #[must_use]
    pub fn render(&self) -> String {
        let width = |i: usize| {
            self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let start = text.len();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let fill = width - cell.chars().count();
                if *right {
                    text.extend(std::iter::repeat_n(' ', fill));
                }
                text.push_str(cell);
                if !*right {
                    text.extend(std::iter::repeat_n(' ', fill));
                }
                text.extend(std::iter::repeat_n(' ', GAP));
            }
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// `name  value` lines; values are escaped, empty ones left out.
#[must_use]
pub fn fields<T: AsRef<str>>(pairs: &[(&str, T)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.as_ref().is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:width$}  {}", escape(value.as_ref()));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        let hostile = "a\x1b]0;owned\x07\u{9b}2J\r\nb\u{202e}c";
        let safe = escape(hostile);
        assert_eq!(safe, "a\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\nb\\u{202e}c");
        assert!(matches!(escape("plain text"), Cow::Borrowed(_)));
        assert_eq!(escape_output("one\n\ttwo\x1b[31m"), "one\n\ttwo\\u{1b}[31m");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"a": "x\u{9b}2J\u{7f}\u{1b}\u{202e}"});
        let text = escape_json(serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !acts(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", ">SIZE", "NOTE"]);
        table.row(&["e-1", "10", "first"]);
        table.row(&["e-1000", "2000", "b\x1bc"]);
        table.row(&["e-2"]);
        assert_eq!(
            table.render(),
            "ID      SIZE  NOTE\n\
             e-1       10  first\n\
             e-1000  2000  b\\u{1b}c\n\
             e-2\n"
        );
    }

    #[test]
    fn fields_leave_out_what_is_empty() {
        assert_eq!(fields(&[("ID", "j-1"), ("Message", ""), ("State", "Done")]), "ID     j-1\nState  Done\n");
    }
}
