//! The conflicts that are open, and which findings about them are sent. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use probe_model::{FindingRecord, Severity};

use super::{
    notification::{Notification, NotificationCause, NotificationKind, NotificationSubject},
    queue::{CAPACITY, NotificationBatch},
};

/// Maximum number of open conflicts: the default number of tracked addresses.
const MAX_OPEN: usize = 65_536;

#[derive(Debug)]
struct OpenConflict {
    /// The notification of its opening, or of the last owner that joined.
    notification: Notification,
    /// Whether this process delivered that notification: for this address and these owners.
    is_delivered: bool,
}

/// The open conflicts of sufficient severity.
#[derive(Debug)]
pub struct OpenConflicts {
    min_severity: Severity,
    open: BTreeMap<NotificationSubject, OpenConflict>,
    /// Open conflicts beyond `CAPACITY`: only their subject is kept.
    overflow: BTreeSet<NotificationSubject>,
}

impl OpenConflicts {
    /// Selects conflicts of at least this severity.
    pub const fn new(min_severity: Severity) -> Self {
        Self {
            min_severity,
            open: BTreeMap::new(),
            overflow: BTreeSet::new(),
        }
    }

    /// The severity that conflicts and drifts must have.
    pub const fn min_severity(&self) -> Severity {
        self.min_severity
    }

    /// The notification for a finding, if it is sent: conflicts of sufficient severity, and their further events.
    pub fn select(&mut self, record: Arc<FindingRecord>) -> Option<Notification> {
        let kind = NotificationKind::of(record.finding)?;
        let notification = Notification {
            subject: NotificationSubject::of(&record),
            kind,
            severity: record.severity,
            cause: NotificationCause::Finding(record),
        };
        let subject = &notification.subject;
        let is_sent = match kind {
            NotificationKind::Conflict if notification.severity < self.min_severity => false,
            NotificationKind::Conflict => {
                self.insert(&notification);
                true
            }
            // Its end is not sent: the next announcement corrects the caches.
            NotificationKind::StaleAnnouncement => notification.severity >= self.min_severity,
            // The severity of an end is that of its conflict.
            NotificationKind::ConflictQuiet => {
                self.open.contains_key(subject) || self.overflow.contains(subject)
            }
            NotificationKind::ConflictResolved | NotificationKind::ConflictExpired => {
                self.open.remove(subject).is_some() | self.overflow.remove(subject)
            }
            NotificationKind::Drift | NotificationKind::DriftGone | NotificationKind::Missed => {
                false
            }
        };
        is_sent.then_some(notification)
    }

    fn insert(&mut self, notification: &Notification) {
        let subject = notification.subject.clone();
        if self.open.contains_key(&subject) || self.open.len() < CAPACITY {
            self.overflow.remove(&subject);
            let conflict = OpenConflict {
                notification: notification.clone(),
                is_delivered: false,
            };
            self.open.insert(subject, conflict);
        } else if self.overflow.len() < MAX_OPEN {
            self.overflow.insert(subject);
        }
    }

    /// Records which conflicts a batch has delivered, with the owners that it named.
    pub fn record_delivered(&mut self, batch: &NotificationBatch) {
        for queued in &batch.listed {
            let Some(conflict) = self.open.get_mut(&queued.last.subject) else {
                continue;
            };
            conflict.is_delivered |=
                [&queued.first, &queued.last].contains(&&conflict.notification);
        }
    }

    /// Clears the record of deliveries: another agent may have sent newer notifications since.
    pub fn clear_delivered(&mut self) {
        for conflict in self.open.values_mut() {
            conflict.is_delivered = false;
        }
    }

    /// The open conflicts that this process has not delivered with their current owners.
    pub fn undelivered(&self) -> impl Iterator<Item = &Notification> {
        let conflicts = self.open.values();
        conflicts
            .filter(|conflict| !conflict.is_delivered)
            .map(|conflict| &conflict.notification)
    }

