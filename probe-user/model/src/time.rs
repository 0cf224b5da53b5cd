//! The time stamps of the detector, which never reads a clock itself.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use serde::Serialize;

/// A point in time, in nanoseconds: `CLOCK_MONOTONIC` for live events, the time since 1970 in captures. Arithmetic
/// saturates, so that no time stamp causes a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time zero.
    pub const ZERO: Self = Self(0);

    /// The duration since `earlier`; zero if `earlier` is later.
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
