//! Supervision: a daemon exits when an essential task ends, and reports when it is stuck.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use probe_tests::{Daemon, DaemonSocket, Finished, Host, INTERFACE, Lab, eventually};
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The end of these tasks is only logged.
const OPTIONAL: [&str; 1] = ["bpf_log"];

fn options(daemon_socket: &DaemonSocket) -> Vec<&str> {
    vec![
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--socket",
        daemon_socket.argument(),
    ]
}

/// A daemon in which one task fails a second after the start.
fn faulty<'a>(host: &'a Host, daemon_socket: &DaemonSocket, fault: &str) -> Daemon<'a> {
    let fault = format!("PROBE_INJECT_FAULT={fault}");
    host.daemon_under(&["env", &fault], &options(daemon_socket))
        .unwrap()
}

fn health(daemon: &Daemon) -> (u16, Value) {
    let response = daemon.get("/readyz?verbose").unwrap();
    (
        response.status,
        serde_json::from_str(&response.body).unwrap(),
    )
}

fn component(health: &Value, name: &str) -> Value {
    let components = health["components"].as_array().unwrap();
    let found = components.iter().find(|found| found["component"] == name);
    assert!(found.is_some(), "no {name} in {health}");
    found.unwrap().clone()
}

/// The names of the tasks as the daemon lists them, so that no task is missing here.
fn tasks(host: &Host, daemon_socket: &DaemonSocket) -> Vec<String> {
    let daemon = host.ready_bare_daemon(&options(daemon_socket)).unwrap();
    // The task that is started last.
    let health = eventually("all tasks to be evaluated", TIMEOUT, || {
        let (_, health) = health(&daemon);
        let listed = health.to_string().contains("task/metrics_server");
        Ok(listed.then_some(health))
    })
    .unwrap();
    daemon.terminate().unwrap();
    let components = health["components"].as_array().unwrap();
    let names = components.iter().filter_map(|component| {
        let name = component["component"].as_str()?.strip_prefix("task/")?;
        Some(name.to_owned())
    });
    names.collect()
}

fn ended(daemon: Daemon) -> Finished {
    daemon.ended(TIMEOUT).unwrap()
}

#[test]
fn the_end_of_any_essential_task_ends_the_process_with_its_name() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let tasks = tasks(&monitor, &daemon_socket);
    assert!(tasks.len() >= 9, "{tasks:?}");
    for (number, task) in tasks.iter().enumerate() {
        if OPTIONAL.contains(&task.as_str()) {
            continue;
        }
        let kind = ["panic", "end"][number % 2];
        let finished = ended(faulty(&monitor, &daemon_socket, &format!("{task}={kind}")));
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        assert!(
            finished.stderr.contains(&format!("the task {task} ")),
            "{finished:?}"
        );
        assert!(
            !daemon_socket.path().exists(),
            "{task}: the socket was not removed"
        );
    }
}

#[test]
fn a_stuck_detector_is_neither_live_nor_ready_until_it_continues() {
    let directory = TempDir::new().unwrap();
    let manager_path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&manager_path).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    let receive = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&message[..length]).into_owned())
    };
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let notify = format!("NOTIFY_SOCKET={}", manager_path.display());
    let wrapper = [
        "env",
        "PROBE_INJECT_FAULT=detection=stall",
        "WATCHDOG_USEC=900000",
        &notify,
    ];
    let daemon = monitor
        .daemon_under(&wrapper, &options(&daemon_socket))
        .unwrap();
    assert_eq!(receive().unwrap().trim(), "READY=1");
    assert_eq!(receive().unwrap().trim(), "WATCHDOG=1");

    let state = eventually("detection to be unhealthy", TIMEOUT, || {
        let (status, health) = health(&daemon);
        let is_unhealthy = component(&health, "task/detection")["state"] == "unhealthy";
        Ok((status == 503 && is_unhealthy).then_some(health))
    })
    .unwrap();
    assert_eq!(state["status"], "unhealthy");
    let task = component(&state, "task/detection");
    let since: jiff::Timestamp = task["since"].as_str().unwrap().parse().unwrap();
    assert!(since <= jiff::Timestamp::now());
    let live = daemon.get("/healthz").unwrap();
    assert_eq!(live.status, 503);
    assert!(live.body.contains("task/detection: unhealthy"), "{live:?}");

    // Events that were sent before the task got stuck; then none for three times the period.
    manager
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    while receive().is_ok() {}
    manager
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let quiet = receive();
    assert!(quiet.is_err(), "{quiet:?}");

    daemon.wait_until_ready().unwrap();
    let (_, state) = health(&daemon);
    assert_eq!(component(&state, "task/detection")["state"], "healthy");
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(receive().unwrap().trim(), "WATCHDOG=1");
}

#[test]
fn a_link_that_is_down_is_reported_and_not_ready() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_bare_daemon(&options(&daemon_socket)).unwrap();
    let up = |metrics: &probe_tests::Metrics| {
        metrics.get("arp_monitor_interface_link_up", &[("interface", INTERFACE)])
    };
    assert_eq!(up(&daemon.metrics().unwrap()), Some(1.0));
    peer.ip(["link", "set", INTERFACE, "down"]).unwrap();
    eventually(
        "the daemon not to be ready because of the link",
        TIMEOUT,
        || {
            let (status, health) = health(&daemon);
            let link = component(&health, &format!("link/{INTERFACE}"));
            let is_down = link["state"] == "unhealthy" && link["reason"] == "the link is down";
            Ok((status == 503 && is_down).then_some(()))
        },
    )
    .unwrap();
    // A restart would not fix it.
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    daemon
        .wait_for_metrics("the metric of the link", TIMEOUT, |metrics| {
            Ok(up(metrics) == Some(0.0))
        })
        .unwrap();
    let words = ["interfaces", "--socket", daemon_socket.argument()];
    let shown = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert!(shown.stdout.contains("LINK DOWN"), "{shown:?}");

    peer.ip(["link", "set", INTERFACE, "up"]).unwrap();
    daemon.wait_until_ready().unwrap();
}

#[test]
fn after_a_pause_of_the_process_no_task_counts_as_stuck() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_bare_daemon(&options(&daemon_socket)).unwrap();
    daemon.process().pause().unwrap();
    // Longer than a task may be without a heartbeat.
    std::thread::sleep(Duration::from_secs(7));
    daemon.process().resume().unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let live = daemon.get("/healthz").unwrap();
        assert_eq!(live.status, 200, "{live:?}");
    }
}
