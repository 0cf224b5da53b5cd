//! The likely cause of a dispute about an address of a cluster, from the observed owners and from the objects of the
//! cluster.
//!
//! The rules are tried in this order; the first that holds is the cause.
//!
//! 1. An owner is certainly not a node, and announces as load balancers do: [`CauseKind::OtherCluster`].
//! 2. An owner is certainly not a node: [`CauseKind::ExternalDevice`].
//! 3. Every owner is the same node: [`CauseKind::ArpFlux`].
//! 4. Three or more hosts reply to one request: [`CauseKind::IpvsStrictArp`].
//! 5. Services have the address without a key that lets them share it: [`CauseKind::SharedWithoutKey`].
//! 6. It is unknown whether an owner is a node: [`CauseKind::Unknown`].
//! 7. Two nodes announce it, and more than one installation is in the cluster: [`CauseKind::SeveralInstalls`].
//! 8. The status names two nodes alternately as announcers: [`CauseKind::SplitBrain`].
//! 9. Two nodes announce it, and one of them should not: [`CauseKind::StaleSpeaker`].
//! 10. Two nodes announce it: [`CauseKind::SplitBrain`].
//! 11. A node has it on an interface: [`CauseKind::NodeAddress`].
//! 12. Otherwise [`CauseKind::Unknown`].
//!
//! An owner is certainly not a node if the MACs of all nodes on this network are known, its MAC is not among them, and
//! every node that the status names as announcer, and that may use another interface, is among the owners.
//!
//! The status of MetalLB (`ServiceL2Status`) and of kube-vip (`vipHost`) supports other evidence: it distinguishes
//! announcers, but is no proof that a node announces. `NodeOwner` defines when a node counts as a speaker, and when as
//! a host.
//!
//! A brief contest between two nodes has no cause: a rollout of the speakers looks the same.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use probe_model::{
    AnnouncementKind, CauseKind, CauseScope, ClusterCause, DisputePhase, FindingKind,
    FindingRecord, Hint, Links, OwnerRecord, OwnerRole,
};

use super::{
    contest::ContestDuration,
    snapshot::{ClusterSnapshot, Service},
};

/// Maximum number of names in a sentence.
const MAX_NAMES: usize = 5;
/// A node that the status last named up to this long before a dispute is assumed to continue to announce.
const MAX_NAMED_AGE: SignedDuration = SignedDuration::from_mins(10);
/// While the status names no node, the nodes named within this time count.
const NAMED_RECENTLY: SignedDuration = SignedDuration::from_mins(1);
/// After this time an agent that probes tracked addresses has observed every host that replies for one.
const MIN_OBSERVATION: SignedDuration = SignedDuration::from_mins(10);
/// The maximum time by which the clock of the API server may be behind the clock of this host.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// The number of nodes, and of those whose MAC is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCoverage {
    /// The number of nodes.
    pub all: usize,
    /// The number of nodes for which the cluster lists an address on the network in question.
    pub on_segment: usize,
    /// The number of these nodes with a known MAC.
    pub with_mac: usize,
}

impl NodeCoverage {
    /// Whether all nodes are known by their MACs, so that any other MAC is not a node's. A node without a listed
    /// address on the network may still have one.
    const fn is_complete(self) -> bool {
        self.on_segment > 0 && self.on_segment >= self.all && self.with_mac >= self.on_segment
    }
}

/// The placement of an address on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPlacement {
    /// On no interface: only a program in user space can reply for it.
    Absent,
    /// On this interface, which replies to ARP.
    Interface(String),
    /// On this interface, which does not reply to ARP (loopback, dummy, kube-ipvs0). Other interfaces may reply for it.
    InterfaceWithoutArp(String),
}

impl AddressPlacement {
    /// The placement of an address, by the links of this host.
    pub fn of(links: &Links, ip: IpAddr) -> Self {
        let holders = links
            .iter()
            .filter(|link| link.addresses.iter().any(|address| address.addr() == ip));
        match holders.max_by_key(|link| link.arp) {
            None => Self::Absent,
            Some(link) if link.arp => Self::Interface(link.name.clone()),
            Some(link) => Self::InterfaceWithoutArp(link.name.clone()),
        }
    }
}

