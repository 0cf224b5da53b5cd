//! Which address is asked about when: pure, and told the time.

use std::time::Duration;

use fixedbitset::FixedBitSet;
use lru::LruCache;
use probe_model::Timestamp;

use super::shuffle::AddressPermutation;

/// Until a stranger's ARP probe is forgotten: longer than a booting host asks and waits (RFC 5227 section 1.1).
const PROBE_MEMORY: Duration = Duration::from_secs(10);
/// How often an address is left alone for a prober until it is given up.
const MAX_DEFERRALS: u8 = 3;
/// Probed addresses that are remembered.
const FOREIGN_PROBE_TABLE: usize = 65_536;

/// Between two rounds about a handful of addresses.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds about a handful.
const ROUNDS: u32 = 3;
/// Frames about a handful that may leave in their second at any rate: fewer than the 15 above which a switch
/// with Dynamic ARP Inspection shuts a port, because the rest of this host asks, too.
const BURST: u32 = 12;

/// Rounds of a sweep: the second asks the silent ones again, because a frame can get lost.
const PASSES: u32 = 2;

/// Between two rounds of watching.
const WATCH_ROUND: Duration = Duration::from_secs(1);

/// A timer that comes late is made good for by as much, at rates at which that is no burst.
const MAX_LAG: Duration = Duration::from_millis(10);
const LAG_RATE_THRESHOLD: Duration = Duration::from_millis(20);

/// What is done if a frame could not be queued.
const RETRY: Duration = Duration::from_millis(5);

