//! How conflicts end, and what is asked.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, FindingKind::*, OwnerRole, OwnerView, Severity};

use super::lab::*;
use crate::{DetectConfig, IgnoreRule, ProbePurpose, ProbeRequest};

/// Two hosts that reply to ARP probes.
fn duplicate(lab: &mut Lab, at: u64) {
    lab.see(at, answer_to_probe(CLIENT, A, at));
    lab.see(at + 5, answer_to_probe(CLIENT, B, at));
}

/// Linux `proxy_arp` replies to requests with a sender address only.
#[test]
fn a_host_that_was_never_observed_to_reply_to_a_probe_is_not_gone_because_it_does_not() {
    let mut lab = Lab::asking();
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    let requests = lab.detector.take_probe_requests();
    let is_baseline = |ask: &&ProbeRequest| ask.round == ProbeRequest::BASELINE;
    let baseline = requests.iter().find(is_baseline).unwrap();
    assert!(baseline.to.is_empty(), "both by one broadcast");
    assert!(lab.detector.is_wanted(baseline));
    lab.record_replies(2 * S, baseline, &[A]);
    lab.wait(60 * S + 5);
    let [first, second] = inquiry(&mut lab);
    lab.record_replies(61 * S, &first, &[A]);
    lab.record_replies(63 * S, &second, &[A]);
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet]);
}

/// The probe at the beginning shows that both reply to probes.
#[test]
fn a_host_that_replied_to_a_probe_before_is_gone_when_it_does_not() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    lab.see(S + 1, answer_to_probe(HOST, A, S));
    lab.see(S + 2, answer_to_probe(HOST, B, S));
    lab.take();
    lab.detector.take_probe_requests();
    lab.wait(61 * S + 5);
    let [first, second] = inquiry(&mut lab);
    lab.record_replies(62 * S, &first, &[A]);
    lab.record_replies(64 * S, &second, &[A]);
    assert_eq!(lab.only().kind, ConflictResolved);
}

#[test]
fn where_nobody_asks_a_conflict_becomes_quiet_and_expires() {
    let mut lab = Lab::new();
    duplicate(&mut lab, 0);
    assert_eq!(lab.kinds(), [Conflict]);
    // One owner going on is no evidence, and no end either.
    for second in 1..2_000 {
        lab.see(second * S, answer(A, second * S));
    }
    let findings = lab.take();
    let told: Vec<_> = findings
        .iter()
        .map(|finding| (finding.kind, finding.at, finding.since))
        .collect();
    assert_eq!(
        told,
        [
            (ConflictQuiet, time(60 * S + 5), time(5)),
            (ConflictExpired, time(600 * S + 5), time(5)),
        ]
    );
    assert_eq!(lab.detector.statistics().open_conflicts, 0);
}

#[test]
fn a_conflict_stays_open_while_a_second_owner_claims_now_and_then() {
    let mut lab = Lab::new();
    duplicate(&mut lab, 0);
    for minute in 1..60 {
        lab.see(minute * 300 * S, asking(A));
        lab.see(minute * 300 * S + 150 * S, asking(B));
    }
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet]);
    let view = lab.detector.open_conflicts().next().unwrap();
    assert!(view.conflict.unwrap().quiet);
    assert_eq!(lab.detector.statistics().quiet_conflicts, 1);
}

#[test]
fn evidence_during_quiet_is_told_again() {
    let mut lab = Lab::new();
    duplicate(&mut lab, 0);
    lab.wait(100 * S);
    duplicate(&mut lab, 200 * S);
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet, Conflict]);
}

#[test]
fn a_conflict_that_reopens_names_only_the_owners_that_are_left() {
    let mut lab = Lab::new();
    duplicate(&mut lab, 0);
    lab.see(S, answer(A, S));
    lab.see(S + 5, answer(C, S));
    for second in 2..200 {
        lab.see(second * S, asking(A));
    }
    let kinds = lab.kinds();
    assert_eq!(kinds, [Conflict, Conflict, ConflictQuiet]);
    duplicate(&mut lab, 200 * S);
    let reopened = lab.only();
    assert_eq!(reopened.kind, Conflict);
    assert!(!macs(&reopened).contains(&C), "{:?}", macs(&reopened));
    // C comes back: that is an owner that joins.
    lab.see(201 * S, answer(A, 201 * S));
    lab.see(201 * S + 5, answer(C, 201 * S));
    assert_eq!(macs(&lab.only()).len(), 3);
}

