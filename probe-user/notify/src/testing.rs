//! Notifications for tests, also of other crates.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::{net::IpAddr, sync::Arc};

use probe_cluster::drift::Drift;
use probe_model::{FindingKind, FindingRecord, Severity, drill};

use super::{
    NotificationSubject,
    notification::{Notification, NotificationCause, NotificationKind},
};

/// A finding about the address 192.0.2.N.
pub fn record(last: u8, finding: FindingKind, severity: Severity) -> Arc<FindingRecord> {
    let time = "2026-11-21T02:00:00Z".parse().unwrap();
    let mut record = drill::conflict(time);
    record.drill = false;
    "eth0".clone_into(&mut record.interface);
    record.segment = Some("192.0.2.0/24".to_owned());
    record.ip = IpAddr::from([192, 0, 2, last]);
    if finding != FindingKind::Conflict {
        record = drill::resolved(&record, time);
    }
    Arc::new(FindingRecord {
        finding,
        severity,
        ..record
    })
}

/// The notification of such a finding.
pub fn notification(last: u8, kind: NotificationKind) -> Notification {
    let (finding, severity) = match kind {
        NotificationKind::Conflict => (FindingKind::Conflict, Severity::Critical),
        NotificationKind::ConflictQuiet => (FindingKind::ConflictQuiet, Severity::Notice),
        NotificationKind::ConflictResolved => (FindingKind::ConflictResolved, Severity::Notice),
        NotificationKind::ConflictExpired => (FindingKind::ConflictExpired, Severity::Notice),
        NotificationKind::StaleAnnouncement => (FindingKind::StaleAnnouncement, Severity::Critical),
        NotificationKind::Drift | NotificationKind::DriftGone | NotificationKind::Missed => {
            panic!("no finding")
        }
    };
    let record = record(last, finding, severity);
    Notification {
        subject: NotificationSubject::of(&record),
        kind,
        severity,
        cause: NotificationCause::Finding(record),
    }
}

/// Changes the finding of a notification.
pub fn change_finding(notification: &mut Notification, change: impl FnOnce(&mut FindingRecord)) {
    let NotificationCause::Finding(record) = &mut notification.cause else {
        panic!("{notification:?}")
    };
    change(Arc::make_mut(record));
    notification.subject = NotificationSubject::of(record);
}

/// The notification about a drift.
pub fn drift_notification(kind: NotificationKind, drift: Drift) -> Notification {
    let since = drift.since;
    Notification::of_drift(kind, Arc::new(drift), since)
}

/// A drift: no advertisement names the pool.
pub fn drift(name: &str) -> Drift {
    let text = format!(
        r#"{{"drift":"unadvertised_pool","severity":"warning","since":"2026-11-21T02:10:00Z",
            "pool":{{"namespace":"metallb-system","name":"{name}"}},"summary":"no advertisement names it"}}"#
    );
    serde_json::from_str(&text).unwrap()
}
