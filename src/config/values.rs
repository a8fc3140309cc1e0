//! Values that settings have: each is parsed once, here, and cannot be wrong afterwards.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Bytes, MilliCpu, Sha256, units};

/// An amount, or a part of whatever there is of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale<T> {
    /// So much.
    Amount(T),
    /// 0 to 100, of the whole.
    Percent(f64),
}

impl Scale<Bytes> {
    /// The amount, `whole` being all there is.
    #[must_use]
    pub fn of(&self, whole: Bytes) -> Bytes {
        match self {
            Self::Amount(bytes) => *bytes,
            Self::Percent(percent) => whole.percent(*percent),
        }
    }
}

impl Scale<MilliCpu> {
    /// The amount, `whole` being all there is.
    #[must_use]
    pub fn of(&self, whole: MilliCpu) -> MilliCpu {
        match self {
            Self::Amount(cpu) => *cpu,
            Self::Percent(percent) => MilliCpu(Bytes(whole.0).percent(*percent).0),
        }
    }
}

impl Scale<u32> {
    /// The amount, `whole` being all there is; at least one of what is there, if it is not 0 %.
    #[must_use]
    pub fn of(&self, whole: u32) -> u32 {
        match self {
            Self::Amount(n) => *n,
            Self::Percent(percent) => {
                let part = u32::try_from(Bytes(whole.into()).percent(*percent).0).unwrap_or(whole);
                part.max(u32::from(whole > 0 && *percent > 0.0))
            }
        }
    }
}

/// A text that is not what the key wants; the fragment says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub String);

impl From<units::UnitError> for ValueError {
    fn from(error: units::UnitError) -> Self {
        Self(error.to_string())
    }
}

/// Parses `10%`, or else an amount.
///
/// # Errors
/// Neither, or not between 0 % and 100 %.
pub fn parse_scale<T>(
    text: &str,
    amount: fn(&str) -> Result<T, units::UnitError>,
) -> Result<Scale<T>, ValueError> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return Ok(Scale::Amount(amount(text)?));
    };
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Scale::Percent(percent)),
        _ => Err(ValueError(format!("'{}' is not a percentage between 0% and 100%", text.trim()))),
    }
}

/// A token that others must show. Only its digest is kept: what is not there cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    digest: Sha256,
    weak: bool,
}

impl Secret {
    /// Shortest and longest token that is taken, in bytes.
    pub const LENGTHS: std::ops::RangeInclusive<usize> = 1..=512;

    /// Fewer characters than this can be guessed.
    const SAFE: usize = 16;

    /// Takes a token: printable ASCII without blanks, since it travels in a header line.
    ///
    /// # Errors
    /// It is something else, or too short or too long. The message does not repeat it.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ValueError("the token is empty".into()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ValueError("the token has characters other than printable ASCII, or blanks".into()));
        }
        if !Self::LENGTHS.contains(&text.len()) {
            return Err(ValueError(format!(
                "the token has {} characters; {} to {} are taken",
                text.len(),
                Self::LENGTHS.start(),
                Self::LENGTHS.end()
            )));
        }
        Ok(Self { digest: Sha256::of(text.as_bytes()), weak: text.len() < Self::SAFE })
    }

    /// Whether it is short enough to be guessed.
    #[must_use]
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    /// Whether `given` is it. How long that takes tells nothing: neither where they differ, nor how long the token
    /// is, since digests of one length are compared, all of them.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        let given = Sha256::of(given.as_bytes());
        let differ = self.digest.0.iter().zip(given.0).fold(0, |acc, (a, b)| acc | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name that is looked up when the socket is made.
    Name(String),
}

impl Host {
    /// 127.0.0.1.
    pub const LOOPBACK: Self = Self::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// Parses an address, a name, or one of Bacalhau's words for the own machine and for all of its addresses.
    ///
    /// # Errors
    /// It is neither, or a word that would have to be looked up among the interfaces.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if let Some(ip) = parse_ip(text) {
            return Ok(Self::Ip(ip));
        }
        match text.to_ascii_lowercase().as_str() {
            "localhost" | "loopback" | "local" => Ok(Self::LOOPBACK),
            "any" => Ok(Self::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            "private" | "public" | "linklocal" | "multicast" => Err(ValueError(format!(
                "'{text}' is a word for an address, not an address to listen on; \
                 give the address, or 0.0.0.0 for all of this machine"
            ))),
            name if is_host_name(name) => Ok(Self::Name(name.into())),
            _ => Err(ValueError(format!("'{}' is not an address or host name", clip(text)))),
        }
    }

    /// Whether only this machine can reach it. A name other than `localhost` is not trusted to be.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
                Some(ip) => ip.is_loopback(),
                None => ip.is_loopback(),
            },
            Self::Ip(IpAddr::V4(ip)) => ip.is_loopback(),
            Self::Name(_) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => f.pad(&ip.to_string()),
            Self::Name(name) => f.pad(name),
        }
    }
}

