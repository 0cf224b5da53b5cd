//! Who speaks for the cluster: the holder of a Lease, as client-go's leader election has it.
//!
//! Whether a Lease has run out is judged by when its record was last seen to change, by our own clock: the clocks of
//! nodes differ. A holder that cannot renew stops speaking before others may begin.
//!
//! All nodes are candidates, and thousands must not ask every few seconds. The holder says in the Lease how many nodes
//! there are, and the others look the more seldom the more there are; one that sees a record that seems old looks again
//! as soon as it would have run out. Only looks are moved by that, never what is concluded from them.
//!
//! Whoever speaks for the cluster should see it: a node on whose networks none of its addresses are is reluctant. It
//! takes only what nobody wanted for a while, and offers what it holds to the others, seldom: where no node sees any,
//! one of them has to speak all the same.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hyper::Method;
use jiff::Timestamp;
use probe_cluster::tracking::SegmentCoverage;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{
    ApiConnection, ApiRequestError,
    backoff::{jittered, up_to},
    handover::{self, LeaderHandover, NotifiedDigests},
    health::ApiRequestKind,
    rate_limit::ApiTimings,
};

/// The Lease's name. The Role of the manifests names it.
pub const NAME: &str = "arp-monitor";

/// Where the holder says how many candidates there are.
const NODES: &str = "arp-monitor/nodes";

/// All candidates together look about this often in a second.
const READS_PER_SECOND: f64 = 16.0;

/// However many there are, each looks once in this time.
const MAX_READ_INTERVAL: Duration = Duration::from_mins(5);

/// Longer than this nobody's Lease is good for.
const MAX_LEASE_DURATION: Duration = Duration::from_mins(1);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LeaseState {
    holder: String,
    renewed: Option<Timestamp>,
    acquired: Option<String>,
    seconds: u64,
    transitions: u64,
    nodes: u64,
    told: NotifiedDigests,
    version: String,
}

