//! Periodic probing of tracked addresses.
//!
//! All agents of a segment probe the same addresses, and none knows the others. To keep them from probing all at once,
//! each waits for a random time; a probe of another agent postpones its own; in a large fleet it skips intervals at
//! random; and every probe that it receives is charged to its own budget, so that the fleet together probes no faster
//! than one agent may.
//!
//! Replies are unicast, so an agent learns nothing from the probes of others: a duplicate that replies only when it is
//! probed is visible to the agent that probed. Therefore each agent probes each address itself at least once in
//! [`AgentEstimator::turn_length`] intervals, as far as the budget allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fastrand::Rng;
use probe_model::{BindingKey, Segment, Timestamp};

use super::{NotSentReason, ProbeCounts, agents::AgentEstimator};

/// The maximum number of tracked addresses. At five probes a second, an interval takes almost an hour then.
pub(super) const MAX_TRACKED: usize = 16_384;

/// The maximum time until the first probe of an address, unless the interval is shorter. A newly assigned address of a
/// service is probed this much later, because its owner may still be starting.
const FIRST_PROBE_WITHIN: Duration = Duration::from_mins(1);

/// The minimum and maximum time until the second probe, after one without a reply.
const RETRY_INTERVAL: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(2_500)];

/// The number of intervals in which an agent of a large fleet probes an address again that it found silent. It leaves the
/// address to other agents then, so that not all agents probe it.
const ROUNDS_BEFORE_SILENT: u8 = 5;

/// A time that is longer than a probe and its replies take.
pub(super) const ROUND: Duration = Duration::from_millis(1_500);

/// The maximum random delay after the budget of a busy segment allows the next probe, so that waiting agents do not all
/// send at once.
const BACK_OFF: Duration = Duration::from_secs(1);

/// The time after an observed probe of another agent during which a segment counts as shared.
const SHARED_INTERVAL: Duration = Duration::from_mins(1);

/// The maximum by which the budget of a segment is overdrawn, so that probes of other agents, or forged ones, slow down
/// periodic probing and never stop it.
const MAX_OVERDRAWN: Duration = Duration::from_secs(10);

/// The tracked addresses and when each is due.
#[derive(Debug)]
pub(super) struct PeriodicSchedule {
    every: Duration,
    min_interval: Duration,
    entries: HashMap<BindingKey, PeriodicEntry>,
    queues: BTreeMap<Segment, SegmentQueue>,
    /// The number of addresses beyond the maximum at the last update.
    excess: usize,
    /// Whether this agent is the leader, which probes every address of the cluster itself.
    is_leader: bool,
}

/// The addresses of one segment, in the order in which they are due.
#[derive(Debug, Default)]
struct SegmentQueue {
    order: BTreeSet<(Timestamp, BindingKey)>,
    /// When the budget of the segment allows the next broadcast probe.
    free_at: Timestamp,
    /// When this agent sends the next broadcast probe: then, or a little later.
    open_at: Timestamp,
    /// When another agent last probed.
    last_frame_at: Option<Timestamp>,
}

/// A tracked address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedTarget {
    /// The address and its segment.
    pub key: BindingKey,
    /// Whether a service of the cluster has it.
    pub from_cluster: bool,
}

#[derive(Clone, Copy, Debug)]
struct PeriodicEntry {
    from_cluster: bool,
    next: Timestamp,
    /// When the first probe of this round was due; `None` until the next first probe.
    round_started_at: Option<Timestamp>,
    /// How often this agent has probed again since it found the address silent.
    unanswered_rounds: u8,
    /// When this agent last probed it itself; before the first time, when it was added.
    probed_at: Timestamp,
    /// The part of its turn after which this agent probes itself: random, so that agents that started together do not
    /// probe together.
    turn_share: f64,
    stage: ConfirmationStage,
    /// Whether this agent has found it silent.
    silent: bool,
}

/// The stage of probing one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfirmationStage {
    First,
    /// The first probe got no reply.
    Second,
    /// Neither did the second, and no frame was received at all: once more, after another host was probed.
    ReferenceReplied,
}

