//! The container of the DaemonSet, run as a node runs it: the image, the arguments, the mounts, and exactly the
//! privileges that the manifest gives.

use std::{fs, net::SocketAddr, time::Duration};

use probe_common::counter::Direction;
use probe_tests::{
    Container, Frame, Host, INTERFACE, Lab, Ledger, Metrics, Withheld, deploy, eventually, objects,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// The node's address.
const NODE: &str = "192.0.2.1";

/// Where the manifest has it listen.
const LISTEN: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    10826,
);

fn manifest() -> Vec<Value> {
    objects(&fs::read_to_string(deploy().join("kubernetes/arp-monitor.yaml")).unwrap()).unwrap()
}

/// The pod of the manifest's DaemonSet.
fn pod(objects: &[Value]) -> Value {
    let daemons: Vec<_> = objects
        .iter()
        .filter(|one| one["kind"] == "DaemonSet")
        .collect();
    assert_eq!(daemons.len(), 1);
    let mut pod = daemons[0]["spec"]["template"]["spec"].clone();
    // In the lab there is no network card to find by itself.
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

/// A node and what is at the other end of its cable.
fn node() -> (Lab, Host, Host) {
    let lab = Lab::new().unwrap();
    let [node, wire] = lab.pair("node", "wire").unwrap();
    node.add_address(&format!("{NODE}/24")).unwrap();
    (lab, node, wire)
}

/// Waits until a frame from the wire is counted.
fn wait_until_counted(container: &Container, wire: &Host) {
    let sender = wire.sender().unwrap();
    sender
        .send(&Frame::announcement(wire.mac(), [192, 0, 2, 9]))
        .unwrap();
    eventually("a claim to be counted", SOON, || {
        let metrics = Metrics::parse(&container.get(LISTEN, "/metrics")?.body)?;
        let ledger = Ledger::read(&metrics, Direction::Ingress)?;
        Ok((ledger.claims > 0 && ledger.is_settled()).then_some(()))
    })
    .unwrap();
}

#[test]
fn the_daemon_sets_container_attaches_and_counts() {
    let (_lab, node, wire) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    assert_eq!(container.get(LISTEN, "/healthz").unwrap().status, 200);
    wait_until_counted(&container, &wire);
}

#[test]
fn it_is_reached_through_its_socket_from_within_and_from_the_node() {
    let (_lab, node, wire) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    wait_until_counted(&container, &wire);
    let within = container.exec(&["probe", "bindings"]).unwrap();
    let within = within.finish(SOON).unwrap().success().unwrap();
    assert!(within.contains("192.0.2.9"), "{within}");
    let socket = container.host_path("run").join("probe.sock");
    let socket = socket.to_str().unwrap();
    let outside = node.probe(&["bindings", "--socket", socket]).unwrap();
    assert_eq!(outside.finish(SOON).unwrap().success().unwrap(), within);
}

#[test]
fn a_second_daemon_on_the_node_is_told_of_the_first() {
    let (_lab, node, _wire) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    let again = container.exec(&["probe", "run", "--listen=192.0.2.1:10827"]);
    let refused = again.unwrap().finish(SOON).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("another daemon answers at /run/arp-monitor/probe.sock"),
        "{}",
        refused.stderr
    );
}

#[test]
fn without_a_capability_it_says_which() {
    let (_lab, node, _wire) = node();
    for missing in ["BPF", "NET_ADMIN", "PERFMON"] {
        let withheld = Withheld {
            capabilities: &[missing],
            ..Withheld::default()
        };
        let container = start_without(&node, withheld);
        let finished = container.finish(SOON).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let complaint = format!("this process lacks CAP_{missing}\n");
        assert!(finished.stderr.contains(&complaint), "{}", finished.stderr);
    }
}

#[test]
fn it_needs_no_capability_to_ask_as_long_as_it_only_listens() {
    let (_lab, node, wire) = node();
    let withheld = Withheld {
        capabilities: &["NET_RAW"],
        ..Withheld::default()
    };
    let container = start_without(&node, withheld);
    container.wait_until_ready(LISTEN).unwrap();
    wait_until_counted(&container, &wire);
}

/// As with a container runtime whose default profile knows nothing of `CAP_BPF`.
#[test]
fn a_seccomp_profile_that_denies_bpf_is_named_as_the_cause() {
    let (_lab, node, _wire) = node();
    let withheld = Withheld {
        system_calls: &["bpf"],
        ..Withheld::default()
    };
    let finished = start_without(&node, withheld).finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    for words in ["bpf", "seccomp"] {
        assert!(
            finished.stderr.contains(words),
            "{words}: {}",
            finished.stderr
        );
    }
    // The capability is there.
    assert!(!finished.stderr.contains("lacks CAP_"), "{finished:?}");
}

#[test]
fn the_process_runs_under_a_seccomp_filter() {
    let (_lab, node, _wire) = node();
    let container = start(&node);
    container.wait_until_ready(LISTEN).unwrap();
    let doctor = container.exec(&["probe", "doctor"]).unwrap();
    let shown = doctor.finish(SOON).unwrap();
    let line = shown.stdout.lines().find(|line| line.contains("seccomp"));
    assert!(
        line.is_some_and(|line| !line.contains("no filter")),
        "{shown:?}"
    );
}
