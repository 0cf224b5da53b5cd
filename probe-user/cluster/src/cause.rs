//! Why an address of a cluster is in dispute: from what was seen, and what the cluster says.
//!
//! The rules are tried in this order; the first that holds is the cause.
//!
//! 1. An owner is certainly no node, and announces as load balancers do: [`CauseKind::OtherCluster`].
//! 2. An owner is certainly no node: [`CauseKind::ExternalDevice`].
//! 3. Every owner is the same node: [`CauseKind::ArpFlux`].
//! 4. So many machines answer one request that every node does: [`CauseKind::IpvsStrictArp`].
//! 5. Services have the address without a key that lets them share it: [`CauseKind::SharedWithoutKey`].
//! 6. An owner may be a node or not, for want of knowledge: [`CauseKind::Unknown`].
//! 7. Two nodes announce it, and more than one installation is in the cluster: [`CauseKind::SeveralInstalls`].
//! 8. Two nodes announce it, and one of them should not: [`CauseKind::StaleSpeaker`].
//! 9. Two nodes announce it: [`CauseKind::SplitBrain`].
//! 10. A node has it, and is heard to announce it no more than hosts do: [`CauseKind::NodeAddress`]. Not where Cilium
//!     may speak for it, which announces no more than hosts do either.
//! 11. Otherwise [`CauseKind::Unknown`].
//!
//! Who is certainly no node: one whose MAC is no node's, where the MACs of all nodes of this network are known, and no
//! node that is said to announce the address, and may do so through another network card, is missing among its owners.
//!
//! What MetalLB says of who announces (`ServiceL2Status`), and kube-vip (`vipHost`), is a witness: it may tell two
//! announcers apart, and never makes two of none. Where two nodes have the address on the wire and one was heard to
//! announce it, the other counts as an announcer if it is said to be one: it may have announced before this began to
//! listen.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::SignedDuration;
use probe_model::{
    CauseKind, CauseScope, ClusterCause, Evidence, FindingKind, FindingRecord, Hint, OwnerRecord,
    OwnerRole,
};

use super::snapshot::{ClusterSnapshot, Service};

/// More names than this are not listed in a sentence.
const MAX_NAMES: usize = 5;

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

/// The likely cause of a dispute about an address of the cluster: of a service, or of a pool. The owners of the finding
/// carry the names of nodes; `nodes` is how well those are known, `None` if their list is not. `None` for findings that are no dispute, and for addresses that are none of the cluster's.
pub fn cause(
    finding: &FindingRecord,
    cluster: &ClusterSnapshot,
    nodes: Option<NodeCoverage>,
) -> Option<ClusterCause> {
    let is_dispute = match finding.finding {
        FindingKind::Contested | FindingKind::Conflict | FindingKind::ConflictQuiet => true,
        FindingKind::NewBinding
        | FindingKind::Moved
        | FindingKind::ConflictResolved
        | FindingKind::ConflictExpired
        | FindingKind::ProbeDenied
        | FindingKind::BogusClaim
        | FindingKind::SourceMismatch
        | FindingKind::Silent => false,
    };
    let services: Vec<_> = cluster.services_at(finding.ip).collect();
    let is_ours = !services.is_empty() || cluster.pool_of(finding.ip).is_some();
    if !is_dispute || !is_ours {
        return None;
    }
    let owners = finding.owners.iter();
    let owners: Vec<_> = owners
        .filter(|owner| matches!(owner.role, OwnerRole::Current | OwnerRole::Earlier))
        .collect();
    let case = CauseInputs {
        ip: finding.ip,
        finding,
        cluster,
        nodes,
        services,
        owners,
    };
    Some(case.determine())
}

