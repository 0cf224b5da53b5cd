//! Why a service has no address: from what it asks for, and what the pools have.
//!
//! The rules are tried in this order; the first that holds is the reason: another controller's class; a requested pool
//! that is not there; a requested address outside the pools, or taken; no pool that would give it one; none with an
//! address left. Otherwise it is unknown.

use std::{collections::HashMap, net::IpAddr};

use serde_json::Value;

use super::{
    drift::Reason,
    model::{Cluster, Named, Resource, Service},
    usage::{AddressFamily, PoolUsage, name_of},
};
use crate::pools::{Pool, PoolKind};

/// More pools than this are not listed in a sentence.
const MOST_NAMES: usize = 3;

/// Whether MetalLB gives a service its address: what it says itself, else by its class, as nobody else has.
pub fn is_metallbs(service: &Service) -> bool {
    let class = service.class.as_deref();
    let may_be = class.is_none_or(|class| class.contains("metallb"));
    service.allocated_from.is_some() || (may_be && service.kube_vip_host.is_none())
}

/// Finds out why services have no address. What is the same for all of them is looked at once: there may be thousands.
#[derive(Debug)]
pub struct Judge<'a> {
    cluster: &'a Cluster,
    /// The pools; none if they are not known.
    pools: Option<Vec<Allocating<'a>>>,
}

/// A pool, for whom it is, and how much is left of it.
#[derive(Debug)]
struct Allocating<'a> {
    pool: &'a Pool,
    /// The namespaces that it is for; empty if it is for all, or for some that cannot be told from here.
    namespaces: Vec<&'a str>,
    usage: Vec<PoolUsage>,
}

impl<'a> Judge<'a> {
    /// Looks at the pools.
    pub fn new(cluster: &'a Cluster, usage: &[PoolUsage]) -> Self {
        let mut by_pool: HashMap<&Named, Vec<PoolUsage>> = HashMap::new();
        for usage in usage {
            by_pool.entry(&usage.pool).or_default().push(usage.clone());
        }
        let objects = cluster.objects().metallb.iter();
        let namespaces: HashMap<_, _> = objects
            .filter_map(|object| Some((called(object)?, namespaces_of(object))))
            .collect();
        let pools = || -> Vec<_> {
            let pools = cluster.inventory().pools.iter();
            let pools = pools.filter(|pool| pool.kind == PoolKind::IpAddressPool);
            let pools = pools.map(|pool| {
                let name = name_of(pool);
                Allocating {
                    pool,
                    namespaces: namespaces.get(&name).cloned().unwrap_or_default(),
                    usage: by_pool.get(&name).cloned().unwrap_or_default(),
                }
            });
            pools.collect()
        };
        let are_there = super::drift::is_there(cluster, Resource::IpAddressPools);
        Self {
            cluster,
            pools: are_there.then(pools),
        }
    }

    /// Why a service without an address has none, and what says so.
    pub fn reason(&self, service: &Service) -> (Reason, String) {
        if let Some(class) = service.class.as_deref().filter(|_| !is_metallbs(service)) {
            let sentence = format!(
                "Its loadBalancerClass is {class}: the controller of that class gives it an address, or nobody does"
            );
            return (Reason::ForeignClass, sentence);
        }
        let Some(pools) = &self.pools else {
            let sentence = "MetalLB's pools are not known here; the events of the service say more";
            return (Reason::Unknown, sentence.to_owned());
        };
        let wanted = service.requested_pool.as_deref();
        if let Some(name) = wanted
            && !pools.iter().any(|one| one.pool.name == name)
        {
            let sentence = format!("It asks for the pool {name}, which is not there");
            return (Reason::RequestedPoolUnknown, sentence);
        }
        let refused = service.requested.iter();
        let refused = refused.filter_map(|&ip| self.refused(service, wanted, ip));
        if let Some(refused) = refused.into_iter().next() {
            return refused;
        }
        if service.requested.is_empty() {
            unasked(pools, service, wanted)
        } else {
            unknown()
        }
    }

