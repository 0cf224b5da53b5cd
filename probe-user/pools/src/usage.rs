//! Counts the addresses of pools and the used share of the plan.

use std::iter;

use super::{
    interval::{Interval, IpFamily, merged},
    model::{Pool, PoolInventory},
    offer::{self, AddressSpan},
    plan::AddressPlan,
};

/// Numbers of addresses by family; the number for all of IPv6 is one too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    /// IPv4 addresses.
    pub v4: u128,
    /// IPv6 addresses.
    pub v6: u128,
}

/// The address usage of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterUsage {
    /// The cluster.
    pub cluster: usize,
    /// The number of its pools.
    pub pools: usize,
    /// The number of assignable addresses, each counted once.
    pub amount: FamilyCounts,
    /// The number of addresses that the plan gives it; `None` without a share.
    pub planned: Option<FamilyCounts>,
    /// The number of planned addresses that are in its pools.
    pub planned_used: FamilyCounts,
}

impl FamilyCounts {
    /// Counts the addresses of intervals, each once.
    pub fn of(intervals: Vec<Interval>) -> Self {
        Self::sum(merged(intervals).into_iter().map(AddressSpan::all_of))
    }

    /// Counts the assignable addresses of a pool, each once.
    pub fn of_pool(pool: &Pool) -> Self {
        Self::sum(offer::of_pools(iter::once(pool)))
    }

    /// Counts the addresses of disjoint spans.
    pub fn sum(spans: impl IntoIterator<Item = AddressSpan>) -> Self {
        let mut amount = Self::default();
        for span in spans {
            let sum = amount.of_family_mut(span.interval().family());
            *sum = sum.saturating_add(span.count());
        }
        amount
    }

    /// The number of addresses of one family.
    pub fn of_family(mut self, family: IpFamily) -> u128 {
        *self.of_family_mut(family)
    }

    /// The number of addresses of both families.
    pub const fn all(self) -> u128 {
        self.v4.saturating_add(self.v6)
    }

    const fn of_family_mut(&mut self, family: IpFamily) -> &mut u128 {
        match family {
            IpFamily::V4 => &mut self.v4,
            IpFamily::V6 => &mut self.v6,
        }
    }
}

/// Computes the address usage of each cluster.
pub fn of_clusters(inventory: &PoolInventory, plan: &AddressPlan) -> Vec<ClusterUsage> {
    let mut pools = vec![Vec::new(); inventory.clusters.len()];
    for pool in &inventory.pools {
        pools[pool.cluster].push(pool);
    }
    let clusters = pools.into_iter().enumerate();
    clusters
        .map(|(cluster, pools)| {
            let number = pools.len();
            let offered = offer::of_pools(pools);
            let share = plan.share(&inventory.clusters[cluster]);
            let planned: Option<Vec<_>> =
                share.map(|share| share.ranges.iter().map(|range| range.interval).collect());
            let planned = planned.map(merged);
            let within = planned.as_deref().unwrap_or_default();
            let planned_used = offered.iter().flat_map(|span| span.intersections(within));
            ClusterUsage {
                cluster,
                pools: number,
                planned_used: FamilyCounts::sum(planned_used),
                planned: planned.map(FamilyCounts::of),
                amount: FamilyCounts::sum(offered),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn amount(v4: u128, v6: u128) -> FamilyCounts {
        FamilyCounts { v4, v6 }
    }

    #[test]
    fn address_counts_once_and_the_plan_is_compared_with_the_usage() {
        let mut inventory = PoolInventory::default();
        let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\n\
                    spec: {addresses: [192.0.2.0/25, 192.0.2.64/26, '2001:db8::/64']}\n";
        manifest::read(&mut inventory, "east", "a.yaml", pool);
        let plan = "clusters: {east: {ranges: [192.0.2.0/24]}}";
        let plan = AddressPlan::read(&mut inventory, "plan.yaml", plan);
        assert_eq!(
            FamilyCounts::of_pool(&inventory.pools[0]),
            amount(128, 1 << 64)
        );
        let east = &of_clusters(&inventory, &plan)[0];
        assert_eq!(east.planned, Some(amount(256, 0)));
        assert_eq!(east.planned_used, amount(128, 0));
    }

    #[test]
    fn reserved_addresses_of_a_pool_do_not_count() {
        let mut inventory = PoolInventory::default();
        for (name, spec) in [
            ("a", "{addresses: [192.0.2.0/24], avoidBuggyIPs: true}"),
            ("b", "{addresses: [192.0.2.255-192.0.3.0]}"),
            (
                "c",
                "{addresses: [198.51.100.0/32, 198.51.100.255/32], avoidBuggyIPs: true}",
            ),
        ] {
            let pool = format!(
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
                 spec: {spec}\n"
            );
            manifest::read(&mut inventory, "east", "a.yaml", &pool);
        }
        let pools: Vec<_> = inventory.pools.iter().map(FamilyCounts::of_pool).collect();
        assert_eq!(pools, [amount(254, 0), amount(2, 0), amount(0, 0)]);
        let plan = "clusters: {east: {ranges: [192.0.2.0/25, 192.0.2.255/32]}}";
        let plan = AddressPlan::read(&mut inventory, "plan.yaml", plan);
        let east = &of_clusters(&inventory, &plan)[0];
        assert_eq!((east.amount, east.pools), (amount(256, 0), 3));
        assert_eq!(east.planned, Some(amount(129, 0)));
        assert_eq!(east.planned_used, amount(128, 0));
    }
}
