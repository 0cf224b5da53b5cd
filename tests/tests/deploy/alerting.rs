//! From frames to an alert: the real daemon, Debian's Prometheus with the rules, Alertmanager and a webhook.

use std::time::Duration;

use probe_tests::{Alert, Daemon, DaemonSocket, Lab, Monitoring, SHARED_ADDRESS, Stream};

/// Timeout for a scrape, an evaluation and a group on a busy machine.
const ALERT_TIMEOUT: Duration = Duration::from_secs(40);

fn is(alert: &Alert, ip: &str, status: &str) -> bool {
    alert.labels.get("ip").map(String::as_str) == Some(ip) && alert.status == status
}

/// The names of the alerts in the order of the notifications.
fn notifications(monitoring: &Monitoring<'_>) -> Vec<String> {
    let alerts = monitoring
        .notifications()
        .into_iter()
        .flat_map(|notification| notification.alerts);
    alerts
        .map(|alert| format!("{} {}", alert.labels["alertname"], alert.status))
        .collect()
}

fn wait_for_scrapes(daemon: &Daemon<'_>, monitoring: &Monitoring<'_>) {
    daemon.wait_until_ready().unwrap();
    probe_tests::eventually("the daemon to be scraped", ALERT_TIMEOUT, || {
        let up = monitoring.query("arp_monitor_build_info")?;
        Ok((!up.is_empty()).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_conflict_sends_one_alert_with_both_macs_and_its_resolution() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let options = ["--track", "192.0.2.0/24"];
    let ends = ["--quiet-after", "1s", "--expire-after", "5s"];
    let daemon = hosts
        .client
        .ready_daemon(&[options, [ends[0], ends[1]], [ends[2], ends[3]]].concat())
        .unwrap();
    let monitoring = hosts.client.monitoring().unwrap();
    wait_for_scrapes(&daemon, &monitoring);

    hosts.resolve().unwrap();
    let fired = monitoring
        .wait_for_alert("the alert", ALERT_TIMEOUT, |alert| {
            is(alert, SHARED_ADDRESS, "firing")
        })
        .unwrap();
    assert_eq!(fired.labels["alertname"], "ArpTrackedAddressConflict");
    assert_eq!(fired.labels["severity"], "critical");
    assert_eq!(fired.labels["segment"], "192.0.2.0/24");
    assert!(!fired.labels.contains_key("instance"), "{fired:?}");
    assert!(!fired.labels.contains_key("drill"), "{fired:?}");
    for owner in [&hosts.server, &hosts.duplicate] {
        let mac = owner.mac().to_string();
        assert!(fired.annotations["owners"].contains(&mac), "{fired:?}");
    }
    assert!(
        fired.annotations["nodes"].contains("127.0.0.1"),
        "{fired:?}"
    );

    hosts.remove_duplicate().unwrap();
    monitoring
        .wait_for_alert("the resolved alert", ALERT_TIMEOUT, |alert| {
            is(alert, SHARED_ADDRESS, "resolved")
        })
        .unwrap();
    assert_eq!(
        notifications(&monitoring),
        [
            "ArpTrackedAddressConflict firing",
            "ArpTrackedAddressConflict resolved"
        ]
    );
}

/// No host replies to the probes any more, long before the conflict would expire.
#[test]
fn the_alert_about_a_conflict_whose_owners_are_both_gone_ends_by_probes() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let options = ["--track", "192.0.2.0/24", "--quiet-after", "1s"];
    let probing = ["--active-probing", "auto", "--expire-after", "1h"];
    let daemon = hosts
        .client
        .ready_daemon(&[options, probing].concat())
        .unwrap();
    let monitoring = hosts.client.monitoring().unwrap();
    wait_for_scrapes(&daemon, &monitoring);

    hosts.resolve().unwrap();
    let is_firing = |alert: &Alert| is(alert, SHARED_ADDRESS, "firing");
    monitoring
        .wait_for_alert("the alert", ALERT_TIMEOUT, is_firing)
        .unwrap();

    hosts.remove_duplicate().unwrap();
    hosts.remove_server().unwrap();
    let resolved = daemon
        .wait_for_finding("conflict_resolved", ALERT_TIMEOUT)
        .unwrap();
    assert!(resolved.owners.iter().all(|owner| owner.role == "earlier"));
    let is_over = |alert: &Alert| is(alert, SHARED_ADDRESS, "resolved");
    monitoring
        .wait_for_alert("the resolved alert", ALERT_TIMEOUT, is_over)
        .unwrap();
}

#[test]
fn a_drill_sends_a_labelled_alert_and_ends_with_ctrl_c() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor
        .ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    let monitoring = monitor.monitoring().unwrap();
    wait_for_scrapes(&daemon, &monitoring);

    let mut drill = monitor
        .probe(&["drill", "--for", "5m", "--socket", daemon_socket.argument()])
        .unwrap();
    drill
        .wait_for_line(Stream::Stdout, ALERT_TIMEOUT, |line| {
            line.contains("DRILL/conflict")
        })
        .unwrap();
    let fired = monitoring
        .wait_for_alert("the alert", ALERT_TIMEOUT, |alert| {
            is(alert, "192.0.2.1", "firing")
        })
        .unwrap();
    assert_eq!(fired.labels["alertname"], "ArpTrackedAddressConflict");
    assert_eq!(fired.labels["drill"], "true");
    assert_eq!(fired.labels["segment"], "drill");
    assert!(fired.annotations["summary"].starts_with("DRILL, not real"));

    drill.interrupt().unwrap();
    assert_eq!(drill.exit_status(ALERT_TIMEOUT).unwrap().code(), Some(0));
    monitoring
        .wait_for_alert("the resolved alert", ALERT_TIMEOUT, |alert| {
            is(alert, "192.0.2.1", "resolved")
        })
        .unwrap();
}
