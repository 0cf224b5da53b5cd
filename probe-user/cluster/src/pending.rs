//! The reason why a service has no address, from its request and the pools.
//!
//! The rules are tried in this order; the first that applies is the reason: the class of another controller; a
//! requested pool that does not exist; a requested address outside the pools that it may use, or in use; no pool that
//! assigns it one; no pool with a free address. Otherwise the reason is unknown. It is also unknown if MetalLB does not
//! seem to assign addresses, and if a pool that may be the right one could not be read.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use probe_model::NamespacedName;
use probe_pools::{Pool, PoolKind};
use serde_json::Value;

use super::{
    drift::PendingReason,
    selector,
    snapshot::{ClusterSnapshot, Resource, Service, may_belong_to_metallb},
    usage::{AddressFamily, PoolUsage, name_of},
};

/// Maximum number of pools in a sentence.
const MAX_NAMES: usize = 3;

/// Finds the reason why services have no address. Facts common to all services are computed once: there may be
/// thousands.
#[derive(Debug)]
pub struct PendingClassifier<'a> {
    cluster: &'a ClusterSnapshot,
    /// The pools; `None` if unknown.
    pools: Option<Vec<AllocatingPool<'a>>>,
    /// The classes of the services with addresses from MetalLB, by its annotation. It serves no other classes.
    classes: BTreeSet<Option<&'a str>>,
    /// Whether any service has an address.
    has_address: bool,
}

/// A pool, the services that it is for, and its usage.
#[derive(Debug)]
struct AllocatingPool<'a> {
    pool: &'a Pool,
    /// The namespaces that it is for; empty if it is for all, or if they cannot be determined.
    namespaces: Vec<&'a str>,
    /// The label selectors of the services that it is for; empty if it is for all.
    service_selectors: &'a [Value],
    usage: Vec<PoolUsage>,
}

impl AllocatingPool<'_> {
    fn serves(&self, service: &Service) -> bool {
        let namespace = service.named.namespace.as_str();
        let is_namespace = self.namespaces.is_empty() || self.namespaces.contains(&namespace);
        let mut selectors = self.service_selectors.iter();
        is_namespace
            && (selectors.len() == 0
                || selectors.any(|one| selector::selects(one, &service.labels).unwrap_or(true)))
    }
}

impl<'a> PendingClassifier<'a> {
    /// Computes the facts common to all services.
    pub fn new(cluster: &'a ClusterSnapshot, usage: &[PoolUsage]) -> Self {
        let mut by_pool: HashMap<&NamespacedName, Vec<PoolUsage>> = HashMap::new();
        for usage in usage {
            by_pool.entry(&usage.pool).or_default().push(usage.clone());
        }
        let objects = cluster.objects().metallb.iter();
        let allocations: HashMap<_, _> = objects
            .filter_map(|object| {
                let allocation = (namespaces_of(object), service_selectors_of(object));
                Some((object_name(object)?, allocation))
            })
            .collect();
        let pools = || -> Vec<_> {
            let pools = cluster.inventory().pools.iter();
            let pools = pools.filter(|pool| pool.kind == PoolKind::IpAddressPool);
            let pools = pools.map(|pool| {
                let name = name_of(pool);
                let (namespaces, service_selectors) =
                    allocations.get(&name).cloned().unwrap_or_default();
                AllocatingPool {
                    pool,
                    namespaces,
                    service_selectors,
                    usage: by_pool.get(&name).cloned().unwrap_or_default(),
                }
            });
            pools.collect()
        };
        let are_there = super::drift::is_available(cluster, Resource::IpAddressPools);
        let with_address = cluster.services().iter();
        let with_address = with_address.filter(|service| !service.addresses.is_empty());
        let by_metallb = with_address
            .clone()
            .filter(|service| service.allocated_from.is_some());
        Self {
            cluster,
            pools: are_there.then(pools),
            classes: by_metallb.map(|service| service.class.as_deref()).collect(),
            has_address: with_address.count() > 0,
        }
    }

