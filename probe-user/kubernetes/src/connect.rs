//! Where the API server is, and who we are to it.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{Client, Config, config::KubeConfigOptions};

use super::{ApiHealth, ConnectError, request::chain};

/// What a pod's service account is given.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What every pod is told.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

const KUBECONFIG: &str = "KUBECONFIG";

/// A connection that is not there after this time will not be.
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
        f.debug_struct("Connection")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl ApiConnection {
    /// Finds out where the API server is and who we are; nothing is sent yet. Inside a cluster that is the pod's
    /// service account, unless a context is named or `KUBECONFIG` is set; else a kubeconfig.
    pub async fn open(context: Option<&str>) -> Result<Self, ConnectError> {
        let config = if context.is_none() && env::var_os(KUBECONFIG).is_none() && is_pod() {
            Config::incluster().map_err(|error| ConnectError::InCluster(chain(&error)))?
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
                    error: chain(&error),
                })?
        };
        Self::with(config)
    }

    /// A connection by these settings.
    pub fn with(mut config: Config) -> Result<Self, ConnectError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Whoever asks knows when to ask again, and counts it.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client =
            Client::try_from(config).map_err(|error| ConnectError::Setup(chain(&error)))?;
        Ok(Self {
            client,
            health: Arc::default(),
            server,
        })
    }

    /// Whether a cluster is at hand: the service account of a pod, or a kubeconfig that somebody named. One that lies
    /// around in a home directory is no reason for a daemon to follow it.
    pub fn is_at_hand() -> bool {
        is_pod() || env::var_os(KUBECONFIG).is_some_and(|path| !path.is_empty())
    }

    /// For what this does not have a word for.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The namespace that we are in, or that the kubeconfig's context is for.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Where the API server is.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// How it is doing.
    pub fn health(&self) -> Arc<ApiHealth> {
        self.health.clone()
    }
}

fn is_pod() -> bool {
    env::var_os(SERVICE_HOST).is_some() && Path::new(TOKEN).exists()
}

/// Where a kubeconfig is if nothing says otherwise.
fn kubeconfig() -> PathBuf {
    env::home_dir().unwrap_or_default().join(".kube/config")
}
