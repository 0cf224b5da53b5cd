//! The client of the Kubernetes API server: watches, leader election, Events.
//!
//! Everything else uses a [`ClusterHandle`], which exists without a cluster too, and in a program that was built without
//! the feature `kubernetes`: it then has no data. Must not depend on `datapath` or `prober`.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use probe_cluster::{
    object,
    snapshot::{ClusterSnapshot, Node},
    tracking::SegmentCoverage,
};
use probe_model::{Leadership, NamespacedName};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

#[cfg(not(feature = "kubernetes"))]
mod absent;
#[cfg(feature = "kubernetes")]
mod connect;
mod error;
mod event_dedup;
mod event_sink;
#[cfg(feature = "kubernetes")]
mod events;
#[cfg(all(feature = "kubernetes", any(test, feature = "testing")))]
pub mod fake;
pub mod health;
mod kubernetes_event;
#[cfg(feature = "kubernetes")]
mod lease;
#[cfg(feature = "kubernetes")]
mod list;
#[cfg(feature = "kubernetes")]
mod nodes;
mod pools;
#[cfg(feature = "kubernetes")]
mod read;
#[cfg(feature = "kubernetes")]
mod request;
#[cfg(feature = "kubernetes")]
mod start;
#[cfg(feature = "kubernetes")]
mod timings;
#[cfg(feature = "kubernetes")]
mod watcher;

#[cfg(feature = "kubernetes")]
#[cfg(test)]
mod tests;

#[cfg(not(feature = "kubernetes"))]
pub use absent::ApiConnection;
#[cfg(feature = "kubernetes")]
pub use connect::ApiConnection;
pub use error::{ApiOutcome, ApiRequestError, ConnectError};
pub use event_sink::EventSink;
pub use health::ApiHealth;
pub use pools::PoolObjects;

/// The nodes are listed at most this often, whatever the result.
const NODES_INTERVAL: Duration = Duration::from_mins(1);

/// How long a list of nodes is used while it cannot be renewed.
const NODES_MAX_AGE: Duration = Duration::from_mins(15);

/// A handle to the cluster data and the role of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    inner: Arc<ClusterHandleInner>,
}

#[derive(Debug)]
struct ClusterHandleInner {
    connection: Option<ApiConnection>,
    node_name: Option<String>,
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
    leadership: watch::Sender<Leadership>,
    is_leader: watch::Sender<bool>,
    /// The segment coverage of this node, once known.
    coverage: watch::Sender<Option<SegmentCoverage>>,
    health: Arc<ApiHealth>,
    nodes: Mutex<NodeCache>,
    /// The number of nodes, once known.
    node_count: watch::Sender<usize>,
    /// The last list of nodes, without waiting.
    known_nodes: watch::Sender<Option<Arc<Vec<Node>>>>,
}

#[derive(Debug, Default)]
struct NodeCache {
    list: Arc<Vec<Node>>,
    /// The labels that were copied.
    labels: BTreeSet<String>,
    listed: Option<Instant>,
    tried: Option<Instant>,
}

impl NodeCache {
    fn is_fresh(&self, labels: &BTreeSet<String>, max_age: Duration) -> bool {
        let is_fresh = self
            .listed
            .is_some_and(|listed| listed.elapsed() <= max_age);
        is_fresh && labels.is_subset(&self.labels)
    }
}

