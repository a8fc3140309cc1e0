//! What a server of results says in its headers.

use base64::Engine;
use ureq::http::HeaderMap;

use crate::model::Sha256;

/// Longest tag that is kept.
const MAX_ETAG: usize = 512;

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A header that holds a number.
pub fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// Whether it is a tag that stands for these very bytes, and no other text.
pub fn is_strong(etag: &str) -> bool {
    let inner = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    etag.len() <= MAX_ETAG && inner.is_some_and(|tag| tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"'))
}

/// The tag, if it is strong.
pub fn strong_etag(headers: &HeaderMap) -> Option<String> {
    text(headers, "etag").map(str::trim).filter(|tag| is_strong(tag)).map(str::to_owned)
}

/// First byte and whole size of `bytes 5-9/10`.
pub fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, total) = text(headers, "content-range")?.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Whole size of `bytes */10`.
pub fn unsatisfied(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.trim().strip_prefix("bytes */")?.parse().ok()
}

/// SHA-256 of the whole content, if the server names it: `Repr-Digest`, the older `Digest`, or a tag that is one.
pub fn named_digest(headers: &HeaderMap) -> Option<Sha256> {
    let decode = |encoded: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
        Some(Sha256(bytes.try_into().ok()?))
    };
    let field = |name: &str, open: &str, close: &str| {
        let items = text(headers, name)?.split(',').map(str::trim);
        items.filter_map(|item| item.strip_prefix(open)?.strip_suffix(close)).find_map(decode)
    };
    field("repr-digest", "sha-256=:", ":").or_else(|| field("digest", "sha-256=", "")).or_else(|| {
        let tag = text(headers, "etag")?.trim().trim_matches('"');
        tag.strip_prefix("sha256-").or(tag.strip_prefix("sha256:")).unwrap_or(tag).parse().ok()
    })
}
