//! Drift between cluster and network without a conflict: a real API server, and real hosts.
//!
//! All kinds share one cluster and one network, like the causes. Load balancer classes need a fake server: the API
//! server of these tests is 1.20 and does not know `loadBalancerClass`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    Api, DaemonSocket, Fault, Host, Lab, MetalLbSpeaker, eventually, install_metallb, metallb,
    namespace, node, pool, service,
};
use serde_json::{Value, json};

/// Timeout: acquiring the Lease, probes without a reply, and the grace period of drift take a quarter of it on an
/// idle machine.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The number of polls between two claims for unused addresses: about a second.
const POLLS: u32 = 100;

/// The expected kinds with their objects and reasons.
const EXPECTED: &[(&str, &str, Option<&str>)] = &[
    ("address_outside_pools", "192.0.2.100", None),
    ("announced_unassigned", "192.0.2.228", None),
    ("claimed_unassigned", "192.0.2.229", None),
    ("not_announced", "192.0.2.226", Some("unknown")),
    ("not_announced", "192.0.2.227", Some("no_ready_endpoints")),
    ("not_announced", "192.0.2.237", Some("no_advertisement")),
    ("service_pending", "full-c", Some("exhausted")),
    (
        "service_pending",
        "wants-outside",
        Some("requested_outside_pools"),
    ),
    ("service_pending", "wants-taken", Some("requested_in_use")),
    ("service_pending", "wants-kept", Some("no_pool")),
    (
        "service_pending",
        "wants-unknown",
        Some("requested_pool_not_found"),
    ),
    ("service_pending", "waits", Some("unknown")),
    ("unadvertised_pool", "quiet", None),
    ("advertisement_without_pool", "lost", None),
    ("advertisement_without_node", "nowhere", None),
    ("pool_overlap", "two", None),
];

fn drifts(socket: &DaemonSocket) -> Result<Vec<Value>> {
    socket.records("/v1/drift")
}

/// Creates the objects of the cluster.
fn fill(api: &Api) -> Result<()> {
    install_metallb(api, true)?;
    for pool in [
        pool("production", &["192.0.2.224/29"]),
        pool("full", &["192.0.2.232/31"]),
        pool("quiet", &["192.0.2.236/30"]),
        pool("one", &["198.51.100.0/28"]),
        pool("two", &["198.51.100.8-198.51.100.20"]),
    ] {
        api.create(&pool)?;
    }
    api.create(&metallb(
        "IPAddressPool",
        "kept",
        &json!({
            "addresses": ["198.51.100.32/28"],
            "serviceAllocation": { "namespaces": ["bank"] },
        }),
    ))?;
    let layer_2 = |name: &str, spec: Value| metallb("L2Advertisement", name, &spec);
    api.create_all(&[
        layer_2(
            "all",
            json!({ "ipAddressPools": ["production", "full", "kept", "one", "two"] }),
        ),
        layer_2("lost", json!({ "ipAddressPools": ["no-such-pool"] })),
        layer_2(
            "nowhere",
            json!({
                "ipAddressPools": ["one"],
                "nodeSelectors": [{ "matchLabels": { "kubernetes.io/hostname": "node-9" } }],
            }),
        ),
    ])?;
    api.create(&namespace("shop"))?;
    for (name, address) in [
        ("frontend", Some("192.0.2.225")),
        ("silent", Some("192.0.2.226")),
        ("without-endpoints", Some("192.0.2.227")),
        ("outside", Some("192.0.2.100")),
        ("unadvertised", Some("192.0.2.237")),
        ("full-a", Some("192.0.2.232")),
        ("full-b", Some("192.0.2.233")),
        ("full-c", None),
        ("wants-outside", None),
        ("wants-taken", None),
        ("wants-kept", None),
        ("wants-unknown", None),
        ("waits", None),
    ] {
        let mut object = service("shop", name);
        let mut wants_pool = |pool| {
            object["metadata"]["annotations"] = json!({ "metallb.io/address-pool": pool });
        };
        match name {
            "full-c" => wants_pool("full"),
            "wants-kept" => wants_pool("kept"),
            "wants-unknown" => wants_pool("no-such-pool"),
            "wants-outside" => object["spec"]["loadBalancerIP"] = json!("203.0.113.77"),
            "wants-taken" => object["spec"]["loadBalancerIP"] = json!("192.0.2.225"),
            _ => {}
        }
        api.create(&object)?;
        if let Some(address) = address {
            api.assign(&object, &[address])?;
        }
    }
    api.create(&json!({
        "apiVersion": "discovery.k8s.io/v1beta1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": "silent-1",
            "labels": { "kubernetes.io/service-name": "silent" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["198.51.100.99"], "conditions": { "ready": true } }],
    }))?;
    // The service of another load balancer, which has its addresses.
    let hosted = service("shop", "hosted");
    api.create(&hosted)?;
    let ingress = json!([{ "hostname": "lb.example.com" }]);
    api.patch_status(&hosted, &json!({ "loadBalancer": { "ingress": ingress } }))?;
    Ok(())
}

