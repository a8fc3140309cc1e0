//! Which of this machine's addresses others are told: a pure choice over what the machine is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::AddressWord;
use crate::sys::Network;
use crate::sys::net::{AddressState, InterfaceAddress};

/// An address, and what speaks for or against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub ip: IpAddr,
    /// Its interface.
    pub interface: String,
    /// Whether it can be told to others.
    pub usable: bool,
    /// Why, or why not, or why others come first.
    pub reason: &'static str,
}

/// All addresses of the machine, the best first, those that are of no use last.
pub fn candidates(network: &Network, word: AddressWord) -> Vec<Candidate> {
    let mut ranked: Vec<_> = network.addresses.iter().map(|address| judge(network, address, word)).collect();
    // The sort is stable: among equals the system's order stands.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The rank of an address that is of no use.
const USELESS: u8 = u8::MAX;

fn judge(network: &Network, address: &InterfaceAddress, word: AddressWord) -> ((u8, bool), Candidate) {
    let default = if address.ip.is_ipv4() { &network.default_v4 } else { &network.default_v6 };
    let leads_out = default.as_ref() == Some(&address.interface);
    let (rank, reason) = match against(address, word, leads_out) {
        Some(reason) => (USELESS, reason),
        None if is_link_local(address.ip) => (10, "link-local: reaches the same cable only"),
        None if leads_out => (0, "on the default route"),
        None => medium(&address.interface),
    };
    let candidate =
        Candidate { ip: address.ip, interface: address.interface.clone(), usable: rank != USELESS, reason };
    ((rank, address.ip.is_ipv6()), candidate)
}

/// Why nobody can be told this address.
fn against(address: &InterfaceAddress, word: AddressWord, leads_out: bool) -> Option<&'static str> {
    match address.state {
        AddressState::Good => {}
        AddressState::Down => return Some("the interface has no link"),
        AddressState::Temporary => return Some("temporary: it changes within a day"),
        AddressState::Deprecated => return Some("deprecated: it is about to go"),
        AddressState::Tentative => return Some("not known to be this machine's alone"),
    }
    match address.ip {
        ip if ip.is_loopback() => return Some("loopback: reaches this machine only"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            return Some("link-local: no URL can say on which interface");
        }
        _ => {}
    }
    if is_container_bridge(&address.interface) && !leads_out {
        return Some("a network of containers or virtual machines on this machine");
    }
    let (link_local, private) = (is_link_local(address.ip), is_private(address.ip));
    match word {
        AddressWord::Any => None,
        AddressWord::Private if private => None,
        AddressWord::Private => Some("not a private address"),
        AddressWord::Public if !private && !link_local => None,
        AddressWord::Public => Some("not a public address"),
        AddressWord::LinkLocal if link_local => None,
        AddressWord::LinkLocal => Some("not a link-local address"),
        AddressWord::Multicast => Some("not a multicast address"),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// RFC 1918, carrier-grade NAT (100.64.0.0/10), unique local addresses (fc00::/7).
fn is_private(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| ip.is_private() || matches!(ip.octets(), [100, 64..=127, _, _]);
    let v6 = |ip: Ipv6Addr| ip.is_unique_local();
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

/// Whether an interface is one that runtimes of containers and virtual machines make. Docker calls the networks that
/// users make `br-` and twelve hexadecimal digits; `br-lan` and `br0` are bridges of the house.
fn is_container_bridge(name: &str) -> bool {
    const BEGINNINGS: [&str; 18] = [
        "docker", "veth", "cni", "podman", "virbr", "vnet", "lxcbr", "lxdbr", "incusbr", "flannel", "cali",
        "cilium", "kube", "nerdctl", "weave", "vboxnet", "vmnet", "nspawn",
    ];
    let docker_network = |rest: &str| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || name.strip_prefix("br-").is_some_and(docker_network)
}

/// How good an interface is that the default route does not use, by what its name says.
fn medium(name: &str) -> (u8, &'static str) {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    if begins(&["eth", "en", "br", "bond", "lan"]) {
        (1, "wired, not on the default route")
    } else if begins(&["wl"]) {
        (2, "wireless, not on the default route")
    } else if begins(&["wwan", "ppp", "rmnet"]) {
        (4, "cellular or dial-up, not on the default route")
    } else if begins(&["usb", "l4tbr", "rndis"]) {
        (5, "USB: reaches the computer at the cable only")
    } else if begins(&["tun", "tap", "wg", "tailscale", "zt", "ipsec", "gre"]) {
        (6, "a tunnel, not on the default route")
    } else {
        (3, "not on the default route")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as `interface address`, and the default routes.
    fn network(addresses: &[&str], v4: Option<&str>, v6: Option<&str>) -> Network {
        let one = |text: &&str| {
            let mut words = text.split(' ');
            let (interface, ip) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
            let state = match words.next() {
                Some("temporary") => AddressState::Temporary,
                Some("deprecated") => AddressState::Deprecated,
                Some("tentative") => AddressState::Tentative,
                Some("down") => AddressState::Down,
                _ => AddressState::Good,
            };
            InterfaceAddress { interface, ip, state }
        };
        let addresses = addresses.iter().map(one).collect();
        Network { addresses, default_v4: v4.map(Into::into), default_v6: v6.map(Into::into) }
    }

    /// The usable ones, best first.
    fn usable(network: &Network, word: AddressWord) -> Vec<String> {
        candidates(network, word).into_iter().filter(|c| c.usable).map(|c| c.ip.to_string()).collect()
    }

    fn reason(network: &Network, ip: &str) -> &'static str {
        let all = candidates(network, AddressWord::Any);
        all.into_iter().find(|c| c.ip == ip.parse::<IpAddr>().unwrap()).unwrap().reason
    }

    const PI: [&str; 9] = [
        "lo 127.0.0.1",
        "docker0 172.17.0.1",
        "br-0a1b2c3d4e5f 172.18.0.1",
        "wlan0 192.168.1.8",
        "eth0 192.168.1.7",
        "lo ::1",
        "eth0 2001:db8::7",
        "eth0 2001:db8::abcd temporary",
        "eth0 fe80::1",
    ];

    #[test]
    fn a_pi_with_docker_takes_the_way_out() {
        let by_cable = network(&PI, Some("eth0"), Some("eth0"));
        assert_eq!(usable(&by_cable, AddressWord::Any), ["192.168.1.7", "2001:db8::7", "192.168.1.8"]);
        assert_eq!(usable(&by_cable, AddressWord::Private), ["192.168.1.7", "192.168.1.8"]);
        assert_eq!(usable(&by_cable, AddressWord::Public), ["2001:db8::7"]);
        assert_eq!(usable(&by_cable, AddressWord::LinkLocal), Vec::<String>::new());
        assert_eq!(usable(&by_cable, AddressWord::Multicast), Vec::<String>::new());
        let by_air = network(&PI, Some("wlan0"), Some("wlan0"));
        assert_eq!(usable(&by_air, AddressWord::Any), ["192.168.1.8", "192.168.1.7", "2001:db8::7"]);
        // Nobody leads out: a network of its own.
        let alone = network(&PI, None, None);
        assert_eq!(usable(&alone, AddressWord::Any), ["192.168.1.7", "2001:db8::7", "192.168.1.8"]);
        assert_eq!(reason(&by_cable, "192.168.1.7"), "on the default route");
        assert_eq!(reason(&by_cable, "192.168.1.8"), "wireless, not on the default route");
        assert!(reason(&by_cable, "172.17.0.1").contains("containers"));
        assert!(reason(&by_cable, "172.18.0.1").contains("containers"));
        assert!(reason(&by_cable, "2001:db8::abcd").contains("temporary"));
        assert!(reason(&by_cable, "fe80::1").contains("link-local"));
        assert!(reason(&by_cable, "127.0.0.1").contains("loopback"));
        // All are shown, those of no use last.
        let all = candidates(&by_cable, AddressWord::Any);
        assert_eq!((all.len(), all.iter().skip_while(|c| c.usable).filter(|c| c.usable).count()), (9, 0));
    }

    #[test]
    fn a_jetson_does_not_take_its_usb_cable() {
        let addresses = [
            "l4tbr0 192.168.55.1",
            "usb1 192.168.56.1",
            "docker0 172.17.0.1",
            "wlan0 10.0.0.9",
            "tailscale0 100.90.1.2",
        ];
        let jetson = network(&addresses, Some("wlan0"), None);
        assert_eq!(
            usable(&jetson, AddressWord::Any),
            ["10.0.0.9", "192.168.55.1", "192.168.56.1", "100.90.1.2"]
        );
        // Unless it is all there is, or the way out leads over it (a telephone at the port).
        let bare = network(&addresses[..3], None, None);
        assert_eq!(usable(&bare, AddressWord::Any), ["192.168.55.1", "192.168.56.1"]);
        let tethered = network(&addresses, Some("usb1"), None);
        assert_eq!(usable(&tethered, AddressWord::Any)[0], "192.168.56.1");
    }

    #[test]
    fn only_loopback_is_nothing() {
        assert_eq!(usable(&network(&["lo 127.0.0.1", "lo ::1"], None, None), AddressWord::Any), [""; 0]);
        assert_eq!(usable(&Network::default(), AddressWord::Any), [""; 0]);
    }

    #[test]
    fn ipv6_alone_is_enough() {
        let addresses = [
            "lo ::1",
            "eth0 fd00::7 deprecated",
            "eth0 2001:db8::9 tentative",
            "eth0 fd00::8",
            "eth0 2001:db8::7",
            "eth0 fe80::7",
        ];
        let v6 = network(&addresses, None, Some("eth0"));
        assert_eq!(usable(&v6, AddressWord::Any), ["fd00::8", "2001:db8::7"]);
        assert_eq!(usable(&v6, AddressWord::Private), ["fd00::8"]);
        assert_eq!(usable(&v6, AddressWord::Public), ["2001:db8::7"]);
    }

    #[test]
    fn modems_lead_out_and_unplugged_cables_do_not() {
        let addresses = ["eth0 192.168.1.7 down", "wwan0 100.70.1.2", "ppp0 203.0.113.9", "wg0 10.8.0.2"];
        let modem = network(&addresses, Some("wwan0"), None);
        assert_eq!(usable(&modem, AddressWord::Any), ["100.70.1.2", "203.0.113.9", "10.8.0.2"]);
        assert_eq!(usable(&modem, AddressWord::Public), ["203.0.113.9"]);
        assert!(reason(&modem, "192.168.1.7").contains("no link"));
        // A house's own bridges are no containers', whatever they are called.
        let bridges = network(&["br-lan 192.168.1.1", "br0 192.168.2.1"], None, None);
        assert_eq!(usable(&bridges, AddressWord::Any).len(), 2);
        // In a container, the bridge's end is what leads out.
        let inside = network(&["vethab 10.88.0.5"], Some("vethab"), None);
        assert_eq!(usable(&inside, AddressWord::Any), ["10.88.0.5"]);
        // With nothing but a cable between two machines.
        let cable = network(&["eth0 169.254.7.7", "eth0 fe80::7"], None, None);
        assert_eq!(usable(&cable, AddressWord::Any), ["169.254.7.7"]);
        assert_eq!(usable(&cable, AddressWord::LinkLocal), ["169.254.7.7"]);
        assert_eq!(usable(&cable, AddressWord::Private), [""; 0]);
    }
}
