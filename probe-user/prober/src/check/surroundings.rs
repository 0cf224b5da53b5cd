//! What netlink says of this host: which addresses are on which wire, and whom it believes to have them.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net};
use probe_common::wire::{MacAddr, Vlan};
use probe_model::{Link, Links};
use probe_network::{links, links::LinksError, neighbours};
use probe_pools::interval::Interval;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::route::{RouteAddress, RouteAttribute, RouteType},
};
use rustix::io::Errno;
use tokio::sync::watch;

use super::{
    Lot, Lots, Target, demand,
    lots::{self, LotsError},
};

/// Addresses of a range whose routes are looked up; the others are between them.
const SAMPLES: u32 = 256;

/// As many addresses off the connected networks are taken at the word of whoever names the interface.
const AT_WORD: u64 = 10;

/// Where questions leave: a segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
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
}

/// Where a packet to an address would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight to it, through this interface.
    OnLink(u32),
    /// To a router, through this interface.
    Gateway(u32, Option<Ipv4Addr>),
    /// It is this host's own.
    Local,
    /// It is a broadcast or group address.
    Everybody,
    /// Nowhere.
    None,
}

/// Why addresses cannot be checked from here.
#[derive(Debug, thiserror::Error)]
pub enum SurroundingsError {
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
    Lots(#[from] LotsError),
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
    Unfit {
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
        "--from {address} is no address of this host on {interface}: asking with it would make everybody who hears \
         it believe that it is here. Use one of {}",
        if known.is_empty() { "none: this host has no address there".to_owned() } else { list(known) }
    )]
    NotOurs {
        /// The address.
        address: Ipv4Addr,
        /// Where it should be.
        interface: String,
        /// Those that there are.
        known: Vec<Ipv4Addr>,
    },
}

impl SurroundingsError {
    /// Whether the command line is at fault, and not what is around.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Reserved { .. } | Self::NotOurs { .. } | Self::Lots(_)
        )
    }
}

