//! Drift with a real API server and real hosts: reported after the grace period, and over after the fix.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    DaemonSocket, Lab, Metrics, eventually, install_metallb, metallb, namespace, pool, service,
};
use serde_json::{Value, json};

/// Timeout for the Lease, a list and the grace period on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

fn drift(metrics: &Metrics, labels: &[(&str, &str)]) -> bool {
    metrics.get("arp_monitor_drift", labels) == Some(1.0)
}

fn in_pool(metrics: &Metrics, name: &str) -> Option<f64> {
    let labels = [("pool", "production"), ("family", "ipv4")];
    metrics.get(name, &labels)
}

#[test]
fn the_leader_reports_drift_until_it_is_fixed() -> Result<()> {
    let lab = Lab::new()?;
    let [node, other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    api.create(&frontend)?;
    api.assign(&frontend, &["192.0.2.240"])?;
    let mut waiting = service("shop", "waiting");
    waiting["metadata"]["annotations"] = json!({ "metallb.io/address-pool": "gone" });
    api.create(&waiting)?;
    node.add_address("192.0.2.1/24")?;
    other.exec(["ip", "address", "add", "192.0.2.245/32", "dev", "eth0"])?;

    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let socket = DaemonSocket::new()?;
    let options = [
        "-i",
        "eth0",
        "--attach",
        "native",
        "--socket",
        socket.argument(),
        "--active-probing",
        "auto",
        "--drift-after",
        "2s",
    ];
    let daemon = node.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;

    let unadvertised = [("drift", "unadvertised_pool"), ("pool", "production")];
    let pending = [
        ("drift", "service_pending"),
        ("reason", "requested_pool_not_found"),
        ("service_name", "waiting"),
    ];
    let unannounced = [
        ("drift", "not_announced"),
        ("reason", "no_advertisement"),
        ("service_name", "frontend"),
        ("ip", "192.0.2.240"),
    ];
    let in_use = [("drift", "claimed_unassigned"), ("ip", "192.0.2.245")];
    // The host announces its address once; after that, the daemon has to send probes. An announcement gets no
    // reply, which arping reports as a failure.
    other.run(["arping", "-c1", "-w1", "-U", "-I", "eth0", "192.0.2.245"])?;
    daemon
        .wait_for_metrics(
            "all drift and the pool's addresses to be reported",
            TIMEOUT,
            |metrics| {
                let all = [&unadvertised[..], &pending, &unannounced, &in_use];
                Ok(all.iter().all(|labels| drift(metrics, labels))
                    && in_pool(metrics, "arp_monitor_pool_addresses") == Some(16.0)
                    && in_pool(metrics, "arp_monitor_pool_assigned_addresses") == Some(1.0))
            },
        )
        .with_context(|| format!("{:#?}", drifts(&socket)))?;
    let found = eventually("four drifts in the list", TIMEOUT, || {
        let found = drifts(&socket)?;
        Ok((found.len() == 4).then_some(found))
    })
    .with_context(|| format!("{:#?}", drifts(&socket)))?;
    let unknown_host = found.iter().find(|one| one["ip"] == "192.0.2.245").unwrap();
    assert_eq!(unknown_host["macs"][0], other.mac().to_string());
    assert_eq!(found[0]["severity"], "critical", "{found:#?}");

    let advertised = json!({ "ipAddressPools": ["production"] });
    api.create(&metallb("L2Advertisement", "all", &advertised))?;
    api.delete(&waiting)?;
    daemon.wait_for_metrics("the fixed drift to be over", TIMEOUT, |metrics| {
        let over = [&unadvertised[..], &pending];
        Ok(!over.iter().any(|labels| drift(metrics, labels)))
    })?;
    Ok(())
}

fn drifts(socket: &DaemonSocket) -> Result<Vec<Value>> {
    socket.records("/v1/drift")
}
