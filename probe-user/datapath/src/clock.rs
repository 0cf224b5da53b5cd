//! The clock of the events, a timer on it, and its conversion to wall-clock time.

use std::{io, os::fd::OwnedFd};

use probe_model::{Clock, Timestamp};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// The current time on the clock of the events' time stamps (`bpf_ktime_get_ns`).
pub fn monotonic() -> Timestamp {
    to_timestamp(clock_gettime(ClockId::Monotonic))
}

fn to_timestamp(time: Timespec) -> Timestamp {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The clock of live events.
pub const MONOTONIC: Clock = Clock::Monotonic(realtime_minus_monotonic);

/// The current difference of `CLOCK_REALTIME` and `CLOCK_MONOTONIC`, in nanoseconds.
fn realtime_minus_monotonic() -> i128 {
    let now = to_timestamp(clock_gettime(ClockId::Realtime));
    i128::from(now.0) - i128::from(monotonic().0)
}

/// The offset from a kernel time stamp to the time since 1970, as of now, in nanoseconds.
pub fn wall_clock_offset_ns() -> u64 {
    let now = to_timestamp(clock_gettime(ClockId::Realtime));
    now.0.saturating_sub(monotonic().0)
}

/// A timer with nanosecond resolution, which event ordering requires; tokio's timers have a resolution of milliseconds.
pub struct Timer {
    timer: AsyncFd<OwnedFd>,
    armed: Option<Timestamp>,
}

impl Timer {
    /// Creates a timer that is not armed.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer: readiness::readable(timer)?,
            armed: None,
        })
    }

    /// Arms the timer to elapse at `at`, or disarms it.
    pub fn arm(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        if self.armed == at {
            return Ok(());
        }
        // All zero would disarm the timer, so time zero becomes one nanosecond.
        let nanos = at.map_or(0, |at| at.0.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = at;
        Ok(())
    }

    /// Waits until the timer has elapsed. Cancel-safe.
    pub async fn elapsed(&mut self) -> io::Result<()> {
        self.timer.readable_mut().await?.clear_ready();
        let mut expirations = [0; size_of::<u64>()];
        match rustix::io::read(self.timer.get_ref(), &mut expirations) {
            // It was armed again in the meantime: the next call waits for it.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        self.armed = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_timer_elapses_at_its_time_and_can_be_armed_again() {
        let mut timer = Timer::new().unwrap();
        for _ in 0..3 {
            let at = monotonic() + Duration::from_micros(300);
            timer.arm(Some(at)).unwrap();
            timer.elapsed().await.unwrap();
            assert!(monotonic() >= at);
        }
    }

    #[tokio::test]
    async fn a_time_that_has_passed_elapses_at_once() {
        let mut timer = Timer::new().unwrap();
        timer.arm(Some(Timestamp::ZERO)).unwrap();
        timer.elapsed().await.unwrap();
    }

    #[test]
    fn a_clock_that_was_read_once_converts_an_instant_to_the_same_time() {
        let clock = MONOTONIC.read_once();
        let at = monotonic();
        let first = clock.to_wall_clock(at);
        assert!((0..1_000).all(|_| clock.to_wall_clock(at) == first));
        assert_eq!(clock.read_once().to_wall_clock(at), first);
    }
}
