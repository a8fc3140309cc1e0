//! A table as it is read, row by row.

use crate::Months;

/// Columns that are looked at.
const COLUMNS_MAX: usize = 256;
/// Months that are kept apart: a century.
const MONTHS_MAX: usize = 1200;

/// What is known of some values.
#[derive(Default)]
pub struct Stats {
    pub count: u64,
    sum: f64,
    pub min: f64,
    pub max: f64,
    pub min_date: Option<String>,
    pub max_date: Option<String>,
}

impl Stats {
    fn add(&mut self, value: f64, date: Option<&str>) {
        if self.count == 0 || value < self.min {
            (self.min, self.min_date) = (value, date.map(str::to_owned));
        }
        if self.count == 0 || value > self.max {
            (self.max, self.max_date) = (value, date.map(str::to_owned));
        }
        self.count += 1;
        self.sum += value;
    }

    /// Count and sum of several.
    pub fn sum<'a>(parts: impl Iterator<Item = &'a Stats>) -> Stats {
        parts.fold(Stats::default(), |mut all, part| {
            all.count += part.count;
            all.sum += part.sum;
            all
        })
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

pub struct Column {
    pub name: String,
    pub all: Stats,
    pub months: Months,
    /// Values that are no numbers and not missing either.
    other: u64,
}

pub struct Table {
    separator: char,
    columns: Vec<Column>,
    date: Option<usize>,
    pub rows: u64,
    pub irregular: u64,
    pub period: Option<(String, String)>,
}

impl Table {
    /// Begins with the first line: names, or values already.
    pub fn begin(line: &str) -> Table {
        let count = |c: char| line.matches(c).count();
        let separator = [',', ';', '\t'].into_iter().max_by_key(|c| (count(*c), *c == ',')).unwrap_or(',');
        let fields = split(line, separator);
        let names = !fields.iter().any(|f| number(f).is_some());
        let column = |(i, field): (usize, &String)| Column {
            name: if names && !field.trim().is_empty() { field.trim().to_owned() } else { format!("column {}", i + 1) },
            all: Stats::default(),
            months: Months::new(),
            other: 0,
        };
        let columns = fields.iter().take(COLUMNS_MAX).enumerate().map(column).collect();
        let mut table = Table { separator, columns, date: None, rows: 0, irregular: 0, period: None };
        if !names {
            table.row(line);
        }
        table
    }

    pub fn row(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let fields = split(line, self.separator);
        if fields.len().min(COLUMNS_MAX) != self.columns.len() {
            self.irregular += 1;
            return;
        }
        if self.rows == 0 {
            self.date = fields.iter().position(|field| date(field).is_some());
        }
        self.rows += 1;
        let day = self.date.and_then(|i| date(fields.get(i)?));
        let text = day.map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
        if let Some(text) = &text {
            match &mut self.period {
                None => self.period = Some((text.clone(), text.clone())),
                Some((first, _)) if text < first => first.clone_from(text),
                Some((_, last)) if text > last => last.clone_from(text),
                Some(_) => {}
            }
        }
        for (i, (column, field)) in self.columns.iter_mut().zip(&fields).enumerate() {
            if Some(i) == self.date {
                continue;
            }
            let Some(value) = number(field) else {
                column.other += u64::from(!missing(field));
                continue;
            };
            column.all.add(value, text.as_deref());
            if let Some((year, month, _)) = day
                && (column.months.len() < MONTHS_MAX || column.months.contains_key(&(year, month)))
            {
                column.months.entry((year, month)).or_default().add(value, text.as_deref());
            }
        }
    }

    /// Columns of which most values are numbers.
    pub fn numeric(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.all.count > 0 && c.all.count >= c.other)
    }

    /// Whether this was a table at all: most lines have its shape, and there are numbers in it.
    pub fn is_one(&self) -> bool {
        self.rows > 0 && self.irregular <= self.rows && self.numeric().next().is_some()
    }
}

fn missing(field: &str) -> bool {
    let field = field.trim();
    ["", "-", "na", "n/a", "nan", "null", "none", "-9999"].iter().any(|word| field.eq_ignore_ascii_case(word))
}

fn number(field: &str) -> Option<f64> {
    if missing(field) {
        return None;
    }
    field.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// Year, month and day of `2026-01-31`, `2026/01/31` or `20260131`, whatever follows.
fn date(field: &str) -> Option<(u16, u8, u8)> {
    let field = field.trim();
    let mark = field.as_bytes().get(4)?;
    let (year, month, day) = match mark {
        b'-' | b'/' if field.as_bytes().get(7) == Some(mark) => (field.get(..4)?, field.get(5..7)?, field.get(8..10)?),
        b'0' | b'1' if field.len() == 8 => (field.get(..4)?, field.get(4..6)?, field.get(6..8)?),
        _ => return None,
    };
    let (year, month, day) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    ((1000..3000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day))
}

/// The fields of a line; a quoted one may hold separators and doubled quotes.
fn split(line: &str, separator: char) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut in_quotes = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if in_quotes && chars.peek() == Some(&'"') => {
                chars.next();
                push(&mut fields, '"');
            }
            '"' => in_quotes = !in_quotes,
            _ if c == separator && !in_quotes => fields.push(String::new()),
            _ => push(&mut fields, c),
        }
    }
    fields
}

fn push(fields: &mut [String], c: char) {
    if let Some(last) = fields.last_mut() {
        last.push(c);
    }
}
