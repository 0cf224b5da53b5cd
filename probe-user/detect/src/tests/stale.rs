//! Announcements by hosts that do not reply for the address.

use std::time::Duration;

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{FindingKind::*, Severity, Timestamp};

use super::lab::*;
use crate::{AddressGroup, DetectConfig, ProbePurpose, TableCursor};

fn tracking() -> Lab {
    Lab::with(DetectConfig {
        can_probe: true,
        tracked: vec![IpNet::from(key().ip)],
        ..DetectConfig::default()
    })
}

/// The rounds of probes about the takeover at `from`, and who replies to each.
fn confirm(lab: &mut Lab, from: u64, replying: [&[MacAddr]; 2]) {
    let asks = lab.detector.take_probe_requests();
    assert_eq!(asks.len(), 2, "{asks:#?}");
    for ((ask, by), second) in asks.iter().zip(replying).zip([2, 4]) {
        assert_eq!(ask.purpose, ProbePurpose::Confirmation);
        for &mac in by {
            lab.see(from + second * S - MS, answer_to_probe(HOST, mac, from));
        }
        lab.record_replies(from + second * S, ask, by);
    }
}

fn is_stale(lab: &Lab) -> bool {
    let page = lab
        .detector
        .page(AddressGroup::Tracked, TableCursor::default(), 10);
    page.addresses[0].stale_announcement
}

fn current(lab: &Lab) -> MacAddr {
    let page = lab
        .detector
        .page(AddressGroup::Tracked, TableCursor::default(), 10);
    page.addresses[0].holder.as_ref().unwrap().canonical
}

/// A keepalived backup announces the address and steps back; the master keeps it and does not announce it again.
fn backup_steps_back(lab: &mut Lab) {
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    confirm(lab, 100 * S, [&[A], &[A]]);
}

#[test]
fn an_address_stays_with_the_owner_that_replies_when_the_announcer_does_not() {
    let mut lab = tracking();
    backup_steps_back(&mut lab);
    let stale = lab.only();
    assert_eq!(
        (stale.kind, stale.severity, stale.since),
        (StaleAnnouncement, Severity::Critical, time(100 * S))
    );
    assert_eq!(macs(&stale), [A, B]);
    assert_eq!((current(&lab), is_stale(&lab)), (A, true));
    // Neither a later probe nor time makes it move.
    lab.see(160 * S, answer_to_probe(HOST, A, 160 * S - MS));
    lab.wait(1_000 * S);
    assert_eq!(lab.kinds(), []);
    assert_eq!((current(&lab), is_stale(&lab)), (A, true));
}

#[test]
fn one_missing_reply_of_the_announcer_is_enough_when_it_is_the_last() {
    let mut lab = tracking();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    confirm(&mut lab, 100 * S, [&[A, B], &[A]]);
    assert_eq!(lab.kinds(), [StaleAnnouncement]);
}

#[test]
fn caches_are_right_again_when_the_owner_announces_the_address() {
    let mut lab = tracking();
    backup_steps_back(&mut lab);
    // A unicast reply reaches one host.
    lab.see(200 * S, answer(A, 200 * S));
    assert!(is_stale(&lab));
    lab.see(201 * S, announce(A));
    assert!(!is_stale(&lab));
    assert_eq!(lab.kinds(), [StaleAnnouncement]);
}

#[test]
fn a_repeated_announcement_is_reported_once_until_the_owner_announces() {
    let mut lab = tracking();
    backup_steps_back(&mut lab);
    for from in [300 * S, 600 * S] {
        lab.see(from, announce(B));
        lab.see(from + 10 * MS, announce(B));
        confirm(&mut lab, from, [&[A], &[A]]);
    }
    assert_eq!(lab.kinds(), [StaleAnnouncement]);
    lab.see(700 * S, announce(A));
    lab.see(900 * S, announce(B));
    confirm(&mut lab, 900 * S, [&[A], &[A]]);
    assert_eq!(lab.kinds(), [StaleAnnouncement]);
}

#[test]
fn no_cache_holds_the_announcement_for_ever() {
    let mut lab = tracking();
    backup_steps_back(&mut lab);
    lab.wait(100 * S + 4 * 3600 * S - 1);
    assert!(is_stale(&lab));
    lab.wait(100 * S + 4 * 3600 * S);
    assert!(!is_stale(&lab));
}

#[test]
fn a_move_without_the_second_round_of_probes_is_judged_by_the_first() {
    let mut lab = tracking();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    let asks = lab.detector.take_probe_requests();
    lab.see(102 * S, answer_to_probe(HOST, A, 101 * S));
    lab.record_replies(102 * S, &asks[0], &[A]);
    lab.detector
        .record_not_probed(&asks[1], time(104 * S), &mut lab.findings);
    lab.wait(120 * S);
    assert_eq!(lab.kinds(), [StaleAnnouncement]);
    assert_eq!(current(&lab), A);
}

#[test]
fn without_replies_from_either_the_address_has_moved() {
    let mut lab = tracking();
    lab.host(0, false);
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    confirm(&mut lab, 100 * S, [&[], &[]]);
    assert_eq!(lab.kinds(), [Moved]);
    assert!(!is_stale(&lab));
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_an_announcement_stale() {
    let mut lab = tracking();
    backup_steps_back(&mut lab);
    lab.wait(10 * S);
    assert!(is_stale(&lab));
    let due = Duration::from_hours(4);
    assert!(lab.detector.next_deadline() <= Some(Timestamp(time(10 * S).0) + due));
}
