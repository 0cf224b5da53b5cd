//! Taking over and returning.

use probe_model::{Evidence, FindingKind::*, Hint};

use super::lab::*;
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

fn play(lab: &mut Lab, mut frames: Vec<(u64, crate::Claim)>) {
    frames.sort_by_key(|&(at, _)| at);
    for (at, claim) in frames {
        lab.see(at, claim);
    }
}

#[test]
fn the_same_mac_again_reports_nothing() {
    let mut lab = Lab::new();
    play(&mut lab, metallb(0, A, 5));
    play(&mut lab, metallb(20 * S, A, 5));
    lab.wait(3600 * S);
    let findings = lab.take();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].kind, findings[0].at), (NewBinding, time(0)));
    assert_eq!(macs(&findings[0]), [A]);
    assert_eq!(lab.detector.next_deadline(), None);
}

#[test]
fn a_takeover_with_silence_after_it_is_one_move() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(100 * S, announce(B));
    lab.wait(110 * S - 1);
    assert_eq!(lab.kinds(), []);
    lab.wait(110 * S);
    let moved = lab.only();
    assert_eq!(
        (moved.kind, moved.at, moved.since),
        (Moved, time(110 * S), time(100 * S))
    );
    assert_eq!(macs(&moved), [B, A]);
    lab.wait(10_000 * S);
    assert_eq!(lab.kinds(), []);
}

#[test]
fn a_takeover_is_pending_until_it_is_a_move_or_a_conflict() {
    let pending = |lab: &Lab| {
        let views = lab.detector.pending_takeovers();
        let takeovers = views.filter_map(|view| view.takeover);
        takeovers
            .map(|takeover| (takeover.from, takeover.to, takeover.since))
            .collect::<Vec<_>>()
    };
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    assert_eq!(pending(&lab), []);
    lab.see(100 * S, announce(B));
    lab.wait(110 * S - 1);
    assert_eq!(pending(&lab), [(A, B, time(100 * S))]);
    lab.see(110 * S - 1, announce(A));
    assert_eq!(pending(&lab), [(B, A, time(110 * S - 1))]);
    lab.wait(130 * S);
    assert_eq!(pending(&lab), []);

    lab.see(200 * S, answer(A, 200 * S));
    lab.see(200 * S, answer(B, 200 * S));
    assert!(lab.kinds().contains(&Conflict));
    assert_eq!(pending(&lab), []);
}

#[test]
fn a_clean_handover_with_the_outgoing_speakers_answer_is_one_move() {
    for late in [65, 95, 999 * MS] {
        let mut lab = Lab::new();
        play(&mut lab, metallb(0, A, 5));
        let mut frames = metallb(100 * S, B, 5);
        frames.push((100 * S + late, courtesy(A)));
        play(&mut lab, frames);
        lab.wait(200 * S);
        assert_eq!(lab.kinds(), [Moved], "{late} µs");
    }
}

#[test]
fn the_outgoing_speakers_answer_is_no_takeover_even_if_it_was_not_seen_before() {
    let mut lab = Lab::new();
    let mut frames = metallb(0, B, 5);
    frames.push((80, courtesy(A)));
    play(&mut lab, frames);
    lab.wait(100 * S);
    assert_eq!(lab.kinds(), []);
    // It is an earlier owner from then on: its next claim is a return within a contest.
    lab.see(200 * S, announce(C));
    lab.see(205 * S, announce(A));
    assert_eq!(lab.kinds(), [Contested]);
}

#[test]
fn a_rolling_restart_within_two_seconds_is_contested_every_time_and_never_a_conflict() {
    let mut lab = Lab::new();
    play(&mut lab, metallb(0, A, 5));
    for restart in [100 * S, 500 * S, 4000 * S] {
        let mut frames = metallb(restart, B, 2);
        frames.push((restart + 80, courtesy(A)));
        frames.extend(metallb(restart + 1_800 * MS, A, 5));
        frames.push((restart + 1_800 * MS + 80, courtesy(B)));
        play(&mut lab, frames);
        lab.wait(restart + 100 * S);
        assert_eq!(lab.kinds(), [Contested], "{restart}");
    }
}

#[test]
fn failover_and_failback_twenty_seconds_apart_are_two_moves() {
    let mut lab = Lab::new();
    play(&mut lab, metallb(0, A, 5));
    play(&mut lab, metallb(100 * S, B, 5));
    play(&mut lab, metallb(120 * S, A, 5));
    lab.wait(200 * S);
    assert_eq!(lab.kinds(), [Moved, Moved]);
}

