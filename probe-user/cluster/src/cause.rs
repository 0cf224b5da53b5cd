//! Why an address of a cluster has more than one owner: from what was observed, and from what the cluster says.
//!
//! The rules are tried in this order; the first that holds is the cause.
//!
//! 1. An owner is certainly no node, and announces as load balancers do: [`CauseKind::OtherCluster`].
//! 2. An owner is certainly no node: [`CauseKind::ExternalDevice`].
//! 3. Every owner is the same node: [`CauseKind::ArpFlux`].
//! 4. So many hosts reply to one request that every node does: [`CauseKind::IpvsStrictArp`].
//! 5. Services have the address without a key that lets them share it: [`CauseKind::SharedWithoutKey`].
//! 6. Whether an owner is a node is not known: [`CauseKind::Unknown`].
//! 7. Two nodes announce it, and more than one installation is in the cluster: [`CauseKind::SeveralInstalls`].
//! 8. Two nodes are named in turns as its announcers: [`CauseKind::SplitBrain`].
//! 9. Two nodes announce it, and one of them should not: [`CauseKind::StaleSpeaker`].
//! 10. Two nodes announce it: [`CauseKind::SplitBrain`].
//! 11. A node has it on an interface: [`CauseKind::NodeAddress`].
//! 12. Otherwise [`CauseKind::Unknown`].
//!
//! An owner is certainly no node if its MAC is no node's, the MACs of all nodes of this network are known, and no
//! node that is said to announce the address, and may do so through another interface, is missing among the owners.
//!
//! What MetalLB says about who announces (`ServiceL2Status`), and kube-vip (`vipHost`), is a witness: it may tell two
//! announcers apart, and never makes two of none. `NodeOwner` says when a node counts as a speaker, and when as a host.
//!
//! Two nodes that contest an address briefly have no cause: a rollout of the speakers looks like that.

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

/// Names that a sentence lists.
const MAX_NAMES: usize = 5;
/// How long before a dispute began a node may last have been named as announcer and still be taken for one that goes on.
const NAMED_BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// While the status names no node, who was named within this counts.
const NAMED_RECENTLY: SignedDuration = SignedDuration::from_mins(1);
/// After this an agent that probes tracked addresses has observed everyone who replies for one.
const LISTENED_LONG: SignedDuration = SignedDuration::from_mins(10);
/// How far the API server's clock may be behind this host's.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// How well nodes are known by their MACs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCoverage {
    /// How many nodes there are.
    pub all: usize,
    /// How many of them have an address on the network in question, by what the cluster says.
    pub on_segment: usize,
    /// Of how many of them a MAC is known.
    pub with_mac: usize,
}

impl NodeCoverage {
    /// Whether a MAC that is none of theirs is no node's. A node of which the cluster names no address here may have
    /// one nevertheless.
    const fn is_complete(self) -> bool {
        self.on_segment > 0 && self.on_segment >= self.all && self.with_mac >= self.on_segment
    }
}

/// Where this host has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPlacement {
    /// On no interface: if this host replies for it, a program in user space does.
    Absent,
    /// On this interface, which replies to ARP.
    Interface(String),
    /// On this interface, which does not reply to ARP (loopback, dummy, kube-ipvs0). Others may reply for it.
    InterfaceWithoutArp(String),
}

impl AddressPlacement {
    /// Where this host has the address.
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

/// What is known besides the finding and the cluster's objects.
#[derive(Clone, Debug)]
pub struct CauseContext {
    /// How well the nodes are known by their MACs; `None` if their list is not known.
    pub nodes: Option<NodeCoverage>,
    /// The present time.
    pub now: Timestamp,
    /// Since when this agent observes the network; `None` if that is not known.
    pub listens_since: Option<Timestamp>,
    /// Where this host has the address; `None` if that is not known.
    pub placement: Option<AddressPlacement>,
    /// For how long the address has been contested, if the finding says that it is.
    pub contest: ContestDuration,
}

impl CauseContext {
    /// Nothing is known of this host.
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

/// The likely cause of a dispute about an address of the cluster: of a service, or of a pool. The owners of the finding
/// carry the names of nodes. `None` for findings that are no dispute, for addresses that are not the cluster's, and while
/// nodes contest an address briefly.
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

/// Whether several nodes of the cluster, and no other host, contest an address: rollouts of speakers do that, and so do
/// planned handovers.
pub fn is_contested_by_nodes(finding: &FindingRecord) -> bool {
    let names: BTreeSet<_> = owners_of(finding).map(name).collect();
    finding.finding == FindingKind::Contested && names.len() > 1 && !names.contains(&None)
}

fn owners_of(finding: &FindingRecord) -> impl Iterator<Item = &OwnerRecord> {
    let owners = finding.owners.iter();
    owners.filter(|owner| matches!(owner.role, OwnerRole::Current | OwnerRole::Earlier))
}

/// One dispute.
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

