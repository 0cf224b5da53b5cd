//! The expected owner: addresses that the daemon tracks because of the cluster, and annotations of its findings.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    Api, Daemon, DaemonSocket, INTERFACE, Lab, Metrics, SHARED_ADDRESS, ThreeHosts, eventually,
    install_metallb, metallb, namespace, node, pool, service,
};
use serde_json::{Value, json};

/// Timeout for a start, a list and the debounce of changes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The address of the server as a node.
const SERVER: &str = "192.0.2.2";

/// A daemon on the client, and its socket.
struct Watched<'a> {
    daemon: Daemon<'a>,
    socket: DaemonSocket,
}

impl Watched<'_> {
    /// The finding of this kind about the shared address.
    fn finding(&self, kind: &str) -> Result<Value> {
        eventually(kind, TIMEOUT, || {
            let findings = self.socket.records("/v1/findings?since=0&follow=false")?;
            let found =
                |finding: &&Value| finding["finding"] == kind && finding["ip"] == SHARED_ADDRESS;
            Ok(findings.iter().find(found).cloned())
        })
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
        self.daemon
            .wait_for_metrics(what, TIMEOUT, |metrics| Ok(condition(metrics)))
            .with_context(|| {
                let metrics = self.daemon.metrics().unwrap_or_default();
                let cluster: String = self.socket.get("/v1/cluster").unwrap().collect();
                let series = metrics.select("arp_monitor_tracked_silent", &[]);
                let series: Vec<_> = series.collect();
                format!("series: {series:#?}; cluster: {cluster}")
            })
    }
}

/// The addresses that are monitored for silence, without this host's own and the gateways.
fn expected(metrics: &Metrics) -> Vec<String> {
    let series = metrics.select("arp_monitor_tracked_silent", &[]);
    let of_services = series.filter(|series| series.labels.contains_key("service_name"));
    of_services
        .map(|series| series.labels["ip"].clone())
        .collect()
}

/// A cluster with a layer 2 pool, a BGP pool and a pool of another network, with one service each.
fn fill(api: &Api<'_>) -> Result<()> {
    install_metallb(api, true)?;
    api.create(&node("client", "192.0.2.1"))?;
    api.create(&node("server", SERVER))?;
    api.create(&pool("production", &["192.0.2.10-192.0.2.19"]))?;
    api.create(&pool("routed", &["192.0.2.128/28"]))?;
    api.create(&pool("elsewhere", &["198.51.100.0/28"]))?;
    let on_layer_2 = json!({ "ipAddressPools": ["production", "elsewhere"] });
    api.create(&metallb("L2Advertisement", "all", &on_layer_2))?;
    let by_bgp = json!({ "ipAddressPools": ["routed"] });
    api.create(&metallb("BGPAdvertisement", "routed", &by_bgp))?;
    api.create(&namespace("shop"))?;
    for (name, address) in [
        ("frontend", SHARED_ADDRESS),
        ("routed", "192.0.2.129"),
        ("elsewhere", "198.51.100.1"),
        ("last", "192.0.2.19"),
    ] {
        let service = service("shop", name);
        api.create(&service)?;
        api.assign(&service, &[address])?;
    }
    Ok(())
}

#[test]
fn a_conflict_on_a_service_address_names_service_pool_nodes_and_cause() -> Result<()> {
    let lab = Lab::new()?;
    let hosts: ThreeHosts = lab.three_hosts()?;
    hosts.server.add_address(&format!("{SERVER}/24"))?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    fill(&api)?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&hosts.client, &account)?;
    let socket = DaemonSocket::new()?;
    let options = [
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--socket",
        socket.argument(),
        "--node-name",
        "client",
    ];
    let daemon = hosts.client.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    let watched = Watched { daemon, socket };

    // Addresses that are routed or on another network would always be silent.
    let all = |metrics: &Metrics| expected(metrics) == [SHARED_ADDRESS, "192.0.2.19"];
    watched.wait_for("the addresses on layer 2 here", all)?;

    // The MAC addresses of the nodes are learnt from frames.
    hosts.client.resolve(SERVER)?;
    let conflict = eventually("a conflict on the shared address", TIMEOUT, || {
        hosts.client.flush_neighbours()?;
        hosts.resolve()?;
        let conflicts = watched.socket.records("/v1/conflicts")?;
        let is_open = conflicts.iter().any(|open| open["ip"] == SHARED_ADDRESS);
        Ok(is_open.then_some(()))
    })
    .and_then(|()| watched.finding("conflict"))?;
    assert_eq!(conflict["severity"], "critical", "{conflict:#}");
    let known = &conflict["cluster"];
    assert_eq!(
        known["services"],
        json!([{ "namespace": "shop", "name": "frontend" }])
    );
    assert_eq!(known["pool"]["name"], "production");
    assert_eq!(known["announced"], "layer2");
    assert_eq!(known["cause"]["kind"], "external_device", "{conflict:#}");
    assert_eq!(known["cause"]["scope"], "external");
    let owners = conflict["owners"].as_array().unwrap();
    for (host, name) in [
        (&hosts.server, json!("server")),
        (&hosts.duplicate, Value::Null),
    ] {
        let mac = host.mac().to_string();
        let owner = owners.iter().find(|owner| owner["macs"][0] == mac.as_str());
        assert_eq!(owner.unwrap()["node"], name, "{conflict:#}");
    }

    let labels = [
        ("ip", SHARED_ADDRESS),
        ("tracked", "true"),
        ("service_namespace", "shop"),
        ("service_name", "frontend"),
        ("pool", "production"),
        ("cause", "external_device"),
        ("scope", "external"),
    ];
    let mac = hosts.server.mac().to_string();
    let of_owner = [("mac", mac.as_str()), ("owner_node", "server")];
    watched.wait_for("the labels", |metrics| {
        metrics.get("arp_monitor_conflict_owners", &labels) == Some(2.0)
            && metrics.get("arp_monitor_conflict_owner_info", &of_owner) == Some(1.0)
    })?;
    for (service, number) in [("shop/frontend", 1), ("shop/", 1), ("shop/last", 0)] {
        let found = watched
            .socket
            .records(&format!("/v1/conflicts?service={service}"))?;
        assert_eq!(found.len(), number, "{service}");
    }

    // The service is deleted, and the conflict stays open.
    api.delete(&service("shop", "frontend"))?;
    watched.wait_for("the address to be untracked", |metrics| {
        expected(metrics) == ["192.0.2.19"]
    })?;
    eventually(
        "the conflict of an address of a pool without a service",
        TIMEOUT,
        || {
            let conflicts = watched.socket.records("/v1/conflicts")?;
            let [conflict] = &conflicts[..] else {
                anyhow::bail!("expected one conflict: {conflicts:#?}")
            };
            let is_known = conflict["tracked"] == false
                && conflict["cluster"]["pool"]["name"] == "production"
                && conflict["cluster"].get("services").is_none();
            Ok(is_known.then_some(()))
        },
    )?;
    assert_eq!(watched.daemon.terminate()?.code(), Some(0));
    Ok(())
}
