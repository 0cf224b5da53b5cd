//! One host with several MACs is no conflict.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind::*, Hint};

use super::test_detector::*;
use crate::DetectConfig;

#[test]
fn keepalived_with_use_vmac_is_one_owner() {
    let mut detector = TestDetector::new();
    for minute in 0..60 {
        detector.receive(minute * 60 * S, request_by(A));
        detector.receive(
            minute * 60 * S + 2 * S,
            reply_by(V, minute * 60 * S + 2 * S),
        );
        detector.receive(minute * 60 * S + 4 * S, request_by(A));
    }
    assert_eq!(detector.kinds(), []);
    let owners = detector.inner.binding(&key()).unwrap().owners;
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].macs, [A, V]);
}

#[test]
fn a_failover_behind_a_virtual_mac_is_nothing_at_all() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(V));
    detector.receive(S, request_by(A));
    for at in 0..5 {
        detector.receive(100 * S + at, announce(V));
    }
    detector.receive(101 * S, request_by(B));
    detector.receive(120 * S, announce(V));
    detector.receive(121 * S, request_by(A));
    detector.wait(1000 * S);
    assert_eq!(detector.kinds(), []);
}

#[test]
fn two_physical_macs_that_alternate_behind_a_virtual_one_are_two_masters() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(V));
    for second in 0..30 {
        detector.receive(
            10 * S + second * 4 * S,
            request_by(if second % 2 == 0 { A } else { B }),
        );
    }
    let contested = detector.only();
    assert_eq!(
        (contested.kind, contested.hint),
        (Contested, Some(Hint::TwoMasters))
    );
}

#[test]
fn two_replies_by_one_virtual_mac_are_two_masters() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(V, 0));
    detector.receive(0, reply_by(V, 0));
    let contested = detector.only();
    assert_eq!(
        (contested.kind, contested.hint),
        (Contested, Some(Hint::TwoMasters))
    );
    for second in 1..100 {
        detector.receive(second * S, reply_by(V, second * S));
        detector.receive(second * S + 5, reply_by(V, second * S));
    }
    assert_eq!(detector.kinds(), [], "once per episode");
}

#[test]
fn a_repeat_by_an_ordinary_mac_is_nothing() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(1, reply_by(A, 0));
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_virtual_mac_and_a_physical_one_that_reply_to_one_request_are_contested_with_a_hint() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(V, 0));
    detector.receive(5, reply_by(A, 0));
    let contested = detector.only();
    assert_eq!(
        (contested.kind, contested.hint),
        (Contested, Some(Hint::RouterAndHost))
    );
}

#[test]
fn two_virtual_macs_are_two_owners() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(V, 0));
    detector.receive(5, reply_by(V2, 0));
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.hint),
        (Conflict, Some(Hint::TwoRouterGroups))
    );
}

#[test]
fn declared_macs_glbp_groups_and_nlb_clusters_are_one_owner() {
    let mac = |text: &str| text.parse::<MacAddr>().unwrap();
    for (one, other) in [
        (A, B),
        (mac("00:07:b4:00:01:01"), mac("00:07:b4:00:01:02")),
        (mac("02:bf:c0:00:02:50"), mac("03:bf:c0:00:02:50")),
    ] {
        let mut detector = TestDetector::with(DetectConfig {
            same_owner: vec![vec![A, B]],
            ..DetectConfig::default()
        });
        for second in 0..60 {
            detector.receive(second * S, reply_by(one, second * S));
            detector.receive(second * S + 5, reply_by(other, second * S));
        }
        detector.wait(10_000 * S);
        assert_eq!(detector.kinds(), []);
    }
}

#[test]
fn a_declared_set_with_the_virtual_mac_does_not_include_other_hosts() {
    let mut detector = TestDetector::with(DetectConfig {
        same_owner: vec![vec![V, A, B]],
        ..DetectConfig::default()
    });
    detector.receive(0, reply_by(V, 0));
    detector.receive(2 * S, request_by(A));
    detector.receive(4 * S, request_by(B));
    detector.receive(6 * S, reply_by(V, 6 * S));
    detector.receive(6 * S + 5, reply_by(C, 6 * S));
    assert_eq!(detector.only().evidence, Some(Evidence::DuplicateReply));
}

#[test]
fn a_proxy_that_replies_for_many_addresses_is_no_conflict() {
    let mut detector = TestDetector::new();
    for last in 1..200 {
        let claim = crate::Claim {
            ip: ip(last),
            ..reply_by(A, S)
        };
        detector.receive(S, claim);
    }
    assert_eq!(detector.kinds(), []);
    assert_eq!(detector.inner.statistics().bindings, 199);
}

