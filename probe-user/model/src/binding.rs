//! A binding and its open conflict, with the names and times that the world outside knows.

use std::net::IpAddr;

use jiff::Timestamp;
use probe_common::wire::{MacAddr, Vlan};
use serde::{Deserialize, Serialize};

use super::{CountsRecord, FindingRecord, OwnerRecord};
use crate::{
    AddressContext, BindingView, Clock, ConflictView, Evidence, FindingKind, Hint, TakeoverView,
};

/// One address on one segment, and who has claimed it: a line of JSON. Names are stable; fields may be
/// added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// On which interface.
    pub interface: String,
    /// In which VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// Which address.
    pub ip: IpAddr,
    /// Whether the address matters.
    pub tracked: bool,
    /// Whether its disputes are on the ignore list.
    pub ignored: bool,
    /// Who: the current owner first. In an open conflict only those that take part.
    pub owners: Vec<OwnerRecord>,
    /// When it was last claimed, if it is silent: nobody answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// Its open conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictRecord>,
    /// Its takeover, if that is neither a move nor a conflict yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<TakeoverRecord>,
    /// Whose address it is, where a cluster knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// An open conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Why it was opened.
    pub evidence: Evidence,
    /// What may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// When it was opened.
    pub since: Timestamp,
    /// When there was last evidence.
    pub last_evidence: Timestamp,
    /// Whether there has been no evidence for a while.
    pub quiet: bool,
    /// How often there was evidence.
    pub counts: CountsRecord,
}

/// A takeover that is not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRecord {
    /// The previous owner.
    pub from: MacAddr,
    /// The owner that claimed the address last.
    pub to: MacAddr,
    /// When the last owner took the address over.
    pub since: Timestamp,
}

/// A takeover that was not decided when the input ended: a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndecidedRecord {
    /// When the input ended.
    pub time: Timestamp,
    /// What is not decided.
    pub undecided: UndecidedKind,
    /// On which interface.
    pub interface: String,
    /// In which VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// Which address.
    pub ip: IpAddr,
    /// The two owners, and since when.
    #[serde(flatten)]
    pub takeover: TakeoverRecord,
}

/// What can be undecided at the end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndecidedKind {
    /// Whether a takeover is a move or a conflict.
    Takeover,
}

impl UndecidedRecord {
    /// The takeover of a binding, if it is not decided at `time` and the address is not ignored.
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
    /// Puts names and times to a binding.
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

    /// The finding that its conflict would be reported as now, if it has one.
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
