//! Who is asked next, and when: a pure scheduler. Time comes with each call and chance from a seed, so that a
//! fleet of them can be played through in a test.
//!
//! What always holds: at most one frame in [`ProbeSchedulerConfig::gap`], whatever it is for; no probe for an address
//! that a booting host is probing for; one round of probes for an address at a
//! time; and every question that was wished for ends in an [`ProbeOutcome`] or was not wanted any more.

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

/// How long an answer may take: as long as the kernel side ties answers to questions.
const REPLY_WINDOW: Duration = Duration::from_secs(1);

/// For an answer that has come and is not read yet.
const RECEIVE_ALLOWANCE: Duration = Duration::from_millis(50);

/// At least so much is between two rounds about one address.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// Within this one of our questions has to have been seen to go, for silence after it to mean anything. The kernel
/// side tells of a repeated question once a second, or more seldom if `--refresh` says so.
const FRAME_MAX_AGE: Duration = Duration::from_secs(10);

/// Questions that may wait.
const MAX_QUEUED: usize = 1_024;

/// Addresses and segments of which is remembered when something was last seen.
const RECENT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSchedulerConfig {
    /// The least time between two frames.
    pub min_interval: Duration,
    /// How often each address that matters is asked about.
    pub every: Duration,
    /// How many nodes ask, if that is known.
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

/// What the scheduler has to know of the world when it sends.
pub trait DetectorView {
    /// Whether the answer would still be of use.
    fn is_wanted(&self, ask: &ProbeRequest) -> bool;
    /// Until when a booting host would take a probe for a rival's; `None` if no host is booting with the address.
    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp>;
    /// Whence to ask, or why not.
    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason>;
}

/// A question that is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledProbe {
    /// About what.
    pub key: BindingKey,
    /// What for.
    pub purpose: ProbePurpose,
    /// The frame.
    pub question: ArpProbe,
}

/// What has become of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It was asked, and these answered.
    Answered {
        /// The wish.
        ask: ProbeRequest,
        /// Those who answered; perhaps nobody.
        by: SmallVec<[MacAddr; 2]>,
    },
    /// It is not asked, by this node or now.
    NotProbed(ProbeRequest),
    /// Nobody answers for an address that matters, but nothing else was heard either: is there anybody at all?
    NoFramesReceived(ProbeRequest),
    /// It is not known any more whether an address is silent.
    SilenceWithdrawn(BindingKey),
}

/// The scheduler.
#[derive(Debug)]
pub struct ProbeScheduler {
    min_interval: Duration,
    rng: Rng,
    /// Not before this the next frame.
    free_at: Timestamp,
    waiting: Vec<QueuedProbeRequest>,
    rounds: Vec<ProbeRound>,
    periodic: PeriodicSchedule,
    fleet: AgentEstimator,
    counts: ProbeCounts,
    outcomes: Vec<ProbeOutcome>,
    /// When our own question about an address was last seen to go.
    frames_seen_at: LruCache<BindingKey, Timestamp>,
    /// When a frame last arrived on a segment.
    alive: LruCache<Segment, Timestamp>,
    /// Conflicts whose owners this node probed when they began.
    baselines: LruCache<BindingKey, ()>,
    now: Timestamp,
}

#[derive(Debug)]
struct QueuedProbeRequest {
    ask: ProbeRequest,
    at: Timestamp,
}

/// A round that has begun.
#[derive(Debug)]
struct ProbeRound {
    ask: ProbeRequest,
    place: SourceInterface,
    /// Whom still to ask; the last is the next.
    missing_owners: SmallVec<[MacAddr; 2]>,
    started_at: Timestamp,
    last_sent: Timestamp,
    by: SmallVec<[MacAddr; 2]>,
}

impl ProbeScheduler {
    /// A scheduler that has nothing to ask; the seed is its chance.
    pub fn new(config: &ProbeSchedulerConfig, seed: u64) -> Self {
        Self {
            min_interval: config.min_interval,
            rng: Rng::with_seed(seed),
            free_at: Timestamp::ZERO,
            waiting: Vec::new(),
            rounds: Vec::new(),
            periodic: PeriodicSchedule::new(config.every, config.min_interval),
            // A dozen questions about one address: as many nodes' turns.
            fleet: AgentEstimator::new(config.fleet, config.every * 12),
            counts: ProbeCounts::default(),
            outcomes: Vec::new(),
            frames_seen_at: LruCache::new(RECENT_CAPACITY),
            alive: LruCache::new(RECENT_CAPACITY),
            baselines: LruCache::new(RECENT_CAPACITY),
            now: Timestamp::ZERO,
        }
    }

    /// These addresses matter from now on.
    pub fn set_tracked(&mut self, keys: impl Iterator<Item = TrackedTarget>, now: Timestamp) {
        self.handle_clock_step(now);
        let (rng, counts) = (&mut self.rng, &mut self.counts);
        self.periodic.update(keys, now, rng, counts);
    }