impl LeaseState {
    fn read(lease: &Value) -> Self {
        let text = |pointer| lease.pointer(pointer).and_then(Value::as_str);
        let number = |pointer| lease.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let annotations = lease.pointer("/metadata/annotations");
        let annotations = annotations.and_then(Value::as_object).into_iter().flatten();
        let annotations =
            annotations.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let mut nodes = annotations.clone().filter(|(name, _)| *name == NODES);
        Self {
            holder: text("/spec/holderIdentity").unwrap_or_default().to_owned(),
            renewed: text("/spec/renewTime").and_then(|time| time.parse().ok()),
            acquired: text("/spec/acquireTime").map(str::to_owned),
            seconds: number("/spec/leaseDurationSeconds"),
            transitions: number("/spec/leaseTransitions"),
            nodes: nodes.find_map(|(_, nodes)| nodes.parse().ok()).unwrap_or(0),
            told: handover::told(annotations),
            version: text("/metadata/resourceVersion")
                .unwrap_or_default()
                .to_owned(),
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds).min(MAX_LEASE_DURATION)
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseAction {
    /// It is free: take it, if it is still as it was.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// It is somebody's: look again after this time, jittered.
    Wait(Duration),
}

/// What a candidate concludes from what it sees. No I/O, no clock.
#[derive(Debug)]
struct LeaseCandidate {
    identity: String,
    pace: ApiTimings,
    seen: Option<(LeaseState, Instant)>,
}

impl LeaseCandidate {
    /// What follows from the Lease as it is, for one that is reluctant or not. `time` is what our clock says, which may
    /// be wrong.
    fn next_action(
        &mut self,
        record: &LeaseState,
        is_reluctant: bool,
        now: Instant,
        time: Timestamp,
    ) -> LeaseAction {
        if record.holder == self.identity {
            return LeaseAction::Renew;
        }
        let is_free = record.holder.is_empty();
        if is_free && !is_reluctant {
            return LeaseAction::Acquire;
        }
        let since = match &self.seen {
            // Only what its holder writes counts.
            Some((seen, since))
                if seen.holder == record.holder && seen.renewed == record.renewed =>
            {
                *since
            }
            _ => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        let observe_interval = read_lease(record.nodes, self.pace.observe_interval);
        let mut good = if is_free {
            Duration::ZERO
        } else {
            record.duration()
        };
        if is_reluctant {
            // By then most of those who are not have looked.
            good += self.pace.acquire_delay.max(observe_interval.mul_f64(1.5));
        }
        let unchanged = now.duration_since(since);
        if unchanged >= good {
            return LeaseAction::Acquire;
        }
        let seems_old = record.renewed.is_some_and(|renewed| {
            let age = Duration::try_from(time.duration_since(renewed)).unwrap_or_default();
            age > good * 2
        });
        let left = good.saturating_sub(unchanged);
        if is_reluctant {
            // By then it may see something, and be reluctant no more.
            return LeaseAction::Wait(left.min(observe_interval));
        }
        if seems_old || !unchanged.is_zero() {
            // Jittered: not before it has run out, and not all at once.
            return LeaseAction::Wait(left.saturating_mul(2).min(observe_interval.max(left)));
        }
        LeaseAction::Wait(observe_interval)
    }
}

/// How often each of so many candidates looks.
fn read_lease(nodes: u64, least: Duration) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let seconds = f64::from(nodes) / READS_PER_SECOND;
    Duration::from_secs_f64(seconds.min(MAX_READ_INTERVAL.as_secs_f64())).max(least)
}

/// What is held, and since when others may count: from before it was written, so that we give up first.
#[derive(Clone, Debug)]
struct HeldLease {
    record: LeaseState,
    written: Instant,
}

/// When a holder that sees nothing offers the Lease to the others. No I/O, no clock.
#[derive(Debug, Default)]
struct ReleaseTimer {
    /// Since when it has seen nothing.
    blind: Option<Instant>,
    /// When the others last did not want it.
    uncovered_since: Option<Instant>,
}

impl ReleaseTimer {
    /// The Lease was taken; by one that sees nothing only because nobody else did.
    fn on_acquired(&mut self, is_blind: bool, now: Instant) {
        self.blind = None;
        if is_blind {
            self.uncovered_since = Some(now);
        }
    }

    /// Whether to offer it now.
    fn is_over(&mut self, is_blind: bool, pace: &ApiTimings, now: Instant) -> bool {
        if !is_blind {
            self.blind = None;
            return false;
        }
        let blind = now.duration_since(*self.blind.get_or_insert(now));
        let was_offered = self.uncovered_since.is_some_and(|uncovered_since| {
            now.duration_since(uncovered_since) < pace.release_interval
        });
        blind >= pace.blind && !was_offered
    }
}

/// What the Lease is about: read and written by others while it is sought and held.
#[derive(Debug)]
pub struct LeaseInputs {
    /// Whether it is held.
    pub leadership: watch::Sender<bool>,
    /// What goes with it from holder to holder.
    pub handover: LeaderHandover,
    /// How many nodes there are, if somebody knows.
    pub nodes: watch::Receiver<usize>,
    /// How much is seen here of the cluster's addresses, if that is known.
    pub coverage: watch::Receiver<Option<SegmentCoverage>>,
}

/// Tries to get and keep the Lease until it is told to stop; then gives it back.
pub struct LeaderElector {
    connection: ApiConnection,
    candidate: LeaseCandidate,
    release_timer: ReleaseTimer,
    pace: ApiTimings,
    inputs: LeaseInputs,
    forbidden: bool,
}

impl LeaderElector {
    /// A candidate of this name.
    pub fn new(
        connection: ApiConnection,
        node_name: Option<&str>,
        pace: ApiTimings,
        inputs: LeaseInputs,
    ) -> Self {
        Self {
            candidate: LeaseCandidate {
                identity: identity(node_name),
                pace: pace.clone(),
                seen: None,
            },
            connection,
            release_timer: ReleaseTimer::default(),
            pace,
            inputs,
            forbidden: false,
        }
    }

    /// Runs until told to stop, or whoever could say so is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let stopped = async move {
            // An error means that nobody is left to say it.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        let mut kept = None;
        tokio::select! {
            () = &mut stopped => {}
            () = self.run_election(&mut kept) => {}
        }
        self.publish_leadership(false);
        if let Some(held) = kept {
            self.release(&held.record).await;
        }
    }

    /// Forever. What is held is left in `kept`.
    async fn run_election(&mut self, kept: &mut Option<HeldLease>) {
        // Whoever does not know yet what it sees would not be reluctant, and interfaces are attached one by one.
        let mut coverage = self.inputs.coverage.clone();
        let sees = |coverage: &Option<SegmentCoverage>| {
            coverage.is_some_and(|coverage| !coverage.is_blind)
        };
        let knows = async { coverage.wait_for(sees).await.is_ok() };
        let _ = tokio::join!(
            timeout(self.pace.observe_interval, knows),
            tokio::time::sleep(up_to(self.pace.observe_interval))
        );
        loop {
            if kept.is_some() {
                // To the point: it must not run out.
                tokio::time::sleep(self.pace.renew).await;
                let is_blind = self.lacks_coverage();
                if self
                    .release_timer
                    .is_over(is_blind, &self.pace, Instant::now())
                {
                    self.release_if_uncovered(kept).await;
                } else {
                    self.renew(kept).await;
                }
                continue;
            }
            let wait = match self.read_lease(kept).await {
                Ok(wait) => wait,
                Err(error) => self.retry_delay(&error),
            };
            if kept.is_none() {
                tokio::time::sleep(jittered(wait)).await;
            }
        }
    }

    /// Looks at the Lease, and takes it if it is free: how long to wait before the next look.
    async fn read_lease(
        &mut self,
        kept: &mut Option<HeldLease>,
    ) -> Result<Duration, ApiRequestError> {
        let record = match self.read("?resourceVersion=0").await {
            Ok(record) => record,
            Err(ApiRequestError::NotFound(_)) => {
                self.forbidden = false;
                return match self.next_action(&LeaseState::default()) {
                    LeaseAction::Wait(wait) => Ok(wait),
                    LeaseAction::Acquire | LeaseAction::Renew => self.take(None, kept).await,
                };
            }
            Err(error) => return Err(error),
        };
        self.forbidden = false;
        match self.next_action(&record) {
            LeaseAction::Wait(wait) => return Ok(wait),
            LeaseAction::Acquire | LeaseAction::Renew => {}
        }
        // What the API server's memory says may be old: before anything is written, etcd is asked.
        let record = self.read("").await?;
        match self.next_action(&record) {
            LeaseAction::Wait(wait) => Ok(wait),
            LeaseAction::Acquire | LeaseAction::Renew => self.take(Some(&record), kept).await,
        }
    }

    fn next_action(&mut self, record: &LeaseState) -> LeaseAction {
        let is_blind = self.lacks_coverage();
        self.candidate
            .next_action(record, is_blind, Instant::now(), Timestamp::now())
    }

    /// Whether there is something to see of the cluster, and nothing of it here.
    fn lacks_coverage(&self) -> bool {
        self.inputs
            .coverage
            .borrow()
            .is_some_and(|coverage| coverage.is_blind)
    }

    /// Takes what is free, or what is not there yet.
    async fn take(
        &mut self,
        free: Option<&LeaseState>,
        kept: &mut Option<HeldLease>,
    ) -> Result<Duration, ApiRequestError> {
        let written = Instant::now();
        // Until somebody here has told something, what was told before is to be left as it is.
        let told = free.map(|free| free.told.clone()).unwrap_or_default();
        let until = free.and_then(|free| free.renewed);
        self.inputs.handover.accept_predecessor(told, until);
        let wanted = self.lease_body(free);
        match self.write(&wanted).await {
            Ok(record) => {
                *kept = Some(HeldLease { record, written });
                let is_blind = self.lacks_coverage();
                self.release_timer.on_acquired(is_blind, written);
                tracing::info!(is_blind, "speaks for the cluster");
                self.publish_leadership(true);
                Ok(self.pace.renew)
            }
            // Somebody was faster.
            Err(ApiRequestError::Conflict(_)) => Ok(self.pace.observe_interval),
            Err(error) => Err(error),
        }
    }

    /// Renews what is held, until it works or is lost.
    async fn renew(&mut self, kept: &mut Option<HeldLease>) {
        loop {
            let Some(held) = kept.as_ref() else { return };
            let deadline = held.written + self.pace.renew_deadline;
            let left = deadline.saturating_duration_since(Instant::now());
            let wanted = self.lease_body(Some(&held.record));
            let written = Instant::now();
            let error = match timeout(left, self.write(&wanted)).await {
                Ok(Ok(record)) => {
                    *kept = Some(HeldLease { record, written });
                    return;
                }
                Ok(Err(error)) => error,
                Err(_) => ApiRequestError::Unreachable("no answer in time".to_owned()),
            };
            // Ours may have been written and only the answer lost: then it is ours, of another version.
            if matches!(error, ApiRequestError::Conflict(_))
                && let Ok(Ok(record)) = timeout(left, self.read("")).await
                && record.holder == self.candidate.identity
                && let Some(held) = kept
                && held.record.version != record.version
            {
                held.record = record;
                continue;
            }
            let pause = jittered(self.pace.renew / 5);
            let is_lost = matches!(
                error,
                ApiRequestError::Conflict(_) | ApiRequestError::NotFound(_)
            );
            if is_lost || Instant::now() + pause >= deadline {
                tracing::warn!(%error, "no longer speaks for the cluster");
                *kept = None;
                self.publish_leadership(false);
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives back what is held, for those to take who see more.
    async fn release_if_uncovered(&mut self, kept: &mut Option<HeldLease>) {
        if let Some(held) = kept.take() {
            tracing::info!(
                "offers to others to speak for the cluster: its addresses are on no network that is watched here"
            );
            self.publish_leadership(false);
            self.release(&held.record).await;
        }
    }

    /// Gives back what is held, so that nobody waits for it to run out.
    async fn release(&mut self, record: &LeaseState) {
        let mut wanted = self.lease_body(Some(record));
        wanted["spec"]["holderIdentity"] = json!("");
        wanted["spec"]["leaseDurationSeconds"] = json!(1);
        match timeout(self.pace.renew, self.write(&wanted)).await {
            Ok(Ok(_)) => tracing::info!("gave the Lease back"),
            // It runs out by itself.
            Ok(Err(error)) => tracing::debug!(%error, "cannot give the Lease back"),
            Err(_) => tracing::debug!("cannot give the Lease back in time"),
        }
    }

    /// The Lease as it shall be, after what it is.
    fn lease_body(&self, record: Option<&LeaseState>) -> Value {
        let is_ours = record.is_some_and(|record| record.holder == self.candidate.identity);
        let now = format!("{:.6}", Timestamp::now());
        let acquired = record.and_then(|record| record.acquired.clone());
        let transitions = record.map_or(0, |record| record.transitions);
        let known = *self.inputs.nodes.borrow();
        let nodes = match record {
            // Whoever was there before may have known.
            Some(record) if known == 0 => record.nodes,
            _ => u64::try_from(known).unwrap_or(u64::MAX),
        };
        let told = self.inputs.handover.told();
        let annotations: BTreeMap<_, _> = handover::annotations(&told)
            .chain([(NODES.to_owned(), nodes.to_string())])
            .collect();
        let mut metadata = json!({
            "name": NAME,
            "namespace": self.connection.namespace(),
            "annotations": annotations,
        });
        if let Some(record) = record {
            metadata["resourceVersion"] = json!(record.version);
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.candidate.identity,
                "leaseDurationSeconds": self.pace.lease.as_secs().max(1),
                "acquireTime": acquired.filter(|_| is_ours).unwrap_or_else(|| now.clone()),
                "renewTime": now,
                // The first to hold it did not take it from anybody.
                "leaseTransitions": transitions.saturating_add(u64::from(record.is_some() && !is_ours)),
            },
        })
    }

    async fn read(&self, query: &str) -> Result<LeaseState, ApiRequestError> {
        let path = format!("{}/{NAME}{query}", self.path());
        let lease = self.call(Method::GET, &path, None).await?;
        Ok(LeaseState::read(&lease))
    }

    async fn write(&self, lease: &Value) -> Result<LeaseState, ApiRequestError> {
        let is_new = lease.pointer("/metadata/resourceVersion").is_none();
        let written = if is_new {
            self.call(Method::POST, &self.path(), Some(lease)).await
        } else {
            let path = format!("{}/{NAME}", self.path());
            self.call(Method::PUT, &path, Some(lease)).await
        };
        written.map(|lease| LeaseState::read(&lease))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        lease: Option<&Value>,
    ) -> Result<Value, ApiRequestError> {
        let call = self
            .connection
            .call(ApiRequestKind::Lease, method, path, lease);
        timeout(self.pace.renew_deadline / 2, call)
            .await
            .unwrap_or_else(|_| Err(ApiRequestError::Unreachable("no answer in time".to_owned())))
    }

    fn path(&self) -> String {
        let namespace = self.connection.namespace();
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    /// How long to wait after a failure.
    fn retry_delay(&mut self, error: &ApiRequestError) -> Duration {
        match error {
            ApiRequestError::Forbidden(_)
            | ApiRequestError::Unauthorized(_)
            | ApiRequestError::NotFound(_) => {
                if !self.forbidden {
                    tracing::warn!(
                        %error,
                        "cannot take part in who speaks for the cluster: this node never will, until it may"
                    );
                }
                self.forbidden = true;
                self.pace.forbidden
            }
            error => {
                tracing::debug!(%error, "cannot look at the Lease");
                read_lease(0, self.pace.observe_interval) * 2
            }
        }
    }

    fn publish_leadership(&self, leadership: bool) {
        self.connection.health().set_leader(leadership);
        self.inputs
            .leadership
            .send_if_modified(|held| std::mem::replace(held, leadership) != leadership);
    }
}

/// A name that nobody else has: of this node, and of this start.
fn identity(node_name: Option<&str>) -> String {
    let host = || {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    };
    let node = node_name.map_or_else(host, str::to_owned);
    format!("{node}_{:08x}", fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-01-01T00:00:00Z";

    struct Scene {
        candidate: LeaseCandidate,
        is_reluctant: bool,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                candidate: LeaseCandidate {
                    identity: "me".to_owned(),
                    pace: ApiTimings::default(),
                    seen: None,
                },
                is_reluctant: false,
                start: Instant::now(),
            }
        }

        /// What is concluded after so many seconds from a record that nobody else holds.
        fn free(&mut self, second: u64, record: &LeaseState) -> LeaseAction {
            let now = self.start + Duration::from_secs(second);
            let time = Timestamp::UNIX_EPOCH;
            self.candidate
                .next_action(record, self.is_reluctant, now, time)
        }

        /// What is concluded after so many seconds from a record that its holder renewed at this one of its clock, which
        /// goes wrong by `skew`.
        fn next_action(&mut self, second: u64, renewed: i64, skew: i64) -> LeaseAction {
            let time = |second| -> Timestamp {
                let start: Timestamp = START.parse().unwrap();
                start + jiff::SignedDuration::from_secs(second)
            };
            let record = LeaseState {
                holder: "other".to_owned(),
                renewed: Some(time(renewed + skew)),
                seconds: 15,
                ..LeaseState::default()
            };
            let now = self.start + Duration::from_secs(second);
            let time = time(i64::try_from(second).unwrap());
            self.candidate
                .next_action(&record, self.is_reluctant, now, time)
        }
    }

    #[test]
    fn a_lease_has_run_out_when_it_did_not_change_for_its_time_whatever_the_clocks_say() {
        for skew in [-86_400, 0, 86_400] {
            let mut scene = Scene::new();
            assert!(matches!(
                scene.next_action(0, 0, skew),
                LeaseAction::Wait(_)
            ));
            assert!(matches!(
                scene.next_action(14, 0, skew),
                LeaseAction::Wait(_)
            ));
            // Renewed just in time.
            assert!(matches!(
                scene.next_action(15, 15, skew),
                LeaseAction::Wait(_)
            ));
            assert!(matches!(
                scene.next_action(29, 15, skew),
                LeaseAction::Wait(_)
            ));
            assert_eq!(scene.next_action(30, 15, skew), LeaseAction::Acquire);
        }
    }

    #[test]
    fn what_seems_old_is_looked_at_again_soon_and_not_taken() {
        let mut scene = Scene::new();
        scene.candidate.pace.observe_interval = MAX_READ_INTERVAL;
        assert_eq!(
            scene.next_action(100, 95, 0),
            LeaseAction::Wait(MAX_READ_INTERVAL)
        );
        let mut scene = Scene::new();
        scene.candidate.pace.observe_interval = MAX_READ_INTERVAL;
        assert_eq!(
            scene.next_action(100, 0, 0),
            LeaseAction::Wait(Duration::from_secs(30))
        );
        assert_eq!(
            scene.next_action(110, 0, 0),
            LeaseAction::Wait(Duration::from_secs(10))
        );
        assert_eq!(scene.next_action(115, 0, 0), LeaseAction::Acquire);
    }

    #[test]
    fn what_nobody_holds_is_taken_and_ours_renewed() {
        let mut scene = Scene::new();
        let mut record = LeaseState::default();
        assert_eq!(scene.free(0, &record), LeaseAction::Acquire);
        record.holder = "me".to_owned();
        assert_eq!(scene.free(0, &record), LeaseAction::Renew);
    }

    #[test]
    fn who_sees_nothing_takes_only_what_nobody_wanted_for_a_while() {
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        let mut free = LeaseState::default();
        assert!(matches!(scene.free(0, &free), LeaseAction::Wait(_)));
        assert!(matches!(scene.free(44, &free), LeaseAction::Wait(_)));
        assert_eq!(scene.free(45, &free), LeaseAction::Acquire);
        // Another had it meanwhile, and gave it back.
        free.renewed = Some(Timestamp::UNIX_EPOCH);
        assert!(matches!(scene.free(50, &free), LeaseAction::Wait(_)));
        assert_eq!(scene.free(95, &free), LeaseAction::Acquire);
        // Where there are so many that they look seldom, it waits for longer.
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        free.nodes = 5_000;
        assert!(matches!(scene.free(0, &free), LeaseAction::Wait(_)));
        assert!(matches!(scene.free(449, &free), LeaseAction::Wait(_)));
        assert_eq!(scene.free(450, &free), LeaseAction::Acquire);
        // What ran out, too; but its own it renews.
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        assert!(matches!(scene.next_action(0, 0, 0), LeaseAction::Wait(_)));
        assert!(matches!(scene.next_action(59, 0, 0), LeaseAction::Wait(_)));
        assert_eq!(scene.next_action(60, 0, 0), LeaseAction::Acquire);
        free.holder = "me".to_owned();
        assert_eq!(scene.free(61, &free), LeaseAction::Renew);
    }

    #[test]
    fn a_holder_that_sees_nothing_offers_it_to_the_others_and_not_all_the_time() {
        let (mut release_timer, pace, start) = (
            ReleaseTimer::default(),
            ApiTimings::default(),
            Instant::now(),
        );
        let is_over = |release_timer: &mut ReleaseTimer, is_blind, minute| {
            let now = start + Duration::from_mins(minute);
            release_timer.is_over(is_blind, &pace, now)
        };
        release_timer.on_acquired(false, start);
        assert!(!is_over(&mut release_timer, true, 1));
        assert!(!is_over(&mut release_timer, true, 5));
        // It saw something for a moment.
        assert!(!is_over(&mut release_timer, false, 6));
        assert!(!is_over(&mut release_timer, true, 7));
        assert!(!is_over(&mut release_timer, true, 11));
        assert!(is_over(&mut release_timer, true, 12));
        // None of the others wanted it.
        release_timer.on_acquired(true, start + Duration::from_mins(13));
        assert!(!is_over(&mut release_timer, true, 14));
        assert!(!is_over(&mut release_timer, true, 24 * 60 + 12));
        assert!(is_over(&mut release_timer, true, 24 * 60 + 13));
        // Whoever sees something keeps it.
        release_timer.on_acquired(false, start + Duration::from_mins(1_460));
        for minute in 1_461..3_000 {
            assert!(!is_over(&mut release_timer, false, minute));
        }
    }

    #[test]
    fn the_more_candidates_the_more_seldom_each_looks() {
        let least = Duration::from_secs(15);
        assert_eq!(read_lease(0, least), least);
        assert_eq!(read_lease(240, least), least);
        assert_eq!(read_lease(480, least), Duration::from_secs(30));
        assert_eq!(read_lease(5_000, least), MAX_READ_INTERVAL);
        assert_eq!(read_lease(u64::MAX, least), MAX_READ_INTERVAL);
    }

    #[test]
    fn nonsense_is_a_lease_that_nobody_holds() {
        for nonsense in [
            json!(null),
            json!([]),
            json!({"spec": 7}),
            json!({"spec": {"holderIdentity": 7, "renewTime": "x", "leaseDurationSeconds": -1}}),
        ] {
            assert_eq!(LeaseState::read(&nonsense), LeaseState::default());
        }
        let long = json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": u64::MAX}});
        assert_eq!(LeaseState::read(&long).duration(), MAX_LEASE_DURATION);
    }
}
