//! Translates time stamps to the time of day.

use crate::Timestamp;

/// How a [`Timestamp`] is read.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// As `CLOCK_MONOTONIC`. The function reads the two clocks of the system and returns their difference, in
    /// nanoseconds; it is called for each translation, because the time of day may be set at any time.
    Monotonic(fn() -> i128),
    /// As the time since 1970, read from a capture.
    Epoch,
    /// As `CLOCK_MONOTONIC`, with what has to be added for the time since 1970, in nanoseconds.
    Shifted(i128),
}

impl Clock {
    /// The time of day of a time stamp. Translated when it is asked for, so that a clock that was set
    /// meanwhile gives today's answer.
    pub fn to_wall_clock(self, at: Timestamp) -> jiff::Timestamp {
        let epoch = i128::from(at.0) + self.offset_ns();
        jiff::Timestamp::from_nanosecond(epoch).unwrap_or(jiff::Timestamp::MAX)
    }

    /// The same clock, read once: the two clocks cannot be read at the same instant, so a record whose
    /// fields were each translated anew would show one moment as several, a few nanoseconds apart.
    #[must_use]
    pub fn read_once(self) -> Self {
        Self::Shifted(self.offset_ns())
    }

    fn offset_ns(self) -> i128 {
        match self {
            Self::Epoch => 0,
            Self::Shifted(shift) => shift,
            Self::Monotonic(read_shift) => read_shift(),
        }
    }

    /// The time stamp of a time of day: the other way round.
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
