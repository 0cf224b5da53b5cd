//! Adds to findings and bindings what a cluster knows: whose address it is, which node each owner is, and why the
//! address is in dispute.
//!
//! A stage between the monitor and all readers of findings. Findings about one address keep their order; findings about
//! different addresses do not wait for each other. Only a dispute about an address of the cluster waits for the list of
//! nodes. What cannot be looked up within two seconds is published without.

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
/// How long a dispute waits for the list of nodes. What is left until the deadline is for the rest.
const NODE_LIST_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Findings that wait for their annotation. While there are more, none is received, and the oldest are lost.
const MAX_PENDING: usize = 1_024;
/// After waiting in vain nothing waits again for this long: a storm of disputes while the API server is away is
/// published as it comes.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How old the list of nodes may be…
const LIST_AGE: Duration = Duration::from_mins(10);
/// …but of an owner that is not on it may have joined since.
const UNKNOWN_HOST_LIST_AGE: Duration = Duration::from_mins(1);
/// How old the picture may be of who has the nodes' addresses.
const CACHE_AGE: Duration = Duration::from_secs(5);

/// Where the nodes are known from.
pub trait NodeList: Send + Sync + std::fmt::Debug {
    /// The nodes as they are known now, if they are; asks nobody.
    fn known(&self) -> Option<Arc<Vec<Node>>>;
    /// The nodes as they were not longer ago than that, if they can be had.
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

/// What it reads from.
#[derive(Debug)]
pub struct AnnotatorSources {
    /// What is known of the cluster.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// Where it is counted what could not be kept up with.
    pub health: Arc<ApiHealth>,
    /// Its nodes.
    pub nodes: Arc<dyn NodeList>,
    /// This node, if it is known which it is.
    pub own_addresses: Option<String>,
    /// Who has which address on the wire.
    pub monitor: MonitorHandle,
    /// What the kernel believes of its neighbours.
    pub neighbours: NeighbourReader,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// Adds what the cluster knows. Clones share their caches.
#[derive(Clone, Debug)]
pub struct Annotator {
    sources: Arc<AnnotatorSources>,
    listens_since: Timestamp,
    cache: Arc<StdMutex<AnnotatorCache>>,
    /// Held while the index of nodes is built: once for all that wait for it.
    building: Arc<Mutex<()>>,
    contests: Arc<StdMutex<ContestHistory>>,
}

/// What was looked up last.
#[derive(Debug, Default)]
struct AnnotatorCache {
    node_index: Option<CachedNodeIndex>,
    gave_up_at: Option<Instant>,
}

/// Who the nodes were on the wire.
#[derive(Clone, Debug)]
struct CachedNodeIndex {
    /// By which list of them, if there was one.
    nodes: Option<Arc<Vec<Node>>>,
    at: Instant,
    node_macs: Arc<NodeMacIndex>,
}

/// How much it matters to know the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeListSource {
    /// What is known will do.
    Cached,
    /// It is worth a wait: they may be this old.
    Fetched(Duration),
}

impl NodeListSource {
    /// A list of nodes of the usual age.
    pub const LISTED: Self = Self::Fetched(LIST_AGE);
    /// A list of nodes that has those that joined, and what has changed about them, but for the last minute.
    pub const FRESHLY_LISTED: Self = Self::Fetched(UNKNOWN_HOST_LIST_AGE);
}

/// What is known of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: Arc<ClusterSnapshot>,
    /// The nodes by their MACs.
    node_macs: Arc<NodeMacIndex>,
    /// Whether there is a list of them.
    nodes_read: bool,
    /// The interfaces of this host.
    links: Arc<Links>,
    /// Since when this agent observes the network.
    listens_since: Timestamp,
}

impl Annotator {
    /// Reads from these.
    pub fn new(sources: AnnotatorSources) -> Self {
        Self {
            sources: Arc::new(sources),
            listens_since: Timestamp::now(),
            cache: Arc::default(),
            building: Arc::default(),
            contests: Arc::default(),
        }
    }

    /// Publishes findings with what is known of them until there are no more.
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
                    // Nobody listening is fine.
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

    /// A finding with what could be looked up before the deadline; as it is if nothing could.
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

    /// A finding with what is known of it.
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

    /// Bindings with what is known of them.
    pub async fn bindings(&self, mut records: Vec<BindingRecord>) -> Vec<BindingRecord> {
        let knowledge = self.resolve(NodeListSource::LISTED).await;
        let segments: Vec<_> = records
            .iter()
            .map(|record| self.segment(&record.interface, record.vlan))
            .collect();
        // Tens of thousands of them keep no other task from running.
        let annotated = tokio::task::spawn_blocking(move || {
            for (record, segment) in records.iter_mut().zip(segments) {
                knowledge.annotate_binding(record, segment);
            }
            records
        });
        // It is only not done when the program ends.
        annotated.await.unwrap_or_default()
    }

    /// What is known now.
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

    /// What is known of the cluster.
    pub fn cluster(&self) -> Arc<ClusterSnapshot> {
        self.sources.cluster.borrow().clone()
    }

    /// The node that this is, if it is known.
    pub fn own_node_name(&self) -> Option<&str> {
        self.sources.own_addresses.as_deref()
    }

    /// The nodes, as they are known.
    pub fn nodes(&self) -> Option<Arc<Vec<Node>>> {
        self.sources.nodes.known()
    }

    /// The nodes by their MACs: the last index if it is fresh, else a new one.
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
        // The monitor ends when the program does.
        let owners = self.sources.monitor.owners(&keys).await.unwrap_or_default();
        let believed = if places.is_empty() {
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
                    // Whoever disputes a node's address is not to be taken for it.
                    Some(None) => Vec::new(),
                    Some(Some(macs)) if !macs.is_empty() => macs.to_vec(),
                    Some(Some(_)) | None => believed.get(&place.key).copied().into_iter().collect(),
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

/// The value behind a mutex. What is behind these is whole at every moment, also after a panic.
fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the kernel believes of its neighbours, by segment.
fn trusted_neighbours(
    neighbours: &NeighbourTable,
    links: &Links,
    watched: &WatchedInterfaces,
) -> HashMap<BindingKey, MacAddr> {
    let mut believed = HashMap::new();
    for (&(ifindex, ip), &mac) in neighbours {
        let link = links.get(ifindex).into_iter();
        let segments =
            link.flat_map(|link| on_link::segments(links, link, &|index| watched.contains(index)));
        believed.extend(segments.map(|segment| (BindingKey { segment, ip }, mac)));
    }
    believed
}

impl ClusterView {
    /// Adds to a finding what is known of it.
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

    /// Adds to a binding what is known of it.
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

    /// The nodes by their MACs; `None` while there is no list of them.
    pub fn stations(&self) -> Option<&NodeMacIndex> {
        self.nodes_read.then_some(&*self.node_macs)
    }

    /// The node that an owner of an address is.
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

    /// Why an address of the cluster is in dispute, if it is.
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

/// Whose address it is, as labels: the service that has it, of several the first by its name, and the pool that it is
/// from.
pub fn holder_of(cluster: &ClusterSnapshot, ip: IpAddr) -> (Option<&NamespacedName>, Option<&str>) {
    let services = cluster.services_at(ip).map(|service| &service.named);
    let pool = cluster.pool_of(ip).map(|pool| pool.name.as_str());
    (services.min(), pool)
}

/// Whose address it is; `None` where the cluster does not know it.
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
