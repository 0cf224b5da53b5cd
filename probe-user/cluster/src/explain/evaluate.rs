//! Evaluates the inputs to an explanation.

use std::net::IpAddr;

use probe_common::wire::MacAddr;
use probe_model::{
    AnnouncementKind, AnnouncementMode, BindingRecord, CheckRecord, CheckStatus, ClusterCause,
    CountsRecord, DisputePhase, Evidence, FindingKind, FindingRecord, OwnerRecord as FindingOwner,
    OwnerRole, Severity,
};
use probe_pools::Pool;

use super::{
    AddressStatus, ClusterInputs, ClusterSourceRecord, ExplainInputs, ExplainedOwnerRecord,
    ExplainedPoolRecord, ExplainedServiceRecord, Explanation, OwnerActivity, ProbeAvailability,
    next_steps,
};
use crate::{
    ClusterSnapshot, cause,
    cause::{CauseContext, NodeCoverage},
    snapshot::{Freshness, ResourceState},
};

/// Explains an address.
pub fn explain(inputs: &ExplainInputs) -> Explanation {
    let cluster = inputs.cluster.as_ref().ok();
    let check = match &inputs.probe_availability {
        ProbeAvailability::Probed(check) => Some(&**check),
        ProbeAvailability::Disabled
        | ProbeAvailability::OtherSegment(_)
        | ProbeAvailability::LinkDown(_)
        | ProbeAvailability::Impossible(_) => None,
    };
    let known = inputs.daemon.as_ref().ok();
    let bindings = known.map_or(&[][..], |daemon| &daemon.bindings);
    let history = known.map_or(&[][..], |daemon| &daemon.history);
    let conflict = bindings.iter().find_map(|binding| binding.conflict);
    let case = ExplainCase {
        inputs,
        cluster,
        check,
        open: conflict.is_some(),
        owners: owners(inputs, check, bindings),
    };
    let (status, summary) = case.status();
    let cause = (status == AddressStatus::Conflict)
        .then(|| case.cause(bindings, history))
        .flatten();
    let objects = cluster.map(|known| &known.cluster);
    let pool = objects.and_then(|cluster| cluster.pool_of(inputs.ip));
    let announcers = objects.map_or_else(Vec::new, |cluster| cluster.announcers(inputs.ip));
    let mut explanation = Explanation {
        time: inputs.now,
        ip: inputs.ip,
        status,
        summary,
        check: check.cloned(),
        not_probed: case.not_probed_reason(),
        services: objects.map_or_else(Vec::new, |cluster| services(cluster, inputs.ip)),
        pool: pool.map(pool_record),
        announced: objects.map(|cluster| cluster.announced(inputs.ip)),
        announcers: announcers.into_iter().map(str::to_owned).collect(),
        cause,
        conflict,
        history: history.to_vec(),
        drifts: cluster.map_or_else(Vec::new, |cluster| cluster.drifts.clone()),
        next: Vec::new(),
        cluster: cluster.map(knowledge),
        gaps: case.missing_inputs(),
        owners: case.owners,
    };
    explanation.next = next_steps::steps(&explanation);
    explanation
}

fn services(cluster: &ClusterSnapshot, ip: IpAddr) -> Vec<ExplainedServiceRecord> {
    let services = cluster.services_at(ip);
    services
        .map(|service| ExplainedServiceRecord {
            named: service.named.clone(),
            created: service.created,
            assigned: service.assigned,
            requested: service.requested.contains(&ip),
            class: service.class.clone(),
            sharing_key: service.sharing_key.clone(),
            external_traffic_policy_local: service.external_traffic_policy_local,
        })
        .collect()
}

fn pool_record(pool: &Pool) -> ExplainedPoolRecord {
    ExplainedPoolRecord {
        namespace: pool.namespace.clone(),
        name: pool.name.clone(),
        kind: pool.kind.label().to_owned(),
        ranges: pool.ranges.iter().map(|range| range.text.clone()).collect(),
    }
}