    /// The first rule that holds.
    fn classify(&self, evidence: &mut Vec<String>) -> (CauseKind, CauseScope) {
        let strangers: Vec<_> = self.owners.iter().filter(|owner| !is_node(owner)).collect();
        let nodes: BTreeSet<_> = self.owners.iter().filter_map(|owner| name(owner)).collect();
        let unseen = self
            .cluster
            .unseen_announcers(self.ip, |node| nodes.contains(node));
        let certain =
            self.context.nodes.is_some_and(NodeCoverage::is_complete) && unseen.is_empty();
        if let (Some(stranger), true) = (
            strangers.iter().max_by_key(|owner| owner.announces()),
            certain,
        ) {
            evidence.push(self.macs_of_nodes());
            evidence.extend(self.mac_neighbourhood(stranger));
            return if stranger.announces() {
                evidence.extend(self.second_interface(stranger));
                (CauseKind::OtherCluster, CauseScope::CrossCluster)
            } else {
                (CauseKind::ExternalDevice, CauseScope::External)
            };
        }
        let scope = if strangers.is_empty() {
            CauseScope::Internal
        } else {
            CauseScope::Unknown
        };
        let hint = self.finding.hint;
        if strangers.is_empty() && nodes.len() == 1 && self.owners.len() > 1 {
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
        if let Some(stranger) = strangers.first() {
            evidence.push(self.macs_of_nodes());
            evidence.extend(describe_candidate(stranger, &unseen));
            return (CauseKind::Unknown, CauseScope::Unknown);
        }
        (self.classify_nodes(evidence), CauseScope::Internal)
    }

    /// Every owner is a node, and there is more than one.
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
            let cilium = self.services.iter().find(|service| service.by_cilium);
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
                "No owner was observed to announce it as a speaker does: which of them has it on an interface is not known"
                    .to_owned(),
            );
        }
        CauseKind::Unknown
    }

    /// Two or more nodes announce the address.
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
                "The status of the service named {} in turns within the last minute",
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
        let said = self.reported();
        let unsaid = names.iter().find(|name| !said.contains(name));
        if let (false, Some(name)) = (said.is_empty(), unsaid) {
            evidence.push(format!(
                "By its status {} should announce it; {name} does so too",
                listed(&said)
            ));
            return CauseKind::StaleSpeaker;
        }
        evidence.push(if said.is_empty() {
            "Nothing says which of them should announce it".to_owned()
        } else {
            "By its status each of them should announce it".to_owned()
        });
        CauseKind::SplitBrain
    }

    /// The nodes that should announce the address by what is said now, or was during the last minute if nothing is.
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

    /// As what a node has the address.
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
        let before = self.finding.since.saturating_sub(NAMED_BEFORE);
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

    /// What this host's interfaces say, if the owner is this host.
    fn by_placement(&self, owner: &OwnerRecord, is_reported: bool) -> Option<NodeOwner> {
        // kube-vip has its addresses on interfaces, and Cilium replies without.
        let by_kube_vip = self
            .services
            .iter()
            .any(|service| service.kube_vip_host.is_some());
        let by_cilium = self.services.iter().any(|service| service.by_cilium);
        match self.context.placement.as_ref().filter(|_| owner.local)? {
            AddressPlacement::Interface(_) if by_kube_vip || is_reported && owner.announces() => {
                None
            }
            AddressPlacement::Interface(name) => Some(NodeOwner::HasInterface(name.clone())),
            AddressPlacement::Absent if by_cilium => None,
            AddressPlacement::Absent => Some(NodeOwner::HasNoInterface),
            AddressPlacement::InterfaceWithoutArp(_) if owner.announces() => None,
            AddressPlacement::InterfaceWithoutArp(name) => {
                Some(NodeOwner::HasInterfaceWithoutArp(name.clone()))
            }
        }
    }

    /// Whether this agent would have observed a speaker's announcements if the owner were one: the address was
    /// assigned, or the owner came, when the agent had listened for long.
    fn would_have_announced(&self, owner: &OwnerRecord) -> bool {
        let Some(listens_since) = self.context.listens_since else {
            return false;
        };
        let is_later = |time: Timestamp, margin| time.duration_since(listens_since) >= margin;
        let mut assigned = self.services.iter().map(|service| service.assigned);
        let is_new = !self.services.is_empty()
            && assigned.all(|time| time.is_some_and(|time| is_later(time, CLOCK_SKEW)));
        is_new || is_later(owner.first_seen, LISTENED_LONG)
    }

    /// Services that have the address and may not share it. With MetalLB and Cilium that takes a key; others, as
    /// kube-vip, let all services share.
    fn shared_without_key(&self) -> Option<String> {
        let [first, others @ ..] = &self.services[..] else {
            return None;
        };
        let takes_key =
            |service: &&Service| service.by_cilium || self.cluster.is_metallb_service(service);
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
            "The services {} have this address, and no common key (allow-shared-ip) that lets them",
            listed(&names)
        ))
    }

    /// Objects of MetalLB's in more than one namespace.
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
                "Speakers of several namespaces say that they announce it: {namespaces}"
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
            (None, Some(vendor), Some(_)) => format!("no known node, made by {vendor}"),
            (None, Some(vendor), None) => format!("made by {vendor}"),
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
            None => "The nodes are not known".to_owned(),
            Some(NodeCoverage { on_segment: 0, .. }) => {
                "No node has an address on this network by which its MAC address could be known"
                    .to_owned()
            }
            Some(NodeCoverage {
                all,
                on_segment,
                with_mac,
            }) if on_segment < all && with_mac >= on_segment => {
                format!(
                    "Only {on_segment} of {all} nodes have an address on this network that the cluster names"
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

    /// What an announcer that is no node may be after all, where a node announces the address as well.
    fn second_interface(&self, stranger: &OwnerRecord) -> Option<String> {
        let mut announcers = self.owners.iter().filter(|owner| owner.announces());
        let node = announcers.find_map(|owner| name(owner))?;
        let mac = stranger.macs.first()?;
        Some(format!(
            "MetalLB speaks through every network card: see that {mac} is no second one of {node} in this network"
        ))
    }

    /// Whether a stranger was there before the service had the address.
    fn mac_neighbourhood(&self, stranger: &OwnerRecord) -> Option<String> {
        let service = self.services.first()?;
        let (since, what) = match (service.assigned, service.created) {
            (Some(assigned), _) => (assigned, "got its addresses"),
            (None, Some(created)) => (created, "was made"),
            (None, None) => return None,
        };
        let difference = stranger.first_seen.duration_since(since);
        let order = if difference.is_negative() {
            "before"
        } else {
            "after"
        };
        let mac = stranger.macs.first()?;
        Some(format!(
            "{mac} was first seen with it {} {order} {} {what}",
            span(difference.abs()),
            service.named
        ))
    }

    /// The nodes that MetalLB and kube-vip name as its announcers.
    fn announcing_node(&self) -> Option<String> {
        let said = self.cluster.reported_announcers(self.ip);
        (!said.is_empty()).then(|| {
            format!(
                "The status of the service names {} as its announcer, which may be out of date",
                listed(&said)
            )
        })
    }

    /// What is concluded from knowledge that is not current says so.
    fn stale_resources(&self) -> Option<String> {
        let freshness = self
            .cluster
            .objects()
            .freshness
            .get(&super::Resource::Services)?;
        let is_stale = freshness.known == super::snapshot::ResourceState::Stale;
        let heard = freshness.heard.filter(|_| is_stale)?;
        Some(format!("The API server was last heard at {heard}"))
    }
}

/// As what a node has the address, and what says so.
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

    /// Whether it is a host, beside so many speakers. Without a speaker, a remote owner may be one.
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

    /// The evidence as a sentence; none where the sentence about the owner has it.
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
                "{node} replies for it: whether it has it on an interface, or its speaker announced it earlier, is not known here"
            ),
        })
    }
}

/// Which of the nodes that are said to announce the address, and are not among its owners, a stranger may be.
fn describe_candidate(stranger: &OwnerRecord, unseen: &[&str]) -> Option<String> {
    let mac = stranger.macs.first()?;
    (!unseen.is_empty()).then(|| {
        format!(
            "It is said to be announced by {}, whom no owner is known to be: {mac} may be that node, through another \
             network card",
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

/// Names in a sentence.
fn listed(names: &[&str]) -> String {
    let (told, rest) = names.split_at(names.len().min(MAX_NAMES));
    match (told, rest.len()) {
        ([], _) => String::new(),
        ([only], 0) => (*only).to_owned(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (told, more) => format!("{} and {more} more", told.join(", ")),
    }
}

/// A length of time in a sentence: its largest unit is enough.
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
