//! What is known of a cluster at one moment: plain data. The API's objects go in by [`super::object`]; everything
//! else reads it from here.

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
    pub enum ResourceState {
        /// Followed: what is known is how it is.
        Current = "current",
        /// Known once; the API server has not been reached since.
        Stale = "stale",
        /// Never read so far.
        NeverRead = "never",
        /// The cluster has no such resource: what defines it is not installed.
        NotInstalled = "missing",
        /// The API server does not let us read it.
        Forbidden = "forbidden",
    }
}

/// How well a resource is known, and how old that knowledge is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// How well.
    pub known: ResourceState,
    /// When the API server last said something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// What went wrong last, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A Service of type `LoadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is what one field of the object says"
)]
pub struct Service {
    /// Which.
    #[serde(flatten)]
    pub named: NamespacedName,
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
    /// Whether that list has anything: other load balancers name hosts instead.
    #[serde(default)]
    pub has_ingress: bool,
    /// The families of addresses that it is to have (`spec.ipFamilies`); none where the API server does not say.
    #[serde(default)]
    pub families: Vec<AddressFamily>,
    /// The addresses that somebody asked for: `spec.loadBalancerIP` and the annotations of MetalLB, kube-vip and
    /// Cilium.
    pub requested: Vec<IpAddr>,
    /// Whether somebody asked in `spec.loadBalancerIP` and in MetalLB's annotation as well, which MetalLB refuses.
    #[serde(default)]
    pub has_conflicting_requests: bool,
    /// The pool that somebody asked for by annotation.
    pub requested_pool: Option<String>,
    /// The pool that MetalLB says its addresses are from (`metallb.io/ip-allocated-from-pool`, from 0.13.9).
    pub allocated_from: Option<String>,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// Whether it is Cilium's: by its class, or because Cilium says that it gave it its addresses.
    #[serde(default)]
    pub by_cilium: bool,
    /// The key with which MetalLB and Cilium let services share an address (`allow-shared-ip`, `sharing-key`).
    pub sharing_key: Option<String>,
    /// The node that kube-vip says holds the address (`kube-vip.io/vipHost`).
    pub kube_vip_host: Option<String>,
    /// The MAC with which kube-vip speaks there for an address of DHCP, which is none of the node's cards
    /// (`kube-vip.io/hwaddr`).
    #[serde(default)]
    pub kube_vip_mac: Option<MacAddr>,
    /// Its labels, which advertisements and pools select services by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Whether `externalTrafficPolicy` is `Local`: only nodes with a ready endpoint announce it.
    pub external_traffic_policy_local: bool,
}

/// What MetalLB says of who announces a service: a witness, never the truth (0.15 can leave it on the old node).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Status {
    /// Which object.
    #[serde(flatten)]
    pub named: NamespacedName,
    /// The node that is said to announce.
    pub node: String,
    /// What it announces.
    pub service: NamespacedName,
}

/// An object that could not be read, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InvalidObject {
    /// Among which.
    pub resource: Resource,
    /// Its namespace and name, as far as it says.
    pub object: String,
    /// What is wrong, and where.
    pub error: String,
}

/// What the API server said: what can be sent and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterObjects {
    /// By namespace and name.
    pub services: Vec<Service>,
    /// By namespace and name.
    pub statuses: Vec<L2Status>,
    /// The nodes that were said to announce services and are no longer, or are again.
    #[serde(default)]
    pub announcer_history: Vec<NamedAnnouncer>,
    /// Pools and advertisements as they are, but for `metadata.managedFields`: with `apiVersion` and `kind`.
    pub metallb: Vec<Value>,
    /// What could not be read.
    pub broken: Vec<InvalidObject>,
    /// How well each resource is known.
    pub freshness: BTreeMap<Resource, Freshness>,
}

