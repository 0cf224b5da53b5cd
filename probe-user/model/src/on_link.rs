//! The networks of this host by segment: the addresses that are on-link.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::Vlan;

use crate::{BindingKey, Link, Links, Segment};

/// The IPv4 networks of this host on a segment of an interface.
pub fn networks(links: &Links, interface: u32, vlan: Vlan) -> Vec<Ipv4Net> {
    let segment = Segment { interface, vlan };
    let is_on_segment = |link: &&Link| {
        link.arp && segments(links, link, &|index| index == interface).contains(&segment)
    };
    let addresses = links
        .iter()
        .filter(is_on_segment)
        .flat_map(|link| &link.addresses);
    let mut networks: Vec<_> = addresses
        .filter_map(|network| match network {
            IpNet::V4(network) => Some(network.trunc()),
            IpNet::V6(_) => None,
        })
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// The network and the broadcast address, which no host can have; `None` for a network without them (/31 or /32, RFC 3021).
pub fn reserved_addresses(network: Ipv4Net) -> Option<[Ipv4Addr; 2]> {
    (network.prefix_len() < 31).then(|| [network.network(), network.broadcast()])
}

/// Whether an address is a valid host address in a network.
pub fn is_host_address(network: Ipv4Net, address: Ipv4Addr) -> bool {
    let is_reserved = || reserved_addresses(network).is_some_and(|two| two.contains(&address));
    network.contains(&address) && !is_reserved()
}

/// The on-link IPv4 networks of this host, by watched segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnLinkNetworks(Vec<(Segment, Ipv4Net)>);

impl OnLinkNetworks {
    /// The networks of these links on the segments of `watched` interfaces.
    pub fn new(links: &Links, watched: impl Fn(u32) -> bool) -> Self {
        let mut on_link: Vec<_> = links
            .iter()
            .filter(|link| link.arp)
            .flat_map(|link| {
                let networks = link.addresses.iter().filter_map(|network| match network {
                    IpNet::V4(network) => Some(network.trunc()),
                    IpNet::V6(_) => None,
                });
                let networks: Vec<_> = networks.collect();
                let segments = segments(links, link, &watched);
                segments.into_iter().flat_map(move |segment| {
                    networks.clone().into_iter().map(move |net| (segment, net))
                })
            })
            .collect();
        on_link.sort_unstable();
        on_link.dedup();
        Self(on_link)
    }

    /// The binding keys of an address, one for each segment on which a host can have it: usually one or none.
    pub fn keys(&self, ip: IpAddr) -> impl Iterator<Item = BindingKey> {
        let networks = self.0.iter().filter(move |(_, network)| match ip {
            IpAddr::V4(ip) => is_host_address(*network, ip),
            IpAddr::V6(_) => false,
        });
        networks.map(move |&(segment, _)| BindingKey { segment, ip })
    }
}

/// The watched segments on which addresses of an interface are claimed: its own, or those of the parent or the ports
/// through which its frames pass.
pub fn segments(links: &Links, link: &Link, watched: &impl Fn(u32) -> bool) -> Vec<Segment> {
    if watched(link.index) {
        return vec![Segment {
            interface: link.index,
            vlan: Vlan::UNTAGGED,
        }];
    }
    let ports = links.iter().filter(|port| port.master == Some(link.index));
    let parent = link.parent.and_then(|parent| links.get(parent));
    ports
        .chain(parent)
        .filter(|lower| watched(lower.index))
        .filter_map(|lower| {
            let vlan = match link.vlan {
                Some(vid) if link.parent == Some(lower.index) => Vlan([vid, 0]),
                Some(_) => return None,
                None => Vlan::UNTAGGED,
            };
            Some(Segment {
                interface: lower.index,
                vlan,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use probe_common::wire::MacAddr;

    use super::*;

    fn link(index: u32, address: &str) -> Link {
        Link {
            index,
            mac: Some(MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            ethernet: true,
            arp: true,
            addresses: vec![address.parse().unwrap()],
            ..Link::default()
        }
    }

    #[test]
    fn the_networks_of_a_segment_include_those_of_vlan_children_and_macvlans() {
        let vlan = Link {
            parent: Some(1),
            vlan: Some(100),
            ..link(2, "198.51.100.1/24")
        };
        let macvlan = Link {
            parent: Some(1),
            ..link(3, "192.0.2.3/24")
        };
        let links = [link(1, "192.0.2.1/24"), vlan, macvlan]
            .into_iter()
            .collect();
        let shown = |vlan| {
            let networks = networks(&links, 1, vlan);
            networks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(Vlan::UNTAGGED), ["192.0.2.0/24"]);
        assert_eq!(shown(Vlan([100, 0])), ["198.51.100.0/24"]);
        assert_eq!(shown(Vlan([200, 0])), [""; 0]);
    }

    #[test]
    fn an_address_is_on_link_where_a_host_of_a_watched_network_can_have_it() {
        let vlan = Link {
            parent: Some(1),
            vlan: Some(100),
            ..link(2, "198.51.100.1/24")
        };
        let links = [
            link(1, "192.0.2.1/24"),
            vlan,
            link(3, "203.0.113.1/24"),
            link(4, "203.0.113.128/31"),
        ];
        let on_link = OnLinkNetworks::new(&links.into_iter().collect(), |index| {
            [1, 4].contains(&index)
        });
        let shown = |ip: &str| {
            let keys = on_link.keys(ip.parse().unwrap());
            let shown = keys.map(|key| format!("{} {}", key.segment.interface, key.segment.vlan));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown("192.0.2.80"), ["1 0"]);
        assert_eq!(shown("198.51.100.80"), ["1 100"]);
        assert_eq!(shown("203.0.113.80"), [""; 0], "not watched");
        assert_eq!(shown("203.0.113.128"), ["4 0"]);
        assert_eq!(shown("192.0.2.0"), [""; 0]);
        assert_eq!(shown("192.0.2.255"), [""; 0]);
        assert_eq!(shown("192.0.3.1"), [""; 0]);
        assert_eq!(shown("2001:db8::1"), [""; 0]);
    }
}
