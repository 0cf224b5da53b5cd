//! Derives the detector's facts about this host from its interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use probe_detect::HostFacts;
use probe_model::{BindingKey, DefaultRoute, Links, on_link::segments};

/// Derives the facts about this host on the segments of `watched` interfaces: MACs, addresses, broadcasts and gateways.
pub fn host_facts(links: &Links, watched: impl Fn(u32) -> bool) -> HostFacts {
    let mut facts = HostFacts::default();
    for link in links.iter() {
        facts.macs.extend(link.mac);
        // IPVS nodes have all service addresses on a dummy or loopback interface, for which they must not reply.
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

#[cfg(test)]
mod tests {
    use probe_common::wire::MacAddr;
    use probe_model::{Link, Links};

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

    fn host_addresses(
        links: impl IntoIterator<Item = Link>,
        watched: u32,
    ) -> Vec<(String, String)> {
        let facts = host_facts(&links.into_iter().collect(), |index| index == watched);
        let mut addresses: Vec<_> = facts
            .addresses
            .keys()
            .map(|key| (key.ip.to_string(), key.segment.vlan.to_string()))
            .collect();
        addresses.sort();
        addresses
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
            host_addresses([eth0.clone(), vlan, macvlan], 1),
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
            host_addresses([port, link(4, "192.0.2.4/24")], 1),
            [pair("192.0.2.4", "0")]
        );
    }

    #[test]
    fn addresses_on_loopback_or_another_segment_are_not_included() {
        let dummy = Link {
            arp: false,
            ..link(2, "192.0.2.9/32")
        };
        assert_eq!(
            host_addresses([link(1, "192.0.2.1/24"), dummy, link(3, "192.0.2.5/24")], 1),
            [pair("192.0.2.1", "0")]
        );
    }

    #[test]
    fn the_gateway_is_a_fact_of_its_egress_interface() {
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
    fn the_broadcast_address_of_a_connected_network_is_a_fact() {
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
