//! The daemon's socket: access rights, responses, and the subcommands that use it.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{
    Daemon, DaemonSocket, Finding, Finished, Frame, Host, Lab, SHARED_ADDRESS, Stream, ThreeHosts,
};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Three times the number of findings that the daemon keeps.
const FLOOD: u32 = 30_000;
const FLOOD_TIMEOUT: Duration = Duration::from_mins(1);

fn daemon<'a>(host: &'a Host, daemon_socket: &DaemonSocket) -> Daemon<'a> {
    host.ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap()
}

/// A daemon that has found the conflict of the three hosts.
fn daemon_with_conflict<'a>(hosts: &'a ThreeHosts, daemon_socket: &DaemonSocket) -> Daemon<'a> {
    let daemon = daemon(&hosts.client, daemon_socket);
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    daemon
}

/// Runs a subcommand that queries the daemon.
fn query(host: &Host, daemon_socket: &DaemonSocket, words: &[&str]) -> Finished {
    let words = [words, &["--socket", daemon_socket.argument()]].concat();
    host.probe(&words).unwrap().finish(TIMEOUT).unwrap()
}

#[test]
fn the_socket_is_for_root_and_its_group_and_is_removed_on_exit() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let running = daemon(&monitor, &daemon_socket);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(daemon_socket.path()), 0o660);
    assert_eq!(mode(daemon_socket.path().parent().unwrap()), 0o750);
    running.terminate().unwrap();
    assert!(!daemon_socket.path().exists());
}

#[test]
fn a_second_daemon_names_the_socket_and_the_first_continues() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, other] = lab.pair("monitor", "other").unwrap();
    let _first = daemon(&monitor, &daemon_socket);
    let second = other
        .daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    second
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains(daemon_socket.argument())
        })
        .unwrap();
    assert_eq!(
        query(&monitor, &daemon_socket, &["interfaces"])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn the_socket_of_a_killed_daemon_is_replaced() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    daemon(&monitor, &daemon_socket).kill().unwrap();
    assert!(daemon_socket.path().exists());
    let finished = query(&monitor, &daemon_socket, &["conflicts"]);
    assert_eq!(finished.status.code(), Some(4));
    assert!(finished.stderr.contains("probe run"), "{finished:?}");
    let _next = daemon(&monitor, &daemon_socket);
    assert_eq!(
        query(&monitor, &daemon_socket, &["conflicts"])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn without_a_daemon_the_error_names_the_command_to_start_one() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    for verb in ["conflicts", "bindings", "interfaces", "history"] {
        let finished = query(&monitor, &daemon_socket, &[verb]);
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        assert!(finished.stderr.contains("probe run"), "{finished:?}");
    }
}

#[test]
fn the_subcommands_print_the_state_of_the_daemon_as_text() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &daemon_socket);
    let conflicts = query(&hosts.client, &daemon_socket, &["conflicts"]);
    assert_eq!(conflicts.status.code(), Some(1));
    let bindings = query(&hosts.client, &daemon_socket, &["bindings"])
        .success()
        .unwrap();
    for text in [&conflicts.stdout, &bindings] {
        for messages in [
            SHARED_ADDRESS,
            &hosts.server.mac().to_string(),
            &hosts.duplicate.mac().to_string(),
        ] {
            assert!(text.contains(messages), "{text}");
        }
    }
    assert!(bindings.contains("192.0.2.1 "), "{bindings}");
    let interfaces = query(&hosts.client, &daemon_socket, &["interfaces"])
        .success()
        .unwrap();
    assert!(interfaces.starts_with("eth0 "), "{interfaces}");
    let history = query(&hosts.client, &daemon_socket, &["history", "--since", "1h"])
        .success()
        .unwrap();
    assert!(
        history.contains("new_binding") && history.contains("conflict"),
        "{history}"
    );
}

#[test]
fn the_subcommands_print_the_state_of_the_daemon_as_filtered_json() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &daemon_socket);
    let shown = |words: &[&str]| -> Vec<serde_json::Value> {
        let words = [words, &["-o", "json"]].concat();
        let text = query(&hosts.client, &daemon_socket, &words).stdout;
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
        shown(&["bindings", "--mac", &hosts.duplicate.mac().to_string()]).len(),
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
fn watch_reads_from_the_daemon_and_attaches_no_program() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon(&hosts.client, &daemon_socket);
    let program = hosts.client.link().unwrap().xdp_programs().clone();
    let watch = hosts
        .client
        .watch(&[
            "-o",
            "json",
            "--claims",
            "--socket",
            daemon_socket.argument(),
        ])
        .unwrap();
    watch
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("through the daemon")
        })
        .unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("\"finding\":\"conflict\"")
        })
        .unwrap();
    watch
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("\"claim\":\"reply\"")
        })
        .unwrap();
    assert_eq!(hosts.client.link().unwrap().xdp_programs(), program);
    watch.interrupt().unwrap();
    watch.finish(TIMEOUT).unwrap().success().unwrap();
}

