//! Objects of the API to what is kept of them.
//!
//! An object is whatever the API server sent: fields may be missing, of another type or far too long, and the
//! server may lie. What cannot be read becomes a [`InvalidObject`] and is left out; every other field still counts.

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

/// Names of Kubernetes' objects are at most this long.
const LONGEST_NAME: usize = 253;

/// Other texts that are kept: UIDs, classes, keys.
const LONGEST_TEXT: usize = 1_024;
/// Lists of addresses are longer than other texts.
const LONGEST_LIST: usize = 4 * LONGEST_TEXT;

/// An object that is kept whole may be this long, as JSON.
const LONGEST_OBJECT: usize = 256 << 10;

/// Of one service, or node, so many addresses are kept.
const MAX_ADDRESSES: usize = 64;

/// Of one object, so many faults are told.
const MAX_ERRORS: usize = 8;

/// Of nodes, so many labels are kept.
pub const MAX_LABELS: usize = 64;

/// A label's key with its prefix is at most this long.
const MAX_LABEL_BYTES: usize = 317;

/// A label's value is at most this long.
const MAX_LABEL_VALUE_BYTES: usize = 63;

/// In an error, so much of a value is repeated.
const MAX_QUOTE_BYTES: usize = 64;

/// Where MetalLB keeps its annotations, now and before.
const METALLB: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

/// Addresses that somebody asked for, other than in MetalLB's words.
const REQUESTED: [&str; 3] = [
    "kube-vip.io/loadbalancerIPs",
    "lbipam.cilium.io/ips",
    "io.cilium/lb-ipam-ips",
];

/// What lets services share an address, other than in MetalLB's words.
const SHARING: [&str; 2] = [
    "lbipam.cilium.io/sharing-key",
    "io.cilium/lb-ipam-sharing-key",
];

const KUBE_VIP_HOST: &str = "kube-vip.io/vipHost";
const KUBE_VIP_MAC: &str = "kube-vip.io/hwaddr";

/// What the classes of Cilium's load balancers begin with.
const CILIUM_CLASS: &str = "io.cilium/";
/// The condition in which Cilium says that it gave a service its addresses, now and before.
const CILIUM_CONDITION: [&str; 2] = [
    "cilium.io/IPAMRequestSatisfied",
    "io.cilium/lb-ipam-request-satisfied",
];

/// A copy of the whole object, for `kubectl apply`.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedObject {
    /// A Service of type `LoadBalancer`.
    Service(Box<Service>),
    /// What MetalLB says of who announces a service.
    Status(L2Status),
    /// A pool or an advertisement.
    Metallb(Value),
}

/// What was read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOutcome {
    /// None of a service of another type, and of what cannot be told.
    pub kept: Option<ParsedObject>,
    /// What could not be read.
    pub broken: Vec<InvalidObject>,
    /// Fields that this version does not know: a newer MetalLB may mean something by them that is not understood here.
    pub unknown_fields: Vec<String>,
}

impl ParseOutcome {
    /// The service and the node that the object says announces it.
    pub fn announcer(&self) -> Option<(&NamespacedName, &str)> {
        match self.kept.as_ref()? {
            ParsedObject::Status(status) => Some((&status.service, &status.node)),
            ParsedObject::Service(service) => {
                Some((&service.named, service.kube_vip_host.as_deref()?))
            }
            ParsedObject::Metallb(_) => None,
        }
    }
}

/// The namespace and name of an object: both empty if it does not say.
pub fn named(object: &Value) -> NamespacedName {
    let name = |key| {
        let text = object.pointer(key).and_then(Value::as_str);
        // Kubernetes gives no other names, and these go into commands that people paste.
        let is_name = |text: &&str| {
            let mut bytes = text.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        };
        text.filter(is_name)
            .map(|text| shorten(text, LONGEST_NAME))
            .unwrap_or_default()
    };
    NamespacedName {
        namespace: name("/metadata/namespace"),
        name: name("/metadata/name"),
    }
}

/// The version of an object, if it can be asked for: it goes into a path.
pub fn version(object: &Value) -> Option<&str> {
    let version = object.pointer("/metadata/resourceVersion")?.as_str()?;
    let is_good = (1..=64).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_good.then_some(version)
}

