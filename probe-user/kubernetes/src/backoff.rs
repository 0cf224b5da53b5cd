//! How long to wait before the next try, so that many nodes do not knock at once.

use std::time::Duration;

/// The longest wait, on average.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double while nothing works.
#[derive(Clone, Debug)]
pub struct ApiBackoff {
    first: Duration,
    next: Duration,
}

impl ApiBackoff {
    /// The first wait is about this long.
    pub const fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// How long to wait now.
    pub fn next(&mut self) -> Duration {
        let wait = jittered(self.next);
        self.next = (self.next * 2).min(LONGEST);
        wait
    }

    /// It works again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// From half of a time to one and a half of it.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64())
}

/// Up to a time.
pub fn up_to(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        let mut backoff = ApiBackoff::new(Duration::from_secs(1));
        let waits: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        for (number, wait) in (0_u32..).zip(&waits) {
            let middle = LONGEST.min(Duration::from_secs(1) * 2_u32.pow(number.min(10)));
            assert!(
                (middle / 2..middle * 3 / 2).contains(wait),
                "{number}: {wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() < Duration::from_millis(1_500));
    }
}
