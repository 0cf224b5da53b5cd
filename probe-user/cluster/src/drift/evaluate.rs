//! What is not as it should be at one moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use probe_model::{AnnouncementMode, BindingRecord, NamespacedName, OwnerRecord, Severity};
use probe_pools::{
    AddressPlan, AdvertisementKind, Pool, PoolFinding, PoolFindingCode, check_pools,
};
use serde_json::Value;

use super::{Drift, DriftCandidate, DriftKind, DriftOnset, PendingReason, is_available};
use crate::{
    cause::{NodeCoverage, span},
    pending, selector,
    snapshot::{ClusterSnapshot, Node, Resource, Service},
    usage,
    usage::{PoolUsage, name_of},
};

/// Overlaps beyond this number are not told one by one.
const MAX_OVERLAPS: usize = 20;
/// A claim older than this says nothing of who has an address now.
const CLAIM_VALIDITY: SignedDuration = SignedDuration::from_mins(10);

/// What the wire says, and what else is known besides the cluster's objects.
#[derive(Clone, Copy, Debug)]
pub struct ObservedNetwork<'a> {
    /// The time.
    pub now: Timestamp,
    /// Who has claimed which address. Owners carry the names of nodes.
    pub bindings: &'a [BindingRecord],
    /// The nodes; `None` if they are not known.
    pub nodes: Option<&'a [Node]>,
    /// How well their MACs are known.
    pub nodes_known: Option<NodeCoverage>,
    /// How many ready endpoints services have, of those that were asked for.
    pub endpoints: &'a HashMap<NamespacedName, usize>,
}

/// All that is not as it should be.
pub fn find(cluster: &ClusterSnapshot, network: ObservedNetwork<'_>) -> Vec<DriftCandidate> {
    let mut claims_by_address: BTreeMap<IpAddr, Vec<&BindingRecord>> = BTreeMap::new();
    for binding in network.bindings {
        claims_by_address
            .entry(binding.ip)
            .or_default()
            .push(binding);
    }
    let mut finder = DriftFinder {
        cluster,
        network,
        usage: usage::usage(cluster),
        claims_by_address,
        found: Vec::new(),
    };
    if is_available(cluster, Resource::Services) {
        finder.pending();
        finder.find_not_announced();
    }
    if is_available(cluster, Resource::IpAddressPools) {
        finder.pools();
        if is_available(cluster, Resource::Services) {
            finder.find_outside_pools();
            finder.find_unassigned();
        }
    }
    finder.advertisements_without_node();
    finder.found
}

struct DriftFinder<'a> {
    cluster: &'a ClusterSnapshot,
    network: ObservedNetwork<'a>,
    usage: Vec<PoolUsage>,
    claims_by_address: BTreeMap<IpAddr, Vec<&'a BindingRecord>>,
    found: Vec<DriftCandidate>,
}

