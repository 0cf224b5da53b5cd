//! The names of segments across nodes: two nodes on one network must use the same name.
//!
//! The operator sets the name, or it is the connected network, on which nodes agree without configuration. Without an
//! address on the segment the name of the interface is used.

use std::{collections::HashMap, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::Vlan;
use probe_model::{Links, Segment, on_link, watched::WatchedInterfaces};

/// A configured segment name: `IFACE[.VID]=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// The interface, optionally with a VLAN. Names of interfaces may contain dots too.
    place: String,
    name: String,
}

/// The error for an invalid segment name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not IFACE=NAME or IFACE.VID=NAME, like eth0.100=storage")]
pub struct SegmentNameError;

impl FromStr for SegmentName {
    type Err = SegmentNameError;

    fn from_str(text: &str) -> Result<Self, SegmentNameError> {
        let (place, name) = text.split_once('=').ok_or(SegmentNameError)?;
        let (place, name) = (place.trim(), name.trim());
        if place.is_empty() || name.is_empty() {
            return Err(SegmentNameError);
        }
        Ok(Self {
            place: place.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl SegmentName {
    /// The VLAN on an interface of this name; `None` if it does not match.
    fn vlan_on(&self, interface: &str) -> Option<Vlan> {
        match self.place.strip_prefix(interface)? {
            "" => Some(Vlan::UNTAGGED),
            rest => rest.strip_prefix('.')?.parse().ok(),
        }
    }
}

/// The names of the current segments of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentNames {
    named: HashMap<Segment, String>,
    /// The connected networks, sorted, with their names.
    networks: HashMap<Segment, Vec<(Ipv4Net, String)>>,
    interfaces: HashMap<u32, String>,
}

impl SegmentNames {
    /// Computes the names for the watched interfaces and the interfaces stacked on them.
    pub fn new(names: &[SegmentName], links: &Links, watched: &WatchedInterfaces) -> Self {
        let mut segments = Self::default();
        for watched in watched.iter() {
            for entry in names {
                if let Some(vlan) = entry.vlan_on(&watched.name) {
                    let interface = watched.ifindex;
                    let segment = Segment { interface, vlan };
                    segments.named.insert(segment, entry.name.clone());
                }
            }
            let (index, name) = (watched.ifindex, watched.name.clone());
            segments.interfaces.insert(index, name);
        }
        for link in links.iter().filter(|link| link.arp) {
            for segment in on_link::segments(links, link, &|index| watched.contains(index)) {
                let known = segments.networks.entry(segment).or_default();
                known.extend(link.addresses.iter().filter_map(connected));
                known.sort_unstable();
                known.dedup();
            }
        }
        segments
    }

    /// The name of the segment of an address. Of several connected networks the one with the address is used, so that
    /// nodes with different secondary addresses agree.
    pub fn name(&self, segment: Segment, ip: IpAddr) -> &str {
        let given = self.named.get(&segment).map(String::as_str);
        let interface = || {
            let name = self.interfaces.get(&segment.interface);
            name.map_or("", String::as_str)
        };
        given
            .or_else(|| self.network(segment, ip))
            .unwrap_or_else(interface)
    }

    fn network(&self, segment: Segment, ip: IpAddr) -> Option<&str> {
        let networks = self.networks.get(&segment)?;
        let contains = |network: &Ipv4Net| matches!(ip, IpAddr::V4(ip) if network.contains(&ip));
        let around = networks
            .iter()
            .filter(|(network, _)| contains(network))
            .max_by_key(|(network, _)| network.prefix_len());
        around.or(networks.first()).map(|(_, name)| name.as_str())
    }
}

/// The network of an interface address, unless it is a single address, as of a service.
fn connected(address: &IpNet) -> Option<(Ipv4Net, String)> {
    match address {
        IpNet::V4(address) if address.prefix_len() < 32 => {
            let network = address.trunc();
            Some((network, network.to_string()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use probe_model::{
        Link,
        watched::{WatchState, WatchedInterface},
    };

    use super::*;

    fn link(index: u32, name: &str, addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        Link {
            index,
            name: name.to_owned(),
            ethernet: true,
            arp: true,
            addresses: addresses.collect(),
            ..Link::default()
        }
    }

    fn watched(interfaces: &[(u32, &str)]) -> WatchedInterfaces {
        let watched = interfaces.iter().map(|&(ifindex, name)| WatchedInterface {
            ifindex,
            name: name.to_owned(),
            state: WatchState::Failed {
                reason: String::new(),
            },
        });
        watched.collect()
    }

    fn segments(names: &[&str]) -> SegmentNames {
        let names: Vec<SegmentName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let child = Link {
            parent: Some(1),
            vlan: Some(100),
            ..link(2, "eth0.100", &["198.51.100.1/24"])
        };
        let eth0 = link(
            1,
            "eth0",
            &["203.0.113.1/24", "192.0.2.1/24", "192.0.2.10/32"],
        );
        let links = [eth0, child, link(3, "eth1", &[])];
        let watched = watched(&[(1, "eth0"), (3, "eth1")]);
        SegmentNames::new(&names, &links.into_iter().collect(), &watched)
    }

    fn name(segments: &SegmentNames, interface: u32, vlan: &str, ip: &str) -> String {
        let vlan = vlan.parse().unwrap();
        let segment = Segment { interface, vlan };
        segments.name(segment, ip.parse().unwrap()).to_owned()
    }

    #[test]
    fn segment_is_named_after_the_prefix_of_the_address() {
        let segments = segments(&[]);
        for (interface, vlan, ip, expected) in [
            (1, "0", "203.0.113.9", "203.0.113.0/24"),
            (1, "0", "192.0.2.10", "192.0.2.0/24"),
            (1, "0", "10.0.0.1", "192.0.2.0/24"),
            (1, "100", "198.51.100.9", "198.51.100.0/24"),
            (1, "200", "198.51.100.9", "eth0"),
            (3, "0", "192.0.2.10", "eth1"),
        ] {
            assert_eq!(
                name(&segments, interface, vlan, ip),
                expected,
                "{interface} {vlan} {ip}"
            );
        }
    }

    #[test]
    fn configured_segment_name_takes_precedence() {
        let segments = segments(&["eth0=front", "eth0.100=storage", "eth1.7.8=deep"]);
        assert_eq!(name(&segments, 1, "0", "192.0.2.10"), "front");
        assert_eq!(name(&segments, 1, "100", "192.0.2.10"), "storage");
        assert_eq!(name(&segments, 3, "7.8", "192.0.2.10"), "deep");
        assert_eq!(name(&segments, 3, "7", "192.0.2.10"), "eth1");
    }

    #[test]
    fn empty_segment_name_is_rejected() {
        for bad in ["", "eth0", "eth0=", "=front", " = "] {
            assert!(bad.parse::<SegmentName>().is_err(), "{bad:?}");
        }
    }
}
