//! Findings that are not about who owns an address.

use probe_common::wire::{BogusFrameReason, MacAddr};
use probe_model::{BogusReason, FindingKind::*, OwnerRole};

use super::test_detector::*;
use crate::{Claim, DetectConfig, HostFacts};

#[test]
fn an_unknown_host_that_probes_a_used_address_is_denied_once_an_hour() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    for minute in 0..70 {
        let at = (100 + minute * 60) * S;
        detector.probe(at, CLIENT, false);
        detector.receive(at + 100, reply_to_probe(CLIENT, A, at));
    }
    let denied = detector.take();
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
        detector.inner.statistics().suppressed[ProbeDenied.number() as usize],
        68
    );
}

#[test]
fn a_late_reply_denies_nothing() {
    let mut detector = TestDetector::new();
    detector.probe(0, CLIENT, false);
    detector.receive(S + 1, reply_to_probe(CLIENT, A, 0));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_switch_that_probes_by_unicast_is_no_booting_host() {
    let mut detector = TestDetector::new();
    for round in 0..100 {
        detector.probe(round * 30 * S, CLIENT, true);
        detector.receive(
            round * 30 * S + 50,
            reply_to_probe(CLIENT, A, round * 30 * S),
        );
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn probes_of_this_host_and_of_hosts_with_an_address_are_no_booting_hosts() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.receive(
        0,
        Claim {
            ip: ip(7),
            ..request_by(B)
        },
    );
    for prober in [HOST, B] {
        detector.probe(10 * S, prober, false);
        detector.receive(10 * S + 50, reply_to_probe(prober, A, 10 * S));
        assert_eq!(detector.inner.quiet_until(&key(), time(11 * S)), None);
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_host_without_an_address_that_looks_for_its_gateway_is_no_booting_host() {
    for gateway in [true, false] {
        let mut detector = TestDetector::new();
        let owner = if gateway { A } else { V };
        let facts = HostFacts {
            gateways: gateway.then(key).into_iter().collect(),
            ..HostFacts::default()
        };
        detector.learn(0, facts);
        detector.receive(0, announce(owner));
        detector.probe(10 * S, CLIENT, false);
        assert_eq!(detector.inner.quiet_until(&key(), time(10 * S)), None);
        detector.receive(10 * S + 50, reply_to_probe(CLIENT, owner, 10 * S));
        assert_eq!(detector.kinds(), []);
    }
}

#[test]
fn a_booting_host_is_left_alone_for_ten_seconds() {
    let mut detector = TestDetector::new();
    detector.probe(0, CLIENT, false);
    assert_eq!(
        detector.inner.quiet_until(&key(), time(10 * S - 1)),
        Some(time(10 * S))
    );
    assert_eq!(detector.inner.quiet_until(&key(), time(10 * S)), None);
}

/// The ARP monitor of a bond, or a stuck client.
#[test]
fn a_host_that_goes_on_probing_is_no_booting_host() {
    let mut detector = TestDetector::new();
    for second in 0..=14 {
        let at = second * S;
        detector.probe(at, CLIENT, false);
        assert!(detector.inner.quiet_until(&key(), time(at)).is_some());
    }
    for second in 15..60 {
        detector.probe(second * S, CLIENT, false);
        assert_eq!(detector.inner.quiet_until(&key(), time(second * S)), None);
    }
    let later = 59 * S + 60 * S;
    detector.probe(later, B, false);
    assert!(detector.inner.quiet_until(&key(), time(later)).is_some());
}

#[test]
fn an_arp_probe_claims_nothing() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    for second in 1..100 {
        detector.probe(second * S, B, false);
    }
    assert_eq!(detector.kinds(), []);
    assert_eq!(detector.inner.binding(&key()).unwrap().owners.len(), 1);
}

#[test]
fn bogus_frames_are_reported_once_in_ten_minutes_for_each_sender_and_reason() {
    let mut detector = TestDetector::new();
    for second in 0..=600 {
        detector.bogus(second * S, A, BogusFrameReason::ShaZero);
    }
    detector.bogus(601 * S, A, BogusFrameReason::SpaLoopback);
    detector.bogus(601 * S, B, BogusFrameReason::ShaZero);
    let findings = detector.take();
    let reported: Vec<_> = findings
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
        reported,
        [
            (time(0), A, reason(BogusFrameReason::ShaZero), 0),
            (time(600 * S), A, reason(BogusFrameReason::ShaZero), 599),
            (time(601 * S), A, reason(BogusFrameReason::SpaLoopback), 0),
            (time(601 * S), B, reason(BogusFrameReason::ShaZero), 0),
        ]
    );
    assert_eq!(
        detector.inner.statistics().bindings,
        0,
        "bogus frames claim nothing"
    );
}

#[test]
fn the_networks_own_broadcast_address_is_bogus() {
    let mut detector = TestDetector::new();
    detector.receive(0, request_by(A));
    detector.learn(
        S,
        HostFacts {
            broadcasts: [key()].into(),
            ..HostFacts::default()
        },
    );
    assert!(
        detector.inner.binding(&key()).is_none(),
        "nor does it stay a binding"
    );
    detector.receive(2 * S, request_by(A));
    let bogus = detector.only();
    assert_eq!(bogus.bogus, Some(BogusReason::SpaNetworkBroadcast));
    assert_eq!(detector.inner.statistics().bindings, 0);
}

#[test]
fn another_ethernet_source_is_reported_once_for_each_mac() {
    let mut detector = TestDetector::new();
    for second in 0..10 {
        detector.receive(
            second * S,
            Claim {
                eth_src: C,
                ..request_by(A)
            },
        );
    }
    let mismatch = detector.only();
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
        let mut detector = TestDetector::new();
        detector.receive(
            0,
            Claim {
                eth_src: C,
                ..request_by(mac)
            },
        );
        assert_eq!(detector.kinds(), []);
    }
}

#[test]
fn a_tracked_address_without_claims_is_silent_once_until_it_is_claimed_again() {
    let mut detector = TestDetector::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        tracked: vec!["192.0.2.80/32".parse().unwrap()],
        ..DetectConfig::default()
    });
    detector.receive(0, request_by(A));
    detector.receive(
        S,
        Claim {
            ip: ip(81),
            ..request_by(A)
        },
    );
    detector.receive(500 * S, request_by(A));
    detector.wait(10_000 * S);
    let silent = detector.only();
    assert_eq!(
        (silent.kind, silent.at, silent.since),
        (Silent, time(1400 * S), time(500 * S))
    );
    detector.receive(20_000 * S, request_by(A));
    detector.wait(30_000 * S);
    assert_eq!(detector.kinds(), [Silent]);
}

#[test]
fn a_gateway_that_was_never_observed_is_silent_too() {
    let mut detector = TestDetector::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    });
    detector.learn(
        0,
        HostFacts {
            gateways: [key()].into(),
            ..HostFacts::default()
        },
    );
    detector.wait(899 * S);
    assert_eq!(detector.kinds(), []);
    detector.wait(900 * S);
    let silent = detector.only();
    assert_eq!((silent.kind, silent.owners.len()), (Silent, 0));
}

#[test]
fn an_address_of_this_host_is_never_silent() {
    let mut detector = TestDetector::with(DetectConfig {
        silent_after: Some(std::time::Duration::from_mins(15)),
        ..DetectConfig::default()
    });
    detector.host(0, true);
    detector.send(0, request_by(HOST));
    detector.wait(10_000 * S);
    assert_eq!(detector.kinds(), []);
}