fn inquiry(lab: &mut Lab) -> [ProbeRequest; 2] {
    let asks = lab.detector.take_probe_requests();
    let asks: Vec<_> = asks
        .into_iter()
        .filter(|ask| ask.purpose == ProbePurpose::Resolution)
        .collect();
    asks.try_into().unwrap()
}

#[test]
fn asked_twice_and_answered_twice_by_exactly_one_owner_a_conflict_is_resolved() {
    let mut lab = Lab::asking();
    duplicate(&mut lab, 0);
    lab.wait(60 * S + 4);
    assert_eq!(
        lab.detector
            .take_probe_requests()
            .iter()
            .filter(|ask| ask.purpose == ProbePurpose::Resolution)
            .count(),
        0
    );
    lab.wait(60 * S + 5);
    let [first, second] = inquiry(&mut lab);
    assert!(second.earliest.since(first.latest).as_secs() >= 1);
    assert!(first.to.is_empty(), "everybody");
    lab.record_replies(61 * S, &first, &[A]);
    assert_eq!(lab.kinds(), [Conflict]);
    lab.record_replies(63 * S, &second, &[A]);
    let resolved = lab.only();
    assert_eq!(
        (resolved.kind, resolved.severity),
        (ConflictResolved, Severity::Notice)
    );
    assert_eq!(macs(&resolved), [A, B]);
    assert_eq!((resolved.since, resolved.at), (time(5), time(63 * S)));
    lab.see(64 * S, announce(A));
    lab.wait(10_000 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn the_answers_to_our_own_asking_are_no_returns() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    duplicate(&mut lab, 0);
    lab.wait(60 * S + 5);
    let [first, second] = inquiry(&mut lab);
    // B took over last; A is the one that is left.
    lab.see(61 * S + 1, answer_to_probe(HOST, A, 61 * S));
    lab.record_replies(61 * S + 500 * MS, &first, &[A]);
    lab.see(63 * S + 1, answer_to_probe(HOST, A, 63 * S));
    lab.record_replies(63 * S + 500 * MS, &second, &[A]);
    assert_eq!(lab.kinds(), [Conflict, ConflictResolved]);
}

#[test]
fn two_owners_that_answer_keep_a_conflict_open() {
    let mut lab = Lab::asking();
    duplicate(&mut lab, 0);
    lab.wait(60 * S + 5);
    let [first, _] = inquiry(&mut lab);
    lab.record_replies(61 * S, &first, &[A, B]);
    assert_eq!(lab.kinds(), [Conflict]);
    let view = lab.detector.binding(&key()).unwrap().conflict.unwrap();
    assert_eq!(
        (view.last_evidence, view.counts.confirmed),
        (time(61 * S), 1)
    );
    assert!(!lab.detector.is_wanted(&first));
}

#[test]
fn silence_is_no_all_clear() {
    for answers in [[&[][..], &[]], [&[A], &[]], [&[], &[A]], [&[A], &[B]]] {
        let mut lab = Lab::asking();
        duplicate(&mut lab, 0);
        lab.wait(60 * S + 5);
        let [first, second] = inquiry(&mut lab);
        lab.record_replies(61 * S, &first, answers[0]);
        lab.record_replies(63 * S, &second, answers[1]);
        assert_eq!(lab.kinds(), [Conflict, ConflictQuiet]);
        // It is asked again, and expires if that goes on.
        lab.wait(120 * S + 5);
        inquiry(&mut lab);
        lab.wait(700 * S);
        assert_eq!(lab.kinds(), [ConflictExpired]);
        assert_eq!(lab.detector.next_deadline(), None);
    }
}

#[test]
fn asks_that_nobody_answers_for_make_it_quiet() {
    let mut lab = Lab::asking();
    duplicate(&mut lab, 0);
    lab.wait(300 * S);
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet]);
}

