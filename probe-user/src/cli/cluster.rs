//! Where verbs have what they know of a cluster from: the daemon, which follows it, or the API server itself.

use std::collections::BTreeSet;

use clap::Args;
use probe_cluster::{
    ClusterObjects, ClusterSnapshot, Node, explain::ClusterSource, snapshot::ResourceState,
};
use probe_kubernetes::{ApiConnection, ConnectError};

use crate::{cli::output::print_status, client::Client, daemon::serve::ClusterObjectsRecord};

/// Whom a cluster is known from.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArguments {
    /// Ask the API server of this context of kubeconfig, instead of the daemon. Without it and without a daemon: the
    /// kubeconfig's current context, or in a pod the account of the pod
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// What is known of a cluster.
pub struct FetchedCluster {
    /// What the API server said.
    pub objects: ClusterObjects,
    /// The nodes, or why they are not known.
    pub nodes: Result<Vec<Node>, String>,
    /// Who said so.
    pub source: ClusterSource,
}

/// Why none is known.
#[derive(Debug, thiserror::Error)]
pub enum ClusterUnavailable {
    /// There is none to ask.
    #[error("{0}")]
    None(String),
    /// There is one, and it cannot be asked.
    #[error("{0}")]
    Failed(String),
}

impl ClusterArguments {
    /// What is known of the cluster, from whom it is best known: the API server of the context that was named, else the
    /// daemon, else the API server that this process is nearest to.
    pub async fn look(&self, daemon: &Client) -> Result<FetchedCluster, ClusterUnavailable> {
        if self.context.is_none()
            && let Some(known) = fetch_from_daemon(daemon).await
        {
            return Ok(known);
        }
        self.fetch_from_api().await
    }

    /// What the API server says, whether or not there is a daemon.
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
        // Whatever it forbids, it is there; but without any answer nothing is known.
        let mut freshness = objects.freshness.values();
        if freshness.all(|freshness| freshness.known == ResourceState::NeverRead)
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
    /// As it is worked with.
    pub fn cluster(&self) -> ClusterSnapshot {
        ClusterSnapshot::from(self.objects.clone())
    }

    /// Says on standard error how old the knowledge is, where the API server has not been heard lately.
    pub fn warn_if_stale(&self) {
        let stale = self.objects.freshness.values();
        let stale = stale.filter(|freshness| freshness.known == ResourceState::Stale);
        if let Some(heard) = stale.filter_map(|freshness| freshness.heard).min() {
            print_status(&format!(
                "the API server does not answer: this is the cluster as it was at {heard}; what changed since is not known"
            ));
        }
    }
}

/// What the daemon knows, if it follows a cluster and has heard of it.
async fn fetch_from_daemon(daemon: &Client) -> Option<FetchedCluster> {
    let record: ClusterObjectsRecord = daemon.get_one("/v1/cluster").await.ok()?;
    let mut freshness = record.objects.freshness.values();
    if freshness.all(|freshness| freshness.known == ResourceState::NeverRead) {
        return None;
    }
    Some(FetchedCluster {
        objects: record.objects,
        nodes: record
            .nodes
            .ok_or_else(|| "the daemon has not got the list of nodes".to_owned()),
        source: ClusterSource::Daemon,
    })
}
