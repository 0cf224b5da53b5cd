//! Properties of every input.

use std::{collections::BTreeSet, time::Duration};

use probe_common::{
    counter::Direction,
    wire::{BogusFrameReason, MacAddr, Vlan},
};
use probe_model::{BindingKey, BogusReason, Finding, FindingKind, Hint, Segment, Timestamp};
use proptest::prelude::*;

use super::{
    model::{Model, ReportedFinding},
    test_detector::*,
};
use crate::{
    BogusFrame, Claim, DetectConfig, Detector, HostFacts, IgnoreRule, Observation, ObservationBody,
    ObservedProbe, ProbeRequest,
};

/// Microseconds between two frames: the gaps at which the rules change, and some others.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => prop::sample::select(vec![0, 1, 80, 400 * MS, 999 * MS, S, 1_100 * MS, 3 * S]),
        4 => prop::sample::select(vec![5 * S, 10 * S - 1, 10 * S, 12 * S, 25 * S]),
        1 => prop::sample::select(vec![59 * S, 60 * S, 180 * S, 600 * S, 700 * S]),
        1 => 0..200 * S,
    ]
}

/// The kind of a claim.
#[derive(Clone, Copy, Debug)]
enum ClaimKind {
    Announces,
    AnnouncesByReply,
    AnnouncesByUnicast,
    Requests,
    /// A reply to a request that the client has just sent.
    Replies,
    /// A reply to the last request of the client.
    RepliesToo,
}

const CLAIM_KINDS: [ClaimKind; 6] = [
    ClaimKind::Announces,
    ClaimKind::AnnouncesByReply,
    ClaimKind::AnnouncesByUnicast,
    ClaimKind::Requests,
    ClaimKind::Replies,
    ClaimKind::RepliesToo,
];

/// A step of a scenario: the time since the last, who, about which address, how.
type Step = (u64, MacAddr, u8, ClaimKind);

fn steps(macs: &'static [MacAddr]) -> impl Strategy<Value = Vec<Step>> {
    let mac = prop::sample::select(macs);
    let how = prop::sample::select(&CLAIM_KINDS[..]);
    prop::collection::vec((gap(), mac, 80u8..82, how), 0..120)
}

/// The claims of a scenario, in time.
fn claims(steps: &[Step]) -> Vec<(u64, Claim)> {
    let (mut at, mut requested_at) = (0, [0, 0]);
    let mut claims = Vec::new();
    for &(gap, mac, last, how) in steps {
        at += gap;
        let requested_at = &mut requested_at[usize::from(last - 80)];
        let claim = match how {
            ClaimKind::Announces => announce(mac),
            ClaimKind::AnnouncesByReply => announce_by_reply(mac),
            ClaimKind::AnnouncesByUnicast => unicast_announcement(mac),
            ClaimKind::Requests => request_by(mac),
            ClaimKind::Replies => {
                *requested_at = at;
                reply_by(mac, at)
            }
            ClaimKind::RepliesToo => reply_by(mac, *requested_at),
        };
        claims.push((
            at,
            Claim {
                ip: ip(last),
                ..claim
            },
        ));
    }
    claims
}

fn run(claims: &[(u64, Claim)], config: DetectConfig) -> Vec<Finding> {
    let mut detector = TestDetector::with(config);
    for &(at, claim) in claims {
        detector.receive(at, claim);
    }
    let end = claims.last().map_or(0, |&(at, _)| at);
    detector.wait(end + 10_000 * S);
    detector.take()
}

fn reported(findings: &[Finding]) -> Vec<ReportedFinding> {
    let mut reported: Vec<_> = findings
        .iter()
        .map(|finding| (finding.at, finding.ip, finding.kind))
        .collect();
    // Findings about two addresses at one time are in no particular order.
    reported.sort();
    reported
}

