//! The daemon's socket: who may use it, what it says, and the verbs that read it.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{
    Daemon, Duplicate, Finding, Finished, Frame, Host, Lab, SHARED_ADDRESS, SocketPlace, Stream,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// Three times as many findings as the daemon keeps.
const FLOOD: u32 = 30_000;
const A_FLOOD: Duration = Duration::from_mins(1);

fn daemon<'a>(host: &'a Host, place: &SocketPlace) -> Daemon<'a> {
    host.ready_daemon(&["--socket", place.word()]).unwrap()
}

/// A daemon that has found the conflict of the lab.
fn daemon_with_conflict<'a>(hosts: &'a Duplicate, place: &SocketPlace) -> Daemon<'a> {
    let daemon = daemon(&hosts.client, place);
    hosts.ask().unwrap();
    daemon.wait_for_finding("conflict", SOON).unwrap();
    daemon
}

/// Runs a verb that asks the daemon.
fn ask(host: &Host, place: &SocketPlace, words: &[&str]) -> Finished {
    let words = [words, &["--socket", place.word()]].concat();
    host.probe(&words).unwrap().finish(SOON).unwrap()
}

#[test]
fn the_socket_is_for_root_and_its_group_and_goes_with_the_daemon() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let running = daemon(&monitor, &place);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.path()), 0o660);
    assert_eq!(mode(place.path().parent().unwrap()), 0o750);
    running.terminate().unwrap();
    assert!(!place.path().exists());
}

#[test]
fn a_second_daemon_names_the_socket_and_the_first_goes_on() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, other] = lab.pair("monitor", "other").unwrap();
    let _first = daemon(&monitor, &place);
    let second = other.daemon(&["--socket", place.word()]).unwrap();
    second
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| line.contains(place.word()))
        .unwrap();
    assert_eq!(
        ask(&monitor, &place, &["interfaces"]).status.code(),
        Some(0)
    );
}

#[test]
fn what_a_killed_daemon_left_is_replaced() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    daemon(&monitor, &place).kill().unwrap();
    assert!(place.path().exists());
    let finished = ask(&monitor, &place, &["conflicts"]);
    assert_eq!(finished.status.code(), Some(4));
    assert!(finished.stderr.contains("probe run"), "{finished:?}");
    let _next = daemon(&monitor, &place);
    assert_eq!(ask(&monitor, &place, &["conflicts"]).status.code(), Some(0));
}

#[test]
fn without_a_daemon_the_error_says_how_to_start_one() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    for verb in ["conflicts", "bindings", "interfaces", "history"] {
        let finished = ask(&monitor, &place, &[verb]);
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        assert!(finished.stderr.contains("probe run"), "{finished:?}");
    }
}

#[test]
fn the_verbs_show_the_daemons_state_to_people() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &place);
    let conflicts = ask(&hosts.client, &place, &["conflicts"]);
    assert_eq!(conflicts.status.code(), Some(1));
    let bindings = ask(&hosts.client, &place, &["bindings"]).success().unwrap();
    for text in [&conflicts.stdout, &bindings] {
        for said in [
            SHARED_ADDRESS,
            &hosts.server.mac().to_string(),
            &hosts.rival.mac().to_string(),
        ] {
            assert!(text.contains(said), "{text}");
        }
    }
    assert!(bindings.contains("192.0.2.1 "), "{bindings}");
    let interfaces = ask(&hosts.client, &place, &["interfaces"])
        .success()
        .unwrap();
    assert!(interfaces.starts_with("eth0 "), "{interfaces}");
    let history = ask(&hosts.client, &place, &["history", "--since", "1h"])
        .success()
        .unwrap();
    assert!(
        history.contains("new_binding") && history.contains("conflict"),
        "{history}"
    );
}

#[test]
fn the_verbs_show_the_daemons_state_to_machines_and_filter_it() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &place);
    let shown = |words: &[&str]| -> Vec<serde_json::Value> {
        let words = [words, &["-o", "json"]].concat();
        let text = ask(&hosts.client, &place, &words).stdout;
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let conflicts = shown(&["conflicts"]);
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0]["ip"], SHARED_ADDRESS);
    assert_eq!(conflicts[0]["conflict"]["evidence"], "duplicate_reply");
    assert_eq!(shown(&["conflicts", "--ip", "192.0.2.99"]).len(), 0);
    assert_eq!(
        shown(&["bindings", "--mac", &hosts.rival.mac().to_string()]).len(),
        1
    );
    assert_eq!(shown(&["interfaces", "-i", "eth*"])[0]["index"], 2);
    assert_eq!(shown(&["interfaces", "-i", "bond*"]).len(), 0);

    let history = shown(&["history"]);
    let numbers: Vec<_> = history
        .iter()
        .map(|line| line["sequence"].as_u64().unwrap())
        .collect();
    let expected: Vec<_> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert_eq!(shown(&["history", "--since", "1"]).len(), history.len() - 1);
    assert_eq!(shown(&["history", "--finding", "conflict"]).len(), 1);
    assert_eq!(
        shown(&["history", "--since", "2099-01-01T00:00:00Z"]).len(),
        0
    );
}

#[test]
fn watch_reads_from_the_daemon_and_attaches_nothing() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon(&hosts.client, &place);
    let program = hosts.client.link().unwrap().xdp_programs().clone();
    let watch = hosts
        .client
        .watch(&["-o", "json", "--claims", "--socket", place.word()])
        .unwrap();
    watch
        .wait_for_line(Stream::Stderr, SOON, |line| {
            line.contains("through the daemon")
        })
        .unwrap();
    hosts.ask().unwrap();
    watch
        .wait_for_line(Stream::Stdout, SOON, |line| {
            line.contains("\"finding\":\"conflict\"")
        })
        .unwrap();
    watch
        .wait_for_line(Stream::Stdout, SOON, |line| {
            line.contains("\"claim\":\"reply\"")
        })
        .unwrap();
    assert_eq!(hosts.client.link().unwrap().xdp_programs(), program);
    watch.interrupt().unwrap();
    watch.finish(SOON).unwrap().success().unwrap();
}

