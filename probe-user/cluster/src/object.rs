//! Parses objects of the API server.
//!
//! Objects are untrusted: fields may be missing, of another type, too long or wrong. An invalid field becomes an
//! [`InvalidObject`] and is left out; every other field is still used.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use probe_common::wire::MacAddr;
use probe_model::NamespacedName;
use probe_pools::{Labels, PoolInventory, manifest};
use serde_json::{Map, Value};

use super::{
    snapshot::{InvalidObject, L2Status, Node, Resource, Service},
    usage::AddressFamily,
};

/// Maximum length of the name of a Kubernetes object, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Maximum length of other stored texts (UIDs, classes, keys), in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Maximum length of a list of addresses, in bytes.
const MAX_LIST_BYTES: usize = 4 * MAX_TEXT_BYTES;

/// Maximum size of an object that is stored as a whole, in bytes of JSON.
const MAX_OBJECT_BYTES: usize = 256 << 10;

/// Maximum number of stored addresses of one service or node.
const MAX_ADDRESSES: usize = 64;

/// Maximum number of reported errors of one object.
const MAX_ERRORS: usize = 8;

/// Maximum number of stored labels of a node.
pub const MAX_LABELS: usize = 64;

/// Maximum length of the key of a label with its prefix, in bytes.
const MAX_LABEL_BYTES: usize = 317;

/// Maximum length of the value of a label, in bytes.
const MAX_LABEL_VALUE_BYTES: usize = 63;

/// Maximum number of bytes of a value that an error quotes.
const MAX_QUOTE_BYTES: usize = 64;

/// The prefixes of MetalLB's annotations: current, and before 0.14.
const METALLB: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

/// Annotations that request addresses, other than MetalLB's.
const REQUESTED: [&str; 3] = [
    "kube-vip.io/loadbalancerIPs",
    "lbipam.cilium.io/ips",
    "io.cilium/lb-ipam-ips",
];

/// Annotations with the key for sharing an address, other than MetalLB's.
const SHARING: [&str; 2] = [
    "lbipam.cilium.io/sharing-key",
    "io.cilium/lb-ipam-sharing-key",
];

const KUBE_VIP_HOST: &str = "kube-vip.io/vipHost";
const KUBE_VIP_MAC: &str = "kube-vip.io/hwaddr";

/// The prefix of Cilium's load balancer classes.
const CILIUM_CLASS: &str = "io.cilium/";
/// The condition that Cilium sets on a service when it has assigned addresses: current name and former name.
const CILIUM_CONDITION: [&str; 2] = [
    "cilium.io/IPAMRequestSatisfied",
    "io.cilium/lb-ipam-request-satisfied",
];

/// A copy of the whole object, for `kubectl apply`.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object after parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedObject {
    /// A Service of type `LoadBalancer`.
    Service(Box<Service>),
    /// A `ServiceL2Status`: the node that announces a service, by MetalLB.
    Status(L2Status),
    /// A pool or an advertisement.
    Metallb(Value),
}

/// The outcome of parsing an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOutcome {
    /// The parsed object; `None` for a service of another type, and for an object that cannot be identified.
    pub object: Option<ParsedObject>,
    /// The fields that could not be parsed.
    pub invalid: Vec<InvalidObject>,
    /// Fields that this version does not know, which a newer MetalLB may have added.
    pub unknown_fields: Vec<String>,
}

impl ParseOutcome {
    /// The service, and the node that the object names as its announcer.
    pub fn announcer(&self) -> Option<(&NamespacedName, &str)> {
        match self.object.as_ref()? {
            ParsedObject::Status(status) => Some((&status.service, &status.node)),
            ParsedObject::Service(service) => {
                Some((&service.named, service.kube_vip_host.as_deref()?))
            }
            ParsedObject::Metallb(_) => None,
        }
    }
}

/// The namespace and name of an object; both empty if missing.
pub fn named(object: &Value) -> NamespacedName {
    let name = |key| {
        let text = object.pointer(key).and_then(Value::as_str);
        // Kubernetes allows no other names, and they become part of commands that people paste.
        let is_name = |text: &&str| {
            let mut bytes = text.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        };
        text.filter(is_name)
            .map(|text| shorten(text, MAX_NAME_BYTES))
            .unwrap_or_default()
    };
    NamespacedName {
        namespace: name("/metadata/namespace"),
        name: name("/metadata/name"),
    }
}

/// The resource version of an object; `None` if it is not safe to use in a request path.
pub fn version(object: &Value) -> Option<&str> {
    let version = object.pointer("/metadata/resourceVersion")?.as_str()?;
    let is_good = (1..=64).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_good.then_some(version)
}

