//! Reading a bundle: a plain tar of `manifest.json`, `manifest.sig` and the files that the manifest names, in its order.
//!
//! Nothing but regular files of exactly those names is taken, no extension of tar is read, and nothing is handed on
//! before the manifest was found good by its signature.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use sha2::Digest;
use tar::{Archive, Entries, EntryType};

use super::UpdateError;
use super::manifest::{self, MANIFEST_MAX, Manifest};
use crate::model::Sha256;

/// What a signature has.
pub const SIGNATURE: usize = 64;

/// Names of the first two members, and of the same in a slot.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SIGNATURE_FILE: &str = "manifest.sig";

/// The head of a bundle.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) signature: [u8; SIGNATURE],
}

/// Says whether a signature is that of somebody trusted over these bytes.
pub type Verify<'a> = dyn Fn(&[u8], &[u8; SIGNATURE]) -> Result<(), UpdateError> + 'a;

/// Takes the files, one after the other.
pub(super) trait Sink {
    /// Where the next file goes.
    fn begin(&mut self, file: &manifest::File) -> Result<Box<dyn Write + '_>, UpdateError>;
    /// It is whole and was right.
    fn end(&mut self, file: &manifest::File) -> Result<(), UpdateError>;
}

/// Takes nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn begin(&mut self, _: &manifest::File) -> Result<Box<dyn Write + '_>, UpdateError> {
        Ok(Box::new(io::sink()))
    }

    fn end(&mut self, _: &manifest::File) -> Result<(), UpdateError> {
        Ok(())
    }
}

/// A bundle that was found whole, and signed by somebody trusted.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    head: Head,
}

impl Bundle {
    /// Reads all of a bundle.
    ///
    /// # Errors
    /// It is no bundle, not whole, not signed as it should be, or cannot be read.
    pub fn open(path: &Path, verify: &Verify<'_>) -> Result<Self, UpdateError> {
        let head = read(open(path)?, verify, &mut Nowhere)?;
        Ok(Self { path: path.to_owned(), head })
    }

    /// What it says about itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.head.manifest
    }

    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Reads it once more, for its files; it must be the same.
    pub(super) fn unpack(&self, sink: &mut dyn Sink) -> Result<(), UpdateError> {
        let same = |bytes: &[u8], signature: &[u8; SIGNATURE]| {
            let is = bytes == self.head.bytes && *signature == self.head.signature;
            if is { Ok(()) } else { Err(UpdateError::Bundle("it was changed while it was read".into())) }
        };
        read(open(&self.path)?, &same, sink).map(drop)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, UpdateError> {
    let failed = || UpdateError::io("read", path);
    let file = File::open(path).map_err(failed())?;
    if !file.metadata().map_err(failed())?.is_file() {
        return Err(UpdateError::Bundle("it is not a regular file".into()));
    }
    Ok(BufReader::new(file))
}

/// Reads a bundle; its files go to `sink` once `verify` has taken the manifest.
pub(super) fn read(input: impl Read, verify: &Verify<'_>, sink: &mut dyn Sink) -> Result<Head, UpdateError> {
    let mut archive = Archive::new(input);
    let mut members = archive.entries().map_err(no_tar)?.raw(true);
    let bytes = small(&mut members, MANIFEST, MANIFEST_MAX)?;
    let signature = small(&mut members, SIGNATURE_FILE, SIGNATURE as u64)?;
    let signature: [u8; SIGNATURE] = signature
        .try_into()
        .map_err(|_| UpdateError::Bundle(format!("{SIGNATURE_FILE} has not {SIGNATURE} bytes")))?;
    // Nothing of it is looked at before that.
    verify(&bytes, &signature)?;
    let manifest = Manifest::read(&bytes)?;
    for file in &manifest.files {
        copy(&mut members, file, sink)?;
    }
    if members.next().is_some() {
        return Err(UpdateError::Bundle("there is more in it than its manifest names".into()));
    }
    Ok(Head { manifest, bytes, signature })
}

fn no_tar(error: io::Error) -> UpdateError {
    UpdateError::Bundle(format!("it cannot be read as a tar: {error}"))
}

/// The next member, which must be a regular file of that name; with its size.
fn member<'a, R: Read>(
    members: &mut Entries<'a, R>,
    name: &str,
) -> Result<(tar::Entry<'a, R>, u64), UpdateError> {
    let entry = members.next().ok_or_else(|| UpdateError::Bundle(format!("it ends before {name}")))?;
    let entry = entry.map_err(no_tar)?;
    if entry.header().entry_type() != EntryType::Regular || *entry.path_bytes() != *name.as_bytes() {
        let found: String = String::from_utf8_lossy(&entry.path_bytes()).chars().take(80).collect();
        return Err(UpdateError::Bundle(format!("a regular file {name} should come, not {found:?}")));
    }
    let size = entry.header().entry_size().map_err(no_tar)?;
    Ok((entry, size))
}

