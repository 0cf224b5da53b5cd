//! The client of the Kubernetes API server: watches, leader election, Events.
//!
//! Everything else uses a [`ClusterHandle`], which exists without a cluster too, and in a program that was built without the
//! feature `kubernetes`: it then has no data. Must not depend on `datapath`, `prober` or `notify`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

#[cfg(not(feature = "kubernetes"))]
mod absent;
#[cfg(feature = "kubernetes")]
mod backoff;
#[cfg(feature = "kubernetes")]
mod connect;
mod error;
#[cfg(feature = "kubernetes")]
mod events;
#[cfg(all(feature = "kubernetes", any(test, feature = "testing")))]
pub mod fake;
pub mod handover;
pub mod health;
#[cfg(feature = "kubernetes")]
mod lease;
#[cfg(feature = "kubernetes")]
mod list;
#[cfg(feature = "kubernetes")]
mod nodes;
mod pools;
#[cfg(feature = "kubernetes")]
mod rate_limit;
#[cfg(feature = "kubernetes")]
mod read;
#[cfg(feature = "kubernetes")]
mod request;
#[cfg(feature = "kubernetes")]
mod start;
#[cfg(feature = "kubernetes")]
mod watcher;

#[cfg(feature = "kubernetes")]
#[cfg(test)]
mod tests;

#[cfg(not(feature = "kubernetes"))]
pub use absent::ApiConnection;
#[cfg(not(feature = "kubernetes"))]
pub use absent::NewEvent;
#[cfg(feature = "kubernetes")]
pub use connect::ApiConnection;
pub use error::{ApiOutcome, ApiRequestError, ConnectError};
#[cfg(feature = "kubernetes")]
pub use events::NewEvent;
pub use handover::{Digest, LeaderHandover, PredecessorState};
pub use health::ApiHealth;
pub use pools::PoolObjects;
use probe_cluster::{
    object,
    snapshot::{ClusterSnapshot, Node},
    tracking::SegmentCoverage,
};
use probe_model::NamespacedName;

/// The nodes are asked for at most this often, however that goes.
const NODES_INTERVAL: Duration = Duration::from_mins(1);

/// How long a list of nodes is believed while it cannot be read again.
const NODES_MAX_AGE: Duration = Duration::from_mins(15);

/// What is known of the cluster, for everybody who wants to know. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    inner: Arc<ClusterHandleInner>,
}

#[derive(Debug)]
struct ClusterHandleInner {
    connection: Option<ApiConnection>,
    node_name: Option<String>,
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
    leadership: watch::Sender<bool>,
    handover: LeaderHandover,
    /// How much this node sees of the cluster's addresses, when that is known.
    coverage: watch::Sender<Option<SegmentCoverage>>,
    health: Arc<ApiHealth>,
    nodes: Mutex<NodeCache>,
    /// How many nodes there are, when that is known.
    node_count: watch::Sender<usize>,
    /// The last list of nodes, for those who do not wait.
    known_nodes: watch::Sender<Option<Arc<Vec<Node>>>>,
}

#[derive(Debug, Default)]
struct NodeCache {
    list: Arc<Vec<Node>>,
    /// Of which labels they have the values.
    labels: BTreeSet<String>,
    read: Option<Instant>,
    tried: Option<Instant>,
}

impl NodeCache {
    fn is_fresh(&self, labels: &BTreeSet<String>, max_age: Duration) -> bool {
        let is_fresh = self.read.is_some_and(|read| read.elapsed() <= max_age);
        is_fresh && labels.is_subset(&self.labels)
    }
}

impl ClusterHandle {
    /// Knows nothing and never will.
    pub fn off() -> Self {
        Self::new(None, None, Arc::default())
    }

    fn new(
        connection: Option<ApiConnection>,
        node_name: Option<String>,
        health: Arc<ApiHealth>,
    ) -> Self {
        Self {
            inner: Arc::new(ClusterHandleInner {
                connection,
                node_name,
                cluster: watch::Sender::new(Arc::default()),
                leadership: watch::Sender::new(false),
                handover: LeaderHandover::default(),
                coverage: watch::Sender::default(),
                health,
                nodes: Mutex::default(),
                node_count: watch::Sender::new(0),
                known_nodes: watch::Sender::default(),
            }),
        }
    }

