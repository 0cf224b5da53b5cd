//! The interfaces of this host, their addresses and the default route.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use probe_common::wire::MacAddr;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the kernel's own flags are"
)]
pub struct Link {
    /// Its index, unique in a network namespace while it lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it has one.
    pub mac: Option<MacAddr>,
    /// Largest frame without the Ethernet header, in bytes.
    pub mtu: u32,
    /// What it is (`veth`, `bridge`, `bond` …); `None` for a device of its own.
    pub kind: Option<String>,
    /// Whether frames on it start with an Ethernet header.
    pub ethernet: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether there is somebody at the other end of the cable (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether it answers ARP: neither `IFF_NOARP` (dummy, tunnels) nor the loopback.
    pub arp: bool,
    /// Whether it takes in frames for others (`IFF_PROMISC`, by anybody's wish).
    pub promiscuous: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The interface that it is stacked on (the parent of a VLAN child or macvlan).
    pub parent: Option<u32>,
    /// The VLAN identifier of an 802.1Q child.
    pub vlan: Option<u16>,
    /// The XDP program on it, whosever it is.
    pub xdp_program: Option<u32>,
    /// Its addresses with their networks.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// Whether frames can arrive: it is administratively up and has a carrier.
    pub fn is_operational(&self) -> bool {
        self.up && self.carrier
    }
}

/// Where what is not on-link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The interface.
    pub interface: u32,
    /// The router, if the route has one.
    pub gateway: Option<IpAddr>,
}

/// All interfaces, by index, and the default route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    links: BTreeMap<u32, Link>,
    default_route: Option<DefaultRoute>,
}

impl Links {
    /// The interface of this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.iter().find(|link| link.name == name)
    }

    /// The interface with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The interface with this index, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.links.get_mut(&index)
    }

    /// Every interface, in the order of its index.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Where what is not on-link goes.
    pub fn default_route(&self) -> Option<DefaultRoute> {
        self.default_route
    }

    /// The same interfaces with this default route.
    #[must_use]
    pub fn with_default_route(mut self, default_route: Option<DefaultRoute>) -> Self {
        self.default_route = default_route;
        self
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<T: IntoIterator<Item = Link>>(links: T) -> Self {
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        Self {
            links,
            default_route: None,
        }
    }
}
