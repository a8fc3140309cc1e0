//! Files that are sent within a job, as `data:` URLs.

use std::fs::File;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::job::MAX_FILE;

/// Kept free of the largest body for what a submission has around its job.
pub const WRAPPING: u64 = 1 << 10;
/// Bytes that fit into the largest body in base64, if there is nothing else in it.
const MAX_PACKED: u64 = (MAX_FILE - WRAPPING) / 4 * 3;
/// A file up to this size goes as it is, a larger one packed, as Bacalhau's command line does it.
const SMALL: usize = 512;
/// `\0asm`, and the version of core modules; components have another.
const MAGIC: [u8; 4] = *b"\0asm";
const CORE: [u8; 4] = [1, 0, 0, 0];
/// Name of the module in its archive.
const NAME: &str = "main.wasm";

/// The source of a WASM module in a file of this machine.
///
/// # Errors
/// There is no such file, it is no module that can be run, or too large to be sent.
pub fn module(path: &str) -> Result<Value, CliError> {
    let mut file = open(path)?;
    let failed = |error| cannot_read(path, error);
    let mut head = Vec::new();
    (&mut file).take(SMALL as u64 + 1).read_to_end(&mut head).map_err(failed)?;
    if let Some((why, hint)) = fault(&head) {
        return Err(CliError::new(Exit::Data, format!("{path} is not a WASM module: {why}")).hint(hint));
    }
    if head.len() <= SMALL {
        return Ok(source("application/wasm", &head));
    }
    let size = file.metadata().map_err(failed)?.len();
    let packed = pack(head.chain(file), size).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => too_large(path, "packed"),
        _ => failed(error),
    })?;
    Ok(source("application/gzip", &packed))
}

/// The source of any file of this machine, which becomes one file at the input's target.
///
/// # Errors
/// There is no such file, or it is too large to be sent.
pub fn file(path: &str) -> Result<Value, CliError> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_PACKED + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(path, error))?;
    if bytes.len() as u64 > MAX_PACKED {
        return Err(too_large(path, "as it is"));
    }
    Ok(source("application/octet-stream", &bytes))
}

/// A file that a job cannot hold.
pub fn too_large(path: &str, how: &str) -> CliError {
    let what = format!(
        "{path} is too large to be sent within a job: it would be more than {} MiB {how}",
        MAX_FILE >> 20
    );
    CliError::new(Exit::Data, what).hint(
        "put it where the node can fetch it and give its URL, or on the node's own disk as file:///path \
         (Compute.AllowListedLocalPaths)",
    )
}

fn open(path: &str) -> Result<File, CliError> {
    let file = File::open(path).map_err(|error| cannot_read(path, error))?;
    if !file.metadata().map_err(|error| cannot_read(path, error))?.is_file() {
        return Err(CliError::new(Exit::Data, format!("{path} is not a file")));
    }
    Ok(file)
}

fn cannot_read(path: &str, error: io::Error) -> CliError {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Io };
    CliError::caused(exit, format!("cannot read {path}"), error)
}

/// Why these are not the first bytes of a module, and what to do about it.
fn fault(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = head.trim_ascii_start();
    if head.starts_with(&MAGIC) {
        let version = head.get(4..8);
        return match version {
            Some(version) if version == CORE => None,
            Some([_, _, 1, 0]) => Some((
                "it is a component",
                "nodes run core modules with WASI preview 1: build it for wasm32-wasip1",
            )),
            _ => Some(("it is of an unknown version", "nodes run core modules of version 1")),
        };
    }
    if start.starts_with(b"(module") || start.starts_with(b"(component") || start.starts_with(b";;") {
        return Some(("it is the text form", "'wat2wasm' makes the binary form of it"));
    }
    if head.is_empty() {
        return Some(("it is empty", ""));
    }
    Some(("it does not begin with \\0asm", "build the program for wasm32-wasip1"))
}

fn source(media: &str, bytes: &[u8]) -> Value {
    let url = format!("data:{media};base64,{}", STANDARD.encode(bytes));
    json!({"Type": "inline", "Params": {"URL": url}})
}

/// A `.tar.gz` with one file; equal files give equal archives.
fn pack(content: impl Read, size: u64) -> io::Result<Vec<u8>> {
    let gzip = GzEncoder::new(Bounded(Vec::new()), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    // A file that grew or shrank meanwhile would spoil the archive.
    let mut content = content.take(size);
    let mut exact = Exact { content: &mut content, left: size };
    tar.append_data(&mut header, NAME, &mut exact)?;
    Ok(tar.into_inner()?.finish()?.0)
}

/// A reader that fails if there is less than was announced.
struct Exact<'a, R> {
    content: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.left = self.left.saturating_sub(n as u64);
        if n == 0 && !buffer.is_empty() && self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became smaller while it was read"));
        }
        Ok(n)
    }
}

/// Takes as much as a job can hold.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_PACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_told_apart() {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        assert_eq!(fault(&module), None);
        module.extend([0; 600]);
        assert_eq!(fault(&module), None);
        for (head, why) in [
            (&b""[..], "empty"),
            (b"\0asm", "unknown version"),
            (b"\0asm\x0d\0\x01\0", "component"),
            (b"\0asm\x02\0\0\0", "unknown version"),
            (b"\n (module)", "text form"),
            (b";; x\n(module)", "text form"),
            (b"\x7fELF", "does not begin"),
        ] {
            assert!(fault(head).unwrap().0.contains(why), "{head:?}");
        }
    }

    #[test]
    fn an_archive_holds_the_file_and_is_the_same_each_time() {
        let bytes: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        let packed = pack(&bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(packed, pack(&bytes[..], bytes.len() as u64).unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(NAME));
        let mut read = Vec::new();
        entry.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_file_that_changes_is_no_archive() {
        assert_eq!(pack(&b"abc"[..], 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        pack(&b"abcdef"[..], 4).unwrap();
    }

    #[test]
    fn packing_ends_where_a_job_does() {
        // Noise, so that packing does not make it smaller.
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(usize::try_from(MAX_PACKED).unwrap() + (64 << 10)).collect();
        let size = noise.len() as u64;
        assert_eq!(pack(&noise[..], size).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // What packs well may be larger.
        pack(io::repeat(0), 4 * MAX_PACKED).unwrap();
    }
}
