//! The path of one frame: parse, count, decide, emit.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::warn;
use probe_common::{
    counter::{Counter, Counters, Outcome},
    event::{ArpEvent, Hook, Sighting},
    event_filter::{
        self, AddressKey, AskedState, Bucket, FilterStep, Rate, SECOND_NS, Settings, Verdict,
    },
    parse::{FrameBytes, Parsed, parse},
    wire::{ArpFrame, Kind, Operation, VlanTag},
};

use crate::maps::{self, MapValue, Ring};

/// The rate of log lines per CPU: once a minute, because they report a misconfiguration.
const LOG_RATE: Rate = Rate {
    interval_ns: 60 * SECOND_NS,
    ahead_ns: 0,
};

/// Observes one frame. A frame that is not ARP costs one comparison.
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

/// A well-formed ARP frame and its context.
struct Observer<'a, C> {
    ctx: &'a C,
    frame: &'a ArpFrame,
    ifindex: u32,
    hook: Hook,
    now_ns: u64,
    settings: MapValue<Settings>,
}

impl<C: EbpfContext> Observer<'_, C> {
    #[inline(always)]
    fn observe(&self, counters: MapValue<Counters>) {
        let (kind, outcome) = if let Some(reason) = self.frame.bogus() {
            counters.increment(Counter::Bogus(reason));
            (Kind::Bogus, self.bogus())
        } else if self.frame.spa == [0; 4] {
            counters.increment(Counter::Probes);
            (Kind::Probe, self.probe())
        } else {
            counters.increment(Counter::Claims);
            if event_filter::is_question(self.frame) && self.watches(self.frame.tpa) {
                self.record_request();
            }
            (Kind::Claim, self.claim())
        };
        counters.increment(Counter::Outcome(kind, outcome));
    }

    /// A bogus frame changes no state but its token bucket.
    #[inline(always)]
    fn bogus(&self) -> Outcome {
        if !self.watches(self.frame.subject()) {
            return Outcome::Filtered;
        }
        let Some(buckets) = maps::buckets() else {
            return Outcome::RateLimited;
        };
        let rate = self.settings.get().bogus;
        if buckets.update(|buckets| buckets.bogus.take(rate, self.now_ns)) {
            self.emit(Kind::Bogus, Sighting::default(), 0)
        } else {
            Outcome::RateLimited
        }
    }

    #[inline(always)]
    fn probe(&self) -> Outcome {
        if !self.watches(self.frame.tpa) {
            return Outcome::Filtered;
        }
        let (Some(request), Some(buckets)) = (self.record_request(), maps::buckets()) else {
            return Outcome::RateLimited;
        };
        let settings = self.settings.get();
        let verdict = buckets.update(|buckets| {
            let bucket = &mut buckets.probe;
            request
                .update(|request| request.judge_probe(self.frame, self.now_ns, bucket, &settings))
        });
        match verdict {
            Verdict::Unchanged => Outcome::Unchanged,
            Verdict::RateLimited => Outcome::RateLimited,
            Verdict::Emit | Verdict::Refresh => {
                let outcome = self.emit(Kind::Probe, Sighting::default(), 0);
                if matches!(outcome, Outcome::Emitted) {
                    request.update(|request| request.probe_emitted(self.frame, self.now_ns));
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
        let (sighting, answers_probe) = self.sighting(&state.request().get());
        let settings = self.settings.get();
        let before = state.get();
        let previous = state.previous(before.is_duplicate_reply(&sighting));
        let verdict = match before.filter_step(&sighting, answers_probe, &settings) {
            FilterStep::Decided(verdict) => verdict,
            FilterStep::NeedsToken(class) => {
                let rate = settings.change;
                let take = |bucket: &mut Bucket| bucket.take(rate, self.now_ns);
                Verdict::of_change(state.change_bucket(class).update(take))
            }
        };
        let outcome = match verdict {
            Verdict::Unchanged => Outcome::Unchanged,
            Verdict::RateLimited => Outcome::RateLimited,
            Verdict::Emit => self.emit(Kind::Claim, previous.get(), sighting.request_ns),
            Verdict::Refresh => {
                let event = self.event(Kind::Claim, previous.get(), sighting.request_ns);
                submit(event, maps::refresh_ring())
            }
        };
        state.update(|state| state.record(sighting, verdict));
        if matches!(outcome, Outcome::Emitted) {
            state.update(|state| state.emitted(sighting));
        }
        outcome
    }

    /// This claim with the request that it replies to, and whether that was an ARP probe.
    #[inline(always)]
    fn sighting(&self, asked: &AskedState) -> (Sighting, bool) {
        let (request_ns, answers_probe) = asked
            .answered_by(self.frame, self.now_ns)
            .unwrap_or((0, false));
        let direction = self.hook.direction();
        let sighting = Sighting::of(self.frame, direction, self.now_ns, request_ns);
        (sighting, answers_probe)
    }

    /// A claim on an address without state. Above the rate limit it is not stored, so that a flood of random
    /// addresses neither costs an insertion each nor evicts other addresses.
    #[inline(always)]
    fn first_claim(&self, key: &AddressKey) -> Outcome {
        let Some(buckets) = maps::buckets() else {
            return Outcome::RateLimited;
        };
        let rate = self.settings.get().new_address;
        if !buckets.update(|buckets| buckets.new_address.take(rate, self.now_ns)) {
            return Outcome::RateLimited;
        }
        let asked = maps::request(key).map_or_else(AskedState::default, MapValue::get);
        let (sighting, _) = self.sighting(&asked);
        let state = maps::insert_claim(key);
        if let Some(state) = state {
            state.request().set(asked);
            state.update(|state| state.record(sighting, Verdict::Emit));
        }
        let outcome = self.emit(Kind::Claim, Sighting::NONE, sighting.request_ns);
        if let Some(state) = state
            && matches!(outcome, Outcome::Emitted)
        {
            state.update(|state| state.emitted(sighting));
        }
        outcome
    }

    /// Records the request for the target address: in the state of its claims, if there are any.
    #[inline(always)]
    fn record_request(&self) -> Option<MapValue<AskedState>> {
        let key = self.key(self.frame.tpa);
        let known = match maps::claim(&key) {
            Some(state) => Some(state.request()),
            None => maps::request(&key),
        };
        if let Some(request) = known {
            request.update(|request| request.ask(self.frame, self.now_ns));
            return Some(request);
        }
        maps::insert_request(&key, &AskedState::new(self.frame, self.now_ns));
        maps::request(&key)
    }

    #[inline(always)]
    fn watches(&self, address: [u8; 4]) -> bool {
        self.settings.get().filter == 0 || maps::filter_contains(address)
    }

    #[inline(always)]
    fn key(&self, address: [u8; 4]) -> AddressKey {
        AddressKey {
            ifindex: self.ifindex,
            vlan: self.frame.vlan(),
            address,
        }
    }

    /// Emits the frame as a change event.
    #[inline(always)]
    fn emit(&self, kind: Kind, previous: Sighting, request_ns: u64) -> Outcome {
        let Some(ring) = maps::change_ring() else {
            self.warn_of_missing_ring();
            return Outcome::RingFull;
        };
        submit(self.event(kind, previous, request_ns), ring)
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

    /// Logs that this CPU has no ring because it came online after the rings were created.
    #[inline(always)]
    fn warn_of_missing_ring(&self) {
        if let Some(buckets) = maps::buckets()
            && buckets.update(|buckets| buckets.log.take(LOG_RATE, self.now_ns))
        {
            warn!(
                self.ctx,
                "this CPU has no ring: its events are counted as ring_full"
            );
        }
    }
}

/// Submits an event to a ring. The kernel wakes user space if the ring was empty.
#[inline(always)]
fn submit(event: ArpEvent, ring: &Ring) -> Outcome {
    let Some(mut entry) = ring.reserve(0) else {
        return Outcome::RingFull;
    };
    entry.write(event);
    entry.submit(0);
    Outcome::Emitted
}
