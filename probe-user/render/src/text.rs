//! Findings as sentences, for on-call engineers.

use std::borrow::Cow;

use probe_common::wire::BogusFrameReason;
use probe_model::{
    AddressContext, AnnouncementMode, BogusReason, CauseKind, CauseScope, CountsRecord, Evidence,
    FindingKind, FindingRecord, Hint, OwnerRecord, OwnerRole, Severity, TakeoverRecord,
    UndecidedKind, UndecidedRecord, vendor,
};

/// A takeover that is not decided at the end of the input, in one line.
pub fn undecided(record: &UndecidedRecord) -> String {
    let UndecidedRecord {
        time,
        undecided: UndecidedKind::Takeover,
        interface,
        vlan,
        ip,
        takeover: TakeoverRecord { from, to, since },
    } = record;
    let seconds = time.duration_since(*since).as_secs().max(0);
    let location = super::terminal::location(interface, *vlan);
    format!(
        "undecided at the end: {ip} on {location}: {from} \u{2192} {to}, {seconds} s before the end"
    )
}

/// The event of a finding in one sentence, with its severity.
pub fn event(record: &FindingRecord) -> String {
    let sentence = match record.finding {
        FindingKind::NewBinding => "first claim for this address".to_owned(),
        FindingKind::Moved => "another host owns this address now, and the previous owner does \
            not reply: a failover, or the address was moved"
            .to_owned(),
        FindingKind::Contested => "ownership of this address is flapping, with less evidence than \
            a conflict needs: a restart, a failback, or the start of a conflict"
            .to_owned(),
        FindingKind::Conflict => conflict(record),
        FindingKind::ConflictQuiet => "no new evidence recently, and not confirmed resolved: the \
            conflict stays open"
            .to_owned(),
        FindingKind::ConflictResolved if !has_current_owner(record) => {
            "the conflict is over: no host replies to ARP probes any more".to_owned()
        }
        FindingKind::ConflictResolved => {
            "the conflict is resolved: exactly one owner replied to two rounds of probes".to_owned()
        }
        FindingKind::ConflictExpired => {
            "the conflict has expired: no second owner has claimed the \
            address for a long time"
                .to_owned()
        }
        FindingKind::StaleAnnouncement => "another host announced this address and does not reply \
            for it, while its owner does: neighbour caches may be wrong, and clients may send to \
            the other host, until the owner announces the address again"
            .to_owned(),
        FindingKind::ProbeDenied => "a host probed this address before using it, and the owner \
            replied: the address is in use"
            .to_owned(),
        FindingKind::BogusClaim => match record.reason {
            Some(reason) => format!("invalid claim: {}", bogus_reason_sentence(reason)),
            None => "invalid claim".to_owned(),
        },
        FindingKind::SourceMismatch => "claims for this address name one MAC and come from \
            another: a proxy, a bond, a load balancer, or a forged claim"
            .to_owned(),
        FindingKind::Silent if record.owners.is_empty() => {
            "no host has claimed this address or replied for it".to_owned()
        }
        FindingKind::Silent => "no host claims this address or replies for it any more".to_owned(),
    };
    if record.drill {
        return format!("DRILL, not real: {sentence}.");
    }
    match record.severity {
        Severity::Critical => format!("Critical: {sentence}."),
        Severity::Warning => format!("Warning: {sentence}."),
        Severity::Notice | Severity::Info => format!("{}.", capitalised(&sentence)),
    }
}

fn has_current_owner(record: &FindingRecord) -> bool {
    let mut owners = record.owners.iter();
    owners.any(|owner| owner.role == OwnerRole::Current)
}

