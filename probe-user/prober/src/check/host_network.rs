//! Reads this host's network by netlink: the egress interface of each target, and the neighbour table.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::{MacAddr, Vlan};
use probe_model::{Link, Links, Segment, on_link};
use probe_network::{links, links::LinksError, neighbours};
use probe_pools::interval::Interval;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::route::{RouteAddress, RouteAttribute, RouteType},
};
use rustix::io::Errno;
use tokio::sync::watch;

use super::{
    Target, TargetRange, TargetRanges, cluster_targets,
    target_ranges::{self, TargetRangesError},
};

/// The maximum number of addresses of a range whose routes are looked up; they are evenly distributed.
const ROUTE_SAMPLES: u32 = 256;

/// The maximum number of addresses that are probed on a named interface without being in its networks.
const MAX_LISTED_ADDRESSES: u64 = 10;

/// An egress interface for probes: a segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressInterface {
    /// The index of the interface.
    pub ifindex: u32,
    /// The name of the interface.
    pub name: String,
    /// The MAC of the interface, the sender of the probes.
    pub mac: MacAddr,
    /// The VLAN of the probes, whose tags this program adds.
    pub vlan: Vlan,
    /// The networks of this host on the segment.
    pub networks: Vec<Ipv4Net>,
    /// The addresses of this host on the segment, with their MACs.
    pub local_addresses: HashMap<Ipv4Addr, MacAddr>,
    /// The possible sender addresses of ARP requests, with their networks.
    pub sources: Vec<Ipv4Net>,
}

impl EgressInterface {
    /// The address to send an ordinary ARP request for `target` with, as the kernel would: the first address of this
    /// interface in the target's network. A request for the address itself would be an announcement.
    pub fn source_for(&self, target: Ipv4Addr) -> Option<Ipv4Addr> {
        let mut sources = self
            .sources
            .iter()
            .filter(|source| source.contains(&target));
        sources
            .next()
            .map(Ipv4Net::addr)
            .filter(|source| *source != target)
    }
}

/// The route to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRoute {
    /// On-link through this interface.
    OnLink(u32),
    /// Through a gateway on this interface.
    Gateway(u32, Option<Ipv4Addr>),
    /// An address of this host.
    Local,
    /// A broadcast, multicast or anycast address.
    Broadcast,
    /// No route.
    None,
}

/// Why addresses cannot be checked from this host.
#[derive(Debug, thiserror::Error)]
pub enum HostNetworkError {
    /// The interfaces could not be read.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// Routes or neighbours could not be read.
    #[error("cannot read routes and neighbours: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Too many addresses.
    #[error(transparent)]
    TooManyTargets(#[from] TargetRangesError),
    /// The named interface does not exist.
    #[error("no interface is named {name} (available: {})", known.join(", "))]
    NoInterface {
        /// The name.
        name: String,
        /// The available ones.
        known: Vec<String>,
    },
    /// ARP probes cannot be sent through the interface.
    #[error("{interface} {reason}: cannot send ARP probes through it")]
    UnusableInterface {
        /// The name of the interface.
        interface: String,
        /// The reason, a predicate of the interface.
        reason: &'static str,
    },
    /// The address is not on-link.
    #[error(
        "{address} is not on-link: {reason}. ARP does not cross routers, so no host on this segment can reply for it; \
         run this on a host in its network{}",
        if *named { "" } else { ", or name the interface with -i" }
    )]
    OffLink {
        /// The first such address.
        address: Ipv4Addr,
        /// The reason.
        reason: String,
        /// Whether an interface was named.
        named: bool,
    },
    /// No host can have the address.
    #[error("{address} is the {what} of {network}, which no host can own")]
    Reserved {
        /// The address.
        address: Ipv4Addr,
        /// The kind of address.
        what: &'static str,
        /// The network.
        network: Ipv4Net,
    },
    /// The sender address is not an address of this host.
    #[error(
        "--source-ip {address} is not an address of this host on {interface}: requests with it would change the neighbour \
         entries of other hosts. Use one of {}",
        if known.is_empty() { "none: this host has no address there".to_owned() } else { list(known) }
    )]
    SourceNotLocal {
        /// The address.
        address: Ipv4Addr,
        /// The interface without the address.
        interface: String,
        /// The available ones.
        known: Vec<Ipv4Addr>,
    },
}

