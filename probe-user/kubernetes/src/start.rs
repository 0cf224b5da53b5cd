//! The tasks behind a [`Handle`] that has a cluster.

use std::time::Duration;

use probe_cluster::model::{Known, Resource};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Connection, Handle, NODES_INTERVAL, Running, follow, lease, pace::Pace};

/// How many nodes there are is found out at least this often, by one of them.
const NODES_COUNTED: Duration = Duration::from_mins(30);

impl Handle {
    /// Follows a cluster and takes part in who speaks for it, until [`Running::stop`].
    pub fn start(connection: Connection, node_name: Option<String>) -> (Self, Running) {
        Self::start_at(connection, node_name, &Pace::default())
    }

    /// Follows a cluster at another pace.
    pub(super) fn start_at(
        connection: Connection,
        node_name: Option<String>,
        pace: &Pace,
    ) -> (Self, Running) {
        let handle = Self::new(Some(connection.clone()), node_name, connection.health());
        let inner = &handle.inner;
        let elector = lease::Elector::new(
            connection.clone(),
            inner.node_name.as_deref(),
            pace.clone(),
            lease::Stakes {
                holds: inner.holds.clone(),
                handover: inner.handover.clone(),
                nodes: inner.node_count.subscribe(),
                sight: inner.sight.subscribe(),
            },
        );
        let stop = watch::Sender::new(false);
        let running = Running {
            elector: Some(tokio::spawn(elector.run(stop.subscribe()))),
            others: vec![
                tokio::spawn(follow::follow(
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
            freshness.is_some_and(|freshness| freshness.known != Known::Never)
        });
        // Or never will be.
        let _ = timeout(NODES_INTERVAL, selectors).await;
        let mut holds = self.holds();
        while holds.wait_for(|holds| *holds).await.is_ok() {
            self.nodes(NODES_COUNTED).await;
            sleep(NODES_COUNTED).await;
        }
    }
}
