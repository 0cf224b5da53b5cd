//! The usage of each pool, computed on ranges instead of single addresses.

use std::collections::HashMap;

use probe_common::label_enum;
use probe_model::NamespacedName;
use probe_pools::{Pool, PoolKind, interval::IpFamily, usage::FamilyCounts};
use serde::{Deserialize, Serialize};

use super::snapshot::ClusterSnapshot;

label_enum! {
    /// An address family: a pool with free IPv6 addresses may have no free IPv4 address.
    pub enum AddressFamily {
        /// 32 bits.
        V4 = "ipv4",
        /// 128 bits.
        V6 = "ipv6",
    }
}

/// The usage of one pool in one address family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// The pool.
    pub pool: NamespacedName,
    /// The address family.
    pub family: AddressFamily,
    /// The number of assignable addresses.
    pub total: u128,
    /// The number of addresses that services have.
    pub assigned: u128,
}

impl PoolUsage {
    /// The number of free addresses.
    pub const fn free(&self) -> u128 {
        self.total.saturating_sub(self.assigned)
    }
}

/// The namespace and name of a pool.
pub fn name_of(pool: &Pool) -> NamespacedName {
    NamespacedName {
        namespace: pool.namespace.clone().unwrap_or_default(),
        name: pool.name.clone(),
    }
}

/// Computes the usage of each pool, by address family. An address shared by services counts once; an address in several
/// pools counts for its own pool.
pub fn usage(cluster: &ClusterSnapshot) -> Vec<PoolUsage> {
    let mut assigned: HashMap<(NamespacedName, AddressFamily), u128> = HashMap::new();
    for ip in cluster.addresses() {
        let family = match ip {
            std::net::IpAddr::V4(_) => AddressFamily::V4,
            std::net::IpAddr::V6(_) => AddressFamily::V6,
        };
        if let Some(pool) = cluster.pool_of(ip) {
            *assigned.entry((name_of(pool), family)).or_default() += 1;
        }
    }
    let pools = cluster.inventory().pools.iter();
    let pools = pools.filter(|pool| pool.kind == PoolKind::IpAddressPool);
    pools
        .flat_map(|pool| {
            let families = [
                (IpFamily::V4, AddressFamily::V4),
                (IpFamily::V6, AddressFamily::V6),
            ];
            families.map(|(of, family)| (pool, of, family))
        })
        .filter_map(|(pool, of, family)| {
            let mut ranges = pool.ranges.iter();
            ranges.find(|range| range.interval.family() == of)?;
            // The same count as `probe pools check` and `probe pools free`.
            let total = FamilyCounts::of_pool(pool).of_family(of);
            let pool = name_of(pool);
            let key = (pool, family);
            let assigned = assigned.get(&key).copied().unwrap_or(0);
            Some(PoolUsage {
                pool: key.0,
                family,
                total,
                assigned,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ClusterObjects, testing};

    #[test]
    fn assigned_address_counts_once_and_excluded_addresses_do_not_count() {
        let cluster = ClusterSnapshot::from(ClusterObjects {
            services: vec![
                testing::service("shop/a", &["192.0.2.1", "2001:db8::1"]),
                testing::service("shop/b", &["192.0.2.1"]),
                testing::service("shop/c", &["192.0.2.2", "203.0.113.1"]),
            ],
            metallb: vec![
                testing::pool(
                    "one",
                    json!({
                        "addresses": ["192.0.2.0/25", "192.0.2.64/26", "2001:db8::/64"],
                    }),
                ),
                testing::pool(
                    "two",
                    json!({
                        "addresses": ["198.51.100.0/24"], "avoidBuggyIPs": true,
                    }),
                ),
            ],
            ..testing::objects()
        });
        let rows: Vec<_> = usage(&cluster)
            .into_iter()
            .map(|usage| {
                (
                    usage.pool.name.clone(),
                    usage.family,
                    usage.total,
                    usage.assigned,
                    usage.free(),
                )
            })
            .collect();
        let row = |name: &str, family, total, assigned| {
            (name.to_owned(), family, total, assigned, total - assigned)
        };
        assert_eq!(
            rows,
            [
                row("one", AddressFamily::V4, 128, 2),
                row("one", AddressFamily::V6, 1 << 64, 1),
                row("two", AddressFamily::V4, 254, 0),
            ]
        );
    }
}
