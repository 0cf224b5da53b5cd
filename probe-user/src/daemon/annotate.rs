//! Adds to findings and bindings what a cluster knows: whose address it is, which node each owner is, and why the
//! address is in dispute.
//!
//! A stage behind the monitor: what it finds goes through here in its order to everybody who reads findings. Only a
//! dispute about an address of the cluster waits for the list of nodes, and not for long.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use probe_cluster::{Cluster, Node, cause, stations, stations::Stations, tracking};
use probe_common::wire::MacAddr;
use probe_kubernetes::{Handle, Health};
use probe_model::{
    Announced, BindingKey, BindingRecord, Cause, Context, FindingKind, FindingRecord, Links,
    MacPattern, Named, OwnerRecord, Segment, on_link, watched::WatchedInterfaces,
};
use probe_network::neighbours::{NeighbourReader, Neighbours};
use tokio::{
    sync::{Mutex, broadcast, watch},
    time::{Instant, timeout},
};

use crate::daemon::monitor::MonitorHandle;

/// How long a dispute waits for the nodes.
const PATIENCE: Duration = Duration::from_secs(2);
/// After waiting in vain nothing waits again for this long: a storm of disputes while the API server is away is told
/// as it comes.
const RESIGNED: Duration = Duration::from_secs(30);
/// How old the list of nodes may be…
const LIST_AGE: Duration = Duration::from_mins(10);
/// …but of an owner that is not on it may have joined since.
const STRANGER_LIST_AGE: Duration = Duration::from_mins(1);
/// How old the picture may be of who has the nodes' addresses.
const FRESH: Duration = Duration::from_secs(5);

/// Where the nodes are known from.
pub trait NodeList: Send + Sync + std::fmt::Debug {
    /// The nodes as they are known now, if they are; asks nobody.
    fn known(&self) -> Option<Arc<Vec<Node>>>;
    /// The nodes as they were not longer ago than that, if they can be had.
    fn fetch(&self, max_age: Duration) -> BoxFuture<'_, Option<Arc<Vec<Node>>>>;
}

impl NodeList for Handle {
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
pub struct Sources {
    /// What is known of the cluster.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Where it is counted what could not be kept up with.
    pub health: Arc<Health>,
    /// Its nodes.
    pub nodes: Arc<dyn NodeList>,
    /// This node, if it is known which it is.
    pub own: Option<String>,
    /// Who has which address on the wire.
    pub monitor: MonitorHandle,
    /// What the kernel believes of its neighbours.
    pub neighbours: NeighbourReader,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
}

/// Adds what the cluster knows. Clones share what they have learnt.
#[derive(Clone, Debug)]
pub struct Annotator {
    sources: Arc<Sources>,
    book: Arc<Mutex<Book>>,
}

/// What was learnt last.
#[derive(Debug, Default)]
struct Book {
    picture: Option<Picture>,
    resigned: Option<Instant>,
}

/// Who the nodes were on the wire.
#[derive(Clone, Debug)]
struct Picture {
    /// By which list of them, if there was one.
    nodes: Option<Arc<Vec<Node>>>,
    at: Instant,
    stations: Arc<Stations>,
}

/// How much it matters to know the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// What is known will do.
    Known,
    /// It is worth a wait: they may be this old.
    Fetched(Duration),
}

impl Need {
    /// A list of nodes of the usual age.
    pub const LISTED: Self = Self::Fetched(LIST_AGE);
    /// A list of nodes that has those that joined, and what has changed about them, but for the last minute.
    pub const FRESHLY_LISTED: Self = Self::Fetched(STRANGER_LIST_AGE);
}

/// What is known of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The nodes by their MACs.
    stations: Arc<Stations>,
    /// Whether there is a list of them.
    are_nodes_known: bool,
}

