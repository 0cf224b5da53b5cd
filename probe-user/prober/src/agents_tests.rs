//! Many daemons on one segment, none of which knows the others: what they send together.

#![expect(
    clippy::print_stdout,
    reason = "with --nocapture they print the figures of docs/active-probing.md"
)]

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use probe_common::{
    counter::Direction,
    wire::{MacAddr, Vlan},
};
use probe_detect::{
    Claim, ClaimFlags, Observation, ObservationBody, ObservedProbe, ProbeReply, ProbeRequest,
    RequestId,
};
use probe_model::{BindingKey, Segment, Timestamp};

use super::*;

const SEGMENT: Segment = Segment {
    interface: 2,
    vlan: Vlan::UNTAGGED,
};

/// From sending a frame until the others have taken note of it.
const DELAY: Duration = Duration::from_millis(1);

struct Here(MacAddr);

impl DetectorView for Here {
    fn is_wanted(&self, _: &ProbeRequest) -> bool {
        true
    }

    fn quiet_until(&self, _: &BindingKey, _: Timestamp) -> Option<Timestamp> {
        None
    }

    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        Ok(SourceInterface {
            segment: key.segment,
            mac: self.0,
        })
    }
}

fn mac(kind: u8, number: usize) -> MacAddr {
    let [.., high, low] = number.to_be_bytes();
    MacAddr([2, 0, 0, kind, high, low])
}

fn address(number: usize) -> BindingKey {
    let [.., high, low] = number.to_be_bytes();
    BindingKey {
        segment: SEGMENT,
        ip: Ipv4Addr::new(10, 0, high, low).into(),
    }
}

/// Nodes that are started at once, on addresses that all have an owner.
struct AgentEstimator {
    nodes: Vec<ProbeScheduler>,
    /// When each node has something to do.
    due: BTreeSet<(Timestamp, usize)>,
    /// Frames on their way: when they arrive, who sent them, about what.
    on_their_way: BTreeSet<(Timestamp, usize, BindingKey)>,
    deadlines: Vec<Option<Timestamp>>,
    /// When somebody asked, and about what.
    asked: Vec<(Timestamp, usize, BindingKey)>,
}

impl AgentEstimator {
    fn start(size: usize, addresses: usize) -> Self {
        let nodes = (0..size).map(|node| {
            let mut asker = ProbeScheduler::new(&ProbeSchedulerConfig::default(), node as u64);
            let wanted = (0..addresses).map(|number| TrackedTarget {
                key: address(number),
                from_cluster: false,
            });
            asker.set_tracked(wanted, Timestamp(0));
            asker
        });
        let mut fleet = Self {
            nodes: nodes.collect(),
            due: BTreeSet::new(),
            on_their_way: BTreeSet::new(),
            deadlines: vec![None; size],
            asked: Vec::new(),
        };
        for node in 0..size {
            fleet.look(node);
        }
        fleet
    }

    /// Looks when a node has something to do next.
    fn look(&mut self, node: usize) {
        if let Some(at) = self.deadlines[node] {
            self.due.remove(&(at, node));
        }
        self.deadlines[node] = self.nodes[node].next_deadline();
        if let Some(at) = self.deadlines[node] {
            self.due.insert((at, node));
        }
    }

    fn run(&mut self, length: Duration) {
        let end = Timestamp(0) + length;
        let mut now = Timestamp(0);
        loop {
            let arrives = self.on_their_way.first().map(|frame| frame.0);
            let due = self.due.first().map(|due| due.0);
            let Some(next) = [arrives, due].into_iter().flatten().min() else {
                return;
            };
            now = now.max(next);
            if now > end {
                return;
            }
            if arrives.is_some_and(|at| at <= now) {
                let frame = self.on_their_way.pop_first();
                let (_, sender, key) = frame.unwrap();
                for node in (0..self.nodes.len()).filter(|&node| node != sender) {
                    self.nodes[node].observe(&probe(key, sender, Direction::Ingress, now));
                    self.look(node);
                }
                continue;
            }
            let (_, node) = *self.due.first().unwrap();
            self.nodes[node].take_outcomes(now);
            while let Some(shot) = self.nodes[node].next(now, &Here(mac(1, node))) {
                assert_eq!(shot.question.to, None);
                self.asked.push((now, node, shot.key));
                self.nodes[node].observe(&probe(shot.key, node, Direction::Egress, now));
                self.nodes[node].observe(&answer(shot.key, node, now));
                self.on_their_way.insert((now + DELAY, node, shot.key));
            }
            self.look(node);
        }
    }

