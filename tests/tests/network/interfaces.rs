//! Interfaces are chosen by name, by pattern or by what is worth watching, and followed as they come, go and
//! change.

use std::{fs, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{Daemon, Frame, Host, INTERFACE, Lab, Metrics, eventually};

const SOON: Duration = Duration::from_secs(10);
const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// The interfaces that are watched, by name.
fn watched(metrics: &Metrics) -> Vec<String> {
    let mut names: Vec<_> = metrics
        .select("arp_monitor_interface_attached", &[])
        .map(|sample| sample.labels["interface"].clone())
        .collect();
    names.sort();
    names
}

fn wait_until_watched(daemon: &Daemon<'_>, names: &[&str]) {
    daemon
        .wait_for_metrics(&format!("{names:?} to be watched"), SOON, |metrics| {
            Ok(watched(metrics) == names)
        })
        .unwrap();
}

/// Sends a frame into the other end of a cable, and waits for the interface to have counted so many.
fn count(daemon: &Daemon<'_>, host: &Host, from: &str, interface: &str, frames: u64) {
    let frame = Frame::announcement(STRANGER, ADDRESS);
    host.sender_on(from).unwrap().send(&frame).unwrap();
    let labels = [("interface", interface), ("direction", "ingress")];
    daemon
        .wait_for_metrics(
            &format!("{frames} frames on {interface}"),
            SOON,
            |metrics| Ok(metrics.count("arp_monitor_frames_total", &labels)? == frames),
        )
        .unwrap();
}

/// Descriptors that the daemon has open.
fn descriptors(daemon: &Daemon<'_>) -> usize {
    let path = format!("/proc/{}/fd", daemon.process().id());
    fs::read_dir(path).unwrap().count()
}

#[test]
fn patterns_choose_and_exclusions_have_the_last_word() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
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
        wait_until_watched(&daemon, expected);
    }
}

#[test]
fn by_default_it_watches_what_carries_the_default_route_and_no_other_cable() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    monitor.add_cable("veth1234", "veth5678").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    monitor
        .ip(["route", "add", "default", "via", "192.0.2.254"])
        .unwrap();
    let daemon = monitor.ready_bare_daemon(&[]).unwrap();
    wait_until_watched(&daemon, &[INTERFACE]);
    let frame = Frame::announcement(wire.mac(), [192, 0, 2, 2]);
    wire.sender().unwrap().send(&frame).unwrap();
    daemon.wait_until_digested(1).unwrap();
}

#[test]
fn an_interface_is_watched_when_it_appears_and_forgotten_when_it_vanishes() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor
        .ready_bare_daemon(&["-i", "eth0", "-i", "port*"])
        .unwrap();
    let at_first = descriptors(&daemon);
    for round in 0..5 {
        monitor.add_cable("port0", "far0").unwrap();
        wait_until_watched(&daemon, &["eth0", "port0"]);
        // It goes on where the last one of its name left off: no counter falls.
        count(&daemon, &monitor, "far0", "port0", round + 1);
        monitor.ip(["link", "del", "port0"]).unwrap();
        wait_until_watched(&daemon, &["eth0"]);
        let metrics = daemon.metrics().unwrap();
        for name in ["frames", "claims", "outcomes", "events_received"] {
            let name = format!("arp_monitor_{name}_total");
            let left = metrics.select(&name, &[("interface", "port0")]).count();
            assert_eq!(left, 0, "{name} in round {round}");
        }
    }
    eventually("no descriptor to be left over", SOON, || {
        Ok((descriptors(&daemon) <= at_first).then_some(()))
    })
    .unwrap();
}

#[test]
fn without_its_interface_it_is_not_ready_and_idle_and_goes_on_when_it_is_back() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    monitor.add_cable("port0", "far0").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", "port0"]).unwrap();
    monitor.ip(["link", "del", "port0"]).unwrap();
    wait_until_watched(&daemon, &[]);
    eventually("it not to be ready", SOON, || {
        Ok((daemon.get("/readyz")?.status == 503).then_some(()))
    })
    .unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);

    // Not a wait for something to happen: the time over which nothing may.
    let before = daemon.process().cpu_time().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let used = daemon.process().cpu_time().unwrap().saturating_sub(before);
    assert!(
        used < Duration::from_millis(300),
        "{used:?} in 3 s of nothing"
    );

    monitor.add_cable("port0", "far0").unwrap();
    daemon.wait_until_ready().unwrap();
    count(&daemon, &monitor, "far0", "port0", 1);
}

#[test]
fn a_new_name_is_followed_and_its_counts_go_on() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
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
    wait_until_watched(&daemon, &["port9"]);
    count(&daemon, &monitor, "far0", "port9", 2);
}

#[test]
fn one_that_is_renamed_to_an_excluded_name_is_let_go_of() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    monitor.add_cable("port0", "far0").unwrap();
    let options = ["-i", "eth0", "-i", "port*", "--attach", "native"];
    let daemon = monitor.ready_bare_daemon(&options).unwrap();
    monitor.ip(["link", "set", "dev", "port0", "down"]).unwrap();
    monitor
        .ip(["link", "set", "dev", "port0", "name", "mgmt0"])
        .unwrap();
    wait_until_watched(&daemon, &["eth0"]);
}

/// Has a stranger claim the address until that is a conflict, and returns the MACs of its owners.
fn claim_until_conflict(daemon: &Daemon<'_>, wire: &Host) -> Vec<MacAddr> {
    let socket = wire.sender().unwrap();
    let conflict = eventually("a conflict", SOON, || {
        socket.send(&Frame::announcement(STRANGER, ADDRESS))?;
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
fn an_address_that_the_host_gets_later_is_known_as_its_own() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", INTERFACE]).unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let owners = claim_until_conflict(&daemon, &wire);
    assert_eq!(owners, [monitor.mac(), STRANGER]);
}

#[test]
fn a_new_mac_of_the_host_is_known_as_its_own() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let daemon = monitor.ready_bare_daemon(&["-i", INTERFACE]).unwrap();
    let new = MacAddr([2, 0, 0, 0, 0, 0x77]);
    monitor
        .ip(["link", "set", "dev", INTERFACE, "address", &new.to_string()])
        .unwrap();
    assert_eq!(claim_until_conflict(&daemon, &wire), [new, STRANGER]);
}
