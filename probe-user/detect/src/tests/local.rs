//! This host's own addresses.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind::*, Severity};

use super::test_detector::*;
use crate::ProbePurpose;

#[test]
fn a_host_that_continues_to_claim_an_address_of_this_host_is_a_conflict() {
    for every in [S, 3 * S, 30 * S] {
        let mut detector = TestDetector::new();
        detector.host(0, true);
        detector.receive(100 * S, request_by(A));
        assert_eq!(detector.kinds(), []);
        detector.receive(100 * S + every, request_by(A));
        let conflict = detector.only();
        assert_eq!(
            (conflict.kind, conflict.evidence),
            (Conflict, Some(Evidence::Local))
        );
        assert_eq!(
            conflict.severity,
            Severity::Critical,
            "own addresses are tracked"
        );
        assert_eq!(macs(&conflict), [A, HOST]);
        assert!(conflict.owners[1].local);
    }
}

#[test]
fn one_claim_of_another_host_on_an_address_of_this_host_is_undecided_for_the_settle_time() {
    let mut detector = TestDetector::new();
    detector.host(0, true);
    detector.receive(100 * S, request_by(A));
    let pending = |detector: &TestDetector| {
        let takeover = detector.inner.pending_takeovers().next()?.takeover?;
        Some((takeover.from, takeover.to, takeover.since))
    };
    detector.wait(110 * S - 1);
    assert_eq!(pending(&detector), Some((HOST, A, time(100 * S))));
    detector.wait(110 * S);
    assert_eq!(pending(&detector), None);
}

#[test]
fn claims_within_the_second_that_this_host_has_to_release_are_nothing() {
    let mut detector = TestDetector::new();
    detector.host(0, true);
    detector.send(S, request_by(HOST));
    for at in [0, 1, 2, 999 * MS] {
        detector.receive(100 * S + at, announce(A));
    }
    detector.host(100 * S + 999 * MS, false);
    detector.receive(105 * S, announce(A));
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn an_address_that_this_host_has_just_been_given_was_rightly_another_hosts() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.receive(50 * S, announce(A));
    detector.host(100 * S, true);
    detector.receive(100 * S + 500 * MS, request_by(A));
    assert_eq!(detector.kinds(), []);
    detector.receive(101 * S, request_by(A));
    assert_eq!(detector.kinds(), [Conflict]);
}

#[test]
fn an_address_of_this_host_has_not_moved_because_this_host_sent_no_claim() {
    let mut detector = TestDetector::new();
    detector.host(0, true);
    detector.send(S, request_by(HOST));
    detector.receive(100 * S, announce(A));
    detector.wait(130 * S);
    assert_eq!(detector.kinds(), [Contested]);
    detector.receive(131 * S, announce(A));
    assert_eq!(detector.kinds(), [Conflict]);
}

#[test]
fn a_failback_announced_before_this_host_released_the_address_is_no_conflict() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.host(100 * S, true);
    detector.send(100 * S, announce(HOST));
    detector.receive(105 * S, announce(A));
    detector.host(105 * S + 300, false);
    detector.receive(110 * S, announce(A));
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn an_address_announced_from_this_host_and_taken_twice_is_local_evidence() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    detector.receive(100 * S, announce(A));
    detector.send(102 * S, announce(HOST));
    detector.receive(104 * S, announce(A));
    let findings = detector.take();
    let conflict = findings.last().unwrap();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
}

#[test]
fn a_clean_handover_and_a_rolling_restart_look_the_same_from_the_outgoing_node() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    detector.receive(100 * S, announce(A));
    detector.send(100 * S + 70, unicast_announcement(HOST));
    detector.receive(101 * S + 100 * MS, announce(A));
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), [Moved]);

    detector.send(300 * S, announce(HOST));
    detector.receive(300 * S + 70, unicast_announcement(A));
    detector.wait(400 * S);
    assert_eq!(detector.kinds(), [Moved]);

    detector.receive(500 * S, announce(A));
    detector.send(500 * S + 70, unicast_announcement(HOST));
    detector.receive(501 * S + 100 * MS, announce(A));
    detector.send(501 * S + 800 * MS, announce(HOST));
    detector.receive(501 * S + 800 * MS + 70, unicast_announcement(A));
    detector.send(502 * S + 900 * MS, announce(HOST));
    detector.wait(600 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn another_host_is_probed_after_the_grace_and_its_reply_is_evidence() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, true);
    detector.receive(100 * S, announce(A));
    let probe_requests = detector.inner.take_probe_requests();
    assert_eq!(probe_requests.len(), 1);
    let probe_request = &probe_requests[0];
    assert_eq!(
        (
            probe_request.purpose,
            probe_request.to.as_slice(),
            probe_request.earliest
        ),
        (ProbePurpose::Local, &[A][..], time(101 * S))
    );
    assert!(detector.inner.is_wanted(probe_request));
    detector.record_replies(101 * S + 500 * MS, probe_request, &[]);
    assert_eq!(detector.kinds(), []);
    detector.record_replies(102 * S, probe_request, &[A]);
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
    assert!(!detector.inner.is_wanted(probe_request));
}

