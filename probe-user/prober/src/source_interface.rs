//! Selects the source interface of ARP probes: only addresses in networks of this host are probed, through links that are
//! up, with the MAC of the interface that is connected to the network.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Link, Links, Segment, on_link};

use super::NotSentReason;

/// The source interface of an ARP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceInterface {
    /// The segment. The frame is sent through its watched interface, with the VLAN tag.
    pub segment: Segment,
    /// The sender MAC: that of the interface with an address in the network.
    pub mac: MacAddr,
}

/// The networks that this host is connected to through watched interfaces.
#[derive(Clone, Debug, Default)]
pub struct SourceInterfaces(HashMap<Segment, Vec<ConnectedNetwork>>);

#[derive(Clone, Copy, Debug)]
struct ConnectedNetwork {
    network: Ipv4Net,
    mac: MacAddr,
    /// Whether all interfaces of the path are up and have a carrier.
    is_operational: bool,
}

impl SourceInterfaces {
    /// Derives the connected networks on the segments of `watched` interfaces.
    pub fn new(links: &Links, watched: impl Fn(u32) -> bool) -> Self {
        let is_operational = |link: &Link| link.up && link.carrier;
        let mut networks: HashMap<Segment, Vec<ConnectedNetwork>> = HashMap::new();
        for link in links.iter().filter(|link| link.arp) {
            let Some(mac) = link.mac.filter(|mac| *mac != MacAddr::ZERO) else {
                continue;
            };
            for segment in on_link::segments(links, link, &watched) {
                let lower = links.get(segment.interface);
                let connections = link.addresses.iter().filter_map(|network| match network {
                    IpNet::V4(network) => Some(ConnectedNetwork {
                        network: *network,
                        mac,
                        is_operational: is_operational(link) && lower.is_some_and(is_operational),
                    }),
                    IpNet::V6(_) => None,
                });
                let on_segment = networks.entry(segment).or_default();
                if link.index == segment.interface {
                    // The interface itself takes precedence over a macvlan on it.
                    on_segment.splice(0..0, connections);
                } else {
                    on_segment.extend(connections);
                }
            }
        }
        Self(networks)
    }

    /// Selects the source interface for an address, or returns why it cannot be probed.
    pub fn find(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        let IpAddr::V4(ip) = key.ip else {
            return Err(NotSentReason::OffLink);
        };
        let connections = self.0.get(&key.segment).into_iter().flatten();
        let mut candidates =
            connections.filter(|connection| on_link::is_host_address(connection.network, ip));
        let first = candidates.next().ok_or(NotSentReason::OffLink)?;
        let working = [first]
            .into_iter()
            .chain(candidates)
            .find(|connection| connection.is_operational);
        working
            .ok_or(NotSentReason::LinkDown)
            .map(|connection| SourceInterface {
                segment: key.segment,
                mac: connection.mac,
            })
    }

    /// The segments on which an address is on-link.
    pub fn segments_of(&self, ip: Ipv4Addr) -> impl Iterator<Item = Segment> {
        let segments = self.0.iter().filter(move |(_, connections)| {
            let mut connections = connections.iter();
            connections.any(|connection| on_link::is_host_address(connection.network, ip))
        });
        segments.map(|(segment, _)| *segment)
    }
}

#[cfg(test)]
mod tests {
    use probe_common::wire::Vlan;

    use super::*;

    fn link(index: u32, address: &str) -> Link {
        Link {
            index,
            mac: Some(MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            ethernet: true,
            arp: true,
            up: true,
            carrier: true,
            addresses: vec![address.parse().unwrap()],
            ..Link::default()
        }
    }

    fn find(links: &[Link], vlan: u16, ip: &str) -> Result<u8, NotSentReason> {
        let interfaces =
            SourceInterfaces::new(&links.iter().cloned().collect(), |index| index == 1);
        let key = BindingKey {
            segment: Segment {
                interface: 1,
                vlan: Vlan([vlan, 0]),
            },
            ip: ip.parse().unwrap(),
        };
        interfaces.find(&key).map(|source| source.mac.0[5])
    }

    #[test]
    fn only_addresses_of_connected_networks_are_probed() {
        let links = [link(1, "192.0.2.1/24"), link(2, "198.51.100.1/24")];
        assert_eq!(find(&links, 0, "192.0.2.7"), Ok(1));
        assert_eq!(find(&links, 0, "192.0.2.1"), Ok(1), "its own");
        for off in [
            "192.0.2.0",
            "192.0.2.255",
            "198.51.100.7",
            "203.0.113.1",
            "2001:db8::1",
        ] {
            assert_eq!(find(&links, 0, off), Err(NotSentReason::OffLink), "{off}");
        }
        assert_eq!(find(&[link(1, "192.0.2.0/31")], 0, "192.0.2.1"), Ok(1));
        assert_eq!(
            find(&[link(1, "192.0.2.1/32")], 0, "192.0.2.2"),
            Err(NotSentReason::OffLink)
        );
    }

    #[test]
    fn of_stacked_interfaces_the_one_with_the_network_is_the_source() {
        let parent = link(1, "192.0.2.1/24");
        let child = Link {
            parent: Some(1),
            vlan: Some(100),
            ..link(2, "198.51.100.1/24")
        };
        let macvlan = Link {
            parent: Some(1),
            ..link(3, "203.0.113.3/24")
        };
        let beside = Link {
            addresses: vec!["192.0.2.3/24".parse().unwrap()],
            ..macvlan.clone()
        };
        let links = [parent, child, macvlan, beside];
        assert_eq!(find(&links[..3], 100, "198.51.100.7"), Ok(2));
        assert_eq!(
            find(&links[..3], 0, "198.51.100.7"),
            Err(NotSentReason::OffLink)
        );
        assert_eq!(find(&links[..3], 0, "203.0.113.7"), Ok(3));
        assert_eq!(
            find(&[links[3].clone(), links[0].clone()], 0, "192.0.2.7"),
            Ok(1)
        );
        let port = Link {
            addresses: Vec::new(),
            master: Some(4),
            ..link(1, "192.0.2.1/24")
        };
        assert_eq!(
            find(&[port, link(4, "192.0.2.4/24")], 0, "192.0.2.7"),
            Ok(4)
        );
    }

    #[test]
    fn no_probe_is_sent_if_an_interface_of_the_path_is_down() {
        for (up, carrier) in [(false, true), (true, false)] {
            let parent = Link {
                up,
                carrier,
                ..link(1, "192.0.2.1/24")
            };
            let child = Link {
                parent: Some(1),
                vlan: Some(100),
                ..link(2, "198.51.100.1/24")
            };
            let links = [parent, child];
            assert_eq!(find(&links, 0, "192.0.2.7"), Err(NotSentReason::LinkDown));
            assert_eq!(
                find(&links, 100, "198.51.100.7"),
                Err(NotSentReason::LinkDown)
            );
        }
    }

    #[test]
    fn the_on_link_segments_of_an_address_are_listed() {
        let links = [link(1, "192.0.2.1/24")].into_iter().collect();
        let interfaces = SourceInterfaces::new(&links, |_| true);
        let on = |ip: [u8; 4]| interfaces.segments_of(ip.into()).count();
        assert_eq!((on([192, 0, 2, 9]), on([198, 51, 100, 9])), (1, 0));
    }
}
