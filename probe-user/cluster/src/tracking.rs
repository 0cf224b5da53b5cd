//! The addresses of a cluster that are expected on the segments of this host: addresses of services that are on-link
//! here and announced on layer 2. Addresses that are announced by BGP only, or belong to another network, get no
//! replies here, so their silence has no meaning.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use probe_detect::{ExpectedAddresses, LocalAnnouncement};
use probe_model::{
    AnnouncementMode, Links,
    on_link::OnLinkNetworks,
    watched::{WatchState, WatchedInterfaces},
};

use super::{ClusterSnapshot, Resource, Service, snapshot::ResourceState};

/// The resources that must have been listed before anything is concluded.
const REQUIRED_RESOURCES: [Resource; 4] = [
    Resource::Services,
    Resource::IpAddressPools,
    Resource::L2Advertisements,
    Resource::BgpAdvertisements,
];

/// Classes of load balancers that announce by BGP only.
const BGP_CLASSES: [&str; 1] = ["io.cilium/bgp-control-plane"];

/// The maximum time by which the clock of the API server may be behind the clock of this host.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Whether this host or a remote host may have announced an address since before `listens_since`. The status of the
/// cluster is not used: it may name the previous node.
fn announcer(cluster: &ClusterSnapshot, ip: IpAddr, listens_since: Timestamp) -> LocalAnnouncement {
    let since = listens_since
        .saturating_add(CLOCK_SKEW)
        .unwrap_or(Timestamp::MAX);
    // A later takeover would have been observed.
    let is_new = |service: &Service| service.assigned.is_some_and(|assigned| assigned > since);
    if cluster.services_at(ip).all(is_new) {
        LocalAnnouncement::Elsewhere
    } else {
        LocalAnnouncement::PossiblyLocal
    }
}

/// How many of the addresses that are announced on layer 2 this node can observe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCoverage {
    /// The number of addresses that are on-link here.
    pub on_link: usize,
    /// Whether none is on-link here although there are some elsewhere.
    pub has_no_coverage: bool,
}

/// The expected addresses, and the coverage of this node.
#[derive(Debug)]
pub struct TrackedCoverage {
    /// The addresses that are expected here.
    pub expected: ExpectedAddresses,
    /// The coverage.
    pub segment_coverage: SegmentCoverage,
}

/// Computes the expected addresses of a host that has observed the network since `listens_since`; `None` until all
/// required resources were listed.
pub fn compute_coverage(
    cluster: &ClusterSnapshot,
    on_link: &OnLinkNetworks,
    listens_since: Timestamp,
) -> Option<TrackedCoverage> {
    if !REQUIRED_RESOURCES
        .iter()
        .all(|&resource| was_requested(cluster, resource))
        || is_forbidden(cluster, Resource::IpAddressPools)
    {
        return None;
    }
    // An address outside all readable pools may be in an unreadable one that is announced by BGP.
    let are_pools_whole = !cluster.has_invalid_objects(Resource::IpAddressPools);
    let mut announced = BTreeMap::new();
    let mut is_announced = |ip: IpAddr| {
        (are_pools_whole || cluster.pool_of(ip).is_some())
            && is_on_layer_2(cluster, ip, &mut announced)
    };
    // This check is cheap and excludes most addresses of a cluster with many networks.
    let (local, elsewhere): (Vec<_>, Vec<_>) = cluster
        .addresses()
        .filter(IpAddr::is_ipv4)
        .partition(|&ip| on_link.keys(ip).next().is_some());
    let local: Vec<_> = local.into_iter().filter(|&ip| is_announced(ip)).collect();
    let segment_coverage = SegmentCoverage {
        on_link: local.len(),
        has_no_coverage: local.is_empty() && elsewhere.into_iter().any(is_announced),
    };
    let expected = local.into_iter().flat_map(|ip| {
        let announcer = announcer(cluster, ip, listens_since);
        on_link.keys(ip).map(move |key| (key, announcer))
    });
    Some(TrackedCoverage {
        expected: expected.collect(),
        segment_coverage,
    })
}

/// Whether the API server has responded about a resource, with objects or an error.
fn was_requested(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.state != ResourceState::NeverRead)
}

fn is_forbidden(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.state == ResourceState::Forbidden)
}

/// The announcement mode of each pool by namespace and name, computed once because many services share a pool.
type Announcements = BTreeMap<(Option<String>, String), AnnouncementMode>;

fn is_on_layer_2(cluster: &ClusterSnapshot, ip: IpAddr, announced: &mut Announcements) -> bool {
    if cluster.services_at(ip).all(is_bgp_announced) {
        return false;
    }
    let how = cluster
        .pool_of(ip)
        .map_or(AnnouncementMode::Unknown, |pool| {
            if cluster.selects_services(pool) {
                return announcement(cluster, cluster.announced(ip));
            }
            let key = (pool.namespace.clone(), pool.name.clone());
            *announced
                .entry(key)
                .or_insert_with(|| announcement(cluster, cluster.announcement_of(pool)))
        });
    match how {
        // Not managed by MetalLB: kube-vip, Cilium and others reply for the addresses that they assign.
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown => true,
        AnnouncementMode::Bgp | AnnouncementMode::NotAnnounced => false,
    }
}

/// The announcement mode of an address, as far as this host can determine it.
fn announcement(cluster: &ClusterSnapshot, known: AnnouncementMode) -> AnnouncementMode {
    match known {
        AnnouncementMode::Layer2 | AnnouncementMode::Bgp => known,
        // An unreadable advertisement may exist.
        _ if !cluster.is_known(Resource::L2Advertisements) => AnnouncementMode::Unknown,
        _ => known,
    }
}

fn is_bgp_announced(service: &Service) -> bool {
    let class = service.class.as_deref();
    class.is_some_and(|class| BGP_CLASSES.contains(&class))
}

/// The networks that are on-link through watched interfaces with a link.
pub fn on_link(links: &Links, watched: &WatchedInterfaces) -> OnLinkNetworks {
    OnLinkNetworks::new(links, |ifindex| {
        let watched = watched.get(ifindex);
        watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
    })
}

#[cfg(test)]
mod tests;
