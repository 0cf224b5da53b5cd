//! The scheduler, one rule at a time.

use std::{cell::RefCell, collections::HashMap, net::Ipv4Addr};

use probe_common::{
    counter::Direction,
    wire::{MacAddr, Vlan},
};
use probe_detect::{
    Claim, ClaimFlags, Observation, ObservationBody, ObservedProbe, ProbePurpose, ProbeReply,
    ProbeRequest, RequestId,
};
use probe_model::{BindingKey, Segment, Timestamp};

use super::*;

const HOST: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const OTHER_NODE: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const SEGMENT: Segment = Segment {
    interface: 2,
    vlan: Vlan::UNTAGGED,
};

fn key(last: u8) -> BindingKey {
    BindingKey {
        segment: SEGMENT,
        ip: Ipv4Addr::new(192, 0, 2, last).into(),
    }
}

/// So many milliseconds after an arbitrary beginning.
fn at(millis: u64) -> Timestamp {
    Timestamp((1_000_000 + millis) * 1_000_000)
}

fn millis(time: Timestamp) -> u64 {
    time.0 / 1_000_000 - 1_000_000
}

#[derive(Default)]
struct World {
    unwanted: bool,
    place: Option<NotSentReason>,
    probed: HashMap<BindingKey, Timestamp>,
}

impl DetectorView for RefCell<World> {
    fn is_wanted(&self, _: &ProbeRequest) -> bool {
        !self.borrow().unwanted
    }

    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        let probed = self.borrow().probed.get(key).copied();
        let until = probed.map(|at| at + std::time::Duration::from_secs(10));
        until.filter(|&until| until > now)
    }

    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        self.borrow().place.map_or(
            Ok(SourceInterface {
                segment: key.segment,
                mac: HOST,
            }),
            Err,
        )
    }
}

/// A scheduler on a network of which the test decides who answers.
struct Lab {
    asker: ProbeScheduler,
    world: RefCell<World>,
    /// Who answers for each address.
    owners: HashMap<BindingKey, Vec<MacAddr>>,
    now: Timestamp,
    shots: Vec<(u64, ScheduledProbe)>,
    outcomes: Vec<(u64, ProbeOutcome)>,
    /// Whether our own frames are seen to go.
    seen: bool,
}

impl Lab {
    fn new() -> Self {
        Self::with(&ProbeSchedulerConfig::default())
    }

    fn with(config: &ProbeSchedulerConfig) -> Self {
        Self {
            asker: ProbeScheduler::new(config, 7),
            world: RefCell::default(),
            owners: HashMap::new(),
            now: at(0),
            shots: Vec::new(),
            outcomes: Vec::new(),
            seen: true,
        }
    }

    fn schedule(&mut self, ask: ProbeRequest) {
        self.asker.schedule(ask, self.now);
    }

    fn plan_all(&mut self, asks: impl IntoIterator<Item = ProbeRequest>) {
        asks.into_iter().for_each(|ask| self.schedule(ask));
    }

    fn care(&mut self, keys: &[BindingKey]) {
        self.set_tracked(keys, false);
    }

    fn set_tracked(&mut self, keys: &[BindingKey], from_cluster: bool) {
        let wanted = keys.iter().map(|&key| TrackedTarget { key, from_cluster });
        self.asker.set_tracked(wanted, self.now);
    }

    fn observe(&mut self, direction: Direction, body: ObservationBody) {
        self.asker.observe(&Observation {
            at: self.now,
            segment: SEGMENT,
            direction,
            body,
        });
    }

    /// Another node asks.
    fn other_asks(&mut self, key: BindingKey, node: MacAddr) {
        self.observe(
            Direction::Ingress,
            ObservationBody::Probe(ObservedProbe {
                target: key.ip,
                prober: node,
                unicast: false,
                has_sender_ip: true,
            }),
        );
    }

