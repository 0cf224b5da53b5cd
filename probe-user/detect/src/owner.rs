//! Which MACs are one host, according to the MACs alone and the configuration.

use std::{collections::HashMap, time::Duration};

use probe_common::wire::MacAddr;

use super::DetectConfig;

/// The identity of a MAC's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerIdentity {
    /// One host.
    Host(MacAddr),
    /// A virtual MAC of VRRP, CARP or HSRP, which passes from host to host.
    VirtualRouter(MacAddr),
    /// The MACs of one GLBP group: 00:07:b4, the group's two bytes, and the forwarder, in which they differ.
    GlbpGroup([u8; 2]),
    /// A Microsoft NLB cluster: 02:bf or 03:bf, and the four bytes of its address.
    NlbCluster([u8; 4]),
    /// A set of MACs that was declared to be one host.
    Declared(usize),
}

impl OwnerIdentity {
    /// Whether frames are expected to come from another Ethernet source than this.
    pub const fn has_other_sources(self) -> bool {
        match self {
            Self::VirtualRouter(_) | Self::GlbpGroup(_) | Self::NlbCluster(_) => true,
            Self::Host(_) | Self::Declared(_) => false,
        }
    }
}

/// The configuration, with indexes for the lookups of every claim.
#[derive(Debug)]
pub struct OwnerRules {
    /// The configuration.
    pub config: DetectConfig,
    declared: HashMap<MacAddr, usize>,
    /// The lowest MAC of each declared set.
    declared_first: HashMap<usize, MacAddr>,
}

impl OwnerRules {
    /// Builds the indexes; numbers below their minimum are raised to it.
    pub fn new(mut config: DetectConfig) -> Self {
        config.max_macs = config.max_macs.max(2);
        config.quiet_after = config.quiet_after.max(Duration::from_millis(1));
        config.max_bindings = config.max_bindings.max(1);
        config.alternation_returns = config.alternation_returns.max(1);
        config.slow_alternation_returns = config.slow_alternation_returns.max(1);
        let declared = join(&config.same_owner);
        let mut declared_first: HashMap<usize, MacAddr> = HashMap::new();
        for (&mac, &set) in &declared {
            let first = declared_first.entry(set).or_insert(mac);
            *first = mac.min(*first);
        }
        Self {
            config,
            declared,
            declared_first,
        }
    }

    /// The identity of a MAC's owner. What is declared goes before what is recognised.
    pub fn identify(&self, mac: MacAddr) -> OwnerIdentity {
        if let Some(&set) = self.declared.get(&mac) {
            return OwnerIdentity::Declared(set);
        }
        match mac.0 {
            [0x00, 0x07, 0xb4, group @ .., _] => OwnerIdentity::GlbpGroup(group),
            [0x02 | 0x03, 0xbf, address @ ..] => OwnerIdentity::NlbCluster(address),
            _ if self.matches_virtual_router(mac) => OwnerIdentity::VirtualRouter(mac),
            _ => OwnerIdentity::Host(mac),
        }
    }

    /// The MAC that identifies an owner: the same one, whichever of its MACs is observed.
    pub fn canonical(&self, owner: OwnerIdentity) -> MacAddr {
        match owner {
            OwnerIdentity::Host(mac) | OwnerIdentity::VirtualRouter(mac) => mac,
            OwnerIdentity::GlbpGroup([high, low]) => MacAddr([0x00, 0x07, 0xb4, high, low, 0]),
            OwnerIdentity::NlbCluster([a, b, c, d]) => MacAddr([0x02, 0xbf, a, b, c, d]),
            OwnerIdentity::Declared(set) => self
                .declared_first
                .get(&set)
                .copied()
                .unwrap_or(MacAddr::ZERO),
        }
    }

    /// Whether other rules identify other owners.
    pub fn owners_differ(&self, other: &Self) -> bool {
        self.config.same_owner != other.config.same_owner
            || self.config.virtual_routers != other.config.virtual_routers
    }

    /// Whether a MAC is one that passes from router to router.
    pub fn is_virtual_router(&self, mac: MacAddr) -> bool {
        matches!(self.identify(mac), OwnerIdentity::VirtualRouter(_))
    }

    fn matches_virtual_router(&self, mac: MacAddr) -> bool {
        let patterns = &self.config.virtual_routers;
        patterns.iter().any(|pattern| pattern.matches(mac))
    }
}

/// Numbers the declared sets; sets that share a MAC get one number.
fn join(sets: &[Vec<MacAddr>]) -> HashMap<MacAddr, usize> {
    let mut joined: HashMap<MacAddr, usize> = HashMap::new();
    for (number, set) in sets.iter().enumerate() {
        let met: Vec<usize> = set
            .iter()
            .filter_map(|mac| joined.get(mac).copied())
            .collect();
        for known in joined.values_mut().filter(|known| met.contains(known)) {
            *known = number;
        }
        joined.extend(set.iter().map(|&mac| (mac, number)));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_macs_of_one_host_have_one_identity() {
        let rules = OwnerRules::new(DetectConfig {
            same_owner: vec![
                vec![mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02")],
                vec![mac("02:00:00:00:00:03"), mac("02:00:00:00:00:04")],
                vec![mac("02:00:00:00:00:02"), mac("02:00:00:00:00:03")],
            ],
            ..DetectConfig::default()
        });
        for (one, other, same) in [
            ("02:00:00:00:00:01", "02:00:00:00:00:04", true),
            ("02:00:00:00:00:01", "02:00:00:00:00:05", false),
            ("00:07:b4:00:0a:01", "00:07:b4:00:0a:04", true),
            ("00:07:b4:00:0a:01", "00:07:b4:00:0b:01", false),
            ("02:bf:c0:00:02:01", "03:bf:c0:00:02:01", true),
            ("02:bf:c0:00:02:01", "02:bf:c0:00:02:02", false),
            ("00:00:5e:00:01:01", "00:00:5e:00:01:02", false),
        ] {
            let [one_is, other_is] = [one, other].map(|text| rules.identify(mac(text)));
            assert_eq!(one_is == other_is, same, "{one} {other}");
            let names = [one_is, other_is].map(|owner| rules.canonical(owner));
            assert_eq!(names[0] == names[1], same, "{one} {other}");
        }
    }
}
