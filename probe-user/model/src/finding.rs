//! What detection concludes: the only thing people and machines see of it.

use std::net::IpAddr;

use probe_common::{label_enum, wire::MacAddr};
use serde::Serialize;

use super::{BindingKey, BogusReason, Segment, Timestamp};

label_enum! {
    /// The kinds of finding.
    pub enum FindingKind {
        /// The first claim for an address on a segment.
        NewBinding = "new_binding",
        /// Another owner has the address now, and the previous owner is silent.
        Moved = "moved",
        /// Two owners claim the address in turn, or share it in a way that needs attention, but it is less than a
        /// conflict.
        Contested = "contested",
        /// The address has more than one owner. Reported again for each owner that joins.
        Conflict = "conflict",
        /// No evidence of the conflict for a while, and no proof that it is resolved: it stays open.
        ConflictQuiet = "conflict_quiet",
        /// Probed twice, exactly one owner replied; or no owner replied to any of four probes: the conflict is over.
        ConflictResolved = "conflict_resolved",
        /// No second owner has claimed the address for so long that the conflict is no longer kept open.
        ConflictExpired = "conflict_expired",
        /// A host announced the address and does not reply for it, while its owner does: neighbour caches may be
        /// wrong until the owner announces it again.
        StaleAnnouncement = "stale_announcement",
        /// A host probed for an address before using it and received a reply: the address is in use.
        ProbeDenied = "probe_denied",
        /// A frame that makes no valid claim.
        BogusClaim = "bogus_claim",
        /// The Ethernet source of a claim is not its sender hardware address.
        SourceMismatch = "source_mismatch",
        /// No claim for a tracked address, and no reply, for too long.
        Silent = "silent",
    }
}

/// What a finding says about the ownership of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisputePhase {
    /// It is not about ownership.
    None,
    /// The address has passed from one owner to another.
    Transfer,
    /// Ownership is in dispute, short of a conflict.
    Contest,
    /// A conflict is open.
    OpenConflict,
    /// A conflict has ended.
    EndedConflict,
}

/// Where a finding is published beyond the stream of findings and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingPublication {
    /// Nowhere.
    StreamOnly,
    /// In the log on standard output, and as a notification.
    LogAndNotify,
}

/// What follows from the kind of a finding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingAttributes {
    /// The severity on an address that is not tracked.
    pub severity: Severity,
    /// The severity on a tracked address.
    pub tracked_severity: Severity,
    /// What it says about the ownership of the address.
    pub dispute: DisputePhase,
    /// Where it is published.
    pub publication: FindingPublication,
}

impl FindingKind {
    /// The attributes of a kind: the one table of them.
    pub const fn attributes(self) -> FindingAttributes {
        use DisputePhase::{Contest, EndedConflict, OpenConflict, Transfer};
        use FindingPublication::{LogAndNotify, StreamOnly};
        use Severity::{Critical, Info, Notice, Warning};
        let none = DisputePhase::None;
        let (severity, tracked_severity, dispute, publication) = match self {
            Self::NewBinding | Self::ProbeDenied | Self::SourceMismatch => {
                (Info, Info, none, StreamOnly)
            }
            Self::Moved => (Notice, Notice, Transfer, StreamOnly),
            Self::Contested => (Warning, Warning, Contest, StreamOnly),
            Self::Conflict => (Warning, Critical, OpenConflict, LogAndNotify),
            Self::ConflictQuiet => (Notice, Notice, OpenConflict, LogAndNotify),
            Self::ConflictResolved | Self::ConflictExpired => {
                (Notice, Notice, EndedConflict, LogAndNotify)
            }
            Self::StaleAnnouncement => (Warning, Critical, Contest, LogAndNotify),
            Self::BogusClaim | Self::Silent => (Warning, Warning, none, StreamOnly),
        };
        FindingAttributes {
            severity,
            tracked_severity,
            dispute,
            publication,
        }
    }

    /// The severity on an address that is tracked or not.
    pub const fn severity(self, tracked: bool) -> Severity {
        if tracked {
            self.attributes().tracked_severity
        } else {
            self.attributes().severity
        }
    }

    /// Whether the finding is about who owns an address: what an ignore rule suppresses.
    pub const fn is_dispute(self) -> bool {
        !matches!(self.attributes().dispute, DisputePhase::None)
    }

    /// Whether ownership is still in dispute.
    pub const fn is_open_dispute(self) -> bool {
        matches!(
            self.attributes().dispute,
            DisputePhase::Contest | DisputePhase::OpenConflict
        )
    }

    /// Whether it is logged on standard output, and notified.
    pub const fn is_logged(self) -> bool {
        matches!(
            self.attributes().publication,
            FindingPublication::LogAndNotify
        )
    }
}

label_enum! {
    /// How much a finding matters.
    pub enum Severity {
        /// Good to know.
        Info = "info",
        /// Normal, but worth a line.
        Notice = "notice",
        /// Somebody should look.
        Warning = "warning",
        /// Somebody should look now.
        Critical = "critical",
    }
}

label_enum! {
    /// Why an address is said to have two owners.
    pub enum Evidence {
        /// Two owners answered the same request of a third party.
        DuplicateReply = "duplicate_reply",
        /// Owners keep taking the address from each other.
        Alternation = "alternation",
        /// This host holds the address, and a stranger goes on claiming it.
        Local = "local",
        /// Asked, two owners answered.
        Confirmed = "confirmed",
        /// More owners claim the address than are remembered.
        ManyOwners = "many_owners",
    }
}