    /// Whether this node sees for itself who answers for the addresses of the cluster, whoever else asks about them.
    pub const fn set_leading(&mut self, is_leader: bool) {
        self.periodic.set_leading(is_leader);
    }

    /// Takes a wish: it will be asked at a time drawn from its window, or an outcome says why not.
    pub fn schedule(&mut self, ask: ProbeRequest, now: Timestamp) {
        self.handle_clock_step(now);
        let same = |other: &ProbeRequest| {
            (other.key, other.purpose, other.round) == (ask.key, ask.purpose, ask.round)
        };
        let mut known = self.waiting.iter().map(|waiting| &waiting.ask);
        let mut begun = self.rounds.iter().map(|round| &round.ask);
        let mut all = known.by_ref().chain(begun.by_ref());
        if all.any(|other| same(other) && other.requested_for == ask.requested_for) {
            return;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !same(&waiting.ask));
        for _ in self.waiting.len()..before {
            self.counts.count_not_sent(NotSentReason::Obsolete);
        }
        if !self.is_selected(&ask, now) {
            self.count_not_sent_request(ask, NotSentReason::NotSelected);
            return;
        }
        if self.waiting.len() >= MAX_QUEUED {
            let least = (0..self.waiting.len()).max_by_key(|&place| self.waiting[place].priority());
            let least = least.filter(|&place| self.waiting[place].ask.purpose > ask.purpose);
            let Some(place) = least else {
                self.count_not_sent_request(ask, NotSentReason::QueueFull);
                return;
            };
            let dropped = self.waiting.swap_remove(place);
            self.count_not_sent_request(dropped.ask, NotSentReason::QueueFull);
        }
        let window = ask.latest.since(ask.earliest);
        let at = ask.earliest + random_between(Duration::ZERO, window, &mut self.rng);
        self.waiting.push(QueuedProbeRequest { ask, at });
    }

    /// Of what every node sees, a few ask, chosen by lot; of one wish both rounds or none. Only this host can ask
    /// about its own address, and what matters has its own lot.
    fn is_selected(&mut self, ask: &ProbeRequest, now: Timestamp) -> bool {
        match ask.purpose {
            // One draw for a conflict: a node can judge the silence of an owner only if it observed its replies before.
            ProbePurpose::Confirmation if ask.round == ProbeRequest::BASELINE => {
                let is_selected = self.draw(ask, now);
                if is_selected {
                    self.baselines.put(ask.key, ());
                }
                is_selected
            }
            ProbePurpose::Resolution if ask.round == 0 && self.baselines.contains(&ask.key) => true,
            ProbePurpose::Confirmation | ProbePurpose::Resolution if ask.round > 0 => {
                let mut waiting = self.waiting.iter().map(|waiting| &waiting.ask);
                waiting.any(|first| {
                    (first.key, first.purpose, first.requested_for)
                        == (ask.key, ask.purpose, ask.requested_for)
                })
            }
            ProbePurpose::Confirmation | ProbePurpose::Resolution => self.draw(ask, now),
            ProbePurpose::Local | ProbePurpose::Periodic => true,
        }
    }

    fn draw(&mut self, ask: &ProbeRequest, now: Timestamp) -> bool {
        self.rng.f64() < self.fleet.selection_probability(ask.key.segment, now)
    }

    /// What is to be sent now, if anything. To be called until it is nothing; each has to be sent, or
    /// [`Self::send_failed`] told.
    pub fn next(&mut self, now: Timestamp, view: &impl DetectorView) -> Option<ScheduledProbe> {
        self.handle_clock_step(now);
        if now < self.free_at {
            return None;
        }
        let begun = self
            .rounds
            .iter()
            .position(|round| !round.missing_owners.is_empty());
        let place = begun
            .or_else(|| self.start_queued(now, view))
            .or_else(|| self.start_periodic(now, view))?;
        Some(self.next_probe(place, now))
    }

    /// Begins the round that waits and matters most; its place among the rounds.
    fn start_queued(&mut self, now: Timestamp, view: &impl DetectorView) -> Option<usize> {
        loop {
            let due = (0..self.waiting.len()).filter(|&place| {
                let waiting = &self.waiting[place];
                waiting.at <= now && !self.is_probing(&waiting.ask.key)
            });
            let place = due.min_by_key(|&place| self.waiting[place].priority())?;
            let mut waiting = self.waiting.swap_remove(place);
            if !view.is_wanted(&waiting.ask) {
                self.counts.count_not_sent(NotSentReason::Obsolete);
                continue;
            }
            if let Some(until) = self.quiet_period_end(&waiting.ask.key, now, view) {
                waiting.at = until;
                self.waiting.push(waiting);
                continue;
            }
            match view.source_interface(&waiting.ask.key) {
                Err(reason) => self.count_not_sent_request(waiting.ask, reason),
                Ok(place) => return Some(self.start_round(waiting.ask, place, now)),
            }
        }
    }