/// Parses one object of a resource.
pub fn read(resource: Resource, object: Value) -> ParseOutcome {
    let named = named(&object);
    let mut errors = FieldErrors {
        resource,
        object: if named.namespace.is_empty() {
            named.name.clone()
        } else {
            named.to_string()
        },
        invalid: Vec::new(),
    };
    let unknown_fields = unknown_fields(resource, &object);
    let object = if named.name.is_empty() {
        errors.add("metadata.name", "is not a name");
        None
    } else {
        match resource {
            Resource::Services => service(&object, named, &mut errors).map(ParsedObject::Service),
            Resource::ServiceL2Statuses => {
                status(&object, named, &mut errors).map(ParsedObject::Status)
            }
            Resource::IpAddressPools | Resource::L2Advertisements | Resource::BgpAdvertisements => {
                metallb(resource, object, &mut errors).map(ParsedObject::Metallb)
            }
        }
    };
    ParseOutcome {
        object,
        invalid: errors.invalid,
        unknown_fields,
    }
}

/// The known fields of a resource, and the part of the object that contains them; `None` for Services, whose fields
/// belong to Kubernetes.
const fn known_fields(resource: Resource) -> Option<(&'static str, &'static [&'static str])> {
    Some(match resource {
        Resource::Services => return None,
        Resource::IpAddressPools => (
            "spec",
            &[
                "addresses",
                "autoAssign",
                "avoidBuggyIPs",
                "serviceAllocation",
            ],
        ),
        Resource::L2Advertisements => (
            "spec",
            &[
                "interfaces",
                "ipAddressPoolSelectors",
                "ipAddressPools",
                "nodeSelectors",
                "serviceSelectors",
            ],
        ),
        Resource::BgpAdvertisements => (
            "spec",
            &[
                "aggregationLength",
                "aggregationLengthV6",
                "communities",
                "ipAddressPoolSelectors",
                "ipAddressPools",
                "localPref",
                "nodeSelectors",
                "peers",
                "serviceSelectors",
            ],
        ),
        Resource::ServiceL2Statuses => (
            "status",
            &["interfaces", "node", "serviceName", "serviceNamespace"],
        ),
    })
}

/// The unknown fields of an object.
fn unknown_fields(resource: Resource, object: &Value) -> Vec<String> {
    let Some((part, known)) = known_fields(resource) else {
        return Vec::new();
    };
    let fields = object.get(part).and_then(Value::as_object);
    let unknown = fields.into_iter().flatten().filter_map(|(field, _)| {
        let is_name =
            field.len() <= MAX_NAME_BYTES && field.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_name && !known.contains(&field.as_str())).then(|| format!("{part}.{field}"))
    });
    unknown.take(MAX_ERRORS).collect()
}

/// Parses a node with the `wanted` labels; `None` without a name.
pub fn node(object: &Value, wanted: &BTreeSet<String>) -> Option<Node> {
    let name = named(object).name;
    if name.is_empty() {
        return None;
    }
    let addresses = object
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    let addresses = addresses
        .into_iter()
        .flatten()
        .filter(|address| {
            let kind = address.get("type").and_then(Value::as_str);
            matches!(kind, Some("InternalIP" | "ExternalIP"))
        })
        .filter_map(|address| address.get("address")?.as_str()?.parse().ok())
        .take(MAX_ADDRESSES)
        .collect();
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let label = |key: &String| {
        let value = labels?.get(key)?.as_str()?;
        (value.len() <= MAX_NAME_BYTES).then(|| value.to_owned())
    };
    Some(Node {
        name,
        addresses,
        labels: wanted.iter().map(|key| (key.clone(), label(key))).collect(),
    })
}

/// The labels of nodes that advertisements select by: the keys in `nodeSelectors`.
pub fn selected_labels(metallb: &[Value]) -> BTreeSet<String> {
    let selectors = metallb
        .iter()
        .filter_map(|object| object.pointer("/spec/nodeSelectors")?.as_array())
        .flatten();
    let mut labels = BTreeSet::new();
    for selector in selectors {
        let matched = selector.get("matchLabels").and_then(Value::as_object);
        labels.extend(matched.into_iter().flatten().map(|(key, _)| key.clone()));
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        let keys = expressions.into_iter().flatten();
        let keys = keys.filter_map(|expression| expression.get("key")?.as_str());
        labels.extend(keys.map(str::to_owned));
        if labels.len() > MAX_LABELS {
            break;
        }
    }
    labels.retain(|key| key.len() <= MAX_LABEL_BYTES);
    labels
}