label_enum! {
    /// What the frames suggest as the cause.
    pub enum Hint {
        /// Three or more stations answer one request: kube-proxy in IPVS mode without `strictARP`, which
        /// makes every node answer for every service address.
        IpvsStrictArp = "ipvs_strict_arp",
        /// Both owners are this host, or two MACs that reply for the same addresses, two or more: one host replies on
        /// several interfaces of one network (`arp_ignore`).
        ArpFlux = "arp_flux",
        /// Two machines answer with one virtual-router MAC, or two machines beside it take turns: two
        /// VRRP, CARP or HSRP masters.
        TwoMasters = "two_masters",
        /// A virtual-router MAC and an ordinary one answered the same request.
        RouterAndHost = "router_and_host",
        /// Two virtual-router MACs for one address: two groups (VRIDs) are configured with it.
        TwoRouterGroups = "two_router_groups",
        /// One MAC only asks and the other only answers: bonding mode balance-alb.
        BalanceAlb = "balance_alb",
        /// Two owners announce the address as the announcers of load balancers do, in both forms: two speakers
        /// of MetalLB or kube-vip that do not know of each other.
        TwoAnnouncers = "two_announcers",
        /// One owner announces the address so, and another merely has it: a static address or a DHCP lease
        /// inside a pool.
        AnnouncerAndHost = "announcer_and_host",
    }
}

label_enum! {
    /// What part an owner plays in a finding.
    pub enum OwnerRole {
        /// It claimed the address last, or took it over.
        Current = "current",
        /// It claimed the address before.
        Earlier = "earlier",
        /// It asked for the address.
        Prober = "prober",
        /// It sent the frame in question.
        Sender = "sender",
    }
}

label_enum! {
    /// How an owner has announced an address to all hosts since it joined the present owners, from the weakest to the
    /// strongest evidence of a load balancer's speaker.
    pub enum AnnouncementKind {
        /// It has not announced the address.
        None = "none",
        /// It has not announced it since it joined; before that it did as a speaker does. A starting MetalLB speaker
        /// announces every address for a moment.
        Earlier = "earlier",
        /// In one form, by requests or by replies, as hosts and routers do (RFC 5227 section 3, RFC 9568 section 8.1.2).
        Host = "host",
        /// In both forms, as MetalLB and kube-vip do.
        Speaker = "speaker",
    }
}

impl AnnouncementKind {
    /// Whether it is [`Self::None`].
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// One owner: a MAC, or the MACs that are one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerView {
    /// Its part in the finding.
    pub role: OwnerRole,
    /// Its MACs, the one seen last first. Never empty.
    pub macs: Vec<MacAddr>,
    /// Whether it is this host.
    pub local: bool,
    /// How it has announced the address since it joined the present owners.
    pub announcement: AnnouncementKind,
    /// When it first claimed the address, as far as is remembered.
    pub first_seen: Timestamp,
    /// When it last claimed the address.
    pub last_seen: Timestamp,
    /// How many of its claims were observed; what the kernel's economy held back is not among them.
    pub claims: u64,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EvidenceCounts {
    /// Requests that two owners answered.
    pub duplicate_replies: u64,
    /// Claims by an owner that had held the address before, after another had taken it.
    pub returns: u64,
    /// Claims by a stranger to an address that this host holds.
    pub local: u64,
    /// Rounds of asking that two owners answered.
    pub confirmed: u64,
    /// Findings like this one that were not reported since the last that was.
    pub suppressed: u64,
}

/// A conclusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// When it became true.
    pub at: Timestamp,
    /// Where.
    #[serde(flatten)]
    pub segment: Segment,
    /// The address.
    pub ip: IpAddr,
    /// When what it tells of began: the takeover of a move, the opening of a conflict, the last claim
    /// before silence.
    pub since: Timestamp,
    /// Who: the current owner first, then the others, the one seen last first.
    pub owners: Vec<OwnerView>,
    /// Why; only conflicts have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// How often.
    pub counts: EvidenceCounts,
    /// What may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// What is wrong with the frame; only [`FindingKind::BogusClaim`] has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bogus: Option<BogusReason>,
}

impl Finding {
    /// The binding that this is about.
    pub const fn key(&self) -> BindingKey {
        BindingKey {
            segment: self.segment,
            ip: self.ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_critical_finding_is_logged_and_no_severity_falls_because_an_address_is_tracked() {
        for &kind in FindingKind::ALL {
            let attributes = kind.attributes();
            assert!(attributes.tracked_severity >= attributes.severity, "{kind}");
            if attributes.tracked_severity == Severity::Critical {
                assert!(kind.is_logged(), "{kind}");
            }
        }
    }

    #[test]
    fn an_ended_conflict_is_a_dispute_that_is_no_longer_open() {
        for (kind, is_dispute, is_open) in [
            (FindingKind::Moved, true, false),
            (FindingKind::Contested, true, true),
            (FindingKind::ConflictQuiet, true, true),
            (FindingKind::ConflictExpired, true, false),
            (FindingKind::Silent, false, false),
        ] {
            assert_eq!(
                (kind.is_dispute(), kind.is_open_dispute()),
                (is_dispute, is_open),
                "{kind}"
            );
        }
    }
}
