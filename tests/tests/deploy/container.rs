//! The container of the DaemonSet, started as on a node: with the image, the arguments, the mounts, and exactly the
//! privileges of the manifest.

use std::{fs, net::SocketAddr, time::Duration};

use probe_common::counter::Direction;
use probe_tests::{
    Container, CounterBalance, Frame, Host, INTERFACE, Lab, Metrics, Withheld, deploy, eventually,
    objects,
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The node's address.
const NODE: &str = "192.0.2.1";

/// The address on which the daemon listens in the manifest.
const LISTEN: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    10826,
);

fn manifest() -> Vec<Value> {
    objects(&fs::read_to_string(deploy().join("kubernetes/arp-monitor.yaml")).unwrap()).unwrap()
}

/// The pod of the DaemonSet in the manifest.
fn pod(objects: &[Value]) -> Value {
    let daemons: Vec<_> = objects
        .iter()
        .filter(|one| one["kind"] == "DaemonSet")
        .collect();
    assert_eq!(daemons.len(), 1);
    let mut pod = daemons[0]["spec"]["template"]["spec"].clone();
    // In the lab, no interface matches the defaults.
    let arguments = pod["containers"][0]["args"].as_array_mut().unwrap();
    arguments.push(format!("--interface={INTERFACE}").into());
    pod
}

fn start(node: &Host) -> Container<'_> {
    start_without(node, Withheld::default())
}

fn start_without<'a>(node: &'a Host, withheld: Withheld) -> Container<'a> {
    let objects = manifest();
    node.container(&pod(&objects), &objects, NODE, withheld)
        .unwrap()
}

/// A node and the host that is connected to it.
fn node() -> (Lab, Host, Host) {
    let lab = Lab::new().unwrap();
    let [node, peer] = lab.pair("node", "peer").unwrap();
    node.add_address(&format!("{NODE}/24")).unwrap();
    (lab, node, peer)
}

/// Waits until a frame is counted.
fn wait_until_counted(container: &Container, peer: &Host) {
    let sender = peer.sender().unwrap();
    sender
        .send(&Frame::announcement(peer.mac(), [192, 0, 2, 9]))
        .unwrap();
    eventually("a claim to be counted", TIMEOUT, || {
        let metrics = Metrics::parse(&container.get(LISTEN, "/metrics")?.body)?;
        let balance = CounterBalance::read(&metrics, Direction::Ingress)?;
        Ok((balance.claims > 0 && balance.is_settled()).then_some(()))
    })
    .unwrap();
}

#[test]
fn the_daemon_sets_container_attaches_and_counts() {
    let (_lab, node, peer) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    assert_eq!(container.get(LISTEN, "/healthz").unwrap().status, 200);
    wait_until_counted(&container, &peer);
}

#[test]
fn the_socket_is_reachable_from_the_container_and_the_node() {
    let (_lab, node, peer) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    wait_until_counted(&container, &peer);
    let within = container.exec(&["probe", "bindings"]).unwrap();
    let within = within.finish(TIMEOUT).unwrap().success().unwrap();
    assert!(within.contains("192.0.2.9"), "{within}");
    let socket = container.host_path("run").join("probe.sock");
    let socket = socket.to_str().unwrap();
    let outside = node.probe(&["bindings", "--socket", socket]).unwrap();
    assert_eq!(outside.finish(TIMEOUT).unwrap().success().unwrap(), within);
}

#[test]
fn a_second_daemon_on_the_node_names_the_first() {
    let (_lab, node, _peer) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    let again = container.exec(&["probe", "run", "--listen=192.0.2.1:10827"]);
    let refused = again.unwrap().finish(TIMEOUT).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("another daemon listens on /run/arp-monitor/probe.sock"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_missing_capability_of_the_container_is_named() {
    let (_lab, node, _peer) = node();
    for missing in ["BPF", "NET_ADMIN", "PERFMON"] {
        let withheld = Withheld {
            capabilities: &[missing],
            ..Withheld::default()
        };
        let container = start_without(&node, withheld);
        let finished = container.finish(TIMEOUT).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let complaint = format!("this process lacks CAP_{missing}\n");
        assert!(finished.stderr.contains(&complaint), "{}", finished.stderr);
    }
}

#[test]
fn passive_detection_needs_no_capability_for_probing() {
    let (_lab, node, peer) = node();
    let withheld = Withheld {
        capabilities: &["NET_RAW"],
        ..Withheld::default()
    };
    let container = start_without(&node, withheld);
    container.wait_until_ready(LISTEN).unwrap();
    wait_until_counted(&container, &peer);
}

/// As with a container runtime whose default profile does not know `CAP_BPF`.
#[test]
fn a_seccomp_profile_that_denies_bpf_is_named_as_the_cause() {
    let (_lab, node, _peer) = node();
    let withheld = Withheld {
        system_calls: &["bpf"],
        ..Withheld::default()
    };
    let finished = start_without(&node, withheld).finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    for words in ["bpf", "seccomp"] {
        assert!(
            finished.stderr.contains(words),
            "{words}: {}",
            finished.stderr
        );
    }
    // The capability is present.
    assert!(!finished.stderr.contains("lacks CAP_"), "{finished:?}");
}

#[test]
fn the_process_runs_under_a_seccomp_filter() {
    let (_lab, node, _peer) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    let doctor = container.exec(&["probe", "doctor"]).unwrap();
    let shown = doctor.finish(TIMEOUT).unwrap();
    let line = shown.stdout.lines().find(|line| line.contains("seccomp"));
    assert!(
        line.is_some_and(|line| !line.contains("no filter")),
        "{shown:?}"
    );
}
