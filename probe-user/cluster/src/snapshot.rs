//! A snapshot of a cluster: plain data. [`super::object`] parses the objects of the API server; all evaluation reads
//! the snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use jiff::Timestamp;
use probe_common::{label_enum, wire::MacAddr};
use probe_model::{AnnouncementMode, NamespacedName};
use probe_pools::{
    Advertisement, AdvertisementKind, Labels, Pool, PoolInventory, PoolKind, ServiceScope,
    interval::Interval, manifest,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{announcer_history::NamedAnnouncer, usage::AddressFamily};

/// The name of the only cluster in the inventory.
const NAME: &str = "cluster";

label_enum! {
    /// The watched resources.
    pub enum Resource {
        /// Services of type `LoadBalancer`.
        Services = "services",
        /// MetalLB's pools.
        IpAddressPools = "ipaddresspools",
        /// Layer 2 advertisements of pools.
        L2Advertisements = "l2advertisements",
        /// BGP advertisements of pools.
        BgpAdvertisements = "bgpadvertisements",
        /// The node that announces a service, by MetalLB.
        ServiceL2Statuses = "servicel2statuses",
    }
}

label_enum! {
    /// The state of a resource.
    pub enum ResourceState {
        /// Watched: the objects are current.
        Current = "current",
        /// Read once; the API server has been unreachable since.
        Stale = "stale",
        /// Not read yet.
        NeverRead = "never",
        /// The resource is not installed in the cluster.
        NotInstalled = "missing",
        /// The API server denies reading it.
        Forbidden = "forbidden",
    }
}

/// The state of a resource, and its age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// The state.
    pub state: ResourceState,
    /// The time of the last response of the API server about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Timestamp>,
    /// The last error, while it persists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A Service of type `LoadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each mirrors one field of the object"
)]
pub struct Service {
    /// The namespace and name.
    #[serde(flatten)]
    pub named: NamespacedName,
    /// The UID, which references use.
    pub uid: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its addresses were last written, by `metadata.managedFields`.
    #[serde(default)]
    pub assigned: Option<Timestamp>,
    /// The assigned addresses (`status.loadBalancer.ingress[].ip`), in the order of the list.
    pub addresses: Vec<IpAddr>,
    /// Whether that list has any entry: other load balancers set hostnames instead.
    #[serde(default)]
    pub has_ingress: bool,
    /// The requested address families (`spec.ipFamilies`); empty if not set.
    #[serde(default)]
    pub families: Vec<AddressFamily>,
    /// The requested addresses: `spec.loadBalancerIP` and the annotations of MetalLB, kube-vip and Cilium.
    pub requested: Vec<IpAddr>,
    /// Whether addresses are requested in `spec.loadBalancerIP` and in MetalLB's annotation as well, which MetalLB
    /// rejects.
    #[serde(default)]
    pub has_conflicting_requests: bool,
    /// The pool requested by annotation.
    pub requested_pool: Option<String>,
    /// The pool of its addresses, by MetalLB's annotation `metallb.io/ip-allocated-from-pool` (from 0.13.9).
    pub allocated_from: Option<String>,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// Whether Cilium manages it: by its class, or by Cilium's condition in the status.
    #[serde(default)]
    pub is_cilium: bool,
    /// The key with which MetalLB and Cilium let services share an address (`allow-shared-ip`, `sharing-key`).
    pub sharing_key: Option<String>,
    /// The node with the address, by kube-vip's annotation `kube-vip.io/vipHost`.
    pub kube_vip_host: Option<String>,
    /// The MAC that kube-vip uses for an address from DHCP, which belongs to no interface of the node
    /// (`kube-vip.io/hwaddr`).
    #[serde(default)]
    pub kube_vip_mac: Option<MacAddr>,
    /// Its labels, which advertisements and pools select services by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Whether `externalTrafficPolicy` is `Local`: only nodes with a ready endpoint announce it.
    pub external_traffic_policy_local: bool,
}

/// The announcer of a service by MetalLB. It may be out of date: 0.15 can leave the old node in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Status {
    /// The namespace and name of the object.
    #[serde(flatten)]
    pub named: NamespacedName,
    /// The node that announces the service.
    pub node: String,
    /// The service.
    pub service: NamespacedName,
}