fn small<R: Read>(members: &mut Entries<'_, R>, name: &str, most: u64) -> Result<Vec<u8>, UpdateError> {
    let (entry, size) = member(members, name)?;
    if size > most {
        return Err(UpdateError::Bundle(format!("{name} is larger than {most} bytes")));
    }
    let mut bytes = Vec::new();
    entry.take(most).read_to_end(&mut bytes).map_err(no_tar)?;
    if bytes.len() as u64 != size {
        return Err(UpdateError::Altered(name.into()));
    }
    Ok(bytes)
}

fn copy<R: Read>(
    members: &mut Entries<'_, R>,
    file: &manifest::File,
    sink: &mut dyn Sink,
) -> Result<(), UpdateError> {
    let (mut entry, size) = member(members, &file.name)?;
    let altered = || UpdateError::Altered(file.name.clone());
    if size != file.size {
        return Err(altered());
    }
    let (mut hasher, mut read) = (sha2::Sha256::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    {
        let mut out = sink.begin(file)?;
        loop {
            let n = entry.read(&mut buffer).map_err(no_tar)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            read += n as u64;
            out.write_all(&buffer[..n]).map_err(UpdateError::io("write", Path::new(&file.name)))?;
        }
    }
    if read != size || Sha256(hasher.finalize().into()) != file.sha256 {
        return Err(altered());
    }
    sink.end(file)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tar, bundle, manifest};
    use super::*;

    fn read_all(tar: &[u8]) -> Result<Head, UpdateError> {
        read(tar, &|_, _| Ok(()), &mut Nowhere)
    }

    #[test]
    fn a_bundle_is_read() {
        let head = read_all(&bundle("1.2.3", b"program")).unwrap();
        assert_eq!((head.manifest.version.as_str(), head.signature), ("1.2.3", [7; SIGNATURE]));
    }

    #[test]
    fn a_bundle_that_ends_anywhere_is_refused() {
        let whole = bundle("1", &[5; 3000]);
        // The end of the last file; what follows is the end of the tar.
        let end = 512 * 5 + 3072;
        for n in (0..end).step_by(97).chain([end - 1]) {
            assert!(read_all(&whole[..n]).is_err(), "{n}");
        }
        assert!(read_all(&whole[..end]).is_ok());
    }

    #[test]
    fn any_altered_byte_of_manifest_or_files_is_noticed() {
        let whole = bundle("1", &[5; 600]);
        let signed = read_all(&whole).unwrap().bytes;
        let verify = |bytes: &[u8], _: &[u8; SIGNATURE]| {
            if bytes == signed { Ok(()) } else { Err(UpdateError::Signature(1)) }
        };
        // Heads of members have unused fields whose change is no harm.
        let manifest = 512..512 + signed.len();
        let file = 512 * 5..512 * 5 + 600;
        for at in manifest.chain(file) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(read(&altered[..], &verify, &mut Nowhere).is_err(), "{at}");
        }
    }

    #[test]
    fn members_of_other_names_and_kinds_are_refused() {
        let json = manifest("1", b"p");
        let head = || Tar::new().file("manifest.json", &json).file("manifest.sig", &[7; SIGNATURE]);
        assert!(read_all(&head().file("codling", b"p").end()).is_ok());
        for (what, tar) in [
            ("another name", head().file("../codling", b"p")),
            ("absolute", head().file("/codling", b"p")),
            ("a dot before it", head().file("./codling", b"p")),
            ("more", head().file("codling", b"p").file("more", b"")),
            ("nothing", head()),
            ("another size", head().file("codling", b"pp")),
            ("a link", head().kind("codling", EntryType::Symlink, b"")),
            ("a hard link", head().kind("codling", EntryType::Link, b"")),
            ("a device", head().kind("codling", EntryType::Char, b"")),
            ("a directory", head().kind("codling", EntryType::Directory, b"")),
            (
                "a long name",
                head().kind("././@LongLink", EntryType::GNULongName, b"codling\0").file("x", b"p"),
            ),
            ("pax", head().kind("pax", EntryType::XHeader, b"16 path=codling\n").file("x", b"p")),
            ("no signature", Tar::new().file("manifest.json", &json).file("codling", b"p")),
            ("a short one", Tar::new().file("manifest.json", &json).file("manifest.sig", &[7; 63])),
            ("another order", Tar::new().file("manifest.sig", &[7; 64]).file("manifest.json", &json)),
        ] {
            assert!(read_all(&tar.end()).is_err(), "{what}");
        }
        let large = vec![b' '; usize::try_from(MANIFEST_MAX).unwrap() + 1];
        let error = read_all(&Tar::new().file("manifest.json", &large).end()).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    #[test]
    fn nothing_is_written_before_the_signature_was_checked() {
        struct Never;
        impl Sink for Never {
            fn begin(&mut self, file: &manifest::File) -> Result<Box<dyn Write + '_>, UpdateError> {
                panic!("{} was begun", file.name)
            }
            fn end(&mut self, _: &manifest::File) -> Result<(), UpdateError> {
                Ok(())
            }
        }
        let refuse = |_: &[u8], _: &[u8; SIGNATURE]| Err(UpdateError::Signature(1));
        assert!(matches!(read(&bundle("1", b"p")[..], &refuse, &mut Never), Err(UpdateError::Signature(1))));
    }
}
