//! What the binary concludes from real hosts that share, keep, or hand over an address.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use probe_common::wire::MacAddr;
use probe_tests::{Daemon, Finding, Frame, Lab, SHARED_ADDRESS, Stream};

/// For a conclusion that needs no waiting, on a machine that is busy with other tests. How soon it is drawn is read
/// from times of the frames and of the daemon, which do not depend on when a test gets to look.
const SOON: Duration = Duration::from_secs(10);

/// For a move: it settles for 10 seconds.
const SETTLED: Duration = Duration::from_secs(15);

const ADDRESS: [u8; 4] = [192, 0, 2, 10];

fn conflicts_reported(daemon: &Daemon<'_>) -> Vec<Finding> {
    let mut findings = daemon.findings().unwrap();
    findings.retain(|finding| finding.finding == "conflict");
    findings
}

fn count(daemon: &Daemon<'_>, finding: &str) -> u64 {
    let metrics = daemon.metrics().unwrap();
    metrics
        .count("arp_monitor_findings_total", &[("finding", finding)])
        .unwrap()
}

pub fn two_hosts_with_one_address_are_a_conflict_within_a_second_that_names_both() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    let asked = Timestamp::now();
    let ping = hosts
        .client
        .spawn(["ping", "-c1", "-W1", SHARED_ADDRESS])
        .unwrap();
    let conflict = daemon.wait_for_finding("conflict", SOON).unwrap();
    // The second reply is what makes it a conflict…
    let after = conflict.seconds_after(asked).unwrap();
    assert!((0.0..1.0).contains(&after), "{after}");
    drop(ping);
    // …and no event waited longer between the kernel and the detection.
    let delay = "arp_monitor_detection_latency_seconds";
    let metrics = daemon.metrics().unwrap();
    let within = metrics.count(&format!("{delay}_bucket"), &[("le", "1")]);
    let all = metrics.count(&format!("{delay}_count"), &[]).unwrap();
    assert!(all >= 2, "{all}");
    assert_eq!(within.unwrap(), all);

    assert_eq!(conflict.ip, SHARED_ADDRESS);
    assert_eq!(
        (conflict.interface.as_str(), conflict.vlan.as_str()),
        ("eth0", "0")
    );
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.rival.mac()]
    );
    assert!(
        conflict.evidence.to_string().contains("duplicate_reply"),
        "{conflict:?}"
    );

    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(1.0));
    let labels = [("interface", "eth0"), ("vlan", "0"), ("ip", SHARED_ADDRESS)];
    let owners = metrics.get("arp_monitor_conflict_owners", &labels);
    assert_eq!(owners, Some(2.0));
}

pub fn one_conflict_is_reported_once_however_often_it_shows() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    for _ in 0..5 {
        hosts.ask().unwrap();
    }
    daemon.wait_for_finding("conflict", SOON).unwrap();
    // Five times two answers.
    daemon.wait_until_digested(10).unwrap();
    assert_eq!(conflicts_reported(&daemon).len(), 1);
    assert_eq!(count(&daemon, "conflict"), 1);
}

pub fn a_host_that_has_its_address_alone_is_no_conflict() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_rival().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    for _ in 0..5 {
        hosts.ask().unwrap().success().unwrap();
    }
    daemon.wait_until_digested(5).unwrap();
    assert_eq!(daemon.findings().unwrap(), []);
    assert_eq!(count(&daemon, "conflict"), 0);
    assert_eq!(count(&daemon, "contested"), 0);
}

pub fn owners_that_go_on_claiming_an_address_in_turn_are_a_conflict() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let [first, second] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb]].map(MacAddr);
    let socket = wire.sender().unwrap();
    // Further apart than the second for which a handover may overlap.
    let conflict = (0..8)
        .find_map(|round| {
            let owner = if round % 2 == 0 { first } else { second };
            socket.send(&Frame::announcement(owner, ADDRESS)).unwrap();
            daemon
                .wait_for_finding("conflict", Duration::from_millis(1200))
                .ok()
        })
        .expect("eight claims in ten seconds, by two owners in turn");
    assert_eq!(conflict.macs().unwrap(), [first, second]);
    assert!(
        conflict.evidence.to_string().contains("alternation"),
        "{conflict:?}"
    );
}

pub fn a_failover_by_gratuitous_arp_is_a_move_and_no_conflict() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_rival().unwrap();
    let watch = hosts.client.watch(&["-o", "json", "--for", "20s"]).unwrap();
    hosts.ask().unwrap().success().unwrap();

    hosts.fail_over().unwrap();
    let moved = watch
        .wait_for_finding(SETTLED, |found| found.finding == "moved")
        .unwrap();
    assert_eq!(moved.ip, SHARED_ADDRESS);
    assert!(
        moved.macs().unwrap().contains(&hosts.rival.mac()),
        "{moved:?}"
    );
    for line in watch.lines(Stream::Stdout) {
        let finding = Finding::parse(&line).unwrap().finding;
        assert!(
            ["new_binding", "moved", "source_mismatch"].contains(&finding.as_str()),
            "{line}"
        );
    }
}

pub fn a_conflict_ends_some_time_after_the_rival_has_gone() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let hurry = ["--quiet-after", "1s", "--expire-after", "3s"];
    let daemon = hosts.client.ready_daemon(&hurry).unwrap();
    hosts.ask().unwrap();
    daemon.wait_for_finding("conflict", SOON).unwrap();

    hosts.remove_rival().unwrap();
    // It may not ask who is left, so silence alone makes the conflict quiet, and more silence ends it.
    let quiet = daemon.wait_for_finding("conflict_quiet", SETTLED).unwrap();
    assert_eq!(quiet.ip, SHARED_ADDRESS);
    let expired = daemon
        .wait_for_finding("conflict_expired", SETTLED)
        .unwrap();
    assert_eq!(expired.ip, SHARED_ADDRESS);

    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(0.0));
    let owners = metrics.select("arp_monitor_conflict_owners", &[]);
    assert_eq!(owners.count(), 0, "the series of a closed conflict is gone");
}

pub fn a_conflict_stays_open_while_both_owners_answer() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let hurry = ["--quiet-after", "1s", "--expire-after", "3s"];
    let daemon = hosts.client.ready_daemon(&hurry).unwrap();
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_secs(5) {
        hosts.ask().unwrap();
    }
    let findings = daemon.findings().unwrap();
    assert!(
        findings.iter().all(|found| found.finding == "conflict"),
        "{findings:?}"
    );
    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(1.0));
}

pub fn one_address_in_two_vlans_is_no_conflict() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&["--refresh", "0s"]).unwrap();
    let socket = wire.sender().unwrap();
    for round in 0..10_u8 {
        let owner = MacAddr([2, 0, 0, 0, 0, round % 2]);
        let vlan = 100 + u16::from(round % 2);
        let frame = Frame::announcement(owner, ADDRESS);
        socket.send(&frame.tagged(vlan)).unwrap();
    }
    daemon.wait_until_digested(10).unwrap();
    assert_eq!(daemon.findings().unwrap(), []);
    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.count("arp_monitor_bindings", &[]).unwrap(), 2);
}
