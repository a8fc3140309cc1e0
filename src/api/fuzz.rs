//! What strangers send, once the gate has let it through.

use std::collections::BTreeMap;

use super::ask::Ask;
use super::range::{Wanted, wanted};
use crate::wire::selector::Selector;

/// A request's target: its parts and parameters, and the rules of its route.
pub(crate) fn ask(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    // The gate's rules come first, with the path as it was sent.
    let path = target.split('?').next().unwrap_or_default();
    let rules = [super::rules_of_api(method, path), super::rules_of_results(method, path)];
    assert!(rules.iter().all(|rule| rule.body <= 64 << 20), "{rules:?}");
    let Ok(ask) = Ask::new(method, target) else { return };
    if let Ok(parts) = ask.segments() {
        assert!(!parts.is_empty() && parts.iter().map(String::len).sum::<usize>() <= target.len());
    }
    for name in ["limit", "reverse", "next_token", "order_by", "namespace"] {
        let _ = (ask.query.get(name), ask.query.flag(name), ask.query.number(name));
    }
    let _ = Selector::parse(ask.query.all("labels"));
}

/// A request's way to who answers it: what the gate lets through without a token leads nowhere else, and what is
/// refused is refused in the right words.
pub(crate) fn router(data: &[u8]) {
    const OPEN: [&str; 8] = [
        "/livez",
        "/readyz",
        "/api/v1/version",
        "/api/v1/auth",
        "/api/v1/auth/{name}",
        "/api/v1/agent/alive",
        "/api/v1/agent/version",
        "/api/v1/agent/authconfig",
    ];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(ask) = Ask::new(method, target) else { return };
    // The gate lets through nothing else.
    if !ask.path.starts_with('/') {
        return;
    }
    let open = super::rules_of_api(method, &ask.path).open;
    let Ok(parts) = ask.segments() else { return };
    match super::table::find(&ask.method, &parts, &ask.path) {
        Ok(found) => {
            assert!(!open || OPEN.contains(&found.path), "{target} is open, and leads to {}", found.path);
            let of_path = found.path.split('/').zip(ask.path.split('/'));
            assert_eq!(of_path.count(), parts.len() + 1);
            assert!(found.variable.is_empty() || parts.iter().any(|part| part == found.variable));
        }
        Err(error) => {
            let allowed = error.details.get("Allow");
            assert_eq!(error.status, if allowed.is_some() { 405 } else { 404 }, "{target}");
            let listed = |words: &String| words.split(", ").any(|word| word == ask.method);
            assert!(!allowed.is_some_and(listed), "{target}: {method} is allowed, and was refused");
        }
    }
}

/// The fields of a download, a line each: a range is never empty, and inside of the file.
pub(crate) fn range(data: &[u8]) {
    const NAMES: [&str; 5] = ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since"];
    const ETAG: &str = "\"5e\"";
    const DATE: &str = "Wed, 04 May 1983 11:17:00 GMT";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let fields = NAMES.into_iter().zip(text.lines()).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let ask = Ask { method: "GET".into(), fields: fields.collect(), ..Ask::default() };
    for size in [0, 1, 2, 100, 5 << 30, u64::MAX] {
        if let Wanted::Part(first, length) = wanted(&ask, size, ETAG, DATE) {
            assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
        }
    }
}

/// Label selectors, one parameter a line, against labels made of the same text.
pub(crate) fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = Selector::parse(text.lines()) else { return };
    let mut labels = BTreeMap::new();
    let _ = selector.matches(&labels);
    for word in text.split([',', '\n', '(', ')', ' ']) {
        let (key, value) = word.split_once(['=', '<', '>']).unwrap_or((word, ""));
        labels.insert(key.to_owned(), value.trim_start_matches('=').to_owned());
    }
    let _ = selector.matches(&labels);
    if selector.is_empty() {
        assert!(text.trim().is_empty() && selector.matches(&labels));
    }
}