/// Inputs to the cause besides the finding and the objects of the cluster.
#[derive(Clone, Debug)]
pub struct CauseContext {
    /// The coverage of the node list; `None` if the list is unknown.
    pub nodes: Option<NodeCoverage>,
    /// The current time.
    pub now: Timestamp,
    /// The time since which this agent observes the network; `None` if unknown.
    pub listens_since: Option<Timestamp>,
    /// The placement of the address on this host; `None` if unknown.
    pub placement: Option<AddressPlacement>,
    /// How long the address has been contested, for findings of that kind.
    pub contest: ContestDuration,
}

impl CauseContext {
    /// A context without facts about this host.
    pub const fn of_nodes(nodes: Option<NodeCoverage>, now: Timestamp) -> Self {
        Self {
            nodes,
            now,
            listens_since: None,
            placement: None,
            contest: ContestDuration::Brief,
        }
    }
}

/// The likely cause of a dispute about an address of a service or pool. The owners of the finding must carry their node
/// names. `None` for findings that are no dispute, for addresses outside the cluster, and while nodes contest an
/// address briefly.
pub fn cause(
    finding: &FindingRecord,
    cluster: &ClusterSnapshot,
    context: CauseContext,
) -> Option<ClusterCause> {
    let is_dispute = match finding.finding {
        FindingKind::Contested => {
            context.contest == ContestDuration::Persistent || !is_contested_by_nodes(finding)
        }
        kind => kind.attributes().dispute == DisputePhase::OpenConflict,
    };
    let services: Vec<_> = cluster.services_at(finding.ip).collect();
    let is_ours = !services.is_empty() || cluster.pool_of(finding.ip).is_some();
    if !is_dispute || !is_ours {
        return None;
    }
    let case = CauseInputs {
        ip: finding.ip,
        finding,
        cluster,
        context,
        services,
        owners: owners_of(finding).collect(),
    };
    Some(case.determine())
}

/// Whether only nodes of the cluster contest an address, as in rollouts of speakers and planned failovers.
pub fn is_contested_by_nodes(finding: &FindingRecord) -> bool {
    let names: BTreeSet<_> = owners_of(finding).map(name).collect();
    finding.finding == FindingKind::Contested && names.len() > 1 && !names.contains(&None)
}

fn owners_of(finding: &FindingRecord) -> impl Iterator<Item = &OwnerRecord> {
    let owners = finding.owners.iter();
    owners.filter(|owner| matches!(owner.role, OwnerRole::Current | OwnerRole::Earlier))
}

/// The inputs to the cause of one dispute.
struct CauseInputs<'a> {
    ip: IpAddr,
    finding: &'a FindingRecord,
    cluster: &'a ClusterSnapshot,
    context: CauseContext,
    services: Vec<&'a Service>,
    owners: Vec<&'a OwnerRecord>,
}