impl HostNetworkError {
    /// Whether the error is in the command line and not in the network.
    pub fn is_usage_error(&self) -> bool {
        matches!(
            self,
            Self::Reserved { .. } | Self::SourceNotLocal { .. } | Self::TooManyTargets(_)
        )
    }
}

fn list(addresses: &[Ipv4Addr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Why an interface cannot send and receive frames; `None` if it can.
fn unusable_reason(link: &Link) -> Option<&'static str> {
    match (link.up, link.carrier) {
        (false, _) => Some("is down (`ip link set` it up)"),
        (true, false) => Some("has no carrier (check the cable and the other end)"),
        (true, true) => None,
    }
}

/// The network of this host: interfaces, routes and neighbours.
pub struct HostNetwork {
    handle: Handle,
    /// The interfaces at the start of the check.
    links: Arc<Links>,
    /// The current interfaces.
    current_links: watch::Receiver<Arc<Links>>,
    egress_interfaces: Vec<EgressInterface>,
    /// The excluded addresses, which no host can have.
    excluded: Vec<Ipv4Addr>,
}

impl HostNetwork {
    /// Reads the network of this host.
    pub async fn read() -> Result<Self, HostNetworkError> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let current_links = links::watch_links().await?;
        let links = current_links.borrow().clone();
        Ok(Self {
            handle,
            links,
            current_links,
            egress_interfaces: Vec::new(),
            excluded: Vec::new(),
        })
    }

    /// The egress interfaces that [`Self::resolve_targets`] has found.
    pub fn egress_interfaces(&self) -> &[EgressInterface] {
        &self.egress_interfaces
    }

    /// All addresses of this host.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let networks = self.links.iter().flat_map(|link| &link.addresses);
        networks.map(IpNet::addr)
    }

    /// The addresses that were excluded from ranges: the network and broadcast addresses of this host's networks.
    pub fn excluded_addresses(&self) -> &[Ipv4Addr] {
        &self.excluded
    }

    /// An egress interface that was removed or lost its carrier since the start, so that a missing reply proves nothing.
    pub fn changed_interface(&self) -> Option<HostNetworkError> {
        let links = self.current_links.borrow();
        self.egress_interfaces.iter().find_map(|egress| {
            let reason = match links.get(egress.ifindex) {
                None => Some("was removed"),
                Some(link) => unusable_reason(link),
            };
            reason.map(|reason| HostNetworkError::UnusableInterface {
                interface: egress.name.clone(),
                reason,
            })
        })
    }

    /// All MACs of this host.
    pub fn own_macs(&self) -> HashSet<MacAddr> {
        self.links.iter().filter_map(|link| link.mac).collect()
    }

    /// Determines the egress interface of each target: the named one, or that of its route.
    pub async fn resolve_targets(
        &mut self,
        targets: &[Target],
        interface: Option<&str>,
        vlan: Vlan,
    ) -> Result<Vec<TargetRange>, HostNetworkError> {
        let named = match interface {
            Some(name) => Some(self.named(name)?.index),
            None => None,
        };
        let pieces = target_ranges::disjoint(targets)?;
        let number: u64 = pieces
            .iter()
            .map(|(first, last, _)| u64::from(last - first) + 1)
            .sum();
        let mut ranges = Vec::new();
        for (first, last, single) in pieces {
            // A reserved address may have a route, so it is rejected before.
            if single && named.is_none() {
                let mut networks = self
                    .links
                    .iter()
                    .filter(|link| link.arp)
                    .flat_map(networks_of);
                if let Some(error) = networks.find_map(|network| reject_target(network, first)) {
                    return Err(error);
                }
            }
            let is_short_list = number <= MAX_LISTED_ADDRESSES;
            let egress = self
                .egress_for((first, last), named, vlan, is_short_list)
                .await?;
            let networks = &self.egress_interfaces[egress].networks;
            if single
                && let Some(error) = networks
                    .iter()
                    .find_map(|&network| reject_target(network, first))
            {
                return Err(error);
            }
            let reserved = networks
                .iter()
                .filter_map(|&network| on_link::reserved_addresses(network));
            let inside = |address: &u32| (first..=last).contains(address);
            let reserved: Vec<_> = reserved.flatten().map(u32::from).filter(inside).collect();
            let excluded = reserved.iter().map(|&address| Ipv4Addr::from(address));
            self.excluded.extend(excluded);
            let rest = target_ranges::without((first, last), &reserved);
            ranges.extend(rest.into_iter().map(|(first, last)| TargetRange {
                first,
                last,
                egress,
            }));
        }
        Ok(ranges)
    }

    /// Determines the egress interfaces of those targets that are on-link, and returns the other targets as well. Targets
    /// must not overlap.
    pub async fn resolve_on_link(
        &mut self,
        targets: &[Target],
        interface: Option<&str>,
        vlan: Vlan,
    ) -> Result<(Vec<TargetRange>, Vec<Target>), HostNetworkError> {
        let links = self.links.iter().filter(|link| link.arp);
        let networks: Vec<_> = links.flat_map(networks_of).collect();
        let (mut ranges, mut off_link) = (Vec::new(), Vec::new());
        for piece in targets.iter().flat_map(|target| split(*target, &networks)) {
            match self.resolve_targets(&[piece], interface, vlan).await {
                Ok(resolved) => ranges.extend(resolved),
                Err(HostNetworkError::OffLink { .. } | HostNetworkError::Reserved { .. }) => {
                    off_link.push(piece);
                }
                Err(error) => return Err(error),
            }
        }
        let sizes = ranges
            .iter()
            .map(|range| u64::from(range.last - range.first) + 1);
        let number: u64 = sizes.sum();
        if number > TargetRanges::MAX_TARGETS {
            return Err(TargetRangesError::TooMany { number }.into());
        }
        Ok((ranges, off_link))
    }

    /// Checks that `address` is an address of this host on every egress interface.
    pub fn check_source(&self, address: Ipv4Addr) -> Result<(), HostNetworkError> {
        for egress in &self.egress_interfaces {
            if !egress.local_addresses.contains_key(&address) {
                let mut known: Vec<_> = egress.local_addresses.keys().copied().collect();
                known.sort_unstable();
                return Err(HostNetworkError::SourceNotLocal {
                    address,
                    interface: egress.name.clone(),
                    known,
                });
            }
        }
        Ok(())
    }

    /// Reads the neighbour table for all egress interfaces.
    pub async fn neighbours(&self) -> Result<EgressNeighbours, HostNetworkError> {
        let interfaces = self
            .egress_interfaces
            .iter()
            .map(|egress| self.neighbour_interface(egress));
        Ok(EgressNeighbours {
            entries: neighbours::read(&self.handle).await?,
            interfaces: interfaces.collect(),
        })
    }

    /// The interface with the neighbour entries of a segment; `None` for a VLAN without an interface of this host.
    fn neighbour_interface(&self, egress: &EgressInterface) -> Option<u32> {
        match egress.vlan {
            Vlan::UNTAGGED => Some(egress.ifindex),
            Vlan([vid, 0]) => self
                .links
                .iter()
                .find(|link| link.parent == Some(egress.ifindex) && link.vlan == Some(vid))
                .map(|link| link.index),
            Vlan(_) => None,
        }
    }

    fn named(&self, name: &str) -> Result<&Link, HostNetworkError> {
        self.links
            .named(name)
            .ok_or_else(|| HostNetworkError::NoInterface {
                name: name.to_owned(),
                known: self.links.iter().map(|link| link.name.clone()).collect(),
            })
    }

    /// The index of the egress interface for a range of addresses.
    async fn egress_for(
        &mut self,
        (first, last): (u32, u32),
        named: Option<u32>,
        vlan: Vlan,
        is_short_list: bool,
    ) -> Result<usize, HostNetworkError> {
        if let Some(ifindex) = named {
            let index = self.add_egress(ifindex, vlan)?;
            let egress = &self.egress_interfaces[index];
            // The networks of an interface without addresses are unknown.
            if egress.networks.is_empty() || is_short_list {
                return Ok(index);
            }
            for address in sample_addresses(first, last) {
                let networks = &self.egress_interfaces[index].networks;
                let route = || self.route(address);
                let is_on_link = networks.iter().any(|network| network.contains(&address))
                    || vlan == Vlan::UNTAGGED && route().await? == TargetRoute::OnLink(ifindex);
                if !is_on_link {
                    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                    let name = &self.egress_interfaces[index].name;
                    return Err(HostNetworkError::OffLink {
                        address,
                        reason: format!("the networks on {name} are {}", networks.join(", ")),
                        named: true,
                    });
                }
            }
            return Ok(index);
        }
        let mut found = None;
        for address in sample_addresses(first, last) {
            let Some(ifindex) = self.on_link(address).await? else {
                continue;
            };
            if let Some(found) = found
                && found != ifindex
            {
                return Err(HostNetworkError::OffLink {
                    address,
                    reason: format!(
                        "it is on {}, and others of the same range are on {}",
                        self.name_of(ifindex),
                        self.name_of(found)
                    ),
                    named: false,
                });
            }
            found = Some(ifindex);
        }
        match found {
            Some(ifindex) => self.add_egress(ifindex, vlan),
            None => Err(HostNetworkError::OffLink {
                address: first.into(),
                reason: "it is a broadcast or group address".to_owned(),
                named: false,
            }),
        }
    }

    /// The interface on which an address is on-link; `None` for broadcast and group addresses.
    async fn on_link(&self, address: Ipv4Addr) -> Result<Option<u32>, HostNetworkError> {
        let off = |reason| {
            Err(HostNetworkError::OffLink {
                address,
                reason,
                named: false,
            })
        };
        match self.route(address).await? {
            TargetRoute::OnLink(ifindex) => Ok(Some(ifindex)),
            TargetRoute::Broadcast => Ok(None),
            TargetRoute::Local => {
                let has_address = |link: &&Link| {
                    let mut addresses = link.addresses.iter();
                    addresses.any(|network| network.addr() == IpAddr::V4(address))
                };
                let mut interfaces = self.links.iter().filter(has_address);
                match interfaces.find(|link| link.arp && link.ethernet) {
                    Some(link) => Ok(Some(link.index)),
                    None => {
                        off("it is an address of this host on an interface without ARP".to_owned())
                    }
                }
            }
            TargetRoute::Gateway(ifindex, gateway) => off(match gateway {
                Some(gateway) => format!(
                    "packets to it go through the gateway {gateway} on {}",
                    self.name_of(ifindex)
                ),
                None => format!(
                    "packets to it go through a gateway on {}",
                    self.name_of(ifindex)
                ),
            }),
            // The network of an interface that is down has no route.
            TargetRoute::None => match self.down_network(address) {
                Some((link, reason)) => Err(HostNetworkError::UnusableInterface {
                    interface: link.name.clone(),
                    reason,
                }),
                None => off("there is no route to it".to_owned()),
            },
        }
    }

    fn down_network(&self, address: Ipv4Addr) -> Option<(&Link, &'static str)> {
        let has = |link: &&Link| networks_of(link).any(|network| network.contains(&address));
        let link = self.links.iter().filter(|link| link.arp).find(has)?;
        Some((link, unusable_reason(link)?))
    }

    fn name_of(&self, ifindex: u32) -> String {
        let link = self.links.get(ifindex);
        link.map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    }

    /// The index of the egress interface; adds it if necessary.
    fn add_egress(&mut self, ifindex: u32, vlan: Vlan) -> Result<usize, HostNetworkError> {
        let known = self
            .egress_interfaces
            .iter()
            .position(|egress| egress.ifindex == ifindex);
        if let Some(index) = known {
            return Ok(index);
        }
        let unusable = |reason| HostNetworkError::UnusableInterface {
            interface: self.name_of(ifindex),
            reason,
        };
        let link = self
            .links
            .get(ifindex)
            .ok_or_else(|| unusable("was removed"))?;
        let mac = match link.mac {
            Some(mac) if link.ethernet && link.arp => mac,
            _ => return Err(unusable("is not an Ethernet interface with ARP")),
        };
        if let Some(reason) = unusable_reason(link) {
            return Err(unusable(reason));
        }
        let facts = probe_network::host_facts::host_facts(&self.links, |index| index == ifindex);
        let local_addresses = facts
            .addresses
            .iter()
            .filter_map(|(key, mac)| match key.ip {
                IpAddr::V4(address) if key.segment.vlan == vlan => Some((address, *mac)),
                _ => None,
            });
        self.egress_interfaces.push(EgressInterface {
            ifindex,
            name: link.name.clone(),
            mac,
            vlan,
            networks: on_link::networks(&self.links, ifindex, vlan),
            local_addresses: local_addresses.collect(),
            sources: self.sources(ifindex, vlan, mac),
        });
        Ok(self.egress_interfaces.len() - 1)
    }

    /// The possible sender addresses on a segment: IPv4 addresses of interfaces with the MAC `mac`, in the kernel's order,
    /// with the primary address of each network first. A /32 is excluded, because it is a virtual address.
    fn sources(&self, ifindex: u32, vlan: Vlan, mac: MacAddr) -> Vec<Ipv4Net> {
        let segment = Segment {
            interface: ifindex,
            vlan,
        };
        let is_on_segment = |link: &&Link| {
            let segments = || on_link::segments(&self.links, link, &|index| index == ifindex);
            link.arp && link.mac == Some(mac) && segments().contains(&segment)
        };
        let addresses = self
            .links
            .iter()
            .filter(is_on_segment)
            .flat_map(|link| &link.addresses);
        addresses
            .filter_map(|network| match network {
                IpNet::V4(network) if network.prefix_len() < 32 => Some(*network),
                IpNet::V4(_) | IpNet::V6(_) => None,
            })
            .collect()
    }

    /// Looks up the route to an address.
    async fn route(&self, address: Ipv4Addr) -> Result<TargetRoute, HostNetworkError> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build();
        let result = self.handle.route().get(request).execute().try_next().await;
        let route = match result {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(TargetRoute::None),
            Err(rtnetlink::Error::NetlinkError(message)) => {
                let errno = Errno::from_raw_os_error(message.raw_code().saturating_abs());
                // As `ip route` has them: unreachable, prohibit, blackhole, throw.
                return match errno {
                    Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL => {
                        Ok(TargetRoute::None)
                    }
                    _ => Err(rtnetlink::Error::NetlinkError(message).into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        let (mut interface, mut gateway, mut via) = (None, None, false);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                RouteAttribute::Via(_) | RouteAttribute::Gateway(_) => via = true,
                _ => {}
            }
        }
        Ok(match (route.header.kind, interface) {
            (RouteType::Local, _) => TargetRoute::Local,
            (RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast, _) => {
                TargetRoute::Broadcast
            }
            (RouteType::Unicast, Some(interface)) if gateway.is_some() || via => {
                TargetRoute::Gateway(interface, gateway)
            }
            (RouteType::Unicast, Some(interface)) => TargetRoute::OnLink(interface),
            _ => TargetRoute::None,
        })
    }
}

