//! What shows only after a minute: the tests in this file run side by side, so that all of them take one.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_tests::{Finding, Frame, Lab, at_intervals};

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const MINUTE: Duration = Duration::from_mins(1);
const SOON: Duration = Duration::from_secs(10);

fn named<'a>(findings: &'a [Finding], name: &str) -> Vec<&'a Finding> {
    findings
        .iter()
        .filter(|found| found.finding == name)
        .collect()
}

pub fn two_owners_who_alternate_twenty_times_a_second_are_both_seen_to_the_end_of_a_minute() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    // A conflict without evidence for so long becomes quiet, and it would be without evidence as soon as
    // one of the two were no longer seen.
    let daemon = monitor.ready_daemon(&["--quiet-after", "4s"]).unwrap();
    let socket = wire.sender().unwrap();
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
    // And that would have shown: now that both are silent, it does.
    daemon.wait_for_finding("conflict_quiet", SOON).unwrap();
    let ledger = daemon.wait_until_digested(1200).unwrap();
    assert!(
        ledger.received < 12 * 60,
        "the budget of an address bounds the events: {ledger:?}"
    );
}

pub fn a_double_answer_to_the_first_request_after_a_quiet_minute_is_evidence_at_once() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let socket = wire.sender().unwrap();
    at_intervals(MINUTE, 2, |number| match number {
        0 => socket.send(&Frame::announcement(A, ADDRESS)),
        _ => socket.send_all(&[
            Frame::request(wire.mac(), CLIENT, ADDRESS),
            Frame::reply(A, ADDRESS, wire.mac(), CLIENT),
            Frame::reply(B, ADDRESS, wire.mac(), CLIENT),
        ]),
    })
    .unwrap();
    let conflict = daemon.wait_for_finding("conflict", SOON).unwrap();
    assert_eq!(conflict.evidence, "duplicate_reply");
    assert_eq!(conflict.macs().unwrap(), [A, B]);
    assert_eq!(daemon.wait_until_digested(4).unwrap().frames, 4);
}
