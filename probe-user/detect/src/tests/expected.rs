//! Addresses that are expected: those of a cluster's services.

use std::sync::Arc;

use probe_model::{BindingKey, FindingKind::*, Severity};

use super::test_detector::*;
use crate::{DetectConfig, LocalAnnouncement, ProbePurpose, ProbeRequest};

/// What a cluster's services have from now on.
fn expect(detector: &mut TestDetector, at: u64, expected: impl IntoIterator<Item = BindingKey>) {
    expect_of(detector, at, expected, LocalAnnouncement::Elsewhere);
}

fn expect_of(
    detector: &mut TestDetector,
    at: u64,
    expected: impl IntoIterator<Item = BindingKey>,
    announcer: LocalAnnouncement,
) {
    let expected = expected.into_iter().map(|key| (key, announcer));
    let expected = Arc::new(expected.collect());
    detector
        .inner
        .set_expected(expected, time(at), &mut detector.findings);
}

/// Whether no reply to the second probe makes the address silent.
fn is_silent_when_probed(detector: &mut TestDetector, at: u64) -> bool {
    let probe_request = ProbeRequest {
        key: key(),
        purpose: ProbePurpose::Periodic,
        round: 1,
        requested_for: time(at - 2 * S),
        earliest: time(at),
        latest: time(at),
        to: Vec::new(),
    };
    detector.record_replies(at, &probe_request, &[]);
    let reported = detector.kinds();
    assert_eq!(reported.contains(&Silent), detector.inner.is_silent(&key()));
    detector.inner.is_silent(&key())
}

#[test]
fn an_address_of_a_speaker_on_another_host_is_silent_when_no_host_replies() {
    let mut detector = TestDetector::with_probing();
    expect(&mut detector, 0, [key()]);
    assert!(is_silent_when_probed(&mut detector, 60 * S));
}

#[test]
fn an_address_of_a_speaker_on_this_host_is_not_silent_because_no_host_replies() {
    let mut detector = TestDetector::with_probing();
    expect_of(&mut detector, 0, [key()], LocalAnnouncement::PossiblyLocal);
    assert!(!is_silent_when_probed(&mut detector, 60 * S));
    // It would reply to the request of another host.
    detector.probe(100 * S, A, false);
    assert!(
        !is_silent_when_probed(&mut detector, 101 * S),
        "it still may"
    );
    detector.probe(109 * S, A, false);
    assert!(is_silent_when_probed(&mut detector, 110 * S));
}

#[test]
fn requests_of_this_host_prove_nothing_about_its_own_speaker() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    expect_of(&mut detector, 0, [key()], LocalAnnouncement::PossiblyLocal);
    detector.probe(50 * S, HOST, false);
    detector.probe(50 * S, A, true);
    assert!(!is_silent_when_probed(&mut detector, 60 * S));
}

#[test]
fn an_address_that_another_host_had_last_is_silent_when_no_host_replies() {
    let mut detector = TestDetector::with_probing();
    expect_of(&mut detector, 0, [key()], LocalAnnouncement::PossiblyLocal);
    detector.receive(S, announce(A));
    detector.take();
    assert!(is_silent_when_probed(&mut detector, 60 * S));
}

/// Linux `proxy_arp` replies to requests with a sender address only.
#[test]
fn a_host_that_replies_to_requests_is_not_silent_because_it_replies_to_no_probe() {
    let mut detector = TestDetector::with_probing();
    expect(&mut detector, 0, [key()]);
    detector.receive(S, reply_by(A, S));
    detector.take();
    assert!(!is_silent_when_probed(&mut detector, 60 * S));
    assert!(
        is_silent_when_probed(&mut detector, 700 * S),
        "no claim for long"
    );
    detector.receive(701 * S, reply_to_probe(CLIENT, A, 701 * S));
    detector.take();
    assert!(
        is_silent_when_probed(&mut detector, 760 * S),
        "it replies to probes"
    );
}

fn with_silence() -> TestDetector {
    TestDetector::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    })
}

#[test]
fn silence_of_an_expected_address_counts_from_when_it_became_one() {
    let mut detector = with_silence();
    detector.receive(0, announce(A));
    detector.wait(5_000 * S);
    detector.take();
    expect(&mut detector, 5_000 * S, [key()]);
    detector.wait(5_899 * S);
    assert_eq!(detector.kinds(), []);
    detector.wait(5_900 * S);
    let silent = detector.only();
    assert_eq!((silent.kind, silent.since), (Silent, time(0)));
}

#[test]
fn an_address_that_is_no_longer_expected_is_not_tracked_and_is_forgotten_if_it_was_never_claimed() {
    let mut detector = with_silence();
    expect(&mut detector, 0, [key()]);
    assert_eq!(detector.inner.statistics().tracked, 1);
    expect(&mut detector, S, []);
    let statistics = detector.inner.statistics();
    assert_eq!((statistics.tracked, statistics.bindings), (0, 0));
    detector.wait(5_000 * S);
    assert_eq!(detector.kinds(), []);

    expect(&mut detector, 5_000 * S, [key()]);
    detector.receive(5_000 * S, announce(A));
    expect(&mut detector, 5_001 * S, []);
    let statistics = detector.inner.statistics();
    assert_eq!((statistics.tracked, statistics.bindings), (0, 1));
}

#[test]
fn an_open_conflict_outlives_its_address_being_expected_and_is_reported_again_when_it_becomes_so() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    assert_eq!(detector.only().severity, Severity::Warning);
    expect(&mut detector, S, [key()]);
    let reported = detector.only();
    assert_eq!(
        (reported.kind, reported.severity),
        (Conflict, Severity::Critical)
    );
    expect(&mut detector, 2 * S, []);
    assert_eq!(detector.inner.statistics().open_conflicts, 1);
    expect(&mut detector, 3 * S, [key()]);
    expect(&mut detector, 4 * S, [key()]);
    assert_eq!(detector.kinds(), [Conflict]);
}