/// The number of ready endpoints in an `EndpointSlice`.
pub fn ready_endpoints(slice: &Value) -> usize {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.into_iter().flatten();
    endpoints
        .filter(|endpoint| {
            // By the API, an endpoint without the condition is ready.
            let ready = endpoint.pointer("/conditions/ready");
            ready.and_then(Value::as_bool).unwrap_or(true)
        })
        .count()
}

struct FieldErrors {
    resource: Resource,
    object: String,
    invalid: Vec<InvalidObject>,
}

impl FieldErrors {
    fn add(&mut self, field: &str, fault: &str) {
        if self.invalid.len() < MAX_ERRORS {
            self.invalid.push(InvalidObject {
                resource: self.resource,
                object: self.object.clone(),
                error: format!("{field} {fault}").trim().to_owned(),
            });
        }
    }

    /// Records an error if a field is present and not an object.
    fn object(&mut self, value: Option<&Value>, field: &str) {
        if value.is_some_and(|value| !value.is_object() && !value.is_null()) {
            self.add(field, "is not an object");
        }
    }

    /// The text at a path; `None` if absent or empty.
    fn text<'a>(&mut self, object: &'a Value, pointer: &str) -> Option<&'a str> {
        let value = object.pointer(pointer)?;
        self.check(value, || path(pointer), MAX_TEXT_BYTES)
    }

    /// A value as text, or records an error.
    fn check<'a>(
        &mut self,
        value: &'a Value,
        field: impl Fn() -> String,
        longest: usize,
    ) -> Option<&'a str> {
        match value {
            Value::Null => None,
            // Users who may create services must not inject control sequences into the terminals of others.
            Value::String(text) if text.chars().any(char::is_control) => {
                self.add(&field(), "has control characters");
                None
            }
            Value::String(text) if text.len() <= longest => Some(text.as_str()),
            Value::String(_) => {
                self.add(&field(), "is too long");
                None
            }
            _ => {
                self.add(&field(), "is not a string");
                None
            }
        }
        .filter(|text| !text.is_empty())
    }

    fn annotation<'a>(&mut self, object: &'a Value, key: &str, longest: usize) -> Option<&'a str> {
        let value = object.pointer("/metadata/annotations")?.get(key)?;
        self.check(value, || format!("the annotation {key}"), longest)
    }

    /// The first of these annotations that is set.
    fn first<'a>(
        &mut self,
        object: &'a Value,
        keys: impl IntoIterator<Item = String>,
    ) -> Option<&'a str> {
        keys.into_iter()
            .find_map(|key| self.annotation(object, &key, MAX_NAME_BYTES))
    }

    fn time(&mut self, object: &Value, pointer: &str) -> Option<Timestamp> {
        let text = self.text(object, pointer)?;
        let time = text.parse().ok();
        if time.is_none() {
            self.add(&path(pointer), "is not a time");
        }
        time
    }

    fn address(&mut self, text: &str, field: &str) -> Option<IpAddr> {
        let text = text.trim();
        let address = text.parse().ok();
        if address.is_none() {
            let quote = shorten(text, MAX_QUOTE_BYTES);
            self.add(field, &format!("is not an address: {quote:?}"));
        }
        address
    }
}

