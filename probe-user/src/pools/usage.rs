//! How many addresses pools have, and how much of the plan that is.

use super::{
    interval::{Family, Interval, merged, outside},
    model::Inventory,
    plan::Plan,
};

/// Numbers of addresses; all of IPv6 is one less than it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// IPv4 addresses.
    pub v4: u128,
    /// IPv6 addresses.
    pub v6: u128,
}

/// What a pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool.
    pub pool: usize,
    /// Its addresses, each counted once.
    pub amount: Amount,
}

/// What a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterUsage {
    /// The cluster.
    pub cluster: usize,
    /// How many pools.
    pub pools: usize,
    /// Their addresses, each counted once.
    pub amount: Amount,
    /// What the plan gives it, if it says so.
    pub planned: Option<Amount>,
    /// How much of that is in its pools.
    pub of_plan: Amount,
}

impl Amount {
    /// Of intervals, each address counted once.
    pub fn of(intervals: Vec<Interval>) -> Self {
        let mut amount = Self::default();
        for interval in merged(intervals) {
            let sum = match interval.family() {
                Family::V4 => &mut amount.v4,
                Family::V6 => &mut amount.v6,
            };
            *sum = sum.saturating_add(interval.count());
        }
        amount
    }

    fn without(self, other: Self) -> Self {
        Self {
            v4: self.v4.saturating_sub(other.v4),
            v6: self.v6.saturating_sub(other.v6),
        }
    }
}

/// What each pool has.
pub fn of_pools(inventory: &Inventory) -> Vec<PoolUsage> {
    let pools = inventory.pools.iter().enumerate();
    pools
        .map(|(pool, found)| PoolUsage {
            pool,
            amount: Amount::of(found.ranges.iter().map(|range| range.interval).collect()),
        })
        .collect()
}

/// What each cluster has.
pub fn of_clusters(inventory: &Inventory, plan: &Plan) -> Vec<ClusterUsage> {
    let mut used = vec![Vec::new(); inventory.clusters.len()];
    let mut pools = vec![0; inventory.clusters.len()];
    for pool in &inventory.pools {
        pools[pool.cluster] += 1;
        used[pool.cluster].extend(pool.ranges.iter().map(|range| range.interval));
    }
    let clusters = used.into_iter().zip(pools).enumerate();
    clusters
        .map(|(cluster, (used, pools))| {
            let used = merged(used);
            let share = plan.share(&inventory.clusters[cluster]);
            let planned: Option<Vec<_>> =
                share.map(|share| share.ranges.iter().map(|range| range.interval).collect());
            let planned = planned.map(merged);
            let free = planned.iter().flatten();
            let free = Amount::of(free.flat_map(|&range| outside(range, &used)).collect());
            let planned = planned.map(Amount::of);
            ClusterUsage {
                cluster,
                pools,
                amount: Amount::of(used),
                planned,
                of_plan: planned.unwrap_or_default().without(free),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::manifest;

    fn amount(v4: u128, v6: u128) -> Amount {
        Amount { v4, v6 }
    }

    #[test]
    fn an_address_counts_once_and_the_plan_is_compared_with_what_is_used() {
        let mut inventory = Inventory::default();
        let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\n\
                    spec: {addresses: [192.0.2.0/25, 192.0.2.64/26, '2001:db8::/64']}\n";
        manifest::read(&mut inventory, "east", "a.yaml", pool);
        let plan = "clusters: {east: {ranges: [192.0.2.0/24]}}";
        let plan = Plan::read(&mut inventory, "plan.yaml", plan);
        assert_eq!(of_pools(&inventory)[0].amount, amount(128, 1 << 64));
        let east = &of_clusters(&inventory, &plan)[0];
        assert_eq!(east.planned, Some(amount(256, 0)));
        assert_eq!(east.of_plan, amount(128, 0));
    }
}
