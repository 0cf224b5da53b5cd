//! Taking over and returning.

use probe_model::{Evidence, FindingKind::*, Hint};

use super::test_detector::*;
use crate::DetectConfig;

/// Five rounds of a gratuitous request and reply, 1.1 s apart, as MetalLB's speaker sends them.
fn metallb(start: u64, mac: probe_common::wire::MacAddr, rounds: u64) -> Vec<(u64, crate::Claim)> {
    (0..rounds)
        .flat_map(|round| {
            let at = start + round * 1_100 * MS;
            [(at, announce(mac)), (at + 30, announce_by_reply(mac))]
        })
        .collect()
}

fn receive_all(detector: &mut TestDetector, mut frames: Vec<(u64, crate::Claim)>) {
    frames.sort_by_key(|&(at, _)| at);
    for (at, claim) in frames {
        detector.receive(at, claim);
    }
}

#[test]
fn the_same_mac_again_reports_nothing() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    receive_all(&mut detector, metallb(20 * S, A, 5));
    detector.wait(3600 * S);
    let findings = detector.take();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].kind, findings[0].at), (NewBinding, time(0)));
    assert_eq!(macs(&findings[0]), [A]);
    assert_eq!(detector.inner.next_deadline(), None);
}

#[test]
fn a_takeover_with_silence_after_it_is_one_move() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(100 * S, announce(B));
    detector.wait(110 * S - 1);
    assert_eq!(detector.kinds(), []);
    detector.wait(110 * S);
    let moved = detector.only();
    assert_eq!(
        (moved.kind, moved.at, moved.since),
        (Moved, time(110 * S), time(100 * S))
    );
    assert_eq!(macs(&moved), [B, A]);
    detector.wait(10_000 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_takeover_is_pending_until_it_is_a_move_or_a_conflict() {
    let pending = |detector: &TestDetector| {
        let views = detector.inner.pending_takeovers();
        let takeovers = views.filter_map(|view| view.takeover);
        takeovers
            .map(|takeover| (takeover.from, takeover.to, takeover.since))
            .collect::<Vec<_>>()
    };
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    assert_eq!(pending(&detector), []);
    detector.receive(100 * S, announce(B));
    detector.wait(110 * S - 1);
    assert_eq!(pending(&detector), [(A, B, time(100 * S))]);
    detector.receive(110 * S - 1, announce(A));
    assert_eq!(pending(&detector), [(B, A, time(110 * S - 1))]);
    detector.wait(130 * S);
    assert_eq!(pending(&detector), []);

    detector.receive(200 * S, reply_by(A, 200 * S));
    detector.receive(200 * S, reply_by(B, 200 * S));
    assert!(detector.kinds().contains(&Conflict));
    assert_eq!(pending(&detector), []);
}

#[test]
fn a_clean_handover_with_the_outgoing_speakers_reply_is_one_move() {
    for late in [65, 95, 999 * MS] {
        let mut detector = TestDetector::new();
        receive_all(&mut detector, metallb(0, A, 5));
        let mut frames = metallb(100 * S, B, 5);
        frames.push((100 * S + late, unicast_announcement(A)));
        receive_all(&mut detector, frames);
        detector.wait(200 * S);
        assert_eq!(detector.kinds(), [Moved], "{late} µs");
    }
}

#[test]
fn the_reply_of_an_outgoing_speaker_is_no_takeover_even_if_it_was_not_observed_before() {
    let mut detector = TestDetector::new();
    let mut frames = metallb(0, B, 5);
    frames.push((80, unicast_announcement(A)));
    receive_all(&mut detector, frames);
    detector.wait(100 * S);
    assert_eq!(detector.kinds(), []);
    // It is an earlier owner from then on: its next claim is a return within a contest.
    detector.receive(200 * S, announce(C));
    detector.receive(205 * S, request_by(A));
    assert_eq!(detector.kinds(), [Contested]);
}

#[test]
fn a_rolling_restart_within_two_seconds_is_nothing() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    for restart in [100 * S, 500 * S, 4000 * S] {
        let mut frames = metallb(restart, B, 2);
        frames.push((restart + 80, unicast_announcement(A)));
        frames.extend(metallb(restart + 1_800 * MS, A, 5));
        frames.push((restart + 1_800 * MS + 80, unicast_announcement(B)));
        receive_all(&mut detector, frames);
        detector.wait(restart + 100 * S);
        assert_eq!(detector.kinds(), [], "{restart}");
    }
}

