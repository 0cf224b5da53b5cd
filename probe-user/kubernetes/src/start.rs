//! The tasks of a [`ClusterHandle`] that has a cluster.

use std::time::Duration;

use probe_cluster::snapshot::{Resource, ResourceState};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    ApiConnection, ClusterHandle, ClusterTasks, NODES_INTERVAL, lease, timings::ApiTimings, watcher,
};

/// How often the leader counts the nodes at least.
const NODE_COUNT_INTERVAL: Duration = Duration::from_mins(30);

impl ClusterHandle {
    /// Watches a cluster and takes part in its leader election, until [`ClusterTasks::stop`].
    pub fn start(connection: ApiConnection, node_name: Option<String>) -> (Self, ClusterTasks) {
        Self::start_with(connection, node_name, &ApiTimings::default())
    }

    pub(super) fn start_with(
        connection: ApiConnection,
        node_name: Option<String>,
        timings: &ApiTimings,
    ) -> (Self, ClusterTasks) {
        let handle = Self::new(Some(connection.clone()), node_name, connection.health());
        let inner = &handle.inner;
        let elector = lease::LeaderElector::new(
            connection.clone(),
            inner.node_name.as_deref(),
            timings.clone(),
            lease::ElectionInputs {
                leadership: inner.leadership.clone(),
                is_leader: inner.is_leader.clone(),
                nodes: inner.node_count.subscribe(),
                coverage: inner.coverage.subscribe(),
            },
        );
        let stop = watch::Sender::new(false);
        let watching = watcher::watch_cluster(connection, timings.clone(), inner.cluster.clone());
        let tasks = ClusterTasks {
            elector: Some(tokio::spawn(elector.run(stop.subscribe()))),
            tasks: vec![
                tokio::spawn(watching),
                tokio::spawn(handle.clone().count_nodes()),
            ],
            stop,
        };
        (handle, tasks)
    }

    /// Counts the nodes while this process is the leader: the election depends on their number.
    async fn count_nodes(self) {
        // The labels to copy are known with the advertisements…
        let mut cluster = self.cluster();
        let selectors = cluster.wait_for(|cluster| {
            let freshness = &cluster.objects().freshness;
            let freshness = freshness.get(&Resource::L2Advertisements);
            freshness.is_some_and(|freshness| freshness.state != ResourceState::NeverRead)
        });
        // …or never.
        let _ = timeout(NODES_INTERVAL, selectors).await;
        let mut is_leader = self.is_leader();
        while is_leader.wait_for(|is_leader| *is_leader).await.is_ok() {
            self.nodes(NODE_COUNT_INTERVAL).await;
            sleep(NODE_COUNT_INTERVAL).await;
        }
    }
}
