//! The capturing host as comments in a capture: its interfaces with their addresses and gateways. Detection requires them
//! to recognize addresses of the host and tracked addresses.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use probe_common::wire::{MacAddr, Vlan};
use probe_detect::HostFacts;
use probe_model::{BindingKey, Links, Segment, watched::WatchedInterfaces};
use probe_network::host_facts::host_facts;

/// The prefix of an interface comment with an address of the host.
const ADDRESS_PREFIX: &str = "probe: address";
/// The prefix of an interface comment with a gateway.
const GATEWAY_PREFIX: &str = "probe: gateway";

/// The watched interfaces of the capturing host, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedHost {
    pub(super) interfaces: BTreeMap<u32, CapturedInterface>,
}

/// An interface of the capturing host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CapturedInterface {
    pub name: String,
    pub mac: Option<MacAddr>,
    pub addresses: Vec<CapturedAddress>,
    pub gateways: Vec<CapturedGateway>,
}

/// An address of the capturing host on a segment of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CapturedAddress {
    pub ip: IpAddr,
    pub vlan: Vlan,
    pub mac: MacAddr,
    /// The broadcast address of its network, if it has one.
    pub broadcast: Option<IpAddr>,
}

/// A gateway of the capturing host on a segment of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CapturedGateway {
    pub vlan: Vlan,
    pub ip: IpAddr,
}

impl CapturedHost {
    /// The watched interfaces with the current addresses and gateways.
    pub fn new(links: &Links, watched: &WatchedInterfaces) -> Self {
        let facts = host_facts(links, |index| watched.contains(index));
        let interfaces = watched.iter().map(|interface| {
            let index = interface.ifindex;
            let addresses = facts
                .addresses
                .iter()
                .filter(|(key, _)| key.segment.interface == index);
            let mut addresses: Vec<_> = addresses
                .map(|(key, &mac)| CapturedAddress::new(key, mac, links, &facts))
                .collect();
            addresses.sort_by_key(|addresses| (addresses.vlan, addresses.ip));
            let gateways = facts
                .gateways
                .iter()
                .filter(|key| key.segment.interface == index);
            let mut gateways: Vec<_> = gateways
                .map(|key| CapturedGateway {
                    vlan: key.segment.vlan,
                    ip: key.ip,
                })
                .collect();
            gateways.sort_unstable();
            let interface = CapturedInterface {
                name: interface.name.clone(),
                mac: links.get(index).and_then(|link| link.mac),
                addresses,
                gateways,
            };
            (index, interface)
        });
        Self {
            interfaces: interfaces.collect(),
        }
    }

    /// The index of the interface with this name.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        let mut interfaces = self.interfaces.iter();
        interfaces
            .find(|(_, known)| known.name == name)
            .map(|(&index, _)| index)
    }

    /// The detector's facts about the host.
    pub(super) fn facts(&self) -> HostFacts {
        let mut facts = HostFacts::default();
        for (&index, interface) in &self.interfaces {
            facts.macs.extend(interface.mac);
            let key = |vlan, ip| BindingKey {
                segment: Segment {
                    interface: index,
                    vlan,
                },
                ip,
            };
            let gateways = interface.gateways.iter();
            facts
                .gateways
                .extend(gateways.map(|gateway| key(gateway.vlan, gateway.ip)));
            for addresses in &interface.addresses {
                let key = |ip| key(addresses.vlan, ip);
                facts.macs.insert(addresses.mac);
                facts.addresses.insert(key(addresses.ip), addresses.mac);
                facts.broadcasts.extend(addresses.broadcast.map(key));
            }
        }
        facts
    }
}

impl CapturedAddress {
    fn new(key: &BindingKey, mac: MacAddr, links: &Links, facts: &HostFacts) -> Self {
        let mut networks = links.iter().flat_map(|link| &link.addresses);
        let network = networks.find(|network| network.addr() == key.ip);
        let broadcast = network.map(IpNet::broadcast).filter(|&ip| {
            let key = BindingKey { ip, ..*key };
            facts.broadcasts.contains(&key)
        });
        Self {
            ip: key.ip,
            vlan: key.segment.vlan,
            mac,
            broadcast,
        }
    }

    /// The interface comment.
    pub(super) fn comment(&self) -> String {
        let Self { ip, vlan, mac, .. } = self;
        let broadcast = self
            .broadcast
            .map(|broadcast| format!(" broadcast={broadcast}"));
        let broadcast = broadcast.unwrap_or_default();
        format!("{ADDRESS_PREFIX} ip={ip} vlan={vlan} mac={mac}{broadcast}")
    }
}

