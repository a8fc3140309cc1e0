//! Where results are to be fetched: built when asked for, from the address that the node has then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{AddressWord, Advertise, Host};
use crate::model::{ExecutionId, Timestamp};
use crate::sys::{Clock, Network};
use crate::wire::answers::{AddressRow, FormerRow, ResultAddresses};

use super::advertise::{Candidate, candidates};
use super::bases::Bases;
use super::links::Links;

/// How long what the machine is connected to is taken to stay as it is.
const FRESH: Duration = Duration::from_secs(5);

/// Why an address is of no use that the results server does not listen on.
const UNSERVED: &str = "results are not served there: see Publishers.Types.Local.Bind";

/// What URLs are made of.
pub struct UrlSettings {
    /// `Publishers.Types.Local.Address`.
    pub advertise: Advertise,
    /// The results server's socket, as bound.
    pub bind: SocketAddr,
    /// `http`, or `https` if that is what the results server speaks.
    pub scheme: &'static str,
    /// Signs URLs, if they are to end.
    pub links: Option<Links>,
    /// The addresses that were told to somebody.
    pub bases: Bases,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Makes the URLs of results.
pub struct ResultUrls {
    settings: UrlSettings,
    detect: fn() -> Network,
    network: Mutex<Option<(Instant, Arc<Network>)>>,
}

/// What URLs begin with, without a slash at its end, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chosen {
    url: String,
    reason: String,
}

