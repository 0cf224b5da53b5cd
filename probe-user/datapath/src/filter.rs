//! The watch filter: the addresses that the BPF programs watch.

use std::collections::BTreeSet;

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use ipnet::Ipv4Net;

use super::KernelError;

const MAP: &str = "FILTER";

/// The watch filter in the kernel.
pub(super) struct AddressFilter {
    trie: LpmTrie<MapData, [u8; 4], u32>,
    networks: BTreeSet<Ipv4Net>,
    capacity: u32,
}

/// The number of map entries for a filter of `capacity` networks: while one filter replaces another, the map contains
/// both. An entry takes memory only when it is used.
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

    /// Replaces the networks. Networks are added before others are removed, so that those in both filters always match.
    pub(super) fn replace(&mut self, networks: &[Ipv4Net]) -> Result<(), KernelError> {
        let new: BTreeSet<_> = networks.iter().map(Ipv4Net::trunc).collect();
        let added: Vec<_> = new.difference(&self.networks).copied().collect();
        let removed: Vec<_> = self.networks.difference(&new).copied().collect();
        if new.len() > self.capacity as usize {
            return Err(KernelError::FilterTooLarge {
                networks: new.len(),
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
