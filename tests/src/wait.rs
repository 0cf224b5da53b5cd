//! Polling for a state that has no notification.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

/// The time between two polls: short compared with every deadline, long compared with the cost of a poll.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `look` repeatedly until it returns a value, at least once after the deadline.
///
/// An error of `look` ends the wait at once.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let last = Instant::now() >= deadline;
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if last {
            bail!("timed out after {within:?} waiting for {what}");
        }
        thread::sleep(PAUSE);
    }
}

/// Calls a function `count` times at fixed times: the first call at once, each further one `interval` after the
/// planned time of the previous one. For events that have their own timing.
pub fn at_intervals(
    interval: Duration,
    count: u32,
    mut work: impl FnMut(u32) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    for number in 0..count {
        let due = start + interval * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        work(number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_intervals_keeps_its_times() {
        let start = Instant::now();
        let mut times = Vec::new();
        at_intervals(Duration::from_millis(10), 5, |number| {
            times.push((number, start.elapsed()));
            Ok(())
        })
        .unwrap();
        assert_eq!(times.len(), 5);
        for (number, at) in times {
            assert!(at >= Duration::from_millis(10) * number, "{number}: {at:?}");
        }
    }

    #[test]
    fn eventually_returns_the_first_value() {
        let mut polls = 0;
        let seen = eventually("the third poll", Duration::from_secs(5), || {
            polls += 1;
            Ok((polls == 3).then_some("seen"))
        });
        assert_eq!(seen.unwrap(), "seen");
    }

    #[test]
    fn a_timeout_names_the_condition() {
        let error = eventually("the condition", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "timed out after 0ns waiting for the condition"
        );
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let error =
            eventually::<()>("anything", Duration::from_mins(1), || bail!("no")).unwrap_err();
        assert_eq!(error.to_string(), "no");
    }
}
