//! Two replies to one request.

use probe_model::{Evidence, FindingKind::*, Hint, Severity};

use super::test_detector::*;
use crate::DetectConfig;

#[test]
fn two_kernels_that_reply_to_one_request_are_a_conflict_at_once() {
    for apart in [0, 1, 5, 1_500] {
        for (first, second) in [(A, B), (B, A)] {
            let mut detector = TestDetector::new();
            detector.receive(0, request_by(A));
            detector.receive(50 * S, reply_by(first, 50 * S));
            detector.receive(50 * S + apart, reply_by(second, 50 * S));
            let conflict = detector.only();
            assert_eq!(
                (conflict.kind, conflict.at),
                (Conflict, time(50 * S + apart))
            );
            assert_eq!(conflict.evidence, Some(Evidence::DuplicateReply));
            assert_eq!(conflict.severity, Severity::Warning);
            assert_eq!(conflict.counts.duplicate_replies, 1);
            assert_eq!(conflict.owners.len(), 2, "{conflict:#?}");
        }
    }
}

#[test]
fn a_conflict_over_a_tracked_address_is_critical() {
    let mut detector = TestDetector::with(DetectConfig {
        tracked: vec!["192.0.2.0/24".parse().unwrap()],
        ..DetectConfig::default()
    });
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    assert_eq!(detector.only().severity, Severity::Critical);
}

#[test]
fn a_reply_to_an_announcement_is_no_duplicate_reply() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(50 * S, announce(B));
    detector.receive(50 * S + 80, unicast_announcement(A));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn replies_to_different_requests_are_no_duplicate_reply() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(500 * MS, reply_by(B, 400 * MS));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_reply_more_than_a_second_after_the_request_is_no_duplicate_reply() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(S + 1, reply_by(B, 0));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_requester_that_claims_the_address_itself_is_no_third_party() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(S, reply_to(A, A, S));
    detector.receive(S + 5, reply_to(A, B, S));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_reply_that_the_kernel_suppressed_is_evidence_through_the_next_claim() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    let suppressed = reply_by(A, 50 * S);
    detector.receive(
        50 * S + 10,
        after(suppressed, 50 * S + 5, reply_by(B, 50 * S)),
    );
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::DuplicateReply))
    );
    assert_eq!(macs(&conflict).len(), 2);
}

#[test]
fn a_reply_that_was_carried_and_observed_counts_once() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, after(reply_by(A, 0), 0, reply_by(B, 0)));
    let conflict = detector.only();
    let claims: Vec<_> = conflict.owners.iter().map(|owner| owner.claims).collect();
    assert_eq!(claims, [1, 1]);
}

#[test]
fn three_hosts_that_reply_to_one_request_are_reported_as_they_join_with_a_hint() {
    let mut detector = TestDetector::new();
    for (at, owner) in [(0, A), (5, B), (10, C)] {
        detector.receive(at, reply_by(owner, 0));
    }
    let findings = detector.take();
    let conflicts: Vec<_> = findings
        .iter()
        .filter(|finding| finding.kind == Conflict)
        .collect();
    let owners: Vec<_> = conflicts
        .iter()
        .map(|finding| finding.owners.len())
        .collect();
    assert_eq!(owners, [2, 3]);
    assert_eq!(conflicts[1].hint, Some(Hint::IpvsStrictArp));
    assert_eq!(conflicts[1].counts.duplicate_replies, 1);
    for round in 1..100 {
        for (after, owner) in [(0, A), (5, B), (10, C)] {
            detector.receive(round * S + after, reply_by(owner, round * S));
        }
    }
    assert_eq!(
        detector.kinds(),
        [],
        "the same again is counted, not reported"
    );
    let view = detector.inner.binding(&key()).unwrap().conflict.unwrap();
    assert_eq!(view.counts.duplicate_replies, 100);
}

#[test]
fn a_duplicate_reply_in_the_overlap_is_evidence_all_the_same() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(50 * S, announce(B));
    detector.receive(50 * S + 100 * MS, reply_by(A, 50 * S + 99 * MS));
    detector.receive(50 * S + 100 * MS, reply_by(B, 50 * S + 99 * MS));
    assert_eq!(detector.kinds(), [Conflict]);
}
