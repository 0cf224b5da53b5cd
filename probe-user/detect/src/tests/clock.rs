//! Clock steps delay conclusions for a bounded time.

use probe_model::FindingKind::*;

use super::test_detector::*;
use crate::Claim;

#[test]
fn a_takeover_settles_though_the_clock_was_set_back_in_between() {
    let mut detector = TestDetector::new();
    detector.receive(5_000 * S, announce(A));
    detector.receive(6_000 * S, announce(B));
    detector.wait(100 * S);
    assert_eq!(detector.inner.statistics().clock_steps, 1);
    assert_eq!(detector.inner.next_deadline(), Some(time(110 * S)));
    detector.wait(110 * S);
    assert_eq!(detector.kinds(), [Moved]);
}

#[test]
fn a_conflict_expires_in_its_time_though_the_clock_was_set_back() {
    let mut detector = TestDetector::new();
    detector.receive(5_000 * S, reply_by(A, 5_000 * S));
    detector.receive(5_000 * S + 5, reply_by(B, 5_000 * S));
    detector.receive(0, announce(A));
    detector.wait(601 * S);
    assert_eq!(detector.kinds(), [Conflict, ConflictQuiet, ConflictExpired]);
}

#[test]
fn a_wild_time_in_a_capture_does_not_stop_detection() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(u64::MAX / 1_000 - 1_000 * S, announce(A));
    for second in 1..20 {
        detector.receive(second * S, reply_by(A, second * S));
        detector.receive(second * S + 5, reply_by(B, second * S));
    }
    assert_eq!(detector.kinds(), [Conflict]);
    assert_eq!(detector.inner.statistics().clock_steps, 1);
}

#[test]
fn a_frame_out_of_order_within_a_second_is_no_step_of_the_clock() {
    let mut detector = TestDetector::new();
    detector.receive(10 * S, reply_by(B, 10 * S - 50));
    detector.receive(10 * S - 40, reply_by(A, 10 * S - 50));
    assert_eq!(detector.only().kind, Conflict);
    assert_eq!(detector.inner.statistics().clock_steps, 0);
}

#[test]
fn findings_come_in_the_order_of_time() {
    let mut detector = TestDetector::new();
    detector.receive(0, announce(A));
    detector.receive(100 * S, announce(B));
    detector.receive(111 * S, request_by(A));
    detector.receive(
        110 * S + 500 * MS,
        Claim {
            ip: ip(9),
            ..request_by(C)
        },
    );
    let times: Vec<_> = detector.take().iter().map(|finding| finding.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}
