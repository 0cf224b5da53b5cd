//! Derives the targets of a check from a cluster: addresses of services, which should have an owner, and free addresses of
//! its pools, which should have none.

use std::net::{IpAddr, Ipv4Addr};

use probe_cluster::ClusterSnapshot;
use probe_model::AnnouncementMode;
use probe_pools::interval::{Interval, merged, subtract};

use super::Target;

/// The addresses of a cluster that can be probed, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterTargets {
    /// The addresses of services that are announced by ARP, or whose announcement is unknown.
    pub assigned: Vec<Target>,
    /// The addresses of pools announced by ARP that no service has.
    pub free: Vec<Target>,
    /// The number of service addresses that are announced by BGP only, for which no host replies.
    pub bgp: usize,
    /// The number of IPv6 addresses of services, which have no ARP.
    pub ipv6: usize,
}

impl ClusterTargets {
    /// The targets of a cluster, restricted to `only` unless it is empty.
    pub fn for_cluster(cluster: &ClusterSnapshot, only: &[Target]) -> Self {
        let mut targets = Self::default();
        let only: Vec<_> = only.iter().filter_map(|target| interval(*target)).collect();
        let only = merged(only);
        let is_included = |ip: Ipv4Addr| {
            let ip = interval(Target::Address(ip));
            ip.is_some_and(|ip| only.is_empty() || only.iter().any(|part| part.contains(&ip)))
        };
        let mut assigned = Vec::new();
        for ip in cluster.addresses() {
            let IpAddr::V4(v4) = ip else {
                targets.ipv6 += 1;
                continue;
            };
            assigned.push(v4);
            if !is_included(v4) {
                continue;
            }
            match cluster.announced(ip) {
                AnnouncementMode::Bgp => targets.bgp += 1,
                AnnouncementMode::Layer2
                | AnnouncementMode::NotAnnounced
                | AnnouncementMode::Unknown => {
                    targets.assigned.push(Target::Address(v4));
                }
            }
        }
        targets
            .assigned
            .sort_unstable_by_key(|target| target.bounds());
        let assigned = assigned.into_iter().map(Target::Address);
        let assigned = merged(assigned.filter_map(interval).collect());
        let pools = cluster.inventory().pools.iter();
        let ranges = pools
            .filter(|pool| cluster.announcement_of(pool) == AnnouncementMode::Layer2)
            .flat_map(|pool| pool.ranges.iter().map(|range| range.interval))
            .filter(|range| range.first().is_ipv4());
        let free = merged(ranges.collect())
            .into_iter()
            .flat_map(|range| subtract(range, &assigned));
        for range in free {
            if only.is_empty() {
                targets.free.extend(target(range));
            } else {
                let parts = only.iter().filter_map(|part| part.common(&range));
                targets.free.extend(parts.filter_map(target));
            }
        }
        targets
    }
}

/// Converts a target to an interval.
pub fn interval(target: Target) -> Option<Interval> {
    let (first, last) = target.bounds();
    Interval::new(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into()).ok()
}

/// Converts an interval to a target; `None` if it is not IPv4.
pub fn target(range: Interval) -> Option<Target> {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first == last => Some(Target::Address(first)),
        (IpAddr::V4(first), IpAddr::V4(last)) => Some(Target::Range(first, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use probe_cluster::{ClusterObjects, object};
    use serde_json::json;

    use super::*;

    /// A cluster with a layer-2 pool, a BGP pool, and services with these addresses.
    fn cluster(addresses: &[&str]) -> ClusterSnapshot {
        let pool = |name: &str, range: &str| {
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": {"name": name, "namespace": "metallb-system"},
                "spec": {"addresses": [range]}})
        };
        let advertisement = |kind: &str, pool: &str| {
            json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
                "metadata": {"name": pool, "namespace": "metallb-system"},
                "spec": {"ipAddressPools": [pool]}})
        };
        let services = addresses.iter().enumerate().filter_map(|(number, ip)| {
            let service = json!({"metadata": {"name": format!("s{number}"), "namespace": "shop"},
                "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
            match object::read(probe_cluster::Resource::Services, service).object? {
                object::ParsedObject::Service(service) => Some(*service),
                object::ParsedObject::Status(_) | object::ParsedObject::Metallb(_) => None,
            }
        });
        ClusterSnapshot::from(ClusterObjects {
            services: services.collect(),
            metallb: vec![
                pool("l2", "192.0.2.64/29"),
                pool("bgp", "198.51.100.0/24"),
                advertisement("L2Advertisement", "l2"),
                advertisement("BGPAdvertisement", "bgp"),
            ],
            ..ClusterObjects::default()
        })
    }

    fn texts(targets: &[Target]) -> Vec<String> {
        targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_services_are_assigned_and_the_rest_of_a_pool_is_free() {
        let cluster = cluster(&[
            "192.0.2.66",
            "192.0.2.65",
            "198.51.100.7",
            "203.0.113.9",
            "2001:db8::1",
        ]);
        let targets = ClusterTargets::for_cluster(&cluster, &[]);
        assert_eq!(
            texts(&targets.assigned),
            ["192.0.2.65", "192.0.2.66", "203.0.113.9"]
        );
        assert_eq!(
            texts(&targets.free),
            ["192.0.2.64", "192.0.2.67-192.0.2.71"]
        );
        assert_eq!((targets.bgp, targets.ipv6), (1, 1));
    }

    #[test]
    fn targets_are_restricted_to_the_given_addresses() {
        let cluster = cluster(&["192.0.2.66"]);
        let only = ["192.0.2.66-68".parse().unwrap()];
        let targets = ClusterTargets::for_cluster(&cluster, &only);
        assert_eq!(texts(&targets.assigned), ["192.0.2.66"]);
        assert_eq!(texts(&targets.free), ["192.0.2.67-192.0.2.68"]);
    }
}
