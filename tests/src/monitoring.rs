//! Prometheus and Alertmanager with a webhook receiver, on a host of the lab.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    daemon::LISTEN,
    host::Host,
    process::Process,
    tool_cache::{PROMETHEUS as PROMETHEUS_CACHE, prometheus_program, tool_cache, workspace},
    wait::eventually,
};

/// Every host has its own loopback interface, so the ports are fixed.
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const ALERTMANAGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9093);

/// Debian's Alertmanager expects its templates at their installed path, but the package is only unpacked. `ip netns
/// exec` runs every program in a separate mount namespace, so an overlay can provide them.
const WITH_TEMPLATES: &str = "\
    test -e /usr/share/prometheus/alertmanager/default.tmpl || \
    mount -t overlay overlay -o \"lowerdir=$0/usr/share:/usr/share\" /usr/share; \
    exec \"$@\"";

/// Timeout for the start of a program on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for each read of a notification.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest notification that is accepted, in bytes.
const LONGEST: u64 = 1 << 20;

/// A Prometheus that scrapes the daemon of this host every second and evaluates the rules, and an Alertmanager with
/// one webhook receiver.
#[derive(Debug)]
pub struct Monitoring<'a> {
    host: &'a Host,
    prometheus: Process,
    alertmanager: Process,
    received: Arc<Mutex<Vec<Notification>>>,
    _files: TempDir,
}

/// A notification that the receiver got.
#[derive(Clone, Debug, Deserialize)]
pub struct Notification {
    /// `firing` or `resolved`.
    pub status: String,
    /// The alerts of the notification.
    pub alerts: Vec<Alert>,
}

/// An alert in a notification.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// The labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// One result of a query.
#[derive(Clone, Debug, Deserialize)]
pub struct QueryResult {
    /// The labels.
    pub metric: std::collections::BTreeMap<String, String>,
    /// The time, and the value as text.
    pub value: (f64, String),
}

#[derive(Deserialize)]
struct QueryResponse {
    data: QueryData,
}

#[derive(Deserialize)]
struct QueryData {
    result: Vec<QueryResult>,
}

impl Host {
    /// Starts Prometheus and Alertmanager with the deployed rules and inhibitions. Minutes are replaced by seconds,
    /// so that a test can wait until an alert ends.
    pub fn monitoring(&self) -> anyhow::Result<Monitoring<'_>> {
        let files = TempDir::with_prefix("probe-test-").context("cannot create a directory")?;
        let at = |name: &str| files.path().join(name);
        let webhook = self.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let url = format!("http://{}/", webhook.local_addr()?);
        fs::write(at("prometheus.yml"), prometheus_config())?;
        fs::write(at("alertmanager.yml"), alertmanager_config(&url)?)?;
        for name in [
            "arp-monitor.rules.yaml",
            "arp-monitor-across-nodes.rules.yaml",
            "arp-monitor-kubernetes.rules.yaml",
        ] {
            fs::write(at(name), with_short_durations(&deployed(name)?)?)?;
        }
        let received = Arc::new(Mutex::new(Vec::new()));
        receive(webhook, received.clone());

        let program = prometheus_program("prometheus-alertmanager")?;
        let unpacked = tool_cache()?.join(PROMETHEUS_CACHE);
        let alertmanager = self.spawn([
            "sh".as_ref(),
            "-c".as_ref(),
            WITH_TEMPLATES.as_ref(),
            unpacked.as_os_str(),
            program.as_os_str(),
            option("--config.file", &at("alertmanager.yml")).as_ref(),
            option("--storage.path", &at("alertmanager")).as_ref(),
            format!("--web.listen-address={ALERTMANAGER}").as_ref(),
            // Disables clustering.
            "--cluster.listen-address=".as_ref(),
        ])?;
        let prometheus = self.spawn([
            prometheus_program("prometheus")?.as_os_str(),
            option("--config.file", &at("prometheus.yml")).as_ref(),
            option("--storage.tsdb.path", &at("data")).as_ref(),
            format!("--web.listen-address={PROMETHEUS}").as_ref(),
        ])?;
        let monitoring = Monitoring {
            host: self,
            prometheus,
            alertmanager,
            received,
            _files: files,
        };
        monitoring.wait_until_ready()?;
        Ok(monitoring)
    }
}

