//! Findings that are not about who owns an address.

use probe_common::wire::{BogusFrameReason, MacAddr};
use probe_model::{BogusReason, FindingKind::*, OwnerRole};

use super::lab::*;
use crate::{Claim, DetectConfig, HostFacts};

#[test]
fn a_newcomer_that_tries_a_used_address_is_denied_once_an_hour() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    for minute in 0..70 {
        let at = (100 + minute * 60) * S;
        lab.probe(at, CLIENT, false);
        lab.see(at + 100, answer_to_probe(CLIENT, A, at));
    }
    let denied = lab.take();
    let times: Vec<_> = denied
        .iter()
        .filter(|finding| finding.kind == ProbeDenied)
        .map(|finding| finding.at)
        .collect();
    assert_eq!(times, [time(100 * S + 100), time(3_700 * S + 100)]);
    let owners = &denied.last().unwrap().owners;
    assert_eq!(
        (owners[0].macs[0], owners[1].macs[0], owners[1].role),
        (A, CLIENT, OwnerRole::Prober)
    );
    assert_eq!(
        lab.detector.statistics().suppressed[ProbeDenied.number() as usize],
        68
    );
}

#[test]
fn a_late_answer_denies_nothing() {
    let mut lab = Lab::new();
    lab.probe(0, CLIENT, false);
    lab.see(S + 1, answer_to_probe(CLIENT, A, 0));
    assert_eq!(lab.kinds(), []);
}

#[test]
fn a_switch_that_probes_by_unicast_is_no_newcomer() {
    let mut lab = Lab::new();
    for round in 0..100 {
        lab.probe(round * 30 * S, CLIENT, true);
        lab.see(
            round * 30 * S + 50,
            answer_to_probe(CLIENT, A, round * 30 * S),
        );
    }
    assert_eq!(lab.kinds(), []);
}

#[test]
fn our_own_probes_and_those_of_stations_that_hold_an_address_are_no_newcomers() {
    let mut lab = Lab::new();
    lab.host(0, false);
    lab.see(
        0,
        Claim {
            ip: ip(7),
            ..asking(B)
        },
    );
    for prober in [HOST, B] {
        lab.probe(10 * S, prober, false);
        lab.see(10 * S + 50, answer_to_probe(prober, A, 10 * S));
        assert_eq!(lab.detector.quiet_until(&key(), time(11 * S)), None);
    }
    assert_eq!(lab.kinds(), []);
}

#[test]
fn a_host_without_an_address_that_looks_for_its_gateway_is_no_booting_host() {
    for gateway in [true, false] {
        let mut lab = Lab::new();
        let owner = if gateway { A } else { V };
        let facts = HostFacts {
            gateways: gateway.then(key).into_iter().collect(),
            ..HostFacts::default()
        };
        lab.learn(0, facts);
        lab.see(0, announce(owner));
        lab.probe(10 * S, CLIENT, false);
        assert_eq!(lab.detector.quiet_until(&key(), time(10 * S)), None);
        lab.see(10 * S + 50, answer_to_probe(CLIENT, owner, 10 * S));
        assert_eq!(lab.kinds(), []);
    }
}

#[test]
fn a_booting_host_is_left_alone_for_ten_seconds() {
    let mut lab = Lab::new();
    lab.probe(0, CLIENT, false);
    assert_eq!(
        lab.detector.quiet_until(&key(), time(10 * S - 1)),
        Some(time(10 * S))
    );
    assert_eq!(lab.detector.quiet_until(&key(), time(10 * S)), None);
}

/// The ARP monitor of a bond, or a stuck client.
#[test]
fn a_host_that_goes_on_probing_is_no_booting_host() {
    let mut lab = Lab::new();
    for second in 0..=14 {
        let at = second * S;
        lab.probe(at, CLIENT, false);
        assert!(lab.detector.quiet_until(&key(), time(at)).is_some());
    }
    for second in 15..60 {
        lab.probe(second * S, CLIENT, false);
        assert_eq!(lab.detector.quiet_until(&key(), time(second * S)), None);
    }
    let later = 59 * S + 60 * S;
    lab.probe(later, B, false);
    assert!(lab.detector.quiet_until(&key(), time(later)).is_some());
}

#[test]
fn an_arp_probe_claims_nothing() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    for second in 1..100 {
        lab.probe(second * S, B, false);
    }
    assert_eq!(lab.kinds(), []);
    assert_eq!(lab.detector.binding(&key()).unwrap().owners.len(), 1);
}