proptest! {
    #[test]
    fn the_detector_finds_what_the_model_finds(steps in steps(&[A, B, C])) {
        let claims = claims(&steps);
        let mut model = Model::default();
        for (at, claim) in &claims {
            model.observe(time(*at), claim);
        }
        let end = claims.last().map_or(0, |&(at, _)| at);
        model.wait(time(end + 10_000 * S));
        model.reported.sort();
        prop_assert_eq!(reported(&run(&claims, DetectConfig::default())), model.reported);
    }

    #[test]
    fn the_detector_finds_what_the_model_finds_on_local_ignored_and_silent_addresses(
        steps in steps(&[A, B, HOST]),
        has_address: bool,
        ignored: bool,
        silent: bool,
    ) {
        let config = DetectConfig {
            silent_after: silent.then_some(Duration::from_secs(90)),
            tracked: vec!["192.0.2.0/24".parse().unwrap()],
            ignore: ignored
                .then(|| IgnoreRule {
                    network: "192.0.2.80/32".parse().unwrap(),
                    reason: "a test".into(),
                    expires: None,
                })
                .into_iter()
                .collect(),
            ..DetectConfig::default()
        };
        let mut detector = TestDetector::with(config.clone());
        let mut model = Model::default();
        model.config = config;
        model.local = has_address.then(|| (key().ip, HOST));
        // Without the address, HOST is a host like any other.
        if has_address {
            detector.host(0, true);
        }
        let claims = claims(&steps);
        for (at, claim) in &claims {
            // Long after this host got the address.
            let at = at + 10 * S;
            model.observe(time(at), claim);
            detector.receive(at, *claim);
        }
        let end = claims.last().map_or(0, |&(at, _)| at) + 10_000 * S;
        model.wait(time(end));
        detector.wait(end);
        model.reported.sort();
        prop_assert_eq!(reported(&detector.take()), model.reported);
    }

    #[test]
    fn the_detector_finds_the_denials_that_the_model_finds(
        steps in prop::collection::vec(
            (gap(), 0usize..4, 80u8..82, 0usize..3, prop::sample::select(vec![0, 50 * MS, S, S + 1])),
            0..60,
        ),
    ) {
        let hosts = [A, B, C, CLIENT];
        let (mut detector, mut model, mut at) = (TestDetector::new(), Model::default(), 0);
        for (gap, prober, last, owner, delay) in steps {
            let (prober, ip) = (hosts[prober], ip(last));
            at += gap;
            model.probe(time(at), ip, prober);
            let probe = ObservedProbe {
                target: ip,
                prober,
                unicast: false,
                has_sender_ip: false,
            };
            detector.observe(at, Direction::Ingress, SEGMENT, ObservationBody::Probe(probe));
            let reply = Claim {
                ip,
                ..reply_to_probe(prober, hosts[owner], at)
            };
            at += delay;
            model.observe(time(at), &reply);
            detector.receive(at, reply);
        }
        model.reported.sort();
        prop_assert_eq!(reported(&detector.take()), model.reported);
    }

    #[test]
    fn declared_macs_are_treated_as_one_mac(steps in steps(&[A, B, C])) {
        let config = DetectConfig {
            same_owner: vec![vec![A, B]],
            ..DetectConfig::default()
        };
        let claims = claims(&steps);
        let as_one: Vec<_> = claims
            .iter()
            .map(|&(at, claim)| {
                let mac = if claim.mac == B { A } else { claim.mac };
                (at, Claim { mac, eth_src: mac, ..claim })
            })
            .collect();
        prop_assert_eq!(
            reported(&run(&claims, config)),
            reported(&run(&as_one, DetectConfig::default()))
        );
    }

    #[test]
    fn behind_a_virtual_mac_only_two_masters_are_reported(steps in steps(&[V, A, B])) {
        let mut claims = claims(&steps);
        for last in [80, 81] {
            claims.insert(0, (0, Claim { ip: ip(last), ..announce(V) }));
        }
        for finding in run(&claims, DetectConfig::default()) {
            match finding.kind {
                FindingKind::NewBinding => {}
                FindingKind::Contested => {
                    let hints = [Hint::TwoMasters, Hint::RouterAndHost];
                    prop_assert!(finding.hint.is_some_and(|hint| hints.contains(&hint)));
                }
                kind => prop_assert!(false, "{kind:?}"),
            }
        }
    }

    #[test]
    fn ticks_change_nothing(steps in steps(&[A, B, V]), every in 1..20 * S) {
        let claims = claims(&steps);
        let mut detector = TestDetector::new();
        let mut now = 0;
        for &(at, claim) in &claims {
            // Not more than a few between two frames: the gaps are long.
            for tick in 1..5 {
                if now + tick * every < at {
                    detector.wait(now + tick * every);
                }
            }
            detector.receive(at, claim);
            now = at;
        }
        detector.wait(now + 10_000 * S);
        prop_assert_eq!(detector.take(), run(&claims, DetectConfig::default()));
    }

    #[test]
    fn a_claim_that_the_kernel_suppressed_counts_as_if_it_had_been_observed(
        steps in steps(&[A, B, C]),
        suppressed: u128,
    ) {
        let mut claims = claims(&steps);
        claims.retain(|(_, claim)| claim.ip == ip(80));
        // A carried claim is known by its time.
        for ((at, _), micros) in claims.iter_mut().zip(0..) {
            *at += micros;
        }
        // The kernel remembers one claim an address, so of two in a row the first is seen.
        let mut sparse: Vec<(u64, Claim)> = Vec::new();
        let mut carried = None;
        for (number, &(at, claim)) in claims.iter().enumerate() {
            // A requester is carried only where both claims reply to one request; so only the others.
            let last = number + 1 == claims.len();
            if suppressed >> number & 1 == 1 && carried.is_none() && !last && claim.reply.is_none() {
                carried = Some((claim, at));
                continue;
            }
            let claim = match carried.take() {
                Some((previous, at)) => after(previous, at, claim),
                None => claim,
            };
            sparse.push((at, claim));
        }
        let config = DetectConfig::default();
        prop_assert_eq!(run(&sparse, config.clone()), run(&claims, config));
    }

    #[test]
    fn the_same_configuration_again_changes_nothing(steps in steps(&[A, B, V]), again: u128) {
        let config = DetectConfig {
            can_probe: true,
            same_owner: vec![vec![C, HOST]],
            ..DetectConfig::default()
        };
        let claims = claims(&steps);
        let mut detector = TestDetector::with(config.clone());
        for (number, &(at, claim)) in claims.iter().enumerate() {
            if again >> number & 1 == 1 {
                detector.reconfigure(at, config.clone());
            }
            detector.receive(at, claim);
        }
        let end = claims.last().map_or(0, |&(at, _)| at);
        detector.wait(end + 10_000 * S);
        prop_assert_eq!(detector.take(), run(&claims, config));
    }

    #[test]
    fn what_was_declared_in_time_never_conflicts(steps in steps(&[A, B, C]), since in 0usize..120) {
        let declared = DetectConfig {
            same_owner: vec![vec![A, B, C]],
            ..DetectConfig::default()
        };
        let claims = claims(&steps);
        let mut detector = TestDetector::new();
        let since = since.min(claims.len());
        for &(at, claim) in &claims[..since] {
            detector.receive(at, claim);
        }
        let now = since.checked_sub(1).map_or(0, |last| claims[last].0);
        detector.reconfigure(now, declared);
        prop_assert_eq!(detector.inner.statistics().open_conflicts, 0);
        detector.take();
        for &(at, claim) in &claims[since..] {
            detector.receive(at, claim);
        }
        detector.wait(10_000_000 * S);
        let kinds = detector.kinds();
        prop_assert!(kinds.is_empty(), "{kinds:?}");
    }

    #[test]
    fn declared_owners_never_conflict(steps in steps(&[A, B, C])) {
        let config = DetectConfig {
            same_owner: vec![vec![A, B, C]],
            ..DetectConfig::default()
        };
        let mut findings = run(&claims(&steps), config);
        findings.retain(|finding| finding.kind != FindingKind::NewBinding);
        prop_assert!(findings.is_empty(), "{findings:#?}");
    }
}

