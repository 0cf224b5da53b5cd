//! What netlink says of this host: which addresses are on which wire, and whom it believes to have them.

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

/// Addresses of a range whose routes are looked up; the others are between them.
const ROUTE_SAMPLES: u32 = 256;

/// As many addresses off the connected networks are taken at the word of whoever names the interface.
const MAX_LISTED_ADDRESSES: u64 = 10;

/// Where questions leave: a segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressInterface {
    /// Index of the interface.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MAC: who asks.
    pub mac: MacAddr,
    /// The VLAN that is asked in, as tags of this program's own.
    pub vlan: Vlan,
    /// The networks that this host is in there.
    pub networks: Vec<Ipv4Net>,
    /// The addresses that this host holds there, and with which MAC.
    pub held: HashMap<Ipv4Addr, MacAddr>,
    /// The addresses that this host can send ARP requests with, each with its network.
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

/// Where a packet to an address would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRoute {
    /// Straight to it, through this interface.
    OnLink(u32),
    /// To a router, through this interface.
    Gateway(u32, Option<Ipv4Addr>),
    /// It is this host's own.
    Local,
    /// It is a broadcast or group address.
    Broadcast,
    /// Nowhere.
    None,
}

/// Why addresses cannot be checked from here.
#[derive(Debug, thiserror::Error)]
pub enum HostNetworkError {
    /// The interfaces are not known.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// Netlink.
    #[error("cannot ask the kernel for routes and neighbours: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Too many addresses.
    #[error(transparent)]
    TooManyTargets(#[from] TargetRangesError),
    /// No such interface.
    #[error("there is no interface {name}; there are {}", known.join(", "))]
    NoInterface {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// An interface without ARP.
    #[error("{interface} {reason}, so nobody can be asked through it")]
    UnusableInterface {
        /// Its name.
        interface: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Beyond a router.
    #[error(
        "{address} is not on-link: {reason}. ARP does not go beyond a segment, so nobody here can answer for it; \
         run this on a host that is in its network{}",
        if *named { "" } else { ", or name the interface with -i" }
    )]
    OffLink {
        /// The first such address.
        address: Ipv4Addr,
        /// Where packets to it go.
        reason: String,
        /// Whether an interface was named.
        named: bool,
    },
    /// An address that is every machine's.
    #[error("{address} is the {what} of {network}, which no machine can own")]
    Reserved {
        /// The address.
        address: Ipv4Addr,
        /// What it is.
        what: &'static str,
        /// Of which network.
        network: Ipv4Net,
    },
    /// Somebody else's address to ask with.
    #[error(
        "--source-ip {address} is no address of this host on {interface}: asking with it would make everybody who hears \
         it believe that it is here. Use one of {}",
        if known.is_empty() { "none: this host has no address there".to_owned() } else { list(known) }
    )]
    SourceNotLocal {
        /// The address.
        address: Ipv4Addr,
        /// Where it should be.
        interface: String,
        /// Those that there are.
        known: Vec<Ipv4Addr>,
    },
}

impl HostNetworkError {
    /// Whether the command line is at fault, and not what is around.
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

/// Why nothing leaves an interface, or comes back.
fn unusable_reason(link: &Link) -> Option<&'static str> {
    match (link.up, link.carrier) {
        (false, _) => Some("is down (`ip link set` it up)"),
        (true, false) => Some("has no carrier (see to its cable, or to the other end)"),
        (true, true) => None,
    }
}

/// What is around this host.
pub struct HostNetwork {
    handle: Handle,
    /// As they were when this host was looked at, and as they are now.
    links: Arc<Links>,
    current_links: watch::Receiver<Arc<Links>>,
    egress_interfaces: Vec<EgressInterface>,
    /// Addresses that were left out because no machine can have them.
    unreachable: Vec<Ipv4Addr>,
}

