//! The sources of cluster data for commands: the daemon, which watches the cluster, or the API server.

use std::collections::BTreeSet;

use clap::Args;
use probe_cluster::{
    ClusterObjects, ClusterSnapshot, Node, explain::ClusterSource, snapshot::ResourceState,
};
use probe_kubernetes::{ApiConnection, ConnectError};

use crate::{cli::output::print_status, client::Client, daemon::serve::ClusterObjectsRecord};

/// The source of the cluster data.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArguments {
    /// Read from the API server of this kubeconfig context instead of from the daemon [default without a daemon: the
    /// current context of the kubeconfig, or in a pod its service account]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// The data of a cluster.
pub struct FetchedCluster {
    /// The objects.
    pub objects: ClusterObjects,
    /// The nodes, or why they are unknown.
    pub nodes: Result<Vec<Node>, String>,
    /// The source.
    pub source: ClusterSource,
}

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
pub enum ClusterUnavailable {
    /// No cluster is configured.
    #[error("{0}")]
    None(String),
    /// A cluster is configured, and cannot be read.
    #[error("{0}")]
    Failed(String),
}

impl ClusterArguments {
    /// Fetches the data of the cluster: from the API server of the given context, else from the daemon, else from the
    /// configured API server.
    pub async fn look(&self, daemon: &Client) -> Result<FetchedCluster, ClusterUnavailable> {
        if self.context.is_none()
            && let Some(known) = fetch_from_daemon(daemon).await
        {
            return Ok(known);
        }
        self.fetch_from_api().await
    }

    /// Fetches the data from the API server, regardless of a daemon.
    async fn fetch_from_api(&self) -> Result<FetchedCluster, ClusterUnavailable> {
        let context = self.context.as_deref();
        let connection = connect(context).await?;
        let source = if context.is_some() || std::env::var_os("KUBECONFIG").is_some() {
            ClusterSource::Kubeconfig
        } else if ApiConnection::is_configured() {
            ClusterSource::Pod
        } else {
            ClusterSource::Kubeconfig
        };
        let (objects, nodes) =
            futures_util::future::join(connection.objects(), connection.nodes(&BTreeSet::new()))
                .await;
        // Forbidden resources are acceptable; without any response there is no data.
        let mut freshness = objects.freshness.values();
        if freshness.all(|freshness| freshness.state == ResourceState::NeverRead)
            && let Some(error) = objects.freshness.values().find_map(|one| one.error.clone())
        {
            return Err(ClusterUnavailable::Failed(error));
        }
        Ok(FetchedCluster {
            objects,
            nodes: nodes.map_err(|error| error.to_string()),
            source,
        })
    }
}

/// A connection to the API server of a context.
pub async fn connect(context: Option<&str>) -> Result<ApiConnection, ClusterUnavailable> {
    ApiConnection::open(context)
        .await
        .map_err(|error| match error {
            ConnectError::NoCluster(_) => ClusterUnavailable::None(error.to_string()),
            ConnectError::NotBuilt if context.is_none() => {
                ClusterUnavailable::None(error.to_string())
            }
            _ => ClusterUnavailable::Failed(error.to_string()),
        })
}

impl FetchedCluster {
    /// Builds a snapshot of the objects.
    pub fn cluster(&self) -> ClusterSnapshot {
        ClusterSnapshot::from(self.objects.clone())
    }

    /// Warns on standard error if the data is stale.
    pub fn warn_if_stale(&self) {
        let stale = self.objects.freshness.values();
        let stale = stale.filter(|freshness| freshness.state == ResourceState::Stale);
        if let Some(last_update) = stale.filter_map(|freshness| freshness.last_update).min() {
            print_status(&format!(
                "the API server does not respond: the data of the cluster is from {last_update}; later changes are unknown"
            ));
        }
    }
}

/// Fetches the data from the daemon; `None` if it watches no cluster or has no data yet.
async fn fetch_from_daemon(daemon: &Client) -> Option<FetchedCluster> {
    let record: ClusterObjectsRecord = daemon.get_one("/v1/cluster").await.ok()?;
    let mut freshness = record.objects.freshness.values();
    if freshness.all(|freshness| freshness.state == ResourceState::NeverRead) {
        return None;
    }
    Some(FetchedCluster {
        objects: record.objects,
        nodes: record
            .nodes
            .ok_or_else(|| "the daemon has no list of nodes yet".to_owned()),
        source: ClusterSource::Daemon,
    })
}
