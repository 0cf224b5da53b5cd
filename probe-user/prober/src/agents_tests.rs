//! Simulates many agents on one segment, which do not know each other, and counts the frames of all of them.

#![expect(
    clippy::print_stdout,
    reason = "with --nocapture the tests print the figures of docs/active-probing.md"
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

/// The time from sending a frame until the other agents observe it.
const DELAY: Duration = Duration::from_millis(1);

struct TestView(MacAddr);

impl DetectorView for TestView {
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

/// Agents that start at once, on addresses that all have an owner.
struct FleetSimulation {
    schedulers: Vec<ProbeScheduler>,
    /// The next deadline of each agent.
    due: BTreeSet<(Timestamp, usize)>,
    /// Frames in transit: time of arrival, sending agent, address.
    in_transit: BTreeSet<(Timestamp, usize, BindingKey)>,
    deadlines: Vec<Option<Timestamp>>,
    /// The sent probes: time, agent, address.
    probes: Vec<(Timestamp, usize, BindingKey)>,
}

impl FleetSimulation {
    fn start(size: usize, addresses: usize) -> Self {
        let schedulers = (0..size).map(|node| {
            let mut scheduler = ProbeScheduler::new(&ProbeSchedulerConfig::default(), node as u64);
            let targets = (0..addresses).map(|number| TrackedTarget {
                key: address(number),
                from_cluster: false,
            });
            scheduler.set_tracked(targets, Timestamp(0));
            scheduler
        });
        let mut fleet = Self {
            schedulers: schedulers.collect(),
            due: BTreeSet::new(),
            in_transit: BTreeSet::new(),
            deadlines: vec![None; size],
            probes: Vec::new(),
        };
        for node in 0..size {
            fleet.update_deadline(node);
        }
        fleet
    }

    /// Updates the next deadline of an agent.
    fn update_deadline(&mut self, node: usize) {
        if let Some(at) = self.deadlines[node] {
            self.due.remove(&(at, node));
        }
        self.deadlines[node] = self.schedulers[node].next_deadline();
        if let Some(at) = self.deadlines[node] {
            self.due.insert((at, node));
        }
    }

    fn run(&mut self, length: Duration) {
        let end = Timestamp(0) + length;
        let mut now = Timestamp(0);
        loop {
            let arrives = self.in_transit.first().map(|frame| frame.0);
            let due = self.due.first().map(|due| due.0);
            let Some(next) = [arrives, due].into_iter().flatten().min() else {
                return;
            };
            now = now.max(next);
            if now > end {
                return;
            }
            if arrives.is_some_and(|at| at <= now) {
                let frame = self.in_transit.pop_first();
                let (_, sender, key) = frame.unwrap();
                for node in (0..self.schedulers.len()).filter(|&node| node != sender) {
                    self.schedulers[node].observe(&probe(key, sender, Direction::Ingress, now));
                    self.update_deadline(node);
                }
                continue;
            }
            let (_, node) = *self.due.first().unwrap();
            self.schedulers[node].take_outcomes(now);
            while let Some(scheduled) = self.schedulers[node].next(now, &TestView(mac(1, node))) {
                assert_eq!(scheduled.probe.destination, None);
                self.probes.push((now, node, scheduled.key));
                self.schedulers[node].observe(&probe(scheduled.key, node, Direction::Egress, now));
                self.schedulers[node].observe(&reply(scheduled.key, node, now));
                self.in_transit.insert((now + DELAY, node, scheduled.key));
            }
            self.update_deadline(node);
        }
    }