fn knowledge(known: &ClusterInputs) -> ClusterSourceRecord {
    ClusterSourceRecord {
        source: known.source,
        context: known.context.clone(),
        freshness: known.cluster.objects().freshness.clone(),
        nodes: known.nodes_known.then(|| known.nodes_by_mac.len()),
    }
}

/// The owners: those of the check, then further ones that the daemon knows.
fn owners(
    inputs: &ExplainInputs,
    check: Option<&CheckRecord>,
    bindings: &[BindingRecord],
) -> Vec<ExplainedOwnerRecord> {
    let mut owners: Vec<ExplainedOwnerRecord> = Vec::new();
    for owner in check.map_or(&[][..], |check| &check.owners) {
        let activity = if owner.speaker {
            OwnerActivity::Announces
        } else if owner.holds {
            OwnerActivity::Holds
        } else if owner.is_owner() {
            OwnerActivity::Replies
        } else {
            OwnerActivity::Claims
        };
        owners.push(ExplainedOwnerRecord {
            macs: owner.macs.clone(),
            vendor: owner.vendor.clone(),
            node: owner.node.clone(),
            external: None,
            local: owner.local,
            activity,
            first_seen: None,
            last_seen: owner.last_seen,
        });
    }
    for binding in bindings {
        // A previous owner matters only in a conflict.
        let last = if binding.conflict.is_some() {
            binding.owners.len()
        } else {
            1
        };
        for owner in binding.owners.iter().take(last) {
            let is_same = |known: &&mut ExplainedOwnerRecord| {
                known.macs.iter().any(|mac| owner.macs.contains(mac)) || known.local && owner.local
            };
            if let Some(known) = owners.iter_mut().find(is_same) {
                known.first_seen = Some(owner.first_seen);
                known.node = known.node.take().or_else(|| owner.node.clone());
                continue;
            }
            owners.push(ExplainedOwnerRecord {
                macs: owner.macs.clone(),
                vendor: owner.vendor.clone(),
                node: owner.node.clone(),
                external: None,
                local: owner.local,
                activity: OwnerActivity::Known,
                first_seen: Some(owner.first_seen),
                last_seen: Some(owner.last_seen),
            });
        }
    }
    if let Ok(known) = &inputs.cluster {
        let reported_node = |macs: &[MacAddr]| known.cluster.reported_node(inputs.ip, macs);
        for owner in &mut owners {
            let name = |macs: &[MacAddr]| {
                known
                    .nodes_by_mac
                    .node_of(macs)
                    .or_else(|| reported_node(macs))
            };
            owner.node = owner
                .node
                .take()
                .or_else(|| name(&owner.macs).map(str::to_owned));
        }
        let is_owner = |node: &str| {
            let mut owners = owners.iter();
            owners.any(|owner| owner.node.as_deref() == Some(node))
        };
        // An unknown host may be the node that should announce it, through another interface.
        let unseen = known.cluster.unseen_announcers(inputs.ip, is_owner);
        let is_complete = known.nodes_known && known.nodes_by_mac.is_complete_in(&inputs.networks);
        let may_be_node = !unseen.is_empty();
        for owner in &mut owners {
            let is_nameless = owner.node.is_none();
            owner.external = (is_complete && !(is_nameless && may_be_node)).then_some(is_nameless);
        }
    }
    owners
}

struct ExplainCase<'a> {
    inputs: &'a ExplainInputs,
    cluster: Option<&'a ClusterInputs>,
    check: Option<&'a CheckRecord>,
    /// The daemon has a conflict open.
    open: bool,
    owners: Vec<ExplainedOwnerRecord>,
}

