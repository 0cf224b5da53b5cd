//! Exponential back-off with jitter. Pure: the caller supplies the random number and sleeps.

use std::time::Duration;

/// An exponential back-off: computes the delays between failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min_delay: Duration,
    max_delay: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a back-off with a first delay of `min_delay` and a maximum of `max_delay`.
    pub const fn new(min_delay: Duration, max_delay: Duration) -> Self {
        Self {
            min_delay,
            max_delay,
            failures: 0,
        }
    }

    /// Records a failure and returns the delay before the next attempt: doubled after each failure, and shortened by up
    /// to a half, so that clients that failed together do not retry together. `random` is from 0 (no jitter) to 1.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let delay = self.min_delay.saturating_mul(factor).min(self.max_delay);
        delay.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// Records a success: the next delay is the first again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The number of failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
        let delays: Vec<_> = (0..12).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next_delay(0.0), Duration::from_mins(5));
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.next_delay(1.0), Duration::from_millis(500));
        assert_eq!(backoff.next_delay(7.0), Duration::from_secs(1));
    }
}
