//! The end of conflicts, and probe requests.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, FindingKind::*, OwnerRole, OwnerView, Severity};

use super::test_detector::*;
use crate::{DetectConfig, IgnoreRule, ProbePurpose, ProbeRequest};

/// Two hosts that reply to ARP probes.
fn duplicate(detector: &mut TestDetector, at: u64) {
    detector.receive(at, reply_to_probe(CLIENT, A, at));
    detector.receive(at + 5, reply_to_probe(CLIENT, B, at));
}

/// Linux `proxy_arp` replies to requests with a sender address only.
#[test]
fn a_host_that_was_never_observed_to_reply_to_a_probe_is_not_gone_because_it_does_not() {
    let mut detector = TestDetector::with_probing();
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    let requests = detector.inner.take_probe_requests();
    let is_baseline = |probe_request: &&ProbeRequest| probe_request.round == ProbeRequest::BASELINE;
    let baseline = requests.iter().find(is_baseline).unwrap();
    assert!(baseline.to.is_empty(), "both by one broadcast");
    assert!(detector.inner.is_wanted(baseline));
    detector.record_replies(2 * S, baseline, &[A]);
    detector.wait(60 * S + 5);
    let [first, second] = inquiry(&mut detector);
    detector.record_replies(61 * S, &first, &[A]);
    detector.record_replies(63 * S, &second, &[A]);
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet]);
}

/// The probe at the beginning shows that both reply to probes.
#[test]
fn a_host_that_replied_to_a_probe_before_is_gone_when_it_does_not() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    detector.receive(S + 1, reply_to_probe(HOST, A, S));
    detector.receive(S + 2, reply_to_probe(HOST, B, S));
    detector.take();
    detector.inner.take_probe_requests();
    detector.wait(61 * S + 5);
    let [first, second] = inquiry(&mut detector);
    detector.record_replies(62 * S, &first, &[A]);
    detector.record_replies(64 * S, &second, &[A]);
    assert_eq!(detector.only().kind, ConflictResolved);
}

#[test]
fn without_probing_a_conflict_becomes_quiet_and_expires() {
    let mut detector = TestDetector::new();
    duplicate(&mut detector, 0);
    assert_eq!(detector.kinds(), [Conflict]);
    // One owner going on is no evidence, and no end either.
    for second in 1..2_000 {
        detector.receive(second * S, reply_by(A, second * S));
    }
    let findings = detector.take();
    let reported: Vec<_> = findings
        .iter()
        .map(|finding| (finding.kind, finding.at, finding.since))
        .collect();
    assert_eq!(
        reported,
        [
            (ConflictQuiet, time(60 * S + 5), time(5)),
            (ConflictExpired, time(600 * S + 5), time(5)),
        ]
    );
    assert_eq!(detector.inner.statistics().open_conflicts, 0);
}

#[test]
fn a_conflict_stays_open_while_a_second_owner_claims_now_and_then() {
    let mut detector = TestDetector::new();
    duplicate(&mut detector, 0);
    for minute in 1..60 {
        detector.receive(minute * 300 * S, request_by(A));
        detector.receive(minute * 300 * S + 150 * S, request_by(B));
    }
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet]);
    let view = detector.inner.open_conflicts().next().unwrap();
    assert!(view.conflict.unwrap().quiet);
    assert_eq!(detector.inner.statistics().quiet_conflicts, 1);
}

#[test]
fn evidence_in_a_quiet_conflict_is_reported_again() {
    let mut detector = TestDetector::new();
    duplicate(&mut detector, 0);
    detector.wait(100 * S);
    duplicate(&mut detector, 200 * S);
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet, Conflict]);
}