#[test]
fn watch_starts_with_the_open_conflicts() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon_with_conflict(&hosts, &daemon_socket);
    let options = [
        "-o",
        "json",
        "--count",
        "1",
        "--fail-on-conflict",
        "--socket",
        daemon_socket.argument(),
    ];
    let finished = hosts
        .client
        .watch(&options)
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    assert_eq!(finished.status.code(), Some(1));
    let finding = Finding::parse(finished.stdout.trim()).unwrap();
    assert_eq!(
        (finding.finding.as_str(), finding.ip.as_str()),
        ("conflict", SHARED_ADDRESS)
    );
}

#[test]
fn watch_reports_the_end_of_the_daemon_and_fails() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let running = daemon(&monitor, &daemon_socket);
    let watch = monitor
        .watch(&["--socket", daemon_socket.argument()])
        .unwrap();
    running.terminate().unwrap();
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
}

#[test]
fn an_undecided_takeover_of_the_daemon_is_reported_at_the_end() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let _daemon = daemon(&monitor, &daemon_socket);
    let options = [
        "--fail-on-conflict",
        "--socket",
        daemon_socket.argument(),
        "--count",
        "2",
    ];
    let watch = monitor.watch(&options).unwrap();
    let [old, new] = [0xa, 0xb].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    let socket = peer.sender().unwrap();
    socket
        .send_all(&[
            Frame::announcement(old, [192, 0, 2, 7]),
            Frame::announcement(new, [192, 0, 2, 7]),
            Frame::announcement(new, [192, 0, 2, 8]),
        ])
        .unwrap();
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    let undecided = format!("undecided at the end: 192.0.2.7 on eth0: {old} \u{2192} {new}, ");
    assert!(finished.stdout.contains(&undecided), "{finished:?}");
}

#[test]
fn watch_writes_frames_beside_a_daemon() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("conflict.pcapng");
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _daemon = daemon(&hosts.client, &daemon_socket);
    let options = [
        "-o",
        "json",
        "--write",
        file.to_str().unwrap(),
        "--socket",
        daemon_socket.argument(),
    ];
    let watch = hosts.client.watch(&options).unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("\"finding\":\"conflict\"")
        })
        .unwrap();
    watch.interrupt().unwrap();
    watch.finish(TIMEOUT).unwrap().success().unwrap();
    let words = [
        "watch",
        "-o",
        "json",
        "--finding",
        "conflict",
        "--read",
        file.to_str().unwrap(),
    ];
    let again = hosts.client.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    let finding = Finding::parse(again.success().unwrap().trim()).unwrap();
    assert_eq!(finding.ip, SHARED_ADDRESS);
}

#[test]
fn a_slow_reader_has_a_bounded_buffer_and_gets_the_number_of_missed_findings() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let running = daemon(&monitor, &daemon_socket);
    // It has sent its request and reads nothing yet.
    let lines = daemon_socket.get("/v1/findings?since=0").unwrap();
    let socket = peer.sender().unwrap();
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
                Frame::announcement(peer.mac(), [10, 7, high, low])
            })
            .collect();
        socket.send_all(&frames).unwrap();
        let sent = u64::from((chunk + 1) * 1000);
        running
            .wait_for_metrics("the flood to be processed", FLOOD_TIMEOUT, |_| {
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
    assert!(missed > 0, "{seen} read of {FLOOD}");
    assert_eq!(
        seen + missed,
        last,
        "every finding was read or counted as missed"
    );
    assert_eq!(running.get("/healthz").unwrap().status, 200);
}

#[test]
fn hostile_clients_do_not_disturb_the_daemon() {
    use std::{io::Write as _, os::unix::net::UnixStream};
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let running = daemon(&hosts.client, &daemon_socket);
    let idle: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = UnixStream::connect(daemon_socket.path()).unwrap();
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
    hosts.resolve().unwrap();
    running.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(
        query(&hosts.client, &daemon_socket, &["conflicts"])
            .status
            .code(),
        Some(1)
    );
    drop(idle);
}