#[test]
fn failovers_and_failbacks_within_seconds_are_no_conflict_however_often() {
    for away in [1_500 * MS, 3 * S, 9 * S] {
        let mut detector = TestDetector::new();
        receive_all(&mut detector, metallb(0, A, 5));
        for restart in [100 * S, 160 * S, 220 * S] {
            let mut frames = metallb(restart, B, away.div_ceil(1_100 * MS).min(5));
            frames.push((restart + 80, unicast_announcement(A)));
            frames.extend(metallb(restart + away, A, 5));
            frames.push((restart + away + 90 * MS, unicast_announcement(B)));
            receive_all(&mut detector, frames);
        }
        detector.wait(400 * S);
        assert_eq!(detector.kinds(), [], "away for {away} µs");
    }
}

#[test]
fn settled_failovers_during_two_rollouts_are_moves() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    for rollout in [100 * S, 190 * S] {
        receive_all(&mut detector, metallb(rollout, B, 5));
        receive_all(&mut detector, metallb(rollout + 20 * S, A, 5));
    }
    detector.wait(400 * S);
    assert_eq!(detector.kinds(), [Moved; 4]);
}

/// The frames of a speaker that starts: one round for an address that another speaker has, and that one's reply.
fn start_up(at: u64, mac: probe_common::wire::MacAddr) -> Vec<(u64, crate::Claim)> {
    vec![
        (at, announce(mac)),
        (at + 80, unicast_announcement(A)),
        (at + 30 * MS, announce_by_reply(mac)),
    ]
}

#[test]
fn a_start_up_announcement_is_undone_when_the_owner_goes_on() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    // Three speakers start one after the other, before anything settles; the owner announces again each time.
    for (start, speaker) in [(100, B), (103, C), (106, CLIENT)] {
        let start = start * S;
        receive_all(&mut detector, start_up(start, speaker));
        receive_all(&mut detector, metallb(start + 1_050 * MS, A, 2));
    }
    let binding = detector.inner.binding(&key()).unwrap();
    assert_eq!(binding.owners[0].macs, [A]);
    detector.wait(400 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_start_up_announcement_within_a_failover_does_not_disturb_it() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    receive_all(&mut detector, metallb(100 * S, B, 2));
    receive_all(
        &mut detector,
        vec![
            (103 * S, announce(C)),
            (103 * S + 80, unicast_announcement(B)),
            (103 * S + 30 * MS, announce_by_reply(C)),
        ],
    );
    receive_all(&mut detector, metallb(104 * S + 100 * MS, B, 2));
    // The speaker that had the address is back, and takes it again.
    receive_all(&mut detector, metallb(108 * S, A, 5));
    detector.wait(400 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn two_speakers_that_alternate_single_rounds_are_a_conflict() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 1));
    for round in 0..8 {
        receive_all(&mut detector, metallb((100 + round * 4) * S, B, 1));
        receive_all(&mut detector, metallb((102 + round * 4) * S, A, 1));
    }
    assert!(detector.kinds().contains(&Conflict));
}

#[test]
fn failover_and_failback_twenty_seconds_apart_are_two_moves() {
    let mut detector = TestDetector::new();
    receive_all(&mut detector, metallb(0, A, 5));
    receive_all(&mut detector, metallb(100 * S, B, 5));
    receive_all(&mut detector, metallb(120 * S, A, 5));
    detector.wait(200 * S);
    assert_eq!(detector.kinds(), [Moved, Moved]);
}

#[test]
fn a_split_brain_of_interleaved_bursts_is_a_conflict_whatever_their_phase() {
    for phase in (10..1_100).step_by(10) {
        let mut detector = TestDetector::new();
        receive_all(&mut detector, metallb(0, A, 5));
        let mut frames = metallb(100 * S, B, 5);
        frames.extend(metallb(100 * S + phase * MS, A, 5));
        receive_all(&mut detector, frames);
        let conflict = detector
            .take()
            .into_iter()
            .find(|finding| finding.kind == Conflict)
            .unwrap_or_else(|| panic!("phase {phase} ms"));
        assert_eq!(conflict.evidence, Some(Evidence::Alternation));
        let mut owners = macs(&conflict);
        owners.sort_unstable();
        assert_eq!(owners, [A, B]);
    }
}