    /// Whether there is a cluster to speak of.
    pub fn is_on(&self) -> bool {
        self.inner.connection.is_some()
    }

    /// What is known of the cluster, and news of it. Where there is none there is never any.
    pub fn cluster(&self) -> watch::Receiver<Arc<ClusterSnapshot>> {
        self.inner.cluster.subscribe()
    }

    /// Whether this node speaks for the cluster: at most one does.
    pub fn holds(&self) -> watch::Receiver<bool> {
        self.inner.leadership.subscribe()
    }

    /// What whoever spoke for the cluster before has told, and what this node leaves to the next.
    pub fn handover(&self) -> LeaderHandover {
        self.inner.handover.clone()
    }

    /// How much this node sees of the cluster's addresses: for whoever finds it out to say, and for others to read.
    /// Whoever sees nothing does not strive to speak for the cluster.
    pub fn segment_coverage(&self) -> &watch::Sender<Option<SegmentCoverage>> {
        &self.inner.coverage
    }

    /// How the connection is doing.
    pub fn health(&self) -> Arc<ApiHealth> {
        self.inner.health.clone()
    }

    /// The connection, for what this has no word for.
    pub fn connection(&self) -> Option<&ApiConnection> {
        self.inner.connection.as_ref()
    }

    /// What the cluster calls this node, if we were told.
    pub fn node_name(&self) -> Option<&str> {
        self.inner.node_name.as_deref()
    }

    /// The nodes, with the labels that advertisements select by; asked for if what is known is older than this, but at
    /// most once a minute. What is known, or nothing, if they cannot be read. To be given up at any time: what was
    /// asked is kept for the next.
    pub async fn nodes(&self, max_age: Duration) -> Arc<Vec<Node>> {
        let Some(connection) = self.inner.connection.clone() else {
            return Arc::default();
        };
        let inner = self.inner.clone();
        let reading = tokio::spawn(async move {
            let mut known = inner.nodes.lock().await;
            let mut labels = object::selected_labels(&inner.cluster.borrow().objects().metallb);
            let is_early = known
                .tried
                .is_some_and(|tried| tried.elapsed() < NODES_INTERVAL);
            if !known.is_fresh(&labels, max_age) && !is_early {
                known.tried = Some(Instant::now());
                // A label that somebody asked for once will be asked for again.
                if labels.len() < object::MAX_LABELS {
                    labels.append(&mut known.labels.clone());
                }
                match connection.nodes(&labels).await {
                    Ok(nodes) => {
                        inner.node_count.send_replace(nodes.len());
                        known.list = Arc::new(nodes);
                        inner.known_nodes.send_replace(Some(known.list.clone()));
                        known.labels = labels;
                        known.read = Some(Instant::now());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the cluster's nodes");
                        let read = known.read.map(|read| read.elapsed());
                        if read.is_some_and(|age| age > NODES_MAX_AGE) {
                            // There may be others by now, and who is no node is not to be said.
                            inner.known_nodes.send_replace(None);
                        }
                    }
                }
            }
            known.list.clone()
        });
        // It is only not there when the program ends.
        reading.await.unwrap_or_default()
    }

    /// The nodes as they were last read, if that was not too long ago; asks nobody.
    pub fn known_nodes(&self) -> Option<Arc<Vec<Node>>> {
        self.inner.known_nodes.borrow().clone()
    }

    /// How many endpoints of a service are ready; nothing if that cannot be told.
    pub async fn ready_endpoints(&self, service: &NamespacedName) -> Option<usize> {
        let connection = self.inner.connection.as_ref()?;
        let ready = connection.ready_endpoints(service).await;
        ready
            .inspect_err(|error| tracing::warn!(%error, %service, "cannot read its endpoints"))
            .ok()
    }
}

/// The tasks behind a [`ClusterHandle`].
#[derive(Debug, Default)]
pub struct ClusterTasks {
    stop: watch::Sender<bool>,
    elector: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl ClusterTasks {
    /// Ends them. Whoever speaks for the cluster says that it no longer does: within a few seconds, or not at all.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Some(elector) = self.elector {
            // That it panicked was said when it did.
            let _ = elector.await;
        }
        for task in self.others {
            task.abort();
        }
    }
}
