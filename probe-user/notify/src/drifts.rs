//! Which drifts of a cluster are notification. Pure.
//!
//! Only the holder of the lease looks for them, and a new holder finds all that there are at its first looks. What the
//! one before says it has told is no notification then, all else is: what nobody could tell, what it did not get to, and, where
//! nobody held the lease before, everything. When a drift began decides nothing: that may be long before it was found.
//! One that is gone only because nobody looks any more is no notification either: it is told when it has been gone for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::drift::{Drift, DriftKey};
use probe_kubernetes::Digest;
use probe_model::Severity;
use tokio::time::Instant;

use super::notification::{
    Notification, NotificationCause, NotificationKind, NotificationSubject, digest_of_drift,
};

/// A drift that is gone for so long is over.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// The drifts that are known.
#[derive(Debug, Default)]
pub struct DriftGate {
    known: BTreeMap<DriftKey, Arc<Drift>>,
    /// Gone since then.
    leaving: BTreeMap<DriftKey, (Arc<Drift>, Instant)>,
}

impl DriftGate {
    /// It is no longer ours to tell.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// What there is now: what of it is notification. What others have told and is found is taken out of `told`.
    pub fn look(
        &mut self,
        drifts: &[Drift],
        min_severity: Severity,
        told: &mut BTreeSet<Digest>,
        now: Instant,
        time: Timestamp,
    ) -> Vec<Notification> {
        let mut before = std::mem::take(&mut self.known);
        let mut notification = Vec::new();
        for drift in drifts.iter().filter(|drift| drift.severity >= min_severity) {
            let key = drift.key();
            let drift = Arc::new(drift.clone());
            let was_there = before.remove(&key).is_some() | self.leaving.remove(&key).is_some();
            if !was_there && !told.remove(&digest_of_drift(&drift)) {
                notification.push(Notification::for_drift(
                    NotificationKind::Drift,
                    &key,
                    drift.clone(),
                    drift.since,
                ));
            }
            self.known.insert(key, drift);
        }
        for (key, drift) in before {
            self.leaving.insert(key, (drift, now));
        }
        notification.extend(self.tick(now, time));
        notification
    }

    /// What is over by now.
    pub fn tick(&mut self, now: Instant, time: Timestamp) -> Vec<Notification> {
        let over = self
            .leaving
            .extract_if(.., |_, (_, since)| now.duration_since(*since) >= GONE_AFTER);
        over.map(|(key, (drift, _))| {
            Notification::for_drift(NotificationKind::DriftGone, &key, drift, time)
        })
        .collect()
    }

    /// Those that there are, and what each is called.
    pub fn known(&self) -> impl Iterator<Item = (NotificationSubject, Digest)> {
        let leaving = self.leaving.iter().map(|(key, (drift, _))| (key, drift));
        let all = self.known.iter().chain(leaving);
        all.map(|(key, drift)| {
            (
                NotificationSubject::Drift(key.clone()),
                digest_of_drift(drift),
            )
        })
    }

    /// When something will be over.
    pub fn next_deadline(&self) -> Option<Instant> {
        let since = self.leaving.values().map(|(_, since)| *since).min();
        since.map(|since| since + GONE_AFTER)
    }
}

impl Notification {
    fn for_drift(
        kind: NotificationKind,
        key: &DriftKey,
        drift: Arc<Drift>,
        time: Timestamp,
    ) -> Self {
        Self {
            subject: NotificationSubject::Drift(key.clone()),
            kind,
            severity: match kind {
                NotificationKind::Drift => drift.severity,
                _ => Severity::Notice,
            },
            cause: NotificationCause::Drift { drift, time },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A pool of this name that nothing advertises.
    pub fn drift(name: &str) -> Drift {
        let text = format!(
            r#"{{"drift":"unadvertised_pool","severity":"warning","since":"2026-11-21T02:10:00Z",
                "pool":{{"namespace":"metallb-system","name":"{name}"}},"says":"nothing advertises it"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    struct DriftGateFixture {
        drifts: DriftGate,
        told: BTreeSet<Digest>,
        start: Instant,
    }

    impl DriftGateFixture {
        fn new() -> Self {
            Self {
                drifts: DriftGate::default(),
                told: BTreeSet::new(),
                start: Instant::now(),
            }
        }

        fn look(&mut self, second: u64, drifts: &[Drift]) -> Vec<(NotificationKind, String)> {
            let now = self.start + Duration::from_secs(second);
            let (told, time) = (&mut self.told, Timestamp::UNIX_EPOCH);
            let notification = self.drifts.look(drifts, Severity::Warning, told, now, time);
            let name = |notification: &Notification| {
                notification.drift().unwrap().pool.clone().unwrap().name
            };
            notification
                .iter()
                .map(|notification| (notification.kind, name(notification)))
                .collect()
        }
    }

    fn is(kind: NotificationKind, name: &str) -> (NotificationKind, String) {
        (kind, name.to_owned())
    }

    #[test]
    fn what_begins_is_told_once_and_its_end_when_it_is_sure() {
        let mut lab = DriftGateFixture::new();
        let drift = drift("a");
        assert_eq!(
            lab.look(0, std::slice::from_ref(&drift)),
            [is(NotificationKind::Drift, "a")]
        );
        assert_eq!(lab.look(10, std::slice::from_ref(&drift)), []);
        assert_eq!(lab.look(20, &[]), []);
        // It was gone for a moment only.
        assert_eq!(lab.look(30, &[drift]), []);
        assert_eq!(lab.look(40, &[]), []);
        assert_eq!(lab.look(56, &[]), [is(NotificationKind::DriftGone, "a")]);
        assert_eq!(lab.look(80, &[]), []);
    }

    #[test]
    fn what_another_has_told_is_not_told_again_but_its_end_is_and_so_is_its_return() {
        let mut lab = DriftGateFixture::new();
        let [old, new] = [drift("old"), drift("new")];
        lab.told.insert(digest_of_drift(&old));
        assert_eq!(
            lab.look(0, &[old.clone(), new]),
            [is(NotificationKind::Drift, "new")]
        );
        assert_eq!(lab.look(20, &[]), []);
        assert_eq!(
            lab.look(40, &[]),
            [
                is(NotificationKind::DriftGone, "new"),
                is(NotificationKind::DriftGone, "old")
            ]
        );
        assert_eq!(lab.look(60, &[old]), [is(NotificationKind::Drift, "old")]);
    }

    #[test]
    fn how_it_is_said_and_why_may_change_while_it_lasts() {
        let first = drift("a");
        let later = Drift {
            says: "something else".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            ..first.clone()
        };
        assert_eq!(digest_of_drift(&first), digest_of_drift(&later));
        assert_ne!(digest_of_drift(&first), digest_of_drift(&drift("b")));
        // Versions that know no other have to understand each other.
        assert_eq!(digest_of_drift(&first), 2_080_565_494);
    }

    #[test]
    fn what_matters_too_little_is_not_told() {
        let mut lab = DriftGateFixture::new();
        let notice = Drift {
            severity: Severity::Notice,
            ..drift("a")
        };
        assert_eq!(lab.look(720, &[notice]), []);
    }
}
