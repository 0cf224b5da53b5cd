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
use probe_cluster::tracking::Sight;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{
    Connection, ReadError,
    backoff::{jittered, up_to},
    handover::{self, Handover, Told},
    health::Request,
    pace::Pace,
};

/// The Lease's name. The Role of the manifests names it.
pub const NAME: &str = "arp-monitor";

/// Where the holder says how many candidates there are.
const NODES: &str = "arp-monitor/nodes";

/// All candidates together look about this often in a second.
const LOOKS_A_SECOND: f64 = 16.0;

/// However many there are, each looks once in this time.
const LONGEST_LOOK: Duration = Duration::from_mins(5);

/// Longer than this nobody's Lease is good for.
const LONGEST_LEASE: Duration = Duration::from_mins(1);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    holder: String,
    renewed: Option<Timestamp>,
    acquired: Option<String>,
    seconds: u64,
    transitions: u64,
    nodes: u64,
    told: Told,
    version: String,
}

impl Record {
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
        Duration::from_secs(self.seconds).min(LONGEST_LEASE)
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It is free: take it, if it is still as it was.
    Take,
    /// It is ours: renew it.
    Renew,
    /// It is somebody's: look again after this time, jittered.
    Look(Duration),
}

/// What a candidate concludes from what it sees. No I/O, no clock.
#[derive(Debug)]
struct Candidate {
    identity: String,
    pace: Pace,
    seen: Option<(Record, Instant)>,
}

impl Candidate {
    /// What follows from the Lease as it is, for one that is reluctant or not. `time` is what our clock says, which may
    /// be wrong.
    fn judge(
        &mut self,
        record: &Record,
        is_reluctant: bool,
        now: Instant,
        time: Timestamp,
    ) -> Step {
        if record.holder == self.identity {
            return Step::Renew;
        }
        let is_free = record.holder.is_empty();
        if is_free && !is_reluctant {
            return Step::Take;
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
        let look = look(record.nodes, self.pace.look);
        let mut good = if is_free {
            Duration::ZERO
        } else {
            record.duration()
        };
        if is_reluctant {
            // By then most of those who are not have looked.
            good += self.pace.reluctance.max(look.mul_f64(1.5));
        }
        let unchanged = now.duration_since(since);
        if unchanged >= good {
            return Step::Take;
        }
        let seems_old = record.renewed.is_some_and(|renewed| {
            let age = Duration::try_from(time.duration_since(renewed)).unwrap_or_default();
            age > good * 2
        });
        let left = good.saturating_sub(unchanged);
        if is_reluctant {
            // By then it may see something, and be reluctant no more.
            return Step::Look(left.min(look));
        }
        if seems_old || !unchanged.is_zero() {
            // Jittered: not before it has run out, and not all at once.
            return Step::Look(left.saturating_mul(2).min(look.max(left)));
        }
        Step::Look(look)
    }
}

/// How often each of so many candidates looks.
fn look(nodes: u64, least: Duration) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let seconds = f64::from(nodes) / LOOKS_A_SECOND;
    Duration::from_secs_f64(seconds.min(LONGEST_LOOK.as_secs_f64())).max(least)
}

/// What is held, and since when others may count: from before it was written, so that we give up first.
#[derive(Clone, Debug)]
struct Held {
    record: Record,
    written: Instant,
}

/// When a holder that sees nothing offers the Lease to the others. No I/O, no clock.
#[derive(Debug, Default)]
struct Patience {
    /// Since when it has seen nothing.
    blind: Option<Instant>,
    /// When the others last did not want it.
    offered: Option<Instant>,
}

impl Patience {
    /// The Lease was taken; by one that sees nothing only because nobody else did.
    fn taken(&mut self, is_blind: bool, now: Instant) {
        self.blind = None;
        if is_blind {
            self.offered = Some(now);
        }
    }