/// The path of a field in dotted form: `spec.type` for `/spec/type`.
fn path(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// Truncates a text to `longest` bytes.
fn shorten(text: &str, longest: usize) -> String {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The annotation keys of MetalLB for this name, the current prefix first.
fn metallb_keys(name: &str) -> impl Iterator<Item = String> {
    METALLB
        .into_iter()
        .map(move |prefix| format!("{prefix}{name}"))
}

fn service(
    object: &Value,
    named: NamespacedName,
    errors: &mut FieldErrors,
) -> Option<Box<Service>> {
    if errors.text(object, "/spec/type") != Some("LoadBalancer") {
        return None;
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let sharing = metallb_keys("allow-shared-ip").chain(SHARING.map(str::to_owned));
    let class = owned(errors.text(object, "/spec/loadBalancerClass"));
    let (requested, has_conflicting_requests) = requested(object, errors);
    Some(Box::new(Service {
        uid: owned(errors.text(object, "/metadata/uid")).unwrap_or_default(),
        created: errors.time(object, "/metadata/creationTimestamp"),
        assigned: assigned(object),
        addresses: addresses(object, errors),
        has_ingress: has_ingress(object),
        families: families(object, errors),
        requested,
        has_conflicting_requests,
        requested_pool: owned(errors.first(object, metallb_keys("address-pool"))),
        allocated_from: owned(errors.first(object, metallb_keys("ip-allocated-from-pool"))),
        is_cilium: is_cilium_service(object, class.as_deref()),
        class,
        sharing_key: owned(errors.first(object, sharing)),
        kube_vip_host: owned(errors.annotation(object, KUBE_VIP_HOST, MAX_NAME_BYTES)),
        kube_vip_mac: kube_vip_mac(object, errors),
        labels: labels(object),
        external_traffic_policy_local: errors.text(object, "/spec/externalTrafficPolicy")
            == Some("Local"),
        named,
    }))
}

/// The labels of an object, without those that exceed the limits.
fn labels(object: &Value) -> Labels {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    let texts = labels.filter_map(|(key, value)| Some((key, value.as_str()?)));
    let short = texts.filter(|(key, value)| {
        key.len() <= MAX_LABEL_BYTES && value.len() <= MAX_LABEL_VALUE_BYTES
    });
    short
        .take(MAX_LABELS)
        .map(|(key, value)| (key.clone(), value.to_owned()))
        .collect()
}

/// Whether the status of a service has any ingress entry: an address, a hostname or an invalid entry.
fn has_ingress(object: &Value) -> bool {
    let ingress = object.pointer("/status/loadBalancer/ingress");
    let ingress = ingress.and_then(Value::as_array);
    ingress.is_some_and(|ingress| !ingress.is_empty())
}

/// The address families that a service requests.
fn families(object: &Value, errors: &mut FieldErrors) -> Vec<AddressFamily> {
    let families = object.pointer("/spec/ipFamilies").and_then(Value::as_array);
    let mut known = Vec::new();
    for family in families.into_iter().flatten() {
        let family = match family.as_str() {
            Some("IPv4") => AddressFamily::V4,
            Some("IPv6") => AddressFamily::V6,
            _ => {
                errors.add("spec.ipFamilies", "contains an unknown IP family");
                continue;
            }
        };
        if !known.contains(&family) {
            known.push(family);
        }
    }
    known
}

fn is_cilium_service(object: &Value, class: Option<&str>) -> bool {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let gave = |condition: &Value| {
        let text = |key| condition.get(key).and_then(Value::as_str);
        text("type").is_some_and(|kind| CILIUM_CONDITION.contains(&kind))
            && text("status") == Some("True")
    };
    class.is_some_and(|class| class.starts_with(CILIUM_CLASS))
        || conditions.is_some_and(|conditions| conditions.iter().any(gave))
}

fn kube_vip_mac(object: &Value, errors: &mut FieldErrors) -> Option<MacAddr> {
    let text = errors.annotation(object, KUBE_VIP_MAC, MAX_NAME_BYTES)?;
    let mac = text.parse().ok();
    if mac.is_none() {
        let field = format!("the annotation {KUBE_VIP_MAC}");
        let quote = shorten(text, MAX_QUOTE_BYTES);
        errors.add(&field, &format!("is not a MAC address: {quote:?}"));
    }
    mac
}

/// When the addresses of a service were last written; not every server records it.
fn assigned(object: &Value) -> Option<Timestamp> {
    let writers = object.pointer("/metadata/managedFields")?.as_array()?;
    let wrote = writers.iter().filter(|writer| {
        let addresses = writer.pointer("/fieldsV1/f:status/f:loadBalancer/f:ingress");
        addresses.is_some()
    });
    let times = wrote.filter_map(|writer| writer.get("time")?.as_str()?.parse().ok());
    times.max()
}

/// The assigned addresses of a service.
fn addresses(object: &Value, errors: &mut FieldErrors) -> Vec<IpAddr> {
    const FIELD: &str = "status.loadBalancer.ingress";
    let mut addresses = Vec::new();
    let ingress = match object.pointer("/status/loadBalancer/ingress") {
        None | Some(Value::Null) => return addresses,
        Some(Value::Array(ingress)) => ingress,
        Some(_) => {
            errors.add(FIELD, "is not a list");
            return addresses;
        }
    };
    for (number, entry) in ingress.iter().enumerate() {
        let field = || format!("{FIELD}[{number}].ip");
        let Some(entry) = entry.as_object() else {
            errors.add(&format!("{FIELD}[{number}]"), "is not an object");
            continue;
        };
        // Other load balancers set a hostname without an address.
        let text = entry
            .get("ip")
            .and_then(|ip| errors.check(ip, field, MAX_TEXT_BYTES));
        let Some(address) = text.and_then(|text| errors.address(text, &field())) else {
            continue;
        };
        if !add(&mut addresses, address) {
            errors.add(FIELD, "has too many addresses");
            break;
        }
    }
    addresses
}

/// The requested addresses, and whether they are requested in both ways, which MetalLB rejects.
fn requested(object: &Value, errors: &mut FieldErrors) -> (Vec<IpAddr>, bool) {
    let mut requested = Vec::new();
    let mut take = |text: &str, field: &str, errors: &mut FieldErrors| {
        for text in text.split(',').filter(|text| !text.trim().is_empty()) {
            let address = errors.address(text, field);
            // kube-vip uses 0.0.0.0 to request an address by DHCP.
            let address = address.filter(|address| !address.is_unspecified());
            if address.is_some_and(|address| !add(&mut requested, address)) {
                errors.add(field, "has too many addresses");
                return;
            }
        }
    };
    let in_spec = errors.text(object, "/spec/loadBalancerIP");
    if let Some(text) = in_spec {
        take(text, "spec.loadBalancerIP", errors);
    }
    let mut in_metallbs = false;
    let others = REQUESTED.map(|key| (key.to_owned(), false));
    let keys = metallb_keys("loadBalancerIPs").map(|key| (key, true));
    for (key, is_metallbs) in keys.chain(others) {
        if let Some(text) = errors.annotation(object, &key, MAX_LIST_BYTES) {
            take(text, &format!("the annotation {key}"), errors);
            in_metallbs |= is_metallbs;
        }
    }
    (requested, in_spec.is_some() && in_metallbs)
}

/// Adds an address once; returns false if there are too many.
fn add(addresses: &mut Vec<IpAddr>, address: IpAddr) -> bool {
    if addresses.contains(&address) {
        return true;
    }
    let fits = addresses.len() < MAX_ADDRESSES;
    if fits {
        addresses.push(address);
    }
    fits
}

fn status(object: &Value, named: NamespacedName, errors: &mut FieldErrors) -> Option<L2Status> {
    errors.object(object.get("status"), "status");
    // The object is created before its status is written; its labels contain the same values.
    let mut text = |field: &str, label: &str| {
        let named = errors.text(object, &format!("/status/{field}"));
        let label = || object.pointer("/metadata/labels")?.get(label)?.as_str();
        let named = named.or_else(label).unwrap_or_default();
        if named.len() > MAX_NAME_BYTES {
            errors.add(&format!("status.{field}"), "is too long");
            return String::new();
        }
        named.to_owned()
    };
    let status = L2Status {
        node: text("node", "metallb.io/node"),
        service: NamespacedName {
            namespace: text("serviceNamespace", "metallb.io/service-namespace"),
            name: text("serviceName", "metallb.io/service-name"),
        },
        named,
    };
    let summary = [
        &status.node,
        &status.service.namespace,
        &status.service.name,
    ];
    summary
        .iter()
        .all(|text| !text.is_empty())
        .then_some(status)
}

/// Parses a pool or an advertisement, without unused fields.
fn metallb(resource: Resource, object: Value, errors: &mut FieldErrors) -> Option<Value> {
    let Value::Object(mut object) = object else {
        return None;
    };
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    // Some servers omit both in the items of a list.
    let kind = match resource {
        Resource::IpAddressPools => "IPAddressPool",
        Resource::L2Advertisements => "L2Advertisement",
        Resource::BgpAdvertisements => "BGPAdvertisement",
        Resource::Services | Resource::ServiceL2Statuses => return None,
    };
    let named = |object: &Map<_, _>, key| {
        let value: Option<&Value> = object.get(key);
        value.is_some_and(Value::is_string)
    };
    if !named(&object, "apiVersion") {
        object.insert("apiVersion".to_owned(), "metallb.io/v1beta1".into());
    }
    if !named(&object, "kind") {
        object.insert("kind".to_owned(), kind.into());
    }
    errors.object(object.get("spec"), "spec");
    let object = Value::Object(object);
    let text = object.to_string();
    if text.len() > MAX_OBJECT_BYTES {
        errors.add("the object", "is too large to store");
        return None;
    }
    // Parse it as `probe pools` does, and report the same errors.
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "", "", &text);
    for unread in &inventory.unread {
        errors.add("", &unread.error.to_string());
    }
    for range in inventory.pools.iter().flat_map(|pool| &pool.invalid_ranges) {
        let quote = shorten(&range.text, MAX_QUOTE_BYTES);
        errors.add("spec.addresses", &format!("{quote:?}: {}", range.error));
    }
    Some(object)
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
