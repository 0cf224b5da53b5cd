//! Helpers for the unit tests of this crate and its users.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "json!() is written where it is used"
)]

use jiff::Timestamp;
use probe_common::wire::Vlan;
use probe_model::{CountsRecord, FindingKind, FindingRecord, NamespacedName, Severity};
use serde_json::{Value, json};

use super::snapshot::{ClusterObjects, Freshness, Resource, ResourceState, Service};

/// A time on a fixed day.
pub fn at(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().unwrap()
}

/// `shop/frontend`.
pub fn named(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap();
    NamespacedName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A service created at 10:00, with these addresses.
pub fn service(name: &str, addresses: &[&str]) -> Service {
    Service {
        named: named(name),
        uid: name.to_owned(),
        created: Some(at("10:00:00")),
        assigned: None,
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Service::default()
    }
}

/// A pool of `metallb-system`.
pub fn pool(name: &str, spec: Value) -> Value {
    metallb("IPAddressPool", &format!("metallb-system/{name}"), spec)
}

/// An object of MetalLB.
pub fn metallb(kind: &str, name: &str, spec: Value) -> Value {
    let NamespacedName { namespace, name } = named(name);
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

/// An empty cluster whose resources are all current.
pub fn objects() -> ClusterObjects {
    let freshness = Resource::ALL.iter();
    ClusterObjects {
        freshness: freshness
            .map(|&one| (one, freshness_of(ResourceState::Current)))
            .collect(),
        ..ClusterObjects::default()
    }
}

/// A freshness with this state.
pub fn freshness_of(state: ResourceState) -> Freshness {
    Freshness {
        state,
        last_update: Some(at("12:00:00")),
        error: None,
    }
}

/// A `contested` finding without owners.
pub fn contested(ip: &str, time: Timestamp) -> FindingRecord {
    FindingRecord {
        time,
        finding: FindingKind::Contested,
        severity: Severity::Warning,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: None,
        ip: ip.parse().unwrap(),
        drill: false,
        since: time,
        owners: Vec::new(),
        evidence: None,
        counts: CountsRecord::default(),
        hint: None,
        reason: None,
        cluster: None,
    }
}
