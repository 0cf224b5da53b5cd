//! How often the API server is asked: all the numbers that decide what a large fleet costs it.

use std::time::Duration;

/// How often the API server is asked.
#[derive(Clone, Debug)]
pub struct ApiTimings {
    /// A probe begins within this time: those of a fleet may start at once.
    pub start: Duration,
    /// After a failure, the first wait.
    pub retry: Duration,
    /// What is known is listed anew within this time after the API server forgot where we were. That concerns every
    /// node at once, after the API server was away.
    pub relist: Duration,
    /// How long a watch is asked for. The server's own default is from half an hour to an hour.
    pub watch: Duration,
    /// A watch that says nothing for so long is dead: the server sends a bookmark every minute.
    pub idle_timeout: Duration,
    /// What is not there, and decides whether the others are worth asking for, is asked for again after this time.
    pub missing: Duration,
    /// The others.
    pub missing_others: Duration,
    /// What is forbidden is tried again after this time.
    pub forbidden: Duration,
    /// News is gathered for this long before it is handed out.
    pub batch_window: Duration,
    /// How long the Lease is good for.
    pub lease: Duration,
    /// How often its holder renews it.
    pub renew: Duration,
    /// The holder gives up when it could not renew for this long.
    pub renew_deadline: Duration,
    /// The other nodes look at it at least this seldom, more seldom the more there are.
    pub observe_interval: Duration,
    /// A node that sees none of the cluster's addresses takes the Lease only when nobody has for this long.
    pub acquire_delay: Duration,
    /// A holder that has seen none for this long offers it to the others.
    pub blind: Duration,
    /// If none of them wanted it, it is not offered again before this time.
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
            blind: Duration::from_mins(5),
            release_interval: Duration::from_hours(24),
        }
    }
}

#[cfg(test)]
impl ApiTimings {
    /// For tests, which wait for everything.
    pub fn for_tests() -> Self {
        Self {
            start: Duration::ZERO,
            retry: Duration::from_millis(20),
            relist: Duration::from_millis(20),
            missing: Duration::from_millis(100),
            // So long that only being woken explains why it is asked again.
            missing_others: Duration::from_mins(10),
            forbidden: Duration::from_millis(100),
            batch_window: Duration::from_millis(20),
            lease: Duration::from_secs(1),
            renew: Duration::from_millis(200),
            renew_deadline: Duration::from_millis(600),
            observe_interval: Duration::from_millis(200),
            acquire_delay: Duration::from_secs(5),
            blind: Duration::from_millis(500),
            ..Self::default()
        }
    }
}