impl CauseInputs<'_> {
    fn determine(&self) -> ClusterCause {
        let mut evidence = Vec::new();
        let (kind, scope) = self.classify(&mut evidence);
        let mut sentences: Vec<_> = self
            .owners
            .iter()
            .map(|owner| self.describe_owner(owner))
            .collect();
        sentences.extend(evidence);
        sentences.extend(self.announcing_node());
        sentences.extend(self.stale_resources());
        ClusterCause {
            kind,
            scope,
            evidence: sentences,
        }
    }

    /// The cause by the first rule that applies.
    fn classify(&self, evidence: &mut Vec<String>) -> (CauseKind, CauseScope) {
        let unknown_hosts: Vec<_> = self.owners.iter().filter(|owner| !is_node(owner)).collect();
        let nodes: BTreeSet<_> = self.owners.iter().filter_map(|owner| name(owner)).collect();
        let unseen = self
            .cluster
            .unseen_announcers(self.ip, |node| nodes.contains(node));
        let certain =
            self.context.nodes.is_some_and(NodeCoverage::is_complete) && unseen.is_empty();
        if let (Some(unknown_host), true) = (
            unknown_hosts.iter().max_by_key(|owner| owner.announces()),
            certain,
        ) {
            evidence.push(self.macs_of_nodes());
            evidence.extend(self.mac_neighbourhood(unknown_host));
            return if unknown_host.announces() {
                evidence.extend(self.second_interface(unknown_host));
                (CauseKind::OtherCluster, CauseScope::CrossCluster)
            } else {
                (CauseKind::ExternalDevice, CauseScope::External)
            };
        }
        let scope = if unknown_hosts.is_empty() {
            CauseScope::Internal
        } else {
            CauseScope::Unknown
        };
        let hint = self.finding.hint;
        if unknown_hosts.is_empty() && nodes.len() == 1 && self.owners.len() > 1 {
            let node = nodes.first().copied().unwrap_or_default();
            evidence.push(format!("Every MAC address that replies belongs to {node}"));
            return (CauseKind::ArpFlux, CauseScope::Internal);
        }
        if hint == Some(Hint::ArpFlux) {
            evidence.push("Every MAC address that replies belongs to this host".to_owned());
            return (CauseKind::ArpFlux, CauseScope::Internal);
        }
        if hint == Some(Hint::IpvsStrictArp) {
            evidence.push("Three or more hosts replied to one request".to_owned());
            return (CauseKind::IpvsStrictArp, scope);
        }
        if let Some(sentence) = self.shared_without_key() {
            evidence.push(sentence);
            return (CauseKind::SharedWithoutKey, scope);
        }
        if let Some(unknown_host) = unknown_hosts.first() {
            evidence.push(self.macs_of_nodes());
            evidence.extend(describe_candidate(unknown_host, &unseen));
            return (CauseKind::Unknown, CauseScope::Unknown);
        }
        (self.classify_nodes(evidence), CauseScope::Internal)
    }

    /// Classifies a dispute between two or more nodes.
    fn classify_nodes(&self, evidence: &mut Vec<String>) -> CauseKind {
        let owners: Vec<_> = self
            .owners
            .iter()
            .map(|owner| (name(owner).unwrap_or_default(), self.node_owner(owner)))
            .collect();
        let speakers: Vec<_> = owners
            .iter()
            .filter(|(_, owner)| owner.is_speaker())
            .collect();
        if speakers.len() > 1 {
            evidence.extend(
                speakers
                    .iter()
                    .filter_map(|(name, owner)| owner.describe(name)),
            );
            let names: Vec<_> = speakers.iter().map(|&&(name, _)| name).collect();
            return self.classify_speakers(&names, evidence);
        }
        let host = owners
            .iter()
            .find(|(_, owner)| owner.is_host(speakers.len()));
        if let Some((name, host)) = host {
            evidence.extend(host.describe(name));
            let is_certain = matches!(host, NodeOwner::HasInterface(_));
            let cilium = self.services.iter().find(|service| service.is_cilium);
            if let Some(service) = cilium.filter(|_| !is_certain) {
                evidence.push(format!(
                    "{} is Cilium's, which announces addresses as hosts do: {name} may announce it for Cilium",
                    service.named
                ));
                return CauseKind::Unknown;
            }
            return CauseKind::NodeAddress;
        }
        let undecided = owners.iter().filter(|(_, owner)| !owner.is_speaker());
        evidence.extend(undecided.filter_map(|(name, owner)| owner.describe(name)));
        if speakers.is_empty() {
            evidence.push(
                "No owner was observed to announce it as a speaker does: it is unknown which of them has it on an interface"
                    .to_owned(),
            );
        }
        CauseKind::Unknown
    }

    /// Classifies a dispute between two or more nodes that announce the address.
    fn classify_speakers(&self, names: &[&str], evidence: &mut Vec<String>) -> CauseKind {
        if let Some(sentence) = self.multiple_installations() {
            evidence.push(sentence);
            return CauseKind::SeveralInstalls;
        }
        let alternating = self.alternating();
        if alternating
            .iter()
            .filter(|name| names.contains(name))
            .count()
            > 1
        {
            evidence.push(format!(
                "The status of the service named {} alternately within the last minute",
                listed(&alternating)
            ));
            return CauseKind::SplitBrain;
        }
        if self.services.is_empty() && self.cluster.is_known(super::Resource::Services) {
            evidence.push(format!(
                "No service has {}: no node should announce it",
                self.ip
            ));
            return CauseKind::StaleSpeaker;
        }
        let named = self.reported();
        let unnamed = names.iter().find(|name| !named.contains(name));
        if let (false, Some(name)) = (named.is_empty(), unnamed) {
            evidence.push(format!(
                "By its status {} should announce it; {name} does so too",
                listed(&named)
            ));
            return CauseKind::StaleSpeaker;
        }
        evidence.push(if named.is_empty() {
            "No status names the node that should announce it".to_owned()
        } else {
            "By its status each of them should announce it".to_owned()
        });
        CauseKind::SplitBrain
    }

    /// The nodes that the status names as announcers, or named during the last minute if it names none now.
    fn reported(&self) -> Vec<&str> {
        let now = self.cluster.reported_announcers(self.ip);
        if !now.is_empty() {
            return now;
        }
        let since = self.context.now.saturating_sub(NAMED_RECENTLY);
        let since = since.unwrap_or(Timestamp::MIN);
        self.cluster.reported_announcers_since(self.ip, since)
    }

    fn alternating(&self) -> Vec<&str> {
        self.cluster
            .alternating_announcers(self.ip, self.context.now)
    }

    /// How a node has the address: as a speaker or as a host.
    fn node_owner(&self, owner: &OwnerRecord) -> NodeOwner {
        let is_named = |names: &[&str]| name(owner).is_some_and(|name| names.contains(&name));
        let is_reported = is_named(&self.reported()) || is_named(&self.alternating());
        if let Some(by_placement) = self.by_placement(owner, is_reported) {
            return by_placement;
        }
        if owner.announces() {
            return NodeOwner::Announces;
        }
        let is_one_observed = self.owners.iter().any(|owner| {
            owner.announces() || self.by_placement(owner, false) == Some(NodeOwner::HasNoInterface)
        });
        let before = self.finding.since.saturating_sub(MAX_NAMED_AGE);
        let before = before.unwrap_or(Timestamp::MIN);
        if is_one_observed && is_reported {
            return NodeOwner::IsReported;
        }
        if is_one_observed && is_named(&self.cluster.reported_announcers_since(self.ip, before)) {
            return NodeOwner::WasReported;
        }
        let ever = self
            .cluster
            .reported_announcers_since(self.ip, Timestamp::MIN);
        match owner.announcement {
            AnnouncementKind::Host => NodeOwner::AnnouncesAsHost,
            AnnouncementKind::None if !is_named(&ever) && self.would_have_announced(owner) => {
                NodeOwner::RepliesOnly
            }
            AnnouncementKind::Speaker | AnnouncementKind::Earlier | AnnouncementKind::None => {
                NodeOwner::Undecided
            }
        }
    }

    /// How this host has the address, by its interfaces; `None` if the owner is another host.
    fn by_placement(&self, owner: &OwnerRecord, is_reported: bool) -> Option<NodeOwner> {
        // kube-vip configures its addresses on interfaces; Cilium replies without that.
        let by_kube_vip = self
            .services
            .iter()
            .any(|service| service.kube_vip_host.is_some());
        let is_cilium = self.services.iter().any(|service| service.is_cilium);
        match self.context.placement.as_ref().filter(|_| owner.local)? {
            AddressPlacement::Interface(_) if by_kube_vip || is_reported && owner.announces() => {
                None
            }
            AddressPlacement::Interface(name) => Some(NodeOwner::HasInterface(name.clone())),
            AddressPlacement::Absent if is_cilium => None,
            AddressPlacement::Absent => Some(NodeOwner::HasNoInterface),
            AddressPlacement::InterfaceWithoutArp(_) if owner.announces() => None,
            AddressPlacement::InterfaceWithoutArp(name) => {
                Some(NodeOwner::HasInterfaceWithoutArp(name.clone()))
            }
        }
    }

    /// Whether this agent would have observed announcements if the owner were a speaker: the address was assigned, or
    /// the owner first observed, after the agent had run for [`MIN_OBSERVATION`].
    fn would_have_announced(&self, owner: &OwnerRecord) -> bool {
        let Some(listens_since) = self.context.listens_since else {
            return false;
        };
        let is_later = |time: Timestamp, margin| time.duration_since(listens_since) >= margin;
        let mut assigned = self.services.iter().map(|service| service.assigned);
        let is_new = !self.services.is_empty()
            && assigned.all(|time| time.is_some_and(|time| is_later(time, CLOCK_SKEW)));
        is_new || is_later(owner.first_seen, MIN_OBSERVATION)
    }

    /// Names the services that have the address without permission to share it. MetalLB and Cilium require a common
    /// key; other controllers, such as kube-vip, let all services share.
    fn shared_without_key(&self) -> Option<String> {
        let [first, others @ ..] = &self.services[..] else {
            return None;
        };
        let takes_key =
            |service: &&Service| service.is_cilium || self.cluster.is_metallb_service(service);
        if !self.services.iter().any(takes_key) {
            return None;
        }
        let same = |other: &&Service| {
            first.sharing_key.is_some() && other.sharing_key == first.sharing_key
        };
        if others.is_empty() || others.iter().all(same) {
            return None;
        }
        let names: Vec<_> = self
            .services
            .iter()
            .map(|one| one.named.to_string())
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Some(format!(
            "The services {} have this address without a common sharing key (allow-shared-ip)",
            listed(&names)
        ))
    }

    /// Names the namespaces if MetalLB objects are in more than one.
    fn multiple_installations(&self) -> Option<String> {
        let statuses = self.cluster.objects().statuses.iter();
        let of_service = statuses
            .filter(|status| self.services.iter().any(|one| one.named == status.service))
            .map(|status| status.named.namespace.as_str());
        let pools = self.cluster.inventory().pools.iter();
        let pools = pools
            .filter(|pool| pool.kind.is_metallb())
            .filter_map(|pool| pool.namespace.as_deref());
        let several = |namespaces: BTreeSet<&str>| -> Option<String> {
            let namespaces: Vec<_> = namespaces.into_iter().collect();
            (namespaces.len() > 1).then(|| listed(&namespaces))
        };
        if let Some(namespaces) = several(of_service.collect()) {
            return Some(format!(
                "Status objects in several namespaces name announcers of it: {namespaces}"
            ));
        }
        let namespaces = several(pools.collect())?;
        Some(format!("Pools are in several namespaces: {namespaces}"))
    }

    fn describe_owner(&self, owner: &OwnerRecord) -> String {
        let mac = owner.macs.first().map(ToString::to_string);
        let mac = mac.unwrap_or_default();
        let who = match (name(owner), &owner.vendor, self.context.nodes) {
            (Some(node), _, _) => format!("node {node}"),
            (None, Some(vendor), Some(_)) => format!("no known node, vendor {vendor}"),
            (None, Some(vendor), None) => format!("vendor {vendor}"),
            (None, None, Some(_)) => "no known node".to_owned(),
            (None, None, None) => "not known".to_owned(),
        };
        let does = if owner.announces() {
            "announces it as a load balancer does"
        } else {
            "replies for it"
        };
        format!("{mac} ({who}) {does}")
    }

    fn macs_of_nodes(&self) -> String {
        match self.context.nodes {
            None => "The nodes are unknown".to_owned(),
            Some(NodeCoverage { on_segment: 0, .. }) => {
                "No node has an address on this network, so their MAC addresses are unknown"
                    .to_owned()
            }
            Some(NodeCoverage {
                all,
                on_segment,
                with_mac,
            }) if on_segment < all && with_mac >= on_segment => {
                format!(
                    "Only {on_segment} of {all} nodes have an address on this network in the list of nodes"
                )
            }
            Some(NodeCoverage {
                on_segment,
                with_mac,
                ..
            }) => {
                format!(
                    "The MAC addresses of {with_mac} of {on_segment} nodes on this network are known"
                )
            }
        }
    }

    /// The hint that an unknown announcer may be a second interface of a node that announces the address too.
    fn second_interface(&self, unknown_host: &OwnerRecord) -> Option<String> {
        let mut announcers = self.owners.iter().filter(|owner| owner.announces());
        let node = announcers.find_map(|owner| name(owner))?;
        let mac = unknown_host.macs.first()?;
        Some(format!(
            "MetalLB announces on every interface: check that {mac} is not a second interface of {node} on this network"
        ))
    }

    /// States whether an unknown host had the address before the service did.
    fn mac_neighbourhood(&self, unknown_host: &OwnerRecord) -> Option<String> {
        let service = self.services.first()?;
        let (since, what) = match (service.assigned, service.created) {
            (Some(assigned), _) => (assigned, "got its addresses"),
            (None, Some(created)) => (created, "was made"),
            (None, None) => return None,
        };
        let difference = unknown_host.first_seen.duration_since(since);
        let order = if difference.is_negative() {
            "before"
        } else {
            "after"
        };
        let mac = unknown_host.macs.first()?;
        Some(format!(
            "{mac} was first seen with it {} {order} {} {what}",
            span(difference.abs()),
            service.named
        ))
    }

    /// States the nodes that MetalLB and kube-vip name as announcers.
    fn announcing_node(&self) -> Option<String> {
        let named = self.cluster.reported_announcers(self.ip);
        (!named.is_empty()).then(|| {
            format!(
                "The status of the service names {} as its announcer, which may be out of date",
                listed(&named)
            )
        })
    }

    /// States that the cluster data is stale, if it is.
    fn stale_resources(&self) -> Option<String> {
        let freshness = self
            .cluster
            .objects()
            .freshness
            .get(&super::Resource::Services)?;
        let is_stale = freshness.state == super::snapshot::ResourceState::Stale;
        let last_update = freshness.last_update.filter(|_| is_stale)?;
        Some(format!(
            "The last update from the API server was at {last_update}"
        ))
    }
}