/// An input of the detector.
#[derive(Clone, Debug)]
enum Input {
    Receive(u8, u8, bool, ClaimKind),
    Probe(u8, u8),
    Bogus(u8),
    Tick,
    /// This host has the addresses whose bit is set; the last one is a gateway, or a broadcast address.
    Learn(u8),
    /// Another configuration.
    Reconfigure(Box<DetectConfig>),
    /// A probe request, by number among those without replies, and the hosts that reply.
    Replies(usize, u8),
}

/// How the clock goes on.
#[derive(Clone, Copy, Debug)]
enum Clock {
    Forward(u64),
    Back(u64),
    To(u64),
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        40 => gap().prop_map(Clock::Forward),
        2 => gap().prop_map(Clock::Back),
        1 => prop::sample::select(vec![0, 1, u64::MAX, u64::MAX - 1, u64::MAX / 2]).prop_map(Clock::To),
    ]
}

/// Without the ignore list, by which conflicts open and end without a finding.
fn other_config() -> impl Strategy<Value = DetectConfig> {
    let sets = prop::collection::vec(prop::collection::vec(0u8..8, 2..4), 0..3);
    let numbers = (1usize..12, 2usize..9, 1usize..4, 1u64..120, 0u64..20);
    (sets, any::<(bool, bool, bool)>(), numbers).prop_map(
        |(sets, (can_probe, tracked, silent), (max_bindings, max_macs, returns, quiet, settle))| {
            DetectConfig {
                can_probe,
                max_bindings,
                max_macs,
                alternation_returns: returns,
                quiet_after: Duration::from_secs(quiet),
                settle: Duration::from_secs(settle),
                silent_after: silent.then_some(Duration::from_secs(quiet)),
                tracked: tracked
                    .then_some("192.0.2.0/31".parse().unwrap())
                    .into_iter()
                    .collect(),
                same_owner: sets
                    .iter()
                    .map(|set| set.iter().copied().map(host_owner).collect())
                    .collect(),
                ..DetectConfig::default()
            }
        },
    )
}

