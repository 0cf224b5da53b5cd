//! Another configuration while it runs.

use std::time::Duration;

use probe_model::{BindingKey, FindingKind::*, Severity};

use super::test_detector::*;
use crate::{Claim, DetectConfig, IgnoreRule, ProbePurpose};

fn duplicate(detector: &mut TestDetector, at: u64) {
    detector.receive(at, reply_by(A, at));
    detector.receive(at + 5, reply_by(B, at));
}

fn with_open_conflict(config: DetectConfig) -> TestDetector {
    let mut detector = TestDetector::with(config);
    duplicate(&mut detector, 0);
    assert_eq!(detector.kinds(), [Conflict]);
    detector
}

fn tracking() -> DetectConfig {
    DetectConfig {
        tracked: vec!["192.0.2.80/32".parse().unwrap()],
        ..DetectConfig::default()
    }
}

fn one_host() -> DetectConfig {
    DetectConfig {
        same_owner: vec![vec![A, B]],
        ..DetectConfig::default()
    }
}

fn ignoring() -> DetectConfig {
    DetectConfig {
        ignore: vec![IgnoreRule {
            network: "192.0.2.0/24".parse().unwrap(),
            reason: "known".to_owned(),
            expires: None,
        }],
        ..DetectConfig::default()
    }
}

#[test]
fn a_conflict_of_an_address_that_becomes_tracked_is_reported_again_as_critical_and_once() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.reconfigure(S, tracking());
    let finding = detector.only();
    assert_eq!(
        (finding.kind, finding.severity),
        (Conflict, Severity::Critical)
    );
    assert_eq!((finding.since, macs(&finding)), (time(5), vec![B, A]));
    detector.reconfigure(2 * S, tracking());
    duplicate(&mut detector, 3 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_quiet_conflict_of_an_address_that_becomes_tracked_waits_for_evidence() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.wait(100 * S);
    assert_eq!(detector.kinds(), [ConflictQuiet]);
    detector.reconfigure(101 * S, tracking());
    assert_eq!(detector.kinds(), []);
    duplicate(&mut detector, 102 * S);
    assert_eq!(detector.only().severity, Severity::Critical);
}

#[test]
fn an_open_conflict_that_is_ignored_from_now_on_is_followed_and_not_reported() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.reconfigure(S, ignoring());
    duplicate(&mut detector, 2 * S);
    detector.wait(100 * S);
    duplicate(&mut detector, 200 * S);
    assert_eq!(detector.kinds(), []);
    let statistics = detector.inner.statistics();
    assert_eq!(statistics.open_conflicts, 1);
    assert_eq!(statistics.ignored[ConflictQuiet.number() as usize], 1);
    // A finding that was ignored is reported when the address is no longer ignored.
    detector.reconfigure(201 * S, DetectConfig::default());
    assert_eq!(detector.only().kind, Conflict);
}

#[test]
fn a_reported_conflict_is_not_reported_again_after_it_was_ignored_without_evidence() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.reconfigure(S, ignoring());
    detector.reconfigure(2 * S, DetectConfig::default());
    assert_eq!(detector.kinds(), []);
}

#[test]
fn an_address_that_becomes_tracked_while_ignored_is_reported_when_no_longer_ignored() {
    let mut detector = with_open_conflict(DetectConfig::default());
    let both = DetectConfig {
        tracked: tracking().tracked,
        ..ignoring()
    };
    detector.reconfigure(S, both);
    assert_eq!(detector.kinds(), []);
    detector.reconfigure(2 * S, tracking());
    assert_eq!(detector.only().severity, Severity::Critical);
}

#[test]
fn a_conflict_whose_owners_are_declared_to_be_one_host_is_resolved() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.reconfigure(S, one_host());
    let finding = detector.only();
    assert_eq!(finding.kind, ConflictResolved);
    assert_eq!(finding.owners.len(), 1);
    assert_eq!(macs(&finding), [B, A]);
    duplicate(&mut detector, 2 * S);
    detector.wait(1_000 * S);
    assert_eq!(detector.kinds(), []);
    assert_eq!(detector.inner.statistics().open_conflicts, 0);
}

#[test]
fn a_third_owner_keeps_a_conflict_open_of_which_two_turn_out_to_be_one() {
    let mut detector = with_open_conflict(DetectConfig::default());
    detector.receive(10, reply_by(C, 0));
    assert_eq!(detector.kinds(), [Conflict]);
    detector.reconfigure(S, one_host());
    assert_eq!(detector.kinds(), []);
    let view = detector.inner.open_conflicts().next().unwrap();
    assert_eq!(view.owners.len(), 2);
}

#[test]
fn hosts_that_are_no_longer_declared_to_be_one_conflict_at_the_next_evidence() {
    let mut detector = TestDetector::with(one_host());
    duplicate(&mut detector, 0);
    assert_eq!(detector.kinds(), []);
    detector.reconfigure(S, DetectConfig::default());
    assert_eq!(detector.kinds(), []);
    duplicate(&mut detector, 2 * S);
    assert_eq!(detector.kinds(), [Conflict]);
}

