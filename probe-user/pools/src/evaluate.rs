//! Evaluates an inventory and a plan, and returns findings. Pure.

use std::collections::{BTreeMap, HashMap};

use super::{
    finding::{PoolFinding, PoolFindingLevel, PoolRange, ShareRange},
    interval::{Interval, RangeNotation, merged, subtract},
    model::{Pool, PoolInventory, PoolKind, WrittenRange},
    overlap::{OverlapEntry, OverlapPairs, overlaps},
    plan::{AddressPlan, ReservedRange},
    usage::FamilyCounts,
};

/// The result of checking pools.
#[derive(Debug)]
pub struct PoolsEvaluation {
    /// The findings, sorted by their first location, errors and warnings mixed.
    pub findings: Vec<PoolFinding>,
    /// The number of overlaps beyond the limit, which are not among the findings.
    pub more: u64,
}

/// Checks pools and plan. Lists at most `limit` overlaps.
pub fn check_pools(inventory: &PoolInventory, plan: &AddressPlan, limit: usize) -> PoolsEvaluation {
    let mut judge = PoolsChecker {
        inventory,
        plan,
        findings: Vec::new(),
        more: 0,
    };
    judge.overlaps(limit);
    judge.plan(limit);
    for (index, pool) in inventory.pools.iter().enumerate() {
        judge.pool(index, pool);
    }
    judge.names();
    judge.advertisements();
    let PoolsChecker {
        mut findings, more, ..
    } = judge;
    // The sort is stable, so that findings at one location keep the order above.
    findings.sort_by_cached_key(|finding| finding.locations(inventory, plan).0);
    PoolsEvaluation { findings, more }
}

impl PoolsEvaluation {
    /// Whether any finding has this level or a more severe one.
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
    /// Finds overlaps between pools, and between pools and reserved ranges of the plan, in each network.
    fn overlaps(&mut self, limit: usize) {
        let (inventory, plan) = (self.inventory, self.plan);
        let network_of = |cluster: usize| plan.network(&inventory.clusters[cluster]);
        let networks: Vec<_> = (0..inventory.clusters.len()).map(network_of).collect();
        let mut ranges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (range, written) in pool_ranges(inventory) {
            let network = networks[inventory.pools[range.pool].cluster];
            ranges.entry(network).or_default().push((range, written));
        }
        let mut room = limit;
        for (network, ranges) in ranges {
            // A reserved range without a cluster is reserved in all networks.
            let reserved = plan.reserved.iter().enumerate().filter(|(_, reserved)| {
                let listed_with = reserved.cluster.as_deref();
                listed_with.is_none_or(|cluster| plan.network(cluster) == network)
            });
            let reserved: Vec<_> = reserved.collect();
            room -= self.overlaps_of(&ranges, &reserved, room);
        }
    }

    /// Finds overlaps of ranges in one network. Returns the number of listed overlaps.
    fn overlaps_of(
        &mut self,
        ranges: &[(PoolRange, &WrittenRange)],
        reserved: &[(usize, &ReservedRange)],
        limit: usize,
    ) -> usize {
        let pools = ranges.iter().map(|(_, range)| (range.interval, false));
        let others = reserved
            .iter()
            .map(|(_, reserved)| (reserved.range.interval, true));
        let entries: Vec<_> = pools.chain(others).map(entry).collect();
        let found = overlaps(&entries, limit);
        self.count_more(&found);
        for &(one, other) in &found.pairs {
            // Reserved ranges come after all pools; the smaller index is the first of a pair.
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

    /// Sorts two ranges by the order of reading.
    fn in_order(&self, one: PoolRange, other: PoolRange) -> (PoolRange, PoolRange) {
        let location = |range| self.inventory.range(range).location;
        if location(one) <= location(other) {
            (one, other)
        } else {
            (other, one)
        }
    }

    /// Checks the plan for overlaps, and the pools against the plan.
    fn plan(&mut self, limit: usize) {
        let (inventory, plan) = (self.inventory, self.plan);
        let all =
            (0..plan.invalid_ranges.len()).map(|range| PoolFinding::InvalidPlanRange { range });
        self.findings.extend(all);
        self.shares(limit);
        let mut merged_shares: HashMap<usize, Vec<Interval>> = HashMap::new();
        let mut unknown = vec![false; inventory.clusters.len()];
        for (index, pool) in inventory.pools.iter().enumerate() {
            let name = &inventory.clusters[pool.cluster];
            let found = plan.shares.iter().position(|share| share.cluster == *name);
            let Some(share) = found else {
                let messages = std::mem::replace(&mut unknown[pool.cluster], true);
                if !plan.shares.is_empty() && !messages {
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

    /// Finds ranges that the plan gives to more than one cluster of a network.
    fn shares(&mut self, limit: usize) {
        let mut networks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (share, listed) in self.plan.shares.iter().enumerate() {
            let pieces = networks.entry(&listed.network).or_default();
            let ranges = listed.ranges.iter().enumerate();
            pieces.extend(ranges.map(|(range, written)| {
                let of = ShareRange { share, range };
                (of, written.interval)
            }));
        }
        let mut room = limit;
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
                // A cluster may list the same addresses twice; only overlaps with other clusters count.
                let others = one.share != other.share;
                if let Some(common) = first.common(&second).filter(|_| others) {
                    self.findings
                        .push(PoolFinding::PlanOverlap { one, other, common });
                }
            }
        }
    }

    /// Checks one pool on its own.
    fn pool(&mut self, index: usize, pool: &Pool) {
        if pool.invalid_ranges.is_empty() && FamilyCounts::of_pool(pool).all() == 0 {
            self.findings.push(PoolFinding::EmptyPool { pool: index });
        }
        let invalid_ranges = 0..pool.invalid_ranges.len();
        let invalid_ranges =
            invalid_ranges.map(|range| PoolFinding::InvalidRange { pool: index, range });
        self.findings.extend(invalid_ranges);
        for (number, range) in pool.ranges.iter().enumerate() {
            let location = PoolRange {
                pool: index,
                range: number,
            };
            match range.notation {
                RangeNotation::Cidr | RangeNotation::Range => {}
                RangeNotation::CidrWithHost => {
                    self.findings
                        .push(PoolFinding::HostBits { range: location });
                }
                RangeNotation::Address => self
                    .findings
                    .push(PoolFinding::MissingPrefix { range: location }),
            }
        }
        self.buggy_addresses(index, pool);
    }

    /// Finds IPv4 addresses ending in .0 and .255, which old equipment drops as broadcasts (MetalLB's `avoidBuggyIPs`).
    /// Addresses that are assigned on request only, and explicitly listed single addresses, are intended.
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
                let location = PoolRange { pool: index, range };
                first = first.or_else(|| Some((location, Interval::new(address, address).ok()?)));
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
        for (duplicate, pool) in self.inventory.pools.iter().enumerate() {
            // A resource may exist in two versions; other kinds have separate names.
            let key = (pool.cluster, pool.kind, &pool.namespace, &pool.name);
            match known.get(&key) {
                Some(&first) => self
                    .findings
                    .push(PoolFinding::DuplicatePool { first, duplicate }),
                None => drop(known.insert(key, duplicate)),
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
                let mut visited = named.into_iter().flatten().copied().filter(sees).peekable();
                if visited.peek().is_none() {
                    self.findings.push(PoolFinding::UnknownPool {
                        advertisement: index,
                        name: number,
                    });
                }
                visited.for_each(|pool| advertised[pool] = true);
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
            // Other kinds are announced without advertisements, or by resources that are not read.
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
