//! Findings about real hosts that share, keep or hand over an address.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use probe_common::wire::MacAddr;
use probe_tests::{Daemon, Finding, Frame, Lab, SHARED_ADDRESS, Stream};

/// Timeout for an immediate finding on a busy machine. The detection latency itself is computed from the times of
/// frames and findings, which do not depend on the test.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for a move, which settles for 10 seconds.
const MOVE_TIMEOUT: Duration = Duration::from_secs(15);

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

pub fn two_hosts_with_one_address_are_a_conflict_of_both_within_a_second() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    let resolved_at = Timestamp::now();
    let ping = hosts
        .client
        .spawn(["ping", "-c1", "-W1", SHARED_ADDRESS])
        .unwrap();
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    // The second reply causes the conflict,
    let after = conflict.seconds_after(resolved_at).unwrap();
    assert!((0.0..1.0).contains(&after), "{after}");
    drop(ping);
    // and no event waited longer between the kernel and the detector.
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
        [hosts.server.mac(), hosts.duplicate.mac()]
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

pub fn one_conflict_is_reported_once() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    for _ in 0..5 {
        hosts.resolve().unwrap();
    }
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    // Five times two replies.
    daemon.wait_until_processed(10).unwrap();
    assert_eq!(conflicts_reported(&daemon).len(), 1);
    assert_eq!(count(&daemon, "conflict"), 1);
}

pub fn one_owner_is_no_conflict() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_duplicate().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    for _ in 0..5 {
        hosts.resolve().unwrap().success().unwrap();
    }
    daemon.wait_until_processed(5).unwrap();
    assert_eq!(daemon.findings().unwrap(), []);
    assert_eq!(count(&daemon, "conflict"), 0);
    assert_eq!(count(&daemon, "contested"), 0);
}

pub fn two_owners_that_alternate_are_a_conflict() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let [first, second] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb]].map(MacAddr);
    let socket = peer.sender().unwrap();
    // More than a second apart, because within a second a handover may overlap.
    let conflict = (0..8)
        .find_map(|round| {
            let owner = if round % 2 == 0 { first } else { second };
            socket.send(&Frame::announcement(owner, ADDRESS)).unwrap();
            daemon
                .wait_for_finding("conflict", Duration::from_millis(1200))
                .ok()
        })
        .expect("a conflict within eight alternating claims in ten seconds");
    assert_eq!(conflict.macs().unwrap(), [first, second]);
    assert!(
        conflict.evidence.to_string().contains("alternation"),
        "{conflict:?}"
    );
}

pub fn a_failover_by_gratuitous_arp_is_a_move_and_no_conflict() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_duplicate().unwrap();
    let watch = hosts.client.watch(&["-o", "json", "--for", "20s"]).unwrap();
    hosts.resolve().unwrap().success().unwrap();

    hosts.fail_over().unwrap();
    let moved = watch
        .wait_for_finding(MOVE_TIMEOUT, |found| found.finding == "moved")
        .unwrap();
    assert_eq!(moved.ip, SHARED_ADDRESS);
    assert!(
        moved.macs().unwrap().contains(&hosts.duplicate.mac()),
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

pub fn a_conflict_expires_after_the_duplicate_is_removed() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let short_deadlines = ["--quiet-after", "1s", "--expire-after", "3s"];
    let daemon = hosts.client.ready_daemon(&short_deadlines).unwrap();
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();

    hosts.remove_duplicate().unwrap();
    // Without active probing, silence makes the conflict quiet, and longer silence ends it.
    let quiet = daemon
        .wait_for_finding("conflict_quiet", MOVE_TIMEOUT)
        .unwrap();
    assert_eq!(quiet.ip, SHARED_ADDRESS);
    let expired = daemon
        .wait_for_finding("conflict_expired", MOVE_TIMEOUT)
        .unwrap();
    assert_eq!(expired.ip, SHARED_ADDRESS);

    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(0.0));
    let owners = metrics.select("arp_monitor_conflict_owners", &[]);
    assert_eq!(
        owners.count(),
        0,
        "the series of a closed conflict is removed"
    );
}

pub fn a_conflict_stays_open_while_both_owners_reply() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let short_deadlines = ["--quiet-after", "1s", "--expire-after", "3s"];
    let daemon = hosts.client.ready_daemon(&short_deadlines).unwrap();
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_secs(5) {
        hosts.resolve().unwrap();
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
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&["--refresh", "0s"]).unwrap();
    let socket = peer.sender().unwrap();
    for round in 0..10_u8 {
        let owner = MacAddr([2, 0, 0, 0, 0, round % 2]);
        let vlan = 100 + u16::from(round % 2);
        let frame = Frame::announcement(owner, ADDRESS);
        socket.send(&frame.tagged(vlan)).unwrap();
    }
    daemon.wait_until_processed(10).unwrap();
    assert_eq!(daemon.findings().unwrap(), []);
    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.count("arp_monitor_bindings", &[]).unwrap(), 2);
}
