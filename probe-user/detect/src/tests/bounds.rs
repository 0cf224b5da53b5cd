//! Memory is bounded; tracked addresses and open conflicts are not evicted.

use probe_common::{counter::Direction, wire::MacAddr};
use probe_model::{BindingKey, Evidence, FindingKind::*};

use super::test_detector::*;
use crate::{AddressGroup, Claim, DetectConfig, ObservationBody, TableCursor};

fn small(max_bindings: usize) -> DetectConfig {
    DetectConfig {
        max_bindings,
        ..DetectConfig::default()
    }
}

fn at_address(last: u8, claim: Claim) -> Claim {
    Claim {
        ip: ip(last),
        ..claim
    }
}

fn place(last: u8) -> BindingKey {
    BindingKey {
        ip: ip(last),
        ..key()
    }
}

#[test]
fn the_binding_seen_least_recently_makes_room() {
    let mut detector = TestDetector::with(small(3));
    for (second, last) in [1, 2, 3, 1, 4].into_iter().enumerate() {
        detector.receive(second as u64 * S, at_address(last, request_by(A)));
    }
    assert_eq!(detector.inner.statistics().evicted_bindings, 1);
    let known: Vec<_> = (1..5)
        .filter(|&last| detector.inner.binding(&place(last)).is_some())
        .collect();
    assert_eq!(known, [1, 3, 4]);
}

#[test]
fn an_open_conflict_and_a_tracked_address_never_make_room() {
    let mut detector = TestDetector::with(DetectConfig {
        tracked: vec!["192.0.2.1/32".parse().unwrap()],
        ..small(3)
    });
    detector.receive(0, at_address(1, request_by(A)));
    detector.receive(S, at_address(2, reply_by(A, S)));
    detector.receive(S + 5, at_address(2, reply_by(B, S)));
    for last in 3..200 {
        detector.receive(2 * S, at_address(last, request_by(A)));
    }
    for last in [1, 2, 199] {
        assert!(detector.inner.binding(&place(last)).is_some(), "{last}");
    }
    assert_eq!(detector.inner.statistics().bindings, 3);
    assert_eq!(detector.inner.open_conflicts().count(), 1);
}

#[test]
fn a_claim_for_which_there_is_no_room_is_counted() {
    let mut detector = TestDetector::with(DetectConfig {
        tracked: vec!["192.0.2.0/24".parse().unwrap()],
        ..small(2)
    });
    for last in 1..=5 {
        detector.receive(0, at_address(last, request_by(A)));
    }
    let statistics = detector.inner.statistics();
    assert_eq!((statistics.bindings, statistics.rejected_claims), (2, 3));
}

#[test]
fn a_conflict_that_has_ended_may_make_room_again() {
    let mut detector = TestDetector::with(small(1));
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    detector.receive(10, at_address(1, request_by(C)));
    assert_eq!(detector.inner.statistics().rejected_claims, 1);
    detector.wait(1000 * S);
    detector.receive(1000 * S, at_address(1, request_by(C)));
    assert!(detector.inner.binding(&place(1)).is_some());
}

#[test]
fn a_binding_remembers_eight_macs_and_forgets_the_one_seen_least_recently() {
    let mut detector = TestDetector::new();
    for number in 0..20 {
        detector.receive(
            u64::from(number) * S,
            announce(MacAddr([2, 0, 0, 0, 9, number])),
        );
    }
    let macs: Vec<_> = detector
        .inner
        .binding(&key())
        .unwrap()
        .owners
        .iter()
        .map(|owner| owner.macs[0].0[5])
        .collect();
    assert_eq!(macs, [19, 18, 17, 16, 15, 14, 13, 12]);
    assert_eq!(detector.inner.statistics().evicted_macs, 12);
}

