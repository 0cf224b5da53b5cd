//! The tasks behind a [`ClusterHandle`] that has a cluster.

use std::time::Duration;

use probe_cluster::snapshot::{Resource, ResourceState};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    ApiConnection, ClusterHandle, ClusterTasks, NODES_INTERVAL, lease, rate_limit::ApiTimings,
    watcher,
};

/// How many nodes there are is found out at least this often, by one of them.
const NODES_COUNTED: Duration = Duration::from_mins(30);

impl ClusterHandle {
    /// Follows a cluster and takes part in who speaks for it, until [`ClusterTasks::stop`].
    pub fn start(connection: ApiConnection, node_name: Option<String>) -> (Self, ClusterTasks) {
        Self::start_at(connection, node_name, &ApiTimings::default())
    }

    /// Follows a cluster at another pace.
    pub(super) fn start_at(
        connection: ApiConnection,
        node_name: Option<String>,
        pace: &ApiTimings,
    ) -> (Self, ClusterTasks) {
        let handle = Self::new(Some(connection.clone()), node_name, connection.health());
        let inner = &handle.inner;
        let elector = lease::LeaderElector::new(
            connection.clone(),
            inner.node_name.as_deref(),
            pace.clone(),
            lease::LeaseInputs {
                leadership: inner.leadership.clone(),
                handover: inner.handover.clone(),
                nodes: inner.node_count.subscribe(),
                coverage: inner.coverage.subscribe(),
            },
        );
        let stop = watch::Sender::new(false);
        let running = ClusterTasks {
            elector: Some(tokio::spawn(elector.run(stop.subscribe()))),
            others: vec![
                tokio::spawn(watcher::follow(
                    connection,
                    pace.clone(),
                    inner.cluster.clone(),
                )),
                tokio::spawn(handle.clone().count_nodes()),
            ],
            stop,
        };
        (handle, running)
    }

    /// Whoever speaks for the cluster knows how many nodes there are: it tells the others how often to look.
    async fn count_nodes(self) {
        // Which of their labels are wanted is known then.
        let mut cluster = self.cluster();
        let selectors = cluster.wait_for(|cluster| {
            let freshness = &cluster.objects().freshness;
            let freshness = freshness.get(&Resource::L2Advertisements);
            freshness.is_some_and(|freshness| freshness.known != ResourceState::NeverRead)
        });
        // Or never will be.
        let _ = timeout(NODES_INTERVAL, selectors).await;
        let mut leadership = self.holds();
        while leadership.wait_for(|leadership| *leadership).await.is_ok() {
            self.nodes(NODES_COUNTED).await;
            sleep(NODES_COUNTED).await;
        }
    }
}
