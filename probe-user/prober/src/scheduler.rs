//! Schedules ARP probes. The scheduler is pure: the caller passes the time, and random numbers derive from a seed, so that
//! tests can simulate a fleet.
//!
//! Invariants: at most one frame in [`ProbeSchedulerConfig::min_interval`] for all purposes together; no probe for an
//! address that a booting host probes; one round of probes for an address at a time; and every request ends in a
//! [`ProbeOutcome`], unless it is obsolete.

use std::{num::NonZeroUsize, time::Duration};

use fastrand::Rng;
use lru::LruCache;
use probe_common::{counter::Direction, wire::MacAddr};
use probe_detect::{Claim, Observation, ObservationBody, ProbePurpose, ProbeRequest};
use probe_model::{BindingKey, Segment, Timestamp};
use smallvec::SmallVec;

use super::{
    ArpProbe, NotSentReason, ProbeCounts, SourceInterface,
    agents::AgentEstimator,
    periodic::{DueProbe, PeriodicSchedule, ROUND, SilenceResult, TrackedTarget, random_between},
};

/// The time within which a reply is matched to a probe, as in the event filter of the BPF programs.
const REPLY_WINDOW: Duration = Duration::from_secs(1);

/// An allowance for a reply that was received and is not processed yet.
const RECEIVE_ALLOWANCE: Duration = Duration::from_millis(50);

/// The minimum time between two rounds for one address.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// The time within which the egress hook must have observed our last probe, so that a missing reply proves silence. Repeated
/// probes are emitted as events once per refresh interval (`--refresh`).
const FRAME_MAX_AGE: Duration = Duration::from_secs(10);

/// The maximum number of queued requests.
const MAX_QUEUED: usize = 1_024;

/// The maximum number of addresses and segments whose last frame is stored.
const RECENT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

/// The configuration of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSchedulerConfig {
    /// The minimum time between two frames.
    pub min_interval: Duration,
    /// The interval at which each tracked address is probed.
    pub every: Duration,
    /// The number of agents, if configured.
    pub fleet: Option<u32>,
}

impl Default for ProbeSchedulerConfig {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(200),
            every: Duration::from_mins(5),
            fleet: None,
        }
    }
}

/// The state of the detector and the network that the scheduler requires when it sends.
pub trait DetectorView {
    /// Whether the detector still needs the replies to a request.
    fn is_wanted(&self, request: &ProbeRequest) -> bool;
    /// The time until which a booting host would take a probe for that of a conflicting host; `None` if no host is booting
    /// with the address.
    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp>;
    /// The source interface for an address, or why it cannot be probed.
    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason>;
}

/// A probe that is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledProbe {
    /// The probed address and its segment.
    pub key: BindingKey,
    /// The purpose of the probe.
    pub purpose: ProbePurpose,
    /// The frame.
    pub probe: ArpProbe,
}

/// The outcome of a probe request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The probes were sent, and the time for replies has passed.
    Completed {
        /// The request.
        request: ProbeRequest,
        /// The MACs that replied; empty if none did.
        replied: SmallVec<[MacAddr; 2]>,
    },
    /// This agent sends no probe for the request.
    NotProbed(ProbeRequest),
    /// No host replied for a tracked address, and no other frame was received: this host may be disconnected.
    NoFramesReceived(ProbeRequest),
    /// This agent leaves a silent address to other agents, so that it is no longer known to be silent.
    SilenceWithdrawn(BindingKey),
}

/// Chooses the time of ARP probes and enforces the limits.
#[derive(Debug)]
pub struct ProbeScheduler {
    min_interval: Duration,
    rng: Rng,
    /// The time at which the next frame may be sent.
    free_at: Timestamp,
    queue: Vec<QueuedProbeRequest>,
    rounds: Vec<ProbeRound>,
    periodic: PeriodicSchedule,
    fleet: AgentEstimator,
    counts: ProbeCounts,
    outcomes: Vec<ProbeOutcome>,
    /// When the egress hook last observed our own probe for an address.
    own_probe_at: LruCache<BindingKey, Timestamp>,
    /// When a frame was last received on a segment.
    last_received: LruCache<Segment, Timestamp>,
    /// Conflicts whose owners this node probed when they began.
    baselines: LruCache<BindingKey, ()>,
    now: Timestamp,
}

#[derive(Debug)]
struct QueuedProbeRequest {
    request: ProbeRequest,
    at: Timestamp,
}

