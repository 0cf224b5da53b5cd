//! Another configuration while it runs.

use std::time::Duration;

use probe_model::{BindingKey, FindingKind::*, Severity};

use super::lab::*;
use crate::{Claim, DetectConfig, IgnoreRule, ProbePurpose};

fn duplicate(lab: &mut Lab, at: u64) {
    lab.see(at, answer(A, at));
    lab.see(at + 5, answer(B, at));
}

fn with_open_conflict(config: DetectConfig) -> Lab {
    let mut lab = Lab::with(config);
    duplicate(&mut lab, 0);
    assert_eq!(lab.kinds(), [Conflict]);
    lab
}

fn tracking() -> DetectConfig {
    DetectConfig {
        tracked: vec!["192.0.2.80/32".parse().unwrap()],
        ..DetectConfig::default()
    }
}

fn one_machine() -> DetectConfig {
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
fn a_conflict_on_an_address_that_matters_from_now_on_is_told_again_as_critical_and_once() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.reconfigure(S, tracking());
    let finding = lab.only();
    assert_eq!(
        (finding.kind, finding.severity),
        (Conflict, Severity::Critical)
    );
    assert_eq!((finding.since, macs(&finding)), (time(5), vec![B, A]));
    lab.reconfigure(2 * S, tracking());
    duplicate(&mut lab, 3 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn a_quiet_conflict_on_an_address_that_matters_from_now_on_waits_for_evidence() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.wait(100 * S);
    assert_eq!(lab.kinds(), [ConflictQuiet]);
    lab.reconfigure(101 * S, tracking());
    assert_eq!(lab.kinds(), []);
    duplicate(&mut lab, 102 * S);
    assert_eq!(lab.only().severity, Severity::Critical);
}

#[test]
fn an_open_conflict_that_is_ignored_from_now_on_is_followed_and_not_reported() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.reconfigure(S, ignoring());
    duplicate(&mut lab, 2 * S);
    lab.wait(100 * S);
    duplicate(&mut lab, 200 * S);
    assert_eq!(lab.kinds(), []);
    let statistics = lab.detector.statistics();
    assert_eq!(statistics.open_conflicts, 1);
    assert_eq!(statistics.ignored[ConflictQuiet.number() as usize], 1);
    // What could not be told while it was ignored is told when it is no longer.
    lab.reconfigure(201 * S, DetectConfig::default());
    assert_eq!(lab.only().kind, Conflict);
}

#[test]
fn a_conflict_that_was_told_is_not_told_again_after_having_been_ignored_in_peace() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.reconfigure(S, ignoring());
    lab.reconfigure(2 * S, DetectConfig::default());
    assert_eq!(lab.kinds(), []);
}

#[test]
fn what_becomes_tracked_while_it_is_ignored_is_told_when_it_no_longer_is() {
    let mut lab = with_open_conflict(DetectConfig::default());
    let both = DetectConfig {
        tracked: tracking().tracked,
        ..ignoring()
    };
    lab.reconfigure(S, both);
    assert_eq!(lab.kinds(), []);
    lab.reconfigure(2 * S, tracking());
    assert_eq!(lab.only().severity, Severity::Critical);
}

#[test]
fn a_conflict_whose_owners_are_declared_to_be_one_machine_is_resolved() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.reconfigure(S, one_machine());
    let finding = lab.only();
    assert_eq!(finding.kind, ConflictResolved);
    assert_eq!(finding.owners.len(), 1);
    assert_eq!(macs(&finding), [B, A]);
    duplicate(&mut lab, 2 * S);
    lab.wait(1_000 * S);
    assert_eq!(lab.kinds(), []);
    assert_eq!(lab.detector.statistics().open_conflicts, 0);
}

#[test]
fn a_third_owner_keeps_a_conflict_open_of_which_two_turn_out_to_be_one() {
    let mut lab = with_open_conflict(DetectConfig::default());
    lab.see(10, answer(C, 0));
    assert_eq!(lab.kinds(), [Conflict]);
    lab.reconfigure(S, one_machine());
    assert_eq!(lab.kinds(), []);
    let view = lab.detector.open_conflicts().next().unwrap();
    assert_eq!(view.owners.len(), 2);
}

#[test]
fn machines_that_are_no_longer_declared_to_be_one_conflict_at_the_next_evidence() {
    let mut lab = Lab::with(one_machine());
    duplicate(&mut lab, 0);
    assert_eq!(lab.kinds(), []);
    lab.reconfigure(S, DetectConfig::default());
    assert_eq!(lab.kinds(), []);
    duplicate(&mut lab, 2 * S);
    assert_eq!(lab.kinds(), [Conflict]);
}

