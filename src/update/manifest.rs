//! What a bundle says about itself: `manifest.json`.

use serde::{Deserialize, Serialize};

use crate::model::Sha256;

/// The form of bundles that this program reads.
pub const FORMAT: u32 = 1;

/// What bundles of this program say.
pub const PRODUCT: &str = "codling";

/// The file that is started; every bundle has it.
pub const PROGRAM: &str = "codling";

/// The word for boards of any kind.
pub const ANY: &str = "any";

/// Longest manifest.
pub const MANIFEST_MAX: u64 = 64 * 1024;

/// Most files of a bundle.
pub const FILES_MAX: usize = 8;

/// Largest bundle: what its files have together.
pub const BYTES_MAX: u64 = 64 << 20;

/// Longest name of anything.
const WORD_MAX: usize = 64;

/// Most boards that a bundle names.
const BOARDS_MAX: usize = 64;

/// A bundle's description of itself, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Manifest {
    format: u32,
    product: String,
    /// The version that it brings.
    pub version: String,
    /// The target triple that its program was built for.
    pub target: String,
    /// Folders of `board-configs/`, or [`ANY`].
    pub boards: Vec<String>,
    /// The schema that its store writes.
    pub schema: u32,
    /// The oldest schema that its store reads.
    pub least_schema: u32,
    /// Its files, in the bundle's order.
    pub files: Vec<File>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name, without directories.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its bytes.
    pub sha256: Sha256,
}

#[derive(Deserialize)]
struct Raw {
    format: u32,
    product: String,
    version: String,
    target: String,
    boards: Vec<String>,
    schema: u32,
    least_schema: u32,
    files: Vec<File>,
}

/// A name that is one: of a file, a version, a target, a board.
fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'~');
    (1..=WORD_MAX).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-'])
}

impl TryFrom<Raw> for Manifest {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        if raw.format != FORMAT {
            return Err(format!("format {} is not known here, only {FORMAT}", raw.format));
        }
        if raw.product != PRODUCT {
            return Err(format!("it is for {:?}, not for {PRODUCT}", raw.product));
        }
        for (what, word) in [("version", &raw.version), ("target", &raw.target)] {
            if !is_word(word) {
                return Err(format!("{what} {word:?} is not a plain word"));
            }
        }
        if !(1..=BOARDS_MAX).contains(&raw.boards.len()) || !raw.boards.iter().all(|board| is_word(board)) {
            return Err(format!("boards has to be a list of 1 to {BOARDS_MAX} plain words"));
        }
        if raw.least_schema == 0 || raw.least_schema > raw.schema {
            return Err(format!(
                "it writes schema {} and reads from {} on, which does not add up",
                raw.schema, raw.least_schema
            ));
        }
        check_files(&raw.files)?;
        let Raw { format, product, version, target, boards, schema, least_schema, files } = raw;
        Ok(Self { format, product, version, target, boards, schema, least_schema, files })
    }
}

fn check_files(files: &[File]) -> Result<(), String> {
    if files.len() > FILES_MAX {
        return Err(format!("it has {} files; {FILES_MAX} is the most", files.len()));
    }
    for (n, file) in files.iter().enumerate() {
        if !is_word(&file.name) || file.name.starts_with("manifest.") || file.name.ends_with(".partial") {
            return Err(format!("{:?} is no name for a file of a bundle", file.name));
        }
        if files[..n].iter().any(|earlier| earlier.name == file.name) {
            return Err(format!("file {} is there twice", file.name));
        }
    }
    if !files.iter().any(|file| file.name == PROGRAM && file.size > 0) {
        return Err(format!("there is no {PROGRAM} in it"));
    }
    // Cannot overflow where each is small.
    let sizes = files.iter().map(|file| file.size).try_fold(0, u64::checked_add);
    match sizes.filter(|sum| *sum <= BYTES_MAX) {
        Some(_) => Ok(()),
        None => Err(format!("it is larger than {} MiB", BYTES_MAX >> 20)),
    }
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A manifest for that program, as JSON.
    pub(crate) fn of(program: &[u8]) -> Value {
        json!({
            "format": 1, "product": "codling", "version": "0.2.0", "target": "x86_64-unknown-linux-gnu",
            "boards": ["any"], "schema": 1, "least_schema": 1,
            "files": [{ "name": "codling", "size": program.len(), "sha256": Sha256::of(program) }],
        })
    }

    fn read(value: &Value) -> Result<Manifest, String> {
        Manifest::read(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(read(&of(b"x")).unwrap().bytes(), 1);
        let digest = Sha256::of(b"");
        let file = |name: &str, size: u64| json!({"name": name, "size": size, "sha256": digest});
        let table = [
            ("/format", json!(2), "format 2"),
            ("/product", json!("other"), "for \"other\""),
            ("/version", json!("1\n2"), "version"),
            ("/version", json!(""), "version"),
            ("/version", json!("v".repeat(65)), "version"),
            ("/target", json!("../x"), "target"),
            ("/boards", json!([]), "boards"),
            ("/boards", json!(vec!["pi"; 65]), "boards"),
            ("/boards", json!(["a/b"]), "boards"),
            ("/least_schema", json!(2), "does not add up"),
            ("/least_schema", json!(0), "does not add up"),
            ("/schema", json!(-1), "invalid value"),
            ("/files", json!([]), "no codling"),
            ("/files", json!([file("codling", 0)]), "no codling"),
            ("/files", json!([file("codling", 1), file("codling", 1)]), "twice"),
            ("/files", json!([file("codling", BYTES_MAX + 1)]), "larger than"),
            ("/files", json!([file("codling", 1), file("x", u64::MAX)]), "larger than"),
            ("/files", json!(vec![file("codling", 1); 9]), "9 files"),
            ("/files", json!([file("codling", 1), file("../up", 1)]), "no name"),
            ("/files", json!([file("codling", 1), file("/etc/passwd", 1)]), "no name"),
            ("/files", json!([file("codling", 1), file(".hidden", 1)]), "no name"),
            ("/files", json!([file("codling", 1), file("manifest.sig", 1)]), "no name"),
            ("/files/0/sha256", json!("AB"), "SHA-256"),
        ];
        for (at, value, wanted) in table {
            let mut manifest = of(b"x");
            *manifest.pointer_mut(at).unwrap() = value;
            let error = read(&manifest).unwrap_err();
            assert!(error.contains(wanted), "{at}: {error}");
        }
    }

    proptest! {
        /// What is taken is written as what it was.
        #[test]
        fn it_reads_what_it_writes(version in "[A-Za-z0-9][A-Za-z0-9.+~-]{0,20}", schema in 1u32..9) {
            let mut value = of(b"x");
            value["version"] = json!(version);
            value["schema"] = json!(schema);
            let manifest = read(&value).unwrap();
            let again = Manifest::read(&serde_json::to_vec(&manifest).unwrap()).unwrap();
            prop_assert_eq!(again, manifest);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::read(&bytes);
        }
    }
}
