//! The addresses that matter, each asked about now and then, by somebody.
//!
//! Every node of a fleet cares for the same addresses, and none knows the others. What keeps them from asking all
//! at once: each waits for a time of its own; a question that is heard counts as asked; in a large fleet a lot
//! decides who asks at all; and every question heard is paid for from this node's budget too, so that the fleet
//! together asks no faster than one node may.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fastrand::Rng;
use probe_model::{BindingKey, Segment, Timestamp};

use super::{NotSentReason, ProbeCounts, agents::AgentEstimator};

/// Addresses cared for. At five questions a second a round takes almost an hour then.
pub(super) const MAX_TRACKED: usize = 16_384;

/// Each address is first asked about within this, if it is to be asked about more seldom. One that was assigned a moment
/// ago is given as long before: those who are to answer for it may still be starting.
const FIRST_PROBE_WITHIN: Duration = Duration::from_mins(1);

/// The second question, after one that nobody answered: between these.
const RETRY_INTERVAL: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(2_500)];

/// How many times in a row an address is left to others where every node is to ask: what they hear, this node
/// does not.
const MAX_SKIPPED: u8 = 3;

/// How often a node of a large fleet looks again at an address that it has found silent, at every interval; then
/// that is left to others, so that the looking does not grow to the whole fleet.
const ROUNDS_BEFORE_SILENT: u8 = 5;

/// Longer than a question and its answers take.
pub(super) const ROUND: Duration = Duration::from_millis(1_500);

/// When a segment is busy, how long after its budget allows the next question: drawn, so that those who wait do
/// not all ask at once then.
const BACK_OFF: Duration = Duration::from_secs(1);

/// A segment on which another node was heard within this is shared.
const SHARED_INTERVAL: Duration = Duration::from_mins(1);

/// The budget of a segment is overdrawn by no more than this: what others send, or forge, slows care down and
/// never stops it.
const MAX_OVERDRAWN: Duration = Duration::from_secs(10);

/// The addresses and their times.
#[derive(Debug)]
pub(super) struct PeriodicSchedule {
    every: Duration,
    min_interval: Duration,
    entries: HashMap<BindingKey, PeriodicEntry>,
    lines: BTreeMap<Segment, SegmentQueue>,
    /// Addresses that there was no room for at the last look.
    overdrawn: usize,
    /// This node answers for what is known of the cluster's addresses: it sees for itself, whoever else asks.
    is_leader: bool,
}

/// The addresses of one segment, in the order of their times.
#[derive(Debug, Default)]
struct SegmentQueue {
    order: BTreeSet<(Timestamp, BindingKey)>,
    /// From when on the budget of the segment allows the next question to everybody.
    free_at: Timestamp,
    /// From when on this node asks: then, or a little later.
    open_at: Timestamp,
    /// When another node last asked.
    last_frame_at: Option<Timestamp>,
}

/// An address that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedTarget {
    /// Which.
    pub key: BindingKey,
    /// A cluster's service has it.
    pub from_cluster: bool,
}

#[derive(Clone, Copy, Debug)]
struct PeriodicEntry {
    from_cluster: bool,
    next: Timestamp,
    /// When it began to be asked about; `None` until the next first question.
    round_started_at: Option<Timestamp>,
    /// How often this node has looked again since it found the address silent.
    unanswered_rounds: u8,
    skipped_in_a_row: u8,
    stage: ConfirmationStage,
    /// This node has found it silent.
    silent: bool,
}

/// How far asking about one address has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfirmationStage {
    First,
    /// Nobody answered the first question.
    Second,
    /// Nobody answered the second either, nor was anything else heard: once more, after a witness was asked.
    ReferenceReplied,
}

/// An address that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueProbe {
    pub key: BindingKey,
    /// 0, or 1 after an unanswered question.
    pub round: u8,
    /// When the first question was due.
    pub requested_for: Timestamp,
}

/// What a question without an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceResult {
    /// Nothing yet: it will be asked again.
    Unconfirmed,
    /// The address is silent.
    Confirmed,
    /// Nothing at all was heard on the segment since: it may be this host's cable. A witness is to be asked.
    NoFramesReceived,
}

impl PeriodicSchedule {
    /// Nobody yet; each is asked about once in `every`, and `gap` is between two questions on a segment.
    pub fn new(every: Duration, min_interval: Duration) -> Self {
        Self {
            every,
            min_interval,
            entries: HashMap::new(),
            lines: BTreeMap::new(),
            overdrawn: 0,
            is_leader: false,
        }
    }