/// An object that is invalid, in part or as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InvalidObject {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace and name, as far as known.
    pub object: String,
    /// The field and its error.
    pub error: String,
}

/// The parsed objects of the API server, in serializable form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterObjects {
    /// By namespace and name.
    pub services: Vec<Service>,
    /// By namespace and name.
    pub statuses: Vec<L2Status>,
    /// The nodes that status objects no longer name as announcers, or name again.
    #[serde(default)]
    pub announcer_history: Vec<NamedAnnouncer>,
    /// Pools and advertisements as sent, with `apiVersion` and `kind`, without `metadata.managedFields`.
    pub metallb: Vec<Value>,
    /// The fields that could not be parsed.
    pub invalid: Vec<InvalidObject>,
    /// How well each resource is known.
    pub freshness: BTreeMap<Resource, Freshness>,
}

/// A snapshot of a cluster, indexed for lookups.
#[derive(Debug, Default)]
pub struct ClusterSnapshot {
    objects: ClusterObjects,
    /// Pools and advertisements, as `probe pools check` evaluates them.
    inventory: PoolInventory,
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// The statuses of each service.
    by_service: HashMap<NamespacedName, Vec<usize>>,
    /// The announcer history of each service.
    history_by_service: HashMap<NamespacedName, Vec<usize>>,
    /// Whether MetalLB marks any service as its own. Then it marks all of its services.
    metallb_reports_announcers: bool,
    /// The `L2Advertisement`s that are restricted to certain interfaces of the nodes.
    restricted_advertisements: HashSet<NamespacedName>,
}

impl From<ClusterObjects> for ClusterSnapshot {
    fn from(objects: ClusterObjects) -> Self {
        let mut inventory = PoolInventory::default();
        for object in &objects.metallb {
            // JSON is YAML.
            let text = object.to_string();
            manifest::read(&mut inventory, NAME, &object_title(object), &text);
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
        let mut history_by_service: HashMap<_, Vec<_>> = HashMap::new();
        for (number, known) in objects.announcer_history.iter().enumerate() {
            let service = known.service.clone();
            history_by_service.entry(service).or_default().push(number);
        }
        let mut services = objects.services.iter();
        let metallb_reports_announcers = services.any(|service| service.allocated_from.is_some());
        let restricted_advertisements = objects
            .metallb
            .iter()
            .filter_map(restricted_advertisements)
            .collect();
        Self {
            objects,
            inventory,
            by_address,
            by_service,
            history_by_service,
            metallb_reports_announcers,
            restricted_advertisements,
        }
    }
}

/// The title of an object for people: `IPAddressPool metallb-system/production`.
pub fn object_title(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object");
    let name = text("/metadata/name").unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The name of an `L2Advertisement` that is restricted to certain interfaces; `None` for others.
fn restricted_advertisements(object: &Value) -> Option<NamespacedName> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let cards = object.pointer("/spec/interfaces")?.as_array()?;
    let is_one = text("/kind") == Some(AdvertisementKind::L2.label()) && !cards.is_empty();
    is_one.then(|| NamespacedName {
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    })
}

impl ClusterSnapshot {
    /// The parsed objects.
    pub const fn objects(&self) -> &ClusterObjects {
        &self.objects
    }

    /// The pools and advertisements.
    pub const fn inventory(&self) -> &PoolInventory {
        &self.inventory
    }

    /// Converts the snapshot to its pools and advertisements.
    pub fn into_inventory(self) -> PoolInventory {
        self.inventory
    }

    /// The Services of type `LoadBalancer`.
    pub fn services(&self) -> &[Service] {
        &self.objects.services
    }

    /// Whether a resource is known, so that conclusions from absent objects are valid.
    pub fn is_known(&self, resource: Resource) -> bool {
        let freshness = self.objects.freshness.get(&resource);
        freshness.is_some_and(|freshness| match freshness.state {
            // A resource that is not installed has no objects.
            ResourceState::Current | ResourceState::Stale | ResourceState::NotInstalled => true,
            ResourceState::NeverRead | ResourceState::Forbidden => false,
        })
    }

