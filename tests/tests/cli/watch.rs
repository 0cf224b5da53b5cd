//! `probe watch`: findings as they happen.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_tests::{Finding, Frame, Lab, SHARED_ADDRESS, Stream, binary};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_conflict_appears_live_with_all_that_a_fresh_reader_needs() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&[]).unwrap();
    hosts.ask().unwrap();
    let command = watch
        .wait_for(Stream::Stdout, SOON, |line| {
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
    for owner in [&hosts.server, &hosts.rival] {
        assert!(shown.contains(&owner.mac().to_string()), "{shown}");
        assert!(command.contains(&owner.mac().to_string()), "{command}");
    }
    assert!(shown.contains("answered the same"), "{shown}");
    // The command is one that can be run.
    hosts.client.exec(["sh", "-c", &command]).unwrap();
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}'),
        "no colour where nobody sees it: {shown}"
    );
}

#[test]
fn json_is_one_object_a_line() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&["-o", "json"]).unwrap();
    hosts.ask().unwrap();
    watch
        .wait_for_finding(SOON, |finding| finding.finding == "conflict")
        .unwrap();
    for line in watch.lines(Stream::Stdout) {
        Finding::parse(&line).unwrap();
    }
}

#[test]
fn claims_are_shown_to_those_who_want_them() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor
        .watch(&["-o", "json", "--claims", "--refresh", "0s"])
        .unwrap();
    let socket = wire.sender().unwrap();
    let claim = Frame::announcement(wire.mac(), [192, 0, 2, 7]);
    for _ in 0..3 {
        socket.send(&claim).unwrap();
    }
    let mut claims = 0;
    let last = watch.wait_for_line(Stream::Stdout, SOON, |line| {
        claims += u32::from(line.contains("\"claim\":\"announcement\""));
        claims == 3
    });
    let last: serde_json::Value = serde_json::from_str(&last.unwrap()).unwrap();
    assert_eq!(
        (&last["ip"], &last["direction"]),
        (&"192.0.2.7".into(), &"ingress".into())
    );
    assert_eq!(last["mac"], wire.mac().to_string());
}

#[test]
fn only_what_the_filter_wants_is_shown() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
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
    let socket = wire.sender().unwrap();
    for number in 1..=5 {
        let claim = Frame::announcement(wire.mac(), [192, 0, 2, number]);
        socket
            .send_all(&[claim.clone().tagged(99), claim.tagged(100)])
            .unwrap();
    }
    let shown = watch.finish(SOON).unwrap().success().unwrap();
    let found = shown.lines().map(|line| Finding::parse(line).unwrap());
    let found: Vec<_> = found.map(|found| (found.ip, found.vlan)).collect();
    let expected = ["192.0.2.4", "192.0.2.5"].map(|ip| (ip.to_owned(), "100".to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn it_ends_after_the_number_of_findings_that_was_asked_for() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor.watch(&["-o", "json", "--count", "2"]).unwrap();
    let socket = wire.sender().unwrap();
    for number in 1..=5 {
        socket
            .send(&Frame::announcement(wire.mac(), [192, 0, 2, number]))
            .unwrap();
    }
    let finished = watch.finish(SOON).unwrap();
    assert_eq!(finished.success().unwrap().lines().count(), 2);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}

#[test]
fn it_ends_after_the_time_that_was_asked_for() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor.watch(&["--for", "1s"]).unwrap();
    watch.finish(SOON).unwrap().success().unwrap();
}

#[test]
fn ctrl_c_ends_it_with_a_summary_and_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&["--fail-on-conflict"]).unwrap();
    hosts.ask().unwrap();
    watch
        .wait_for_line(Stream::Stdout, SOON, |line| line.contains("conflict"))
        .unwrap();
    watch.interrupt().unwrap();
    let finished = watch.finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let summary = finished.stderr.lines().last().unwrap();
    assert!(
        summary.contains("1 conflict") && summary.contains(SHARED_ADDRESS),
        "{summary}"
    );
    assert!(hosts.client.link().unwrap().xdp_programs().is_empty());
}

#[test]
fn a_takeover_that_is_not_decided_is_reported_however_the_watching_ends() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let socket = wire.sender().unwrap();
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
            .wait_for_line(Stream::Stdout, SOON, |line| line.contains("192.0.2.8"))
            .unwrap();
        if ending.is_empty() {
            watch.interrupt().unwrap();
        }
        let finished = watch.finish(SOON).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let undecided = format!("undecided at the end: 192.0.2.7 on eth0: {old} \u{2192} {new}, ");
        assert!(finished.stdout.contains(&undecided), "{finished:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let binary = binary().unwrap();
    // What head leaves unread breaks the pipe; the status is that of the first in it.
    let script = format!(
        "set -o pipefail; {} watch -i eth0 --socket none -o json | head -n 1",
        binary.display()
    );
    let shell = monitor.spawn(["bash", "-c", &script]).unwrap();
    shell
        .wait_for_line(Stream::Stderr, SOON, |line| line.starts_with("watching"))
        .unwrap();
    let socket = wire.sender().unwrap();
    let mut number = 0_u8;
    probe_tests::eventually("the pipe to break", SOON, || {
        number = number.wrapping_add(1);
        socket.send(&Frame::announcement(wire.mac(), [198, 51, 100, number]))?;
        Ok(shell.has_ended().then_some(()))
    })
    .unwrap();
    let finished = shell.finish(SOON).unwrap();
    assert_eq!(finished.success().unwrap().lines().count(), 1);
}

#[test]
fn on_a_terminal_silence_does_not_look_broken() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let binary = binary().unwrap();
    let words = format!("{} watch -i eth0 --socket none --for 2s", binary.display());
    let terminal = ["env", "TERM=xterm", "script", "-qec", &words, "/dev/null"];
    let finished = monitor.spawn(terminal).unwrap().finish(SOON).unwrap();
    let shown = finished.success().unwrap();
    assert!(
        shown.contains("0 addresses, 0 conflicts, no frame yet"),
        "{shown:?}"
    );
    // Each text is taken away before the next one: nothing of it is left in the end.
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
