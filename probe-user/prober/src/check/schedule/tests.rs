use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_millis(500);
const PROBER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xee]);
const START: Timestamp = Timestamp(1_000_000_000_000);

fn schedule(mode: ScheduleMode, total: u32, rate: u32) -> CheckSchedule {
    CheckSchedule::new(mode, total, rate, WAIT, 7, START)
}

fn watch(duration: Duration) -> ScheduleMode {
    ScheduleMode::Watch {
        until: START + duration,
    }
}

/// Runs a schedule on an exact clock. `on_probe` is called with each probe and may record a reply. Returns the probes and the
/// end.
fn run(
    schedule: &mut CheckSchedule,
    mut on_probe: impl FnMut(&mut CheckSchedule, u32, Timestamp),
) -> (Vec<(u32, Timestamp)>, Timestamp) {
    let (mut now, mut probes) = (START, Vec::new());
    for _ in 0..1_000_000 {
        match schedule.next(now) {
            ScheduleAction::Probe(number) => {
                probes.push((number, now));
                on_probe(schedule, number, now);
            }
            ScheduleAction::Wait(until) => {
                assert!(until > now, "a wait of no duration");
                now = until;
            }
            ScheduleAction::Done => return (probes, now),
        }
    }
    panic!("no end");
}

/// The maximum number of frames in any window of this length.
fn max_in_window(probes: &[(u32, Timestamp)], window: Duration) -> usize {
    let within = |&(_, from): &(u32, Timestamp)| {
        let inside = probes
            .iter()
            .filter(|(_, at)| *at >= from && at.since(from) < window);
        inside.count()
    };
    probes.iter().map(within).max().unwrap_or(0)
}

#[test]
fn a_sweep_keeps_its_rate_and_probes_addresses_without_a_reply_twice() {
    let mut sweep = schedule(ScheduleMode::Sweep, 254, 10);
    let (probes, end) = run(&mut sweep, |sweep, number, _| {
        if number % 2 == 0 {
            sweep.record_reply(number);
        }
    });
    assert_eq!(probes.len(), 254 + 127);
    assert_eq!(max_in_window(&probes, SECOND), 10);
    for number in 0..254 {
        let times: Vec<_> = probes.iter().filter(|(one, _)| *one == number).collect();
        assert_eq!(times.len(), if number % 2 == 0 { 1 } else { 2 });
        assert_eq!(sweep.probes_sent(number) as usize, times.len());
    }
    assert_eq!(end, probes.last().unwrap().1 + WAIT);
    assert_eq!(sweep.addresses_probed(), 254);
}

#[test]
fn a_host_has_time_to_reply_before_its_address_is_probed_again() {
    for silent in [1, 17, 254] {
        let mut sweep = schedule(ScheduleMode::Sweep, 254, 1000);
        let (probes, _) = run(&mut sweep, |sweep, number, _| {
            if number >= silent {
                sweep.record_reply(number);
            }
        });
        for number in 0..silent {
            let times: Vec<_> = probes.iter().filter(|(one, _)| *one == number).collect();
            assert!(
                times[1].1.since(times[0].1) + Duration::from_millis(1) >= WAIT,
                "{times:?}"
            );
        }
    }
}

#[test]
fn few_addresses_are_probed_within_a_second_at_any_rate_below_the_limit_of_switches() {
    for rate in [1, 10, 100] {
        for total in 1..=CheckSchedule::FEW_TARGETS {
            let mut burst = schedule(ScheduleMode::Burst, total, rate);
            let (probes, end) = run(&mut burst, |_, _, _| ());
            assert!(end.since(START) <= SECOND, "{total} at {rate}");
            assert_eq!(burst.addresses_probed(), total);
            let most = if rate > BURST { 30 } else { 12 };
            assert!(probes.len() <= most, "{total} at {rate}: {}", probes.len());
        }
    }
    let mut burst = schedule(ScheduleMode::Burst, 1, 10);
    assert_eq!(
        run(&mut burst, |burst, number, _| burst.record_reply(number))
            .0
            .len(),
        3
    );
}

#[test]
fn of_few_addresses_those_without_a_reply_are_probed_first() {
    let mut burst = schedule(ScheduleMode::Burst, 10, 10);
    let (probes, _) = run(&mut burst, |burst, number, _| {
        if number != 4 && number != 5 {
            burst.record_reply(number);
        }
    });
    let twice: Vec<_> = (0..10)
        .filter(|number| burst.probes_sent(*number) > 1)
        .collect();
    assert_eq!((probes.len(), twice), (12, vec![4, 5]));
}

#[test]
fn an_address_of_a_booting_host_is_probed_later() {
    for mode in [ScheduleMode::Burst, ScheduleMode::Sweep] {
        let mut schedule = schedule(mode, 3, 10);
        schedule.record_foreign_probe(1, PROBER, START);
        let (probes, _) = run(&mut schedule, |_, _, _| ());
        let first = probes.iter().find(|(number, _)| *number == 1).unwrap();
        assert!(first.1.since(START) >= Duration::from_secs(10));
        assert_eq!(schedule.addresses_probed(), 3);
        assert!(schedule.probes_sent(1) > 1, "as often as the others");
    }
}

