//! Inputs that lie in the job itself, as a `data:` URL.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Sink, cannot_write, invalid, required};
use crate::archive::{UnpackError, UnpackLimits, unpack};
use crate::engine::Mount;
use crate::engine::causes::{over_limit, stopped};
use crate::model::units::DISK_BLOCK;
use crate::model::{Failure, SpecConfig};

/// Entries of one archive.
const ENTRIES_MAX: u64 = 100_000;
/// Names in a path, as many as a guest itself may nest.
const DEPTH_MAX: usize = 120;

/// A gzip'd tar becomes a directory at `target`; anything else is one file there.
pub(super) fn fetch(source: &SpecConfig, target: &str, sink: &Sink) -> Result<Mount, Failure> {
    let (media, data) = decode(required(source, "URL")?)?;
    let archive = matches!(media.as_str(), "application/gzip" | "application/x-gzip" | "application/x-tgz");
    let host = sink.dir.join("inline");
    sink.create_dir()?;
    sink.charge(DISK_BLOCK)?;
    if archive {
        std::fs::create_dir(&host).map_err(|e| cannot_write(&host, &e))?;
        unpack_plain(&data, &host, sink)?;
    } else {
        sink.charge(data.len() as u64)?;
        write(&host, &data).map_err(|e| cannot_write(&host, &e))?;
    }
    Ok(Mount { guest: target.to_owned(), host, writable: false, handle: None })
}

/// Directories and regular files are taken, anything else is an error. The job is not trusted; how much comes out is
/// the meter's business.
pub(super) fn unpack_plain(data: &[u8], dest: &Path, sink: &Sink) -> Result<(), Failure> {
    let limits = UnpackLimits {
        entries: ENTRIES_MAX,
        depth: DEPTH_MAX,
        plain: true,
        meter: Some(sink.meter),
        interrupt: Some(sink.interrupt),
        ..UnpackLimits::default()
    };
    let Err(error) = unpack(data, dest, &limits) else { return Ok(()) };
    let holds = |path: &str, why: &str| invalid(format!("the inline archive holds {path}, {why}"));
    Err(match error {
        UnpackError::NoRoom { source, .. } => over_limit(source),
        UnpackError::Interrupted(cause) => stopped(cause),
        UnpackError::Create { path, source } => cannot_write(Path::new(&path), &source),
        UnpackError::NotPlain { path } => holds(&path, "neither a file nor a directory"),
        UnpackError::Outside { path } => holds(&path, "which leads out of its directory"),
        UnpackError::LongName { path, .. } if path.is_empty() => {
            invalid("the inline archive has a name that is too long")
        }
        UnpackError::LongName { path, .. } => holds(&path, "which lies too deep or is too long"),
        UnpackError::Damaged(cause) => {
            invalid(format!("the inline archive is damaged, cut off, or no .tar.gz: {cause}"))
        }
        other => invalid(format!("the inline archive cannot be unpacked: {other}")),
    })
}

fn write(path: &Path, data: &[u8]) -> std::io::Result<()> {
    std::fs::File::create_new(path)?.write_all(data)
}

/// Media type in lower case, without its parameters, and the data (RFC 2397).
fn decode(url: &str) -> Result<(String, Vec<u8>), Failure> {
    let begins =
        |prefix: &str| url.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    if !begins("data:") {
        return Err(invalid("Source.Params.URL of an inline source must be a data: URL"));
    }
    let (head, data) = url
        .get(5..)
        .and_then(|rest| rest.split_once(','))
        .ok_or_else(|| invalid("the data: URL has no comma: data:[<type>][;base64],<data>"))?;
    let mut words = head.split(';').map(str::trim);
    let media = words.next().unwrap_or_default().to_ascii_lowercase();
    let data = percent_decoded(data);
    if !words.any(|word| word.eq_ignore_ascii_case("base64")) {
        return Ok((media, data));
    }
    // Both alphabets, with or without padding, with blanks: as others take it.
    let data: Vec<u8> = data.into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
    let alphabet = if data.iter().any(|b| matches!(b, b'-' | b'_')) { &URL_SAFE } else { &STANDARD };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(alphabet, config).decode(&data);
    decoded.map(|data| (media, data)).map_err(|e| invalid(format!("the data: URL is not valid base64: {e}")))
}

/// `%41` becomes `A`; what only looks like it is left alone.
pub(super) fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let digit =
        |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls() {
        let table: [(&str, &str, &[u8]); 9] = [
            ("data:,hello%20world", "", b"hello world"),
            ("data:text/plain;charset=utf-8,a,b", "text/plain", b"a,b"),
            ("data:;base64,aGVsbG8=", "", b"hello"),
            ("data:;base64,aGVsbG8", "", b"hello"),
            ("data:;base64,aGVs\nbG8%3D", "", b"hello"),
            ("DATA:Application/GZIP;BASE64,-_8", "application/gzip", &[0xfb, 0xff]),
            ("data:;base64,+/8=", "", &[0xfb, 0xff]),
            ("data:,100%", "", b"100%"),
            ("data:,%zz%4", "", b"%zz%4"),
        ];
        for (url, media, data) in table {
            assert_eq!(decode(url).unwrap(), (media.to_owned(), data.to_vec()), "{url}");
        }
        for bad in ["http://x/", "data:no-comma", "data:;base64,a", "data:;base64,####", "\u{e9}data:,x", ""]
        {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
