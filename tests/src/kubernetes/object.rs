//! The objects of a cluster with MetalLB.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::Api;
use crate::wait::eventually;

/// The namespace of MetalLB.
const METALLB: &str = "metallb-system";

/// Timeout until custom resources are served.
const SERVED_TIMEOUT: Duration = Duration::from_secs(20);

/// Kind and plural of the MetalLB resources that the daemon reads.
const KINDS: [(&str, &str); 4] = [
    ("IPAddressPool", "ipaddresspools"),
    ("L2Advertisement", "l2advertisements"),
    ("BGPAdvertisement", "bgpadvertisements"),
    ("ServiceL2Status", "servicel2statuses"),
];

/// The custom resource definitions of MetalLB. If `strict` is false, they have no schema, so that the API server
/// accepts invalid objects.
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
    // Label selectors and other fields that are not validated.
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

/// Creates the namespace and the resource definitions of MetalLB and waits until they are served.
pub fn install_metallb(api: &Api, strict: bool) -> anyhow::Result<()> {
    api.create(&namespace(METALLB))?;
    api.create_all(&metallb_definitions(strict))?;
    for (_, plural) in KINDS {
        eventually(&format!("{plural} to be served"), SERVED_TIMEOUT, || {
            let path = format!("/apis/metallb.io/v1beta1/{plural}");
            // The response is plain text until the resource is served.
            Ok(api
                .get(&path)
                .is_ok_and(|response| response.status == 200)
                .then_some(()))
        })?;
    }
    Ok(())
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// An `IPAddressPool` of MetalLB.
pub fn pool(name: &str, addresses: &[&str]) -> Value {
    metallb("IPAddressPool", name, &json!({ "addresses": addresses }))
}

/// A MetalLB object with a specification, for example an advertisement.
pub fn metallb(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": { "namespace": METALLB, "name": name },
        "spec": spec,
    })
}

/// A `ServiceL2Status`: the node that announces a service.
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
