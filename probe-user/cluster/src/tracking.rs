//! Which addresses of a cluster are to be expected on this host's segments: those that services have, that are on-link
//! here, and that somebody announces on layer 2. What is announced by BGP only, or is another network's, nobody
//! answers for here, and its silence means nothing.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use probe_detect::{ExpectedAddresses, LocalAnnouncement};
use probe_model::{
    AnnouncementMode, Links,
    on_link::OnLinkNetworks,
    watched::{WatchState, WatchedInterfaces},
};

use super::{ClusterSnapshot, Resource, Service, snapshot::ResourceState};

/// Without these nothing can be concluded: what is not announced may only not be known yet.
const REQUIRED_RESOURCES: [Resource; 4] = [
    Resource::Services,
    Resource::IpAddressPools,
    Resource::L2Advertisements,
    Resource::BgpAdvertisements,
];

/// Classes of load balancers that announce by BGP only.
const BGP_CLASSES: [&str; 1] = ["io.cilium/bgp-control-plane"];

/// How far the API server's clock may be behind this host's.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Who may have been announcing an address since before this host listened. What the cluster's status says does not count:
/// it may name the node before.
fn announcer(cluster: &ClusterSnapshot, ip: IpAddr, listens_since: Timestamp) -> LocalAnnouncement {
    let since = listens_since
        .saturating_add(CLOCK_SKEW)
        .unwrap_or(Timestamp::MAX);
    // Whoever took it since would have been heard to.
    let is_new = |service: &Service| service.assigned.is_some_and(|assigned| assigned > since);
    if cluster.services_at(ip).all(is_new) {
        LocalAnnouncement::Elsewhere
    } else {
        LocalAnnouncement::PossiblyLocal
    }
}

/// How much this node sees of the addresses that are announced on layer 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCoverage {
    /// So many are on-link here.
    pub here: usize,
    /// None is, and there are some elsewhere.
    pub is_blind: bool,
}

/// What there is to see, and how much of it is seen here.
#[derive(Debug)]
pub struct TrackedCoverage {
    /// The addresses that are expected here.
    pub expected: ExpectedAddresses,
    /// How much that is.
    pub sight: SegmentCoverage,
}

/// What is expected on the networks of a host that listens since then; `None` while too little was read to say.
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
    // What is in none of the pools that could be read may be in one that could not, and be announced by BGP.
    let are_pools_whole = !cluster.has_invalid_objects(Resource::IpAddressPools);
    let mut announced = BTreeMap::new();
    let mut is_announced = |ip: IpAddr| {
        (are_pools_whole || cluster.pool_of(ip).is_some())
            && is_on_layer_2(cluster, ip, &mut announced)
    };
    // Cheap, and of a cluster with many networks most are elsewhere.
    let (here, elsewhere): (Vec<_>, Vec<_>) = cluster
        .addresses()
        .filter(IpAddr::is_ipv4)
        .partition(|&ip| on_link.keys(ip).next().is_some());
    let here: Vec<_> = here.into_iter().filter(|&ip| is_announced(ip)).collect();
    let sight = SegmentCoverage {
        here: here.len(),
        is_blind: here.is_empty() && elsewhere.into_iter().any(is_announced),
    };
    let expected = here.into_iter().flat_map(|ip| {
        let announcer = announcer(cluster, ip, listens_since);
        on_link.keys(ip).map(move |key| (key, announcer))
    });
    Some(TrackedCoverage {
        expected: expected.collect(),
        sight,
    })
}

/// Whether the API server has said anything about it, be it that it says nothing.
fn was_requested(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.known != ResourceState::NeverRead)
}

fn is_forbidden(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.known == ResourceState::Forbidden)
}

/// How each pool is announced, by namespace and name: many services are from one.
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
        // Not MetalLB's: kube-vip, Cilium and others answer for what they hand out.
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown => true,
        AnnouncementMode::Bgp | AnnouncementMode::NotAnnounced => false,
    }
}

/// How an address is announced, as far as this host may know.
fn announcement(cluster: &ClusterSnapshot, known: AnnouncementMode) -> AnnouncementMode {
    match known {
        AnnouncementMode::Layer2 | AnnouncementMode::Bgp => known,
        // There may be an advertisement that cannot be read.
        _ if !cluster.is_known(Resource::L2Advertisements) => AnnouncementMode::Unknown,
        _ => known,
    }
}

fn is_bgp_announced(service: &Service) -> bool {
    let class = service.class.as_deref();
    class.is_some_and(|class| BGP_CLASSES.contains(&class))
}

/// What is on-link through the interfaces that are watched and heard.
pub fn on_link(links: &Links, watched: &WatchedInterfaces) -> OnLinkNetworks {
    OnLinkNetworks::new(links, |ifindex| {
        let watched = watched.get(ifindex);
        watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
    })
}

#[cfg(test)]
mod tests;
