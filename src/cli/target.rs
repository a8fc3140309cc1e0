//! Which node the command line talks to, and with which token.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{CliError, Exit};
use super::trust::Trust;

/// Port of the API where none is named.
const DEFAULT_PORT: u16 = 1234;

/// A token longer than this is a file that was named by mistake.
const MAX_TOKEN: u64 = 16 * 1024;

/// Variables of the environment, by name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the node is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Host name, address or http(s):// URL of the node's API [env: BACALHAU_API_HOST] [default: 127.0.0.1]
    #[arg(long, global = true, value_name = "HOST")]
    pub api_host: Option<String>,
    /// Port of the node's API [env: BACALHAU_API_PORT] [default: 1234]
    #[arg(long, global = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub api_port: Option<u16>,
    /// File that holds the API token [env: BACALHAU_API_KEY holds the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Speak TLS with the node [env: BACALHAU_API_TLS_USETLS]
    #[arg(long, global = true)]
    pub tls: bool,
    /// Trust the authorities in this file (PEM), and no others [env: BACALHAU_API_TLS_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Trust any certificate: whoever is in between can read and change everything [env: BACALHAU_API_TLS_INSECURE]
    #[arg(long, global = true)]
    pub insecure: bool,
}

/// A text that is not shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A node's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http://host:port`, perhaps with a path; no slash at the end.
    pub base: String,
    /// `host:port`, for messages.
    pub address: String,
    /// Whether it is this machine.
    pub is_local: bool,
    /// What goes into `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// Whose certificates it may have, and those who serve its results.
    pub trust: Trust,
}

/// Variables that mean each flag, in Bacalhau 1.9 and before.
const USE_TLS: [&str; 2] = ["BACALHAU_API_TLS_USETLS", "BACALHAU_API_TLS"];
const CA_CERT: [&str; 3] = ["BACALHAU_API_TLS_CACERT", "BACALHAU_API_TLS_CAFILE", "BACALHAU_API_CACERT"];
const INSECURE: [&str; 2] = ["BACALHAU_API_TLS_INSECURE", "BACALHAU_API_INSECURE"];

impl ConnectArgs {
    /// The node that flags, then environment, then defaults name.
    ///
    /// # Errors
    /// A host, port or token that cannot be one, or a token file that cannot be read.
    pub fn target(&self, env: Env<'_>) -> Result<Target, CliError> {
        let set = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let host = match &self.api_host {
            Some(host) => host.trim().to_owned(),
            None => set("BACALHAU_API_HOST").unwrap_or_else(|| "127.0.0.1".into()),
        };
        let port = match (self.api_port, set("BACALHAU_API_PORT")) {
            (Some(port), _) => Some(port),
            (None, Some(text)) => match text.parse() {
                Ok(0) | Err(_) => {
                    return Err(CliError::new(
                        Exit::Config,
                        format!("BACALHAU_API_PORT: '{text}' is not a port (1 to 65535)"),
                    ));
                }
                Ok(port) => Some(port),
            },
            (None, None) => None,
        };
        let token = match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None => match env("BACALHAU_API_KEY").filter(|v| !v.is_empty()) {
                Some(text) => Some(token(&text, "BACALHAU_API_KEY")?),
                None => None,
            },
        };
        let first = |names: &[&str]| names.iter().find_map(|name| Some((name.to_string(), set(name)?)));
        let on = |flag: bool, names: &[&str]| match first(names) {
            _ if flag => Ok(true),
            Some((name, text)) => truth(&text).ok_or_else(|| {
                CliError::new(Exit::Config, format!("{name}: '{text}' is neither true nor false"))
            }),
            None => Ok(false),
        };
        let tls = on(self.tls, &USE_TLS)?;
        let authorities = self.cacert.clone().or_else(|| first(&CA_CERT).map(|(_, path)| path.into()));
        let trust = match authorities {
            _ if on(self.insecure, &INSECURE)? => Trust::Anything,
            Some(path) => Trust::file(&path)?,
            None => Trust::Public,
        };
        let mut target = parse(&host, port, tls).map_err(|why| {
            CliError::new(Exit::Config, format!("API host '{host}': {why}"))
                .hint("give a name, an address or a URL, e.g. --api-host 192.168.1.20")
        })?;
        target.token = token;
        target.trust = trust;
        Ok(target)
    }
}

/// As Go reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `host`, `host:port`, `[v6]:port` or a URL, with the port to use where the text has none, and whether to speak TLS
/// where it does not say.
fn parse(text: &str, port: Option<u16>, tls: bool) -> Result<Target, &'static str> {
    let (scheme, rest) = match text.split_once("://") {
        None if tls => ("https", text),
        None => ("http", text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
        Some(_) => return Err("only http:// and https:// are spoken"),
    };
    if scheme == "https" && !cfg!(feature = "tls") {
        return Err("this codling was built without TLS");
    }
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '@' | '\\' | '"' | '<' | '>');
    if !authority.chars().all(plain) || !path.chars().all(plain) {
        return Err("it has a character that no address has");
    }
    let (host, own_port) = split_port(authority)?;
    let host = match host {
        "" => return Err("the name is empty"),
        // What a server binds to is not what a client can call.
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        other => other,
    };
    let web = scheme == "https" && text.contains("://");
    let port = own_port.or(port).unwrap_or(if web { 443 } else { DEFAULT_PORT });
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let address = format!("{bracketed}:{port}");
    let base = format!("{scheme}://{address}{}", path.trim_end_matches('/'));
    Ok(Target { base, address, is_local: is_loopback(host), token: None, trust: Trust::Public })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0).ok_or("its port is not 1 to 65535");
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(number(port)?))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err("there is something between the bracket and the port"),
        };
    }
    match authority.split_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((_, rest)) if rest.contains(':') => Ok((authority, None)),
        Some((host, port)) => Ok((host, Some(number(port)?))),
        None => Ok((authority, None)),
    }
}

