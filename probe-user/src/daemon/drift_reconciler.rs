//! Reconciles the cluster with the network while this node is the leader, and reports drift.

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

/// The reconciliation interval.
const PERIOD: Duration = Duration::from_secs(15);
/// The minimum interval.
const MIN_PERIOD: Duration = Duration::from_secs(1);
/// Maximum age of the number of ready endpoints.
const ENDPOINTS_AGE: Duration = Duration::from_mins(1);
/// Maximum number of services whose endpoints are read, and of addresses that are probed, per reconciliation. The rest
/// waits.
const MAX_PROBED: usize = 20;
/// The interval at which an address in use without a service is probed.
const PROBE_INTERVAL: Duration = Duration::from_mins(5);
/// Time limit for the number of ready endpoints.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of logged drifts per reconciliation. The metrics contain the rest.
const MAX_LOGGED: usize = 10;

/// The sources of data.
#[derive(Debug)]
pub struct DriftReconcilerSources {
    /// The cluster, and whether this node is the leader.
    pub handle: ClusterHandle,
    /// The annotator, which identifies nodes.
    pub annotator: Annotator,
    /// The monitor with the observed bindings.
    pub monitor: MonitorHandle,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// The status of the cluster, published by the leader.
#[derive(Clone, Debug)]
pub struct ClusterStatusHandle {
    is_on: bool,
    cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    holds: watch::Receiver<bool>,
    drifts: watch::Receiver<Arc<Vec<Drift>>>,
}

/// The status of the cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster data.
    pub cluster: Arc<ClusterSnapshot>,
    /// The drifts, critical ones first.
    pub drifts: Arc<Vec<Drift>>,
}

impl ClusterStatusHandle {
    /// A handle without a cluster.
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

    /// The current status; `None` while another node is the leader.
    pub fn snapshot(&self) -> Option<ClusterStatus> {
        let holds = *self.holds.borrow();
        holds.then(|| ClusterStatus {
            cluster: self.cluster.borrow().clone(),
            drifts: self.drifts.borrow().clone(),
        })
    }

    /// The current drifts and their changes; empty while another node is the leader.
    pub fn drifts(&self) -> watch::Receiver<Arc<Vec<Drift>>> {
        self.drifts.clone()
    }
}

/// Starts the reconciler. Drift is reported after it has lasted for `grace_period`.
pub fn start(
    sources: DriftReconcilerSources,
    grace_period: Duration,
) -> (
    ClusterStatusHandle,
    impl Future<Output = ()> + Send + 'static,
) {
    let (publish, drifts) = watch::channel(Arc::default());
    let status = ClusterStatusHandle {
        is_on: sources.handle.is_on(),
        cluster: sources.handle.cluster(),
        holds: sources.handle.is_leader(),
        drifts,
    };
    let watchdog = DriftReconciler {
        sources,
        tracker: DriftTracker::new(grace_period),
        grace_period,
        probe_candidates: BTreeMap::new(),
        last_probed: None,
        period: PERIOD.min(grace_period / 4).max(MIN_PERIOD),
        endpoints: HashMap::new(),
        logged: BTreeSet::new(),
    };
    (status, watchdog.run(publish))
}

struct DriftReconciler {
    sources: DriftReconcilerSources,
    tracker: DriftTracker,
    grace_period: Duration,
    period: Duration,
    /// Claimed addresses without a service, and the time of their next probe.
    probe_candidates: BTreeMap<IpAddr, Instant>,
    /// The time of the last probes. Probes are rare regardless of changes in the cluster, because all probing shares
    /// one budget.
    last_probed: Option<Instant>,
    /// The number of ready endpoints of services, with the time of the request.
    endpoints: HashMap<NamespacedName, (Option<usize>, Instant)>,
    /// The logged drifts.
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

    /// The drifts to report now.
    async fn reconcile(
        &mut self,
        cluster: Arc<ClusterSnapshot>,
    ) -> Result<Vec<Drift>, MonitorStopped> {
        let mut inputs = Arc::new(self.read_inputs(&cluster, NodeListSource::LISTED).await?);
        let mut found = self.find(&cluster, &inputs).await;
        // The label may have been added to a node recently.
        let lacks_node = found.iter().map(|candidate| &candidate.drift).any(|drift| {
            drift.drift == DriftKind::AdvertisementWithoutNode
                && !self.tracker.is_tracked(&drift.key())
        });
        if lacks_node {
            inputs = Arc::new(
                self.read_inputs(&cluster, NodeListSource::FRESHLY_LISTED)
                    .await?,
            );
            found = self.find(&cluster, &inputs).await;
        }
        if self.fetch_endpoints(&found).await {
            found = self.find(&cluster, &inputs).await;
        }
        self.probe_candidates(&found, &inputs).await?;
        Ok(self.tracker.observe(Timestamp::now(), &cluster, found))
    }