    /// Begins to ask about an address that matters.
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
            let is_asked =
                self.is_probing(&key) || self.waiting.iter().any(|waiting| waiting.ask.key == key);
            if is_asked {
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
                Ok(place) => {
                    let ask = periodic_request(key, round, requested_for, now);
                    return Some(self.start_round(ask, place, now));
                }
            }
        }
    }

    /// Asks once about an address that need not matter: who answers is heard as any claim is, and nothing follows
    /// from silence.
    pub fn probe_once(&mut self, key: BindingKey, now: Timestamp) {
        self.schedule(periodic_request(key, 0, now, now), now);
    }

    /// Detection has its reasons not to take an address for silent that nobody answered for: it is looked at no more
    /// often than others.
    pub fn restart_silence_check(&mut self, key: &BindingKey) {
        self.periodic.record_claim(key);
    }

    /// The segment is silent as a whole, but there never was anybody else: the address alone is.
    pub fn accept_silence(&mut self, ask: &ProbeRequest, now: Timestamp) {
        self.periodic.abandon(&ask.key, now, &mut self.rng);
        self.periodic.confirm_silence(&ask.key);
    }

    /// Until when a newcomer's probe keeps us from asking, if there was one.
    fn quiet_period_end(
        &mut self,
        key: &BindingKey,
        now: Timestamp,
        view: &impl DetectorView,
    ) -> Option<Timestamp> {
        let until = view.quiet_until(key, now)?;
        self.counts.count_not_sent(NotSentReason::RecentlyStarted);
        let jitter = random_between(Duration::ZERO, Duration::from_secs(1), &mut self.rng);
        // After now, whatever the view says.
        Some((until + jitter).max(now + Duration::from_millis(100)))
    }

    fn start_round(&mut self, ask: ProbeRequest, place: SourceInterface, now: Timestamp) -> usize {
        for waiting in &mut self.waiting {
            if waiting.ask.key == ask.key {
                waiting.at = waiting.at.max(now + ROUND_INTERVAL);
            }
        }
        self.rounds.push(ProbeRound {
            // In the order that was wished: the last is taken first.
            missing_owners: ask.to.iter().rev().copied().collect(),
            ask,
            place,
            started_at: now,
            last_sent: now,
            by: SmallVec::new(),
        });
        self.rounds.len() - 1
    }

    fn next_probe(&mut self, place: usize, now: Timestamp) -> ScheduledProbe {
        self.free_at = now + self.min_interval;
        let round = &mut self.rounds[place];
        let to = round.missing_owners.pop();
        round.last_sent = now;
        let key = round.ask.key;
        if to.is_none() {
            self.periodic.settle_budget(key.segment, now, &mut self.rng);
        }
        self.counts.count_sent(round.ask.purpose);
        ScheduledProbe {
            key,
            purpose: round.ask.purpose,
            question: ArpProbe {
                target: match key.ip {
                    std::net::IpAddr::V4(ip) => ip,
                    // No place is ever found for one.
                    std::net::IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
                },
                asker: round.place.mac,
                from: None,
                to,
                vlan: round.place.segment.vlan,
            },
        }
    }

    /// The kernel did not send it: the round is off.
    pub fn send_failed(&mut self, shot: &ScheduledProbe, now: Timestamp) {
        let is_it =
            |round: &ProbeRound| (round.ask.key, round.ask.purpose) == (shot.key, shot.purpose);
        let Some(place) = self.rounds.iter().position(is_it) else {
            return;
        };
        let round = self.rounds.swap_remove(place);
        if round.ask.purpose == ProbePurpose::Periodic {
            self.periodic.abandon(&shot.key, now, &mut self.rng);
        }
        self.counts.retract_sent(shot.purpose);
        self.count_not_sent_request(round.ask, NotSentReason::SendFailed);
    }

    /// Takes a frame that was seen, sent by this host or received. Before what is due at its time is judged.
    pub fn observe(&mut self, observation: &Observation) {
        let segment = observation.segment;
        let is_ours = observation.direction == Direction::Egress;
        if !is_ours {
            self.alive.put(segment, observation.at);
        }
        match &observation.body {
            ObservationBody::Claim(claim) => self.observe_claim(segment, claim),
            ObservationBody::Probe(probe) if probe.has_sender_ip => {
                let key = BindingKey {
                    segment,
                    ip: probe.target,
                };
                if is_ours {
                    self.frames_seen_at.put(key, observation.at);
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

    /// An answer to a question that was seen since a round began, whoever asked: who gave it has the address now.
    fn observe_claim(&mut self, segment: Segment, claim: &Claim) {
        let key = BindingKey {
            segment,
            ip: claim.ip,
        };
        self.periodic.record_claim(&key);
        let Some(round) = self.rounds.iter_mut().find(|round| round.ask.key == key) else {
            return;
        };
        let request = claim.reply.and_then(|reply| reply.request);
        let carried = claim.previous.map(|carried| (carried.mac, carried.request));
        for (mac, request) in [Some((claim.mac, request)), carried].into_iter().flatten() {
            let answers = request.is_some_and(|request| request.0 >= round.started_at);
            if answers && !round.by.contains(&mac) {
                round.by.push(mac);
            }
        }
    }

    /// What has become of wishes until now.
    pub fn take_outcomes(&mut self, now: Timestamp) -> Vec<ProbeOutcome> {
        self.handle_clock_step(now);
        while let Some(place) = self.rounds.iter().position(|round| round.ends_at() <= now) {
            let round = self.rounds.swap_remove(place);
            self.finish_round(round, now);
        }
        std::mem::take(&mut self.outcomes)
    }

    fn finish_round(&mut self, round: ProbeRound, now: Timestamp) {
        let ProbeRound { ask, by, .. } = round;
        let key = ask.key;
        let is_care = ask.purpose == ProbePurpose::Periodic;
        if !by.is_empty() {
            if is_care {
                self.periodic.record_reply(&key);
            }
            self.outcomes.push(ProbeOutcome::Answered { ask, by });
            return;
        }
        let seen = self.frames_seen_at.peek(&key);
        if seen.is_none_or(|&at| now.since(at) > FRAME_MAX_AGE) {
            if is_care {
                self.periodic.abandon(&key, now, &mut self.rng);
            }
            self.count_not_sent_request(ask, NotSentReason::NoFramesReceived);
            return;
        }
        if !is_care {
            self.outcomes.push(ProbeOutcome::Answered { ask, by });
            return;
        }
        let due = DueProbe {
            key,
            round: ask.round,
            requested_for: ask.requested_for,
        };
        let last_heard = self.alive.peek(&key.segment).copied();
        match self
            .periodic
            .record_no_reply(&due, last_heard, now, &mut self.rng)
        {
            SilenceResult::Unconfirmed => {}
            SilenceResult::Confirmed => self.outcomes.push(ProbeOutcome::Answered { ask, by }),
            SilenceResult::NoFramesReceived => {
                self.outcomes.push(ProbeOutcome::NoFramesReceived(ask));
            }
        }
    }

    /// When to ask [`Self::next`] and [`Self::take_outcomes`] again, if nothing is heard before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.outcomes.is_empty() {
            return Some(self.now);
        }
        let free = |at: Timestamp| at.max(self.free_at);
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|waiting| !self.is_probing(&waiting.ask.key));
        let rounds = self.rounds.iter().map(|round| {
            if round.missing_owners.is_empty() {
                round.ends_at()
            } else {
                self.free_at
            }
        });
        waiting
            .map(|waiting| free(waiting.at))
            .chain(rounds)
            .chain(self.periodic.next_at().map(free))
            .min()
    }

    /// The counts.
    pub const fn counts(&self) -> &ProbeCounts {
        &self.counts
    }

    fn is_probing(&self, key: &BindingKey) -> bool {
        self.rounds.iter().any(|round| round.ask.key == *key)
    }

    fn count_not_sent_request(&mut self, ask: ProbeRequest, reason: NotSentReason) {
        self.counts.count_not_sent(reason);
        self.outcomes.push(ProbeOutcome::NotProbed(ask));
    }

    /// Notices that the clock was set back: nothing waits longer than it would by now.
    fn handle_clock_step(&mut self, now: Timestamp) {
        if now + ROUND_INTERVAL < self.now {
            self.free_at = now;
            self.rounds.clear();
            let waiting = std::mem::take(&mut self.waiting);
            let unasked = waiting.into_iter().map(|waiting| waiting.ask);
            self.outcomes.extend(unasked.map(ProbeOutcome::NotProbed));
            self.periodic.forget_future(now, &mut self.rng);
            self.now = now;
        }
        self.now = self.now.max(now);
    }
}

impl QueuedProbeRequest {
    /// Confirmation before resolution before care, then the one that has waited longest.
    const fn priority(&self) -> (ProbePurpose, Timestamp) {
        (self.ask.purpose, self.at)
    }
}

impl ProbeRound {
    /// When there is nothing more to wait for.
    fn ends_at(&self) -> Timestamp {
        let to = &self.ask.to;
        let all_answered = !to.is_empty() && to.iter().all(|mac| self.by.contains(mac));
        if !self.missing_owners.is_empty() {
            Timestamp(u64::MAX)
        } else if all_answered {
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
