//! Resolves MACs to nodes, from the addresses of the nodes and the observed bindings of these addresses.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Segment, on_link::OnLinkNetworks};

use super::{Node, cause::NodeCoverage};

/// The index of nodes by MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMacIndex {
    /// `None` for a MAC with addresses of several nodes, such as a router's or a proxy's: it belongs to no node.
    nodes: HashMap<MacAddr, Option<Arc<str>>>,
    /// The node of this host, if known.
    own: Option<Arc<str>>,
    /// The coverage of the nodes by segment.
    counts: BTreeMap<Segment, NodeCoverage>,
}

/// A node's address on a segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub node: Arc<str>,
    /// The binding.
    pub key: BindingKey,
}

/// The addresses of nodes that are on-link on this host.
pub fn node_addresses(nodes: &[Node], on_link: &OnLinkNetworks) -> Vec<NodeAddress> {
    let locations = nodes.iter().flat_map(|node| {
        let name: Arc<str> = node.name.as_str().into();
        let keys = node.addresses.iter().flat_map(|&ip| on_link.keys(ip));
        keys.map(move |key| NodeAddress {
            node: name.clone(),
            key,
        })
    });
    locations.collect()
}

impl NodeMacIndex {
    /// Builds the index from the number of nodes (`all`), their addresses, and the MACs of these addresses.
    /// `is_virtual` returns whether a MAC moves between hosts. `own` is this node and its MACs.
    pub fn new(
        all: usize,
        locations: &[(NodeAddress, Vec<MacAddr>)],
        own: Option<(&str, &HashSet<MacAddr>)>,
        is_virtual: impl Fn(MacAddr) -> bool,
    ) -> Self {
        let mut index = Self::default();
        let mut on_segment: BTreeMap<(Segment, &str), bool> = BTreeMap::new();
        for (location, macs) in locations {
            let macs = macs.iter().filter(|&&mac| !is_virtual(mac));
            let mut has_mac = false;
            for &mac in macs {
                has_mac = true;
                index.add(mac, &location.node);
            }
            *on_segment
                .entry((location.key.segment, &location.node))
                .or_default() |= has_mac;
        }
        if let Some((name, macs)) = own {
            let name: Arc<str> = name.into();
            for &mac in macs.iter().filter(|&&mac| !is_virtual(mac)) {
                index.nodes.insert(mac, Some(name.clone()));
            }
            for ((_, node), has_mac) in &mut on_segment {
                *has_mac |= *node == &*name;
            }
            index.own = Some(name);
        }
        for ((segment, _), has_mac) in on_segment {
            let count = index.counts.entry(segment).or_default();
            count.all = all;
            count.on_segment += 1;
            count.with_mac += usize::from(has_mac);
        }
        index
    }

    fn add(&mut self, mac: MacAddr, node: &Arc<str>) {
        let known = self.nodes.entry(mac).or_insert_with(|| Some(node.clone()));
        if known.as_ref().is_some_and(|known| known != node) {
            *known = None;
        }
    }

    /// The node of an owner with these MACs. Virtual MACs are ignored; `None` if the MACs belong to different nodes.
    pub fn node_of(&self, macs: &[MacAddr], is_local: bool) -> Option<&str> {
        if is_local && self.own.is_some() {
            return self.own.as_deref();
        }
        let mut known = macs
            .iter()
            .filter_map(|mac| self.nodes.get(mac)?.as_deref());
        let first = known.next()?;
        known.all(|other| other == first).then_some(first)
    }

    /// The coverage of the nodes on a segment.
    pub fn count(&self, segment: Segment) -> NodeCoverage {
        self.counts.get(&segment).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const C: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
    const VIRTUAL: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);

    fn location(node: &str, last: u8, macs: &[MacAddr]) -> (NodeAddress, Vec<MacAddr>) {
        let key = BindingKey {
            segment: Segment::default(),
            ip: [192, 0, 2, last].into(),
        };
        let node = node.into();
        (NodeAddress { node, key }, macs.to_vec())
    }

    fn index(locations: &[(NodeAddress, Vec<MacAddr>)]) -> NodeMacIndex {
        NodeMacIndex::new(locations.len(), locations, None, |mac| mac == VIRTUAL)
    }

    #[test]
    fn mac_resolves_to_the_node_with_its_address() {
        let index = index(&[location("node-1", 1, &[A]), location("node-2", 2, &[B])]);
        assert_eq!(index.node_of(&[A], false), Some("node-1"));
        assert_eq!(index.node_of(&[B, VIRTUAL], false), Some("node-2"));
        assert_eq!(index.node_of(&[C], false), None);
        assert_eq!(
            index.node_of(&[A, B], false),
            None,
            "MACs of two nodes are no node"
        );
    }

    #[test]
    fn a_mac_with_addresses_of_several_nodes_is_nobodys() {
        let router = index(&[
            location("node-1", 1, &[A]),
            location("node-2", 2, &[A]),
            location("node-1", 1, &[A]),
        ]);
        assert_eq!(router.node_of(&[A], false), None);
        let node = index(&[location("node-1", 1, &[A]), location("node-1", 3, &[A])]);
        assert_eq!(
            node.node_of(&[A], false),
            Some("node-1"),
            "two addresses of one node"
        );
    }

    #[test]
    fn a_virtual_routers_mac_is_nobodys() {
        let index = index(&[location("node-1", 1, &[VIRTUAL])]);
        assert_eq!(index.node_of(&[VIRTUAL], false), None);
        let count = NodeCoverage {
            all: 1,
            on_segment: 1,
            with_mac: 0,
        };
        assert_eq!(index.count(Segment::default()), count);
    }

    #[test]
    fn local_mac_resolves_to_this_node() {
        let own = HashSet::from([C, VIRTUAL]);
        let locations = [location("node-1", 1, &[]), location("node-2", 2, &[B])];
        let is_virtual = |mac| mac == VIRTUAL;
        let index = NodeMacIndex::new(2, &locations, Some(("node-1", &own)), is_virtual);
        assert_eq!(index.node_of(&[C], false), Some("node-1"));
        assert_eq!(
            index.node_of(&[VIRTUAL], false),
            None,
            "it belongs to the current master"
        );
        assert_eq!(index.node_of(&[VIRTUAL], true), Some("node-1"));
        let count = NodeCoverage {
            all: 2,
            on_segment: 2,
            with_mac: 2,
        };
        assert_eq!(index.count(Segment::default()), count);
    }

    #[test]
    fn only_nodes_of_the_segment_are_counted() {
        let index = index(&[location("node-1", 1, &[A]), location("node-2", 2, &[])]);
        let count = NodeCoverage {
            all: 2,
            on_segment: 2,
            with_mac: 1,
        };
        assert_eq!(index.count(Segment::default()), count);
        let elsewhere = Segment {
            interface: 7,
            ..Segment::default()
        };
        assert_eq!(index.count(elsewhere), NodeCoverage::default());
    }
}
