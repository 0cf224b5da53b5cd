//! What is known of a cluster at one moment: plain data. The API's objects go in by [`super::object`]; everything
//! else reads it from here.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use jiff::Timestamp;
use probe_common::label_enum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pools::{AdvertisementKind, Inventory, Pool, PoolKind, interval::Interval, manifest};

/// What the inventory calls the cluster: there is one.
const NAME: &str = "cluster";

label_enum! {
    /// The resources that are followed.
    pub enum Resource {
        /// Services of type `LoadBalancer`.
        Services = "services",
        /// MetalLB's pools.
        IpAddressPools = "ipaddresspools",
        /// Who announces pools on layer 2.
        L2Advertisements = "l2advertisements",
        /// Who announces pools by BGP.
        BgpAdvertisements = "bgpadvertisements",
        /// Which node MetalLB says announces a service.
        ServiceL2Statuses = "servicel2statuses",
    }
}

label_enum! {
    /// How well a resource is known.
    pub enum Known {
        /// Followed: what is known is how it is.
        Current = "current",
        /// Known once; the API server has not been reached since.
        Stale = "stale",
        /// Never read so far.
        Never = "never",
        /// The cluster has no such resource: what defines it is not installed.
        Missing = "missing",
        /// The API server does not let us read it.
        Forbidden = "forbidden",
    }
}

/// How well a resource is known, and how old that knowledge is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// How well.
    pub known: Known,
    /// When the API server last said something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// What went wrong last, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Named {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// As people write it: `shop/frontend`.
impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service of type `LoadBalancer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which.
    #[serde(flatten)]
    pub named: Named,
    /// What Kubernetes calls it in references.
    pub uid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was last given addresses, by what the API server keeps of who wrote which field
    /// (`metadata.managedFields`).
    #[serde(default)]
    pub assigned: Option<Timestamp>,
    /// The addresses that it has (`status.loadBalancer.ingress[].ip`), in the order of the list.
    pub addresses: Vec<IpAddr>,
    /// The addresses that somebody asked for: `spec.loadBalancerIP` and the annotations of MetalLB, kube-vip and
    /// Cilium.
    pub requested: Vec<IpAddr>,
    /// The pool that somebody asked for by annotation.
    pub requested_pool: Option<String>,
    /// The pool that MetalLB says its addresses are from (`metallb.io/ip-allocated-from-pool`).
    pub allocated_from: Option<String>,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// The key with which MetalLB lets services share an address (`allow-shared-ip`).
    pub sharing_key: Option<String>,
    /// The node that kube-vip says holds the address (`kube-vip.io/vipHost`).
    pub kube_vip_host: Option<String>,
    /// Whether `externalTrafficPolicy` is `Local`: only nodes with a ready endpoint announce it.
    pub local_traffic: bool,
}

/// What MetalLB says of who announces a service: a witness, never the truth (0.15 can leave it on the old node).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Status {
    /// Which object.
    #[serde(flatten)]
    pub named: Named,
    /// The node that is said to announce.
    pub node: String,
    /// What it announces.
    pub service: Named,
}

/// An object that could not be read, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Broken {
    /// Among which.
    pub resource: Resource,
    /// Its namespace and name, as far as it says.
    pub object: String,
    /// What is wrong, and where.
    pub error: String,
}

/// What the API server said: what can be sent and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// By namespace and name.
    pub services: Vec<Service>,
    /// By namespace and name.
    pub statuses: Vec<L2Status>,
    /// Pools and advertisements as they are, but for `metadata.managedFields`: with `apiVersion` and `kind`.
    pub metallb: Vec<Value>,
    /// What could not be read.
    pub broken: Vec<Broken>,
    /// How well each resource is known.
    pub freshness: BTreeMap<Resource, Freshness>,
}

/// How an address is announced, by what the cluster says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announced {
    /// By ARP, perhaps by BGP as well.
    Layer2,
    /// By BGP only: nobody answers for it here.
    Bgp,
    /// Its pool is advertised by nobody.
    Nowhere,
    /// Nothing says so: no pool of MetalLB's holds it.
    Unknown,
}

/// A cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    objects: Objects,
    /// Pools and advertisements, as `probe pools check` judges them.
    inventory: Inventory,
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// The statuses of each service.
    by_service: HashMap<Named, Vec<usize>>,
}

impl From<Objects> for Cluster {
    fn from(objects: Objects) -> Self {
        let mut inventory = Inventory::default();
        for object in &objects.metallb {
            // JSON is YAML.
            let text = object.to_string();
            manifest::read(&mut inventory, NAME, &title(object), &text);
        }
        let mut by_address: HashMap<_, Vec<_>> = HashMap::new();
        for (number, service) in objects.services.iter().enumerate() {
            for &address in &service.addresses {
                by_address.entry(address).or_default().push(number);
            }
        }
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for (number, status) in objects.statuses.iter().enumerate() {
            let service = status.service.clone();
            by_service.entry(service).or_default().push(number);
        }
        Self {
            objects,
            inventory,
            by_address,
            by_service,
        }
    }
}

/// What people call an object: `IPAddressPool metallb-system/production`.
fn title(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object");
    let name = text("/metadata/name").unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

impl Cluster {
    /// What the API server said.
    pub const fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The pools and advertisements.
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The pools and advertisements, and nothing else.
    pub fn into_inventory(self) -> Inventory {
        self.inventory
    }

    /// The Services of type `LoadBalancer`.
    pub fn services(&self) -> &[Service] {
        &self.objects.services
    }

    /// Whether anything is known: without, nothing can be concluded from what is not there.
    pub fn is_known(&self, resource: Resource) -> bool {
        let freshness = self.objects.freshness.get(&resource);
        freshness.is_some_and(|freshness| match freshness.known {
            // No such resource is as good as none of them.
            Known::Current | Known::Stale | Known::Missing => true,
            Known::Never | Known::Forbidden => false,
        })
    }

    /// Whether an object of a resource could not be read, or not all of it.
    pub fn has_broken(&self, resource: Resource) -> bool {
        let mut broken = self.objects.broken.iter();
        broken.any(|broken| broken.resource == resource)
    }

    /// The services that have an address. Usually one; several may share it.
    pub fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = &Service> {
        let numbers = self.by_address.get(&ip).into_iter().flatten();
        numbers.filter_map(|&number| self.objects.services.get(number))
    }

    /// All addresses that services have, each once.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// The pools that an address is in: more than one only if they overlap.
    pub fn pools_at(&self, ip: IpAddr) -> impl Iterator<Item = &Pool> {
        let pools = self.inventory.pools.iter();
        let single = Interval::new(ip, ip).ok();
        pools.filter(move |pool| {
            let mut ranges = pool.ranges.iter();
            single.is_some_and(|ip| ranges.any(|range| range.interval.contains(&ip)))
        })
    }

    /// The pool that an address is from: the one that its service says, else the first that holds it.
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        let named = self
            .services_at(ip)
            .find_map(|service| service.allocated_from.as_deref());
        let mut pools: Vec<_> = self.pools_at(ip).collect();
        let said = pools
            .iter()
            .position(|pool| named == Some(pool.name.as_str()));
        (!pools.is_empty()).then(|| pools.swap_remove(said.unwrap_or(0)))
    }

    /// How a pool's addresses are announced.
    pub fn announcement_of(&self, pool: &Pool) -> Announced {
        if pool.kind != PoolKind::IpAddressPool {
            return Announced::Unknown;
        }
        let advertisements = self.inventory.advertisements.iter();
        let kinds: Vec<_> = advertisements
            .filter(|advertisement| advertisement.advertises(pool))
            .map(|advertisement| advertisement.kind)
            .collect();
        if kinds.contains(&AdvertisementKind::L2) {
            Announced::Layer2
        } else if kinds.is_empty() {
            Announced::Nowhere
        } else {
            Announced::Bgp
        }
    }

    /// How an address is announced.
    pub fn announced(&self, ip: IpAddr) -> Announced {
        self.pool_of(ip)
            .map_or(Announced::Unknown, |pool| self.announcement_of(pool))
    }

    /// The nodes that are said to announce an address: by MetalLB, or by kube-vip.
    pub fn said_to_announce(&self, ip: IpAddr) -> Vec<&str> {
        let mut nodes = self.announcers(ip);
        let services = self.services_at(ip);
        nodes.extend(services.filter_map(|service| service.kube_vip_host.as_deref()));
        nodes
    }

    /// The nodes that MetalLB says announce an address.
    pub fn announcers(&self, ip: IpAddr) -> Vec<&str> {
        let services = self.services_at(ip);
        let numbers = services.filter_map(|service| self.by_service.get(&service.named));
        let statuses = numbers
            .flatten()
            .filter_map(|&number| self.objects.statuses.get(number));
        let mut nodes: Vec<_> = statuses.map(|status| status.node.as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses (`status.addresses` of type `InternalIP` and `ExternalIP`).
    pub addresses: Vec<IpAddr>,
    /// Of its labels those that somebody selects by; `None` of those that it does not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}
