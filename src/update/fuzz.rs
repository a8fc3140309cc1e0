//! Bundles of strangers.

use std::io::{self, Write};

use super::UpdateError;
use super::bundle::{Sink, read};
use super::manifest::{self, BYTES_MAX, Manifest};

/// Counts what would be written, and under which names.
#[derive(Default)]
struct Count {
    bytes: u64,
    names: Vec<String>,
}

struct Counting<'a>(&'a mut u64);

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Count {
    fn begin(&mut self, file: &manifest::File) -> Result<Box<dyn Write + '_>, UpdateError> {
        self.names.push(file.name.clone());
        Ok(Box::new(Counting(&mut self.bytes)))
    }

    fn end(&mut self, _: &manifest::File) -> Result<(), UpdateError> {
        Ok(())
    }
}

/// A bundle that is signed well, whatever is in it: nothing is taken but what its manifest names, and no more of it.
pub(crate) fn bundle(data: &[u8]) {
    if let Ok(manifest) = Manifest::read(data) {
        let written = serde_json::to_vec(&manifest).unwrap_or_default();
        assert_eq!(Manifest::read(&written).ok(), Some(manifest), "as it was written");
    }
    let mut count = Count::default();
    let taken = read(data, &|_, _| Ok(()), &mut count);
    assert!(count.bytes <= BYTES_MAX);
    assert!(
        count.names.iter().all(|name| !name.contains('/') && !name.starts_with('.')),
        "{:?}",
        count.names
    );
    if let Ok(head) = taken {
        assert_eq!(count.bytes, head.manifest.bytes());
    }
}