/// A host without its port, and the port: a `Host` field, or the authority of a URL.
pub fn split_host(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

impl ResultUrls {
    /// Of these settings, on this machine.
    #[must_use]
    pub fn new(settings: UrlSettings) -> Self {
        Self { settings, detect: Network::detect, network: Mutex::new(None) }
    }

    /// The URL of an execution's result for a client that reached the node by the name `host` (its `Host` field).
    #[must_use]
    pub fn of(&self, id: &ExecutionId, host: &str) -> String {
        let base = self.base(host).url;
        self.settings.bases.note(&base, self.settings.clock.now());
        let query = self.settings.links.as_ref().map(|links| links.query(id)).unwrap_or_default();
        format!("{base}/{id}.tar.gz{query}")
    }

    /// What signs and checks URLs, if they end.
    #[must_use]
    pub const fn links(&self) -> Option<&Links> {
        self.settings.links.as_ref()
    }

    /// The choice and what else there was, for a client that used `host`.
    #[must_use]
    pub fn describe(&self, host: &str) -> ResultAddresses {
        let chosen = self.base(host);
        let word = match &self.settings.advertise {
            Advertise::Word(word) => *word,
            _ => AddressWord::Any,
        };
        let row = |candidate: Candidate| AddressRow {
            address: candidate.ip.to_string(),
            interface: candidate.interface,
            usable: candidate.usable,
            url: if candidate.usable { self.at(candidate.ip) } else { String::new() },
            reason: candidate.reason.into(),
        };
        let bind = self.settings.bind.ip();
        let unserved = |mut candidate: Candidate| {
            if candidate.usable && !serves(bind, candidate.ip) {
                (candidate.usable, candidate.reason) = (false, UNSERVED);
            }
            candidate
        };
        let others =
            self.candidates(word).into_iter().filter(|candidate| self.at(candidate.ip) != chosen.url);
        ResultAddresses {
            bind: self.settings.bind.to_string(),
            setting: self.settings.advertise.to_string(),
            warning: self.warning(&chosen),
            link_lifetime_seconds: self.settings.links.as_ref().map(|links| links.lifetime().as_secs()),
            alternatives: others.map(unserved).map(row).collect(),
            former: self.former(&chosen.url),
            url: chosen.url,
            reason: chosen.reason,
        }
    }

    /// What is wrong with the choice, whoever asks.
    #[must_use]
    pub fn warning_at_start(&self) -> Option<String> {
        self.warning(&self.base(""))
    }

    fn base(&self, host: &str) -> Chosen {
        let set = |url: String| Chosen { url, reason: "as Publishers.Types.Local.Address says".into() };
        let port = self.settings.bind.port();
        let scheme = self.settings.scheme;
        match &self.settings.advertise {
            Advertise::Url(base) => set(base.clone()),
            Advertise::Host(Host::Ip(ip), own) => {
                set(format!("{scheme}://{}", SocketAddr::new(*ip, own.unwrap_or(port))))
            }
            Advertise::Host(Host::Name(name), own) => {
                set(format!("{scheme}://{name}:{}", own.unwrap_or(port)))
            }
            Advertise::Word(word) => match self.candidates(*word).into_iter().find(|c| c.usable) {
                Some(best) => {
                    let reason = format!("{}: {}, {}", word.as_str(), best.interface, best.reason);
                    Chosen { url: self.at(best.ip), reason }
                }
                // None of that kind now: the client has found a way here, and may find it again.
                None => self.asked(host),
            },
            Advertise::Asked => self.asked(host),
        }
    }

    fn at(&self, ip: IpAddr) -> String {
        // A socket's address has brackets where they are needed, and no zone.
        format!("{}://{}", self.settings.scheme, SocketAddr::new(ip, self.settings.bind.port()))
    }

    /// The host that the client used, if the results can be reached by it, too.
    fn asked(&self, host: &str) -> Chosen {
        let (bind, port) = (self.settings.bind.ip(), self.settings.bind.port());
        let (name, _) = split_host(host);
        let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let literal = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        let used = |url| Chosen { url, reason: "the host that the client used".into() };
        match literal {
            Some(ip) if ip.is_loopback() || ip.is_unspecified() => {
                if serves(bind, ip) && !ip.is_unspecified() {
                    return used(self.at(ip));
                }
                let ip = if bind.is_unspecified() { loopback(bind) } else { bind };
                let reason = "the client is on this machine, and results are served there".into();
                Chosen { url: self.at(ip), reason }
            }
            Some(ip) if ip.is_multicast() || is_zoned(ip) || ip.is_ipv4() != bind.is_ipv4() => {
                self.automatic()
            }
            Some(ip) => used(self.at(ip)),
            None if !is_name(name) => self.automatic(),
            None if name.eq_ignore_ascii_case("localhost")
                && !bind.is_unspecified()
                && !bind.is_loopback() =>
            {
                Chosen { url: self.at(bind), reason: "results are served there only".into() }
            }
            None => used(format!("{}://{name}:{port}", self.settings.scheme)),
        }
    }

    /// Without any help: where the results are served, if that is one address, or the best address of this machine.
    fn automatic(&self) -> Chosen {
        let bind = self.settings.bind.ip();
        if !bind.is_unspecified() {
            return Chosen { url: self.at(bind), reason: "results are served there only".into() };
        }
        match self.candidates(AddressWord::Any).into_iter().find(|c| c.usable) {
            Some(best) => Chosen {
                url: self.at(best.ip),
                reason: format!("automatic: {}, {}", best.interface, best.reason),
            },
            None => {
                let url = format!("{}://localhost:{}", self.settings.scheme, self.settings.bind.port());
                Chosen { url, reason: "this machine has no address for others".into() }
            }
        }
    }

    /// This machine's addresses, those first at which the results server can be reached.
    fn candidates(&self, word: AddressWord) -> Vec<Candidate> {
        let bind = self.settings.bind.ip();
        let mut all = candidates(&self.network(), word);
        // Behind a loopback socket there is something else that listens, or nothing can be done about it.
        for candidate in all.iter_mut().filter(|c| c.usable && !bind.is_loopback() && !serves(bind, c.ip)) {
            (candidate.usable, candidate.reason) = (false, UNSERVED);
        }
        all.sort_by_key(|candidate| !candidate.usable);
        all
    }

    fn network(&self) -> Arc<Network> {
        let mut known = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, network)) = known.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(network);
        }
        let network = Arc::new((self.detect)());
        *known = Some((Instant::now(), Arc::clone(&network)));
        network
    }

    fn warning(&self, chosen: &Chosen) -> Option<String> {
        let bind = self.settings.bind;
        let word = match &self.settings.advertise {
            Advertise::Url(_) => return None,
            // Another port is that of something that forwards.
            Advertise::Host(_, Some(port)) if *port != bind.port() => return None,
            Advertise::Word(word) => Some(*word),
            Advertise::Host(..) | Advertise::Asked => None,
        };
        if let Some(word) = word
            && !self.candidates(word).iter().any(|c| c.usable)
        {
            let word = word.as_str();
            return Some(format!("no address of this machine is {word}: {} is told instead", chosen.url));
        }
        let (_, authority) = chosen.url.split_once("://")?;
        let name = split_host(authority).0;
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let reached = match ip {
            Ok(ip) => serves(bind.ip(), ip),
            Err(_) => !bind.ip().is_loopback() || name.eq_ignore_ascii_case("localhost"),
        };
        let only = if bind.ip().is_unspecified() {
            if bind.is_ipv4() { "by IPv4" } else { "by IPv6" }.to_owned()
        } else {
            format!("on {}", bind.ip())
        };
        (!reached).then(|| {
            format!(
                "results are served {only} only, and {} is told to others: unless something forwards it, set \
                 Publishers.Types.Local.Bind to an address that it leads to, or 0.0.0.0",
                chosen.url
            )
        })
    }

    /// Addresses that were told and no longer lead here, each with the one that does.
    fn former(&self, current: &str) -> Vec<FormerRow> {
        let time = |time: Option<Timestamp>| time.map(Timestamp::rfc3339);
        let bases = self.settings.bases.all().into_iter();
        let row = |base: super::bases::Base| {
            let now = self.renewed(&base.url, current)?;
            Some(FormerRow { url: base.url, now, first: time(base.first), last: time(base.last) })
        };
        bases.filter_map(row).collect()
    }

    /// What took the place of a former address; nothing if it stands.
    fn renewed(&self, old: &str, current: &str) -> Option<String> {
        if old == current {
            return None;
        }
        let authority = old.split_once("://").filter(|(scheme, _)| *scheme == self.settings.scheme);
        match authority {
            // Each client is told the host that it used: its links changed if the rest did.
            Some((_, authority))
                if self.settings.advertise == Advertise::Asked && !authority.contains('/') =>
            {
                let name = split_host(authority).0;
                let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                if ip.is_ok_and(|ip| !self.network().has(ip)) {
                    return Some(current.to_owned());
                }
                Some(self.asked(authority).url).filter(|new| new != old)
            }
            _ => Some(current.to_owned()),
        }
    }
}

