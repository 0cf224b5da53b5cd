//! The notification and its subject.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use probe_cluster::drift::{Drift, DriftKey};
use probe_common::{label_enum, wire::Vlan};
use probe_model::{FindingKind, FindingRecord, Severity};

label_enum! {
    /// The kinds of notifications.
    pub enum NotificationKind {
        /// A conflict has opened, or another owner has joined it.
        Conflict = "conflict",
        /// No new evidence for a while: the conflict stays open.
        ConflictQuiet = "conflict_quiet",
        /// The conflict is resolved.
        ConflictResolved = "conflict_resolved",
        /// The conflict has expired.
        ConflictExpired = "conflict_expired",
        /// A host announced the address and does not reply for it, while its owner does.
        StaleAnnouncement = "stale_announcement",
        /// A drift between the cluster and the network.
        Drift = "drift",
        /// The drift has ended.
        DriftGone = "drift_resolved",
        /// Findings came faster than they could be read. Sent as a number only.
        Missed = "missed",
    }
}

impl NotificationKind {
    /// The notification kind of a finding kind, by its label. Most findings have none.
    pub(super) fn of(kind: FindingKind) -> Option<Self> {
        if kind.is_logged() {
            Self::from_label(kind.label())
        } else {
            None
        }
    }
}

/// The subject of a notification: a later notification about a subject supersedes an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotificationSubject {
    /// An address on a segment.
    Address {
        /// The interface.
        interface: String,
        /// The VLAN.
        vlan: Vlan,
        /// The address.
        ip: IpAddr,
        /// Whether it is a drill.
        drill: bool,
    },
    /// A drift.
    Drift(DriftKey),
}

impl NotificationSubject {
    /// The subject of a finding.
    pub(super) fn of(record: &FindingRecord) -> Self {
        Self::Address {
            interface: record.interface.clone(),
            vlan: record.vlan,
            ip: record.ip,
            drill: record.drill,
        }
    }
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The subject.
    pub subject: NotificationSubject,
    /// The kind.
    pub kind: NotificationKind,
    /// The severity.
    pub severity: Severity,
    /// The finding or the drift in full.
    pub cause: NotificationCause,
}

/// The content of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotificationCause {
    /// Accepts a finding.
    Finding(Arc<FindingRecord>),
    /// A drift.
    Drift {
        /// The latest state of the drift.
        drift: Arc<Drift>,
        /// When it started or ended.
        time: Timestamp,
    },
}

impl Notification {
    /// The notification about the start (`Drift`) or the end (`DriftGone`) of a drift.
    pub(super) fn of_drift(kind: NotificationKind, drift: Arc<Drift>, time: Timestamp) -> Self {
        Self {
            subject: NotificationSubject::Drift(drift.key()),
            kind,
            severity: match kind {
                NotificationKind::Drift => drift.severity,
                _ => Severity::Notice,
            },
            cause: NotificationCause::Drift { drift, time },
        }
    }

    /// The finding, if it is about one.
    pub fn finding(&self) -> Option<&FindingRecord> {
        match &self.cause {
            NotificationCause::Finding(record) => Some(record),
            NotificationCause::Drift { .. } => None,
        }
    }

    /// The drift, if it is about one.
    pub fn drift(&self) -> Option<&Drift> {
        match &self.cause {
            NotificationCause::Finding(_) => None,
            NotificationCause::Drift { drift, .. } => Some(drift),
        }
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match &self.cause {
            NotificationCause::Finding(record) => record.time,
            NotificationCause::Drift { time, .. } => *time,
        }
    }
}
