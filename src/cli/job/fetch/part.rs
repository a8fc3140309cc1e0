//! What is here of an archive, on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::Digest;
use ureq::Body;

use super::headers::is_strong;
use super::{Archive, Attempt, FetchError, Fetched};
use crate::cli::progress::Bar;
use crate::model::{Bytes, Sha256};
use crate::sys::{DiskProbe, StatVfs};

/// Largest archive that is fetched: Bacalhau's own limit for one file.
pub const MAX_ARCHIVE: u64 = 100 << 30;

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// What is here of an archive, and its running digest.
pub struct Part {
    file: File,
    path: PathBuf,
    etag_path: PathBuf,
    /// Bytes that are here.
    pub len: u64,
    hasher: sha2::Sha256,
    /// The server's tag of the content that they belong to.
    pub etag: Option<String>,
    /// The digest that the server names.
    pub named: Option<Sha256>,
    /// Whether bytes may be added to it without a tag: the digest will tell.
    digest_known: bool,
}

impl Part {
    /// Opens what an earlier run left, if it can be told what it is; otherwise begins anew.
    pub fn open(dir: &Path, archive: &Archive) -> Result<Self, FetchError> {
        let path = dir.join(format!("{}.partial", archive.name));
        let etag_path = dir.join(format!("{}.partial.etag", archive.name));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| FetchError::Io { path: path.clone(), source })?;
        let etag = fs::read_to_string(&etag_path).ok().filter(|text| is_strong(text));
        let digest_known = archive.sha256.is_some();
        let hasher = sha2::Sha256::new();
        let mut part = Self { file, path, etag_path, len: 0, hasher, etag, named: None, digest_known };
        if part.etag.is_some() || digest_known {
            part.hash_what_is_there().map_err(|source| part.io(source))?;
        } else {
            part.restart(None)?;
        }
        Ok(part)
    }

    fn hash_what_is_there(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&buffer[..n]);
                    self.len += n as u64;
                }
            }
        }
    }

    /// Forgets all that is there. The tag is written before the bytes that it belongs to.
    pub fn restart(&mut self, etag: Option<String>) -> Result<(), FetchError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| self.io(source))?;
        let noted = match &etag {
            Some(etag) => fs::write(&self.etag_path, etag),
            None => match fs::remove_file(&self.etag_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        noted.map_err(|source| FetchError::Io { path: self.etag_path.clone(), source })?;
        (self.len, self.hasher, self.etag, self.named) = (0, sha2::Sha256::new(), etag, None);
        Ok(())
    }

    /// Whether a part that carries this tag continues what is here.
    pub fn is_same(&self, etag: Option<&str>) -> bool {
        match (&self.etag, etag) {
            (Some(mine), Some(theirs)) => mine == theirs,
            // If-Range was sent and honoured.
            (Some(_), None) => true,
            (None, _) => self.digest_known,
        }
    }

    pub fn check_room(&self, total: Option<u64>) -> Result<(), FetchError> {
        let need = Bytes(total.unwrap_or(0).saturating_sub(self.len));
        let dir = self.path.parent().unwrap_or(Path::new("."));
        // A file system that does not say what is free says so when it is full.
        match StatVfs::new(dir).space() {
            Ok(space) if space.free < need => {
                Err(FetchError::NoRoom { dir: dir.to_owned(), need, free: space.free })
            }
            _ => Ok(()),
        }
    }

    /// Adds what the server sends.
    pub fn fill(&mut self, body: Body, total: Option<u64>, bar: &mut Bar<'_>) -> Result<Attempt, FetchError> {
        let limit = total.unwrap_or(MAX_ARCHIVE);
        if limit > MAX_ARCHIVE {
            return Err(FetchError::TooLarge);
        }
        let mut reader = body.into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Ok(self.interrupted(ureq::Error::from(error))),
            };
            if self.len.saturating_add(n as u64) > limit {
                return Err(FetchError::TooLarge);
            }
            self.file.write_all(&buffer[..n]).map_err(|source| self.io(source))?;
            self.hasher.update(&buffer[..n]);
            self.len += n as u64;
            bar.at(self.len);
        }
        if total.is_some_and(|total| self.len < total) {
            let early = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed early");
            return Ok(self.interrupted(early.into()));
        }
        Ok(Attempt::Done)
    }

    /// Without a tag or digest nobody can say that the rest would belong to what is here.
    fn interrupted(&self, error: ureq::Error) -> Attempt {
        let resumes = self.etag.is_some() || self.digest_known;
        if resumes || self.len == 0 { Attempt::Again(error) } else { Attempt::Restart }
    }

    pub fn verify(&self, archive: &Archive) -> Result<Fetched, FetchError> {
        if let Some(expected) = archive.size.filter(|size| *size != self.len) {
            return Err(FetchError::WrongSize { actual: self.len, expected });
        }
        let actual = Sha256(self.hasher.clone().finalize().into());
        let expected = archive.sha256.or(self.named);
        match expected {
            Some(expected) if expected != actual => Err(FetchError::WrongDigest { actual, expected }),
            _ => Ok(Fetched {
                path: self.path.clone(),
                size: self.len,
                sha256: actual,
                verified: expected.is_some(),
            }),
        }
    }

    /// What is here is of no use to anybody; that it cannot be removed changes nothing.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.etag_path);
    }

    fn io(&self, source: io::Error) -> FetchError {
        FetchError::Io { path: self.path.clone(), source }
    }
}