fn conflict(record: &FindingRecord) -> String {
    let claim = match record.evidence {
        Some(Evidence::DuplicateReply | Evidence::Confirmed) => "reply for this address",
        Some(Evidence::Alternation | Evidence::Local | Evidence::ManyOwners) | None => {
            "claim this address"
        }
    };
    let hosts = match record.owners.len() {
        0..=2 => format!("two hosts {claim}"),
        number if record.evidence == Some(Evidence::ManyOwners) => {
            format!("{number} or more hosts {claim}")
        }
        number => format!("{number} hosts {claim}"),
    };
    match record.evidence {
        Some(evidence) => format!("{hosts}; {}", evidence_sentence(evidence)),
        None => hosts,
    }
}

/// The evidence of a conflict, as the end of a sentence.
pub fn evidence_sentence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::DuplicateReply => "they replied to the same request",
        Evidence::Alternation => "ownership keeps alternating between them",
        Evidence::Local => "this host owns it, and another host continues to claim it",
        Evidence::Confirmed => "each of them replied to probes",
        Evidence::ManyOwners => "their number exceeds the limit per address (--max-macs)",
    }
}

/// The likely cause by a hint, as a sentence without a period.
pub fn cause(hint: Hint) -> &'static str {
    match hint {
        Hint::IpvsStrictArp => {
            "many hosts reply, possibly kube-proxy in IPVS mode: without strictARP every node \
             replies for every service address"
        }
        Hint::ArpFlux => {
            "both owners are probably one host that replies on several interfaces of one network \
             (ARP flux)"
        }
        Hint::TwoMasters => {
            "two routers are master at once (VRRP, CARP, HSRP): they do not receive each other's \
             advertisements"
        }
        Hint::RouterAndHost => {
            "a virtual router has the address, and another host has it configured as its own"
        }
        Hint::TwoRouterGroups => "two virtual-router groups (VRIDs) have the same address",
        Hint::BalanceAlb => {
            "one MAC sends only requests and the other only replies: probably one host with a \
             bond in mode balance-alb"
        }
        Hint::TwoAnnouncers => {
            "two load balancers announce it (MetalLB, kube-vip): two installations or clusters \
             with the same pool, or a speaker that lost contact with the others"
        }
        Hint::AnnouncerAndHost => {
            "one owner announces it as a load balancer (MetalLB, kube-vip), the other has it \
             configured: a static address, or a DHCP range that overlaps the pool"
        }
    }
}

/// The cause of a dispute about an address of a cluster, in a few words.
pub const fn cluster_cause(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::NodeAddress => "a node has the address on an interface",
        CauseKind::StaleSpeaker => {
            "a speaker continues to announce an address that it no longer owns"
        }
        CauseKind::SeveralInstalls => "more than one load balancer is installed",
        CauseKind::SplitBrain => "two nodes announce it: the speakers have lost contact",
        CauseKind::ExternalDevice => "a host outside the cluster has the address",
        CauseKind::OtherCluster => "the announcer of another cluster has the address",
        CauseKind::SharedWithoutKey => "services have one address without a key to share it",
        CauseKind::ArpFlux => "a node replies on several interfaces of one network (ARP flux)",
        CauseKind::IpvsStrictArp => "every node replies: kube-proxy in IPVS mode without strictARP",
        CauseKind::Unknown => "unknown",
    }
}

/// The scope of a dispute about an address of a cluster, in a few words.
pub const fn scope_sentence(scope: CauseScope) -> &'static str {
    match scope {
        CauseScope::Internal => "within the cluster",
        CauseScope::External => "from outside the cluster",
        CauseScope::CrossCluster => "from another cluster",
        CauseScope::Unknown => "origin unknown",
    }
}