impl CapturedGateway {
    /// The interface comment.
    pub(super) fn comment(&self) -> String {
        let Self { ip, vlan } = self;
        format!("{GATEWAY_PREFIX} ip={ip} vlan={vlan}")
    }
}

/// The comment is not of this program, or of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnknownComment;

/// Parses the names and values in a comment with this prefix.
fn parse_fields<'a>(
    text: &'a str,
    prefix: &str,
) -> Result<Vec<(&'a str, &'a str)>, UnknownComment> {
    let words = text.strip_prefix(prefix).ok_or(UnknownComment)?;
    words
        .split_ascii_whitespace()
        .map(|word| word.split_once('=').ok_or(UnknownComment))
        .collect()
}

impl FromStr for CapturedAddress {
    type Err = UnknownComment;

    fn from_str(text: &str) -> Result<Self, UnknownComment> {
        let (mut ip, mut vlan, mut mac, mut broadcast) = (None, None, None, None);
        for (name, value) in parse_fields(text, ADDRESS_PREFIX)? {
            match name {
                "ip" => ip = value.parse().ok(),
                "vlan" => vlan = value.parse().ok(),
                "mac" => mac = value.parse().ok(),
                "broadcast" => broadcast = value.parse().ok(),
                // Newer versions may add fields.
                _ => {}
            }
        }
        Ok(Self {
            ip: ip.ok_or(UnknownComment)?,
            vlan: vlan.ok_or(UnknownComment)?,
            mac: mac.ok_or(UnknownComment)?,
            broadcast,
        })
    }
}

impl FromStr for CapturedGateway {
    type Err = UnknownComment;

    fn from_str(text: &str) -> Result<Self, UnknownComment> {
        let (mut ip, mut vlan) = (None, None);
        for (name, value) in parse_fields(text, GATEWAY_PREFIX)? {
            match name {
                "ip" => ip = value.parse().ok(),
                "vlan" => vlan = value.parse().ok(),
                // Newer versions may add fields.
                _ => {}
            }
        }
        Ok(Self {
            vlan: vlan.ok_or(UnknownComment)?,
            ip: ip.ok_or(UnknownComment)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_from_its_comment() {
        let addresses = CapturedAddress {
            ip: "192.0.2.1".parse().unwrap(),
            vlan: Vlan([100, 0]),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            broadcast: Some("192.0.2.255".parse().unwrap()),
        };
        let comment = addresses.comment();
        assert_eq!(
            comment,
            "probe: address ip=192.0.2.1 vlan=100 mac=02:00:00:00:00:01 broadcast=192.0.2.255"
        );
        assert_eq!(comment.parse(), Ok(addresses));
        assert_eq!(
            "probe: address ip=192.0.2.1".parse::<CapturedAddress>(),
            Err(UnknownComment)
        );
        assert_eq!(
            "something else".parse::<CapturedAddress>(),
            Err(UnknownComment)
        );
        assert_eq!(comment.parse::<CapturedGateway>(), Err(UnknownComment));
    }

    #[test]
    fn a_gateway_is_parsed_from_its_comment() {
        let gateway = CapturedGateway {
            vlan: Vlan::UNTAGGED,
            ip: "192.0.2.254".parse().unwrap(),
        };
        let comment = gateway.comment();
        assert_eq!(comment, "probe: gateway ip=192.0.2.254 vlan=0");
        assert_eq!(comment.parse(), Ok(gateway));
        assert_eq!(comment.parse::<CapturedAddress>(), Err(UnknownComment));
    }

    #[test]
    fn gateways_are_facts_for_detection() {
        let gateway = CapturedGateway {
            vlan: Vlan::UNTAGGED,
            ip: "192.0.2.254".parse().unwrap(),
        };
        let interface = CapturedInterface {
            gateways: vec![gateway],
            ..CapturedInterface::default()
        };
        let host = CapturedHost {
            interfaces: BTreeMap::from([(7, interface)]),
        };
        let gateways: Vec<_> = host.facts().gateways.into_iter().collect();
        let segment = Segment {
            interface: 7,
            vlan: Vlan::UNTAGGED,
        };
        let ip = gateway.ip;
        assert_eq!(gateways, [BindingKey { segment, ip }]);
    }
}
