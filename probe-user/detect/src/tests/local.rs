//! This host's own addresses.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind::*, Severity};

use super::lab::*;
use crate::ProbePurpose;

#[test]
fn a_stranger_that_goes_on_claiming_an_address_of_this_host_is_a_conflict() {
    for every in [S, 3 * S, 30 * S] {
        let mut lab = Lab::new();
        lab.host(0, true);
        lab.see(100 * S, asking(A));
        assert_eq!(lab.kinds(), []);
        lab.see(100 * S + every, asking(A));
        let conflict = lab.only();
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
    let mut lab = Lab::new();
    lab.host(0, true);
    lab.see(100 * S, asking(A));
    let pending = |lab: &Lab| {
        let takeover = lab.detector.pending_takeovers().next()?.takeover?;
        Some((takeover.from, takeover.to, takeover.since))
    };
    lab.wait(110 * S - 1);
    assert_eq!(pending(&lab), Some((HOST, A, time(100 * S))));
    lab.wait(110 * S);
    assert_eq!(pending(&lab), None);
}

#[test]
fn claims_within_the_second_that_this_host_has_to_let_go_are_nothing() {
    let mut lab = Lab::new();
    lab.host(0, true);
    lab.send(S, asking(HOST));
    for at in [0, 1, 2, 999 * MS] {
        lab.see(100 * S + at, announce(A));
    }
    lab.host(100 * S + 999 * MS, false);
    lab.see(105 * S, announce(A));
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn an_address_that_this_host_has_just_been_given_was_rightly_another_hosts() {
    let mut lab = Lab::new();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.see(50 * S, announce(A));
    lab.host(100 * S, true);
    lab.see(100 * S + 500 * MS, asking(A));
    assert_eq!(lab.kinds(), []);
    lab.see(101 * S, asking(A));
    assert_eq!(lab.kinds(), [Conflict]);
}

#[test]
fn an_address_that_is_still_held_has_not_moved_because_this_host_kept_silent() {
    let mut lab = Lab::new();
    lab.host(0, true);
    lab.send(S, asking(HOST));
    lab.see(100 * S, announce(A));
    lab.wait(130 * S);
    assert_eq!(lab.kinds(), [Contested]);
    lab.see(131 * S, announce(A));
    assert_eq!(lab.kinds(), [Conflict]);
}

#[test]
fn a_failback_that_is_announced_before_this_host_has_let_go_is_no_conflict() {
    let mut lab = Lab::new();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.host(100 * S, true);
    lab.send(100 * S, announce(HOST));
    lab.see(105 * S, announce(A));
    lab.host(105 * S + 300, false);
    lab.see(110 * S, announce(A));
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn an_address_announced_from_this_host_and_taken_twice_is_local_evidence() {
    let mut lab = Lab::new();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    lab.see(100 * S, announce(A));
    lab.send(102 * S, announce(HOST));
    lab.see(104 * S, announce(A));
    let findings = lab.take();
    let conflict = findings.last().unwrap();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
}

#[test]
fn a_clean_handover_and_a_rolling_restart_look_the_same_from_the_outgoing_node() {
    let mut lab = Lab::new();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    lab.see(100 * S, announce(A));
    lab.send(100 * S + 70, courtesy(HOST));
    lab.see(101 * S + 100 * MS, announce(A));
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), [Moved]);

    lab.send(300 * S, announce(HOST));
    lab.see(300 * S + 70, courtesy(A));
    lab.wait(400 * S);
    assert_eq!(lab.kinds(), [Moved]);

    lab.see(500 * S, announce(A));
    lab.send(500 * S + 70, courtesy(HOST));
    lab.see(501 * S + 100 * MS, announce(A));
    lab.send(501 * S + 800 * MS, announce(HOST));
    lab.see(501 * S + 800 * MS + 70, courtesy(A));
    lab.send(502 * S + 900 * MS, announce(HOST));
    lab.wait(600 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn the_stranger_is_asked_after_the_grace_and_its_answer_is_evidence() {
    let mut lab = Lab::asking();
    lab.host(0, true);
    lab.see(100 * S, announce(A));
    let asks = lab.detector.take_probe_requests();
    assert_eq!(asks.len(), 1);
    let ask = &asks[0];
    assert_eq!(
        (ask.purpose, ask.to.as_slice(), ask.earliest),
        (ProbePurpose::Local, &[A][..], time(101 * S))
    );
    assert!(lab.detector.is_wanted(ask));
    lab.record_replies(101 * S + 500 * MS, ask, &[]);
    assert_eq!(lab.kinds(), []);
    lab.record_replies(102 * S, ask, &[A]);
    let conflict = lab.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
    assert!(!lab.detector.is_wanted(ask));
}

#[test]
fn claims_of_this_hosts_own_macs_are_no_strangers_even_when_they_come_in() {
    let mut lab = Lab::new();
    lab.host(0, true);
    for second in 0..100 {
        lab.see(second * S, announce(HOST));
    }
    assert_eq!(lab.kinds(), []);
}

/// Two rounds of probes about the last takeover, sent to `to`, to which `replying` reply.
fn confirm(lab: &mut Lab, to: &[MacAddr], from: u64, replying: [&[MacAddr]; 2]) {
    let asks = lab.detector.take_probe_requests();
    let rounds: Vec<_> = asks
        .iter()
        .filter(|ask| ask.purpose == ProbePurpose::Confirmation)
        .filter(|ask| lab.detector.is_wanted(ask))
        .collect();
    assert_eq!(rounds.len(), 2, "{asks:#?}");
    for ((round, by), second) in rounds.into_iter().zip(replying).zip([2, 4]) {
        assert_eq!(round.to, to);
        for &mac in by {
            lab.see(from + second * S - MS, answer_to_probe(HOST, mac, from));
        }
        lab.record_replies(from + second * S, round, by);
    }
}

#[test]
fn a_host_that_took_an_address_announced_from_here_is_probed_once_the_speaker_claims_again() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    for burst in [0, MS, 2 * MS] {
        lab.see(100 * S + burst, announce(A));
        lab.send(100 * S + burst + 70, courtesy(HOST));
    }
    assert!(lab.detector.take_probe_requests().is_empty());
    // A client asks, and the speaker on this host still replies.
    lab.send(102 * S, answer(HOST, 102 * S));
    assert_eq!(lab.kinds(), [Contested]);
    confirm(&mut lab, &[A], 102 * S, [&[A], &[A]]);
    let conflict = lab.only();
    assert_eq!(
        (conflict.kind, conflict.evidence),
        (Conflict, Some(Evidence::Local))
    );
    assert_eq!(macs(&conflict).len(), 2);
}

#[test]
fn a_host_that_took_an_address_announced_from_here_long_ago_is_probed_when_the_speaker_replies() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    lab.see(100 * S, announce(A));
    lab.wait(120 * S);
    assert_eq!(lab.kinds(), [Moved]);
    lab.send(200 * S, answer(HOST, 200 * S));
    confirm(&mut lab, &[A], 200 * S, [&[A], &[A]]);
    assert_eq!(lab.only().kind, Conflict);
}

#[test]
fn a_speaker_that_took_the_address_back_for_good_is_no_conflict() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.send(0, announce(HOST));
    lab.see(100 * S, announce(A));
    lab.send(100 * S + 70, courtesy(HOST));
    lab.send(103 * S, announce(HOST));
    lab.see(103 * S + 70, courtesy(A));
    confirm(&mut lab, &[A], 103 * S, [&[], &[]]);
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn an_address_added_here_while_another_host_announces_it_is_probed_there() {
    let mut lab = Lab::asking();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.host(100 * S, true);
    let asks = lab.detector.take_probe_requests();
    let [ask] = asks.as_slice() else {
        panic!("{asks:#?}");
    };
    assert_eq!(
        (ask.purpose, ask.to.as_slice(), ask.earliest),
        (ProbePurpose::Local, &[A][..], time(101 * S))
    );
    lab.record_replies(102 * S, ask, &[A]);
    assert_eq!(lab.only().evidence, Some(Evidence::Local));
}

#[test]
fn an_address_added_and_announced_here_has_moved_only_if_the_announcer_does_not_reply() {
    for (replies, finding) in [(true, Conflict), (false, Moved)] {
        let mut lab = Lab::asking();
        lab.host(0, false);
        lab.see(0, announce(A));
        lab.host(100 * S, true);
        lab.send(100 * S, announce(HOST));
        let by: &[_] = if replies { &[A] } else { &[] };
        confirm(&mut lab, &[A], 100 * S, [by, by]);
        assert_eq!(lab.kinds(), [finding]);
    }
}

#[test]
fn a_host_that_announces_an_address_configured_here_and_does_not_reply_leaves_stale_caches() {
    let mut lab = Lab::asking();
    lab.host(0, true);
    lab.send(0, announce(HOST));
    lab.see(100 * S, announce(A));
    confirm(&mut lab, &[A], 100 * S, [&[], &[]]);
    let stale = lab.only();
    assert_eq!(
        (stale.kind, stale.severity),
        (StaleAnnouncement, Severity::Critical)
    );
    assert_eq!(macs(&stale), [HOST, A]);
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), []);
}