#[test]
fn the_virtual_mac_is_not_forgotten_for_the_physical_ones() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(V));
    for number in 1..100u8 {
        detector.receive(
            u64::from(number) * 20 * S,
            request_by(MacAddr([2, 0, 0, 0, 9, number])),
        );
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn a_host_whose_bindings_were_all_evicted_is_unknown_again() {
    let mut detector = TestDetector::with(small(2));
    detector.receive(0, at_address(1, request_by(CLIENT)));
    detector.receive(S, request_by(A));
    detector.probe(2 * S, CLIENT, false);
    detector.receive(2 * S + 5, reply_to_probe(CLIENT, A, 2 * S));
    assert_eq!(detector.kinds(), []);
    detector.receive(3 * S, at_address(2, request_by(B)));
    detector.probe(4 * S, CLIENT, false);
    detector.receive(4 * S + 5, reply_to_probe(CLIENT, A, 4 * S));
    assert_eq!(detector.kinds(), [ProbeDenied]);
}

#[test]
fn what_was_on_an_interface_that_is_gone_is_forgotten() {
    let mut detector = TestDetector::new();
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    detector.inner.forget_interface(SEGMENT.interface + 1);
    assert_eq!(detector.inner.statistics().open_conflicts, 1);
    detector.inner.forget_interface(SEGMENT.interface);
    let statistics = detector.inner.statistics();
    assert_eq!((statistics.bindings, statistics.open_conflicts), (0, 0));
    assert_eq!(detector.inner.next_deadline(), None);
}

/// A tenth of it without optimisation, where the whole takes a minute.
const MANY: u32 = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

#[test]
fn a_million_bindings_and_a_hundred_thousand_conflicts_are_survived() {
    let (many, some) = (MANY, MANY / 10);
    let mut detector = TestDetector::with(small(many as usize));
    let mut receive = |at: u64, number: u32, mac: MacAddr, requested_at: Option<u64>| {
        let claim = requested_at.map_or(announce(mac), |requested_at| reply_by(mac, requested_at));
        let claim = Claim {
            ip: std::net::IpAddr::from(number.to_be_bytes()),
            ..claim
        };
        detector.observe(
            at,
            Direction::Ingress,
            SEGMENT,
            ObservationBody::Claim(claim),
        );
        detector.findings.clear();
    };
    for number in 0..many + some {
        receive(u64::from(number), number, A, None);
    }
    for number in many..many + some {
        let requested_at = 2 * S + u64::from(number);
        receive(requested_at, number, A, Some(requested_at));
        receive(requested_at, number, B, Some(requested_at));
    }
    let statistics = detector.inner.statistics();
    assert_eq!(statistics.bindings, many as usize);
    assert_eq!(statistics.open_conflicts, some as usize);
    assert_eq!(statistics.evicted_bindings, u64::from(some));
    detector.wait(10_000 * S);
    assert_eq!(
        detector.take().len(),
        2 * some as usize,
        "quiet, then expired"
    );
    assert_eq!(detector.inner.statistics().open_conflicts, 0);
    assert_eq!(detector.inner.next_deadline(), None);
}

#[test]
fn all_bindings_can_be_read_part_by_part() {
    let mut detector = TestDetector::new();
    for last in 0..100 {
        let claim = Claim {
            ip: ip(last),
            ..announce(A)
        };
        detector.observe(
            0,
            Direction::Ingress,
            SEGMENT,
            ObservationBody::Claim(claim),
        );
    }
    for most in [1, 7, 50, 100, 1000] {
        let (mut read, mut next) = (Vec::new(), Some(TableCursor::default()));
        while let Some(from) = next {
            let part;
            (part, next) = detector.inner.bindings_from(from, most);
            assert!(part.len() <= most);
            read.extend(part.into_iter().map(|binding| binding.key.ip));
        }
        read.sort();
        assert_eq!(read, (0..100).map(ip).collect::<Vec<_>>(), "{most}");
    }
}

fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 3, number])
}