fn list(addresses: &[Ipv4Addr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Why nothing leaves an interface, or comes back.
fn no_way_out(link: &Link) -> Option<&'static str> {
    match (link.up, link.carrier) {
        (false, _) => Some("is down (`ip link set` it up)"),
        (true, false) => Some("has no carrier (see to its cable, or to the other end)"),
        (true, true) => None,
    }
}

/// What is around this host.
pub struct Surroundings {
    handle: Handle,
    /// As they were when this host was looked at, and as they are now.
    links: Arc<Links>,
    links_now: watch::Receiver<Arc<Links>>,
    ports: Vec<Port>,
    /// Addresses that were left out because no machine can have them.
    left_out: Vec<Ipv4Addr>,
}

impl Surroundings {
    /// Looks around.
    pub async fn look() -> Result<Self, SurroundingsError> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let links_now = links::follow().await?;
        let links = links_now.borrow().clone();
        Ok(Self {
            handle,
            links,
            links_now,
            ports: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// The ports that [`Self::place`] has found.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// All addresses of this host.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let networks = self.links.iter().flat_map(|link| &link.addresses);
        networks.map(IpNet::addr)
    }

    /// What was left out of ranges and networks: the network and broadcast addresses of this host's networks.
    pub fn left_out(&self) -> &[Ipv4Addr] {
        &self.left_out
    }

    /// Why an address that does not answer may have an owner all the same: a port that has gone since it was found,
    /// or has lost its cable.
    pub fn fault(&self) -> Option<SurroundingsError> {
        let links = self.links_now.borrow();
        self.ports.iter().find_map(|port| {
            let reason = match links.get(port.ifindex) {
                None => Some("is gone"),
                Some(link) => no_way_out(link),
            };
            reason.map(|reason| SurroundingsError::Unfit {
                interface: port.name.clone(),
                reason,
            })
        })
    }

    /// Every MAC of this host.
    pub fn own_macs(&self) -> HashSet<MacAddr> {
        self.links.iter().filter_map(|link| link.mac).collect()
    }

    /// Finds out where each target is asked about: through the interface that was named, or by its route.
    pub async fn place(
        &mut self,
        targets: &[Target],
        interface: Option<&str>,
        vlan: Vlan,
    ) -> Result<Vec<Lot>, SurroundingsError> {
        let named = match interface {
            Some(name) => Some(self.named(name)?.index),
            None => None,
        };
        let pieces = lots::disjoint(targets)?;
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
                if let Some(error) = networks.find_map(|network| refuse(network, first)) {
                    return Err(error);
                }
            }
            let at_word = number <= AT_WORD;
            let port = self.port_for((first, last), named, vlan, at_word).await?;
            let networks = &self.ports[port].networks;
            if single
                && let Some(error) = networks.iter().find_map(|&network| refuse(network, first))
            {
                return Err(error);
            }
            let reserved = networks
                .iter()
                .filter_map(|&network| lots::reserved(network));
            let inside = |address: &u32| (first..=last).contains(address);
            let reserved: Vec<_> = reserved.flatten().map(u32::from).filter(inside).collect();
            let left_out = reserved.iter().map(|&address| Ipv4Addr::from(address));
            self.left_out.extend(left_out);
            let rest = lots::without((first, last), &reserved);
            placed.extend(
                rest.into_iter()
                    .map(|(first, last)| Lot { first, last, port }),
            );
        }
        Ok(placed)
    }

    /// Finds out where each of these is asked about, as far as they are on-link here, and says which are not. They
    /// must not overlap.
    pub async fn place_what_is_here(
        &mut self,
        targets: &[Target],
        interface: Option<&str>,
        vlan: Vlan,
    ) -> Result<(Vec<Lot>, Vec<Target>), SurroundingsError> {
        let links = self.links.iter().filter(|link| link.arp);
        let networks: Vec<_> = links.flat_map(networks_of).collect();
        let (mut lots, mut elsewhere) = (Vec::new(), Vec::new());
        for piece in targets.iter().flat_map(|target| split(*target, &networks)) {
            match self.place(&[piece], interface, vlan).await {
                Ok(placed) => lots.extend(placed),
                Err(SurroundingsError::OffLink { .. } | SurroundingsError::Reserved { .. }) => {
                    elsewhere.push(piece);
                }
                Err(error) => return Err(error),
            }
        }
        let sizes = lots.iter().map(|lot| u64::from(lot.last - lot.first) + 1);
        let number: u64 = sizes.sum();
        if number > Lots::MOST {
            return Err(LotsError::TooMany { number }.into());
        }
        Ok((lots, elsewhere))
    }

    /// Makes sure that this host may ask with an address on every port.
    pub fn check_source(&self, address: Ipv4Addr) -> Result<(), SurroundingsError> {
        for port in &self.ports {
            if !port.held.contains_key(&address) {
                let mut known: Vec<_> = port.held.keys().copied().collect();
                known.sort_unstable();
                return Err(SurroundingsError::NotOurs {
                    address,
                    interface: port.name.clone(),
                    known,
                });
            }
        }
        Ok(())
    }

    /// Whom this host believes to have which address, on each port.
    pub async fn neighbours(&self) -> Result<Neighbours, SurroundingsError> {
        let interfaces = self.ports.iter().map(|port| self.speaks_for(port));
        Ok(Neighbours {
            entries: neighbours::read(&self.handle).await?,
            interfaces: interfaces.collect(),
        })
    }

    /// The interface whose neighbour table is that of a port: a VLAN has one only if this host is in it.
    fn speaks_for(&self, port: &Port) -> Option<u32> {
        match port.vlan {
            Vlan::UNTAGGED => Some(port.ifindex),
            Vlan([vid, 0]) => self
                .links
                .iter()
                .find(|link| link.parent == Some(port.ifindex) && link.vlan == Some(vid))
                .map(|link| link.index),
            Vlan(_) => None,
        }
    }

    fn named(&self, name: &str) -> Result<&Link, SurroundingsError> {
        self.links
            .named(name)
            .ok_or_else(|| SurroundingsError::NoInterface {
                name: name.to_owned(),
                known: self.links.iter().map(|link| link.name.clone()).collect(),
            })
    }

    /// The port, by its place, for addresses from one to another.
    async fn port_for(
        &mut self,
        (first, last): (u32, u32),
        named: Option<u32>,
        vlan: Vlan,
        at_word: bool,
    ) -> Result<usize, SurroundingsError> {
        if let Some(ifindex) = named {
            let place = self.port(ifindex, vlan)?;
            let port = &self.ports[place];
            // An interface without an address of its own is in no network that could be known.
            if port.networks.is_empty() || at_word {
                return Ok(place);
            }
            for address in samples(first, last) {
                let networks = &self.ports[place].networks;
                let route = || self.route(address);
                let is_here = networks.iter().any(|network| network.contains(&address))
                    || vlan == Vlan::UNTAGGED && route().await? == Route::OnLink(ifindex);
                if !is_here {
                    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                    let name = &self.ports[place].name;
                    return Err(SurroundingsError::OffLink {
                        address,
                        reason: format!("the networks on {name} are {}", networks.join(", ")),
                        named: true,
                    });
                }
            }
            return Ok(place);
        }
        let mut found = None;
        for address in samples(first, last) {
            let Some(ifindex) = self.on_link(address).await? else {
                continue;
            };
            if let Some(found) = found
                && found != ifindex
            {
                return Err(SurroundingsError::OffLink {
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
            Some(ifindex) => self.port(ifindex, vlan),
            None => Err(SurroundingsError::OffLink {
                address: first.into(),
                reason: "it is a broadcast or group address".to_owned(),
                named: false,
            }),
        }
    }

    /// The interface that an address is on; `None` of what no machine can have.
    async fn on_link(&self, address: Ipv4Addr) -> Result<Option<u32>, SurroundingsError> {
        let off = |reason| {
            Err(SurroundingsError::OffLink {
                address,
                reason,
                named: false,
            })
        };
        match self.route(address).await? {
            Route::OnLink(ifindex) => Ok(Some(ifindex)),
            Route::Everybody => Ok(None),
            Route::Local => {
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
            Route::Gateway(ifindex, gateway) => off(match gateway {
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
            Route::None => match self.network_that_is_down(address) {
                Some((link, reason)) => Err(SurroundingsError::Unfit {
                    interface: link.name.clone(),
                    reason,
                }),
                None => off("there is no route to it".to_owned()),
            },
        }
    }

    fn network_that_is_down(&self, address: Ipv4Addr) -> Option<(&Link, &'static str)> {
        let has = |link: &&Link| networks_of(link).any(|network| network.contains(&address));
        let link = self.links.iter().filter(|link| link.arp).find(has)?;
        Some((link, no_way_out(link)?))
    }

    fn name_of(&self, ifindex: u32) -> String {
        let link = self.links.get(ifindex);
        link.map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    }

    /// The port on an interface, by its place; new if it must be.
    fn port(&mut self, ifindex: u32, vlan: Vlan) -> Result<usize, SurroundingsError> {
        let known = self.ports.iter().position(|port| port.ifindex == ifindex);
        if let Some(place) = known {
            return Ok(place);
        }
        let unfit = |reason| SurroundingsError::Unfit {
            interface: self.name_of(ifindex),
            reason,
        };
        let link = self.links.get(ifindex).ok_or_else(|| unfit("is gone"))?;
        let mac = match link.mac {
            Some(mac) if link.ethernet && link.arp => mac,
            _ => return Err(unfit("is no Ethernet interface with ARP")),
        };
        if let Some(reason) = no_way_out(link) {
            return Err(unfit(reason));
        }
        let facts = probe_network::facts::host_facts(&self.links, |index| index == ifindex);
        let held = facts
            .addresses
            .iter()
            .filter_map(|(key, mac)| match key.ip {
                IpAddr::V4(address) if key.segment.vlan == vlan => Some((address, *mac)),
                _ => None,
            });
        self.ports.push(Port {
            ifindex,
            name: link.name.clone(),
            mac,
            vlan,
            networks: probe_model::on_link::networks(&self.links, ifindex, vlan),
            held: held.collect(),
        });
        Ok(self.ports.len() - 1)
    }

    /// Where a packet to this address would go.
    async fn route(&self, address: Ipv4Addr) -> Result<Route, SurroundingsError> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build();
        let answer = self.handle.route().get(request).execute().try_next().await;
        let route = match answer {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(Route::None),
            Err(rtnetlink::Error::NetlinkError(message)) => {
                let errno = Errno::from_raw_os_error(message.raw_code().saturating_abs());
                // As `ip route` has them: unreachable, prohibit, blackhole, throw.
                return match errno {
                    Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL => {
                        Ok(Route::None)
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
            (RouteType::Local, _) => Route::Local,
            (RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast, _) => {
                Route::Everybody
            }
            (RouteType::Unicast, Some(interface)) if gateway.is_some() || via => {
                Route::Gateway(interface, gateway)
            }
            (RouteType::Unicast, Some(interface)) => Route::OnLink(interface),
            _ => Route::None,
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
fn refuse(network: Ipv4Net, address: u32) -> Option<SurroundingsError> {
    let [own, broadcast] = lots::reserved(network)?;
    let address = Ipv4Addr::from(address);
    let what = if address == own {
        "network address"
    } else if address == broadcast {
        "broadcast address"
    } else {
        return None;
    };
    Some(SurroundingsError::Reserved {
        address,
        what,
        network,
    })
}

/// A target in pieces, each of which is in one network of these, or in none.
fn split(target: Target, networks: &[Ipv4Net]) -> Vec<Target> {
    let Some(whole) = demand::interval(target) else {
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
    pieces.into_iter().filter_map(demand::target).collect()
}

/// Some addresses from one to another, both included, evenly spread; all of them if they are few.
fn samples(first: u32, last: u32) -> impl Iterator<Item = Ipv4Addr> {
    let steps = (last - first).min(SAMPLES - 1);
    (0..=steps).map(move |step| {
        let offset = u64::from(last - first) * u64::from(step) / u64::from(steps.max(1));
        // Within the range, and so within what an address can be.
        Ipv4Addr::from(first + u32::try_from(offset).unwrap_or(0))
    })
}

/// This host's neighbour table.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    entries: neighbours::Neighbours,
    /// Of each port, by its place: the interface with its table.
    interfaces: Vec<Option<u32>>,
}

impl Neighbours {
    /// Whom this host believes to have an address on a port.
    pub fn get(&self, port: usize, address: Ipv4Addr) -> Option<MacAddr> {
        let interface = self.interfaces.get(port).copied().flatten()?;
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
        let few: Vec<_> = samples(7, 10).map(u32::from).collect();
        assert_eq!(few, [7, 8, 9, 10]);
        assert_eq!(samples(7, 7).count(), 1);
        let many: Vec<_> = samples(0, u32::MAX).map(u32::from).collect();
        assert_eq!((many.len(), many[0], many[255]), (256, 0, u32::MAX));
    }
}
