//! Reads the entries of a tar file that somebody else wrote: every length is checked before it is believed.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

use super::header::{TAR_BLOCK, padding};

/// Bytes of one extended header.
const PAX_MAX: u64 = 64 * 1024;
/// Bytes that may follow the end of the tar file, for the sake of programs that pad it.
const TAIL_MAX: u64 = 4 * 1024 * 1024;

/// What is wrong with a tar file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// The stream cannot be read, or ends too early.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no tar file, or none that makes sense.
    #[error("{0}")]
    Tar(&'static str),
    /// The caller wants no more headers.
    #[error("too many headers")]
    TooMany,
    /// A name has more bytes than it may.
    #[error("a name is too long")]
    LongName,
}

/// One entry, its bytes not yet read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) path: Vec<u8>,
    /// Where a link leads.
    pub(super) target: Vec<u8>,
    pub(super) kind: EntryType,
    /// Bytes that follow.
    pub(super) size: u64,
    pub(super) mode: u32,
}

/// What extended headers say about the entry behind them.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// The entries of a tar file, one after the other.
pub(super) struct Entries<R> {
    input: R,
    name_max: usize,
    /// Bytes of the present entry that were not read yet.
    left: u64,
    padding: usize,
}

impl<R: Read> Entries<R> {
    /// Names and link targets may have `name_max` bytes.
    pub(super) const fn new(input: R, name_max: usize) -> Self {
        Self { input, name_max, left: 0, padding: 0 }
    }

    pub(super) const fn input(&self) -> &R {
        &self.input
    }

    /// Bytes of the present entry; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.input.read(&mut buffer[..wanted])?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }

    /// The next entry; None at the end. `headers` is asked before each header, also of those that only hold names.
    pub(super) fn next(&mut self, headers: &mut dyn FnMut() -> bool) -> Result<Option<Head>, Malformed> {
        let mut pending = Pending::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            if !headers() {
                return Err(Malformed::TooMany);
            }
            let kind = header.entry_type();
            let size =
                header.entry_size().map_err(|_| Malformed::Tar("the size in a header is no number"))?;
            match kind {
                EntryType::GNULongName => pending.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => pending.target = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let records =
                        self.whole(size, PAX_MAX, Malformed::Tar("an extended header is too long"))?;
                    pending.extend(&records, self.name_max)?;
                }
                // Its map would have to be read to find the next header.
                EntryType::GNUSparse => return Err(Malformed::Tar("files with holes are not supported")),
                EntryType::XGlobalHeader if size <= PAX_MAX => self.expect(size),
                EntryType::XGlobalHeader => return Err(Malformed::Tar("a global header is too long")),
                _ => return self.head(&header, pending, size).map(Some),
            }
        }
    }

    fn head(&mut self, header: &Header, pending: Pending, size: u64) -> Result<Head, Malformed> {
        let path = pending.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let target = pending
            .target
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let kind = match header.entry_type() {
            // How the oldest tar files say it.
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        // As Go does: nothing follows these, whatever their size says.
        let size = match kind {
            EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link
            | EntryType::Fifo
            | EntryType::Char
            | EntryType::Block => 0,
            _ => pending.size.unwrap_or(size),
        };
        self.expect(size);
        Ok(Head { path, target, kind, size, mode: header.mode().unwrap_or(0o644) })
    }

    /// None at the end of the tar file.
    fn header(&mut self) -> Result<Option<Header>, Malformed> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < TAR_BLOCK {
            match self.input.read(&mut bytes[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => filled += n,
            }
        }
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        // The sum is made with blanks in its own place, bytes 148 to 155.
        let sum =
            bytes.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) });
        let sum: u32 = sum.sum();
        if header.cksum().ok() != Some(sum) {
            return Err(Malformed::Tar("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Malformed> {
        let mut name = self.whole(size, self.name_max as u64 + 1, Malformed::LongName)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// The bytes of an entry that may have at most `limit`.
    fn whole(&mut self, size: u64, limit: u64, too_long: Malformed) -> Result<Vec<u8>, Malformed> {
        if size > limit {
            return Err(too_long);
        }
        self.expect(size);
        let mut bytes = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.left = 0;
        Ok(bytes)
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let mut left = self.left.saturating_add(std::mem::take(&mut self.padding) as u64);
        self.left = 0;
        let mut buffer = [0; 4096];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.input.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => left -= n as u64,
            }
        }
        Ok(())
    }

    /// Reads what is behind the tar file, so that the checksum behind that is checked too.
    pub(super) fn finish(&mut self) -> Result<(), Malformed> {
        let tail = io::copy(&mut (&mut self.input).take(TAIL_MAX + 1), &mut io::sink())?;
        if tail > TAIL_MAX { Err(Malformed::Tar("much data behind its end")) } else { Ok(()) }
    }
}

impl Pending {
    fn extend(&mut self, records: &[u8], name_max: usize) -> Result<(), Malformed> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| Malformed::Tar("an extended header is malformed"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" | b"linkpath" if value.len() > name_max => return Err(Malformed::LongName),
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size =
                        Some(size.ok_or(Malformed::Tar("the size in an extended header is no number"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Malformed::Tar("files with holes are not supported"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
