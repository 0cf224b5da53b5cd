//! The metrics of the cluster as a whole: the usage of pools, and drifts. Only the leader exports them, so that each
//! series is unique.

use std::collections::BTreeMap;

use probe_cluster::{
    drift,
    drift::{Drift, DriftKind},
    usage::{PoolUsage, usage},
};
use probe_common::label_enum;
use probe_model::NamespacedName;

use super::{family::MetricFamily, list};
use crate::daemon::drift_reconciler::ClusterStatus;

label_enum! {
    /// The kinds of series with a limit.
    pub enum ClusterSeries {
        /// Series of pools.
        Pools = "pools",
        /// Series of drifts.
        Drifts = "drifts",
    }
}

/// All series, at most `most` of pools and of drifts. No samples if another node is the leader.
pub fn families(now: Option<&ClusterStatus>, most: usize) -> String {
    let mut beyond = MetricFamily::new(list::CLUSTER_NOT_EXPORTED);
    let usage = now.map(|now| usage(&now.cluster)).unwrap_or_default();
    let none = Vec::new();
    let drifts = now.map_or(&none, |now| &*now.drifts);
    if now.is_some() {
        for (series, all) in [
            (ClusterSeries::Pools, usage.len()),
            (ClusterSeries::Drifts, drifts.len()),
        ] {
            beyond.add([series.label()], all.saturating_sub(most));
        }
    }
    let mut counts = MetricFamily::new(list::DRIFTS);
    if now.is_some() {
        let counted = drift::counts(drifts);
        for &kind in DriftKind::ALL {
            counts.add([kind.label()], counted.get(&kind).copied().unwrap_or(0));
        }
    }
    let [total, assigned] = pools(&usage, most);
    [
        total,
        assigned,
        counts.finish(),
        single(drifts, most),
        beyond.finish(),
    ]
    .concat()
}

fn pools(usage: &[PoolUsage], most: usize) -> [String; 2] {
    let mut total = MetricFamily::new(list::POOL_ADDRESSES);
    let mut assigned = MetricFamily::new(list::POOL_ASSIGNED);
    // A resource may exist in two versions, and duplicate series invalidate a scrape.
    let usage: BTreeMap<_, _> = usage
        .iter()
        .map(|usage| ((&usage.pool, usage.family), usage))
        .collect();
    for usage in usage.values().take(most) {
        let NamespacedName { namespace, name } = &usage.pool;
        let labels = [namespace, name, usage.family.label()];
        total.add(labels, usage.total);
        assigned.add(labels, usage.assigned);
    }
    [total.finish(), assigned.finish()]
}

fn single(drifts: &[Drift], most: usize) -> String {
    let mut family = MetricFamily::new(list::DRIFT);
    for drift in drifts.iter().take(most) {
        let name =
            |named: &Option<NamespacedName>| named.clone().map(|one| (one.namespace, one.name));
        let (service_namespace, service) = name(&drift.service).unwrap_or_default();
        let (pool_namespace, pool) = name(&drift.pool).unwrap_or_default();
        let ip = drift.ip.map(|ip| ip.to_string()).unwrap_or_default();
        family.add(
            [
                drift.drift.label(),
                drift.reason.map_or("", drift::PendingReason::label),
                &service_namespace,
                &service,
                &pool_namespace,
                &pool,
                drift.object.as_deref().unwrap_or_default(),
                &ip,
            ],
            1,
        );
    }
    family.finish()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use probe_cluster::{
        ClusterObjects, ClusterSnapshot,
        drift::{DriftTracker, ObservedNetwork, find},
        testing,
        testing::at,
    };
    use serde_json::json;

    use super::*;

    fn samples(now: Option<&ClusterStatus>, most: usize) -> Vec<String> {
        let text = families(now, most);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect()
    }

    fn snapshot() -> ClusterStatus {
        let cluster = ClusterSnapshot::from(ClusterObjects {
            services: vec![
                testing::service("shop/frontend", &["192.0.2.240"]),
                testing::service("shop/old", &["203.0.113.7"]),
            ],
            metallb: vec![testing::pool(
                "production",
                json!({"addresses": ["192.0.2.240/28"]}),
            )],
            ..testing::objects()
        });
        let wire = ObservedNetwork {
            now: at("12:00:00"),
            bindings: &[],
            nodes: None,
            node_coverage: None,
            endpoints: &HashMap::new(),
        };
        let found = find(&cluster, wire);
        let drifts =
            DriftTracker::new(std::time::Duration::ZERO).observe(wire.now, &cluster, found);
        ClusterStatus {
            cluster: Arc::new(cluster),
            drifts: Arc::new(drifts),
        }
    }

    #[test]
    fn standby_nodes_export_no_sample() {
        assert_eq!(samples(None, 10), [""; 0]);
    }

    #[test]
    fn usage_and_drift_are_exported_and_absent_values_are_zero() {
        let samples = samples(Some(&snapshot()), 10);
        for expected in [
            r#"arp_monitor_pool_addresses{pool_namespace="metallb-system",pool="production",family="ipv4"} 16"#,
            r#"arp_monitor_pool_assigned_addresses{pool_namespace="metallb-system",pool="production",family="ipv4"} 1"#,
            r#"arp_monitor_drifts{drift="unadvertised_pool"} 1"#,
            r#"arp_monitor_drifts{drift="pool_overlap"} 0"#,
            r#"arp_monitor_drift{drift="address_outside_pools",service_namespace="shop",service_name="old",ip="203.0.113.7"} 1"#,
            r#"arp_monitor_drift{drift="not_announced",reason="no_advertisement",service_namespace="shop",service_name="frontend",pool_namespace="metallb-system",pool="production",ip="192.0.2.240"} 1"#,
            r#"arp_monitor_cluster_series_not_exported{series="drifts"} 0"#,
        ] {
            assert!(
                samples.iter().any(|sample| sample == expected),
                "{expected}\n{samples:#?}"
            );
        }
        let kinds = samples.iter().filter(|sample| sample.contains("_drifts{"));
        assert_eq!(kinds.count(), DriftKind::COUNT);
    }

    #[test]
    fn critical_series_take_precedence_and_the_overflow_is_counted() {
        let samples = samples(Some(&snapshot()), 1);
        let drifts: Vec<_> = samples
            .iter()
            .filter(|one| one.contains("_drift{"))
            .collect();
        assert_eq!(drifts.len(), 1);
        assert!(drifts[0].contains("not_announced"), "{drifts:?}");
        let beyond = r#"arp_monitor_cluster_series_not_exported{series="drifts"} 2"#;
        assert!(
            samples.iter().any(|sample| sample == beyond),
            "{samples:#?}"
        );
    }
}