#[test]
fn two_kube_vips_conflict_within_ten_seconds_and_one_is_nothing() {
    for phase in [1, 500, 999, 1_000, 1_500, 2_000, 2_999] {
        let mut detector = TestDetector::new();
        let burst = |round: u64, mac| {
            if round.is_multiple_of(2) {
                announce(mac)
            } else {
                announce_by_reply(mac)
            }
        };
        for round in 0..100 {
            detector.receive(round * 3 * S, burst(round, A));
        }
        assert_eq!(detector.kinds(), []);
        let start = 300 * S + phase * MS;
        let mut frames: Vec<_> = (0..4)
            .map(|round| (start + round * 3 * S, burst(round, B)))
            .collect();
        frames.extend((0..4).map(|round| (300 * S + round * 3 * S, burst(round, A))));
        receive_all(&mut detector, frames);
        let conflicts: Vec<_> = detector
            .take()
            .into_iter()
            .filter(|finding| finding.kind == Conflict)
            .collect();
        assert_eq!(conflicts.len(), 1, "phase {phase} ms");
        assert!(conflicts[0].at < time(start + 10 * S), "phase {phase} ms");
    }
}

#[test]
fn keepalived_failing_over_is_one_move() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    for at in [0, 0, 0, 0, 0, 5 * S, 5 * S, 5 * S, 5 * S, 5 * S] {
        detector.receive(50 * S + at, announce(B));
    }
    detector.wait(100 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn ucarp_failing_over_is_one_move() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(50 * S, announce(B));
    detector.receive(52 * S, announce(B));
    detector.wait(100 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn five_returns_in_three_minutes_are_a_conflict_and_four_are_not() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(1000 * S, announce(B));
    for (number, owner) in (1..=4).zip([A, B, A, B]) {
        detector.receive(1000 * S + number * 30 * S, announce(owner));
    }
    assert_eq!(detector.kinds(), [Moved, Moved, Moved, Moved]);
    detector.receive(1150 * S, announce(A));
    assert_eq!(detector.kinds(), [Moved], "the fifth may be the last");
    detector.receive(1179 * S, announce(B));
    let findings = detector.take();
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Moved, Conflict]);
    assert_eq!(findings[1].evidence, Some(Evidence::Alternation));
    assert_eq!(macs(&findings[1]), [B, A]);
}

#[test]
fn slow_flapping_below_the_bound_is_contested_once_per_episode() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    for start in [1000 * S, 1300 * S] {
        detector.receive(start, announce(B));
        detector.receive(start + 9 * S, request_by(A));
        detector.wait(start + 200 * S);
        assert_eq!(detector.kinds(), [Contested]);
    }
    assert_eq!(
        detector.inner.statistics().suppressed[Contested.number() as usize],
        0
    );
}

#[test]
fn a_dhcp_lease_that_passes_to_another_host_is_one_move_even_back_again() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(86_400 * S, request_by(B));
    detector.wait(100_000 * S);
    detector.receive(200_000 * S, request_by(A));
    detector.wait(300_000 * S);
    assert_eq!(detector.kinds(), [Moved, Moved]);
}

#[test]
fn a_move_through_a_third_owner_is_one_move_to_the_last() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.receive(100 * S, announce(B));
    detector.receive(105 * S, announce(C));
    detector.wait(200 * S);
    let moved = detector.only();
    assert_eq!((moved.kind, macs(&moved)), (Moved, vec![C, A]));
}

#[test]
fn every_number_of_alternation_is_an_option() {
    let mut detector = TestDetector::with(DetectConfig {
        alternation_returns: 1,
        ..DetectConfig::default()
    });
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    detector.receive(102 * S, announce(A));
    assert_eq!(detector.kinds(), []);
    detector.receive(104 * S, announce(B));
    assert_eq!(detector.kinds(), [Conflict]);
}