/// Reads one object of a resource.
pub fn read(resource: Resource, object: Value) -> ParseOutcome {
    let named = named(&object);
    let mut faults = FieldErrors {
        resource,
        object: if named.namespace.is_empty() {
            named.name.clone()
        } else {
            named.to_string()
        },
        broken: Vec::new(),
    };
    let unknown_fields = unknown_fields(resource, &object);
    let kept = if named.name.is_empty() {
        faults.add("metadata.name", "is no name");
        None
    } else {
        match resource {
            Resource::Services => service(&object, named, &mut faults).map(ParsedObject::Service),
            Resource::ServiceL2Statuses => {
                status(&object, named, &mut faults).map(ParsedObject::Status)
            }
            Resource::IpAddressPools | Resource::L2Advertisements | Resource::BgpAdvertisements => {
                metallb(resource, object, &mut faults).map(ParsedObject::Metallb)
            }
        }
    };
    ParseOutcome {
        kept,
        broken: faults.broken,
        unknown_fields,
    }
}

/// The fields of a resource's objects that this version knows, and where they stand; none for Services, whose fields are
/// those of Kubernetes.
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

/// The fields of an object that this version does not know.
fn unknown_fields(resource: Resource, object: &Value) -> Vec<String> {
    let Some((part, known)) = known_fields(resource) else {
        return Vec::new();
    };
    let fields = object.get(part).and_then(Value::as_object);
    let unknown = fields.into_iter().flatten().filter_map(|(field, _)| {
        let is_name =
            field.len() <= LONGEST_NAME && field.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_name && !known.contains(&field.as_str())).then(|| format!("{part}.{field}"))
    });
    unknown.take(MAX_ERRORS).collect()
}

/// Reads a node: of its labels these. None if it has no name.
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
        (value.len() <= LONGEST_NAME).then(|| value.to_owned())
    };
    Some(Node {
        name,
        addresses,
        labels: wanted.iter().map(|key| (key.clone(), label(key))).collect(),
    })
}

/// The labels of nodes that somebody selects by: the keys in the `nodeSelectors` of advertisements.
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

/// How many endpoints of an `EndpointSlice` are ready.
pub fn ready_endpoints(slice: &Value) -> usize {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.into_iter().flatten();
    endpoints
        .filter(|endpoint| {
            // As the API has it: what says nothing is ready.
            let ready = endpoint.pointer("/conditions/ready");
            ready.and_then(Value::as_bool).unwrap_or(true)
        })
        .count()
}

struct FieldErrors {
    resource: Resource,
    object: String,
    broken: Vec<InvalidObject>,
}

impl FieldErrors {
    fn add(&mut self, field: &str, fault: &str) {
        if self.broken.len() < MAX_ERRORS {
            self.broken.push(InvalidObject {
                resource: self.resource,
                object: self.object.clone(),
                error: format!("{field} {fault}").trim().to_owned(),
            });
        }
    }

    /// Tells of what should be an object, or is not there, and is something else.
    fn object(&mut self, value: Option<&Value>, field: &str) {
        if value.is_some_and(|value| !value.is_object() && !value.is_null()) {
            self.add(field, "is no object");
        }
    }

    /// A text at a path, if there is one; an empty one is none.
    fn text<'a>(&mut self, object: &'a Value, pointer: &str) -> Option<&'a str> {
        let value = object.pointer(pointer)?;
        self.check(value, || path(pointer), LONGEST_TEXT)
    }

    /// A value as text, if it is one.
    fn check<'a>(
        &mut self,
        value: &'a Value,
        field: impl Fn() -> String,
        longest: usize,
    ) -> Option<&'a str> {
        match value {
            Value::Null => None,
            // Whoever may make a service is not to write on the terminal of whoever looks at it.
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
                self.add(&field(), "is no text");
                None
            }
        }
        .filter(|text| !text.is_empty())
    }

    fn annotation<'a>(&mut self, object: &'a Value, key: &str, longest: usize) -> Option<&'a str> {
        let value = object.pointer("/metadata/annotations")?.get(key)?;
        self.check(value, || format!("the annotation {key}"), longest)
    }

    /// The first of these annotations that is there.
    fn first<'a>(
        &mut self,
        object: &'a Value,
        keys: impl IntoIterator<Item = String>,
    ) -> Option<&'a str> {
        keys.into_iter()
            .find_map(|key| self.annotation(object, &key, LONGEST_NAME))
    }

    fn time(&mut self, object: &Value, pointer: &str) -> Option<Timestamp> {
        let text = self.text(object, pointer)?;
        let time = text.parse().ok();
        if time.is_none() {
            self.add(&path(pointer), "is no time");
        }
        time
    }

    fn address(&mut self, text: &str, field: &str) -> Option<IpAddr> {
        let text = text.trim();
        let address = text.parse().ok();
        if address.is_none() {
            let quote = shorten(text, MAX_QUOTE_BYTES);
            self.add(field, &format!("is no address: {quote:?}"));
        }
        address
    }
}

