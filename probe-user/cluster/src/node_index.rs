//! Which MAC is which node's: the cluster says which addresses nodes have, and the wire who has those addresses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::MacPattern;

use super::Node;

/// The nodes, and their MACs as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct NodeIndex {
    nodes: Vec<Node>,
    /// By address, the number of the node that has it.
    by_address: HashMap<IpAddr, usize>,
    /// `None` for a MAC with addresses of several nodes: a router's or a proxy's, and nobody's.
    by_mac: HashMap<MacAddr, Option<usize>>,
    /// Nodes of which is known with which MAC they speak, or that they do not answer at all.
    probed_addresses: BTreeSet<usize>,
}

impl NodeIndex {
    /// Of these nodes no MAC is known yet.
    pub fn new(nodes: Vec<Node>) -> Self {
        let mut by_address = HashMap::new();
        for (number, node) in nodes.iter().enumerate() {
            for &address in &node.addresses {
                by_address.entry(address).or_insert(number);
            }
        }
        Self {
            nodes,
            by_address,
            ..Self::default()
        }
    }

    /// Somebody with this MAC has this address: a node, if the address is a node's. A virtual router's MAC passes
    /// from machine to machine and says nothing.
    pub fn add_mac(&mut self, address: IpAddr, mac: MacAddr) {
        if MacPattern::is_virtual_router(mac) {
            return;
        }
        if let Some(&number) = self.by_address.get(&address) {
            let known = self.by_mac.entry(mac).or_insert(Some(number));
            if *known != Some(number) {
                *known = None;
            }
            self.probed_addresses.insert(number);
        }
    }

    /// It was asked who has this address: of whoever did not answer it is known that he does not.
    pub fn asked(&mut self, address: IpAddr) {
        self.probed_addresses.extend(self.by_address.get(&address));
    }

    /// The node that an owner with these MACs is. MACs of different nodes are no node.
    pub fn node_of(&self, macs: &[MacAddr]) -> Option<&str> {
        let mut known = macs.iter().filter_map(|mac| *self.by_mac.get(mac)?);
        let number = known.next()?;
        if known.any(|other| other != number) {
            return None;
        }
        self.nodes.get(number).map(|node| node.name.as_str())
    }

    /// The node that has this address, by what the cluster says.
    pub fn node_at(&self, address: IpAddr) -> Option<&str> {
        let number = *self.by_address.get(&address)?;
        self.nodes.get(number).map(|node| node.name.as_str())
    }

    /// How many nodes.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is known.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// An address in these networks of each node of which no MAC is known: who has them can be asked. Those of the
    /// nodes with these names come first.
    pub fn addresses_to_probe(&self, networks: &[IpNet], first: &[&str]) -> Vec<IpAddr> {
        let mut wanted: Vec<_> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(number, _)| !self.probed_addresses.contains(number))
            .filter_map(|(_, node)| Some((node, address_in(node, networks)?)))
            .collect();
        wanted.sort_by_key(|(node, _)| !first.contains(&node.name.as_str()));
        wanted.into_iter().map(|(_, address)| address).collect()
    }

    /// How many nodes have an address in these networks, and of how many of those a MAC is known.
    pub fn known_in(&self, networks: &[IpNet]) -> (usize, usize) {
        let known: BTreeSet<_> = self.by_mac.values().flatten().collect();
        let nodes = self.nodes.iter().enumerate();
        let present: Vec<_> = nodes
            .filter(|(_, node)| address_in(node, networks).is_some())
            .collect();
        let with_mac = present.iter().filter(|(number, _)| known.contains(number));
        (present.len(), with_mac.count())
    }

    /// Whether every node has an address in these networks, and it is known of each who answers there: then a MAC that
    /// is none of theirs is no node's. A node that does not answer for its own address answers for no other either.
    pub fn is_complete_in(&self, networks: &[IpNet]) -> bool {
        let mut nodes = self.nodes.iter().enumerate();
        let is_settled = |number| self.probed_addresses.contains(&number);
        !self.by_mac.is_empty()
            && nodes
                .all(|(number, node)| address_in(node, networks).is_some() && is_settled(number))
    }
}

fn address_in(node: &Node, networks: &[IpNet]) -> Option<IpAddr> {
    let mut addresses = node.addresses.iter().copied();
    addresses.find(|address| networks.iter().any(|network| network.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn node(name: &str, addresses: &[&str]) -> Node {
        Node {
            name: name.to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            labels: std::collections::BTreeMap::default(),
        }
    }

    fn net(text: &str) -> Vec<IpNet> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn a_node_is_known_by_the_mac_that_has_its_address() {
        let nodes = vec![
            node("node-1", &["192.0.2.1", "2001:db8::1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut roster = NodeIndex::new(nodes);
        let here = net("192.0.2.0/24");
        assert_eq!(roster.known_in(&here), (2, 0));
        roster.add_mac("192.0.2.1".parse().unwrap(), A);
        roster.add_mac("192.0.2.77".parse().unwrap(), B);
        assert_eq!(roster.node_of(&[B, A]), Some("node-1"));
        assert_eq!(roster.node_of(&[B]), None);
        let to_ask = roster.addresses_to_probe(&here, &[]);
        assert_eq!(to_ask, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(roster.known_in(&here), (2, 1));
        assert!(!roster.is_complete_in(&here), "it may be node-2");
        roster.asked("192.0.2.2".parse().unwrap());
        assert!(roster.is_complete_in(&here), "node-2 does not answer");
        assert_eq!(roster.addresses_to_probe(&here, &[]), [] as [IpAddr; 0]);
    }

    #[test]
    fn who_has_addresses_of_several_nodes_is_none_of_them() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut roster = NodeIndex::new(nodes);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
            roster.add_mac(address.parse().unwrap(), A);
        }
        assert_eq!(roster.node_of(&[A]), None, "a proxy");
    }

    #[test]
    fn an_owner_is_one_node_or_none() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut roster = NodeIndex::new(nodes);
        let vrrp = MacAddr([0, 0, 0x5e, 0, 1, 7]);
        for (address, mac) in [("192.0.2.1", A), ("192.0.2.2", B), ("192.0.2.2", vrrp)] {
            roster.add_mac(address.parse().unwrap(), mac);
        }
        assert_eq!(roster.node_of(&[A, B]), None, "no machine of two");
        assert_eq!(roster.node_of(&[vrrp]), None, "it passes on");
        assert_eq!(roster.node_of(&[vrrp, A]), Some("node-1"));
    }

    #[test]
    fn nodes_of_other_networks_leave_a_doubt() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["198.51.100.2"]),
        ];
        let mut roster = NodeIndex::new(nodes);
        roster.add_mac("192.0.2.1".parse().unwrap(), A);
        assert!(!roster.is_complete_in(&net("192.0.2.0/24")));
        assert_eq!(roster.known_in(&net("192.0.2.0/24")), (1, 1));
    }

    #[test]
    fn who_should_announce_is_asked_first() {
        let nodes = (1..=3)
            .map(|number| node(&format!("node-{number}"), &[&format!("192.0.2.{number}")]))
            .collect();
        let to_ask = NodeIndex::new(nodes).addresses_to_probe(&net("192.0.2.0/24"), &["node-3"]);
        let to_ask: Vec<_> = to_ask.iter().map(ToString::to_string).collect();
        assert_eq!(to_ask, ["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
    }
}
