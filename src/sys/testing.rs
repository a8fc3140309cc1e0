//! Roots of other machines, for tests.

use std::path::{Path, PathBuf};

/// A directory that goes away with the test.
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One with these files.
pub(super) fn root(files: &[(&str, &str)]) -> Root {
    let root = Root(std::env::temp_dir().join(format!("codling-root-{}", uuid::Uuid::new_v4())));
    std::fs::create_dir(&root.0).unwrap();
    for (name, text) in files {
        let path = root.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}
