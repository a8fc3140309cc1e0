//! Where results are to be fetched: built when asked for, from the address that the node has then.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use crate::config::{AddressWord, Advertise, Host};
use crate::model::ExecutionId;

/// The base of all results' URLs.
#[derive(Debug, Clone)]
pub struct ResultUrls {
    /// `Publishers.Types.Local.Address`.
    pub advertise: Advertise,
    /// The results server's port, as bound.
    pub port: u16,
}

impl ResultUrls {
    /// The URL of an execution's result for a client that reached the node by the name `host` (its `Host` field).
    #[must_use]
    pub fn of(&self, id: &ExecutionId, host: &str) -> String {
        format!("{}/{id}.tar.gz", self.base(host))
    }

    fn base(&self, host: &str) -> String {
        match &self.advertise {
            Advertise::Url(base) => base.clone(),
            Advertise::Host(Host::Ip(ip), port) => with_port(*ip, port.unwrap_or(self.port)),
            Advertise::Host(Host::Name(name), port) => format!("http://{name}:{}", port.unwrap_or(self.port)),
            Advertise::Word(word) => match own_address(*word) {
                Some(ip) => with_port(ip, self.port),
                // None of that kind now: the client has found a way here, and may find it again.
                None => self.asked(host),
            },
            Advertise::Asked => self.asked(host),
        }
    }

    /// The host that the client used, without its port.
    fn asked(&self, host: &str) -> String {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => host,
        };
        // An IPv6 address has its brackets in the field, or the field had no business being one.
        let name = if name.is_empty() || (name.contains(':') && !name.starts_with('[')) {
            "localhost"
        } else {
            name
        };
        format!("http://{name}:{}", self.port)
    }
}

fn with_port(ip: IpAddr, port: u16) -> String {
    // A socket's address is written with brackets where they are needed.
    format!("http://{}", std::net::SocketAddr::new(ip, port))
}

/// An IPv4 address of this machine of that kind: that of the way out if it is one, else the first.
fn own_address(word: AddressWord) -> Option<IpAddr> {
    let fits = |ip: &Ipv4Addr| match word {
        AddressWord::Any => !ip.is_loopback(),
        AddressWord::LinkLocal => ip.is_link_local(),
        AddressWord::Private => is_private(*ip),
        AddressWord::Public => {
            !(is_private(*ip)
                || ip.is_link_local()
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast())
        }
    };
    way_out().filter(fits).or_else(|| local_addresses().into_iter().find(fits)).map(IpAddr::V4)
}

fn is_private(ip: Ipv4Addr) -> bool {
    // RFC 1918, or carrier-grade NAT (100.64.0.0/10).
    ip.is_private() || matches!(ip.octets(), [100, 64..=127, _, _])
}

/// The address from which packets to the world would be sent. Connecting a UDP socket sends none.
fn way_out() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// This machine's IPv4 addresses, from the kernel's table of routes: `|-- <address>`, then `/32 host LOCAL`.
fn local_addresses() -> Vec<Ipv4Addr> {
    parse_routes(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())
}

fn parse_routes(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(ip) = last.take()
            && !ip.is_loopback()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(advertise: &str, host: &str) -> String {
        ResultUrls { advertise: Advertise::parse(advertise).unwrap(), port: 6001 }.base(host)
    }

    #[test]
    fn the_url_is_that_of_the_setting_or_of_the_client() {
        for (advertise, host, wanted) in [
            ("", "pi.local:1234", "http://pi.local:6001"),
            ("", "pi.local", "http://pi.local:6001"),
            ("", "[2001:db8::1]:1234", "http://[2001:db8::1]:6001"),
            ("", "[2001:db8::1]", "http://[2001:db8::1]:6001"),
            ("", "10.0.0.5:1234", "http://10.0.0.5:6001"),
            ("", "", "http://localhost:6001"),
            ("", "2001:db8::1", "http://localhost:6001"),
            ("0.0.0.0", "pi:1234", "http://pi:6001"),
            ("192.168.1.7", "x", "http://192.168.1.7:6001"),
            ("2001:db8::1", "x", "http://[2001:db8::1]:6001"),
            ("board.example:80", "x", "http://board.example:80"),
            ("https://files.example/b/", "x", "https://files.example/b"),
        ] {
            assert_eq!(base(advertise, host), wanted, "{advertise:?} {host:?}");
        }
        let id = ExecutionId::random();
        let urls = ResultUrls { advertise: Advertise::Asked, port: 6001 };
        assert_eq!(urls.of(&id, "pi:1"), format!("http://pi:6001/{id}.tar.gz"));
    }

    #[test]
    fn words_are_looked_up_when_asked() {
        // Whether this machine has such an address or not, the URL has a host and is no word.
        for word in ["private", "public", "linklocal", "any"] {
            let base = base(word, "pi:1234");
            assert!(base.ends_with(":6001") && !base.contains(word), "{base}");
        }
    }

    #[test]
    fn the_table_of_routes_is_read() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8\n\
            \x20          |-- 127.0.0.1\n              /32 host LOCAL\n        |-- 10.0.0.0\n           /24 link UNICAST\n\
            \x20       |-- 10.0.0.5\n           /32 host LOCAL\nLocal:\n        |-- 10.0.0.5\n           /32 host LOCAL\n\
            \x20       |-- 172.17.0.1\n           /32 host LOCAL\n";
        assert_eq!(parse_routes(text), [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(172, 17, 0, 1)]);
        assert!(is_private(Ipv4Addr::new(100, 64, 0, 1)) && !is_private(Ipv4Addr::new(100, 128, 0, 1)));
    }
}