/// Whether a socket bound to `bind` is reached at `ip`. `[::]` takes IPv6 only (`gate::bind`).
fn serves(bind: IpAddr, ip: IpAddr) -> bool {
    if bind.is_unspecified() { bind.is_ipv4() == ip.is_ipv4() } else { bind == ip }
}

const fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// An address that means nothing without the name of an interface, which no URL has.
const fn is_zoned(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::net::{AddressState, InterfaceAddress};
    use crate::sys::{FakeClock, RealFiles};

    fn board() -> Network {
        let address = |(interface, ip): (&str, &str)| InterfaceAddress {
            interface: interface.into(),
            ip: ip.parse().unwrap(),
            state: AddressState::Good,
        };
        let addresses = [
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("wlan0", "192.168.1.8"),
            ("eth0", "192.168.1.7"),
            ("eth0", "2001:db8::7"),
        ];
        let addresses = addresses.map(address).into();
        Network { addresses, default_v4: Some("eth0".into()), default_v6: Some("eth0".into()) }
    }

    fn urls_on(bind: &str, advertise: &str, detect: fn() -> Network) -> ResultUrls {
        let settings = UrlSettings {
            advertise: Advertise::parse(advertise).unwrap(),
            bind: bind.parse().unwrap(),
            scheme: "http",
            links: None,
            bases: Bases::open(None, Arc::new(RealFiles)),
            clock: Arc::new(FakeClock::at(crate::sys::EARLIEST_BELIEVABLE)),
        };
        ResultUrls { detect, ..ResultUrls::new(settings) }
    }

    fn urls(bind: &str, advertise: &str) -> ResultUrls {
        urls_on(bind, advertise, board)
    }

    const ALL: &str = "0.0.0.0:6001";

    #[test]
    fn the_url_is_that_of_the_setting_or_of_the_client() {
        for (bind, advertise, host, wanted) in [
            (ALL, "", "pi.local:1234", "http://pi.local:6001"),
            (ALL, "", "pi.local", "http://pi.local:6001"),
            (ALL, "", "10.0.0.5:1234", "http://10.0.0.5:6001"),
            (ALL, "", "127.0.0.1:1234", "http://127.0.0.1:6001"),
            (ALL, "", "localhost:1234", "http://localhost:6001"),
            (ALL, "0.0.0.0", "pi:1234", "http://pi:6001"),
            ("[::]:6001", "", "[2001:db8::1]:1234", "http://[2001:db8::1]:6001"),
            ("[::]:6001", "", "[2001:db8::1]", "http://[2001:db8::1]:6001"),
            // A host by which the results are not reached.
            (ALL, "", "0.0.0.0:1234", "http://127.0.0.1:6001"),
            (ALL, "", "[::1]:1234", "http://127.0.0.1:6001"),
            ("[::]:6001", "", "127.0.0.1:1234", "http://[::1]:6001"),
            (ALL, "", "[2001:db8::1]:1234", "http://192.168.1.7:6001"),
            ("[::]:6001", "", "192.168.1.7:1234", "http://[2001:db8::7]:6001"),
            ("[::]:6001", "", "[fe80::1]:1234", "http://[2001:db8::7]:6001"),
            ("[::]:6001", "", "[fe80::1%25eth0]:1234", "http://[2001:db8::7]:6001"),
            ("192.168.1.8:6001", "", "localhost:1234", "http://192.168.1.8:6001"),
            ("192.168.1.8:6001", "", "127.0.0.1:1234", "http://192.168.1.8:6001"),
            ("127.0.0.1:6001", "", "[::1]:1234", "http://127.0.0.1:6001"),
            // No host, or none that could be one.
            (ALL, "", "", "http://192.168.1.7:6001"),
            (ALL, "", "2001:db8::1", "http://192.168.1.7:6001"),
            (ALL, "", "224.0.0.1", "http://192.168.1.7:6001"),
            (ALL, "", "a/b", "http://192.168.1.7:6001"),
            ("127.0.0.1:6001", "", "", "http://127.0.0.1:6001"),
            // Settings.
            (ALL, "192.168.1.7", "x", "http://192.168.1.7:6001"),
            (ALL, "2001:db8::1", "x", "http://[2001:db8::1]:6001"),
            (ALL, "[2001:db8::1]:80", "x", "http://[2001:db8::1]:80"),
            (ALL, "board.example:80", "x", "http://board.example:80"),
            (ALL, "https://results.example.org/board7/", "x", "https://results.example.org/board7"),
            (ALL, "private", "x", "http://192.168.1.7:6001"),
            ("[::]:6001", "public", "x", "http://[2001:db8::7]:6001"),
            (ALL, "any", "x", "http://192.168.1.7:6001"),
            (ALL, "local", "x", "http://127.0.0.1:6001"),
            ("192.168.1.8:6001", "private", "x", "http://192.168.1.8:6001"),
            // None of that kind.
            (ALL, "public", "pi:1234", "http://pi:6001"),
            (ALL, "multicast", "pi:1234", "http://pi:6001"),
            (ALL, "linklocal", "pi:1234", "http://pi:6001"),
        ] {
            assert_eq!(urls(bind, advertise).base(host).url, wanted, "{bind} {advertise:?} {host:?}");
        }
        let id = ExecutionId::random();
        assert_eq!(urls(ALL, "").of(&id, "pi:1"), format!("http://pi:6001/{id}.tar.gz"));
        assert_eq!(urls_on(ALL, "", Network::default).base("").url, "http://localhost:6001");
    }

    #[test]
    fn the_choice_and_what_else_there_was_are_shown() {
        let shown = urls(ALL, "private").describe("pi");
        assert_eq!(shown.url, "http://192.168.1.7:6001");
        assert_eq!(shown.reason, "private: eth0, on the default route");
        let others: Vec<_> =
            shown.alternatives.iter().map(|a| (a.address.as_str(), a.usable, a.reason.as_str())).collect();
        assert_eq!(others[0], ("192.168.1.8", true, "wireless, not on the default route"));
        assert!(others.contains(&("2001:db8::7", false, "not a private address")), "{others:?}");
        assert!(others.iter().any(|(ip, usable, _)| *ip == "172.17.0.1" && !usable));
        assert_eq!((others.len(), shown.warning), (4, None));
        let asked = urls(ALL, "").describe("192.168.1.7:1234");
        assert_eq!(asked.reason, "the host that the client used");
        assert!(asked.alternatives.iter().all(|a| a.address != "192.168.1.7"));
        // An address at which the socket is not reached is none.
        let other = asked.alternatives.iter().find(|a| a.address == "2001:db8::7").unwrap();
        assert!(!other.usable && other.reason.contains("not served there"), "{other:?}");
        let closed = urls("127.0.0.1:6001", "").describe("localhost:1234");
        assert!(closed.alternatives.iter().all(|a| !a.usable && a.url.is_empty()), "{closed:?}");
    }

    #[test]
    fn an_address_that_leads_nowhere_is_warned_of() {
        for (bind, advertise, host, wanted) in [
            ("127.0.0.1:6001", "private", "", "served on 127.0.0.1 only"),
            ("127.0.0.1:6001", "192.168.1.7", "", "served on 127.0.0.1 only"),
            ("127.0.0.1:6001", "board.example", "", "served on 127.0.0.1 only"),
            ("127.0.0.1:6001", "", "192.168.1.7:1234", "served on 127.0.0.1 only"),
            ("192.168.1.8:6001", "192.168.1.7", "", "served on 192.168.1.8 only"),
            (ALL, "2001:db8::7", "", "served by IPv4 only"),
            ("[::]:6001", "192.168.1.7", "", "served by IPv6 only"),
            (ALL, "public", "pi", "no address of this machine is public: http://pi:6001"),
            (ALL, "multicast", "pi", "no address of this machine is multicast"),
        ] {
            let warning = urls(bind, advertise).describe(host).warning.unwrap_or_default();
            assert!(warning.contains(wanted), "{bind} {advertise:?}: {warning:?}");
        }
        for (bind, advertise, host) in [
            ("127.0.0.1:6001", "", "127.0.0.1:1234"),
            ("127.0.0.1:6001", "", "localhost:1234"),
            ("127.0.0.1:6001", "local", ""),
            ("127.0.0.1:6001", "https://results.example.org", ""),
            ("127.0.0.1:6001", "results.example.org:443", ""),
            (ALL, "private", ""),
            (ALL, "board.example", ""),
            (ALL, "", "pi"),
            ("192.168.1.8:6001", "private", ""),
        ] {
            let warning = urls(bind, advertise).describe(host).warning;
            assert_eq!(warning, None, "{bind} {advertise:?} {host:?}");
        }
        assert!(urls("127.0.0.1:6001", "private").warning_at_start().is_some());
        assert_eq!(urls("127.0.0.1:6001", "").warning_at_start(), None);
    }

    #[test]
    fn what_took_the_place_of_a_former_address() {
        for (advertise, old, current, wanted) in [
            // Each client keeps its host, and gets the new port.
            ("", "http://pi.local:7000", "http://127.0.0.1:6001", Some("http://pi.local:6001")),
            ("", "http://pi.local:6001", "http://127.0.0.1:6001", None),
            ("", "http://192.168.1.7:7000", "http://127.0.0.1:6001", Some("http://192.168.1.7:6001")),
            ("", "http://127.0.0.1:7000", "http://pi:6001", Some("http://127.0.0.1:6001")),
            // The machine does not have that address any more.
            ("", "http://192.168.1.99:6001", "http://pi:6001", Some("http://pi:6001")),
            ("", "https://proxy.example/board7", "http://pi:6001", Some("http://pi:6001")),
            ("", "http://pi:6001", "http://pi:6001", None),
            ("private", "http://pi:6001", "http://192.168.1.7:6001", Some("http://192.168.1.7:6001")),
            ("private", "http://192.168.1.7:6001", "http://192.168.1.7:6001", None),
        ] {
            let renewed = urls(ALL, advertise).renewed(old, current);
            assert_eq!(renewed.as_deref(), wanted, "{advertise:?} {old} {current}");
        }
        let urls = urls(ALL, "");
        let id = ExecutionId::random();
        urls.settings.bases.note("http://192.168.1.7:7000", urls.settings.clock.now());
        let _ = (urls.of(&id, "pi:1234"), urls.of(&id, "192.168.1.7"));
        let former = urls.describe("pi:1234").former;
        assert_eq!(former.len(), 1);
        assert_eq!(
            (former[0].url.as_str(), former[0].now.as_str()),
            ("http://192.168.1.7:7000", "http://192.168.1.7:6001")
        );
        assert_eq!(former[0].first.as_deref(), Some("2026-01-01T00:00:00.000000000Z"));
    }

    #[test]
    fn the_machine_is_not_looked_at_for_every_url() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        let urls = urls_on(ALL, "private", || {
            LOOKS.fetch_add(1, Ordering::SeqCst);
            board()
        });
        let id = ExecutionId::random();
        (0..1000).for_each(|_| drop(urls.of(&id, "pi")));
        let looks = LOOKS.load(Ordering::SeqCst);
        // Once, and once more for every few seconds that a thousand take on a busy machine.
        assert!((1..100).contains(&looks), "{looks}");
    }
}
