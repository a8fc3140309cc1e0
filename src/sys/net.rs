//! The addresses of this machine, by interface, and which interfaces lead out.
//!
//! From `/proc/self/net` and one ioctl: a service that may only use sockets of the Internet and see its own processes
//! (systemd's `RestrictAddressFamilies` and `ProcSubset`) has no netlink and no `/proc/net`, and these still answer.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name, e.g. `eth0`.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// What it is good for.
    pub state: AddressState,
}

/// What an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// Anything.
    Good,
    /// Its interface has no link.
    Down,
    /// IPv6: made up for outgoing connections, replaced within a day (RFC 8981).
    Temporary,
    /// IPv6: about to go.
    Deprecated,
    /// IPv6: not known yet to be nobody else's, or known to be.
    Tentative,
}

/// What this machine is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Its addresses: IPv4 first, each in the system's order.
    pub addresses: Vec<InterfaceAddress>,
    /// The interface of the IPv4 default route.
    pub default_v4: Option<String>,
    /// The interface of the IPv6 default route.
    pub default_v6: Option<String>,
}

/// Addresses of one family that are looked at.
const ADDRESSES_MAX: usize = 128;

/// Largest table of the kernel's that is read here: a router's may be larger, its default route comes early.
const TABLE_MAX: u64 = 256 * 1024;

impl Network {
    /// As it is now. What the system does not tell is not there.
    #[must_use]
    pub fn detect() -> Self {
        let mut addresses = match configured_v4() {
            Ok(table) => parse_ifconf(&table, IFREQ),
            Err(error) => {
                log::debug!("the interfaces' IPv4 addresses are not known: {error}");
                Vec::new()
            }
        };
        addresses.extend(parse_if_inet6(&table("/proc/self/net/if_inet6")));
        for address in &mut addresses {
            if address.state == AddressState::Good && has_no_link(&address.interface) {
                address.state = AddressState::Down;
            }
        }
        Self {
            addresses,
            default_v4: parse_route(&table("/proc/self/net/route")),
            default_v6: parse_ipv6_route(&table("/proc/self/net/ipv6_route")),
        }
    }

    /// Whether an address is one of this machine's.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses.iter().any(|address| address.ip == ip)
    }
}

/// A table of the kernel's, or nothing.
fn table(path: &str) -> String {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(TABLE_MAX).read_to_string(&mut text)) {
        Ok(_) => text,
        // A kernel without IPv6 has no such table.
        Err(_) => String::new(),
    }
}

/// Whether the interface says that nothing is connected to it. Those that do not know (`ppp0`, `lo`) are up.
fn has_no_link(interface: &str) -> bool {
    if interface.contains('/') || interface.starts_with('.') {
        return false;
    }
    let state = table(&format!("/sys/class/net/{interface}/operstate"));
    matches!(state.trim(), "down" | "notpresent" | "lowerlayerdown")
}

/// Bytes of a `struct ifreq`: a name of 16, and a union of which a `struct ifmap` is the largest part.
const IFREQ: usize = 16 + if cfg!(target_pointer_width = "64") { 24 } else { 16 };

/// All `struct ifreq` that the kernel has for IPv4, one after the other.
fn configured_v4() -> std::io::Result<Vec<u8>> {
    /// `struct ifconf`.
    #[repr(C)]
    struct IfConf {
        length: std::ffi::c_int,
        buffer: *mut u8,
    }
    const SIOCGIFCONF: rustix::ioctl::Opcode = 0x8912;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut buffer = vec![0; ADDRESSES_MAX * IFREQ];
    let length = std::ffi::c_int::try_from(buffer.len()).map_err(std::io::Error::other)?;
    let mut request = IfConf { length, buffer: buffer.as_mut_ptr() };
    // SAFETY: SIOCGIFCONF takes a struct ifconf, whose layout IfConf has; the kernel writes at most `length` bytes to
    // `buffer`, which is that long and outlives the call, and sets `length` to what it wrote.
    unsafe {
        rustix::ioctl::ioctl(&socket, rustix::ioctl::Updater::<SIOCGIFCONF, IfConf>::new(&mut request))?;
    }
    buffer.truncate(usize::try_from(request.length).unwrap_or(0));
    Ok(buffer)
}

/// Names and addresses of a run of `struct ifreq` of that size.
fn parse_ifconf(bytes: &[u8], size: usize) -> Vec<InterfaceAddress> {
    let one = |request: &[u8]| {
        let name = request.get(..16)?.split(|b| *b == 0).next()?;
        let [a, b, c, d] = *request.get(20..24)? else { return None };
        // A second address of an interface has a label such as `eth0:1`.
        let name = std::str::from_utf8(name).ok()?.split(':').next()?;
        let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        Some(InterfaceAddress { interface: name.to_owned(), ip, state: AddressState::Good })
    };
    bytes.chunks_exact(size).filter_map(one).filter(|address| !address.ip.is_unspecified()).collect()
}

