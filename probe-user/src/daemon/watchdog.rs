//! Looks for drift for as long as this node speaks for the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::{
    Cluster, Node,
    cause::NodesKnown,
    drift,
    drift::{Began, Candidate, Drift, DriftKind, Key, Reason, Watch, Wire},
};
use probe_kubernetes::Handle;
use probe_model::{BindingKey, BindingRecord, Named, watched::WatchedInterfaces};
use probe_pools::interval::{Interval, merged};
use tokio::{
    sync::watch,
    task,
    time::{Instant, sleep, timeout},
};

use super::annotate::{Annotator, Need};
use crate::daemon::monitor::{MonitorHandle, Stopped};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(15);
/// Not more often, however much there is to see.
const LEAST_PERIOD: Duration = Duration::from_secs(1);
/// How old the number of ready endpoints may be.
const ENDPOINTS_AGE: Duration = Duration::from_mins(1);
/// Services whose endpoints are asked for in one look, and addresses that are asked for. The rest waits.
const MOST_ASKED: usize = 20;
/// How often an address that no service should have is asked for, while somebody has it.
const ASK_AGAIN: Duration = Duration::from_mins(5);
/// How long the API server may take to say how many endpoints are ready.
const ENDPOINTS_PATIENCE: Duration = Duration::from_secs(2);
/// Drifts that one look logs. The rest is in the metrics.
const MOST_LOGGED: usize = 10;

/// What it reads from.
#[derive(Debug)]
pub struct Sources {
    /// The cluster, and whether this node speaks for it.
    pub handle: Handle,
    /// Names the nodes.
    pub annotator: Annotator,
    /// Who has which address on the wire.
    pub monitor: MonitorHandle,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// How it stands with the cluster, as far as this node is to say.
#[derive(Clone, Debug)]
pub struct Standing {
    is_on: bool,
    cluster: watch::Receiver<Arc<Cluster>>,
    holds: watch::Receiver<bool>,
    drifts: watch::Receiver<Arc<Vec<Drift>>>,
    drift_after: Duration,
}

/// How it stands at one moment.
#[derive(Clone, Debug)]
pub struct Now {
    /// What is known of the cluster.
    pub cluster: Arc<Cluster>,
    /// What has drifted apart: what is critical first.
    pub drifts: Arc<Vec<Drift>>,
}

impl Standing {
    /// There is no cluster.
    pub fn off() -> Self {
        let handle = Handle::off();
        Self {
            is_on: false,
            cluster: handle.cluster(),
            holds: handle.holds(),
            drifts: watch::channel(Arc::default()).1,
            drift_after: Duration::ZERO,
        }
    }

    /// Whether there is a cluster.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// How it stands now; nothing while another node speaks for the cluster.
    pub fn now(&self) -> Option<Now> {
        let holds = *self.holds.borrow();
        holds.then(|| Now {
            cluster: self.cluster.borrow().clone(),
            drifts: self.drifts.borrow().clone(),
        })
    }

    /// How long it lasts before it is told.
    pub const fn drift_after(&self) -> Duration {
        self.drift_after
    }

