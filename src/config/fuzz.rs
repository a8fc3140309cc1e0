//! Files, variables and arguments, and the values in them.

use std::path::Path;

use super::load::{check, load};
use super::{Advertise, CliOverrides, FakeEnv, Host, LocalPath, MAX_FINDINGS, Scale, Secret, values};
use crate::model::units;

/// A file; behind a line `---env`, variables and, with `-c`, arguments, a line each. What is wrong is said, and in
/// bounded space; files named in it are not there.
pub(crate) fn config(data: &[u8]) {
    const MARK: &[u8] = b"\n---env\n";
    let at = data.windows(MARK.len()).position(|part| part == MARK);
    let (file, rest) = match at {
        Some(at) => (&data[..at], &data[at + MARK.len()..]),
        None => (data, &[][..]),
    };
    let mut env = FakeEnv::of(&[("HOME", "/nonexistent")]);
    let mut cli = CliOverrides::default();
    let text = String::from_utf8_lossy(rest);
    for line in text.lines() {
        if let Some(argument) = line.strip_prefix("-c ") {
            cli.add(argument);
        } else if let Some((name, value)) = line.split_once('=') {
            env.0.insert(name.to_owned(), value.into());
        }
    }
    // Only text is fuzzed here; what else lies on this machine is not its business.
    cli.files.clear();
    for finding in check(Path::new("config.yaml"), file, &env) {
        assert!(finding.to_string().chars().count() < 4000, "{finding}");
    }
    match load(&cli, &env) {
        Ok(loaded) => assert!(loaded.warnings.len() <= MAX_FINDINGS + 1),
        Err(error) => assert!(!error.findings.is_empty() && error.findings.len() <= MAX_FINDINGS + 1),
    }
}

/// Addresses, base URLs, paths, shares, sizes and times: what is taken can be written and read again.
pub(crate) fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host), "{text:?}");
    }
    match Advertise::parse(text) {
        Ok(Advertise::Url(url)) => {
            assert!(url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\')));
            assert!(
                !url.ends_with('/') && Advertise::parse(&url) == Ok(Advertise::Url(url.clone())),
                "{url}"
            );
        }
        Ok(Advertise::Host(Host::Ip(ip), _)) => assert!(!ip.is_multicast() && !ip.is_unspecified()),
        Ok(_) | Err(_) => {}
    }
    if let Ok(path) = LocalPath::parse(text) {
        assert!(path.pattern.starts_with(['/', '*']) && !path.pattern.split('/').any(|part| part == ".."));
    }
    if let Ok(Scale::Percent(percent)) = values::parse_scale(text, units::parse_bytes) {
        assert!((0.0..=100.0).contains(&percent));
    }
    if let Ok(secret) = Secret::parse(text) {
        assert!(secret.matches(text.trim()));
        assert_eq!(format!("{secret:?}"), "(set)");
    }
    if let Ok(bytes) = units::parse_bytes(text) {
        let _ = bytes.to_string();
    }
    let _ = (units::parse_cpu(text), units::parse_gpu(text));
    if let Ok(time) = units::parse_duration(text) {
        let shown = units::format_duration(time);
        assert!(units::parse_duration(&shown).is_ok(), "{text:?} is shown as {shown:?}");
    }
}