impl DriftFinder<'_> {
    fn add(&mut self, drift: Drift, onset: DriftOnset, required_resources: &'static [Resource]) {
        self.found.push(DriftCandidate {
            drift,
            onset,
            required_resources,
        });
    }

    /// Services without an address.
    fn pending(&mut self) {
        let usage = std::mem::take(&mut self.usage);
        let judge = pending::PendingClassifier::new(self.cluster, &usage);
        self.usage = usage;
        for service in self.cluster.services() {
            // What has the name of a host has what its load balancer gives.
            if service.has_ingress || !service.addresses.is_empty() {
                continue;
            }
            let (reason, sentence) = judge.reason(service);
            let why = match reason {
                PendingReason::Unknown => "its pools do not say why",
                reason => describe_reason(reason),
            };
            let says = format!("{} has no address: {why}", service.named);
            let drift = Drift {
                service: Some(service.named.clone()),
                reason: Some(reason),
                evidence: vec![sentence],
                ..drift(DriftKind::ServicePending, Severity::Warning, says)
            };
            let onset = service
                .created
                .map_or(DriftOnset::FirstObserved, DriftOnset::Since);
            self.add(drift, onset, &[Resource::Services]);
        }
    }

    /// Addresses of services for which nobody answers, or which nobody can announce.
    fn find_not_announced(&mut self) {
        for service in self.cluster.services() {
            for &ip in &service.addresses {
                self.not_announced_of(service, ip);
            }
        }
    }

    fn not_announced_of(&mut self, service: &Service, ip: IpAddr) {
        let on_segment = self
            .claims_by_address
            .get(&ip)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let silent = on_segment
            .iter()
            .filter_map(|binding| binding.silent_since)
            .min();
        let is_fresh = |owner: &OwnerRecord| {
            self.network.now.duration_since(owner.last_seen) <= CLAIM_VALIDITY
        };
        // Of addresses that matter the monitor says when they fall silent; of others their last claim does.
        let answers = on_segment.iter().any(|binding| {
            binding.silent_since.is_none()
                && (binding.tracked || binding.owners.iter().any(is_fresh))
        });
        let announced = self.cluster.announced(ip);
        // Another controller's address does not want an advertisement, though a pool of MetalLB's holds it.
        let is_unadvertised = announced == AnnouncementMode::NotAnnounced
            && ADVERTISED
                .iter()
                .all(|&one| is_available(self.cluster, one))
            && self.cluster.is_metallb_service(service);
        let (onset, required_resources): (_, &'static [Resource]) = match (announced, silent) {
            // Where one network is silent and another is not, somebody announces it.
            _ if answers || announced == AnnouncementMode::Bgp => return,
            (_, None) if is_unadvertised => (DriftOnset::FirstObserved, ADVERTISED),
            (_, None) => return,
            (_, Some(since)) => (DriftOnset::Immediate(since), &[Resource::Services]),
        };
        let mut evidence = Vec::new();
        if let Some(since) = silent {
            let for_long = span(self.network.now.duration_since(since).abs());
            evidence.push(format!("Nobody has answered for it for {for_long}"));
        }
        let pool = self.cluster.pool_of(ip);
        if is_unadvertised && pool.is_some_and(|pool| self.cluster.selects_services(pool)) {
            evidence.push(
                "The advertisements of its pool select other services (serviceSelectors)"
                    .to_owned(),
            );
        }
        let endpoints = self.network.endpoints.get(&service.named);
        let reason = if is_unadvertised {
            PendingReason::NoAdvertisement
        } else if endpoints == Some(&0) {
            PendingReason::NoReadyEndpoints
        } else {
            PendingReason::Unknown
        };
        if let Some(number) = endpoints {
            evidence.push(format!("The service has {number} ready endpoints"));
        }
        let said = self.cluster.reported_announcers(ip);
        if !said.is_empty() {
            evidence.push(format!(
                "By the status of the service it is announced by {}, which need not be so",
                said.join(" and ")
            ));
        }
        let severity = if reason == PendingReason::NoReadyEndpoints {
            Severity::Warning
        } else {
            Severity::Critical
        };
        let says = format!(
            "Nobody announces {ip} of {}: {}",
            service.named,
            describe_reason(reason)
        );
        let drift = Drift {
            ip: Some(ip),
            service: Some(service.named.clone()),
            pool: pool.map(name_of),
            reason: Some(reason),
            evidence,
            ..drift(DriftKind::NotAnnounced, severity, says)
        };
        self.add(drift, onset, required_resources);
    }

    /// Addresses that are in no pool.
    fn find_outside_pools(&mut self) {
        if self.cluster.has_invalid_objects(Resource::IpAddressPools) {
            // It may be in the one that could not be read.
            return;
        }
        for service in self.cluster.services() {
            let addresses = service.addresses.iter().copied();
            let outside = addresses.filter(|&ip| self.cluster.pools_at(ip).next().is_none());
            if !self.cluster.is_metallb_service(service) {
                continue;
            }
            for ip in outside.collect::<Vec<_>>() {
                let says = format!("{ip} of {} is in no pool", service.named);
                let from = service.allocated_from.as_ref().map(|pool| {
                    format!(
                        "It is from the pool {pool}, by the service's own word: the pool was edited or deleted since"
                    )
                });
                let drift = Drift {
                    ip: Some(ip),
                    service: Some(service.named.clone()),
                    evidence: from.into_iter().collect(),
                    ..drift(DriftKind::AddressOutsidePools, Severity::Warning, says)
                };
                self.add(drift, DriftOnset::FirstObserved, WITH_POOLS);
            }
        }
    }

    /// Addresses of pools that no service has, and somebody claims.
    fn find_unassigned(&mut self) {
        let claims_by_address = std::mem::take(&mut self.claims_by_address);
        for (&ip, bindings) in &claims_by_address {
            if self.cluster.services_at(ip).next().is_some() {
                continue;
            }
            let Some(pool) = self.cluster.pool_of(ip) else {
                continue;
            };
            let owners = bindings.iter().flat_map(|binding| &binding.owners);
            let fresh = owners
                .filter(|owner| self.network.now.duration_since(owner.last_seen) <= CLAIM_VALIDITY);
            let owners: Vec<_> = fresh.collect();
            let Some(last) = owners.iter().map(|owner| owner.last_seen).max() else {
                continue;
            };
            let drift = self.unassigned_at(ip, pool, &owners);
            self.add(drift, DriftOnset::ObservedAgain(last), WITH_POOLS);
        }
        self.claims_by_address = claims_by_address;
    }

    fn unassigned_at(&self, ip: IpAddr, pool: &Pool, owners: &[&OwnerRecord]) -> Drift {
        let pool = name_of(pool);
        let nodes: BTreeSet<_> = owners
            .iter()
            .filter_map(|owner| owner.node.clone())
            .collect();
        let mut evidence: Vec<_> = owners.iter().map(|owner| describe_claim(owner)).collect();
        let own = self.network.nodes.and_then(|nodes| {
            let mut nodes = nodes.iter();
            nodes.find(|node| node.addresses.contains(&ip))
        });
        let is_nodes = |owner: &&OwnerRecord| owner.node.is_some() || owner.local;
        let announced = own.is_none()
            && owners
                .iter()
                .any(|owner| is_nodes(owner) || owner.announces());
        if let Some(node) = own {
            evidence.push(format!(
                "It is {}'s own address: the pool holds it",
                node.name
            ));
        } else if !owners.iter().all(is_nodes) {
            evidence.push(describe_coverage(self.network.nodes_known));
        }
        let (kind, does) = if announced {
            (DriftKind::AnnouncedUnassigned, "is announced")
        } else {
            (DriftKind::ClaimedUnassigned, "is in use")
        };
        let says = format!("{ip} of the pool {pool} {does}, and no service has it");
        Drift {
            ip: Some(ip),
            pool: Some(pool),
            macs: owners
                .iter()
                .flat_map(|owner| owner.macs.iter().copied())
                .collect(),
            nodes: nodes.into_iter().collect(),
            evidence,
            ..drift(kind, Severity::Warning, says)
        }
    }

    /// What is wrong with pools and advertisements by themselves, as `probe pools check` judges it.
    fn pools(&mut self) {
        let inventory = self.cluster.inventory();
        let verdict = check_pools(inventory, &AddressPlan::default(), MAX_OVERLAPS);
        let are_read = ADVERTISED
            .iter()
            .all(|&one| is_available(self.cluster, one));
        for finding in &verdict.findings {
            let pool = |number: usize| &inventory.pools[number];
            match *finding {
                PoolFinding::Overlap { one, other, common }
                    if finding.code(inventory) == PoolFindingCode::PoolOverlap =>
                {
                    let names = [one, other].map(|range| name_of(pool(range.pool)));
                    self.overlap(names, &common.spoken());
                }
                PoolFinding::Unadvertised { pool: number } if are_read => {
                    let name = name_of(pool(number));
                    let says = format!("No advertisement announces the pool {name}");
                    let of_pool = self.usage.iter().filter(|usage| usage.pool == name);
                    let services: u128 = of_pool.map(|usage| usage.assigned).sum();
                    let drift = Drift {
                        pool: Some(name),
                        evidence: vec![format!("Addresses of it that services have: {services}")],
                        ..drift(DriftKind::PoolUnadvertised, Severity::Warning, says)
                    };
                    self.add(drift, DriftOnset::FirstObserved, ADVERTISED);
                }
                PoolFinding::UnknownPool {
                    advertisement,
                    name,
                } => {
                    let missing = &inventory.advertisements[advertisement].pools[name].0;
                    let sentence = format!("names the pool {missing}, which is not there");
                    self.without_pool(advertisement, Some(missing), &sentence);
                }
                PoolFinding::IdleSelector { advertisement, .. } => {
                    self.without_pool(advertisement, None, "selects pools by labels that none has");
                }
                _ => {}
            }
        }
    }

    fn overlap(&mut self, [one, other]: [NamespacedName; 2], common: &str) {
        let says = format!("The pools {one} and {other} both have {common}");
        let drift = Drift {
            pool: Some(one),
            object: Some(format!("IPAddressPool {other}")),
            ..drift(DriftKind::PoolsOverlap, Severity::Warning, says)
        };
        self.add(
            drift,
            DriftOnset::FirstObserved,
            &[Resource::IpAddressPools],
        );
    }

    fn without_pool(&mut self, advertisement: usize, pool: Option<&String>, sentence: &str) {
        if self.cluster.has_invalid_objects(Resource::IpAddressPools) {
            return;
        }
        let advertisement = &self.cluster.inventory().advertisements[advertisement];
        let required_resources: &'static [Resource] = match advertisement.kind {
            AdvertisementKind::L2 => &[Resource::IpAddressPools, Resource::L2Advertisements],
            AdvertisementKind::Bgp => &[Resource::IpAddressPools, Resource::BgpAdvertisements],
        };
        let namespace = advertisement.namespace.clone().unwrap_or_default();
        let name = NamespacedName {
            namespace: namespace.clone(),
            name: advertisement.name.clone(),
        };
        let object = format!("{} {name}", advertisement.kind);
        let pool = pool.map(|pool| NamespacedName {
            namespace,
            name: pool.clone(),
        });
        let says = format!("{object} {sentence}");
        let drift = Drift {
            pool,
            object: Some(object),
            ..drift(DriftKind::AdvertisementWithoutPool, Severity::Warning, says)
        };
        self.add(drift, DriftOnset::FirstObserved, required_resources);
    }

    /// Advertisements whose node selectors select none of the nodes.
    fn advertisements_without_node(&mut self) {
        // Without any node it is the list that is wrong.
        let Some(nodes) = self.network.nodes.filter(|nodes| !nodes.is_empty()) else {
            return;
        };
        for (kind, required_resources) in [
            (AdvertisementKind::L2, &[Resource::L2Advertisements]),
            (AdvertisementKind::Bgp, &[Resource::BgpAdvertisements]),
        ] {
            if !is_available(self.cluster, required_resources[0]) {
                continue;
            }
            for object in &self.cluster.objects().metallb {
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
                if text("/kind") != Some(kind.label()) || selects_a_node(object, nodes) {
                    continue;
                }
                let [namespace, name] = ["/metadata/namespace", "/metadata/name"]
                    .map(|pointer| text(pointer).unwrap_or_default());
                let object = format!("{kind} {namespace}/{name}");
                let says = format!("{object} selects no node: nobody announces by it");
                let drift = Drift {
                    object: Some(object),
                    evidence: vec![format!(
                        "None of {} nodes has the labels it asks for",
                        nodes.len()
                    )],
                    ..drift(DriftKind::AdvertisementWithoutNode, Severity::Warning, says)
                };
                self.add(drift, DriftOnset::FirstObserved, required_resources);
            }
        }
    }
}