#[test]
fn each_kind_of_drift_is_reported_with_its_reason() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.bridge()?;
    let host = |name: &str, address: &str| -> Result<Host> {
        let host = switch.host(name)?;
        host.add_address(address)?;
        Ok(host)
    };
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    fill(&api)?;
    let one = host("node-1", "192.0.2.11/24")?;
    let device = host("device", "192.0.2.50/24")?;
    let watcher = host("watcher", "192.0.2.1/24")?;
    let object = node("node-1", "192.0.2.11");
    api.create(&object)?;
    api.patch_status(&object, &object["status"])?;

    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&watcher, &account)?;
    let socket = DaemonSocket::new()?;
    let usual = [
        "-i",
        "eth0",
        "--attach",
        "native",
        "--active-probing",
        "auto",
    ];
    let options = [
        &usual[..],
        &["--drift-after", "2s", "--probe-interval", "3s"],
        &["--socket", socket.argument()],
    ]
    .concat();
    let daemon = watcher.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    for host in [&one, &device] {
        host.run(["ping", "-c1", "-W1", "192.0.2.1"])?;
    }
    // An address in the expected state, and one that was released and is still announced.
    let mut speakers =
        [225, 228].map(|last| MetalLbSpeaker::start(&one, [192, 0, 2, last]).unwrap());
    for speaker in &mut speakers {
        speaker.announce()?;
    }
    device.add_address("192.0.2.229/24")?;
    device.run(["arping", "-U", "-c2", "-w2", "-I", "eth0", "192.0.2.229"])?;
    for speaker in &mut speakers {
        speaker.wait_for_burst()?;
    }
    // The monitoring host might announce the addresses itself, so the daemon waits until another host resolves them
    // without a reply.
    for ip in ["192.0.2.226", "192.0.2.227"] {
        daemon.wait_for_metrics("an address to be tracked", TIMEOUT, |metrics| {
            let labels = [("ip", ip)];
            Ok(metrics.get("arp_monitor_tracked_silent", &labels).is_some())
        })?;
        device.run(["arping", "-D", "-c1", "-w1", "-I", "eth0", ip])?;
    }
    socket.wait_until_leader(TIMEOUT)?;
    for &(kind, about, reason) in EXPECTED {
        let mut polls = 0_u32;
        eventually(&format!("{kind} of {about}"), TIMEOUT, || {
            // An address without a service is drift only if it is observed again later: speakers announce again
            // whenever nodes join or leave.
            if kind.ends_with("_unassigned") && polls.is_multiple_of(POLLS) {
                speakers[1].announce()?;
                device.run(["arping", "-U", "-c1", "-w1", "-I", "eth0", "192.0.2.229"])?;
            }
            polls += 1;
            let found = drifts(&socket)?;
            Ok(found.into_iter().find(|drift| {
                drift["drift"] == kind
                    && drift.to_string().contains(about)
                    && reason.is_none_or(|reason| drift["reason"] == reason)
            }))
        })
        .with_context(|| format!("reported drift: {:#?}", drifts(&socket)))?;
    }
    // The finding names the announcing node, and the owner that is no node.
    for (address, host, nodes) in [
        ("192.0.2.228", &one, json!(["node-1"])),
        ("192.0.2.229", &device, Value::Null),
    ] {
        let macs = json!([host.mac().to_string()]);
        eventually(&format!("owner and nodes of {address}"), TIMEOUT, || {
            let found = drifts(&socket)?.into_iter().find(|drift| {
                drift["ip"] == address && drift["macs"] == macs && drift["nodes"] == nodes
            });
            Ok(found)
        })
        .with_context(|| format!("reported drift: {:#?}", drifts(&socket)))?;
    }
    let found = drifts(&socket)?;
    // An address in the expected state is no drift.
    let is_well =
        |drift: &&Value| drift["ip"] == "192.0.2.225" || drift["service"]["name"] == "hosted";
    assert_eq!(found.iter().filter(is_well).count(), 0, "{found:#?}");
    Ok(())
}

