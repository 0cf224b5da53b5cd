//! Waiting for what announces itself to nobody: a state that can only be looked at.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Between two looks. Short beside every deadline, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until there is something to see, at the latest at the deadline once more.
///
/// An error of `look` ends the wait: it says that waiting is of no use.
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
            bail!("waited {within:?} in vain for {what}");
        }
        thread::sleep(PAUSE);
    }
}

/// Does something `count` times, each at its time: the first at once, each further one `interval` after the
/// one before was due. For what has a pace of its own on a network; it waits for nobody.
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
    fn what_has_a_pace_is_done_at_its_times() {
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
    fn a_wait_ends_with_what_was_seen() {
        let mut looks = 0;
        let seen = eventually("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some("seen"))
        });
        assert_eq!(seen.unwrap(), "seen");
    }

    #[test]
    fn a_wait_in_vain_names_what_it_waited_for() {
        let error = eventually("a blue moon", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0ns in vain for a blue moon");
    }

    #[test]
    fn an_error_ends_a_wait_at_once() {
        let error =
            eventually::<()>("anything", Duration::from_mins(1), || bail!("no")).unwrap_err();
        assert_eq!(error.to_string(), "no");
    }
}
