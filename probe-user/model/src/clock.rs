//! Converts time stamps to wall-clock time.

use crate::Timestamp;

/// The clock of a [`Timestamp`].
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`. The function returns the current difference to `CLOCK_REALTIME`, in nanoseconds. It is called for
    /// each conversion, because the wall clock may be set at any time.
    Monotonic(fn() -> i128),
    /// The time since 1970, as in captures.
    Epoch,
    /// `CLOCK_MONOTONIC`, with a fixed difference to the time since 1970, in nanoseconds.
    FixedOffset(i128),
}

impl Clock {
    /// Converts a time stamp to wall-clock time, by the current setting of the wall clock.
    pub fn to_wall_clock(self, at: Timestamp) -> jiff::Timestamp {
        let epoch = i128::from(at.0) + self.offset_ns();
        jiff::Timestamp::from_nanosecond(epoch).unwrap_or(jiff::Timestamp::MAX)
    }

    /// Returns this clock with a fixed offset. The two clocks cannot be read at the same instant, so repeated conversions
    /// of one time stamp differ by nanoseconds; the fields of a record must not.
    #[must_use]
    pub fn read_once(self) -> Self {
        Self::FixedOffset(self.offset_ns())
    }

    fn offset_ns(self) -> i128 {
        match self {
            Self::Epoch => 0,
            Self::FixedOffset(offset) => offset,
            Self::Monotonic(read_offset) => read_offset(),
        }
    }

    /// Converts a wall-clock time to a time stamp.
    pub fn from_wall_clock(self, wall: jiff::Timestamp) -> Timestamp {
        let nanos = wall.as_nanosecond() - self.offset_ns();
        Timestamp(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_keeps_its_own_time() {
        let at = Timestamp(1_700_000_000_000_000_000);
        for clock in [Clock::Epoch, Clock::Epoch.read_once()] {
            assert_eq!(clock.to_wall_clock(at).to_string(), "2023-11-14T22:13:20Z");
        }
    }
}