/// An address that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueProbe {
    pub key: BindingKey,
    /// 0, or 1 after a probe without a reply.
    pub round: u8,
    /// When the first probe was due.
    pub requested_for: Timestamp,
}

/// The meaning of a probe without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceResult {
    /// No meaning yet: the address will be probed again.
    Unconfirmed,
    /// The address is silent.
    Confirmed,
    /// No frame was received on the segment since, so this host may be disconnected. Another host is to be probed.
    NoFramesReceived,
}

impl PeriodicSchedule {
    /// A schedule without addresses; each is probed once in `every`, with `min_interval` between two probes on a segment.
    pub fn new(every: Duration, min_interval: Duration) -> Self {
        Self {
            every,
            min_interval,
            entries: HashMap::new(),
            queues: BTreeMap::new(),
            excess: 0,
            is_leader: false,
        }
    }

    /// Sets whether this agent is the leader, which probes every address of the cluster itself.
    pub const fn set_leading(&mut self, is_leader: bool) {
        self.is_leader = is_leader;
    }

    /// Sets the tracked addresses.
    pub fn update(
        &mut self,
        keys: impl Iterator<Item = TrackedTarget>,
        now: Timestamp,
        rng: &mut Rng,
        counts: &mut ProbeCounts,
    ) {
        let keys = keys.filter(|target| target.key.ip.is_ipv4());
        let tracked: HashMap<BindingKey, bool> = keys
            .map(|target| (target.key, target.from_cluster))
            .collect();
        let queues = &mut self.queues;
        self.entries.retain(|key, entry| {
            let keep = tracked.get(key);
            entry.from_cluster = keep.copied().unwrap_or(false);
            let keep = keep.is_some();
            if !keep && let Some(queue) = queues.get_mut(&key.segment) {
                queue.order.remove(&(entry.next, *key));
            }
            keep
        });
        queues.retain(|_, queue| !queue.order.is_empty());
        let mut new: Vec<_> = tracked.into_iter().collect();
        new.retain(|(key, _)| !self.entries.contains_key(key));
        // Sorted, because the order of a hash map is random.
        new.sort_unstable();
        let available = MAX_TRACKED.saturating_sub(self.entries.len());
        let excess = new.len().saturating_sub(available);
        for _ in self.excess..excess {
            counts.count_not_sent(NotSentReason::TooMany);
        }
        self.excess = excess;
        for (key, from_cluster) in new.into_iter().take(available) {
            let within = self.every.min(FIRST_PROBE_WITHIN);
            let grace = if from_cluster { within } else { Duration::ZERO };
            let entry = PeriodicEntry {
                from_cluster,
                next: now + random_between(grace, grace + within, rng),
                round_started_at: None,
                unanswered_rounds: 0,
                probed_at: now,
                turn_share: rng.f64(),
                stage: ConfirmationStage::First,
                silent: false,
            };
            let queue = self.queues.entry(key.segment).or_default();
            queue.order.insert((entry.next, key));
            self.entries.insert(key, entry);
        }
    }

