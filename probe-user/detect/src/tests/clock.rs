//! No clock can confuse the machine for good.

use probe_model::FindingKind::*;

use super::lab::*;
use crate::Claim;

#[test]
fn a_takeover_settles_though_the_clock_was_set_back_in_between() {
    let mut lab = Lab::new();
    lab.see(5_000 * S, announce(A));
    lab.see(6_000 * S, announce(B));
    lab.wait(100 * S);
    assert_eq!(lab.detector.statistics().clock_steps, 1);
    assert_eq!(lab.detector.next_deadline(), Some(time(110 * S)));
    lab.wait(110 * S);
    assert_eq!(lab.kinds(), [Moved]);
}

#[test]
fn a_conflict_expires_in_its_time_though_the_clock_was_set_back() {
    let mut lab = Lab::new();
    lab.see(5_000 * S, answer(A, 5_000 * S));
    lab.see(5_000 * S + 5, answer(B, 5_000 * S));
    lab.see(0, announce(A));
    lab.wait(601 * S);
    assert_eq!(lab.kinds(), [Conflict, ConflictQuiet, ConflictExpired]);
}

#[test]
fn a_wild_time_in_a_capture_does_not_stop_detection() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(u64::MAX / 1_000 - 1_000 * S, announce(A));
    for second in 1..20 {
        lab.see(second * S, answer(A, second * S));
        lab.see(second * S + 5, answer(B, second * S));
    }
    assert_eq!(lab.kinds(), [Conflict]);
    assert_eq!(lab.detector.statistics().clock_steps, 1);
}

#[test]
fn a_frame_out_of_order_within_a_second_is_no_step_of_the_clock() {
    let mut lab = Lab::new();
    lab.see(10 * S, answer(B, 10 * S - 50));
    lab.see(10 * S - 40, answer(A, 10 * S - 50));
    assert_eq!(lab.only().kind, Conflict);
    assert_eq!(lab.detector.statistics().clock_steps, 0);
}

#[test]
fn findings_come_in_the_order_of_time() {
    let mut lab = Lab::new();
    lab.see(0, announce(A));
    lab.see(100 * S, announce(B));
    lab.see(111 * S, asking(A));
    lab.see(
        110 * S + 500 * MS,
        Claim {
            ip: ip(9),
            ..asking(C)
        },
    );
    let times: Vec<_> = lab.take().iter().map(|finding| finding.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}