#[test]
fn a_conflict_that_reopens_names_only_the_owners_that_are_left() {
    let mut detector = TestDetector::new();
    duplicate(&mut detector, 0);
    detector.receive(S, reply_by(A, S));
    detector.receive(S + 5, reply_by(C, S));
    for second in 2..200 {
        detector.receive(second * S, request_by(A));
    }
    let kinds = detector.kinds();
    assert_eq!(kinds, [Conflict, Conflict, ConflictQuiet]);
    duplicate(&mut detector, 200 * S);
    let reopened = detector.only();
    assert_eq!(reopened.kind, Conflict);
    assert!(!macs(&reopened).contains(&C), "{:?}", macs(&reopened));
    // C comes back: that is an owner that joins.
    detector.receive(201 * S, reply_by(A, 201 * S));
    detector.receive(201 * S + 5, reply_by(C, 201 * S));
    assert_eq!(macs(&detector.only()).len(), 3);
}

fn inquiry(detector: &mut TestDetector) -> [ProbeRequest; 2] {
    let probe_requests = detector.inner.take_probe_requests();
    let probe_requests: Vec<_> = probe_requests
        .into_iter()
        .filter(|probe_request| probe_request.purpose == ProbePurpose::Resolution)
        .collect();
    probe_requests.try_into().unwrap()
}

#[test]
fn a_conflict_is_resolved_when_exactly_one_owner_replies_to_both_rounds() {
    let mut detector = TestDetector::with_probing();
    duplicate(&mut detector, 0);
    detector.wait(60 * S + 4);
    assert_eq!(
        detector
            .inner
            .take_probe_requests()
            .iter()
            .filter(|probe_request| probe_request.purpose == ProbePurpose::Resolution)
            .count(),
        0
    );
    detector.wait(60 * S + 5);
    let [first, second] = inquiry(&mut detector);
    assert!(second.earliest.since(first.latest).as_secs() >= 1);
    assert!(first.to.is_empty(), "broadcast");
    detector.record_replies(61 * S, &first, &[A]);
    assert_eq!(detector.kinds(), [Conflict]);
    detector.record_replies(63 * S, &second, &[A]);
    let resolved = detector.only();
    assert_eq!(
        (resolved.kind, resolved.severity),
        (ConflictResolved, Severity::Notice)
    );
    assert_eq!(macs(&resolved), [A, B]);
    assert_eq!((resolved.since, resolved.at), (time(5), time(63 * S)));
    detector.receive(64 * S, announce(A));
    detector.wait(10_000 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn replies_to_probes_of_this_host_are_no_returns() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    duplicate(&mut detector, 0);
    detector.wait(60 * S + 5);
    let [first, second] = inquiry(&mut detector);
    // B took over last; A is the one that is left.
    detector.receive(61 * S + 1, reply_to_probe(HOST, A, 61 * S));
    detector.record_replies(61 * S + 500 * MS, &first, &[A]);
    detector.receive(63 * S + 1, reply_to_probe(HOST, A, 63 * S));
    detector.record_replies(63 * S + 500 * MS, &second, &[A]);
    assert_eq!(detector.kinds(), [Conflict, ConflictResolved]);
}

#[test]
fn two_owners_that_reply_keep_a_conflict_open() {
    let mut detector = TestDetector::with_probing();
    duplicate(&mut detector, 0);
    detector.wait(60 * S + 5);
    let [first, _] = inquiry(&mut detector);
    detector.record_replies(61 * S, &first, &[A, B]);
    assert_eq!(detector.kinds(), [Conflict]);
    let view = detector.inner.binding(&key()).unwrap().conflict.unwrap();
    assert_eq!(
        (view.last_evidence, view.counts.confirmed),
        (time(61 * S), 1)
    );
    assert!(!detector.inner.is_wanted(&first));
}

#[test]
fn no_reply_is_no_proof_that_a_conflict_is_over() {
    for replies in [[&[][..], &[]], [&[A], &[]], [&[], &[A]], [&[A], &[B]]] {
        let mut detector = TestDetector::with_probing();
        duplicate(&mut detector, 0);
        detector.wait(60 * S + 5);
        let [first, second] = inquiry(&mut detector);
        detector.record_replies(61 * S, &first, replies[0]);
        detector.record_replies(63 * S, &second, replies[1]);
        assert_eq!(detector.kinds(), [Conflict, ConflictQuiet]);
        // It is probed again, and expires if that goes on.
        detector.wait(120 * S + 5);
        inquiry(&mut detector);
        detector.wait(700 * S);
        assert_eq!(detector.kinds(), [ConflictExpired]);
        assert_eq!(detector.inner.next_deadline(), None);
    }
}

#[test]
fn a_conflict_whose_probe_requests_have_no_outcome_becomes_quiet() {
    let mut detector = TestDetector::with_probing();
    duplicate(&mut detector, 0);
    detector.wait(300 * S);
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet]);
}

