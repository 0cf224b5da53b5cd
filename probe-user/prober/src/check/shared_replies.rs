//! Recognises one host with several interfaces on one network: it replies for all of its addresses with all of its MACs
//! (ARP flux), while two hosts with a duplicate address each have an address that only they reply for.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
};

use probe_common::wire::MacAddr;

/// The maximum number of MACs whose addresses are stored.
const MAX_MACS: usize = 4_096;

/// The maximum number of stored addresses per MAC. A MAC that replies for more is a proxy or a router.
const MAX_ADDRESSES: usize = 64;

/// The addresses for which each MAC replied.
#[derive(Debug, Default)]
pub struct SharedReplies(HashMap<MacAddr, BTreeSet<Ipv4Addr>>);

impl SharedReplies {
    /// Records that a MAC replied for an address.
    pub fn record(&mut self, mac: MacAddr, address: Ipv4Addr) {
        if self.0.len() >= MAX_MACS && !self.0.contains_key(&mac) {
            return;
        }
        let addresses = self.0.entry(mac).or_default();
        // One more than the limit marks a MAC that exceeds it.
        if addresses.len() <= MAX_ADDRESSES {
            addresses.insert(address);
        }
    }

    /// Whether two MACs reply for each other's addresses: at least two addresses, and the same ones.
    pub fn are_one_host(&self, one: MacAddr, other: MacAddr) -> bool {
        match (self.0.get(&one), self.0.get(&other)) {
            (Some(one), Some(other)) => (2..=MAX_ADDRESSES).contains(&one.len()) && one == other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn replies(pairs: &[(MacAddr, u8)]) -> SharedReplies {
        let mut shared = SharedReplies::default();
        for &(mac, last) in pairs {
            shared.record(mac, Ipv4Addr::new(192, 0, 2, last));
        }
        shared
    }

    #[test]
    fn two_macs_that_reply_for_the_same_addresses_and_no_other_are_one_host() {
        assert!(replies(&[(A, 1), (B, 1), (A, 2), (B, 2)]).are_one_host(A, B));
        assert!(
            !replies(&[(A, 1), (B, 1)]).are_one_host(A, B),
            "a duplicate"
        );
        let own = [(A, 1), (B, 1), (A, 2), (B, 2), (A, 3)];
        assert!(
            !replies(&own).are_one_host(A, B),
            "A has an address of its own"
        );
        let many: Vec<_> = (0..=64).flat_map(|last| [(A, last), (B, last)]).collect();
        assert!(!replies(&many).are_one_host(A, B), "two proxies");
    }
}
