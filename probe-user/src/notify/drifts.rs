//! Which drifts of a cluster are news. Pure.
//!
//! Only the holder of the lease looks for them, and a new holder finds all that there are at its first look: they are
//! no news then, unless they began while nobody held the lease. One that is gone only because nobody looks any more is
//! no news either: it is told when it has been gone for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    desk::HANDOVER,
    news::{Kind, News, Story, Subject},
};
use crate::{
    cluster::drift::{Drift, Key},
    detect::Severity,
};

/// A drift that is gone for so long is over.
const GONE: Duration = Duration::from_secs(15);
/// What a new holder finds in this time was there before it looked.
const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(60);

/// The drifts that are known.
#[derive(Debug, Default)]
pub struct Drifts {
    known: BTreeMap<Key, Arc<Drift>>,
    /// Gone since then.
    leaving: BTreeMap<Key, (Arc<Drift>, Instant)>,
    /// Since when it is ours to tell.
    since: Option<Timestamp>,
}

impl Drifts {
    /// It is ours to tell from now on.
    pub const fn begin(&mut self, time: Timestamp) {
        self.since = Some(time);
    }

    /// It is no longer.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// What there is now: what of it is news.
    pub fn look(
        &mut self,
        drifts: &[Drift],
        least: Severity,
        now: Instant,
        time: Timestamp,
    ) -> Vec<News> {
        let Some(began) = self.since else {
            return Vec::new();
        };
        let mut before = std::mem::take(&mut self.known);
        let mut news = Vec::new();
        for drift in drifts.iter().filter(|drift| drift.severity >= least) {
            let key = drift.key();
            let drift = Arc::new(drift.clone());
            let was_there = before.remove(&key).is_some() | self.leaving.remove(&key).is_some();
            if !was_there && is_news(&drift, began) {
                news.push(told(Kind::Drift, &key, drift.clone(), drift.since));
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
        over.map(|(key, (drift, _))| told(Kind::DriftGone, &key, drift, time))
            .collect()
    }

    /// When something will be over.
    pub fn next_deadline(&self) -> Option<Instant> {
        let since = self.leaving.values().map(|(_, since)| *since).min();
        since.map(|since| since + GONE)
    }
}

/// Whether it began since this is ours to tell, or so shortly before that nobody may have told it. What is found at
/// the first look, and has no beginning of its own, was there before.
fn is_news(drift: &Drift, began: Timestamp) -> bool {
    let handover = SignedDuration::try_from(HANDOVER).unwrap_or_default();
    let after = drift.since.duration_since(began);
    (-handover..SignedDuration::ZERO).contains(&after) || after > FIRST_LOOK
}

fn told(kind: Kind, key: &Key, drift: Arc<Drift>, time: Timestamp) -> News {
    News {
        subject: Subject::Drift(key.clone()),
        kind,
        severity: match kind {
            Kind::Drift => drift.severity,
            _ => Severity::Notice,
        },
        story: Story::Drift { drift, time },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(name: &str, since: &str) -> Drift {
        let text = format!(
            r#"{{"drift":"pool_unadvertised","severity":"warning","since":"2026-11-21T{since}Z",
                "pool":{{"namespace":"metallb-system","name":"{name}"}},"says":"nothing advertises it"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    struct Lab {
        drifts: Drifts,
        start: Instant,
        begin: Timestamp,
    }

    impl Lab {
        /// A holder since 02:00:00.
        fn new() -> Self {
            let begin = "2026-11-21T02:00:00Z".parse().unwrap();
            let mut drifts = Drifts::default();
            drifts.begin(begin);
            Self {
                drifts,
                start: Instant::now(),
                begin,
            }
        }

        fn look(&mut self, second: i64, drifts: &[Drift]) -> Vec<Kind> {
            let now = self.start + Duration::from_secs(second.try_into().unwrap());
            let time = self.begin + SignedDuration::from_secs(second);
            let news = self.drifts.look(drifts, Severity::Warning, now, time);
            news.into_iter().map(|news| news.kind).collect()
        }
    }

    #[test]
    fn what_begins_is_told_once_and_its_end_when_it_is_sure() {
        let mut lab = Lab::new();
        let drift = drift("a", "02:10:00");
        assert_eq!(lab.look(720, std::slice::from_ref(&drift)), [Kind::Drift]);
        assert_eq!(lab.look(730, std::slice::from_ref(&drift)), []);
        assert_eq!(lab.look(740, &[]), []);
        // It was gone for a moment only.
        assert_eq!(lab.look(750, &[drift]), []);
        assert_eq!(lab.look(760, &[]), []);
        assert_eq!(lab.look(776, &[]), [Kind::DriftGone]);
        assert_eq!(lab.look(800, &[]), []);
    }

    #[test]
    fn a_new_holder_does_not_tell_what_was_there_before_but_its_end() {
        let mut lab = Lab::new();
        let there = [
            drift("old", "01:00:00"),
            drift("found", "02:00:05"),
            drift("meanwhile", "01:59:30"),
        ];
        assert_eq!(lab.look(130, &there), [Kind::Drift]);
        assert_eq!(lab.look(140, &[]), []);
        assert_eq!(lab.look(160, &[]), [Kind::DriftGone; 3]);
    }

    #[test]
    fn who_does_not_hold_the_lease_tells_nothing() {
        let mut lab = Lab::new();
        let drift = drift("a", "02:10:00");
        assert_eq!(lab.look(720, &[drift]), [Kind::Drift]);
        lab.drifts.end();
        assert_eq!(lab.look(730, &[]), []);
        assert_eq!(lab.look(800, &[]), []);
        assert_eq!(lab.drifts.next_deadline(), None);
    }

    #[test]
    fn what_matters_too_little_is_not_told() {
        let mut lab = Lab::new();
        let notice = Drift {
            severity: Severity::Notice,
            ..drift("a", "02:10:00")
        };
        assert_eq!(lab.look(720, &[notice]), []);
    }
}
