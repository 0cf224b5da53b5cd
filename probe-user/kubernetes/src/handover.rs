//! What whoever speaks for the cluster leaves to the next: what it has told, so that this is not told again, and all
//! that is not among it is. It is kept in the Lease, which its holder writes every few seconds anyway.
//!
//! What is left is a hint and no promise: where it is not there, or older than what happened, things are told twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// A short name of something that was told.
pub type Digest = u32;

/// What was told, by the way in which it was.
pub type NotifiedDigests = BTreeMap<String, BTreeSet<Digest>>;

/// So many names are kept of each way: 1.8 KB in the Lease.
pub const MAX_DIGESTS: usize = 200;

/// So many ways there are at most, whatever a Lease says.
#[cfg(feature = "kubernetes")]
const MAX_SINKS: usize = 8;

/// The annotations of the Lease that say it begin so.
#[cfg(feature = "kubernetes")]
const PREFIX: &str = "arp-monitor/told-";

/// Ways that nobody here has spoken for in this time are not in use any more.
const HANDOVER_SETTLED_AFTER: Duration = Duration::from_mins(1);

/// What the one before has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PredecessorState {
    /// What it has told in one way, as far as there was room for it.
    pub told: BTreeSet<Digest>,
    /// It could tell what happened until then, by its own clock; nobody could, if this is nothing.
    pub until: Option<Timestamp>,
}

/// Where it is handed over, between the Lease and those who tell. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LeaderHandover(Arc<Mutex<LeaderHandoverState>>);

#[derive(Debug, Default)]
struct LeaderHandoverState {
    told: NotifiedDigests,
    /// The ways that somebody here has spoken for.
    own_sinks: BTreeSet<String>,
    until: Option<Timestamp>,
    since: Option<Instant>,
}

impl LeaderHandover {
    /// What the one before told in this way.
    pub fn predecessor_state(&self, way: &str) -> PredecessorState {
        let state = self.lock();
        PredecessorState {
            told: state.told.get(way).cloned().unwrap_or_default(),
            until: state.until,
        }
    }

    /// What was told in this way by now, instead of what was said before.
    pub fn record_notified(&self, way: &str, told: BTreeSet<Digest>) {
        let mut state = self.lock();
        state.own_sinks.insert(way.to_owned());
        state.told.insert(way.to_owned(), told);
    }

    /// It is ours to tell: with what was left.
    #[cfg_attr(
        not(feature = "kubernetes"),
        allow(dead_code, reason = "there is no Lease to take")
    )]
    pub(super) fn accept_predecessor(&self, told: NotifiedDigests, until: Option<Timestamp>) {
        *self.lock() = LeaderHandoverState {
            told,
            until,
            own_sinks: BTreeSet::new(),
            since: Some(Instant::now()),
        };
    }

    /// What the next one shall know.
    #[cfg_attr(
        not(feature = "kubernetes"),
        allow(dead_code, reason = "there is no Lease to write it into")
    )]
    pub(super) fn told(&self) -> NotifiedDigests {
        let state = self.lock();
        let is_settled = state
            .since
            .is_some_and(|since| since.elapsed() > HANDOVER_SETTLED_AFTER);
        let told = state.told.iter();
        told.filter(|(way, _)| !is_settled || state.own_sinks.contains(*way))
            .map(|(way, told)| (way.clone(), told.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, LeaderHandoverState> {
        // Whoever panicked left something that can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As annotations of a Lease.
#[cfg(feature = "kubernetes")]
pub(super) fn annotations(told: &NotifiedDigests) -> impl Iterator<Item = (String, String)> {
    told.iter().take(MAX_SINKS).map(|(way, told)| {
        let told: Vec<_> = told
            .iter()
            .take(MAX_DIGESTS)
            .map(|digest| format!("{digest:08x}"))
            .collect();
        (format!("{PREFIX}{way}"), told.join(","))
    })
}

/// From annotations of a Lease. What makes no sense was not told.
#[cfg(feature = "kubernetes")]
pub(super) fn told<'a>(annotations: impl Iterator<Item = (&'a str, &'a str)>) -> NotifiedDigests {
    let told = annotations.filter_map(|(name, text)| {
        let digests = text.split(',').take(MAX_DIGESTS);
        let digests = digests.filter_map(|digest| Digest::from_str_radix(digest, 16).ok());
        Some((name.strip_prefix(PREFIX)?.to_owned(), digests.collect()))
    });
    told.take(MAX_SINKS).collect()
}

#[cfg(test)]
#[cfg(feature = "kubernetes")]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> NotifiedDigests {
        told(pairs.iter().copied())
    }

    #[test]
    fn what_is_written_into_a_lease_is_read_from_it() {
        let told = NotifiedDigests::from([
            ("event".to_owned(), BTreeSet::new()),
            (
                "webhook".to_owned(),
                BTreeSet::from([0, 7, 0xdead_beef, u32::MAX]),
            ),
        ]);
        let written: Vec<_> = annotations(&told).collect();
        assert_eq!(written[1].0, "arp-monitor/told-webhook");
        assert_eq!(written[1].1, "00000000,00000007,deadbeef,ffffffff");
        let pairs: Vec<_> = written.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(read(&pairs), told);
    }

    #[test]
    fn what_makes_no_sense_was_not_told_and_there_is_a_bound() {
        let long = "00000001,".repeat(10_000) + "7";
        let told = read(&[
            ("arp-monitor/nodes", "3"),
            ("arp-monitor/told-webhook", "x,,-1,100000000,2, 3"),
            ("arp-monitor/told-event", &long),
        ]);
        assert_eq!(told["webhook"], BTreeSet::from([2]));
        assert_eq!(told["event"], BTreeSet::from([1]));
        assert_eq!(told.len(), 2);
        let many: BTreeSet<_> = (0..1_000).collect();
        let told = NotifiedDigests::from([("event".to_owned(), many)]);
        let (_, text) = annotations(&told).next().unwrap();
        assert!(text.len() < 9 * MAX_DIGESTS, "{}", text.len());
        let ways: Vec<_> = (0..100).map(|number| format!("{PREFIX}{number}")).collect();
        assert_eq!(
            super::told(ways.iter().map(|way| (&**way, ""))).len(),
            MAX_SINKS
        );
    }

    #[test]
    fn what_nobody_here_has_spoken_for_is_left_as_it_was() {
        let handover = LeaderHandover::default();
        assert_eq!(
            handover.predecessor_state("webhook"),
            PredecessorState::default()
        );
        let left = NotifiedDigests::from([
            ("event".to_owned(), BTreeSet::from([1])),
            ("webhook".to_owned(), BTreeSet::from([2])),
        ]);
        let until = Some(Timestamp::UNIX_EPOCH);
        handover.accept_predecessor(left.clone(), until);
        assert_eq!(handover.told(), left);
        let told = BTreeSet::from([2]);
        assert_eq!(
            handover.predecessor_state("webhook"),
            PredecessorState { told, until }
        );
        handover.record_notified("webhook", BTreeSet::from([2, 3]));
        assert_eq!(handover.told()["webhook"], BTreeSet::from([2, 3]));
        assert_eq!(handover.told()["event"], BTreeSet::from([1]));
    }
}
