//! How a program on a host gets to ask the API server: as in a pod, or by a kubeconfig.

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

/// The kinds of objects by which the deployment lets the daemon ask, and nothing else of it.
const KINDS: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// The deployment's namespace and service account.
const NAME: &str = "arp-monitor";

/// For a token; the API server gives none for less.
const TOKEN_SECONDS: u32 = 600;

/// Gives a program the files that a kubelet would mount, where it would: in a mount namespace of its own with nothing
/// else in `/run`.
const AS_IN_A_POD: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind \"$0\" /run/secrets/kubernetes.io/serviceaccount
exec \"$@\"";

/// A service account, with what the deployment allows it and nothing else.
#[derive(Debug)]
pub struct Account {
    /// What the API server calls it.
    pub user: String,
    /// What it shows the API server.
    pub token: String,
}

/// What stands before a program so that it reaches the API server.
#[derive(Debug)]
pub struct Access {
    words: Vec<String>,
    directory: TempDir,
}

impl Access {
    /// The words, to put before the program's.
    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// The same with further variables of the environment (`NAME=value`).
    pub fn words_with<'a>(&'a self, variables: &[&'a str]) -> Vec<&'a str> {
        let mut words = self.words();
        words.push("env");
        words.extend(variables);
        words
    }

    /// The directory with what the program reads: a test may change it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Lets programs reach whatever answers at a URL, by a kubeconfig.
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

    /// The kubeconfig, or where it would be.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

impl Kubernetes {
    /// Makes the deployment's service account, with exactly the roles that `deploy/kubernetes` gives it.
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

    /// A token of a service account, as a kubelet gets it.
    pub fn token_of(&self, namespace: &str, name: &str) -> anyhow::Result<Account> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let wish = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": [], "expirationSeconds": TOKEN_SECONDS },
        });
        let token = self.api()?.ask("POST", &path, Some(&wish))?.success()?;
        Ok(Account {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            token: token["status"]["token"]
                .as_str()
                .context("no token")?
                .to_owned(),
        })
    }

    /// Lets programs on a host reach the API server as in a pod of this account.
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

    /// Lets programs on a host reach the API server by a kubeconfig with this token.
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

    /// The same, as who may do everything.
    pub fn as_administrator(&self) -> anyhow::Result<Access> {
        self.by_kubeconfig(ADMINISTRATOR)
    }

    /// Connects a host to the management network and lets programs on it ask as the deployment does.
    pub fn deploy_to(&self, host: &Host, account: &Account) -> anyhow::Result<Access> {
        self.connect(host)?;
        self.as_in_a_pod(account)
    }
}