#[test]
fn answers_that_were_given_before_the_owners_changed_do_not_resolve_a_conflict() {
    let asking = |same_owner: Vec<Vec<_>>| DetectConfig {
        can_probe: true,
        same_owner,
        ..DetectConfig::default()
    };
    // The number of a declared set is its place among them.
    let mut lab = with_open_conflict(asking(vec![vec![A, HOST]]));
    lab.wait(60 * S + 5);
    let mut asks = lab.detector.take_probe_requests();
    asks.retain(|ask| ask.purpose == ProbePurpose::Resolution);
    lab.record_replies(61 * S, &asks[0], &[A]);
    lab.reconfigure(62 * S, asking(vec![vec![B, HOST]]));
    lab.record_replies(63 * S, &asks[1], &[B]);
    assert_eq!(lab.kinds(), []);
    assert_eq!(lab.detector.statistics().open_conflicts, 1);
}

#[test]
fn a_conflict_that_may_no_longer_be_asked_about_becomes_quiet_and_expires() {
    let mut lab = with_open_conflict(DetectConfig {
        can_probe: true,
        ..DetectConfig::default()
    });
    lab.wait(61 * S);
    assert_eq!(lab.kinds(), []);
    lab.reconfigure(62 * S, DetectConfig::default());
    lab.wait(1_000 * S);
    assert_eq!(lab.kinds(), [ConflictQuiet, ConflictExpired]);
}

#[test]
fn what_is_due_by_the_new_times_is_due_now() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(S, announce(B));
    lab.reconfigure(
        5 * S,
        DetectConfig {
            settle: Duration::from_secs(2),
            ..DetectConfig::default()
        },
    );
    let finding = lab.only();
    assert_eq!((finding.kind, finding.at), (Moved, time(5 * S)));

    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(S, announce(B));
    lab.reconfigure(
        5 * S,
        DetectConfig {
            settle: Duration::from_mins(1),
            ..DetectConfig::default()
        },
    );
    lab.wait(60 * S);
    assert_eq!(lab.kinds(), []);
    lab.wait(61 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn a_smaller_table_keeps_what_matters_and_what_was_seen_last() {
    let mut lab = Lab::new();
    let at_address = |last: u8, claim: Claim| Claim {
        ip: ip(last),
        ..claim
    };
    for last in 1..=20 {
        lab.see(u64::from(last) * S, at_address(last, asking(C)));
    }
    lab.see(30 * S, at_address(2, answer(A, 30 * S)));
    lab.see(30 * S + 5, at_address(2, answer(B, 30 * S)));
    for last in 21..=23 {
        lab.see(31 * S, at_address(last, asking(C)));
    }
    let config = DetectConfig {
        max_bindings: 4,
        tracked: vec!["192.0.2.1/32".parse().unwrap()],
        ..DetectConfig::default()
    };
    lab.reconfigure(32 * S, config);
    let known: Vec<_> = (1..=23)
        .filter(|&last| {
            let key = BindingKey {
                ip: ip(last),
                ..key()
            };
            lab.detector.binding(&key).is_some()
        })
        .collect();
    assert_eq!(known, [1, 2, 22, 23]);
    assert_eq!(lab.detector.statistics().evicted_bindings, 19);
}

#[test]
fn a_table_smaller_than_what_matters_shrinks_as_conflicts_end() {
    let mut lab = Lab::new();
    let mut see = |at: u64, last: u8, claim: Claim| {
        lab.see(
            at,
            Claim {
                ip: ip(last),
                ..claim
            },
        );
    };
    for last in 1..=3 {
        see(0, last, answer(A, 0));
        see(5, last, answer(B, 0));
    }
    let small = DetectConfig {
        max_bindings: 1,
        ..DetectConfig::default()
    };
    lab.reconfigure(S, small);
    assert_eq!(lab.detector.statistics().bindings, 3);
    lab.wait(1_000 * S);
    lab.see(1_000 * S, announce(C));
    assert_eq!(lab.detector.statistics().bindings, 1);
    assert!(lab.detector.binding(&key()).is_some());
}

#[test]
fn fewer_macs_are_remembered_from_now_on_and_at_once_where_there_is_no_conflict() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    lab.see(200 * S, announce(C));
    lab.see(300 * S, announce(HOST));
    let few = DetectConfig {
        max_macs: 2,
        ..DetectConfig::default()
    };
    lab.reconfigure(400 * S, few);
    let owners = lab.detector.binding(&key()).unwrap().owners;
    let macs: Vec<_> = owners.iter().map(|owner| owner.macs[0]).collect();
    assert_eq!(macs, [HOST, C]);
    assert_eq!(lab.detector.statistics().evicted_macs, 2);
}
