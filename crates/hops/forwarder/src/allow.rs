//! The places that a request may choose to be forwarded to.
//!
//! Whoever lets clients choose lets them reach what only this machine can reach. So an address must
//! be one that the configuration allows, and it is the address that is checked, after the name was
//! resolved and before anything is sent: a name that points elsewhere a moment later changes
//! nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use service::Mistake;

use crate::config::{place, wire::WireAllow};

/// A checked allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allow {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
    ports: Vec<u16>,
}

/// Why a request can't have the place that it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// It is not allowed: a text that says why.
    Refused(String),
    /// It has no address, allowed or not.
    Unknown(String),
}

impl Allow {
    /// Checks a list.
    ///
    /// # Errors
    /// If a network can't be read, or nothing is allowed.
    pub(crate) fn new(wire: &WireAllow) -> Result<Self, Mistake> {
        let networks = wire.networks.iter().enumerate().map(|(index, text)| {
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            // Bits beyond the prefix are a slip of the pen: which of both is meant?
            let network = network.ok().filter(|network| network.trunc() == *network);
            network.ok_or_else(|| {
                let text = format!("'networks': expected such as '10.1.0.0/16', found '{text}'");
                Mistake::at("networks", text).in_item(index)
            })
        });
        if wire.ports.is_empty() || wire.ports.contains(&0) {
            let text = "'ports': expected one at least, each from 1 to 65535";
            return Err(Mistake::at("ports", text));
        }
        let hosts = wire.hosts.iter().enumerate().map(|(index, host)| {
            place::asked_host("hosts", host).map_err(|mistake| mistake.in_item(index))
        });
        if wire.hosts.is_empty() && wire.networks.is_empty() {
            let text = "'hosts' and 'networks' are both empty, so nothing is allowed; name one";
            return Err(Mistake::at("hosts", text));
        }
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            networks: networks.collect::<Result<_, _>>()?,
            ports: wire.ports.clone(),
        })
    }

    /// Resolves a host once, and returns the first of its addresses that is allowed.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, Missed> {
        if !self.ports.contains(&port) {
            return Err(Missed::Refused(format!("port {port} is not allowed")));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            let checked = self.check(host, address).map_err(Missed::Refused);
            return checked.map(|address| (address, port).into());
        }
        // No address can make it allowed, so nobody is asked for one.
        if self.networks.is_empty() && !self.has_host(host) {
            let why = format!("'{host}' is not in the allowed hosts");
            return Err(Missed::Refused(why));
        }
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|error| {
            tracing::debug!("'{host}': {error}");
            Missed::Unknown(format!("'{host}' could not be resolved"))
        })?;
        let mut missed = Missed::Unknown(format!("'{host}' has no address"));
        for address in found {
            match self.check(host, address.ip()) {
                Ok(address) => return Ok((address, port).into()),
                Err(why) => missed = Missed::Refused(why),
            }
        }
        Err(missed)
    }

    /// Checks one address of a host.
    fn check(&self, host: &str, address: IpAddr) -> Result<IpAddr, String> {
        let address = address.to_canonical();
        if is_never_allowed(address) {
            return Err(format!("{address} is never allowed"));
        }
        let in_network = self
            .networks
            .iter()
            .any(|network| network.contains(&address));
        if in_network || (is_public(address) && self.has_host(host)) {
            return Ok(address);
        }
        Err(format!("{address} is not in the allowed networks"))
    }

    fn has_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts
            .iter()
            .any(|allowed| match allowed.strip_prefix('*') {
                Some(end) => host.len() > end.len() && host.ends_with(end),
                None => *allowed == host,
            })
    }
}

/// Returns whether an address belongs to the machine's own surroundings, such as the cloud's
/// metadata, and is refused whatever is configured.
fn is_never_allowed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4 == METADATA_V4
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == METADATA_V6
        }
    }
}