/// A round of probes that has started.
#[derive(Debug)]
struct ProbeRound {
    request: ProbeRequest,
    source: SourceInterface,
    /// The destinations of the probes that are not sent yet; the last one is the next.
    missing_owners: SmallVec<[MacAddr; 2]>,
    started_at: Timestamp,
    last_sent: Timestamp,
    replied: SmallVec<[MacAddr; 2]>,
}

impl ProbeScheduler {
    /// Creates a scheduler without requests. Random numbers derive from `seed`.
    pub fn new(config: &ProbeSchedulerConfig, seed: u64) -> Self {
        Self {
            min_interval: config.min_interval,
            rng: Rng::with_seed(seed),
            free_at: Timestamp::ZERO,
            queue: Vec::new(),
            rounds: Vec::new(),
            periodic: PeriodicSchedule::new(config.every, config.min_interval),
            // Twelve intervals, in which as many agents probe one address.
            fleet: AgentEstimator::new(config.fleet, config.every * 12),
            counts: ProbeCounts::default(),
            outcomes: Vec::new(),
            own_probe_at: LruCache::new(RECENT_CAPACITY),
            last_received: LruCache::new(RECENT_CAPACITY),
            baselines: LruCache::new(RECENT_CAPACITY),
            now: Timestamp::ZERO,
        }
    }

    /// Sets the tracked addresses, which are probed periodically.
    pub fn set_tracked(&mut self, keys: impl Iterator<Item = TrackedTarget>, now: Timestamp) {
        self.handle_clock_step(now);
        let (rng, counts) = (&mut self.rng, &mut self.counts);
        self.periodic.update(keys, now, rng, counts);
    }

    /// Sets whether this agent is the leader, which probes every address of the cluster itself.
    pub const fn set_leading(&mut self, is_leader: bool) {
        self.periodic.set_leading(is_leader);
    }

    /// Queues a request: its probes are sent at a random time in its window, or its outcome is [`ProbeOutcome::NotProbed`].
    pub fn schedule(&mut self, request: ProbeRequest, now: Timestamp) {
        self.handle_clock_step(now);
        let same = |other: &ProbeRequest| {
            (other.key, other.purpose, other.round) == (request.key, request.purpose, request.round)
        };
        let mut queued_requests = self.queue.iter().map(|queued| &queued.request);
        let mut started = self.rounds.iter().map(|round| &round.request);
        let mut all = queued_requests.by_ref().chain(started.by_ref());
        if all.any(|other| same(other) && other.requested_for == request.requested_for) {
            return;
        }
        let before = self.queue.len();
        self.queue.retain(|queued| !same(&queued.request));
        for _ in self.queue.len()..before {
            self.counts.count_not_sent(NotSentReason::Obsolete);
        }
        if !self.is_selected(&request, now) {
            self.count_not_sent_request(request, NotSentReason::NotSelected);
            return;
        }
        if self.queue.len() >= MAX_QUEUED {
            let least = (0..self.queue.len()).max_by_key(|&index| self.queue[index].priority());
            let least = least.filter(|&index| self.queue[index].request.purpose > request.purpose);
            let Some(index) = least else {
                self.count_not_sent_request(request, NotSentReason::QueueFull);
                return;
            };
            let dropped = self.queue.swap_remove(index);
            self.count_not_sent_request(dropped.request, NotSentReason::QueueFull);
        }
        let window = request.latest.since(request.earliest);
        let at = request.earliest + random_between(Duration::ZERO, window, &mut self.rng);
        self.queue.push(QueuedProbeRequest { request, at });
    }

    /// Whether this agent probes for a request. For requests that every agent has, a few agents are selected at random, for
    /// both rounds of a request or none. Only this host can probe for a conflict with its own address, and periodic
    /// probing has its own selection.
    fn is_selected(&mut self, request: &ProbeRequest, now: Timestamp) -> bool {
        match request.purpose {
            // One selection per conflict: an agent can only conclude that an owner is silent if it observed its replies
            // before.
            ProbePurpose::Confirmation if request.round == ProbeRequest::BASELINE => {
                let is_selected = self.draw(request, now);
                if is_selected {
                    self.baselines.put(request.key, ());
                }
                is_selected
            }
            ProbePurpose::Resolution
                if request.round == 0 && self.baselines.contains(&request.key) =>
            {
                true
            }
            ProbePurpose::Confirmation | ProbePurpose::Resolution if request.round > 0 => {
                let mut queued = self.queue.iter().map(|queued| &queued.request);
                queued.any(|first| {
                    (first.key, first.purpose, first.requested_for)
                        == (request.key, request.purpose, request.requested_for)
                })
            }
            ProbePurpose::Confirmation | ProbePurpose::Resolution => self.draw(request, now),
            ProbePurpose::Local | ProbePurpose::Periodic => true,
        }
    }