    /// Whether this node asks about every address of the cluster itself.
    pub const fn set_leading(&mut self, is_leader: bool) {
        self.is_leader = is_leader;
    }

    /// These are the addresses from now on.
    pub fn update(
        &mut self,
        keys: impl Iterator<Item = TrackedTarget>,
        now: Timestamp,
        rng: &mut Rng,
        counts: &mut ProbeCounts,
    ) {
        let keys = keys.filter(|wanted| wanted.key.ip.is_ipv4());
        let wanted: HashMap<BindingKey, bool> = keys
            .map(|wanted| (wanted.key, wanted.from_cluster))
            .collect();
        let lines = &mut self.lines;
        self.entries.retain(|key, entry| {
            let keep = wanted.get(key);
            entry.from_cluster = keep.copied().unwrap_or(false);
            let keep = keep.is_some();
            if !keep && let Some(line) = lines.get_mut(&key.segment) {
                line.order.remove(&(entry.next, *key));
            }
            keep
        });
        lines.retain(|_, line| !line.order.is_empty());
        let mut new: Vec<_> = wanted.into_iter().collect();
        new.retain(|(key, _)| !self.entries.contains_key(key));
        // The same whatever the order of the set.
        new.sort_unstable();
        let room = MAX_TRACKED.saturating_sub(self.entries.len());
        let overdrawn = new.len().saturating_sub(room);
        for _ in self.overdrawn..overdrawn {
            counts.count_not_sent(NotSentReason::TooMany);
        }
        self.overdrawn = overdrawn;
        for (key, from_cluster) in new.into_iter().take(room) {
            let within = self.every.min(FIRST_PROBE_WITHIN);
            let grace = if from_cluster { within } else { Duration::ZERO };
            let entry = PeriodicEntry {
                from_cluster,
                next: now + random_between(grace, grace + within, rng),
                round_started_at: None,
                unanswered_rounds: 0,
                skipped_in_a_row: 0,
                stage: ConfirmationStage::First,
                silent: false,
            };
            let line = self.lines.entry(key.segment).or_default();
            line.order.insert((entry.next, key));
            self.entries.insert(key, entry);
        }
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.lines.values().filter_map(SegmentQueue::next_at).min()
    }

    /// The next that is due and that it is this node's turn to ask about, as far as the segments' budgets allow.
    /// Its time is put off by an interval; what comes of it is to be told. Of addresses that it is another's turn
    /// to ask about, those whose silence is no longer believed go to `forgotten`.
    pub fn pop(
        &mut self,
        now: Timestamp,
        fleet: &mut AgentEstimator,
        rng: &mut Rng,
        counts: &mut ProbeCounts,
        forgotten: &mut Vec<BindingKey>,
    ) -> Option<DueProbe> {
        loop {
            // The one that has waited longest, so that no segment keeps others from their turn.
            let lines = self.lines.values();
            let next = lines.filter_map(|line| Some((line.next_at()?, line.order.first()?.1)));
            let (_, key) = next.filter(|&(at, _)| at <= now).min()?;
            // Not while an answer may still come.
            let after = now + self.interval(rng).max(ROUND);
            let entry = self.entries.get_mut(&key)?;
            let is_first = entry.stage == ConfirmationStage::First;
            let share = if self.is_leader && entry.from_cluster {
                1.0
            } else {
                fleet.selection_probability(key.segment, now)
            };
            if entry.should_forget(share) {
                forgotten.push(key);
            }
            // Whoever has found it silent goes on looking, lot or no lot.
            if is_first && !entry.silent && rng.f64() >= share {
                counts.count_not_sent(NotSentReason::NotSelected);
                self.postpone(&key, after);
                continue;
            }
            let requested_for = *entry.round_started_at.get_or_insert(now);
            entry.unanswered_rounds += u8::from(entry.silent);
            entry.skipped_in_a_row = 0;
            self.postpone(&key, after);
            return Some(DueProbe {
                key,
                round: u8::from(!is_first),
                requested_for,
            });
        }
    }