/// A cluster.
#[derive(Debug, Default)]
pub struct ClusterSnapshot {
    objects: ClusterObjects,
    /// Pools and advertisements, as `probe pools check` judges them.
    inventory: PoolInventory,
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// The statuses of each service.
    by_service: HashMap<NamespacedName, Vec<usize>>,
    /// The nodes that were said to announce each service.
    history_by_service: HashMap<NamespacedName, Vec<usize>>,
    /// Whether MetalLB says of any service that it gave it its addresses. Then it says so of all that it did.
    metallb_reports_announcers: bool,
    /// The `L2Advertisement`s that are for some network cards of the nodes only.
    on_some_cards: HashSet<NamespacedName>,
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
        let on_some_cards = objects.metallb.iter().filter_map(on_some_cards).collect();
        Self {
            objects,
            inventory,
            by_address,
            by_service,
            history_by_service,
            metallb_reports_announcers,
            on_some_cards,
        }
    }
}

/// What people call an object: `IPAddressPool metallb-system/production`.
pub fn object_title(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object");
    let name = text("/metadata/name").unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The name of an `L2Advertisement` that is for some network cards only.
fn on_some_cards(object: &Value) -> Option<NamespacedName> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let cards = object.pointer("/spec/interfaces")?.as_array()?;
    let is_one = text("/kind") == Some(AdvertisementKind::L2.label()) && !cards.is_empty();
    is_one.then(|| NamespacedName {
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    })
}

impl ClusterSnapshot {
    /// What the API server said.
    pub const fn objects(&self) -> &ClusterObjects {
        &self.objects
    }

    /// The pools and advertisements.
    pub const fn inventory(&self) -> &PoolInventory {
        &self.inventory
    }