/// Bacalhau's words for an address of this machine (local-publisher.md section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressWord {
    /// RFC 1918 or carrier-grade NAT.
    Private,
    /// Global and none of those.
    Public,
    /// 169.254.0.0/16.
    LinkLocal,
    /// 224.0.0.0/4: no machine has such an address, but Bacalhau knows the word.
    Multicast,
    /// The best there is.
    Any,
}

impl AddressWord {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::LinkLocal => "linklocal",
            Self::Multicast => "multicast",
            Self::Any => "any",
        }
    }
}

/// What stands in the URLs of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// Nothing set: the host by which the client reached the node.
    Asked,
    /// An address of this machine, found when it is needed.
    Word(AddressWord),
    /// A host, and a port if it differs from the server's.
    Host(Host, Option<u16>),
    /// A base URL, such as a reverse proxy's, without a slash at its end.
    Url(String),
}

impl Advertise {
    /// Parses what `Publishers.Types.Local.Address` may be: nothing, a word, a host, `host:port`, a base URL.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let error = || {
            ValueError(format!(
                "'{}' is not an address, host, host:port or base URL (http://... or https://...)",
                clip(text)
            ))
        };
        if text.contains("://") {
            return if is_base_url(text) {
                Ok(Self::Url(text.trim_end_matches('/').into()))
            } else {
                Err(error())
            };
        }
        match text.to_ascii_lowercase().as_str() {
            "" => return Ok(Self::Asked),
            "private" => return Ok(Self::Word(AddressWord::Private)),
            "public" => return Ok(Self::Word(AddressWord::Public)),
            "linklocal" => return Ok(Self::Word(AddressWord::LinkLocal)),
            "multicast" => return Ok(Self::Word(AddressWord::Multicast)),
            "any" => return Ok(Self::Word(AddressWord::Any)),
            _ => {}
        }
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address without brackets has colons of its own.
            Some(_) if text.parse::<Ipv6Addr>().is_ok() || text.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| error())?)),
            None => (text, None),
        };
        match Host::parse(host).map_err(|_| error())? {
            // A URL with 0.0.0.0 leads nowhere: what was meant is "whichever address the client used".
            Host::Ip(ip) if ip.is_unspecified() && port.is_none() => Ok(Self::Asked),
            Host::Ip(ip) if ip.is_unspecified() || ip.is_multicast() => Err(error()),
            host => Ok(Self::Host(host, port)),
        }
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => Ok(()),
            Self::Word(word) => f.write_str(word.as_str()),
            Self::Host(Host::Ip(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            Self::Host(host, Some(port)) => write!(f, "{host}:{port}"),
            Self::Host(host, None) => host.fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// A path of this machine that jobs may read, or write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPath {
    /// A glob (`*`, `?`, `**`), from the root.
    pub pattern: String,
    /// `:rw` stood at its end.
    pub writable: bool,
}

impl LocalPath {
    /// Parses `pattern`, `pattern:ro` or `pattern:rw`.
    ///
    /// # Errors
    /// The pattern is relative, or contains `..` or NUL.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let (pattern, writable) = match text.rsplit_once(':') {
            Some((pattern, "rw")) => (pattern, true),
            Some((pattern, "ro")) => (pattern, false),
            _ => (text, false),
        };
        if !pattern.starts_with(['/', '*']) {
            return Err(ValueError(format!(
                "'{}' must begin with / (it is matched from the root)",
                clip(text)
            )));
        }
        if pattern.contains('\0') || pattern.split('/').any(|part| part == "..") {
            return Err(ValueError(format!("'{}' must not contain '..' or NUL", clip(text))));
        }
        Ok(Self { pattern: pattern.into(), writable })
    }
}

/// An address, with or without the brackets of IPv6.
fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Letters, digits, dashes, underscores and dots; not all digits and dots, which would be a mistyped address.
fn is_host_name(text: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

fn is_base_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return false;
            }
            host
        }
        _ => authority,
    };
    matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https")
        && (parse_ip(host).is_some() || is_host_name(host))
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>' | b'\\'))
}

