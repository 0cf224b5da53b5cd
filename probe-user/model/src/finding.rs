//! The findings of the detector, and their attributes.

use std::net::IpAddr;

use probe_common::{label_enum, wire::MacAddr};
use serde::Serialize;

use super::{BindingKey, BogusReason, Segment, Timestamp};

label_enum! {
    /// The kind of a finding.
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
        /// A bogus frame: it is no valid claim.
        BogusClaim = "bogus_claim",
        /// The Ethernet source of a claim is not its sender hardware address.
        SourceMismatch = "source_mismatch",
        /// A tracked address without a claim or a reply for the configured time.
        Silent = "silent",
    }
}

/// The phase of a dispute that a finding reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisputePhase {
    /// The finding is not about ownership.
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

/// The attributes of a finding that depend on its kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingAttributes {
    /// The severity on an address that is not tracked.
    pub severity: Severity,
    /// The severity on a tracked address.
    pub tracked_severity: Severity,
    /// The phase of a dispute that it reports.
    pub dispute: DisputePhase,
    /// Where it is published.
    pub publication: FindingPublication,
}

impl FindingKind {
    /// The attributes of this kind.
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

    /// Whether the finding is about the ownership of an address, so that an ignore rule suppresses it.
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
    /// The severity of a finding.
    pub enum Severity {
        /// Information only.
        Info = "info",
        /// Normal, but significant.
        Notice = "notice",
        /// To be investigated.
        Warning = "warning",
        /// To be investigated at once.
        Critical = "critical",
    }
}

label_enum! {
    /// The evidence that an address has two owners.
    pub enum Evidence {
        /// Two owners replied to the same request of another host.
        DuplicateReply = "duplicate_reply",
        /// Owners repeatedly take the address over from each other.
        Alternation = "alternation",
        /// This host has the address, and another host continues to claim it.
        Local = "local",
        /// Two owners replied to ARP probes.
        Confirmed = "confirmed",
        /// More owners claim the address than a binding stores.
        ManyOwners = "many_owners",
    }
}

label_enum! {
    /// The likely cause, by the observed frames.
    pub enum Hint {
        /// Three or more hosts reply to one request: kube-proxy in IPVS mode without `strictARP`, with which every node
        /// replies for every service address.
        IpvsStrictArp = "ipvs_strict_arp",
        /// Both owners are this host, or two MACs that reply for the same addresses, two or more: one host replies on
        /// several interfaces of one network (`arp_ignore`).
        ArpFlux = "arp_flux",
        /// Two VRRP, CARP or HSRP masters: two hosts reply with one virtual-router MAC, or two physical MACs in addition to
        /// it alternate.
        TwoMasters = "two_masters",
        /// A virtual-router MAC and another MAC replied to the same request.
        RouterAndHost = "router_and_host",
        /// Two virtual-router MACs for one address: two groups (VRIDs) are configured with it.
        TwoRouterGroups = "two_router_groups",
        /// One MAC only sends requests and the other only replies: bonding mode balance-alb.
        BalanceAlb = "balance_alb",
        /// Two owners announce the address as requests and replies, as speakers of load balancers do: two speakers of
        /// MetalLB or kube-vip without a common leader.
        TwoAnnouncers = "two_announcers",
        /// One owner is such a speaker, and another one has the address configured: a static address or a DHCP lease in a
        /// pool.
        AnnouncerAndHost = "announcer_and_host",
    }
}

label_enum! {
    /// The role of an owner in a finding.
    pub enum OwnerRole {
        /// It claimed the address last, or took it over.
        Current = "current",
        /// It claimed the address before.
        Earlier = "earlier",
        /// It probed the address.
        Prober = "prober",
        /// It sent the reported frame.
        Sender = "sender",
    }
}

label_enum! {
    /// How an owner has announced an address by broadcast since it joined the current owners, from the weakest to the
    /// strongest evidence of a load balancer's speaker.
    pub enum AnnouncementKind {
        /// It has not announced the address.
        None = "none",
        /// It has not announced the address since it joined, but announced it as a speaker before. A starting MetalLB speaker
        /// announces every address for a short time.
        Earlier = "earlier",
        /// By requests only or by replies only, as hosts and routers do (RFC 5227 section 3, RFC 9568 section 8.1.2).
        Host = "host",
        /// By requests and replies, as MetalLB and kube-vip do.
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

/// An owner in a finding: a MAC, or several MACs of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerView {
    /// Its role in the finding.
    pub role: OwnerRole,
    /// Its MACs, the last observed one first. Never empty.
    pub macs: Vec<MacAddr>,
    /// Whether it is this host.
    pub local: bool,
    /// How it has announced the address since it joined the current owners.
    pub announcement: AnnouncementKind,
    /// The time of its first claim on the address, since the binding was stored.
    pub first_seen: Timestamp,
    /// The time of its last claim on the address.
    pub last_seen: Timestamp,
    /// The number of its claims that were emitted as events.
    pub claims: u64,
}

/// The number of observations of each kind of evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EvidenceCounts {
    /// Requests to which two owners replied.
    pub duplicate_replies: u64,
    /// Claims by an earlier owner after another owner's takeover.
    pub returns: u64,
    /// Claims by other hosts on an address of this host.
    pub local: u64,
    /// Rounds of ARP probes to which two owners replied.
    pub confirmed: u64,
    /// Suppressed findings of the same kind since the last one that was reported.
    pub suppressed: u64,
}

/// A finding of the detector about one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of finding.
    pub kind: FindingKind,
    /// The severity.
    pub severity: Severity,
    /// The time of the finding.
    pub at: Timestamp,
    /// The segment.
    #[serde(flatten)]
    pub segment: Segment,
    /// The address.
    pub ip: IpAddr,
    /// The start of the reported state: the takeover of a move, the opening of a conflict, the last claim before silence.
    pub since: Timestamp,
    /// The owners: the current one first, then the others, the last observed one first.
    pub owners: Vec<OwnerView>,
    /// The evidence; only for conflicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The number of observations of each kind of evidence.
    pub counts: EvidenceCounts,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// Why the frame is bogus; only for [`FindingKind::BogusClaim`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bogus: Option<BogusReason>,
}

impl Finding {
    /// The key of the binding.
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
