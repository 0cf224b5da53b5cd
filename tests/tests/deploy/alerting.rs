//! From the wire to whoever is woken: the real daemon, Debian's Prometheus with the rules, Alertmanager, a webhook.

use std::time::Duration;

use probe_tests::{Alert, Daemon, Lab, Monitoring, SHARED_ADDRESS, SocketPlace, Stream};

/// A scrape, an evaluation and a group, on a machine that is busy with other tests.
const PAGED: Duration = Duration::from_secs(40);

fn is(alert: &Alert, ip: &str, status: &str) -> bool {
    alert.labels.get("ip").map(String::as_str) == Some(ip) && alert.status == status
}

/// The names of the alerts that were told, in the order of the notifications.
fn told(monitoring: &Monitoring<'_>) -> Vec<String> {
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
    probe_tests::eventually("the daemon to be scraped", PAGED, || {
        let up = monitoring.query("arp_monitor_build_info")?;
        Ok((!up.is_empty()).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_conflict_wakes_one_person_once_with_both_macs_and_its_end_is_told() {
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

    hosts.ask().unwrap();
    let fired = monitoring
        .wait_for_alert("the alert", PAGED, |alert| {
            is(alert, SHARED_ADDRESS, "firing")
        })
        .unwrap();
    assert_eq!(fired.labels["alertname"], "ArpTrackedAddressConflict");
    assert_eq!(fired.labels["severity"], "critical");
    assert_eq!(fired.labels["segment"], "192.0.2.0/24");
    assert!(!fired.labels.contains_key("instance"), "{fired:?}");
    assert!(!fired.labels.contains_key("drill"), "{fired:?}");
    for owner in [&hosts.server, &hosts.rival] {
        let mac = owner.mac().to_string();
        assert!(fired.annotations["owners"].contains(&mac), "{fired:?}");
    }
    assert!(
        fired.annotations["nodes"].contains("127.0.0.1"),
        "{fired:?}"
    );

    hosts.remove_rival().unwrap();
    monitoring
        .wait_for_alert("its end", PAGED, |alert| {
            is(alert, SHARED_ADDRESS, "resolved")
        })
        .unwrap();
    assert_eq!(
        told(&monitoring),
        [
            "ArpTrackedAddressConflict firing",
            "ArpTrackedAddressConflict resolved"
        ]
    );
}

#[test]
fn a_drill_wakes_the_same_person_says_what_it_is_and_ends_with_ctrl_c() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&["--socket", place.word()]).unwrap();
    let monitoring = monitor.monitoring().unwrap();
    wait_for_scrapes(&daemon, &monitoring);

    let mut drill = monitor
        .probe(&["drill", "--for", "5m", "--socket", place.word()])
        .unwrap();
    drill
        .wait_for_line(Stream::Stdout, PAGED, |line| {
            line.contains("DRILL/conflict")
        })
        .unwrap();
    let fired = monitoring
        .wait_for_alert("the alert", PAGED, |alert| is(alert, "192.0.2.1", "firing"))
        .unwrap();
    assert_eq!(fired.labels["alertname"], "ArpTrackedAddressConflict");
    assert_eq!(fired.labels["drill"], "true");
    assert_eq!(fired.labels["segment"], "drill");
    assert!(fired.annotations["summary"].starts_with("DRILL, not real"));

    drill.interrupt().unwrap();
    assert_eq!(drill.exit_status(PAGED).unwrap().code(), Some(0));
    monitoring
        .wait_for_alert("its end", PAGED, |alert| is(alert, "192.0.2.1", "resolved"))
        .unwrap();
}