/// The beginning of a text, for messages.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_amounts() {
        let bytes = |text| parse_scale(text, units::parse_bytes);
        assert_eq!(bytes("50%").unwrap().of(Bytes(1000)), Bytes(500));
        assert_eq!(bytes(" 0.5 %").unwrap().of(Bytes(1000)), Bytes(5));
        assert_eq!(bytes("1Gi").unwrap().of(Bytes(1)), Bytes::gib(1));
        for bad in ["101%", "-1%", "%", "nan%", "inf%", "half", ""] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(Scale::<MilliCpu>::Percent(80.0).of(MilliCpu(4000)), MilliCpu(3200));
        let gpu = |percent, whole| Scale::<u32>::Percent(percent).of(whole);
        assert_eq!((gpu(50.0, 3), gpu(10.0, 2), gpu(100.0, 0), gpu(0.0, 2)), (1, 1, 0, 0));
    }

    #[test]
    fn hosts_and_who_can_reach_them() {
        let table = [
            ("127.0.0.1", Some(true)),
            ("127.8.0.1", Some(true)),
            ("::1", Some(true)),
            ("[::1]", Some(true)),
            ("::ffff:127.0.0.1", Some(true)),
            ("localhost", Some(true)),
            ("LoopBack", Some(true)),
            ("local", Some(true)),
            ("any", Some(false)),
            ("0.0.0.0", Some(false)),
            ("::", Some(false)),
            ("::ffff:10.0.0.1", Some(false)),
            ("board.local", Some(false)),
            ("public", None),
            ("private", None),
            ("127.0.0", None),
            ("1.2.3.4.5", None),
            ("a b", None),
            ("a/b", None),
            ("", None),
            ("-", None),
        ];
        for (text, loopback) in table {
            assert_eq!(Host::parse(text).ok().map(|h| h.is_loopback()), loopback, "{text:?}");
        }
    }

    #[test]
    fn advertised_addresses() {
        let host = |text: &str, port| Advertise::Host(Host::parse(text).unwrap(), port);
        let table = [
            ("", Some(Advertise::Asked)),
            ("0.0.0.0", Some(Advertise::Asked)),
            ("Public", Some(Advertise::Word(AddressWord::Public))),
            ("any", Some(Advertise::Word(AddressWord::Any))),
            ("Multicast", Some(Advertise::Word(AddressWord::Multicast))),
            ("linklocal", Some(Advertise::Word(AddressWord::LinkLocal))),
            ("local", Some(host("127.0.0.1", None))),
            ("loopback", Some(host("127.0.0.1", None))),
            ("localhost", Some(host("127.0.0.1", None))),
            ("board.lan:8080", Some(host("board.lan", Some(8080)))),
            ("fe80::1", Some(host("fe80::1", None))),
            ("[fe80::1]", Some(host("fe80::1", None))),
            ("[fe80::1]:80", Some(host("fe80::1", Some(80)))),
            ("https://e.org/results/", Some(Advertise::Url("https://e.org/results".into()))),
            ("http://[::1]:6001", Some(Advertise::Url("http://[::1]:6001".into()))),
            ("https://e.org/board7/", Some(Advertise::Url("https://e.org/board7".into()))),
            ("http://[fe80::1%25eth0]:6001", None),
            ("fe80::1%eth0", None),
            ("[fe80::1%eth0]:80", None),
            ("224.0.0.1", None),
            ("ftp://e.org", None),
            ("http://", None),
            ("http://a b", None),
            ("http://e.org:port", None),
            ("board:99999", None),
            ("0.0.0.0:80", None),
            ("a\r\nb", None),
        ];
        for (text, wanted) in table {
            let parsed = Advertise::parse(text).ok();
            assert_eq!(parsed, wanted, "{text:?}");
            // What is shown can be set again.
            let again = parsed.as_ref().and_then(|shown| Advertise::parse(&shown.to_string()).ok());
            assert_eq!(again, wanted, "{text:?}");
        }
    }

    #[test]
    fn local_paths_say_whether_they_may_be_written() {
        let parse = |text| LocalPath::parse(text).ok().map(|p| (p.pattern, p.writable));
        assert_eq!(parse("/data/**"), Some(("/data/**".into(), false)));
        assert_eq!(parse("/data:rw"), Some(("/data".into(), true)));
        assert_eq!(parse("/a:b:ro"), Some(("/a:b".into(), false)));
        for bad in ["", "data", "/a/../b", "~/x", "/a\0"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let secret = Secret::parse(" correct-horse\n").unwrap();
        assert!(secret.matches("correct-horse"));
        for wrong in ["", "correct-hors", "correct-horsf", "correct-horse1"] {
            assert!(!secret.matches(wrong));
        }
        assert_eq!(format!("{secret:?}"), "(set)");
        assert!(secret.is_weak() && !Secret::parse("0123456789abcdef").unwrap().is_weak());
        for bad in ["", "has a blank", "zeile\u{e4}xxx", &"x".repeat(513)] {
            let error = Secret::parse(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
