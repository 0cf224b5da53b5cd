//! Decides which address is probed when; pure, the caller passes the time.

use std::time::Duration;

use fixedbitset::FixedBitSet;
use lru::LruCache;
use probe_common::wire::MacAddr;
use probe_detect::ForeignProbes;
use probe_model::Timestamp;

use super::shuffle::AddressPermutation;

/// The maximum number of stored addresses that other hosts probe.
const FOREIGN_PROBE_TABLE: usize = 65_536;

/// The time between two rounds for up to [`CheckSchedule::FEW_TARGETS`] addresses.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds for up to [`CheckSchedule::FEW_TARGETS`] addresses.
const ROUNDS: u32 = 3;
/// Frames for up to [`CheckSchedule::FEW_TARGETS`] addresses that may be sent within a second at any rate: fewer than
/// the 15 above which a switch with Dynamic ARP Inspection shuts a port, because this host sends other ARP frames, too.
const BURST: u32 = 12;

/// Rounds of a sweep: the second probes addresses without a reply again, because a frame can get lost.
const PASSES: u32 = 2;

/// The time between two rounds of watching.
const WATCH_ROUND: Duration = Duration::from_secs(1);

/// The maximum delay of a timer that is compensated, at rates at which that causes no burst.
const MAX_LAG: Duration = Duration::from_millis(10);
const LAG_RATE_THRESHOLD: Duration = Duration::from_millis(20);

/// The time until a frame that could not be queued is sent again.
const RETRY: Duration = Duration::from_millis(5);

/// The order and number of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleMode {
    /// Several rounds within a second, for few addresses.
    Burst,
    /// One address after the other; those without a reply twice.
    Sweep,
    /// Round after round until a time.
    Watch {
        /// The end.
        until: Timestamp,
    },
}

/// The next action of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleAction {
    /// Probe for the address with this number.
    Probe(u32),
    /// Wait until this time, or until a frame is received.
    Wait(Timestamp),
    /// The schedule is complete.
    Done,
}

/// Decides which address is probed next, and when.
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
    /// When the first pass began, and how long it took.
    first_pass: (Timestamp, Duration),
    /// When the rate allows the next frame.
    free_at: Timestamp,
    /// Frames that remain for a burst.
    burst: u32,
    last_sent: Timestamp,
    unsent: Option<u32>,
    sent_to: Vec<u16>,
    replied: FixedBitSet,
    probed: LruCache<u32, ForeignProbes>,
    deferred: Vec<DeferredTarget>,
    ever_sent: u32,
    sent: u64,
}

/// An address whose probes are deferred.
#[derive(Clone, Copy, Debug)]
struct DeferredTarget {
    number: u32,
    due: Timestamp,
    /// Rounds that are missing.
    rounds: u32,
}

impl CheckSchedule {
    /// The most addresses that are probed in a burst.
    pub const FEW_TARGETS: u32 = 10;

