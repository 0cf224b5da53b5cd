//! The objects that a cluster with MetalLB has.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::Api;
use crate::wait::eventually;

/// Where MetalLB's objects are.
const METALLB: &str = "metallb-system";

/// For definitions to be served.
const SERVED: Duration = Duration::from_secs(20);

/// Kind and plural of what MetalLB defines, as far as it is read.
const KINDS: [(&str, &str); 4] = [
    ("IPAddressPool", "ipaddresspools"),
    ("L2Advertisement", "l2advertisements"),
    ("BGPAdvertisement", "bgpadvertisements"),
    ("ServiceL2Status", "servicel2statuses"),
];

/// The definitions of MetalLB's resources: with the schema of what is read, or, where not `strict`, with none, so that
/// the API server takes any nonsense for an object.
pub fn metallb_definitions(strict: bool) -> Vec<Value> {
    KINDS
        .iter()
        .map(|&(kind, plural)| {
            let schema = if strict {
                schema(kind)
            } else {
                json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
            };
            json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": { "name": format!("{plural}.metallb.io") },
                "spec": {
                    "group": "metallb.io",
                    "scope": "Namespaced",
                    "names": {
                        "kind": kind,
                        "listKind": format!("{kind}List"),
                        "plural": plural,
                        "singular": kind.to_lowercase(),
                    },
                    "versions": [{
                        "name": "v1beta1",
                        "served": true,
                        "storage": true,
                        "schema": { "openAPIV3Schema": schema },
                    }],
                },
            })
        })
        .collect()
}

fn schema(kind: &str) -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": text });
    // Selectors by label, and what else is only handed on.
    let whatever = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let selectors = json!({ "type": "array", "items": whatever });
    let (spec, status) = match kind {
        "IPAddressPool" => (
            json!({
                "type": "object",
                "required": ["addresses"],
                "properties": {
                    "addresses": texts,
                    "autoAssign": { "type": "boolean", "default": true },
                    "avoidBuggyIPs": { "type": "boolean", "default": false },
                    "serviceAllocation": whatever,
                },
            }),
            whatever,
        ),
        "ServiceL2Status" => (
            json!({ "type": "object" }),
            json!({
                "type": "object",
                "properties": {
                    "node": text,
                    "serviceName": text,
                    "serviceNamespace": text,
                    "interfaces": selectors,
                },
            }),
        ),
        _ => (
            json!({
                "type": "object",
                "properties": {
                    "ipAddressPools": texts,
                    "ipAddressPoolSelectors": selectors,
                    "nodeSelectors": selectors,
                    "interfaces": texts,
                    "aggregationLength": { "type": "integer" },
                    "communities": texts,
                    "peers": texts,
                },
            }),
            whatever,
        ),
    };
    json!({
        "type": "object",
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": { "type": "object" },
            "spec": spec,
            "status": status,
        },
    })
}

/// Makes MetalLB's namespace and definitions, and waits until they are served.
pub fn install_metallb(api: &Api, strict: bool) -> anyhow::Result<()> {
    api.create(&namespace(METALLB))?;
    api.create_all(&metallb_definitions(strict))?;
    for (_, plural) in KINDS {
        eventually(&format!("{plural} to be served"), SERVED, || {
            let path = format!("/apis/metallb.io/v1beta1/{plural}");
            // Before it is, the answer is text.
            Ok(api
                .get(&path)
                .is_ok_and(|answer| answer.status == 200)
                .then_some(()))
        })?;
    }
    Ok(())
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A pool of MetalLB's.
pub fn pool(name: &str, addresses: &[&str]) -> Value {
    metallb("IPAddressPool", name, &json!({ "addresses": addresses }))
}

/// An object of MetalLB's with a specification, such as an advertisement.
pub fn metallb(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": { "namespace": METALLB, "name": name },
        "spec": spec,
    })
}

/// MetalLB's word on which node announces a service.
pub fn l2_status(name: &str, node: &str, service: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "ServiceL2Status",
        "metadata": { "namespace": METALLB, "name": name },
        "status": {
            "node": node,
            "serviceName": service["metadata"]["name"],
            "serviceNamespace": service["metadata"]["namespace"],
            "interfaces": [{ "name": "eth0" }],
        },
    })
}

/// A Service of type `LoadBalancer` that has no address yet.
pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "type": "LoadBalancer",
            "selector": { "app": name },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
        },
    })
}

/// A Node with its address.
pub fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
        },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": address },
                { "type": "Hostname", "address": name },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}
