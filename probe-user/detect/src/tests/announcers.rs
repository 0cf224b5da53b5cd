//! Who announces an address says something of why it has two owners.

use probe_common::wire::MacAddr;
use probe_model::{AnnouncementKind, Finding, FindingKind::*, Hint};

use super::lab::*;

/// A burst as a load balancer's announcer sends it.
fn burst(lab: &mut Lab, at: u64, mac: MacAddr) {
    lab.see(at, announce(mac));
    lab.see(at + 1, announce_by_reply(mac));
}

#[test]
fn two_announcers_in_conflict_are_told_as_such() {
    let mut lab = Lab::new();
    for round in 0..5 {
        burst(&mut lab, round * 1_100_000, A);
        burst(&mut lab, round * 1_100_000 + S / 2, B);
    }
    let findings = lab.take();
    let conflict = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(conflict.unwrap().hint, Some(Hint::TwoAnnouncers));
}

#[test]
fn an_announcer_and_a_host_in_conflict_are_told_as_such() {
    let mut lab = Lab::new();
    burst(&mut lab, 0, A);
    lab.see(100 * S, answer(A, 100 * S));
    lab.see(100 * S, answer(B, 100 * S));
    let findings = lab.take();
    let conflict = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(conflict.unwrap().hint, Some(Hint::AnnouncerAndHost));
    // The other one turns out to be an announcer too, and a third owner joins.
    burst(&mut lab, 110 * S, B);
    lab.see(111 * S, answer(A, 111 * S));
    lab.see(111 * S, answer(C, 111 * S));
    let findings = lab.take();
    let joined = findings.iter().find(|finding| finding.kind == Conflict);
    assert_eq!(joined.unwrap().hint, Some(Hint::TwoAnnouncers));
}

#[test]
fn an_announcement_before_the_present_dispute_does_not_make_a_speaker() {
    let mut lab = Lab::new();
    burst(&mut lab, 0, A);
    // A starting speaker announces the address for a moment, and the address settles with A.
    burst(&mut lab, 100 * S, B);
    burst(&mut lab, 102 * S, A);
    lab.see(300 * S, asking(A));
    lab.take();
    // B has the address on an interface now, and announces it as hosts do.
    lab.see(400 * S, answer(A, 400 * S));
    lab.see(400 * S, answer(B, 400 * S));
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
    assert_eq!(announcements(&lab.take()), expected);
    lab.see(401 * S, announce(B));
    lab.see(402 * S, answer(A, 402 * S));
    lab.see(402 * S, answer(C, 402 * S));
    let joined = announcements(&lab.take());
    assert!(joined.contains(&(B, AnnouncementKind::Host)), "{joined:?}");
}