    /// Whether an object of a resource is invalid, in part or as a whole.
    pub fn has_invalid_objects(&self, resource: Resource) -> bool {
        let mut invalid = self.objects.invalid.iter();
        invalid.any(|invalid| invalid.resource == resource)
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

    /// The pool of an address: the one that its service names, else the first that contains it.
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        let named = self
            .services_at(ip)
            .find_map(|service| service.allocated_from.as_deref());
        let mut pools: Vec<_> = self.pools_at(ip).collect();
        let named = pools
            .iter()
            .position(|pool| named == Some(pool.name.as_str()));
        (!pools.is_empty()).then(|| pools.swap_remove(named.unwrap_or(0)))
    }

    /// How the addresses of a pool are announced, for unknown services.
    pub fn announcement_of(&self, pool: &Pool) -> AnnouncementMode {
        self.announcement_by(pool, |_| true)
    }

    fn announcement_by(
        &self,
        pool: &Pool,
        is_for_service: impl Fn(&Advertisement) -> bool,
    ) -> AnnouncementMode {
        if pool.kind != PoolKind::IpAddressPool {
            return AnnouncementMode::Unknown;
        }
        let advertisements = self.inventory.advertisements.iter();
        let kinds: Vec<_> = advertisements
            .filter(|advertisement| advertisement.advertises(pool))
            .filter(|advertisement| is_for_service(advertisement))
            .map(|advertisement| advertisement.kind)
            .collect();
        if kinds.contains(&AdvertisementKind::L2) {
            AnnouncementMode::Layer2
        } else if kinds.is_empty() {
            AnnouncementMode::NotAnnounced
        } else {
            AnnouncementMode::Bgp
        }
    }

    /// How an address is announced: by the advertisements of its pool that are for one of its services.
    pub fn announced(&self, ip: IpAddr) -> AnnouncementMode {
        let services: Vec<_> = self.services_at(ip).collect();
        let is_for_service = |advertisement: &Advertisement| {
            let mut services = services.iter();
            services.len() == 0
                || services.any(|service| advertisement.services.may_contain(&service.labels))
        };
        self.pool_of(ip).map_or(AnnouncementMode::Unknown, |pool| {
            self.announcement_by(pool, is_for_service)
        })
    }

    /// Whether advertisements of this pool are for some services only.
    pub fn selects_services(&self, pool: &Pool) -> bool {
        let mut advertisements = self.inventory.advertisements.iter();
        advertisements.any(|advertisement| {
            matches!(advertisement.services, ServiceScope::Selected(_))
                && advertisement.advertises(pool)
        })
    }

    /// Whether MetalLB assigned the addresses of a service, by its annotation (`ip-allocated-from-pool`, from 0.13.9).
    /// If no service has the annotation, a service counts if it belongs to no other controller and pools exist; the
    /// pools may be left over from an installation, or MetalLB may serve one class only.
    pub fn is_metallb_service(&self, service: &Service) -> bool {
        let mut pools = self.inventory.pools.iter();
        service.allocated_from.is_some()
            || !self.metallb_reports_announcers
                && may_belong_to_metallb(service)
                && pools.any(|pool| pool.kind.is_metallb())
    }

    /// The nodes that MetalLB (`ServiceL2Status`) and kube-vip (`vipHost`) name as announcers of an address. They may
    /// be out of date.
    pub fn reported_announcers(&self, ip: IpAddr) -> Vec<&str> {
        let mut named = self.announcers(ip);
        named.extend(
            self.services_at(ip)
                .filter_map(|service| service.kube_vip_host.as_deref()),
        );
        named.sort_unstable();
        named.dedup();
        named
    }

    /// The nodes that status objects name as announcers of an address, or named after `since`.
    pub fn reported_announcers_since(&self, ip: IpAddr, since: Timestamp) -> Vec<&str> {
        let mut named = self.reported_announcers(ip);
        let past = self.announcer_history(ip);
        let past = past.filter(|known| known.was_named_since(since));
        named.extend(past.map(|known| known.node.as_str()));
        named.sort_unstable();
        named.dedup();
        named
    }

