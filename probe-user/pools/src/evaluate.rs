//! What is wrong with pools: pure, from what was read to findings.

use std::collections::{BTreeMap, HashMap};

use super::{
    finding::{PoolFinding, PoolFindingLevel, PoolRange, ShareRange},
    interval::{Interval, RangeNotation, merged, subtract},
    model::{Pool, PoolInventory, PoolKind, WrittenRange},
    overlap::{OverlapEntry, OverlapPairs, overlaps},
    plan::{AddressPlan, ReservedRange},
    usage::FamilyCounts,
};

/// What is wrong.
#[derive(Debug)]
pub struct PoolsVerdict {
    /// In the order of their first places, errors and warnings mixed.
    pub findings: Vec<PoolFinding>,
    /// Overlaps beyond the number that was wanted, which are not among the findings.
    pub more: u64,
}

/// Everything that is wrong; of overlaps not more than `most`.
pub fn check_pools(inventory: &PoolInventory, plan: &AddressPlan, most: usize) -> PoolsVerdict {
    let mut judge = PoolsChecker {
        inventory,
        plan,
        findings: Vec::new(),
        more: 0,
    };
    judge.overlaps(most);
    judge.plan(most);
    for (index, pool) in inventory.pools.iter().enumerate() {
        judge.pool(index, pool);
    }
    judge.names();
    judge.advertisements();
    let PoolsChecker {
        mut findings, more, ..
    } = judge;
    // Stable, so that findings of one place stay in the order above.
    findings.sort_by_cached_key(|finding| finding.locations(inventory, plan).0);
    PoolsVerdict { findings, more }
}

impl PoolsVerdict {
    /// Whether one of the findings is this bad, or worse.
    pub fn has_level(&self, inventory: &PoolInventory, level: PoolFindingLevel) -> bool {
        let bad = |finding: &PoolFinding| finding.code(inventory).level() <= level;
        self.more > 0 || self.findings.iter().any(bad)
    }
}

struct PoolsChecker<'a> {
    inventory: &'a PoolInventory,
    plan: &'a AddressPlan,
    findings: Vec<PoolFinding>,
    more: u64,
}

