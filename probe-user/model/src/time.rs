//! Time as detection knows it: a number that it is told, never one that it reads.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use serde::Serialize;

/// A point in time, in nanoseconds. Live it is `CLOCK_MONOTONIC`, in a capture the time since the epoch;
/// detection only ever compares and subtracts, and both saturate: no clock can make it panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The beginning of time.
    pub const ZERO: Self = Self(0);

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_at_both_ends() {
        let end = Timestamp(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Timestamp(5) - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp(5).since(end), Duration::ZERO);
        assert_eq!(end.since(Timestamp(1)), Duration::from_nanos(u64::MAX - 1));
    }
}
