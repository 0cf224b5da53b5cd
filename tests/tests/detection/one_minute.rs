//! Findings that need a minute: the tests in this file run in parallel, so that all of them together take one.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_tests::{Finding, Frame, Lab, at_intervals};

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const MINUTE: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(10);

fn named<'a>(findings: &'a [Finding], name: &str) -> Vec<&'a Finding> {
    findings
        .iter()
        .filter(|found| found.finding == name)
        .collect()
}

pub fn two_owners_that_alternate_fast_are_both_observed_for_a_minute() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    // Without evidence for this time, a conflict becomes quiet, and there would be none if one of the two were no
    // longer observed.
    let daemon = monitor.ready_daemon(&["--quiet-after", "4s"]).unwrap();
    let socket = peer.sender().unwrap();
    let mut ended_before = Vec::new();
    at_intervals(Duration::from_millis(50), 1200, |number| {
        let owner = if number % 2 == 0 { A } else { B };
        socket.send(&Frame::announcement(owner, ADDRESS))?;
        if number == 1199 {
            ended_before = daemon.findings()?;
        }
        Ok(())
    })
    .unwrap();
    let opened = named(&ended_before, "conflict");
    assert_eq!(opened.len(), 1, "{ended_before:?}");
    assert_eq!(opened[0].evidence, "alternation");
    assert_eq!(opened[0].macs().unwrap(), [A, B]);
    for end in ["conflict_quiet", "conflict_resolved", "conflict_expired"] {
        assert!(named(&ended_before, end).is_empty(), "{ended_before:?}");
    }
    // Now that both are silent, the conflict becomes quiet, which shows that the test would have failed.
    daemon.wait_for_finding("conflict_quiet", TIMEOUT).unwrap();
    let balance = daemon.wait_until_processed(1200).unwrap();
    assert!(
        balance.received < 12 * 60,
        "the budget of an address bounds the events: {balance:?}"
    );
}

pub fn two_replies_after_a_quiet_minute_are_immediate_evidence() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let socket = peer.sender().unwrap();
    at_intervals(MINUTE, 2, |number| match number {
        0 => socket.send(&Frame::announcement(A, ADDRESS)),
        _ => socket.send_all(&[
            Frame::request(peer.mac(), CLIENT, ADDRESS),
            Frame::reply(A, ADDRESS, peer.mac(), CLIENT),
            Frame::reply(B, ADDRESS, peer.mac(), CLIENT),
        ]),
    })
    .unwrap();
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(conflict.evidence, "duplicate_reply");
    assert_eq!(conflict.macs().unwrap(), [A, B]);
    assert_eq!(daemon.wait_until_processed(4).unwrap().frames, 4);
}
