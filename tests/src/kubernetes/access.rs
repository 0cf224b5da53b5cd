//! Access to the API server for programs on a host: with a service account as in a pod, or with a kubeconfig.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{ADMINISTRATOR, Kubernetes, SERVER};
use crate::{
    host::Host,
    manifest::{deploy, objects},
};

/// The objects of the deployment that grant the daemon access to the API server.
const KINDS: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// The namespace and the service account of the deployment.
const NAME: &str = "arp-monitor";

/// The lifetime of a token; the API server issues none with a shorter one.
const TOKEN_SECONDS: u32 = 600;

/// Mounts the files that a kubelet would mount into a pod, in a separate mount namespace whose `/run` is otherwise
/// empty.
const AS_IN_A_POD: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind \"$0\" /run/secrets/kubernetes.io/serviceaccount
exec \"$@\"";

/// A service account with the rights that the deployment grants.
#[derive(Debug)]
pub struct Account {
    /// The user name in the API server.
    pub user: String,
    /// The bearer token.
    pub token: String,
}

/// A command prefix that gives a program access to the API server.
#[derive(Debug)]
pub struct Access {
    words: Vec<String>,
    directory: TempDir,
}

impl Access {
    /// The command prefix.
    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// The command prefix with more environment variables (`NAME=value`).
    pub fn words_with<'a>(&'a self, variables: &[&'a str]) -> Vec<&'a str> {
        let mut words = self.words();
        words.push("env");
        words.extend(variables);
        words
    }

    /// The directory with the credentials; a test may change its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Access with a kubeconfig to any server at a URL.
    pub fn to(url: &str) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("probe-test-")?;
        Self::by_kubeconfig(directory, &json!({ "server": url }), &json!({}))
    }

    fn by_kubeconfig(directory: TempDir, cluster: &Value, user: &Value) -> anyhow::Result<Self> {
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": "lab", "user": user }],
        });
        let file = directory.path().join("kubeconfig");
        fs::write(&file, config.to_string())?;
        Ok(Self {
            words: vec!["env".to_owned(), format!("KUBECONFIG={}", file.display())],
            directory,
        })
    }

    /// The path of the kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

impl Kubernetes {
    /// Creates the service account of the deployment with exactly the roles of `deploy/kubernetes`.
    pub fn deployed_account(&self) -> anyhow::Result<Account> {
        let path = deploy().join("kubernetes/arp-monitor.yaml");
        let manifest =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let api = self.api()?;
        for object in objects(&manifest)? {
            if KINDS.iter().any(|kind| object["kind"] == *kind) {
                api.create(&object)?;
            }
        }
        self.token_of(NAME, NAME)
    }

    /// Requests a token of a service account, as a kubelet does.
    pub fn token_of(&self, namespace: &str, name: &str) -> anyhow::Result<Account> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": [], "expirationSeconds": TOKEN_SECONDS },
        });
        let token = self
            .api()?
            .request("POST", &path, Some(&request))?
            .success()?;
        Ok(Account {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            token: token["status"]["token"]
                .as_str()
                .context("no token")?
                .to_owned(),
        })
    }

    /// Access as in a pod with this service account.
    pub fn as_in_a_pod(&self, account: &Account) -> anyhow::Result<Access> {
        let directory = TempDir::with_prefix("probe-test-")?;
        for (name, contents) in [
            ("ca.crt", &self.authority()),
            ("namespace", &NAME.to_owned()),
            ("token", &account.token),
        ] {
            fs::write(directory.path().join(name), contents)?;
        }
        let mut words = vec![
            "env".to_owned(),
            format!("KUBERNETES_SERVICE_HOST={}", SERVER.ip()),
            format!("KUBERNETES_SERVICE_PORT={}", SERVER.port()),
        ];
        let isolated = ["unshare", "--mount", "sh", "-c", AS_IN_A_POD];
        words.extend(isolated.map(str::to_owned));
        words.push(directory.path().display().to_string());
        Ok(Access { words, directory })
    }

    /// Access with a kubeconfig and this token.
    pub fn by_kubeconfig(&self, token: &str) -> anyhow::Result<Access> {
        let directory = TempDir::with_prefix("probe-test-")?;
        let authority = directory.path().join("ca.crt");
        fs::write(&authority, self.authority())?;
        let cluster = json!({
            "server": format!("https://{SERVER}"),
            "certificate-authority": authority,
        });
        Access::by_kubeconfig(directory, &cluster, &json!({ "token": token }))
    }

    /// Access with a kubeconfig and all rights.
    pub fn as_administrator(&self) -> anyhow::Result<Access> {
        self.by_kubeconfig(ADMINISTRATOR)
    }

    /// Connects a host to the management network and returns the access of the deployed daemon.
    pub fn deploy_to(&self, host: &Host, account: &Account) -> anyhow::Result<Access> {
        self.connect(host)?;
        self.as_in_a_pod(account)
    }
}