fn networks_of(link: &Link) -> impl Iterator<Item = Ipv4Net> {
    link.addresses.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some(network.trunc()),
        IpNet::V6(_) => None,
    })
}

/// The error for an explicit address that is reserved in a network; `None` if it is not.
fn reject_target(network: Ipv4Net, address: u32) -> Option<HostNetworkError> {
    let [network_address, broadcast] = on_link::reserved_addresses(network)?;
    let address = Ipv4Addr::from(address);
    let what = if address == network_address {
        "network address"
    } else if address == broadcast {
        "broadcast address"
    } else {
        return None;
    };
    Some(HostNetworkError::Reserved {
        address,
        what,
        network,
    })
}

/// Splits a target into pieces, each of which is in one of these networks or in none.
fn split(target: Target, networks: &[Ipv4Net]) -> Vec<Target> {
    let Some(interval) = cluster_targets::interval(target) else {
        return Vec::new();
    };
    let mut pieces = Vec::new();
    let mut rest = vec![interval];
    for network in networks {
        let (first, last) = (network.network(), network.broadcast());
        let Ok(network) = Interval::new(first.into(), last.into()) else {
            continue;
        };
        pieces.extend(rest.iter().filter_map(|piece| piece.common(&network)));
        rest = rest
            .iter()
            .flat_map(|piece| piece.without(&network))
            .collect();
    }
    pieces.extend(rest);
    pieces.sort_unstable();
    pieces
        .into_iter()
        .filter_map(cluster_targets::target)
        .collect()
}

