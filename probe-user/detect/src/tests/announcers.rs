//! Hints from the announcements of two owners.

use probe_common::wire::MacAddr;
use probe_model::{AnnouncementKind, Finding, FindingKind::*, Hint};

use super::test_detector::*;

/// A burst as a load balancer's announcer sends it.
fn burst(detector: &mut TestDetector, at: u64, mac: MacAddr) {
    detector.receive(at, announce(mac));
    detector.receive(at + 1, announce_by_reply(mac));
}

#[test]
fn two_announcers_in_conflict_have_that_hint() {
    let mut detector = TestDetector::new();
    for round in 0..5 {
        burst(&mut detector, round * 1_100_000, A);
        burst(&mut detector, round * 1_100_000 + S / 2, B);
    }
    let findings = detector.take();
    let conflict = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(conflict.unwrap().hint, Some(Hint::TwoAnnouncers));
}

#[test]
fn an_announcer_and_a_host_in_conflict_have_that_hint() {
    let mut detector = TestDetector::new();
    burst(&mut detector, 0, A);
    detector.receive(100 * S, reply_by(A, 100 * S));
    detector.receive(100 * S, reply_by(B, 100 * S));
    let findings = detector.take();
    let conflict = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(conflict.unwrap().hint, Some(Hint::AnnouncerAndHost));
    // The other one turns out to be an announcer too, and a third owner joins.
    burst(&mut detector, 110 * S, B);
    detector.receive(111 * S, reply_by(A, 111 * S));
    detector.receive(111 * S, reply_by(C, 111 * S));
    let findings = detector.take();
    let joined = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(joined.unwrap().hint, Some(Hint::TwoAnnouncers));
}

#[test]
fn an_announcement_before_the_present_dispute_does_not_make_a_speaker() {
    let mut detector = TestDetector::new();
    burst(&mut detector, 0, A);
    // A starting speaker announces the address for a moment, and the address settles with A.
    burst(&mut detector, 100 * S, B);
    burst(&mut detector, 102 * S, A);
    detector.receive(300 * S, request_by(A));
    detector.take();
    // B has the address on an interface now, and announces it as hosts do.
    detector.receive(400 * S, reply_by(A, 400 * S));
    detector.receive(400 * S, reply_by(B, 400 * S));
    let announcements = |findings: &[Finding]| {
        let conflict = findings.iter().find(|finding| finding.kind == Conflict);
        let owners = conflict.unwrap().owners.iter();
        let mut all: Vec<_> = owners
            .map(|owner| (owner.macs[0], owner.announcement))
            .collect();
        all.sort_unstable();
        all
    };
    let mut expected = vec![
        (A, AnnouncementKind::Speaker),
        (B, AnnouncementKind::Earlier),
    ];
    expected.sort_unstable();
    assert_eq!(announcements(&detector.take()), expected);
    detector.receive(401 * S, announce(B));
    detector.receive(402 * S, reply_by(A, 402 * S));
    detector.receive(402 * S, reply_by(C, 402 * S));
    let joined = announcements(&detector.take());
    assert!(joined.contains(&(B, AnnouncementKind::Host)), "{joined:?}");
}