    fn draw(&mut self, request: &ProbeRequest, now: Timestamp) -> bool {
        self.rng.f64() < self.fleet.selection_probability(request.key.segment, now)
    }

    /// The next probe that is due. To be called until it returns `None`; the caller sends each probe, or calls
    /// [`Self::send_failed`].
    pub fn next(&mut self, now: Timestamp, view: &impl DetectorView) -> Option<ScheduledProbe> {
        self.handle_clock_step(now);
        if now < self.free_at {
            return None;
        }
        let started = self
            .rounds
            .iter()
            .position(|round| !round.missing_owners.is_empty());
        let index = started
            .or_else(|| self.start_queued(now, view))
            .or_else(|| self.start_periodic(now, view))?;
        Some(self.next_probe(index, now))
    }

    /// Starts the queued round with the highest priority. Returns its index in `rounds`.
    fn start_queued(&mut self, now: Timestamp, view: &impl DetectorView) -> Option<usize> {
        loop {
            let due = (0..self.queue.len()).filter(|&index| {
                let queued = &self.queue[index];
                queued.at <= now && !self.is_probing(&queued.request.key)
            });
            let index = due.min_by_key(|&index| self.queue[index].priority())?;
            let mut queued = self.queue.swap_remove(index);
            if !view.is_wanted(&queued.request) {
                self.counts.count_not_sent(NotSentReason::Obsolete);
                continue;
            }
            if let Some(until) = self.quiet_period_end(&queued.request.key, now, view) {
                queued.at = until;
                self.queue.push(queued);
                continue;
            }
            match view.source_interface(&queued.request.key) {
                Err(reason) => self.count_not_sent_request(queued.request, reason),
                Ok(source) => return Some(self.start_round(queued.request, source, now)),
            }
        }
    }

    /// Starts a round for a tracked address that is due. Returns its index in `rounds`.
    fn start_periodic(&mut self, now: Timestamp, view: &impl DetectorView) -> Option<usize> {
        loop {
            let (rng, counts) = (&mut self.rng, &mut self.counts);
            let mut forgotten = Vec::new();
            let due = self
                .periodic
                .pop(now, &mut self.fleet, rng, counts, &mut forgotten);
            let forgotten = forgotten.into_iter().map(ProbeOutcome::SilenceWithdrawn);
            self.outcomes.extend(forgotten);
            let DueProbe {
                key,
                round,
                requested_for,
            } = due?;
            let is_requested =
                self.is_probing(&key) || self.queue.iter().any(|queued| queued.request.key == key);
            if is_requested {
                self.periodic.postpone(&key, now + ROUND);
                continue;
            }
            if let Some(until) = self.quiet_period_end(&key, now, view) {
                self.periodic.postpone(&key, until);
                continue;
            }
            match view.source_interface(&key) {
                Err(reason) => {
                    self.counts.count_not_sent(reason);
                    self.periodic.abandon(&key, now, &mut self.rng);
                }
                Ok(source) => {
                    let request = periodic_request(key, round, requested_for, now);
                    return Some(self.start_round(request, source, now));
                }
            }
        }
    }

    /// Probes an address once, which need not be tracked. Replies are observed like other claims, and a missing reply has no
    /// consequence.
    pub fn probe_once(&mut self, key: BindingKey, now: Timestamp) {
        self.schedule(periodic_request(key, 0, now, now), now);
    }

    /// Handles that the detector does not report an address without replies as silent: it is probed as often as others.
    pub fn restart_silence_check(&mut self, key: &BindingKey) {
        self.periodic.record_claim(key);
    }

    /// Confirms that an address is silent although no frame was received, because no other host is known on the segment.
    pub fn accept_silence(&mut self, request: &ProbeRequest, now: Timestamp) {
        self.periodic.abandon(&request.key, now, &mut self.rng);
        self.periodic.confirm_silence(&request.key);
    }

    /// The time until which a booting host's probe postpones ours, if there was one.
    fn quiet_period_end(
        &mut self,
        key: &BindingKey,
        now: Timestamp,
        view: &impl DetectorView,
    ) -> Option<Timestamp> {
        let until = view.quiet_until(key, now)?;
        self.counts.count_not_sent(NotSentReason::BootingHost);
        let jitter = random_between(Duration::ZERO, Duration::from_secs(1), &mut self.rng);
        // Always in the future.
        Some((until + jitter).max(now + Duration::from_millis(100)))
    }