/// The ARP monitor of a bond, or a stuck client.
#[test]
fn a_host_that_goes_on_probing_delays_the_probes_and_does_not_prevent_them() {
    let until = START + Duration::from_mins(1);
    for mode in [
        ScheduleMode::Burst,
        ScheduleMode::Sweep,
        ScheduleMode::Watch { until },
    ] {
        let mut schedule = schedule(mode, 1, 10);
        let mut now = START;
        let sent_at = loop {
            schedule.record_foreign_probe(0, PROBER, now);
            match schedule.next(now) {
                ScheduleAction::Probe(_) => break now,
                ScheduleAction::Wait(until) => now = until.min(now + SECOND),
                ScheduleAction::Done => panic!("not probed"),
            }
        };
        let delay = sent_at.since(START);
        let expected = Duration::from_secs(14)..Duration::from_secs(30);
        assert!(expected.contains(&delay), "{mode:?} {delay:?}");
        assert_eq!(schedule.foreign_prober(0), Some(PROBER));
    }
}

#[test]
fn watching_probes_every_second_until_its_end() {
    let mut watching = schedule(watch(10 * SECOND), 3, 10);
    watching.record_foreign_probe(2, PROBER, START);
    let (probes, end) = run(&mut watching, |watching, number, _| {
        watching.record_reply(number);
    });
    assert_eq!(end, START + 10 * SECOND);
    assert_eq!((watching.probes_sent(0), watching.probes_sent(1)), (10, 10));
    assert_eq!(watching.probes_sent(2), 0, "a booting host until the end");
    assert!(probes.iter().all(|(_, at)| end.since(*at) >= WAIT));
}

#[test]
fn watching_many_addresses_keeps_the_rate() {
    let mut watching = schedule(watch(20 * SECOND), 50, 10);
    let (probes, _) = run(&mut watching, |_, _, _| ());
    assert_eq!(max_in_window(&probes, SECOND), 10);
    assert_eq!(watching.addresses_probed(), 50);
}

#[test]
fn a_late_clock_causes_no_burst() {
    for (rate, most) in [(10, 1), (1000, 11)] {
        let mut sweep = schedule(ScheduleMode::Sweep, 10_000, rate);
        assert!(matches!(sweep.next(START), ScheduleAction::Probe(_)));
        let late = START + 60 * SECOND;
        let mut frames = 0;
        while let ScheduleAction::Probe(_) = sweep.next(late) {
            frames += 1;
        }
        assert_eq!(frames, most, "at {rate}");
    }
}

#[test]
fn a_probe_that_was_not_sent_is_sent_again() {
    let mut sweep = schedule(ScheduleMode::Sweep, 1, 10);
    assert_eq!(sweep.next(START), ScheduleAction::Probe(0));
    sweep.not_sent(0, START);
    assert_eq!(
        (sweep.probes_sent(0), sweep.addresses_probed(), sweep.sent()),
        (0, 0, 0)
    );
    let ScheduleAction::Wait(retry_at) = sweep.next(START) else {
        panic!("at once")
    };
    assert_eq!(sweep.next(retry_at), ScheduleAction::Probe(0));
    assert_eq!(sweep.probes_sent(0), 1);
}

#[test]
fn the_remaining_time_decreases_to_the_wait_for_the_last_reply() {
    let mut sweep = schedule(ScheduleMode::Sweep, 100, 10);
    let before = sweep.remaining(START);
    assert!(before >= 10 * SECOND && before <= 21 * SECOND, "{before:?}");
    let (_, end) = run(&mut sweep, |_, _, _| ());
    assert!(sweep.remaining(end) <= WAIT, "{:?}", sweep.remaining(end));
}

proptest! {
    /// For any received frames and any delay of the timer, the rate limit holds, no address is probed while another host
    /// probes it, and the schedule ends.
    #[test]
    fn its_invariants_hold(
        total in 1_u32..40,
        rate in 1_u32..40,
        mode in 0..3,
        events in prop::collection::vec((0_u32..40, 0_u64..400, any::<bool>()), 0..60),
    ) {
        let mode = match mode {
            0 => ScheduleMode::Sweep,
            1 if total <= CheckSchedule::FEW_TARGETS => ScheduleMode::Burst,
            _ => watch(20 * SECOND),
        };
        let mut schedule = schedule(mode, total, rate);
        let mut events = events.into_iter();
        let mut probed = vec![None; total as usize];
        let (mut now, mut probes) = (START, Vec::new());
        let mut turns = 0;
        loop {
            turns += 1;
            prop_assert!(turns < 100_000, "no end");
            match schedule.next(now) {
                ScheduleAction::Probe(number) => {
                    prop_assert!(number < total);
                    let at: Option<Timestamp> = probed[number as usize];
                    prop_assert!(at.is_none_or(|at| now.since(at) >= Duration::from_secs(10)));
                    probes.push((number, now));
                }
                ScheduleAction::Wait(until) => {
                    let late = match events.next() {
                        Some((number, late, is_probe)) if number < total => {
                            if is_probe {
                                schedule.record_foreign_probe(number, PROBER, now);
                                probed[number as usize] = Some(now);
                            } else {
                                schedule.record_reply(number);
                            }
                            late
                        }
                        _ => 0,
                    };
                    now = until.max(now) + Duration::from_millis(late);
                }
                ScheduleAction::Done => break,
            }
        }
        if mode != ScheduleMode::Burst {
            let slack = if rate > 50 { MAX_LAG } else { Duration::ZERO };
            prop_assert!(max_in_window(&probes, SECOND.saturating_sub(slack)) <= rate as usize);
        }
    }
}
