//! Interfaces are selected by name, by pattern or by default, and monitored as they appear, change and vanish.

use std::{fs, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{Daemon, Frame, Host, INTERFACE, Lab, Metrics, eventually};

const TIMEOUT: Duration = Duration::from_secs(10);
const UNKNOWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// The monitored interfaces by name.
fn watched(metrics: &Metrics) -> Vec<String> {
    let mut names: Vec<_> = metrics
        .select("arp_monitor_interface_attached", &[])
        .map(|sample| sample.labels["interface"].clone())
        .collect();
    names.sort();
    names
}

fn wait_until_monitored(daemon: &Daemon<'_>, names: &[&str]) {
    daemon
        .wait_for_metrics(&format!("{names:?} to be monitored"), TIMEOUT, |metrics| {
            Ok(watched(metrics) == names)
        })
        .unwrap();
}

/// Sends a frame into the other end of a veth pair, and waits until the interface has counted this many.
fn count(daemon: &Daemon<'_>, host: &Host, from: &str, interface: &str, frames: u64) {
    let frame = Frame::announcement(UNKNOWN_MAC, ADDRESS);
    host.sender_on(from).unwrap().send(&frame).unwrap();
    let labels = [("interface", interface), ("direction", "ingress")];
    daemon
        .wait_for_metrics(
            &format!("{frames} frames on {interface}"),
            TIMEOUT,
            |metrics| Ok(metrics.count("arp_monitor_frames_total", &labels)? == frames),
        )
        .unwrap();
}

/// The number of open descriptors of the daemon.
fn descriptors(daemon: &Daemon<'_>) -> usize {
    let path = format!("/proc/{}/fd", daemon.process().id());
    fs::read_dir(path).unwrap().count()
}

#[test]
fn exclusions_override_patterns() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    for (end, other) in [("port0", "wire0"), ("port1", "wire1"), ("port2", "wire2")] {
        monitor.add_cable(end, other).unwrap();
    }
    for (options, expected) in [
        (&["-i", "port*"][..], &["port0", "port1", "port2"][..]),
        (&["-i", "port*", "-x", "port1"], &["port0", "port2"]),
        (
            &["-i", "port[12]", "-i", "eth0"],
            &["eth0", "port1", "port2"],
        ),
        (
            &["-i", "*", "-x", "wire*", "-x", "port0"],
            &["eth0", "port1", "port2"],
        ),
    ] {
        let daemon = monitor.ready_bare_daemon(options).unwrap();
        wait_until_monitored(&daemon, expected);
    }
}

#[test]
fn by_default_interfaces_of_the_default_route_are_monitored() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_cable("veth1234", "veth5678").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    monitor
        .ip(["route", "add", "default", "via", "192.0.2.254"])
        .unwrap();
    let daemon = monitor.ready_bare_daemon(&[]).unwrap();
    wait_until_monitored(&daemon, &[INTERFACE]);
    let frame = Frame::announcement(peer.mac(), [192, 0, 2, 2]);
    peer.sender().unwrap().send(&frame).unwrap();
    daemon.wait_until_processed(1).unwrap();
}

#[test]
fn an_interface_is_monitored_from_its_creation_to_its_removal() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor
        .ready_bare_daemon(&["-i", "eth0", "-i", "port*"])
        .unwrap();
    let at_first = descriptors(&daemon);
    for round in 0..5 {
        monitor.add_cable("port0", "far0").unwrap();
        wait_until_monitored(&daemon, &["eth0", "port0"]);
        // The counters continue after the previous interface of this name: no counter decreases.
        count(&daemon, &monitor, "far0", "port0", round + 1);
        monitor.ip(["link", "del", "port0"]).unwrap();
        wait_until_monitored(&daemon, &["eth0"]);
        let metrics = daemon.metrics().unwrap();
        for name in ["frames", "claims", "outcomes", "events_received"] {
            let name = format!("arp_monitor_{name}_total");
            let left = metrics.select(&name, &[("interface", "port0")]).count();
            assert_eq!(left, 0, "{name} in round {round}");
        }
    }
    eventually("no descriptor to stay open", TIMEOUT, || {
        Ok((descriptors(&daemon) <= at_first).then_some(()))
    })
    .unwrap();
}

#[test]
fn without_its_interface_the_daemon_is_not_ready_until_it_returns() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_cable("port0", "far0").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", "port0"]).unwrap();
    monitor.ip(["link", "del", "port0"]).unwrap();
    wait_until_monitored(&daemon, &[]);
    eventually("the daemon not to be ready", TIMEOUT, || {
        Ok((daemon.get("/readyz")?.status == 503).then_some(()))
    })
    .unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);

    // A period and not a wait: nothing may happen within it.
    let before = daemon.process().cpu_time().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let used = daemon.process().cpu_time().unwrap().saturating_sub(before);
    assert!(
        used < Duration::from_millis(300),
        "{used:?} of CPU time in 3 idle seconds"
    );

    monitor.add_cable("port0", "far0").unwrap();
    daemon.wait_until_ready().unwrap();
    count(&daemon, &monitor, "far0", "port0", 1);
}

#[test]
fn a_renamed_interface_keeps_its_counters() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_cable("port0", "far0").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", "port*"]).unwrap();
    count(&daemon, &monitor, "far0", "port0", 1);
    for words in [
        &["link", "set", "dev", "port0", "down"][..],
        &["link", "set", "dev", "port0", "name", "port9"],
        &["link", "set", "dev", "port9", "up"],
    ] {
        monitor.ip(words.iter().copied()).unwrap();
    }
    wait_until_monitored(&daemon, &["port9"]);
    count(&daemon, &monitor, "far0", "port9", 2);
}

#[test]
fn an_interface_renamed_to_an_excluded_name_is_released() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_cable("port0", "far0").unwrap();
    let options = ["-i", "eth0", "-i", "port*", "--attach", "native"];
    let daemon = monitor.ready_bare_daemon(&options).unwrap();
    monitor.ip(["link", "set", "dev", "port0", "down"]).unwrap();
    monitor
        .ip(["link", "set", "dev", "port0", "name", "mgmt0"])
        .unwrap();
    wait_until_monitored(&daemon, &["eth0"]);
}

/// Sends claims of another host until there is a conflict, and returns the MACs of its owners.
fn claim_until_conflict(daemon: &Daemon<'_>, peer: &Host) -> Vec<MacAddr> {
    let socket = peer.sender().unwrap();
    let conflict = eventually("a conflict", TIMEOUT, || {
        socket.send(&Frame::announcement(UNKNOWN_MAC, ADDRESS))?;
        let findings = daemon.findings()?;
        Ok(findings
            .into_iter()
            .find(|finding| finding.finding == "conflict"))
    })
    .unwrap();
    assert_eq!(conflict.evidence, "local", "{conflict:?}");
    conflict.macs().unwrap()
}

#[test]
fn an_address_added_later_is_known_as_the_hosts_own() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", INTERFACE]).unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let owners = claim_until_conflict(&daemon, &peer);
    assert_eq!(owners, [monitor.mac(), UNKNOWN_MAC]);
}

#[test]
fn a_changed_mac_is_known_as_the_hosts_own() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", INTERFACE]).unwrap();
    let new = MacAddr([2, 0, 0, 0, 0, 0x77]);
    monitor
        .ip(["link", "set", "dev", INTERFACE, "address", &new.to_string()])
        .unwrap();
    assert_eq!(claim_until_conflict(&daemon, &peer), [new, UNKNOWN_MAC]);
}
