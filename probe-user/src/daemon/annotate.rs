//! Annotates findings and bindings with cluster data: service and pool of the address, nodes of the owners, and the
//! cause of a dispute.
//!
//! A stage between the monitor and all readers of findings. Findings about one address keep their order; findings about
//! different addresses do not wait for each other. Only a dispute about an address of the cluster waits for the list of
//! nodes. A finding whose annotation takes more than two seconds is published without it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use probe_cluster::{
    ClusterSnapshot, Node, cause,
    cause::{AddressPlacement, CauseContext, is_contested_by_nodes},
    contest::{ContestDuration, ContestHistory},
    node_mac_index,
    node_mac_index::NodeMacIndex,
    tracking,
};
use probe_common::wire::MacAddr;
use probe_kubernetes::{ApiHealth, ClusterHandle};
use probe_model::{
    AddressContext, BindingKey, BindingRecord, ClusterCause, FindingKind, FindingRecord, Links,
    MacPattern, NamespacedName, OwnerRecord, Segment, Severity, on_link,
    watched::WatchedInterfaces,
};
use probe_network::neighbours::{NeighbourReader, NeighbourTable};
use tokio::{
    sync::{Mutex, broadcast, watch},
    time::{Instant, timeout, timeout_at},
};

use self::pending::{FindingAddress, PendingFindings};
use crate::daemon::monitor::MonitorHandle;

mod pending;

/// After this a finding is published without annotation.
const ANNOTATION_DEADLINE: Duration = Duration::from_secs(2);
/// Time limit for the list of nodes. The remaining time until the deadline is for other lookups.
const NODE_LIST_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Maximum number of findings that wait for annotation. Beyond it none is received, and the oldest are lost.
const MAX_PENDING: usize = 1_024;
/// After a timeout no finding waits for this long: a storm of disputes while the API server is unreachable is published
/// without delay.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Maximum age of the list of nodes…
const LIST_AGE: Duration = Duration::from_mins(10);
/// …but for an unknown owner, because a node may have joined since.
const UNKNOWN_HOST_LIST_AGE: Duration = Duration::from_mins(1);
/// Maximum age of the index of node MACs.
const CACHE_AGE: Duration = Duration::from_secs(5);

/// The source of the list of nodes.
pub trait NodeList: Send + Sync + std::fmt::Debug {
    /// The last list of nodes, if any. Sends no request.
    fn known(&self) -> Option<Arc<Vec<Node>>>;
    /// The nodes, not older than `max_age`, if they can be listed.
    fn fetch(&self, max_age: Duration) -> BoxFuture<'_, Option<Arc<Vec<Node>>>>;
}

impl NodeList for ClusterHandle {
    fn known(&self) -> Option<Arc<Vec<Node>>> {
        self.known_nodes()
    }

    fn fetch(&self, max_age: Duration) -> BoxFuture<'_, Option<Arc<Vec<Node>>>> {
        Box::pin(async move {
            self.nodes(max_age).await;
            self.known_nodes()
        })
    }
}

/// The sources of data.
#[derive(Debug)]
pub struct AnnotatorSources {
    /// The cluster data.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// The health, which counts lost findings.
    pub health: Arc<ApiHealth>,
    /// The nodes of the cluster.
    pub nodes: Arc<dyn NodeList>,
    /// The name of this node, if known.
    pub own_addresses: Option<String>,
    /// The monitor with the observed bindings.
    pub monitor: MonitorHandle,
    /// The neighbour tables of the kernel.
    pub neighbours: NeighbourReader,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// Annotates findings and bindings. Clones share their caches.
#[derive(Clone, Debug)]
pub struct Annotator {
    sources: Arc<AnnotatorSources>,
    listens_since: Timestamp,
    cache: Arc<StdMutex<AnnotatorCache>>,
    /// Held while the index of nodes is built, so that it is built only once.
    building: Arc<Mutex<()>>,
    contests: Arc<StdMutex<ContestHistory>>,
}

/// The cached lookups.
#[derive(Debug, Default)]
struct AnnotatorCache {
    node_index: Option<CachedNodeIndex>,
    gave_up_at: Option<Instant>,
}

/// A cached index of node MACs.
#[derive(Clone, Debug)]
struct CachedNodeIndex {
    /// The list of nodes that it was built from, if any.
    nodes: Option<Arc<Vec<Node>>>,
    at: Instant,
    node_macs: Arc<NodeMacIndex>,
}

/// The required source of the list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeListSource {
    /// The last list is sufficient.
    Cached,
    /// Fetch the list if it is older than this.
    Fetched(Duration),
}