/// Metadata services that aren't at link-local addresses.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns whether an address is reached over the internet, as far as its number tells (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                // Shared by a provider's customers, and for measurements.
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(v6) => {
            // 2000::/3 is all that is assigned, but parts of it carry IPv4 or are documentation.
            let [a, b, ..] = v6.segments();
            (0x2000..0x4000).contains(&a) && a != 0x2002 && !(a == 0x2001 && (b == 0 || b == 0xdb8))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(hosts: &[&str], networks: &[&str]) -> Allow {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Allow::new(&WireAllow {
            hosts: owned(hosts),
            networks: owned(networks),
            ports: vec![80],
        })
        .expect("valid")
    }

    #[test]
    fn surroundings_are_never_allowed() {
        let all = allow(&["*.example"], &["0.0.0.0/0", "::/0"]);
        for address in [
            "169.254.169.254",
            "100.100.100.200",
            "fd00:ec2::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "::ffff:169.254.169.254",
        ] {
            let address = address.parse().expect(address);
            assert!(all.check("a.example", address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_name_that_turns_to_an_inner_address_is_refused() {
        let allow = allow(&["good.example", "*.more.example"], &["10.1.0.0/16"]);
        let checked = |host, address: &str| allow.check(host, address.parse().expect(address));
        for host in ["good.example", "GOOD.example.", "a.more.example"] {
            assert!(checked(host, "93.184.216.34").is_ok(), "{host}");
            assert!(checked(host, "10.1.2.3").is_ok(), "{host}");
            for inner in [
                "127.0.0.1",
                "10.2.0.1",
                "192.168.0.1",
                "::1",
                "fd00::1",
                "2002:7f00:1::",
            ] {
                assert!(checked(host, inner).is_err(), "{host} {inner}");
            }
        }
        for host in [
            "bad.example",
            "more.example",
            "xgood.example",
            "93.184.216.34",
        ] {
            assert!(checked(host, "93.184.216.34").is_err(), "{host}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn names_are_resolved_and_their_addresses_checked() {
        let local = allow(&[], &["127.0.0.0/8", "::1"]);
        for host in ["127.0.0.1", "localhost", "[::1]"] {
            let address = local.resolve(host, 80).await.expect(host);
            assert!(address.ip().is_loopback(), "{address}");
        }
        assert!(
            local.resolve("localhost", 81).await.is_err(),
            "another port"
        );
        let named = allow(&["localhost"], &[]);
        let said = |missed: Result<SocketAddr, Missed>| match missed.expect_err("no address") {
            Missed::Refused(why) => format!("refused: {why}"),
            Missed::Unknown(why) => format!("unknown: {why}"),
        };
        // Names that end so never have an address (RFC 6761).
        for (allow, host, why) in [
            (&named, "localhost", "refused: 127.0.0.1 is not in the"),
            (&named, "other.invalid", "refused: 'other.invalid' is not"),
            (&local, "name.invalid", "unknown: 'name.invalid' could not"),
        ] {
            let missed = said(allow.resolve(host, 80).await);
            assert!(missed.starts_with(why), "{missed}");
        }
    }

    #[test]
    fn lists_that_allow_nothing_are_mistakes() {
        let of = |hosts: &[&str], networks: &[&str], ports: &[u16]| {
            let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let (hosts, networks, ports) = (owned(hosts), owned(networks), ports.to_vec());
            Allow::new(&WireAllow {
                hosts,
                networks,
                ports,
            })
            .map_err(|error| error.to_string())
        };
        for (list, said) in [
            (of(&[], &[], &[80]), "nothing is allowed"),
            (of(&["a"], &[], &[]), "'ports'"),
            (of(&["a"], &[], &[0]), "'ports'"),
            (of(&["*"], &[], &[80]), "'hosts': expected a name"),
            (of(&["http://a"], &[], &[80]), "'hosts': expected a name"),
            (of(&[], &["10.1.2.3/16"], &[80]), "found '10.1.2.3/16'"),
            (of(&[], &["10.0.0.0/33"], &[80]), "found '10.0.0.0/33'"),
        ] {
            let error = list.expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}