    /// The maximum number of frames of the fleet in any window of this length.
    fn max_in_window(&self, length: Duration) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, probe) in self.probes.iter().enumerate() {
            while probe.0.since(self.probes[first].0) >= length {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    /// The longest time in which any agent did not probe any address itself, from the start to `end`.
    fn longest_own_wait(&self, addresses: usize, end: Timestamp) -> Duration {
        let mut last = HashMap::new();
        let mut longest = Duration::ZERO;
        for &(at, node, key) in &self.probes {
            let before = last.insert((node, key), at).unwrap_or(Timestamp(0));
            longest = longest.max(at.since(before));
        }
        for node in 0..self.schedulers.len() {
            for number in 0..addresses {
                let before = last.get(&(node, address(number))).copied();
                longest = longest.max(end.since(before.unwrap_or(Timestamp(0))));
            }
        }
        longest
    }

    /// The longest time without a probe of each address, from the start to `end`; sorted.
    fn waits(&self, addresses: usize, end: Timestamp) -> Vec<Duration> {
        let mut waits: HashMap<BindingKey, (Timestamp, Duration)> = (0..addresses)
            .map(|number| (address(number), (Timestamp(0), Duration::ZERO)))
            .collect();
        for &(at, _, key) in &self.probes {
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

fn reply(key: BindingKey, node: usize, at: Timestamp) -> Observation {
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
                requester: mac(1, node),
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
fn one_agent_probes_500_addresses_every_five_minutes_within_its_budget() {
    let mut fleet = FleetSimulation::start(1, 500);
    fleet.run(30 * MINUTE);
    assert!(fleet.max_in_window(SECOND) <= 5);
    // 500 probes at 5/s take 100 s.
    let waits = fleet.waits(500, Timestamp(0) + 30 * MINUTE);
    assert!(waits[499] < 8 * MINUTE, "{:?}", waits[499]);
}

#[test]
fn three_agents_together_send_no_more_probes_than_one() {
    let mut fleet = FleetSimulation::start(3, 500);
    fleet.run(30 * MINUTE);
    let (burst, sustained) = (
        fleet.max_in_window(SECOND),
        fleet.max_in_window(10 * SECOND),
    );
    println!(
        "3 nodes: {burst} in a second, {sustained} in ten, {} in all",
        fleet.probes.len()
    );
    assert!(burst <= 7, "{burst}");
    assert!(sustained <= 50, "{sustained}");
    // Six rounds, the first of which is within the first minutes.
    assert!(
        (2_500..4_500).contains(&fleet.probes.len()),
        "{}",
        fleet.probes.len()
    );
    let waits = fleet.waits(500, Timestamp(0) + 30 * MINUTE);
    assert!(waits[499] < 10 * MINUTE, "{:?}", waits[499]);
    let probes_of = |node: usize| fleet.probes.iter().filter(|probe| probe.1 == node).count();
    assert!(
        (0..3).all(|node| probes_of(node) > 400),
        "each agent probes"
    );
}

#[test]
fn a_thousand_agents_that_start_at_once_stay_within_the_budget_of_one() {
    let mut fleet = FleetSimulation::start(1_000, 500);
    fleet.run(10 * MINUTE);
    let (burst, sustained) = (
        fleet.max_in_window(SECOND),
        fleet.max_in_window(10 * SECOND),
    );
    println!(
        "1000 nodes: {burst} in a second, {sustained} in ten, {} in all",
        fleet.probes.len()
    );
    assert!(
        burst <= 15,
        "below the limit at which a switch shuts a port: {burst}"
    );
    assert!(sustained <= 60, "{sustained}");
    // With a probability of e^-3, no agent is selected: some addresses are not probed in an interval.
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
    let mut fleet = FleetSimulation::start(3, 20);
    fleet.run(60 * MINUTE);
    let longest = fleet.longest_own_wait(20, Timestamp(0) + 60 * MINUTE);
    println!("3 nodes: each probes each address itself within {longest:?}");
    assert!(longest <= 15 * MINUTE, "{longest:?}");
    // About three probes for each address in each interval of five minutes.
    assert!(fleet.probes.len() <= 20 * 12 * 3, "{}", fleet.probes.len());
}

#[test]
fn each_agent_of_sixty_probes_each_address_itself_within_its_turn() {
    let mut fleet = FleetSimulation::start(60, 10);
    // A turn of 60 agents is 20 intervals of 5 minutes.
    let length = 400 * MINUTE;
    fleet.run(length);
    let longest = fleet.longest_own_wait(10, Timestamp(0) + length);
    println!(
        "60 nodes: each probes each address itself within {longest:?}; {} in all",
        fleet.probes.len()
    );
    assert!(longest <= 125 * MINUTE, "{longest:?}");
    assert!(fleet.max_in_window(SECOND) <= 15);
    assert!(fleet.probes.len() <= 10 * 80 * 4, "{}", fleet.probes.len());
}