fn input() -> impl Strategy<Value = Input> {
    let how = || prop::sample::select(&CLAIM_KINDS[..]);
    prop_oneof![
        12 => (0u8..12, 0u8..6, any::<bool>(), how()).prop_map(|(mac, ip, out, how)| Input::Receive(mac, ip, out, how)),
        1 => (0u8..12, 0u8..6).prop_map(|(mac, ip)| Input::Probe(mac, ip)),
        1 => (0u8..12).prop_map(Input::Bogus),
        2 => Just(Input::Tick),
        1 => any::<u8>().prop_map(Input::Learn),
        1 => other_config().prop_map(|config| Input::Reconfigure(Box::new(config))),
        3 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, by)| Input::Replies(which.index(64), by)),
    ]
}

fn host_owner(number: u8) -> MacAddr {
    [A, B, C, V, V2, HOST, HOST_TOO, CLIENT][usize::from(number) % 8]
}

fn place(number: u8) -> BindingKey {
    BindingKey {
        segment: Segment {
            interface: 2,
            vlan: Vlan([u16::from(number % 2), 0]),
        },
        ip: ip(number / 2),
    }
}

/// More deadlines than one input can make due: until each of at most 11 conflicts expires, its inquiry is repeated every
/// five seconds or more, and there are a few others.
const MAX_DEADLINES: u64 = 11 * (600 / 5 + 30);

/// A detector with any input, and checks after each.
struct Chaos {
    detector: Detector,
    now: Timestamp,
    requested_at: Timestamp,
    probe_requests: Vec<ProbeRequest>,
    findings: Vec<Finding>,
    /// The addresses whose conflict was reported and has not ended.
    open: BTreeSet<BindingKey>,
    max_bindings: usize,
}

