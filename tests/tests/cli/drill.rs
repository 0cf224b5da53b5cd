//! Drills: labelled in every output, allowed for root and the group of the socket, one at a time, and ended with
//! their client.

use std::{os::unix::net::UnixStream, time::Duration};

use probe_tests::{Daemon, DaemonSocket, Finding, Host, Lab, Process, Stream, eventually};

const TIMEOUT: Duration = Duration::from_secs(10);

fn daemon<'a>(host: &'a Host, daemon_socket: &DaemonSocket) -> Daemon<'a> {
    host.ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap()
}

fn drill(host: &Host, daemon_socket: &DaemonSocket, options: &[&str]) -> Process {
    let words = [&["drill", "--socket", daemon_socket.argument()], options].concat();
    host.probe(&words).unwrap()
}

fn wait_for_series(daemon: &Daemon<'_>, number: usize) {
    let labels = [("drill", "true")];
    daemon
        .wait_for_metrics(&format!("{number} drills"), TIMEOUT, |metrics| {
            let series = metrics.select("arp_monitor_conflict_owners", &labels);
            Ok(series.count() == number)
        })
        .unwrap();
}

fn drills(lines: &[String]) -> Vec<String> {
    let values = lines.iter().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["drill"], true, "{line}");
        assert_eq!(value["interface"], "drill", "{line}");
        Finding::parse(line).unwrap().finding
    });
    values.collect()
}

#[test]
fn a_drill_creates_a_labelled_finding_and_series_and_removes_both() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, &daemon_socket);
    let watch = [
        "watch",
        "--socket",
        daemon_socket.argument(),
        "--fail-on-conflict",
    ];
    let mut watch = monitor.probe(&watch).unwrap();
    watch
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.starts_with("watching"))
        .unwrap();

    let finished = drill(&monitor, &daemon_socket, &["--for", "3s", "-o", "json"]);
    wait_for_series(&daemon, 1);
    let metrics = daemon.metrics().unwrap();
    // Real findings are not labelled.
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(0.0));
    let found = [("finding", "conflict")];
    assert_eq!(
        metrics.count("arp_monitor_findings_total", &found).unwrap(),
        0
    );
    let lines = finished.finish(TIMEOUT).unwrap().success().unwrap();
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    assert_eq!(drills(&lines), ["conflict", "conflict_resolved"]);
    wait_for_series(&daemon, 0);

    daemon
        .process()
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("conflict_resolved")
        })
        .unwrap();
    let logged = daemon.process().lines(Stream::Stdout);
    assert_eq!(drills(&logged), ["conflict", "conflict_resolved"]);
    watch
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("DRILL/conflict_resolved")
        })
        .unwrap();
    assert!(watch.written_output().contains("DRILL, not real"));
    watch.interrupt().unwrap();
    assert_eq!(watch.exit_status(TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn only_one_drill_runs_at_a_time_and_a_killed_one_is_removed() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, &daemon_socket);
    let first = drill(&monitor, &daemon_socket, &[]);
    wait_for_series(&daemon, 1);
    let second = drill(&monitor, &daemon_socket, &[])
        .finish(TIMEOUT)
        .unwrap();
    assert_eq!(second.status.code(), Some(4));
    assert!(second.stderr.contains("already running"), "{second:?}");
    first.kill().unwrap();
    wait_for_series(&daemon, 0);
    let _third = drill(&monitor, &daemon_socket, &[]);
    wait_for_series(&daemon, 1);
}

#[test]
fn a_restart_of_the_daemon_removes_a_drill() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let killed = daemon(&monitor, &daemon_socket);
    let drill = drill(&monitor, &daemon_socket, &[]);
    wait_for_series(&killed, 1);
    killed.kill().unwrap();
    assert_eq!(drill.finish(TIMEOUT).unwrap().status.code(), Some(4));
    wait_for_series(&daemon(&monitor, &daemon_socket), 0);
}

#[test]
fn an_invalid_drill_request_is_refused() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, &daemon_socket);
    for (method, target, status) in [
        ("GET", "/v1/drill?for=5", "405"),
        ("POST", "/v1/drill", "400"),
        ("POST", "/v1/drill?for=0", "400"),
        ("POST", "/v1/drill?for=-1", "400"),
        ("POST", "/v1/drill?for=99999999999999999999", "400"),
    ] {
        let response = send_request(&daemon_socket, method, target);
        assert!(response.contains(status), "{method} {target}: {response}");
    }
    let finished = drill(&monitor, &daemon_socket, &["--for", "0s"]).finish(TIMEOUT);
    assert_eq!(finished.unwrap().status.code(), Some(4));
    wait_for_series(&daemon, 0);
}

fn send_request(daemon_socket: &DaemonSocket, method: &str, target: &str) -> String {
    use std::io::{Read as _, Write as _};
    eventually("a response", TIMEOUT, || {
        let mut stream = UnixStream::connect(daemon_socket.path())?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(Some(response))
    })
    .unwrap()
}
