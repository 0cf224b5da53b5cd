//! Finds drift candidates at one moment.

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

/// Maximum number of overlaps that are listed.
const MAX_OVERLAPS: usize = 20;
/// A claim older than this does not prove who owns an address now.
const CLAIM_VALIDITY: SignedDuration = SignedDuration::from_mins(10);

/// The observed network: inputs besides the objects of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ObservedNetwork<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The observed bindings. Owners carry their node names.
    pub bindings: &'a [BindingRecord],
    /// The nodes; `None` if unknown.
    pub nodes: Option<&'a [Node]>,
    /// The coverage of their MACs; `None` if unknown.
    pub node_coverage: Option<NodeCoverage>,
    /// The number of ready endpoints, for the services that were looked up.
    pub endpoints: &'a HashMap<NamespacedName, usize>,
}

/// Finds all drift candidates.
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

    /// Finds services without an address.
    fn pending(&mut self) {
        let usage = std::mem::take(&mut self.usage);
        let judge = pending::PendingClassifier::new(self.cluster, &usage);
        self.usage = usage;
        for service in self.cluster.services() {
            // A hostname in the status is what its load balancer assigns.
            if service.has_ingress || !service.addresses.is_empty() {
                continue;
            }
            let (reason, sentence) = judge.reason(service);
            let why = match reason {
                PendingReason::Unknown => "the reason is not known from its pools",
                reason => describe_reason(reason),
            };
            let summary = format!("{} has no address: {why}", service.named);
            let drift = Drift {
                service: Some(service.named.clone()),
                reason: Some(reason),
                evidence: vec![sentence],
                ..drift(DriftKind::ServicePending, Severity::Warning, summary)
            };
            let onset = service
                .created
                .map_or(DriftOnset::FirstObserved, DriftOnset::Since);
            self.add(drift, onset, &[Resource::Services]);
        }
    }

    /// Finds addresses of services without replies, or without an advertisement.
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
        // For tracked addresses the monitor reports silence; for others the last claim counts.
        let answers = on_segment.iter().any(|binding| {
            binding.silent_since.is_none()
                && (binding.tracked || binding.owners.iter().any(is_fresh))
        });
        let announced = self.cluster.announced(ip);
        // An address of another controller needs no advertisement, even if a MetalLB pool contains it.
        let is_unadvertised = announced == AnnouncementMode::NotAnnounced
            && ADVERTISED
                .iter()
                .all(|&one| is_available(self.cluster, one))
            && self.cluster.is_metallb_service(service);
        let (onset, required_resources): (_, &'static [Resource]) = match (announced, silent) {
            // If any network has replies, the address is announced.
            _ if answers || announced == AnnouncementMode::Bgp => return,
            (_, None) if is_unadvertised => (DriftOnset::FirstObserved, ADVERTISED),
            (_, None) => return,
            (_, Some(since)) => (DriftOnset::Immediate(since), &[Resource::Services]),
        };
        let mut evidence = Vec::new();
        if let Some(since) = silent {
            let for_long = span(self.network.now.duration_since(since).abs());
            evidence.push(format!("No host has replied for it for {for_long}"));
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
        let named = self.cluster.reported_announcers(ip);
        if !named.is_empty() {
            evidence.push(format!(
                "The status of the service names {} as announcer, which may be out of date",
                named.join(" and ")
            ));
        }
        let severity = if reason == PendingReason::NoReadyEndpoints {
            Severity::Warning
        } else {
            Severity::Critical
        };
        let summary = format!(
            "No host announces {ip} of {}: {}",
            service.named,
            describe_reason(reason)
        );
        let drift = Drift {
            ip: Some(ip),
            service: Some(service.named.clone()),
            pool: pool.map(name_of),
            reason: Some(reason),
            evidence,
            ..drift(DriftKind::NotAnnounced, severity, summary)
        };
        self.add(drift, onset, required_resources);
    }

    /// Finds addresses of services that are in no pool.
    fn find_outside_pools(&mut self) {
        if self.cluster.has_invalid_objects(Resource::IpAddressPools) {
            // The address may be in a pool that could not be read.
            return;
        }
        for service in self.cluster.services() {
            let addresses = service.addresses.iter().copied();
            let outside = addresses.filter(|&ip| self.cluster.pools_at(ip).next().is_none());
            if !self.cluster.is_metallb_service(service) {
                continue;
            }
            for ip in outside.collect::<Vec<_>>() {
                let summary = format!("{ip} of {} is in no pool", service.named);
                let from = service.allocated_from.as_ref().map(|pool| {
                    format!(
                        "The service has it from the pool {pool}: the pool was edited or deleted since"
                    )
                });
                let drift = Drift {
                    ip: Some(ip),
                    service: Some(service.named.clone()),
                    evidence: from.into_iter().collect(),
                    ..drift(DriftKind::AddressOutsidePools, Severity::Warning, summary)
                };
                self.add(drift, DriftOnset::FirstObserved, WITH_POOLS);
            }
        }
    }

    /// Finds addresses of pools that a host claims and no service has.
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
                "It is the address of node {}: the pool contains it",
                node.name
            ));
        } else if !owners.iter().all(is_nodes) {
            evidence.push(describe_coverage(self.network.node_coverage));
        }
        let (kind, does) = if announced {
            (DriftKind::AnnouncedUnassigned, "is announced")
        } else {
            (DriftKind::ClaimedUnassigned, "is in use")
        };
        let summary = format!("{ip} of the pool {pool} {does}, and no service has it");
        Drift {
            ip: Some(ip),
            pool: Some(pool),
            macs: owners
                .iter()
                .flat_map(|owner| owner.macs.iter().copied())
                .collect(),
            nodes: nodes.into_iter().collect(),
            evidence,
            ..drift(kind, Severity::Warning, summary)
        }
    }

    /// Finds problems of pools and advertisements, as `probe pools check` does.
    fn pools(&mut self) {
        let inventory = self.cluster.inventory();
        let evaluation = check_pools(inventory, &AddressPlan::default(), MAX_OVERLAPS);
        let are_read = ADVERTISED
            .iter()
            .all(|&one| is_available(self.cluster, one));
        for finding in &evaluation.findings {
            let pool = |number: usize| &inventory.pools[number];
            match *finding {
                PoolFinding::Overlap { one, other, common }
                    if finding.code(inventory) == PoolFindingCode::PoolOverlap =>
                {
                    let names = [one, other].map(|range| name_of(pool(range.pool)));
                    self.overlap(names, &common.describe());
                }
                PoolFinding::Unadvertised { pool: number } if are_read => {
                    let name = name_of(pool(number));
                    let summary = format!("No advertisement announces the pool {name}");
                    let of_pool = self.usage.iter().filter(|usage| usage.pool == name);
                    let services: u128 = of_pool.map(|usage| usage.assigned).sum();
                    let drift = Drift {
                        pool: Some(name),
                        evidence: vec![format!("Addresses of it assigned to services: {services}")],
                        ..drift(DriftKind::PoolUnadvertised, Severity::Warning, summary)
                    };
                    self.add(drift, DriftOnset::FirstObserved, ADVERTISED);
                }
                PoolFinding::UnknownPool {
                    advertisement,
                    name,
                } => {
                    let missing = &inventory.advertisements[advertisement].pools[name].0;
                    let sentence = format!("names the pool {missing}, which does not exist");
                    self.without_pool(advertisement, Some(missing), &sentence);
                }
                PoolFinding::IdleSelector { advertisement, .. } => {
                    self.without_pool(
                        advertisement,
                        None,
                        "selects pools by labels that no pool has",
                    );
                }
                _ => {}
            }
        }
    }

    fn overlap(&mut self, [one, other]: [NamespacedName; 2], common: &str) {
        let summary = format!("The pools {one} and {other} both contain {common}");
        let drift = Drift {
            pool: Some(one),
            object: Some(format!("IPAddressPool {other}")),
            ..drift(DriftKind::PoolsOverlap, Severity::Warning, summary)
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
        let summary = format!("{object} {sentence}");
        let drift = Drift {
            pool,
            object: Some(object),
            ..drift(
                DriftKind::AdvertisementWithoutPool,
                Severity::Warning,
                summary,
            )
        };
        self.add(drift, DriftOnset::FirstObserved, required_resources);
    }

    /// Finds advertisements whose node selectors select no node.
    fn advertisements_without_node(&mut self) {
        // An empty list of nodes is more likely wrong than the selector.
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
                let summary = format!("{object} selects no node: it announces nothing");
                let drift = Drift {
                    object: Some(object),
                    evidence: vec![format!(
                        "None of {} nodes has the labels that it selects",
                        nodes.len()
                    )],
                    ..drift(
                        DriftKind::AdvertisementWithoutNode,
                        Severity::Warning,
                        summary,
                    )
                };
                self.add(drift, DriftOnset::FirstObserved, required_resources);
            }
        }
    }
}