    /// A schedule for `total` addresses that begins now, at `rate` frames a second, with `wait` for the last reply.
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
            last_sent: now,
            unsent: None,
            sent_to: vec![0; total as usize],
            replied: FixedBitSet::with_capacity(total as usize),
            probed: LruCache::unbounded(),
            deferred: Vec::new(),
            ever_sent: 0,
            sent: 0,
        }
    }

    /// The action that is due now. A probe that it returns counts as sent.
    pub fn next(&mut self, now: Timestamp) -> ScheduleAction {
        if let Some(number) = self.unsent {
            return self.wait_for_rate(now, number, |schedule| schedule.unsent = None);
        }
        if let Some(index) = self.due(now) {
            let number = self.deferred[index].number;
            return self.wait_for_rate(now, number, |schedule| {
                schedule.take_deferred(index, now);
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
            if self.has_booting_host(number, now) {
                self.defer(number, now);
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
            ScheduleMode::Burst | ScheduleMode::Sweep => self.last_sent + self.wait,
        };
        if now < end {
            ScheduleAction::Wait(end)
        } else {
            ScheduleAction::Done
        }
    }

    /// A host replied for this address.
    pub fn record_reply(&mut self, number: u32) {
        self.replied.set(number as usize, true);
    }

    /// Another host sent an ARP probe for this address, as a booting host does.
    pub fn record_foreign_probe(&mut self, number: u32, prober: MacAddr, now: Timestamp) {
        let known = self.probed.peek(&number);
        let probes = known.map_or(ForeignProbes::new(prober, now), |probes| {
            probes.with_probe(prober, now)
        });
        self.probed.put(number, probes);
        if self.probed.len() > FOREIGN_PROBE_TABLE {
            self.probed.pop_lru();
        }
    }

    /// The host that sent ARP probes for this address last.
    pub fn foreign_prober(&self, number: u32) -> Option<MacAddr> {
        self.probed.peek(&number).map(|probes| probes.prober)
    }

    /// The probe for this address was not sent: it is sent again soon.
    pub fn not_sent(&mut self, number: u32, now: Timestamp) {
        if let Some(probes) = self.sent_to.get_mut(number as usize) {
            *probes = probes.saturating_sub(1);
            self.ever_sent -= u32::from(*probes == 0);
        }
        self.sent -= 1;
        self.unsent = Some(number);
        self.free_at = now + RETRY;
    }

    /// The number of probes sent for this address.
    pub fn probes_sent(&self, number: u32) -> u32 {
        self.sent_to
            .get(number as usize)
            .copied()
            .unwrap_or(0)
            .into()
    }

    /// The number of probed addresses.
    pub fn addresses_probed(&self) -> u32 {
        self.ever_sent
    }

    /// The number of frames sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of addresses that are deferred because another host may be booting with them.
    pub fn waiting(&self) -> usize {
        self.deferred.len()
    }

    /// The remaining time, if the share of addresses without a reply stays the same.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let per_pass = |probes: u32| self.interval * probes;
        match self.mode {
            ScheduleMode::Watch { until } => until.since(now),
            ScheduleMode::Burst => ROUND * (ROUNDS - self.pass.min(ROUNDS)) + self.wait,
            ScheduleMode::Sweep => {
                let ending = (self.last_sent + self.wait).since(now);
                let here = per_pass(self.total.saturating_sub(self.next_position));
                match self.pass {
                    0 => here + per_pass(self.without_reply()) + self.wait,
                    1 => here.min(per_pass(self.without_reply())) + self.wait,
                    _ => ending,
                }
            }
        }
    }

    /// The estimated number of addresses without a reply, by their share so far.
    fn without_reply(&self) -> u32 {
        let replied = u64::try_from(self.replied.count_ones(..)).unwrap_or(u64::MAX);
        let probed = u64::from(self.ever_sent.max(1));
        let silent = probed.saturating_sub(replied) * u64::from(self.total) / probed;
        u32::try_from(silent).unwrap_or(self.total)
    }

    /// The number at the current position of the pass, unless the pass is over.
    fn current(&mut self) -> Option<u32> {
        // In a burst, each round but the first probes addresses without a reply first, as long as frames remain.
        let halves = if self.mode == ScheduleMode::Burst && self.pass > 0 {
            2
        } else {
            1
        };
        while self.next_position < self.total.saturating_mul(halves) {
            let number = self.order.at(self.next_position % self.total);
            let replied = self.replied.contains(number as usize);
            let is_due = match self.mode {
                ScheduleMode::Watch { .. } => true,
                ScheduleMode::Sweep => self.pass == 0 || !replied,
                ScheduleMode::Burst => halves == 1 || replied == (self.next_position >= self.total),
            };
            if is_due {
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

    /// When the first probe for the address at the current position had enough time for a reply: the second pass has
    /// fewer addresses and so reaches it sooner.
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
            // The last probe needs time for its reply, unless none would be sent at all.
            ScheduleMode::Watch { until } => {
                now >= until || now + self.wait > until && self.sent > 0
            }
        }
    }

    /// Sends a probe as soon as the rate allows it.
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
        if let Some(probes) = self.sent_to.get_mut(number as usize) {
            self.ever_sent += u32::from(*probes == 0);
            *probes = probes.saturating_add(1);
        }
        self.sent += 1;
        self.last_sent = now;
    }

    /// The time until which a booting host would take a probe for that of a conflicting host.
    fn quiet_until(&self, number: u32, now: Timestamp) -> Option<Timestamp> {
        self.probed.peek(&number)?.quiet_until(now)
    }

    fn has_booting_host(&self, number: u32, now: Timestamp) -> bool {
        self.quiet_until(number, now).is_some()
    }

    /// Defers an address: while watching until the next round, else until no host is booting with it.
    fn defer(&mut self, number: u32, now: Timestamp) {
        if matches!(self.mode, ScheduleMode::Watch { .. }) {
            return;
        }
        let deferred = self
            .deferred
            .iter_mut()
            .find(|deferred| deferred.number == number);
        if let Some(deferred) = deferred {
            deferred.rounds += 1;
        } else if let Some(due) = self.quiet_until(number, now) {
            self.deferred.push(DeferredTarget {
                number,
                due,
                rounds: 1,
            });
        }
    }

    /// A deferred address that may be probed now. It waits on if the other host has probed again and may be booting,
    /// which lasts for a few of its probes at most.
    fn due(&mut self, now: Timestamp) -> Option<usize> {
        for deferred in &mut self.deferred {
            let probes = self.probed.peek(&deferred.number);
            if deferred.due <= now
                && let Some(until) = probes.and_then(|probes| probes.quiet_until(now))
            {
                deferred.due = until;
            }
        }
        let mut targets = self.deferred.iter();
        targets.position(|deferred| deferred.due <= now)
    }

    fn take_deferred(&mut self, index: usize, now: Timestamp) {
        let deferred = &mut self.deferred[index];
        deferred.rounds -= 1;
        deferred.due = now + ROUND;
        if deferred.rounds == 0 {
            self.deferred.swap_remove(index);
        }
    }

    fn earliest_deferred(&self, at: Timestamp) -> Timestamp {
        let due = self.deferred.iter().map(|deferred| deferred.due);
        due.fold(at, Timestamp::min)
    }
}

#[cfg(test)]
mod tests;