    /// The number of open conflicts of which only the subject is kept.
    pub fn overflow(&self) -> usize {
        self.overflow.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use probe_model::FindingKind;

    use super::{
        super::{queue::NotificationQueue, testing::record},
        *,
    };

    fn kind(
        conflicts: &mut OpenConflicts,
        finding: FindingKind,
        severity: Severity,
    ) -> Option<NotificationKind> {
        let selected = conflicts.select(record(1, finding, severity));
        selected.map(|notification| notification.kind)
    }

    #[test]
    fn resolution_is_sent_if_the_conflict_was_sent() {
        let mut conflicts = OpenConflicts::new(Severity::Critical);
        let (critical, warning, notice) = (Severity::Critical, Severity::Warning, Severity::Notice);
        for (finding, severity, expected) in [
            (FindingKind::Conflict, warning, None),
            (FindingKind::ConflictQuiet, notice, None),
            (FindingKind::ConflictResolved, notice, None),
            (FindingKind::Conflict, warning, None),
            // Its severity rises.
            (
                FindingKind::Conflict,
                critical,
                Some(NotificationKind::Conflict),
            ),
            (
                FindingKind::ConflictQuiet,
                notice,
                Some(NotificationKind::ConflictQuiet),
            ),
            (
                FindingKind::Conflict,
                critical,
                Some(NotificationKind::Conflict),
            ),
            (
                FindingKind::ConflictExpired,
                notice,
                Some(NotificationKind::ConflictExpired),
            ),
            (FindingKind::ConflictResolved, notice, None),
        ] {
            let selected = kind(&mut conflicts, finding, severity);
            assert_eq!(selected, expected, "{finding} {severity}");
        }
    }

    #[test]
    fn only_findings_about_conflicts_are_sent() {
        let mut conflicts = OpenConflicts::new(Severity::Info);
        for &finding in FindingKind::ALL {
            if NotificationKind::of(finding).is_none() {
                assert_eq!(kind(&mut conflicts, finding, Severity::Critical), None);
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_conflicts_beyond_the_bound_are_still_sent() {
        let mut conflicts = OpenConflicts::new(Severity::Info);
        let numbered = |number: u32, finding| {
            let mut record = (*record(1, finding, Severity::Warning)).clone();
            record.ip = IpAddr::V4(number.into());
            Arc::new(record)
        };
        let all = u32::try_from(CAPACITY + MAX_OPEN).unwrap() + 5;
        for number in 0..all {
            let opened = conflicts.select(numbered(number, FindingKind::Conflict));
            assert!(opened.is_some());
        }
        assert_eq!(conflicts.open.len(), CAPACITY);
        assert_eq!(conflicts.overflow(), MAX_OPEN);
        let end = conflicts.select(numbered(1_500, FindingKind::ConflictResolved));
        assert!(end.is_some());
        assert_eq!(conflicts.overflow(), MAX_OPEN - 1);
    }

    #[test]
    fn a_delivery_counts_for_the_owners_that_it_named() {
        let mut conflicts = OpenConflicts::new(Severity::Info);
        let first = conflicts.select(record(1, FindingKind::Conflict, Severity::Critical));
        let batch_of = |first: &Notification| {
            let mut queue = NotificationQueue::default();
            queue.push(first.clone());
            queue.batch(10)
        };
        let batch = batch_of(&first.unwrap());
        let mut joined = (*record(1, FindingKind::Conflict, Severity::Critical)).clone();
        joined.owners.truncate(1);
        conflicts.select(Arc::new(joined.clone()));
        conflicts.record_delivered(&batch);
        assert_eq!(conflicts.undelivered().count(), 1, "another owner joined");
        conflicts.select(record(1, FindingKind::Conflict, Severity::Critical));
        conflicts.record_delivered(&batch);
        assert_eq!(conflicts.undelivered().count(), 0);
        conflicts.clear_delivered();
        assert_eq!(conflicts.undelivered().count(), 1);
    }
}