/// How a node has the address, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeOwner {
    /// A speaker: it announces the address in both forms.
    Announces,
    /// A speaker: this host has the address on no interface, so a program in user space replies for it.
    HasNoInterface,
    /// A speaker: it was not observed to announce, and the status of the service names it.
    IsReported,
    /// A speaker: it was not observed to announce, and the status of the service named it until shortly before.
    WasReported,
    /// A host: this host has the address on this interface.
    HasInterface(String),
    /// A host: it announced the address in one form.
    AnnouncesAsHost,
    /// A host: it replies, and this agent would have observed a speaker's announcements.
    RepliesOnly,
    /// This host has the address on this interface, which does not reply to ARP.
    HasInterfaceWithoutArp(String),
    /// A speaker that announced before this agent listened, or a host.
    Undecided,
}

impl NodeOwner {
    const fn is_speaker(&self) -> bool {
        match self {
            Self::Announces | Self::HasNoInterface | Self::IsReported | Self::WasReported => true,
            Self::HasInterface(_)
            | Self::AnnouncesAsHost
            | Self::RepliesOnly
            | Self::HasInterfaceWithoutArp(_)
            | Self::Undecided => false,
        }
    }

    /// Whether it is a host, given the number of speakers among the owners. Without any speaker, a remote owner may be
    /// one.
    const fn is_host(&self, speakers: usize) -> bool {
        match self {
            Self::HasInterface(_) => true,
            Self::AnnouncesAsHost | Self::RepliesOnly => speakers > 0,
            Self::Announces
            | Self::HasNoInterface
            | Self::IsReported
            | Self::WasReported
            | Self::HasInterfaceWithoutArp(_)
            | Self::Undecided => false,
        }
    }