    /// The most frames of the fleet within any time of this length.
    fn most_within(&self, length: Duration) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, asked) in self.asked.iter().enumerate() {
            while asked.0.since(self.asked[first].0) >= length {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    /// The longest that any node did not probe any address itself, from the start to the end.
    fn longest_own_wait(&self, addresses: usize, end: Timestamp) -> Duration {
        let mut last = HashMap::new();
        let mut longest = Duration::ZERO;
        for &(at, node, key) in &self.asked {
            let before = last.insert((node, key), at).unwrap_or(Timestamp(0));
            longest = longest.max(at.since(before));
        }
        for node in 0..self.nodes.len() {
            for number in 0..addresses {
                let before = last.get(&(node, address(number))).copied();
                longest = longest.max(end.since(before.unwrap_or(Timestamp(0))));
            }
        }
        longest
    }

    /// For each address, the longest that it waited for a question, from the start to the end; in order.
    fn waits(&self, addresses: usize, end: Timestamp) -> Vec<Duration> {
        let mut waits: HashMap<BindingKey, (Timestamp, Duration)> = (0..addresses)
            .map(|number| (address(number), (Timestamp(0), Duration::ZERO)))
            .collect();
        for &(at, _, key) in &self.asked {
            let (before, longest) = waits.get_mut(&key).unwrap();
            *longest = at.since(*before).max(*longest);
            *before = at;
        }
        let waits = waits.into_values();
        let mut waits: Vec<_> = waits
            .map(|(last, longest)| end.since(last).max(longest))
            .collect();
        waits.sort_unstable();
        waits
    }
}

fn probe(key: BindingKey, node: usize, direction: Direction, at: Timestamp) -> Observation {
    Observation {
        at,
        segment: SEGMENT,
        direction,
        body: ObservationBody::Probe(ObservedProbe {
            target: key.ip,
            prober: mac(1, node),
            unicast: false,
            has_sender_ip: true,
        }),
    }
}

fn answer(key: BindingKey, node: usize, at: Timestamp) -> Observation {
    Observation {
        at,
        segment: SEGMENT,
        direction: Direction::Ingress,
        body: ObservationBody::Claim(Claim {
            ip: key.ip,
            mac: mac(2, 0),
            eth_src: mac(2, 0),
            form: ClaimFlags {
                reply: true,
                announcement: false,
                unicast: true,
            },
            reply: Some(ProbeReply {
                asker: mac(1, node),
                to_probe: true,
                request: Some(RequestId(at)),
            }),
            previous: None,
            rate_limited: false,
        }),
    }
}

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_daemon_asks_about_500_addresses_every_five_minutes_within_its_budget() {
    let mut fleet = AgentEstimator::start(1, 500);
    fleet.run(30 * MINUTE);
    assert!(fleet.most_within(SECOND) <= 5);
    // 500 questions at 5/s are 100 s.
    let waits = fleet.waits(500, Timestamp(0) + 30 * MINUTE);
    assert!(waits[499] < 8 * MINUTE, "{:?}", waits[499]);
}

#[test]
fn three_daemons_together_ask_no_more_than_one_would() {
    let mut fleet = AgentEstimator::start(3, 500);
    fleet.run(30 * MINUTE);
    let (burst, sustained) = (fleet.most_within(SECOND), fleet.most_within(10 * SECOND));
    println!(
        "3 nodes: {burst} in a second, {sustained} in ten, {} in all",
        fleet.asked.len()
    );
    assert!(burst <= 7, "{burst}");
    assert!(sustained <= 50, "{sustained}");
    // Of six rounds, the first within the start's minutes.
    assert!(
        (2_500..4_500).contains(&fleet.asked.len()),
        "{}",
        fleet.asked.len()
    );
    let waits = fleet.waits(500, Timestamp(0) + 30 * MINUTE);
    assert!(waits[499] < 10 * MINUTE, "{:?}", waits[499]);
    let asked_by = |node: usize| fleet.asked.iter().filter(|asked| asked.1 == node).count();
    assert!((0..3).all(|node| asked_by(node) > 400), "each has its turn");
}

#[test]
fn a_thousand_daemons_that_start_at_once_stay_within_the_budget_of_one() {
    let mut fleet = AgentEstimator::start(1_000, 500);
    fleet.run(10 * MINUTE);
    let (burst, sustained) = (fleet.most_within(SECOND), fleet.most_within(10 * SECOND));
    println!(
        "1000 nodes: {burst} in a second, {sustained} in ten, {} in all",
        fleet.asked.len()
    );
    assert!(
        burst <= 15,
        "less than what a switch shuts a port for: {burst}"
    );
    assert!(sustained <= 60, "{sustained}");
    // The lot may fall on nobody, with a probability of e^-3 at a time: some addresses miss a turn.
    let waits = fleet.waits(500, Timestamp(0) + 10 * MINUTE);
    assert!(
        waits[250] < 6 * MINUTE && waits[450] < 9 * MINUTE,
        "{:?} {:?}",
        waits[250],
        waits[450]
    );
}

/// Replies are unicast: what an agent knows of silent duplicates, it knows from its own probes.
#[test]
fn each_agent_of_three_probes_each_address_itself_within_three_intervals() {
    let mut fleet = AgentEstimator::start(3, 20);
    fleet.run(60 * MINUTE);
    let longest = fleet.longest_own_wait(20, Timestamp(0) + 60 * MINUTE);
    println!("3 nodes: each probes each address itself within {longest:?}");
    assert!(longest <= 15 * MINUTE, "{longest:?}");
    // About three probes for each address in each interval of five minutes.
    assert!(fleet.asked.len() <= 20 * 12 * 3, "{}", fleet.asked.len());
}

#[test]
fn each_agent_of_sixty_probes_each_address_itself_within_its_turn() {
    let mut fleet = AgentEstimator::start(60, 10);
    // A turn of 60 agents is 20 intervals of 5 minutes.
    let length = 400 * MINUTE;
    fleet.run(length);
    let longest = fleet.longest_own_wait(10, Timestamp(0) + length);
    println!(
        "60 nodes: each probes each address itself within {longest:?}; {} in all",
        fleet.asked.len()
    );
    assert!(longest <= 125 * MINUTE, "{longest:?}");
    assert!(fleet.most_within(SECOND) <= 15);
    assert!(fleet.asked.len() <= 10 * 80 * 4, "{}", fleet.asked.len());
}