impl NodeListSource {
    /// A list of nodes of the usual maximum age.
    pub const LISTED: Self = Self::Fetched(LIST_AGE);
    /// A list of nodes that is at most one minute old.
    pub const FRESHLY_LISTED: Self = Self::Fetched(UNKNOWN_HOST_LIST_AGE);
}

/// A view of the cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: Arc<ClusterSnapshot>,
    /// The index of nodes by MAC.
    node_macs: Arc<NodeMacIndex>,
    /// Whether the nodes were listed.
    nodes_read: bool,
    /// The interfaces of this host.
    links: Arc<Links>,
    /// The time since which this agent observes the network.
    listens_since: Timestamp,
}

impl Annotator {
    /// An annotator with these sources.
    pub fn new(sources: AnnotatorSources) -> Self {
        Self {
            sources: Arc::new(sources),
            listens_since: Timestamp::now(),
            cache: Arc::default(),
            building: Arc::default(),
            contests: Arc::default(),
        }
    }

    /// Annotates and publishes findings until the monitor ends.
    pub async fn follow(
        self,
        mut raw: broadcast::Receiver<Arc<FindingRecord>>,
        public: broadcast::Sender<Arc<FindingRecord>>,
    ) {
        let mut pending = PendingFindings::default();
        let mut annotations = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !annotations.is_empty() {
            tokio::select! {
                biased;
                Some((address, record)) = annotations.next() => {
                    // No subscribers is no error.
                    let _ = public.send(record);
                    if let Some(next) = pending.next(&address) {
                        annotations.push(self.annotate_in_time(address, next));
                    }
                }
                received = raw.recv(), if is_open && pending.len() < MAX_PENDING => match received {
                    Ok(record) => {
                        let address = FindingAddress::of(&record);
                        if let Some(record) = pending.start(&address, record) {
                            annotations.push(self.annotate_in_time(address, record));
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        self.sources.health.add_lost_findings(missed);
                        tracing::warn!(missed, "findings came faster than they could be annotated");
                    }
                    Err(broadcast::error::RecvError::Closed) => is_open = false,
                },
            }
        }
    }

    /// Annotates a finding before the deadline, or returns it unchanged.
    async fn annotate_in_time(
        &self,
        address: FindingAddress,
        raw: Arc<FindingRecord>,
    ) -> (FindingAddress, Arc<FindingRecord>) {
        let annotated = timeout(ANNOTATION_DEADLINE, self.annotate(raw.clone())).await;
        let record = annotated.unwrap_or_else(|_| {
            tracing::debug!(ip = %raw.ip, "a finding is published without annotation");
            raw
        });
        (address, record)
    }

    /// Annotates a finding.
    async fn annotate(&self, raw: Arc<FindingRecord>) -> Arc<FindingRecord> {
        if raw.drill {
            return raw;
        }
        // Quiet conflicts were annotated when they opened.
        let waits = raw.finding.is_open_dispute()
            && raw.finding != FindingKind::ConflictQuiet
            && context(&self.sources.cluster.borrow(), raw.ip).is_some();
        let need = if waits {
            NodeListSource::LISTED
        } else {
            NodeListSource::Cached
        };
        let deadline = Instant::now() + NODE_LIST_TIMEOUT;
        let mut knowledge = self.resolve_until(need, deadline).await;
        let mut record = (*raw).clone();
        let segment = self.segment(&record.interface, record.vlan);
        knowledge.set_node_names(record.ip, &mut record.owners);
        if waits && record.owners.iter().any(|owner| owner.node.is_none()) {
            let need = NodeListSource::FRESHLY_LISTED;
            knowledge = self.resolve_until(need, deadline).await;
        }
        let contest = match record.finding {
            FindingKind::Contested => lock(&self.contests).record(&record),
            _ => ContestDuration::Brief,
        };
        knowledge.annotate_finding(&mut record, segment, contest);
        Arc::new(record)
    }

    /// Annotates bindings.
    pub async fn bindings(&self, mut records: Vec<BindingRecord>) -> Vec<BindingRecord> {
        let knowledge = self.resolve(NodeListSource::LISTED).await;
        let segments: Vec<_> = records
            .iter()
            .map(|record| self.segment(&record.interface, record.vlan))
            .collect();
        // Run on a blocking thread, because there may be tens of thousands.
        let annotated = tokio::task::spawn_blocking(move || {
            for (record, segment) in records.iter_mut().zip(segments) {
                knowledge.annotate_binding(record, segment);
            }
            records
        });
        // The task fails only at shutdown.
        annotated.await.unwrap_or_default()
    }

    /// The current view of the cluster.
    pub async fn resolve(&self, need: NodeListSource) -> ClusterView {
        let deadline = Instant::now() + NODE_LIST_TIMEOUT;
        self.resolve_until(need, deadline).await
    }

    async fn resolve_until(&self, need: NodeListSource, deadline: Instant) -> ClusterView {
        let gave_up_at = lock(&self.cache).gave_up_at;
        let has_given_up = gave_up_at.is_some_and(|at| at.elapsed() < RETRY_AFTER_FAILURE);
        if let NodeListSource::Fetched(age) = need
            && !has_given_up
        {
            let fetched = timeout_at(deadline, self.sources.nodes.fetch(age)).await;
            lock(&self.cache).gave_up_at = fetched.is_err().then(Instant::now);
        }
        let node_index = self.node_index().await;
        ClusterView {
            cluster: self.sources.cluster.borrow().clone(),
            node_macs: node_index.node_macs.clone(),
            nodes_read: node_index.nodes.is_some(),
            links: self.sources.links.borrow().clone(),
            listens_since: self.listens_since,
        }
    }

    /// The cluster data.
    pub fn cluster(&self) -> Arc<ClusterSnapshot> {
        self.sources.cluster.borrow().clone()
    }

    /// The name of this node, if known.
    pub fn node_name(&self) -> Option<&str> {
        self.sources.own_addresses.as_deref()
    }

    /// The last list of nodes.
    pub fn nodes(&self) -> Option<Arc<Vec<Node>>> {
        self.sources.nodes.known()
    }

    /// The index of nodes by MAC: the cached one if it is fresh, else a new one.
    async fn node_index(&self) -> CachedNodeIndex {
        if let Some(fresh) = self.fresh_node_index() {
            return fresh;
        }
        let _building = self.building.lock().await;
        if let Some(fresh) = self.fresh_node_index() {
            return fresh;
        }
        let nodes = self.sources.nodes.known();
        let listed = nodes.as_deref().map_or(&[][..], Vec::as_slice);
        let built = CachedNodeIndex {
            node_macs: Arc::new(self.build_node_index(listed).await),
            nodes,
            at: Instant::now(),
        };
        lock(&self.cache).node_index = Some(built.clone());
        built
    }

    fn fresh_node_index(&self) -> Option<CachedNodeIndex> {
        let nodes = self.sources.nodes.known();
        let cache = lock(&self.cache);
        let last = cache.node_index.as_ref()?;
        let is_same = match (&last.nodes, &nodes) {
            (Some(last), Some(nodes)) => Arc::ptr_eq(last, nodes),
            (last, nodes) => last.is_none() && nodes.is_none(),
        };
        (is_same && last.at.elapsed() < CACHE_AGE).then(|| last.clone())
    }

    async fn build_node_index(&self, nodes: &[Node]) -> NodeMacIndex {
        let AnnotatorSources { links, watched, .. } = &*self.sources;
        let (links, watched) = (links.borrow().clone(), watched.borrow().clone());
        let places = node_mac_index::node_addresses(nodes, &tracking::on_link(&links, &watched));
        let keys: Vec<_> = places.iter().map(|place| place.key).collect();
        // The monitor ends only at shutdown.
        let owners = self.sources.monitor.owners(&keys).await.unwrap_or_default();
        let trusted = if places.is_empty() {
            HashMap::new()
        } else {
            let neighbours = self.sources.neighbours.read().await;
            trusted_neighbours(&neighbours, &links, &watched)
        };
        let mut owners = owners.into_iter();
        let places: Vec<_> = places
            .into_iter()
            .map(|place| {
                let macs = match owners.next() {
                    // A host that disputes the address of a node must not be identified as that node.
                    Some(None) => Vec::new(),
                    Some(Some(macs)) if !macs.is_empty() => macs.to_vec(),
                    Some(Some(_)) | None => trusted.get(&place.key).copied().into_iter().collect(),
                };
                (place, macs)
            })
            .collect();
        let own_macs: HashSet<_> = links.iter().filter_map(|link| link.mac).collect();
        let own_addresses = self
            .sources
            .own_addresses
            .as_deref()
            .map(|name| (name, &own_macs));
        let is_virtual = |mac| mac == MacAddr::ZERO || MacPattern::is_virtual_router(mac);
        NodeMacIndex::new(nodes.len(), &places, own_addresses, is_virtual)
    }

    fn segment(&self, interface: &str, vlan: probe_common::wire::Vlan) -> Option<Segment> {
        let watched = self.sources.watched.borrow();
        let watched = watched.iter().find(|watched| watched.name == interface);
        watched.map(|watched| Segment {
            interface: watched.ifindex,
            vlan,
        })
    }
}

/// Locks a mutex. The values are consistent at any time, even after a panic.
fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The neighbour entries of the kernel by segment.
fn trusted_neighbours(
    neighbours: &NeighbourTable,
    links: &Links,
    watched: &WatchedInterfaces,
) -> HashMap<BindingKey, MacAddr> {
    let mut trusted = HashMap::new();
    for (&(ifindex, ip), &mac) in neighbours {
        let link = links.get(ifindex).into_iter();
        let segments =
            link.flat_map(|link| on_link::segments(links, link, &|index| watched.contains(index)));
        trusted.extend(segments.map(|segment| (BindingKey { segment, ip }, mac)));
    }
    trusted
}

impl ClusterView {
    /// Annotates a finding.
    fn annotate_finding(
        &self,
        record: &mut FindingRecord,
        segment: Option<Segment>,
        contest: ContestDuration,
    ) {
        self.set_node_names(record.ip, &mut record.owners);
        record.cluster = context(&self.cluster, record.ip).map(Box::new);
        if record.cluster.is_some()
            && contest == ContestDuration::Brief
            && is_contested_by_nodes(record)
        {
            record.severity = record.severity.min(Severity::Notice);
        }
        let cause = self.cause(record, segment, contest);
        if let Some(context) = &mut record.cluster {
            context.cause = cause;
        }
    }

