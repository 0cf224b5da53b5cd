//! A finding with the names and times that the world outside knows.

use std::net::IpAddr;

use jiff::Timestamp;
use probe_common::wire::{MacAddr, Vlan};
use serde::Serialize;

use crate::{
    clock::Clock,
    detect::{
        BogusReason, Counts, Evidence, Finding, FindingKind, Hint, OwnerView, Role, Severity,
    },
};

/// One finding: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Which address.
    pub ip: IpAddr,
    /// When what it tells of began.
    pub since: Timestamp,
    /// Who: the current owner first.
    pub owners: Vec<OwnerRecord>,
    /// Why; only conflicts have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// How often.
    pub counts: Counts,
    /// What may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// What is wrong with a bogus frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<BogusReason>,
}

/// One owner: a MAC, or the MACs that are one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerRecord {
    /// Its MACs, the one seen last first.
    pub macs: Vec<MacAddr>,
    /// Its part in the finding.
    pub role: Role,
    /// Whether it is this host.
    pub local: bool,
    /// When it first claimed the address.
    pub first_seen: Timestamp,
    /// When it last claimed the address.
    pub last_seen: Timestamp,
    /// How many of its claims were observed.
    pub claims: u64,
}

impl FindingRecord {
    /// Puts names and times to a finding.
    pub fn new(finding: &Finding, interface: String, clock: Clock) -> Self {
        let clock = clock.read_once();
        Self {
            time: clock.wall(finding.at),
            finding: finding.kind,
            severity: finding.severity,
            interface,
            vlan: finding.segment.vlan,
            ip: finding.ip,
            since: clock.wall(finding.since),
            owners: finding
                .owners
                .iter()
                .map(|owner| OwnerRecord::new(owner, clock))
                .collect(),
            evidence: finding.evidence,
            counts: finding.counts,
            hint: finding.hint,
            reason: finding.bogus,
        }
    }

    /// The line of JSON, without its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl OwnerRecord {
    fn new(owner: &OwnerView, clock: Clock) -> Self {
        Self {
            macs: owner.macs.clone(),
            role: owner.role,
            local: owner.local,
            first_seen: clock.wall(owner.first_seen),
            last_seen: clock.wall(owner.last_seen),
            claims: owner.claims,
        }
    }
}