/// Whether that host can only be this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

fn read_token(path: &Path) -> Result<Secret, CliError> {
    use std::io::Read;
    let what = || format!("cannot read the token file {}", path.display());
    let file = std::fs::File::open(path).map_err(|e| CliError::caused(Exit::Config, what(), e))?;
    let mut text = String::new();
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(|e| CliError::caused(Exit::Config, what(), e))?;
    token(&text, &path.display().to_string())
}

fn token(text: &str, origin: &str) -> Result<Secret, CliError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CliError::new(Exit::Config, format!("{origin} does not hold a token"))
            .hint("a token is one word of visible ASCII characters"));
    }
    Ok(Secret(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_every_form() {
        let table = [
            ("127.0.0.1", None, "http://127.0.0.1:1234", true),
            ("board", Some(99), "http://board:99", false),
            ("0.0.0.0", None, "http://127.0.0.1:1234", true),
            ("board:80", Some(99), "http://board:80", false),
            ("::1", None, "http://[::1]:1234", true),
            ("[fe80::1]:5", None, "http://[fe80::1]:5", false),
            ("http://board/", None, "http://board:1234", false),
            ("HTTP://board:7/api/", None, "http://board:7/api", false),
            ("localhost", None, "http://localhost:1234", true),
        ];
        for (host, port, base, local) in table {
            let target = parse(host, port, false).unwrap();
            assert_eq!((target.base.as_str(), target.is_local), (base, local), "{host}");
        }
        if cfg!(feature = "tls") {
            let base = |text, port, tls| parse(text, port, tls).unwrap().base;
            assert_eq!(base("https://board.example", None, false), "https://board.example:443");
            assert_eq!(base("https://board.example", Some(8443), true), "https://board.example:8443");
            assert_eq!(base("board.example", None, true), "https://board.example:1234");
            assert_eq!(base("http://board.example", None, true), "http://board.example:1234");
        }
        for bad in ["", "ftp://x", "a b", "http://", "x:0", "x:99999", "[::1", "u@h", "h?q", "a\nb", "[::1]x"]
        {
            assert!(parse(bad, None, false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flags_come_before_the_environment() {
        let env = |name: &str| match name {
            "BACALHAU_API_HOST" => Some("from-env".to_owned()),
            "BACALHAU_API_PORT" => Some("77".to_owned()),
            "BACALHAU_API_KEY" => Some("key\n".to_owned()),
            _ => None,
        };
        let target = ConnectArgs::default().target(&env).unwrap();
        assert_eq!(target.address, "from-env:77");
        assert_eq!(target.token.as_ref().unwrap().reveal(), "key");
        assert!(!format!("{target:?}").contains("key"));
        let args = ConnectArgs { api_host: Some("flag".into()), api_port: Some(5), ..ConnectArgs::default() };
        assert_eq!(args.target(&env).unwrap().address, "flag:5");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn trust_is_that_of_flags_and_environment() {
        let with = |names: &'static [(&str, &str)]| {
            move |name: &str| names.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let target = ConnectArgs::default()
            .target(&with(&[("BACALHAU_API_TLS_USETLS", "true"), ("BACALHAU_API_INSECURE", "1")]))
            .unwrap();
        assert_eq!((target.base.as_str(), target.trust), ("https://127.0.0.1:1234", Trust::Anything));
        let target = ConnectArgs { tls: true, insecure: true, ..ConnectArgs::default() };
        assert_eq!(target.target(&|_| None).unwrap().trust, Trust::Anything);
        for (path, wanted) in [("/nonexistent/ca.pem", "cannot read"), ("/dev/null", "holds no certificate")]
        {
            let args = ConnectArgs { cacert: Some(path.into()), ..ConnectArgs::default() };
            let error = args.target(&|_| None).unwrap_err();
            assert_eq!(error.exit(), Exit::Config);
            assert!(format!("{error:?}").contains(wanted), "{error:?}");
        }
    }

    #[test]
    fn bad_settings_are_named() {
        let port = |name: &str| (name == "BACALHAU_API_PORT").then(|| "http".to_owned());
        let error = ConnectArgs::default().target(&port).unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
        let split = |name: &str| (name == "BACALHAU_API_KEY").then(|| "a\r\nEvil: 1".to_owned());
        assert_eq!(ConnectArgs::default().target(&split).unwrap_err().exit(), Exit::Config);
        let odd = |name: &str| (name == "BACALHAU_API_TLS_USETLS").then(|| "yes".to_owned());
        let error = ConnectArgs::default().target(&odd).unwrap_err();
        assert!(format!("{error:?}").contains("USETLS: 'yes'"), "{error:?}");
        let none = |_: &str| None;
        let args = ConnectArgs { token_file: Some("/nonexistent/token".into()), ..ConnectArgs::default() };
        assert_eq!(args.target(&none).unwrap_err().exit(), Exit::Config);
    }
}
