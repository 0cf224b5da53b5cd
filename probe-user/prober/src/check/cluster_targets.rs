//! What a cluster wants of the addresses on the wire: those that services have are somebody's, the others of its pools
//! nobody's.

use std::net::{IpAddr, Ipv4Addr};

use probe_cluster::ClusterSnapshot;
use probe_model::AnnouncementMode;
use probe_pools::interval::{Interval, merged, subtract};

use super::Target;

/// The addresses of a cluster that can be asked about, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterTargets {
    /// Those that services have and that are announced by ARP, or nothing says how.
    pub assigned: Vec<Target>,
    /// Those of pools that are announced by ARP, and that no service has.
    pub free: Vec<Target>,
    /// How many addresses of services are announced by BGP only: nobody answers for them.
    pub bgp: usize,
    /// How many addresses of services are IPv6, which has no ARP.
    pub ipv6: usize,
}

impl ClusterTargets {
    /// What a cluster wants; of these addresses only, if there are any.
    pub fn for_cluster(cluster: &ClusterSnapshot, only: &[Target]) -> Self {
        let mut demand = Self::default();
        let only: Vec<_> = only.iter().filter_map(|target| interval(*target)).collect();
        let only = merged(only);
        let wanted = |ip: Ipv4Addr| {
            let ip = interval(Target::Address(ip));
            ip.is_some_and(|ip| only.is_empty() || only.iter().any(|part| part.contains(&ip)))
        };
        let mut assigned = Vec::new();
        for ip in cluster.addresses() {
            let IpAddr::V4(v4) = ip else {
                demand.ipv6 += 1;
                continue;
            };
            assigned.push(v4);
            if !wanted(v4) {
                continue;
            }
            match cluster.announced(ip) {
                AnnouncementMode::Bgp => demand.bgp += 1,
                AnnouncementMode::Layer2
                | AnnouncementMode::NotAnnounced
                | AnnouncementMode::Unknown => {
                    demand.assigned.push(Target::Address(v4));
                }
            }
        }
        demand
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
                demand.free.extend(target(range));
            } else {
                let parts = only.iter().filter_map(|part| part.common(&range));
                demand.free.extend(parts.filter_map(target));
            }
        }
        demand
    }
}

/// The addresses of a target.
pub fn interval(target: Target) -> Option<Interval> {
    let (first, last) = target.bounds();
    Interval::new(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into()).ok()
}

/// The target that these addresses are; none, if they have no ARP, or if no machine can have them.
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

    /// A cluster with a layer-2 pool and one of BGP's, and services at these addresses.
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
            match object::read(probe_cluster::Resource::Services, service).kept? {
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
    fn what_services_have_is_somebodys_and_the_rest_of_a_pool_nobodys() {
        let cluster = cluster(&[
            "192.0.2.66",
            "192.0.2.65",
            "198.51.100.7",
            "203.0.113.9",
            "2001:db8::1",
        ]);
        let demand = ClusterTargets::for_cluster(&cluster, &[]);
        assert_eq!(
            texts(&demand.assigned),
            ["192.0.2.65", "192.0.2.66", "203.0.113.9"]
        );
        assert_eq!(texts(&demand.free), ["192.0.2.64", "192.0.2.67-192.0.2.71"]);
        assert_eq!((demand.bgp, demand.ipv6), (1, 1));
    }

    #[test]
    fn targets_narrow_it() {
        let cluster = cluster(&["192.0.2.66"]);
        let only = ["192.0.2.66-68".parse().unwrap()];
        let demand = ClusterTargets::for_cluster(&cluster, &only);
        assert_eq!(texts(&demand.assigned), ["192.0.2.66"]);
        assert_eq!(texts(&demand.free), ["192.0.2.67-192.0.2.68"]);
    }
}
