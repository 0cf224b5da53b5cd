//! etcd and kube-apiserver as processes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    api::Api,
    audit::{self, AuditEvent},
    certificate::{Certificates, signing_keys},
};
use crate::{
    host::Host, http, lab::Lab, link::Link, process::Process, tool_cache::kubernetes_program,
    wait::eventually,
};

/// The interface of a host on the management network, which is not monitored.
pub const MANAGEMENT: &str = "mgmt0";

/// The address of the API server on the management network (TEST-NET-3, RFC 5737).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The bridge of the management network on the API server's host.
const BRIDGE: &str = "management";

/// The address and port of the API server.
pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(ADDRESS), 6443);

/// The address and port of etcd, which only the API server uses.
const ETCD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);

/// The token of the test, which has all rights.
pub(super) const ADMINISTRATOR: &str = "administrator";

/// Timeout for the start of the API server on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Timeout for a link to come up.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// Logs the user, the verb and the status of each request once.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// An API server with its etcd.
#[derive(Debug)]
pub struct Kubernetes {
    // Fields are dropped in this order: the API server first, then etcd.
    server: Option<Process>,
    _etcd: Process,
    host: Host,
    next_address: AtomicU8,
    certificates: Certificates,
    options: Vec<String>,
    directory: TempDir,
}

impl Lab {
    /// Starts a control plane and waits until it is ready.
    pub fn kubernetes(&self) -> anyhow::Result<Kubernetes> {
        self.kubernetes_with(&[])
    }

    /// Starts a control plane with more options of the API server.
    pub fn kubernetes_with(&self, options: &[&str]) -> anyhow::Result<Kubernetes> {
        let host = self.host_without_interface("kubernetes")?;
        for words in [
            "link add management type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            "address add 203.0.113.1/24 dev management",
            "link set dev management up",
        ] {
            host.ip(words.split(' '))?;
        }
        let directory = TempDir::with_prefix("probe-kubernetes-")?;
        let certificates = Certificates::new(&[IpAddr::V4(ADDRESS), Ipv4Addr::LOCALHOST.into()])?;
        let [tokens_key, tokens_public] = signing_keys()?;
        for (name, contents) in [
            ("server.pem", certificates.server()),
            ("server.key", certificates.key()),
            ("tokens.key", tokens_key),
            ("tokens.pub", tokens_public),
            ("audit.yaml", AUDIT_POLICY.to_owned()),
            (
                "tokens.csv",
                format!("{ADMINISTRATOR},administrator,administrator,system:masters\n"),
            ),
        ] {
            fs::write(directory.path().join(name), contents)?;
        }
        let etcd = start_etcd(&host, directory.path())?;
        let mut kubernetes = Kubernetes {
            server: None,
            _etcd: etcd,
            host,
            next_address: AtomicU8::new(2),
            certificates,
            options: options.iter().map(ToString::to_string).collect(),
            directory,
        };
        kubernetes.start()?;
        Ok(kubernetes)
    }
}

