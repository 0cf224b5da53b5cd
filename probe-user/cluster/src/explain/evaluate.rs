//! What follows from what is known.

use std::net::IpAddr;

use probe_common::wire::MacAddr;
use probe_model::{
    AnnouncementKind, AnnouncementMode, BindingRecord, CheckRecord, CheckVerdict, ClusterCause,
    CountsRecord, DisputePhase, Evidence, FindingKind, FindingRecord, OwnerRecord as FindingOwner,
    OwnerRole, Severity,
};
use probe_pools::Pool;

use super::{
    ClusterInputs, ClusterSourceRecord, ExplainInputs, ExplainedOwnerRecord, ExplainedPoolRecord,
    ExplainedServiceRecord, Explanation, OwnerPart, ProbeAvailability, Situation, next_steps,
};
use crate::{
    ClusterSnapshot, cause,
    cause::{CauseContext, NodeCoverage},
    snapshot::ResourceState,
};

/// Explains an address.
pub fn explain(material: &ExplainInputs) -> Explanation {
    let cluster = material.cluster.as_ref().ok();
    let check = match &material.probe_availability {
        ProbeAvailability::Probed(check) => Some(&**check),
        ProbeAvailability::Disabled
        | ProbeAvailability::OtherSegment(_)
        | ProbeAvailability::Impossible(_) => None,
    };
    let known = material.daemon.as_ref().ok();
    let bindings = known.map_or(&[][..], |daemon| &daemon.bindings);
    let history = known.map_or(&[][..], |daemon| &daemon.history);
    let conflict = bindings.iter().find_map(|binding| binding.conflict);
    let case = ExplainCase {
        material,
        cluster,
        check,
        open: conflict.is_some(),
        owners: owners(material, check, bindings),
    };
    let (situation, says) = case.situation();
    let cause = (situation == Situation::Conflict)
        .then(|| case.cause(bindings, history))
        .flatten();
    let objects = cluster.map(|known| &known.cluster);
    let pool = objects.and_then(|cluster| cluster.pool_of(material.ip));
    let announcers = objects.map_or_else(Vec::new, |cluster| cluster.announcers(material.ip));
    let mut explanation = Explanation {
        time: material.now,
        ip: material.ip,
        situation,
        says,
        check: check.cloned(),
        not_probed: case.not_probed_reason(),
        services: objects.map_or_else(Vec::new, |cluster| services(cluster, material.ip)),
        pool: pool.map(pool_record),
        announced: objects.map(|cluster| cluster.announced(material.ip)),
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
        nodes: known.nodes_known.then(|| known.roster.len()),
    }
}

/// Who has it: those who were heard just now, then those that the daemon knows of as well.
fn owners(
    material: &ExplainInputs,
    check: Option<&CheckRecord>,
    bindings: &[BindingRecord],
) -> Vec<ExplainedOwnerRecord> {
    let mut owners: Vec<ExplainedOwnerRecord> = Vec::new();
    for owner in check.map_or(&[][..], |check| &check.owners) {
        let part = if owner.holds {
            OwnerPart::Holds
        } else if owner.answers > 0 {
            OwnerPart::Replies
        } else {
            OwnerPart::Claims
        };
        owners.push(ExplainedOwnerRecord {
            macs: owner.macs.clone(),
            vendor: owner.vendor.clone(),
            node: owner.node.clone(),
            stranger: None,
            local: owner.local,
            part,
            first_seen: None,
            last_seen: owner.last_seen,
        });
    }
    for binding in bindings {
        // Who had it before has nothing to do with it now, but in a dispute.
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
                stranger: None,
                local: owner.local,
                part: OwnerPart::Known,
                first_seen: Some(owner.first_seen),
                last_seen: Some(owner.last_seen),
            });
        }
    }
    if let Ok(known) = &material.cluster {
        let by_word = |macs: &[MacAddr]| known.cluster.reported_node(material.ip, macs);
        for owner in &mut owners {
            let name = |macs: &[MacAddr]| known.roster.node_of(macs).or_else(|| by_word(macs));
            owner.node = owner
                .node
                .take()
                .or_else(|| name(&owner.macs).map(str::to_owned));
        }
        let is_owner = |node: &str| {
            let mut owners = owners.iter();
            owners.any(|owner| owner.node.as_deref() == Some(node))
        };
        // Whoever is not known may be the node that should announce it, through another network card.
        let unseen = known.cluster.unseen_announcers(material.ip, is_owner);
        let is_complete = known.nodes_known && known.roster.is_complete_in(&material.networks);
        let may_be_node = !unseen.is_empty();
        for owner in &mut owners {
            let is_nameless = owner.node.is_none();
            owner.stranger = (is_complete && !(is_nameless && may_be_node)).then_some(is_nameless);
        }
    }
    owners
}

struct ExplainCase<'a> {
    material: &'a ExplainInputs,
    cluster: Option<&'a ClusterInputs>,
    check: Option<&'a CheckRecord>,
    /// The daemon has a conflict open.
    open: bool,
    owners: Vec<ExplainedOwnerRecord>,
}

