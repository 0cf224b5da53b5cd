//! The node that announces an address: a program that replies from user space does not receive the ARP probes of
//! its own host, so a missing reply is no evidence of silence there.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    Access, Daemon, DaemonSocket, Finished, Host, Lab, MetalLbSpeaker, Metrics, install_metallb,
    metallb, namespace, node, pool, service,
};
use serde_json::Value;

/// Timeout for the start, lists, and rounds of ARP probes that are delayed by a probing host.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Announced by the node of the daemon, before the daemon starts.
const ANNOUNCED: &str = "192.0.2.240";
/// Not announced.
const DEAD: &str = "192.0.2.241";

const SUCCESS: i32 = 0;
const UNMET: i32 = 3;

fn silent(metrics: &Metrics, ip: &str) -> Option<f64> {
    let labels = [("ip", ip)];
    let mut series = metrics.select("arp_monitor_tracked_silent", &labels);
    series.next().map(|series| series.value)
}

fn probes_sent(metrics: &Metrics) -> f64 {
    let labels = [("purpose", "periodic")];
    metrics
        .get("arp_monitor_arp_probes_sent_total", &labels)
        .unwrap_or(0.0)
}

/// A host, and its access to the cluster and the daemon.
struct Client<'a> {
    host: &'a Host,
    access: Access,
}

impl Client<'_> {
    fn run(&self, words: &[&str]) -> Result<(Option<i32>, Finished)> {
        let process = self.host.probe_under(&self.access.words(), words)?;
        let finished = process.finish(TIMEOUT)?;
        Ok((finished.status.code(), finished))
    }

    fn checked(&self, socket: &str, ip: &str) -> Result<(Option<i32>, Value)> {
        let words = [
            "check",
            "--kubernetes",
            "--socket",
            socket,
            "-o",
            "json",
            ip,
        ];
        let (status, finished) = self.run(&words)?;
        let line = finished.stdout.lines().next();
        let line = line.with_context(|| format!("{finished:?}"))?;
        Ok((status, serde_json::from_str(line)?))
    }

    fn explained(&self, socket: &str, ip: &str) -> Result<(Option<i32>, Value)> {
        let (status, finished) = self.run(&["explain", "--socket", socket, "-o", "json", ip])?;
        let explanation = serde_json::from_str(&finished.stdout);
        Ok((
            status,
            explanation.with_context(|| format!("{finished:?}"))?,
        ))
    }
}

#[test]
fn an_address_announced_by_a_load_balancer_on_this_host_is_not_silent() -> Result<()> {
    let lab = Lab::new()?;
    let [one, two] = lab.pair("node-1", "node-2")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    for (name, host, address) in [("node-1", &one, "192.0.2.1"), ("node-2", &two, "192.0.2.2")] {
        host.add_address(&format!("{address}/24"))?;
        let object = node(name, address);
        api.create(&object)?;
        api.patch_status(&object, &object["status"])?;
    }
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    api.create(&metallb("L2Advertisement", "all", &serde_json::json!({})))?;
    api.create(&namespace("shop"))?;
    for (name, address) in [("frontend", ANNOUNCED), ("dead", DEAD)] {
        let service = service("shop", name);
        api.create(&service)?;
        api.assign(&service, &[address])?;
    }
    // The announcements end before the daemon starts.
    let mut speaker = MetalLbSpeaker::start(&one, [192, 0, 2, 240])?;
    speaker.announce()?;
    speaker.wait_for_burst()?;

    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&one, &account)?;
    let socket = DaemonSocket::new()?;
    let options = [
        "-i",
        "eth0",
        "--attach",
        "native",
        "--node-name",
        "node-1",
        "--active-probing",
        "auto",
        "--probe-interval",
        "2s",
        "--socket",
        socket.argument(),
    ];
    let daemon: Daemon<'_> = one.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    // Another host is on the network.
    two.run(["ping", "-c1", "-W1", "192.0.2.1"])?;
    daemon.wait_for_metrics("the addresses to be tracked", TIMEOUT, |metrics| {
        Ok(silent(metrics, ANNOUNCED).is_some() && silent(metrics, DEAD).is_some())
    })?;
    // On another node, two probes without a reply mean `silent`: of these ten probes, each address gets at least
    // two.
    let metrics = daemon.wait_for_metrics("ten ARP probes", TIMEOUT, |metrics| {
        Ok(probes_sent(metrics) >= 10.0)
    })?;
    assert_eq!(silent(&metrics, ANNOUNCED), Some(0.0));
    assert_eq!(silent(&metrics, DEAD), Some(0.0), "not enough evidence yet");

    let client = Client { host: &one, access };
    for ip in [ANNOUNCED, DEAD] {
        let (status, record) = client.checked("/nonexistent", ip)?;
        assert_eq!(record["status"], "no_reply", "{record:#}");
        assert_eq!((status, record.get("expected")), (Some(SUCCESS), None));
        let (_, explanation) = client.explained(socket.argument(), ip)?;
        assert_eq!(explanation["status"], "unknown", "{explanation:#}");
    }

    // Another host resolves both addresses: one has a reply, the other has none.
    for ip in [ANNOUNCED, DEAD] {
        two.run(["arping", "-D", "-c1", "-w2", "-I", "eth0", ip])?;
    }
    let metrics = daemon.wait_for_metrics("the silence of one address", TIMEOUT, |metrics| {
        Ok(silent(metrics, DEAD) == Some(1.0))
    })?;
    assert_eq!(silent(&metrics, ANNOUNCED), Some(0.0));
    for (ip, owner_status, expected, situation, status) in [
        (ANNOUNCED, "one_owner", true, "one_owner", SUCCESS),
        (DEAD, "no_reply", false, "silent", UNMET),
    ] {
        let (exit, record) = client.checked(socket.argument(), ip)?;
        assert_eq!(record["status"], owner_status, "{record:#}");
        assert_eq!(
            (exit, &record["expected"]),
            (Some(status), &expected.into())
        );
        let (exit, explanation) = client.explained(socket.argument(), ip)?;
        assert_eq!(explanation["status"], situation, "{explanation:#}");
        assert_eq!(exit, Some(status));
    }
    let (_, explanation) = client.explained(socket.argument(), ANNOUNCED)?;
    assert_eq!(
        explanation["owners"][0]["node"], "node-1",
        "{explanation:#}"
    );
    Ok(())
}