#[test]
fn an_address_on_two_vlans_is_two_addresses() {
    use probe_common::{counter::Direction, wire::Vlan};
    use probe_model::Segment;

    use crate::ObservationBody;
    let mut detector = TestDetector::new();
    for second in 0..60 {
        for (mac, vid) in [(A, 100), (B, 200)] {
            let segment = Segment {
                vlan: Vlan([vid, 0]),
                ..SEGMENT
            };
            detector.observe(
                second * S,
                Direction::Ingress,
                segment,
                ObservationBody::Claim(reply_by(mac, second * S)),
            );
        }
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_service_address_on_the_loopback_of_two_nodes_and_announced_by_a_third_is_nothing() {
    // The host facts leave such addresses out, and with arp_ignore the nodes claim nothing.
    let mut detector = TestDetector::new();
    detector.host(0, false);
    for second in 0..60 {
        detector.receive(second * S, reply_by(A, second * S));
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn both_interfaces_of_this_host_that_reply_are_arp_flux() {
    let mut detector = TestDetector::new();
    detector.host(0, false);
    detector.send(S, reply_by(HOST, S));
    detector.send(S + 3, reply_by(HOST_TOO, S));
    let conflict = detector.only();
    assert_eq!(
        (conflict.kind, conflict.hint),
        (Conflict, Some(Hint::ArpFlux))
    );
}

fn for_address(last: u8, claim: crate::Claim) -> crate::Claim {
    crate::Claim {
        ip: ip(last),
        ..claim
    }
}

#[test]
fn two_macs_of_another_host_that_reply_for_each_others_addresses_are_arp_flux() {
    let conflicts = |own: bool, announced: bool| {
        let mut detector = TestDetector::new();
        if own {
            detector.receive(0, for_address(1, request_by(A)));
            detector.receive(0, for_address(2, request_by(B)));
        }
        if announced {
            detector.receive(S, for_address(80, announce(A)));
            detector.receive(3 * S, for_address(81, announce(B)));
            detector.receive(4 * S, for_address(81, announce(A)));
        }
        for (round, last) in [(10, 80), (20, 81), (30, 80)] {
            let at = round * S;
            detector.receive(at, for_address(last, reply_by(A, at)));
            detector.receive(at + 5, for_address(last, reply_by(B, at)));
        }
        let conflict_hint = |last| {
            let key = probe_model::BindingKey {
                ip: ip(last),
                ..key()
            };
            detector.inner.binding(&key).unwrap().conflict.unwrap().hint
        };
        let hints = [conflict_hint(80), conflict_hint(81)];
        let findings = detector.take();
        let reported = findings.iter().filter(|finding| finding.kind == Conflict);
        (
            hints,
            reported.map(|finding| finding.hint).collect::<Vec<_>>(),
        )
    };
    let flux = Some(Hint::ArpFlux);
    assert_eq!(conflicts(false, false), ([flux, flux], vec![None, flux]));
    assert_eq!(conflicts(true, false), ([None, None], vec![None, None]));
    // Two hosts that both announce the address are no host with two interfaces.
    let (hints, _) = conflicts(false, true);
    assert_eq!(hints[1], None);
}

/// On the host itself each interface only has its own reply.
#[test]
fn this_host_replying_on_two_interfaces_of_one_network_is_arp_flux() {
    let other = probe_model::Segment {
        interface: SEGMENT.interface + 1,
        ..SEGMENT
    };
    let replies = [(SEGMENT, HOST), (other, HOST_TOO)];
    for (order, client, conflict) in [
        ([0, 1], CLIENT, true),
        ([1, 0], CLIENT, true),
        // On another network another host sends the request.
        ([0, 1], C, false),
    ] {
        let mut detector = TestDetector::new();
        detector.host(0, true);
        for (place, at, requester) in [(order[0], 0, CLIENT), (order[1], 30, client)] {
            let (segment, mac) = replies[place];
            detector.observe(
                S + at,
                probe_common::counter::Direction::Egress,
                segment,
                crate::ObservationBody::Claim(reply_to(requester, mac, S)),
            );
        }
        let mut findings = detector.take();
        findings.retain(|finding| finding.kind == Conflict);
        assert_eq!(!findings.is_empty(), conflict, "{findings:#?}");
        for finding in findings {
            assert_eq!(finding.segment, SEGMENT, "where the address is configured");
            assert_eq!(finding.hint, Some(Hint::ArpFlux));
            assert!(finding.owners.iter().all(|owner| owner.local));
            assert_eq!(finding.owners.len(), 2);
        }
    }
}
