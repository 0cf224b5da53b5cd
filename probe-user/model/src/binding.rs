//! The JSON form of a binding with its open conflict or takeover.

use std::net::IpAddr;

use jiff::Timestamp;
use probe_common::wire::{MacAddr, Vlan};
use serde::{Deserialize, Serialize};

use super::{CountsRecord, FindingRecord, OwnerRecord};
use crate::{
    AddressContext, BindingView, Clock, ConflictView, Evidence, FindingKind, Hint, TakeoverView,
};

/// A binding as a line of JSON: an address on a segment with the owners that claimed it. Names are stable; fields may be
/// added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// The name of the interface.
    pub interface: String,
    /// The VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// The address.
    pub ip: IpAddr,
    /// Whether the address is tracked.
    pub tracked: bool,
    /// Whether an ignore rule suppresses its disputes.
    pub ignored: bool,
    /// The owners, the current one first. In an open conflict, only those that are part of it.
    pub owners: Vec<OwnerRecord>,
    /// The time of its last claim, if it is silent: no host replies for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// The open conflict of the binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictRecord>,
    /// The takeover of the address, if it is neither a move nor a conflict yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<TakeoverRecord>,
    /// The service and pool of the address, if the Kubernetes API has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// An open conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// The evidence that opened it.
    pub evidence: Evidence,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// The time at which it was opened.
    pub since: Timestamp,
    /// The time of the last evidence.
    pub last_evidence: Timestamp,
    /// Whether there has been no evidence for the quiet time.
    pub quiet: bool,
    /// The number of observations of each kind of evidence.
    pub counts: CountsRecord,
}

/// A takeover that is not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRecord {
    /// The previous owner.
    pub from: MacAddr,
    /// The owner that claimed the address last.
    pub to: MacAddr,
    /// The time of the takeover.
    pub since: Timestamp,
}

/// A takeover that was not decided when the input ended: a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndecidedRecord {
    /// The end of the input.
    pub time: Timestamp,
    /// The kind of decision that is missing.
    pub undecided: UndecidedKind,
    /// The name of the interface.
    pub interface: String,
    /// The VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// The address.
    pub ip: IpAddr,
    /// The two owners and the time of the takeover.
    #[serde(flatten)]
    pub takeover: TakeoverRecord,
}

/// A decision that can be missing at the end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndecidedKind {
    /// Whether a takeover is a move or a conflict.
    Takeover,
}

impl UndecidedRecord {
    /// The record of a binding's takeover that is undecided at `time`; `None` if there is none or the address is ignored.
    pub fn new(binding: &BindingRecord, time: Timestamp) -> Option<Self> {
        let takeover = binding.takeover.filter(|_| !binding.ignored)?;
        Some(Self {
            time,
            undecided: UndecidedKind::Takeover,
            interface: binding.interface.clone(),
            vlan: binding.vlan,
            ip: binding.ip,
            takeover,
        })
    }
}

impl TakeoverRecord {
    fn new(view: &TakeoverView, clock: Clock) -> Self {
        Self {
            from: view.from,
            to: view.to,
            since: clock.to_wall_clock(view.since),
        }
    }
}

impl BindingRecord {
    /// Converts a binding to its JSON form.
    pub fn new(view: &BindingView, interface: String, clock: Clock) -> Self {
        Self {
            interface,
            vlan: view.key.segment.vlan,
            ip: view.key.ip,
            tracked: view.tracked,
            ignored: view.ignored,
            owners: OwnerRecord::all(&view.owners, clock),
            silent_since: view.silent_since.map(|since| clock.to_wall_clock(since)),
            conflict: view
                .conflict
                .map(|conflict| ConflictRecord::new(&conflict, clock)),
            takeover: view
                .takeover
                .map(|takeover| TakeoverRecord::new(&takeover, clock)),
            cluster: None,
        }
    }

    /// The open conflict as a finding; `None` if there is none.
    pub fn as_finding(&self) -> Option<FindingRecord> {
        let conflict = self.conflict?;
        let finding = if conflict.quiet {
            FindingKind::ConflictQuiet
        } else {
            FindingKind::Conflict
        };
        Some(FindingRecord {
            time: conflict.last_evidence,
            finding,
            severity: finding.severity(self.tracked),
            interface: self.interface.clone(),
            vlan: self.vlan,
            segment: None,
            ip: self.ip,
            drill: false,
            since: conflict.since,
            owners: self.owners.clone(),
            evidence: Some(conflict.evidence),
            counts: conflict.counts,
            hint: conflict.hint,
            reason: None,
            cluster: self.cluster.clone(),
        })
    }
}

impl ConflictRecord {
    fn new(view: &ConflictView, clock: Clock) -> Self {
        Self {
            evidence: view.evidence,
            hint: view.hint,
            since: clock.to_wall_clock(view.opened_at),
            last_evidence: clock.to_wall_clock(view.last_evidence),
            quiet: view.quiet,
            counts: view.counts.into(),
        }
    }
}
