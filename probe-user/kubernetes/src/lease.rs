//! Leader election by a Lease, as client-go does it.
//!
//! A Lease has expired if its renewal has not changed for its duration, by the clock of this process: the clocks of
//! nodes differ. A leader that cannot renew stops being the leader before another may acquire the Lease.
//!
//! All nodes are candidates, and thousands must not read every few seconds. The leader writes the number of nodes into
//! the Lease, and each candidate's read interval grows with it. A candidate that reads an old renewal reads again as
//! soon as the Lease would expire. This changes when a candidate reads, never its decision.
//!
//! The leader should be on a network with addresses of the cluster: a candidate without such a network acquires the
//! Lease only if it has been free for a while, and a leader without one occasionally offers the Lease to the others. If
//! no node has such a network, one of them must still be the leader.

use std::time::{Duration, Instant};

use hyper::Method;
use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use probe_cluster::tracking::SegmentCoverage;
use probe_model::{Leadership, Predecessor, error_chain};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    ApiConnection, ApiRequestError,
    health::ApiRequestKind,
    timings::{ApiTimings, jittered, up_to},
};

/// The name of the Lease. The Role of the manifests names it.
pub const NAME: &str = "arp-monitor";

/// The annotation with the number of candidates.
const NODES: &str = "arp-monitor/nodes";

/// All candidates together read about this often in a second.
const READS_PER_SECOND: f64 = 16.0;

/// Maximum read interval, regardless of the number of candidates.
const MAX_READ_INTERVAL: Duration = Duration::from_mins(5);

/// Maximum duration of a Lease, regardless of its own.
const MAX_LEASE_DURATION: Duration = Duration::from_mins(1);

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseAction {
    /// Acquire it: it is free, or this process's own.
    Acquire,
    /// Read it again after this time, jittered.
    Wait(Duration),
}

/// Whether the networks of a candidate have addresses of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    /// They have, or it is unknown.
    Some,
    /// They have none.
    None,
}

/// What a candidate concludes from the Leases that it reads. No I/O, no clock.
#[derive(Debug)]
struct LeaseCandidate {
    identity: String,
    timings: ApiTimings,
    /// The last observed holder and renewal, and when they were first observed.
    observed: Option<(String, Option<Timestamp>, Instant)>,
}

impl LeaseCandidate {
    /// The next action for the current Lease. `time` is the clock of this host, which may be wrong.
    fn next_action(
        &mut self,
        lease: &Lease,
        coverage: Coverage,
        now: Instant,
        time: Timestamp,
    ) -> LeaseAction {
        let (holder, renewed) = (holder(lease), last_renewal(lease));
        let is_free = holder.is_empty();
        if holder == self.identity || (is_free && coverage == Coverage::Some) {
            return LeaseAction::Acquire;
        }
        let since = match &self.observed {
            Some((seen, renewal, since)) if seen == holder && *renewal == renewed => *since,
            _ => {
                self.observed = Some((holder.to_owned(), renewed, now));
                now
            }
        };
        let read_interval = read_interval(candidates(lease), self.timings.observe_interval);
        let mut valid = if is_free {
            Duration::ZERO
        } else {
            duration(lease)
        };
        if coverage == Coverage::None {
            // By then most candidates with coverage have read it.
            valid += self.timings.acquire_delay.max(read_interval.mul_f64(1.5));
        }
        let unchanged = now.duration_since(since);
        if unchanged >= valid {
            return LeaseAction::Acquire;
        }
        let left = valid.saturating_sub(unchanged);
        let age = renewed.map(|renewed| time.duration_since(renewed));
        let seems_old =
            age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > valid * 2));
        LeaseAction::Wait(match coverage {
            // By then its coverage may have changed.
            Coverage::None => left.min(read_interval),
            // Jittered: not before it has expired, and not all candidates at once.
            Coverage::Some if seems_old || !unchanged.is_zero() => {
                left.saturating_mul(2).min(read_interval.max(left))
            }
            Coverage::Some => read_interval,
        })
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn last_renewal(lease: &Lease) -> Option<Timestamp> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(renewed.0)
}

