//! What the host and the cluster know that no frame says. Told as a whole whenever something changes.

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Timestamp};

/// Single addresses that matter and are expected to be there, and who may be announcing them unheard.
pub type ExpectedAddresses = HashMap<BindingKey, LocalAnnouncement>;

/// Who may have been announcing an address since before anything was heard. A load balancer's speaker says so when it
/// takes an address, and from then on only answers; and what runs on this host does not answer this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAnnouncement {
    /// Perhaps one on this host.
    PossiblyLocal,
    /// One on another host, if any.
    Elsewhere,
}

/// What is known beyond the frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The addresses that this host holds, and the MAC it holds each with. An address on a VLAN child,
    /// bridge or macvlan belongs to the segment of its parent or port; those on loopback, dummy,
    /// kube-ipvs0 and any NOARP link do not belong here: IPVS nodes have every service address there.
    pub addresses: HashMap<BindingKey, MacAddr>,
    /// Every MAC of this host.
    pub macs: HashSet<MacAddr>,
    /// The broadcast addresses of the connected networks: nobody can own one.
    pub broadcasts: HashSet<BindingKey>,
    /// The gateways: tracked, and expected to be there, so that their silence counts from the start.
    pub gateways: HashSet<BindingKey>,
    /// Networks whose addresses matter, beyond those of the configuration: a cluster's pools.
    pub tracked: Vec<IpNet>,
}

/// The facts as detection keeps them: with the time since when each address is held.
#[derive(Debug, Default)]
pub(super) struct HostState {
    facts: HostFacts,
    local_since: HashMap<BindingKey, Timestamp>,
    expected: Arc<ExpectedAddresses>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalAddress {
    /// The MAC that it is held with.
    pub mac: MacAddr,
    /// Since when, as far as detection was told.
    pub since: Timestamp,
}

impl HostState {
    /// Replaces everything. What was held before and still is keeps its time.
    pub fn replace(&mut self, facts: HostFacts, at: Timestamp) {
        let before = std::mem::take(&mut self.local_since);
        self.local_since = facts
            .addresses
            .keys()
            .map(|key| (*key, before.get(key).copied().unwrap_or(at)))
            .collect();
        self.facts = facts;
    }

    /// Replaces the single addresses that are expected. Returns those that are not any more.
    pub fn set_expected(&mut self, expected: Arc<ExpectedAddresses>) -> Vec<BindingKey> {
        let before = mem::replace(&mut self.expected, expected);
        let gone = before.keys().filter(|key| !self.expected.contains_key(key));
        gone.copied().collect()
    }

    /// Whether the address is among the single ones that are expected.
    pub fn is_expected(&self, key: &BindingKey) -> bool {
        self.expected.contains_key(key)
    }

    /// Whether a speaker on this host may have been announcing the address since before anything was heard.
    pub fn may_be_announced_locally(&self, key: &BindingKey) -> bool {
        self.expected.get(key) == Some(&LocalAnnouncement::PossiblyLocal)
    }

    /// No fact lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        for since in self.local_since.values_mut() {
            *since = now.min(*since);
        }
    }

    /// Whether this is a MAC of this host.
    pub fn is_local(&self, mac: MacAddr) -> bool {
        self.facts.macs.contains(&mac)
    }

    /// Whether this host holds the address.
    pub fn local_address(&self, key: &BindingKey) -> Option<LocalAddress> {
        let mac = *self.facts.addresses.get(key)?;
        let since = *self.local_since.get(key)?;
        Some(LocalAddress { mac, since })
    }

    /// Whether the address is the broadcast address of a connected network.
    pub fn is_broadcast(&self, key: &BindingKey) -> bool {
        self.facts.broadcasts.contains(key)
    }

    /// Whether the address is a gateway's.
    pub fn is_gateway(&self, key: &BindingKey) -> bool {
        self.facts.gateways.contains(key)
    }

    /// Whether the address matters by what the facts say.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        self.facts.gateways.contains(key)
            || self.facts.addresses.contains_key(key)
            || self.is_expected(key)
            || covers(&self.facts.tracked, key.ip)
    }

    /// Networks whose addresses matter.
    pub fn tracked_networks(&self) -> impl Iterator<Item = &IpNet> {
        self.facts.tracked.iter()
    }

    /// The addresses that this host holds.
    pub fn addresses(&self) -> impl Iterator<Item = BindingKey> {
        self.facts.addresses.keys().copied()
    }

    /// The addresses whose silence counts from the start, in a stable order: the gateways, and what was said to be
    /// expected.
    pub fn expected_keys(&self) -> Vec<BindingKey> {
        let gateways = self.facts.gateways.iter();
        let mut awaited: Vec<_> = gateways.chain(self.expected.keys()).copied().collect();
        awaited.sort_unstable();
        awaited
    }
}

/// Whether one of the networks contains the address.
pub(super) fn covers(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}