impl ExplainCase<'_> {
    fn situation(&self) -> (Situation, String) {
        let verdict = self.check.map(|check| check.verdict);
        if verdict == Some(CheckVerdict::Conflict) {
            let having = self
                .owners
                .iter()
                .filter(|owner| owner.part != OwnerPart::Known);
            return (
                Situation::Conflict,
                match having.count() {
                    0..=2 => "Two machines have this address at once.".to_owned(),
                    number => format!("{number} machines have this address at once."),
                },
            );
        }
        if self.open {
            let now = match verdict {
                Some(CheckVerdict::OneOwner | CheckVerdict::Moved) => {
                    "; asked now, only one answers"
                }
                Some(CheckVerdict::NoReply) => "; asked now, nobody answers",
                Some(CheckVerdict::Conflict | CheckVerdict::NotProbed) | None => "",
            };
            return (
                Situation::Conflict,
                format!("Two machines have this address: the daemon has the conflict open{now}."),
            );
        }
        let announced_here = self.material.speaker.announces(self.material.ip).is_some();
        let others_answer = self.owners.iter().any(|owner| {
            !owner.local && matches!(owner.part, OwnerPart::Replies | OwnerPart::Claims)
        });
        if announced_here && others_answer {
            return (
                Situation::Conflict,
                "Two machines have this address: one answers, and a load balancer on this host announces it.".to_owned(),
            );
        }
        match (verdict, &self.material.probe_availability) {
            (Some(CheckVerdict::NoReply), _) if announced_here => self.one_owner(),
            (Some(CheckVerdict::NoReply), _) if self.may_be_announced_here() => (
                Situation::Unknown,
                "Nobody answers this host. A load balancer on this very host may announce it, and does not hear its own host."
                    .to_owned(),
            ),
            (Some(CheckVerdict::NoReply), _) => self.no_owner(),
            (Some(CheckVerdict::OneOwner | CheckVerdict::Moved | CheckVerdict::Conflict), _) => self.one_owner(),
            (_, ProbeAvailability::OtherSegment(why)) => (Situation::NotLocal, sentence(why)),
            (Some(CheckVerdict::NotProbed), _) => (
                Situation::Unknown,
                "It was not asked: somebody goes on asking whether it is free, as a booting machine does.".to_owned(),
            ),
            (None, _) if !self.owners.is_empty() => self.one_owner(),
            (None, ProbeAvailability::Disabled) if self.material.daemon.is_ok() => (
                Situation::Unknown,
                "The daemon knows nobody who has it, and it was not asked.".to_owned(),
            ),
            (None, _) => (
                Situation::Unknown,
                "Who has it is not known: it was not asked, and there is no daemon to say.".to_owned(),
            ),
        }
    }

    /// Whether this host may have it without being able to know.
    fn may_be_announced_here(&self) -> bool {
        let ip = self.material.ip;
        self.cluster.is_some_and(|known| {
            let is_assigned = known.cluster.services_at(ip).next().is_some();
            let by_arp = known.cluster.announced(ip) != AnnouncementMode::Bgp;
            is_assigned && by_arp && self.material.speaker.may_announce(ip)
        })
    }

    /// Exactly one machine has it.
    fn one_owner(&self) -> (Situation, String) {
        let owner = self.owners.first();
        let name = owner.and_then(|owner| owner.node.as_deref());
        let stranger = owner.and_then(|owner| owner.stranger) == Some(true);
        let who = name.map_or_else(String::new, |name| format!(": {name}"));
        let Some(known) = self.cluster else {
            return (
                Situation::Healthy,
                format!("Exactly one machine has it{who}."),
            );
        };
        let ip = self.material.ip;
        let announced = known.cluster.announced(ip);
        let services = self.service_names();
        let pool = known.cluster.pool_of(ip).map(|pool| pool.name.as_str());
        match (services, announced) {
            (Some(services), AnnouncementMode::Bgp) => (
                Situation::Claimed,
                format!(
                    "It is {services}'s and announced by BGP only, and yet a machine answers for it by ARP{who}."
                ),
            ),
            (Some(services), _) if stranger => (
                Situation::UnassignedOwner,
                format!(
                    "It is {services}'s, and the machine that has it is no node of the cluster."
                ),
            ),
            (Some(services), _) => {
                let sure = match name {
                    Some(_) => who,
                    None => ". Whether that is a node of the cluster is not known".to_owned(),
                };
                (
                    Situation::Healthy,
                    format!("It is {services}'s, and exactly one machine has it{sure}."),
                )
            }
            (None, _) if pool.is_some() && !known.cluster.is_known(crate::Resource::Services) => (
                Situation::Healthy,
                format!(
                    "Exactly one machine has it{who}. Which service should is not known: services could not be read."
                ),
            ),
            (None, _) if let Some(pool) = pool => (
                Situation::Claimed,
                format!(
                    "It is in pool {pool} and no service has it, and yet a machine does{who}: whoever gets it next \
                     is in conflict."
                ),
            ),
            (None, _) => (
                Situation::Healthy,
                format!("Exactly one machine has it{who}. It is no service's, and in no pool."),
            ),
        }
    }

    /// Nobody answers.
    fn no_owner(&self) -> (Situation, String) {
        let Some(known) = self.cluster else {
            return (Situation::Free, "Nobody has it.".to_owned());
        };
        let announced = known.cluster.announced(self.material.ip);
        let Some(services) = self.service_names() else {
            return (
                Situation::Free,
                "Nobody has it, and no service should.".to_owned(),
            );
        };
        match announced {
            AnnouncementMode::Layer2 | AnnouncementMode::Unknown => (
                Situation::Silent,
                format!("It is {services}'s, and nobody answers for it."),
            ),
            AnnouncementMode::NotAnnounced => (
                Situation::Silent,
                format!(
                    "It is {services}'s, and nobody answers for it: no advertisement announces its pool."
                ),
            ),
            AnnouncementMode::Bgp => (
                Situation::NotLocal,
                format!(
                    "It is {services}'s, and announced by BGP only: nobody answers for it by ARP."
                ),
            ),
        }
    }

    /// The services that have it, as the possessor in a sentence.
    fn service_names(&self) -> Option<String> {
        let known = self.cluster?;
        let names: Vec<_> = known
            .cluster
            .services_at(self.material.ip)
            .map(|service| service.named.to_string())
            .collect();
        match &names[..] {
            [] => None,
            [one] => Some(format!("service {one}")),
            [first, others @ ..] => Some(format!("service {first} and {} more", others.len())),
        }
    }

    fn cause(&self, bindings: &[BindingRecord], history: &[FindingRecord]) -> Option<ClusterCause> {
        // The daemon has seen how it came to this.
        let open = bindings
            .iter()
            .filter(|binding| binding.conflict.is_some())
            .filter_map(|binding| binding.cluster.as_deref());
        // What has ended had its own cause.
        let told = history
            .iter()
            .rev()
            .take_while(|finding| {
                finding.finding.attributes().dispute != DisputePhase::EndedConflict
            })
            .filter(|finding| finding.finding.is_dispute())
            .filter_map(|finding| finding.cluster.as_deref());
        let cause = open.chain(told).find_map(|context| context.cause.clone());
        cause.or_else(|| self.cause_by_check(bindings))
    }

    /// The cause by what was asked just now. Which of the owners announce it as load balancers do the daemon may have
    /// heard.
    fn cause_by_check(&self, bindings: &[BindingRecord]) -> Option<ClusterCause> {
        let (known, check) = (self.cluster?, self.check?);
        let announced_here = self.material.speaker.announces(self.material.ip).is_some();
        let owners = self
            .owners
            .iter()
            .filter(|owner| owner.part != OwnerPart::Known || owner.local && announced_here);
        let announcement = |macs: &[MacAddr]| {
            let heard = bindings.iter().flat_map(|binding| &binding.owners);
            let same = heard.filter(|heard| heard.macs.iter().any(|mac| macs.contains(mac)));
            let strongest = same.map(|heard| heard.announcement).max();
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
            ip: self.material.ip,
            drill: false,
            since: check.time,
            owners: owners.collect(),
            evidence: Some(Evidence::Confirmed),
            counts: CountsRecord::default(),
            hint: check.hint,
            reason: None,
            cluster: None,
        };
        let (on_segment, with_mac) = known.roster.known_in(&self.material.networks);
        // Of whoever does not answer for his own address it is known as well.
        let with_mac = if known.roster.is_complete_in(&self.material.networks) {
            on_segment
        } else {
            with_mac.min(on_segment.saturating_sub(1))
        };
        let nodes = known.nodes_known.then_some(NodeCoverage {
            all: known.roster.len(),
            on_segment,
            with_mac,
        });
        let context = CauseContext::of_nodes(nodes, check.time);
        cause::cause(&finding, &known.cluster, context)
    }

    fn not_probed_reason(&self) -> Option<String> {
        match &self.material.probe_availability {
            ProbeAvailability::Probed(_) => None,
            ProbeAvailability::Disabled => Some("--no-probe".to_owned()),
            ProbeAvailability::OtherSegment(why) | ProbeAvailability::Impossible(why) => {
                Some(why.clone())
            }
        }
    }

    fn missing_inputs(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        if let ProbeAvailability::Impossible(why) = &self.material.probe_availability {
            gaps.push(format!("not asked: {why}"));
        }
        if let Err(why) = &self.material.daemon {
            gaps.push(format!("no history: {why}"));
        }
        match &self.material.cluster {
            Err(Some(why)) => gaps.push(format!("no cluster: {why}")),
            Err(None) => {}
            Ok(known) => {
                for (resource, freshness) in &known.cluster.objects().freshness {
                    let error = freshness.error.as_deref();
                    let error = error.map_or_else(String::new, |error| format!(": {error}"));
                    match freshness.known {
                        ResourceState::Current | ResourceState::NotInstalled => {}
                        ResourceState::Stale => {
                            gaps.push(format!("{resource} may be out of date{error}"));
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