/// The path of a field as people write it: `spec.type` of `/spec/type`.
fn path(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// A text, or the first of it.
fn shorten(text: &str, longest: usize) -> String {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// MetalLB's annotations of this name, the newer first.
fn metallb_keys(name: &str) -> impl Iterator<Item = String> {
    METALLB
        .into_iter()
        .map(move |prefix| format!("{prefix}{name}"))
}

fn service(
    object: &Value,
    named: NamespacedName,
    faults: &mut FieldErrors,
) -> Option<Box<Service>> {
    if faults.text(object, "/spec/type") != Some("LoadBalancer") {
        return None;
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let sharing = metallb_keys("allow-shared-ip").chain(SHARING.map(str::to_owned));
    let class = owned(faults.text(object, "/spec/loadBalancerClass"));
    let (requested, has_conflicting_requests) = requested(object, faults);
    Some(Box::new(Service {
        uid: owned(faults.text(object, "/metadata/uid")).unwrap_or_default(),
        created: faults.time(object, "/metadata/creationTimestamp"),
        assigned: assigned(object),
        addresses: addresses(object, faults),
        has_ingress: has_ingress(object),
        families: families(object, faults),
        requested,
        has_conflicting_requests,
        requested_pool: owned(faults.first(object, metallb_keys("address-pool"))),
        allocated_from: owned(faults.first(object, metallb_keys("ip-allocated-from-pool"))),
        by_cilium: is_cilium_service(object, class.as_deref()),
        class,
        sharing_key: owned(faults.first(object, sharing)),
        kube_vip_host: owned(faults.annotation(object, KUBE_VIP_HOST, LONGEST_NAME)),
        kube_vip_mac: kube_vip_mac(object, faults),
        labels: labels(object),
        external_traffic_policy_local: faults.text(object, "/spec/externalTrafficPolicy")
            == Some("Local"),
        named,
    }))
}

/// The labels of an object: those that can be stored whole.
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

/// Whether a service has been given anything, be it the name of a host, or what cannot be read.
fn has_ingress(object: &Value) -> bool {
    let ingress = object.pointer("/status/loadBalancer/ingress");
    let ingress = ingress.and_then(Value::as_array);
    ingress.is_some_and(|ingress| !ingress.is_empty())
}

/// The families of addresses that a service is to have.
fn families(object: &Value, faults: &mut FieldErrors) -> Vec<AddressFamily> {
    let families = object.pointer("/spec/ipFamilies").and_then(Value::as_array);
    let mut known = Vec::new();
    for family in families.into_iter().flatten() {
        let family = match family.as_str() {
            Some("IPv4") => AddressFamily::V4,
            Some("IPv6") => AddressFamily::V6,
            _ => {
                faults.add("spec.ipFamilies", "has no IP family");
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

fn kube_vip_mac(object: &Value, faults: &mut FieldErrors) -> Option<MacAddr> {
    let text = faults.annotation(object, KUBE_VIP_MAC, LONGEST_NAME)?;
    let mac = text.parse().ok();
    if mac.is_none() {
        let field = format!("the annotation {KUBE_VIP_MAC}");
        let quote = shorten(text, MAX_QUOTE_BYTES);
        faults.add(&field, &format!("is no MAC address: {quote:?}"));
    }
    mac
}

/// When somebody last wrote the addresses that a service has. Not every server says.
fn assigned(object: &Value) -> Option<Timestamp> {
    let writers = object.pointer("/metadata/managedFields")?.as_array()?;
    let wrote = writers.iter().filter(|writer| {
        let addresses = writer.pointer("/fieldsV1/f:status/f:loadBalancer/f:ingress");
        addresses.is_some()
    });
    let times = wrote.filter_map(|writer| writer.get("time")?.as_str()?.parse().ok());
    times.max()
}

/// The addresses that a service has.
fn addresses(object: &Value, faults: &mut FieldErrors) -> Vec<IpAddr> {
    const FIELD: &str = "status.loadBalancer.ingress";
    let mut addresses = Vec::new();
    let ingress = match object.pointer("/status/loadBalancer/ingress") {
        None | Some(Value::Null) => return addresses,
        Some(Value::Array(ingress)) => ingress,
        Some(_) => {
            faults.add(FIELD, "is no list");
            return addresses;
        }
    };
    for (number, entry) in ingress.iter().enumerate() {
        let field = || format!("{FIELD}[{number}].ip");
        let Some(entry) = entry.as_object() else {
            faults.add(&format!("{FIELD}[{number}]"), "is no object");
            continue;
        };
        // A name without an address is another kind of load balancer's.
        let text = entry
            .get("ip")
            .and_then(|ip| faults.check(ip, field, LONGEST_TEXT));
        let Some(address) = text.and_then(|text| faults.address(text, &field())) else {
            continue;
        };
        if !add(&mut addresses, address) {
            faults.add(FIELD, "has too many addresses");
            break;
        }
    }
    addresses
}

/// The addresses that somebody asked for, and whether in both of the ways that MetalLB does not take together.
fn requested(object: &Value, faults: &mut FieldErrors) -> (Vec<IpAddr>, bool) {
    let mut requested = Vec::new();
    let mut take = |text: &str, field: &str, faults: &mut FieldErrors| {
        for text in text.split(',').filter(|text| !text.trim().is_empty()) {
            let address = faults.address(text, field);
            // 0.0.0.0 is kube-vip's word for "ask DHCP".
            let address = address.filter(|address| !address.is_unspecified());
            if address.is_some_and(|address| !add(&mut requested, address)) {
                faults.add(field, "has too many addresses");
                return;
            }
        }
    };
    let in_spec = faults.text(object, "/spec/loadBalancerIP");
    if let Some(text) = in_spec {
        take(text, "spec.loadBalancerIP", faults);
    }
    let mut in_metallbs = false;
    let others = REQUESTED.map(|key| (key.to_owned(), false));
    let keys = metallb_keys("loadBalancerIPs").map(|key| (key, true));
    for (key, is_metallbs) in keys.chain(others) {
        if let Some(text) = faults.annotation(object, &key, LONGEST_LIST) {
            take(text, &format!("the annotation {key}"), faults);
            in_metallbs |= is_metallbs;
        }
    }
    (requested, in_spec.is_some() && in_metallbs)
}

/// Adds an address, once; false if there are too many.
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

fn status(object: &Value, named: NamespacedName, faults: &mut FieldErrors) -> Option<L2Status> {
    faults.object(object.get("status"), "status");
    // The object comes first and its status a moment later, with the same words in labels.
    let mut text = |field: &str, label: &str| {
        let said = faults.text(object, &format!("/status/{field}"));
        let label = || object.pointer("/metadata/labels")?.get(label)?.as_str();
        let said = said.or_else(label).unwrap_or_default();
        if said.len() > LONGEST_NAME {
            faults.add(&format!("status.{field}"), "is too long");
            return String::new();
        }
        said.to_owned()
    };
    let status = L2Status {
        node: text("node", "metallb.io/node"),
        service: NamespacedName {
            namespace: text("serviceNamespace", "metallb.io/service-namespace"),
            name: text("serviceName", "metallb.io/service-name"),
        },
        named,
    };
    let says = [
        &status.node,
        &status.service.namespace,
        &status.service.name,
    ];
    says.iter().all(|text| !text.is_empty()).then_some(status)
}

/// A pool or an advertisement, without what nobody here reads.
fn metallb(resource: Resource, object: Value, faults: &mut FieldErrors) -> Option<Value> {
    let Value::Object(mut object) = object else {
        return None;
    };
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    // Lists of some servers leave both to the reader.
    let kind = match resource {
        Resource::IpAddressPools => "IPAddressPool",
        Resource::L2Advertisements => "L2Advertisement",
        Resource::BgpAdvertisements => "BGPAdvertisement",
        Resource::Services | Resource::ServiceL2Statuses => return None,
    };
    let said = |object: &Map<_, _>, key| {
        let value: Option<&Value> = object.get(key);
        value.is_some_and(Value::is_string)
    };
    if !said(&object, "apiVersion") {
        object.insert("apiVersion".to_owned(), "metallb.io/v1beta1".into());
    }
    if !said(&object, "kind") {
        object.insert("kind".to_owned(), kind.into());
    }
    faults.object(object.get("spec"), "spec");
    let object = Value::Object(object);
    let text = object.to_string();
    if text.len() > LONGEST_OBJECT {
        faults.add("the object", "is too large to be kept");
        return None;
    }
    // As whoever judges pools reads it, and with what that finds to be wrong.
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "", "", &text);
    for unread in &inventory.unread {
        faults.add("", &unread.error.to_string());
    }
    for fault in inventory.pools.iter().flat_map(|pool| &pool.faults) {
        let quote = shorten(&fault.text, MAX_QUOTE_BYTES);
        faults.add("spec.addresses", &format!("{quote:?}: {}", fault.error));
    }
    Some(object)
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
