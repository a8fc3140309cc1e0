//! What strangers send to the public ports.

use super::chunked::Chunked;
use super::head::{end_of_head, parse};
use super::limits::{HEAD_BYTES, HEAD_FIELDS};

/// A head: what is taken is clean, and has one meaning only.
pub(crate) fn head(data: &[u8]) {
    let end = end_of_head(data).unwrap_or(data.len()).min(HEAD_BYTES);
    let bytes = data.get(..end).unwrap_or_default();
    let Ok(head) = parse(bytes) else { return };
    let clean = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    assert!(head.target.starts_with('/') && clean(&head.target) && !head.target.contains([' ', '#']));
    assert!(clean(&head.host) && !head.host.contains([' ', '/']));
    assert!(head.passed.len() <= HEAD_FIELDS && head.passed.iter().all(|(_, value)| clean(value)));
    assert!(head.authorization.as_deref().is_none_or(clean) && head.origin.as_deref().is_none_or(clean));
    // Nobody who splits lines in another way sees another request.
    let text = String::from_utf8_lossy(bytes);
    let fields = |name: &str| {
        let is = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.trim().eq_ignore_ascii_case(name));
        text.split(['\r', '\n']).filter(is).count()
    };
    let (length, coding) = (fields("content-length"), fields("transfer-encoding"));
    assert!(length + coding <= 1 && fields("host") <= 1, "{length} lengths, {coding} codings");
    assert_eq!(length + coding == 0, !head.has_body() && length == 0, "a body that was not announced");
}

/// A chunked body: never more than the limit, and the same however it is cut in pieces.
pub(crate) fn chunked(data: &[u8]) {
    const LIMIT: u64 = 1000;
    let decode = |step: usize| {
        let mut decoder = Chunked::new(LIMIT);
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in data.chunks(step) {
            let Ok(n) = decoder.feed(piece, &mut out) else { return (out, None) };
            taken += n;
            if n < piece.len() {
                assert!(decoder.is_done(), "input is left over");
                break;
            }
        }
        (out, Some((taken, decoder.is_done())))
    };
    let whole = decode(data.len().max(1));
    assert!(whole.0.len() as u64 <= LIMIT && whole.0.len() <= data.len());
    assert_eq!(decode(1), whole);
    assert_eq!(decode(7), whole);
}
