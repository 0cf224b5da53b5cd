//! When to try again, and when not: pure rules.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, fmt::rfc2822};
use tokio::time::Instant;

/// After the first failure.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// However often it failed, and however long a receiver asks to be left alone.
pub const MAX_DELAY: Duration = Duration::from_mins(5);
/// In which a receiver gets so many messages at most.
const MINUTE: Duration = Duration::from_mins(1);

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It was taken.
    Delivered,
    /// It was not; another attempt may do, not before the receiver wants one.
    Retry {
        /// How long it wants to be left alone, if it says so.
        after: Option<Duration>,
    },
    /// It was not, and would not be.
    Refused,
}

impl DeliveryOutcome {
    /// By the status of an answer, and what it says of when to come again.
    pub fn of_status(status: u16, retry_after: Option<&str>, now: Timestamp) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 429 | 500..=599 => Self::Retry {
                after: retry_after.and_then(|text| parse_retry_after(text, now)),
            },
            // Redirections too: what is secret goes where it was meant to, or nowhere.
            _ => Self::Refused,
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wish = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        // What is past is now.
        SystemTime::from(date)
            .duration_since(now.into())
            .unwrap_or_default()
    };
    Some(wish.min(MAX_DELAY))
}

/// How long to wait after failures in a row: twice as long each time, up to a bound, and by lot up to a half less, so
/// that those who failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryBackoff {
    failures: u32,
}

impl DeliveryBackoff {
    /// Another failure: how long to wait. The lot is a number from 0 to 1.
    pub fn on_failure(&mut self, after: Option<Duration>, lot: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let whole = MIN_DELAY.saturating_mul(doubled).min(MAX_DELAY);
        let jittered = whole.mul_f64(1.0 - lot.clamp(0.0, 1.0) / 2.0);
        after.map_or(jittered, |after| after.min(MAX_DELAY).max(jittered))
    }

    /// It went well.
    pub const fn on_success(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub const fn failures(self) -> u32 {
        self.failures
    }
}

/// So many messages in any minute, and no more.
#[derive(Clone, Debug)]
pub struct NotificationRateLimit {
    per_minute: usize,
    sent: VecDeque<Instant>,
}

impl NotificationRateLimit {
    /// At least one.
    pub fn new(per_minute: usize) -> Self {
        Self {
            per_minute: per_minute.max(1),
            sent: VecDeque::new(),
        }
    }

    /// From when on the next may be sent; none if at once.
    pub fn next(&self) -> Option<Instant> {
        let full = self.sent.len() >= self.per_minute;
        self.sent
            .front()
            .filter(|_| full)
            .map(|&first| first + MINUTE)
    }

    /// One is sent.
    pub fn record(&mut self, now: Instant) {
        self.sent.push_back(now);
        while self.sent.len() > self.per_minute {
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().unwrap()
    }

    fn again(seconds: u64) -> DeliveryOutcome {
        let after = Some(Duration::from_secs(seconds));
        DeliveryOutcome::Retry { after }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_does_not_is_refused() {
        for status in [200, 202, 204] {
            assert_eq!(
                DeliveryOutcome::of_status(status, None, now()),
                DeliveryOutcome::Delivered
            );
        }
        for status in [408, 429, 500, 502, 503, 504] {
            let again = DeliveryOutcome::Retry { after: None };
            assert_eq!(
                DeliveryOutcome::of_status(status, None, now()),
                again,
                "{status}"
            );
        }
        for status in [100, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 600] {
            let refused = DeliveryOutcome::Refused;
            assert_eq!(
                DeliveryOutcome::of_status(status, None, now()),
                refused,
                "{status}"
            );
        }
    }

    #[test]
    fn when_to_come_again_is_honoured_within_bounds() {
        for (text, outcome) in [
            ("7", again(7)),
            (" 0 ", again(0)),
            ("86400", again(300)),
            ("18446744073709551615", again(300)),
            ("Sat, 21 Nov 2026 02:00:30 GMT", again(30)),
            ("Sat, 21 Nov 2026 01:00:00 GMT", again(0)),
            ("Sun, 22 Nov 2026 02:00:00 GMT", again(300)),
            ("-1", DeliveryOutcome::Retry { after: None }),
            ("soon", DeliveryOutcome::Retry { after: None }),
            (
                "99999999999999999999999",
                DeliveryOutcome::Retry { after: None },
            ),
        ] {
            assert_eq!(
                DeliveryOutcome::of_status(429, Some(text), now()),
                outcome,
                "{text}"
            );
        }
    }

    #[test]
    fn waiting_doubles_up_to_a_bound_and_starts_over() {
        let mut backoff = DeliveryBackoff::default();
        let waits: Vec<_> = (0..12)
            .map(|_| backoff.on_failure(None, 0.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.on_failure(None, 0.0), MAX_DELAY);
        backoff.on_success();
        assert_eq!(backoff.on_failure(None, 1.0), Duration::from_millis(500));
        // What the receiver wants goes before, where it wants more.
        assert_eq!(
            backoff.on_failure(Some(Duration::from_secs(20)), 0.0),
            Duration::from_secs(20)
        );
        assert_eq!(
            backoff.on_failure(Some(Duration::ZERO), 0.0),
            Duration::from_secs(4)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_than_its_messages() {
        let mut pace = NotificationRateLimit::new(2);
        let start = Instant::now();
        assert_eq!(pace.next(), None);
        pace.record(start);
        pace.record(start + Duration::from_secs(20));
        assert_eq!(pace.next(), Some(start + MINUTE));
        pace.record(start + MINUTE);
        assert_eq!(pace.next(), Some(start + Duration::from_secs(80)));
    }
}
