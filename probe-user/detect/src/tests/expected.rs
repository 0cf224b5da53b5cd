//! Addresses that are expected: those of a cluster's services.

use std::sync::Arc;

use probe_model::{BindingKey, FindingKind::*, Severity};

use super::lab::*;
use crate::{DetectConfig, LocalAnnouncement, ProbePurpose, ProbeRequest};

/// What a cluster's services have from now on.
fn expect(lab: &mut Lab, at: u64, expected: impl IntoIterator<Item = BindingKey>) {
    expect_of(lab, at, expected, LocalAnnouncement::Elsewhere);
}

fn expect_of(
    lab: &mut Lab,
    at: u64,
    expected: impl IntoIterator<Item = BindingKey>,
    announcer: LocalAnnouncement,
) {
    let expected = expected.into_iter().map(|key| (key, announcer));
    let expected = Arc::new(expected.collect());
    lab.detector
        .set_expected(expected, time(at), &mut lab.findings);
}

/// Nobody answers for the second time: whether that is silence.
fn is_silent_when_asked(lab: &mut Lab, at: u64) -> bool {
    let ask = ProbeRequest {
        key: key(),
        purpose: ProbePurpose::Periodic,
        round: 1,
        requested_for: time(at - 2 * S),
        earliest: time(at),
        latest: time(at),
        to: Vec::new(),
    };
    lab.record_replies(at, &ask, &[]);
    let told = lab.kinds();
    assert_eq!(told.contains(&Silent), lab.detector.is_silent(&key()));
    lab.detector.is_silent(&key())
}

#[test]
fn what_a_speaker_on_another_host_announces_is_silent_when_nobody_answers() {
    let mut lab = Lab::asking();
    expect(&mut lab, 0, [key()]);
    assert!(is_silent_when_asked(&mut lab, 60 * S));
}

#[test]
fn what_a_speaker_on_this_host_may_announce_is_not_silent_because_this_host_hears_nothing() {
    let mut lab = Lab::asking();
    expect_of(&mut lab, 0, [key()], LocalAnnouncement::PossiblyLocal);
    assert!(!is_silent_when_asked(&mut lab, 60 * S));
    // It would answer the question of another host.
    lab.probe(100 * S, A, false);
    assert!(!is_silent_when_asked(&mut lab, 101 * S), "it still may");
    lab.probe(109 * S, A, false);
    assert!(is_silent_when_asked(&mut lab, 110 * S));
}

#[test]
fn what_this_host_itself_asks_proves_nothing_of_its_own_speaker() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    expect_of(&mut lab, 0, [key()], LocalAnnouncement::PossiblyLocal);
    lab.probe(50 * S, HOST, false);
    lab.probe(50 * S, A, true);
    assert!(!is_silent_when_asked(&mut lab, 60 * S));
}

#[test]
fn what_another_host_had_last_is_silent_when_nobody_answers() {
    let mut lab = Lab::asking();
    expect_of(&mut lab, 0, [key()], LocalAnnouncement::PossiblyLocal);
    lab.see(S, announce(A));
    lab.take();
    assert!(is_silent_when_asked(&mut lab, 60 * S));
}

/// Linux `proxy_arp` replies to requests with a sender address only.
#[test]
fn a_host_that_replies_to_requests_is_not_silent_because_it_replies_to_no_probe() {
    let mut lab = Lab::asking();
    expect(&mut lab, 0, [key()]);
    lab.see(S, answer(A, S));
    lab.take();
    assert!(!is_silent_when_asked(&mut lab, 60 * S));
    assert!(is_silent_when_asked(&mut lab, 700 * S), "no claim for long");
    lab.see(701 * S, answer_to_probe(CLIENT, A, 701 * S));
    lab.take();
    assert!(
        is_silent_when_asked(&mut lab, 760 * S),
        "it replies to probes"
    );
}

fn with_silence() -> Lab {
    Lab::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    })
}

#[test]
fn silence_of_an_expected_address_counts_from_when_it_became_one() {
    let mut lab = with_silence();
    lab.see(0, announce(A));
    lab.wait(5_000 * S);
    lab.take();
    expect(&mut lab, 5_000 * S, [key()]);
    lab.wait(5_899 * S);
    assert_eq!(lab.kinds(), []);
    lab.wait(5_900 * S);
    let silent = lab.only();
    assert_eq!((silent.kind, silent.since), (Silent, time(0)));
}

#[test]
fn an_address_that_is_expected_no_longer_is_not_tracked_and_is_forgotten_if_nobody_claimed_it() {
    let mut lab = with_silence();
    expect(&mut lab, 0, [key()]);
    assert_eq!(lab.detector.statistics().tracked, 1);
    expect(&mut lab, S, []);
    let statistics = lab.detector.statistics();
    assert_eq!((statistics.tracked, statistics.bindings), (0, 0));
    lab.wait(5_000 * S);
    assert_eq!(lab.kinds(), []);

    expect(&mut lab, 5_000 * S, [key()]);
    lab.see(5_000 * S, announce(A));
    expect(&mut lab, 5_001 * S, []);
    let statistics = lab.detector.statistics();
    assert_eq!((statistics.tracked, statistics.bindings), (0, 1));
}

#[test]
fn an_open_conflict_outlives_its_address_being_expected_and_is_told_again_when_it_becomes_so() {
    let mut lab = Lab::new();
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    assert_eq!(lab.only().severity, Severity::Warning);
    expect(&mut lab, S, [key()]);
    let told = lab.only();
    assert_eq!((told.kind, told.severity), (Conflict, Severity::Critical));
    expect(&mut lab, 2 * S, []);
    assert_eq!(lab.detector.statistics().open_conflicts, 1);
    expect(&mut lab, 3 * S, [key()]);
    expect(&mut lab, 4 * S, [key()]);
    assert_eq!(lab.kinds(), [Conflict]);
}