impl Annotator {
    /// Reads from these.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            book: Arc::default(),
        }
    }

    /// Hands findings on with what is known of them, in their order, until there are no more.
    pub async fn follow(
        self,
        mut raw: broadcast::Receiver<Arc<FindingRecord>>,
        public: broadcast::Sender<Arc<FindingRecord>>,
    ) {
        loop {
            let record = match raw.recv().await {
                Ok(record) => record,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.sources.health.lose_findings(missed);
                    tracing::warn!(
                        missed,
                        "findings came faster than the cluster could be asked"
                    );
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            // Nobody listening is fine.
            let _ = public.send(self.annotate(record).await);
        }
    }

    /// A finding with what is known of it.
    async fn annotate(&self, raw: Arc<FindingRecord>) -> Arc<FindingRecord> {
        if raw.drill {
            return raw;
        }
        let waits = match raw.finding {
            FindingKind::Conflict | FindingKind::Contested => {
                context(&self.sources.cluster.borrow(), raw.ip).is_some()
            }
            FindingKind::NewBinding
            | FindingKind::Moved
            | FindingKind::ConflictQuiet
            | FindingKind::ConflictResolved
            | FindingKind::ConflictExpired
            | FindingKind::ProbeDenied
            | FindingKind::BogusClaim
            | FindingKind::SourceMismatch
            | FindingKind::Silent => false,
        };
        let need = if waits { Need::LISTED } else { Need::Known };
        let mut knowledge = self.know(need).await;
        let mut record = (*raw).clone();
        let segment = self.segment(&record.interface, record.vlan);
        knowledge.name(record.ip, &mut record.owners);
        if waits && record.owners.iter().any(|owner| owner.node.is_none()) {
            knowledge = self.know(Need::FRESHLY_LISTED).await;
        }
        knowledge.finding(&mut record, segment);
        Arc::new(record)
    }

    /// Bindings with what is known of them.
    pub async fn bindings(&self, mut records: Vec<BindingRecord>) -> Vec<BindingRecord> {
        let knowledge = self.know(Need::LISTED).await;
        let segments: Vec<_> = records
            .iter()
            .map(|record| self.segment(&record.interface, record.vlan))
            .collect();
        // Tens of thousands of them keep no other task from running.
        let annotated = tokio::task::spawn_blocking(move || {
            for (record, segment) in records.iter_mut().zip(segments) {
                knowledge.binding(record, segment);
            }
            records
        });
        // It is only not done when the program ends.
        annotated.await.unwrap_or_default()
    }

    /// What is known now.
    pub async fn know(&self, need: Need) -> Knowledge {
        let mut book = self.book.lock().await;
        let resigned = book.resigned.is_some_and(|at| at.elapsed() < RESIGNED);
        let picture = match need {
            Need::Fetched(age) if !resigned => {
                let fetched = timeout(PATIENCE, self.picture(&book, Some(age))).await;
                book.resigned = fetched.is_err().then(Instant::now);
                match fetched {
                    Ok(picture) => picture,
                    Err(_) => self.picture(&book, None).await,
                }
            }
            Need::Fetched(_) | Need::Known => self.picture(&book, None).await,
        };
        let knowledge = Knowledge {
            cluster: self.sources.cluster.borrow().clone(),
            stations: picture.stations.clone(),
            are_nodes_known: picture.nodes.is_some(),
        };
        book.picture = Some(picture);
        knowledge
    }

    /// What is known of the cluster.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.sources.cluster.borrow().clone()
    }

    /// The node that this is, if it is known.
    pub fn own(&self) -> Option<&str> {
        self.sources.own.as_deref()
    }

    /// The nodes, as they are known.
    pub fn nodes(&self) -> Option<Arc<Vec<Node>>> {
        self.sources.nodes.known()
    }

    /// Who the nodes are on the wire: the last picture where it is fresh, else a new one.
    async fn picture(&self, book: &Book, age: Option<Duration>) -> Picture {
        let fetched = match age {
            Some(age) => self.sources.nodes.fetch(age).await,
            None => None,
        };
        let nodes = fetched.or_else(|| self.sources.nodes.known());
        let is_same = |last: &Picture| match (&last.nodes, &nodes) {
            (Some(last), Some(nodes)) => Arc::ptr_eq(last, nodes),
            (last, nodes) => last.is_none() && nodes.is_none(),
        };
        let last = book.picture.as_ref();
        if let Some(last) = last.filter(|last| is_same(last) && last.at.elapsed() < FRESH) {
            return last.clone();
        }
        let listed = nodes.as_deref().map_or(&[][..], Vec::as_slice);
        Picture {
            stations: Arc::new(self.stations(listed).await),
            nodes,
            at: Instant::now(),
        }
    }

    async fn stations(&self, nodes: &[Node]) -> Stations {
        let Sources { links, watched, .. } = &*self.sources;
        let (links, watched) = (links.borrow().clone(), watched.borrow().clone());
        let places = stations::places(nodes, &tracking::on_link(&links, &watched));
        let keys: Vec<_> = places.iter().map(|place| place.key).collect();
        // The monitor ends when the program does.
        let owners = self.sources.monitor.owners(&keys).await.unwrap_or_default();
        let believed = if places.is_empty() {
            HashMap::new()
        } else {
            let neighbours = self.sources.neighbours.read().await;
            believed(&neighbours, &links, &watched)
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
        let own = self.sources.own.as_deref().map(|name| (name, &own_macs));
        let is_virtual = |mac| mac == MacAddr::ZERO || MacPattern::is_virtual_router(mac);
        Stations::new(nodes.len(), &places, own, is_virtual)
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

/// What the kernel believes of its neighbours, by segment.
fn believed(
    neighbours: &Neighbours,
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

impl Knowledge {
    /// Adds to a finding what is known of it.
    pub fn finding(&self, record: &mut FindingRecord, segment: Option<Segment>) {
        self.name(record.ip, &mut record.owners);
        record.cluster = context(&self.cluster, record.ip).map(Box::new);
        let cause = self.cause(record, segment);
        if let Some(context) = &mut record.cluster {
            context.cause = cause;
        }
    }

    /// Adds to a binding what is known of it.
    pub fn binding(&self, record: &mut BindingRecord, segment: Option<Segment>) {
        self.name(record.ip, &mut record.owners);
        record.cluster = context(&self.cluster, record.ip).map(Box::new);
        let finding = record.as_finding();
        let cause = finding.and_then(|finding| self.cause(&finding, segment));
        if let Some(context) = &mut record.cluster {
            context.cause = cause;
        }
    }

    /// The nodes by their MACs; `None` while there is no list of them.
    pub fn stations(&self) -> Option<&Stations> {
        self.are_nodes_known.then_some(&*self.stations)
    }

    /// The node that an owner of an address is.
    pub fn node_of(&self, ip: IpAddr, macs: &[MacAddr], local: bool) -> Option<&str> {
        let by_address = self.stations.node_of(macs, local);
        by_address.or_else(|| self.cluster.node_by_word(ip, macs))
    }

    fn name(&self, ip: IpAddr, owners: &mut [OwnerRecord]) {
        for owner in owners {
            let node = self.node_of(ip, &owner.macs, owner.local);
            owner.node = node.map(str::to_owned);
        }
    }

    /// Why an address of the cluster is in dispute, if it is.
    fn cause(&self, record: &FindingRecord, segment: Option<Segment>) -> Option<Cause> {
        record.cluster.as_ref()?;
        let segment = segment.filter(|_| self.are_nodes_known);
        let nodes = segment.map(|segment| self.stations.count(segment));
        cause::cause(record, &self.cluster, nodes)
    }
}

/// Whose address it is, as labels: the service that has it, of several the first by its name, and the pool that it is
/// from.
pub fn whose(cluster: &Cluster, ip: IpAddr) -> (Option<&Named>, Option<&str>) {
    let services = cluster.services_at(ip).map(|service| &service.named);
    let pool = cluster.pool_of(ip).map(|pool| pool.name.as_str());
    (services.min(), pool)
}

/// Whose address it is; `None` where the cluster does not know it.
pub fn context(cluster: &Cluster, ip: IpAddr) -> Option<Context> {
    let mut services: Vec<Named> = cluster
        .services_at(ip)
        .map(|service| service.named.clone())
        .collect();
    services.sort_unstable();
    let pool = cluster.pool_of(ip);
    if services.is_empty() && pool.is_none() {
        return None;
    }
    let announcers = cluster.announcers(ip).into_iter();
    Some(Context {
        announced: pool.map_or(Announced::Unknown, |pool| cluster.announcement_of(pool)),
        pool: pool.map(|pool| Named {
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
