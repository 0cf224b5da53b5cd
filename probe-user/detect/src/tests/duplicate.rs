//! Two answers to one request.

use probe_model::{Evidence, FindingKind::*, Hint, Severity};

use super::lab::*;
use crate::DetectConfig;

#[test]
fn two_kernels_that_answer_one_request_are_a_conflict_at_once() {
    for apart in [0, 1, 5, 1_500] {
        for (first, second) in [(A, B), (B, A)] {
            let mut lab = Lab::new();
            lab.see(0, asking(A));
            lab.see(50 * S, answer(first, 50 * S));
            lab.see(50 * S + apart, answer(second, 50 * S));
            let conflict = lab.only();
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
    let mut lab = Lab::with(DetectConfig {
        tracked: vec!["192.0.2.0/24".parse().unwrap()],
        ..DetectConfig::default()
    });
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    assert_eq!(lab.only().severity, Severity::Critical);
}

#[test]
fn an_answer_to_an_announcement_is_no_duplicate_reply() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(50 * S, announce(B));
    lab.see(50 * S + 80, courtesy(A));
    assert_eq!(lab.kinds(), []);
}

#[test]
fn answers_to_different_requests_are_no_duplicate_reply() {
    let mut lab = Lab::new();
    lab.see(0, answer(A, 0));
    lab.see(500 * MS, answer(B, 400 * MS));
    assert_eq!(lab.kinds(), []);
}

#[test]
fn an_answer_that_comes_a_second_after_the_request_answers_something_else() {
    let mut lab = Lab::new();
    lab.see(0, answer(A, 0));
    lab.see(S + 1, answer(B, 0));
    assert_eq!(lab.kinds(), []);
}

#[test]
fn who_asks_for_an_address_that_it_claims_itself_is_no_third_party() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(S, answer_to(A, A, S));
    lab.see(S + 5, answer_to(A, B, S));
    assert_eq!(lab.kinds(), []);
}

#[test]
fn an_answer_that_the_kernel_held_back_is_evidence_through_the_next_claim() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    let suppressed = answer(A, 50 * S);
    lab.see(
        50 * S + 10,
        after(suppressed, 50 * S + 5, answer(B, 50 * S)),
    );
    let conflict = lab.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::DuplicateReply))
    );
    assert_eq!(macs(&conflict).len(), 2);
}

#[test]
fn an_answer_that_was_carried_and_observed_counts_once() {
    let mut lab = Lab::new();
    lab.see(0, answer(A, 0));
    lab.see(5, after(answer(A, 0), 0, answer(B, 0)));
    let conflict = lab.only();
    let claims: Vec<_> = conflict.owners.iter().map(|owner| owner.claims).collect();
    assert_eq!(claims, [1, 1]);
}

#[test]
fn three_stations_that_answer_one_request_are_told_as_they_join_with_a_hint() {
    let mut lab = Lab::new();
    for (at, owner) in [(0, A), (5, B), (10, C)] {
        lab.see(at, answer(owner, 0));
    }
    let findings = lab.take();
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
            lab.see(round * S + after, answer(owner, round * S));
        }
    }
    assert_eq!(lab.kinds(), [], "the same again is counted, not told");
    let view = lab.detector.binding(&key()).unwrap().conflict.unwrap();
    assert_eq!(view.counts.duplicate_replies, 100);
}

#[test]
fn a_double_answer_in_the_overlap_is_evidence_all_the_same() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(50 * S, announce(B));
    lab.see(50 * S + 100 * MS, answer(A, 50 * S + 99 * MS));
    lab.see(50 * S + 100 * MS, answer(B, 50 * S + 99 * MS));
    assert_eq!(lab.kinds(), [Conflict]);
}