    /// What has drifted apart, and news of it; none while another node speaks for the cluster.
    pub fn drifts(&self) -> watch::Receiver<Arc<Vec<Drift>>> {
        self.drifts.clone()
    }
}

/// Looks from now on. What has lasted for `patience` is told.
pub fn start(sources: Sources, patience: Duration) -> Standing {
    let (publish, drifts) = watch::channel(Arc::default());
    let standing = Standing {
        is_on: sources.handle.is_on(),
        cluster: sources.handle.cluster(),
        holds: sources.handle.holds(),
        drifts,
        drift_after: patience,
    };
    let watchdog = Watchdog {
        sources,
        watch: Watch::new(patience),
        patience,
        suspects: BTreeMap::new(),
        asked: None,
        period: PERIOD.min(patience / 4).max(LEAST_PERIOD),
        endpoints: HashMap::new(),
        told: BTreeSet::new(),
    };
    task::spawn(watchdog.run(publish));
    standing
}

struct Watchdog {
    sources: Sources,
    watch: Watch,
    patience: Duration,
    period: Duration,
    /// Addresses that somebody claims and no service has, and when to ask for them.
    suspects: BTreeMap<IpAddr, Instant>,
    /// When addresses were last asked for: seldom, whatever changes in the cluster, since all asking has one budget.
    asked: Option<Instant>,
    /// How many endpoints of services were ready, and when.
    endpoints: HashMap<Named, (Option<usize>, Instant)>,
    /// What has been logged.
    told: BTreeSet<Key>,
}

impl Watchdog {
    async fn run(mut self, publish: watch::Sender<Arc<Vec<Drift>>>) {
        let mut holds = self.sources.handle.holds();
        let mut cluster = self.sources.handle.cluster();
        loop {
            if !*holds.borrow_and_update() {
                self.watch.forget();
                self.endpoints.clear();
                self.suspects.clear();
                self.told.clear();
                publish.send_replace(Arc::default());
                if holds.wait_for(|&holds| holds).await.is_err() {
                    return;
                }
            }
            let known = cluster.borrow_and_update().clone();
            let Ok(drifts) = self.look(known).await else {
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
            sleep(LEAST_PERIOD).await;
            tokio::select! {
                () = sleep(self.period.saturating_sub(LEAST_PERIOD)) => {}
                changed = cluster.changed() => if changed.is_err() { return },
                changed = holds.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What is to be told now.
    async fn look(&mut self, cluster: Arc<Cluster>) -> Result<Vec<Drift>, Stopped> {
        let mut sight = Arc::new(self.sight(&cluster, Need::LISTED).await?);
        let mut found = self.find(&cluster, &sight).await;
        // A node may have got the label a minute ago.
        let lacks_node = found.iter().map(|candidate| &candidate.drift).any(|drift| {
            drift.drift == DriftKind::AdvertisementWithoutNode
                && !self.watch.has_found(&drift.key())
        });
        if lacks_node {
            sight = Arc::new(self.sight(&cluster, Need::FRESHLY_LISTED).await?);
            found = self.find(&cluster, &sight).await;
        }
        if self.ask_for_endpoints(&found).await {
            found = self.find(&cluster, &sight).await;
        }
        self.ask_for_suspects(&found, &sight).await?;
        Ok(self.watch.observe(Timestamp::now(), &cluster, found))
    }

    /// Thousands of services take a while, and nobody else shall wait for that.
    async fn find(&self, cluster: &Arc<Cluster>, sight: &Arc<Sight>) -> Vec<Candidate> {
        let endpoints = self.endpoints.iter();
        let endpoints: HashMap<_, _> = endpoints
            .filter_map(|(service, &(number, _))| Some((service.clone(), number?)))
            .collect();
        let (cluster, sight) = (cluster.clone(), sight.clone());
        let finding = task::spawn_blocking(move || {
            let wire = Wire {
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
    async fn sight(&self, cluster: &Arc<Cluster>, need: Need) -> Result<Sight, Stopped> {
        let ours = Ours::new(cluster);
        let mut views = self.sources.monitor.bindings().await?;
        views.retain(|view| ours.contains(view.key.ip, cluster));
        let knowledge = self.sources.annotator.know(need).await;
        let watched = self.sources.watched.borrow().clone();
        let keys = views.iter().map(|view| view.key).collect();
        let segments: BTreeSet<_> = views.iter().map(|view| view.key.segment).collect();
        let nodes_known = knowledge.stations().map(|stations| {
            let counts = segments.iter().map(|&segment| stations.count(segment));
            counts.fold(NodesKnown::default(), |sum, one| NodesKnown {
                all: sum.all.max(one.all),
                here: sum.here + one.here,
                with_mac: sum.with_mac + one.with_mac,
            })
        });
        // Tens of thousands take a while, and detection has one of the two threads.
        let described = task::spawn_blocking(move || {
            let records = views.iter().map(|view| {
                let name = watched.name_of(view.key.segment.interface);
                let mut record = BindingRecord::new(view, name, probe_datapath::clock::MONOTONIC);
                knowledge.binding(&mut record, Some(view.key.segment));
                record
            });
            records.collect()
        });
        Ok(Sight {
            keys,
            // They are only not there when the program ends.
            bindings: described.await.unwrap_or_default(),
            nodes: self.sources.annotator.nodes(),
            nodes_known,
        })
    }

    /// Asks how many endpoints the services have for whose addresses nobody answers. Returns whether anything was asked.
    async fn ask_for_endpoints(&mut self, found: &[Candidate]) -> bool {
        let silent = found.iter().map(|candidate| &candidate.drift);
        let silent = silent.filter(|drift| {
            drift.drift == DriftKind::NotAnnounced && drift.reason != Some(Reason::NoAdvertisement)
        });
        let silent: BTreeSet<_> = silent.filter_map(|drift| drift.service.clone()).collect();
        self.endpoints.retain(|service, _| silent.contains(service));
        let is_fresh = |service: &Named| {
            let known = self.endpoints.get(service);
            known.is_some_and(|(_, asked)| asked.elapsed() < ENDPOINTS_AGE)
        };
        let wanted = silent.into_iter().filter(|service| !is_fresh(service));
        let wanted: Vec<_> = wanted.take(MOST_ASKED).collect();
        for service in &wanted {
            let asked = self.sources.handle.ready_endpoints(service);
            let number = timeout(ENDPOINTS_PATIENCE, asked).await;
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
    async fn ask_for_suspects(
        &mut self,
        found: &[Candidate],
        sight: &Sight,
    ) -> Result<(), Stopped> {
        let claimed = found
            .iter()
            .filter(|candidate| matches!(candidate.began, Began::SeenAgain(_)));
        let claimed: BTreeSet<_> = claimed.filter_map(|candidate| candidate.drift.ip).collect();
        self.suspects.retain(|ip, _| claimed.contains(ip));
        let now = Instant::now();
        for ip in claimed {
            self.suspects.entry(ip).or_insert(now + self.patience);
        }
        let due = self.suspects.iter_mut().filter(|(_, due)| **due <= now);
        let mut due: Vec<_> = due.collect();
        if due.is_empty() || self.asked.is_some_and(|asked| asked.elapsed() < PERIOD) {
            return Ok(());
        }
        self.asked = Some(now);
        // Whoever has waited longest: where they are many, all have their turn.
        due.sort_by_key(|(_, due)| **due);
        let mut keys = Vec::new();
        for (ip, due) in due.into_iter().take(MOST_ASKED) {
            *due = now + ASK_AGAIN;
            keys.extend(sight.keys.iter().filter(|key| key.ip == *ip));
        }
        self.sources.monitor.ask_once(keys).await
    }

    /// Each drift once, when it is first told.
    fn log(&mut self, drifts: &[Drift]) {
        let keys: BTreeSet<_> = drifts.iter().map(Drift::key).collect();
        let new = drifts
            .iter()
            .filter(|drift| !self.told.contains(&drift.key()));
        for drift in new.take(MOST_LOGGED) {
            tracing::warn!(kind = drift.drift.label(), "{}", drift.says);
        }
        self.told = keys;
    }
}

/// What is on the wire of the addresses of the cluster.
struct Sight {
    keys: Vec<BindingKey>,
    bindings: Vec<BindingRecord>,
    nodes: Option<Arc<Vec<Node>>>,
    nodes_known: Option<NodesKnown>,
}

/// Which addresses are a cluster's.
struct Ours(Vec<Interval>);

impl Ours {
    fn new(cluster: &Cluster) -> Self {
        let pools = cluster.inventory().pools.iter();
        let ranges = pools.flat_map(|pool| &pool.ranges);
        Self(merged(ranges.map(|range| range.interval).collect()))
    }

    fn contains(&self, ip: IpAddr, cluster: &Cluster) -> bool {
        let next = self.0.partition_point(|range| range.last() < ip);
        let in_pool = self.0.get(next).is_some_and(|range| range.first() <= ip);
        in_pool || cluster.services_at(ip).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use probe_cluster::{Objects, testing};
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_pools_and_of_services_are_the_clusters() {
        let cluster = Cluster::from(Objects {
            services: vec![testing::service("shop/frontend", &["203.0.113.7"])],
            metallb: vec![testing::pool(
                "production",
                json!({"addresses": ["2001:db8::/64", "192.0.2.240/28", "192.0.2.0/30"]}),
            )],
            ..testing::objects()
        });
        let ours = Ours::new(&cluster);
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