    /// Lets time pass and everything happen that is due, until this many milliseconds.
    fn run(&mut self, until: u64) {
        for _ in 0..1_000_000 {
            let outcomes = self.asker.take_outcomes(self.now);
            let millis = millis(self.now);
            self.outcomes
                .extend(outcomes.into_iter().map(|outcome| (millis, outcome)));
            while let Some(shot) = self.asker.next(self.now, &self.world) {
                self.shots.push((millis, shot));
                self.deliver(&shot);
            }
            match self.asker.next_deadline() {
                Some(next) if next <= at(until) => self.now = next.max(self.now),
                _ => {
                    self.now = at(until);
                    return;
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn deliver(&mut self, shot: &ScheduledProbe) {
        let unicast = shot.question.to.is_some();
        if self.seen {
            self.observe(
                Direction::Egress,
                ObservationBody::Probe(ObservedProbe {
                    target: shot.key.ip,
                    prober: HOST,
                    unicast,
                    has_sender_ip: true,
                }),
            );
        }
        let owners = self.owners.get(&shot.key).cloned().unwrap_or_default();
        for mac in owners {
            if shot.question.to.is_none_or(|to| to == mac) {
                self.observe(
                    Direction::Ingress,
                    ObservationBody::Claim(answer(shot.key, mac, self.now)),
                );
            }
        }
    }

    fn times(&self) -> Vec<u64> {
        self.shots.iter().map(|&(at, _)| at).collect()
    }
}

fn answer(key: BindingKey, mac: MacAddr, asked: Timestamp) -> Claim {
    Claim {
        ip: key.ip,
        mac,
        eth_src: mac,
        form: ClaimFlags {
            reply: true,
            announcement: false,
            unicast: true,
        },
        reply: Some(ProbeReply {
            asker: HOST,
            to_probe: true,
            request: Some(RequestId(asked)),
        }),
        previous: None,
        rate_limited: false,
    }
}

fn wish(
    key: BindingKey,
    purpose: ProbePurpose,
    round: u8,
    window: [u64; 2],
    to: &[MacAddr],
) -> ProbeRequest {
    ProbeRequest {
        key,
        purpose,
        round,
        requested_for: at(0),
        earliest: at(window[0]),
        latest: at(window[1]),
        to: to.to_vec(),
    }
}

fn confirmation(key: BindingKey) -> [ProbeRequest; 2] {
    let round = |round, window| wish(key, ProbePurpose::Confirmation, round, window, &[A, B]);
    [round(0, [1_000, 2_000]), round(1, [3_000, 4_000])]
}

fn answers(outcomes: &[(u64, ProbeOutcome)]) -> Vec<(ProbePurpose, u8, Vec<MacAddr>)> {
    let answers = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        ProbeOutcome::Answered { ask, by } => Some((ask.purpose, ask.round, by.to_vec())),
        ProbeOutcome::NotProbed(_)
        | ProbeOutcome::NoFramesReceived(_)
        | ProbeOutcome::SilenceWithdrawn(_) => None,
    });
    answers.collect()
}

/// The most frames within any time of this length.
fn most_within(times: &[u64], length: u64) -> usize {
    let within = |from: u64| {
        times
            .iter()
            .filter(move |&&at| (from..from + length).contains(&at))
    };
    times
        .iter()
        .map(|&from| within(from).count())
        .max()
        .unwrap_or(0)
}

#[test]
fn a_pending_move_is_asked_about_twice_in_its_windows_by_unicast_from_our_mac() {
    let mut lab = Lab::new();
    lab.owners.insert(key(80), vec![A, B]);
    lab.plan_all(confirmation(key(80)));
    lab.run(10_000);
    let to: Vec<_> = lab.shots.iter().map(|(_, shot)| shot.question.to).collect();
    assert_eq!(to, [Some(A), Some(B), Some(A), Some(B)]);
    for (at, shot) in &lab.shots {
        assert_eq!((shot.question.asker, shot.question.from), (HOST, None));
        assert!(
            (1_000..2_300).contains(at) || (3_000..4_300).contains(at),
            "{at}"
        );
    }
    assert_eq!(
        answers(&lab.outcomes),
        [
            (ProbePurpose::Confirmation, 0, vec![A, B]),
            (ProbePurpose::Confirmation, 1, vec![A, B])
        ]
    );
    let (last, _) = lab.outcomes[1];
    assert!(last < 4_300, "answered by all, it does not wait: {last}");
}

#[test]
fn who_does_not_answer_within_a_second_has_not_answered() {
    let mut lab = Lab::new();
    lab.owners.insert(key(80), vec![B]);
    lab.plan_all(confirmation(key(80)));
    lab.run(10_000);
    assert_eq!(
        answers(&lab.outcomes),
        [
            (ProbePurpose::Confirmation, 0, vec![B]),
            (ProbePurpose::Confirmation, 1, vec![B])
        ]
    );
    assert!(lab.outcomes[1].0 < 5_500);
}

#[test]
fn no_second_has_more_than_five_frames_whatever_is_wished() {
    let mut lab = Lab::new();
    for last in 1..250 {
        lab.plan_all(confirmation(key(last)));
    }
    lab.care(&(1..250).map(key).collect::<Vec<_>>());
    lab.run(300_000);
    assert!(lab.shots.len() > 1_000);
    assert!(most_within(&lab.times(), 1_000) <= 5);
}

#[test]
fn confirmation_goes_before_resolution_and_that_before_care() {
    let mut lab = Lab::new();
    lab.care(&(1..100).map(key).collect::<Vec<_>>());
    lab.now = at(100_000);
    for last in 1..10 {
        lab.schedule(wish(
            key(100 + last),
            ProbePurpose::Resolution,
            0,
            [0, 1],
            &[],
        ));
        lab.schedule(wish(
            key(200 + last),
            ProbePurpose::Confirmation,
            0,
            [0, 1],
            &[B],
        ));
    }
    lab.run(160_000);
    let purposes: Vec<_> = lab.shots.iter().map(|(_, shot)| shot.purpose).collect();
    assert!(purposes.is_sorted(), "{purposes:?}");
    assert!(
        purposes
            .iter()
            .filter(|&&purpose| purpose == ProbePurpose::Periodic)
            .count()
            > 50
    );
}

#[test]
fn what_does_not_fit_is_said_and_what_matters_more_takes_its_place() {
    let mut lab = Lab::new();
    let address = |number: u16| BindingKey {
        ip: Ipv4Addr::from(0xc633_0000 | u32::from(number)).into(),
        ..key(0)
    };
    for number in 0..1_100 {
        lab.schedule(wish(
            address(number),
            ProbePurpose::Resolution,
            0,
            [0, 1],
            &[],
        ));
    }
    let dropped = lab.asker.counts().not_sent(NotSentReason::QueueFull);
    assert_eq!(dropped, 1_100 - 1_024);
    lab.schedule(wish(key(80), ProbePurpose::Confirmation, 0, [0, 1], &[A]));
    assert_eq!(
        lab.asker.counts().not_sent(NotSentReason::QueueFull),
        dropped + 1
    );
    lab.now = at(1);
    lab.run(10);
    assert_eq!(lab.shots[0].1.key, key(80));
    let unasked = lab
        .outcomes
        .iter()
        .filter(|(_, it)| matches!(it, ProbeOutcome::NotProbed(_)));
    assert_eq!(
        unasked.count() as u64,
        dropped + 1,
        "detection is told of each"
    );
}

#[test]
fn what_is_not_wanted_any_more_is_not_asked() {
    let mut lab = Lab::new();
    lab.plan_all(confirmation(key(80)));
    lab.world.borrow_mut().unwanted = true;
    lab.run(10_000);
    assert_eq!(lab.shots, []);
    assert_eq!(lab.asker.counts().not_sent(NotSentReason::Obsolete), 2);
}

#[test]
fn the_same_wish_twice_is_one_and_a_later_one_takes_its_place() {
    let mut lab = Lab::new();
    let [first, _] = confirmation(key(80));
    lab.schedule(first.clone());
    lab.schedule(first.clone());
    assert_eq!(lab.asker.counts().not_sent(NotSentReason::Obsolete), 0);
    lab.schedule(ProbeRequest {
        requested_for: at(500),
        ..first
    });
    assert_eq!(lab.asker.counts().not_sent(NotSentReason::Obsolete), 1);
    lab.run(10_000);
    assert_eq!(lab.shots.len(), 2, "one round to two");
}

#[test]
fn after_a_newcomers_probe_nobody_is_asked_for_ten_seconds_and_then_is() {
    let mut lab = Lab::new();
    lab.world.borrow_mut().probed.insert(key(80), at(900));
    lab.schedule(wish(
        key(80),
        ProbePurpose::Resolution,
        0,
        [1_000, 2_000],
        &[],
    ));
    lab.care(&[key(80)]);
    lab.run(400_000);
    assert!(lab.times()[0] >= 10_900, "{:?}", lab.times());
    assert!(lab.asker.counts().not_sent(NotSentReason::RecentlyStarted) >= 1);
    let asked: Vec<_> = lab.shots.iter().map(|(_, shot)| shot.purpose).collect();
    assert!(asked.contains(&ProbePurpose::Resolution) && asked.contains(&ProbePurpose::Periodic));
}

#[test]
fn where_this_host_may_not_ask_detection_is_told_so() {
    for reason in [NotSentReason::OffLink, NotSentReason::LinkDown] {
        let mut lab = Lab::new();
        lab.world.borrow_mut().place = Some(reason);
        let ask = wish(key(80), ProbePurpose::Resolution, 0, [0, 1], &[]);
        lab.schedule(ask.clone());
        lab.care(&[key(81)]);
        lab.run(100_000);
        assert_eq!(lab.shots, []);
        let outcomes: Vec<_> = lab.outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [&ProbeOutcome::NotProbed(ask)]);
        assert!(lab.asker.counts().not_sent(reason) >= 2);
    }
}

#[test]
fn a_frame_that_the_kernel_did_not_send_is_counted_as_such() {
    let mut lab = Lab::new();
    let ask = wish(key(80), ProbePurpose::Local, 0, [0, 1], &[A]);
    lab.schedule(ask.clone());
    lab.now = at(10);
    let shot = lab.asker.next(lab.now, &lab.world).unwrap();
    lab.asker.send_failed(&shot, lab.now);
    let counts = *lab.asker.counts();
    assert_eq!(counts.sent(ProbePurpose::Local), 0);
    assert_eq!(counts.not_sent(NotSentReason::SendFailed), 1);
    assert_eq!(
        lab.asker.take_outcomes(lab.now),
        [ProbeOutcome::NotProbed(ask)]
    );
}

#[test]
fn silence_after_a_question_that_was_not_seen_to_go_says_nothing() {
    let mut lab = Lab::new();
    lab.seen = false;
    lab.schedule(wish(key(80), ProbePurpose::Resolution, 0, [0, 1], &[]));
    lab.run(5_000);
    assert_eq!(answers(&lab.outcomes), []);
    assert_eq!(
        lab.asker.counts().not_sent(NotSentReason::NoFramesReceived),
        1
    );
}

#[test]
fn an_answer_that_the_kernel_held_back_counts_through_the_next_claim() {
    let mut lab = Lab::new();
    lab.schedule(wish(key(80), ProbePurpose::Resolution, 0, [10, 11], &[]));
    lab.run(100);
    // The kernel sees the question a little after it was put.
    let asked = at(lab.times()[0] + 1);
    let mut claim = answer(key(80), A, asked);
    claim.previous = Some(probe_detect::PreviousClaim {
        at: lab.now,
        mac: B,
        form: claim.form,
        direction: Direction::Ingress,
        request: Some(RequestId(asked)),
    });
    lab.observe(Direction::Ingress, ObservationBody::Claim(claim));
    // An answer to an earlier question is none.
    let earlier = answer(key(80), OTHER_NODE, at(lab.times()[0] - 1));
    lab.observe(Direction::Ingress, ObservationBody::Claim(earlier));
    lab.run(5_000);
    assert_eq!(
        answers(&lab.outcomes),
        [(ProbePurpose::Resolution, 0, vec![A, B])]
    );
}

#[test]
fn each_address_that_matters_is_asked_about_within_a_minute_and_then_every_five() {
    let mut lab = Lab::new();
    let keys: Vec<_> = (1..21).map(key).collect();
    lab.owners = keys.iter().map(|&key| (key, vec![A])).collect();
    lab.care(&keys);
    lab.run(3_600_000);
    for key in keys {
        let of_key = lab.shots.iter().filter(|(_, shot)| shot.key == key);
        let times: Vec<_> = of_key.map(|&(at, _)| at).collect();
        assert!(times[0] < 62_000, "{times:?}");
        for pair in times.windows(2) {
            assert!(
                (239_000..364_000).contains(&(pair[1] - pair[0])),
                "{times:?}"
            );
        }
    }
    assert!(lab.shots.iter().all(|(_, shot)| shot.question.to.is_none()));
}

#[test]
fn a_probe_of_another_agent_postpones_the_own_one_at_most_to_the_end_of_the_turn() {
    let mut lab = Lab::new();
    lab.owners.insert(key(80), vec![A]);
    lab.care(&[key(80)]);
    lab.run(100_000);
    let before = lab.shots.len();
    for minute in 2..5 {
        lab.run(minute * 60_000);
        lab.other_asks(key(80), OTHER_NODE);
    }
    // Two intervals of 300 s, of which at least three quarters are left to others.
    lab.run(450_000);
    assert_eq!(lab.shots.len(), before);
    assert!(lab.asker.counts().not_sent(NotSentReason::NotSelected) > 0);
    lab.run(662_000);
    assert!(lab.shots.len() > before);
}

#[test]
fn the_leader_probes_every_address_of_the_cluster_whoever_else_does() {
    let mut lab = Lab::with(&ProbeSchedulerConfig {
        fleet: Some(5_000),
        ..ProbeSchedulerConfig::default()
    });
    let keys: Vec<_> = (1..21).map(key).collect();
    let gateway = key(254);
    lab.owners = keys.iter().map(|&key| (key, vec![A])).collect();
    lab.owners.insert(gateway, vec![B]);
    lab.asker.set_leading(true);
    lab.set_tracked(&keys, true);
    for minute in 1..=10 {
        lab.run(minute * 60_000);
        for &key in &keys {
            lab.other_asks(key, OTHER_NODE);
        }
    }
    for key in &keys {
        let of_key = lab.shots.iter().filter(|(_, shot)| shot.key == *key);
        // First within a minute, then every 240 to 360 s.
        assert!((2..=3).contains(&of_key.count()), "{key:?}");
    }
    let before = lab.shots.len();
    lab.asker.set_leading(false);
    lab.run(1_800_000);
    let since = lab.shots.len() - before;
    assert!(since < 5, "the lot decides again: {since}");
}

#[test]
fn an_address_of_the_cluster_is_given_a_minute_before_it_is_first_asked_about() {
    let mut lab = Lab::new();
    let keys: Vec<_> = (1..21).map(key).collect();
    lab.set_tracked(&keys, true);
    lab.run(59_000);
    assert_eq!(lab.shots.len(), 0);
    lab.run(130_000);
    assert!(lab.shots.len() >= 20);
}

#[test]
fn an_address_that_two_questions_leave_unanswered_is_silent_until_somebody_answers() {
    let mut lab = Lab::new();
    lab.care(&[key(80)]);
    lab.run(1);
    let silent = |lab: &Lab| {
        answers(&lab.outcomes)
            .iter()
            .filter(|it| it.2.is_empty())
            .count()
    };
    // Others are alive: they ask for each other.
    for second in 1..80 {
        lab.run(second * 1_000);
        lab.observe(
            Direction::Ingress,
            ObservationBody::Claim(answer(key(81), B, lab.now)),
        );
    }
    assert_eq!(lab.shots.len(), 2, "{:?}", lab.shots);
    assert_eq!(silent(&lab), 1);
    let [first, second] = lab.times()[..] else {
        panic!("two questions")
    };
    assert!((1_000..5_000).contains(&(second - first)));
    lab.run(500_000);
    assert_eq!(
        (silent(&lab), lab.shots.len()),
        (1, 3),
        "known, it is asked once a turn"
    );
    lab.owners.insert(key(80), vec![A]);
    lab.run(900_000);
    assert_eq!(answers(&lab.outcomes).last().unwrap().2, [A]);
}

#[test]
fn where_nothing_at_all_is_heard_a_witness_is_asked_before_an_address_is_called_silent() {
    for alive in [false, true] {
        let mut lab = Lab::new();
        lab.care(&[key(80)]);
        if alive {
            lab.owners.insert(key(81), vec![B]);
        }
        let (mut second, mut witnessed) = (0, false);
        while second < 75 {
            second += 1;
            lab.run(second * 1_000);
            let mute = |(_, outcome): &(u64, ProbeOutcome)| {
                matches!(outcome, ProbeOutcome::NoFramesReceived(_))
            };
            if !witnessed && lab.outcomes.iter().any(mute) {
                assert_eq!(answers(&lab.outcomes), []);
                lab.asker.probe_once(key(81), lab.now);
                witnessed = true;
            }
        }
        assert!(witnessed);
        let silent = |reply: &(ProbePurpose, u8, Vec<MacAddr>)| reply.1 == 1 && reply.2.is_empty();
        assert_eq!(answers(&lab.outcomes).iter().any(silent), alive);
    }
}

#[test]
fn in_a_large_fleet_a_lot_decides_and_both_rounds_go_with_it() {
    let mut asked = 0;
    for seed in 0..1_000 {
        let config = ProbeSchedulerConfig {
            fleet: Some(100),
            ..ProbeSchedulerConfig::default()
        };
        let mut lab = Lab::with(&config);
        lab.asker = ProbeScheduler::new(&config, seed);
        lab.plan_all(confirmation(key(80)));
        lab.schedule(wish(key(81), ProbePurpose::Local, 0, [0, 1], &[A]));
        lab.run(10_000);
        let frames = lab.shots.len() - 1;
        assert!(
            frames == 0 || frames == 4,
            "its own address it always asks about: {frames}"
        );
        asked += usize::from(frames == 4);
    }
    assert!(
        (15..50).contains(&asked),
        "about three in a hundred: {asked}"
    );
}

#[test]
fn more_addresses_than_it_cares_for_are_counted() {
    let mut lab = Lab::new();
    let keys = (0..20_000_u32).map(|number| BindingKey {
        ip: Ipv4Addr::from(0x0a00_0000 + number).into(),
        ..key(0)
    });
    let keys: Vec<_> = keys.collect();
    lab.care(&keys);
    lab.care(&keys);
    let too_many = lab.asker.counts().not_sent(NotSentReason::TooMany);
    assert_eq!(too_many, 20_000 - 16_384);
}

#[test]
fn a_clock_that_was_set_back_leaves_nothing_waiting_for_ever() {
    let mut lab = Lab::new();
    lab.owners.insert(key(80), vec![A]);
    lab.care(&[key(80)]);
    lab.now = at(10_000_000);
    lab.run(10_500_000);
    let before = lab.shots.len();
    assert!(before > 0);
    lab.now = at(0);
    lab.schedule(wish(key(81), ProbePurpose::Resolution, 0, [0, 1], &[]));
    lab.run(400_000);
    assert!(lab.shots.len() > before + 1);
}
