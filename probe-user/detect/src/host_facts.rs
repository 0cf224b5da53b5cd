//! Facts about the host and the cluster that no frame contains. They are replaced as a whole at each change.

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Timestamp};

/// Single tracked addresses that are expected to have an owner, and whether a speaker may announce them unobserved.
pub type ExpectedAddresses = HashMap<BindingKey, LocalAnnouncement>;

/// Where a speaker may have announced an address before the first observation. A load balancer's speaker announces an
/// address when it takes it, and only replies from then on; a speaker on this host does not reply to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAnnouncement {
    /// Perhaps one on this host.
    PossiblyLocal,
    /// One on another host, if any.
    Elsewhere,
}

/// Facts about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The addresses of this host, each with its MAC. An address on a VLAN child,
    /// bridge or macvlan belongs to the segment of its parent or port; those on loopback, dummy,
    /// kube-ipvs0 and any NOARP link do not belong here: IPVS nodes have every service address there.
    pub addresses: HashMap<BindingKey, MacAddr>,
    /// Every MAC of this host.
    pub macs: HashSet<MacAddr>,
    /// The broadcast addresses of the connected networks: they have no owner.
    pub broadcasts: HashSet<BindingKey>,
    /// The gateways: tracked, and expected to be there, so that their silence counts from the start.
    pub gateways: HashSet<BindingKey>,
    /// Tracked networks beyond those of the configuration: a cluster's pools.
    pub tracked: Vec<IpNet>,
}

/// The facts with the time since when this host has each address.
#[derive(Debug, Default)]
pub(super) struct HostState {
    facts: HostFacts,
    local_since: HashMap<BindingKey, Timestamp>,
    expected: Arc<ExpectedAddresses>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalAddress {
    /// Its MAC.
    pub mac: MacAddr,
    /// Since when this host has it, as far as detection knows.
    pub since: Timestamp,
}

impl HostState {
    /// Replaces everything. An address that this host had before keeps its time.
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

    /// Whether a speaker on this host may have announced the address before the first observation.
    pub fn may_be_announced_locally(&self, key: &BindingKey) -> bool {
        self.expected.get(key) == Some(&LocalAnnouncement::PossiblyLocal)
    }

    /// Moves times in the future to `now`, to which the clock was set back.
    pub fn forget_future(&mut self, now: Timestamp) {
        for since in self.local_since.values_mut() {
            *since = now.min(*since);
        }
    }

    /// Whether this is a MAC of this host.
    pub fn is_local(&self, mac: MacAddr) -> bool {
        self.facts.macs.contains(&mac)
    }

    /// The address of this host, if it has it.
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

    /// Whether the address is tracked according to the facts.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        self.facts.gateways.contains(key)
            || self.facts.addresses.contains_key(key)
            || self.is_expected(key)
            || covers(&self.facts.tracked, key.ip)
    }

    /// The tracked networks.
    pub fn tracked_networks(&self) -> impl Iterator<Item = &IpNet> {
        self.facts.tracked.iter()
    }

    /// The addresses of this host.
    pub fn addresses(&self) -> impl Iterator<Item = BindingKey> {
        self.facts.addresses.keys().copied()
    }

    /// The addresses whose silence counts from the start, in a stable order: the gateways and the expected
    /// addresses.
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
