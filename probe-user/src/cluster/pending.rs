//! Why a service has no address: from what it asks for, and what the pools have.
//!
//! The rules are tried in this order; the first that holds is the reason: another controller's class; a requested pool
//! that is not there; a requested address outside the pools, or taken; no pool that would give it one; none with an
//! address left. Otherwise it is unknown.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    drift::Reason,
    model::{Cluster, Named, Resource, Service},
    usage::{AddressFamily, PoolUsage, name_of, usage},
};
use crate::pools::{Pool, PoolKind};

/// Whether MetalLB gives a service its address: what it says itself, else by its class, as nobody else has.
pub fn is_metallbs(service: &Service) -> bool {
    let class = service.class.as_deref();
    let may_be = class.is_none_or(|class| class.contains("metallb"));
    service.allocated_from.is_some() || (may_be && service.kube_vip_host.is_none())
}

/// Why a service without an address has none, and what says so.
pub fn reason(cluster: &Cluster, service: &Service) -> (Reason, String) {
    if let Some(class) = service.class.as_deref().filter(|_| !is_metallbs(service)) {
        let sentence = format!(
            "Its loadBalancerClass is {class}: the controller of that class gives it an address, or nobody does"
        );
        return (Reason::ForeignClass, sentence);
    }
    if !super::drift::is_there(cluster, Resource::IpAddressPools) {
        let sentence = "MetalLB's pools are not known here; the events of the service say more";
        return (Reason::Unknown, sentence.to_owned());
    }
    let pools = cluster.inventory().pools.iter();
    let pools: Vec<_> = pools
        .filter(|pool| pool.kind == PoolKind::IpAddressPool)
        .collect();
    let wanted = service.requested_pool.as_deref();
    if let Some(name) = wanted
        && !pools.iter().any(|pool| pool.name == name)
    {
        return (
            Reason::RequestedPoolUnknown,
            format!("It asks for the pool {name}, which is not there"),
        );
    }
    let in_wanted = |pool: &&Pool| wanted.is_none_or(|name| pool.name == name);
    for &ip in &service.requested {
        let mut holding = cluster.pools_at(ip).filter(in_wanted);
        if !holding.any(|pool| hands_out(pool, ip)) {
            let place = wanted.map_or_else(
                || "in no pool".to_owned(),
                |name| format!("not in the pool {name}"),
            );
            return (
                Reason::RequestedOutside,
                format!("It asks for {ip}, which is {place}"),
            );
        }
        let others = cluster
            .services_at(ip)
            .filter(|other| other.named != service.named);
        let mut taken = others.filter(|other| {
            service.sharing_key.is_none() || other.sharing_key != service.sharing_key
        });
        if let Some(other) = taken.next() {
            return (
                Reason::RequestedTaken,
                format!("It asks for {ip}, which {} has", other.named),
            );
        }
    }
    if !service.requested.is_empty() {
        return unknown();
    }
    unasked(cluster, service, &pools, wanted)
}

/// Of a service that asks for no address.
fn unasked(
    cluster: &Cluster,
    service: &Service,
    pools: &[&Pool],
    wanted: Option<&str>,
) -> (Reason, String) {
    if pools.is_empty() {
        return (Reason::NoPool, "There is no pool".to_owned());
    }
    let eligible = pools.iter().filter(|pool| match wanted {
        Some(name) => pool.name == name,
        None => pool.auto_assign,
    });
    let eligible = eligible.filter(|pool| may_use(cluster, pool, &service.named));
    let eligible: BTreeSet<_> = eligible.map(|pool| name_of(pool)).collect();
    if eligible.is_empty() {
        let sentence = "No pool gives it an address unasked (autoAssign, serviceAllocation)";
        return (Reason::NoPool, sentence.to_owned());
    }
    let usage = usage(cluster);
    let of_family = |family| {
        let usage = usage.iter().filter(move |usage| usage.family == family);
        usage
            .filter(|usage| eligible.contains(&usage.pool))
            .collect::<Vec<_>>()
    };
    // Which family a service wants is not known; most want IPv4 where there is any.
    let mut usage = of_family(AddressFamily::V4);
    if usage.is_empty() {
        usage = of_family(AddressFamily::V6);
    }
    if usage.iter().all(|usage| usage.free() == 0) {
        let full: Vec<_> = usage.iter().map(|usage| in_words(usage)).collect();
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

/// Whether a pool is for services of a namespace. Selectors look at labels that are not followed: they may match.
fn may_use(cluster: &Cluster, pool: &Pool, service: &Named) -> bool {
    let name = name_of(pool);
    let objects = cluster.objects().metallb.iter();
    let mut objects = objects.filter(|object| is_called(object, "IPAddressPool", &name));
    let allocation = objects.find_map(|object| object.pointer("/spec/serviceAllocation"));
    let list = |key: &str| {
        let list = allocation.and_then(|allocation| allocation.get(key)?.as_array());
        list.map(Vec::as_slice).unwrap_or_default()
    };
    let namespaces = list("namespaces");
    let is_listed = namespaces
        .iter()
        .any(|name| name.as_str() == Some(&service.namespace));
    namespaces.is_empty() || is_listed || !list("namespaceSelectors").is_empty()
}

/// Whether an object is of this kind and has this name.
pub(super) fn is_called(object: &Value, kind: &str, name: &Named) -> bool {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    text("/kind") == Some(kind)
        && text("/metadata/name") == Some(&name.name)
        && text("/metadata/namespace").unwrap_or_default() == name.namespace
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::{Objects, model::Known, testing};

    fn wanting(service: Service, pools: &[Value]) -> (Reason, String) {
        let cluster = Cluster::from(Objects {
            services: vec![
                service.clone(),
                testing::service("shop/other", &["192.0.2.1"]),
            ],
            metallb: pools.to_vec(),
            ..testing::objects()
        });
        reason(&cluster, &service)
    }

    #[test]
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
            let (reason, sentence) = wanting(service, &pools);
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
            let (reason, _) = reason(&Cluster::from(objects), &service);
            assert_eq!(reason, Reason::Unknown);
        }
    }
}