/// Up to [`ROUTE_SAMPLES`] addresses of a range, evenly distributed, with the first and the last one.
fn sample_addresses(first: u32, last: u32) -> impl Iterator<Item = Ipv4Addr> {
    let steps = (last - first).min(ROUTE_SAMPLES - 1);
    (0..=steps).map(move |step| {
        let offset = u64::from(last - first) * u64::from(step) / u64::from(steps.max(1));
        // The sum is at most `last`, so it does not overflow.
        Ipv4Addr::from(first + u32::try_from(offset).unwrap_or(0))
    })
}

/// The neighbour entries for the egress interfaces.
#[derive(Clone, Debug, Default)]
pub struct EgressNeighbours {
    entries: neighbours::NeighbourTable,
    /// The interface with the neighbour entries of each egress interface, by index.
    interfaces: Vec<Option<u32>>,
}

impl EgressNeighbours {
    /// The MAC of a neighbour on an egress interface.
    pub fn get(&self, egress: usize, address: Ipv4Addr) -> Option<MacAddr> {
        let interface = self.interfaces.get(egress).copied().flatten()?;
        self.entries.get(&(interface, address.into())).copied()
    }

    /// All MACs of neighbours: hosts with an address.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.entries.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_where_a_network_ends() {
        let networks = ["192.0.2.64/26".parse().unwrap()];
        let target = "192.0.2.60-192.0.2.130".parse().unwrap();
        let pieces: Vec<_> = split(target, &networks)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            pieces,
            [
                "192.0.2.60-192.0.2.63",
                "192.0.2.64-192.0.2.127",
                "192.0.2.128-192.0.2.130"
            ]
        );
    }

    #[test]
    fn samples_include_all_addresses_of_a_short_range_and_both_ends_of_a_long_one() {
        let few: Vec<_> = sample_addresses(7, 10).map(u32::from).collect();
        assert_eq!(few, [7, 8, 9, 10]);
        assert_eq!(sample_addresses(7, 7).count(), 1);
        let many: Vec<_> = sample_addresses(0, u32::MAX).map(u32::from).collect();
        assert_eq!((many.len(), many[0], many[255]), (256, 0, u32::MAX));
    }
}