#[test]
fn this_host_counts_as_replying_for_an_address_that_it_has() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, true);
    detector.receive(10 * S, announce(A));
    detector.receive(20 * S, announce(A));
    assert_eq!(detector.kinds(), [Conflict]);
    detector.receive(30 * S, reply_to_probe(CLIENT, A, 30 * S));
    detector.wait(90 * S);
    let [first, second] = inquiry(&mut detector);
    detector.record_replies(91 * S, &first, &[]);
    detector.record_replies(93 * S, &second, &[]);
    let resolved = detector.only();
    assert_eq!(
        (resolved.kind, macs(&resolved)),
        (ConflictResolved, vec![A, HOST])
    );
}

#[test]
fn a_conflict_with_a_speaker_on_this_host_is_not_resolved_by_probes() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.send(0, announce(HOST));
    for at in [100, 103] {
        detector.receive(at * S, announce(A));
        detector.send((at + 1) * S + 500 * MS, announce(HOST));
    }
    assert!(detector.kinds().contains(&Conflict));
    detector.wait(180 * S);
    let [first, second] = inquiry(&mut detector);
    detector.record_replies(181 * S, &first, &[A]);
    detector.record_replies(183 * S, &second, &[A]);
    assert_eq!(detector.kinds(), [ConflictQuiet]);
}

#[test]
fn a_pending_move_is_probed_in_two_rounds() {
    let mut detector = TestDetector::with_probing();
    detector.receive(0, request_by(A));
    detector.receive(100 * S, announce(B));
    let probe_requests = detector.inner.take_probe_requests();
    let windows: Vec<_> = probe_requests
        .iter()
        .map(|probe_request| (probe_request.earliest, probe_request.latest))
        .collect();
    assert_eq!(
        windows,
        [
            (time(101 * S), time(102 * S)),
            (time(103 * S), time(104 * S))
        ]
    );
    assert!(
        probe_requests
            .iter()
            .all(
                |probe_request| probe_request.purpose == ProbePurpose::Confirmation
                    && probe_request.to == [A, B]
            )
    );
}

fn pending_move() -> (TestDetector, Vec<ProbeRequest>) {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    detector.receive(0, request_by(A));
    detector.receive(100 * S, announce(B));
    let probe_requests = detector.inner.take_probe_requests();
    (detector, probe_requests)
}

#[test]
fn both_owners_replying_to_both_rounds_are_a_confirmed_conflict() {
    let (mut detector, probe_requests) = pending_move();
    for (probe_request, at) in probe_requests.iter().zip([101 * S, 103 * S]) {
        assert!(detector.inner.is_wanted(probe_request));
        detector.receive(at + 1, reply_to_probe(HOST, A, at));
        detector.receive(at + 500, reply_to_probe(HOST, B, at + 400));
        detector.record_replies(at + 600 * MS, probe_request, &[A, B]);
    }
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Confirmed))
    );
    assert_eq!(conflict.counts.confirmed, 1);
    assert!(!detector.inner.is_wanted(&probe_requests[0]));
}

