//! Which drifts of a cluster are sent. Pure.
//!
//! Only the leader looks for drifts. A new leader sends every drift that it finds: the start of a drift is not
//! considered, because it may be long before any agent could send it. A drift has ended when it was absent for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use probe_cluster::drift::{Drift, DriftKey};
use probe_model::Severity;
use tokio::time::Instant;

use super::notification::{Notification, NotificationKind};

/// A drift that is absent for this long has ended.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// The drifts that were sent and have not ended.
#[derive(Debug, Default)]
pub struct DriftGate {
    open: BTreeMap<DriftKey, Arc<Drift>>,
    /// Absent since then.
    absent: BTreeMap<DriftKey, (Arc<Drift>, Instant)>,
}

impl DriftGate {
    /// Forgets all drifts: this agent is no longer the leader.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Compares the current drifts with the sent ones.
    pub fn update(
        &mut self,
        drifts: &[Drift],
        min_severity: Severity,
        now: Instant,
        time: Timestamp,
    ) -> Vec<Notification> {
        let mut before = std::mem::take(&mut self.open);
        let mut notifications = Vec::new();
        for drift in drifts.iter().filter(|drift| drift.severity >= min_severity) {
            let key = drift.key();
            let drift = Arc::new(drift.clone());
            let was_open = before.remove(&key).is_some() | self.absent.remove(&key).is_some();
            if !was_open {
                let (drift, since) = (drift.clone(), drift.since);
                notifications.push(Notification::of_drift(
                    NotificationKind::Drift,
                    drift,
                    since,
                ));
            }
            self.open.insert(key, drift);
        }
        for (key, drift) in before {
            self.absent.insert(key, (drift, now));
        }
        notifications.extend(self.tick(now, time));
        notifications
    }

    /// The ends of drifts that have been absent for long enough.
    pub fn tick(&mut self, now: Instant, time: Timestamp) -> Vec<Notification> {
        let ended = self
            .absent
            .extract_if(.., |_, (_, since)| now.duration_since(*since) >= GONE_AFTER);
        ended
            .map(|(_, (drift, _))| Notification::of_drift(NotificationKind::DriftGone, drift, time))
            .collect()
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let since = self.absent.values().map(|(_, since)| *since).min();
        since.map(|since| since + GONE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::drift, *};

    struct DriftGateFixture {
        drifts: DriftGate,
        start: Instant,
    }

    impl DriftGateFixture {
        fn new() -> Self {
            Self {
                drifts: DriftGate::default(),
                start: Instant::now(),
            }
        }

        fn update(&mut self, second: u64, drifts: &[Drift]) -> Vec<(NotificationKind, String)> {
            let now = self.start + Duration::from_secs(second);
            let time = Timestamp::UNIX_EPOCH;
            let sent = self.drifts.update(drifts, Severity::Warning, now, time);
            let name = |notification: &Notification| {
                notification.drift().unwrap().pool.clone().unwrap().name
            };
            sent.iter()
                .map(|notification| (notification.kind, name(notification)))
                .collect()
        }
    }

    fn sent(kind: NotificationKind, name: &str) -> (NotificationKind, String) {
        (kind, name.to_owned())
    }

    #[test]
    fn drift_is_sent_once_and_its_end_once_confirmed() {
        let mut gate = DriftGateFixture::new();
        let drift = drift("a");
        let begins = sent(NotificationKind::Drift, "a");
        assert_eq!(gate.update(0, std::slice::from_ref(&drift)), [begins]);
        assert_eq!(gate.update(10, std::slice::from_ref(&drift)), []);
        assert_eq!(gate.update(20, &[]), []);
        // It was absent for a moment only.
        assert_eq!(gate.update(30, &[drift]), []);
        assert_eq!(gate.update(40, &[]), []);
        let ends = sent(NotificationKind::DriftGone, "a");
        assert_eq!(gate.update(56, &[]), [ends]);
        assert_eq!(gate.update(80, &[]), []);
    }

    #[test]
    fn a_new_leader_sends_every_drift_that_it_finds() {
        let mut gate = DriftGateFixture::new();
        let begins = sent(NotificationKind::Drift, "a");
        assert_eq!(gate.update(0, &[drift("a")]), std::slice::from_ref(&begins));
        gate.drifts.clear();
        assert_eq!(gate.drifts.next_deadline(), None);
        assert_eq!(gate.update(20, &[drift("a")]), [begins]);
    }

    #[test]
    fn changed_wording_or_evidence_is_not_a_new_drift() {
        let mut gate = DriftGateFixture::new();
        let first = drift("a");
        let later = Drift {
            summary: "something else".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            ..first.clone()
        };
        assert_eq!(gate.update(0, &[first]).len(), 1);
        assert_eq!(gate.update(10, &[later]), []);
    }

    #[test]
    fn a_drift_of_too_low_a_severity_is_not_sent() {
        let mut gate = DriftGateFixture::new();
        let notice = Drift {
            severity: Severity::Notice,
            ..drift("a")
        };
        assert_eq!(gate.update(720, &[notice]), []);
    }
}