impl Monitoring<'_> {
    fn wait_until_ready(&self) -> anyhow::Result<()> {
        for (server, process) in [
            (ALERTMANAGER, &self.alertmanager),
            (PROMETHEUS, &self.prometheus),
        ] {
            eventually(
                "Prometheus and Alertmanager to be ready",
                READY_TIMEOUT,
                || {
                    ensure!(
                        !process.has_ended(),
                        "the process ended:\n{}",
                        process.written_output()
                    );
                    let response = self.host.http_get(server, "/-/ready");
                    Ok(response
                        .is_ok_and(|response| response.status == 200)
                        .then_some(()))
                },
            )?;
        }
        Ok(())
    }

    /// Evaluates an expression now.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<QueryResult>> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}")?;
        }
        let response = self.host.http_get(PROMETHEUS, &path)?;
        ensure!(response.status == 200, "{expression}: {}", response.body);
        let response: QueryResponse =
            serde_json::from_str(&response.body).context(response.body)?;
        Ok(response.data.result)
    }

    /// The notifications received so far.
    pub fn notifications(&self) -> Vec<Notification> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a notification with an alert that `wanted` accepts.
    pub fn wait_for_alert(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Alert) -> bool,
    ) -> anyhow::Result<Alert> {
        eventually(what, within, || {
            let notifications = self.notifications();
            let mut alerts = notifications
                .into_iter()
                .flat_map(|notification| notification.alerts);
            Ok(alerts.find(&wanted))
        })
        .with_context(|| format!("notifications so far: {:#?}", self.notifications()))
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn deployed(name: &str) -> anyhow::Result<String> {
    let path = workspace().join("deploy/prometheus").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Returns the rules with seconds instead of minutes where a test would have to wait.
fn with_short_durations(rules: &str) -> anyhow::Result<String> {
    ensure!(
        rules.contains("keep_firing_for: 10m"),
        "the rules have changed"
    );
    Ok(rules
        .replace("keep_firing_for: 10m", "keep_firing_for: 2s")
        .replace("[5m]", "[5s]"))
}

fn prometheus_config() -> String {
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['*.rules.yaml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{ALERTMANAGER}']}}]}}]}}\n\
         scrape_configs:\n\
         - job_name: arp-monitor\n\
         \x20 static_configs: [{{targets: ['{LISTEN}']}}]\n"
    )
}

fn alertmanager_config(url: &str) -> anyhow::Result<String> {
    let inhibitions = deployed("alertmanager-inhibit.yaml")?;
    Ok(format!(
        "route: {{receiver: webhook, group_by: [alertname, segment, vlan, ip], group_wait: 1s, group_interval: 1s, \
         repeat_interval: 1h}}\n\
         receivers: [{{name: webhook, webhook_configs: [{{url: '{url}', send_resolved: true}}]}}]\n\
         {inhibitions}"
    ))
}

/// Receives notifications until the test process ends.
fn receive(webhook: TcpListener, received: Arc<Mutex<Vec<Notification>>>) {
    thread::spawn(move || {
        for stream in webhook.incoming().flatten() {
            // Alertmanager retries an incomplete notification.
            if let Ok(notification) = take(stream) {
                received
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(notification);
            }
        }
    });
}

fn take(stream: TcpStream) -> anyhow::Result<Notification> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream).take(LONGEST);
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "no end of headers");
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; usize::try_from(u64::min(length, LONGEST))?];
    reader.read_exact(&mut body)?;
    let notification = serde_json::from_slice(&body)?;
    let mut stream = reader.into_inner().into_inner();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    Ok(notification)
}