    /// Why a service cannot have the address that it asks for.
    fn refused(
        &self,
        service: &Service,
        wanted: Option<&str>,
        ip: IpAddr,
    ) -> Option<(Reason, String)> {
        let in_wanted = |pool: &&Pool| wanted.is_none_or(|name| pool.name == name);
        let mut holding = self.cluster.pools_at(ip).filter(in_wanted);
        if !holding.any(|pool| hands_out(pool, ip)) {
            let place = wanted.map_or_else(
                || "in no pool".to_owned(),
                |name| format!("not in the pool {name}"),
            );
            let sentence = format!("It asks for {ip}, which is {place}");
            return Some((Reason::RequestedOutside, sentence));
        }
        let others = self.cluster.services_at(ip);
        let mut others = others.filter(|other| other.named != service.named);
        let other = others.find(|other| {
            service.sharing_key.is_none() || other.sharing_key != service.sharing_key
        })?;
        let sentence = format!("It asks for {ip}, which {} has", other.named);
        Some((Reason::RequestedTaken, sentence))
    }
}

/// Of a service that asks for no address.
fn unasked(pools: &[Allocating<'_>], service: &Service, wanted: Option<&str>) -> (Reason, String) {
    if pools.is_empty() {
        return (Reason::NoPool, "There is no pool".to_owned());
    }
    let namespace = service.named.namespace.as_str();
    let eligible = pools.iter().filter(|one| {
        let is_meant = wanted.map_or(one.pool.auto_assign, |name| one.pool.name == name);
        is_meant && (one.namespaces.is_empty() || one.namespaces.contains(&namespace))
    });
    let eligible: Vec<_> = eligible.collect();
    if eligible.is_empty() {
        let sentence = "No pool gives it an address unasked (autoAssign, serviceAllocation)";
        return (Reason::NoPool, sentence.to_owned());
    }
    let of_family = |family| {
        let usage = eligible.iter().flat_map(|one| &one.usage);
        usage.filter(move |usage| usage.family == family)
    };
    // Which family a service wants is not known; most want IPv4 where there is any.
    let mut usage: Vec<_> = of_family(AddressFamily::V4).collect();
    if usage.is_empty() {
        usage = of_family(AddressFamily::V6).collect();
    }
    if usage.iter().all(|usage| usage.free() == 0) {
        let full = usage.iter().take(MOST_NAMES).map(|usage| in_words(usage));
        let full: Vec<_> = full.collect();
        return (
            Reason::Exhausted,
            format!("No address is left: {}", full.join(", ")),
        );
    }
    unknown()
}

fn unknown() -> (Reason, String) {
    let sentence = "Nothing in its pools says why; the events of the service say more";
    (Reason::Unknown, sentence.to_owned())
}

fn in_words(usage: &PoolUsage) -> String {
    let PoolUsage {
        pool,
        total,
        assigned,
        ..
    } = usage;
    format!("{assigned} of {total} of {pool} are assigned")
}

/// Whether a pool that holds an address gives it to whoever asks for it.
fn hands_out(pool: &Pool, ip: IpAddr) -> bool {
    let is_buggy = matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255));
    !(pool.avoid_buggy_ips && is_buggy)
}

/// The namespaces that a pool is for, by `spec.serviceAllocation`; none if it is for all. Selectors look at labels that
/// are not followed: they may match.
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

