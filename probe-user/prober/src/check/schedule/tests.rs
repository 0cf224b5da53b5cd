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

/// Plays a schedule on a clock that is exactly on time. `heard` is told of each question and may answer.
fn play(
    schedule: &mut CheckSchedule,
    mut heard: impl FnMut(&mut CheckSchedule, u32, Timestamp),
) -> (Vec<(u32, Timestamp)>, Timestamp) {
    let (mut now, mut asked) = (START, Vec::new());
    for _ in 0..1_000_000 {
        match schedule.next(now) {
            ScheduleAction::Probe(number) => {
                asked.push((number, now));
                heard(schedule, number, now);
            }
            ScheduleAction::Wait(until) => {
                assert!(until > now, "a wait for nothing");
                now = until;
            }
            ScheduleAction::Done => return (asked, now),
        }
    }
    panic!("no end");
}

/// The most frames in any window of this length.
fn densest(asked: &[(u32, Timestamp)], window: Duration) -> usize {
    let within = |&(_, from): &(u32, Timestamp)| {
        let inside = asked
            .iter()
            .filter(|(_, at)| *at >= from && at.since(from) < window);
        inside.count()
    };
    asked.iter().map(within).max().unwrap_or(0)
}

#[test]
fn a_sweep_keeps_its_pace_and_asks_the_silent_ones_twice() {
    let mut sweep = schedule(ScheduleMode::Sweep, 254, 10);
    let (asked, end) = play(&mut sweep, |sweep, number, _| {
        if number % 2 == 0 {
            sweep.record_reply(number);
        }
    });
    assert_eq!(asked.len(), 254 + 127);
    assert_eq!(densest(&asked, SECOND), 10);
    for number in 0..254 {
        let times: Vec<_> = asked.iter().filter(|(one, _)| *one == number).collect();
        assert_eq!(times.len(), if number % 2 == 0 { 1 } else { 2 });
        assert_eq!(sweep.probes_sent(number) as usize, times.len());
    }
    assert_eq!(end, asked.last().unwrap().1 + WAIT);
    assert_eq!(sweep.addresses_probed(), 254);
}

#[test]
fn a_silent_one_has_the_time_to_answer_before_it_is_asked_again() {
    for silent in [1, 17, 254] {
        let mut sweep = schedule(ScheduleMode::Sweep, 254, 1000);
        let (asked, _) = play(&mut sweep, |sweep, number, _| {
            if number >= silent {
                sweep.record_reply(number);
            }
        });
        for number in 0..silent {
            let times: Vec<_> = asked.iter().filter(|(one, _)| *one == number).collect();
            assert!(
                times[1].1.since(times[0].1) + Duration::from_millis(1) >= WAIT,
                "{times:?}"
            );
        }
    }
}

#[test]
fn a_handful_is_done_within_a_second_at_any_rate_and_is_no_burst_that_shuts_a_port() {
    for rate in [1, 10, 100] {
        for total in 1..=CheckSchedule::FEW_TARGETS {
            let mut burst = schedule(ScheduleMode::Burst, total, rate);
            let (asked, end) = play(&mut burst, |_, _, _| ());
            assert!(end.since(START) <= SECOND, "{total} at {rate}");
            assert_eq!(burst.addresses_probed(), total);
            let most = if rate > BURST { 30 } else { 12 };
            assert!(asked.len() <= most, "{total} at {rate}: {}", asked.len());
        }
    }
    let mut burst = schedule(ScheduleMode::Burst, 1, 10);
    assert_eq!(
        play(&mut burst, |burst, number, _| burst.record_reply(number))
            .0
            .len(),
        3
    );
}

#[test]
fn the_silent_ones_of_a_handful_go_first() {
    let mut burst = schedule(ScheduleMode::Burst, 10, 10);
    let (asked, _) = play(&mut burst, |burst, number, _| {
        if number != 4 && number != 5 {
            burst.record_reply(number);
        }
    });
    let twice: Vec<_> = (0..10)
        .filter(|number| burst.probes_sent(*number) > 1)
        .collect();
    assert_eq!((asked.len(), twice), (12, vec![4, 5]));
}

#[test]
fn a_booting_host_is_left_alone_and_asked_about_later() {
    for mode in [ScheduleMode::Burst, ScheduleMode::Sweep] {
        let mut schedule = schedule(mode, 3, 10);
        schedule.record_foreign_probe(1, PROBER, START);
        let (asked, _) = play(&mut schedule, |_, _, _| ());
        let first = asked.iter().find(|(number, _)| *number == 1).unwrap();
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
fn watching_asks_every_second_until_its_end() {
    let mut watching = schedule(watch(10 * SECOND), 3, 10);
    watching.record_foreign_probe(2, PROBER, START);
    let (asked, end) = play(&mut watching, |watching, number, _| {
        watching.record_reply(number);
    });
    assert_eq!(end, START + 10 * SECOND);
    assert_eq!((watching.probes_sent(0), watching.probes_sent(1)), (10, 10));
    assert_eq!(watching.probes_sent(2), 0, "a booting host until the end");
    assert!(asked.iter().all(|(_, at)| end.since(*at) >= WAIT));
}

#[test]
fn watching_many_keeps_its_pace() {
    let mut watching = schedule(watch(20 * SECOND), 50, 10);
    let (asked, _) = play(&mut watching, |_, _, _| ());
    assert_eq!(densest(&asked, SECOND), 10);
    assert_eq!(watching.addresses_probed(), 50);
}

#[test]
fn a_clock_that_stood_still_makes_no_burst() {
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
fn what_did_not_leave_is_asked_again() {
    let mut sweep = schedule(ScheduleMode::Sweep, 1, 10);
    assert_eq!(sweep.next(START), ScheduleAction::Probe(0));
    sweep.not_sent(0, START);
    assert_eq!(
        (sweep.probes_sent(0), sweep.addresses_probed(), sweep.sent()),
        (0, 0, 0)
    );
    let ScheduleAction::Wait(unanswered) = sweep.next(START) else {
        panic!("at once")
    };
    assert_eq!(sweep.next(unanswered), ScheduleAction::Probe(0));
    assert_eq!(sweep.probes_sent(0), 1);
}

#[test]
fn what_is_left_shrinks_to_nothing() {
    let mut sweep = schedule(ScheduleMode::Sweep, 100, 10);
    let before = sweep.remaining(START);
    assert!(before >= 10 * SECOND && before <= 21 * SECOND, "{before:?}");
    let (_, end) = play(&mut sweep, |_, _, _| ());
    assert!(sweep.remaining(end) <= WAIT, "{:?}", sweep.remaining(end));
}

proptest! {
    /// Whatever is heard, and however late the timer: the pace holds, nobody is asked about beside a prober,
    /// and there is an end.
    #[test]
    fn it_keeps_to_its_rules(
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
        let (mut now, mut asked) = (START, Vec::new());
        let mut turns = 0;
        loop {
            turns += 1;
            prop_assert!(turns < 100_000, "no end");
            match schedule.next(now) {
                ScheduleAction::Probe(number) => {
                    prop_assert!(number < total);
                    let at: Option<Timestamp> = probed[number as usize];
                    prop_assert!(at.is_none_or(|at| now.since(at) >= Duration::from_secs(10)));
                    asked.push((number, now));
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
            prop_assert!(densest(&asked, SECOND.saturating_sub(slack)) <= rate as usize);
        }
    }
}