/// A unicast reply of `mac` to the client without a request.
fn unsolicited_reply(mac: probe_common::wire::MacAddr) -> crate::Claim {
    let mut claim = reply_by(mac, 0);
    claim.reply = None;
    claim
}

/// What a client sees of a bond in mode balance-alb: requests with one MAC, and replies to itself with another: to its
/// requests, and two seconds after each request of the bond without one.
fn bond(detector: &mut TestDetector, from: u64, rounds: u64) {
    for round in 0..rounds {
        let at = from + round * 10 * S;
        detector.receive(at, request_by(A));
        for update in [2_000 * MS, 2_000 * MS + 10] {
            detector.receive(at + update, unsolicited_reply(B));
        }
        detector.receive(at + 4 * S, request_by(A));
        detector.receive(at + 5_500 * MS, reply_by(B, at + 5_500 * MS));
    }
}

#[test]
fn requests_of_one_mac_and_replies_of_another_are_a_balancing_bond() {
    for mut detector in [TestDetector::new(), TestDetector::with_probing()] {
        bond(&mut detector, 0, 18);
        let contested = detector.only();
        assert_eq!(
            (contested.kind, contested.hint),
            (Contested, Some(Hint::BalanceAlb))
        );
        // One request by the other MAC, and it is no longer that.
        detector.receive(200 * S, request_by(B));
        detector.receive(202 * S, request_by(A));
        detector.receive(204 * S, request_by(B));
        detector.receive(206 * S, request_by(A));
        assert!(detector.kinds().contains(&Conflict));
    }
}

#[test]
fn a_mac_that_once_claimed_in_the_other_form_is_no_port_of_a_bond() {
    let mut detector = TestDetector::with_probing();
    // The router replies; the move away and back is settled long before the bond-like frames.
    detector.receive(0, reply_by(A, 0));
    detector.receive(100 * S, request_by(B));
    detector.wait(200 * S);
    detector.receive(300 * S, request_by(A));
    detector.wait(400 * S);
    detector.take();
    for round in 0..4 {
        detector.receive((500 + round * 4) * S, unsolicited_reply(B));
        detector.receive((502 + round * 4) * S, request_by(A));
    }
    assert!(detector.kinds().contains(&Conflict));
}

#[test]
fn announcements_by_broadcast_are_no_bonds() {
    // kube-vip with two addresses announces each of them always in the same form.
    for forms in [
        [announce(A), announce_by_reply(B)],
        [request_by(A), announce_by_reply(B)],
        [announce(A), unsolicited_reply(B)],
    ] {
        let mut detector = TestDetector::with_probing();
        for round in 0..4 {
            detector.receive(round * 4 * S, forms[0]);
            detector.receive((round * 4 + 2) * S, forms[1]);
        }
        assert!(detector.kinds().contains(&Conflict), "{forms:?}");
    }
}

#[test]
fn macs_that_each_have_an_address_of_their_own_are_no_bond() {
    for (own, expected) in [([81, 82], Conflict), ([81, 81], Contested)] {
        let mut detector = TestDetector::with_probing();
        for (mac, last) in [(A, own[0]), (B, own[1])] {
            detector.receive(
                0,
                crate::Claim {
                    ip: ip(last),
                    ..request_by(mac)
                },
            );
        }
        detector.take();
        bond(&mut detector, 100 * S, 2);
        let kinds = detector.kinds();
        assert_eq!(kinds.contains(&Conflict), expected == Conflict, "{kinds:?}");
    }
}

#[test]
fn a_mac_of_this_host_and_one_of_another_are_no_bond() {
    let mut detector = TestDetector::with_probing();
    detector.host(0, false);
    for round in 0..4 {
        detector.send((100 + round * 4) * S, reply_by(HOST, (100 + round * 4) * S));
        detector.receive((102 + round * 4) * S, request_by(B));
    }
    assert!(detector.kinds().contains(&Conflict));
}

#[test]
fn without_probing_a_bond_is_assumed_only_after_unsolicited_replies() {
    let mut detector = TestDetector::new();
    for round in 0..4 {
        detector.receive(round * 4 * S, request_by(A));
        detector.receive((round * 4 + 2) * S, reply_by(B, (round * 4 + 2) * S));
    }
    assert!(detector.kinds().contains(&Conflict));
}
