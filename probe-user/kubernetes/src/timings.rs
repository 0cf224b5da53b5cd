//! The timings of requests to the API server: all values that determine the load of a large fleet.

use std::time::Duration;

use probe_model::Backoff;

/// The longest delay after failures.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(40);

/// The intervals and delays of requests to the API server.
#[derive(Clone, Debug)]
pub struct ApiTimings {
    /// An agent starts within this time: those of a fleet may start at once.
    pub start: Duration,
    /// The delay after the first failure.
    pub retry: Duration,
    /// A resource is listed again within this time after its version became too old. That happens to all nodes at once,
    /// after the API server was unreachable.
    pub relist: Duration,
    /// The duration of a watch. The server's own default is from half an hour to an hour.
    pub watch: Duration,
    /// A watch without any event for this long is dead: the server sends a bookmark every minute.
    pub idle_timeout: Duration,
    /// The interval at which the resource that shows whether MetalLB is installed is tried again.
    pub missing: Duration,
    /// The same interval for its other resources.
    pub missing_others: Duration,
    /// The interval at which a forbidden resource is tried again.
    pub forbidden: Duration,
    /// Changes are collected for this long before a snapshot is published.
    pub batch_window: Duration,
    /// The duration of the Lease.
    pub lease: Duration,
    /// How often the leader renews it.
    pub renew: Duration,
    /// The leader gives up when it could not renew for this long.
    pub renew_deadline: Duration,
    /// The shortest interval at which followers read it; the more there are, the longer.
    pub observe_interval: Duration,
    /// A candidate without coverage acquires the Lease only after it has been free for this long.
    pub acquire_delay: Duration,
    /// A leader without coverage for this long offers the Lease to the others.
    pub release_after: Duration,
    /// If no other candidate acquired it, it is not offered again before this time.
    pub release_interval: Duration,
}

impl Default for ApiTimings {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(5),
            retry: Duration::from_secs(1),
            relist: Duration::from_secs(30),
            watch: Duration::from_mins(40),
            idle_timeout: Duration::from_mins(3),
            missing: Duration::from_mins(5),
            missing_others: Duration::from_mins(30),
            forbidden: Duration::from_mins(5),
            batch_window: Duration::from_millis(500),
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            renew_deadline: Duration::from_secs(10),
            observe_interval: Duration::from_secs(15),
            acquire_delay: Duration::from_secs(45),
            release_after: Duration::from_mins(5),
            release_interval: Duration::from_hours(24),
        }
    }
}

impl ApiTimings {
    /// The back-off after failures.
    pub const fn backoff(&self) -> Backoff {
        Backoff::new(self.retry, MAX_RETRY_DELAY)
    }
}

/// From a half to one and a half of a time.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64())
}

/// From zero to a time.
pub fn up_to(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

#[cfg(test)]
impl ApiTimings {
    /// Short timings for tests.
    pub fn for_tests() -> Self {
        Self {
            start: Duration::ZERO,
            retry: Duration::from_millis(20),
            relist: Duration::from_millis(20),
            missing: Duration::from_millis(100),
            // So long that only a notification explains another request.
            missing_others: Duration::from_mins(10),
            forbidden: Duration::from_millis(100),
            batch_window: Duration::from_millis(20),
            lease: Duration::from_secs(1),
            renew: Duration::from_millis(200),
            renew_deadline: Duration::from_millis(600),
            observe_interval: Duration::from_millis(200),
            acquire_delay: Duration::from_secs(5),
            release_after: Duration::from_millis(500),
            ..Self::default()
        }
    }
}
