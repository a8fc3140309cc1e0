//! Whether a version fits this board and its data: pure.

use super::UpdateError;
use super::manifest::{ANY, Manifest};

/// What a version has to fit.
#[derive(Debug, Clone)]
pub struct Board {
    /// The target triple of the program that runs.
    pub target: &'static str,
    /// What this board is, if it says.
    pub name: Option<String>,
    /// The schema of its databases.
    pub schema: u32,
}

impl Board {
    /// The target triple of this program.
    pub const TARGET: &'static str = env!("CODLING_TARGET");
}

/// Whether the databases have to be copied before that version's first start.
///
/// # Errors
/// It does not fit. With `allow_migration`, it may write the databases anew.
pub fn judge(manifest: &Manifest, board: &Board, allow_migration: bool) -> Result<bool, UpdateError> {
    let version = || manifest.version.clone();
    if !runs(&manifest.target, board.target) {
        return Err(UpdateError::Target { bundle: manifest.target.clone(), here: board.target });
    }
    if !manifest.boards.iter().any(|name| name == ANY || Some(name) == board.name.as_ref()) {
        return Err(UpdateError::Board { bundle: manifest.boards.clone(), here: board.name.clone() });
    }
    let (found, knows, least) = (board.schema, manifest.schema, manifest.least_schema);
    if found > knows {
        return Err(UpdateError::OlderSchema { found, knows, version: version() });
    }
    if found < least {
        return Err(UpdateError::NewerSchema { found, least, version: version() });
    }
    if found < knows && !allow_migration {
        return Err(UpdateError::Migration { found, becomes: knows, version: version() });
    }
    Ok(found < knows)
}

/// Whether what was built for one target runs where the other one does: on the same processor. ARMv7 runs what was
/// built for ARMv6, too. A missing C library is found out by the trial.
fn runs(target: &str, here: &str) -> bool {
    let arch = |triple: &str| triple.split('-').next().unwrap_or_default().to_owned();
    let (target, here) = (arch(target), arch(here));
    target == here || (target == "arm" && here == "armv7")
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::of;
    use super::*;

    fn fits(set: &[(&str, serde_json::Value)], board: &Board, allow: bool) -> Result<bool, String> {
        let mut value = of(b"x");
        set.iter().for_each(|(key, new)| value[key] = new.clone());
        let manifest = Manifest::read(value.to_string().as_bytes()).unwrap();
        judge(&manifest, board, allow).map_err(|error| error.to_string())
    }

    fn board(target: &'static str, name: Option<&str>, schema: u32) -> Board {
        Board { target, name: name.map(str::to_owned), schema }
    }

    #[test]
    fn processors() {
        let table = [
            ("aarch64-unknown-linux-gnu", "aarch64-unknown-linux-musl", true),
            ("aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf", false),
            ("arm-unknown-linux-musleabihf", "armv7-unknown-linux-gnueabihf", true),
            ("armv7-unknown-linux-gnueabihf", "arm-unknown-linux-musleabihf", false),
            ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", false),
        ];
        for (bundle, here, wanted) in table {
            let fits = fits(&[("target", bundle.into())], &board(here, None, 1), false);
            assert_eq!(fits.is_ok(), wanted, "{bundle} on {here}: {fits:?}");
        }
    }

    #[test]
    fn boards() {
        let here = |name| board("x86_64-unknown-linux-gnu", name, 1);
        let boards = [("boards", serde_json::json!(["pi-4", "pi-5"]))];
        assert!(fits(&[], &here(None), false).is_ok());
        assert!(fits(&boards, &here(Some("pi-5")), false).is_ok());
        assert!(fits(&boards, &here(Some("pi-3")), false).unwrap_err().contains("this board is pi-3"));
        assert!(fits(&boards, &here(None), false).unwrap_err().contains("not named"));
    }

    #[test]
    fn schemas() {
        let here = |schema| board("x86_64-unknown-linux-gnu", None, schema);
        let writes = |schema: u32, least: u32| [("schema", schema.into()), ("least_schema", least.into())];
        assert_eq!(fits(&writes(3, 2), &here(3), false), Ok(false));
        assert!(fits(&writes(3, 2), &here(4), true).unwrap_err().contains("knows only up to 3"));
        assert!(fits(&writes(3, 2), &here(1), true).unwrap_err().contains("only from 2 on"));
        assert!(fits(&writes(3, 2), &here(2), false).unwrap_err().contains("from schema 2 to 3"));
        assert_eq!(fits(&writes(3, 2), &here(2), true), Ok(true));
    }
}
