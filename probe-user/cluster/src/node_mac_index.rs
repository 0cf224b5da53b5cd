//! Which node a MAC address is: by the addresses of the nodes and who has them on the wire.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Segment, on_link::OnLinkNetworks};

use super::{Node, cause::NodeCoverage};

/// The nodes by their MACs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMacIndex {
    /// `None` for a MAC with addresses of several nodes: a router's or a proxy's, and nobody's.
    nodes: HashMap<MacAddr, Option<Arc<str>>>,
    /// This node, if it is known which it is.
    own: Option<Arc<str>>,
    /// By network, how many nodes have an address there, and of how many of them a MAC is known.
    counts: BTreeMap<Segment, NodeCoverage>,
}

/// A node's address on a segment of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Whose.
    pub node: Arc<str>,
    /// Where.
    pub key: BindingKey,
}

/// The addresses of nodes that are on-link here.
pub fn node_addresses(nodes: &[Node], on_link: &OnLinkNetworks) -> Vec<NodeAddress> {
    let places = nodes.iter().flat_map(|node| {
        let name: Arc<str> = node.name.as_str().into();
        let keys = node.addresses.iter().flat_map(|&ip| on_link.keys(ip));
        keys.map(move |key| NodeAddress {
            node: name.clone(),
            key,
        })
    });
    places.collect()
}

impl NodeMacIndex {
    /// From the addresses of so many nodes and the MACs that have them. `is_virtual` says of a MAC that it
    /// passes from machine to machine. `own` is this node and its MACs.
    pub fn new(
        all: usize,
        places: &[(NodeAddress, Vec<MacAddr>)],
        own: Option<(&str, &HashSet<MacAddr>)>,
        is_virtual: impl Fn(MacAddr) -> bool,
    ) -> Self {
        let mut stations = Self::default();
        let mut on_segment: BTreeMap<(Segment, &str), bool> = BTreeMap::new();
        for (place, macs) in places {
            let macs = macs.iter().filter(|&&mac| !is_virtual(mac));
            let mut knows = false;
            for &mac in macs {
                knows = true;
                stations.add(mac, &place.node);
            }
            *on_segment
                .entry((place.key.segment, &place.node))
                .or_default() |= knows;
        }
        if let Some((name, macs)) = own {
            let name: Arc<str> = name.into();
            for &mac in macs.iter().filter(|&&mac| !is_virtual(mac)) {
                stations.nodes.insert(mac, Some(name.clone()));
            }
            for ((_, node), knows) in &mut on_segment {
                *knows |= *node == &*name;
            }
            stations.own = Some(name);
        }
        for ((segment, _), knows) in on_segment {
            let count = stations.counts.entry(segment).or_default();
            count.all = all;
            count.on_segment += 1;
            count.with_mac += usize::from(knows);
        }
        stations
    }

    fn add(&mut self, mac: MacAddr, node: &Arc<str>) {
        let known = self.nodes.entry(mac).or_insert_with(|| Some(node.clone()));
        if known.as_ref().is_some_and(|known| known != node) {
            *known = None;
        }
    }

    /// The node that an owner with these MACs is. A virtual MAC among them says nothing, and MACs of different nodes
    /// are no node.
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

    /// How many nodes are on a segment.
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

    fn place(node: &str, last: u8, macs: &[MacAddr]) -> (NodeAddress, Vec<MacAddr>) {
        let key = BindingKey {
            segment: Segment::default(),
            ip: [192, 0, 2, last].into(),
        };
        let node = node.into();
        (NodeAddress { node, key }, macs.to_vec())
    }

    fn stations(places: &[(NodeAddress, Vec<MacAddr>)]) -> NodeMacIndex {
        NodeMacIndex::new(places.len(), places, None, |mac| mac == VIRTUAL)
    }

    #[test]
    fn a_mac_is_the_node_that_has_its_address() {
        let stations = stations(&[place("node-1", 1, &[A]), place("node-2", 2, &[B])]);
        assert_eq!(stations.node_of(&[A], false), Some("node-1"));
        assert_eq!(stations.node_of(&[B, VIRTUAL], false), Some("node-2"));
        assert_eq!(stations.node_of(&[C], false), None);
        assert_eq!(stations.node_of(&[A, B], false), None, "no machine of two");
    }

    #[test]
    fn a_mac_with_addresses_of_several_nodes_is_nobodys() {
        let router = stations(&[
            place("node-1", 1, &[A]),
            place("node-2", 2, &[A]),
            place("node-1", 1, &[A]),
        ]);
        assert_eq!(router.node_of(&[A], false), None);
        let node = stations(&[place("node-1", 1, &[A]), place("node-1", 3, &[A])]);
        assert_eq!(
            node.node_of(&[A], false),
            Some("node-1"),
            "two addresses of one"
        );
    }

    #[test]
    fn a_virtual_routers_mac_is_nobodys() {
        let stations = stations(&[place("node-1", 1, &[VIRTUAL])]);
        assert_eq!(stations.node_of(&[VIRTUAL], false), None);
        let count = NodeCoverage {
            all: 1,
            on_segment: 1,
            with_mac: 0,
        };
        assert_eq!(stations.count(Segment::default()), count);
    }

    #[test]
    fn what_is_local_is_this_node() {
        let own = HashSet::from([C, VIRTUAL]);
        let places = [place("node-1", 1, &[]), place("node-2", 2, &[B])];
        let is_virtual = |mac| mac == VIRTUAL;
        let stations = NodeMacIndex::new(2, &places, Some(("node-1", &own)), is_virtual);
        assert_eq!(stations.node_of(&[C], false), Some("node-1"));
        assert_eq!(stations.node_of(&[VIRTUAL], false), None, "its master's");
        assert_eq!(stations.node_of(&[VIRTUAL], true), Some("node-1"));
        let count = NodeCoverage {
            all: 2,
            on_segment: 2,
            with_mac: 2,
        };
        assert_eq!(stations.count(Segment::default()), count);
    }

    #[test]
    fn only_nodes_of_the_segment_are_counted() {
        let stations = stations(&[place("node-1", 1, &[A]), place("node-2", 2, &[])]);
        let count = NodeCoverage {
            all: 2,
            on_segment: 2,
            with_mac: 1,
        };
        assert_eq!(stations.count(Segment::default()), count);
        let elsewhere = Segment {
            interface: 7,
            ..Segment::default()
        };
        assert_eq!(stations.count(elsewhere), NodeCoverage::default());
    }
}