/// What a pool's announcement is concluded from.
const ADVERTISED: &[Resource] = &[
    Resource::IpAddressPools,
    Resource::L2Advertisements,
    Resource::BgpAdvertisements,
];

const WITH_POOLS: &[Resource] = &[Resource::Services, Resource::IpAddressPools];

fn drift(drift: DriftKind, severity: Severity, says: String) -> Drift {
    Drift {
        drift,
        severity,
        since: Timestamp::UNIX_EPOCH,
        ip: None,
        service: None,
        pool: None,
        object: None,
        reason: None,
        macs: Vec::new(),
        nodes: Vec::new(),
        says,
        evidence: Vec::new(),
    }
}

fn describe_reason(reason: PendingReason) -> &'static str {
    match reason {
        PendingReason::NoPool => "no pool gives it one",
        PendingReason::Exhausted => "its pools have none left",
        PendingReason::RequestedOutside => "the one it asks for is in no pool that it may use",
        PendingReason::RequestedTaken => "the one it asks for is another service's",
        PendingReason::RequestedPoolUnknown => "the pool it asks for is not there",
        PendingReason::ForeignClass => "its class is another controller's",
        PendingReason::NoReadyEndpoints => "it has no ready endpoint",
        PendingReason::NoAdvertisement => "no advertisement is for it",
        PendingReason::Unknown => "why is not known",
    }
}