#[test]
fn replies_from_before_the_owners_changed_do_not_resolve_a_conflict() {
    let config = |same_owner: Vec<Vec<_>>| DetectConfig {
        can_probe: true,
        same_owner,
        ..DetectConfig::default()
    };
    // The number of a declared set is its place among them.
    let mut detector = with_open_conflict(config(vec![vec![A, HOST]]));
    detector.wait(60 * S + 5);
    let mut probe_requests = detector.inner.take_probe_requests();
    probe_requests.retain(|probe_request| probe_request.purpose == ProbePurpose::Resolution);
    detector.record_replies(61 * S, &probe_requests[0], &[A]);
    detector.reconfigure(62 * S, config(vec![vec![B, HOST]]));
    detector.record_replies(63 * S, &probe_requests[1], &[B]);
    assert_eq!(detector.kinds(), []);
    assert_eq!(detector.inner.statistics().open_conflicts, 1);
}

#[test]
fn a_conflict_that_may_no_longer_be_probed_becomes_quiet_and_expires() {
    let mut detector = with_open_conflict(DetectConfig {
        can_probe: true,
        ..DetectConfig::default()
    });
    detector.wait(61 * S);
    assert_eq!(detector.kinds(), []);
    detector.reconfigure(62 * S, DetectConfig::default());
    detector.wait(1_000 * S);
    assert_eq!(detector.kinds(), [ConflictQuiet, ConflictExpired]);
}

#[test]
fn deadlines_in_the_past_by_the_new_times_are_due_now() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(S, announce(B));
    detector.reconfigure(
        5 * S,
        DetectConfig {
            settle: Duration::from_secs(2),
            ..DetectConfig::default()
        },
    );
    let finding = detector.only();
    assert_eq!((finding.kind, finding.at), (Moved, time(5 * S)));

    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(S, announce(B));
    detector.reconfigure(
        5 * S,
        DetectConfig {
            settle: Duration::from_mins(1),
            ..DetectConfig::default()
        },
    );
    detector.wait(60 * S);
    assert_eq!(detector.kinds(), []);
    detector.wait(61 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn a_smaller_table_keeps_tracked_addresses_and_those_observed_last() {
    let mut detector = TestDetector::new();
    let at_address = |last: u8, claim: Claim| Claim {
        ip: ip(last),
        ..claim
    };
    for last in 1..=20 {
        detector.receive(u64::from(last) * S, at_address(last, request_by(C)));
    }
    detector.receive(30 * S, at_address(2, reply_by(A, 30 * S)));
    detector.receive(30 * S + 5, at_address(2, reply_by(B, 30 * S)));
    for last in 21..=23 {
        detector.receive(31 * S, at_address(last, request_by(C)));
    }
    let config = DetectConfig {
        max_bindings: 4,
        tracked: vec!["192.0.2.1/32".parse().unwrap()],
        ..DetectConfig::default()
    };
    detector.reconfigure(32 * S, config);
    let known: Vec<_> = (1..=23)
        .filter(|&last| {
            let key = BindingKey {
                ip: ip(last),
                ..key()
            };
            detector.inner.binding(&key).is_some()
        })
        .collect();
    assert_eq!(known, [1, 2, 22, 23]);
    assert_eq!(detector.inner.statistics().evicted_bindings, 19);
}

#[test]
fn a_table_smaller_than_its_conflicts_shrinks_as_they_end() {
    let mut detector = TestDetector::new();
    let mut receive = |at: u64, last: u8, claim: Claim| {
        detector.receive(
            at,
            Claim {
                ip: ip(last),
                ..claim
            },
        );
    };
    for last in 1..=3 {
        receive(0, last, reply_by(A, 0));
        receive(5, last, reply_by(B, 0));
    }
    let small = DetectConfig {
        max_bindings: 1,
        ..DetectConfig::default()
    };
    detector.reconfigure(S, small);
    assert_eq!(detector.inner.statistics().bindings, 3);
    detector.wait(1_000 * S);
    detector.receive(1_000 * S, announce(C));
    assert_eq!(detector.inner.statistics().bindings, 1);
    assert!(detector.inner.binding(&key()).is_some());
}

#[test]
fn fewer_macs_are_remembered_from_now_on_and_at_once_where_there_is_no_conflict() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    detector.receive(200 * S, announce(C));
    detector.receive(300 * S, announce(HOST));
    let few = DetectConfig {
        max_macs: 2,
        ..DetectConfig::default()
    };
    detector.reconfigure(400 * S, few);
    let owners = detector.inner.binding(&key()).unwrap().owners;
    let macs: Vec<_> = owners.iter().map(|owner| owner.macs[0]).collect();
    assert_eq!(macs, [HOST, C]);
    assert_eq!(detector.inner.statistics().evicted_macs, 2);
}
