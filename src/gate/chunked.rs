//! Takes a chunked body apart, strictly and a piece at a time.

use crate::wire::Code;

use super::limits::CHUNK_EXTRAS;
use super::refusal::Refusal;

/// Digits of a chunk's size: far more than any limit allows.
const SIZE_DIGITS: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reading the size; how many digits so far.
    Size(u8),
    /// Reading a chunk extension, which nobody looks at.
    Extension,
    /// The CR of a size line was read.
    SizeLf,
    /// Reading data; how many bytes are to come.
    Data(u64),
    /// The data is over.
    DataCr,
    DataLf,
    /// Reading trailer fields, which nobody looks at; whether the line is empty so far.
    Trailer(bool),
    /// The CR of a trailer line was read; whether the line was empty.
    TrailerLf(bool),
    Done,
}

/// A decoder for one body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    size: u64,
    extras: usize,
    limit: u64,
    total: u64,
}

impl Chunked {
    /// For a body of at most `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        Self { state: State::Size(0), size: 0, extras: 0, limit, total: 0 }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what it can of `input`, appends the data to `out`, and says how much it took: all of it, or up to
    /// the end of the body.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if let State::Data(left) = self.state {
                let rest = input.get(at..).unwrap_or_default();
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                out.extend_from_slice(rest.get(..n).unwrap_or_default());
                at += n;
                let left = left - n as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                continue;
            }
            if self.is_done() {
                break;
            }
            self.state = self.byte(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn byte(&mut self, byte: u8) -> Result<State, Refusal> {
        let bad = || Err(Refusal::bad("the chunked body is malformed"));
        match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size(digits + 1))
            }
            (State::Size(digits), b'\r') if digits > 0 => Ok(State::SizeLf),
            (State::Size(digits), b';') if digits > 0 => Ok(State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\t' | b' '..=b'~') => self.extra(State::Extension),
            (State::SizeLf, b'\n') => self.chunk(),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::Trailer(empty), b'\r') => Ok(State::TrailerLf(empty)),
            // A first byte that is a blank would fold the line before.
            (State::Trailer(true), b'!'..=b'~') | (State::Trailer(false), b'\t' | b' '..=b'~') => {
                self.extra(State::Trailer(false))
            }
            (State::TrailerLf(true), b'\n') => Ok(State::Done),
            (State::TrailerLf(false), b'\n') => Ok(State::Trailer(true)),
            _ => bad(),
        }
    }

    /// The size line is over.
    fn chunk(&mut self) -> Result<State, Refusal> {
        let size = std::mem::take(&mut self.size);
        self.total = self.total.saturating_add(size);
        if self.total > self.limit {
            return Err(too_large(self.limit));
        }
        Ok(if size == 0 { State::Trailer(true) } else { State::Data(size) })
    }

    fn extra(&mut self, next: State) -> Result<State, Refusal> {
        self.extras += 1;
        if self.extras > CHUNK_EXTRAS {
            return Err(Refusal::bad("the chunked body has too many extensions or trailers"));
        }
        Ok(next)
    }
}

/// A body is larger than may be sent there.
pub fn too_large(limit: u64) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body is larger than the {limit} bytes that are taken here"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(input: &[u8], limit: u64, step: usize) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut decoder = Chunked::new(limit);
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in input.chunks(step.max(1)) {
            let n = decoder.feed(piece, &mut out).map_err(|refusal| refusal.code.status())?;
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        Ok((out, taken, decoder.is_done()))
    }

    #[test]
    fn bodies_are_put_together() {
        let text = b"5\r\nhello\r\n1;a=\"b\"\r\n \r\nA\r\nworld56789\r\n000\r\nX: y\r\nZ: a b\r\n\r\nGET /";
        for step in 1..text.len() {
            let (out, taken, done) = decode(text, 100, step).unwrap();
            assert_eq!((out.as_slice(), taken, done), (&b"hello world56789"[..], text.len() - 5, true));
        }
        assert_eq!(decode(b"0\r\n\r\n", 0, 9), Ok((vec![], 5, true)));
        assert_eq!(decode(b"5\r\nhel", 5, 9), Ok((b"hel".to_vec(), 6, false)));
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        for (text, wanted) in [
            ("\r\n", 400),
            ("g\r\n", 400),
            ("+5\r\nhello", 400),
            ("0x5\r\nhello", 400),
            (" 5\r\nhello", 400),
            ("5 \r\nhello", 400),
            ("5\nhello", 400),
            ("5\rhello", 400),
            (";a\r\n", 400),
            ("5;a\nhello", 400),
            ("5;\0\r\nhello", 400),
            ("5\r\nhello0\r\n", 400),
            ("5\r\nhelloXY", 400),
            ("5\r\nhello\n0\r\n\r\n", 400),
            ("0\r\nX: y\nZ\r\n\r\n", 400),
            ("0\r\n X: y\r\n\r\n", 400),
            ("0\r\nX: \0\r\n\r\n", 400),
            ("123456789\r\n", 400),
            ("ffffffff\r\n", 413),
            ("b\r\n", 413),
            ("5\r\nhello\r\n6\r\n", 413),
        ] {
            assert_eq!(decode(text.as_bytes(), 10, 3), Err(wanted), "{text:?}");
        }
        let extension = format!("1;{}\r\n", "a".repeat(CHUNK_EXTRAS + 1));
        assert_eq!(decode(extension.as_bytes(), 10, 100), Err(400));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(CHUNK_EXTRAS));
        assert_eq!(decode(trailers.as_bytes(), 10, 100), Err(400));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8), step in 1usize..9) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&text, 1000, step), Ok((pieces.concat(), text.len(), true)));
        }

        #[test]
        fn nothing_panics_and_the_limit_holds(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "([0-9a-f]{1,2}\r\n[a-z]{0,20}(\r\n)?){0,6}".prop_map(String::into_bytes),
        ], step in 1usize..9) {
            if let Ok((out, taken, _)) = decode(&bytes, 32, step) {
                prop_assert!(out.len() <= 32 && taken <= bytes.len());
            }
        }
    }
}