impl Kubernetes {
    /// Starts the API server with the existing data and waits until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_unready()?;
        self.wait_until_ready()
    }

    /// Starts the API server without waiting until it is ready.
    pub fn start_unready(&mut self) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "the API server runs already");
        let file = |name| self.file(name).display().to_string();
        let mut words = vec![
            kubernetes_program("kube-apiserver")?.display().to_string(),
            format!("--advertise-address={ADDRESS}"),
            "--api-audiences=https://kubernetes.default.svc".to_owned(),
            format!("--audit-log-path={}", file("audit.log")),
            format!("--audit-policy-file={}", file("audit.yaml")),
            "--authorization-mode=RBAC".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--cert-dir={}", self.directory.path().display()),
            // Disables periodic compaction: a test compacts explicitly with `compact`.
            "--etcd-compaction-interval=0".to_owned(),
            format!("--etcd-servers=http://{ETCD}"),
            // The reconciler would publish the API server in its own Service.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", SERVER.port()),
            format!("--service-account-key-file={}", file("tokens.pub")),
            format!("--service-account-signing-key-file={}", file("tokens.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=198.51.100.0/24".to_owned(),
            // The API server does not wait for open connections when it ends.
            "--shutdown-delay-duration=0s".to_owned(),
            format!("--tls-cert-file={}", file("server.pem")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
        ];
        words.extend(self.options.iter().cloned());
        self.server = Some(self.host.spawn(words)?);
        Ok(())
    }

    /// Waits until the API server is ready.
    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        let api = self.api()?;
        eventually("the API server to be ready", READY_TIMEOUT, || {
            let server = self.server()?;
            ensure!(
                !server.has_ended(),
                "the process ended:\n{}",
                server.written_output()
            );
            Ok(api
                .get_text("/readyz")
                .is_ok_and(|response| response.status == 200)
                .then_some(()))
        })
    }

    /// Kills the API server, as in a crash. The objects stay in etcd.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("the API server does not run")?;
        server.kill()?;
        server.exit_status(READY_TIMEOUT).map(drop)
    }

    /// The API server's process.
    pub fn server(&self) -> anyhow::Result<&Process> {
        self.server.as_ref().context("the API server does not run")
    }

    /// The host that the API server is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Connects a host to the management network.
    pub fn connect(&self, host: &Host) -> anyhow::Result<()> {
        let number = self.next_address.fetch_add(1, Ordering::Relaxed);
        let port = format!("port{number}");
        host.ip([
            "link",
            "add",
            MANAGEMENT,
            "type",
            "veth",
            "peer",
            "name",
            &port,
            "netns",
            self.host.namespace(),
        ])?;
        self.host
            .ip(["link", "set", "dev", &port, "master", BRIDGE, "up"])?;
        let address = format!("203.0.113.{number}/24");
        host.ip(["address", "add", &address, "dev", MANAGEMENT])?;
        host.ip(["link", "set", "dev", MANAGEMENT, "up"])?;
        eventually("the management network to be up", LINK_TIMEOUT, || {
            Ok(Link::is_up(&host.link_of(MANAGEMENT)?).then_some(()))
        })
    }

    /// Cuts or restores the management network: packets are lost without an error.
    pub fn set_reachable(&self, reachable: bool) -> anyhow::Result<()> {
        let state = if reachable { "up" } else { "down" };
        self.host.ip(["link", "set", "dev", BRIDGE, state])
    }

    /// A client with all rights.
    pub fn api(&self) -> anyhow::Result<Api<'_>> {
        self.api_as(ADMINISTRATOR)
    }

    /// A client with this token.
    pub fn api_as(&self, token: &str) -> anyhow::Result<Api<'_>> {
        let tls = self.certificates.client()?;
        Ok(Api::new(&self.host, tls, token))
    }

    /// Compacts etcd to the current revision. After a restart of the API server, a watch from an older resource
    /// version fails with 410 Gone.
    pub fn compact(&self) -> anyhow::Result<()> {
        let range: Value =
            serde_json::from_str(&self.request_etcd("/v3/kv/range", r#"{"key":"AA=="}"#)?)?;
        let revision = range["header"]["revision"]
            .as_str()
            .context("etcd names no revision")?;
        let request = json!({ "revision": revision, "physical": true });
        self.request_etcd("/v3/kv/compaction", &request.to_string())
            .map(drop)
    }

    fn request_etcd(&self, path: &str, body: &str) -> anyhow::Result<String> {
        let stream = self.host.enter(|| http::connect(ETCD))?;
        http::set_deadlines(&stream)?;
        let response = http::request(stream, &format!("POST {path}"), &[], body)?;
        ensure!(response.status == 200, "etcd: {response:?}");
        Ok(response.body)
    }

    /// The requests in the audit log so far.
    pub fn audit(&self) -> anyhow::Result<Vec<AuditEvent>> {
        audit::read(&self.file("audit.log"))
    }

    pub(super) fn authority(&self) -> String {
        self.certificates.authority()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn start_etcd(host: &Host, directory: &Path) -> anyhow::Result<Process> {
    let url = format!("http://{ETCD}");
    let etcd = kubernetes_program("etcd")?;
    let etcd = host.spawn([
        etcd.as_os_str(),
        "--data-dir".as_ref(),
        directory.join("etcd").as_os_str(),
        // The data need not survive a crash of the machine.
        "--unsafe-no-fsync".as_ref(),
        "--log-level=error".as_ref(),
        "--listen-client-urls".as_ref(),
        url.as_ref(),
        "--advertise-client-urls".as_ref(),
        url.as_ref(),
        "--listen-peer-urls".as_ref(),
        "http://127.0.0.1:2380".as_ref(),
    ])?;
    eventually("etcd to be healthy", READY_TIMEOUT, || {
        ensure!(
            !etcd.has_ended(),
            "the process ended:\n{}",
            etcd.written_output()
        );
        Ok(host
            .http_get(ETCD, "/health")
            .is_ok_and(|response| response.status == 200)
            .then_some(()))
    })?;
    Ok(etcd)
}
