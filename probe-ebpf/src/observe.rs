//! The path of one frame: parse, count, decide, emit.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::warn;
use probe_common::{
    counter::{Counter, Counters, Outcome},
    economy::{self, AddressKey, AskedState, ClaimState, Rate, SECOND_NS, Settings, Verdict},
    event::{ArpEvent, Hook, Sighting},
    parse::{FrameBytes, Parsed, parse},
    wire::{ArpFrame, Kind, Operation, VlanTag},
};

use crate::maps;

/// A kernel-side log line is for what should never happen: once a minute and CPU is plenty.
const LOG_RATE: Rate = Rate {
    interval_ns: 60 * SECOND_NS,
    ahead_ns: 0,
};

/// Observes one frame. Everything that is not ARP leaves after one comparison.
#[inline(always)]
pub fn frame<B: FrameBytes, C: EbpfContext>(
    bytes: &B,
    ctx: &C,
    stripped: VlanTag,
    ifindex: u32,
    hook: Hook,
) {
    let parsed = parse(bytes, stripped);
    if matches!(parsed, Parsed::NotArp) {
        return;
    }
    let (Some(counters), Some(settings)) =
        (maps::counters(ifindex, hook.direction()), maps::settings())
    else {
        return;
    };
    match parsed {
        Parsed::NotArp => {}
        Parsed::Malformed(reason) => {
            counters.increment(Counter::Frames(Operation::Other));
            counters.increment(Counter::Malformed(reason));
        }
        Parsed::Arp(frame) => {
            counters.increment(Counter::Frames(frame.operation()));
            // SAFETY: the helper only reads the clock.
            let now_ns = unsafe { bpf_ktime_get_ns() };
            Observer {
                ctx,
                frame: &frame,
                ifindex,
                hook,
                now_ns,
                settings,
            }
            .observe(counters);
        }
    }
}

/// A well-formed ARP frame and its circumstances.
struct Observer<'a, C> {
    ctx: &'a C,
    frame: &'a ArpFrame,
    ifindex: u32,
    hook: Hook,
    now_ns: u64,
    settings: &'a Settings,
}

