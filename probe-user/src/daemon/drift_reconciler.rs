//! Looks for drift for as long as this node speaks for the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::{
    ClusterSnapshot, Node,
    cause::NodeCoverage,
    drift,
    drift::{
        Drift, DriftCandidate, DriftKey, DriftKind, DriftOnset, DriftTracker, ObservedNetwork,
        PendingReason,
    },
};
use probe_kubernetes::ClusterHandle;
use probe_model::{BindingKey, BindingRecord, NamespacedName, watched::WatchedInterfaces};
use probe_pools::interval::{Interval, merged};
use tokio::{
    sync::watch,
    task,
    time::{Instant, sleep, timeout},
};

use super::annotate::{Annotator, NodeListSource};
use crate::daemon::monitor::{MonitorHandle, MonitorStopped};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(15);
/// Not more often, however much there is to see.
const MIN_PERIOD: Duration = Duration::from_secs(1);
/// How old the number of ready endpoints may be.
const ENDPOINTS_AGE: Duration = Duration::from_mins(1);
/// Services whose endpoints are asked for in one look, and addresses that are asked for. The rest waits.
const MAX_PROBED: usize = 20;
/// How often an address that no service should have is asked for, while somebody has it.
const PROBE_INTERVAL: Duration = Duration::from_mins(5);
/// How long the API server may take to say how many endpoints are ready.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(2);
/// Drifts that one look logs. The rest is in the metrics.
const MAX_LOGGED: usize = 10;

/// What it reads from.
#[derive(Debug)]
pub struct DriftReconcilerSources {
    /// The cluster, and whether this node speaks for it.
    pub handle: ClusterHandle,
    /// Names the nodes.
    pub annotator: Annotator,
    /// Who has which address on the wire.
    pub monitor: MonitorHandle,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// How it stands with the cluster, as far as this node is to say.
#[derive(Clone, Debug)]
pub struct ClusterStatusHandle {
    is_on: bool,
    cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    holds: watch::Receiver<bool>,
    drifts: watch::Receiver<Arc<Vec<Drift>>>,
}

/// How it stands at one moment.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// What is known of the cluster.
    pub cluster: Arc<ClusterSnapshot>,
    /// What has drifted apart: what is critical first.
    pub drifts: Arc<Vec<Drift>>,
}

impl ClusterStatusHandle {
    /// There is no cluster.
    pub fn off() -> Self {
        let handle = ClusterHandle::off();
        Self {
            is_on: false,
            cluster: handle.cluster(),
            holds: handle.is_leader(),
            drifts: watch::channel(Arc::default()).1,
        }
    }

    /// Whether there is a cluster.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// How it stands now; nothing while another node speaks for the cluster.
    pub fn snapshot(&self) -> Option<ClusterStatus> {
        let holds = *self.holds.borrow();
        holds.then(|| ClusterStatus {
            cluster: self.cluster.borrow().clone(),
            drifts: self.drifts.borrow().clone(),
        })
    }

    /// What has drifted apart, and news of it; none while another node speaks for the cluster.
    pub fn drifts(&self) -> watch::Receiver<Arc<Vec<Drift>>> {
        self.drifts.clone()
    }
}

/// Looks from now on. What has lasted for `patience` is told.
pub fn start(
    sources: DriftReconcilerSources,
    patience: Duration,
) -> (
    ClusterStatusHandle,
    impl Future<Output = ()> + Send + 'static,
) {
    let (publish, drifts) = watch::channel(Arc::default());
    let standing = ClusterStatusHandle {
        is_on: sources.handle.is_on(),
        cluster: sources.handle.cluster(),
        holds: sources.handle.is_leader(),
        drifts,
    };
    let watchdog = DriftReconciler {
        sources,
        tracker: DriftTracker::new(patience),
        patience,
        probe_candidates: BTreeMap::new(),
        last_probed: None,
        period: PERIOD.min(patience / 4).max(MIN_PERIOD),
        endpoints: HashMap::new(),
        logged: BTreeSet::new(),
    };
    (standing, watchdog.run(publish))
}

struct DriftReconciler {
    sources: DriftReconcilerSources,
    tracker: DriftTracker,
    patience: Duration,
    period: Duration,
    /// Addresses that somebody claims and no service has, and when to ask for them.
    probe_candidates: BTreeMap<IpAddr, Instant>,
    /// When addresses were last asked for: seldom, whatever changes in the cluster, since all asking has one budget.
    last_probed: Option<Instant>,
    /// How many endpoints of services were ready, and when.
    endpoints: HashMap<NamespacedName, (Option<usize>, Instant)>,
    /// What has been logged.
    logged: BTreeSet<DriftKey>,
}