    fn start_round(
        &mut self,
        request: ProbeRequest,
        source: SourceInterface,
        now: Timestamp,
    ) -> usize {
        for queued in &mut self.queue {
            if queued.request.key == request.key {
                queued.at = queued.at.max(now + ROUND_INTERVAL);
            }
        }
        self.rounds.push(ProbeRound {
            // Reversed, because the last one is sent first.
            missing_owners: request.to.iter().rev().copied().collect(),
            request,
            source,
            started_at: now,
            last_sent: now,
            replied: SmallVec::new(),
        });
        self.rounds.len() - 1
    }

    fn next_probe(&mut self, index: usize, now: Timestamp) -> ScheduledProbe {
        self.free_at = now + self.min_interval;
        let round = &mut self.rounds[index];
        let to = round.missing_owners.pop();
        round.last_sent = now;
        let key = round.request.key;
        if to.is_none() {
            self.periodic.settle_budget(key.segment, now, &mut self.rng);
        }
        self.counts.count_sent(round.request.purpose);
        ScheduledProbe {
            key,
            purpose: round.request.purpose,
            probe: ArpProbe {
                target: match key.ip {
                    std::net::IpAddr::V4(ip) => ip,
                    // There is no source interface for an IPv6 address.
                    std::net::IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
                },
                sender_mac: round.source.mac,
                sender_ip: None,
                destination: to,
                vlan: round.source.segment.vlan,
            },
        }
    }

    /// Records that a probe could not be sent: its round is abandoned.
    pub fn send_failed(&mut self, scheduled: &ScheduledProbe, now: Timestamp) {
        let is_round = |round: &ProbeRound| {
            (round.request.key, round.request.purpose) == (scheduled.key, scheduled.purpose)
        };
        let Some(index) = self.rounds.iter().position(is_round) else {
            return;
        };
        let round = self.rounds.swap_remove(index);
        if round.request.purpose == ProbePurpose::Periodic {
            self.periodic.abandon(&scheduled.key, now, &mut self.rng);
        }
        self.counts.retract_sent(scheduled.purpose);
        self.count_not_sent_request(round.request, NotSentReason::SendFailed);
    }

    /// Records an observed frame, sent or received by this host. To be called before [`Self::take_outcomes`] with its time.
    pub fn observe(&mut self, observation: &Observation) {
        let segment = observation.segment;
        let is_ours = observation.direction == Direction::Egress;
        if !is_ours {
            self.last_received.put(segment, observation.at);
        }
        match &observation.body {
            ObservationBody::Claim(claim) => self.observe_claim(segment, claim),
            ObservationBody::Probe(probe) if probe.has_sender_ip => {
                let key = BindingKey {
                    segment,
                    ip: probe.target,
                };
                if is_ours {
                    self.own_probe_at.put(key, observation.at);
                } else if !probe.unicast {
                    self.fleet.observe(segment, probe.prober, observation.at);
                    let (fleet, rng, counts) = (&mut self.fleet, &mut self.rng, &mut self.counts);
                    self.periodic
                        .observe(&key, observation.at, fleet, rng, counts);
                }
            }
            ObservationBody::Probe(_) | ObservationBody::Bogus(_) => {}
        }
    }

    /// Records a reply to any host's request since the start of a round: its sender has the address now.
    fn observe_claim(&mut self, segment: Segment, claim: &Claim) {
        let key = BindingKey {
            segment,
            ip: claim.ip,
        };
        self.periodic.record_claim(&key);
        let Some(round) = self
            .rounds
            .iter_mut()
            .find(|round| round.request.key == key)
        else {
            return;
        };
        let matched = claim.reply.and_then(|reply| reply.request);
        let carried = claim
            .previous
            .map(|previous| (previous.mac, previous.request));
        for (mac, request) in [Some((claim.mac, matched)), carried].into_iter().flatten() {
            let is_reply = request.is_some_and(|request| request.0 >= round.started_at);
            if is_reply && !round.replied.contains(&mac) {
                round.replied.push(mac);
            }
        }
    }

    /// Returns the outcomes of requests so far.
    pub fn take_outcomes(&mut self, now: Timestamp) -> Vec<ProbeOutcome> {
        self.handle_clock_step(now);
        while let Some(index) = self.rounds.iter().position(|round| round.ends_at() <= now) {
            let round = self.rounds.swap_remove(index);
            self.finish_round(round, now);
        }
        std::mem::take(&mut self.outcomes)
    }

