//! Which addresses of a cluster are to be expected on this host's segments: those that services have, that are on-link
//! here, and that somebody announces on layer 2. What is announced by BGP only, or is another network's, nobody
//! answers for here, and its silence means nothing.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use probe_detect::{Announcer, Expected};
use probe_model::{
    Announced, Links,
    on_link::OnLink,
    watched::{WatchState, WatchedInterfaces},
};
use probe_pools::Pool;

use super::{Cluster, Resource, Service, model::Known};

/// Without these nothing can be concluded: what is not announced may only not be known yet.
const NEEDED: [Resource; 4] = [
    Resource::Services,
    Resource::IpAddressPools,
    Resource::L2Advertisements,
    Resource::BgpAdvertisements,
];

/// Classes of load balancers that announce by BGP only.
const BGP_CLASSES: [&str; 1] = ["io.cilium/bgp-control-plane"];

/// How far the API server's clock may be behind this host's.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Who may have been announcing an address since before this host listened. What the cluster's status says does not count:
/// it may name the node before.
fn announcer(cluster: &Cluster, ip: IpAddr, listens_since: Timestamp) -> Announcer {
    let since = listens_since.saturating_add(SKEW).unwrap_or(Timestamp::MAX);
    // Whoever took it since would have been heard to.
    let is_new = |service: &Service| service.assigned.is_some_and(|assigned| assigned > since);
    if cluster.services_at(ip).all(is_new) {
        Announcer::Elsewhere
    } else {
        Announcer::PerhapsHere
    }
}

/// How much this node sees of the addresses that are announced on layer 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// So many are on-link here.
    pub here: usize,
    /// None is, and there are some elsewhere.
    pub is_blind: bool,
}

/// What there is to see, and how much of it is seen here.
#[derive(Debug)]
pub struct Survey {
    /// The addresses that are expected here.
    pub expected: Expected,
    /// How much that is.
    pub sight: Sight,
}

/// What is expected on the networks of a host that listens since then; `None` while too little was read to say.
pub fn survey(cluster: &Cluster, on_link: &OnLink, listens_since: Timestamp) -> Option<Survey> {
    if !NEEDED.iter().all(|&resource| was_tried(cluster, resource))
        || is_forbidden(cluster, Resource::IpAddressPools)
    {
        return None;
    }
    // What is in none of the pools that could be read may be in one that could not, and be announced by BGP.
    let are_pools_whole = !cluster.has_broken(Resource::IpAddressPools);
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
    let sight = Sight {
        here: here.len(),
        is_blind: here.is_empty() && elsewhere.into_iter().any(is_announced),
    };
    let expected = here.into_iter().flat_map(|ip| {
        let announcer = announcer(cluster, ip, listens_since);
        on_link.keys(ip).map(move |key| (key, announcer))
    });
    Some(Survey {
        expected: expected.collect(),
        sight,
    })
}

/// Whether the API server has said anything about it, be it that it says nothing.
fn was_tried(cluster: &Cluster, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.known != Known::Never)
}

fn is_forbidden(cluster: &Cluster, resource: Resource) -> bool {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.is_some_and(|freshness| freshness.known == Known::Forbidden)
}

/// How each pool is announced, by namespace and name: many services are from one.
type Announcements = BTreeMap<(Option<String>, String), Announced>;

fn is_on_layer_2(cluster: &Cluster, ip: IpAddr, announced: &mut Announcements) -> bool {
    if cluster.services_at(ip).all(is_by_bgp) {
        return false;
    }
    let how = cluster.pool_of(ip).map_or(Announced::Unknown, |pool| {
        let key = (pool.namespace.clone(), pool.name.clone());
        *announced
            .entry(key)
            .or_insert_with(|| announcement(cluster, pool))
    });
    match how {
        // Not MetalLB's: kube-vip, Cilium and others answer for what they hand out.
        Announced::Layer2 | Announced::Unknown => true,
        Announced::Bgp | Announced::Nowhere => false,
    }
}

/// How a pool is announced, as far as this host may know.
fn announcement(cluster: &Cluster, pool: &Pool) -> Announced {
    match cluster.announcement_of(pool) {
        how @ (Announced::Layer2 | Announced::Bgp) => how,
        // There may be an advertisement that cannot be read.
        _ if !cluster.is_known(Resource::L2Advertisements) => Announced::Unknown,
        how => how,
    }
}

fn is_by_bgp(service: &Service) -> bool {
    let class = service.class.as_deref();
    class.is_some_and(|class| BGP_CLASSES.contains(&class))
}

/// What is on-link through the interfaces that are watched and heard.
pub fn on_link(links: &Links, watched: &WatchedInterfaces) -> OnLink {
    OnLink::new(links, |ifindex| {
        let watched = watched.get(ifindex);
        watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
    })
}

#[cfg(test)]
mod tests;
