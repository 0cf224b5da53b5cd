//! Prometheus, Alertmanager and whoever they call, on a host of the lab.

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

/// Every host has a loopback of its own, so they all use one port each.
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const ALERTMANAGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9093);

/// Debian's Alertmanager looks for its templates where its package has them, which is unpacked and not installed.
/// `ip netns exec` gives every program mounts of its own.
const WITH_TEMPLATES: &str = "\
    test -e /usr/share/prometheus/alertmanager/default.tmpl || \
    mount -t overlay overlay -o \"lowerdir=$0/usr/share:/usr/share\" /usr/share; \
    exec \"$@\"";

/// For programs that start, on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(30);
/// For a piece of a notification.
const DEADLINE: Duration = Duration::from_secs(5);
/// A notification is smaller.
const LONGEST: u64 = 1 << 20;

/// A Prometheus that scrapes the daemon of this host every second and runs the rules, with an Alertmanager that
/// has one receiver.
#[derive(Debug)]
pub struct Monitoring<'a> {
    host: &'a Host,
    prometheus: Process,
    alertmanager: Process,
    received: Arc<Mutex<Vec<Notification>>>,
    _files: TempDir,
}

/// What the receiver was told.
#[derive(Clone, Debug, Deserialize)]
pub struct Notification {
    /// `firing` or `resolved`.
    pub status: String,
    /// About what.
    pub alerts: Vec<Alert>,
}

/// An alert in a notification.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// What it is known by.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What people read.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// One result of a query: labels, and time and value.
#[derive(Clone, Debug, Deserialize)]
pub struct QueryResult {
    /// The labels.
    pub metric: std::collections::BTreeMap<String, String>,
    /// The time, and the value as text.
    pub value: (f64, String),
}

#[derive(Deserialize)]
struct QueryAnswer {
    data: QueryData,
}

#[derive(Deserialize)]
struct QueryData {
    result: Vec<QueryResult>,
}

impl Host {
    /// Starts both, with the rules and inhibitions as they are deployed; only minutes are seconds here, so that a
    /// test can wait for an alert to end.
    pub fn monitoring(&self) -> anyhow::Result<Monitoring<'_>> {
        let files = TempDir::with_prefix("probe-test-").context("cannot make a directory")?;
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
            fs::write(at(name), hurried(&deployed(name)?)?)?;
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
            // Nobody to share with.
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
            eventually("Prometheus and Alertmanager to be ready", READY, || {
                ensure!(!process.has_ended(), "it ended:\n{}", process.said());
                let answer = self.host.http_get(server, "/-/ready");
                Ok(answer
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(()))
            })?;
        }
        Ok(())
    }

    /// Evaluates an expression now.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<QueryResult>> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}")?;
        }
        let answer = self.host.http_get(PROMETHEUS, &path)?;
        ensure!(answer.status == 200, "{expression}: {}", answer.body);
        let answer: QueryAnswer = serde_json::from_str(&answer.body).context(answer.body)?;
        Ok(answer.data.result)
    }

    /// Everything that the receiver was told so far.
    pub fn notifications(&self) -> Vec<Notification> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the receiver to be told of an alert that `wanted` accepts.
    pub fn wait_for_alert(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Alert) -> bool,
    ) -> anyhow::Result<Alert> {
        eventually(what, within, || {
            let notifications = self.notifications();
            let mut alerts = notifications.into_iter().flat_map(|told| told.alerts);
            Ok(alerts.find(&wanted))
        })
        .with_context(|| format!("what was told: {:#?}", self.notifications()))
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn deployed(name: &str) -> anyhow::Result<String> {
    let path = workspace().join("deploy/prometheus").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The same rules, with seconds for minutes where a test would wait for them.
fn hurried(rules: &str) -> anyhow::Result<String> {
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

/// Takes notifications until the test process ends.
fn receive(webhook: TcpListener, received: Arc<Mutex<Vec<Notification>>>) {
    thread::spawn(move || {
        for stream in webhook.incoming().flatten() {
            // One that breaks off is sent again.
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
