//! Rules for rate limits and retries. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, fmt::rfc2822};
use probe_model::Backoff;
use tokio::time::Instant;

use super::sink::DeliveryOutcome;

/// The delay after the first failure.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// Maximum delay, regardless of the number of failures and of `Retry-After`.
pub const MAX_DELAY: Duration = Duration::from_mins(5);
/// The period of the rate limit.
const MINUTE: Duration = Duration::from_mins(1);

/// The back-off of deliveries.
pub const fn delivery_backoff() -> Backoff {
    Backoff::new(MIN_DELAY, MAX_DELAY)
}

impl DeliveryOutcome {
    /// The outcome by the status of a response and its `Retry-After`.
    pub fn of_status(status: u16, retry_after: Option<&str>, now: Timestamp) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 429 | 500..=599 => Self::Retry {
                after: retry_after.and_then(|text| parse_retry_after(text, now)),
            },
            // Redirections too, because a secret would be sent to the new host.
            _ => Self::Refused,
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let delay = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        // A date in the past means now.
        SystemTime::from(date)
            .duration_since(now.into())
            .unwrap_or_default()
    };
    Some(delay.min(MAX_DELAY))
}

/// A limit of messages in any minute.
#[derive(Clone, Debug)]
pub struct NotificationRateLimit {
    per_minute: usize,
    sent: VecDeque<Instant>,
}

impl NotificationRateLimit {
    /// At least one message a minute.
    pub fn new(per_minute: usize) -> Self {
        Self {
            per_minute: per_minute.max(1),
            sent: VecDeque::new(),
        }
    }

    /// When the next message may be sent; `None` if at once.
    pub fn next_slot(&self) -> Option<Instant> {
        let full = self.sent.len() >= self.per_minute;
        self.sent
            .front()
            .filter(|_| full)
            .map(|&first| first + MINUTE)
    }

    /// Records a message.
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

    fn retry_after(seconds: u64) -> DeliveryOutcome {
        let after = Some(Duration::from_secs(seconds));
        DeliveryOutcome::Retry { after }
    }

    #[test]
    fn temporary_errors_are_retried_and_all_others_are_final() {
        let retry = DeliveryOutcome::Retry { after: None };
        for (statuses, outcome) in [
            (&[200, 202, 204][..], DeliveryOutcome::Delivered),
            (&[408, 429, 500, 502, 503, 504], retry),
            (
                &[100, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 600],
                DeliveryOutcome::Refused,
            ),
        ] {
            for &status in statuses {
                let found = DeliveryOutcome::of_status(status, None, now());
                assert_eq!(found, outcome, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        let none = DeliveryOutcome::Retry { after: None };
        for (text, outcome) in [
            ("7", retry_after(7)),
            (" 0 ", retry_after(0)),
            ("86400", retry_after(300)),
            ("18446744073709551615", retry_after(300)),
            ("Sat, 21 Nov 2026 02:00:30 GMT", retry_after(30)),
            ("Sat, 21 Nov 2026 01:00:00 GMT", retry_after(0)),
            ("Sun, 22 Nov 2026 02:00:00 GMT", retry_after(300)),
            ("-1", none),
            ("soon", none),
            ("99999999999999999999999", none),
        ] {
            let found = DeliveryOutcome::of_status(429, Some(text), now());
            assert_eq!(found, outcome, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_per_minute_are_limited() {
        let mut limit = NotificationRateLimit::new(2);
        let start = Instant::now();
        assert_eq!(limit.next_slot(), None);
        limit.record(start);
        limit.record(start + Duration::from_secs(20));
        assert_eq!(limit.next_slot(), Some(start + MINUTE));
        limit.record(start + MINUTE);
        assert_eq!(limit.next_slot(), Some(start + Duration::from_secs(80)));
    }
}
