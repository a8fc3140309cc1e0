//! Where a log is cut into messages: between lines where that is possible, and never within a character.

/// Bytes of a log in one message.
pub const PIECE: usize = 8 << 10;
/// Bytes that these may take in JSON.
const ENCODED: usize = 2 * PIECE;

/// What is known of the bytes behind those at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// More may come any moment: half a line waits for its end.
    Soon,
    /// Nothing has come for a while: half a line is sent as it is, half a character waits.
    Later,
    /// Nothing more comes.
    Never,
}

/// How many of the bytes at hand make the next piece: 0 if there are none, or if they are to wait.
#[must_use]
pub fn next_piece(bytes: &[u8], rest: Rest) -> usize {
    let window = window(bytes);
    let at_hand = bytes.get(..window).unwrap_or_default();
    if let Some(end) = at_hand.iter().rposition(|byte| *byte == b'\n') {
        return end + 1;
    }
    match rest {
        _ if window < bytes.len() || window >= PIECE => between_characters(at_hand),
        Rest::Soon => 0,
        Rest::Later => between_characters(at_hand),
        Rest::Never => window,
    }
}

/// As many bytes as one message has room for, each counted as the most that it can become.
fn window(bytes: &[u8]) -> usize {
    let mut cost = 0;
    let fits = bytes.iter().take(PIECE).take_while(|byte| {
        cost += match byte {
            b'\n' | b'\r' | b'\t' | b'"' | b'\\' => 2,
            0..=0x1f => 6,
            // Replaced, should it be no part of a character.
            0x80.. => 3,
            _ => 1,
        };
        cost <= ENCODED
    });
    fits.count()
}

/// The length without what may be the beginning of a character.
fn between_characters(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let begin = bytes.len() - back;
        let tail = bytes.get(begin..).unwrap_or_default();
        if matches!(std::str::from_utf8(tail), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
        {
            return begin;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::log_line::{LogMessage, LogStream};

    #[test]
    fn lines_stay_whole_and_characters_always() {
        assert_eq!(next_piece(b"", Rest::Never), 0);
        assert_eq!(next_piece(b"one\ntwo\nthr", Rest::Soon), 8);
        assert_eq!(next_piece(b"thr", Rest::Soon), 0);
        assert_eq!(next_piece(b"thr", Rest::Later), 3);
        assert_eq!(next_piece("a\u{e9}".as_bytes(), Rest::Later), 3);
        assert_eq!(next_piece(b"a\xc3", Rest::Later), 1);
        assert_eq!(next_piece(b"\xf0\x9f\x98", Rest::Later), 0);
        assert_eq!(next_piece(b"\xf0\x9f\x98", Rest::Never), 3);
        assert_eq!(next_piece(&[b'x'; 3 * PIECE], Rest::Soon), PIECE);
        let long = ["\u{20ac}".repeat(PIECE).into_bytes(), b"\n".to_vec()].concat();
        let first = next_piece(&long, Rest::Soon);
        assert!(first > PIECE / 2 && first.is_multiple_of(3), "{first}");
        // What grows in JSON is cut shorter.
        assert!(next_piece(&[1; PIECE], Rest::Soon) <= ENCODED / 6);
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_whole(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..30),
                    "[a-z\u{e9}\u{20ac}\u{1f600}\n]{0,20}".prop_map(String::into_bytes),
                    (any::<u8>(), 1..9000_usize).prop_map(|(byte, n)| vec![byte; n]),
                ],
                0..12,
            ),
            steps in prop::collection::vec(prop_oneof![1..9_usize, 1..5000_usize], 1..8),
            patience in any::<bool>(),
        ) {
            let whole = parts.concat();
            let (mut text, mut sent, mut seen) = (String::new(), 0, 0);
            let mut steps = steps.iter().cycle();
            loop {
                seen = (seen + steps.next().unwrap()).min(whole.len());
                let rest = match (seen == whole.len(), patience) {
                    (true, _) => Rest::Never,
                    (false, true) => Rest::Soon,
                    (false, false) => Rest::Later,
                };
                loop {
                    let n = next_piece(&whole[sent..seen], rest);
                    if n == 0 {
                        break;
                    }
                    let message = LogMessage::piece(LogStream::Stdout, &whole[sent..sent + n]);
                    prop_assert!(message.encode().len() <= ENCODED + 64 && n <= PIECE);
                    text.push_str(&message.value.line);
                    sent += n;
                }
                if rest == Rest::Never {
                    break;
                }
            }
            prop_assert_eq!(sent, whole.len());
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
