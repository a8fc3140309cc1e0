//! Who this node is: decided once, kept in `node.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::NodeId;
use crate::sys::Files;
use crate::sys::fs::write_atomic;

/// Bytes of `node.json`: it holds two short texts.
const FILE_MAX: u64 = 4096;

/// What `node.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id, which is its name.
    pub id: NodeId,
    /// This installation: changes when the data directory is made anew.
    pub installation: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {what} {path}: {cause}")]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold a node's identity ({cause}); restore it, or remove it for a new identity")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: serde_json::Error,
    },
}

impl Identity {
    /// The stored identity, or a new one of that name (`suggested` is asked only then).
    ///
    /// # Errors
    /// See [`IdentityError`]. A damaged file is never overwritten: the node's name would change in silence.
    pub fn load_or_create(
        files: &dyn Files,
        path: &Path,
        suggested: impl FnOnce() -> NodeId,
    ) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let io = |cause| IdentityError::Io { what: "write", path: path.to_owned(), cause };
        let identity = Self { id: suggested(), installation: uuid::Uuid::new_v4().to_string() };
        let bytes = serde_json::to_vec(&identity).map_err(|e| io(e.into()))?;
        write_atomic(files, path, &bytes, 0o600).map_err(io)?;
        Ok(identity)
    }

    /// The stored identity, if there is one.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        match read_small(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|cause| IdentityError::Damaged { path: path.to_owned(), cause }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(IdentityError::Io { what: "read", path: path.to_owned(), cause }),
        }
    }
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RealFiles;

    #[test]
    fn decided_once_and_never_overwritten() {
        let path = std::env::temp_dir().join(format!("codling-node-{}.json", uuid::Uuid::new_v4()));
        let first = Identity::load_or_create(&RealFiles, &path, || "edge-1".parse().unwrap()).unwrap();
        let second = Identity::load_or_create(&RealFiles, &path, || "edge-2".parse().unwrap()).unwrap();
        assert_eq!(first, second);
        std::fs::write(&path, "{}").unwrap();
        let damaged = Identity::load_or_create(&RealFiles, &path, NodeId::random).unwrap_err();
        assert!(damaged.to_string().contains("remove it"), "{damaged}");
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        std::fs::remove_file(&path).unwrap();
    }
}