impl DriftReconciler {
    async fn run(mut self, publish: watch::Sender<Arc<Vec<Drift>>>) {
        let mut holds = self.sources.handle.is_leader();
        let mut cluster = self.sources.handle.cluster();
        loop {
            if !*holds.borrow_and_update() {
                self.tracker.forget();
                self.endpoints.clear();
                self.probe_candidates.clear();
                self.logged.clear();
                publish.send_replace(Arc::default());
                if holds.wait_for(|&holds| holds).await.is_err() {
                    return;
                }
            }
            let known = cluster.borrow_and_update().clone();
            let Ok(drifts) = self.reconcile(known).await else {
                return;
            };
            self.log(&drifts);
            publish.send_if_modified(|last| {
                let differs = **last != drifts;
                if differs {
                    *last = Arc::new(drifts);
                }
                differs
            });
            sleep(MIN_PERIOD).await;
            tokio::select! {
                () = sleep(self.period.saturating_sub(MIN_PERIOD)) => {}
                changed = cluster.changed() => if changed.is_err() { return },
                changed = holds.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What is to be told now.
    async fn reconcile(
        &mut self,
        cluster: Arc<ClusterSnapshot>,
    ) -> Result<Vec<Drift>, MonitorStopped> {
        let mut sight = Arc::new(self.read_inputs(&cluster, NodeListSource::LISTED).await?);
        let mut found = self.find(&cluster, &sight).await;
        // A node may have got the label a minute ago.
        let lacks_node = found.iter().map(|candidate| &candidate.drift).any(|drift| {
            drift.drift == DriftKind::AdvertisementWithoutNode
                && !self.tracker.is_tracked(&drift.key())
        });
        if lacks_node {
            sight = Arc::new(
                self.read_inputs(&cluster, NodeListSource::FRESHLY_LISTED)
                    .await?,
            );
            found = self.find(&cluster, &sight).await;
        }
        if self.fetch_endpoints(&found).await {
            found = self.find(&cluster, &sight).await;
        }
        self.probe_candidates(&found, &sight).await?;
        Ok(self.tracker.observe(Timestamp::now(), &cluster, found))
    }

    /// Thousands of services take a while, and nobody else shall wait for that.
    async fn find(
        &self,
        cluster: &Arc<ClusterSnapshot>,
        sight: &Arc<ReconcileInputs>,
    ) -> Vec<DriftCandidate> {
        let endpoints = self.endpoints.iter();
        let endpoints: HashMap<_, _> = endpoints
            .filter_map(|(service, &(number, _))| Some((service.clone(), number?)))
            .collect();
        let (cluster, sight) = (cluster.clone(), sight.clone());
        let finding = task::spawn_blocking(move || {
            let wire = ObservedNetwork {
                now: Timestamp::now(),
                bindings: &sight.bindings,
                nodes: sight.nodes.as_deref().map(Vec::as_slice),
                nodes_known: sight.nodes_known,
                endpoints: &endpoints,
            };
            drift::find(&cluster, wire)
        });
        // It is only not there when the program ends.
        finding.await.unwrap_or_default()
    }

    /// What is on the wire of the addresses of the cluster.
    async fn read_inputs(
        &self,
        cluster: &Arc<ClusterSnapshot>,
        need: NodeListSource,
    ) -> Result<ReconcileInputs, MonitorStopped> {
        let ours = OwnAddresses::new(cluster);
        let mut views = self.sources.monitor.bindings().await?;
        views.retain(|view| ours.contains(view.key.ip, cluster));
        let knowledge = self.sources.annotator.resolve(need).await;
        let watched = self.sources.watched.borrow().clone();
        let keys = views.iter().map(|view| view.key).collect();
        let segments: BTreeSet<_> = views.iter().map(|view| view.key.segment).collect();
        let nodes_known = knowledge.stations().map(|stations| {
            let counts = segments.iter().map(|&segment| stations.count(segment));
            counts.fold(NodeCoverage::default(), |sum, one| NodeCoverage {
                all: sum.all.max(one.all),
                on_segment: sum.on_segment + one.on_segment,
                with_mac: sum.with_mac + one.with_mac,
            })
        });
        // Tens of thousands take a while, and detection has one of the two threads.
        let described = task::spawn_blocking(move || {
            let records = views.iter().map(|view| {
                let name = watched.name_of(view.key.segment.interface);
                let mut record = BindingRecord::new(view, name, probe_datapath::clock::MONOTONIC);
                knowledge.annotate_binding(&mut record, Some(view.key.segment));
                record
            });
            records.collect()
        });
        Ok(ReconcileInputs {
            keys,
            // They are only not there when the program ends.
            bindings: described.await.unwrap_or_default(),
            nodes: self.sources.annotator.nodes(),
            nodes_known,
        })
    }

    /// Asks how many endpoints the services have for whose addresses nobody answers. Returns whether anything was asked.
    async fn fetch_endpoints(&mut self, found: &[DriftCandidate]) -> bool {
        let silent = found.iter().map(|candidate| &candidate.drift);
        let silent = silent.filter(|drift| {
            drift.drift == DriftKind::NotAnnounced
                && drift.reason != Some(PendingReason::NoAdvertisement)
        });
        let silent: BTreeSet<_> = silent.filter_map(|drift| drift.service.clone()).collect();
        self.endpoints.retain(|service, _| silent.contains(service));
        let is_fresh = |service: &NamespacedName| {
            let known = self.endpoints.get(service);
            known.is_some_and(|(_, last_probed)| last_probed.elapsed() < ENDPOINTS_AGE)
        };
        let wanted = silent.into_iter().filter(|service| !is_fresh(service));
        let wanted: Vec<_> = wanted.take(MAX_PROBED).collect();
        for service in &wanted {
            let last_probed = self.sources.handle.ready_endpoints(service);
            let number = timeout(ENDPOINTS_TIMEOUT, last_probed).await;
            let gone = number.is_err();
            let number = number.ok().flatten();
            self.endpoints
                .insert(service.clone(), (number, Instant::now()));
            if gone {
                // It would not answer for the others either.
                break;
            }
        }
        !wanted.is_empty()
    }

    /// Has the addresses asked for that somebody claims and no service has. Whoever answers only when asked, as a stale
    /// speaker does, claims once and is not heard again: one claim alone would never be told.
    async fn probe_candidates(
        &mut self,
        found: &[DriftCandidate],
        sight: &ReconcileInputs,
    ) -> Result<(), MonitorStopped> {
        let claimed = found
            .iter()
            .filter(|candidate| matches!(candidate.onset, DriftOnset::ObservedAgain(_)));
        let claimed: BTreeSet<_> = claimed.filter_map(|candidate| candidate.drift.ip).collect();
        self.probe_candidates.retain(|ip, _| claimed.contains(ip));
        let now = Instant::now();
        for ip in claimed {
            self.probe_candidates
                .entry(ip)
                .or_insert(now + self.patience);
        }
        let due = self
            .probe_candidates
            .iter_mut()
            .filter(|(_, due)| **due <= now);
        let mut due: Vec<_> = due.collect();
        if due.is_empty()
            || self
                .last_probed
                .is_some_and(|last_probed| last_probed.elapsed() < PERIOD)
        {
            return Ok(());
        }
        self.last_probed = Some(now);
        // Whoever has waited longest: where they are many, all have their turn.
        due.sort_by_key(|(_, due)| **due);
        let mut keys = Vec::new();
        for (ip, due) in due.into_iter().take(MAX_PROBED) {
            *due = now + PROBE_INTERVAL;
            keys.extend(sight.keys.iter().filter(|key| key.ip == *ip));
        }
        self.sources.monitor.probe_once(keys).await
    }

    /// Each drift once, when it is first told.
    fn log(&mut self, drifts: &[Drift]) {
        let keys: BTreeSet<_> = drifts.iter().map(Drift::key).collect();
        let new = drifts
            .iter()
            .filter(|drift| !self.logged.contains(&drift.key()));
        for drift in new.take(MAX_LOGGED) {
            tracing::warn!(kind = drift.drift.label(), "{}", drift.says);
        }
        self.logged = keys;
    }
}

/// What is on the wire of the addresses of the cluster.
struct ReconcileInputs {
    keys: Vec<BindingKey>,
    bindings: Vec<BindingRecord>,
    nodes: Option<Arc<Vec<Node>>>,
    nodes_known: Option<NodeCoverage>,
}

/// Which addresses are a cluster's.
struct OwnAddresses(Vec<Interval>);

impl OwnAddresses {
    fn new(cluster: &ClusterSnapshot) -> Self {
        let pools = cluster.inventory().pools.iter();
        let ranges = pools.flat_map(|pool| &pool.ranges);
        Self(merged(ranges.map(|range| range.interval).collect()))
    }

    fn contains(&self, ip: IpAddr, cluster: &ClusterSnapshot) -> bool {
        let next = self.0.partition_point(|range| range.last() < ip);
        let in_pool = self.0.get(next).is_some_and(|range| range.first() <= ip);
        in_pool || cluster.services_at(ip).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use probe_cluster::{ClusterObjects, testing};
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_pools_and_of_services_are_the_clusters() {
        let cluster = ClusterSnapshot::from(ClusterObjects {
            services: vec![testing::service("shop/frontend", &["203.0.113.7"])],
            metallb: vec![testing::pool(
                "production",
                json!({"addresses": ["2001:db8::/64", "192.0.2.240/28", "192.0.2.0/30"]}),
            )],
            ..testing::objects()
        });
        let ours = OwnAddresses::new(&cluster);
        for (ip, expected) in [
            ("192.0.2.3", true),
            ("192.0.2.4", false),
            ("192.0.2.239", false),
            ("192.0.2.255", true),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("2001:db8::1", true),
            ("2001:db8:1::", false),
        ] {
            assert_eq!(
                ours.contains(ip.parse().unwrap(), &cluster),
                expected,
                "{ip}"
            );
        }
    }
}