fn duration(lease: &Lease) -> Duration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds);
    let seconds = u64::try_from(seconds.unwrap_or(0)).unwrap_or(0);
    Duration::from_secs(seconds).min(MAX_LEASE_DURATION)
}

fn candidates(lease: &Lease) -> u32 {
    let annotations = lease.metadata.annotations.as_ref();
    let nodes = annotations.and_then(|annotations| annotations.get(NODES));
    nodes.and_then(|nodes| nodes.parse().ok()).unwrap_or(0)
}

/// The read interval of each candidate, given their number.
fn read_interval(candidates: u32, least: Duration) -> Duration {
    let seconds = f64::from(candidates) / READS_PER_SECOND;
    Duration::from_secs_f64(seconds.min(MAX_READ_INTERVAL.as_secs_f64())).max(least)
}

/// When a leader without coverage offers the Lease to the others. No I/O, no clock.
#[derive(Debug, Default)]
struct ReleaseTimer {
    /// When it lost coverage.
    uncovered: Option<Instant>,
    /// When no other candidate acquired the Lease that was offered.
    declined: Option<Instant>,
}

impl ReleaseTimer {
    /// The Lease was acquired; without coverage only because no other candidate did.
    fn on_acquired(&mut self, coverage: Coverage, now: Instant) {
        self.uncovered = None;
        if coverage == Coverage::None {
            self.declined = Some(now);
        }
    }

    /// Whether to offer the Lease now.
    fn is_due(&mut self, coverage: Coverage, timings: &ApiTimings, now: Instant) -> bool {
        if coverage == Coverage::Some {
            self.uncovered = None;
            return false;
        }
        let since = *self.uncovered.get_or_insert(now);
        let is_declined = self
            .declined
            .is_some_and(|declined| now.duration_since(declined) < timings.release_interval);
        now.duration_since(since) >= timings.release_after && !is_declined
    }
}

/// What the election reads and publishes.
#[derive(Debug)]
pub struct ElectionInputs {
    /// Whether this process is the leader, and after whom.
    pub leadership: watch::Sender<Leadership>,
    /// Whether this process is the leader.
    pub is_leader: watch::Sender<bool>,
    /// The number of nodes, 0 while unknown.
    pub nodes: watch::Receiver<usize>,
    /// The segment coverage of this node, if known.
    pub coverage: watch::Receiver<Option<SegmentCoverage>>,
}

/// The Lease while this process holds it.
#[derive(Clone, Debug)]
struct HeldLease {
    lease: Lease,
    /// From before it was written, so that this process gives up first.
    renewed: Instant,
}

/// Acquires and renews the Lease until it is stopped; then releases it.
pub struct LeaderElector {
    connection: ApiConnection,
    candidate: LeaseCandidate,
    release_timer: ReleaseTimer,
    timings: ApiTimings,
    inputs: ElectionInputs,
    is_forbidden: bool,
}

impl LeaderElector {
    /// A candidate on this node.
    pub fn new(
        connection: ApiConnection,
        node_name: Option<&str>,
        timings: ApiTimings,
        inputs: ElectionInputs,
    ) -> Self {
        Self {
            candidate: LeaseCandidate {
                identity: identity(node_name),
                timings: timings.clone(),
                observed: None,
            },
            connection,
            release_timer: ReleaseTimer::default(),
            timings,
            inputs,
            is_forbidden: false,
        }
    }