/// How all the addresses are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleMode {
    /// At once, several times, within a second: for a handful.
    Burst,
    /// One after the other, the silent ones twice.
    Sweep,
    /// Again and again until then.
    Watch {
        /// The end.
        until: Timestamp,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleAction {
    /// Ask about the address with this number.
    Probe(u32),
    /// Nothing until then, or until something is heard.
    Wait(Timestamp),
    /// Nothing any more.
    Done,
}

/// Says which address is asked about next, and when.
#[derive(Debug)]
pub struct CheckSchedule {
    mode: ScheduleMode,
    order: AddressPermutation,
    total: u32,
    interval: Duration,
    wait: Duration,
    pass: u32,
    /// Within the pass.
    next_position: u32,
    pass_begins: Timestamp,
    /// When the first pass began, and what it took.
    first_pass: (Timestamp, Duration),
    /// The pace allows the next frame then.
    free_at: Timestamp,
    /// Frames that are left to a burst.
    burst: u32,
    last_asked: Timestamp,
    unanswered: Option<u32>,
    asked: Vec<u16>,
    answered: FixedBitSet,
    probed: LruCache<u32, Timestamp>,
    deferred: Vec<DeferredTarget>,
    ever_asked: u32,
    sent: u64,
}

/// An address that is left alone for a while.
#[derive(Clone, Copy, Debug)]
struct DeferredTarget {
    number: u32,
    due: Timestamp,
    /// Rounds that are missing.
    rounds: u32,
    deferrals: u8,
}

impl CheckSchedule {
    /// The most addresses that are a handful.
    pub const FEW_TARGETS: u32 = 10;

    /// A schedule that begins now: so many addresses, at `rate` frames a second, and `wait` for the last answer.
    pub fn new(
        mode: ScheduleMode,
        total: u32,
        rate: u32,
        wait: Duration,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            mode,
            order: AddressPermutation::new(total, seed),
            total,
            // Rounded up: not even a nanosecond faster.
            interval: Duration::from_nanos(1_000_000_000_u64.div_ceil(rate.max(1).into())),
            wait,
            pass: 0,
            next_position: 0,
            pass_begins: now,
            first_pass: (now, Duration::ZERO),
            free_at: now,
            burst: rate.max(BURST),
            last_asked: now,
            unanswered: None,
            asked: vec![0; total as usize],
            answered: FixedBitSet::with_capacity(total as usize),
            probed: LruCache::unbounded(),
            deferred: Vec::new(),
            ever_asked: 0,
            sent: 0,
        }
    }

    /// What is to be done now. What it says to ask counts as asked.
    pub fn next(&mut self, now: Timestamp) -> ScheduleAction {
        if let Some(number) = self.unanswered {
            return self.wait_for_rate(now, number, |schedule| schedule.unanswered = None);
        }
        if let Some(next_position) = self.due(now) {
            let number = self.deferred[next_position].number;
            return self.wait_for_rate(now, number, |schedule| {
                schedule.take_deferred(next_position, now);
            });
        }
        while !self.is_last_pass_over(now) {
            if now < self.pass_begins {
                return ScheduleAction::Wait(self.earliest_deferred(self.pass_begins));
            }
            let Some(number) = self.current() else {
                self.end_pass(now);
                continue;
            };
            if self.has_recent_foreign_probe(number, now) {
                self.defer(number);
                self.next_position += 1;
                continue;
            }
            if self.mode == ScheduleMode::Burst {
                if self.burst == 0 {
                    self.next_position = u32::MAX;
                    continue;
                }
                self.burst -= 1;
                self.next_position += 1;
                self.count(number, now);
                return ScheduleAction::Probe(number);
            }
            let ready = self.ready_at();
            if now < ready {
                return ScheduleAction::Wait(self.earliest_deferred(ready));
            }
            return self.wait_for_rate(now, number, |schedule| schedule.next_position += 1);
        }
        if let Some(due) = self.deferred.iter().map(|deferred| deferred.due).min() {
            return ScheduleAction::Wait(due);
        }
        let end = match self.mode {
            ScheduleMode::Watch { until } => until,
            ScheduleMode::Burst | ScheduleMode::Sweep => self.last_asked + self.wait,
        };
        if now < end {
            ScheduleAction::Wait(end)
        } else {
            ScheduleAction::Done
        }
    }

    /// Somebody answers for this address.
    pub fn answered(&mut self, number: u32) {
        self.answered.set(number as usize, true);
    }

    /// A stranger asks for this address, as a booting host does.
    pub fn record_foreign_probe(&mut self, number: u32, now: Timestamp) {
        self.probed.put(number, now);
        if self.probed.len() > FOREIGN_PROBE_TABLE {
            self.probed.pop_lru();
        }
    }

    /// Whether somebody asked whether this address is free, so that it was left alone for a while.
    pub fn is_deferred(&self, number: u32) -> bool {
        self.probed.contains(&number)
    }

    /// The question about this address did not leave: it is asked again in a moment.
    pub fn not_sent(&mut self, number: u32, now: Timestamp) {
        if let Some(asked) = self.asked.get_mut(number as usize) {
            *asked = asked.saturating_sub(1);
            self.ever_asked -= u32::from(*asked == 0);
        }
        self.sent -= 1;
        self.unanswered = Some(number);
        self.free_at = now + RETRY;
    }

    /// How often this address was asked about.
    pub fn asked(&self, number: u32) -> u32 {
        self.asked.get(number as usize).copied().unwrap_or(0).into()
    }

    /// How many addresses were asked about.
    pub fn addresses_probed(&self) -> u32 {
        self.ever_asked
    }

    /// How many frames left.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many addresses wait for a prober to be ready.
    pub fn waiting(&self) -> usize {
        self.deferred.len()
    }

    /// How long it takes from now on, if as many go on keeping silent.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let per_pass = |asked: u32| self.interval * asked;
        match self.mode {
            ScheduleMode::Watch { until } => until.since(now),
            ScheduleMode::Burst => ROUND * (ROUNDS - self.pass.min(ROUNDS)) + self.wait,
            ScheduleMode::Sweep => {
                let ending = (self.last_asked + self.wait).since(now);
                let here = per_pass(self.total.saturating_sub(self.next_position));
                match self.pass {
                    // As many of those to come will be silent as of those before.
                    0 => here + per_pass(self.without_reply()) + self.wait,
                    1 => here.min(per_pass(self.without_reply())) + self.wait,
                    _ => ending,
                }
            }
        }
    }

    /// How many addresses will have kept silent, by the share of those that did so far.
    fn without_reply(&self) -> u32 {
        let answered = u64::try_from(self.answered.count_ones(..)).unwrap_or(u64::MAX);
        let asked = u64::from(self.ever_asked.max(1));
        let silent = asked.saturating_sub(answered) * u64::from(self.total) / asked;
        u32::try_from(silent).unwrap_or(self.total)
    }

    /// The number at the current place of the pass, if the pass goes on.
    fn current(&mut self) -> Option<u32> {
        // About a handful, each round but the first asks the silent ones first, as long as the burst lasts.
        let halves = if self.mode == ScheduleMode::Burst && self.pass > 0 {
            2
        } else {
            1
        };
        while self.next_position < self.total.saturating_mul(halves) {
            let number = self.order.at(self.next_position % self.total);
            let answered = self.answered.contains(number as usize);
            let wanted = match self.mode {
                ScheduleMode::Watch { .. } => true,
                ScheduleMode::Sweep => self.pass == 0 || !answered,
                ScheduleMode::Burst => {
                    halves == 1 || answered == (self.next_position >= self.total)
                }
            };
            if wanted {
                return Some(number);
            }
            self.next_position += 1;
        }
        None
    }

    fn end_pass(&mut self, now: Timestamp) {
        if self.pass == 0 {
            self.first_pass.1 = now.since(self.first_pass.0);
        }
        let least = match self.mode {
            ScheduleMode::Burst => ROUND,
            ScheduleMode::Sweep => Duration::ZERO,
            ScheduleMode::Watch { .. } => WATCH_ROUND,
        };
        self.pass_begins = (self.pass_begins + least).max(now);
        self.pass += 1;
        self.next_position = 0;
    }

    /// When the address at the current place has had the time to answer the first question about it: the
    /// second pass has fewer to ask and so comes to it sooner.
    fn ready_at(&self) -> Timestamp {
        if self.mode != ScheduleMode::Sweep || self.pass == 0 {
            return Timestamp::ZERO;
        }
        let (began, took) = self.first_pass;
        let share = f64::from(self.next_position + 1) / f64::from(self.total);
        began + took.mul_f64(share.min(1.0)) + self.wait
    }

    fn is_last_pass_over(&self, now: Timestamp) -> bool {
        match self.mode {
            ScheduleMode::Burst => self.pass >= ROUNDS,
            ScheduleMode::Sweep => self.pass >= PASSES,
            // The last question gets the time for its answer, unless nobody would be asked at all.
            ScheduleMode::Watch { until } => {
                now >= until || now + self.wait > until && self.sent > 0
            }
        }
    }

    /// Asks as soon as the pace allows it.
    fn wait_for_rate(
        &mut self,
        now: Timestamp,
        number: u32,
        done: impl FnOnce(&mut Self),
    ) -> ScheduleAction {
        if now < self.free_at {
            return ScheduleAction::Wait(self.free_at);
        }
        let slack = if self.interval < LAG_RATE_THRESHOLD {
            MAX_LAG
        } else {
            Duration::ZERO
        };
        self.free_at = self.free_at.max(now - slack) + self.interval;
        done(self);
        self.count(number, now);
        ScheduleAction::Probe(number)
    }

    fn count(&mut self, number: u32, now: Timestamp) {
        if let Some(asked) = self.asked.get_mut(number as usize) {
            self.ever_asked += u32::from(*asked == 0);
            *asked = asked.saturating_add(1);
        }
        self.sent += 1;
        self.last_asked = now;
    }

    fn has_recent_foreign_probe(&self, number: u32, now: Timestamp) -> bool {
        let probed = self.probed.peek(&number);
        probed.is_some_and(|at| now.since(*at) < PROBE_MEMORY)
    }

    /// Leaves an address alone: while watching until the next round, else for as long as it takes.
    fn defer(&mut self, number: u32) {
        if matches!(self.mode, ScheduleMode::Watch { .. }) {
            return;
        }
        let deferred = self
            .deferred
            .iter_mut()
            .find(|deferred| deferred.number == number);
        if let Some(deferred) = deferred {
            deferred.rounds += 1;
        } else if let Some(at) = self.probed.peek(&number) {
            self.deferred.push(DeferredTarget {
                number,
                due: *at + PROBE_MEMORY,
                rounds: 1,
                deferrals: 1,
            });
        }
    }

    /// A deferred address that may be asked about now. Those whose prober has asked again wait on, or are given
    /// up.
    fn due(&mut self, now: Timestamp) -> Option<usize> {
        for deferred in &mut self.deferred {
            let Some(at) = self.probed.peek(&deferred.number) else {
                continue;
            };
            let quiet_at = *at + PROBE_MEMORY;
            if deferred.due <= now && quiet_at > now {
                deferred.due = quiet_at;
                deferred.deferrals += 1;
            }
        }
        self.deferred
            .retain(|deferred| deferred.deferrals <= MAX_DEFERRALS);
        let mut places = self.deferred.iter();
        places.position(|deferred| deferred.due <= now)
    }

    fn take_deferred(&mut self, next_position: usize, now: Timestamp) {
        let deferred = &mut self.deferred[next_position];
        deferred.rounds -= 1;
        deferred.due = now + ROUND;
        if deferred.rounds == 0 {
            self.deferred.swap_remove(next_position);
        }
    }

    fn earliest_deferred(&self, at: Timestamp) -> Timestamp {
        let due = self.deferred.iter().map(|deferred| deferred.due);
        due.fold(at, Timestamp::min)
    }
}

#[cfg(test)]
mod tests;
