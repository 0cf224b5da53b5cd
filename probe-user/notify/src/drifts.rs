//! Which drifts of a cluster are news. Pure.
//!
//! Only the holder of the lease looks for them, and a new holder finds all that there are at its first looks. What the
//! one before says it has told is no news then, all else is: what nobody could tell, what it did not get to, and, where
//! nobody held the lease before, everything. When a drift began decides nothing: that may be long before it was found.
//! One that is gone only because nobody looks any more is no news either: it is told when it has been gone for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::drift::{Drift, Key};
use probe_kubernetes::Digest;
use probe_model::Severity;
use tokio::time::Instant;

use super::news::{Kind, News, Story, Subject, digest_of_drift};

/// A drift that is gone for so long is over.
const GONE: Duration = Duration::from_secs(15);

/// The drifts that are known.
#[derive(Debug, Default)]
pub struct Drifts {
    known: BTreeMap<Key, Arc<Drift>>,
    /// Gone since then.
    leaving: BTreeMap<Key, (Arc<Drift>, Instant)>,
}

impl Drifts {
    /// It is no longer ours to tell.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// What there is now: what of it is news. What others have told and is found is taken out of `told`.
    pub fn look(
        &mut self,
        drifts: &[Drift],
        least: Severity,
        told: &mut BTreeSet<Digest>,
        now: Instant,
        time: Timestamp,
    ) -> Vec<News> {
        let mut before = std::mem::take(&mut self.known);
        let mut news = Vec::new();
        for drift in drifts.iter().filter(|drift| drift.severity >= least) {
            let key = drift.key();
            let drift = Arc::new(drift.clone());
            let was_there = before.remove(&key).is_some() | self.leaving.remove(&key).is_some();
            if !was_there && !told.remove(&digest_of_drift(&drift)) {
                news.push(News::of_drift(
                    Kind::Drift,
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
        news.extend(self.tick(now, time));
        news
    }

    /// What is over by now.
    pub fn tick(&mut self, now: Instant, time: Timestamp) -> Vec<News> {
        let over = self
            .leaving
            .extract_if(.., |_, (_, since)| now.duration_since(*since) >= GONE);
        over.map(|(key, (drift, _))| News::of_drift(Kind::DriftGone, &key, drift, time))
            .collect()
    }

    /// Those that there are, and what each is called.
    pub fn known(&self) -> impl Iterator<Item = (Subject, Digest)> {
        let leaving = self.leaving.iter().map(|(key, (drift, _))| (key, drift));
        let all = self.known.iter().chain(leaving);
        all.map(|(key, drift)| (Subject::Drift(key.clone()), digest_of_drift(drift)))
    }

    /// When something will be over.
    pub fn next_deadline(&self) -> Option<Instant> {
        let since = self.leaving.values().map(|(_, since)| *since).min();
        since.map(|since| since + GONE)
    }
}

impl News {
    fn of_drift(kind: Kind, key: &Key, drift: Arc<Drift>, time: Timestamp) -> Self {
        Self {
            subject: Subject::Drift(key.clone()),
            kind,
            severity: match kind {
                Kind::Drift => drift.severity,
                _ => Severity::Notice,
            },
            story: Story::Drift { drift, time },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A pool of this name that nothing advertises.
    pub fn drift(name: &str) -> Drift {
        let text = format!(
            r#"{{"drift":"pool_unadvertised","severity":"warning","since":"2026-11-21T02:10:00Z",
                "pool":{{"namespace":"metallb-system","name":"{name}"}},"says":"nothing advertises it"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    struct Lab {
        drifts: Drifts,
        told: BTreeSet<Digest>,
        start: Instant,
    }

    impl Lab {
        fn new() -> Self {
            Self {
                drifts: Drifts::default(),
                told: BTreeSet::new(),
                start: Instant::now(),
            }
        }

        fn look(&mut self, second: u64, drifts: &[Drift]) -> Vec<(Kind, String)> {
            let now = self.start + Duration::from_secs(second);
            let (told, time) = (&mut self.told, Timestamp::UNIX_EPOCH);
            let news = self.drifts.look(drifts, Severity::Warning, told, now, time);
            let name = |news: &News| news.drift().unwrap().pool.clone().unwrap().name;
            news.iter().map(|news| (news.kind, name(news))).collect()
        }
    }

    fn is(kind: Kind, name: &str) -> (Kind, String) {
        (kind, name.to_owned())
    }

    #[test]
    fn what_begins_is_told_once_and_its_end_when_it_is_sure() {
        let mut lab = Lab::new();
        let drift = drift("a");
        assert_eq!(
            lab.look(0, std::slice::from_ref(&drift)),
            [is(Kind::Drift, "a")]
        );
        assert_eq!(lab.look(10, std::slice::from_ref(&drift)), []);
        assert_eq!(lab.look(20, &[]), []);
        // It was gone for a moment only.
        assert_eq!(lab.look(30, &[drift]), []);
        assert_eq!(lab.look(40, &[]), []);
        assert_eq!(lab.look(56, &[]), [is(Kind::DriftGone, "a")]);
        assert_eq!(lab.look(80, &[]), []);
    }

    #[test]
    fn what_another_has_told_is_not_told_again_but_its_end_is_and_so_is_its_return() {
        let mut lab = Lab::new();
        let [old, new] = [drift("old"), drift("new")];
        lab.told.insert(digest_of_drift(&old));
        assert_eq!(lab.look(0, &[old.clone(), new]), [is(Kind::Drift, "new")]);
        assert_eq!(lab.look(20, &[]), []);
        assert_eq!(
            lab.look(40, &[]),
            [is(Kind::DriftGone, "new"), is(Kind::DriftGone, "old")]
        );
        assert_eq!(lab.look(60, &[old]), [is(Kind::Drift, "old")]);
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
        assert_eq!(digest_of_drift(&first), 4_043_199_024);
    }

    #[test]
    fn what_matters_too_little_is_not_told() {
        let mut lab = Lab::new();
        let notice = Drift {
            severity: Severity::Notice,
            ..drift("a")
        };
        assert_eq!(lab.look(720, &[notice]), []);
    }
}
