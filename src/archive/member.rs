//! One file of an archive, read a step at a time: whoever does so has others to look after.

use std::fs::File;
use std::io::{self, BufReader};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use super::entries::{Entries, Malformed};

/// Bytes that are read of the archive at once.
const BUFFER: usize = 16 * 1024;
/// Bytes of a name.
const PATH_MAX: usize = 4095;

/// A file inside a `.tar.gz`.
pub struct Member {
    entries: Entries<MultiGzDecoder<BufReader<File>>>,
    name: &'static str,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Between,
    Elsewhere,
    Inside,
    Behind,
}

/// What a step has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of the file.
    Bytes(usize),
    /// It was further away than one step.
    Nearer,
    /// The file, or the archive, is at its end.
    End,
}

impl Member {
    /// The file of that name at the archive's top.
    #[must_use]
    pub fn open(archive: File, name: &'static str) -> Self {
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, archive));
        Self { entries: Entries::new(decoder, PATH_MAX), name, place: Place::Between }
    }

    /// Goes on by at most as many bytes as `buffer` has.
    ///
    /// # Errors
    /// The archive cannot be read, or is none.
    pub fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        match self.place {
            Place::Behind => Ok(Step::End),
            Place::Between => {
                let head = self.entries.next(&mut || true).map_err(|error| match error {
                    Malformed::Io(error) => error,
                    other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
                })?;
                let Some(head) = head else {
                    self.place = Place::Behind;
                    return Ok(Step::End);
                };
                let plain = matches!(head.kind, EntryType::Regular | EntryType::Continuous);
                let path = head.path.strip_prefix(b"./").unwrap_or(&head.path);
                let found = plain && path == self.name.as_bytes();
                self.place = if found { Place::Inside } else { Place::Elsewhere };
                Ok(Step::Nearer)
            }
            Place::Inside => match self.entries.read(buffer)? {
                0 => {
                    self.place = Place::Behind;
                    Ok(Step::End)
                }
                n => Ok(Step::Bytes(n)),
            },
            Place::Elsewhere => {
                if self.entries.read(buffer)? == 0 {
                    self.place = Place::Between;
                }
                Ok(Step::Nearer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{PackOptions, pack};
    use crate::sys::Interrupt;

    fn read(archive: &std::path::Path, name: &'static str) -> (Vec<u8>, usize) {
        let mut member = Member::open(File::open(archive).unwrap(), name);
        let (mut bytes, mut buffer, mut steps) = (Vec::new(), [0; 1000], 0);
        loop {
            steps += 1;
            match member.step(&mut buffer).unwrap() {
                Step::Bytes(n) => bytes.extend_from_slice(&buffer[..n]),
                Step::Nearer => {}
                Step::End => return (bytes, steps),
            }
        }
    }

    #[test]
    fn each_file_is_found_in_small_steps() {
        let dir = crate::archive::testing::Scratch::new();
        let result = dir.path().join("result");
        std::fs::create_dir_all(result.join("outputs")).unwrap();
        let lines = "a line\n".repeat(5000);
        for (name, text) in
            [("stdout", lines.as_str()), ("stderr", ""), ("exitCode", "0"), ("outputs/stdout", "another")]
        {
            std::fs::write(result.join(name), text).unwrap();
        }
        let archive = dir.path().join("a.tar.gz");
        let mut file = File::create(&archive).unwrap();
        pack(&result, &mut file, &PackOptions::default(), &Interrupt::new()).unwrap();
        let (stdout, steps) = read(&archive, "stdout");
        assert_eq!(stdout, lines.as_bytes());
        assert!(steps > 35, "{steps}");
        assert_eq!(read(&archive, "stderr").0, b"");
        assert_eq!(read(&archive, "exitCode").0, b"0");
        assert_eq!(read(&archive, "nothing").0, b"");
        // Cut off: an error, and no end that looks like one.
        let whole = std::fs::read(&archive).unwrap();
        std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
        let mut member = Member::open(File::open(&archive).unwrap(), "stdout");
        let mut buffer = [0; 1000];
        let end = (0..1000).find_map(|_| match member.step(&mut buffer) {
            Ok(Step::End) => Some(true),
            Ok(_) => None,
            Err(_) => Some(false),
        });
        assert_eq!(end, Some(false));
    }
}
