//! Tests of the scheduler, one rule each.

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

/// The time `millis` milliseconds after an arbitrary start.
fn at(millis: u64) -> Timestamp {
    Timestamp((1_000_000 + millis) * 1_000_000)
}

fn millis(time: Timestamp) -> u64 {
    time.0 / 1_000_000 - 1_000_000
}

#[derive(Default)]
struct TestView {
    is_obsolete: bool,
    not_sent: Option<NotSentReason>,
    probed: HashMap<BindingKey, Timestamp>,
}

impl DetectorView for RefCell<TestView> {
    fn is_wanted(&self, _: &ProbeRequest) -> bool {
        !self.borrow().is_obsolete
    }

    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        let probed = self.borrow().probed.get(key).copied();
        let until = probed.map(|at| at + std::time::Duration::from_secs(10));
        until.filter(|&until| until > now)
    }

    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        self.borrow().not_sent.map_or(
            Ok(SourceInterface {
                segment: key.segment,
                mac: HOST,
            }),
            Err,
        )
    }
}

/// A scheduler on a simulated network.
struct SchedulerTest {
    scheduler: ProbeScheduler,
    view: RefCell<TestView>,
    /// The MACs that reply for each address.
    owners: HashMap<BindingKey, Vec<MacAddr>>,
    now: Timestamp,
    sent: Vec<(u64, ScheduledProbe)>,
    outcomes: Vec<(u64, ProbeOutcome)>,
    /// Whether the egress hook observes our own frames.
    is_observed: bool,
}

impl SchedulerTest {
    fn new() -> Self {
        Self::with(&ProbeSchedulerConfig::default())
    }

    fn with(config: &ProbeSchedulerConfig) -> Self {
        Self {
            scheduler: ProbeScheduler::new(config, 7),
            view: RefCell::default(),
            owners: HashMap::new(),
            now: at(0),
            sent: Vec::new(),
            outcomes: Vec::new(),
            is_observed: true,
        }
    }

    fn schedule(&mut self, request: ProbeRequest) {
        self.scheduler.schedule(request, self.now);
    }

    fn schedule_all(&mut self, requests: impl IntoIterator<Item = ProbeRequest>) {
        requests
            .into_iter()
            .for_each(|request| self.schedule(request));
    }

    fn track(&mut self, keys: &[BindingKey]) {
        self.set_tracked(keys, false);
    }

    fn set_tracked(&mut self, keys: &[BindingKey], from_cluster: bool) {
        let targets = keys.iter().map(|&key| TrackedTarget { key, from_cluster });
        self.scheduler.set_tracked(targets, self.now);
    }

    fn observe(&mut self, direction: Direction, body: ObservationBody) {
        self.scheduler.observe(&Observation {
            at: self.now,
            segment: SEGMENT,
            direction,
            body,
        });
    }

    /// Another agent probes an address.
    fn other_probes(&mut self, key: BindingKey, node: MacAddr) {
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

    /// Runs the scheduler until `until` milliseconds after the start.
    fn run(&mut self, until: u64) {
        for _ in 0..1_000_000 {
            let outcomes = self.scheduler.take_outcomes(self.now);
            let millis = millis(self.now);
            self.outcomes
                .extend(outcomes.into_iter().map(|outcome| (millis, outcome)));
            while let Some(scheduled) = self.scheduler.next(self.now, &self.view) {
                self.sent.push((millis, scheduled));
                self.deliver(&scheduled);
            }
            match self.scheduler.next_deadline() {
                Some(next) if next <= at(until) => self.now = next.max(self.now),
                _ => {
                    self.now = at(until);
                    return;
                }
            }
        }
        panic!("the scheduler does not become idle");
    }

    fn deliver(&mut self, scheduled: &ScheduledProbe) {
        let unicast = scheduled.probe.destination.is_some();
        if self.is_observed {
            self.observe(
                Direction::Egress,
                ObservationBody::Probe(ObservedProbe {
                    target: scheduled.key.ip,
                    prober: HOST,
                    unicast,
                    has_sender_ip: true,
                }),
            );
        }
        let owners = self.owners.get(&scheduled.key).cloned().unwrap_or_default();
        for mac in owners {
            if scheduled.probe.destination.is_none_or(|to| to == mac) {
                self.observe(
                    Direction::Ingress,
                    ObservationBody::Claim(reply(scheduled.key, mac, self.now)),
                );
            }
        }
    }

    fn times(&self) -> Vec<u64> {
        self.sent.iter().map(|&(at, _)| at).collect()
    }
}

fn reply(key: BindingKey, mac: MacAddr, requested_at: Timestamp) -> Claim {
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
            requester: HOST,
            to_probe: true,
            request: Some(RequestId(requested_at)),
        }),
        previous: None,
        rate_limited: false,
    }
}