#[test]
fn bogus_frames_are_reported_once_in_ten_minutes_for_each_sender_and_sort() {
    let mut lab = Lab::new();
    for second in 0..=600 {
        lab.bogus(second * S, A, BogusFrameReason::ShaZero);
    }
    lab.bogus(601 * S, A, BogusFrameReason::SpaLoopback);
    lab.bogus(601 * S, B, BogusFrameReason::ShaZero);
    let findings = lab.take();
    let told: Vec<_> = findings
        .iter()
        .map(|finding| {
            (
                finding.at,
                finding.owners[0].macs[0],
                finding.bogus,
                finding.counts.suppressed,
            )
        })
        .collect();
    let reason = |reason| Some(BogusReason::Frame(reason));
    assert_eq!(
        told,
        [
            (time(0), A, reason(BogusFrameReason::ShaZero), 0),
            (time(600 * S), A, reason(BogusFrameReason::ShaZero), 599),
            (time(601 * S), A, reason(BogusFrameReason::SpaLoopback), 0),
            (time(601 * S), B, reason(BogusFrameReason::ShaZero), 0),
        ]
    );
    assert_eq!(
        lab.detector.statistics().bindings,
        0,
        "bogus frames claim nothing"
    );
}

#[test]
fn the_networks_own_broadcast_address_is_bogus() {
    let mut lab = Lab::new();
    lab.see(0, asking(A));
    lab.learn(
        S,
        HostFacts {
            broadcasts: [key()].into(),
            ..HostFacts::default()
        },
    );
    assert!(
        lab.detector.binding(&key()).is_none(),
        "nor does it stay a binding"
    );
    lab.see(2 * S, asking(A));
    let bogus = lab.only();
    assert_eq!(bogus.bogus, Some(BogusReason::SpaNetworkBroadcast));
    assert_eq!(lab.detector.statistics().bindings, 0);
}

#[test]
fn another_ethernet_source_is_told_once_for_each_mac() {
    let mut lab = Lab::new();
    for second in 0..10 {
        lab.see(
            second * S,
            Claim {
                eth_src: C,
                ..asking(A)
            },
        );
    }
    let mismatch = lab.only();
    assert_eq!(mismatch.kind, SourceMismatch);
    assert_eq!(macs(&mismatch), [A, C]);
    assert_eq!(mismatch.owners[1].role, OwnerRole::Sender);
}

#[test]
fn another_ethernet_source_is_expected_of_virtual_macs() {
    for mac in [
        V,
        MacAddr([3, 0xbf, 192, 0, 2, 80]),
        MacAddr([0, 7, 0xb4, 0, 1, 1]),
    ] {
        let mut lab = Lab::new();
        lab.see(
            0,
            Claim {
                eth_src: C,
                ..asking(mac)
            },
        );
        assert_eq!(lab.kinds(), []);
    }
}

#[test]
fn a_tracked_address_that_nobody_claims_is_silent_once_until_it_is_claimed_again() {
    let mut lab = Lab::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        tracked: vec!["192.0.2.80/32".parse().unwrap()],
        ..DetectConfig::default()
    });
    lab.see(0, asking(A));
    lab.see(
        S,
        Claim {
            ip: ip(81),
            ..asking(A)
        },
    );
    lab.see(500 * S, asking(A));
    lab.wait(10_000 * S);
    let silent = lab.only();
    assert_eq!(
        (silent.kind, silent.at, silent.since),
        (Silent, time(1400 * S), time(500 * S))
    );
    lab.see(20_000 * S, asking(A));
    lab.wait(30_000 * S);
    assert_eq!(lab.kinds(), [Silent]);
}

#[test]
fn a_gateway_that_was_never_heard_is_silent_too() {
    let mut lab = Lab::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    });
    lab.learn(
        0,
        HostFacts {
            gateways: [key()].into(),
            ..HostFacts::default()
        },
    );
    lab.wait(899 * S);
    assert_eq!(lab.kinds(), []);
    lab.wait(900 * S);
    let silent = lab.only();
    assert_eq!((silent.kind, silent.owners.len()), (Silent, 0));
}

#[test]
fn what_this_host_holds_is_never_silent() {
    let mut lab = Lab::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    });
    lab.host(0, true);
    lab.send(0, asking(HOST));
    lab.wait(10_000 * S);
    assert_eq!(lab.kinds(), []);
}