impl Chaos {
    fn new(config: DetectConfig) -> Self {
        Self {
            max_bindings: config.max_bindings,
            detector: Detector::new(config),
            now: time(0),
            requested_at: time(0),
            probe_requests: Vec::new(),
            findings: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    fn step(&mut self, clock: Clock, input: &Input) {
        let nanos = |micros: u64| Duration::from_micros(micros);
        self.now = match clock {
            Clock::Forward(by) => self.now + nanos(by),
            Clock::Back(by) => self.now - nanos(by),
            Clock::To(now) => Timestamp(now),
        };
        let mut findings = Vec::new();
        let before = self.detector.processed_deadlines();
        self.input(input, &mut findings);
        let processed = self.detector.processed_deadlines() - before;
        assert!(
            processed <= MAX_DEADLINES,
            "{processed} deadlines processed for {input:?}"
        );
        self.check(&findings);
        self.probe_requests
            .extend(self.detector.take_probe_requests());
        self.findings.append(&mut findings);
    }

    fn input(&mut self, input: &Input, findings: &mut Vec<Finding>) {
        let at = self.now;
        let mut observe = |key: BindingKey, direction, body| {
            let observation = Observation {
                at,
                segment: key.segment,
                direction,
                body,
            };
            self.detector.observe(&observation, findings);
        };
        match *input {
            Input::Reconfigure(ref config) => {
                self.detector
                    .reconfigure(DetectConfig::clone(config), at, findings);
                let kept = self.detector.statistics().bindings;
                // What may not be forgotten may be more than the new bound, but becomes no more.
                self.max_bindings = config.max_bindings.max(kept);
            }
            Input::Receive(mac, ip, out, how) => {
                let (mac, key) = (host_owner(mac), place(ip));
                let claim = match how {
                    ClaimKind::Announces => announce(mac),
                    ClaimKind::AnnouncesByReply => announce_by_reply(mac),
                    ClaimKind::AnnouncesByUnicast => unicast_announcement(mac),
                    ClaimKind::Requests => after(reply_by(B, 7), 7, request_by(mac)),
                    ClaimKind::Replies => {
                        self.requested_at = at;
                        reply_to_probe(HOST, mac, 7)
                    }
                    ClaimKind::RepliesToo => reply_by(mac, 7),
                };
                let reply = claim.reply.map(|mut reply| {
                    reply.request = Some(crate::RequestId(self.requested_at));
                    reply
                });
                let direction = if out {
                    Direction::Egress
                } else {
                    Direction::Ingress
                };
                observe(
                    key,
                    direction,
                    ObservationBody::Claim(Claim {
                        ip: key.ip,
                        reply,
                        ..claim
                    }),
                );
            }
            Input::Probe(mac, ip) => {
                let key = place(ip);
                let probe = ObservedProbe {
                    target: key.ip,
                    prober: host_owner(mac),
                    unicast: false,
                    has_sender_ip: false,
                };
                observe(key, Direction::Ingress, ObservationBody::Probe(probe));
            }
            Input::Bogus(mac) => {
                let frame = BogusFrame {
                    ip: ip(1),
                    mac: MacAddr::ZERO,
                    eth_src: host_owner(mac),
                    reason: BogusReason::Frame(BogusFrameReason::ShaZero),
                };
                observe(place(2), Direction::Ingress, ObservationBody::Bogus(frame));
            }
            Input::Tick => self.detector.tick(at, findings),
            Input::Learn(bits) => self.detector.learn(facts(bits), at, findings),
            Input::Replies(which, by) => {
                if which < self.probe_requests.len() {
                    let probe_request = self.probe_requests.swap_remove(which);
                    let by: Vec<_> = (0..8)
                        .filter(|bit| by >> bit & 1 == 1)
                        .map(host_owner)
                        .collect();
                    self.detector
                        .record_replies(&probe_request, at, &by, findings);
                } else {
                    self.detector.tick(at, findings);
                }
            }
        }
    }

    fn check(&mut self, findings: &[Finding]) {
        for finding in findings {
            let open = match finding.kind {
                FindingKind::Conflict => {
                    assert!(finding.owners.len() >= 2, "a conflict of one: {finding:#?}");
                    self.open.insert(finding.key());
                    true
                }
                FindingKind::ConflictQuiet => true,
                FindingKind::ConflictResolved | FindingKind::ConflictExpired => {
                    assert!(self.open.remove(&finding.key()), "ended, never opened");
                    false
                }
                FindingKind::NewBinding
                | FindingKind::Moved
                | FindingKind::Contested
                | FindingKind::ProbeDenied
                | FindingKind::BogusClaim
                | FindingKind::SourceMismatch
                | FindingKind::StaleAnnouncement
                | FindingKind::Silent => false,
            };
            assert_eq!(open, open && self.open.contains(&finding.key()));
            assert_eq!(
                finding.evidence.is_some(),
                finding.kind.label().starts_with("conflict")
            );
            for owner in &finding.owners {
                assert!(!owner.macs.is_empty());
            }
        }
        let statistics = self.detector.statistics();
        assert!(statistics.bindings <= self.max_bindings, "{statistics:?}");
        let open: BTreeSet<_> = self
            .detector
            .open_conflicts()
            .map(|view| view.key)
            .collect();
        assert_eq!(statistics.open_conflicts, open.len());
        // What is a broadcast address from now on is forgotten without a word.
        self.open
            .retain(|key| open.contains(key) || *key != place(5));
        assert_eq!(open, self.open, "no open conflict is lost");
        if let Some(deadline) = self.detector.next_deadline() {
            assert!(deadline > self.now, "what was due is done");
        }
    }
}

fn facts(bits: u8) -> HostFacts {
    let claimed = (0..5)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| (place(bit), HOST));
    HostFacts {
        addresses: claimed.collect(),
        macs: [HOST, HOST_TOO].into(),
        broadcasts: (bits >> 6 & 1 == 1).then(|| place(5)).into_iter().collect(),
        gateways: (bits >> 7 & 1 == 1).then(|| place(4)).into_iter().collect(),
        tracked: Vec::new(),
    }
}

fn chaos_config() -> impl Strategy<Value = DetectConfig> {
    (any::<bool>(), 1usize..12, 2usize..9, any::<bool>()).prop_map(
        |(can_probe, max_bindings, max_macs, silent)| DetectConfig {
            can_probe,
            max_bindings,
            max_macs,
            silent_after: silent.then_some(Duration::from_mins(1)),
            ..DetectConfig::default()
        },
    )
}

proptest! {
    #[test]
    fn any_input_at_any_time_is_survived_and_the_same_input_gives_the_same_findings(
        config in chaos_config(),
        steps in prop::collection::vec((clock(), input()), 0..100),
    ) {
        let run = || {
            let mut chaos = Chaos::new(config.clone());
            for (clock, input) in &steps {
                chaos.step(*clock, input);
            }
            (chaos.findings, chaos.detector.statistics())
        };
        prop_assert_eq!(run(), run());
    }
}
