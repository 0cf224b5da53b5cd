//! The connection to the API server: its address and the credentials.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{Client, Config, config::KubeConfigOptions};

use super::{ApiHealth, ConnectError, request::error_text};

/// The token of a pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The environment variable that every pod has.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

const KUBECONFIG: &str = "KUBECONFIG";

/// Time limit for the connection setup.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to an API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiConnection {
    client: Client,
    health: Arc<ApiHealth>,
    server: String,
}

impl fmt::Debug for ApiConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConnection")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl ApiConnection {
    /// Loads the configuration: the pod's service account, unless a context is named or `KUBECONFIG` is set; else a
    /// kubeconfig. Sends nothing.
    pub async fn open(context: Option<&str>) -> Result<Self, ConnectError> {
        let config = if context.is_none() && env::var_os(KUBECONFIG).is_none() && is_pod() {
            Config::incluster().map_err(|error| ConnectError::InCluster(error_text(&error)))?
        } else {
            let is_there = env::var_os(KUBECONFIG).is_some() || kubeconfig().exists();
            if !is_there {
                return Err(ConnectError::NoCluster(kubeconfig()));
            }
            let options = KubeConfigOptions {
                context: context.map(str::to_owned),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options)
                .await
                .map_err(|error| ConnectError::Kubeconfig {
                    context: context
                        .map(|context| format!(" for the context {context}"))
                        .unwrap_or_default(),
                    error: error_text(&error),
                })?
        };
        Self::with(config)
    }

    /// A connection with this configuration.
    pub fn with(mut config: Config) -> Result<Self, ConnectError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The callers retry, and count each request.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client =
            Client::try_from(config).map_err(|error| ConnectError::Setup(error_text(&error)))?;
        Ok(Self {
            client,
            health: Arc::default(),
            server,
        })
    }

    /// Whether a cluster is configured: a pod's service account, or `KUBECONFIG`. A kubeconfig in a home directory is no
    /// reason for a daemon to watch its cluster.
    pub fn is_configured() -> bool {
        is_pod() || env::var_os(KUBECONFIG).is_some_and(|path| !path.is_empty())
    }

    /// The client.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The namespace of the pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The health of the connection.
    pub fn health(&self) -> Arc<ApiHealth> {
        self.health.clone()
    }
}

fn is_pod() -> bool {
    env::var_os(SERVICE_HOST).is_some() && Path::new(TOKEN).exists()
}

/// The default path of a kubeconfig.
fn kubeconfig() -> PathBuf {
    env::home_dir().unwrap_or_default().join(".kube/config")
}
