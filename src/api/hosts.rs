//! Which names an API without a token answers to.
//!
//! A page in a browser on this machine may call whatever its own name resolves to, and an attacker's name may come to
//! resolve to 127.0.0.1 (DNS rebinding). Such a request carries that name in its `Host` field. An API without a token
//! listens on loopback only, and those who are meant to reach it call it by an address, `localhost` or the machine's
//! own name. With a token, no name is needed to tell friends from strangers.

use std::net::IpAddr;

use super::urls::split_host;

/// The names.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// `localhost`, the machine's name with and without its domain and as mDNS has it, and `configured` ones.
    #[must_use]
    pub fn new(hostname: &str, configured: &[String]) -> Self {
        let hostname = hostname.trim_end_matches('.').to_ascii_lowercase();
        let short = hostname.split('.').next().unwrap_or_default().to_owned();
        let mut names = vec!["localhost".into(), "localhost.localdomain".into(), "ip6-localhost".into()];
        if !short.is_empty() {
            names.extend([format!("{short}.local"), short, hostname]);
        }
        names.extend(configured.iter().map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase()));
        Self(names)
    }

    /// Whether a `Host` field names this node.
    #[must_use]
    pub fn has(&self, host: &str) -> bool {
        let (name, _) = split_host(host);
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let name = name.trim_end_matches('.');
        // Browsers resolve what ends in .localhost to this machine without asking anybody.
        literal || self.0.iter().any(|own| own.eq_ignore_ascii_case(name)) || is_below_localhost(name)
    }
}

fn is_below_localhost(name: &str) -> bool {
    name.len() > 10 && name.get(name.len() - 10..).is_some_and(|end| end.eq_ignore_ascii_case(".localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lead_here_are_taken() {
        let hosts = Hosts::new("Board7.lan", &["node.example.org".into()]);
        for own in [
            "127.0.0.1:1234",
            "127.0.0.1",
            "10.0.0.5:1",
            "[::1]:1234",
            "[::1]",
            "localhost:1234",
            "LOCALHOST",
            "localhost.:1234",
            "a.localhost:1",
            "board7:1234",
            "board7.lan",
            "board7.local:1234",
            "node.example.org",
            "Node.Example.Org:80",
        ] {
            assert!(hosts.has(own), "{own}");
        }
        for foreign in [
            "evil.example:1234",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1234",
            "evillocalhost",
            ".localhost",
            "board7.evil.example",
            "board",
            "example.org",
            "",
            ":1234",
            "[::1].evil.example",
        ] {
            assert!(!hosts.has(foreign), "{foreign}");
        }
        assert!(!Hosts::new("", &[]).has("") && Hosts::default().has("127.0.0.1"));
    }
}