    /// The reason why a service has no address, and a sentence of evidence.
    pub fn reason(&self, service: &Service) -> (PendingReason, String) {
        let is_metallbs = self.belongs_to_metallb(service);
        if let Some(class) = service.class.as_deref().filter(|_| !is_metallbs) {
            let sentence = format!(
                "Its loadBalancerClass is {class}: only the controller of that class can assign it an address"
            );
            return (PendingReason::ForeignClass, sentence);
        }
        let Some(pools) = &self.pools else {
            let sentence = "MetalLB's pools are unknown here; see the events of the service";
            return (PendingReason::Unknown, sentence.to_owned());
        };
        if !is_metallbs {
            return (PendingReason::Unknown, self.foreign_class_reason());
        }
        if service.has_conflicting_requests {
            let sentence = "It requests addresses in spec.loadBalancerIP and in the annotation loadBalancerIPs: MetalLB accepts only one of them";
            return (PendingReason::Unknown, sentence.to_owned());
        }
        let (reason, sentence) = self.by_pools(pools, service);
        let may_be_in_invalid = match reason {
            PendingReason::NoPool
            | PendingReason::Exhausted
            | PendingReason::RequestedOutside
            | PendingReason::RequestedPoolUnknown => {
                self.cluster.has_invalid_objects(Resource::IpAddressPools)
            }
            PendingReason::RequestedTaken
            | PendingReason::ForeignClass
            | PendingReason::NoReadyEndpoints
            | PendingReason::NoAdvertisement
            | PendingReason::Unknown => false,
        };
        if may_be_in_invalid {
            let sentence = "Not every pool could be read, and it may need one of those; see the events of the service";
            return (PendingReason::Unknown, sentence.to_owned());
        }
        (reason, sentence)
    }

    /// Whether MetalLB assigns the address of a service. With `--lb-class` it serves that class only, without it
    /// services without a class.
    fn belongs_to_metallb(&self, service: &Service) -> bool {
        if !self.classes.is_empty() {
            return self.classes.contains(&service.class.as_deref());
        }
        // Without a pool, another controller assigned the existing addresses.
        let has_pools = self.pools.as_ref().is_none_or(|pools| !pools.is_empty());
        may_belong_to_metallb(service) && (has_pools || !self.has_address)
    }

    /// The evidence that MetalLB does not assign an address to a service without a class.
    fn foreign_class_reason(&self) -> String {
        let class = self.classes.iter().flatten().next();
        let why = class.map_or_else(
            || "A controller other than MetalLB seems to assign addresses here".to_owned(),
            |class| {
                format!(
                    "It has no loadBalancerClass, and MetalLB assigns addresses to the class {class}"
                )
            },
        );
        format!("{why}; see the events of the service")
    }