impl ExplainCase<'_> {
    fn status(&self) -> (AddressStatus, String) {
        let status = self.check.map(|check| check.status);
        if status == Some(CheckStatus::Conflict) {
            let owners = self.owners.iter().filter(|owner| owner.activity.is_owner());
            return (
                AddressStatus::Conflict,
                match owners.count() {
                    0..=2 => "Two hosts own this address at once.".to_owned(),
                    number => format!("{number} hosts own this address at once."),
                },
            );
        }
        if self.open {
            let now = match status {
                Some(CheckStatus::OneOwner | CheckStatus::Moved) => {
                    "; now only one of them replies to this node"
                }
                Some(CheckStatus::NoReply) => "; now none of them replies to this node",
                Some(CheckStatus::Conflict | CheckStatus::Contested | CheckStatus::NotProbed)
                | None => "",
            };
            return (
                AddressStatus::Conflict,
                format!("The daemon has a conflict about this address open{now}."),
            );
        }
        match (status, &self.inputs.probe_availability) {
            (Some(CheckStatus::NoReply), _) if self.may_be_announced_here() => (
                AddressStatus::Unknown,
                "No host replies to this node. A speaker on this node may announce it: it does not receive probes from its own \
                 host."
                    .to_owned(),
            ),
            (Some(CheckStatus::NoReply), _) => self.no_owner(),
            (Some(CheckStatus::Contested), _) => (
                AddressStatus::Contested,
                "Two hosts reply with the MACs of one virtual router.".to_owned(),
            ),
            (Some(CheckStatus::OneOwner | CheckStatus::Moved | CheckStatus::Conflict), _) => {
                self.one_owner()
            }
            (_, ProbeAvailability::OtherSegment(why)) => (AddressStatus::NotLocal, sentence(why)),
            // What the daemon observed before the link went down proves nothing now.
            (_, ProbeAvailability::LinkDown(why)) => {
                (AddressStatus::Unknown, format!("The owner is unknown: {why}."))
            }
            (Some(CheckStatus::NotProbed), _) => (
                AddressStatus::Unknown,
                "It was not probed: another host may be booting with it.".to_owned(),
            ),
            (None, _) if !self.owners.is_empty() => self.one_owner(),
            (None, ProbeAvailability::Disabled) if self.inputs.daemon.is_ok() => (
                AddressStatus::Unknown,
                "The daemon knows no owner, and no probe was sent.".to_owned(),
            ),
            (None, _) => (
                AddressStatus::Unknown,
                "The owner is unknown: no probe was sent, and no daemon runs here.".to_owned(),
            ),
        }
    }

    /// Whether this host may announce it without this program knowing.
    fn may_be_announced_here(&self) -> bool {
        let ip = self.inputs.ip;
        self.cluster.is_some_and(|known| {
            let is_assigned = known.cluster.services_at(ip).next().is_some();
            let by_arp = known.cluster.announced(ip) != AnnouncementMode::Bgp;
            is_assigned && by_arp && self.inputs.speaker.may_announce(ip)
        })
    }

    /// Exactly one host owns it.
    fn one_owner(&self) -> (AddressStatus, String) {
        let owner = self.owners.first();
        let name = owner.and_then(|owner| owner.node.as_deref());
        let is_external = owner.and_then(|owner| owner.external) == Some(true);
        let who = name.map_or_else(String::new, |name| format!(": {name}"));
        let Some(known) = self.cluster else {
            return (
                AddressStatus::OneOwner,
                format!("Exactly one host owns it, as this node observes{who}."),
            );
        };
        let ip = self.inputs.ip;
        let announced = known.cluster.announced(ip);
        let services = self.service_names();
        let pool = known.cluster.pool_of(ip).map(|pool| pool.name.as_str());
        match (services, announced) {
            (Some(services), AnnouncementMode::Bgp) => (
                AddressStatus::Claimed,
                format!(
                    "It belongs to {services} and is announced by BGP only, and yet a host replies for it by ARP{who}."
                ),
            ),
            (Some(services), _) if is_external => (
                AddressStatus::WrongOwner,
                format!("It belongs to {services}, and its owner is no node of the cluster."),
            ),
            (Some(services), _) => {
                let sure = match name {
                    Some(_) => who,
                    None => ". Whether that is a node of the cluster is unknown".to_owned(),
                };
                (
                    AddressStatus::OneOwner,
                    format!("It belongs to {services}, and exactly one host owns it{sure}."),
                )
            }
            (None, _) if pool.is_some() && !known.cluster.is_known(crate::Resource::Services) => (
                AddressStatus::OneOwner,
                format!(
                    "Exactly one host owns it{who}. The expected service is unknown: services could not be read."
                ),
            ),
            (None, _) if let Some(pool) = pool => (
                AddressStatus::Claimed,
                format!(
                    "It is in pool {pool} and no service has it, and yet a host owns it{who}: the next service that gets it \
                     will be in conflict."
                ),
            ),
            (None, _) => (
                AddressStatus::OneOwner,
                format!("Exactly one host owns it{who}. No service has it, and it is in no pool."),
            ),
        }
    }

    /// No host replies to this node.
    fn no_owner(&self) -> (AddressStatus, String) {
        let Some(known) = self.cluster else {
            return (
                AddressStatus::Free,
                "No host replies to this node.".to_owned(),
            );
        };
        let announced = known.cluster.announced(self.inputs.ip);
        let Some(services) = self.service_names() else {
            return (
                AddressStatus::Free,
                "No host replies to this node, and no service has it.".to_owned(),
            );
        };
        match announced {
            AnnouncementMode::Layer2 | AnnouncementMode::Unknown => (
                AddressStatus::Silent,
                format!("It belongs to {services}, and no host replies to this node."),
            ),
            AnnouncementMode::NotAnnounced => (
                AddressStatus::Silent,
                format!(
                    "It belongs to {services}, and no host replies to this node: no advertisement announces its pool."
                ),
            ),
            AnnouncementMode::Bgp => (
                AddressStatus::NotLocal,
                format!(
                    "It belongs to {services} and is announced by BGP only: no host replies for it by ARP."
                ),
            ),
        }
    }

    /// The services that have it, for a sentence.
    fn service_names(&self) -> Option<String> {
        let known = self.cluster?;
        let names: Vec<_> = known
            .cluster
            .services_at(self.inputs.ip)
            .map(|service| service.named.to_string())
            .collect();
        match &names[..] {
            [] => None,
            [one] => Some(format!("service {one}")),
            [first, others @ ..] => Some(format!("service {first} and {} more", others.len())),
        }
    }

    fn cause(&self, bindings: &[BindingRecord], history: &[FindingRecord]) -> Option<ClusterCause> {
        // The daemon has observed how it began.
        let open = bindings
            .iter()
            .filter(|binding| binding.conflict.is_some())
            .filter_map(|binding| binding.cluster.as_deref());
        // An earlier conflict had its own cause.
        let reported = history
            .iter()
            .rev()
            .take_while(|finding| {
                finding.finding.attributes().dispute != DisputePhase::EndedConflict
            })
            .filter(|finding| finding.finding.is_dispute())
            .filter_map(|finding| finding.cluster.as_deref());
        let cause = open
            .chain(reported)
            .find_map(|context| context.cause.clone());
        cause.or_else(|| self.cause_by_check(bindings))
    }

    /// The cause by the check alone. The daemon may have observed which of the owners announce it as speakers do.
    fn cause_by_check(&self, bindings: &[BindingRecord]) -> Option<ClusterCause> {
        let (known, check) = (self.cluster?, self.check?);
        let owners = self
            .owners
            .iter()
            .filter(|owner| owner.activity != OwnerActivity::Known);
        let announcement = |macs: &[MacAddr]| {
            let observed = bindings.iter().flat_map(|binding| &binding.owners);
            let same =
                observed.filter(|observed| observed.macs.iter().any(|mac| macs.contains(mac)));
            let strongest = same.map(|observed| observed.announcement).max();
            strongest.unwrap_or(AnnouncementKind::None)
        };
        let owners = owners.map(|owner| FindingOwner {
            macs: owner.macs.clone(),
            vendor: owner.vendor.clone(),
            node: owner.node.clone(),
            role: OwnerRole::Current,
            local: owner.local,
            announcement: announcement(&owner.macs),
            first_seen: owner.first_seen.unwrap_or(check.time),
            last_seen: owner.last_seen.unwrap_or(check.time),
            claims: 1,
        });
        let finding = FindingRecord {
            time: check.time,
            finding: FindingKind::Conflict,
            severity: Severity::Critical,
            interface: check.interface.clone(),
            vlan: check.vlan,
            segment: None,
            ip: self.inputs.ip,
            drill: false,
            since: check.time,
            owners: owners.collect(),
            evidence: Some(Evidence::Confirmed),
            counts: CountsRecord::default(),
            hint: check.hint,
            reason: None,
            cluster: None,
        };
        let (on_segment, with_mac) = known.nodes_by_mac.known_in(&self.inputs.networks);
        // A node that does not reply for its own address is known too.
        let with_mac = if known.nodes_by_mac.is_complete_in(&self.inputs.networks) {
            on_segment
        } else {
            with_mac.min(on_segment.saturating_sub(1))
        };
        let nodes = known.nodes_known.then_some(NodeCoverage {
            all: known.nodes_by_mac.len(),
            on_segment,
            with_mac,
        });
        let context = CauseContext::of_nodes(nodes, check.time);
        cause::cause(&finding, &known.cluster, context)
    }

    fn not_probed_reason(&self) -> Option<String> {
        match &self.inputs.probe_availability {
            ProbeAvailability::Probed(_) => None,
            ProbeAvailability::Disabled => Some(next_steps::NO_PROBE.to_owned()),
            ProbeAvailability::OtherSegment(why)
            | ProbeAvailability::LinkDown(why)
            | ProbeAvailability::Impossible(why) => Some(why.clone()),
        }
    }

    /// How long ago a resource was last confirmed, as the end of a clause.
    fn age(&self, freshness: &Freshness) -> String {
        freshness.last_update.map_or_else(String::new, |at| {
            let age = self.inputs.now.duration_since(at);
            format!(" (last update {} ago)", span(age.as_secs()))
        })
    }

    fn missing_inputs(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        if let ProbeAvailability::Impossible(why) | ProbeAvailability::LinkDown(why) =
            &self.inputs.probe_availability
        {
            gaps.push(format!("not probed: {why}"));
        }
        if let Err(why) = &self.inputs.daemon {
            gaps.push(format!("no history: {why}"));
        }
        match &self.inputs.cluster {
            Err(Some(why)) => gaps.push(format!("Kubernetes: not configured ({why})")),
            Err(None) => {}
            Ok(known) => {
                for (resource, freshness) in &known.cluster.objects().freshness {
                    let error = freshness.error.as_deref();
                    let error = error.map_or_else(String::new, |error| format!(": {error}"));
                    match freshness.state {
                        ResourceState::Current | ResourceState::NotInstalled => {}
                        ResourceState::Stale => {
                            gaps.push(format!(
                                "{resource} may be out of date{}{error}",
                                self.age(freshness)
                            ));
                        }
                        ResourceState::NeverRead | ResourceState::Forbidden => {
                            gaps.push(format!("{resource} could not be read{error}"));
                        }
                    }
                }
                if !known.nodes_known {
                    gaps.push("the list of nodes could not be read".to_owned());
                }
            }
        }
        gaps
    }
}

/// A time span in words.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    let text: String = first.into_iter().flatten().chain(letters).collect();
    if text.ends_with('.') {
        text
    } else {
        format!("{text}.")
    }
}