/// Services of a cluster whose MetalLB serves only one class.
fn services_with_classes() -> Value {
    let of_class = |name: &str, class: &str| {
        let mut object = service("shop", name);
        object["spec"]["loadBalancerClass"] = json!(class);
        object
    };
    let with_address = |mut object: Value, address: &str| {
        object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": address }] } });
        object
    };
    let mut given = with_address(of_class("given", "example.com/metallb"), "192.0.2.225");
    given["metadata"]["annotations"] = json!({ "metallb.io/ip-allocated-from-pool": "full" });
    json!([
        given,
        of_class("waits", "example.com/metallb"),
        of_class("elsewhere", "example.com/other"),
        with_address(service("shop", "without-class"), "203.0.113.9"),
        service("shop", "waits-without-class"),
    ])
}

#[test]
fn services_of_another_load_balancer_class_are_no_drift() -> Result<()> {
    let lab = Lab::new()?;
    let [watcher, _other] = lab.pair("watcher", "other")?;
    // An agent that sees no objects delays its candidacy.
    watcher.add_address("192.0.2.1/24")?;
    let faulty_server = watcher.faulty_server(|path| {
        if path.contains("watch=") {
            return Fault::HeldOpen(String::new());
        }
        if path.contains("/leases/") {
            // The Lease is always free, and every write is accepted.
            let lease = json!({ "metadata": { "resourceVersion": "1" }, "spec": {} });
            return Fault::Response(200, "application/json", lease.to_string());
        }
        let path = path.split('?').next().unwrap_or_default();
        let items = match path.rsplit('/').next() {
            Some("services") => services_with_classes(),
            Some("ipaddresspools") => json!([pool("full", &["192.0.2.225/32"])]),
            Some("l2advertisements") => json!([metallb("L2Advertisement", "all", &json!({}))]),
            _ => json!([]),
        };
        let metadata = json!({ "resourceVersion": "1" });
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items });
        Fault::Response(200, "application/json", list.to_string())
    })?;
    let socket = DaemonSocket::new()?;
    let usual = [
        "-i",
        "eth0",
        "--attach",
        "native",
        "--active-probing",
        "off",
    ];
    let options = [
        &usual[..],
        &["--drift-after", "1s", "--socket", socket.argument()],
    ]
    .concat();
    let access = faulty_server.access()?;
    let daemon = watcher.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    let expected = [
        (
            "elsewhere",
            "other_load_balancer_class",
            "example.com/other",
        ),
        ("waits", "exhausted", "1 of 1"),
        (
            "waits-without-class",
            "unknown",
            "MetalLB assigns addresses to the class example.com/metallb",
        ),
    ];
    let is_pending = |drift: &Value, (name, reason, text): (&str, &str, &str)| {
        drift["drift"] == "service_pending"
            && drift["service"]["name"] == name
            && drift["reason"] == reason
            && drift["evidence"].to_string().contains(text)
    };
    socket.wait_until_leader(TIMEOUT)?;
    let found = eventually("each service with its reason", TIMEOUT, || {
        let found = drifts(&socket)?;
        let all = expected
            .iter()
            .all(|&expected| found.iter().any(|drift| is_pending(drift, expected)));
        Ok(all.then_some(found))
    })
    .with_context(|| format!("reported drift: {:#?}", drifts(&socket)))?;
    // An address that MetalLB did not assign need not be in its pools.
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    Ok(())
}