fn describe_claim(owner: &OwnerRecord) -> String {
    let mac = owner.macs.first().map(ToString::to_string);
    let mac = mac.unwrap_or_default();
    let who = match (&owner.node, owner.local, &owner.vendor) {
        (Some(node), _, _) => format!("node {node}"),
        (None, true, _) => "this host".to_owned(),
        (None, false, Some(vendor)) => format!("no known node, made by {vendor}"),
        (None, false, None) => "no known node".to_owned(),
    };
    let does = if owner.announces() {
        "announces it as a load balancer does"
    } else {
        "claims it"
    };
    format!("{mac} ({who}) {does}, last at {}", owner.last_seen)
}

fn describe_coverage(known: Option<NodeCoverage>) -> String {
    match known {
        None => "The nodes are not known".to_owned(),
        Some(NodeCoverage {
            on_segment,
            with_mac,
            ..
        }) => {
            format!(
                "The MAC addresses of {with_mac} of {on_segment} nodes on this network are known"
            )
        }
    }
}

/// Whether one of an advertisement's selectors selects one of the nodes; without any it is for all. One that cannot be
/// understood may.
fn selects_a_node(advertisement: &Value, nodes: &[Node]) -> bool {
    let selectors = advertisement.pointer("/spec/nodeSelectors");
    let Some(selectors) = selectors.and_then(Value::as_array) else {
        return true;
    };
    selectors.is_empty()
        || selectors.iter().any(|selector| {
            let mut nodes = nodes.iter();
            nodes.any(|node| selector::selects(selector, &node.labels).unwrap_or(true))
        })
}
