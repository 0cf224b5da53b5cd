//! The series of addresses and their lifetime, and a scrape that `promtool` accepts.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use probe_common::wire::MacAddr;
use probe_tests::{
    Daemon, Frame, Host, Lab, Metrics, SHARED_ADDRESS, eventually, prometheus_program,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const VIRTUAL: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);
const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const IP: (&str, &str) = ("ip", "192.0.2.10");

fn announce(peer: &Host, owner: MacAddr, address: [u8; 4]) {
    let frame = Frame::announcement(owner, address);
    peer.sender().unwrap().send(&frame).unwrap();
}

fn wait(daemon: &Daemon<'_>, what: &str, mut condition: impl FnMut(&Metrics) -> bool) -> Metrics {
    daemon
        .wait_for_metrics(what, TIMEOUT, |metrics| Ok(condition(metrics)))
        .unwrap()
}

/// Sends two replies to one request and waits until the daemon reports the conflict.
fn conflict(peer: &Host) {
    let requester = MacAddr([2, 0, 0, 0, 0, 0xc]);
    let sender = peer.sender().unwrap();
    sender
        .send(&Frame::request(requester, [192, 0, 2, 1], ADDRESS))
        .unwrap();
    for owner in [A, B] {
        sender
            .send(&Frame::reply(owner, ADDRESS, requester, [192, 0, 2, 1]))
            .unwrap();
    }
}

#[test]
fn promtool_accepts_a_scrape_with_every_metric() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts
        .client
        .ready_daemon(&["--track", "192.0.2.0/24"])
        .unwrap();
    hosts.resolve().unwrap();
    let parts = [
        "arp_monitor_conflict_owner_info{",
        "arp_monitor_tracked_claim_timestamp_seconds{",
        "arp_monitor_neighbor_mismatch{",
        "process_cpu_seconds_total",
    ];
    let scrape = eventually(&format!("a scrape with {parts:?}"), TIMEOUT, || {
        let scrape = daemon.get("/metrics")?.body;
        Ok(parts
            .iter()
            .all(|part| scrape.contains(part))
            .then_some(scrape))
    })
    .unwrap();
    let mut promtool = Command::new(prometheus_program("promtool").unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(scrape.as_bytes())
        .unwrap();
    let finished = promtool.wait_with_output().unwrap();
    let messages = String::from_utf8(finished.stderr).unwrap();
    assert!(
        finished.status.success() && messages.is_empty(),
        "{messages}"
    );
}

#[test]
fn a_conflict_has_series_only_while_it_is_open() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let daemon = monitor
        .ready_daemon(&["--quiet-after", "1s", "--expire-after", "2s"])
        .unwrap();
    conflict(&peer);
    let open = wait(&daemon, "the conflict's series", |metrics| {
        metrics.get("arp_monitor_conflict_owners", &[IP]) == Some(2.0)
    });
    let owners = open
        .select("arp_monitor_conflict_owners", &[])
        .next()
        .unwrap();
    let labels: Vec<_> = owners
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        labels,
        [
            "interface=eth0",
            "ip=192.0.2.10",
            "segment=192.0.2.0/24",
            "tracked=false",
            "vlan=0"
        ]
    );
    let info = "arp_monitor_conflict_owner_info";
    for mac in [A, B] {
        assert_eq!(open.get(info, &[("mac", &mac.to_string())]), Some(1.0));
    }
    let closed = wait(&daemon, "the conflict to end", |metrics| {
        metrics.get("arp_monitor_open_conflicts", &[]) == Some(0.0)
    });
    for name in [info, "arp_monitor_conflict_owners"] {
        assert_eq!(closed.select(name, &[]).count(), 0, "{name}");
    }
    let found = [("finding", "conflict")];
    assert_eq!(
        closed.count("arp_monitor_findings_total", &found).unwrap(),
        1
    );
}