    /// Whether to offer it now.
    fn is_over(&mut self, is_blind: bool, pace: &Pace, now: Instant) -> bool {
        if !is_blind {
            self.blind = None;
            return false;
        }
        let blind = now.duration_since(*self.blind.get_or_insert(now));
        let was_offered = self
            .offered
            .is_some_and(|offered| now.duration_since(offered) < pace.offer_again);
        blind >= pace.blind && !was_offered
    }
}

/// What the Lease is about: read and written by others while it is sought and held.
#[derive(Debug)]
pub struct Stakes {
    /// Whether it is held.
    pub holds: watch::Sender<bool>,
    /// What goes with it from holder to holder.
    pub handover: Handover,
    /// How many nodes there are, if somebody knows.
    pub nodes: watch::Receiver<usize>,
    /// How much is seen here of the cluster's addresses, if that is known.
    pub sight: watch::Receiver<Option<Sight>>,
}

/// Tries to get and keep the Lease until it is told to stop; then gives it back.
pub struct Elector {
    connection: Connection,
    candidate: Candidate,
    patience: Patience,
    pace: Pace,
    stakes: Stakes,
    forbidden: bool,
}

impl Elector {
    /// A candidate of this name.
    pub fn new(
        connection: Connection,
        node_name: Option<&str>,
        pace: Pace,
        stakes: Stakes,
    ) -> Self {
        Self {
            candidate: Candidate {
                identity: identity(node_name),
                pace: pace.clone(),
                seen: None,
            },
            connection,
            patience: Patience::default(),
            pace,
            stakes,
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
            () = self.elect(&mut kept) => {}
        }
        self.tell(false);
        if let Some(held) = kept {
            self.release(&held.record).await;
        }
    }

    /// Forever. What is held is left in `kept`.
    async fn elect(&mut self, kept: &mut Option<Held>) {
        // Whoever does not know yet what it sees would not be reluctant, and interfaces are attached one by one.
        let mut sight = self.stakes.sight.clone();
        let sees = |sight: &Option<Sight>| sight.is_some_and(|sight| !sight.is_blind);
        let knows = async { sight.wait_for(sees).await.is_ok() };
        let _ = tokio::join!(
            timeout(self.pace.look, knows),
            tokio::time::sleep(up_to(self.pace.look))
        );
        loop {
            if kept.is_some() {
                // To the point: it must not run out.
                tokio::time::sleep(self.pace.renew).await;
                let is_blind = self.is_blind();
                if self.patience.is_over(is_blind, &self.pace, Instant::now()) {
                    self.offer(kept).await;
                } else {
                    self.keep(kept).await;
                }
                continue;
            }
            let wait = match self.look(kept).await {
                Ok(wait) => wait,
                Err(error) => self.after(&error),
            };
            if kept.is_none() {
                tokio::time::sleep(jittered(wait)).await;
            }
        }
    }

    /// Looks at the Lease, and takes it if it is free: how long to wait before the next look.
    async fn look(&mut self, kept: &mut Option<Held>) -> Result<Duration, ReadError> {
        let record = match self.read("?resourceVersion=0").await {
            Ok(record) => record,
            Err(ReadError::Missing(_)) => {
                self.forbidden = false;
                return match self.judge(&Record::default()) {
                    Step::Look(wait) => Ok(wait),
                    Step::Take | Step::Renew => self.take(None, kept).await,
                };
            }
            Err(error) => return Err(error),
        };
        self.forbidden = false;
        match self.judge(&record) {
            Step::Look(wait) => return Ok(wait),
            Step::Take | Step::Renew => {}
        }
        // What the API server's memory says may be old: before anything is written, etcd is asked.
        let record = self.read("").await?;
        match self.judge(&record) {
            Step::Look(wait) => Ok(wait),
            Step::Take | Step::Renew => self.take(Some(&record), kept).await,
        }
    }

    fn judge(&mut self, record: &Record) -> Step {
        let is_blind = self.is_blind();
        self.candidate
            .judge(record, is_blind, Instant::now(), Timestamp::now())
    }

