//! The interfaces of this host, their addresses and the default route.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use probe_common::wire::MacAddr;

/// An interface of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent properties, like the flags of the kernel"
)]
pub struct Link {
    /// The index, unique in a network namespace while the interface exists.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The MAC address, if it has one.
    pub mac: Option<MacAddr>,
    /// The MTU, in bytes.
    pub mtu: u32,
    /// The kind of virtual device (`veth`, `bridge`, `bond` …); `None` for hardware.
    pub kind: Option<String>,
    /// Whether frames on it start with an Ethernet header.
    pub ethernet: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether it uses ARP: neither `IFF_NOARP` (dummy, tunnels) nor the loopback interface.
    pub arp: bool,
    /// Whether it is in promiscuous mode.
    pub promiscuous: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The lower interface of a VLAN child or macvlan.
    pub parent: Option<u32>,
    /// The VLAN identifier of an 802.1Q child.
    pub vlan: Option<u16>,
    /// The ID of the attached XDP program, of this or another process.
    pub xdp_program: Option<u32>,
    /// The addresses with their networks.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// Whether it can receive frames: it is administratively up and has a carrier.
    pub fn is_operational(&self) -> bool {
        self.up && self.carrier
    }
}

/// The default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The index of the egress interface.
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
    /// Returns the interface with this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.iter().find(|link| link.name == name)
    }

    /// Returns the interface with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Returns the interface with this index, mutably.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.links.get_mut(&index)
    }

    /// Iterates over all interfaces in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The default route.
    pub fn default_route(&self) -> Option<DefaultRoute> {
        self.default_route
    }

    /// Replaces the default route.
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