    /// The time at which the next address is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.queues.values().filter_map(SegmentQueue::next_at).min()
    }

    /// The next address that is due and that this agent is to probe, as far as the budgets of the segments allow. It is
    /// due again after an interval; the caller reports the outcome. Silent addresses that this agent leaves to others from
    /// now on are added to `forgotten`.
    pub fn pop(
        &mut self,
        now: Timestamp,
        fleet: &mut AgentEstimator,
        rng: &mut Rng,
        counts: &mut ProbeCounts,
        forgotten: &mut Vec<BindingKey>,
    ) -> Option<DueProbe> {
        loop {
            // The address that has waited longest, so that no segment starves others.
            let queues = self.queues.values();
            let next = queues.filter_map(|queue| Some((queue.next_at()?, queue.order.first()?.1)));
            let (_, key) = next.filter(|&(at, _)| at <= now).min()?;
            // Not while a reply may still be received.
            let after = now + self.interval(rng).max(ROUND);
            let entry = self.entries.get_mut(&key)?;
            let is_first = entry.stage == ConfirmationStage::First;
            let turn_ends = entry.turn_ends(self.every, fleet.turn_length(key.segment, now));
            let is_turn = now >= turn_ends;
            let share = if self.is_leader && entry.from_cluster {
                1.0
            } else {
                fleet.selection_probability(key.segment, now)
            };
            if entry.should_forget(share) {
                forgotten.push(key);
            }
            // An agent that has found it silent continues to probe.
            if is_first && !entry.silent && !is_turn && rng.f64() >= share {
                counts.count_not_sent(NotSentReason::NotSelected);
                self.postpone(&key, after.min(turn_ends));
                continue;
            }
            let requested_for = *entry.round_started_at.get_or_insert(now);
            entry.unanswered_rounds += u8::from(entry.silent);
            entry.probed_at = now;
            entry.turn_share = 1.0 - rng.f64() / 4.0;
            self.postpone(&key, after);
            return Some(DueProbe {
                key,
                round: u8::from(!is_first),
                requested_for,
            });
        }
    }

    /// Postpones an address until `until`.
    pub fn postpone(&mut self, key: &BindingKey, until: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let queue = self.queues.entry(key.segment).or_default();
            queue.order.remove(&(entry.next, *key));
            entry.next = until;
            queue.order.insert((until, *key));
        }
    }

    /// Abandons the round of an address that cannot be probed now; it is due again after an interval.
    pub fn abandon(&mut self, key: &BindingKey, now: Timestamp, rng: &mut Rng) {
        self.restart(key);
        let until = now + self.interval(rng);
        self.postpone(key, until);
    }

    /// Records that a host replied for an address.
    pub fn record_reply(&mut self, key: &BindingKey) {
        self.restart(key);
        self.record_claim(key);
    }

    /// Records that a host claims an address, which is not silent then.
    pub fn record_claim(&mut self, key: &BindingKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.silent = false;
        }
    }

    /// Records that no host replied. `last_frame_at` is the time of the last frame that was received on the segment.
    pub fn record_no_reply(
        &mut self,
        due: &DueProbe,
        last_frame_at: Option<Timestamp>,
        now: Timestamp,
        rng: &mut Rng,
    ) -> SilenceResult {
        let Some(entry) = self.entries.get_mut(&due.key) else {
            return SilenceResult::Unconfirmed;
        };
        let is_alive = last_frame_at.is_some_and(|received| received >= due.requested_for);
        let (stage, silence) = match entry.stage {
            ConfirmationStage::First if entry.silent => {
                (ConfirmationStage::First, SilenceResult::Unconfirmed)
            }
            ConfirmationStage::First => (ConfirmationStage::Second, SilenceResult::Unconfirmed),
            ConfirmationStage::Second | ConfirmationStage::ReferenceReplied if is_alive => {
                (ConfirmationStage::First, SilenceResult::Confirmed)
            }
            ConfirmationStage::Second => (
                ConfirmationStage::ReferenceReplied,
                SilenceResult::NoFramesReceived,
            ),
            ConfirmationStage::ReferenceReplied => {
                (ConfirmationStage::First, SilenceResult::Unconfirmed)
            }
        };
        entry.stage = stage;
        if stage == ConfirmationStage::First {
            self.restart(&due.key);
        } else {
            let [least, most] = RETRY_INTERVAL;
            let until = now + random_between(least, most, rng);
            self.postpone(&due.key, until);
        }
        if silence == SilenceResult::Confirmed {
            self.confirm_silence(&due.key);
        }
        silence
    }

    /// The address is silent.
    pub fn confirm_silence(&mut self, key: &BindingKey) {
        self.restart(key);
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.silent, entry.unanswered_rounds) = (true, 0);
        }
    }

    /// Another agent has probed an address by broadcast: this agent skips an interval, but not its own turn, nor an
    /// address that it has found silent and probes itself.
    pub fn observe(
        &mut self,
        key: &BindingKey,
        at: Timestamp,
        fleet: &mut AgentEstimator,
        rng: &mut Rng,
        counts: &mut ProbeCounts,
    ) {
        if self.take_budget(key.segment, at, self.back_off(rng)) {
            counts.count_not_sent(NotSentReason::BudgetUsed);
        }
        if let Some(queue) = self.queues.get_mut(&key.segment) {
            queue.last_frame_at = Some(at);
        }
        let until = at + self.interval(rng);
        let turn_length = fleet.turn_length(key.segment, at);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.stage != ConfirmationStage::First
            || entry.silent
            || self.is_leader && entry.from_cluster
        {
            return;
        }
        let until = until.min(entry.turn_ends(self.every, turn_length));
        if until <= entry.next {
            return;
        }
        counts.count_not_sent(NotSentReason::NotSelected);
        self.postpone(key, until);
    }

    /// This agent has sent a broadcast probe on a segment. If others probe too, it waits until they had their chance.
    pub fn settle_budget(&mut self, segment: Segment, at: Timestamp, rng: &mut Rng) {
        let queue = self.queues.get(&segment);
        let last_frame_at = queue.and_then(|queue| queue.last_frame_at);
        let is_shared = last_frame_at.is_some_and(|observed| at.since(observed) < SHARED_INTERVAL);
        let back_off = if is_shared {
            self.back_off(rng)
        } else {
            Duration::ZERO
        };
        self.take_budget(segment, at, back_off);
    }

    /// The delay of this agent after the budget of a segment allows the next probe. The leader goes first, because the
    /// notifications depend on its probes.
    fn back_off(&self, rng: &mut Rng) -> Duration {
        if self.is_leader {
            Duration::ZERO
        } else {
            random_between(Duration::ZERO, BACK_OFF, rng)
        }
    }

    /// A broadcast probe was sent on a segment, by any agent; this one sends no sooner than `back_off` after the budget
    /// allows. Returns whether a due address waits.
    fn take_budget(&mut self, segment: Segment, at: Timestamp, back_off: Duration) -> bool {
        let Some(queue) = self.queues.get_mut(&segment) else {
            return false;
        };
        queue.free_at = (at.max(queue.free_at) + self.min_interval).min(at + MAX_OVERDRAWN);
        queue.open_at = queue.free_at + back_off;
        queue.order.first().is_some_and(|&(due, _)| due <= at)
    }

    /// Handles a clock that was set back: limits all times to those that would be set now.
    pub fn forget_future(&mut self, now: Timestamp, rng: &mut Rng) {
        for queue in self.queues.values_mut() {
            (queue.free_at, queue.open_at, queue.last_frame_at) = (now, now, None);
        }
        for entry in self.entries.values_mut() {
            entry.probed_at = entry.probed_at.min(now);
        }
        let keys: Vec<_> = self.entries.keys().copied().collect();
        for key in keys {
            self.abandon(&key, now, rng);
        }
    }

    fn restart(&mut self, key: &BindingKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.round_started_at = None;
            entry.stage = ConfirmationStage::First;
        }
    }

    /// The time until the next probe for an address: the interval ± 20 %.
    fn interval(&self, rng: &mut Rng) -> Duration {
        random_between(self.every * 4 / 5, self.every * 6 / 5, rng)
    }
}

impl SegmentQueue {
    fn next_at(&self) -> Option<Timestamp> {
        self.order.first().map(|&(at, _)| at.max(self.open_at))
    }
}

impl PeriodicEntry {
    /// The time at which this agent must probe the address itself, independently of other agents.
    fn turn_ends(&self, every: Duration, turn_length: u32) -> Timestamp {
        self.probed_at + (every * turn_length).mul_f64(self.turn_share)
    }

    /// Whether this agent has probed a silent address often enough; it is forgotten then.
    fn should_forget(&mut self, share: f64) -> bool {
        let is_over = self.silent && share < 1.0 && self.unanswered_rounds >= ROUNDS_BEFORE_SILENT;
        self.silent &= !is_over;
        is_over
    }
}

/// A random duration between two.
pub(super) fn random_between(least: Duration, most: Duration, rng: &mut Rng) -> Duration {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (least, most) = (nanos(least), nanos(most));
    Duration::from_nanos(rng.u64(least..=most.max(least)))
}