/// The resources from which the announcement of a pool is concluded.
const ADVERTISED: &[Resource] = &[
    Resource::IpAddressPools,
    Resource::L2Advertisements,
    Resource::BgpAdvertisements,
];

const WITH_POOLS: &[Resource] = &[Resource::Services, Resource::IpAddressPools];

fn drift(drift: DriftKind, severity: Severity, summary: String) -> Drift {
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
        summary,
        evidence: Vec::new(),
    }
}

fn describe_reason(reason: PendingReason) -> &'static str {
    match reason {
        PendingReason::NoPool => "no pool assigns it one",
        PendingReason::Exhausted => "its pools have no free address",
        PendingReason::RequestedOutside => "the requested one is in no pool that it may use",
        PendingReason::RequestedTaken => "the requested one belongs to another service",
        PendingReason::RequestedPoolUnknown => "the requested pool does not exist",
        PendingReason::ForeignClass => "its class belongs to another controller",
        PendingReason::NoReadyEndpoints => "it has no ready endpoint",
        PendingReason::NoAdvertisement => "no advertisement covers it",
        PendingReason::Unknown => "the reason is unknown",
    }
}

fn describe_claim(owner: &OwnerRecord) -> String {
    let mac = owner.macs.first().map(ToString::to_string);
    let mac = mac.unwrap_or_default();
    let who = match (&owner.node, owner.local, &owner.vendor) {
        (Some(node), _, _) => format!("node {node}"),
        (None, true, _) => "this host".to_owned(),
        (None, false, Some(vendor)) => format!("no known node, vendor {vendor}"),
        (None, false, None) => "no known node".to_owned(),
    };
    let does = if owner.announces() {
        "announces it as a load balancer does"
    } else {
        "claims it"
    };
    format!("{mac} ({who}) {does}; last observed at {}", owner.last_seen)
}

fn describe_coverage(known: Option<NodeCoverage>) -> String {
    match known {
        None => "The nodes are unknown".to_owned(),
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

/// Whether a node selector of an advertisement selects any of the nodes. An advertisement without selectors is for all
/// nodes; an invalid selector is assumed to match.
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