#[test]
fn series_of_a_tracked_address_have_its_owner_last_claim_and_findings() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let daemon = monitor
        .ready_daemon(&[
            "--track",
            "192.0.2.0/24",
            "--segment",
            "eth0=front",
            "--settle",
            "1s",
        ])
        .unwrap();
    let claims = "arp_monitor_tracked_claim_timestamp_seconds";
    let moved = ("finding", "moved");
    announce(&peer, A, ADDRESS);
    let a = A.to_string();
    let before = wait(&daemon, "the first owner", |metrics| {
        metrics
            .get(claims, &[IP, ("owner", &a), ("segment", "front")])
            .is_some()
    });
    let claimed = before.get(claims, &[IP]).unwrap();
    let age = jiff::Timestamp::now().as_duration().as_secs_f64() - claimed;
    assert!((0.0..30.0).contains(&age), "{age}");
    let findings = "arp_monitor_tracked_findings_total";
    assert_eq!(before.get(findings, &[IP, moved]), Some(0.0));

    announce(&peer, B, ADDRESS);
    let b = B.to_string();
    let after = wait(&daemon, "the move", |metrics| {
        metrics.get(findings, &[IP, moved]) == Some(1.0)
    });
    assert!(after.get(claims, &[IP, ("owner", &b)]).unwrap() >= claimed);
    assert_eq!(after.select(claims, &[IP]).count(), 1);
}

#[test]
fn a_virtual_router_and_its_host_are_one_owner() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&["--track", "192.0.2.0/24"]).unwrap();
    let claims = "arp_monitor_tracked_claim_timestamp_seconds";
    announce(&peer, VIRTUAL, ADDRESS);
    announce(&peer, A, ADDRESS);
    daemon.wait_until_processed(2).unwrap();
    let metrics = daemon.metrics().unwrap();
    let owner = VIRTUAL.to_string();
    assert!(metrics.get(claims, &[IP, ("owner", &owner)]).is_some());
    assert_eq!(metrics.select(claims, &[IP]).count(), 1);
}

#[test]
fn a_stale_neighbour_entry_is_reported_until_it_is_corrected() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let daemon = monitor.ready_daemon(&["--track", "192.0.2.0/24"]).unwrap();
    let mismatch = "arp_monitor_neighbor_mismatch";
    announce(&peer, A, ADDRESS);
    daemon.wait_until_processed(1).unwrap();
    assert_eq!(daemon.metrics().unwrap().select(mismatch, &[IP]).count(), 0);
    for (believed, expected) in [(B, 1.0), (A, 0.0)] {
        let mac = believed.to_string();
        let entry = ["192.0.2.10", "lladdr", &mac, "dev", "eth0", "nud", "stale"];
        monitor
            .ip(["neigh", "replace"].into_iter().chain(entry))
            .unwrap();
        wait(&daemon, &format!("a mismatch of {expected}"), |metrics| {
            metrics.get(mismatch, &[IP]) == Some(expected)
        });
    }
}

#[test]
fn address_series_are_bounded_and_omitted_ones_are_counted() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor
        .ready_daemon(&["--track", "192.0.2.0/24", "--metrics-addresses", "2"])
        .unwrap();
    for last in 11..16 {
        announce(&peer, A, [192, 0, 2, last]);
    }
    daemon.wait_until_processed(5).unwrap();
    let metrics = daemon.metrics().unwrap();
    let claims = metrics.select("arp_monitor_tracked_claim_timestamp_seconds", &[]);
    assert_eq!(claims.count(), 2);
    let beyond = |series| {
        let labels = [("series", series)];
        metrics.get("arp_monitor_addresses_not_exported", &labels)
    };
    assert_eq!(beyond("tracked"), Some(3.0));
    assert_eq!(beyond("conflicts"), Some(0.0));
    assert_eq!(metrics.get("arp_monitor_tracked_addresses", &[]), Some(5.0));
}

#[test]
fn the_metrics_contain_own_macs_and_event_latency() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    hosts.client.resolve(SHARED_ADDRESS).unwrap();
    let mac = hosts.client.mac().to_string();
    let own = [("interface", "eth0"), ("mac", mac.as_str())];
    let metrics = wait(&daemon, "an event and the own MAC", |metrics| {
        metrics
            .count("arp_monitor_detection_latency_seconds_count", &[])
            .is_ok_and(|count| count > 0)
            && metrics.get("arp_monitor_local_mac_info", &own) == Some(1.0)
    });
    let buckets = "arp_monitor_detection_latency_seconds_bucket";
    assert_eq!(
        metrics.count(buckets, &[("le", "+Inf")]).unwrap(),
        metrics
            .count("arp_monitor_detection_latency_seconds_count", &[])
            .unwrap()
    );
    assert!(metrics.count(buckets, &[("le", "1")]).is_ok());
}