    /// The nodes that status objects named alternately as announcers of an address within the minute before `now`;
    /// empty if only one was named.
    pub fn alternating_announcers(&self, ip: IpAddr, now: Timestamp) -> Vec<&str> {
        let history = self.announcer_history(ip);
        let alternating = history.filter(|known| known.alternates(now));
        let mut nodes: Vec<_> = alternating.map(|known| known.node.as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() < 2 {
            nodes.clear();
        }
        nodes
    }

    fn announcer_history(&self, ip: IpAddr) -> impl Iterator<Item = &NamedAnnouncer> {
        let services = self.services_at(ip);
        let numbers = services.filter_map(|service| self.history_by_service.get(&service.named));
        numbers
            .flatten()
            .filter_map(|&number| self.objects.announcer_history.get(number))
    }

    /// The nodes that are named as announcers of an address, are not among its owners, and may announce on an interface
    /// with an unknown MAC: nodes of kube-vip, and nodes of an `L2Advertisement` with an interface list. An unknown
    /// owner may be one of them. Without an interface list MetalLB announces on every interface, including the one with
    /// the known MAC.
    pub fn unseen_announcers(&self, ip: IpAddr, is_owner: impl Fn(&str) -> bool) -> Vec<&str> {
        let services = self.services_at(ip);
        let mut named: Vec<_> = services
            .filter_map(|service| service.kube_vip_host.as_deref())
            .collect();
        if self.is_interface_restricted(ip) {
            named.extend(self.announcers(ip));
        }
        named.retain(|node| !is_owner(node));
        named.sort_unstable();
        named.dedup();
        named
    }

    /// Whether an address may be announced on certain interfaces only.
    fn is_interface_restricted(&self, ip: IpAddr) -> bool {
        let Some(pool) = self
            .pool_of(ip)
            .filter(|_| !self.restricted_advertisements.is_empty())
        else {
            return false;
        };
        let mut advertisements = self.inventory.advertisements.iter();
        advertisements.any(|one| {
            let name = NamespacedName {
                namespace: one.namespace.clone().unwrap_or_default(),
                name: one.name.clone(),
            };
            one.kind == AdvertisementKind::L2
                && self.restricted_advertisements.contains(&name)
                && one.advertises(pool)
        })
    }

    /// The node that announces an address with one of these MACs, by kube-vip's annotation: for an address from DHCP it
    /// uses a separate MAC, which moves with the address.
    pub fn reported_node(&self, ip: IpAddr, macs: &[MacAddr]) -> Option<&str> {
        self.services_at(ip)
            .filter(|service| service.kube_vip_mac.is_some_and(|mac| macs.contains(&mac)))
            .find_map(|service| service.kube_vip_host.as_deref())
    }

    /// The nodes that MetalLB names as announcers of an address.
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

/// Whether a service may belong to MetalLB: nothing shows that it belongs to another controller.
pub(super) fn may_belong_to_metallb(service: &Service) -> bool {
    let class = service.class.as_deref();
    class.is_none_or(|class| class.contains("metallb"))
        && service.kube_vip_host.is_none()
        && !service.is_cilium
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses (`status.addresses` of type `InternalIP` and `ExternalIP`).
    pub addresses: Vec<IpAddr>,
    /// Its labels that selectors use; the value is `None` for a label that it does not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    const IP: &str = "192.0.2.240";

    fn cluster(services: Vec<Service>, pools: &[Value]) -> ClusterSnapshot {
        ClusterSnapshot::from(ClusterObjects {
            services,
            metallb: pools.to_vec(),
            ..testing::objects()
        })
    }

    fn pool() -> Value {
        testing::pool("one", json!({"addresses": ["192.0.2.240/28"]}))
    }

    #[test]
    fn services_of_metallb_are_those_it_marks_or_all_candidates_without_marks() {
        let plain = || testing::service("shop/plain", &[IP]);
        let with = |change: &dyn Fn(&mut Service)| {
            let mut service = plain();
            change(&mut service);
            service
        };
        let named = || with(&|service| service.allocated_from = Some("one".to_owned()));
        let class = |class: &str| with(&|service| service.class = Some(class.to_owned()));
        let kube_vips = with(&|service| service.kube_vip_host = Some("node-1".to_owned()));
        let ciliums = with(&|service| service.is_cilium = true);
        for (what, service, others, pools, expected) in [
            ("said", named(), vec![], vec![], true),
            (
                "another service is marked",
                plain(),
                vec![named()],
                vec![pool()],
                false,
            ),
            ("no service is marked", plain(), vec![], vec![pool()], true),
            (
                "no service is marked, no pools",
                plain(),
                vec![],
                vec![],
                false,
            ),
            (
                "MetalLB's class",
                class("metallb"),
                vec![],
                vec![pool()],
                true,
            ),
            (
                "another class",
                class("example.com/lb"),
                vec![],
                vec![pool()],
                false,
            ),
            ("kube-vip's", kube_vips, vec![], vec![pool()], false),
            ("Cilium's", ciliums, vec![], vec![pool()], false),
        ] {
            let all = [vec![service.clone()], others].concat();
            let cluster = cluster(all, &pools);
            assert_eq!(cluster.is_metallb_service(&service), expected, "{what}");
        }
    }

    #[test]
    fn speaker_with_an_interface_list_is_expected_on_those_interfaces_only() {
        let ip: IpAddr = IP.parse().unwrap();
        let all = |spec| testing::metallb("L2Advertisement", "metallb-system/all", spec);
        let on_eth1 = || json!({"interfaces": ["eth1"]});
        let elsewhere = json!({"ipAddressPools": ["two"], "interfaces": ["eth1"]});
        for (what, advertisement, expected) in [
            ("all interfaces", all(json!({})), &[][..]),
            ("empty interface list", all(json!({"interfaces": []})), &[]),
            ("one interface", all(on_eth1()), &["node-1"]),
            ("of another pool", all(elsewhere), &[]),
            (
                "by BGP",
                testing::metallb("BGPAdvertisement", "metallb-system/all", on_eth1()),
                &[],
            ),
        ] {
            let cluster = ClusterSnapshot::from(ClusterObjects {
                services: vec![testing::service("shop/frontend", &[IP])],
                statuses: vec![L2Status {
                    named: testing::named("metallb-system/l2-x"),
                    node: "node-1".to_owned(),
                    service: testing::named("shop/frontend"),
                }],
                metallb: vec![pool(), advertisement],
                ..testing::objects()
            });
            assert_eq!(cluster.reported_announcers(ip), ["node-1"]);
            assert_eq!(cluster.unseen_announcers(ip, |_| false), expected, "{what}");
            assert_eq!(cluster.unseen_announcers(ip, |_| true), [""; 0], "{what}");
        }
    }

    #[test]
    fn announcers_and_macs_from_the_status() {
        let mac = MacAddr([2, 0, 0, 0, 0, 0x99]);
        let other = MacAddr([2, 0, 0, 0, 0, 1]);
        let ip: IpAddr = IP.parse().unwrap();
        let elsewhere: IpAddr = "192.0.2.241".parse().unwrap();
        let mut service = testing::service("shop/leased", &[IP]);
        service.kube_vip_host = Some("node-2".to_owned());
        service.kube_vip_mac = Some(mac);
        let nameless = Service {
            kube_vip_host: None,
            ..service.clone()
        };
        let mut cluster = cluster(vec![service.clone()], &[]);
        assert_eq!(cluster.reported_announcers(ip), ["node-2"]);
        assert_eq!(cluster.unseen_announcers(ip, |_| false), ["node-2"]);
        assert_eq!(
            cluster.unseen_announcers(ip, |node| node == "node-2"),
            [""; 0]
        );
        assert_eq!(cluster.unseen_announcers(elsewhere, |_| false), [""; 0]);
        assert_eq!(cluster.reported_node(ip, &[other, mac]), Some("node-2"));
        assert_eq!(cluster.reported_node(ip, &[other]), None);
        assert_eq!(cluster.reported_node(elsewhere, &[mac]), None);
        cluster = self::cluster(vec![nameless], &[]);
        assert_eq!(
            cluster.reported_node(ip, &[mac]),
            None,
            "the host is unknown"
        );
    }
}
