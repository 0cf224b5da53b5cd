//! Drills: labelled everywhere, for root and its group, one at a time, and gone with whoever wanted them.

use std::{os::unix::net::UnixStream, time::Duration};

use probe_tests::{Daemon, Finding, Host, Lab, Process, SocketPlace, Stream, eventually};

const SOON: Duration = Duration::from_secs(10);

fn daemon<'a>(host: &'a Host, place: &SocketPlace) -> Daemon<'a> {
    host.ready_daemon(&["--socket", place.word()]).unwrap()
}

fn drill(host: &Host, place: &SocketPlace, options: &[&str]) -> Process {
    let words = [&["drill", "--socket", place.word()], options].concat();
    host.probe(&words).unwrap()
}

fn wait_for_series(daemon: &Daemon<'_>, number: usize) {
    let labels = [("drill", "true")];
    daemon
        .wait_for_metrics(&format!("{number} drills"), SOON, |metrics| {
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
fn a_drill_is_a_finding_and_a_series_that_say_so_and_both_are_taken_back() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, &place);
    let watch = ["watch", "--socket", place.word(), "--fail-on-conflict"];
    let mut watch = monitor.probe(&watch).unwrap();
    watch
        .wait_for_line(Stream::Stderr, SOON, |line| line.starts_with("watching"))
        .unwrap();

    let finished = drill(&monitor, &place, &["--for", "3s", "-o", "json"]);
    wait_for_series(&daemon, 1);
    let metrics = daemon.metrics().unwrap();
    // What is real stays what it is.
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(0.0));
    let found = [("finding", "conflict")];
    assert_eq!(
        metrics.count("arp_monitor_findings_total", &found).unwrap(),
        0
    );
    let lines = finished.finish(SOON).unwrap().success().unwrap();
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    assert_eq!(drills(&lines), ["conflict", "conflict_resolved"]);
    wait_for_series(&daemon, 0);

    let logged = daemon.process().lines(Stream::Stdout);
    assert_eq!(drills(&logged), ["conflict", "conflict_resolved"]);
    watch
        .wait_for_line(Stream::Stdout, SOON, |line| {
            line.contains("DRILL/conflict_resolved")
        })
        .unwrap();
    assert!(watch.said().contains("DRILL, not real"));
    watch.interrupt().unwrap();
    assert_eq!(watch.exit_status(SOON).unwrap().code(), Some(0));
}

#[test]
fn one_drill_goes_on_at_a_time_and_a_killed_one_is_taken_back() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, &place);
    let first = drill(&monitor, &place, &[]);
    wait_for_series(&daemon, 1);
    let second = drill(&monitor, &place, &[]).finish(SOON).unwrap();
    assert_eq!(second.status.code(), Some(4));
    assert!(second.stderr.contains("goes on already"), "{second:?}");
    first.kill().unwrap();
    wait_for_series(&daemon, 0);
    let _third = drill(&monitor, &place, &[]);
    wait_for_series(&daemon, 1);
}

#[test]
fn a_crash_forgets_a_drill() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let killed = daemon(&monitor, &place);
    let drill = drill(&monitor, &place, &[]);
    wait_for_series(&killed, 1);
    killed.kill().unwrap();
    assert_eq!(drill.finish(SOON).unwrap().status.code(), Some(4));
    wait_for_series(&daemon(&monitor, &place), 0);
}

#[test]
fn what_is_no_drill_begins_none() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, &place);
    for (method, target, status) in [
        ("GET", "/v1/drill?for=5", "405"),
        ("POST", "/v1/drill", "400"),
        ("POST", "/v1/drill?for=0", "400"),
        ("POST", "/v1/drill?for=-1", "400"),
        ("POST", "/v1/drill?for=99999999999999999999", "400"),
    ] {
        let answer = ask(&place, method, target);
        assert!(answer.contains(status), "{method} {target}: {answer}");
    }
    let finished = drill(&monitor, &place, &["--for", "0s"]).finish(SOON);
    assert_eq!(finished.unwrap().status.code(), Some(4));
    wait_for_series(&daemon, 0);
}

fn ask(place: &SocketPlace, method: &str, target: &str) -> String {
    use std::io::{Read as _, Write as _};
    eventually("an answer", SOON, || {
        let mut stream = UnixStream::connect(place.path())?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Some(answer))
    })
    .unwrap()
}
