//! Estimates how many agents probe on a segment.
//!
//! Agents do not know each other. Each receives the broadcast probes of the others, a sample of the agents. Chao's
//! estimator (Chao 1984, "Nonparametric estimation of the number of classes in a population") derives their number from
//! how many were observed once, and how many twice.

use std::{num::NonZeroUsize, time::Duration};

use lru::LruCache;
use probe_common::wire::MacAddr;
use probe_model::{Segment, Timestamp};

/// The maximum number of observed agents that are stored.
const MAX_OBSERVED_AGENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);

/// The number of observed agents above which the estimate is cached.
const MAX_UNCACHED_AGENTS: usize = 64;

/// The time for which the estimate is cached.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(10);

/// The expected number of agents that send one probe, for a fleet of any size.
const EXPECTED_PROBERS: f64 = 3.0;

/// The minimum turn length, in intervals.
const MIN_TURN_LENGTH: u32 = 2;

/// Estimates the number of agents from the recently observed ones.
#[derive(Debug)]
pub(super) struct AgentEstimator {
    configured: Option<u32>,
    memory: Duration,
    observed: LruCache<(Segment, MacAddr), ObservedProber>,
    /// The last estimate, so that a large fleet is not counted for every probe.
    cached_estimate: Option<AgentEstimate>,
}

#[derive(Clone, Copy, Debug)]
struct AgentEstimate {
    segment: Segment,
    at: Timestamp,
    size: f64,
}

#[derive(Clone, Copy, Debug)]
struct ObservedProber {
    at: Timestamp,
    times: u32,
}

impl AgentEstimator {
    /// Creates an estimator. A configured number is used instead of an estimate. Agents count for `memory` after they were
    /// last observed.
    pub fn new(configured: Option<u32>, memory: Duration) -> Self {
        Self {
            configured,
            memory,
            observed: LruCache::new(MAX_OBSERVED_AGENTS),
            cached_estimate: None,
        }
    }

    /// Records a broadcast probe of another agent.
    pub fn observe(&mut self, segment: Segment, mac: MacAddr, at: Timestamp) {
        let observed = self
            .observed
            .get_or_insert_mut((segment, mac), || ObservedProber { at, times: 0 });
        if at.since(observed.at) > self.memory {
            observed.times = 0;
        }
        *observed = ObservedProber {
            at,
            times: observed.times.saturating_add(1),
        };
    }

    /// The number of agents on a segment, this one included.
    pub fn estimate(&mut self, segment: Segment, now: Timestamp) -> f64 {
        if let Some(configured) = self.configured {
            return f64::from(configured.max(1));
        }
        let is_fresh = |cached_estimate: &AgentEstimate| {
            cached_estimate.segment == segment
                && now.since(cached_estimate.at) < RECOUNT_INTERVAL
                && now >= cached_estimate.at
        };
        if self.observed.len() > MAX_UNCACHED_AGENTS
            && let Some(cached_estimate) = self.cached_estimate.filter(is_fresh)
        {
            return cached_estimate.size;
        }
        let size = self.count(segment, now);
        self.cached_estimate = Some(AgentEstimate {
            segment,
            at: now,
            size,
        });
        size
    }

    fn count(&self, segment: Segment, now: Timestamp) -> f64 {
        let (mut all, mut once, mut twice) = (0_u32, 0_u32, 0_u32);
        for ((observed_on, _), observed) in &self.observed {
            if *observed_on == segment && now.since(observed.at) <= self.memory {
                all += 1;
                once += u32::from(observed.times == 1);
                twice += u32::from(observed.times == 2);
            }
        }
        let (once, twice) = (f64::from(once), f64::from(twice));
        let unobserved = if twice > 0.0 {
            once * once / (2.0 * twice)
        } else {
            once * (once - 1.0) / 2.0
        };
        1.0 + f64::from(all) + unobserved.max(0.0)
    }

    /// The number of intervals in which each agent of the segment probes an address at least once itself, so that about
    /// [`EXPECTED_PROBERS`] agents do so in each interval; at least [`MIN_TURN_LENGTH`].
    pub fn turn_length(&mut self, segment: Segment, now: Timestamp) -> u32 {
        let intervals = (self.estimate(segment, now) / EXPECTED_PROBERS).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the range before"
        )]
        let intervals = intervals.clamp(0.0, f64::from(u16::MAX)) as u32;
        intervals.max(MIN_TURN_LENGTH)
    }

    /// The probability with which this agent sends a probe that every agent could send.
    pub fn selection_probability(&mut self, segment: Segment, now: Timestamp) -> f64 {
        (EXPECTED_PROBERS / self.estimate(segment, now)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    fn within(value: f64, low: f64, high: f64) -> bool {
        (low..=high).contains(&value)
    }

    #[test]
    fn up_to_three_agents_always_probe() {
        let mut fleet = AgentEstimator::new(None, HOUR);
        let segment = Segment::default();
        assert!(fleet.selection_probability(segment, Timestamp(0)) >= 1.0);
        for round in 0..10 {
            for node in 0..2 {
                fleet.observe(segment, mac(node), Timestamp(round));
            }
        }
        assert!(within(fleet.estimate(segment, Timestamp(10)), 3.0, 3.0));
        assert!(fleet.selection_probability(segment, Timestamp(10)) >= 1.0);
    }

    #[test]
    fn a_configured_number_of_agents_is_used() {
        let mut fleet = AgentEstimator::new(Some(300), HOUR);
        let share = fleet.selection_probability(Segment::default(), Timestamp(0));
        assert!(within(share, 0.0099, 0.0101), "{share}");
    }

    /// For a thousand agents, three hundred probes of random agents are sufficient.
    #[test]
    fn the_size_of_a_large_fleet_is_estimated_from_a_sample() {
        let segment = Segment::default();
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut fleet = AgentEstimator::new(None, HOUR);
            for second in 0..300 {
                fleet.observe(segment, mac(random.u32(0..1_000)), Timestamp(second));
            }
            let size = fleet.estimate(segment, Timestamp(300));
            assert!(within(size, 500.0, 2_000.0), "{size}");
        }
    }

    #[test]
    fn agents_that_were_not_observed_recently_do_not_count() {
        let (mut fleet, segment) = (AgentEstimator::new(None, HOUR), Segment::default());
        for node in 0..100 {
            fleet.observe(segment, mac(node), Timestamp(0));
        }
        let elsewhere = Segment {
            interface: 7,
            ..segment
        };
        assert!(within(fleet.estimate(elsewhere, Timestamp(0)), 1.0, 1.0));
        assert!(fleet.estimate(segment, Timestamp(0)) > 100.0);
        let later = Timestamp(0) + HOUR * 2;
        assert!(within(fleet.estimate(segment, later), 1.0, 1.0));
    }

    #[test]
    fn the_number_of_stored_agents_is_bounded() {
        let mut fleet = AgentEstimator::new(None, HOUR);
        for node in 0..10_000 {
            fleet.observe(Segment::default(), mac(node), Timestamp(0));
        }
        assert_eq!(fleet.observed.len(), MAX_OBSERVED_AGENTS.get());
    }
}