impl<C: EbpfContext> Observer<'_, C> {
    #[inline(always)]
    fn observe(&self, counters: &mut Counters) {
        let (kind, outcome) = if let Some(reason) = self.frame.bogus() {
            counters.increment(Counter::Bogus(reason));
            (Kind::Bogus, self.bogus())
        } else if self.frame.spa == [0; 4] {
            counters.increment(Counter::Probes);
            (Kind::Probe, self.probe())
        } else {
            counters.increment(Counter::Claims);
            if economy::is_question(self.frame) && self.watches(self.frame.tpa) {
                self.remember_question();
            }
            (Kind::Claim, self.claim())
        };
        counters.increment(Counter::Outcome(kind, outcome));
    }

    /// A bogus frame touches no state but its budget.
    #[inline(always)]
    fn bogus(&self) -> Outcome {
        if !self.watches(self.frame.subject()) {
            return Outcome::Filtered;
        }
        let Some(buckets) = maps::buckets() else {
            return Outcome::RateLimited;
        };
        if buckets.bogus.take(self.settings.bogus, self.now_ns) {
            self.tell(Kind::Bogus, Sighting::default(), 0)
        } else {
            Outcome::RateLimited
        }
    }

    #[inline(always)]
    fn probe(&self) -> Outcome {
        if !self.watches(self.frame.tpa) {
            return Outcome::Filtered;
        }
        let (Some(asked), Some(buckets)) = (self.remember_question(), maps::buckets()) else {
            return Outcome::RateLimited;
        };
        match asked.judge_probe(self.frame, self.now_ns, &mut buckets.probe, self.settings) {
            Verdict::Unchanged => Outcome::Unchanged,
            Verdict::RateLimited => Outcome::RateLimited,
            Verdict::Emit | Verdict::Refresh => {
                let outcome = self.tell(Kind::Probe, Sighting::default(), 0);
                if matches!(outcome, Outcome::Emitted) {
                    asked.probe_emitted(self.frame, self.now_ns);
                }
                outcome
            }
        }
    }

    #[inline(always)]
    fn claim(&self) -> Outcome {
        if !self.watches(self.frame.spa) {
            return Outcome::Filtered;
        }
        let key = self.key(self.frame.spa);
        let Some(state) = maps::claim(&key) else {
            return self.first_claim(&key);
        };
        let (sighting, answers_probe) = self.sighting(&state.asked);
        let previous = state.seen();
        let outcome = match state.judge(sighting, answers_probe, self.settings) {
            Verdict::Unchanged => return Outcome::Unchanged,
            Verdict::RateLimited => return Outcome::RateLimited,
            Verdict::Emit => self.tell(Kind::Claim, previous, sighting.request_ns),
            Verdict::Refresh => {
                let event = self.event(Kind::Claim, previous, sighting.request_ns);
                put(event, maps::refreshes())
            }
        };
        if matches!(outcome, Outcome::Emitted) {
            state.emitted(sighting);
        }
        outcome
    }

    /// This claim, tied to the request that it answers, and whether that was an ARP probe.
    #[inline(always)]
    fn sighting(&self, asked: &AskedState) -> (Sighting, bool) {
        let (request_ns, answers_probe) = asked
            .answered_by(self.frame, self.now_ns)
            .unwrap_or((0, false));
        let direction = self.hook.direction();
        let sighting = Sighting::of(self.frame, direction, self.now_ns, request_ns);
        (sighting, answers_probe)
    }

    /// A claim on an address not seen before. Out of budget it is not even remembered, so that a flood of
    /// random addresses neither costs an insertion each nor evicts the addresses that matter.
    #[inline(always)]
    fn first_claim(&self, key: &AddressKey) -> Outcome {
        let Some(buckets) = maps::buckets() else {
            return Outcome::RateLimited;
        };
        if !buckets
            .new_address
            .take(self.settings.new_address, self.now_ns)
        {
            return Outcome::RateLimited;
        }
        let asked = maps::asked(key).map_or_else(AskedState::default, |asked| *asked);
        let (sighting, _) = self.sighting(&asked);
        let mut state = ClaimState::new(sighting, asked);
        let outcome = self.tell(Kind::Claim, Sighting::default(), sighting.request_ns);
        if matches!(outcome, Outcome::Emitted) {
            state.emitted(sighting);
        }
        maps::insert_claim(key, &state);
        outcome
    }

    /// Remembers who asked for the target address: with the claims on it, if there are any.
    #[inline(always)]
    fn remember_question(&self) -> Option<&'static mut AskedState> {
        let key = self.key(self.frame.tpa);
        let known = match maps::claim(&key) {
            Some(state) => Some(&mut state.asked),
            None => maps::asked(&key),
        };
        if let Some(asked) = known {
            asked.ask(self.frame, self.now_ns);
            return Some(asked);
        }
        maps::insert_asked(&key, &AskedState::new(self.frame, self.now_ns));
        maps::asked(&key)
    }

    #[inline(always)]
    fn watches(&self, address: [u8; 4]) -> bool {
        self.settings.filter == 0 || maps::filter_lists(address)
    }

    #[inline(always)]
    fn key(&self, address: [u8; 4]) -> AddressKey {
        AddressKey {
            ifindex: self.ifindex,
            vlan: self.frame.vlan(),
            address,
        }
    }

    /// Tells user space at once.
    #[inline(always)]
    fn tell(&self, kind: Kind, previous: Sighting, request_ns: u64) -> Outcome {
        let Some(ring) = maps::news() else {
            self.warn_of_missing_ring();
            return Outcome::RingFull;
        };
        put(self.event(kind, previous, request_ns), ring)
    }

    #[inline(always)]
    fn event(&self, kind: Kind, previous: Sighting, request_ns: u64) -> ArpEvent {
        ArpEvent {
            ktime_ns: self.now_ns,
            request_ns,
            previous,
            ifindex: self.ifindex,
            kind: kind.number(),
            hook: self.hook.number(),
            frame: *self.frame,
        }
    }

    /// Says that this CPU has no ring: it came online after the rings were made.
    #[inline(always)]
    fn warn_of_missing_ring(&self) {
        if let Some(buckets) = maps::buckets()
            && buckets.log.take(LOG_RATE, self.now_ns)
        {
            warn!(
                self.ctx,
                "this CPU has no ring: what it sees is counted as ring_full"
            );
        }
    }
}

/// Puts an event into a ring. The kernel wakes user space if it had emptied the ring before.
#[inline(always)]
fn put(event: ArpEvent, ring: &maps::Ring) -> Outcome {
    let Some(mut entry) = ring.reserve(0) else {
        return Outcome::RingFull;
    };
    entry.write(event);
    entry.submit(0);
    Outcome::Emitted
}