    /// The evidence as a sentence; `None` where the sentence about the owner contains it.
    fn describe(&self, node: &str) -> Option<String> {
        Some(match self {
            Self::Announces => return None,
            Self::HasNoInterface => format!(
                "{node} has it on no interface: a program in user space replies for it, as a speaker does"
            ),
            Self::IsReported => format!(
                "{node} was not observed to announce it; the status of the service names it"
            ),
            Self::WasReported => format!(
                "{node} was not observed to announce it; the status of the service named it until shortly before"
            ),
            Self::HasInterface(interface) => format!("{node} has it on {interface}"),
            Self::AnnouncesAsHost => {
                format!("{node} announced it as hosts do, and not as a speaker does")
            }
            Self::RepliesOnly => {
                format!("{node} replies for it, and has not announced it as a speaker does")
            }
            Self::HasInterfaceWithoutArp(interface) => format!(
                "{node} has it on {interface}, which does not reply to ARP: its other interfaces may reply for it (arp_ignore)"
            ),
            Self::Undecided => format!(
                "{node} replies for it: it is unknown here whether it has it on an interface or its speaker announced it earlier"
            ),
        })
    }
}

/// Names the nodes that an unknown host may be: those that the status names as announcers and that are not among the
/// owners.
fn describe_candidate(unknown_host: &OwnerRecord, unseen: &[&str]) -> Option<String> {
    let mac = unknown_host.macs.first()?;
    (!unseen.is_empty()).then(|| {
        format!(
            "The status names {} as announcer, which is not among the known owners: {mac} may be that node, through another \
             interface",
            listed(unseen)
        )
    })
}

/// Whether an owner is a node: this host is one.
fn is_node(owner: &OwnerRecord) -> bool {
    name(owner).is_some()
}

fn name(owner: &OwnerRecord) -> Option<&str> {
    let on_segment = owner.local.then_some("this host");
    owner.node.as_deref().or(on_segment)
}

/// Joins names for a sentence: `a, b and c`.
fn listed(names: &[&str]) -> String {
    let (shown, rest) = names.split_at(names.len().min(MAX_NAMES));
    match (shown, rest.len()) {
        ([], _) => String::new(),
        ([only], 0) => (*only).to_owned(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Formats a duration for a sentence, in its largest unit.
pub(super) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        ..=119 => (seconds, "s"),
        120..=7_199 => (seconds / 60, "min"),
        7_200..=172_799 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests;