/// Addresses of `if_inet6`: address, index, prefix length, scope, flags (all hexadecimal), name.
fn parse_if_inet6(text: &str) -> Vec<InterfaceAddress> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, _, _, flags, name] = *fields.as_slice() else { return None };
        let ip = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let state = match flags {
            flags if flags & (0x08 | 0x40) != 0 => AddressState::Tentative,
            flags if flags & 0x20 != 0 => AddressState::Deprecated,
            flags if flags & 0x01 != 0 => AddressState::Temporary,
            _ => AddressState::Good,
        };
        Some(InterfaceAddress { interface: name.to_owned(), ip: ip.into(), state })
    };
    text.lines().filter_map(one).take(ADDRESSES_MAX).collect()
}

/// A route can be used (`RTF_UP`) and is not there to refuse (`RTF_REJECT`).
const fn is_open(flags: u32) -> bool {
    flags & 0x0001 != 0 && flags & 0x0200 == 0
}

/// The interface of the default route in `route`, of several the one with the least metric.
fn parse_route(text: &str) -> Option<String> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, "00000000", _, flags, _, _, metric, "00000000", ..] = *fields.as_slice() else {
            return None;
        };
        let open = is_open(u32::from_str_radix(flags, 16).ok()?);
        open.then_some((metric.parse::<u32>().ok()?, name.to_owned()))
    };
    text.lines().filter_map(one).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// The same of `ipv6_route`, where metrics are hexadecimal.
fn parse_ipv6_route(text: &str) -> Option<String> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [target, "00", _, "00", _, metric, _, _, flags, name] = *fields.as_slice() else { return None };
        let open = target.bytes().all(|b| b == b'0') && is_open(u32::from_str_radix(flags, 16).ok()?);
        open.then_some((u32::from_str_radix(metric, 16).ok()?, name.to_owned()))
    };
    text.lines().filter_map(one).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_that_of_the_least_metric() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0201\t0\t0\t1\t00000000\t0\t0\t0\n\
            tun1\t00000000\t00000000\t0001\t0\t0\t1\t00000080\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(parse_route(text).as_deref(), Some("eth0"));
        let zero = "0".repeat(32);
        let text = format!(
            "20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003 wlan0\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000002 00000200 00000002 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        assert_eq!(parse_ipv6_route(&text).as_deref(), Some("eth0"));
        for nothing in ["", "Iface\n", "a b c\n", "lo 00000000"] {
            assert_eq!((parse_route(nothing), parse_ipv6_route(nothing)), (None, None));
        }
    }

    #[test]
    fn addresses_of_ipv6_have_their_state() {
        let text = "20010db8000000000000000000000001 02 40 00 80     eth0\n\
                    20010db8000000000000000000000002 02 40 00 01     eth0\n\
                    20010db8000000000000000000000003 02 40 00 21     eth0\n\
                    20010db8000000000000000000000004 02 40 00 40     eth0\n\
                    fe800000000000000000000000000001 02 40 20 80     eth0\nbroken\n";
        let found: Vec<_> = parse_if_inet6(text).into_iter().map(|a| (a.ip.to_string(), a.state)).collect();
        use AddressState as S;
        let wanted = [
            ("2001:db8::1", S::Good),
            ("2001:db8::2", S::Temporary),
            ("2001:db8::3", S::Deprecated),
            ("2001:db8::4", S::Tentative),
            ("fe80::1", S::Good),
        ];
        assert_eq!(found, wanted.map(|(ip, state)| (ip.to_owned(), state)));
        assert_eq!(parse_if_inet6(&text.repeat(100)).len(), ADDRESSES_MAX);
    }

    #[test]
    fn requests_of_both_sizes_are_read() {
        for size in [32, 40] {
            let mut bytes = Vec::new();
            for (name, ip) in [("lo", [127, 0, 0, 1]), ("eth0", [10, 0, 0, 5]), ("eth0:1", [10, 0, 0, 6])] {
                let mut request = vec![0; size];
                request[..name.len()].copy_from_slice(name.as_bytes());
                request[20..24].copy_from_slice(&ip);
                bytes.extend(request);
            }
            bytes.extend([0; 7]);
            let found = parse_ifconf(&bytes, size);
            let names: Vec<_> = found.iter().map(|a| (a.interface.as_str(), a.ip.to_string())).collect();
            assert_eq!(names[1], ("eth0", "10.0.0.5".to_owned()));
            assert_eq!((names.len(), names[2].0), (3, "eth0"));
        }
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let network = Network::detect();
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(network.addresses.iter().any(|a| a.ip == localhost && a.state == AddressState::Good));
        assert!(network.has(localhost) && !network.has("192.0.2.77".parse().unwrap()));
    }
}