#[test]
fn a_split_brain_of_interleaved_bursts_is_a_conflict_whatever_their_phase() {
    for phase in (10..1_100).step_by(10) {
        let mut lab = Lab::new();
        play(&mut lab, metallb(0, A, 5));
        let mut frames = metallb(100 * S, B, 5);
        frames.extend(metallb(100 * S + phase * MS, A, 5));
        play(&mut lab, frames);
        let conflict = lab
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
        let mut lab = Lab::new();
        let burst = |round: u64, mac| {
            if round.is_multiple_of(2) {
                announce(mac)
            } else {
                announce_by_reply(mac)
            }
        };
        for round in 0..100 {
            lab.see(round * 3 * S, burst(round, A));
        }
        assert_eq!(lab.kinds(), []);
        let start = 300 * S + phase * MS;
        let mut frames: Vec<_> = (0..4)
            .map(|round| (start + round * 3 * S, burst(round, B)))
            .collect();
        frames.extend((0..4).map(|round| (300 * S + round * 3 * S, burst(round, A))));
        play(&mut lab, frames);
        let conflicts: Vec<_> = lab
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
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    for at in [0, 0, 0, 0, 0, 5 * S, 5 * S, 5 * S, 5 * S, 5 * S] {
        lab.see(50 * S + at, announce(B));
    }
    lab.wait(100 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn ucarp_failing_over_is_one_move() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(50 * S, announce(B));
    lab.see(52 * S, announce(B));
    lab.wait(100 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn five_returns_in_three_minutes_are_a_conflict_and_four_are_not() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(1000 * S, announce(B));
    for (number, owner) in (1..=4).zip([A, B, A, B]) {
        lab.see(1000 * S + number * 30 * S, announce(owner));
    }
    assert_eq!(lab.kinds(), [Moved, Moved, Moved, Moved]);
    lab.see(1150 * S, announce(A));
    let findings = lab.take();
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Moved, Conflict]);
    assert_eq!(findings[1].evidence, Some(Evidence::Alternation));
    assert_eq!(macs(&findings[1]), [A, B]);
}

#[test]
fn slow_flapping_below_the_bound_is_contested_once_per_episode() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    for start in [1000 * S, 1300 * S] {
        lab.see(start, announce(B));
        lab.see(start + 9 * S, announce(A));
        lab.wait(start + 200 * S);
        assert_eq!(lab.kinds(), [Contested]);
    }
    assert_eq!(
        lab.detector.statistics().suppressed[Contested.number() as usize],
        0
    );
}

#[test]
fn a_dhcp_lease_that_passes_to_another_host_is_one_move_even_back_again() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(86_400 * S, asking(B));
    lab.wait(100_000 * S);
    lab.see(200_000 * S, asking(A));
    lab.wait(300_000 * S);
    assert_eq!(lab.kinds(), [Moved, Moved]);
}

#[test]
fn a_move_through_a_third_owner_is_one_move_to_the_last() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.see(100 * S, announce(B));
    lab.see(105 * S, announce(C));
    lab.wait(200 * S);
    let moved = lab.only();
    assert_eq!((moved.kind, macs(&moved)), (Moved, vec![C, A]));
}

#[test]
fn every_number_of_alternation_is_an_option() {
    let mut lab = Lab::with(DetectConfig {
        alternation_returns: 1,
        ..DetectConfig::default()
    });
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    lab.see(102 * S, announce(A));
    assert_eq!(lab.kinds(), [Conflict]);
}

#[test]
fn requests_of_one_mac_and_replies_of_another_are_a_balancing_bond() {
    let mut lab = Lab::new();
    for second in 0..60 {
        lab.see(second * 3 * S, asking(A));
        lab.see(
            second * 3 * S + 1_500 * MS,
            answer(B, second * 3 * S + 1_500 * MS),
        );
    }
    let contested = lab.only();
    assert_eq!(
        (contested.kind, contested.hint),
        (Contested, Some(Hint::BalanceAlb))
    );
    // One request by the other MAC, and it is no longer that.
    lab.see(200 * S, asking(B));
    lab.see(202 * S, asking(A));
    lab.see(204 * S, asking(B));
    lab.see(206 * S, asking(A));
    assert!(lab.kinds().contains(&Conflict));
}