    /// Run on a blocking thread, because thousands of services take a while.
    async fn find(
        &self,
        cluster: &Arc<ClusterSnapshot>,
        inputs: &Arc<ReconcileInputs>,
    ) -> Vec<DriftCandidate> {
        let endpoints = self.endpoints.iter();
        let endpoints: HashMap<_, _> = endpoints
            .filter_map(|(service, &(number, _))| Some((service.clone(), number?)))
            .collect();
        let (cluster, inputs) = (cluster.clone(), inputs.clone());
        let finding = task::spawn_blocking(move || {
            let wire = ObservedNetwork {
                now: Timestamp::now(),
                bindings: &inputs.bindings,
                nodes: inputs.nodes.as_deref().map(Vec::as_slice),
                node_coverage: inputs.node_coverage,
                endpoints: &endpoints,
            };
            drift::find(&cluster, wire)
        });
        // The task fails only at shutdown.
        finding.await.unwrap_or_default()
    }

    /// The observed bindings of addresses of the cluster.
    async fn read_inputs(
        &self,
        cluster: &Arc<ClusterSnapshot>,
        need: NodeListSource,
    ) -> Result<ReconcileInputs, MonitorStopped> {
        let ours = ClusterAddresses::new(cluster);
        let mut views = self.sources.monitor.bindings().await?;
        views.retain(|view| ours.contains(view.key.ip, cluster));
        let knowledge = self.sources.annotator.resolve(need).await;
        let watched = self.sources.watched.borrow().clone();
        let keys = views.iter().map(|view| view.key).collect();
        let segments: BTreeSet<_> = views.iter().map(|view| view.key.segment).collect();
        let node_coverage = knowledge.node_macs().map(|node_macs| {
            let counts = segments.iter().map(|&segment| node_macs.count(segment));
            counts.fold(NodeCoverage::default(), |sum, one| NodeCoverage {
                all: sum.all.max(one.all),
                on_segment: sum.on_segment + one.on_segment,
                with_mac: sum.with_mac + one.with_mac,
            })
        });
        // Run on a blocking thread, because tens of thousands of bindings take a while.
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
            // The task fails only at shutdown.
            bindings: described.await.unwrap_or_default(),
            nodes: self.sources.annotator.nodes(),
            node_coverage,
        })
    }

    /// Reads the number of ready endpoints of services whose addresses get no reply. Returns whether any was read.
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
                // The API server would not respond for the others either.
                break;
            }
        }
        !wanted.is_empty()
    }

    /// Probes claimed addresses without a service. A stale speaker that only replies to requests claims once and is not
    /// observed again; a single claim would never be reported.
    async fn probe_candidates(
        &mut self,
        found: &[DriftCandidate],
        inputs: &ReconcileInputs,
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
                .or_insert(now + self.grace_period);
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
        // The longest waiting addresses first, so that all are probed eventually.
        due.sort_by_key(|(_, due)| **due);
        let mut keys = Vec::new();
        for (ip, due) in due.into_iter().take(MAX_PROBED) {
            *due = now + PROBE_INTERVAL;
            keys.extend(inputs.keys.iter().filter(|key| key.ip == *ip));
        }
        self.sources.monitor.probe_once(keys).await
    }

    /// Logs each drift once, when it is first reported.
    fn log(&mut self, drifts: &[Drift]) {
        let keys: BTreeSet<_> = drifts.iter().map(Drift::key).collect();
        let new = drifts
            .iter()
            .filter(|drift| !self.logged.contains(&drift.key()));
        for drift in new.take(MAX_LOGGED) {
            tracing::warn!(kind = drift.drift.label(), "{}", drift.summary);
        }
        self.logged = keys;
    }
}

/// The observed bindings of addresses of the cluster.
struct ReconcileInputs {
    keys: Vec<BindingKey>,
    bindings: Vec<BindingRecord>,
    nodes: Option<Arc<Vec<Node>>>,
    node_coverage: Option<NodeCoverage>,
}

/// The addresses of a cluster.
struct ClusterAddresses(Vec<Interval>);

impl ClusterAddresses {
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
        let ours = ClusterAddresses::new(&cluster);
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