    fn by_pools(&self, pools: &[AllocatingPool<'_>], service: &Service) -> (PendingReason, String) {
        let wanted = service.requested_pool.as_deref();
        if let Some(name) = wanted
            && !pools.iter().any(|one| one.pool.name == name)
        {
            let sentence = format!("It requests the pool {name}, which does not exist");
            return (PendingReason::RequestedPoolUnknown, sentence);
        }
        let refused = service.requested.iter();
        let refused = refused.filter_map(|&ip| self.reason_for_request(pools, service, wanted, ip));
        if let Some(refused) = refused.into_iter().next() {
            return refused;
        }
        if service.requested.is_empty() {
            reason_without_request(pools, service, wanted)
        } else {
            unknown()
        }
    }

    /// The reason why a service cannot have the address that it requests.
    fn reason_for_request(
        &self,
        pools: &[AllocatingPool<'_>],
        service: &Service,
        wanted: Option<&str>,
        ip: IpAddr,
    ) -> Option<(PendingReason, String)> {
        let holding: Vec<_> = self
            .cluster
            .pools_at(ip)
            .filter(|pool| wanted.is_none_or(|name| pool.name == name) && allocates(pool, ip))
            .collect();
        let Some(first) = holding.first() else {
            let location = wanted.map_or_else(
                || "in no pool".to_owned(),
                |name| format!("not in the pool {name}"),
            );
            let sentence = format!("It requests {ip}, which is {location}");
            return Some((PendingReason::RequestedOutside, sentence));
        };
        let mut allocating = pools.iter().filter(|one| {
            let mut holding = holding.iter();
            holding.any(|pool| std::ptr::eq(*pool, one.pool))
        });
        if !allocating.any(|one| one.serves(service)) {
            let sentence = format!(
                "It requests {ip}, which is in the pool {}, and that pool is for other services (serviceAllocation)",
                name_of(first)
            );
            return Some((PendingReason::RequestedOutside, sentence));
        }
        let others = self.cluster.services_at(ip);
        let mut others = others.filter(|other| other.named != service.named);
        let other = others.find(|other| {
            service.sharing_key.is_none() || other.sharing_key != service.sharing_key
        })?;
        let sentence = format!("It requests {ip}, which {} has", other.named);
        Some((PendingReason::RequestedTaken, sentence))
    }
}

/// The reason for a service that requests no address.
fn reason_without_request(
    pools: &[AllocatingPool<'_>],
    service: &Service,
    wanted: Option<&str>,
) -> (PendingReason, String) {
    if pools.is_empty() {
        return (PendingReason::NoPool, "There is no pool".to_owned());
    }
    let eligible = pools.iter().filter(|one| {
        let is_meant = wanted.map_or(one.pool.auto_assign, |name| one.pool.name == name);
        is_meant && one.serves(service)
    });
    let eligible: Vec<_> = eligible.collect();
    if eligible.is_empty() {
        let sentence =
            "No pool assigns it an address automatically (autoAssign, serviceAllocation)";
        return (PendingReason::NoPool, sentence.to_owned());
    }
    let of_family = |family| -> Vec<_> {
        let usage = eligible.iter().flat_map(|one| &one.usage);
        usage.filter(|usage| usage.family == family).collect()
    };
    let families = match &service.families[..] {
        // The requested family is unknown; most services use IPv4 where it is available.
        [] if of_family(AddressFamily::V4).is_empty() => &[AddressFamily::V6],
        [] => &[AddressFamily::V4][..],
        families => families,
    };
    let usages = || families.iter().map(|&family| (family, of_family(family)));
    let is_full =
        |usage: &Vec<&PoolUsage>| !usage.is_empty() && usage.iter().all(|usage| usage.free() == 0);
    if let Some((_, usage)) = usages().find(|(_, usage)| is_full(usage)) {
        let full = usage
            .iter()
            .take(MAX_NAMES)
            .map(|usage| describe_usage(usage));
        let full: Vec<_> = full.collect();
        return (
            PendingReason::Exhausted,
            format!("No address is free: {}", full.join(", ")),
        );
    }
    if let Some((family, _)) = usages().find(|(_, usage)| usage.is_empty()) {
        let family = match family {
            AddressFamily::V4 => "IPv4",
            AddressFamily::V6 => "IPv6",
        };
        let sentence = format!("No pool that may assign it an address has one of {family}");
        return (PendingReason::NoPool, sentence);
    }
    unknown()
}

fn unknown() -> (PendingReason, String) {
    let sentence = "The reason is not known from its pools; see the events of the service";
    (PendingReason::Unknown, sentence.to_owned())
}

fn describe_usage(usage: &PoolUsage) -> String {
    let PoolUsage {
        pool,
        total,
        assigned,
        ..
    } = usage;
    format!("{assigned} of {total} of {pool} are assigned")
}

/// Whether a pool that contains an address assigns it on request.
fn allocates(pool: &Pool, ip: IpAddr) -> bool {
    let is_buggy = matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255));
    !(pool.avoid_buggy_ips && is_buggy)
}

/// The namespaces that a pool is for, by `spec.serviceAllocation`; empty if it is for all. Namespace selectors use
/// labels that are not watched, so they are assumed to match.
fn namespaces_of(pool: &Value) -> Vec<&str> {
    let list = |key: &str| {
        let list = pool.pointer("/spec/serviceAllocation")?.get(key)?;
        list.as_array().map(Vec::as_slice)
    };
    if list("namespaceSelectors").is_some_and(|list| !list.is_empty()) {
        return Vec::new();
    }
    let names = list("namespaces").unwrap_or_default().iter();
    names.filter_map(Value::as_str).collect()
}

/// The label selectors of the services that a pool is for, by `spec.serviceAllocation`; empty if it is for all.
fn service_selectors_of(pool: &Value) -> &[Value] {
    let selectors = pool.pointer("/spec/serviceAllocation/serviceSelectors");
    let selectors = selectors.and_then(Value::as_array);
    selectors.map_or(&[], Vec::as_slice)
}

/// The namespace and name of a pool.
fn object_name(object: &Value) -> Option<NamespacedName> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    (text("/kind") == Some(PoolKind::IpAddressPool.label())).then(|| NamespacedName {
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ClusterObjects,
        snapshot::{InvalidObject, ResourceState},
        testing,
        usage::usage,
    };

    /// The reason for a service next to another that has an address from MetalLB.
    fn wanting(service: &Service, pools: &[Value]) -> (PendingReason, String) {
        beside(service, &[by_metallb(None)], pools)
    }

    fn by_metallb(class: Option<&str>) -> Service {
        Service {
            allocated_from: Some("one".to_owned()),
            class: class.map(str::to_owned),
            ..testing::service("shop/other", &["192.0.2.1"])
        }
    }

    fn beside(service: &Service, others: &[Service], pools: &[Value]) -> (PendingReason, String) {
        classify(
            service,
            ClusterObjects {
                services: [std::slice::from_ref(service), others].concat(),
                metallb: pools.to_vec(),
                ..testing::objects()
            },
        )
    }

    fn classify(service: &Service, objects: ClusterObjects) -> (PendingReason, String) {
        let cluster = ClusterSnapshot::from(objects);
        PendingClassifier::new(&cluster, &usage(&cluster)).reason(service)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn first_applicable_reason_is_reported() {
        let plain = || testing::service("shop/new", &[]);
        let asking = |ips: &[&str]| Service {
            requested: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..plain()
        };
        let pool = |addresses: Value| testing::pool("one", json!({"addresses": [addresses]}));
        let roomy = || pool(json!("192.0.2.0/24"));
        let full = || pool(json!("192.0.2.1/32"));
        let with = |key: &str, value: Value| {
            let mut pool = roomy();
            pool["spec"][key] = value;
            pool
        };
        let class = |class: &str| Service {
            class: Some(class.to_owned()),
            ..asking(&["203.0.113.1"])
        };
        let of_pool = |pool: &str| Service {
            requested_pool: Some(pool.to_owned()),
            ..plain()
        };
        let of_families = |families: &[AddressFamily]| Service {
            families: families.to_vec(),
            ..plain()
        };
        let both_full_of_v4 = || {
            let addresses = ["192.0.2.1/32", "2001:db8::/64"];
            testing::pool("one", json!({ "addresses": addresses }))
        };
        let sharing = Service {
            sharing_key: Some("web".to_owned()),
            ..asking(&["192.0.2.1"])
        };
        for (what, service, pools, expected, summary) in [
            (
                "another's class",
                class("io.cilium/l2-announcer"),
                vec![roomy()],
                PendingReason::ForeignClass,
                "io.cilium",
            ),
            (
                "requested twice",
                Service {
                    has_conflicting_requests: true,
                    ..asking(&["192.0.2.2"])
                },
                vec![roomy()],
                PendingReason::Unknown,
                "MetalLB accepts only one of them",
            ),
            (
                "no such pool",
                of_pool("gone"),
                vec![roomy()],
                PendingReason::RequestedPoolUnknown,
                "pool gone",
            ),
            (
                "outside",
                asking(&["203.0.113.1"]),
                vec![roomy()],
                PendingReason::RequestedOutside,
                "which is in no pool",
            ),
            (
                "requested address outside the requested pool",
                Service {
                    requested_pool: Some("one".to_owned()),
                    ..asking(&["203.0.113.1"])
                },
                vec![roomy()],
                PendingReason::RequestedOutside,
                "which is not in the pool one",
            ),
            (
                "left out",
                asking(&["192.0.2.255"]),
                vec![with("avoidBuggyIPs", json!(true))],
                PendingReason::RequestedOutside,
                "192.0.2.255",
            ),
            (
                "of a pool for others",
                asking(&["192.0.2.2"]),
                vec![with("serviceAllocation", json!({"namespaces": ["db"]}))],
                PendingReason::RequestedOutside,
                "in the pool metallb-system/one, and that pool is for other services",
            ),
            (
                "of a pool for services with another label",
                asking(&["192.0.2.2"]),
                vec![with(
                    "serviceAllocation",
                    json!({"serviceSelectors": [{"matchLabels": {"tier": "edge"}}]}),
                )],
                PendingReason::RequestedOutside,
                "in the pool metallb-system/one, and that pool is for other services",
            ),
            (
                "of a pool that may be for it",
                asking(&["192.0.2.2"]),
                vec![with(
                    "serviceAllocation",
                    json!({"namespaces": ["db"], "namespaceSelectors": [{}]}),
                )],
                PendingReason::Unknown,
                "events",
            ),
            (
                "taken",
                asking(&["192.0.2.1"]),
                vec![roomy()],
                PendingReason::RequestedTaken,
                "which shop/other has",
            ),
            (
                "taken, with a key of its own",
                sharing,
                vec![roomy()],
                PendingReason::RequestedTaken,
                "shop/other",
            ),
            (
                "free",
                asking(&["192.0.2.2"]),
                vec![roomy()],
                PendingReason::Unknown,
                "events",
            ),
            (
                "no pool",
                plain(),
                vec![],
                PendingReason::NoPool,
                "There is no pool",
            ),
            (
                "only on request",
                plain(),
                vec![with("autoAssign", json!(false))],
                PendingReason::NoPool,
                "autoAssign",
            ),
            (
                "who asks",
                of_pool("one"),
                vec![with("autoAssign", json!(false))],
                PendingReason::Unknown,
                "",
            ),
            (
                "for others",
                plain(),
                vec![with("serviceAllocation", json!({"namespaces": ["db"]}))],
                PendingReason::NoPool,
                "serviceAllocation",
            ),
            (
                "for us",
                plain(),
                vec![with("serviceAllocation", json!({"namespaces": ["shop"]}))],
                PendingReason::Unknown,
                "",
            ),
            (
                "full",
                plain(),
                vec![full()],
                PendingReason::Exhausted,
                "1 of 1 of metallb-system/one are assigned",
            ),
            (
                "full of IPv4",
                plain(),
                vec![both_full_of_v4()],
                PendingReason::Exhausted,
                "1 of 1",
            ),
            (
                "of IPv6, and only IPv4 is full",
                of_families(&[AddressFamily::V6]),
                vec![both_full_of_v4()],
                PendingReason::Unknown,
                "",
            ),
            (
                "of both, and IPv4 is full",
                of_families(&[AddressFamily::V6, AddressFamily::V4]),
                vec![both_full_of_v4()],
                PendingReason::Exhausted,
                "1 of 1",
            ),
            (
                "of IPv6, and there is only IPv4",
                of_families(&[AddressFamily::V6]),
                vec![full()],
                PendingReason::NoPool,
                "one of IPv6",
            ),
            (
                "another has room",
                plain(),
                vec![
                    full(),
                    testing::pool("two", json!({"addresses": ["198.51.100.0/24"]})),
                ],
                PendingReason::Unknown,
                "",
            ),
        ] {
            let (reason, sentence) = wanting(&service, &pools);
            assert_eq!(reason, expected, "{what}: {sentence}");
            assert!(sentence.contains(summary), "{what}: {sentence}");
        }
    }

    #[test]
    fn metallb_pools_give_a_reason_only_for_services_of_metallb() {
        let of_class = |class: Option<&str>| Service {
            class: class.map(str::to_owned),
            ..testing::service("shop/new", &[])
        };
        let elsewhere = || testing::service("shop/other", &["203.0.113.9"]);
        let kube_vips = || Service {
            kube_vip_host: Some("node-1".to_owned()),
            ..testing::service("shop/new", &[])
        };
        let full = || testing::pool("one", json!({"addresses": ["192.0.2.1/32"]}));
        for (what, service, other, pools, expected, summary) in [
            (
                "of the class that MetalLB is for",
                of_class(Some("example.com/lb")),
                by_metallb(Some("example.com/lb")),
                vec![full()],
                PendingReason::Exhausted,
                "1 of 1",
            ),
            (
                "of no class, where MetalLB is for one",
                of_class(None),
                by_metallb(Some("example.com/lb")),
                vec![full()],
                PendingReason::Unknown,
                "MetalLB assigns addresses to the class example.com/lb",
            ),
            (
                "of a class, where MetalLB is for none",
                of_class(Some("metallb")),
                by_metallb(None),
                vec![full()],
                PendingReason::ForeignClass,
                "metallb",
            ),
            (
                "of a class by its name, where MetalLB has given none",
                of_class(Some("metallb")),
                testing::service("shop/other", &["192.0.2.1"]),
                vec![full()],
                PendingReason::Exhausted,
                "1 of 1",
            ),
            (
                "kube-vip's",
                kube_vips(),
                elsewhere(),
                vec![full()],
                PendingReason::Unknown,
                "A controller other than MetalLB",
            ),
            (
                "of no class, where others have addresses and there is no pool",
                of_class(None),
                elsewhere(),
                vec![],
                PendingReason::Unknown,
                "A controller other than MetalLB",
            ),
            (
                "no class, no service has an address, no pool",
                of_class(None),
                testing::service("shop/other", &[]),
                vec![],
                PendingReason::NoPool,
                "There is no pool",
            ),
        ] {
            let (reason, sentence) = beside(&service, &[other], &pools);
            assert_eq!(reason, expected, "{what}: {sentence}");
            assert!(sentence.contains(summary), "{what}: {sentence}");
        }
    }

    #[test]
    fn a_pool_that_could_not_be_read_may_be_the_one() {
        let plain = || testing::service("shop/new", &[]);
        let asking = |ip: &str| Service {
            requested: vec![ip.parse().unwrap()],
            ..plain()
        };
        let full = || vec![testing::pool("one", json!({"addresses": ["192.0.2.1/32"]}))];
        let of_pool = Service {
            requested_pool: Some("gone".to_owned()),
            ..plain()
        };
        for (service, pools, expected) in [
            (plain(), vec![], PendingReason::Unknown),
            (plain(), full(), PendingReason::Unknown),
            (of_pool, full(), PendingReason::Unknown),
            (asking("203.0.113.1"), full(), PendingReason::Unknown),
            (asking("192.0.2.1"), full(), PendingReason::RequestedTaken),
        ] {
            let objects = ClusterObjects {
                services: vec![service.clone(), by_metallb(None)],
                metallb: pools,
                invalid: vec![InvalidObject {
                    resource: Resource::IpAddressPools,
                    object: "metallb-system/two".to_owned(),
                    error: "spec is not an object".to_owned(),
                }],
                ..testing::objects()
            };
            let (reason, sentence) = classify(&service, objects);
            assert_eq!(reason, expected, "{sentence}");
            assert!(
                expected != PendingReason::Unknown
                    || sentence.contains("Not every pool could be read"),
                "{sentence}"
            );
        }
    }

    #[test]
    fn no_reason_without_known_pools() {
        for known in [
            ResourceState::NeverRead,
            ResourceState::Forbidden,
            ResourceState::NotInstalled,
        ] {
            let mut objects = testing::objects();
            objects
                .freshness
                .insert(Resource::IpAddressPools, testing::freshness_of(known));
            let service = testing::service("shop/new", &[]);
            let cluster = ClusterSnapshot::from(objects);
            let (reason, _) = PendingClassifier::new(&cluster, &[]).reason(&service);
            assert_eq!(reason, PendingReason::Unknown);
        }
    }
}
