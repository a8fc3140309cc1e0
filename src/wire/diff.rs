//! What an update would change in a job: its two forms, line by line.

use std::fmt::Write as _;

use serde_json::Value;

use crate::model::{JobRecord, JobSpec};

use super::dialect::Dialect;
use super::job_view::JobView;

/// Cells of the table in which the longest common part is sought; what needs more is shown as replaced whole.
const CELLS_MAX: usize = 1 << 20;

/// Unchanged lines shown before and after a change.
const CONTEXT: usize = 2;

/// Characters of a line that are shown: a module within a job is one line of megabytes.
const LINE_MAX: usize = 200;

/// Fields that the node sets.
const OURS: [&str; 6] = ["ID", "State", "Version", "Revision", "CreateTime", "ModifyTime"];

/// The lines that differ between what `record` has stored (`before`) and `after`, with `-` and `+`; nothing if none
/// does.
///
/// # Errors
/// A job cannot be encoded.
pub fn diff(
    before: &JobSpec,
    after: &JobSpec,
    record: &JobRecord,
    dialect: Dialect,
) -> Result<String, serde_json::Error> {
    let text = |spec| {
        let mut value = serde_json::to_value(JobView::of(spec, record, dialect))?;
        if let Value::Object(map) = &mut value {
            map.retain(|key, _| !OURS.contains(&key.as_str()));
        }
        let mut text = String::new();
        outline(&value, 0, &mut text);
        Ok::<_, serde_json::Error>(text)
    };
    let (before, after) = (text(before)?, text(after)?);
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    Ok(render(&changes(&before, &after)))
}

/// A value as an outline in YAML's manner, a field or an item on each line.
fn outline(value: &Value, depth: usize, text: &mut String) {
    let nested = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let mut line = |label: String, value: &Value| {
        // Writing into a text cannot fail.
        let _ = if nested(value) {
            writeln!(text, "{:1$}{label}", "", depth * 2)
        } else {
            writeln!(text, "{:1$}{label} {value}", "", depth * 2)
        };
        if nested(value) {
            outline(value, depth + 1, text);
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| line(format!("{key}:"), value)),
        Value::Array(items) => items.iter().for_each(|value| line("-".into(), value)),
        _ => {}
    }
}

/// A line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

fn changes<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut lines: Vec<Line<'_>> = before[..head].iter().map(|line| Line::Same(line)).collect();
    middle(old, new, &mut lines);
    lines.extend(before[before.len() - tail..].iter().map(|line| Line::Same(line)));
    lines
}

/// The longest common part stays, the rest goes or is new.
fn middle<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > CELLS_MAX {
        lines.extend(old.iter().map(|line| Line::Gone(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
        return;
    }
    // Length of the longest common part of what follows each pair of positions.
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

/// The changes, and a little of what is around them.
fn render(lines: &[Line<'_>]) -> String {
    let mut text = String::new();
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let mut shown = 0;
    for (n, line) in lines.iter().enumerate() {
        let around = &lines[n.saturating_sub(CONTEXT)..(n + CONTEXT + 1).min(lines.len())];
        if !around.iter().any(is_change) {
            continue;
        }
        if !text.is_empty() && shown + 1 < n {
            text.push_str("  ...\n");
        }
        shown = n;
        let (sign, line) = match line {
            Line::Same(line) => (' ', line),
            Line::Gone(line) => ('-', line),
            Line::New(line) => ('+', line),
        };
        let cut: String = line.chars().take(LINE_MAX).collect();
        let more = if cut.len() < line.len() { format!("... ({} bytes)", line.len()) } else { String::new() };
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{sign} {cut}{more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::model::{JobDigest, JobId, JobState, Timestamp};
    use crate::wire::{Reading, read_job, tree};

    use super::*;

    fn spec(parameters: &str, count: u32) -> JobSpec {
        let text = format!(
            "{{Name: n, Type: service, Count: {count}, Tasks: [{{Name: m, Engine: {{Type: wasm, Params: \
             {{EntryModule: /m.wasm, Parameters: {parameters}}}}}, InputSources: [{{Target: /m.wasm, Source: \
             {{Type: inline, Params: {{URL: 'data:,{}'}}}}}}]}}]}}",
            "x".repeat(1000)
        );
        let tree = tree::parse(text.as_bytes(), &tree::Limits::default()).unwrap();
        read_job(&tree, Reading::file()).unwrap().spec
    }

    fn of(before: &JobSpec, after: &JobSpec) -> String {
        let id = JobId::random();
        let record = JobRecord {
            head: None,
            name: "n".into(),
            digest: JobDigest::of(b""),
            state: JobState::Running,
            message: String::new(),
            version: 3,
            revision: 9,
            created: Timestamp(1),
            modified: Timestamp(2),
            id,
        };
        diff(before, after, &record, Dialect::B).unwrap()
    }

    #[test]
    fn only_what_differs_is_told() {
        let job = spec("[a, b, c]", 1);
        assert_eq!(of(&job, &job), "");
        let text = of(&job, &spec("[a, c, d]", 2));
        assert!(text.contains("- Count: 1\n+ Count: 2\n"), "{text}");
        assert!(text.contains("-           - \"b\"\n            - \"c\"\n+           - \"d\"\n"), "{text}");
        assert!(!text.contains("Version") && !text.contains("StateType"), "{text}");
        assert!(text.contains("  ...\n"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_and_still_compared() {
        let mut other = spec("[]", 1);
        let url = format!("data:,{}y", "x".repeat(999));
        other.task.inputs[0].source.0.params.insert("URL".into(), url.into());
        let text = of(&spec("[]", 1), &other);
        let changed: Vec<_> = text.lines().filter(|line| line.starts_with(['-', '+'])).collect();
        assert_eq!(changed.len(), 2, "{text}");
        assert!(changed.iter().all(|line| line.ends_with("bytes)") && line.len() < 300), "{text}");
    }

    #[test]
    fn what_is_too_long_to_compare_is_replaced_whole() {
        let long = |first: usize| -> Vec<String> { (first..first + 2000).map(|n| n.to_string()).collect() };
        let (old, new) = (long(0), long(1));
        let borrowed =
            |lines: &'_ [String]| lines.iter().map(|line| line.clone().leak() as &str).collect::<Vec<_>>();
        let lines = changes(&borrowed(&old), &borrowed(&new));
        assert_eq!(lines.len(), 4000);
        let few = changes(&borrowed(&old[..500]), &borrowed(&new[..500]));
        assert_eq!(few.iter().filter(|line| matches!(line, Line::Same(_))).count(), 499);
    }
}