    /// The pools and advertisements, and nothing else.
    pub fn into_inventory(self) -> PoolInventory {
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
            ResourceState::Current | ResourceState::Stale | ResourceState::NotInstalled => true,
            ResourceState::NeverRead | ResourceState::Forbidden => false,
        })
    }

    /// Whether an object of a resource could not be read, or not all of it.
    pub fn has_invalid_objects(&self, resource: Resource) -> bool {
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

    /// How a pool's addresses are announced, for services of which nothing is known.
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

    /// Whether MetalLB gave a service its addresses: it says so itself (`ip-allocated-from-pool`, from 0.13.9). Where it
    /// says so of no service, by what the service is not, as long as there are pools: they may be all that is left of
    /// an installation, or it may be for services of one class only.
    pub fn is_metallb_service(&self, service: &Service) -> bool {
        let mut pools = self.inventory.pools.iter();
        service.allocated_from.is_some()
            || !self.metallb_reports_announcers
                && may_belong_to_metallb(service)
                && pools.any(|pool| pool.kind.is_metallb())
    }

    /// The nodes that are said to announce an address, by MetalLB (`ServiceL2Status`) and kube-vip (`vipHost`):
    /// witnesses.
    pub fn reported_announcers(&self, ip: IpAddr) -> Vec<&str> {
        let mut said = self.announcers(ip);
        said.extend(
            self.services_at(ip)
                .filter_map(|service| service.kube_vip_host.as_deref()),
        );
        said.sort_unstable();
        said.dedup();
        said
    }

    /// The nodes that were said to announce an address at some time from `since` on, or are now.
    pub fn reported_announcers_since(&self, ip: IpAddr, since: Timestamp) -> Vec<&str> {
        let mut said = self.reported_announcers(ip);
        let past = self.announcer_history(ip);
        let past = past.filter(|known| known.was_named_since(since));
        said.extend(past.map(|known| known.node.as_str()));
        said.sort_unstable();
        said.dedup();
        said
    }

    /// The nodes that were named in turns as announcers of an address within the minute before `now`; none where only
    /// one was.
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

    /// Of the nodes that are said to announce an address, those that none of its owners is known to be, and that may
    /// speak through a network card of which the cluster names no MAC: with kube-vip, and where an `L2Advertisement`
    /// names cards. Whoever has the address and is no known node may be one of them. Without that MetalLB speaks through
    /// every card, so also through the one by which the node is known.
    pub fn unseen_announcers(&self, ip: IpAddr, is_owner: impl Fn(&str) -> bool) -> Vec<&str> {
        let services = self.services_at(ip);
        let mut said: Vec<_> = services
            .filter_map(|service| service.kube_vip_host.as_deref())
            .collect();
        if self.is_interface_restricted(ip) {
            said.extend(self.announcers(ip));
        }
        said.retain(|node| !is_owner(node));
        said.sort_unstable();
        said.dedup();
        said
    }

    /// Whether an address may be announced through some network cards only.
    fn is_interface_restricted(&self, ip: IpAddr) -> bool {
        let Some(pool) = self.pool_of(ip).filter(|_| !self.on_some_cards.is_empty()) else {
            return false;
        };
        let mut advertisements = self.inventory.advertisements.iter();
        advertisements.any(|one| {
            let name = NamespacedName {
                namespace: one.namespace.clone().unwrap_or_default(),
                name: one.name.clone(),
            };
            one.kind == AdvertisementKind::L2
                && self.on_some_cards.contains(&name)
                && one.advertises(pool)
        })
    }

    /// The node that speaks for an address with one of these MACs, by kube-vip's word: for an address of DHCP it uses
    /// a MAC of its own, which goes with the address from node to node.
    pub fn reported_node(&self, ip: IpAddr, macs: &[MacAddr]) -> Option<&str> {
        self.services_at(ip)
            .filter(|service| service.kube_vip_mac.is_some_and(|mac| macs.contains(&mac)))
            .find_map(|service| service.kube_vip_host.as_deref())
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

/// Whether nothing says that a service is another controller's than MetalLB.
pub(super) fn may_belong_to_metallb(service: &Service) -> bool {
    let class = service.class.as_deref();
    class.is_none_or(|class| class.contains("metallb"))
        && service.kube_vip_host.is_none()
        && !service.by_cilium
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
    fn metallbs_are_the_services_of_which_it_says_so_and_all_that_may_be_where_it_says_nothing() {
        let plain = || testing::service("shop/plain", &[IP]);
        let with = |change: &dyn Fn(&mut Service)| {
            let mut service = plain();
            change(&mut service);
            service
        };
        let said = || with(&|service| service.allocated_from = Some("one".to_owned()));
        let class = |class: &str| with(&|service| service.class = Some(class.to_owned()));
        let kube_vips = with(&|service| service.kube_vip_host = Some("node-1".to_owned()));
        let ciliums = with(&|service| service.by_cilium = true);
        for (what, service, others, pools, expected) in [
            ("said", said(), vec![], vec![], true),
            (
                "said of another",
                plain(),
                vec![said()],
                vec![pool()],
                false,
            ),
            ("said of none", plain(), vec![], vec![pool()], true),
            ("said of none, no pools", plain(), vec![], vec![], false),
            ("its class", class("metallb"), vec![], vec![pool()], true),
            (
                "a class",
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
    fn who_may_speak_through_another_card_is_not_where_metallb_speaks_through_all() {
        let ip: IpAddr = IP.parse().unwrap();
        let all = |spec| testing::metallb("L2Advertisement", "metallb-system/all", spec);
        let on_eth1 = || json!({"interfaces": ["eth1"]});
        let elsewhere = json!({"ipAddressPools": ["two"], "interfaces": ["eth1"]});
        for (what, advertisement, expected) in [
            ("all cards", all(json!({})), &[][..]),
            ("none named", all(json!({"interfaces": []})), &[]),
            ("one named", all(on_eth1()), &["node-1"]),
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
    fn who_is_said_to_announce_and_with_which_mac() {
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
        assert_eq!(cluster.reported_node(ip, &[mac]), None, "on whichever node");
    }
}
