//! Bundles for tests.

use tar::{EntryType, Header};

/// A tar that is being made, with any heads.
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.kind(name, EntryType::Regular, bytes)
    }

    pub(crate) fn kind(mut self, name: &str, kind: EntryType, bytes: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        // The library's own way of setting a name refuses those that matter here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn manifest(version: &str, program: &[u8]) -> Vec<u8> {
    let mut value = super::manifest::tests::of(program);
    value["version"] = version.into();
    value.to_string().into_bytes()
}

/// A bundle of that version, signed by nobody.
pub(crate) fn bundle(version: &str, program: &[u8]) -> Vec<u8> {
    Tar::new()
        .file("manifest.json", &manifest(version, program))
        .file("manifest.sig", &[7; 64])
        .file("codling", program)
        .end()
}