#[test]
fn no_reply_of_the_previous_owner_in_both_rounds_settles_the_move_at_once() {
    let (mut detector, probe_requests) = pending_move();
    detector.record_replies(101 * S, &probe_requests[0], &[B]);
    detector.record_replies(103 * S, &probe_requests[1], &[]);
    let moved = detector.only();
    assert_eq!((moved.kind, moved.at), (Moved, time(103 * S)));
    detector.wait(1000 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_previous_owner_that_replied_once_was_not_silent() {
    let (mut detector, probe_requests) = pending_move();
    detector.receive(101 * S, reply_to_probe(HOST, A, 101 * S));
    detector.record_replies(101 * S, &probe_requests[0], &[A, B]);
    detector.record_replies(103 * S, &probe_requests[1], &[B]);
    detector.wait(111 * S - 1);
    assert_eq!(detector.kinds(), []);
    detector.wait(111 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn replies_to_an_obsolete_probe_request_are_dropped() {
    let (mut detector, probe_requests) = pending_move();
    detector.receive(102 * S, announce(C));
    assert!(!detector.inner.is_wanted(&probe_requests[0]));
    for probe_request in &probe_requests {
        detector.record_replies(103 * S, probe_request, &[A, B]);
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn without_probing_no_probe_is_requested() {
    let mut detector = TestDetector::new();
    detector.host(0, true);
    detector.receive(100 * S, announce(A));
    duplicate(&mut detector, 200 * S);
    detector.wait(10_000 * S);
    assert!(detector.inner.take_probe_requests().is_empty());
}

#[test]
fn a_listed_dispute_is_counted_and_not_reported() {
    let mut detector = TestDetector::with(DetectConfig {
        ignore: vec![IgnoreRule {
            network: "192.0.2.80/32".parse().unwrap(),
            reason: "anycast".into(),
            expires: Some(time(300 * S)),
        }],
        ..DetectConfig::default()
    });
    for second in 0..100 {
        duplicate(&mut detector, second * S);
    }
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), []);
    let statistics = detector.inner.statistics();
    assert_eq!(statistics.ignored[Conflict.number() as usize], 1);
    assert_eq!(statistics.open_conflicts, 1);
    assert!(detector.inner.binding(&key()).unwrap().ignored);
    // The entry ends, the conflict goes on.
    duplicate(&mut detector, 300 * S);
    assert_eq!(detector.kinds(), [Conflict]);
}

#[test]
fn evidence_once_a_minute_does_not_open_a_quiet_conflict_again_and_again() {
    for (every, most) in [(61, 2), (110, 2), (300, 4)] {
        let mut detector = TestDetector::new();
        for round in 0..60 {
            duplicate(&mut detector, round * every * S);
        }
        let opened = detector
            .kinds()
            .iter()
            .filter(|&&kind| kind == Conflict)
            .count();
        assert!(opened <= most, "every {every} s: reported {opened} times");
    }
}

#[test]
fn a_conflict_that_reopens_for_long_is_probed_after_each_evidence_all_the_same() {
    let mut detector = TestDetector::with_probing();
    for round in 0..10 {
        duplicate(&mut detector, round * 65 * S);
    }
    detector.inner.take_probe_requests();
    detector.wait(9 * 65 * S + 60 * S + 5);
    inquiry(&mut detector);
}

/// A conflict of two hosts that have replied to ARP probes.
fn conflict_of_proven_owners() -> TestDetector {
    let mut detector = TestDetector::with_probing();
    duplicate(&mut detector, 0);
    assert_eq!(detector.kinds(), [Conflict]);
    detector
}

#[test]
fn a_conflict_ends_when_none_of_its_owners_replies_to_two_inquiries() {
    let mut detector = conflict_of_proven_owners();
    for (from, expected) in [(60, vec![ConflictQuiet]), (120, vec![ConflictResolved])] {
        detector.wait(from * S + 5);
        let [first, second] = inquiry(&mut detector);
        detector.record_replies((from + 1) * S, &first, &[]);
        detector.record_replies((from + 3) * S, &second, &[]);
        let findings = detector.take();
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, expected);
        if let [resolved] = &findings[..]
            && resolved.kind == ConflictResolved
        {
            let is_current = |owner: &OwnerView| owner.role == OwnerRole::Current;
            assert!(!resolved.owners.iter().any(is_current), "{resolved:#?}");
            assert_eq!(resolved.owners.len(), 2);
        }
    }
    assert_eq!(detector.inner.statistics().open_conflicts, 0);
    detector.wait(10_000 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_reply_between_two_unanswered_inquiries_keeps_a_conflict_open() {
    let mut detector = conflict_of_proven_owners();
    for (from, by) in [(60, &[][..]), (120, &[A]), (180, &[])] {
        detector.wait(from * S + 5);
        let [first, second] = inquiry(&mut detector);
        detector.record_replies((from + 1) * S, &first, by);
        detector.record_replies((from + 3) * S, &second, &[]);
    }
    assert_eq!(detector.kinds(), [ConflictQuiet]);
}

#[test]
fn owners_that_never_replied_to_a_probe_are_not_gone_because_they_do_not_reply() {
    let mut detector = TestDetector::with_probing();
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    for from in [60, 120, 180] {
        detector.wait(from * S + 5);
        let [first, second] = inquiry(&mut detector);
        detector.record_replies((from + 1) * S, &first, &[]);
        detector.record_replies((from + 3) * S, &second, &[]);
    }
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet]);
}

#[test]
fn two_masters_on_one_virtual_mac_are_not_exactly_one_owner() {
    for (repeats, end) in [(false, ConflictResolved), (true, ConflictQuiet)] {
        let mut detector = TestDetector::with_probing();
        detector.host(0, false);
        detector.receive(0, reply_to_probe(CLIENT, V, 0));
        detector.receive(5, reply_to_probe(CLIENT, V2, 0));
        assert_eq!(detector.kinds(), [Conflict]);
        detector.wait(60 * S + 5);
        let [first, second] = inquiry(&mut detector);
        for (at, probe_request) in [(61 * S, &first), (63 * S, &second)] {
            detector.receive(at + 10, reply_to_probe(HOST, V, at));
            if repeats {
                detector.receive(at + 20, reply_to_probe(HOST, V, at));
            }
            detector.record_replies(at + 500 * MS, probe_request, &[V]);
        }
        assert_eq!(detector.kinds(), [end], "two replies: {repeats}");
    }
}

/// A claim may carry an earlier one, that the kernel suppressed, from hours ago.
#[test]
fn evidence_from_hours_ago_is_not_probed_about_for_all_the_time_since() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, true);
    detector.receive(7_200 * S, after(announce(B), 10 * S, announce(A)));
    detector.inner.take_probe_requests();
    let before = detector.inner.processed_deadlines();
    detector.receive(7_201 * S, after(announce(B), 20 * S, announce(A)));
    assert!(detector.kinds().contains(&Conflict));
    let processed = detector.inner.processed_deadlines() - before;
    assert!(processed < 5, "{processed}");
    let mut requests = detector.inner.take_probe_requests();
    requests.retain(|probe_request| probe_request.purpose == ProbePurpose::Resolution);
    let now = time(7_200 * S);
    assert!(
        requests
            .iter()
            .all(|probe_request| probe_request.requested_for >= now),
        "{requests:#?}"
    );
}

/// The subsets of two owners.
const SUBSETS: [&[MacAddr]; 4] = [&[], &[A], &[B], &[A, B]];

#[test]
fn every_outcome_of_two_rounds_about_a_takeover_has_its_finding() {
    for first in SUBSETS {
        for second in SUBSETS {
            let (mut detector, requests) = pending_move();
            detector.record_replies(101 * S, &requests[0], first);
            detector.record_replies(103 * S, &requests[1], second);
            let replied = |mac| [first, second].map(|by| by.contains(&mac));
            let expected = match (replied(A), replied(B)) {
                ([true, true], [true, true]) => (Conflict, 103 * S),
                ([_, true], [_, false]) => (StaleAnnouncement, 103 * S),
                ([false, false], _) => (Moved, 103 * S),
                _ => (Moved, 110 * S),
            };
            detector.wait(111 * S);
            let finding = detector.only();
            let (kind, at) = expected;
            assert_eq!(
                (finding.kind, finding.at),
                (kind, time(at)),
                "{first:?} {second:?}"
            );
        }
    }
}

/// What the inquiries of a conflict since 0 s must conclude, replied to one and three seconds after they start.
fn model_of_inquiries(replies: &[[&[MacAddr]; 2]]) -> Vec<(u64, FindingKind)> {
    let (mut findings, mut evidence, mut reopened) = (vec![(0, Conflict)], 0, 0_u32);
    let (mut start, mut unanswered, mut quiet, mut is_first) = (60, 0, None, true);
    let expired = |quiet: Option<u64>, now: u64| {
        let expires = quiet.map(|quiet| quiet.max(600));
        expires.filter(|&expires| expires <= now)
    };
    for [first, second] in replies {
        if let Some(expires) = expired(quiet, start) {
            findings.push((expires, ConflictExpired));
            return findings;
        }
        let become_quiet = |at: u64, quiet: &mut Option<u64>, findings: &mut Vec<_>| {
            if quiet.is_none() && at >= evidence + 60 * 2_u64.pow(reopened.min(3)) {
                *quiet = Some(at);
                findings.push((at, ConflictQuiet));
            }
        };
        if !is_first {
            become_quiet(start, &mut quiet, &mut findings);
        }
        is_first = false;
        // It expires as soon as it is quiet if no second owner has claimed the address for long.
        if let Some(expires) = expired(quiet, start) {
            findings.push((expires, ConflictExpired));
            return findings;
        }
        let both = [first, second].map(|by| by.len() > 1);
        if let Some(round) = both.iter().position(|&both| both) {
            evidence = start + 1 + 2 * round as u64;
            if quiet.take().is_some() {
                reopened += 1;
                findings.push((evidence, Conflict));
            }
            (start, unanswered, is_first) = (evidence + 60, 0, true);
            continue;
        }
        let end = start + 3;
        unanswered = if first.is_empty() && second.is_empty() {
            unanswered + 1
        } else {
            0
        };
        if unanswered == 2 || first == second && first.len() == 1 {
            findings.push((end, ConflictResolved));
            return findings;
        }
        become_quiet(end, &mut quiet, &mut findings);
        start += 60;
    }
    findings
}

proptest::proptest! {
    #[test]
    fn inquiries_conclude_what_the_model_concludes(
        replies in proptest::collection::vec(proptest::array::uniform2(0usize..4), 1..12),
    ) {
        let replies: Vec<_> = replies.iter().map(|by| by.map(|by| SUBSETS[by])).collect();
        let mut detector = TestDetector::with_probing();
        detector.receive(0, reply_to_probe(CLIENT, A, 0));
        detector.receive(0, reply_to_probe(CLIENT, B, 0));
        detector.inner.take_probe_requests();
        for by in &replies {
            while let Some(due) = detector.inner.next_deadline() {
                detector.inner.tick(due, &mut detector.findings);
                let mut requests = detector.inner.take_probe_requests();
                requests.retain(|request| request.purpose == ProbePurpose::Resolution);
                if requests.is_empty() {
                    continue;
                }
                for (request, (delay, by)) in requests.iter().zip([1, 3].into_iter().zip(by)) {
                    if detector.inner.is_wanted(request) {
                        let at = due + Duration::from_secs(delay);
                        detector.inner.record_replies(request, at, by, &mut detector.findings);
                    }
                }
                break;
            }
        }
        let expected = model_of_inquiries(&replies);
        let mut findings = detector.take();
        findings.retain(|finding| finding.kind != NewBinding);
        let found: Vec<_> = findings
            .iter()
            .map(|finding| (finding.at.since(time(0)).as_secs(), finding.kind))
            .collect();
        proptest::prop_assert_eq!(&found[..found.len().min(expected.len())], &expected[..]);
    }
}
