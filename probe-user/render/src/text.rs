//! Findings as sentences: what a person who was woken by one reads.

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
    let place = super::terminal::place(interface, *vlan);
    format!(
        "undecided at the end: {ip} on {place}: {from} \u{2192} {to}, {seconds} s before the end"
    )
}

/// What has happened.
pub fn what(record: &FindingRecord) -> String {
    let sentence = match record.finding {
        FindingKind::NewBinding => "first claim for this address".to_owned(),
        FindingKind::Moved => "another owner has this address now, and the one before keeps \
            silent: a failover, or somebody moved it"
            .to_owned(),
        FindingKind::Contested => "owners take turns on this address, but less than a conflict \
            needs: a restart, a failback, or a conflict that begins"
            .to_owned(),
        FindingKind::Conflict => conflict(record),
        FindingKind::ConflictQuiet => "no new evidence for a while, and no proof that it is over: \
            the conflict stays open"
            .to_owned(),
        FindingKind::ConflictResolved if !has_current_owner(record) => {
            "the conflict is over: no host replies to ARP probes any more".to_owned()
        }
        FindingKind::ConflictResolved => {
            "the conflict is over: asked twice, exactly one owner answered".to_owned()
        }
        FindingKind::ConflictExpired => "the conflict is no longer kept open: no second owner has \
            claimed the address for a long time"
            .to_owned(),
        FindingKind::StaleAnnouncement => "another host announced this address and does not reply \
            for it, while its owner does: neighbour caches may be wrong, and clients send to the \
            other host, until the owner announces the address again"
            .to_owned(),
        FindingKind::ProbeDenied => "a newcomer asked whether this address is free, and was told \
            that it is not"
            .to_owned(),
        FindingKind::BogusClaim => match record.reason {
            Some(reason) => format!(
                "a frame that claims nothing valid: {}",
                bogus_reason_sentence(reason)
            ),
            None => "a frame that claims nothing valid".to_owned(),
        },
        FindingKind::SourceMismatch => "claims for this address name one MAC and come from \
            another: a proxy, a bond, a load balancer, or somebody who pretends"
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
    let machines = match record.owners.len() {
        0..=2 => "two owners have this address at once".to_owned(),
        number if record.evidence == Some(Evidence::ManyOwners) => {
            format!("{number} or more owners have this address at once")
        }
        number => format!("{number} owners have this address at once"),
    };
    match record.evidence {
        Some(evidence) => format!("{machines}; {}", evidence_sentence(evidence)),
        None => machines,
    }
}

/// Evidence as the rest of a sentence.
pub fn evidence_sentence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::DuplicateReply => "they answered the same request",
        Evidence::Alternation => "they keep taking it from each other",
        Evidence::Local => "this host holds it, and another machine goes on claiming it",
        Evidence::Confirmed => "asked who has it, each of them answered",
        Evidence::ManyOwners => "more hosts claim it in turn than are remembered (--max-macs)",
    }
}

/// What may be the cause.
pub fn cause(hint: Hint) -> &'static str {
    match hint {
        Hint::IpvsStrictArp => {
            "so many machines answer that it may be kube-proxy in IPVS mode: without strictARP \
             every node answers for every service address"
        }
        Hint::ArpFlux => {
            "both owners are probably one host that replies on several interfaces of one network \
             (ARP flux)"
        }
        Hint::TwoMasters => {
            "two routers are master at once (VRRP, CARP, HSRP): they do not hear each other"
        }
        Hint::RouterAndHost => {
            "a virtual router has the address, and a machine has it configured as its own too"
        }
        Hint::TwoRouterGroups => "two virtual-router groups (VRIDs) have the same address",
        Hint::BalanceAlb => {
            "one MAC only asks and the other only answers: likely one machine, with a bond in mode \
             balance-alb"
        }
        Hint::TwoAnnouncers => {
            "two load balancers announce it (MetalLB, kube-vip): two installs or clusters with the \
             same pool, or a speaker that has lost touch with the others"
        }
        Hint::AnnouncerAndHost => {
            "one owner announces it for a load balancer (MetalLB, kube-vip), the other has it \
             configured: a static address, or a DHCP range that overlaps the pool"
        }
    }
}

