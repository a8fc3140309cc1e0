//! The table as a file, and whatever anybody may write into files, variables and flags.

use std::path::Path;

use proptest::prelude::*;

use super::{env, of, warnings, with};
use crate::config::keys::{Effect, all};
use crate::config::{DEFAULT_FILE, check};

/// The file as the table has it.
fn default_file() -> String {
    let mut text = "# Settings of codling, each with its default. Lines that are commented out have none, or one that\n\
                    # depends on others. Flags and variables come before this file; see `codling config list --origin`.\n"
        .to_owned();
    let mut open: Vec<&str> = Vec::new();
    for key in all().filter(|key| key.effect == Effect::Full) {
        let mut parts: Vec<&str> = key.path.split('.').collect();
        let name = parts.pop().unwrap();
        let same = parts.iter().zip(&open).take_while(|(a, b)| a == b).count();
        if same == 0 {
            text.push('\n');
        }
        for (depth, part) in parts.iter().enumerate().skip(same) {
            text += &format!("{}{part}:\n", "  ".repeat(depth));
        }
        let indent = "  ".repeat(parts.len());
        let (doc, kind) = (capital(key.doc), key.kind.describe());
        let between =
            if indent.len() + doc.len() + kind.len() > 100 { format!("\n{indent}# ") } else { " ".into() };
        text += &format!("{indent}# {doc}.{between}[{kind}]\n");
        match key.default {
            "" => text += &format!("{indent}# {name}:\n"),
            derived if derived.starts_with(['<', '~']) || key.path == "Results.MinFree" => {
                text += &format!("{indent}# {name}: {derived}\n");
            }
            value => text += &format!("{indent}{name}: {value}\n"),
        }
        open = parts;
    }
    text
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_ascii_uppercase() + rest
}

#[test]
fn the_default_file_is_the_table() {
    let wanted = default_file();
    if std::env::var_os("CODLING_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/default.yaml"), &wanted).unwrap();
    }
    assert!(
        DEFAULT_FILE == wanted,
        "run this test with CODLING_BLESS=1 to write src/config/default.yaml anew"
    );
    let loaded = of(DEFAULT_FILE).unwrap();
    assert_eq!(warnings(&loaded), Vec::<String>::new());
    assert_eq!(loaded.settings, with(&[], &[]).unwrap().settings);
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(Path::new("c.yaml"), &bytes, &env(&[]));
    }

    #[test]
    fn no_yaml_makes_it_panic(
        lines in proptest::collection::vec(("[ ]{0,6}", "[A-Za-z.]{1,8}|API|Node|Compute|Results|Auth|Labels", "[ -~]{0,12}"), 0..20)
    ) {
        let text: String = lines.iter().map(|(indent, key, value)| format!("{indent}{key}: {value}\n")).collect();
        let _ = check(Path::new("c.yaml"), text.as_bytes(), &env(&[]));
    }

    #[test]
    fn no_argument_makes_it_panic(argument in "\\PC{0,30}") {
        let _ = with(&[&argument], &[]);
    }
}

proptest! {
    // Each case is a run over every key.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_value_of_any_key_makes_it_panic(value in "\\PC{0,20}|[0-9]{1,30}[a-zA-Z%]{0,3}|-?[0-9.]{1,8}e[0-9]{1,4}") {
        for key in all() {
            let _ = with(&[&format!("{}={value}", key.path)], &[]);
        }
    }
}
