//! What the metrics read of single addresses.

use std::time::Duration;

use super::test_detector::*;
use crate::{AddressGroup, AddressView, Claim, DetectConfig, TableCursor};

fn detector(tracked: &str) -> TestDetector {
    TestDetector::with(DetectConfig {
        tracked: vec![tracked.parse().unwrap()],
        silent_after: Some(Duration::from_mins(1)),
        ..DetectConfig::default()
    })
}

fn at_address(last: u8, claim: Claim) -> Claim {
    Claim {
        ip: ip(last),
        ..claim
    }
}

/// All of a group, in pages of two.
fn all(detector: &TestDetector, group: AddressGroup) -> Vec<AddressView> {
    let (mut addresses, mut cursor) = (Vec::new(), Some(TableCursor::default()));
    while let Some(from) = cursor {
        let page = detector.inner.page(group, from, 2);
        assert!(page.addresses.len() <= 2);
        cursor = page.next;
        addresses.extend(page.addresses);
    }
    addresses
}

#[test]
fn pages_have_each_address_of_their_group_once_and_no_other() {
    // The first four.
    let mut detector = detector("192.0.2.0/30");
    for last in 0..7 {
        detector.receive(u64::from(last), at_address(last, request_by(A)));
    }
    let mut tracked: Vec<_> = all(&detector, AddressGroup::Tracked)
        .iter()
        .map(|address| address.key.ip)
        .collect();
    tracked.sort();
    assert_eq!(tracked, [ip(0), ip(1), ip(2), ip(3)]);
    assert_eq!(detector.inner.statistics().tracked, 4);
    assert!(all(&detector, AddressGroup::Conflicts).is_empty());
    detector.inner.forget_interface(SEGMENT.interface);
    assert!(all(&detector, AddressGroup::Tracked).is_empty());
    assert_eq!(detector.inner.statistics().tracked, 0);
}

#[test]
fn a_conflict_is_there_with_its_parties_until_it_ends() {
    let mut detector = detector("198.51.100.0/24");
    detector.receive(0, reply_by(A, 0));
    detector.receive(5, reply_by(B, 0));
    let open = all(&detector, AddressGroup::Conflicts);
    let parties = open[0].parties.as_ref().unwrap();
    assert_eq!((open.len(), parties.len()), (1, 2));
    assert!(!open[0].tracked && !open[0].contested);
    detector.wait(700 * S);
    assert!(all(&detector, AddressGroup::Conflicts).is_empty());
}

#[test]
fn a_contested_address_is_there_until_its_episode_ends() {
    let mut detector = detector("198.51.100.0/24");
    for (second, mac) in [(0, A), (20, B), (22, A)] {
        detector.receive(second * S, request_by(mac));
    }
    assert!(all(&detector, AddressGroup::Contested)[0].contested);
    detector.wait(90 * S);
    let contested = all(&detector, AddressGroup::Contested);
    assert!(contested.iter().all(|address| !address.contested));
    detector.wait(400 * S);
    assert!(all(&detector, AddressGroup::Contested).is_empty());
}

#[test]
fn the_current_owner_took_over_last_and_is_identified_by_its_canonical_mac() {
    let mut detector = detector("192.0.2.0/24");
    detector.receive(0, announce(A));
    detector.receive(20 * S, announce(B));
    let current_owner = all(&detector, AddressGroup::Tracked)[0]
        .current_owner
        .clone()
        .unwrap();
    assert_eq!(
        (current_owner.canonical, &current_owner.macs[..]),
        (B, &[B][..])
    );
    assert_eq!(current_owner.last_claim, time(20 * S));
    // A virtual router and the host behind it.
    detector.receive(40 * S, at_address(81, announce(V)));
    detector.receive(41 * S, at_address(81, announce(A)));
    let router = all(&detector, AddressGroup::Tracked)
        .remove(1)
        .current_owner
        .unwrap();
    assert_eq!((router.canonical, router.macs.len()), (V, 2));
    assert_eq!(router.last_claim, time(41 * S));
}

#[test]
fn silence_shows_until_the_next_claim() {
    let mut detector = detector("192.0.2.0/24");
    detector.receive(0, announce(A));
    assert!(!all(&detector, AddressGroup::Tracked)[0].silent);
    detector.wait(61 * S);
    assert!(all(&detector, AddressGroup::Tracked)[0].silent);
    detector.receive(62 * S, announce(A));
    assert!(!all(&detector, AddressGroup::Tracked)[0].silent);
}
