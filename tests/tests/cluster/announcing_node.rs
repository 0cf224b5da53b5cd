//! On the node that announces an address: whoever answers from user space does not hear what his own host asks, so
//! that nobody's answer there is no silence.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    Access, Daemon, Finished, Host, Lab, MetalLbSpeaker, Metrics, SocketPlace, install_metallb,
    metallb, namespace, node, pool, service,
};
use serde_json::Value;

/// Starting, lists, and rounds of questions that have to keep clear of somebody who probes.
const SOON: Duration = Duration::from_mins(1);

/// Announced by the node of the daemon, before that begins to listen.
const ANNOUNCED: &str = "192.0.2.240";
/// Announced by nobody.
const DEAD: &str = "192.0.2.241";

const FINE: i32 = 0;
const UNMET: i32 = 3;

fn silent(metrics: &Metrics, ip: &str) -> Option<f64> {
    let labels = [("ip", ip)];
    let mut series = metrics.select("arp_monitor_tracked_silent", &labels);
    series.next().map(|series| series.value)
}

fn asks(metrics: &Metrics) -> f64 {
    let labels = [("purpose", "care")];
    metrics
        .get("arp_monitor_arp_probes_sent_total", &labels)
        .unwrap_or(0.0)
}

/// A host, and how a verb on it knows the cluster and the daemon.
struct Place<'a> {
    host: &'a Host,
    access: Access,
}

impl Place<'_> {
    fn run(&self, words: &[&str]) -> Result<(Option<i32>, Finished)> {
        let process = self.host.probe_under(&self.access.words(), words)?;
        let finished = process.finish(SOON)?;
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
        let told = serde_json::from_str(&finished.stdout);
        Ok((status, told.with_context(|| format!("{finished:?}"))?))
    }
}

#[test]
fn what_a_load_balancer_on_this_host_announces_is_not_taken_for_silent() -> Result<()> {
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
    // All of its announcing is over before anybody listens.
    let mut speaker = MetalLbSpeaker::start(&one, [192, 0, 2, 240])?;
    speaker.announce()?;
    speaker.wait_for_burst()?;

    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&one, &account)?;
    let socket = SocketPlace::new()?;
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
        socket.word(),
    ];
    let daemon: Daemon<'_> = one.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    // There is somebody on the wire.
    two.run(["ping", "-c1", "-W1", "192.0.2.1"])?;
    daemon.wait_for_metrics("the addresses to be expected", SOON, |metrics| {
        Ok(silent(metrics, ANNOUNCED).is_some() && silent(metrics, DEAD).is_some())
    })?;
    // Two questions without an answer are silence, elsewhere: of either address at least two of these ten are.
    let metrics =
        daemon.wait_for_metrics("questions", SOON, |metrics| Ok(asks(metrics) >= 10.0))?;
    assert_eq!(silent(&metrics, ANNOUNCED), Some(0.0));
    assert_eq!(silent(&metrics, DEAD), Some(0.0), "nobody can know yet");

    let place = Place { host: &one, access };
    for ip in [ANNOUNCED, DEAD] {
        let (status, record) = place.checked("/nonexistent", ip)?;
        assert_eq!(record["verdict"], "no_reply", "{record:#}");
        assert_eq!((status, record.get("expected")), (Some(FINE), None));
        let (_, told) = place.explained(socket.word(), ip)?;
        assert_eq!(told["status"], "unknown", "{told:#}");
    }

    // Another host asks: the one is answered for, the other is not.
    for ip in [ANNOUNCED, DEAD] {
        two.run(["arping", "-D", "-c1", "-w2", "-I", "eth0", ip])?;
    }
    let metrics = daemon.wait_for_metrics("the silence of one", SOON, |metrics| {
        Ok(silent(metrics, DEAD) == Some(1.0))
    })?;
    assert_eq!(silent(&metrics, ANNOUNCED), Some(0.0));
    for (ip, verdict, expected, situation, status) in [
        (ANNOUNCED, "one_owner", true, "one_owner", FINE),
        (DEAD, "no_reply", false, "silent", UNMET),
    ] {
        let (exit, record) = place.checked(socket.word(), ip)?;
        assert_eq!(record["verdict"], verdict, "{record:#}");
        assert_eq!(
            (exit, &record["expected"]),
            (Some(status), &expected.into())
        );
        let (exit, told) = place.explained(socket.word(), ip)?;
        assert_eq!(told["status"], situation, "{told:#}");
        assert_eq!(exit, Some(status));
    }
    let (_, told) = place.explained(socket.word(), ANNOUNCED)?;
    assert_eq!(told["owners"][0]["node"], "node-1", "{told:#}");
    Ok(())
}
