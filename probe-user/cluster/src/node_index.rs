//! Resolves MACs to nodes: the cluster lists the addresses of nodes, and probes show the MACs of those addresses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::MacPattern;

use super::Node;

/// The nodes, and their MACs as far as known.
#[derive(Clone, Debug, Default)]
pub struct NodeIndex {
    nodes: Vec<Node>,
    /// The index of the node with an address.
    by_address: HashMap<IpAddr, usize>,
    /// `None` for a MAC with addresses of several nodes, such as a router's or a proxy's: it belongs to no node.
    by_mac: HashMap<MacAddr, Option<usize>>,
    /// Nodes whose MAC is known, or that did not reply to probes.
    probed_addresses: BTreeSet<usize>,
}

impl NodeIndex {
    /// An index of these nodes, without MACs.
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

    /// Records that this MAC replies for this address. It identifies a node if the address is a node's. The MAC of a
    /// virtual router moves between hosts and is ignored.
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

    /// Records that this address was probed. Without a reply, its node is known not to reply.
    pub fn mark_probed(&mut self, address: IpAddr) {
        self.probed_addresses.extend(self.by_address.get(&address));
    }

    /// The node of an owner with these MACs; `None` if they belong to different nodes.
    pub fn node_of(&self, macs: &[MacAddr]) -> Option<&str> {
        let mut known = macs.iter().filter_map(|mac| *self.by_mac.get(mac)?);
        let number = known.next()?;
        if known.any(|other| other != number) {
            return None;
        }
        self.nodes.get(number).map(|node| node.name.as_str())
    }

    /// The node with this address, by the list of nodes.
    pub fn node_at(&self, address: IpAddr) -> Option<&str> {
        let number = *self.by_address.get(&address)?;
        self.nodes.get(number).map(|node| node.name.as_str())
    }

    /// The number of nodes.
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

    /// For each node without a known MAC, its address in these networks, to be probed. The nodes named in `first` come
    /// first.
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

    /// The number of nodes with an address in these networks, and the number of these with a known MAC.
    pub fn known_in(&self, networks: &[IpNet]) -> (usize, usize) {
        let known: BTreeSet<_> = self.by_mac.values().flatten().collect();
        let nodes = self.nodes.iter().enumerate();
        let present: Vec<_> = nodes
            .filter(|(_, node)| address_in(node, networks).is_some())
            .collect();
        let with_mac = present.iter().filter(|(number, _)| known.contains(number));
        (present.len(), with_mac.count())
    }

    /// Whether every node has an address in these networks and was probed: then any other MAC is not a node's. A node
    /// that does not reply for its own address does not reply for others either.
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
    fn node_is_identified_by_the_mac_of_its_address() {
        let nodes = vec![
            node("node-1", &["192.0.2.1", "2001:db8::1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut nodes_by_mac = NodeIndex::new(nodes);
        let here = net("192.0.2.0/24");
        assert_eq!(nodes_by_mac.known_in(&here), (2, 0));
        nodes_by_mac.add_mac("192.0.2.1".parse().unwrap(), A);
        nodes_by_mac.add_mac("192.0.2.77".parse().unwrap(), B);
        assert_eq!(nodes_by_mac.node_of(&[B, A]), Some("node-1"));
        assert_eq!(nodes_by_mac.node_of(&[B]), None);
        let to_ask = nodes_by_mac.addresses_to_probe(&here, &[]);
        assert_eq!(to_ask, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(nodes_by_mac.known_in(&here), (2, 1));
        assert!(!nodes_by_mac.is_complete_in(&here), "it may be node-2");
        nodes_by_mac.mark_probed("192.0.2.2".parse().unwrap());
        assert!(nodes_by_mac.is_complete_in(&here), "node-2 does not reply");
        assert_eq!(
            nodes_by_mac.addresses_to_probe(&here, &[]),
            [] as [IpAddr; 0]
        );
    }

    #[test]
    fn mac_with_addresses_of_several_nodes_resolves_to_none() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut nodes_by_mac = NodeIndex::new(nodes);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
            nodes_by_mac.add_mac(address.parse().unwrap(), A);
        }
        assert_eq!(nodes_by_mac.node_of(&[A]), None, "a proxy");
    }

    #[test]
    fn owner_resolves_to_at_most_one_node() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["192.0.2.2"]),
        ];
        let mut nodes_by_mac = NodeIndex::new(nodes);
        let vrrp = MacAddr([0, 0, 0x5e, 0, 1, 7]);
        for (address, mac) in [("192.0.2.1", A), ("192.0.2.2", B), ("192.0.2.2", vrrp)] {
            nodes_by_mac.add_mac(address.parse().unwrap(), mac);
        }
        assert_eq!(
            nodes_by_mac.node_of(&[A, B]),
            None,
            "MACs of two nodes are no node"
        );
        assert_eq!(
            nodes_by_mac.node_of(&[vrrp]),
            None,
            "a virtual MAC is ignored"
        );
        assert_eq!(nodes_by_mac.node_of(&[vrrp, A]), Some("node-1"));
    }

    #[test]
    fn nodes_on_other_networks_make_the_result_uncertain() {
        let nodes = vec![
            node("node-1", &["192.0.2.1"]),
            node("node-2", &["198.51.100.2"]),
        ];
        let mut nodes_by_mac = NodeIndex::new(nodes);
        nodes_by_mac.add_mac("192.0.2.1".parse().unwrap(), A);
        assert!(!nodes_by_mac.is_complete_in(&net("192.0.2.0/24")));
        assert_eq!(nodes_by_mac.known_in(&net("192.0.2.0/24")), (1, 1));
    }

    #[test]
    fn probes_go_first_to_the_expected_announcer() {
        let nodes = (1..=3)
            .map(|number| node(&format!("node-{number}"), &[&format!("192.0.2.{number}")]))
            .collect();
        let to_ask = NodeIndex::new(nodes).addresses_to_probe(&net("192.0.2.0/24"), &["node-3"]);
        let to_ask: Vec<_> = to_ask.iter().map(ToString::to_string).collect();
        assert_eq!(to_ask, ["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
    }
}