fn request(
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
    let round = |round, window| request(key, ProbePurpose::Confirmation, round, window, &[A, B]);
    [round(0, [1_000, 2_000]), round(1, [3_000, 4_000])]
}

fn completed(outcomes: &[(u64, ProbeOutcome)]) -> Vec<(ProbePurpose, u8, Vec<MacAddr>)> {
    let completed = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        ProbeOutcome::Completed { request, replied } => {
            Some((request.purpose, request.round, replied.to_vec()))
        }
        ProbeOutcome::NotProbed(_)
        | ProbeOutcome::NoFramesReceived(_)
        | ProbeOutcome::SilenceWithdrawn(_) => None,
    });
    completed.collect()
}

/// The maximum number of frames in any window of this length.
fn max_in_window(times: &[u64], length: u64) -> usize {
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
fn a_pending_move_is_probed_twice_in_its_windows_by_unicast_from_our_mac() {
    let mut test = SchedulerTest::new();
    test.owners.insert(key(80), vec![A, B]);
    test.schedule_all(confirmation(key(80)));
    test.run(10_000);
    let to: Vec<_> = test
        .sent
        .iter()
        .map(|(_, scheduled)| scheduled.probe.destination)
        .collect();
    assert_eq!(to, [Some(A), Some(B), Some(A), Some(B)]);
    for (at, scheduled) in &test.sent {
        assert_eq!(
            (scheduled.probe.sender_mac, scheduled.probe.sender_ip),
            (HOST, None)
        );
        assert!(
            (1_000..2_300).contains(at) || (3_000..4_300).contains(at),
            "{at}"
        );
    }
    assert_eq!(
        completed(&test.outcomes),
        [
            (ProbePurpose::Confirmation, 0, vec![A, B]),
            (ProbePurpose::Confirmation, 1, vec![A, B])
        ]
    );
    let (last, _) = test.outcomes[1];
    assert!(last < 4_300, "after all replies, the round ends: {last}");
}

#[test]
fn a_host_that_does_not_reply_within_a_second_counts_as_silent() {
    let mut test = SchedulerTest::new();
    test.owners.insert(key(80), vec![B]);
    test.schedule_all(confirmation(key(80)));
    test.run(10_000);
    assert_eq!(
        completed(&test.outcomes),
        [
            (ProbePurpose::Confirmation, 0, vec![B]),
            (ProbePurpose::Confirmation, 1, vec![B])
        ]
    );
    assert!(test.outcomes[1].0 < 5_500);
}

#[test]
fn no_second_has_more_than_five_frames_for_any_requests() {
    let mut test = SchedulerTest::new();
    for last in 1..250 {
        test.schedule_all(confirmation(key(last)));
    }
    test.track(&(1..250).map(key).collect::<Vec<_>>());
    test.run(300_000);
    assert!(test.sent.len() > 1_000);
    assert!(max_in_window(&test.times(), 1_000) <= 5);
}

#[test]
fn confirmation_precedes_resolution_and_resolution_precedes_periodic_probing() {
    let mut test = SchedulerTest::new();
    test.track(&(1..100).map(key).collect::<Vec<_>>());
    test.now = at(100_000);
    for last in 1..10 {
        test.schedule(request(
            key(100 + last),
            ProbePurpose::Resolution,
            0,
            [0, 1],
            &[],
        ));
        test.schedule(request(
            key(200 + last),
            ProbePurpose::Confirmation,
            0,
            [0, 1],
            &[B],
        ));
    }
    test.run(160_000);
    let purposes: Vec<_> = test
        .sent
        .iter()
        .map(|(_, scheduled)| scheduled.purpose)
        .collect();
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
fn requests_beyond_the_queue_are_reported_and_replaced_by_those_of_higher_priority() {
    let mut test = SchedulerTest::new();
    let address = |number: u16| BindingKey {
        ip: Ipv4Addr::from(0xc633_0000 | u32::from(number)).into(),
        ..key(0)
    };
    for number in 0..1_100 {
        test.schedule(request(
            address(number),
            ProbePurpose::Resolution,
            0,
            [0, 1],
            &[],
        ));
    }
    let dropped = test.scheduler.counts().not_sent(NotSentReason::QueueFull);
    assert_eq!(dropped, 1_100 - 1_024);
    test.schedule(request(
        key(80),
        ProbePurpose::Confirmation,
        0,
        [0, 1],
        &[A],
    ));
    assert_eq!(
        test.scheduler.counts().not_sent(NotSentReason::QueueFull),
        dropped + 1
    );
    test.now = at(1);
    test.run(10);
    assert_eq!(test.sent[0].1.key, key(80));
    let not_probed = test
        .outcomes
        .iter()
        .filter(|(_, it)| matches!(it, ProbeOutcome::NotProbed(_)));
    assert_eq!(
        not_probed.count() as u64,
        dropped + 1,
        "each is reported to the detector"
    );
}

#[test]
fn obsolete_requests_are_not_probed() {
    let mut test = SchedulerTest::new();
    test.schedule_all(confirmation(key(80)));
    test.view.borrow_mut().is_obsolete = true;
    test.run(10_000);
    assert_eq!(test.sent, []);
    assert_eq!(test.scheduler.counts().not_sent(NotSentReason::Obsolete), 2);
}

#[test]
fn equal_requests_are_deduplicated_and_a_later_one_replaces_an_earlier_one() {
    let mut test = SchedulerTest::new();
    let [first, _] = confirmation(key(80));
    test.schedule(first.clone());
    test.schedule(first.clone());
    assert_eq!(test.scheduler.counts().not_sent(NotSentReason::Obsolete), 0);
    test.schedule(ProbeRequest {
        requested_for: at(500),
        ..first
    });
    assert_eq!(test.scheduler.counts().not_sent(NotSentReason::Obsolete), 1);
    test.run(10_000);
    assert_eq!(test.sent.len(), 2, "one round with two destinations");
}

#[test]
fn after_a_booting_hosts_probe_an_address_is_not_probed_for_ten_seconds() {
    let mut test = SchedulerTest::new();
    test.view.borrow_mut().probed.insert(key(80), at(900));
    test.schedule(request(
        key(80),
        ProbePurpose::Resolution,
        0,
        [1_000, 2_000],
        &[],
    ));
    test.track(&[key(80)]);
    test.run(400_000);
    assert!(test.times()[0] >= 10_900, "{:?}", test.times());
    assert!(test.scheduler.counts().not_sent(NotSentReason::BootingHost) >= 1);
    let purposes: Vec<_> = test
        .sent
        .iter()
        .map(|(_, scheduled)| scheduled.purpose)
        .collect();
    assert!(
        purposes.contains(&ProbePurpose::Resolution) && purposes.contains(&ProbePurpose::Periodic)
    );
}

#[test]
fn requests_that_this_host_cannot_probe_are_reported_to_the_detector() {
    for reason in [NotSentReason::OffLink, NotSentReason::LinkDown] {
        let mut test = SchedulerTest::new();
        test.view.borrow_mut().not_sent = Some(reason);
        let request = request(key(80), ProbePurpose::Resolution, 0, [0, 1], &[]);
        test.schedule(request.clone());
        test.track(&[key(81)]);
        test.run(100_000);
        assert_eq!(test.sent, []);
        let outcomes: Vec<_> = test.outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [&ProbeOutcome::NotProbed(request)]);
        assert!(test.scheduler.counts().not_sent(reason) >= 2);
    }
}

#[test]
fn a_frame_that_the_kernel_did_not_send_is_counted() {
    let mut test = SchedulerTest::new();
    let request = request(key(80), ProbePurpose::Local, 0, [0, 1], &[A]);
    test.schedule(request.clone());
    test.now = at(10);
    let scheduled = test.scheduler.next(test.now, &test.view).unwrap();
    test.scheduler.send_failed(&scheduled, test.now);
    let counts = *test.scheduler.counts();
    assert_eq!(counts.sent(ProbePurpose::Local), 0);
    assert_eq!(counts.not_sent(NotSentReason::SendFailed), 1);
    assert_eq!(
        test.scheduler.take_outcomes(test.now),
        [ProbeOutcome::NotProbed(request)]
    );
}

#[test]
fn a_missing_reply_to_a_probe_that_was_not_observed_proves_nothing() {
    let mut test = SchedulerTest::new();
    test.is_observed = false;
    test.schedule(request(key(80), ProbePurpose::Resolution, 0, [0, 1], &[]));
    test.run(5_000);
    assert_eq!(completed(&test.outcomes), []);
    assert_eq!(
        test.scheduler.counts().not_sent(NotSentReason::NotObserved),
        1
    );
}

#[test]
fn a_suppressed_reply_counts_as_the_previous_claim_of_the_next_event() {
    let mut test = SchedulerTest::new();
    test.schedule(request(key(80), ProbePurpose::Resolution, 0, [10, 11], &[]));
    test.run(100);
    // The egress hook observes the probe a little after it was sent.
    let requested_at = at(test.times()[0] + 1);
    let mut claim = reply(key(80), A, requested_at);
    claim.previous = Some(probe_detect::PreviousClaim {
        at: test.now,
        mac: B,
        form: claim.form,
        direction: Direction::Ingress,
        request: Some(RequestId(requested_at)),
    });
    test.observe(Direction::Ingress, ObservationBody::Claim(claim));
    // A reply to an earlier probe does not count.
    let earlier = reply(key(80), OTHER_NODE, at(test.times()[0] - 1));
    test.observe(Direction::Ingress, ObservationBody::Claim(earlier));
    test.run(5_000);
    assert_eq!(
        completed(&test.outcomes),
        [(ProbePurpose::Resolution, 0, vec![A, B])]
    );
}

#[test]
fn each_tracked_address_is_probed_within_a_minute_and_then_every_five_minutes() {
    let mut test = SchedulerTest::new();
    let keys: Vec<_> = (1..21).map(key).collect();
    test.owners = keys.iter().map(|&key| (key, vec![A])).collect();
    test.track(&keys);
    test.run(3_600_000);
    for key in keys {
        let of_key = test
            .sent
            .iter()
            .filter(|(_, scheduled)| scheduled.key == key);
        let times: Vec<_> = of_key.map(|&(at, _)| at).collect();
        assert!(times[0] < 62_000, "{times:?}");
        for pair in times.windows(2) {
            assert!(
                (239_000..364_000).contains(&(pair[1] - pair[0])),
                "{times:?}"
            );
        }
    }
    assert!(
        test.sent
            .iter()
            .all(|(_, scheduled)| scheduled.probe.destination.is_none())
    );
}

#[test]
fn a_probe_of_another_agent_postpones_the_own_one_at_most_to_the_end_of_the_turn() {
    let mut test = SchedulerTest::new();
    test.owners.insert(key(80), vec![A]);
    test.track(&[key(80)]);
    test.run(100_000);
    let before = test.sent.len();
    for minute in 2..5 {
        test.run(minute * 60_000);
        test.other_probes(key(80), OTHER_NODE);
    }
    // Two intervals of 300 s, of which at least three quarters are left to others.
    test.run(450_000);
    assert_eq!(test.sent.len(), before);
    assert!(test.scheduler.counts().not_sent(NotSentReason::NotSelected) > 0);
    test.run(662_000);
    assert!(test.sent.len() > before);
}

#[test]
fn the_leader_probes_every_address_of_the_cluster_even_if_others_do() {
    let mut test = SchedulerTest::with(&ProbeSchedulerConfig {
        fleet: Some(5_000),
        ..ProbeSchedulerConfig::default()
    });
    let keys: Vec<_> = (1..21).map(key).collect();
    let gateway = key(254);
    test.owners = keys.iter().map(|&key| (key, vec![A])).collect();
    test.owners.insert(gateway, vec![B]);
    test.scheduler.set_leading(true);
    test.set_tracked(&keys, true);
    for minute in 1..=10 {
        test.run(minute * 60_000);
        for &key in &keys {
            test.other_probes(key, OTHER_NODE);
        }
    }
    for key in &keys {
        let of_key = test
            .sent
            .iter()
            .filter(|(_, scheduled)| scheduled.key == *key);
        // First within a minute, then every 240 to 360 s.
        assert!((2..=3).contains(&of_key.count()), "{key:?}");
    }
    let before = test.sent.len();
    test.scheduler.set_leading(false);
    test.run(1_800_000);
    let since = test.sent.len() - before;
    assert!(since < 5, "selected at random again: {since}");
}

#[test]
fn an_address_of_the_cluster_is_first_probed_after_a_minute() {
    let mut test = SchedulerTest::new();
    let keys: Vec<_> = (1..21).map(key).collect();
    test.set_tracked(&keys, true);
    test.run(59_000);
    assert_eq!(test.sent.len(), 0);
    test.run(130_000);
    assert!(test.sent.len() >= 20);
}

#[test]
fn an_address_without_replies_to_two_probes_is_silent_until_a_host_replies() {
    let mut test = SchedulerTest::new();
    test.track(&[key(80)]);
    test.run(1);
    let silent = |test: &SchedulerTest| {
        completed(&test.outcomes)
            .iter()
            .filter(|it| it.2.is_empty())
            .count()
    };
    // Frames of other hosts are received.
    for second in 1..80 {
        test.run(second * 1_000);
        test.observe(
            Direction::Ingress,
            ObservationBody::Claim(reply(key(81), B, test.now)),
        );
    }
    assert_eq!(test.sent.len(), 2, "{:?}", test.sent);
    assert_eq!(silent(&test), 1);
    let [first, second] = test.times()[..] else {
        panic!("two probes")
    };
    assert!((1_000..5_000).contains(&(second - first)));
    test.run(500_000);
    assert_eq!(
        (silent(&test), test.sent.len()),
        (1, 3),
        "an address known to be silent is probed once a turn"
    );
    test.owners.insert(key(80), vec![A]);
    test.run(900_000);
    assert_eq!(completed(&test.outcomes).last().unwrap().2, [A]);
}

#[test]
fn if_no_frame_is_received_another_host_is_probed_before_an_address_counts_as_silent() {
    for is_connected in [false, true] {
        let mut test = SchedulerTest::new();
        test.track(&[key(80)]);
        if is_connected {
            test.owners.insert(key(81), vec![B]);
        }
        let (mut second, mut reference_probed) = (0, false);
        while second < 75 {
            second += 1;
            test.run(second * 1_000);
            let is_disconnected = |(_, outcome): &(u64, ProbeOutcome)| {
                matches!(outcome, ProbeOutcome::NoFramesReceived(_))
            };
            if !reference_probed && test.outcomes.iter().any(is_disconnected) {
                assert_eq!(completed(&test.outcomes), []);
                test.scheduler.probe_once(key(81), test.now);
                reference_probed = true;
            }
        }
        assert!(reference_probed);
        let silent = |reply: &(ProbePurpose, u8, Vec<MacAddr>)| reply.1 == 1 && reply.2.is_empty();
        assert_eq!(completed(&test.outcomes).iter().any(silent), is_connected);
    }
}

#[test]
fn in_a_large_fleet_agents_are_selected_at_random_for_both_rounds() {
    let mut selected = 0;
    for seed in 0..1_000 {
        let config = ProbeSchedulerConfig {
            fleet: Some(100),
            ..ProbeSchedulerConfig::default()
        };
        let mut test = SchedulerTest::with(&config);
        test.scheduler = ProbeScheduler::new(&config, seed);
        test.schedule_all(confirmation(key(80)));
        test.schedule(request(key(81), ProbePurpose::Local, 0, [0, 1], &[A]));
        test.run(10_000);
        let frames = test.sent.len() - 1;
        assert!(
            frames == 0 || frames == 4,
            "a conflict with its own address is always probed: {frames}"
        );
        selected += usize::from(frames == 4);
    }
    assert!(
        (15..50).contains(&selected),
        "about three in a hundred: {selected}"
    );
}

#[test]
fn tracked_addresses_beyond_the_maximum_are_counted() {
    let mut test = SchedulerTest::new();
    let keys = (0..20_000_u32).map(|number| BindingKey {
        ip: Ipv4Addr::from(0x0a00_0000 + number).into(),
        ..key(0)
    });
    let keys: Vec<_> = keys.collect();
    test.track(&keys);
    test.track(&keys);
    let too_many = test.scheduler.counts().not_sent(NotSentReason::TooMany);
    assert_eq!(too_many, 20_000 - 16_384);
}

#[test]
fn after_the_clock_is_set_back_probes_continue() {
    let mut test = SchedulerTest::new();
    test.owners.insert(key(80), vec![A]);
    test.track(&[key(80)]);
    test.now = at(10_000_000);
    test.run(10_500_000);
    let before = test.sent.len();
    assert!(before > 0);
    test.now = at(0);
    test.schedule(request(key(81), ProbePurpose::Resolution, 0, [0, 1], &[]));
    test.run(400_000);
    assert!(test.sent.len() > before + 1);
}