    /// Not before `until`.
    pub fn postpone(&mut self, key: &BindingKey, until: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let line = self.lines.entry(key.segment).or_default();
            line.order.remove(&(entry.next, *key));
            entry.next = until;
            line.order.insert((until, *key));
        }
    }

    /// It cannot be asked about for now.
    pub fn abandon(&mut self, key: &BindingKey, now: Timestamp, rng: &mut Rng) {
        self.restart(key);
        let until = now + self.interval(rng);
        self.postpone(key, until);
    }

    /// Somebody answered.
    pub fn record_reply(&mut self, key: &BindingKey) {
        self.restart(key);
        self.record_claim(key);
    }

    /// Somebody claims it: it is not silent.
    pub fn record_claim(&mut self, key: &BindingKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.silent = false;
        }
    }

    /// Nobody answered, and this was the last that was heard of the segment.
    pub fn record_no_reply(
        &mut self,
        due: &DueProbe,
        last_heard: Option<Timestamp>,
        now: Timestamp,
        rng: &mut Rng,
    ) -> SilenceResult {
        let Some(entry) = self.entries.get_mut(&due.key) else {
            return SilenceResult::Unconfirmed;
        };
        let is_alive = last_heard.is_some_and(|heard| heard >= due.requested_for);
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

    /// Another node asks everybody about an address: that is one question less for this one, unless it has
    /// found the address silent, and looks itself whether it still is.
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
        if let Some(line) = self.lines.get_mut(&key.segment) {
            line.last_frame_at = Some(at);
        }
        let until = at + self.interval(rng);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.stage != ConfirmationStage::First
            || entry.silent
            || self.is_leader && entry.from_cluster
        {
            return;
        }
        let is_left_often = entry.skipped_in_a_row >= MAX_SKIPPED;
        if is_left_often && fleet.selection_probability(key.segment, at) >= 1.0 {
            return;
        }
        entry.skipped_in_a_row = entry.skipped_in_a_row.saturating_add(1);
        counts.count_not_sent(NotSentReason::NotSelected);
        self.postpone(key, until);
    }

    /// This node has asked everybody on a segment. Where others ask too, it does not go on before they had
    /// their chance.
    pub fn settle_budget(&mut self, segment: Segment, at: Timestamp, rng: &mut Rng) {
        let line = self.lines.get(&segment);
        let last_frame_at = line.and_then(|line| line.last_frame_at);
        let is_shared = last_frame_at.is_some_and(|heard| at.since(heard) < SHARED_INTERVAL);
        let back_off = if is_shared {
            self.back_off(rng)
        } else {
            Duration::ZERO
        };
        self.take_budget(segment, at, back_off);
    }

    /// How long this node waits when a segment's budget allows the next question. Who leads goes first: of what the
    /// fleet may ask together its own questions are those that somebody reads.
    fn back_off(&self, rng: &mut Rng) -> Duration {
        if self.is_leader {
            Duration::ZERO
        } else {
            random_between(Duration::ZERO, BACK_OFF, rng)
        }
    }

    /// A question to everybody on a segment has gone out, whoever asked; this node asks no sooner than `back_off`
    /// after the budget allows. Returns whether an address waits that is due.
    fn take_budget(&mut self, segment: Segment, at: Timestamp, back_off: Duration) -> bool {
        let Some(line) = self.lines.get_mut(&segment) else {
            return false;
        };
        line.free_at = (at.max(line.free_at) + self.min_interval).min(at + MAX_OVERDRAWN);
        line.open_at = line.free_at + back_off;
        line.order.first().is_some_and(|&(due, _)| due <= at)
    }

    /// The clock was set back: nothing lies further ahead than it would by now.
    pub fn forget_future(&mut self, now: Timestamp, rng: &mut Rng) {
        for line in self.lines.values_mut() {
            (line.free_at, line.open_at, line.last_frame_at) = (now, now, None);
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

    /// Until the next question about an address: the interval, a fifth more or less.
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
    /// Whether this node has looked at a silence for long enough; it is forgotten then.
    fn should_forget(&mut self, share: f64) -> bool {
        let is_over = self.silent && share < 1.0 && self.unanswered_rounds >= ROUNDS_BEFORE_SILENT;
        self.silent &= !is_over;
        is_over
    }
}

/// A time between two.
pub(super) fn random_between(least: Duration, most: Duration, rng: &mut Rng) -> Duration {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (least, most) = (nanos(least), nanos(most));
    Duration::from_nanos(rng.u64(least..=most.max(least)))
}