impl ClusterHandle {
    /// A handle without a cluster.
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
                leadership: watch::Sender::default(),
                is_leader: watch::Sender::default(),
                coverage: watch::Sender::default(),
                health,
                nodes: Mutex::default(),
                node_count: watch::Sender::new(0),
                known_nodes: watch::Sender::default(),
            }),
        }
    }

    /// Whether there is a cluster.
    pub fn is_on(&self) -> bool {
        self.inner.connection.is_some()
    }

    /// The current snapshot of the cluster, and its changes. Empty without a cluster.
    pub fn cluster(&self) -> watch::Receiver<Arc<ClusterSnapshot>> {
        self.inner.cluster.subscribe()
    }

    /// Whether this process is the leader: at most one in the cluster is.
    pub fn is_leader(&self) -> watch::Receiver<bool> {
        self.inner.is_leader.subscribe()
    }

    /// The same, with the predecessor.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The segment coverage of this node. A node without coverage avoids becoming the leader.
    pub fn segment_coverage(&self) -> &watch::Sender<Option<SegmentCoverage>> {
        &self.inner.coverage
    }

    /// The health of the connection.
    pub fn health(&self) -> Arc<ApiHealth> {
        self.inner.health.clone()
    }

    /// The connection.
    pub fn connection(&self) -> Option<&ApiConnection> {
        self.inner.connection.as_ref()
    }

    /// The name of this node in the cluster, if it is known.
    pub fn node_name(&self) -> Option<&str> {
        self.inner.node_name.as_deref()
    }

    /// The nodes, with the labels that advertisements select by; listed if the last list is older than this, but at most
    /// once a minute. The last list, or an empty one, if they cannot be listed. Cancel safe: the list is kept for the
    /// next caller.
    pub async fn nodes(&self, max_age: Duration) -> Arc<Vec<Node>> {
        let Some(connection) = self.inner.connection.clone() else {
            return Arc::default();
        };
        let inner = self.inner.clone();
        let listing = tokio::spawn(async move {
            let mut cache = inner.nodes.lock().await;
            let mut labels = object::selected_labels(&inner.cluster.borrow().objects().metallb);
            let is_early = cache
                .tried
                .is_some_and(|tried| tried.elapsed() < NODES_INTERVAL);
            if cache.is_fresh(&labels, max_age) || is_early {
                return cache.list.clone();
            }
            cache.tried = Some(Instant::now());
            // A label that was requested once will be requested again.
            if labels.len() < object::MAX_LABELS {
                labels.append(&mut cache.labels.clone());
            }
            match connection.nodes(&labels).await {
                Ok(nodes) => {
                    inner.node_count.send_replace(nodes.len());
                    cache.list = Arc::new(nodes);
                    inner.known_nodes.send_replace(Some(cache.list.clone()));
                    cache.labels = labels;
                    cache.listed = Some(Instant::now());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot list the cluster's nodes");
                    let listed = cache.listed.map(|listed| listed.elapsed());
                    if listed.is_some_and(|age| age > NODES_MAX_AGE) {
                        // There may be other nodes by now.
                        inner.known_nodes.send_replace(None);
                    }
                }
            }
            cache.list.clone()
        });
        // The task fails only at shutdown.
        listing.await.unwrap_or_default()
    }

    /// The last list of nodes, if it is not too old. Sends no request.
    pub fn known_nodes(&self) -> Option<Arc<Vec<Node>>> {
        self.inner.known_nodes.borrow().clone()
    }

    /// The number of ready endpoints of a service; `None` if it cannot be read.
    pub async fn ready_endpoints(&self, service: &NamespacedName) -> Option<usize> {
        let connection = self.inner.connection.as_ref()?;
        let ready = connection.ready_endpoints(service).await;
        ready
            .inspect_err(|error| tracing::warn!(%error, %service, "cannot list its endpoints"))
            .ok()
    }
}

/// The tasks of a [`ClusterHandle`].
#[derive(Debug, Default)]
pub struct ClusterTasks {
    stop: watch::Sender<bool>,
    elector: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl ClusterTasks {
    /// The tasks with their names, for a supervisor to wait for, and what stops the leader election. The leader
    /// election then ends by itself, within a few seconds: it releases the Lease.
    pub fn into_parts(self) -> (watch::Sender<bool>, Vec<(&'static str, JoinHandle<()>)>) {
        let names = ["api_watchers", "node_count"]
            .into_iter()
            .chain(std::iter::repeat("cluster"));
        let elector = self.elector.map(|task| (Self::LEADER_ELECTION, task));
        let tasks = elector.into_iter().chain(names.zip(self.tasks));
        (self.stop, tasks.collect())
    }

    /// The name of the leader election among the tasks.
    pub const LEADER_ELECTION: &'static str = "leader_election";

    /// Stops them. A leader releases the Lease, within a few seconds or not at all.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Some(elector) = self.elector {
            // A panic was reported when it happened.
            let _ = elector.await;
        }
        for task in self.tasks {
            task.abort();
        }
    }
}