#[test]
fn watch_begins_with_the_conflicts_that_are_open() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &place);
    let options = [
        "-o",
        "json",
        "--count",
        "1",
        "--fail-on-conflict",
        "--socket",
        place.word(),
    ];
    let finished = hosts.client.watch(&options).unwrap().finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(1));
    let finding = Finding::parse(finished.stdout.trim()).unwrap();
    assert_eq!(
        (finding.finding.as_str(), finding.ip.as_str()),
        ("conflict", SHARED_ADDRESS)
    );
}

#[test]
fn watch_says_that_the_daemon_has_ended_and_fails() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let running = daemon(&monitor, &place);
    let watch = monitor.watch(&["--socket", place.word()]).unwrap();
    running.terminate().unwrap();
    let finished = watch.finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
}

#[test]
fn a_takeover_that_the_daemon_has_not_decided_is_reported_at_the_end() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let _daemon = daemon(&monitor, &place);
    let options = [
        "--fail-on-conflict",
        "--socket",
        place.word(),
        "--count",
        "2",
    ];
    let watch = monitor.watch(&options).unwrap();
    let [old, new] = [0xa, 0xb].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    let socket = wire.sender().unwrap();
    socket
        .send_all(&[
            Frame::announcement(old, [192, 0, 2, 7]),
            Frame::announcement(new, [192, 0, 2, 7]),
            Frame::announcement(new, [192, 0, 2, 8]),
        ])
        .unwrap();
    let finished = watch.finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    let undecided = format!("undecided at the end: 192.0.2.7 on eth0: {old} \u{2192} {new}, ");
    assert!(finished.stdout.contains(&undecided), "{finished:?}");
}

#[test]
fn frames_are_written_beside_the_daemon_too() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("conflict.pcapng");
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon(&hosts.client, &place);
    let options = [
        "-o",
        "json",
        "--write",
        file.to_str().unwrap(),
        "--socket",
        place.word(),
    ];
    let watch = hosts.client.watch(&options).unwrap();
    hosts.ask().unwrap();
    watch
        .wait_for_line(Stream::Stdout, SOON, |line| {
            line.contains("\"finding\":\"conflict\"")
        })
        .unwrap();
    watch.interrupt().unwrap();
    watch.finish(SOON).unwrap().success().unwrap();
    let words = [
        "watch",
        "-o",
        "json",
        "--finding",
        "conflict",
        "--read",
        file.to_str().unwrap(),
    ];
    let again = hosts.client.probe(&words).unwrap().finish(SOON).unwrap();
    let finding = Finding::parse(again.success().unwrap().trim()).unwrap();
    assert_eq!(finding.ip, SHARED_ADDRESS);
}

#[test]
fn a_slow_reader_costs_a_bounded_buffer_and_is_told_what_it_missed() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let running = daemon(&monitor, &place);
    // It has asked, and reads nothing yet.
    let lines = place.get("/v1/findings?since=0").unwrap();
    let socket = wire.sender().unwrap();
    let findings = || {
        let metrics = running.metrics().unwrap();
        let labels = [("finding", "new_binding")];
        metrics
            .count("arp_monitor_findings_total", &labels)
            .unwrap()
    };
    for chunk in 0..FLOOD / 1000 {
        let frames: Vec<_> = (0..1000_u32)
            .map(|number| {
                let [.., high, low] = (chunk * 1000 + number).to_be_bytes();
                Frame::announcement(wire.mac(), [10, 7, high, low])
            })
            .collect();
        socket.send_all(&frames).unwrap();
        let sent = u64::from((chunk + 1) * 1000);
        running
            .wait_for_metrics("the flood to be digested", A_FLOOD, |_| {
                Ok(findings() >= sent * 9 / 10)
            })
            .unwrap();
    }
    let (mut seen, mut missed, mut last) = (0, 0, 0);
    let total = findings();
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(number) = line["missed"].as_u64() {
            missed += number;
        } else {
            seen += 1;
            last = line["sequence"].as_u64().unwrap();
        }
        if last >= total {
            break;
        }
    }
    assert!(missed > 0, "{seen} seen of {FLOOD}");
    assert_eq!(
        seen + missed,
        last,
        "every finding was seen or is told to be missing"
    );
    assert_eq!(running.get("/healthz").unwrap().status, 200);
}

#[test]
fn hostile_clients_do_not_keep_the_daemon_from_its_work() {
    use std::{io::Write as _, os::unix::net::UnixStream};
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let running = daemon(&hosts.client, &place);
    let idle: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = UnixStream::connect(place.path()).unwrap();
            let nonsense: &[u8] = match number % 4 {
                0 => b"",
                1 => b"\0\xff\xfe garbage \r\n\r\n",
                2 => b"GET /v1/findings?since=never HTTP/1.1\r\n\r\n",
                _ => b"GET /v1/bindings?ip=%zz&mac=: HTTP/1.1\r\nHost: x\r\n",
            };
            stream.write_all(nonsense).unwrap();
            stream
        })
        .collect();
    hosts.ask().unwrap();
    running.wait_for_finding("conflict", SOON).unwrap();
    assert_eq!(
        ask(&hosts.client, &place, &["conflicts"]).status.code(),
        Some(1)
    );
    drop(idle);
}