#[test]
fn what_this_host_holds_it_would_have_answered_for() {
    let mut lab = Lab::asking();
    lab.host(0, true);
    lab.see(10 * S, announce(A));
    lab.see(20 * S, announce(A));
    assert_eq!(lab.kinds(), [Conflict]);
    lab.see(30 * S, answer_to_probe(CLIENT, A, 30 * S));
    lab.wait(90 * S);
    let [first, second] = inquiry(&mut lab);
    lab.record_replies(91 * S, &first, &[]);
    lab.record_replies(93 * S, &second, &[]);
    let resolved = lab.only();
    assert_eq!(
        (resolved.kind, macs(&resolved)),
        (ConflictResolved, vec![A, HOST])
    );
}

#[test]
fn what_only_speaks_through_this_host_cannot_be_asked_and_so_not_be_cleared() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    for at in [100, 103] {
        lab.see(at * S, announce(A));
        lab.send((at + 1) * S + 500 * MS, announce(HOST));
    }
    assert!(lab.kinds().contains(&Conflict));
    lab.wait(180 * S);
    let [first, second] = inquiry(&mut lab);
    lab.record_replies(181 * S, &first, &[A]);
    lab.record_replies(183 * S, &second, &[A]);
    assert_eq!(lab.kinds(), [ConflictQuiet]);
}

#[test]
fn a_pending_move_is_asked_about_in_two_rounds() {
    let mut lab = Lab::asking();
    lab.see(0, asking(A));
    lab.see(100 * S, announce(B));
    let asks = lab.detector.take_probe_requests();
    let windows: Vec<_> = asks.iter().map(|ask| (ask.earliest, ask.latest)).collect();
    assert_eq!(
        windows,
        [
            (time(101 * S), time(102 * S)),
            (time(103 * S), time(104 * S))
        ]
    );
    assert!(
        asks.iter()
            .all(|ask| ask.purpose == ProbePurpose::Confirmation && ask.to == [A, B])
    );
}

fn pending_move() -> (Lab, Vec<ProbeRequest>) {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.see(0, asking(A));
    lab.see(100 * S, announce(B));
    let asks = lab.detector.take_probe_requests();
    (lab, asks)
}

#[test]
fn both_owners_answering_both_rounds_is_a_confirmed_conflict() {
    let (mut lab, asks) = pending_move();
    for (ask, at) in asks.iter().zip([101 * S, 103 * S]) {
        assert!(lab.detector.is_wanted(ask));
        lab.see(at + 1, answer_to_probe(HOST, A, at));
        lab.see(at + 500, answer_to_probe(HOST, B, at + 400));
        lab.record_replies(at + 600 * MS, ask, &[A, B]);
    }
    let conflict = lab.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Confirmed))
    );
    assert_eq!(conflict.counts.confirmed, 1);
    assert!(!lab.detector.is_wanted(&asks[0]));
}