    /// Whether there is something to see of the cluster, and nothing of it here.
    fn is_blind(&self) -> bool {
        self.stakes
            .sight
            .borrow()
            .is_some_and(|sight| sight.is_blind)
    }

    /// Takes what is free, or what is not there yet.
    async fn take(
        &mut self,
        free: Option<&Record>,
        kept: &mut Option<Held>,
    ) -> Result<Duration, ReadError> {
        let written = Instant::now();
        // Until somebody here has told something, what was told before is to be left as it is.
        let told = free.map(|free| free.told.clone()).unwrap_or_default();
        let until = free.and_then(|free| free.renewed);
        self.stakes.handover.take_over(told, until);
        let wanted = self.wanted(free);
        match self.write(&wanted).await {
            Ok(record) => {
                *kept = Some(Held { record, written });
                let is_blind = self.is_blind();
                self.patience.taken(is_blind, written);
                tracing::info!(is_blind, "speaks for the cluster");
                self.tell(true);
                Ok(self.pace.renew)
            }
            // Somebody was faster.
            Err(ReadError::Conflict(_)) => Ok(self.pace.look),
            Err(error) => Err(error),
        }
    }

    /// Renews what is held, until it works or is lost.
    async fn keep(&mut self, kept: &mut Option<Held>) {
        loop {
            let Some(held) = kept.as_ref() else { return };
            let deadline = held.written + self.pace.give_up;
            let left = deadline.saturating_duration_since(Instant::now());
            let wanted = self.wanted(Some(&held.record));
            let written = Instant::now();
            let error = match timeout(left, self.write(&wanted)).await {
                Ok(Ok(record)) => {
                    *kept = Some(Held { record, written });
                    return;
                }
                Ok(Err(error)) => error,
                Err(_) => ReadError::Unreachable("no answer in time".to_owned()),
            };
            // Ours may have been written and only the answer lost: then it is ours, of another version.
            if matches!(error, ReadError::Conflict(_))
                && let Ok(Ok(record)) = timeout(left, self.read("")).await
                && record.holder == self.candidate.identity
                && let Some(held) = kept
                && held.record.version != record.version
            {
                held.record = record;
                continue;
            }
            let pause = jittered(self.pace.renew / 5);
            let is_lost = matches!(error, ReadError::Conflict(_) | ReadError::Missing(_));
            if is_lost || Instant::now() + pause >= deadline {
                tracing::warn!(%error, "no longer speaks for the cluster");
                *kept = None;
                self.tell(false);
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives back what is held, for those to take who see more.
    async fn offer(&mut self, kept: &mut Option<Held>) {
        if let Some(held) = kept.take() {
            tracing::info!(
                "offers to others to speak for the cluster: its addresses are on no network that is watched here"
            );
            self.tell(false);
            self.release(&held.record).await;
        }
    }

    /// Gives back what is held, so that nobody waits for it to run out.
    async fn release(&mut self, record: &Record) {
        let mut wanted = self.wanted(Some(record));
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
    fn wanted(&self, record: Option<&Record>) -> Value {
        let is_ours = record.is_some_and(|record| record.holder == self.candidate.identity);
        let now = format!("{:.6}", Timestamp::now());
        let acquired = record.and_then(|record| record.acquired.clone());
        let transitions = record.map_or(0, |record| record.transitions);
        let known = *self.stakes.nodes.borrow();
        let nodes = match record {
            // Whoever was there before may have known.
            Some(record) if known == 0 => record.nodes,
            _ => u64::try_from(known).unwrap_or(u64::MAX),
        };
        let told = self.stakes.handover.told();
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

    async fn read(&self, query: &str) -> Result<Record, ReadError> {
        let path = format!("{}/{NAME}{query}", self.path());
        let lease = self.call(Method::GET, &path, None).await?;
        Ok(Record::read(&lease))
    }

    async fn write(&self, lease: &Value) -> Result<Record, ReadError> {
        let is_new = lease.pointer("/metadata/resourceVersion").is_none();
        let written = if is_new {
            self.call(Method::POST, &self.path(), Some(lease)).await
        } else {
            let path = format!("{}/{NAME}", self.path());
            self.call(Method::PUT, &path, Some(lease)).await
        };
        written.map(|lease| Record::read(&lease))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        lease: Option<&Value>,
    ) -> Result<Value, ReadError> {
        let call = self.connection.call(Request::Lease, method, path, lease);
        timeout(self.pace.give_up / 2, call)
            .await
            .unwrap_or_else(|_| Err(ReadError::Unreachable("no answer in time".to_owned())))
    }

    fn path(&self) -> String {
        let namespace = self.connection.namespace();
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    /// How long to wait after a failure.
    fn after(&mut self, error: &ReadError) -> Duration {
        match error {
            ReadError::Forbidden(_) | ReadError::Unauthorized(_) | ReadError::Missing(_) => {
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
                look(0, self.pace.look) * 2
            }
        }
    }

    fn tell(&self, holds: bool) {
        self.connection.health().set_holds(holds);
        self.stakes
            .holds
            .send_if_modified(|held| std::mem::replace(held, holds) != holds);
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
        candidate: Candidate,
        is_reluctant: bool,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                candidate: Candidate {
                    identity: "me".to_owned(),
                    pace: Pace::default(),
                    seen: None,
                },
                is_reluctant: false,
                start: Instant::now(),
            }
        }

        /// What is concluded after so many seconds from a record that nobody else holds.
        fn free(&mut self, second: u64, record: &Record) -> Step {
            let now = self.start + Duration::from_secs(second);
            let time = Timestamp::UNIX_EPOCH;
            self.candidate.judge(record, self.is_reluctant, now, time)
        }

        /// What is concluded after so many seconds from a record that its holder renewed at this one of its clock, which
        /// goes wrong by `skew`.
        fn judge(&mut self, second: u64, renewed: i64, skew: i64) -> Step {
            let time = |second| -> Timestamp {
                let start: Timestamp = START.parse().unwrap();
                start + jiff::SignedDuration::from_secs(second)
            };
            let record = Record {
                holder: "other".to_owned(),
                renewed: Some(time(renewed + skew)),
                seconds: 15,
                ..Record::default()
            };
            let now = self.start + Duration::from_secs(second);
            let time = time(i64::try_from(second).unwrap());
            self.candidate.judge(&record, self.is_reluctant, now, time)
        }
    }

    #[test]
    fn a_lease_has_run_out_when_it_did_not_change_for_its_time_whatever_the_clocks_say() {
        for skew in [-86_400, 0, 86_400] {
            let mut scene = Scene::new();
            assert!(matches!(scene.judge(0, 0, skew), Step::Look(_)));
            assert!(matches!(scene.judge(14, 0, skew), Step::Look(_)));
            // Renewed just in time.
            assert!(matches!(scene.judge(15, 15, skew), Step::Look(_)));
            assert!(matches!(scene.judge(29, 15, skew), Step::Look(_)));
            assert_eq!(scene.judge(30, 15, skew), Step::Take);
        }
    }

    #[test]
    fn what_seems_old_is_looked_at_again_soon_and_not_taken() {
        let mut scene = Scene::new();
        scene.candidate.pace.look = LONGEST_LOOK;
        assert_eq!(scene.judge(100, 95, 0), Step::Look(LONGEST_LOOK));
        let mut scene = Scene::new();
        scene.candidate.pace.look = LONGEST_LOOK;
        assert_eq!(scene.judge(100, 0, 0), Step::Look(Duration::from_secs(30)));
        assert_eq!(scene.judge(110, 0, 0), Step::Look(Duration::from_secs(10)));
        assert_eq!(scene.judge(115, 0, 0), Step::Take);
    }

    #[test]
    fn what_nobody_holds_is_taken_and_ours_renewed() {
        let mut scene = Scene::new();
        let mut record = Record::default();
        assert_eq!(scene.free(0, &record), Step::Take);
        record.holder = "me".to_owned();
        assert_eq!(scene.free(0, &record), Step::Renew);
    }

    #[test]
    fn who_sees_nothing_takes_only_what_nobody_wanted_for_a_while() {
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        let mut free = Record::default();
        assert!(matches!(scene.free(0, &free), Step::Look(_)));
        assert!(matches!(scene.free(44, &free), Step::Look(_)));
        assert_eq!(scene.free(45, &free), Step::Take);
        // Another had it meanwhile, and gave it back.
        free.renewed = Some(Timestamp::UNIX_EPOCH);
        assert!(matches!(scene.free(50, &free), Step::Look(_)));
        assert_eq!(scene.free(95, &free), Step::Take);
        // Where there are so many that they look seldom, it waits for longer.
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        free.nodes = 5_000;
        assert!(matches!(scene.free(0, &free), Step::Look(_)));
        assert!(matches!(scene.free(449, &free), Step::Look(_)));
        assert_eq!(scene.free(450, &free), Step::Take);
        // What ran out, too; but its own it renews.
        let mut scene = Scene::new();
        scene.is_reluctant = true;
        assert!(matches!(scene.judge(0, 0, 0), Step::Look(_)));
        assert!(matches!(scene.judge(59, 0, 0), Step::Look(_)));
        assert_eq!(scene.judge(60, 0, 0), Step::Take);
        free.holder = "me".to_owned();
        assert_eq!(scene.free(61, &free), Step::Renew);
    }

    #[test]
    fn a_holder_that_sees_nothing_offers_it_to_the_others_and_not_all_the_time() {
        let (mut patience, pace, start) = (Patience::default(), Pace::default(), Instant::now());
        let is_over = |patience: &mut Patience, is_blind, minute| {
            let now = start + Duration::from_mins(minute);
            patience.is_over(is_blind, &pace, now)
        };
        patience.taken(false, start);
        assert!(!is_over(&mut patience, true, 1));
        assert!(!is_over(&mut patience, true, 5));
        // It saw something for a moment.
        assert!(!is_over(&mut patience, false, 6));
        assert!(!is_over(&mut patience, true, 7));
        assert!(!is_over(&mut patience, true, 11));
        assert!(is_over(&mut patience, true, 12));
        // None of the others wanted it.
        patience.taken(true, start + Duration::from_mins(13));
        assert!(!is_over(&mut patience, true, 14));
        assert!(!is_over(&mut patience, true, 24 * 60 + 12));
        assert!(is_over(&mut patience, true, 24 * 60 + 13));
        // Whoever sees something keeps it.
        patience.taken(false, start + Duration::from_mins(1_460));
        for minute in 1_461..3_000 {
            assert!(!is_over(&mut patience, false, minute));
        }
    }

    #[test]
    fn the_more_candidates_the_more_seldom_each_looks() {
        let least = Duration::from_secs(15);
        assert_eq!(look(0, least), least);
        assert_eq!(look(240, least), least);
        assert_eq!(look(480, least), Duration::from_secs(30));
        assert_eq!(look(5_000, least), LONGEST_LOOK);
        assert_eq!(look(u64::MAX, least), LONGEST_LOOK);
    }

    #[test]
    fn nonsense_is_a_lease_that_nobody_holds() {
        for nonsense in [
            json!(null),
            json!([]),
            json!({"spec": 7}),
            json!({"spec": {"holderIdentity": 7, "renewTime": "x", "leaseDurationSeconds": -1}}),
        ] {
            assert_eq!(Record::read(&nonsense), Record::default());
        }
        let long = json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": u64::MAX}});
        assert_eq!(Record::read(&long).duration(), LONGEST_LEASE);
    }
}