    /// Annotates a binding.
    pub fn annotate_binding(&self, record: &mut BindingRecord, segment: Option<Segment>) {
        self.set_node_names(record.ip, &mut record.owners);
        record.cluster = context(&self.cluster, record.ip).map(Box::new);
        let finding = record.as_finding();
        let cause =
            finding.and_then(|finding| self.cause(&finding, segment, ContestDuration::Brief));
        if let Some(context) = &mut record.cluster {
            context.cause = cause;
        }
    }

    /// The index of nodes by MAC; `None` until the nodes are listed.
    pub fn node_macs(&self) -> Option<&NodeMacIndex> {
        self.nodes_read.then_some(&*self.node_macs)
    }

    /// The node of an owner of an address.
    pub fn node_of(&self, ip: IpAddr, macs: &[MacAddr], local: bool) -> Option<&str> {
        let by_address = self.node_macs.node_of(macs, local);
        by_address.or_else(|| self.cluster.reported_node(ip, macs))
    }

    fn set_node_names(&self, ip: IpAddr, owners: &mut [OwnerRecord]) {
        for owner in owners {
            let node = self.node_of(ip, &owner.macs, owner.local);
            owner.node = node.map(str::to_owned);
        }
    }

    /// The cause of a dispute about an address of the cluster, if there is one.
    fn cause(
        &self,
        record: &FindingRecord,
        segment: Option<Segment>,
        contest: ContestDuration,
    ) -> Option<ClusterCause> {
        record.cluster.as_ref()?;
        let segment = segment.filter(|_| self.nodes_read);
        let nodes = segment.map(|segment| self.node_macs.count(segment));
        let context = CauseContext {
            nodes,
            now: Timestamp::now(),
            listens_since: Some(self.listens_since),
            placement: Some(AddressPlacement::of(&self.links, record.ip)),
            contest,
        };
        cause::cause(record, &self.cluster, context)
    }
}

/// The service and pool of an address, as labels; of several services the first by name.
pub fn holder_of(cluster: &ClusterSnapshot, ip: IpAddr) -> (Option<&NamespacedName>, Option<&str>) {
    let services = cluster.services_at(ip).map(|service| &service.named);
    let pool = cluster.pool_of(ip).map(|pool| pool.name.as_str());
    (services.min(), pool)
}

/// The context of an address; `None` if it is not of the cluster.
pub fn context(cluster: &ClusterSnapshot, ip: IpAddr) -> Option<AddressContext> {
    let mut services: Vec<NamespacedName> = cluster
        .services_at(ip)
        .map(|service| service.named.clone())
        .collect();
    services.sort_unstable();
    let pool = cluster.pool_of(ip);
    if services.is_empty() && pool.is_none() {
        return None;
    }
    let announcers = cluster.announcers(ip).into_iter();
    Some(AddressContext {
        announced: cluster.announced(ip),
        pool: pool.map(|pool| NamespacedName {
            namespace: pool.namespace.clone().unwrap_or_default(),
            name: pool.name.clone(),
        }),
        announcers: announcers.map(str::to_owned).collect(),
        services,
        cause: None,
    })
}

#[cfg(test)]
mod tests;