    fn finish_round(&mut self, round: ProbeRound, now: Timestamp) {
        let ProbeRound {
            request, replied, ..
        } = round;
        let key = request.key;
        let is_periodic = request.purpose == ProbePurpose::Periodic;
        if !replied.is_empty() {
            if is_periodic {
                self.periodic.record_reply(&key);
            }
            self.outcomes
                .push(ProbeOutcome::Completed { request, replied });
            return;
        }
        let seen = self.own_probe_at.peek(&key);
        if seen.is_none_or(|&at| now.since(at) > FRAME_MAX_AGE) {
            if is_periodic {
                self.periodic.abandon(&key, now, &mut self.rng);
            }
            self.count_not_sent_request(request, NotSentReason::NotObserved);
            return;
        }
        if !is_periodic {
            self.outcomes
                .push(ProbeOutcome::Completed { request, replied });
            return;
        }
        let due = DueProbe {
            key,
            round: request.round,
            requested_for: request.requested_for,
        };
        let last_frame_at = self.last_received.peek(&key.segment).copied();
        match self
            .periodic
            .record_no_reply(&due, last_frame_at, now, &mut self.rng)
        {
            SilenceResult::Unconfirmed => {}
            SilenceResult::Confirmed => self
                .outcomes
                .push(ProbeOutcome::Completed { request, replied }),
            SilenceResult::NoFramesReceived => {
                self.outcomes.push(ProbeOutcome::NoFramesReceived(request));
            }
        }
    }

    /// The time at which [`Self::next`] and [`Self::take_outcomes`] are to be called, unless a frame is observed before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.outcomes.is_empty() {
            return Some(self.now);
        }
        let free = |at: Timestamp| at.max(self.free_at);
        let queued = self.queue.iter();
        let queued = queued.filter(|queued| !self.is_probing(&queued.request.key));
        let rounds = self.rounds.iter().map(|round| {
            if round.missing_owners.is_empty() {
                round.ends_at()
            } else {
                self.free_at
            }
        });
        queued
            .map(|queued| free(queued.at))
            .chain(rounds)
            .chain(self.periodic.next_at().map(free))
            .min()
    }

    /// The numbers of probes sent and not sent.
    pub const fn counts(&self) -> &ProbeCounts {
        &self.counts
    }

    fn is_probing(&self, key: &BindingKey) -> bool {
        self.rounds.iter().any(|round| round.request.key == *key)
    }

    fn count_not_sent_request(&mut self, request: ProbeRequest, reason: NotSentReason) {
        self.counts.count_not_sent(reason);
        self.outcomes.push(ProbeOutcome::NotProbed(request));
    }

    /// Handles a clock that was set back: limits all times to those that would be set now.
    fn handle_clock_step(&mut self, now: Timestamp) {
        if now + ROUND_INTERVAL < self.now {
            self.free_at = now;
            self.rounds.clear();
            let queue = std::mem::take(&mut self.queue);
            let unsent = queue.into_iter().map(|queued| queued.request);
            self.outcomes.extend(unsent.map(ProbeOutcome::NotProbed));
            self.periodic.forget_future(now, &mut self.rng);
            self.now = now;
        }
        self.now = self.now.max(now);
    }
}

impl QueuedProbeRequest {
    /// The sort key: confirmation before resolution before periodic probing, then by the time.
    const fn priority(&self) -> (ProbePurpose, Timestamp) {
        (self.request.purpose, self.at)
    }
}

impl ProbeRound {
    /// The time at which no more replies are expected.
    fn ends_at(&self) -> Timestamp {
        let to = &self.request.to;
        let all_replied = !to.is_empty() && to.iter().all(|mac| self.replied.contains(mac));
        if !self.missing_owners.is_empty() {
            Timestamp(u64::MAX)
        } else if all_replied {
            self.last_sent
        } else {
            self.last_sent + REPLY_WINDOW + RECEIVE_ALLOWANCE
        }
    }
}

fn periodic_request(
    key: BindingKey,
    round: u8,
    requested_for: Timestamp,
    now: Timestamp,
) -> ProbeRequest {
    ProbeRequest {
        key,
        purpose: ProbePurpose::Periodic,
        round,
        requested_for,
        earliest: now,
        latest: now,
        to: Vec::new(),
    }
}
