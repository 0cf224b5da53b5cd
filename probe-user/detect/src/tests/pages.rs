//! What the metrics read of single addresses.

use std::time::Duration;

use super::lab::*;
use crate::{AddressGroup, AddressView, Claim, DetectConfig, TableCursor};

fn lab(tracked: &str) -> Lab {
    Lab::with(DetectConfig {
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
fn all(lab: &Lab, group: AddressGroup) -> Vec<AddressView> {
    let (mut addresses, mut cursor) = (Vec::new(), Some(TableCursor::default()));
    while let Some(from) = cursor {
        let page = lab.detector.page(group, from, 2);
        assert!(page.addresses.len() <= 2);
        cursor = page.next;
        addresses.extend(page.addresses);
    }
    addresses
}

#[test]
fn pages_have_each_address_of_their_group_once_and_no_other() {
    // The first four.
    let mut lab = lab("192.0.2.0/30");
    for last in 0..7 {
        lab.see(u64::from(last), at_address(last, asking(A)));
    }
    let mut tracked: Vec<_> = all(&lab, AddressGroup::Tracked)
        .iter()
        .map(|address| address.key.ip)
        .collect();
    tracked.sort();
    assert_eq!(tracked, [ip(0), ip(1), ip(2), ip(3)]);
    assert_eq!(lab.detector.statistics().tracked, 4);
    assert!(all(&lab, AddressGroup::Conflicts).is_empty());
    lab.detector.forget_interface(SEGMENT.interface);
    assert!(all(&lab, AddressGroup::Tracked).is_empty());
    assert_eq!(lab.detector.statistics().tracked, 0);
}

#[test]
fn a_conflict_is_there_with_its_parties_until_it_ends() {
    let mut lab = lab("198.51.100.0/24");
    lab.see(0, answer(A, 0));
    lab.see(5, answer(B, 0));
    let open = all(&lab, AddressGroup::Conflicts);
    let parties = open[0].parties.as_ref().unwrap();
    assert_eq!((open.len(), parties.len()), (1, 2));
    assert!(!open[0].tracked && !open[0].contested);
    lab.wait(700 * S);
    assert!(all(&lab, AddressGroup::Conflicts).is_empty());
}

#[test]
fn a_contested_address_is_there_until_its_episode_ends() {
    let mut lab = lab("198.51.100.0/24");
    for (second, mac) in [(0, A), (20, B), (22, A)] {
        lab.see(second * S, asking(mac));
    }
    assert!(all(&lab, AddressGroup::Contested)[0].contested);
    lab.wait(90 * S);
    let contested = all(&lab, AddressGroup::Contested);
    assert!(contested.iter().all(|address| !address.contested));
    lab.wait(400 * S);
    assert!(all(&lab, AddressGroup::Contested).is_empty());
}

#[test]
fn the_holder_is_whoever_took_over_last_by_the_mac_that_stands_for_it() {
    let mut lab = lab("192.0.2.0/24");
    lab.see(0, announce(A));
    lab.see(20 * S, announce(B));
    let holder = all(&lab, AddressGroup::Tracked)[0].holder.clone().unwrap();
    assert_eq!((holder.canonical, &holder.macs[..]), (B, &[B][..]));
    assert_eq!(holder.last_claim, time(20 * S));
    // A virtual router and the machine behind it.
    lab.see(40 * S, at_address(81, announce(V)));
    lab.see(41 * S, at_address(81, announce(A)));
    let router = all(&lab, AddressGroup::Tracked).remove(1).holder.unwrap();
    assert_eq!((router.canonical, router.macs.len()), (V, 2));
    assert_eq!(router.last_claim, time(41 * S));
}

#[test]
fn silence_shows_until_the_next_claim() {
    let mut lab = lab("192.0.2.0/24");
    lab.see(0, announce(A));
    assert!(!all(&lab, AddressGroup::Tracked)[0].silent);
    lab.wait(61 * S);
    assert!(all(&lab, AddressGroup::Tracked)[0].silent);
    lab.see(62 * S, announce(A));
    assert!(!all(&lab, AddressGroup::Tracked)[0].silent);
}
