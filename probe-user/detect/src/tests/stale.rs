//! Announcements by hosts that do not reply for the address.

use std::time::Duration;

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{FindingKind::*, Severity, Timestamp};

use super::test_detector::*;
use crate::{AddressGroup, DetectConfig, ProbePurpose, TableCursor};

fn tracking() -> TestDetector {
    TestDetector::with(DetectConfig {
        can_probe: true,
        tracked: vec![IpNet::from(key().ip)],
        ..DetectConfig::default()
    })
}

/// The rounds of probes about the takeover at `from`, and who replies to each.
fn confirm(detector: &mut TestDetector, from: u64, replying: [&[MacAddr]; 2]) {
    let probe_requests = detector.inner.take_probe_requests();
    assert_eq!(probe_requests.len(), 2, "{probe_requests:#?}");
    for ((probe_request, by), second) in probe_requests.iter().zip(replying).zip([2, 4]) {
        assert_eq!(probe_request.purpose, ProbePurpose::Confirmation);
        for &mac in by {
            detector.receive(from + second * S - MS, reply_to_probe(HOST, mac, from));
        }
        detector.record_replies(from + second * S, probe_request, by);
    }
}

fn is_stale(detector: &TestDetector) -> bool {
    let page = detector
        .inner
        .page(AddressGroup::Tracked, TableCursor::default(), 10);
    page.addresses[0].stale_announcement
}

fn current(detector: &TestDetector) -> MacAddr {
    let page = detector
        .inner
        .page(AddressGroup::Tracked, TableCursor::default(), 10);
    page.addresses[0].current_owner.as_ref().unwrap().canonical
}

/// A keepalived backup announces the address and steps back; the master keeps it and does not announce it again.
fn backup_steps_back(detector: &mut TestDetector) {
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    confirm(detector, 100 * S, [&[A], &[A]]);
}

#[test]
fn an_address_stays_with_the_owner_that_replies_when_the_announcer_does_not() {
    let mut detector = tracking();
    backup_steps_back(&mut detector);
    let stale = detector.only();
    assert_eq!(
        (stale.kind, stale.severity, stale.since),
        (StaleAnnouncement, Severity::Critical, time(100 * S))
    );
    assert_eq!(macs(&stale), [A, B]);
    assert_eq!((current(&detector), is_stale(&detector)), (A, true));
    // Neither a later probe nor time makes it move.
    detector.receive(160 * S, reply_to_probe(HOST, A, 160 * S - MS));
    detector.wait(1_000 * S);
    assert_eq!(detector.kinds(), []);
    assert_eq!((current(&detector), is_stale(&detector)), (A, true));
}

#[test]
fn one_missing_reply_of_the_announcer_is_enough_when_it_is_the_last() {
    let mut detector = tracking();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    confirm(&mut detector, 100 * S, [&[A, B], &[A]]);
    assert_eq!(detector.kinds(), [StaleAnnouncement]);
}

#[test]
fn caches_are_right_again_when_the_owner_announces_the_address() {
    let mut detector = tracking();
    backup_steps_back(&mut detector);
    // A unicast reply reaches one host.
    detector.receive(200 * S, reply_by(A, 200 * S));
    assert!(is_stale(&detector));
    detector.receive(201 * S, announce(A));
    assert!(!is_stale(&detector));
    assert_eq!(detector.kinds(), [StaleAnnouncement]);
}

#[test]
fn a_repeated_announcement_is_reported_once_until_the_owner_announces() {
    let mut detector = tracking();
    backup_steps_back(&mut detector);
    for from in [300 * S, 600 * S] {
        detector.receive(from, announce(B));
        detector.receive(from + 10 * MS, announce(B));
        confirm(&mut detector, from, [&[A], &[A]]);
    }
    assert_eq!(detector.kinds(), [StaleAnnouncement]);
    detector.receive(700 * S, announce(A));
    detector.receive(900 * S, announce(B));
    confirm(&mut detector, 900 * S, [&[A], &[A]]);
    assert_eq!(detector.kinds(), [StaleAnnouncement]);
}

#[test]
fn a_stale_announcement_ends_when_no_cache_has_it_any_more() {
    let mut detector = tracking();
    backup_steps_back(&mut detector);
    detector.wait(100 * S + 4 * 3600 * S - 1);
    assert!(is_stale(&detector));
    detector.wait(100 * S + 4 * 3600 * S);
    assert!(!is_stale(&detector));
}

#[test]
fn a_move_without_the_second_round_of_probes_is_decided_by_the_first() {
    let mut detector = tracking();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    let probe_requests = detector.inner.take_probe_requests();
    detector.receive(102 * S, reply_to_probe(HOST, A, 101 * S));
    detector.record_replies(102 * S, &probe_requests[0], &[A]);
    detector
        .inner
        .record_not_probed(&probe_requests[1], time(104 * S), &mut detector.findings);
    detector.wait(120 * S);
    assert_eq!(detector.kinds(), [StaleAnnouncement]);
    assert_eq!(current(&detector), A);
}

#[test]
fn without_replies_from_either_the_address_has_moved() {
    let mut detector = tracking();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    confirm(&mut detector, 100 * S, [&[], &[]]);
    assert_eq!(detector.kinds(), [Moved]);
    assert!(!is_stale(&detector));
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_an_announcement_stale() {
    let mut detector = tracking();
    backup_steps_back(&mut detector);
    detector.wait(10 * S);
    assert!(is_stale(&detector));
    let due = Duration::from_hours(4);
    assert!(detector.inner.next_deadline() <= Some(Timestamp(time(10 * S).0) + due));
}
