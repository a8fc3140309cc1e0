//! Summarises tables of observations, such as daily weather: for every numeric column the number of values, the
//! smallest, the mean and the largest, in all and by month where there is a date. Other text is counted.
//!
//! Reads the files named as arguments, or all below `/inputs`. Writes `/outputs/summary.csv` and
//! `/outputs/report.txt`, and prints a short form. Memory does not grow with the number of rows.

mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use table::{Stats, Table};

const INPUTS: &str = "/inputs";
const OUTPUTS: &str = "/outputs";

/// Directories below one another that are looked into.
const DEPTH_MAX: usize = 16;
/// Files that are summarised.
const FILES_MAX: usize = 1000;
/// A line longer than this is no row of a table.
const LINE_MAX: u64 = 64 * 1024;

fn main() {
    let named: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let roots = if named.is_empty() { vec![PathBuf::from(INPUTS)] } else { named };
    let mut files = Vec::new();
    for root in &roots {
        find(root, 0, &mut files);
    }
    files.sort();
    if files.is_empty() {
        eprintln!("no files to summarise in {}", roots[0].display());
        std::process::exit(2);
    }
    if let Err(error) = summarise(&files) {
        eprintln!("cannot write to {OUTPUTS}: {error}");
        std::process::exit(1);
    }
}

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    if files.len() >= FILES_MAX {
        return;
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => files.push(path.to_owned()),
        Ok(_) if depth < DEPTH_MAX => match fs::read_dir(path) {
            Ok(entries) => entries.flatten().for_each(|entry| find(&entry.path(), depth + 1, files)),
            Err(error) => eprintln!("{}: {error}", path.display()),
        },
        Ok(_) => {}
        Err(error) => eprintln!("{}: {error}", path.display()),
    }
}

fn summarise(files: &[PathBuf]) -> io::Result<()> {
    fs::create_dir_all(OUTPUTS)?;
    let mut csv = io::BufWriter::new(File::create(Path::new(OUTPUTS).join("summary.csv"))?);
    let mut report = io::BufWriter::new(File::create(Path::new(OUTPUTS).join("report.txt"))?);
    writeln!(csv, "file,column,period,count,min,mean,max")?;
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match read(path) {
            Ok(Content::Table(table)) => {
                rows(&mut csv, &name, &table)?;
                let overview = overview(&name, &table);
                print!("{overview}");
                write!(report, "{overview}{}\n", by_month(&table))?;
            }
            Ok(Content::Text { lines, words, bytes }) => {
                let line = format!("{name}: {lines} lines, {words} words, {bytes} bytes\n");
                print!("{line}");
                write!(report, "{line}\n")?;
                for (column, count) in [("lines", lines), ("words", words), ("bytes", bytes)] {
                    writeln!(csv, "{},{column},all,{count},,,", quoted(&name))?;
                }
            }
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    }
    csv.flush()?;
    report.flush()?;
    println!("wrote {OUTPUTS}/summary.csv and {OUTPUTS}/report.txt");
    Ok(())
}

enum Content {
    Table(Table),
    Text { lines: u64, words: u64, bytes: u64 },
}

fn read(path: &Path) -> io::Result<Content> {
    let mut input = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let mut table: Option<Table> = None;
    let (mut lines, mut words, mut bytes) = (0, 0, 0);
    let (mut in_word, mut in_line) = (false, false);
    loop {
        line.clear();
        let n = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if n == 0 {
            break;
        }
        bytes += n as u64;
        // Counted where they begin: the last may have no end.
        lines += u64::from(!in_line);
        in_line = !line.ends_with(b"\n");
        for byte in &line {
            let letter = !byte.is_ascii_whitespace();
            words += u64::from(letter && !in_word);
            in_word = letter;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        match &mut table {
            Some(table) => table.row(text),
            // Comments before the header are common in published data.
            None if text.trim().is_empty() || text.starts_with('#') => {}
            None => table = Some(Table::begin(text)),
        }
    }
    match table.filter(Table::is_one) {
        Some(table) => Ok(Content::Table(table)),
        None => Ok(Content::Text { lines, words, bytes }),
    }
}

fn rows(csv: &mut impl Write, file: &str, table: &Table) -> io::Result<()> {
    for column in table.numeric() {
        let all = [("all".to_owned(), &column.all)].into_iter();
        let months = column.months.iter().map(|((year, month), stats)| (format!("{year:04}-{month:02}"), stats));
        for (period, s) in all.chain(months) {
            let (file, column) = (quoted(file), quoted(&column.name));
            writeln!(csv, "{file},{column},{period},{},{},{:.3},{}", s.count, s.min, s.mean(), s.max)?;
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn overview(name: &str, table: &Table) -> String {
    let mut out = format!("{name}: {} rows", table.rows);
    if let Some((first, last)) = &table.period {
        let _ = write!(out, ", {first} to {last}");
    }
    if table.irregular > 0 {
        let _ = write!(out, " ({} rows of another shape left out)", table.irregular);
    }
    out.push('\n');
    let width = table.numeric().map(|c| c.name.chars().count()).max().unwrap_or(0);
    for column in table.numeric() {
        let s = &column.all;
        let when = |date: &Option<String>| date.as_ref().map_or(String::new(), |d| format!(" ({d})"));
        let _ = writeln!(
            out,
            "  {:width$}  {:>7} values   min {}{}   mean {:.2}   max {}{}",
            column.name,
            s.count,
            s.min,
            when(&s.min_date),
            s.mean(),
            s.max,
            when(&s.max_date),
        );
    }
    out
}

/// The twelve months, all years together: the mean of each column.
fn by_month(table: &Table) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const COLUMNS: usize = 6;
    let columns: Vec<_> = table.numeric().filter(|c| !c.months.is_empty()).take(COLUMNS).collect();
    if columns.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n  mean by month\n       ");
    for column in &columns {
        let _ = write!(out, " {:>10}", column.name.chars().take(10).collect::<String>());
    }
    out.push('\n');
    for (i, month) in MONTHS.iter().enumerate() {
        let of_month: Vec<Stats> = columns
            .iter()
            .map(|c| Stats::sum(c.months.iter().filter(|((_, m), _)| *m as usize == i + 1).map(|(_, s)| s)))
            .collect();
        if of_month.iter().all(|s| s.count == 0) {
            continue;
        }
        let _ = write!(out, "  {month}  ");
        for stats in of_month {
            let mean = if stats.count == 0 { "-".into() } else { format!("{:.2}", stats.mean()) };
            let _ = write!(out, " {mean:>10}");
        }
        out.push('\n');
    }
    out
}

/// Months of a column, by year and month.
type Months = BTreeMap<(u16, u8), Stats>;
