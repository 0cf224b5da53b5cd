//! `probe watch`: findings are printed as they occur.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_tests::{Finding, Frame, Lab, SHARED_ADDRESS, Stream, binary};

const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn a_conflict_is_printed_live_with_owners_evidence_and_next_step() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&[]).unwrap();
    hosts.resolve().unwrap();
    let command = watch
        .wait_for(Stream::Stdout, TIMEOUT, |line| {
            line.trim()
                .starts_with("ip neigh")
                .then(|| line.trim().to_owned())
        })
        .unwrap();
    let shown = watch.lines(Stream::Stdout).join("\n");
    let headline = shown
        .lines()
        .find(|line| line.contains("conflict"))
        .unwrap();
    assert!(
        headline.contains(SHARED_ADDRESS) && headline.contains("eth0"),
        "{headline}"
    );
    for owner in [&hosts.server, &hosts.duplicate] {
        assert!(shown.contains(&owner.mac().to_string()), "{shown}");
        assert!(command.contains(&owner.mac().to_string()), "{command}");
    }
    assert!(shown.contains("to the same"), "{shown}");
    // The suggested command can be run.
    hosts.client.exec(["sh", "-c", &command]).unwrap();
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}'),
        "no colour outside of a terminal: {shown}"
    );
}

#[test]
fn json_is_one_object_a_line() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&["-o", "json"]).unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_finding(TIMEOUT, |finding| finding.finding == "conflict")
        .unwrap();
    for line in watch.lines(Stream::Stdout) {
        Finding::parse(&line).unwrap();
    }
}

#[test]
fn claims_are_printed_on_request() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let watch = monitor
        .watch(&["-o", "json", "--claims", "--refresh", "0s"])
        .unwrap();
    let socket = peer.sender().unwrap();
    let claim = Frame::announcement(peer.mac(), [192, 0, 2, 7]);
    for _ in 0..3 {
        socket.send(&claim).unwrap();
    }
    let mut claims = 0;
    let last = watch.wait_for_line(Stream::Stdout, TIMEOUT, |line| {
        claims += u32::from(line.contains("\"claim\":\"announcement\""));
        claims == 3
    });
    let last: serde_json::Value = serde_json::from_str(&last.unwrap()).unwrap();
    assert_eq!(
        (&last["ip"], &last["direction"]),
        (&"192.0.2.7".into(), &"ingress".into())
    );
    assert_eq!(last["mac"], peer.mac().to_string());
}

#[test]
fn only_findings_that_match_the_filter_are_printed() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let options = [
        "-o",
        "json",
        "--ip",
        "192.0.2.4/31",
        "--vlan",
        "100",
        "--count",
        "2",
    ];
    let watch = monitor.watch(&options).unwrap();
    let socket = peer.sender().unwrap();
    for number in 1..=5 {
        let claim = Frame::announcement(peer.mac(), [192, 0, 2, number]);
        socket
            .send_all(&[claim.clone().tagged(99), claim.tagged(100)])
            .unwrap();
    }
    let shown = watch.finish(TIMEOUT).unwrap().success().unwrap();
    let found = shown.lines().map(|line| Finding::parse(line).unwrap());
    let found: Vec<_> = found.map(|found| (found.ip, found.vlan)).collect();
    let expected = ["192.0.2.4", "192.0.2.5"].map(|ip| (ip.to_owned(), "100".to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn watch_exits_after_the_requested_number_of_findings() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let watch = monitor.watch(&["-o", "json", "--count", "2"]).unwrap();
    let socket = peer.sender().unwrap();
    for number in 1..=5 {
        socket
            .send(&Frame::announcement(peer.mac(), [192, 0, 2, number]))
            .unwrap();
    }
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.success().unwrap().lines().count(), 2);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}

#[test]
fn watch_exits_after_the_requested_time() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let watch = monitor.watch(&["--for", "1s"]).unwrap();
    watch.finish(TIMEOUT).unwrap().success().unwrap();
}

#[test]
fn ctrl_c_prints_a_summary_and_detaches_the_programs() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&["--fail-on-conflict"]).unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| line.contains("conflict"))
        .unwrap();
    watch.interrupt().unwrap();
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let summary = finished.stderr.lines().last().unwrap();
    assert!(
        summary.contains("1 conflict") && summary.contains(SHARED_ADDRESS),
        "{summary}"
    );
    assert!(hosts.client.link().unwrap().xdp_programs().is_empty());
}

#[test]
fn an_undecided_takeover_is_reported_at_every_kind_of_exit() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let socket = peer.sender().unwrap();
    let [old, new] = [0xa, 0xb].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    for ending in [&["--for", "5s"][..], &["--count", "2"], &[]] {
        let options = [&["--fail-on-conflict"], ending].concat();
        let watch = monitor.watch(&options).unwrap();
        socket
            .send_all(&[
                Frame::announcement(old, [192, 0, 2, 7]),
                Frame::announcement(new, [192, 0, 2, 7]),
                Frame::announcement(new, [192, 0, 2, 8]),
            ])
            .unwrap();
        watch
            .wait_for_line(Stream::Stdout, TIMEOUT, |line| line.contains("192.0.2.8"))
            .unwrap();
        if ending.is_empty() {
            watch.interrupt().unwrap();
        }
        let finished = watch.finish(TIMEOUT).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let undecided = format!("undecided at the end: 192.0.2.7 on eth0: {old} \u{2192} {new}, ");
        assert!(finished.stdout.contains(&undecided), "{finished:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let binary = binary().unwrap();
    // head closes the pipe early; `pipefail` reports the status of the first command.
    let script = format!(
        "set -o pipefail; {} watch -i eth0 --socket none -o json | head -n 1",
        binary.display()
    );
    let shell = monitor.spawn(["bash", "-c", &script]).unwrap();
    shell
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.starts_with("watching"))
        .unwrap();
    let socket = peer.sender().unwrap();
    let mut number = 0_u8;
    probe_tests::eventually("the pipe to break", TIMEOUT, || {
        number = number.wrapping_add(1);
        socket.send(&Frame::announcement(peer.mac(), [198, 51, 100, number]))?;
        Ok(shell.has_ended().then_some(()))
    })
    .unwrap();
    let finished = shell.finish(TIMEOUT).unwrap();
    assert_eq!(finished.success().unwrap().lines().count(), 1);
}

#[test]
fn on_a_terminal_progress_is_shown_without_findings() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let binary = binary().unwrap();
    let words = format!("{} watch -i eth0 --socket none --for 2s", binary.display());
    let terminal = ["env", "TERM=xterm", "script", "-qec", &words, "/dev/null"];
    let finished = monitor.spawn(terminal).unwrap().finish(TIMEOUT).unwrap();
    let shown = finished.success().unwrap();
    assert!(
        shown.contains("0 addresses, 0 conflicts, no frame yet"),
        "{shown:?}"
    );
    // Removes each expected text in turn; nothing may be left.
    let lines = shown.split('\n');
    let left = lines.map(|line| line.rsplit("\u{1b}[2K").next().unwrap_or_default());
    let left: Vec<_> = left
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(
        left.iter().all(|line| !line.contains("no frame yet")),
        "{left:?}"
    );
}