/// The cause of a dispute about a cluster's address, in a few words.
pub const fn cluster_cause(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::NodeAddress => "a node has the address on an interface",
        CauseKind::StaleSpeaker => "a speaker goes on announcing what is no longer its own",
        CauseKind::SeveralInstalls => "more than one load balancer is installed",
        CauseKind::SplitBrain => "two nodes announce it: the speakers do not see each other",
        CauseKind::ExternalDevice => "a machine that is no node has the address",
        CauseKind::OtherCluster => "the announcer of another cluster has the address",
        CauseKind::SharedWithoutKey => "services have one address without a key to share it",
        CauseKind::ArpFlux => "a node answers on several interfaces of one network (ARP flux)",
        CauseKind::IpvsStrictArp => "every node answers: kube-proxy in IPVS mode without strictARP",
        CauseKind::Unknown => "unknown: what is known does not say",
    }
}

/// Where those belong who dispute a cluster's address, in a few words.
pub const fn scope_sentence(scope: CauseScope) -> &'static str {
    match scope {
        CauseScope::Internal => "within the cluster",
        CauseScope::External => "from outside the cluster",
        CauseScope::CrossCluster => "from another cluster",
        CauseScope::Unknown => "not known from where",
    }
}

/// Whose address it is by what the cluster says.
pub fn holder_sentence(known: &AddressContext) -> String {
    let names: Vec<_> = known.services.iter().map(ToString::to_string).collect();
    let mut parts = match &names[..] {
        [] => vec!["no service".to_owned()],
        [only] => vec![format!("service {only}")],
        several => vec![format!("services {}", several.join(", "))],
    };
    if let Some(pool) = &known.pool {
        parts.push(format!("pool {}", pool.name));
    }
    let mut text = parts.join(", ");
    let said = match known.announced {
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown if !known.announcers.is_empty() => {
            let nodes = known.announcers.join(", ");
            Some(format!("announced by {nodes}, as its status says"))
        }
        AnnouncementMode::Layer2 | AnnouncementMode::Unknown => None,
        AnnouncementMode::Bgp => Some("announced by BGP only".to_owned()),
        AnnouncementMode::NotAnnounced => {
            Some("announced by nobody: its pool has no advertisement".to_owned())
        }
    };
    if let Some(said) = said {
        text.push_str("; ");
        text.push_str(&said);
    }
    text
}

/// What a machine is known as, beside its MAC.
pub fn node_name(owner: &OwnerRecord) -> Option<Cow<'_, str>> {
    match (&owner.node, owner.local) {
        (Some(node), true) => Some(format!("{node} (this host)").into()),
        (Some(node), false) => Some(node.into()),
        (None, true) => Some("this host".into()),
        (None, false) => None,
    }
}

/// The same, or who made it, where that is all there is room for.
pub fn describe_host(owner: &OwnerRecord) -> Cow<'_, str> {
    let made = || owner.macs.first().map(|&mac| vendor::describe(mac));
    node_name(owner).or_else(made).unwrap_or_default()
}

/// What part an owner plays, as the label before it.
pub const fn role_word(role: OwnerRole) -> &'static str {
    match role {
        OwnerRole::Current => "now",
        OwnerRole::Earlier => "before",
        OwnerRole::Prober => "asked by",
        OwnerRole::Sender => "sent by",
    }
}

/// How often there was evidence; empty if there was none.
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
            "request answered twice",
            "requests answered twice",
        ),
        (returns, "time taken back", "times taken back"),
        (
            local,
            "claim to what is held here",
            "claims to what is held here",
        ),
        (
            confirmed,
            "round of asking answered twice",
            "rounds of asking answered twice",
        ),
        (
            suppressed,
            "more like it not reported",
            "more like it not reported",
        ),
    ];
    parts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A number of claims.
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
            "it is a reply that names no address"
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