/// What a pool is called.
fn called(object: &Value) -> Option<Named> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    (text("/kind") == Some(PoolKind::IpAddressPool.label())).then(|| Named {
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::{Objects, model::Known, testing, usage::usage};

    fn wanting(service: &Service, pools: &[Value]) -> (Reason, String) {
        let cluster = Cluster::from(Objects {
            services: vec![
                service.clone(),
                testing::service("shop/other", &["192.0.2.1"]),
            ],
            metallb: pools.to_vec(),
            ..testing::objects()
        });
        Judge::new(&cluster, &usage(&cluster)).reason(service)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn each_reason_is_found_and_the_first_that_holds_is_said() {
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
        let sharing = Service {
            sharing_key: Some("web".to_owned()),
            ..asking(&["192.0.2.1"])
        };
        for (what, service, pools, expected, says) in [
            (
                "another's class",
                class("io.cilium/l2-announcer"),
                vec![roomy()],
                Reason::ForeignClass,
                "io.cilium",
            ),
            (
                "MetalLB's class",
                class("metallb"),
                vec![roomy()],
                Reason::RequestedOutside,
                "203.0.113.1",
            ),
            (
                "no such pool",
                of_pool("gone"),
                vec![roomy()],
                Reason::RequestedPoolUnknown,
                "pool gone",
            ),
            (
                "outside",
                asking(&["203.0.113.1"]),
                vec![roomy()],
                Reason::RequestedOutside,
                "which is in no pool",
            ),
            (
                "outside what was asked for",
                Service {
                    requested_pool: Some("one".to_owned()),
                    ..asking(&["203.0.113.1"])
                },
                vec![roomy()],
                Reason::RequestedOutside,
                "which is not in the pool one",
            ),
            (
                "left out",
                asking(&["192.0.2.255"]),
                vec![with("avoidBuggyIPs", json!(true))],
                Reason::RequestedOutside,
                "192.0.2.255",
            ),
            (
                "taken",
                asking(&["192.0.2.1"]),
                vec![roomy()],
                Reason::RequestedTaken,
                "which shop/other has",
            ),
            (
                "taken, with a key of its own",
                sharing,
                vec![roomy()],
                Reason::RequestedTaken,
                "shop/other",
            ),
            (
                "free",
                asking(&["192.0.2.2"]),
                vec![roomy()],
                Reason::Unknown,
                "events",
            ),
            (
                "no pool",
                plain(),
                vec![],
                Reason::NoPool,
                "There is no pool",
            ),
            (
                "only for who asks",
                plain(),
                vec![with("autoAssign", json!(false))],
                Reason::NoPool,
                "autoAssign",
            ),
            (
                "who asks",
                of_pool("one"),
                vec![with("autoAssign", json!(false))],
                Reason::Unknown,
                "",
            ),
            (
                "for others",
                plain(),
                vec![with("serviceAllocation", json!({"namespaces": ["db"]}))],
                Reason::NoPool,
                "serviceAllocation",
            ),
            (
                "for us",
                plain(),
                vec![with("serviceAllocation", json!({"namespaces": ["shop"]}))],
                Reason::Unknown,
                "",
            ),
            (
                "full",
                plain(),
                vec![full()],
                Reason::Exhausted,
                "1 of 1 of metallb-system/one are assigned",
            ),
            (
                "full of IPv4",
                plain(),
                vec![testing::pool(
                    "one",
                    json!({"addresses": ["192.0.2.1/32", "2001:db8::/64"]}),
                )],
                Reason::Exhausted,
                "1 of 1",
            ),
            (
                "another has room",
                plain(),
                vec![
                    full(),
                    testing::pool("two", json!({"addresses": ["198.51.100.0/24"]})),
                ],
                Reason::Unknown,
                "",
            ),
        ] {
            let (reason, sentence) = wanting(&service, &pools);
            assert_eq!(reason, expected, "{what}: {sentence}");
            assert!(sentence.contains(says), "{what}: {sentence}");
        }
    }

    #[test]
    fn without_knowledge_of_pools_there_is_no_reason() {
        for known in [Known::Never, Known::Forbidden, Known::Missing] {
            let mut objects = testing::objects();
            objects
                .freshness
                .insert(Resource::IpAddressPools, testing::freshness_of(known));
            let service = testing::service("shop/new", &[]);
            let cluster = Cluster::from(objects);
            let (reason, _) = Judge::new(&cluster, &[]).reason(&service);
            assert_eq!(reason, Reason::Unknown);
        }
    }
}
