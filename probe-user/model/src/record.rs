//! The JSON form of a finding.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use probe_common::wire::{BogusFrameReason, MacAddr, Vlan};
use serde::{Deserialize, Deserializer, Serialize};

use super::vendor::vendor;
use crate::{
    AddressContext, AnnouncementKind, BogusReason, Clock, Evidence, EvidenceCounts, Finding,
    FindingKind, Hint, OwnerRole, OwnerView, Severity,
};

/// A finding as a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// The time of the finding.
    pub time: Timestamp,
    /// The kind of finding.
    pub finding: FindingKind,
    /// The severity.
    pub severity: Severity,
    /// The name of the interface.
    pub interface: String,
    /// The VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// The name of the segment across nodes; absent in captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// The address.
    pub ip: IpAddr,
    /// Whether the finding is a drill: simulated, without any claim.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drill: bool,
    /// The start of the reported state.
    pub since: Timestamp,
    /// The owners, the current one first.
    pub owners: Vec<OwnerRecord>,
    /// The evidence; only for conflicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The number of observations of each kind of evidence.
    pub counts: CountsRecord,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// Why the frame is bogus; only for bogus frames.
    #[serde(
        default,
        deserialize_with = "deserialize_reason",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<BogusReason>,
    /// The service and pool of the address, if the Kubernetes API has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// An owner: a MAC, or several MACs of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// Its MACs, the last observed one first.
    pub macs: Vec<MacAddr>,
    /// The vendor of the first MAC that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// Its node of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its role in the finding.
    pub role: OwnerRole,
    /// Whether it is this host.
    pub local: bool,
    /// How it has announced the address since it joined the current owners.
    #[serde(
        default = "not_announced",
        skip_serializing_if = "AnnouncementKind::is_none"
    )]
    pub announcement: AnnouncementKind,
    /// The time of its first claim on the address.
    pub first_seen: Timestamp,
    /// The time of its last claim on the address.
    pub last_seen: Timestamp,
    /// The number of its claims that were emitted as events.
    pub claims: u64,
}

/// The number of observations of each kind of evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsRecord {
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

impl FindingRecord {
    /// Converts a finding to its JSON form.
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

    /// Sets the name of the segment; an empty name removes it.
    #[must_use]
    pub fn with_segment(self, segment: String) -> Self {
        Self {
            segment: (!segment.is_empty()).then_some(segment),
            ..self
        }
    }

    /// Serializes the record as a line of JSON, without the line end.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

/// Serializes a record as a line of JSON, without the line end.
pub fn to_json(record: &impl Serialize) -> String {
    // Records consist of strings, numbers and lists, whose serialization does not fail.
    serde_json::to_string(record).unwrap_or_default()
}

/// The default of [`OwnerRecord::announcement`].
const fn not_announced() -> AnnouncementKind {
    AnnouncementKind::None
}

impl OwnerRecord {
    /// Whether it announces the address as speakers of load balancers do.
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

fn deserialize_reason<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BogusReason>, D::Error> {
    probe_common::from_text::deserialize(deserializer, "the reason of a bogus frame", |label| {
        let frame_reason = BogusFrameReason::from_label(label).map(BogusReason::Frame);
        frame_reason.or_else(|| {
            let reason = BogusReason::SpaNetworkBroadcast;
            (reason.label() == label).then_some(reason)
        })
    })
    .map(Some)
}