#[test]
fn more_owners_in_rotation_than_are_remembered_are_contested_and_then_a_conflict() {
    for (hosts, every) in [(9, 3), (9, 20), (12, 10), (30, 5)] {
        let mut detector = TestDetector::new();
        let turns = (0..3 * hosts)
            .map(|transition| (u64::from(transition) * every * S, mac(transition % hosts)));
        let mut kinds = Vec::new();
        let mut conflict = None;
        for (at, mac) in turns {
            detector.receive(at, announce(mac));
            for finding in detector.take() {
                kinds.push(finding.kind);
                if finding.kind == Conflict {
                    conflict = conflict.or(Some(finding));
                }
            }
        }
        let conflict = conflict.expect("a conflict");
        assert_eq!(conflict.evidence, Some(Evidence::ManyOwners));
        assert_eq!(conflict.owners.len(), 8, "{hosts} hosts, every {every} s");
        let contested = kinds.iter().position(|&kind| kind == Contested);
        assert!(contested < kinds.iter().position(|&kind| kind == Conflict));
    }
}

#[test]
fn many_owners_over_a_long_time_are_no_conflict() {
    let mut detector = TestDetector::new();
    for transition in 0..40_u8 {
        detector.receive(u64::from(transition) * 100 * S, announce(mac(transition)));
    }
    detector.wait(5_000 * S);
    assert!(detector.kinds().iter().all(|&kind| kind == Moved));
}

#[test]
fn many_macs_of_one_owner_are_no_conflict() {
    let mut detector = TestDetector::with(DetectConfig {
        same_owner: vec![(0..20).map(mac).collect()],
        ..DetectConfig::default()
    });
    for transition in 0..60_u8 {
        detector.receive(
            u64::from(transition) * 3 * S,
            announce(mac(transition % 20)),
        );
    }
    assert_eq!(detector.kinds(), []);
}

#[test]
fn evicted_owners_of_tracked_addresses_are_counted_apart() {
    for (tracked, count) in [(false, 0), (true, 2)] {
        let mut detector = TestDetector::with(DetectConfig {
            tracked: tracked.then(|| key().ip.into()).into_iter().collect(),
            ..DetectConfig::default()
        });
        for transition in 0..10_u8 {
            detector.receive(u64::from(transition) * S, announce(mac(transition)));
        }
        let statistics = detector.inner.statistics();
        assert_eq!(
            (statistics.evicted_macs, statistics.evicted_tracked_macs),
            (2, count)
        );
    }
}

#[test]
fn an_address_whose_claims_exceed_the_rate_limit_is_marked_for_a_minute() {
    let mut detector = TestDetector::with(DetectConfig {
        tracked: vec![key().ip.into()],
        ..DetectConfig::default()
    });
    let is_limited = |detector: &TestDetector| {
        let from = TableCursor::default();
        let page = detector.inner.page(AddressGroup::Tracked, from, 1);
        page.addresses[0].rate_limited
    };
    detector.receive(0, announce(A));
    assert!(!is_limited(&detector));
    let rate_limited = Claim {
        rate_limited: true,
        ..announce(A)
    };
    detector.receive(S, rate_limited);
    detector.wait(60 * S);
    assert!(is_limited(&detector));
    detector.wait(61 * S);
    assert!(!is_limited(&detector));
}

#[test]
fn twenty_random_macs_a_second_hide_no_two_owners_that_reply() {
    let mut detector = TestDetector::new();
    let mut conflicts = Vec::new();
    for tenth in 0..600_u64 {
        let at = tenth * 100 * MS;
        for random in 0..2 {
            let [.., high, low] = (2 * tenth + random).to_be_bytes();
            detector.receive(at + random, announce(MacAddr([2, 1, 0, 0, high, low])));
        }
        for owner in [A, B] {
            detector.receive(at + 50 * MS, reply_by(owner, at + 50 * MS));
        }
        conflicts.extend(
            detector
                .take()
                .into_iter()
                .filter(|found| found.kind == Conflict),
        );
    }
    let first = conflicts.first().unwrap();
    assert_eq!(first.evidence, Some(Evidence::DuplicateReply));
    assert!(first.at < time(S), "{first:#?}");
    for owner in [A, B] {
        assert!(macs(first).contains(&owner));
    }
    let view = detector.inner.binding(&key()).unwrap().conflict.unwrap();
    assert!(!view.quiet);
    assert!(view.last_evidence >= time(59 * S));
}