impl PoolsChecker<'_> {
    /// Pools with pools, and with what the plan keeps, in each network.
    fn overlaps(&mut self, most: usize) {
        let (inventory, plan) = (self.inventory, self.plan);
        let network_of = |cluster: usize| plan.network(&inventory.clusters[cluster]);
        let networks: Vec<_> = (0..inventory.clusters.len()).map(network_of).collect();
        let mut ranges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (range, written) in pool_ranges(inventory) {
            let network = networks[inventory.pools[range.pool].cluster];
            ranges.entry(network).or_default().push((range, written));
        }
        let mut room = most;
        for (network, ranges) in ranges {
            // What is kept for nobody's cluster is kept everywhere.
            let reserved = plan.reserved.iter().enumerate().filter(|(_, reserved)| {
                let listed_with = reserved.cluster.as_deref();
                listed_with.is_none_or(|cluster| plan.network(cluster) == network)
            });
            let reserved: Vec<_> = reserved.collect();
            room -= self.overlaps_of(&ranges, &reserved, room);
        }
    }

    /// Overlaps of ranges that are in one network. Returns how many it told.
    fn overlaps_of(
        &mut self,
        ranges: &[(PoolRange, &WrittenRange)],
        reserved: &[(usize, &ReservedRange)],
        most: usize,
    ) -> usize {
        let pools = ranges.iter().map(|(_, range)| (range.interval, false));
        let others = reserved
            .iter()
            .map(|(_, reserved)| (reserved.range.interval, true));
        let entries: Vec<_> = pools.chain(others).map(entry).collect();
        let found = overlaps(&entries, most);
        self.count_more(&found);
        for &(one, other) in &found.pairs {
            // What is kept comes behind all pools, and the smaller number is the first of a pair.
            let second = ranges.get(other).map(|&(range, _)| range);
            let Some(common) = entries[one].interval.common(&entries[other].interval) else {
                continue;
            };
            let (one, _) = ranges[one];
            self.findings.push(match second {
                Some(second) => {
                    let (one, other) = self.in_order(one, second);
                    PoolFinding::Overlap { one, other, common }
                }
                None => PoolFinding::ReservedOverlap {
                    range: one,
                    reserved: reserved[other - ranges.len()].0,
                    common,
                },
            });
        }
        found.pairs.len()
    }

    /// The one that is read first, first.
    fn in_order(&self, one: PoolRange, other: PoolRange) -> (PoolRange, PoolRange) {
        let place = |range| self.inventory.range(range).place;
        if place(one) <= place(other) {
            (one, other)
        } else {
            (other, one)
        }
    }

    /// Whether the plan holds together, and the pools keep to it.
    fn plan(&mut self, most: usize) {
        let (inventory, plan) = (self.inventory, self.plan);
        let all = (0..plan.faults.len()).map(|fault| PoolFinding::InvalidPlanRange { fault });
        self.findings.extend(all);
        self.shares(most);
        let mut merged_shares: HashMap<usize, Vec<Interval>> = HashMap::new();
        let mut unknown = vec![false; inventory.clusters.len()];
        for (index, pool) in inventory.pools.iter().enumerate() {
            let name = &inventory.clusters[pool.cluster];
            let found = plan.shares.iter().position(|share| share.cluster == *name);
            let Some(share) = found else {
                let told = std::mem::replace(&mut unknown[pool.cluster], true);
                if !plan.shares.is_empty() && !told {
                    self.findings.push(PoolFinding::NotInPlan { pool: index });
                }
                continue;
            };
            let allowed = merged_shares
                .entry(share)
                .or_insert_with(|| merged(intervals(&plan.shares[share].ranges)));
            for (number, range) in pool.ranges.iter().enumerate() {
                let outside = subtract(range.interval, allowed);
                let addresses = outside.iter().map(Interval::count);
                if let Some(&first) = outside.first() {
                    self.findings.push(PoolFinding::OutsidePlan {
                        range: PoolRange {
                            pool: index,
                            range: number,
                        },
                        share,
                        first,
                        addresses: addresses.fold(0, u128::saturating_add),
                    });
                }
            }
        }
    }

    /// What the plan gives to more than one cluster of a network.
    fn shares(&mut self, most: usize) {
        let mut networks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (share, listed) in self.plan.shares.iter().enumerate() {
            let pieces = networks.entry(&listed.network).or_default();
            let ranges = listed.ranges.iter().enumerate();
            pieces.extend(ranges.map(|(range, written)| {
                let of = ShareRange { share, range };
                (of, written.interval)
            }));
        }
        let mut room = most;
        for pieces in networks.into_values() {
            let entries: Vec<_> = pieces
                .iter()
                .map(|&(_, piece)| entry((piece, false)))
                .collect();
            let found = overlaps(&entries, room);
            self.count_more(&found);
            room -= found.pairs.len();
            for (one, other) in found.pairs {
                let ((one, first), (other, second)) = (pieces[one], pieces[other]);
                // A cluster may list the same addresses twice; only others mind.
                let others = one.share != other.share;
                if let Some(common) = first.common(&second).filter(|_| others) {
                    self.findings
                        .push(PoolFinding::PlanOverlap { one, other, common });
                }
            }
        }
    }

    /// One pool by itself.
    fn pool(&mut self, index: usize, pool: &Pool) {
        if pool.faults.is_empty() && FamilyCounts::of_pool(pool).all() == 0 {
            self.findings.push(PoolFinding::EmptyPool { pool: index });
        }
        let faults = 0..pool.faults.len();
        let faults = faults.map(|fault| PoolFinding::InvalidRange { pool: index, fault });
        self.findings.extend(faults);
        for (number, range) in pool.ranges.iter().enumerate() {
            let place = PoolRange {
                pool: index,
                range: number,
            };
            match range.form {
                RangeNotation::Cidr | RangeNotation::Range => {}
                RangeNotation::CidrWithHost => {
                    self.findings.push(PoolFinding::HostBits { range: place });
                }
                RangeNotation::Address => self
                    .findings
                    .push(PoolFinding::MissingPrefix { range: place }),
            }
        }
        self.buggy_addresses(index, pool);
    }

    /// MetalLB's `avoidBuggyIPs` is about IPv4 addresses ending in .0 and .255, which old equipment takes for
    /// broadcasts and drops. Addresses that a service has to ask for, and single ones that somebody wrote
    /// down, are meant.
    fn buggy_addresses(&mut self, index: usize, pool: &Pool) {
        if !pool.kind.is_metallb() || pool.avoid_buggy_ips || !pool.auto_assign {
            return;
        }
        let mut first = None;
        let mut addresses = 0;
        for (range, written) in pool.ranges.iter().enumerate() {
            if written.interval.count() == 1 {
                continue;
            }
            if let Some((number, address)) = written.interval.buggy_addresses() {
                addresses += number;
                let place = PoolRange { pool: index, range };
                first = first.or_else(|| Some((place, Interval::new(address, address).ok()?)));
            }
        }
        if let Some((range, first)) = first {
            self.findings.push(PoolFinding::AvoidedAddress {
                range,
                first,
                addresses,
            });
        }
    }

    fn names(&mut self) {
        let mut known: HashMap<_, usize> = HashMap::new();
        for (again, pool) in self.inventory.pools.iter().enumerate() {
            // One resource may come in two versions; nothing else shares its names.
            let key = (pool.cluster, pool.kind, &pool.namespace, &pool.name);
            match known.get(&key) {
                Some(&first) => self
                    .findings
                    .push(PoolFinding::DuplicatePool { first, again }),
                None => drop(known.insert(key, again)),
            }
        }
    }

    fn advertisements(&mut self) {
        let inventory = self.inventory;
        let mut by_name: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, pool) in inventory.pools.iter().enumerate() {
            let key = (pool.cluster, pool.name.as_str());
            by_name.entry(key).or_default().push(index);
        }
        let mut advertised = vec![false; inventory.pools.len()];
        for (index, advertisement) in inventory.advertisements.iter().enumerate() {
            let sees = |&pool: &usize| advertisement.is_in_scope(&inventory.pools[pool]);
            for (number, (name, _)) in advertisement.pools.iter().enumerate() {
                let named = by_name.get(&(advertisement.cluster, name.as_str()));
                let mut seen = named.into_iter().flatten().copied().filter(sees).peekable();
                if seen.peek().is_none() {
                    self.findings.push(PoolFinding::UnknownPool {
                        advertisement: index,
                        name: number,
                    });
                }
                seen.for_each(|pool| advertised[pool] = true);
            }
            for (number, selector) in advertisement.selectors.iter().enumerate() {
                let all = (0..inventory.pools.len()).filter(sees);
                let mut selected = all
                    .filter(|&pool| selector.matches(&inventory.pools[pool].labels))
                    .peekable();
                if selected.peek().is_none() {
                    self.findings.push(PoolFinding::IdleSelector {
                        advertisement: index,
                        selector: number,
                    });
                }
                selected.for_each(|pool| advertised[pool] = true);
            }
            if advertisement.is_for_all() {
                let all = (0..inventory.pools.len()).filter(sees);
                all.for_each(|pool| advertised[pool] = true);
            }
        }
        for (index, pool) in inventory.pools.iter().enumerate() {
            // The other kinds are announced without, or by resources that are not looked at.
            if pool.kind == PoolKind::IpAddressPool && !advertised[index] {
                self.findings
                    .push(PoolFinding::Unadvertised { pool: index });
            }
        }
    }

    fn count_more(&mut self, found: &OverlapPairs) {
        self.more += found.all - found.pairs.len() as u64;
    }
}

fn entry((interval, reserved): (Interval, bool)) -> OverlapEntry {
    OverlapEntry { interval, reserved }
}

fn intervals(ranges: &[WrittenRange]) -> Vec<Interval> {
    ranges.iter().map(|range| range.interval).collect()
}

fn pool_ranges(inventory: &PoolInventory) -> impl Iterator<Item = (PoolRange, &WrittenRange)> {
    let pools = inventory.pools.iter().enumerate();
    pools.flat_map(|(pool, found)| {
        let ranges = found.ranges.iter().enumerate();
        ranges.map(move |(range, written)| (PoolRange { pool, range }, written))
    })
}

#[cfg(test)]
mod tests;
