//! Where downloads may lead: not to this machine itself, and not to its link.
//!
//! A job's author is not the node's owner. What listens on loopback trusts those who are on the machine, and
//! 169.254.169.254 hands out a cloud's credentials. The check is made on the addresses that are connected to, for
//! each redirect anew, so that neither a name nor a redirect leads around it. Private networks stay allowed: boards
//! live there.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// An agent that keeps away from this machine.
pub fn guarded(config: Config) -> Agent {
    Agent::with_parts(config, Guard.chain(DefaultConnector::new()), Guard)
}

/// The refusal behind an error of such an agent.
pub fn refusal(error: &Error) -> Option<&Refused> {
    match error {
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// An address that inputs are not fetched from.
#[derive(Debug, thiserror::Error)]
#[error("it leads to {0}, which is {1}, and inputs are not fetched from there")]
pub struct Refused(IpAddr, &'static str);

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::PermissionDenied, refused))
    }
}

/// What is wrong with an address, if anything is.
fn check(ip: IpAddr) -> Result<(), Refused> {
    let refused = |why| Err(Refused(ip, why));
    // Connecting to ::ffff:127.0.0.1 is connecting to 127.0.0.1.
    match ip.to_canonical() {
        IpAddr::V4(v4) if v4.is_loopback() => refused("this machine itself"),
        // Linux takes 0.0.0.0 for the machine itself; nobody has the rest of that network.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => refused("this machine itself"),
        IpAddr::V4(v4) if v4.is_link_local() => refused("link-local"),
        IpAddr::V4(v4) if v4.is_multicast() || v4 == Ipv4Addr::BROADCAST => refused("a multicast address"),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => refused("this machine itself"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => refused("link-local"),
        IpAddr::V6(v6) if v6.is_multicast() => refused("a multicast address"),
        _ => Ok(()),
    }
}

/// Whether that is the address of the proxy, which the node's owner chose.
fn is_proxy(uri: &Uri, config: &Config) -> bool {
    config
        .proxy()
        .is_some_and(|proxy| uri.host() == Some(proxy.host()) && uri.port_u16() == Some(proxy.port()))
}

#[derive(Debug)]
struct Guard;

impl Resolver for Guard {
    /// Of a name's addresses those that may be connected to.
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        if is_proxy(uri, config) {
            return Ok(found);
        }
        let (mut allowed, mut refused) = (self.empty(), None);
        for address in found.iter() {
            match check(address.ip()) {
                Ok(()) => allowed.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if allowed.is_empty() => Err(why.into()),
            _ => Ok(allowed),
        }
    }
}

impl Connector for Guard {
    type Out = ();

    /// Names that a proxy is to look up are not resolved here; those that need no looking up are checked all the same.
    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<()>, Error> {
        if details.config.proxy().is_some() && !is_proxy(details.uri, details.config) {
            let host = details.uri.host().unwrap_or_default().trim_end_matches('.');
            let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            let local = host.eq_ignore_ascii_case("localhost");
            match literal {
                Ok(ip) => check(ip)?,
                Err(_) if local => check(IpAddr::V4(Ipv4Addr::LOCALHOST))?,
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_link_are_out_of_reach() {
        for bad in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.1.1",
            "::ffff:0.0.0.0",
            "fe80::1",
            "febf::1",
            "ff02::fb",
        ] {
            assert!(check(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in
            ["10.0.0.1", "172.16.0.1", "192.168.1.5", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fd00::1"]
        {
            assert!(check(good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
