//! The watch filter: which addresses the kernel side looks at.

use std::collections::BTreeSet;

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use ipnet::Ipv4Net;

use super::KernelError;

const MAP: &str = "FILTER";

/// The addresses to watch, as the kernel has them.
pub(super) struct AddressFilter {
    trie: LpmTrie<MapData, [u8; 4], u32>,
    networks: BTreeSet<Ipv4Net>,
    capacity: u32,
}

/// Entries of the map for a filter of `capacity` networks: while one filter replaces another, both are in it.
/// An entry takes memory when it is used.
pub(super) const fn entries(capacity: u32) -> u32 {
    capacity.saturating_mul(2)
}

impl AddressFilter {
    pub(super) fn new(trie: LpmTrie<MapData, [u8; 4], u32>, capacity: u32) -> Self {
        Self {
            trie,
            networks: BTreeSet::new(),
            capacity,
        }
    }

    /// Replaces the networks. What stays is never missing in between: additions come first.
    pub(super) fn replace(&mut self, networks: &[Ipv4Net]) -> Result<(), KernelError> {
        let wanted: BTreeSet<_> = networks.iter().map(Ipv4Net::trunc).collect();
        let added: Vec<_> = wanted.difference(&self.networks).copied().collect();
        let removed: Vec<_> = self.networks.difference(&wanted).copied().collect();
        if wanted.len() > self.capacity as usize {
            return Err(KernelError::FilterTooLarge {
                networks: wanted.len(),
                capacity: self.capacity,
            });
        }
        let error = |source| KernelError::Map { name: MAP, source };
        for network in added {
            self.trie.insert(&key(network), 1, 0).map_err(error)?;
            self.networks.insert(network);
        }
        for network in removed {
            self.trie.remove(&key(network)).map_err(error)?;
            self.networks.remove(&network);
        }
        Ok(())
    }
}

fn key(network: Ipv4Net) -> Key<[u8; 4]> {
    Key::new(u32::from(network.prefix_len()), network.addr().octets())
}