/// One dispute.
struct CauseInputs<'a> {
    ip: IpAddr,
    finding: &'a FindingRecord,
    cluster: &'a ClusterSnapshot,
    nodes: Option<NodeCoverage>,
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
        let certain = self.nodes.is_some_and(NodeCoverage::is_complete) && unseen.is_empty();
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
            evidence.push(format!("Every MAC address that answers is one of {node}"));
            return (CauseKind::ArpFlux, CauseScope::Internal);
        }
        if hint == Some(Hint::ArpFlux) {
            evidence.push("Every MAC address that answers is this host's".to_owned());
            return (CauseKind::ArpFlux, CauseScope::Internal);
        }
        if hint == Some(Hint::IpvsStrictArp) {
            evidence.push("Three or more machines answered one request".to_owned());
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
        let said = self.cluster.reported_announcers(self.ip);
        let is_said = |owner: &OwnerRecord| name(owner).is_some_and(|name| said.contains(&name));
        let is_one_heard = self.owners.iter().any(|owner| owner.announces());
        let announcers: Vec<_> = self
            .owners
            .iter()
            .filter(|owner| owner.announces() || is_one_heard && is_said(owner))
            .collect();
        if announcers.len() > 1 {
            for unheard in announcers.iter().filter(|owner| !owner.announces()) {
                let name = name(unheard).unwrap_or_default();
                evidence.push(format!(
                    "{name} has not been heard to announce it, and is said to"
                ));
            }
            if let Some(sentence) = self.multiple_installations() {
                evidence.push(sentence);
                return CauseKind::SeveralInstalls;
            }
            if self.services.is_empty() && self.cluster.is_known(super::Resource::Services) {
                evidence.push(format!(
                    "No service has {}: nobody should announce it",
                    self.ip
                ));
                return CauseKind::StaleSpeaker;
            }
            let unsaid = announcers.iter().find(|owner| !is_said(owner));
            if let (false, Some(name)) = (said.is_empty(), unsaid.and_then(|owner| name(owner))) {
                evidence.push(format!(
                    "{} should announce it, as far as is said; {name} does as well",
                    listed(&said)
                ));
                return CauseKind::StaleSpeaker;
            }
            evidence.push(if said.is_empty() {
                "Nothing says which of them should announce it".to_owned()
            } else {
                "Each of them takes itself for the one that should announce it".to_owned()
            });
            return CauseKind::SplitBrain;
        }
        let host = self.owners.iter().find(|owner| !owner.announces());
        let host = host.and_then(|owner| name(owner));
        if let (1, Some(host)) = (announcers.len(), host) {
            evidence.push(format!(
                "{host} answers for it, and has not announced it as a speaker does"
            ));
            if let Some(service) = self.services.iter().find(|service| service.by_cilium) {
                evidence.push(format!(
                    "{} is Cilium's, which announces no more than hosts do: {host} may speak for it",
                    service.named
                ));
                return CauseKind::Unknown;
            }
            return CauseKind::NodeAddress;
        }
        if self.finding.evidence == Some(Evidence::Local)
            // What this host is said to announce, it may have answered for and not have on an interface.
            && let Some(holder) = self.owners.iter().find(|owner| owner.local && !is_said(owner))
        {
            evidence.push(format!(
                "{} has it on an interface",
                name(holder).unwrap_or_default()
            ));
            return CauseKind::NodeAddress;
        }
        evidence.push(
            "No owner has been heard to announce it: which of them has it on an interface, and which speaks for a \
             load balancer, is not known"
                .to_owned(),
        );
        CauseKind::Unknown
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
        let who = match (name(owner), &owner.vendor, self.nodes) {
            (Some(node), _, _) => format!("node {node}"),
            (None, Some(vendor), Some(_)) => format!("no known node, made by {vendor}"),
            (None, Some(vendor), None) => format!("made by {vendor}"),
            (None, None, Some(_)) => "no known node".to_owned(),
            (None, None, None) => "not known".to_owned(),
        };
        let does = if owner.announces() {
            "announces it as a load balancer does"
        } else {
            "answers for it"
        };
        format!("{mac} ({who}) {does}")
    }

    fn macs_of_nodes(&self) -> String {
        match self.nodes {
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

    /// What MetalLB and kube-vip say of who announces it.
    fn announcing_node(&self) -> Option<String> {
        let said = self.cluster.reported_announcers(self.ip);
        (!said.is_empty()).then(|| {
            format!(
                "By the status of the service it is announced by {}, which need not be so",
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