#[test]
fn received_claims_of_this_hosts_own_macs_are_no_other_hosts() {
    let mut detector = TestDetector::new();
    detector.host(0, true);
    for second in 0..100 {
        detector.receive(second * S, announce(HOST));
    }
    assert_eq!(detector.kinds(), []);
}

/// Two rounds of probes about the last takeover, sent to `to`, to which `replying` reply.
fn confirm(detector: &mut TestDetector, to: &[MacAddr], from: u64, replying: [&[MacAddr]; 2]) {
    let probe_requests = detector.inner.take_probe_requests();
    let rounds: Vec<_> = probe_requests
        .iter()
        .filter(|probe_request| probe_request.purpose == ProbePurpose::Confirmation)
        .filter(|probe_request| detector.inner.is_wanted(probe_request))
        .collect();
    assert_eq!(rounds.len(), 2, "{probe_requests:#?}");
    for ((round, by), second) in rounds.into_iter().zip(replying).zip([2, 4]) {
        assert_eq!(round.to, to);
        for &mac in by {
            detector.receive(from + second * S - MS, reply_to_probe(HOST, mac, from));
        }
        detector.record_replies(from + second * S, round, by);
    }
}

#[test]
fn a_host_that_took_an_address_announced_from_here_is_probed_once_the_speaker_claims_again() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    for burst in [0, MS, 2 * MS] {
        detector.receive(100 * S + burst, announce(A));
        detector.send(100 * S + burst + 70, unicast_announcement(HOST));
    }
    assert!(detector.inner.take_probe_requests().is_empty());
    // A client sends a request, and the speaker on this host still replies.
    detector.send(102 * S, reply_by(HOST, 102 * S));
    assert_eq!(detector.kinds(), [Contested]);
    confirm(&mut detector, &[A], 102 * S, [&[A], &[A]]);
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
    assert_eq!(macs(&conflict).len(), 2);
}

#[test]
fn a_host_that_took_an_address_announced_from_here_long_ago_is_probed_when_the_speaker_replies() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    detector.receive(100 * S, announce(A));
    detector.wait(120 * S);
    assert_eq!(detector.kinds(), [Moved]);
    detector.send(200 * S, reply_by(HOST, 200 * S));
    confirm(&mut detector, &[A], 200 * S, [&[A], &[A]]);
    assert_eq!(detector.only().kind, Conflict);
}

#[test]
fn a_speaker_that_took_the_address_back_for_good_is_no_conflict() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    detector.receive(100 * S, announce(A));
    detector.send(100 * S + 70, unicast_announcement(HOST));
    detector.send(103 * S, announce(HOST));
    detector.receive(103 * S + 70, unicast_announcement(A));
    confirm(&mut detector, &[A], 103 * S, [&[], &[]]);
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn an_address_added_here_while_another_host_announces_it_is_probed_there() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.receive(0, announce(A));
    detector.host(100 * S, true);
    let probe_requests = detector.inner.take_probe_requests();
    let [probe_request] = probe_requests.as_slice() else {
        panic!("{probe_requests:#?}");
    };
    assert_eq!(
        (
            probe_request.purpose,
            probe_request.to.as_slice(),
            probe_request.earliest
        ),
        (ProbePurpose::Local, &[A][..], time(101 * S))
    );
    detector.record_replies(102 * S, probe_request, &[A]);
    assert_eq!(detector.only().evidence, Some(Evidence::Local));
}

#[test]
fn an_address_added_and_announced_here_has_moved_only_if_the_announcer_does_not_reply() {
    for (replies, finding) in [(true, Conflict), (false, Moved)] {
        let mut detector = TestDetector::with_probing();
        detector.host(0, false);
        detector.receive(0, announce(A));
        detector.host(100 * S, true);
        detector.send(100 * S, announce(HOST));
        let by: &[_] = if replies { &[A] } else { &[] };
        confirm(&mut detector, &[A], 100 * S, [by, by]);
        assert_eq!(detector.kinds(), [finding]);
    }
}

#[test]
fn a_host_that_announces_an_address_configured_here_and_does_not_reply_leaves_stale_caches() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, true);
    detector.send(0, announce(HOST));
    detector.receive(100 * S, announce(A));
    confirm(&mut detector, &[A], 100 * S, [&[], &[]]);
    let stale = detector.only();
    assert_eq!(
        (stale.kind, stale.severity),
        (StaleAnnouncement, Severity::Critical)
    );
    assert_eq!(macs(&stale), [HOST, A]);
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), []);
}
