//! Where verbs have what they know of a cluster from: the daemon, which follows it, or the API server itself.

use std::collections::BTreeSet;

use clap::Args;
use probe_cluster::{Cluster, Node, Objects, explain::Source, model::Known};
use probe_kubernetes::{ConnectError, Connection};

use crate::{cli::output::say, client::Client, daemon::serve::ClusterRecord};

/// Whom a cluster is known from.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArguments {
    /// Ask the API server of this context of kubeconfig, instead of the daemon. Without it and without a daemon: the
    /// kubeconfig's current context, or in a pod the account of the pod
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// What is known of a cluster.
pub struct KnownCluster {
    /// What the API server said.
    pub objects: Objects,
    /// The nodes, or why they are not known.
    pub nodes: Result<Vec<Node>, String>,
    /// Who said so.
    pub source: Source,
}

/// Why none is known.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
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
    pub async fn look(&self, daemon: &Client) -> Result<KnownCluster, NoCluster> {
        if self.context.is_none()
            && let Some(known) = by_daemon(daemon).await
        {
            return Ok(known);
        }
        self.ask().await
    }

    /// What the API server says, whether or not there is a daemon.
    async fn ask(&self) -> Result<KnownCluster, NoCluster> {
        let context = self.context.as_deref();
        let connection = connect(context).await?;
        let source = if context.is_some() || std::env::var_os("KUBECONFIG").is_some() {
            Source::Kubeconfig
        } else if Connection::is_at_hand() {
            Source::Pod
        } else {
            Source::Kubeconfig
        };
        let (objects, nodes) =
            futures_util::future::join(connection.objects(), connection.nodes(&BTreeSet::new()))
                .await;
        // Whatever it forbids, it is there; but without any answer nothing is known.
        let mut freshness = objects.freshness.values();
        if freshness.all(|freshness| freshness.known == Known::Never)
            && let Some(error) = objects.freshness.values().find_map(|one| one.error.clone())
        {
            return Err(NoCluster::Failed(error));
        }
        Ok(KnownCluster {
            objects,
            nodes: nodes.map_err(|error| error.to_string()),
            source,
        })
    }
}

/// A connection to the API server of a context.
pub async fn connect(context: Option<&str>) -> Result<Connection, NoCluster> {
    Connection::open(context)
        .await
        .map_err(|error| match error {
            ConnectError::NoCluster(_) => NoCluster::None(error.to_string()),
            ConnectError::NotBuilt if context.is_none() => NoCluster::None(error.to_string()),
            _ => NoCluster::Failed(error.to_string()),
        })
}

impl KnownCluster {
    /// As it is worked with.
    pub fn cluster(&self) -> Cluster {
        Cluster::from(self.objects.clone())
    }

    /// Says on standard error how old the knowledge is, where the API server has not been heard lately.
    pub fn say_how_old(&self) {
        let stale = self.objects.freshness.values();
        let stale = stale.filter(|freshness| freshness.known == Known::Stale);
        if let Some(heard) = stale.filter_map(|freshness| freshness.heard).min() {
            say(&format!(
                "the API server does not answer: this is the cluster as it was at {heard}; what changed since is not known"
            ));
        }
    }
}

/// What the daemon knows, if it follows a cluster and has heard of it.
async fn by_daemon(daemon: &Client) -> Option<KnownCluster> {
    let record: ClusterRecord = daemon.one("/v1/cluster").await.ok()?;
    let mut freshness = record.objects.freshness.values();
    if freshness.all(|freshness| freshness.known == Known::Never) {
        return None;
    }
    Some(KnownCluster {
        objects: record.objects,
        nodes: record
            .nodes
            .ok_or_else(|| "the daemon has not got the list of nodes".to_owned()),
        source: Source::Daemon,
    })
}