#[test]
fn the_old_owner_silent_in_both_rounds_settles_the_move_at_once() {
    let (mut lab, asks) = pending_move();
    lab.record_replies(101 * S, &asks[0], &[B]);
    lab.record_replies(103 * S, &asks[1], &[]);
    let moved = lab.only();
    assert_eq!((moved.kind, moved.at), (Moved, time(103 * S)));
    lab.wait(1000 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn an_old_owner_that_answered_once_has_not_been_silent() {
    let (mut lab, asks) = pending_move();
    lab.see(101 * S, answer_to_probe(HOST, A, 101 * S));
    lab.record_replies(101 * S, &asks[0], &[A, B]);
    lab.record_replies(103 * S, &asks[1], &[B]);
    lab.wait(111 * S - 1);
    assert_eq!(lab.kinds(), []);
    lab.wait(111 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn answers_to_a_question_that_no_longer_matters_are_dropped() {
    let (mut lab, asks) = pending_move();
    lab.see(102 * S, announce(C));
    assert!(!lab.detector.is_wanted(&asks[0]));
    for ask in &asks {
        lab.record_replies(103 * S, ask, &[A, B]);
    }
    assert_eq!(lab.kinds(), []);
}

#[test]
fn without_somebody_who_asks_nothing_is_asked() {
    let mut lab = Lab::new();
    lab.host(0, true);
    lab.see(100 * S, announce(A));
    duplicate(&mut lab, 200 * S);
    lab.wait(10_000 * S);
    assert!(lab.detector.take_probe_requests().is_empty());
}

#[test]
fn a_listed_dispute_is_counted_and_not_reported() {
    let mut lab = Lab::with(DetectConfig {
        ignore: vec![IgnoreRule {
            network: "192.0.2.80/32".parse().unwrap(),
            reason: "anycast".into(),
            expires: Some(time(300 * S)),
        }],
        ..DetectConfig::default()
    });
    for second in 0..100 {
        duplicate(&mut lab, second * S);
    }
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), []);
    let statistics = lab.detector.statistics();
    assert_eq!(statistics.ignored[Conflict.number() as usize], 1);
    assert_eq!(statistics.open_conflicts, 1);
    assert!(lab.detector.binding(&key()).unwrap().ignored);
    // The entry ends, the conflict goes on.
    duplicate(&mut lab, 300 * S);
    assert_eq!(lab.kinds(), [Conflict]);
}

#[test]
fn evidence_once_a_minute_does_not_open_a_quiet_conflict_again_and_again() {
    for (every, most) in [(61, 2), (110, 2), (300, 4)] {
        let mut lab = Lab::new();
        for round in 0..60 {
            duplicate(&mut lab, round * every * S);
        }
        let opened = lab.kinds().iter().filter(|&&kind| kind == Conflict).count();
        assert!(opened <= most, "every {every} s: reported {opened} times");
    }
}

#[test]
fn a_conflict_that_reopens_for_long_is_probed_after_each_evidence_all_the_same() {
    let mut lab = Lab::asking();
    for round in 0..10 {
        duplicate(&mut lab, round * 65 * S);
    }
    lab.detector.take_probe_requests();
    lab.wait(9 * 65 * S + 60 * S + 5);
    inquiry(&mut lab);
}

/// A conflict of two hosts that have replied to ARP probes.
fn conflict_of_proven_owners() -> Lab {
    let mut lab = Lab::asking();
    duplicate(&mut lab, 0);
    assert_eq!(lab.kinds(), [Conflict]);
    lab
}

#[test]
fn a_conflict_ends_when_none_of_its_owners_replies_to_two_inquiries() {
    let mut lab = conflict_of_proven_owners();
    for (from, expected) in [(60, vec![ConflictQuiet]), (120, vec![ConflictResolved])] {
        lab.wait(from * S + 5);
        let [first, second] = inquiry(&mut lab);
        lab.record_replies((from + 1) * S, &first, &[]);
        lab.record_replies((from + 3) * S, &second, &[]);
        let findings = lab.take();
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
    assert_eq!(lab.detector.statistics().open_conflicts, 0);
    lab.wait(10_000 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn a_reply_between_two_unanswered_inquiries_keeps_a_conflict_open() {
    let mut lab = conflict_of_proven_owners();
    for (from, by) in [(60, &[][..]), (120, &[A]), (180, &[])] {
        lab.wait(from * S + 5);
        let [first, second] = inquiry(&mut lab);
        lab.record_replies((from + 1) * S, &first, by);
        lab.record_replies((from + 3) * S, &second, &[]);
    }
    assert_eq!(lab.kinds(), [ConflictQuiet]);
}

#[test]
fn owners_that_never_replied_to_a_probe_are_not_gone_because_they_do_not_reply() {
    let mut lab = Lab::asking();
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    for from in [60, 120, 180] {
        lab.wait(from * S + 5);
        let [first, second] = inquiry(&mut lab);
        lab.record_replies((from + 1) * S, &first, &[]);
        lab.record_replies((from + 3) * S, &second, &[]);
    }
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet]);
}

#[test]
fn two_masters_on_one_virtual_mac_are_not_exactly_one_owner() {
    for (repeats, end) in [(false, ConflictResolved), (true, ConflictQuiet)] {
        let mut lab = Lab::asking();
        lab.host(0, false);
        lab.see(0, answer_to_probe(CLIENT, V, 0));
        lab.see(5, answer_to_probe(CLIENT, V2, 0));
        assert_eq!(lab.kinds(), [Conflict]);
        lab.wait(60 * S + 5);
        let [first, second] = inquiry(&mut lab);
        for (at, ask) in [(61 * S, &first), (63 * S, &second)] {
            lab.see(at + 10, answer_to_probe(HOST, V, at));
            if repeats {
                lab.see(at + 20, answer_to_probe(HOST, V, at));
            }
            lab.record_replies(at + 500 * MS, ask, &[V]);
        }
        assert_eq!(lab.kinds(), [end], "two replies: {repeats}");
    }
}

/// A claim may carry an earlier one, that the kernel suppressed, from hours ago.
#[test]
fn evidence_from_hours_ago_is_not_probed_about_for_all_the_time_since() {
    let mut lab = Lab::asking();
    lab.host(0, true);
    lab.see(7_200 * S, after(announce(B), 10 * S, announce(A)));
    lab.detector.take_probe_requests();
    let before = lab.detector.processed_deadlines();
    lab.see(7_201 * S, after(announce(B), 20 * S, announce(A)));
    assert!(lab.kinds().contains(&Conflict));
    let processed = lab.detector.processed_deadlines() - before;
    assert!(processed < 5, "{processed}");
    let mut requests = lab.detector.take_probe_requests();
    requests.retain(|ask| ask.purpose == ProbePurpose::Resolution);
    let now = time(7_200 * S);
    assert!(
        requests.iter().all(|ask| ask.requested_for >= now),
        "{requests:#?}"
    );
}

/// The subsets of two owners.
const SUBSETS: [&[MacAddr]; 4] = [&[], &[A], &[B], &[A, B]];

#[test]
fn every_outcome_of_two_rounds_about_a_takeover_has_its_finding() {
    for first in SUBSETS {
        for second in SUBSETS {
            let (mut lab, requests) = pending_move();
            lab.record_replies(101 * S, &requests[0], first);
            lab.record_replies(103 * S, &requests[1], second);
            let replied = |mac| [first, second].map(|by| by.contains(&mac));
            let expected = match (replied(A), replied(B)) {
                ([true, true], [true, true]) => (Conflict, 103 * S),
                ([_, true], [_, false]) => (StaleAnnouncement, 103 * S),
                ([false, false], _) => (Moved, 103 * S),
                _ => (Moved, 110 * S),
            };
            lab.wait(111 * S);
            let finding = lab.only();
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
    for [first, second] in replies {
        let expires = quiet.map(|quiet: u64| quiet.max(600));
        if let Some(expires) = expires.filter(|&expires| expires <= start) {
            findings.push((expires, ConflictExpired));
            return findings;
        }
        let mut become_quiet = |at: u64, findings: &mut Vec<_>| {
            if quiet.is_none() && at >= evidence + 60 * 2_u64.pow(reopened.min(3)) {
                quiet = Some(at);
                findings.push((at, ConflictQuiet));
            }
        };
        if !is_first {
            become_quiet(start, &mut findings);
        }
        is_first = false;
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
        become_quiet(end, &mut findings);
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
        let mut lab = Lab::asking();
        lab.see(0, answer_to_probe(CLIENT, A, 0));
        lab.see(0, answer_to_probe(CLIENT, B, 0));
        lab.detector.take_probe_requests();
        for by in &replies {
            while let Some(due) = lab.detector.next_deadline() {
                lab.detector.tick(due, &mut lab.findings);
                let mut requests = lab.detector.take_probe_requests();
                requests.retain(|request| request.purpose == ProbePurpose::Resolution);
                if requests.is_empty() {
                    continue;
                }
                for (request, (delay, by)) in requests.iter().zip([1, 3].into_iter().zip(by)) {
                    if lab.detector.is_wanted(request) {
                        let at = due + Duration::from_secs(delay);
                        lab.detector.record_replies(request, at, by, &mut lab.findings);
                    }
                }
                break;
            }
        }
        let expected = model_of_inquiries(&replies);
        let mut findings = lab.take();
        findings.retain(|finding| finding.kind != NewBinding);
        let found: Vec<_> = findings
            .iter()
            .map(|finding| (finding.at.since(time(0)).as_secs(), finding.kind))
            .collect();
        proptest::prop_assert_eq!(&found[..found.len().min(expected.len())], &expected[..]);
    }
}