impl HostNetwork {
    /// Looks around.
    pub async fn look() -> Result<Self, HostNetworkError> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let current_links = links::watch_links().await?;
        let links = current_links.borrow().clone();
        Ok(Self {
            handle,
            links,
            current_links,
            egress_interfaces: Vec::new(),
            unreachable: Vec::new(),
        })
    }

    /// The ports that [`Self::resolve_targets`] has found.
    pub fn ports(&self) -> &[EgressInterface] {
        &self.egress_interfaces
    }

    /// All addresses of this host.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let networks = self.links.iter().flat_map(|link| &link.addresses);
        networks.map(IpNet::addr)
    }

    /// What was left out of ranges and networks: the network and broadcast addresses of this host's networks.
    pub fn unreachable(&self) -> &[Ipv4Addr] {
        &self.unreachable
    }

    /// Why an address that does not answer may have an owner all the same: a port that has gone since it was found,
    /// or has lost its cable.
    pub fn changed_interface(&self) -> Option<HostNetworkError> {
        let links = self.current_links.borrow();
        self.egress_interfaces.iter().find_map(|egress| {
            let reason = match links.get(egress.ifindex) {
                None => Some("is gone"),
                Some(link) => unusable_reason(link),
            };
            reason.map(|reason| HostNetworkError::UnusableInterface {
                interface: egress.name.clone(),
                reason,
            })
        })
    }

    /// Every MAC of this host.
    pub fn own_macs(&self) -> HashSet<MacAddr> {
        self.links.iter().filter_map(|link| link.mac).collect()
    }

    /// Finds out where each target is asked about: through the interface that was named, or by its route.
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
        let mut placed = Vec::new();
        for (first, last, single) in pieces {
            // By its route, such an address is nobody's in particular.
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
            let at_word = number <= MAX_LISTED_ADDRESSES;
            let egress = self.egress_for((first, last), named, vlan, at_word).await?;
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
            let unreachable = reserved.iter().map(|&address| Ipv4Addr::from(address));
            self.unreachable.extend(unreachable);
            let rest = target_ranges::without((first, last), &reserved);
            placed.extend(rest.into_iter().map(|(first, last)| TargetRange {
                first,
                last,
                egress,
            }));
        }
        Ok(placed)
    }

    /// Finds out where each of these is asked about, as far as they are on-link here, and says which are not. They
    /// must not overlap.
    pub async fn resolve_on_link(
        &mut self,
        targets: &[Target],
        interface: Option<&str>,
        vlan: Vlan,
    ) -> Result<(Vec<TargetRange>, Vec<Target>), HostNetworkError> {
        let links = self.links.iter().filter(|link| link.arp);
        let networks: Vec<_> = links.flat_map(networks_of).collect();
        let (mut lots, mut elsewhere) = (Vec::new(), Vec::new());
        for piece in targets.iter().flat_map(|target| split(*target, &networks)) {
            match self.resolve_targets(&[piece], interface, vlan).await {
                Ok(placed) => lots.extend(placed),
                Err(HostNetworkError::OffLink { .. } | HostNetworkError::Reserved { .. }) => {
                    elsewhere.push(piece);
                }
                Err(error) => return Err(error),
            }
        }
        let sizes = lots.iter().map(|lot| u64::from(lot.last - lot.first) + 1);
        let number: u64 = sizes.sum();
        if number > TargetRanges::MAX_TARGETS {
            return Err(TargetRangesError::TooMany { number }.into());
        }
        Ok((lots, elsewhere))
    }

    /// Makes sure that this host may ask with an address on every port.
    pub fn check_source(&self, address: Ipv4Addr) -> Result<(), HostNetworkError> {
        for egress in &self.egress_interfaces {
            if !egress.held.contains_key(&address) {
                let mut known: Vec<_> = egress.held.keys().copied().collect();
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

    /// Whom this host believes to have which address, on each port.
    pub async fn neighbours(&self) -> Result<EgressNeighbours, HostNetworkError> {
        let interfaces = self
            .egress_interfaces
            .iter()
            .map(|egress| self.is_gateway_interface(egress));
        Ok(EgressNeighbours {
            entries: neighbours::read(&self.handle).await?,
            interfaces: interfaces.collect(),
        })
    }

    /// The interface whose neighbour table is that of a port: a VLAN has one only if this host is in it.
    fn is_gateway_interface(&self, egress: &EgressInterface) -> Option<u32> {
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

    /// The port, by its place, for addresses from one to another.
    async fn egress_for(
        &mut self,
        (first, last): (u32, u32),
        named: Option<u32>,
        vlan: Vlan,
        at_word: bool,
    ) -> Result<usize, HostNetworkError> {
        if let Some(ifindex) = named {
            let place = self.add_egress(ifindex, vlan)?;
            let egress = &self.egress_interfaces[place];
            // An interface without an address of its own is in no network that could be known.
            if egress.networks.is_empty() || at_word {
                return Ok(place);
            }
            for address in sample_addresses(first, last) {
                let networks = &self.egress_interfaces[place].networks;
                let route = || self.route(address);
                let is_here = networks.iter().any(|network| network.contains(&address))
                    || vlan == Vlan::UNTAGGED && route().await? == TargetRoute::OnLink(ifindex);
                if !is_here {
                    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                    let name = &self.egress_interfaces[place].name;
                    return Err(HostNetworkError::OffLink {
                        address,
                        reason: format!("the networks on {name} are {}", networks.join(", ")),
                        named: true,
                    });
                }
            }
            return Ok(place);
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

    /// The interface that an address is on; `None` of what no machine can have.
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
                let holds = |link: &&Link| {
                    let mut addresses = link.addresses.iter();
                    addresses.any(|network| network.addr() == IpAddr::V4(address))
                };
                let mut holders = self.links.iter().filter(holds);
                match holders.find(|link| link.arp && link.ethernet) {
                    Some(link) => Ok(Some(link.index)),
                    None => off("it is this host's own, on an interface without ARP".to_owned()),
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
            // Without its interface, a network has no route.
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

    /// The port on an interface, by its place; new if it must be.
    fn add_egress(&mut self, ifindex: u32, vlan: Vlan) -> Result<usize, HostNetworkError> {
        let known = self
            .egress_interfaces
            .iter()
            .position(|egress| egress.ifindex == ifindex);
        if let Some(place) = known {
            return Ok(place);
        }
        let unfit = |reason| HostNetworkError::UnusableInterface {
            interface: self.name_of(ifindex),
            reason,
        };
        let link = self.links.get(ifindex).ok_or_else(|| unfit("is gone"))?;
        let mac = match link.mac {
            Some(mac) if link.ethernet && link.arp => mac,
            _ => return Err(unfit("is no Ethernet interface with ARP")),
        };
        if let Some(reason) = unusable_reason(link) {
            return Err(unfit(reason));
        }
        let facts = probe_network::host_facts::host_facts(&self.links, |index| index == ifindex);
        let held = facts
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
            held: held.collect(),
            sources: self.sources(ifindex, vlan, mac),
        });
        Ok(self.egress_interfaces.len() - 1)
    }

    /// The IPv4 addresses with the MAC of a segment's interface, in the kernel's order, which begins with the primary
    /// address of each network. An address without a network is a virtual one.
    fn sources(&self, ifindex: u32, vlan: Vlan, mac: MacAddr) -> Vec<Ipv4Net> {
        let here = Segment {
            interface: ifindex,
            vlan,
        };
        let is_here = |link: &&Link| {
            let segments = || on_link::segments(&self.links, link, &|index| index == ifindex);
            link.arp && link.mac == Some(mac) && segments().contains(&here)
        };
        let addresses = self
            .links
            .iter()
            .filter(is_here)
            .flat_map(|link| &link.addresses);
        addresses
            .filter_map(|network| match network {
                IpNet::V4(network) if network.prefix_len() < 32 => Some(*network),
                IpNet::V4(_) | IpNet::V6(_) => None,
            })
            .collect()
    }

    /// Where a packet to this address would go.
    async fn route(&self, address: Ipv4Addr) -> Result<TargetRoute, HostNetworkError> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build();
        let answer = self.handle.route().get(request).execute().try_next().await;
        let route = match answer {
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

/// Why an address that was named by itself cannot be checked in a network.
fn reject_target(network: Ipv4Net, address: u32) -> Option<HostNetworkError> {
    let [own, broadcast] = on_link::reserved_addresses(network)?;
    let address = Ipv4Addr::from(address);
    let what = if address == own {
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

/// A target in pieces, each of which is in one network of these, or in none.
fn split(target: Target, networks: &[Ipv4Net]) -> Vec<Target> {
    let Some(whole) = cluster_targets::interval(target) else {
        return Vec::new();
    };
    let mut pieces = Vec::new();
    let mut rest = vec![whole];
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

/// Some addresses from one to another, both included, evenly spread; all of them if they are few.
fn sample_addresses(first: u32, last: u32) -> impl Iterator<Item = Ipv4Addr> {
    let steps = (last - first).min(ROUTE_SAMPLES - 1);
    (0..=steps).map(move |step| {
        let offset = u64::from(last - first) * u64::from(step) / u64::from(steps.max(1));
        // Within the range, and so within what an address can be.
        Ipv4Addr::from(first + u32::try_from(offset).unwrap_or(0))
    })
}

/// This host's neighbour table.
#[derive(Clone, Debug, Default)]
pub struct EgressNeighbours {
    entries: neighbours::NeighbourTable,
    /// Of each port, by its place: the interface with its table.
    interfaces: Vec<Option<u32>>,
}

impl EgressNeighbours {
    /// Whom this host believes to have an address on a port.
    pub fn get(&self, egress: usize, address: Ipv4Addr) -> Option<MacAddr> {
        let interface = self.interfaces.get(egress).copied().flatten()?;
        self.entries.get(&(interface, address.into())).copied()
    }

    /// Every MAC in it: stations that are known to hold an address.
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
    fn samples_are_all_of_few_and_the_ends_of_many() {
        let few: Vec<_> = sample_addresses(7, 10).map(u32::from).collect();
        assert_eq!(few, [7, 8, 9, 10]);
        assert_eq!(sample_addresses(7, 7).count(), 1);
        let many: Vec<_> = sample_addresses(0, u32::MAX).map(u32::from).collect();
        assert_eq!((many.len(), many[0], many[255]), (256, 0, u32::MAX));
    }
}