    /// Runs until it is stopped, or the sender of `stop` is dropped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut held = None;
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.run_election(&mut held) => {}
        }
        self.release(held).await;
    }

    /// Never returns. May be dropped at any time: what is held is in `held`.
    async fn run_election(&mut self, held: &mut Option<HeldLease>) {
        // Interfaces are attached one by one: until then this candidate does not know its coverage.
        let mut coverage = self.inputs.coverage.clone();
        let is_covered = |coverage: &Option<SegmentCoverage>| {
            coverage.is_some_and(|coverage| !coverage.has_no_coverage)
        };
        let covered = async { coverage.wait_for(is_covered).await.is_ok() };
        let _ = tokio::join!(
            timeout(self.timings.observe_interval, covered),
            sleep(up_to(self.timings.observe_interval))
        );
        loop {
            if held.is_none() {
                let delay = match self.try_acquire(held).await {
                    Ok(delay) => jittered(delay),
                    Err(error) => jittered(self.retry_delay(&error)),
                };
                if held.is_none() {
                    sleep(delay).await;
                }
                continue;
            }
            // Not jittered: it must not expire.
            sleep(self.timings.renew).await;
            let (coverage, now) = (self.coverage(), Instant::now());
            if self.release_timer.is_due(coverage, &self.timings, now) {
                tracing::info!(
                    "releasing the Lease: no watched network has addresses of the cluster"
                );
                self.release(held.take()).await;
            } else {
                self.renew(held).await;
            }
        }
    }

    /// Reads the Lease, and acquires it if it is free. Returns the delay before the next read.
    async fn try_acquire(
        &mut self,
        held: &mut Option<HeldLease>,
    ) -> Result<Duration, ApiRequestError> {
        let mut current = None;
        // The API server's cache may be old: before anything is written, etcd is read.
        for query in ["?resourceVersion=0", ""] {
            current = match self.read(query).await {
                Ok(lease) => Some(lease),
                Err(ApiRequestError::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            self.is_forbidden = false;
            let lease = current.clone().unwrap_or_default();
            let (coverage, now, time) = (self.coverage(), Instant::now(), Timestamp::now());
            let action = self.candidate.next_action(&lease, coverage, now, time);
            if let LeaseAction::Wait(delay) = action {
                return Ok(delay);
            }
        }
        let predecessor = self.predecessor(current.as_ref());
        let renewed = Instant::now();
        match self.write(&self.claim(current)).await {
            Ok(lease) => {
                *held = Some(HeldLease { lease, renewed });
                self.release_timer.on_acquired(self.coverage(), renewed);
                tracing::info!(?predecessor, "became the leader");
                self.publish(Leadership::Leader(predecessor));
                Ok(self.timings.renew)
            }
            // Another candidate was faster.
            Err(ApiRequestError::Conflict(_)) => Ok(self.timings.observe_interval),
            Err(error) => Err(error),
        }
    }

    fn predecessor(&self, lease: Option<&Lease>) -> Predecessor {
        match lease {
            Some(lease) if holder(lease) == self.candidate.identity => Predecessor::ThisProcess,
            Some(lease) => last_renewal(lease).map_or(Predecessor::Unknown, |last_renewal| {
                Predecessor::Other { last_renewal }
            }),
            None => Predecessor::Unknown,
        }
    }

    fn coverage(&self) -> Coverage {
        match *self.inputs.coverage.borrow() {
            Some(coverage) if coverage.has_no_coverage => Coverage::None,
            _ => Coverage::Some,
        }
    }

    /// Renews the Lease, or gives up.
    async fn renew(&mut self, held: &mut Option<HeldLease>) {
        while let Some(current) = held.as_mut() {
            let deadline = current.renewed + self.timings.renew_deadline;
            let left = deadline.saturating_duration_since(Instant::now());
            let renewed = Instant::now();
            let expected = self.claim(Some(current.lease.clone()));
            let error = match with_timeout(left, self.write(&expected)).await {
                Ok(lease) => {
                    *current = HeldLease { lease, renewed };
                    return;
                }
                Err(error) => error,
            };
            // It may have been written, and only the response lost: then it is ours with another version.
            if matches!(error, ApiRequestError::Conflict(_))
                && let Ok(lease) = with_timeout(left, self.read("")).await
                && holder(&lease) == self.candidate.identity
                && lease.metadata.resource_version != current.lease.metadata.resource_version
            {
                current.lease = lease;
                continue;
            }
            let pause = jittered(self.timings.renew / 5);
            let is_lost = matches!(
                error,
                ApiRequestError::Conflict(_) | ApiRequestError::NotFound(_)
            );
            if is_lost || Instant::now() + pause >= deadline {
                tracing::warn!(%error, "no longer the leader");
                *held = None;
                self.publish(Leadership::Follower);
                return;
            }
            sleep(pause).await;
        }
    }

    /// Stops being the leader, and clears the holder so that the others need not wait for the Lease to expire.
    async fn release(&self, held: Option<HeldLease>) {
        self.publish(Leadership::Follower);
        let Some(HeldLease { lease, .. }) = held else {
            return;
        };
        let mut released = self.claim(Some(lease));
        let spec = released.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        match with_timeout(self.timings.renew, self.write(&released)).await {
            Ok(_) => tracing::info!("released the Lease"),
            // It expires.
            Err(error) => tracing::debug!(%error, "cannot release the Lease"),
        }
    }

    /// The Lease as it is, held and renewed by this process.
    fn claim(&self, current: Option<Lease>) -> Lease {
        let is_new = current.is_none();
        let mut lease = current.unwrap_or_default();
        let is_ours = holder(&lease) == self.candidate.identity;
        lease.metadata.name = Some(NAME.to_owned());
        lease.metadata.namespace = Some(self.connection.namespace().to_owned());
        let nodes = *self.inputs.nodes.borrow();
        // The predecessor may have recorded it.
        if nodes > 0 {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(NODES.to_owned(), nodes.to_string());
        }
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if !is_ours {
            spec.holder_identity = Some(self.candidate.identity.clone());
            spec.acquire_time = Some(now.clone());
            let transitions = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(transitions.saturating_add(i32::from(!is_new)));
        }
        let seconds = self.timings.lease.as_secs().max(1);
        spec.lease_duration_seconds = i32::try_from(seconds).ok();
        spec.renew_time = Some(now);
        lease
    }

    async fn read(&self, query: &str) -> Result<Lease, ApiRequestError> {
        let path = format!("{}/{NAME}{query}", self.path());
        self.call(Method::GET, &path, None).await
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, ApiRequestError> {
        let body = serde_json::to_value(lease)
            .map_err(|error| ApiRequestError::Refused(error_chain(&error)))?;
        if lease.metadata.resource_version.is_none() {
            return self.call(Method::POST, &self.path(), Some(&body)).await;
        }
        let path = format!("{}/{NAME}", self.path());
        self.call(Method::PUT, &path, Some(&body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Lease, ApiRequestError> {
        let (kind, limit) = (ApiRequestKind::Lease, self.timings.renew_deadline / 2);
        let lease = with_timeout(limit, self.connection.call(kind, method, path, body)).await?;
        serde_json::from_value(lease)
            .map_err(|error| ApiRequestError::InvalidResponse(error_chain(&error)))
    }

    fn path(&self) -> String {
        let namespace = self.connection.namespace();
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    /// How long to wait after a failure.
    fn retry_delay(&mut self, error: &ApiRequestError) -> Duration {
        if !matches!(
            error,
            ApiRequestError::Forbidden(_)
                | ApiRequestError::Unauthorized(_)
                | ApiRequestError::NotFound(_)
        ) {
            tracing::debug!(%error, "cannot read the Lease");
            return self.timings.observe_interval * 2;
        }
        if !std::mem::replace(&mut self.is_forbidden, true) {
            tracing::warn!(%error, "no leader election: this node cannot become the leader");
        }
        self.timings.forbidden
    }

    fn publish(&self, leadership: Leadership) {
        let is_leader = leadership != Leadership::Follower;
        self.connection.health().set_leader(is_leader);
        self.inputs
            .is_leader
            .send_if_modified(|published| std::mem::replace(published, is_leader) != is_leader);
        self.inputs
            .leadership
            .send_if_modified(|published| std::mem::replace(published, leadership) != leadership);
    }
}

async fn with_timeout<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ApiRequestError>>,
) -> Result<T, ApiRequestError> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(ApiRequestError::Unreachable(
            "no response in time".to_owned(),
        ))
    })
}

/// A unique identity: the node, and a random number for this process.
fn identity(node_name: Option<&str>) -> String {
    let hostname = || {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    };
    let node = node_name.map_or_else(hostname, str::to_owned);
    format!("{node}_{:08x}", fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const START: &str = "2026-01-01T00:00:00Z";

    struct CandidateFixture {
        candidate: LeaseCandidate,
        coverage: Coverage,
        start: Instant,
    }

    impl CandidateFixture {
        fn new(coverage: Coverage) -> Self {
            Self {
                candidate: LeaseCandidate {
                    identity: "me".to_owned(),
                    timings: ApiTimings::default(),
                    observed: None,
                },
                coverage,
                start: Instant::now(),
            }
        }

        /// The decision at this second about a Lease without a valid renewal.
        fn decide(&mut self, second: u64, lease: &Lease) -> LeaseAction {
            let now = self.start + Duration::from_secs(second);
            let time = Timestamp::UNIX_EPOCH;
            self.candidate.next_action(lease, self.coverage, now, time)
        }

        /// The decision at this second about a Lease renewed at `renewed` by the clock of its holder, which is wrong by
        /// `skew`.
        fn decide_held(&mut self, second: u64, renewed: i64, skew: i64) -> LeaseAction {
            let time = |second| -> Timestamp {
                let start: Timestamp = START.parse().unwrap();
                start + jiff::SignedDuration::from_secs(second)
            };
            let lease = lease(&json!({
                "spec": {
                    "holderIdentity": "other",
                    "renewTime": time(renewed + skew).to_string(),
                    "leaseDurationSeconds": 15,
                },
            }));
            let now = self.start + Duration::from_secs(second);
            let time = time(i64::try_from(second).unwrap());
            self.candidate.next_action(&lease, self.coverage, now, time)
        }
    }

    fn lease(value: &Value) -> Lease {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn waits(action: &LeaseAction) -> bool {
        matches!(action, LeaseAction::Wait(_))
    }

    #[test]
    fn lease_expires_when_unchanged_for_its_duration_regardless_of_clocks() {
        for skew in [-86_400, 0, 86_400] {
            let mut fixture = CandidateFixture::new(Coverage::Some);
            assert!(waits(&fixture.decide_held(0, 0, skew)));
            assert!(waits(&fixture.decide_held(14, 0, skew)));
            // Renewed just in time.
            assert!(waits(&fixture.decide_held(15, 15, skew)));
            assert!(waits(&fixture.decide_held(29, 15, skew)));
            assert_eq!(fixture.decide_held(30, 15, skew), LeaseAction::Acquire);
        }
    }

    #[test]
    fn lease_with_an_old_renewal_is_reread_before_it_is_acquired() {
        let new = || {
            let mut fixture = CandidateFixture::new(Coverage::Some);
            fixture.candidate.timings.observe_interval = MAX_READ_INTERVAL;
            fixture
        };
        let wait = |seconds| LeaseAction::Wait(Duration::from_secs(seconds));
        let interval = LeaseAction::Wait(MAX_READ_INTERVAL);
        assert_eq!(new().decide_held(100, 95, 0), interval);
        let mut fixture = new();
        assert_eq!(fixture.decide_held(100, 0, 0), wait(30));
        assert_eq!(fixture.decide_held(110, 0, 0), wait(10));
        assert_eq!(fixture.decide_held(115, 0, 0), LeaseAction::Acquire);
    }

    #[test]
    fn free_lease_and_own_lease_are_acquired() {
        let mut fixture = CandidateFixture::new(Coverage::Some);
        assert_eq!(fixture.decide(0, &Lease::default()), LeaseAction::Acquire);
        let own = lease(&json!({"spec": {"holderIdentity": "me"}}));
        assert_eq!(fixture.decide(0, &own), LeaseAction::Acquire);
    }

    #[test]
    fn candidate_without_coverage_acquires_only_a_lease_that_stays_unclaimed() {
        let mut fixture = CandidateFixture::new(Coverage::None);
        let free = Lease::default();
        assert!(waits(&fixture.decide(0, &free)));
        assert!(waits(&fixture.decide(44, &free)));
        assert_eq!(fixture.decide(45, &free), LeaseAction::Acquire);
        // Another candidate held it meanwhile, and released it.
        let released = lease(&json!({"spec": {"renewTime": START}}));
        assert!(waits(&fixture.decide(50, &released)));
        assert_eq!(fixture.decide(95, &released), LeaseAction::Acquire);
        // The more candidates, the less often they read, and the longer it waits.
        let mut fixture = CandidateFixture::new(Coverage::None);
        let many = lease(&json!({"metadata": {"annotations": {NODES: "5000"}}}));
        assert!(waits(&fixture.decide(0, &many)));
        assert!(waits(&fixture.decide(449, &many)));
        assert_eq!(fixture.decide(450, &many), LeaseAction::Acquire);
        // An expired Lease too; but it renews its own.
        let mut fixture = CandidateFixture::new(Coverage::None);
        assert!(waits(&fixture.decide_held(0, 0, 0)));
        assert!(waits(&fixture.decide_held(59, 0, 0)));
        assert_eq!(fixture.decide_held(60, 0, 0), LeaseAction::Acquire);
        let own = lease(&json!({"spec": {"holderIdentity": "me"}}));
        assert_eq!(fixture.decide(61, &own), LeaseAction::Acquire);
    }

    #[test]
    fn a_leader_without_coverage_offers_the_lease_rarely() {
        let timings = ApiTimings::default();
        let (mut timer, start) = (ReleaseTimer::default(), Instant::now());
        let is_due = |timer: &mut ReleaseTimer, coverage, minute| {
            timer.is_due(coverage, &timings, start + Duration::from_mins(minute))
        };
        timer.on_acquired(Coverage::Some, start);
        assert!(!is_due(&mut timer, Coverage::None, 1));
        assert!(!is_due(&mut timer, Coverage::None, 5));
        // It had coverage for a moment.
        assert!(!is_due(&mut timer, Coverage::Some, 6));
        assert!(!is_due(&mut timer, Coverage::None, 7));
        assert!(!is_due(&mut timer, Coverage::None, 11));
        assert!(is_due(&mut timer, Coverage::None, 12));
        // No other candidate acquired it.
        timer.on_acquired(Coverage::None, start + Duration::from_mins(13));
        assert!(!is_due(&mut timer, Coverage::None, 14));
        assert!(!is_due(&mut timer, Coverage::None, 24 * 60 + 12));
        assert!(is_due(&mut timer, Coverage::None, 24 * 60 + 13));
        // A leader with coverage keeps it.
        timer.on_acquired(Coverage::Some, start + Duration::from_mins(1_460));
        for minute in 1_461..3_000 {
            assert!(!is_due(&mut timer, Coverage::Some, minute));
        }
    }

    #[test]
    fn read_interval_grows_with_the_number_of_candidates() {
        let least = Duration::from_secs(15);
        assert_eq!(read_interval(0, least), least);
        assert_eq!(read_interval(240, least), least);
        assert_eq!(read_interval(480, least), Duration::from_secs(30));
        assert_eq!(read_interval(5_000, least), MAX_READ_INTERVAL);
        assert_eq!(read_interval(u32::MAX, least), MAX_READ_INTERVAL);
    }

    #[test]
    fn lease_duration_is_bounded() {
        for (seconds, expected) in [(-1, 0), (15, 15), (i32::MAX, 60)] {
            let lease = lease(&json!({"spec": {"leaseDurationSeconds": seconds}}));
            assert_eq!(duration(&lease), Duration::from_secs(expected));
        }
        let nonsense = lease(&json!({"metadata": {"annotations": {NODES: "many"}}}));
        assert_eq!(candidates(&nonsense), 0);
        assert_eq!((holder(&nonsense), last_renewal(&nonsense)), ("", None));
    }
}
