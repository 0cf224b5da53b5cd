//! The flags of Kubernetes.

use clap::{Args, ValueEnum};
use probe_kubernetes::{ApiConnection, ClusterHandle, ClusterTasks, ConnectError};

/// Whether to watch the Kubernetes API, and of which cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArguments {
    /// Watch the Kubernetes API: track the addresses of services, and name service, pool and node in findings
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = KubernetesMode::Auto)]
    kubernetes: KubernetesMode,

    /// Use this context of the kubeconfig; failing to connect is then an error
    #[arg(long, value_name = "NAME")]
    kubernetes_context: Option<String>,

    /// Name of this node in the cluster [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
}

/// When to watch the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KubernetesMode {
    /// In a pod with a service account token, or if KUBECONFIG names a file.
    Auto,
    /// Never.
    Off,
}

impl KubernetesArguments {
    /// Starts to watch the API server, if enabled and configured, and logs which one.
    ///
    /// # Errors
    ///
    /// If the given context cannot be used. Otherwise the daemon runs without a cluster.
    pub async fn start(&self) -> Result<(ClusterHandle, ClusterTasks), ConnectError> {
        let context = self.kubernetes_context.as_deref();
        let off = || (ClusterHandle::off(), ClusterTasks::default());
        if self.kubernetes == KubernetesMode::Off {
            tracing::info!("Kubernetes: disabled by --kubernetes off");
            return Ok(off());
        }
        if context.is_none() && !ApiConnection::is_configured() {
            tracing::info!("Kubernetes: not configured (no service account, no KUBECONFIG)");
            return Ok(off());
        }
        match ApiConnection::open(context).await {
            Ok(connection) => {
                tracing::info!(
                    server = connection.server(),
                    "Kubernetes: watching the API server"
                );
                Ok(ClusterHandle::start(connection, self.node_name()))
            }
            Err(error) if context.is_none() => {
                tracing::error!(%error, "Kubernetes: disabled");
                Ok(off())
            }
            Err(error) => Err(error),
        }
    }

    /// The name of this node in the cluster: usually its host name.
    fn node_name(&self) -> Option<String> {
        let host = || {
            let name = rustix::system::uname();
            name.nodename().to_str().ok().map(str::to_owned)
        };
        self.node_name.clone().or_else(host)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        kubernetes: KubernetesArguments,
    }

    async fn start(arguments: &[&str]) -> Result<bool, ConnectError> {
        let arguments = ["probe"].iter().chain(arguments);
        let command = Command::try_parse_from(arguments).unwrap();
        let (handle, running) = command.kubernetes.start().await?;
        let is_on = handle.is_on();
        running.stop().await;
        Ok(is_on)
    }

    #[tokio::test]
    async fn off_means_off_and_auto_does_without() {
        assert!(!start(&["--kubernetes", "off"]).await.unwrap());
        let off = [
            "--kubernetes",
            "off",
            "--kubernetes-context",
            "there-is-none",
        ];
        assert!(!start(&off).await.unwrap());
        // Neither a pod nor with a kubeconfig, as tests are.
        if !ApiConnection::is_configured() {
            assert!(!start(&[]).await.unwrap());
        }
    }

    #[tokio::test]
    async fn unknown_context_is_an_error() {
        let error = start(&["--kubernetes-context", "there-is-none"]).await;
        let error = error.unwrap_err().to_string();
        if cfg!(feature = "kubernetes") {
            assert!(error.contains("kubeconfig"), "{error}");
        } else {
            assert!(error.contains("built without Kubernetes"), "{error}");
        }
    }
}
