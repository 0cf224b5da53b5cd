//! The client of the Kubernetes API server: watches, leader election, Events.
//!
//! Everything else uses a [`Handle`], which exists without a cluster too, and in a program that was built without the
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
#[cfg(feature = "kubernetes")]
mod follow;
pub mod handover;
pub mod health;
#[cfg(feature = "kubernetes")]
mod lease;
#[cfg(feature = "kubernetes")]
mod list;
#[cfg(feature = "kubernetes")]
mod nodes;
#[cfg(feature = "kubernetes")]
mod pace;
mod pools;
#[cfg(feature = "kubernetes")]
mod read;
#[cfg(feature = "kubernetes")]
mod request;
#[cfg(feature = "kubernetes")]
mod start;

#[cfg(feature = "kubernetes")]
#[cfg(test)]
mod tests;

#[cfg(not(feature = "kubernetes"))]
pub use absent::Connection;
#[cfg(not(feature = "kubernetes"))]
pub use absent::NewEvent;
#[cfg(feature = "kubernetes")]
pub use connect::Connection;
pub use error::{ConnectError, Outcome, ReadError};
#[cfg(feature = "kubernetes")]
pub use events::NewEvent;
pub use handover::{Before, Digest, Handover};
pub use health::Health;
pub use pools::PoolObjects;
use probe_cluster::{
    model::{Cluster, Node},
    object,
    tracking::Sight,
};
use probe_model::Named;

/// The nodes are asked for at most this often, however that goes.
const NODES_INTERVAL: Duration = Duration::from_mins(1);

/// How long a list of nodes is believed while it cannot be read again.
const NODES_BELIEVED: Duration = Duration::from_mins(15);

/// What is known of the cluster, for everybody who wants to know. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Option<Connection>,
    node_name: Option<String>,
    cluster: watch::Sender<Arc<Cluster>>,
    holds: watch::Sender<bool>,
    handover: Handover,
    /// How much this node sees of the cluster's addresses, when that is known.
    sight: watch::Sender<Option<Sight>>,
    health: Arc<Health>,
    nodes: Mutex<Nodes>,
    /// How many nodes there are, when that is known.
    node_count: watch::Sender<usize>,
    /// The last list of nodes, for those who do not wait.
    known_nodes: watch::Sender<Option<Arc<Vec<Node>>>>,
}

#[derive(Debug, Default)]
struct Nodes {
    list: Arc<Vec<Node>>,
    /// Of which labels they have the values.
    labels: BTreeSet<String>,
    read: Option<Instant>,
    tried: Option<Instant>,
}

impl Nodes {
    fn are_good(&self, labels: &BTreeSet<String>, max_age: Duration) -> bool {
        let is_fresh = self.read.is_some_and(|read| read.elapsed() <= max_age);
        is_fresh && labels.is_subset(&self.labels)
    }
}

impl Handle {
    /// Knows nothing and never will.
    pub fn off() -> Self {
        Self::new(None, None, Arc::default())
    }

    fn new(connection: Option<Connection>, node_name: Option<String>, health: Arc<Health>) -> Self {
        Self {
            inner: Arc::new(Inner {
                connection,
                node_name,
                cluster: watch::Sender::new(Arc::default()),
                holds: watch::Sender::new(false),
                handover: Handover::default(),
                sight: watch::Sender::default(),
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
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.inner.cluster.subscribe()
    }

    /// Whether this node speaks for the cluster: at most one does.
    pub fn holds(&self) -> watch::Receiver<bool> {
        self.inner.holds.subscribe()
    }

    /// What whoever spoke for the cluster before has told, and what this node leaves to the next.
    pub fn handover(&self) -> Handover {
        self.inner.handover.clone()
    }

    /// How much this node sees of the cluster's addresses: for whoever finds it out to say, and for others to read.
    /// Whoever sees nothing does not strive to speak for the cluster.
    pub fn sight(&self) -> &watch::Sender<Option<Sight>> {
        &self.inner.sight
    }

    /// How the connection is doing.
    pub fn health(&self) -> Arc<Health> {
        self.inner.health.clone()
    }

    /// The connection, for what this has no word for.
    pub fn connection(&self) -> Option<&Connection> {
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
            if !known.are_good(&labels, max_age) && !is_early {
                known.tried = Some(Instant::now());
                // A label that somebody asked for once will be asked for again.
                if labels.len() < object::MOST_LABELS {
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
                        if read.is_some_and(|age| age > NODES_BELIEVED) {
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
    pub async fn ready_endpoints(&self, service: &Named) -> Option<usize> {
        let connection = self.inner.connection.as_ref()?;
        let ready = connection.ready_endpoints(service).await;
        ready
            .inspect_err(|error| tracing::warn!(%error, %service, "cannot read its endpoints"))
            .ok()
    }
}

/// The tasks behind a [`Handle`].
#[derive(Debug, Default)]
pub struct Running {
    stop: watch::Sender<bool>,
    elector: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Running {
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