/// The services, pool and announcers of an address, from the cluster.
pub fn holder_sentence(known: &AddressContext) -> String {
    let names: Vec<_> = known.services.iter().map(ToString::to_string).collect();
    let mut parts = match &names[..] {
        [] => vec!["none".to_owned()],
        names => vec![names.join(", ")],
    };
    if let Some(pool) = &known.pool {
        parts.push(format!("pool {}", pool.name));
    }
    let mut text = parts.join(", ");
    let announced = match known.announced {
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown if !known.announcers.is_empty() => {
            let nodes = known.announcers.join(", ");
            Some(format!("announced by {nodes}, according to its status"))
        }
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown => None,
        AnnouncementMode::Bgp => Some("announced by BGP only".to_owned()),
        AnnouncementMode::NotAnnounced => {
            Some("not announced: its pool has no advertisement".to_owned())
        }
    };
    if let Some(announced) = announced {
        text.push_str("; ");
        text.push_str(&announced);
    }
    text
}

/// The name of a host: its node, or this host; `None` if unknown.
pub fn node_name(owner: &OwnerRecord) -> Option<Cow<'_, str>> {
    match (&owner.node, owner.local) {
        (Some(node), true) => Some(format!("{node} (this host)").into()),
        (Some(node), false) => Some(node.into()),
        (None, true) => Some("this host".into()),
        (None, false) => None,
    }
}

/// The name of a host, or the vendor of its MAC if it has no name.
pub fn describe_host(owner: &OwnerRecord) -> Cow<'_, str> {
    let vendor = || owner.macs.first().map(|&mac| vendor::describe(mac));
    node_name(owner).or_else(vendor).unwrap_or_default()
}

/// The label of an owner of a finding, by its position among the owners. The owners of a dispute are numbered.
pub fn owner_label(record: &FindingRecord, index: usize) -> Cow<'static, str> {
    let is_numbered = record.finding.is_dispute()
        && record.finding != FindingKind::Moved
        && record.owners.len() > 1;
    match record.owners[index].role {
        OwnerRole::Current | OwnerRole::Earlier if is_numbered => {
            format!("owner {}", index + 1).into()
        }
        role => role_label(role).into(),
    }
}

/// The label of an owner by its role.
pub const fn role_label(role: OwnerRole) -> &'static str {
    match role {
        OwnerRole::Current => "owner",
        OwnerRole::Earlier => "previous",
        OwnerRole::Prober => "probed by",
        OwnerRole::Sender => "sent by",
    }
}

/// The counts of each kind of evidence; empty without evidence.
pub fn evidence_counts(counts: &CountsRecord) -> String {
    let CountsRecord {
        duplicate_replies,
        returns,
        local,
        confirmed,
        suppressed,
    } = *counts;
    let parts = [
        (
            duplicate_replies,
            "request with two replies",
            "requests with two replies",
        ),
        (returns, "flap", "flaps"),
        (
            local,
            "claim to an address of this host",
            "claims to an address of this host",
        ),
        (
            confirmed,
            "probe round with two replies",
            "probe rounds with two replies",
        ),
        (suppressed, "more suppressed", "more suppressed"),
    ];
    parts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Formats a number of claims: `1 claim`, `2 claims`.
pub fn claims(count: u64) -> String {
    if count == 1 {
        "1 claim".to_owned()
    } else {
        format!("{count} claims")
    }
}

fn bogus_reason_sentence(reason: BogusReason) -> &'static str {
    match reason {
        BogusReason::Frame(BogusFrameReason::ShaZero) => "its sender MAC is all zeros",
        BogusReason::Frame(BogusFrameReason::ShaBroadcast) => {
            "its sender MAC is the broadcast address"
        }
        BogusReason::Frame(BogusFrameReason::ShaMulticast) => "its sender MAC is a group address",
        BogusReason::Frame(BogusFrameReason::SpaUnspecified) => {
            "it is a reply without a sender address"
        }
        BogusReason::Frame(BogusFrameReason::SpaBroadcast) => "it claims the broadcast address",
        BogusReason::Frame(BogusFrameReason::SpaMulticast) => "it claims a group address",
        BogusReason::Frame(BogusFrameReason::SpaLoopback) => "it claims a loopback address",
        BogusReason::SpaNetworkBroadcast => "it claims the broadcast address of its network",
    }
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
