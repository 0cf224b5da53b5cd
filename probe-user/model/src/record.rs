//! A finding with the names and times that the world outside knows.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use probe_common::wire::{Bogus, MacAddr, Vlan};
use serde::{Deserialize, Deserializer, Serialize};

use super::vendor::vendor;
use crate::{
    AddressContext, AnnouncementKind, BogusReason, Clock, Evidence, EvidenceCounts, Finding,
    FindingKind, Hint, OwnerRole, OwnerView, Severity,
};

/// One finding: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// When it became true.
    pub time: Timestamp,
    /// What.
    pub finding: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// On which interface.
    pub interface: String,
    /// In which VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// What the segment is called across nodes; a capture has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Which address.
    pub ip: IpAddr,
    /// An exercise: nobody claimed anything. Never said of anything real.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drill: bool,
    /// When what it tells of began.
    pub since: Timestamp,
    /// Who: the current owner first.
    pub owners: Vec<OwnerRecord>,
    /// Why; only conflicts have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// How often.
    pub counts: CountsRecord,
    /// What may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// What is wrong with a bogus frame.
    #[serde(
        default,
        deserialize_with = "reason",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<BogusReason>,
    /// Whose address it is, where a cluster knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// One owner: a MAC, or the MACs that are one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// Its MACs, the one seen last first.
    pub macs: Vec<MacAddr>,
    /// The registered maker of the first MAC that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// The node of the cluster that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its part in the finding.
    pub role: OwnerRole,
    /// Whether it is this host.
    pub local: bool,
    /// How it has announced the address since it joined the present owners.
    #[serde(
        default = "not_announced",
        skip_serializing_if = "AnnouncementKind::is_none"
    )]
    pub announcement: AnnouncementKind,
    /// When it first claimed the address.
    pub first_seen: Timestamp,
    /// When it last claimed the address.
    pub last_seen: Timestamp,
    /// How many of its claims were observed.
    pub claims: u64,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsRecord {
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

impl FindingRecord {
    /// Puts names and times to a finding.
    pub fn new(finding: &Finding, interface: String, clock: Clock) -> Self {
        let clock = clock.read_once();
        Self {
            time: clock.to_wall_clock(finding.at),
            finding: finding.kind,
            severity: finding.severity,
            interface,
            vlan: finding.segment.vlan,
            segment: None,
            drill: false,
            ip: finding.ip,
            since: clock.to_wall_clock(finding.since),
            owners: OwnerRecord::all(&finding.owners, clock),
            evidence: finding.evidence,
            counts: finding.counts.into(),
            hint: finding.hint,
            reason: finding.bogus,
            cluster: None,
        }
    }

    /// The same, with the name of its segment.
    #[must_use]
    pub fn with_segment(self, segment: String) -> Self {
        Self {
            segment: (!segment.is_empty()).then_some(segment),
            ..self
        }
    }

    /// The line of JSON, without its end.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

/// A record as a line of JSON, without its end.
pub fn to_json(record: &impl Serialize) -> String {
    // Strings, numbers and lists of them: there is nothing in a record that JSON cannot say.
    serde_json::to_string(record).unwrap_or_default()
}

/// What a record without the field says.
const fn not_announced() -> AnnouncementKind {
    AnnouncementKind::None
}

impl OwnerRecord {
    /// Whether it announces the address as a load balancer's speaker does.
    pub fn announces(&self) -> bool {
        self.announcement == AnnouncementKind::Speaker
    }

    pub(super) fn all(owners: &[OwnerView], clock: Clock) -> Vec<Self> {
        owners.iter().map(|owner| Self::new(owner, clock)).collect()
    }

    fn new(owner: &OwnerView, clock: Clock) -> Self {
        Self {
            macs: owner.macs.clone(),
            vendor: owner.macs.iter().copied().find_map(vendor),
            node: None,
            role: owner.role,
            local: owner.local,
            announcement: owner.announcement,
            first_seen: clock.to_wall_clock(owner.first_seen),
            last_seen: clock.to_wall_clock(owner.last_seen),
            claims: owner.claims,
        }
    }
}

impl From<EvidenceCounts> for CountsRecord {
    fn from(counts: EvidenceCounts) -> Self {
        let EvidenceCounts {
            duplicate_replies,
            returns,
            local,
            confirmed,
            suppressed,
        } = counts;
        Self {
            duplicate_replies,
            returns,
            local,
            confirmed,
            suppressed,
        }
    }
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BogusReason>, D::Error> {
    probe_common::from_text::deserialize(deserializer, "what is wrong with a frame", |label| {
        let of_the_frame = Bogus::from_label(label).map(BogusReason::Frame);
        of_the_frame.or_else(|| {
            let reason = BogusReason::SpaNetworkBroadcast;
            (reason.label() == label).then_some(reason)
        })
    })
    .map(Some)
}
