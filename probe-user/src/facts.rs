//! What this host itself holds, in the terms of detection.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::Vlan;

use crate::{
    detect::{BindingKey, HostFacts, Segment},
    links::{DefaultRoute, Link, Links},
};

/// Derives the facts that concern the watched interfaces.
pub fn host_facts(links: &Links, watched: impl Fn(u32) -> bool) -> HostFacts {
    let mut facts = HostFacts::default();
    for link in links.iter() {
        facts.macs.extend(link.mac);
        // IPVS nodes have every service address on a dummy or loopback, and hold none of them.
        if !link.arp {
            continue;
        }
        for segment in segments(links, link, &watched) {
            for network in &link.addresses {
                let key = |ip| BindingKey { segment, ip };
                if let Some(mac) = link.mac {
                    facts.addresses.insert(key(network.addr()), mac);
                }
                if let IpNet::V4(network) = network
                    && network.prefix_len() < 31
                {
                    facts
                        .broadcasts
                        .insert(key(IpAddr::V4(network.broadcast())));
                }
            }
        }
    }
    if let Some(DefaultRoute {
        interface,
        gateway: Some(ip),
    }) = links.default_route()
        && let Some(link) = links.get(interface)
    {
        let segments = segments(links, link, &watched);
        facts.gateways.extend(
            segments
                .into_iter()
                .map(|segment| BindingKey { segment, ip }),
        );
    }
    facts
}

/// The IPv4 networks that this host is in on a segment of one interface.
pub fn networks(links: &Links, interface: u32, vlan: Vlan) -> Vec<Ipv4Net> {
    let here = Segment { interface, vlan };
    let is_here = |link: &&Link| {
        link.arp && segments(links, link, &|index| index == interface).contains(&here)
    };
    let addresses = links
        .iter()
        .filter(is_here)
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

/// The IPv4 networks of this host, by watched segment: what is on-link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnLink(Vec<(Segment, Ipv4Net)>);

impl OnLink {
    /// What these links say; only through the `watched` interfaces.
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

    /// Where a station can have the address: usually on one segment, or on none.
    pub fn keys(&self, ip: IpAddr) -> impl Iterator<Item = BindingKey> {
        let here = self.0.iter().filter(move |(_, network)| match ip {
            // In networks of two addresses both are stations' (RFC 3021).
            IpAddr::V4(ip) if network.prefix_len() < 31 => {
                network.contains(&ip) && ip != network.network() && ip != network.broadcast()
            }
            IpAddr::V4(ip) => network.contains(&ip),
            IpAddr::V6(_) => false,
        });
        here.map(move |&(segment, _)| BindingKey { segment, ip })
    }
}

/// The watched segments on which an address of this interface is claimed: its own, or that of the parent
/// or port that its frames pass.
pub(crate) fn segments(links: &Links, link: &Link, watched: &impl Fn(u32) -> bool) -> Vec<Segment> {
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
        .filter(|below| watched(below.index))
        .filter_map(|below| {
            let vlan = match link.vlan {
                Some(vid) if link.parent == Some(below.index) => Vlan([vid, 0]),
                Some(_) => return None,
                None => Vlan::UNTAGGED,
            };
            Some(Segment {
                interface: below.index,
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

    fn held(links: impl IntoIterator<Item = Link>, watched: u32) -> Vec<(String, String)> {
        let facts = host_facts(&links.into_iter().collect(), |index| index == watched);
        let mut held: Vec<_> = facts
            .addresses
            .keys()
            .map(|key| (key.ip.to_string(), key.segment.vlan.to_string()))
            .collect();
        held.sort();
        held
    }

    fn pair(ip: &str, vlan: &str) -> (String, String) {
        (ip.to_owned(), vlan.to_owned())
    }

    #[test]
    fn addresses_of_vlan_children_bridges_and_macvlans_belong_to_the_watched_interface() {
        let eth0 = link(1, "192.0.2.1/24");
        let vlan = Link {
            parent: Some(1),
            vlan: Some(100),
            ..link(2, "198.51.100.1/24")
        };
        let macvlan = Link {
            parent: Some(1),
            ..link(3, "192.0.2.3/24")
        };
        assert_eq!(
            held([eth0.clone(), vlan, macvlan], 1),
            [
                pair("192.0.2.1", "0"),
                pair("192.0.2.3", "0"),
                pair("198.51.100.1", "100")
            ]
        );
        let port = Link {
            master: Some(4),
            addresses: Vec::new(),
            ..eth0
        };
        assert_eq!(
            held([port, link(4, "192.0.2.4/24")], 1),
            [pair("192.0.2.4", "0")]
        );
    }

    #[test]
    fn the_networks_of_a_segment_are_those_of_everything_that_speaks_there() {
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
    fn an_address_is_on_link_where_a_station_of_a_watched_network_can_have_it() {
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
        let on_link = OnLink::new(&links.into_iter().collect(), |index| {
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

    #[test]
    fn what_is_on_loopback_or_another_wire_is_not_held_here() {
        let dummy = Link {
            arp: false,
            ..link(2, "192.0.2.9/32")
        };
        assert_eq!(
            held([link(1, "192.0.2.1/24"), dummy, link(3, "192.0.2.5/24")], 1),
            [pair("192.0.2.1", "0")]
        );
    }

    #[test]
    fn the_gateway_is_known_on_the_interface_that_leads_to_it() {
        let gateway = Some("192.0.2.254".parse().unwrap());
        let route = DefaultRoute {
            interface: 1,
            gateway,
        };
        let links = Links::from_iter([link(1, "192.0.2.1/24")]).with_default_route(Some(route));
        let facts = host_facts(&links, |index| index == 1);
        let gateways: Vec<_> = facts
            .gateways
            .iter()
            .map(|key| key.ip.to_string())
            .collect();
        assert_eq!(gateways, ["192.0.2.254"]);
        assert!(host_facts(&links, |_| false).gateways.is_empty());
    }

    #[test]
    fn the_broadcast_address_of_a_connected_network_is_known() {
        let links = [link(1, "192.0.2.1/24"), link(2, "198.51.100.0/31")]
            .into_iter()
            .collect();
        let facts = host_facts(&links, |_| true);
        let broadcasts: Vec<_> = facts
            .broadcasts
            .iter()
            .map(|key| key.ip.to_string())
            .collect();
        assert_eq!(broadcasts, ["192.0.2.255"]);
    }
}
